use proptest::prelude::*;
use serde_json::json;

use super::structured::{fields_of, with_named_fields};
use super::*;
use crate::row::Rows;

/// A kind, a clock and requests against it.
struct Bench {
    rows: &'static Rows,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    now: Timestamp,
}

const T0: &str = "2026-01-01T00:00:00Z";

impl Bench {
    fn new(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        static ROWS: std::sync::LazyLock<std::sync::Arc<Rows>> =
            std::sync::LazyLock::new(|| std::sync::Arc::new(Rows::builtin().clone()));
        Self {
            rows: &ROWS,
            group,
            version,
            kind,
            now: T0.parse().expect("a time"),
        }
    }

    fn deployment() -> Self {
        Self::new("apps", "v1", "Deployment")
    }

    fn config_map() -> Self {
        Self::new("", "v1", "ConfigMap")
    }

    fn later(&mut self) {
        self.now += jiff::SignedDuration::from_secs(60);
    }

    fn with<T>(
        &self,
        manager: &str,
        subresource: &str,
        run: impl FnOnce(&Schema, &Ty, &ManagerRequest<'_>) -> T,
    ) -> T {
        let row = self
            .rows
            .by_kind(self.group, self.version, self.kind)
            .expect("there");
        let version = row.gvk.api_version();
        let request = ManagerRequest {
            manager,
            subresource,
            api_version: &version,
            now: self.now,
            custom: None,
            versions: &OneVersion,
        };
        run(self.rows.schema(), &self.rows.ty(row), &request)
    }

    fn object(&self, mut fields: Value) -> Value {
        let row = self
            .rows
            .by_kind(self.group, self.version, self.kind)
            .expect("there");
        fields["apiVersion"] = Value::from(row.gvk.api_version());
        fields["kind"] = Value::from(self.kind);
        object::metadata(&mut fields).insert("name".to_owned(), Value::from("web"));
        object::metadata(&mut fields).insert("namespace".to_owned(), Value::from("default"));
        fields
    }

    fn update(&self, manager: &str, live: Option<&Value>, new: Value) -> Value {
        self.update_at(manager, "", live, new)
    }

    fn update_at(
        &self,
        manager: &str,
        subresource: &str,
        live: Option<&Value>,
        new: Value,
    ) -> Value {
        let mut new = self.object(new);
        self.with(manager, subresource, |schema, ty, request| {
            // As the door does: admission comes first, and must keep an empty managedFields.
            assert_eq!(
                schema.admit(ty, &mut new),
                crate::schema::Admission::default()
            );
            // What is left unread must come out as if it had been read.
            let mut whole = new.clone();
            let given = take_managed(&mut whole);
            track_whole(schema, ty, live, &mut whole, given.as_ref(), request).expect("tracked");
            track_update(schema, ty, live, &mut new, request).expect("tracked");
            assert_eq!(new, whole);
        });
        new
    }

    fn try_apply(
        &self,
        manager: &str,
        live: Option<&Value>,
        config: Value,
        force: bool,
    ) -> Result<Value, PatchError> {
        let config = self.object(config);
        self.with(manager, "", |schema, ty, request| {
            apply(schema, ty, live, &config, force, request)
        })
    }

    fn apply(&self, manager: &str, live: Option<&Value>, config: Value) -> Value {
        self.try_apply(manager, live, config, false)
            .expect("applies")
    }
}

fn owners(object: &Value) -> Vec<(String, Value)> {
    object::list(object, &["metadata", "managedFields"])
        .iter()
        .map(|entry| {
            let mut name = format!(
                "{}:{}",
                object::text(entry, &["manager"]),
                object::text(entry, &["operation"])
            );
            let subresource = object::text(entry, &["subresource"]);
            if !subresource.is_empty() {
                name = format!("{name}:{subresource}");
            }
            (name, entry["fieldsV1"].clone())
        })
        .collect()
}

fn owned_by(object: &Value, name: &str) -> Value {
    owners(object)
        .into_iter()
        .find(|(owner, _)| owner == name)
        .map(|(_, set)| set)
        .unwrap_or_default()
}

fn bare(mut object: Value) -> Value {
    take_managed(&mut object);
    object
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    })
}

/// As `kubectl create deployment` leaves it on the reference.
#[test]
fn a_create_is_tracked_as_the_reference_tracks_it() {
    let bench = Bench::deployment();
    let mut fields = deployment(1, "nginx");
    fields["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    fields["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
    fields["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 80, "protocol": "TCP"}]);
    fields["spec"]["template"]["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    fields["spec"]["template"]["spec"]["securityContext"] = json!({});
    fields["status"] = json!({});
    let object = bench.update("kubectl-create", None, fields);
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": T0,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {"k:{\"name\":\"web\"}": {
                                ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                                "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            }},
                            "f:securityContext": {},
                            "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}},
                        },
                    },
                },
            },
        }])
    );
}

#[test]
fn updates_take_what_they_change() {
    let mut bench = Bench::config_map();
    let one = bench.update("a", None, json!({"data": {"x": "1", "y": "1"}}));
    bench.later();
    let two = bench.update("b", Some(&one), json!({"data": {"x": "2", "y": "1"}}));
    assert_eq!(
        owned_by(&two, "a:Update"),
        json!({"f:data": {".": {}, "f:y": {}}})
    );
    assert_eq!(owned_by(&two, "b:Update"), json!({"f:data": {"f:x": {}}}));
    assert_eq!(two["metadata"]["managedFields"][0]["time"], T0);
    assert_eq!(
        two["metadata"]["managedFields"][1]["time"],
        "2026-01-01T00:01:00Z"
    );
    // Nothing changes: nothing moves, no time is written.
    bench.later();
    let same = bench.update("c", Some(&two), json!({"data": {"x": "2", "y": "1"}}));
    assert_eq!(same, two);
    // What is removed has no owner, and an owner of nothing goes.
    let gone = bench.update("c", Some(&two), json!({"data": {"y": "1"}}));
    assert_eq!(
        owners(&gone),
        [(
            "a:Update".to_owned(),
            json!({"f:data": {".": {}, "f:y": {}}})
        )]
    );
}

/// Times that Go holds by value are owned with the condition, written or not.
#[test]
fn status_and_spec_are_owned_apart() {
    let mut bench = Bench::deployment();
    let mut fields = deployment(1, "nginx");
    fields["status"] = json!({"replicas": 7});
    let one = bench.update("kubectl", None, fields);
    assert!(owned_by(&one, "kubectl:Update").get("f:status").is_none());
    bench.later();
    let mut fields = deployment(9, "nginx");
    fields["status"] =
        json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let two = bench.update_at("controller", "status", Some(&one), fields);
    assert_eq!(
        owned_by(&two, "controller:Update:status"),
        json!({"f:status": {
            "f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:lastTransitionTime": {}, "f:lastUpdateTime": {}, "f:status": {}, "f:type": {}}},
            "f:observedGeneration": {},
        }})
    );
    assert_eq!(
        owned_by(&two, "kubectl:Update"),
        owned_by(&one, "kubectl:Update")
    );
}

#[test]
fn what_the_client_says_about_managed_fields() {
    let bench = Bench::config_map();
    let one = bench.update("a", None, json!({"data": {"x": "1"}}));
    for reset in [json!([]), json!([{}])] {
        let forgotten = bench.update(
            "b",
            Some(&one),
            json!({"metadata": {"managedFields": reset}, "data": {"x": "2"}}),
        );
        assert!(forgotten["metadata"].get("managedFields").is_none());
        // It stays so until somebody applies.
        let still = bench.update("b", Some(&forgotten), json!({"data": {"x": "3"}}));
        assert!(still["metadata"].get("managedFields").is_none());
    }
    for broken in [
        json!([{"manager": "x"}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV2", "fieldsV1": {}}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}]),
    ] {
        let kept = bench.update(
            "a",
            Some(&one),
            json!({"metadata": {"managedFields": broken}, "data": {"x": "1"}}),
        );
        assert_eq!(owned_by(&kept, "a:Update"), owned_by(&one, "a:Update"));
    }
    let given = json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:x": {}}}}]);
    let set = bench.update(
        "a",
        Some(&one),
        json!({"metadata": {"managedFields": given.clone()}, "data": {"x": "1"}}),
    );
    assert_eq!(set["metadata"]["managedFields"], given);
    let through = bench.update_at(
        "a",
        "status",
        Some(&one),
        json!({"metadata": {"managedFields": given}, "data": {"x": "1"}}),
    );
    assert_eq!(through, one);
}

#[test]
fn old_updates_are_merged_beyond_ten() {
    let mut bench = Bench::config_map();
    let mut live = bench.update("m00", None, json!({"data": {"k00": "0"}}));
    for index in 1..15 {
        bench.later();
        let mut fields = bare(live.clone());
        fields["data"][format!("k{index:02}")] = Value::from("0");
        live = bench.update(&format!("m{index:02}"), Some(&live), fields);
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10);
    assert_eq!(owners[0].0, "ancient-changes:Update");
    assert_eq!(
        owners[0].1,
        json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}, "f:k03": {}, "f:k04": {}, "f:k05": {}}})
    );
    assert_eq!(
        live["metadata"]["managedFields"][0]["time"],
        "2026-01-01T00:05:00Z"
    );
    assert_eq!(owners[9].0, "m14:Update");
}

#[test]
fn applying_creates_changes_and_removes() {
    let mut bench = Bench::deployment();
    let one = bench.apply("me", None, deployment(3, "nginx:1"));
    assert_eq!(bare(one.clone()), bench.object(deployment(3, "nginx:1")));
    assert_eq!(one["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(one["metadata"]["managedFields"][0]["time"], T0);

    bench.later();
    assert_eq!(bench.apply("me", Some(&one), deployment(3, "nginx:1")), one);

    let mut less = deployment(3, "nginx:2");
    less["spec"]
        .as_object_mut()
        .expect("an object")
        .remove("replicas");
    let two = bench.apply("me", Some(&one), less.clone());
    assert_eq!(bare(two.clone()), bench.object(less));
    assert_eq!(
        two["metadata"]["managedFields"][0]["time"],
        "2026-01-01T00:01:00Z"
    );
}

#[test]
fn conflicts_are_told_and_can_be_forced() {
    let bench = Bench::deployment();
    let one = bench.update("kubectl-client-side-apply", None, deployment(1, "nginx"));
    let error = bench
        .try_apply("me", Some(&one), json!({"spec": {"replicas": 3}}), false)
        .expect_err("conflicts");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let status = serde_json::to_value(error.status()).expect("serialises");
    assert_eq!(
        status,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas",
            "details": {"causes": [{
                "reason": "FieldManagerConflict",
                "message": "conflict with \"kubectl-client-side-apply\" using apps/v1",
                "field": ".spec.replicas",
            }]},
        })
    );
    let forced = bench
        .try_apply("me", Some(&one), json!({"spec": {"replicas": 3}}), true)
        .expect("forced");
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(
        owned_by(&forced, "me:Apply"),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert!(
        owned_by(&forced, "kubectl-client-side-apply:Update")["f:spec"]
            .get("f:replicas")
            .is_none()
    );

    // Several conflicts, one of them with an applier.
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}});
    let two = bench
        .try_apply("z", Some(&forced), image("nginx:2"), true)
        .expect("forced");
    let mut both = image("nginx:3");
    both["spec"]["replicas"] = json!(4);
    let error = bench
        .try_apply("other", Some(&two), both, false)
        .expect_err("conflicts");
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"me\":\n- .spec.replicas\nconflicts with \"z\":\n- \
         .spec.template.spec.containers[name=\"web\"].image"
    );
}

#[test]
fn the_same_value_is_shared() {
    let mut bench = Bench::config_map();
    let one = bench.apply("a", None, json!({"data": {"x": "1", "y": "1"}}));
    bench.later();
    let two = bench.apply("b", Some(&one), json!({"data": {"x": "1"}}));
    assert_eq!(
        owned_by(&two, "a:Apply"),
        json!({"f:data": {"f:x": {}, "f:y": {}}})
    );
    assert_eq!(owned_by(&two, "b:Apply"), json!({"f:data": {"f:x": {}}}));
    // One lets go: it stays for the other.
    let three = bench.apply("a", Some(&two), json!({"data": {"y": "1"}}));
    assert_eq!(three["data"], json!({"x": "1", "y": "1"}));
    assert_eq!(owned_by(&three, "a:Apply"), json!({"f:data": {"f:y": {}}}));
    // Both let go: it goes.
    let four = bench.apply("b", Some(&three), json!({}));
    assert_eq!(four["data"], json!({"y": "1"}));
    assert_eq!(owned_by(&four, "b:Apply"), Value::Null);
}

#[test]
fn what_others_updated_stays_when_the_applier_lets_go() {
    let bench = Bench::config_map();
    let one = bench.apply("a", None, json!({"data": {"x": "1", "y": "1"}}));
    let mut fields = bare(one.clone());
    fields["data"]["x"] = json!("2");
    let two = bench.update("b", Some(&one), fields);
    assert_eq!(owned_by(&two, "a:Apply"), json!({"f:data": {"f:y": {}}}));
    let three = bench.apply("a", Some(&two), json!({}));
    assert_eq!(three["data"], json!({"x": "2"}));
    assert_eq!(
        owners(&three),
        [("b:Update".to_owned(), json!({"f:data": {"f:x": {}}}))]
    );
}

#[test]
fn items_of_lists_come_and_go() {
    let bench = Bench::deployment();
    let with = |containers: Value| {
        let mut fields = deployment(1, "x");
        fields["spec"]["template"]["spec"]["containers"] = containers;
        fields
    };
    let one = bench.apply("a", None, with(json!([{"name": "web", "image": "w", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}, {"name": "side", "image": "s"}])));
    // An injected container is not the applier's.
    let mut fields = bare(one.clone());
    fields["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "mesh", "image": "m"}));
    fields["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP");
    let two = bench.update("injector", Some(&one), fields);
    let three = bench.apply("a", Some(&two), with(json!([{"name": "web", "image": "w", "ports": [{"containerPort": 80, "protocol": "UDP"}]}])));
    let containers = &three["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["name"], "web");
    assert_eq!(containers[1], json!({"name": "mesh", "image": "m"}));
    assert_eq!(containers.as_array().map(Vec::len), Some(2));
    // The port that the injector defaulted stays, with what only the applier owned of it gone.
    let ports = containers[0]["ports"].as_array().expect("a list");
    assert!(
        ports.contains(&json!({"containerPort": 80, "protocol": "UDP"})),
        "{ports:?}"
    );
}

#[test]
fn atomic_values_are_owned_whole() {
    let bench = Bench::deployment();
    let selector = |labels: Value| json!({"spec": {"selector": {"matchLabels": labels}}});
    let one = bench.apply("a", None, selector(json!({"x": "1"})));
    let error = bench
        .try_apply("b", Some(&one), selector(json!({"y": "1"})), false)
        .expect_err("conflicts");
    assert!(
        error
            .to_string()
            .ends_with("conflict with \"a\": .spec.selector"),
        "{error}"
    );
    let two = bench
        .try_apply("b", Some(&one), selector(json!({"y": "1"})), true)
        .expect("forced");
    assert_eq!(two["spec"]["selector"], json!({"matchLabels": {"y": "1"}}));
}

#[test]
fn sets_merge_by_value() {
    let bench = Bench::config_map();
    let one = bench.apply("a", None, json!({"metadata": {"finalizers": ["x", "y"]}}));
    let two = bench.apply(
        "b",
        Some(&one),
        json!({"metadata": {"finalizers": ["y", "z"]}}),
    );
    assert_eq!(two["metadata"]["finalizers"], json!(["x", "y", "z"]));
    let three = bench.apply("a", Some(&two), json!({}));
    assert_eq!(three["metadata"]["finalizers"], json!(["y", "z"]));
}

#[test]
fn the_first_apply_finds_what_was_before() {
    let bench = Bench::config_map();
    let live = bench.object(json!({"metadata": {"uid": "1"}, "data": {"x": "1", "y": "1"}}));
    let one = bench.apply("a", Some(&live), json!({"data": {"x": "1"}}));
    assert_eq!(
        owners(&one),
        [
            ("a:Apply".to_owned(), json!({"f:data": {"f:x": {}}})),
            (
                "before-first-apply:Update".to_owned(),
                json!({"f:data": {".": {}, "f:x": {}, "f:y": {}}})
            ),
        ]
    );
    let error = bench
        .try_apply("a", Some(&live), json!({"data": {"x": "2"}}), false)
        .expect_err("conflicts");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
}

#[test]
fn kubectl_goes_from_client_side_to_server_side_and_back() {
    let bench = Bench::config_map();
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let applied = bench
        .object(json!({"data": {"x": "1", "y": "1"}}))
        .to_string();
    let mut fields = json!({"metadata": {"annotations": {}}, "data": {"x": "1", "y": "1"}});
    fields["metadata"]["annotations"][annotation] = Value::from(applied);
    let live = bench.update("kubectl-client-side-apply", None, fields);

    // Others meet a conflict; kubectl does not.
    bench
        .try_apply("other", Some(&live), json!({"data": {"x": "<2>"}}), false)
        .expect_err("conflicts");
    let one = bench.apply("kubectl", Some(&live), json!({"data": {"x": "<2>"}}));
    assert_eq!(one["data"]["x"], "<2>");
    assert_eq!(
        owned_by(&one, "kubectl:Apply"),
        json!({"f:data": {"f:x": {}}})
    );
    assert_eq!(
        one["metadata"]["annotations"][annotation],
        "{\"apiVersion\":\"v1\",\"data\":{\"x\":\"\\u003c2\\u003e\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"web\",\"namespace\":\"default\"}}\n"
    );

    // What somebody changed since is a conflict for kubectl as well.
    let mut fields = bare(live.clone());
    fields["data"]["x"] = json!("9");
    let drifted = bench.update("edit", Some(&live), fields);
    let error = bench
        .try_apply(
            "kubectl",
            Some(&drifted),
            json!({"data": {"x": "2", "y": "2"}}),
            false,
        )
        .expect_err("conflicts");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.x"
    );
}

#[test]
fn refused_configurations() {
    let bench = Bench::config_map();
    let live = bench.update("a", None, json!({}));
    let cases = [
        (
            json!({"metadata": {"managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            json!({"dta": {}}),
            500,
            "failed to create typed patch object (default/web; /v1, Kind=ConfigMap): .dta: field not declared in schema",
        ),
    ];
    for (config, code, text) in cases {
        let error = bench
            .try_apply("a", Some(&live), config, false)
            .expect_err(text);
        assert_eq!(
            (error.status().code, error.to_string().as_str()),
            (code, text)
        );
    }
    let wrong = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
    let error = bench
        .with("a", "", |schema, ty, request| {
            apply(schema, ty, Some(&live), &wrong, false, request)
        })
        .expect_err("another kind");
    assert_eq!(
        error.status().message,
        "invalid object type: apps/v1, Kind=Deployment"
    );
    let empty = json!({});
    let error = bench
        .with("a", "", |schema, ty, request| {
            apply(schema, ty, None, &empty, false, request)
        })
        .expect_err("no kind");
    assert_eq!(error.status().code, 400);
}

/// The drift exercise: three replicas applied, scaled by hand, applied again.
#[test]
fn drift_is_a_conflict_and_comes_back_by_force() {
    let bench = Bench::deployment();
    let one = bench.apply("kubectl", None, deployment(3, "nginx"));
    let scaled = bench.update("kubectl-scale", Some(&one), deployment(1, "nginx"));
    let error = bench
        .try_apply("kubectl", Some(&scaled), deployment(3, "nginx"), false)
        .expect_err("conflicts");
    assert!(
        error
            .to_string()
            .contains("\"kubectl-scale\" using apps/v1: .spec.replicas")
    );
    let back = bench
        .try_apply("kubectl", Some(&scaled), deployment(3, "nginx"), true)
        .expect("forced");
    assert_eq!(back["spec"]["replicas"], 3);
    assert_eq!(owners(&back).len(), 1);
}

#[test]
fn only_times_differ() {
    let mut bench = Bench::config_map();
    let live = bench.apply("a", None, json!({"data": {"x": "1"}}));
    bench.later();
    let mut new = bench.apply("a", None, json!({"data": {"x": "1"}}));
    assert_ne!(live, new);
    keep_times(&live, &mut new);
    assert_eq!(live, new);
    let mut other = bench.apply("a", None, json!({"data": {"x": "2"}}));
    keep_times(&live, &mut other);
    assert_eq!(
        other["metadata"]["managedFields"][0]["time"],
        "2026-01-01T00:01:00Z"
    );
}

fn data() -> impl Strategy<Value = Value> {
    (
        prop::collection::btree_map("[a-d]", "[0-2]", 0..4),
        prop::collection::btree_map("[a-c]", "[0-2]", 0..3),
        prop::collection::btree_set("[x-z]", 0..3),
    )
        .prop_map(|(data, labels, finalizers)| {
            let mut out = json!({});
            if !data.is_empty() {
                out["data"] = json!(data);
            }
            if !labels.is_empty() {
                out["metadata"]["labels"] = json!(labels);
            }
            if !finalizers.is_empty() {
                out["metadata"]["finalizers"] = json!(finalizers);
            }
            out
        })
}

/// Everything that `object` has besides what identifies it.
fn content(bench: &Bench, object: &Value) -> FieldSet {
    let mut set = bench.with("", "", |schema, ty, _| {
        FieldSet::from_value(schema, ty, &bare(object.clone()))
    });
    strip(&mut set);
    set
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(live in data(), first in data(), config in data()) {
        let mut bench = Bench::config_map();
        let live = bench.update("user", None, live);
        let live = bench.try_apply("other", Some(&live), first, true).expect("forced");
        let once = bench.try_apply("me", Some(&live), config.clone(), true).expect("forced");
        bench.later();
        let twice = bench.try_apply("me", Some(&once), config.clone(), false).expect("no conflict with oneself");
        prop_assert_eq!(&twice, &once);
        // And everything that was applied is there.
        let wanted = bench.object(config);
        let merged = bench.with("", "", |schema, ty, _| structured::merge(Shape::root(schema, ty), &once, &wanted));
        prop_assert_eq!(merged, once);
    }

    #[test]
    fn many_managers_are_tracked_as_by_reading_all(steps in proptest::collection::vec((0..6_usize, data(), any::<bool>()), 1..12)) {
        let mut bench = Bench::config_map();
        let mut live = bench.update("first", None, json!({}));
        for (who, data, keeps) in steps {
            bench.later();
            let manager = ["first", "second", "third"][who % 3];
            if who < 3 {
                let mut new = data;
                if keeps {
                    // As clients do that change what they have read.
                    new["metadata"] = json!({"managedFields": live["metadata"]["managedFields"]});
                }
                // It holds both ways against each other.
                live = bench.update(manager, Some(&live), new);
            } else {
                live = bench.try_apply(manager, Some(&live), data, true).expect("forced");
            }
        }
    }

    #[test]
    fn letting_go_removes_exactly_what_was_applied_alone(live in data(), config in data(), less in data()) {
        let bench = Bench::config_map();
        let live = bench.update("user", None, live);
        let one = bench.try_apply("me", Some(&live), config.clone(), true).expect("forced");
        let two = bench.try_apply("me", Some(&one), less.clone(), true).expect("forced");
        let (config, less) = (content(&bench, &bench.object(config)), content(&bench, &bench.object(less)));
        let claimed = owners(&two).iter().fold(FieldSet::default(), |all, (_, set)| {
            all.union(&FieldSet::from_fields_v1(set).expect("own format"))
        });
        let before = content(&bench, &one);
        let expected = before.difference(&config.difference(&claimed)).union(&less);
        prop_assert_eq!(content(&bench, &two), expected);
    }

    #[test]
    fn every_field_has_an_owner_that_has_it(live in data(), config in data(), next in data()) {
        let bench = Bench::config_map();
        let live = bench.update("user", None, live);
        let one = bench.try_apply("me", Some(&live), config, true).expect("forced");
        let two = bench.update("user", Some(&one), next);
        let there = bench.with("", "", |schema, ty, _| {
            let shape = Shape::root(schema, ty);
            with_named_fields(shape, &fields_of(shape, &bare(two.clone())))
        });
        for (owner, set) in owners(&two) {
            let set = FieldSet::from_fields_v1(&set).expect("own format");
            prop_assert!(!set.is_empty());
            prop_assert!(set.difference(&there).is_empty(), "{} owns {:?}", owner, set.difference(&there).paths());
        }
    }
}
