//! The bootstrap policy: which roles there are and who has them.
//!
//! A line is a rule: `GROUPS : RESOURCES : VERBS`, and `: NAMES` where it is for some objects only,
//! with commas inside; the core group is `core`.
//! The content restates the reference's bootstrap policy, by who has it: people, programs, and the
//! loops, of this program and of others.

mod elsewhere;
mod loops;
mod people;
mod programs;

use serde_json::{Value, json};

const API: &str = "rbac.authorization.k8s.io/v1";

fn rule(line: &str) -> Value {
    let mut parts = line.split(" : ").map(str::trim);
    let mut list = || -> Vec<&str> {
        parts
            .next()
            .map(|part| part.split(',').collect())
            .unwrap_or_default()
    };
    let groups: Vec<&str> = list()
        .into_iter()
        .map(|group| if group == "core" { "" } else { group })
        .collect();
    let (resources, verbs) = (list(), list());
    let names = list();
    let mut rule = json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

fn urls(paths: &[&str], verbs: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": verbs})
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn role(name: &str, rules: Vec<Value>) -> Value {
    json!({"apiVersion": API, "kind": "ClusterRole", "metadata": metadata(name), "rules": rules})
}

fn subject(kind: &str, name: &str) -> Value {
    if kind == "ServiceAccount" {
        return json!({"kind": kind, "name": name, "namespace": "kube-system"});
    }
    json!({"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"})
}

fn binding(name: &str, role: &str, subjects: Vec<Value>) -> Value {
    let mut binding = json!({
        "apiVersion": API, "kind": "ClusterRoleBinding", "metadata": metadata(name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    });
    if !subjects.is_empty() {
        binding["subjects"] = subjects.into();
    }
    binding
}

/// What the node authorizer gives to every agent.
pub(super) fn of_nodes() -> Vec<Value> {
    rules(programs::NODE)
}

fn rules(lines: &[&str]) -> Vec<Value> {
    lines.iter().map(|line| rule(line)).collect()
}

/// All bootstrap roles and bindings.
///
/// With `workloads` those about the kinds behind the gate `GenericWorkload` too.
pub(super) fn objects(workloads: bool) -> Vec<Value> {
    let mut objects = people::objects(workloads);
    objects.extend(programs::objects(workloads));
    objects.extend(loops::objects(workloads));
    objects.extend(elsewhere::objects());
    objects
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use evenkeel_api::object;

    use super::*;

    /// All that a role gives: group, resource and verb.
    fn given(name: &str) -> BTreeSet<(String, String, String)> {
        let objects = objects(false);
        let is = |kind: &str, object: &&Value| {
            object["kind"] == kind && object["metadata"]["name"] == name
        };
        let role = objects.iter().find(|object| is("ClusterRole", object));
        let mut given = BTreeSet::new();
        for rule in object::list(role.unwrap(), &["rules"]) {
            let texts = |part: &str| {
                let list = object::list(rule, &[part]).to_vec();
                list.into_iter()
                    .filter_map(|it| it.as_str().map(str::to_owned))
            };
            for group in texts("apiGroups") {
                for resource in texts("resources") {
                    for verb in texts("verbs") {
                        given.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
        given
    }

    fn right(group: &str, resource: &str, verb: &str) -> (String, String, String) {
        (group.to_owned(), resource.to_owned(), verb.to_owned())
    }

    #[test]
    fn who_changes_a_namespace_does_not_write_endpoints() {
        for role in ["system:aggregate-to-edit", "edit", "admin"] {
            let given = given(role);
            for (group, resource) in [("", "endpoints"), ("discovery.k8s.io", "endpointslices")] {
                for verb in ["create", "update", "patch", "delete"] {
                    assert!(!given.contains(&right(group, resource, verb)), "{role}");
                }
            }
            for group in ["", "events.k8s.io"] {
                assert!(given.contains(&right(group, "events", "create")), "{role}");
            }
            let claims = right("resource.k8s.io", "resourceclaims", "create");
            assert!(given.contains(&claims), "{role}");
        }
        let read = given("view");
        assert!(read.contains(&right("resource.k8s.io", "resourceclaims/status", "get")));
        assert!(read.contains(&right("metrics.k8s.io", "pods", "list")));
        assert!(!read.iter().any(|(_, resource, _)| resource == "secrets"));
    }

    #[test]
    fn every_name_is_once_there_and_every_binding_has_its_role() {
        let objects = objects(true);
        let name = |object: &Value, kind: &str| {
            let namespace = object::namespace(object);
            format!("{kind}/{namespace}/{}", object::name(object))
        };
        let mut names = BTreeSet::new();
        for object in &objects {
            let kind = object::text(object, &["kind"]);
            assert!(names.insert(name(object, kind)), "{object}");
        }
        for object in objects
            .iter()
            .filter(|object| object.get("roleRef").is_some())
        {
            let kind = object::text(object, &["roleRef", "kind"]);
            let namespace = object::namespace(object);
            let role = object::text(object, &["roleRef", "name"]);
            assert!(
                names.contains(&format!("{kind}/{namespace}/{role}")),
                "{object}"
            );
        }
    }

    #[test]
    fn nobody_has_the_role_of_nodes_by_a_binding() {
        let objects = objects(false);
        let bound = |name: &str| {
            let mut bindings = objects.iter().filter(|object| {
                object["kind"] == "ClusterRoleBinding" && object["metadata"]["name"] == name
            });
            bindings
                .next()
                .map(|it| object::list(it, &["subjects"]).len())
        };
        assert_eq!(bound("system:node"), Some(0));
        assert_eq!(bound("evenkeel:node-network"), Some(1));
        // What the agent routes by is not among what the reference gives.
        let slices = right("discovery.k8s.io", "endpointslices", "watch");
        assert!(!given("system:node").contains(&slices));
        assert!(given("evenkeel:node-network").contains(&slices));
    }

    #[test]
    fn roles_for_programs_of_others_are_there() {
        for role in [
            "system:heapster",
            "system:kube-aggregator",
            "system:kube-dns",
            "system:node-problem-detector",
            "system:persistent-volume-provisioner",
            "system:volume-scheduler",
            "system:certificates.k8s.io:kubelet-serving-approver",
            "system:controller:service-controller",
            "system:controller:route-controller",
        ] {
            assert!(!given(role).is_empty(), "{role}");
        }
    }
}
