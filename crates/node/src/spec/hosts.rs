//! A pod's names and its managed `/etc/hosts`.

use k8s_openapi::api::core::v1::HostAlias;

use crate::pod::model::PodModel;

/// Longest host name the kernel takes.
const MAX_HOSTNAME: usize = 63;

/// Host name inside the pod and its domain (empty without a subdomain).
#[must_use]
pub fn host_name(model: &PodModel, cluster_domain: &str) -> (String, String) {
    let Some(spec) = model.spec() else {
        return (model.name().to_owned(), String::new());
    };
    if let Some(name) = spec
        .hostname_override
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        return (name.to_owned(), String::new());
    }
    let given = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let mut name = given.unwrap_or(model.name()).to_owned();
    if name.len() > MAX_HOSTNAME {
        name.truncate(MAX_HOSTNAME);
        name.truncate(name.trim_end_matches(['-', '.']).len());
    }
    let domain = match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", model.namespace()),
        None => String::new(),
    };
    (name, domain)
}

/// What `hostname` prints inside: the fully qualified name when the pod asks for it.
///
/// # Errors
/// When the qualified name is longer than the kernel takes.
pub fn uts_name(model: &PodModel, cluster_domain: &str) -> Result<String, String> {
    let (name, domain) = host_name(model, cluster_domain);
    let qualified = model.spec().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    if !qualified || domain.is_empty() {
        return Ok(name);
    }
    let full = format!("{name}.{domain}");
    if full.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too \
             long (64 characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The file for a pod with its own network.
#[must_use]
pub fn managed_hosts(ips: &[String], name: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{name}\n"));
        } else {
            out.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n"));
        }
    }
    out.push_str(&alias_lines(aliases));
    out
}

/// The file for a pod on the host's network: the node's own with the aliases.
#[must_use]
pub fn node_hosts(host_file: &str, aliases: &[HostAlias]) -> String {
    format!(
        "# Kubernetes-managed hosts file (host network).\n{host_file}{}",
        alias_lines(aliases)
    )
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}
