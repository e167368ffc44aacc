//! Devices by claim on the whole cluster in a process: the door's rules, the claims' loop and the
//! scheduler under their own identities, and an agent that has no driver.

#![allow(clippy::unwrap_used, reason = "tests")]

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/default";
const DEVICES: &str = "/apis/resource.k8s.io/v1";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";

fn class(expression: &str) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"},
        "spec": {"selectors": [{"cel": {"expression": expression}}]},
    })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "main", "image": "app:1",
                "resources": {"claims": [{"name": "gpu"}]}}],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
        },
    })
}

/// Makes the template of claims that pods name.
async fn template(admin: &Caller) {
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one-gpu"},
        "spec": {"spec": {"devices": {"requests": [
            {"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}},
    });
    let templates = format!("{DEVICES}/namespaces/default/resourceclaimtemplates");
    admin.post(&templates, &template).await.expect(201);
}

/// Waits for the account without which no pod is made.
async fn account(admin: &Caller) {
    let path = format!("{CORE}/serviceaccounts/default");
    let is_there = |it: &Value| it["kind"] == "ServiceAccount";
    admin.until(&path, "the account", is_there).await;
}

/// Waits until a pod is on the node, and answers it.
async fn placed(admin: &Caller, pod: &str) -> Value {
    let path = format!("{CORE}/pods/{pod}");
    let is_placed = |pod: &Value| pod["spec"]["nodeName"] == "one";
    admin.until(&path, "its node", is_placed).await
}

/// Waits until a pod says that there is no device for it.
async fn waits(admin: &Caller, pod: &str) {
    let path = format!("{CORE}/pods/{pod}");
    let says = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array();
        all.into_iter().flatten().any(|one| {
            let text = one["message"].as_str().unwrap_or_default();
            one["type"] == "PodScheduled" && text.contains("1 cannot allocate all claims")
        })
    };
    admin.until(&path, "why it waits", says).await;
}

/// Waits until the agent says in such words that it can't prepare devices.
async fn agent_says(admin: &Caller, words: &str) {
    let says = |events: &Value| {
        let all = events["items"].as_array();
        all.into_iter().flatten().any(|event| {
            let text = event["message"].as_str().unwrap_or_default();
            event["reason"] == "FailedPrepareDynamicResources" && text.contains(words)
        })
    };
    let path = format!("{CORE}/events");
    admin.until(&path, "the agent's words", says).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_a_device_and_the_next_one_gets_it_after_that() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let node = cluster.node("one");
    node.images.put("app:1");
    // Selectors are compiled at the door.
    let classes = format!("{DEVICES}/deviceclasses");
    let refused = admin.post(&classes, &class("device.nothing")).await;
    let refused = refused.expect(422);
    assert!(
        refused.message().contains("undefined field 'nothing'"),
        "{}",
        refused.message()
    );
    let expression = "device.attributes['gpu.example.com'].model == 'a'";
    admin.post(&classes, &class(expression)).await.expect(201);
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "one-gpu"},
        "spec": {"driver": "gpu.example.com", "nodeName": "one",
            "pool": {"name": "one", "generation": 1, "resourceSliceCount": 1},
            "devices": [
                {"name": "gpu-0", "attributes": {"model": {"string": "b"}}},
                {"name": "gpu-1", "attributes": {"model": {"string": "a"}}}]},
    });
    let slices = format!("{DEVICES}/resourceslices");
    admin.post(&slices, &slice).await.expect(201);
    template(&admin).await;
    account(&admin).await;
    let pods = format!("{CORE}/pods");
    admin.post(&pods, &pod("first")).await.expect(201);
    let first = placed(&admin, "first").await;
    let name = first["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(name.starts_with("first-gpu-"), "{name}");
    let claim = admin
        .get(&format!("{CLAIMS}/{name}"))
        .await
        .expect(200)
        .body;
    let result = &claim["status"]["allocation"]["devices"]["results"][0];
    assert_eq!(result["device"], "gpu-1", "{claim:#}");
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "first");
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["resource.kubernetes.io/delete-protection"])
    );
    // The other waits, and says for what.
    admin.post(&pods, &pod("second")).await.expect(201);
    waits(&admin, "second").await;
    // The agent has no drivers, and starts nothing without its devices.
    agent_says(&admin, "").await;
    let now = json!({"gracePeriodSeconds": 0});
    admin.delete(&format!("{pods}/first"), Some(&now)).await;
    placed(&admin, "second").await;
    admin
        .until(&format!("{CLAIMS}/{name}"), "the claim to go", |it| {
            it["code"] == 404
        })
        .await;
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_taints_devices_makes_their_users_go_and_says_so() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let node = cluster.node("one");
    node.images.put("app:1");
    let classes = format!("{DEVICES}/deviceclasses");
    let expression = "device.driver == 'gpu.example.com'";
    admin.post(&classes, &class(expression)).await.expect(201);
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "gpus"},
        "spec": {"driver": "gpu.example.com", "nodeName": "one",
            "pool": {"name": "one", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"},
                {"name": "gpu-1", "taints": [{"key": "old", "effect": "NoSchedule"}]}]},
    });
    let made = admin
        .post(&format!("{DEVICES}/resourceslices"), &slice)
        .await
        .expect(201)
        .body;
    // The door notes since when.
    assert!(
        made["spec"]["devices"][1]["taints"][0]["timeAdded"].is_string(),
        "{made:#}"
    );
    template(&admin).await;
    account(&admin).await;
    let pods = format!("{CORE}/pods");
    let mut first = pod("first");
    first["spec"]["terminationGracePeriodSeconds"] = json!(0);
    admin.post(&pods, &first).await.expect(201);
    placed(&admin, "first").await;
    // A rule that has no effect says what one with effect would do.
    let rules = format!("{DEVICES}/devicetaintrules");
    let rule = |name: &str, effect: &str| {
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceTaintRule", "metadata": {"name": name},
            "spec": {"deviceSelector": {"device": "gpu-0"},
                "taint": {"key": "example.com/broken", "effect": effect}},
        })
    };
    let says = |rule: &Value, reason: &str| {
        let all = rule["status"]["conditions"].as_array();
        all.is_some_and(|all| {
            all.iter()
                .any(|it| it["type"] == "EvictionInProgress" && it["reason"] == reason)
        })
    };
    let made = admin.post(&rules, &rule("try", "None")).await.expect(201);
    assert!(made.body["spec"]["taint"]["timeAdded"].is_string());
    let told = admin
        .until(&format!("{rules}/try"), "what would be", |rule| {
            says(rule, "NoEffect")
        })
        .await;
    let text = told["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        text.starts_with(
            "1 published device selected. 1 allocated device selected. 1 pod would be evicted in \
             1 namespace"
        ),
        "{text}"
    );
    // One with effect ends the pod; the next one finds no device.
    admin
        .post(&rules, &rule("broken", "NoExecute"))
        .await
        .expect(201);
    admin
        .until(&format!("{pods}/first"), "its end", |it| it["code"] == 404)
        .await;
    admin.post(&pods, &pod("second")).await.expect(201);
    waits(&admin, "second").await;
    admin
        .until(&format!("{rules}/broken"), "the rule's end", |rule| {
            says(rule, "Completed")
        })
        .await;
    // Without the rule the device is free.
    admin
        .delete(&format!("{rules}/broken"), None)
        .await
        .expect(200);
    placed(&admin, "second").await;
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extended_resource_is_a_device_of_a_class() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let node = cluster.node("one");
    node.images.put("app:1");
    let mut class = class("device.driver == 'gpu.example.com'");
    class["spec"]["extendedResourceName"] = json!("example.com/gpu");
    let classes = format!("{DEVICES}/deviceclasses");
    admin.post(&classes, &class).await.expect(201);
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "gpus"},
        "spec": {"driver": "gpu.example.com", "nodeName": "one",
            "pool": {"name": "one", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}]},
    });
    let slices = format!("{DEVICES}/resourceslices");
    admin.post(&slices, &slice).await.expect(201);
    account(&admin).await;
    let pods = format!("{CORE}/pods");
    let asking = |name: &str, resource: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                {"name": "main", "image": "app:1",
                    "resources": {"requests": {resource: "1"}, "limits": {resource: "1"}}}]},
        })
    };
    let first = asking("first", "example.com/gpu");
    admin.post(&pods, &first).await.expect(201);
    let first = placed(&admin, "first").await;
    let made = &first["status"]["extendedResourceClaimStatus"];
    assert_eq!(
        made["requestMappings"],
        json!([{"containerName": "main", "resourceName": "example.com/gpu",
            "requestName": "container-0-request-0"}]),
        "{first:#}"
    );
    let name = made["resourceClaimName"].as_str().unwrap().to_owned();
    assert!(name.starts_with("first-extended-resources-"), "{name}");
    let path = format!("{CLAIMS}/{name}");
    let claim = admin.get(&path).await.expect(200).body;
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(
        annotations["resource.kubernetes.io/extended-resource-claim"],
        "true"
    );
    let result = &claim["status"]["allocation"]["devices"]["results"][0];
    assert_eq!(result["device"], "gpu-0", "{claim:#}");
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "first");
    // The next one asks for it by the class's own name, and waits.
    let implicit = "deviceclass.resource.kubernetes.io/gpu";
    admin
        .post(&pods, &asking("second", implicit))
        .await
        .expect(201);
    waits(&admin, "second").await;
    // The agent reads the claim, as it may, and has no driver for it.
    agent_says(&admin, "DRA driver gpu.example.com is not registered").await;
    let now = json!({"gracePeriodSeconds": 0});
    admin.delete(&format!("{pods}/first"), Some(&now)).await;
    admin
        .until(&path, "the claim to go", |it| it["code"] == 404)
        .await;
    let second = placed(&admin, "second").await;
    let made = &second["status"]["extendedResourceClaimStatus"];
    assert_eq!(made["requestMappings"][0]["resourceName"], implicit);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_count_devices_by_the_resources_that_they_stand_for() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let mut class = class("device.driver == 'gpu.example.com'");
    class["spec"]["extendedResourceName"] = json!("example.com/gpu");
    let classes = format!("{DEVICES}/deviceclasses");
    admin.post(&classes, &class).await.expect(201);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"requests.example.com/gpu": "3",
            "requests.deviceclass.resource.kubernetes.io/gpu": "5"}}});
    let quotas = format!("{CORE}/resourcequotas");
    admin.post(&quotas, &quota).await.expect(201);
    let used = |explicit: &'static str, implicit: &'static str| {
        move |quota: &Value| {
            let used = &quota["status"]["used"];
            used["requests.example.com/gpu"] == explicit
                && used["requests.deviceclass.resource.kubernetes.io/gpu"] == implicit
        }
    };
    let path = format!("{quotas}/q");
    admin.until(&path, "nothing used", used("0", "0")).await;
    let claim = |name: &str, count: i64| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name}, "spec": {"devices": {"requests": [
                {"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}}]}}})
    };
    admin.post(CLAIMS, &claim("two", 2)).await.expect(201);
    admin.until(&path, "two used", used("2", "2")).await;
    let refused = admin.post(CLAIMS, &claim("more", 2)).await;
    let refused = refused.expect(403);
    assert!(
        refused.message().contains(
            "exceeded quota: q, requested: requests.example.com/gpu=2, used: \
             requests.example.com/gpu=2, limited: requests.example.com/gpu=3"
        ),
        "{}",
        refused.message()
    );
    admin.delete(&format!("{CLAIMS}/two"), None).await;
    admin
        .until(&path, "nothing used again", used("0", "0"))
        .await;
}
