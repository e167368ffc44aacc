//! Ingresses, network policies and the addresses of services, as `pkg/apis/networking` of the
//! reference.

mod addresses;
mod ingress;
mod policy;

pub use addresses::{IpAddresses, ServiceCidrs, ip_address_name};
pub use ingress::{IngressClasses, Ingresses};
pub use policy::NetworkPolicies;
