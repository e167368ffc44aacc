use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::row::Rows;

fn set(paths: &[&[&str]]) -> FieldSet {
    let mut set = FieldSet::default();
    for path in paths {
        let path: Vec<PathElement> = path.iter().map(|name| PathElement::field(name)).collect();
        set.insert(&path);
    }
    set
}

#[test]
fn algebra() {
    let left = set(&[&["a"], &["a", "b"], &["c", "d"]]);
    let right = set(&[&["a"], &["c", "d"], &["c", "e"]]);
    assert_eq!(
        left.union(&right),
        set(&[&["a"], &["a", "b"], &["c", "d"], &["c", "e"]])
    );
    assert_eq!(left.intersection(&right), set(&[&["a"], &["c", "d"]]));
    // A parent takes nothing from its children …
    assert_eq!(left.difference(&right), set(&[&["a", "b"]]));
    // … unless asked to.
    assert_eq!(left.difference_with_children(&right), FieldSet::default());
    assert!(set(&[]).is_empty());
    assert!(left.has(&[PathElement::field("a"), PathElement::field("b")]));
    assert!(!left.has(&[PathElement::field("c")]));
}

#[test]
fn fields_v1_is_that_of_the_reference() {
    let wire = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"x\"": {}}},
        "f:spec": {
            "f:containers": {
                "k:{\"name\":\"web\"}": {
                    ".": {},
                    "f:image": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                },
            },
            "i:3": {},
            "f:replicas": {},
        },
    });
    let set = FieldSet::from_fields_v1(&wire).expect("reads");
    assert_eq!(set.to_fields_v1(), wire);
    assert_eq!(
        set.paths(),
        [
            ".metadata.finalizers",
            ".metadata.labels",
            ".metadata.finalizers[=\"x\"]",
            ".metadata.labels.app",
            ".spec.replicas",
            ".spec[3]",
            ".spec.containers[name=\"web\"]",
            ".spec.containers[name=\"web\"].image",
            ".spec.containers[name=\"web\"].ports",
            ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
        ]
    );
    // Key order and number notation don't matter, unknown element types are dropped.
    let other = json!({"k:{\"protocol\":\"TCP\",\"containerPort\":80.0}": {}, "z:future": {}});
    let set = FieldSet::from_fields_v1(&other).expect("reads");
    assert_eq!(
        set.to_fields_v1(),
        json!({"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}})
    );
    let html = json!({"v:\"a\\u003cb\"": {}});
    assert_eq!(
        FieldSet::from_fields_v1(&html)
            .expect("reads")
            .to_fields_v1(),
        html
    );
}

#[test]
fn broken_fields_v1_is_refused() {
    for wire in [
        json!([]),
        json!("x"),
        json!({"x": {}}),
        json!({"fmetadata": {}}),
        json!({"k:x": {}}),
        json!({"i:x": {}}),
        json!({"f:a": []}),
    ] {
        assert!(FieldSet::from_fields_v1(&wire).is_err(), "{wire}");
    }
}

#[test]
fn what_a_configuration_sets() {
    let rows = Rows::builtin();
    let row = rows.by_kind("apps", "v1", "Deployment").expect("there");
    let config = json!({
        "metadata": {"labels": {"app": "web"}, "finalizers": ["x"]},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {},
            "template": {"spec": {
                "nodeSelector": {"a": "b"},
                "containers": [{"name": "web", "command": ["a", "b"], "ports": [{"containerPort": 80}], "securityContext": null}],
            }},
        },
    });
    let set = FieldSet::from_value(rows.schema(), &rows.ty(row), &config);
    assert_eq!(
        set.to_fields_v1(),
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {},
                "f:template": {"f:spec": {
                    "f:nodeSelector": {},
                    "f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {}, "f:name": {}, "f:command": {}, "f:securityContext": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                }},
            },
        })
    );
}

fn element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        4 => "[a-c]{1,2}".prop_map(|name| PathElement::field(&name)),
        1 => ("[a<&\"é]{1,2}", 0i64..3).prop_map(|(name, port)| PathElement::key(vec![
            ("name".into(), Value::from(name)),
            ("containerPort".into(), Value::from(port)),
        ])),
        1 => "[a-c]{1,2}".prop_map(|value| PathElement::Value(Value::from(value))),
        1 => (0i64..3).prop_map(PathElement::Index),
    ]
}

fn any_set() -> impl Strategy<Value = FieldSet> {
    prop::collection::vec(prop::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
        let mut set = FieldSet::default();
        for path in &paths {
            set.insert(path);
        }
        set
    })
}

proptest! {
    #[test]
    fn fields_v1_round_trips(set in any_set()) {
        prop_assert_eq!(&FieldSet::from_fields_v1(&set.to_fields_v1()).expect("own format"), &set);
    }

    #[test]
    fn laws_of_sets(a in any_set(), b in any_set()) {
        prop_assert_eq!(&a.union(&b), &b.union(&a));
        prop_assert_eq!(&a.intersection(&b), &b.intersection(&a));
        prop_assert_eq!(&a.difference(&b).union(&a.intersection(&b)), &a);
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(&a.union(&a), &a);
        let both = a.union(&b);
        prop_assert!(a.difference(&both).is_empty());
        a.for_each(&mut |path| {
            let path: Vec<PathElement> = path.iter().map(|e| (*e).clone()).collect();
            assert!(both.has(&path) && a.has(&path));
        });
        prop_assert_eq!(a.is_empty(), a.paths().is_empty());
    }
}
