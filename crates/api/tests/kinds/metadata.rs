//! Metadata of new and changed objects.

use serde_json::json;

use super::{
    LABEL, LABEL_VALUE, NAME_PART, SUBDOMAIN, check, create_errors, pod, service, update_errors,
    with,
};

#[test]
fn of_new_objects() {
    let name = format!("metadata.name: Invalid value: \"Web\": {SUBDOMAIN}");
    let generate = format!("metadata.generateName: Invalid value: \"We-\": {SUBDOMAIN}");
    let namespace = format!("metadata.namespace: Invalid value: \"A\": {LABEL}");
    let label = format!("metadata.labels: Invalid value: \"b c\": {LABEL_VALUE}");
    let key = format!("metadata.labels: Invalid value: \"a b\": {NAME_PART}");
    let annotation = format!("metadata.annotations: Invalid value: \"a b\": {NAME_PART}");
    let long = "a".repeat(254);
    let too_long =
        format!("metadata.name: Invalid value: \"{long}\": must be no more than 253 characters");
    let long_label = "a".repeat(64);
    let label_length =
        format!("metadata.labels: Invalid value: \"{long_label}\": must be no more than 63 bytes");
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "1", "controller": true});
    check(
        vec![
            (json!({"name": "Web"}), vec![name.as_str()]),
            (
                json!({"name": null}),
                vec!["metadata.name: Required value: name or generateName is required"],
            ),
            (json!({"generateName": "web-"}), vec![]),
            (json!({"generateName": "We-"}), vec![generate.as_str()]),
            (json!({"name": long}), vec![too_long.as_str()]),
            (json!({"namespace": "A"}), vec![namespace.as_str()]),
            (json!({"labels": {"a": "b c"}}), vec![label.as_str()]),
            (
                json!({"labels": {"a": long_label}}),
                vec![label_length.as_str()],
            ),
            (json!({"labels": {"a b": "c"}}), vec![key.as_str()]),
            (
                json!({"annotations": {"a b": "c"}}),
                vec![annotation.as_str()],
            ),
            (
                json!({"annotations": {"a": "x".repeat(256 * 1024)}}),
                vec!["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                json!({"ownerReferences": [{"kind": "A"}]}),
                vec![
                    "metadata.ownerReferences[0].apiVersion: Required value: must not be empty",
                    "metadata.ownerReferences[0].name: Required value: must not be empty",
                    "metadata.ownerReferences[0].uid: Required value: must not be empty",
                ],
            ),
            (
                json!({"ownerReferences": [owner, owner]}),
                vec![
                    "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"apps/v1\",\"controller\":true,\"kind\":\"ReplicaSet\",\"name\":\"a\",\"uid\":\"1\"},{\"apiVersion\":\"apps/v1\",\"controller\":true,\"kind\":\"ReplicaSet\",\"name\":\"a\",\"uid\":\"1\"}]: Only one reference can have Controller set to true. Found \"true\" in references for ReplicaSet/a and ReplicaSet/a",
                ],
            ),
            (
                json!({"finalizers": ["mine"]}),
                vec![
                    "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
                ],
            ),
            (
                json!({"finalizers": ["orphan", "foregroundDeletion"]}),
                vec![
                    "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
                ],
            ),
        ],
        |patch| with(pod(), &json!({"metadata": patch})),
    );
}

#[test]
fn of_kinds_with_other_names() {
    assert_eq!(
        create_errors(with(service(), &json!({"metadata": {"name": "1a"}}))),
        Vec::<String>::new(),
        "services may begin with a digit since 1.37"
    );
    assert_eq!(
        create_errors(with(service(), &json!({"metadata": {"name": "a.b"}}))),
        ["metadata.name: Invalid value: \"a.b\": must not contain dots"]
    );
    assert_eq!(
        create_errors(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "a.b", "namespace": "c"}})),
        [
            "metadata.name: Invalid value: \"a.b\": must not contain dots",
            "metadata.namespace: Forbidden: not allowed on this type",
        ]
    );
    let role = |name: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}})
    };
    assert_eq!(create_errors(role("system:node")), Vec::<String>::new());
    assert_eq!(
        create_errors(role("a/b")),
        ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]
    );
    let wrong = |api_version: &str, kind: &str| {
        let row = super::row_of(&json!({"apiVersion": api_version, "kind": kind}));
        !(row.name_rule)("Bad_Name!").is_empty()
    };
    assert!(wrong("events.k8s.io/v1", "Event"));
    assert!(!wrong("v1", "Event"), "of the older form anything is one");
    assert!(!wrong("policy/v1", "PodDisruptionBudget"));
}

#[test]
fn of_changes() {
    let mut old = pod();
    old["metadata"]["uid"] = json!("1");
    old["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    for (patch, wanted) in [
        (json!({"labels": {"a": "b"}}), vec![]),
        (
            json!({"name": "other"}),
            vec!["metadata.name: Invalid value: \"other\": field is immutable"],
        ),
        (
            json!({"uid": "2"}),
            vec!["metadata.uid: Invalid value: \"2\": field is immutable"],
        ),
        (
            json!({"creationTimestamp": null}),
            vec!["metadata.creationTimestamp: Invalid value: null: field is immutable"],
        ),
        (
            json!({"resourceVersion": null}),
            vec!["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"],
        ),
    ] {
        let found = update_errors(old.clone(), &json!({"metadata": patch}));
        assert_eq!(found, wanted, "{patch}");
    }
    let mut deleted = old;
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(
        update_errors(
            deleted,
            &json!({"metadata": {"finalizers": ["b.io/b", "a.io/a"]}})
        ),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.io/a\", \"b.io/b\"}"
        ]
    );
}

#[test]
fn finalizers_need_a_domain_of_most_kinds() {
    let of = |kind: &str, api_version: &str| {
        create_errors(json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"name": "a", "finalizers": ["plain"]},
        }))
    };
    let wrong = "metadata.finalizers[0]: Invalid value: \"plain\": name is neither a standard finalizer name nor is it fully qualified";
    assert_eq!(of("ConfigMap", "v1"), [wrong]);
    assert!(!of("Lease", "coordination.k8s.io/v1").contains(&wrong.to_owned()));
}

#[test]
fn an_update_may_change_the_prefix_of_names_and_some_kinds_look_at_it() {
    let changed = |kind: &str, api_version: &str, prefix: &str| {
        let old = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        let patch = json!({"metadata": {"generateName": prefix}});
        let errors = update_errors(old, &patch).into_iter();
        errors
            .filter(|error| error.starts_with("metadata."))
            .collect::<Vec<_>>()
    };
    let (maps, quotas) = (("ConfigMap", "v1"), ("ResourceQuota", "v1"));
    assert_eq!(changed(maps.0, maps.1, "b-"), Vec::<String>::new());
    assert_eq!(
        changed(maps.0, maps.1, "B_"),
        [format!(
            "metadata.generateName: Invalid value: \"B_\": {SUBDOMAIN}"
        )]
    );
    assert_eq!(changed(quotas.0, quotas.1, "B_"), Vec::<String>::new());
    assert_eq!(
        changed(quotas.0, quotas.1, "a/b"),
        ["metadata.generateName: Invalid value: \"a/b\": may not contain '/'"]
    );
}

#[test]
fn a_deletion_is_begun_by_a_delete_alone() {
    let patch = json!({"metadata": {"deletionGracePeriodSeconds": 5}});
    let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    assert_eq!(
        update_errors(old, &patch),
        ["metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable"]
    );
}
