//! Inter-pod affinity and topology spread, from the statements of the reference's documentation.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::objects::{node_with, pod_with};
use super::placement::decide;

fn zoned() -> Vec<Node> {
    [("a1", "a"), ("a2", "a"), ("b1", "b")]
        .iter()
        .map(|(name, zone)| {
            let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
            node_with(name, 4000, 4096, &labels)
        })
        .collect()
}

fn app(name: &str, app: &str, spec: &Value) -> Pod {
    pod_with(
        name,
        10,
        &json!({"metadata": {"labels": {"app": app}}, "spec": spec}),
    )
}

fn plain(name: &str, of: &str) -> Pod {
    app(name, of, &json!({}))
}

fn term(of: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": of}}, "topologyKey": key})
}

fn near(of: &str, key: &str) -> Value {
    json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term(of, key)]}}})
}

fn away(of: &str, key: &str) -> Value {
    json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term(of, key)]}}})
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

#[test]
fn near_other_pods() {
    let cache = [(plain("cache", "cache"), "b1")];
    let decision = decide(&zoned(), &cache, app("web", "web", &near("cache", ZONE)));
    assert_eq!(decision.node.as_deref(), Some("b1"));
    let decision = decide(&zoned(), &[], app("web", "web", &near("cache", ZONE)));
    assert_eq!(
        decision.filtered(),
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    );
}

#[test]
fn the_first_of_a_group_may_go_anywhere() {
    let decision = decide(&zoned(), &[], app("web-1", "web", &near("web", ZONE)));
    assert!(decision.node.is_some());
    let first = [(plain("web-1", "web"), "b1")];
    let decision = decide(&zoned(), &first, app("web-2", "web", &near("web", ZONE)));
    assert_eq!(decision.node.as_deref(), Some("b1"));
}

#[test]
fn affinity_looks_at_its_own_namespace_unless_told() {
    let mut other = plain("cache", "cache");
    other.metadata.namespace = Some("other".to_owned());
    let bound = [(other, "b1")];
    let decision = decide(&zoned(), &bound, app("web", "web", &near("cache", ZONE)));
    assert_eq!(decision.node, None);
    for more in [
        json!({"namespaces": ["other"]}),
        json!({"namespaceSelector": {}}),
    ] {
        let mut term = term("cache", ZONE);
        for (key, value) in more.as_object().expect("an object") {
            term[key] = value.clone();
        }
        let spec = json!({"affinity": {"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
        let decision = decide(&zoned(), &bound, app("web", "web", &spec));
        assert_eq!(decision.node.as_deref(), Some("b1"));
    }
}

#[test]
fn away_from_other_pods() {
    let bound = [(plain("web-1", "web"), "a1"), (plain("web-2", "web"), "b1")];
    let decision = decide(&zoned(), &bound, app("web-3", "web", &away("web", HOST)));
    assert_eq!(decision.node.as_deref(), Some("a2"));
    let decision = decide(&zoned(), &bound, app("web-3", "web", &away("web", ZONE)));
    assert_eq!(
        decision.filtered(),
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."
    );
}

#[test]
fn existing_pods_keep_others_away() {
    let bound = [(app("loner", "db", &away("web", ZONE)), "a1")];
    let decision = decide(&zoned(), &bound, plain("web", "web"));
    assert_eq!(decision.node.as_deref(), Some("b1"));
    assert_eq!(
        decision.reasons.keys().collect::<Vec<_>>(),
        ["node(s) didn't satisfy existing pods anti-affinity rules"]
    );
}

#[test]
fn preferences_decide_between_equals() {
    let prefer = |kind: &str| {
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term("cache", ZONE)}]}}})
    };
    let bound = [(plain("cache", "cache"), "b1")];
    let decision = decide(&zoned(), &bound, app("web", "web", &prefer("podAffinity")));
    assert_eq!(decision.node.as_deref(), Some("b1"));
    let decision = decide(
        &zoned(),
        &bound,
        app("web", "web", &prefer("podAntiAffinity")),
    );
    assert_ne!(decision.node.as_deref(), Some("b1"));
}

fn spread(skew: i32, key: &str, when: &str, more: &Value) -> Value {
    let mut constraint = json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}}});
    for (key, value) in more.as_object().expect("an object") {
        constraint[key] = value.clone();
    }
    json!({"topologySpreadConstraints": [constraint]})
}

#[test]
fn hard_spread() {
    let bound = [
        (plain("web-1", "web"), "a1"),
        (plain("web-2", "web"), "a2"),
        (plain("web-3", "web"), "b1"),
    ];
    let hard = spread(1, ZONE, "DoNotSchedule", &json!({}));
    let decision = decide(&zoned(), &bound, app("web-4", "web", &hard));
    assert_eq!(decision.node.as_deref(), Some("b1"));
    // A pod that the selector does not count does not skew.
    let decision = decide(&zoned(), &bound, app("other", "other", &hard));
    assert_eq!(decision.feasible, 3);
    let few = spread(1, ZONE, "DoNotSchedule", &json!({"minDomains": 3}));
    let decision = decide(&zoned(), &bound, app("web-4", "web", &few));
    assert_eq!(
        decision.filtered(),
        "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints."
    );
    let keyless = spread(1, "rack", "DoNotSchedule", &json!({}));
    let decision = decide(&zoned(), &bound, app("web-4", "web", &keyless));
    assert_eq!(
        decision.filtered(),
        "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing \
         required label)."
    );
}

#[test]
fn spread_counts_the_nodes_that_policies_include() {
    // Zone b is left out by the node selector, so its zero does not hold the others back.
    let bound = [(plain("web-1", "web"), "a1")];
    let mut spec = spread(1, HOST, "DoNotSchedule", &json!({}));
    spec["nodeSelector"] = json!({HOST: "a1"});
    let decision = decide(&zoned(), &bound, app("web-2", "web", &spec));
    assert_eq!(decision.node.as_deref(), Some("a1"));
    spec["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = json!("Ignore");
    let decision = decide(&zoned(), &bound, app("web-2", "web", &spec));
    assert_eq!(decision.node, None);
}

#[test]
fn soft_spread_decides_between_equals() {
    let bound = [(plain("web-1", "web"), "a1"), (plain("web-2", "web"), "a2")];
    let soft = spread(1, ZONE, "ScheduleAnyway", &json!({}));
    let decision = decide(&zoned(), &bound, app("web-3", "web", &soft));
    assert_eq!(decision.node.as_deref(), Some("b1"));
}

#[tokio::test(start_paused = true)]
async fn what_controls_a_pod_spreads_it_when_nothing_else_says_how() {
    use std::sync::Arc;

    use evenkeel_client::{Change, ObjectKey};
    use tokio::time::Instant;

    use crate::core::{Action, Core};

    fn added<K: kube::Resource<DynamicType = ()>>(object: K) -> Change<K> {
        Change {
            key: ObjectKey::of(&object),
            old: None,
            new: Some(Arc::new(object)),
        }
    }
    let of = |kind: &str, name: &str, node: Value| {
        let more = json!({
            "metadata": {"labels": {"app": "db"}, "ownerReferences": [{"apiVersion": "v1",
                "kind": kind, "name": "db", "uid": "u", "controller": true}]},
            "spec": node,
        });
        pod_with(name, 10, &more)
    };
    // The larger node is the better one but for its neighbour.
    let placed = |kind: &'static str, known: bool| {
        let mut core = Core::new(crate::plugins::default_placement(), 1);
        let now = Instant::now();
        for (name, size, mib) in [("large", 4000, 65_536), ("small", 500, 2048)] {
            core.node(&added(node_with(name, size, mib, &json!({}))), now);
        }
        if known {
            let meta = json!({"namespace": "default", "name": "db"});
            let set = json!({"metadata": meta, "spec": {"selector": {"matchLabels": {"app": "db"}},
                "template": {}}});
            let controller = json!({"metadata": meta, "spec": {"selector": {"app": "db"}}});
            core.stateful_set(&added(serde_json::from_value(set).expect("a set")));
            let controller = serde_json::from_value(controller).expect("a controller");
            core.replication_controller(&added(controller));
        }
        core.pod(&added(of(kind, "db-0", json!({"nodeName": "large"}))), now);
        core.pod(&added(of(kind, "db-1", json!({}))), now);
        match core.cycle(now).expect("a pod waits") {
            Action::Bind { node, .. } => node.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for kind in ["StatefulSet", "ReplicationController"] {
        assert_eq!(placed(kind, false), "large", "{kind}");
        assert_eq!(placed(kind, true), "small", "{kind}");
    }
}
