//! `PodSecurity`.

use serde_json::{Value, json};

use super::{MERGE_PATCH, make_namespace, open, pod};

const WHY: &str = "allowPrivilegeEscalation != false (container \"c\" must set \
     securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" \
     must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \
     \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must \
     set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";

fn labels(mode: &str, level: &str) -> Value {
    json!({format!("pod-security.kubernetes.io/{mode}"): level})
}

/// As a `Warning` header has it.
fn warning(text: &str) -> String {
    format!("299 - \"{}\"", text.replace('"', "\\\""))
}

#[tokio::test]
async fn pods_are_refused_in_the_words_of_the_reference() {
    let (_cluster, admin) = open("strict", &labels("enforce", "restricted")).await;
    let path = "/api/v1/namespaces/strict/pods";
    let refused = admin.post(path, &pod("x")).await.expect(403);
    assert_eq!(refused.reason(), "Forbidden");
    assert_eq!(
        refused.message(),
        format!("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": {WHY}")
    );
    assert!(refused.warnings.is_empty(), "{:?}", refused.warnings);
    let mut generated = pod("x");
    generated["metadata"] = json!({"generateName": "x-"});
    let refused = admin.post(path, &generated).await.expect(403);
    let name = refused.body["details"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");

    let mut good = pod("x");
    good["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    good["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    admin.post(path, &good).await.expect(201);
    // What a policy does not look at may change even when the pod breaks it; an ephemeral
    // container is looked at.
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    admin
        .patch(&format!("{path}/x"), MERGE_PATCH, &labelled)
        .await
        .expect(200);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i:1"}]}});
    let refused = admin
        .patch(
            &format!("{path}/x/ephemeralcontainers"),
            "application/strategic-merge-patch+json",
            &debug,
        )
        .await
        .expect(403);
    assert!(
        refused.message().contains("container \"d\" must set"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn workloads_are_warned_of_and_made() {
    let (_cluster, admin) = open("warned", &labels("enforce", "restricted")).await;
    let path = "/apis/apps/v1/namespaces/warned/deployments";
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    let made = admin.post(path, &deployment).await.expect(201);
    let wanted = warning(&format!(
        "would violate PodSecurity \"restricted:latest\": {WHY}"
    ));
    assert_eq!(made.warnings, [wanted]);
    let scaled = json!({"spec": {"replicas": 2}});
    let scaled = admin
        .patch(&format!("{path}/web/scale"), MERGE_PATCH, &scaled)
        .await
        .expect(200);
    assert!(scaled.warnings.is_empty(), "{:?}", scaled.warnings);
    make_namespace(&admin, "told", &labels("warn", "baseline")).await;
    let mut bad = pod("x");
    bad["spec"]["hostPID"] = json!(true);
    let made = admin
        .post("/api/v1/namespaces/told/pods", &bad)
        .await
        .expect(201);
    assert_eq!(
        made.warnings,
        [warning(
            "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
        )]
    );
}

#[tokio::test]
async fn a_stricter_label_names_the_pods_that_break_it() {
    let (_cluster, admin) = open("grown", &json!({})).await;
    let path = "/api/v1/namespaces/grown/pods";
    for name in ["b", "a", "c"] {
        let made = admin.post(path, &pod(name)).await.expect(201);
        assert!(made.warnings.is_empty());
    }
    let mut host = pod("h");
    host["spec"]["hostIPC"] = json!(true);
    admin.post(path, &host).await.expect(201);
    let namespace = "/api/v1/namespaces/grown";
    let label = |level: &str| json!({"metadata": {"labels": labels("enforce", level)}});
    let changed = admin
        .patch(namespace, MERGE_PATCH, &label("baseline"))
        .await
        .expect(200);
    assert_eq!(
        changed.warnings,
        [
            warning(
                "existing pods in namespace \"grown\" violate the new PodSecurity enforce level \
                 \"baseline:latest\""
            ),
            warning("h: host namespaces"),
        ]
    );
    let changed = admin
        .patch(namespace, MERGE_PATCH, &label("restricted"))
        .await
        .expect(200);
    let four = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != \
         true, seccompProfile";
    assert_eq!(
        changed.warnings[1..],
        [
            warning(&format!("a (and 2 other pods): {four}")),
            warning(&format!("h: host namespaces, {four}")),
        ]
    );
    let relaxed = admin
        .patch(namespace, MERGE_PATCH, &label("baseline"))
        .await
        .expect(200);
    assert!(relaxed.warnings.is_empty(), "{:?}", relaxed.warnings);
    let wrong = admin
        .patch(namespace, MERGE_PATCH, &label("strict"))
        .await
        .expect(422);
    assert_eq!(
        wrong.message(),
        "Namespace \"grown\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: \
         Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
}
