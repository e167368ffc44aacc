//! Pod links and addresses, service routing by nftables, DNS.
