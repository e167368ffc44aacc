//! A node with everything it talks to.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use evenkeel_node::testing::{FakeApi, FakeImages, FakeRuntime, Scratch, TokioClock};
use evenkeel_node::{Agent, NodeConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const LIMIT: Duration = Duration::from_secs(3600);

pub(crate) struct Node {
    pub(crate) api: FakeApi,
    pub(crate) runtime: FakeRuntime,
    pub(crate) images: Arc<FakeImages>,
    pub(crate) dir: Arc<Scratch>,
    clock: SharedClock,
    _agent: AbortOnDropHandle<()>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let clock: SharedClock = Arc::new(TokioClock::new(
            "2026-11-21T05:00:00Z".parse().expect("a time"),
        ));
        let runtime = FakeRuntime::new(Arc::clone(&clock));
        let images = Arc::new(FakeImages::new());
        images.put("app:1");
        let dir = Arc::new(Scratch::new().expect("a directory"));
        Self::over(FakeApi::new(), runtime, images, dir, clock)
    }

    /// The same machine with a new agent.
    pub(crate) fn restarted(self) -> Self {
        let Self {
            api,
            runtime,
            images,
            dir,
            clock,
            _agent,
        } = self;
        drop(_agent);
        Self::over(api, runtime, images, dir, clock)
    }

    fn over(
        api: FakeApi,
        runtime: FakeRuntime,
        images: Arc<FakeImages>,
        dir: Arc<Scratch>,
        clock: SharedClock,
    ) -> Self {
        let config = NodeConfig {
            name: "n1".to_owned(),
            client: api.client(),
            runtime: Arc::new(runtime.clone()),
            images: images.clone(),
            root: dir.path().join("node"),
            volumes: dir.path().join("volumes"),
            log_root: dir.path().join("logs"),
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            cluster_domain: "cluster.local".to_owned(),
            node_ip: "192.0.2.1".parse().expect("an address"),
            kubelet_port: 10250,
            pod_cidr: None,
            max_pods: 110,
            labels: Default::default(),
            static_pods: None,
            unsafe_sysctls: Default::default(),
            eviction_hard: Default::default(),
            clock: Arc::clone(&clock),
            api_server_host: "10.96.0.1".to_owned(),
            api_server_port: 443,
            version: "v1.37.0".to_owned(),
        };
        let agent = Agent::new(config).expect("an agent");
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            agent.run(CancellationToken::new()).await.expect("it runs");
        }));
        Self {
            api,
            runtime,
            images,
            dir,
            clock,
            _agent: task,
        }
    }

    /// The time that the node has.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// Binds a pod to the node.
    pub(crate) fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        self.api.put(
            "pods",
            json!({ "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"),
                              "generation": 1 },
                "spec": spec, "status": { "phase": "Pending" } }),
        );
    }

    pub(crate) fn delete(&self, name: &str, grace: i64) {
        self.api.change("pods", "default", name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T06:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    /// Waits until the pod is as asked; fails with the pod as it is.
    pub(crate) async fn until(&self, name: &str, asked: impl Fn(&Value) -> bool) -> Value {
        let check = |pod: Option<&Value>| pod.is_some_and(&asked);
        let pod = self
            .api
            .wait_for("pods", "default", name, LIMIT, check)
            .await;
        let pod = pod.unwrap_or(Value::Null);
        assert!(
            asked(&pod),
            "not reached: {pod:#}\ncalls: {:?}",
            self.runtime.calls()
        );
        pod
    }

    pub(crate) async fn until_ready(&self, name: &str) -> Value {
        self.until(name, |pod| condition(pod, "Ready")["status"] == "True")
            .await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let left = self
            .api
            .wait_for("pods", "default", name, LIMIT, |pod| pod.is_none())
            .await;
        assert!(left.is_none(), "still there: {left:#?}");
    }

    /// Reason and message of every event.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.api
            .list("events")
            .iter()
            .map(|event| (text(&event["reason"]), text(&event["message"])))
            .collect()
    }
}

pub(crate) fn condition(pod: &Value, type_: &str) -> Value {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == type_)
        .unwrap_or(Value::Null)
}

pub(crate) fn container(name: &str) -> Value {
    json!({ "name": name, "image": "app:1" })
}
