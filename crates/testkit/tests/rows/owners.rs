//! Owners of fields of kinds with two forms: each keeps the version that it wrote in.

use evenkeel_testkit::{Caller, Reply};
use serde_json::{Value, json};

use super::{APPLY_PATCH, MERGE_PATCH, NAMESPACE, open};

fn autoscalers(version: &str) -> String {
    format!("/apis/autoscaling/{version}/namespaces/{NAMESPACE}/horizontalpodautoscalers")
}

/// A configuration of an autoscaler; `rest` of its spec beside what it scales.
fn scaler(version: &str, name: &str, rest: Value) -> Value {
    let mut spec = json!({
        "maxReplicas": 5,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
    });
    for (field, value) in rest.as_object().unwrap() {
        spec[field] = value.clone();
    }
    part(version, name, spec)
}

fn part(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name}, "spec": spec})
}

fn processors(percent: u8) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

async fn apply(admin: &Caller, manager: &str, config: &Value) -> Reply {
    let version = config["apiVersion"].as_str().unwrap();
    let version = version.rsplit('/').next().unwrap();
    let name = config["metadata"]["name"].as_str().unwrap();
    let path = format!("{}/{name}?fieldManager={manager}", autoscalers(version));
    admin.patch(&path, APPLY_PATCH, config).await
}

/// Who owns what, in which version.
fn owners(object: &Value) -> Vec<(String, String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            (
                text("manager"),
                text("apiVersion"),
                entry["fieldsV1"].clone(),
            )
        })
        .collect()
}

fn owner(manager: &str, version: &str, set: Value) -> (String, String, Value) {
    (manager.to_owned(), version.to_owned(), set)
}

#[tokio::test]
async fn owners_of_autoscalers_keep_their_version() {
    let (_cluster, admin) = open().await;
    let (v1, v2) = ("autoscaling/v1", "autoscaling/v2");
    let wanted = json!({"targetCPUUtilizationPercentage": 50});
    apply(&admin, "alice", &scaler("v1", "a", wanted))
        .await
        .expect(201);

    // What is changed through the new form is gone from the owner through the old one.
    let metrics = json!({"spec": {"metrics": processors(70)}});
    let bobs = format!("{}/a?fieldManager=bob", autoscalers("v2"));
    let seen = admin
        .patch(&bobs, MERGE_PATCH, &metrics)
        .await
        .expect(200)
        .body;
    let alice = json!({"f:spec": {"f:maxReplicas": {}, "f:scaleTargetRef": {}}});
    let bob = json!({"f:spec": {"f:metrics": {}}});
    let both = [
        owner("alice", v1, alice.clone()),
        owner("bob", v2, bob.clone()),
    ];
    assert_eq!(owners(&seen), both);

    // Conflicts are told in the words of the owner's version, both ways.
    let other = json!({"maxReplicas": 9,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}});
    let refused = apply(&admin, "carol", &part("v2", "a", other))
        .await
        .expect(409);
    assert_eq!(
        refused.message(),
        "Apply failed with 2 conflicts: conflicts with \"alice\":\n- .spec.maxReplicas\n- \
         .spec.scaleTargetRef"
    );
    let other = json!({"targetCPUUtilizationPercentage": 60});
    let refused = apply(&admin, "dave", &part("v1", "a", other))
        .await
        .expect(409);
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"bob\" using autoscaling/v2: .spec.metrics"
    );

    // Alice goes to the new form, where there is more to say, …
    let behavior = json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}});
    let seen = apply(&admin, "alice", &scaler("v2", "a", behavior))
        .await
        .expect(200)
        .body;
    assert_eq!(seen["spec"]["metrics"], processors(70));
    let set = json!({"f:spec": {
        "f:behavior": {"f:scaleDown": {"f:stabilizationWindowSeconds": {}}},
        "f:maxReplicas": {},
        "f:scaleTargetRef": {"f:apiVersion": {}, "f:kind": {}, "f:name": {}},
    }});
    assert_eq!(
        owners(&seen),
        [owner("alice", v2, set), owner("bob", v2, bob.clone())]
    );
    // … and back: what the old form has no field for goes with her, and nothing else does.
    let seen = apply(&admin, "alice", &scaler("v1", "a", json!({})))
        .await
        .expect(200)
        .body;
    assert_eq!(seen["metadata"].get("annotations"), None);
    assert_eq!(seen["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(seen["spec"]["minReplicas"], 1);
    assert_eq!(owners(&seen), both);

    // A status through the new form takes nothing from anybody.
    let status = json!({"status": {"currentReplicas": 2, "desiredReplicas": 2,
        "conditions": [{"type": "AbleToScale", "status": "True"}]}});
    let path = format!("{}/a/status?fieldManager=loop", autoscalers("v2"));
    let seen = admin
        .patch(&path, MERGE_PATCH, &status)
        .await
        .expect(200)
        .body;
    let loops = owners(&seen).pop().unwrap();
    assert_eq!(owners(&seen)[..2], both);
    assert_eq!((loops.0.as_str(), loops.1.as_str()), ("loop", v2));
    assert!(loops.2["f:status"]["f:conditions"].is_object());
    let mut more = scaler("v1", "a", json!({"targetCPUUtilizationPercentage": 70}));
    more["spec"]["maxReplicas"] = 6.into();
    let seen = apply(&admin, "alice", &more).await.expect(200).body;
    assert_eq!(owners(&seen)[1..], [both[1].clone(), loops.clone()]);
    assert_eq!(seen["status"]["currentReplicas"], 2);
    // They want the same: when one lets go it stays for the other.
    let mut less = scaler("v1", "a", json!({}));
    less["spec"]["maxReplicas"] = 6.into();
    let seen = apply(&admin, "alice", &less).await.expect(200).body;
    assert_eq!(seen["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(
        owners(&seen),
        [owner("alice", v1, alice), both[1].clone(), loops]
    );
    // What changes nothing writes nothing.
    let again = apply(&admin, "alice", &less).await.expect(200);
    assert_eq!(
        again.body["metadata"]["resourceVersion"],
        seen["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_default_of_the_conversion_holds_what_the_old_form_lets_go() {
    let (_cluster, admin) = open().await;
    let wanted = json!({"targetCPUUtilizationPercentage": 50});
    apply(&admin, "alice", &scaler("v1", "b", wanted))
        .await
        .expect(201);
    let status = json!({"status": {"currentReplicas": 2, "desiredReplicas": 2}});
    let path = format!("{}/b/status?fieldManager=loop", autoscalers("v2"));
    admin.patch(&path, MERGE_PATCH, &status).await.expect(200);
    let seen = apply(&admin, "alice", &scaler("v1", "b", json!({})))
        .await
        .expect(200)
        .body;
    // In the new form, in which somebody owns fields, there is always something wanted: what stood
    // there stays, as in the reference.
    assert_eq!(seen["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(seen["status"]["currentReplicas"], 2);
    assert_eq!(owners(&seen).len(), 2);
}

#[tokio::test]
async fn owners_in_versions_that_are_not_served_are_forgotten() {
    let (_cluster, admin) = open().await;
    let entry = |manager: &str, version: &str, set: Value| {
        json!({"manager": manager, "operation": "Update", "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": set})
    };
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let made = format!("{collection}?fieldManager=one");
    let map = json!({"metadata": {"name": "versions"}, "data": {"a": "1"}});
    let mut map = admin.post(&made, &map).await.expect(201).body;
    let list = map["metadata"]["managedFields"].as_array_mut().unwrap();
    for version in ["v0", "extensions/v1beta1", "apps/v1"] {
        list.push(entry("old", version, json!({"f:data": {"f:a": {}}})));
    }
    let path = format!("{collection}/versions?fieldManager=two");
    let seen = admin.put(&path, &map).await.expect(200).body;
    let names: Vec<String> = owners(&seen).into_iter().map(|it| it.0).collect();
    assert_eq!(names, ["one"]);
}

#[tokio::test]
async fn events_forget_owners_of_the_other_group() {
    let (_cluster, admin) = open().await;
    let core = format!("/api/v1/namespaces/{NAMESPACE}/events");
    let new = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tests.example.com/rows", "reportingInstance": "a",
        "action": "Testing", "reason": "Tested", "type": "Normal", "note": "told",
        "regarding": {"kind": "Pod", "name": "p", "namespace": NAMESPACE},
    });
    let made = admin
        .post(&format!("{new}?fieldManager=recorder"), &event)
        .await
        .expect(201)
        .body;
    let [(manager, version, set)] = &owners(&made)[..] else {
        panic!("{made:#}");
    };
    assert_eq!(
        (manager.as_str(), version.as_str()),
        ("recorder", "events.k8s.io/v1")
    );
    assert!(set.get("f:note").is_some());
    let counted = admin
        .patch(
            &format!("{core}/e?fieldManager=counter"),
            MERGE_PATCH,
            &json!({"count": 3}),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(
        owners(&counted),
        [owner("counter", "v1", json!({"f:count": {}}))]
    );
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let seen = admin
        .patch(
            &format!("{new}/e?fieldManager=recorder"),
            MERGE_PATCH,
            &series,
        )
        .await
        .expect(200)
        .body;
    let [(manager, version, set)] = &owners(&seen)[..] else {
        panic!("{seen:#}");
    };
    assert_eq!(
        (manager.as_str(), version.as_str()),
        ("recorder", "events.k8s.io/v1")
    );
    assert!(set["f:series"].is_object());
    assert_eq!(seen["deprecatedCount"], 3);
}

/// Nobody owns what admission, allocation and the kind itself add; who writes it later does.
#[tokio::test]
async fn what_the_server_adds_is_nobodys() {
    let (_cluster, admin) = open().await;
    let owned = |object: &Value| -> Vec<String> {
        let sets = owners(object).into_iter().map(|(_, _, set)| set);
        let spec = sets.filter_map(|set| set["f:spec"].as_object().cloned());
        spec.flat_map(|spec| spec.into_iter().map(|(name, _)| name))
            .collect()
    };
    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mine"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let made = admin.post(&services, &service).await.expect(201).body;
    assert!(made["spec"]["clusterIP"].is_string());
    let wanted = [
        "f:externalTrafficPolicy",
        "f:internalTrafficPolicy",
        "f:ports",
        "f:sessionAffinity",
        "f:type",
    ];
    assert_eq!(owned(&made), wanted);

    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"},
        "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let made = admin.post(&pods, &pod).await.expect(201).body;
    assert!(made["spec"]["tolerations"].is_array());
    let wanted = [
        "f:containers",
        "f:dnsPolicy",
        "f:enableServiceLinks",
        "f:restartPolicy",
        "f:schedulerName",
        "f:securityContext",
        "f:terminationGracePeriodSeconds",
    ];
    assert_eq!(owned(&made), wanted);
    // A label through an update takes nothing of it either.
    let mut labelled = made.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let path = format!("{pods}/mine");
    let seen = admin.put(&path, &labelled).await.expect(200).body;
    assert_eq!(owned(&seen), wanted);
}
