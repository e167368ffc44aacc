//! What who writes a service is warned of, in the reference's words.

use serde_json::Value;

use crate::object;
use crate::validation::{self, Cursor};

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";

/// The warnings about a service.
pub(super) fn of(service: &Value) -> Vec<String> {
    let mut out = Vec::new();
    if object::annotation(service, HINTS).is_some() {
        out.push(format!(
            "annotation {HINTS} is deprecated, please use {MODE} instead"
        ));
    }
    let spec = Cursor::root(service).child("spec");
    let kind = spec.text("type");
    let external = !spec.list("externalIPs").is_empty();
    let headless = kind == "ClusterIP" && spec.text("clusterIP") == "None";
    for ip in spec.items("clusterIPs") {
        let address = ip.value.as_str().unwrap_or_default();
        out.extend(validation::ip_warning(address, &ip.path));
    }
    if headless {
        for (is_set, field) in [
            (!spec.text("loadBalancerIP").is_empty(), "loadBalancerIP"),
            (external, "externalIPs"),
            // The reference writes this field with a capital here.
            (spec.text("sessionAffinity") != "None", "SessionAffinity"),
        ] {
            if is_set {
                out.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    for ip in spec.items("externalIPs") {
        let address = ip.value.as_str().unwrap_or_default();
        out.extend(validation::ip_warning(address, &ip.path));
    }
    if external && !headless && kind != "ExternalName" {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .to_owned(),
        );
    }
    let path = spec.at("loadBalancerIP");
    out.extend(validation::ip_warning(spec.text("loadBalancerIP"), &path));
    for range in spec.items("loadBalancerSourceRanges") {
        let network = range.value.as_str().unwrap_or_default();
        out.extend(validation::cidr_warning(network, &range.path));
    }
    if kind == "ExternalName" && external {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .to_owned(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn warned(spec: Value) -> Vec<String> {
        of(&json!({"spec": spec}))
    }

    #[test]
    fn what_has_no_effect_or_no_future_is_said() {
        assert_eq!(
            warned(
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "sessionAffinity": "None",
                "clusterIPs": ["10.96.0.7"]})
            ),
            [""; 0]
        );
        assert_eq!(
            warned(
                json!({"type": "ClusterIP", "externalIPs": ["1.2.3.4"], "externalName": "a.b",
                "trafficDistribution": "PreferClose"})
            ),
            [
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ]
        );
        assert_eq!(
            warned(
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"],
                "loadBalancerIP": "1.2.3.4", "externalIPs": ["1.2.3.4"],
                "sessionAffinity": "ClientIP"})
            ),
            [
                "spec.loadBalancerIP is ignored for headless services",
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ]
        );
        assert_eq!(
            warned(
                json!({"type": "LoadBalancer", "loadBalancerIP": "010.1.1.1",
                "loadBalancerSourceRanges": ["fd00:0::/64"]})
            ),
            [
                "spec.loadBalancerIP: non-standard IP address \"010.1.1.1\" is invalid: use \
                 \"10.1.1.1\"",
                "spec.loadBalancerSourceRanges[0]: IPv6 CIDR value \"fd00:0::/64\" should be in \
                 RFC 5952 canonical format (\"fd00::/64\")",
            ]
        );
    }
}
