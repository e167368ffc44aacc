//! Endpoints, endpoint slices and leases: what the loops write about services and nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::names::{self, NameRule};
use crate::object::{self, default_field};
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// What whoever asks for endpoints is told.
pub(super) const DEPRECATED: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
/// Who writes them says so with this label.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const LOOP: &str = "endpoint-controller";
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_LOOPS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_MAX: usize = 16;
/// Zones or nodes that one endpoint can be meant for.
const HINTS_MAX: usize = 8;

/// What endpoints do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Endpoints;

/// What endpoint slices do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndpointSlices;

/// What leases do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Leases;

fn each<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

impl Strategy for Endpoints {
    fn defaults(&self, object: &mut Value) {
        for subset in each(object, "subsets") {
            for port in each(subset, "ports") {
                default_field(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        for subset in Cursor::root(object).items("subsets") {
            let lists = ["addresses", "notReadyAddresses"];
            if lists.iter().all(|list| subset.list(list).is_empty()) {
                out.push(FieldError::required(
                    &subset.path,
                    "must specify `addresses` or `notReadyAddresses`",
                ));
            }
            for address in lists.iter().flat_map(|list| subset.items(list)) {
                endpoint_address(&address, &mut out);
            }
            let many = subset.list("ports").len() > 1;
            for port in subset.items("ports") {
                endpoint_port(&port, many, &mut out);
            }
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        // The loop that writes most of them writes none that is spelled wrong.
        if object::label(new, MANAGED_BY) == Some(LOOP) {
            return Vec::new();
        }
        let mut out = Vec::new();
        for subset in Cursor::root(new).items("subsets") {
            for list in ["addresses", "notReadyAddresses"] {
                for address in subset.items(list) {
                    let path = address.at("ip");
                    out.extend(validation::ip_warning(address.text("ip"), &path));
                }
            }
        }
        out
    }
}

fn endpoint_address(at: &Cursor<'_>, out: &mut ErrorList) {
    validation::legacy_ip(at.text("ip"), &at.at("ip"), out);
    if !at.text("hostname").is_empty() {
        validation::dns_label(at.text("hostname"), &at.at("hostname"), out);
    }
    if at.has("nodeName") {
        validation::dns_subdomain(at.text("nodeName"), &at.at("nodeName"), out);
    }
    // What is no address at all is said to be none twice, as by the reference.
    validation::non_special_ip(at.text("ip"), &at.at("ip"), out);
}

fn endpoint_port(at: &Cursor<'_>, need_name: bool, out: &mut ErrorList) {
    if !at.text("name").is_empty() {
        validation::dns_label(at.text("name"), &at.at("name"), out);
    } else if need_name {
        out.push(FieldError::required(&at.at("name"), ""));
    }
    validation::port_number(at.number("port"), &at.at("port"), out);
    validation::required_one_of(at, "protocol", &PROTOCOLS, out);
    app_protocol(at, out);
}

fn app_protocol(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.has("appProtocol") {
        validation::qualified_name(at.text("appProtocol"), &at.at("appProtocol"), out);
    }
}

impl Strategy for EndpointSlices {
    fn defaults(&self, object: &mut Value) {
        for port in each(object, "ports") {
            default_field(port, "name", "");
            default_field(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        validation::required_one_of(&root, "addressType", &["FQDN", "IPv4", "IPv6"], &mut out);
        let count = root.list("endpoints").len();
        if count > ENDPOINTS_MAX {
            out.push(FieldError::too_many(
                &root.at("endpoints"),
                count,
                ENDPOINTS_MAX,
            ));
        } else {
            for endpoint in root.items("endpoints") {
                self::endpoint(&endpoint, root.text("addressType"), &mut out);
            }
        }
        let count = root.list("ports").len();
        if count > PORTS_MAX {
            out.push(FieldError::too_many(&root.at("ports"), count, PORTS_MAX));
        } else {
            slice_ports(&root, &mut out);
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::declared_immutable(
            at.raw("addressType"),
            before.raw("addressType"),
            &at.at("addressType"),
            &mut out,
        );
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = Cursor::root(new);
        if old.is_none() && root.text("addressType") == "FQDN" {
            // The reference looks for it in a spec, which slices do not have.
            out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        // The loops that write most of them write none that is spelled wrong.
        let by = object::label(new, SLICE_MANAGED_BY);
        if by.is_some_and(|by| SLICE_LOOPS.contains(&by)) {
            return out;
        }
        for endpoint in root.items("endpoints") {
            for address in endpoint.items("addresses") {
                let text = address.value.as_str().unwrap_or_default();
                out.extend(validation::ip_warning(text, &address.path));
            }
        }
        out
    }
}

fn endpoint(at: &Cursor<'_>, kind: &str, out: &mut ErrorList) {
    let path = at.at("addresses");
    let count = at.list("addresses").len();
    if count == 0 {
        out.push(FieldError::required(&path, ""));
    } else if count > ADDRESSES_MAX {
        out.push(FieldError::too_many(&path, count, ADDRESSES_MAX));
    }
    for address in at.items("addresses") {
        slice_address(
            address.value.as_str().unwrap_or_default(),
            kind,
            (&path, &address.path),
            out,
        );
    }
    if at.has("nodeName") {
        validation::dns_subdomain(at.text("nodeName"), &at.at("nodeName"), out);
    }
    let count = at.entries("deprecatedTopology").count();
    if count > TOPOLOGY_MAX {
        out.push(FieldError::too_many(
            &at.at("deprecatedTopology"),
            count,
            TOPOLOGY_MAX,
        ));
    }
    validation::labels(
        at.raw("deprecatedTopology"),
        &at.at("deprecatedTopology"),
        out,
    );
    if at.has("hostname") {
        validation::dns_label(at.text("hostname"), &at.at("hostname"), out);
    }
    hints(&at.child("hints"), out);
}

/// Checks for whom an endpoint is meant.
fn hints(at: &Cursor<'_>, out: &mut ErrorList) {
    let rules: [(&str, NameRule); 2] = [
        ("forZones", names::label_value),
        ("forNodes", names::dns1123_subdomain),
    ];
    for (list, rule) in rules {
        let count = at.list(list).len();
        if count > HINTS_MAX {
            out.push(FieldError::too_many(&at.at(list), count, HINTS_MAX));
            return;
        }
        let mut seen = BTreeSet::new();
        for hint in at.items(list) {
            let (name, path) = (hint.text("name"), hint.at("name"));
            if !seen.insert(name) {
                out.push(FieldError::duplicate(&path, name));
            }
            validation::named(rule, name, &path, out);
        }
    }
}

fn slice_address(address: &str, kind: &str, (list, path): (&Path, &Path), out: &mut ErrorList) {
    let before = out.len();
    let mut family = |six: bool, detail: &str| {
        validation::legacy_ip(address, path, out);
        if out.len() > before {
            return;
        }
        if address.contains(':') != six {
            // The reference names the list here.
            out.push(FieldError::invalid(list, address, detail));
        }
        validation::non_special_ip(address, path, out);
    };
    match kind {
        "IPv4" => family(false, "must be an IPv4 address"),
        "IPv6" => family(true, "must be an IPv6 address"),
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            let wrong = names::dns1123_subdomain(name);
            if name.is_empty() {
                out.push(FieldError::required(path, ""));
            } else if !wrong.is_empty() {
                out.push(FieldError::invalid(path, name, &wrong.join(",")));
            } else if !name.contains('.') {
                out.push(FieldError::invalid(
                    path,
                    name,
                    "should be a domain with at least two segments separated by dots",
                ));
            }
        }
        _ => {}
    }
}

fn slice_ports(root: &Cursor<'_>, out: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for port in root.items("ports") {
        let name = port.text("name");
        if !name.is_empty() {
            validation::dns_label(name, &port.at("name"), out);
        }
        if !names.insert(name) {
            out.push(FieldError::duplicate(&port.at("name"), name));
        }
        validation::required_one_of(&port, "protocol", &PROTOCOLS, out);
        app_protocol(&port, out);
    }
}

impl Strategy for Leases {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        if let Some(seconds) = spec
            .integer("leaseDurationSeconds")
            .filter(|seconds| *seconds <= 0)
        {
            out.push(FieldError::invalid(
                &spec.at("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        validation::nonnegative(&spec, "leaseTransitions", &mut out);
        if spec.has("preferredHolder") && !spec.has("strategy") {
            out.push(FieldError::forbidden(
                &spec.at("preferredHolder"),
                "may only be specified when `strategy` is defined",
            ));
        }
        out
    }
}
