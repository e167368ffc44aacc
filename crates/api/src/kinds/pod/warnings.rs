//! What is accepted in a pod spec and yet probably a mistake, in the order and the words of the
//! reference.

mod paths;

use std::collections::{BTreeMap, BTreeSet};

use super::containers;
use crate::field::{Path, quoted};
use crate::kinds::storage::claim::spec_warnings as claim_warnings;
use crate::kinds::storage::deprecated_node_label;
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Cursor, ip_warning};

/// Volumes of plugins that are no more, and what is said of each.
const OLD_VOLUMES: [(&str, &str); 9] = [
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Annotations that nothing reads any more, and what is said of each.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Warnings about a pod or a template of pods, worded as the reference words them.
#[must_use]
pub fn of(pod: &Cursor<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let (metadata, spec) = (pod.child("metadata"), &pod.child("spec"));
    placement(spec, &mut out);
    let annotations = metadata.child("annotations");
    for (key, told) in OLD_ANNOTATIONS {
        if annotations.has(key) {
            out.push(format!("{}: {told}", annotations.path.key(key)));
        }
    }
    volumes(spec, &mut out);
    paths::overlaps(spec, &mut out);
    repeated(spec, "hostAliases", "ip", &mut out);
    repeated(spec, "imagePullSecrets", "name", &mut out);
    for secret in spec.items("imagePullSecrets") {
        if secret.text("name").is_empty() {
            out.push(format!("{}: invalid empty name \"\"", secret.at("name")));
        }
    }
    fractions(&spec.child("overhead"), &mut out);
    without_seccomp(spec, &annotations, SECCOMP_OF_POD, &mut out);
    for container in containers::all(spec) {
        let key = format!("{SECCOMP_OF_CONTAINER}{}", container.text("name"));
        without_seccomp(&container, &annotations, &key, &mut out);
        let resources = container.child("resources");
        fractions(&resources.child("limits"), &mut out);
        fractions(&resources.child("requests"), &mut out);
        hidden_variables(&container, &mut out);
    }
    ports(spec, &mut out);
    port_names(spec, &mut out);
    if spec.number("terminationGracePeriodSeconds") < 0 {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec.at("terminationGracePeriodSeconds")
        ));
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let at = spec.child("affinity").child(name);
        for term in at.items(REQUIRED) {
            no_selector(&term, &mut out);
        }
        for weighted in at.items(PREFERRED) {
            no_selector(&weighted.child("podAffinityTerm"), &mut out);
        }
    }
    for server in spec.child("dnsConfig").items("nameservers") {
        let address = server.value.as_str().unwrap_or_default();
        out.extend(ip_warning(address, &server.path));
    }
    for alias in spec.items("hostAliases") {
        out.extend(ip_warning(alias.text("ip"), &alias.at("ip")));
    }
    out
}

/// The annotation of a profile that a field stands for by now, where the field is not there.
fn without_seccomp(of: &Cursor<'_>, annotations: &Cursor<'_>, key: &str, out: &mut Vec<String>) {
    if annotations.has(key) && !of.child("securityContext").has("seccompProfile") {
        out.push(format!(
            "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            annotations.path.key(key)
        ));
    }
}

/// Labels of nodes that are no more, in whatever says where a pod may run.
fn placement(spec: &Cursor<'_>, out: &mut Vec<String>) {
    for (key, _) in spec.entries("nodeSelector") {
        if let Some(told) = deprecated_node_label(key) {
            out.push(format!("{}: {told}", spec.at("nodeSelector").key(key)));
        }
    }
    let at = spec.child("affinity").child("nodeAffinity");
    for term in at.child(REQUIRED).items("nodeSelectorTerms") {
        node_term(&term, false, out);
    }
    for term in at.items(PREFERRED) {
        node_term(&term.child("preference"), true, out);
    }
    for constraint in spec.items("topologySpreadConstraints") {
        old_label(&constraint, "topologyKey", out);
        no_selector(&constraint, out);
    }
}

fn old_label(at: &Cursor<'_>, name: &str, out: &mut Vec<String>) {
    let key = at.text(name);
    if let Some(told) = deprecated_node_label(key) {
        out.push(format!("{}: {key} is {told}", at.at(name)));
    }
}

fn node_term(term: &Cursor<'_>, check_values: bool, out: &mut Vec<String>) {
    for expression in term.items("matchExpressions") {
        old_label(&expression, "key", out);
        for value in expression.items("values").filter(|_| check_values) {
            let text = value.value.as_str().unwrap_or_default();
            for wrong in names::label_value(text) {
                out.push(format!("{}: {text} is invalid, {wrong}", value.path));
            }
        }
    }
}

fn no_selector(term: &Cursor<'_>, out: &mut Vec<String>) {
    if !term.has("labelSelector") {
        out.push(format!(
            "{}: a null labelSelector results in matching no pod",
            term.at("labelSelector")
        ));
    }
}

fn volumes(spec: &Cursor<'_>, out: &mut Vec<String>) {
    for volume in spec.items("volumes") {
        for (name, told) in OLD_VOLUMES {
            if volume.has(name) {
                // Go's name of the one whose JSON name is spelt differently.
                let shown = if name == "storageos" {
                    "storageOS"
                } else {
                    name
                };
                out.push(format!("{}: {told}", volume.at(shown)));
            }
        }
        if let Some(template) = volume.child("ephemeral").get("volumeClaimTemplate") {
            claim_warnings(&template.child("spec"), out);
        }
    }
}

/// Items of a list that have the same key: the API says that there is one of each.
fn repeated(spec: &Cursor<'_>, list: &str, name: &str, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for item in spec.items(list) {
        let key = item.text(name);
        if !seen.insert(key) {
            out.push(format!(
                "{}: duplicate {name} {}",
                item.at(name),
                quoted(key)
            ));
        }
    }
}

/// Amounts of bytes that are not whole.
fn fractions(amounts: &Cursor<'_>, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let amount = amounts.text(name).parse::<Quantity>();
        if let Some(amount) = amount.ok().filter(|amount| amount.milli() % 1000 != 0) {
            out.push(format!(
                "{}: fractional byte value {} is invalid, must be an integer",
                amounts.path.key(name),
                quoted(&amount.to_string())
            ));
        }
    }
}

/// A variable that is defined twice: the later definition counts. One that builds on the earlier one
/// is meant so.
fn hidden_variables(container: &Cursor<'_>, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for variable in container.items("env") {
        let (name, value) = (variable.text("name"), variable.text("value"));
        if seen.insert(name) {
            continue;
        }
        let earlier = format!("$({name})");
        if variable.has("valueFrom") || value == earlier || !value.contains(&earlier) {
            out.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                variable.path,
                quoted(name)
            ));
        }
    }
}

/// Ports that the containers of a pod, which have one address, share.
fn ports(spec: &Cursor<'_>, out: &mut Vec<String>) {
    let mut known: BTreeMap<(i64, &str), Vec<Cursor<'_>>> = BTreeMap::new();
    for port in containers::all(spec).flat_map(|container| container.items("ports")) {
        let (host, ip) = (port.number("hostPort"), port.text("hostIP"));
        let (number, protocol) = (port.number("containerPort"), port.text("protocol"));
        if !ip.is_empty() && host == 0 {
            out.push(format!(
                "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{number} \
                 Protocol:{protocol} HostIP:{ip}}}",
                port.path,
                port.text("name")
            ));
        }
        let same = known.entry((number, protocol)).or_default();
        for other in &*same {
            let (other_host, other_ip) = (other.number("hostPort"), other.text("hostIP"));
            let how = if host == other_host && ip == other_ip {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!(
                "{}: {how} port definition with {}",
                port.path, other.path
            ));
        }
        same.push(port);
    }
}

fn port_names(spec: &Cursor<'_>, out: &mut Vec<String>) {
    let mut known: BTreeMap<&str, Path> = BTreeMap::new();
    for port in containers::all(spec).flat_map(|container| container.items("ports")) {
        let name = port.text("name");
        if name.is_empty() {
            continue;
        }
        match known.get(name) {
            Some(first) => out.push(format!(
                "{}: duplicate port name {} with {first}, services and probes that select ports \
                 by name will use {first}",
                port.path,
                quoted(name)
            )),
            None => {
                known.insert(name, port.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(spec: &Value) -> Vec<String> {
        of(&Cursor::root(&json!({"spec": spec})))
    }

    #[test]
    fn annotations_that_fields_stand_for_are_named() {
        let pod = json!({
            "metadata": {"annotations": {
                "scheduler.alpha.kubernetes.io/critical-pod": "",
                "seccomp.security.alpha.kubernetes.io/pod": "runtime/default",
                "container.seccomp.security.alpha.kubernetes.io/a": "runtime/default",
                "container.seccomp.security.alpha.kubernetes.io/b": "runtime/default"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b",
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}]}});
        let field = |key: &str| {
            format!(
                "metadata.annotations[{key}]: non-functional in v1.27+; use the \
                 \"seccompProfile\" field instead"
            )
        };
        assert_eq!(
            of(&Cursor::root(&pod)),
            [
                "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in \
                 v1.16+; use the \"priorityClassName\" field instead"
                    .to_owned(),
                field("seccomp.security.alpha.kubernetes.io/pod"),
                field("container.seccomp.security.alpha.kubernetes.io/a"),
            ]
        );
    }

    #[test]
    fn what_is_probably_a_mistake_is_named() {
        let port = |name: &str, host: Value| json!({"name": name, "containerPort": 80, "protocol": "TCP", "hostPort": host});
        let rows: [(Value, &[&str]); 9] = [
            (
                json!({"nodeSelector": {"beta.kubernetes.io/os": "linux", "a": "b"}}),
                &[
                    "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                ],
            ),
            (
                json!({"topologySpreadConstraints": [{"topologyKey": "a"}],
                    "affinity": {"podAffinity": {PREFERRED: [{"podAffinityTerm": {}}]}}}),
                &[
                    "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                    "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                json!({"hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
                    "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]}),
                &[
                    "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
                    "spec.imagePullSecrets[1].name: duplicate name \"a\"",
                    "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                ],
            ),
            (
                json!({"volumes": [{"name": "q", "projected": {"sources": [{}]}}]}),
                &["volume \"q\" (Projected) has no sources provided"],
            ),
            (
                json!({"dnsConfig": {"nameservers": ["8.8.8.8", "FD00::1"]},
                    "hostAliases": [{"ip": "010.0.0.1"}]}),
                &[
                    "spec.dnsConfig.nameservers[1]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                    "spec.hostAliases[0].ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
                ],
            ),
            (
                json!({"containers": [{"resources": {"limits": {"memory": "100m"}}}]}),
                &[
                    "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                json!({"containers": [{"env": [{"name": "A", "value": "x"},
                    {"name": "A", "value": "$(A):y"}, {"name": "A", "value": "z"}]}]}),
                &[
                    "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                ],
            ),
            (
                json!({"containers": [{"ports": [port("a", json!(8080))]},
                    {"ports": [port("a", Value::Null)]}]}),
                &[
                    "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
                    "spec.containers[1].ports[0]: duplicate port name \"a\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
                ],
            ),
            (
                json!({"containers": [{"ports": [
                    {"name": "a", "containerPort": 80, "protocol": "TCP", "hostIP": "1.2.3.4"}]}]}),
                &[
                    "spec.containers[0].ports[0]: hostIP set without hostPort: {Name:a HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}",
                ],
            ),
        ];
        for (spec, wanted) in rows {
            assert_eq!(told(&spec), wanted, "{spec}");
        }
    }
}
