//! The status of pods: the defaults of its addresses, and what may be written there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::object::{self, fields};
use crate::validation::{self, Cursor, IMMUTABLE, parse_ip_sloppy};

/// Keeps the single address of a pod and the list in step; the single one counts, for node agents
/// that know no list.
pub(super) fn defaults(object: &mut Value) {
    let Some(status) = object.get_mut("status").filter(|it| it.is_object()) else {
        return;
    };
    let single = object::text(status, &["podIP"]).to_owned();
    let first = object::list(status, &["podIPs"])
        .first()
        .map(|first| object::text(first, &["ip"]).to_owned());
    if single.is_empty() {
        if let Some(first) = first.filter(|first| !first.is_empty()) {
            fields(status).insert("podIP".to_owned(), first.into());
        }
    } else if first.is_none_or(|first| first != single) {
        fields(status).insert("podIPs".to_owned(), json!([{"ip": single}]));
    }
}

/// What is wrong with a change of a pod's status.
pub(super) fn validate(new: &Value, old: &Value, out: &mut ErrorList) {
    let at = Cursor::root(new).child("status");
    let before = Cursor::root(old).child("status");
    let spec = Cursor::root(old).child("spec");
    let nominated = at.text("nominatedNodeName");
    if nominated != before.text("nominatedNodeName") && !nominated.is_empty() {
        validation::dns_subdomain(nominated, &at.at("nominatedNodeName"), out);
        if !spec.text("nodeName").is_empty() {
            out.push(FieldError::forbidden(
                &at.at("nominatedNodeName"),
                "may not be set on pods that are already bound to a node",
            ));
        }
    }
    for condition in at.items("conditions") {
        // Named as in Go.
        validation::qualified_name(condition.text("type"), &condition.at("Type"), out);
    }
    if at.number("observedGeneration") < 0 {
        out.push(FieldError::invalid(
            &at.at("observedGeneration"),
            at.number("observedGeneration"),
            "must be a non-negative integer",
        ));
    }
    if at.text("qosClass") != before.text("qosClass") {
        out.push(FieldError::invalid(
            &at.at("qosClass"),
            at.text("qosClass"),
            IMMUTABLE,
        ));
    }
    for (statuses, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        transitions(&at, &before, statuses, &spec, containers, out);
    }
    claims(&at, &spec, out);
    extended_claim(&at, &spec, out);
    addresses(&at, &before, out);
}

/// A container that has ended stays ended where it may not restart. Those of the last sort, which no
/// list of the spec is given for, never do.
fn transitions(
    at: &Cursor<'_>,
    before: &Cursor<'_>,
    statuses: &str,
    spec: &Cursor<'_>,
    containers: &str,
    out: &mut ErrorList,
) {
    for (index, old) in before.items(statuses).enumerate() {
        let ended = old.child("state").child("terminated");
        let name = old.text("name");
        let leaves =
            |new: Cursor<'_>| new.text("name") == name && !new.child("state").has("terminated");
        if ended.value.is_null() || !at.items(statuses).any(leaves) {
            continue;
        }
        let code = ended.number("exitCode");
        let mut containers = spec.items(containers);
        let container = containers.find(|it| it.text("name") == name);
        if container.is_none_or(|it| !restarts(&it, spec.text("restartPolicy"), code)) {
            out.push(FieldError::forbidden(
                &at.at(statuses).index(index).child("state"),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}

/// Is a container started again that ended with this code? Its own rules come first, then its own
/// policy, then the pod's.
fn restarts(container: &Cursor<'_>, pod: &str, code: i64) -> bool {
    let own = container.text("restartPolicy");
    let applies = |rule: Cursor<'_>| {
        let codes = rule.child("exitCodes");
        let listed = codes
            .list("values")
            .iter()
            .any(|it| it.as_i64() == Some(code));
        match codes.text("operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    if !own.is_empty() && container.items("restartPolicyRules").any(applies) {
        return true;
    }
    match if own.is_empty() { pod } else { own } {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// Checks that what is said of claims is said of claims that the pod has.
fn claims(at: &Cursor<'_>, spec: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for claim in at.items("resourceClaimStatuses") {
        let name = claim.text("name");
        if !spec
            .items("resourceClaims")
            .any(|known| known.text("name") == name)
        {
            out.push(FieldError::invalid(
                &claim.at("name"),
                name,
                "must match the name of an entry in `spec.resourceClaims`",
            ));
        }
        if !seen.insert(name) {
            out.push(FieldError::duplicate(&claim.at("name"), name));
        }
        if claim.has("resourceClaimName") {
            let path = claim.at("resourceClaimName");
            validation::dns_subdomain(claim.text("resourceClaimName"), &path, out);
        }
    }
}

/// Checks what is said of the claim that was made for the extended resources of containers.
fn extended_claim(at: &Cursor<'_>, spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(claim) = at.get("extendedResourceClaimStatus") else {
        return;
    };
    if claim.list("requestMappings").is_empty() {
        out.push(FieldError::required(
            &claim.at("requestMappings"),
            "at least one request mapping is required",
        ));
    }
    let mut seen = BTreeSet::new();
    for mapping in claim.items("requestMappings") {
        let names @ [container, resource, request] =
            ["containerName", "resourceName", "requestName"].map(|name| mapping.text(name));
        let known = spec
            .items("initContainers")
            .chain(spec.items("containers"))
            .filter(|known| known.text("name") == container)
            .last();
        match known {
            None => out.push(FieldError::invalid(
                &mapping.at("containerName"),
                container,
                "must match the name of an entry in spec.initContainers.name or \
                 spec.containers.name",
            )),
            Some(known) if !known.child("resources").child("requests").has(resource) => {
                out.push(FieldError::invalid(
                    &mapping.at("resourceName"),
                    resource,
                    "must match the extended resource name of an entry in \
                     spec.initContainers.resources.requests or spec.containers.resources.requests",
                ));
            }
            Some(_) => {}
        }
        // The reference names the claim here, not the mapping.
        validation::dns_label(request, &claim.at("requestName"), out);
        if !seen.insert(names) {
            for name in ["containerName", "resourceName", "requestName"] {
                out.push(FieldError::duplicate(&mapping.at(name), mapping.text(name)));
            }
        }
    }
    if claim.text("resourceClaimName").is_empty() {
        out.push(FieldError::required(&claim.at("resourceClaimName"), ""));
    } else {
        let path = claim.at("resourceClaimName");
        validation::dns_subdomain(claim.text("resourceClaimName"), &path, out);
    }
}

/// Checks the addresses of a pod and of its host: one for each family, and the single field is the
/// first of the list. What was there before may stay.
fn addresses(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    for (list, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        let path = at.at(list);
        let all: Vec<&str> = at.items(list).map(|item| item.text("ip")).collect();
        let first = all.first().copied();
        let is_first = first.is_none_or(|first| first == at.text(single));
        let not_first = |out: &mut ErrorList| {
            if !is_first {
                out.push(FieldError::invalid(
                    &path.index(0).child("ip"),
                    first.unwrap_or_default(),
                    &format!("must be equal to `{single}`"),
                ));
            }
        };
        if single == "hostIP" {
            not_first(out);
        }
        for item in at.items(list) {
            let ip = item.text("ip");
            if !before.items(list).any(|known| known.text("ip") == ip) {
                validation::legacy_ip(ip, &item.path, out);
            }
        }
        let families: Vec<bool> = all
            .iter()
            .filter_map(|ip| Some(parse_ip_sloppy(ip)?.is_ipv6()))
            .collect();
        if all.len() > 1 && (families != [false, true] && families != [true, false]) {
            out.push(FieldError::invalid(
                &path,
                at.raw(list).clone(),
                "may specify no more than one IP for each IP family",
            ));
        }
        if single == "podIP" {
            if all.is_empty() != at.text(single).is_empty() {
                out.push(FieldError::invalid(
                    &path,
                    at.raw(list).clone(),
                    "podIP and podIPs must either both be set or both be unset",
                ));
            } else {
                not_first(out);
            }
        }
    }
}
