//! resolv.conf by `dnsPolicy` and `dnsConfig`.

use std::net::IpAddr;

use evenkeel_runtime::DnsConfig;

use crate::pod::model::PodModel;

/// Longest list of name servers that resolvers read.
const MAX_SERVERS: usize = 3;
/// Longest list of search domains.
const MAX_SEARCHES: usize = 32;

/// What the cluster and the node offer.
#[derive(Debug, Clone, Default)]
pub struct DnsFacts {
    /// Cluster DNS servers; none leads to the node's own, as kubelet does.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The node's resolv.conf.
    pub host: DnsConfig,
}

/// Reads a resolv.conf.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            Some("search") => out.searches = words.map(str::to_owned).collect(),
            Some("options") => out.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    out
}

/// The resolv.conf of a pod.
#[must_use]
pub fn resolve(model: &PodModel, facts: &DnsFacts) -> DnsConfig {
    let spec = model.spec();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let mut cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !model.host_network(),
        _ => false,
    };
    cluster &= !facts.cluster_dns.is_empty();
    let mut out = if policy == "None" {
        DnsConfig::default()
    } else if cluster {
        cluster_first(model, facts)
    } else {
        facts.host.clone()
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        merge(&mut out.servers, own.nameservers.iter().flatten().cloned());
        merge(&mut out.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            out.options
                .retain(|have| have.split(':').next() != Some(name));
            out.options.push(
                match option.value.as_deref().filter(|value| !value.is_empty()) {
                    Some(value) => format!("{name}:{value}"),
                    None => name.clone(),
                },
            );
        }
    }
    out.servers.truncate(MAX_SERVERS);
    out.searches.truncate(MAX_SEARCHES);
    out
}

fn cluster_first(model: &PodModel, facts: &DnsFacts) -> DnsConfig {
    let domain = &facts.cluster_domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches.push(format!("{}.svc.{domain}", model.namespace()));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.clone());
    }
    merge(&mut searches, facts.host.searches.iter().cloned());
    DnsConfig {
        servers: facts.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn merge(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}
