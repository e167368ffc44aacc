//! The kinds in which addresses are declared: `IPAddressPool` and `L2Advertisement` of
//! `metallb.io/v1beta1`, with the fields that the field's users know from there.
//!
//! They are custom resources with definitions that this loop makes when they are not there. A
//! definition that somebody else wrote stays as it is: what is read here is the published shape.

use evenkeel_client::custom_kind;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The API group of both kinds.
pub const GROUP: &str = "metallb.io";
/// The version that is read.
pub const VERSION: &str = "v1beta1";

/// Addresses that services may have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AddressPool {
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was declared.
    #[serde(default)]
    pub spec: PoolSpec,
    /// How much of it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PoolStatus>,
}

/// `status` of an `IPAddressPool`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolStatus {
    /// IPv4 addresses that services have.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// IPv6 addresses that services have.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses that nobody has.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses that nobody has.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// `spec` of an `IPAddressPool`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Networks (`192.0.2.0/28`) and ranges (`192.0.2.1-192.0.2.9`).
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Services that name no pool get addresses of this one; unset means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Leave out addresses that end in .0 or .255.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Which services the pool is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<Allocation>,
}

/// Which services a pool is for, and before which other pools.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Lower comes first; 0 or unset comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Namespaces by label; any may match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by label; any may match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

/// How addresses are announced on the link.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Advertisement {
    /// Name and namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was declared.
    #[serde(default)]
    pub spec: AdvertisementSpec,
}

/// `spec` of an `L2Advertisement`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// Pools by name; with no name and no selector: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// Pools by label; any may match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes that may announce; any may match, none means all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Services that are announced; any may match, none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
    /// Interfaces by name; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

custom_kind!(
    AddressPool,
    NamespaceResourceScope,
    GROUP,
    VERSION,
    "IPAddressPool",
    "ipaddresspools"
);
custom_kind!(
    Advertisement,
    NamespaceResourceScope,
    GROUP,
    VERSION,
    "L2Advertisement",
    "l2advertisements"
);

fn selectors(about: &str) -> Value {
    json!({
        "type": "array", "description": about,
        "items": {
            "type": "object", "x-kubernetes-map-type": "atomic",
            "properties": {
                "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
                "matchExpressions": {
                    "type": "array", "x-kubernetes-list-type": "atomic",
                    "items": {
                        "type": "object", "required": ["key", "operator"],
                        "properties": {
                            "key": {"type": "string"},
                            "operator": {"type": "string"},
                            "values": {
                                "type": "array", "x-kubernetes-list-type": "atomic",
                                "items": {"type": "string"},
                            },
                        },
                    },
                },
            },
        },
    })
}

fn names(about: &str) -> Value {
    json!({"type": "array", "description": about, "items": {"type": "string"}})
}

fn definition(kind: &str, plural: &str, columns: &Value, about: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": kind.to_lowercase(),
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "description": about, "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec,
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
            }],
        },
    })
}

/// The definitions of both kinds.
#[must_use]
pub fn definitions() -> [Value; 2] {
    // What an address list may hold is checked at the door, so that a mistake is told to whoever
    // makes it and not to whoever wants an address.
    // Parsing both ends of a range would cost more than a definition may, so that IPv4 is spelt out
    // here, and what remains (IPv6, and ends in the wrong order) is told in the pool's status.
    let octet = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])";
    let v4 = format!("({octet}[.]){{3}}{octet}");
    let v6 = "[0-9A-Fa-f]*:[0-9A-Fa-f:.]+";
    let rule = format!("isCIDR(self) || self.matches('^({v4} *- *{v4}|{v6} *- *{v6})$')");
    let pool = json!({
        "type": "object", "required": ["addresses"],
        "properties": {
            "addresses": {
                "type": "array", "minItems": 1, "maxItems": 256,
                "description": "Networks and ranges: 192.0.2.0/28, 192.0.2.1-192.0.2.9.",
                "items": {
                    "type": "string", "maxLength": 96,
                    "x-kubernetes-validations": [{
                        "rule": rule,
                        "message": "must be a network (192.0.2.0/28) or a range (192.0.2.1-192.0.2.9)",
                    }],
                },
            },
            "autoAssign": {
                "type": "boolean", "default": true,
                "description": "Services that name no pool get addresses of this one.",
            },
            "avoidBuggyIPs": {
                "type": "boolean", "default": false,
                "description": "Leave out addresses that end in .0 or .255.",
            },
            "serviceAllocation": {
                "type": "object", "description": "Which services the pool is for.",
                "properties": {
                    "priority": {"type": "integer", "description": "Lower comes first; 0 comes last."},
                    "namespaces": names("Namespaces by name."),
                    "namespaceSelectors": selectors("Namespaces by label; any may match."),
                    "serviceSelectors": selectors("Services by label; any may match."),
                },
            },
        },
    });
    let advertisement = json!({
        "type": "object",
        "properties": {
            "ipAddressPools": names("Pools by name; with no name and no selector: all."),
            "ipAddressPoolSelectors": selectors("Pools by label; any may match."),
            "nodeSelectors": selectors("Nodes that may announce; none means all."),
            "serviceSelectors": selectors("Services that are announced; none means all."),
            "interfaces": names("Interfaces on which addresses are announced; none means all."),
        },
    });
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    [
        definition(
            "IPAddressPool",
            "ipaddresspools",
            &json!([
                column("Auto Assign", "boolean", ".spec.autoAssign"),
                column("Avoid Buggy IPs", "boolean", ".spec.avoidBuggyIPs"),
                column("Addresses", "string", ".spec.addresses"),
            ]),
            "IPAddressPool declares addresses for services of type LoadBalancer.",
            &pool,
        ),
        definition(
            "L2Advertisement",
            "l2advertisements",
            &json!([
                column("IPAddressPools", "string", ".spec.ipAddressPools"),
                column("Interfaces", "string", ".spec.interfaces"),
            ]),
            "L2Advertisement says that addresses of pools are announced on the link.",
            &advertisement,
        ),
    ]
}
