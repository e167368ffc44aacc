//! An autoscaler that follows a figure which another server serves through the door.

use std::sync::Arc;

use evenkeel_autoscaling::{NodeSummaries, run};
use evenkeel_client::{CancellationToken, LoopContext, LoopRegistry, Recorder, SystemClock, Views};
use evenkeel_server::Identity;
use evenkeel_testkit::Cluster;
use serde_json::{Value, json};

use super::aggregation::{connect, front_ca};
use super::extension::Extension;
use super::{admin, until};

const GROUP: &str = "external.metrics.k8s.io";
const SCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

fn queue(values: &[&str]) -> Value {
    let item = |value: &&str| json!({"metricName": "queue", "metricLabels": {}, "value": value});
    json!({"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {}, "items": values.iter().map(item).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_follows_a_metric_of_another_server() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    admin.post(deployments, &deployment).await.expect(201);
    let mut seen = admin.get(WEB).await.expect(200).body;
    seen["status"] = json!({"replicas": 1, "observedGeneration": 1});
    admin.put(&format!("{WEB}/status"), &seen).await.expect(200);
    let scaler = json!({"metadata": {"name": "web"}, "spec": {
        "minReplicas": 1, "maxReplicas": 9,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "External", "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"name": "work"}}},
            "target": {"type": "AverageValue", "averageValue": "10"}}}]}});
    admin.post(SCALERS, &scaler).await.expect(201);

    let account = Identity::service_account("kube-system", "horizontal-pod-autoscaler");
    let client = cluster.client(account);
    let clock = Arc::new(SystemClock);
    let context = LoopContext {
        views: Views::new(cluster.admin(), clock.clone()),
        recorder: Recorder::new(
            client.clone(),
            clock.clone(),
            "horizontal-pod-autoscaler",
            "",
        ),
        client: client.clone(),
        clock,
        shutdown: CancellationToken::new(),
        metrics: LoopRegistry::default(),
    };
    let shutdown = context.shutdown.clone();
    let running = tokio::spawn(run(context, Arc::new(NodeSummaries::new(client))));
    let scaler = format!("{SCALERS}/web");
    let active = || async {
        let found = admin.get(&scaler).await.expect(200).body;
        let all = found["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.into_iter()
            .find(|found| found["type"] == "ScalingActive")
    };
    // Nobody serves it: that is said by name.
    let told = until("a reason", active).await;
    assert_eq!(told["reason"], "FailedGetExternalMetric");
    let text = told["message"].as_str().unwrap();
    assert!(
        text.contains("does anything serve external.metrics.k8s.io?"),
        "{text}"
    );

    let extension = Extension::start(&front_ca(&admin).await).await;
    let of_version = json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": "external.metrics.k8s.io/v1beta1", "resources": []});
    let fixed = &extension.state.fixed;
    let path = format!("/apis/{GROUP}/v1beta1");
    fixed.lock().insert(path.clone(), of_version);
    let path = format!("{path}/namespaces/default/queue?labelSelector=name%3Dwork");
    fixed.lock().insert(path, queue(&["25", "9500m"]));
    connect(&cluster, &admin, &extension).await;
    let service = json!({"metadata": {"name": format!("v1beta1.{GROUP}")}, "spec": {
        "group": GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "caBundle": extension.bundle,
        "service": {"namespace": "wardle", "name": "flunders"}}});
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    admin.post(services, &service).await.expect(201);
    until("four replicas", || async {
        let found = admin.get(WEB).await.expect(200).body;
        (found["spec"]["replicas"] == 4).then_some(())
    })
    .await;
    shutdown.cancel();
    running.await.unwrap();
}
