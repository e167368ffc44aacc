//! Service environment variables (`enableServiceLinks`), in the names Docker links made common.

use std::collections::BTreeMap;

/// What the variables of a service are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its name.
    pub name: String,
    /// Its cluster address.
    pub cluster_ip: String,
    /// Port name (may be empty), number, protocol.
    pub ports: Vec<(String, i32, String)>,
}

/// Adds the variables of one service.
pub fn add(vars: &mut BTreeMap<String, String>, service: &ServiceFacts) {
    let prefix = variable(&service.name);
    let ip = &service.cluster_ip;
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.clone()
    };
    vars.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
    if let Some((_, port, protocol)) = service.ports.first() {
        vars.insert(format!("{prefix}_SERVICE_PORT"), port.to_string());
        let url = format!("{}://{host}:{port}", protocol.to_lowercase());
        vars.insert(format!("{prefix}_PORT"), url);
    }
    for (name, port, protocol) in &service.ports {
        if !name.is_empty() {
            vars.insert(
                format!("{prefix}_SERVICE_PORT_{}", variable(name)),
                port.to_string(),
            );
        }
        let lower = protocol.to_lowercase();
        let start = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        vars.insert(start.clone(), format!("{lower}://{host}:{port}"));
        vars.insert(format!("{start}_PROTO"), lower);
        vars.insert(format!("{start}_PORT"), port.to_string());
        vars.insert(format!("{start}_ADDR"), ip.clone());
    }
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
