//! Classes that objects name or get: of priorities, storage, runtimes and ingresses.

use serde_json::{Value, json};

use super::{MERGE_PATCH, open, pod};

const PODS: &str = "/api/v1/namespaces/classed/pods";
const CLAIMS: &str = "/api/v1/namespaces/classed/persistentvolumeclaims";

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}})
}

#[tokio::test]
async fn a_priority_class_gives_its_number_and_one_is_the_default() {
    let (_cluster, admin) = open("classed", &json!({})).await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str, value: i64, default: bool| {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": "Never"})
    };
    let made = admin.post(PODS, &pod("plain")).await.expect(201);
    assert_eq!(made.body["spec"]["priority"], 0);
    admin
        .post(classes, &class("usual", 10, true))
        .await
        .expect(201);
    admin
        .post(classes, &class("high", 1000, false))
        .await
        .expect(201);
    let refused = admin
        .post(classes, &class("second", 5, true))
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "priorityclasses.scheduling.k8s.io \"second\" is forbidden: PriorityClass usual is already \
         marked as default. Only one default can exist"
    );
    let made = admin.post(PODS, &pod("usual")).await.expect(201);
    assert_eq!(made.body["spec"]["priorityClassName"], "usual");
    assert_eq!(made.body["spec"]["priority"], 10);
    assert_eq!(made.body["spec"]["preemptionPolicy"], "Never");
    let named = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["priorityClassName"] = class.into();
        pod
    };
    let made = admin.post(PODS, &named("high", "high")).await.expect(201);
    assert_eq!(made.body["spec"]["priority"], 1000);
    let refused = admin.post(PODS, &named("x", "none")).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"x\" is forbidden: no PriorityClass with name none was found"
    );
    let mut wrong = named("x", "high");
    wrong["spec"]["priority"] = 7.into();
    let refused = admin.post(PODS, &wrong).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"x\" is forbidden: the integer value of priority (7) must not be provided in pod \
         spec; priority admission controller computed 1000 from the given PriorityClass name"
    );
    let critical = named("critical", "system-cluster-critical");
    let made = admin.post(PODS, &critical).await.expect(201);
    assert_eq!(made.body["spec"]["priority"], 2_000_000_000);
}

#[tokio::test]
async fn a_claim_gets_the_default_class_and_grows_only_where_it_may() {
    let (_cluster, admin) = open("classed", &json!({})).await;
    let made = admin.post(CLAIMS, &claim("none")).await.expect(201);
    assert_eq!(made.body["spec"]["storageClassName"], Value::Null);
    assert_eq!(
        made.body["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    for (name, grows) in [("fixed", false), ("usual", true)] {
        let class = json!({"metadata": {"name": name, "annotations":
                {"storageclass.kubernetes.io/is-default-class": grows.to_string()}},
            "provisioner": "none.test", "allowVolumeExpansion": grows});
        admin.post(classes, &class).await.expect(201);
    }
    let made = admin.post(CLAIMS, &claim("usual")).await.expect(201);
    assert_eq!(made.body["spec"]["storageClassName"], "usual");
    let mut fixed = claim("fixed");
    fixed["spec"]["storageClassName"] = "fixed".into();
    admin.post(CLAIMS, &fixed).await.expect(201);
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let bound = json!({"status": {"phase": "Bound"}});
    for name in ["usual", "fixed"] {
        let path = format!("{CLAIMS}/{name}");
        admin
            .patch(&format!("{path}/status"), MERGE_PATCH, &bound)
            .await
            .expect(200);
    }
    let refused = admin
        .patch(&format!("{CLAIMS}/fixed"), MERGE_PATCH, &larger)
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "persistentvolumeclaims \"fixed\" is forbidden: only dynamically provisioned pvc can be \
         resized and the storageclass that provisions the pvc must support resize"
    );
    admin
        .patch(&format!("{CLAIMS}/usual"), MERGE_PATCH, &larger)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_runtime_class_brings_its_overhead_and_its_nodes() {
    let (cluster, admin) = open("classed", &json!({})).await;
    // Nothing to show where the kind is not served.
    if cluster
        .the_door()
        .rows()
        .by_kind("node.k8s.io", "v1", "RuntimeClass")
        .is_none()
    {
        return;
    }
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"},
            "tolerations": [{"key": "vm", "operator": "Exists", "effect": "NoSchedule"}]}});
    admin
        .post("/apis/node.k8s.io/v1/runtimeclasses", &class)
        .await
        .expect(201);
    let of = |class: &str| {
        let mut pod = pod("p");
        pod["spec"]["runtimeClassName"] = class.into();
        pod
    };
    let refused = admin.post(PODS, &of("none")).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    let mut elsewhere = of("vm");
    elsewhere["spec"]["nodeSelector"] = json!({"vm": "no"});
    let refused = admin.post(PODS, &elsewhere).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; \
         pod.spec.nodeSelector[vm] = no"
    );
    let made = admin.post(PODS, &of("vm")).await.expect(201);
    let spec = &made.body["spec"];
    assert_eq!(spec["overhead"], json!({"cpu": "250m"}));
    assert_eq!(spec["nodeSelector"], json!({"vm": "yes"}));
    assert!(
        spec["tolerations"]
            .as_array()
            .unwrap()
            .iter()
            .any(|toleration| toleration["key"] == "vm")
    );
    let mut own = pod("own");
    own["spec"]["overhead"] = json!({"cpu": "1"});
    let refused = admin.post(PODS, &own).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"own\" is forbidden: pod rejected: Pod Overhead set without corresponding \
         RuntimeClass defined Overhead"
    );
}

#[tokio::test]
async fn an_ingress_gets_the_default_class() {
    let (cluster, admin) = open("classed", &json!({})).await;
    // Nothing to show where the kind is not served.
    if cluster
        .the_door()
        .rows()
        .by_kind("networking.k8s.io", "v1", "IngressClass")
        .is_none()
    {
        return;
    }
    let class = json!({"metadata": {"name": "door", "annotations":
            {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "door.test/c"}});
    admin
        .post("/apis/networking.k8s.io/v1/ingressclasses", &class)
        .await
        .expect(201);
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend":
        {"service": {"name": "web", "port": {"number": 80}}}}});
    let made = admin
        .post(
            "/apis/networking.k8s.io/v1/namespaces/classed/ingresses",
            &ingress,
        )
        .await
        .expect(201);
    assert_eq!(made.body["spec"]["ingressClassName"], "door");
}
