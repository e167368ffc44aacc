//! The agent behind the node's HTTPS API: which container is meant, where its log lies, what is
//! used.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::{ContainerState, SharedRuntime};
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::context::Context;
use crate::machine::filesystem;
use crate::pod::model::PodModel;
use crate::pod::observed::Observed;
use crate::pod::plan::timestamp;
use crate::server::{
    BackendError, ContainerTarget, LogSource, NodeBackend, PodTarget, PortForwardTarget, Result,
};
use crate::stats::{ContainerUsage, NodeUsage, PodUsage, StatsSampler};

/// Answers for one agent.
#[derive(Debug)]
pub struct AgentBackend {
    context: Arc<Context>,
    stats: Arc<StatsSampler>,
}

impl AgentBackend {
    /// For an agent's context and its sampler.
    #[must_use]
    pub fn new(context: Arc<Context>, stats: Arc<StatsSampler>) -> Self {
        Self { context, stats }
    }

    fn pod(&self, target: &PodTarget) -> Result<Arc<Pod>> {
        let pods = self.context.pods.lock();
        let found = pods.iter().find(|(uid, pod)| {
            pod.metadata.name.as_deref() == Some(&target.pod)
                && pod.metadata.namespace.as_deref() == Some(&target.namespace)
                && target.uid.as_ref().is_none_or(|asked| asked == *uid)
        });
        found.map(|(_, pod)| Arc::clone(pod)).ok_or_else(|| {
            BackendError::pod_not_found(&format!("{}_{}", target.pod, target.namespace))
        })
    }

    fn container(&self, target: &ContainerTarget) -> Result<(PodModel, Observed)> {
        let model = PodModel::new(self.pod(&target.pod)?);
        if model.container(&target.container).is_none() {
            return Err(BackendError::container_not_valid(
                &target.container,
                &target.pod.pod,
            ));
        }
        let observed = self.context.view.observed(model.uid());
        Ok((model, observed))
    }

    fn log(&self, target: &ContainerTarget, previous: bool) -> Result<LogSource> {
        let (model, observed) = self.container(target)?;
        let name = &target.container;
        let ran = |container: &&evenkeel_runtime::ContainerStatus| {
            container.state != ContainerState::Created
        };
        let mut instances = observed.instances(name).filter(ran);
        let current = instances.next();
        let wanted = if previous {
            let earlier = match current {
                // Between two instances, the one that ended is the previous one.
                Some(last) if last.state != ContainerState::Running && waits(&model, name) => {
                    Some(last)
                }
                _ => instances.next(),
            };
            earlier.ok_or_else(|| BackendError::no_previous(name, &target.pod.pod))?
        } else {
            current.ok_or_else(|| {
                let reason = waiting_reason(&model, name);
                BackendError::waiting_to_start(name, &target.pod.pod, &reason)
            })?
        };
        Ok(LogSource {
            path: wanted.log_path.clone(),
            writer: (wanted.state == ContainerState::Running).then(|| wanted.id.clone()),
        })
    }
}

fn statuses(
    model: &PodModel,
) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ContainerStatus> {
    let status = model.pod.status.as_ref();
    status.into_iter().flat_map(|status| {
        [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ]
        .into_iter()
        .flatten()
        .flatten()
    })
}

fn waits(model: &PodModel, name: &str) -> bool {
    statuses(model)
        .find(|status| status.name == name)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.waiting.is_some())
}

fn waiting_reason(model: &PodModel, name: &str) -> String {
    statuses(model)
        .find(|status| status.name == name)
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".to_owned())
}

impl NodeBackend for AgentBackend {
    fn now(&self) -> Timestamp {
        self.context.config.clock.now()
    }

    fn runtime(&self) -> SharedRuntime {
        Arc::clone(&self.context.config.runtime)
    }

    fn running_container<'a>(
        &'a self,
        target: &'a ContainerTarget,
    ) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let (_, observed) = self.container(target)?;
            observed
                .running(&target.container)
                .map(|container| container.id.clone())
                .ok_or_else(|| BackendError::container_not_running(&target.container))
        })
    }

    fn container_log<'a>(
        &'a self,
        target: &'a ContainerTarget,
        previous: bool,
    ) -> BoxFuture<'a, Result<LogSource>> {
        Box::pin(async move { self.log(target, previous) })
    }

    fn port_forward<'a>(
        &'a self,
        target: &'a PodTarget,
    ) -> BoxFuture<'a, Result<PortForwardTarget>> {
        Box::pin(async move {
            let model = PodModel::new(self.pod(target)?);
            let observed = self.context.view.observed(model.uid());
            let sandbox = observed.ready_sandbox().ok_or_else(|| {
                BackendError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("unable to find a running sandbox of pod {:?}", target.pod),
                )
            })?;
            Ok(PortForwardTarget {
                netns: sandbox.netns.clone(),
            })
        })
    }

    fn pods(&self) -> BoxFuture<'_, Result<Vec<Value>>> {
        Box::pin(async move {
            let pods = self.context.pods.lock();
            Ok(pods
                .values()
                .filter_map(|pod| serde_json::to_value(&**pod).ok())
                .collect())
        })
    }

    fn stats_summary(&self) -> BoxFuture<'_, Result<Value>> {
        Box::pin(async move {
            let (node, pods) = self.stats.usage().await;
            let mut out = summary(&self.context, node, &pods);
            for (at, pod) in pods.iter().enumerate() {
                let volumes = self.context.volumes.of(&self.context, &pod.uid).await;
                if !volumes.is_empty() {
                    out["pods"][at]["volume"] = volumes.into();
                }
            }
            Ok(out)
        })
    }

    fn metrics(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move { Ok(agent_metrics(&self.context)) })
    }

    fn metrics_resource(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let (node, pods) = self.stats.usage().await;
            Ok(resource_metrics(node, &pods))
        })
    }

    fn healthy(&self) -> BoxFuture<'_, std::result::Result<(), String>> {
        Box::pin(async move {
            let listed = self.context.config.runtime.list_sandboxes().await;
            listed
                .map(|_| ())
                .map_err(|error| format!("container runtime: {error}"))
        })
    }

    fn config(&self) -> Value {
        let config = &self.context.config;
        json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "port": config.kubelet_port,
            "clusterDomain": config.cluster_domain,
            "clusterDNS": config.cluster_dns,
            "maxPods": config.max_pods,
            "podCIDR": config.pod_cidr,
            "containerLogMaxSize": "10Mi",
            "containerLogMaxFiles": 5,
            "nodeStatusUpdateFrequency": "10s",
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
            "seccompDefault": true,
        })
    }
}

fn time(ns: i64) -> String {
    evenkeel_api::clock::rfc3339(timestamp(ns))
}

/// A rate with the time it is taken over, which the published form of the summary leaves out and
/// whoever serves `metrics.k8s.io` must know.
fn cpu(timestamp: i64, nanocores: Option<u64>, window: Duration, total: u64) -> Value {
    let mut value = json!({ "time": time(timestamp), "usageCoreNanoSeconds": total });
    if let Some(nano) = nanocores {
        value["usageNanoCores"] = json!(nano);
        value["window"] = format!("{}s", window.as_secs_f64()).into();
    }
    value
}

fn summary(context: &Context, node: NodeUsage, pods: &[PodUsage]) -> Value {
    let mut out = json!({
        "node": {
            "nodeName": context.config.name,
            "cpu": cpu(node.timestamp, node.cpu_nanocores, node.window, node.cpu_total_ns),
            "memory": {
                "time": time(node.timestamp),
                "availableBytes": node.memory_available,
                "workingSetBytes": node.memory_working_set,
            },
        },
        "pods": pods.iter().map(pod_summary).collect::<Vec<_>>(),
    });
    if let Some((size, free, inodes, left)) = filesystem(&context.config.root) {
        out["node"]["fs"] = json!({
            "time": time(node.timestamp),
            "availableBytes": free,
            "capacityBytes": size,
            "usedBytes": size - free,
            "inodes": inodes,
            "inodesFree": left,
            "inodesUsed": inodes - left,
        });
    }
    out
}

fn pod_summary(pod: &PodUsage) -> Value {
    let latest = pod
        .containers
        .iter()
        .map(|container| container.timestamp)
        .max()
        .unwrap_or(0);
    let first = pod
        .containers
        .iter()
        .map(|container| container.started_at)
        .min()
        .unwrap_or(0);
    let total = pod
        .containers
        .iter()
        .map(|container| container.cpu_total_ns)
        .sum();
    let nano: Option<u64> = pod
        .containers
        .iter()
        .map(|container| container.cpu_nanocores)
        .sum();
    let window = pod.containers.iter().map(|c| c.window).min();
    let window = window.unwrap_or(Duration::ZERO);
    let usage: u64 = pod
        .containers
        .iter()
        .map(|container| container.memory_usage)
        .sum();
    json!({
        "podRef": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        "startTime": time(first),
        "containers": pod.containers.iter().map(container_summary).collect::<Vec<_>>(),
        "cpu": cpu(latest, nano, window, total),
        "memory": {
            "time": time(latest),
            "usageBytes": usage,
            "workingSetBytes": pod.memory_working_set(),
        },
    })
}

fn container_summary(container: &ContainerUsage) -> Value {
    json!({
        "name": container.name,
        "startTime": time(container.started_at),
        "cpu": cpu(container.timestamp, container.cpu_nanocores, container.window, container.cpu_total_ns),
        "memory": {
            "time": time(container.timestamp),
            "usageBytes": container.memory_usage,
            "workingSetBytes": container.memory_working_set,
        },
        "rootfs": { "time": time(container.timestamp), "usedBytes": container.rootfs_used },
        "processStats": { "processCount": container.pids },
    })
}

/// Figures for a whole, in a form that Prometheus reads.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Self { out, name }
    }

    fn line(&mut self, labels: &str, value: impl std::fmt::Display, at_ms: Option<i64>) {
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let at = at_ms.map(|ms| format!(" {ms}")).unwrap_or_default();
        // Writing to a string does not fail.
        let _written = writeln!(self.out, "{}{labels} {value}{at}", self.name).is_ok();
    }
}

fn core_seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn resource_metrics(node: NodeUsage, pods: &[PodUsage]) -> String {
    let mut out = String::new();
    let ms = |ns: i64| Some(ns / 1_000_000);
    let of = |pod: &PodUsage, container: &ContainerUsage| {
        format!(
            "container=\"{}\",namespace=\"{}\",pod=\"{}\"",
            container.name, pod.namespace, pod.name
        )
    };
    let each = || {
        pods.iter()
            .flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)))
    };
    let mut family = Family::new(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    for (pod, container) in each() {
        let used = core_seconds(container.cpu_total_ns);
        family.line(&of(pod, container), used, ms(container.timestamp));
    }
    let mut family = Family::new(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
    );
    for (pod, container) in each() {
        family.line(
            &of(pod, container),
            container.memory_working_set,
            ms(container.timestamp),
        );
    }
    let mut family = Family::new(
        &mut out,
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    for (pod, container) in each() {
        let started = core_seconds(u64::try_from(container.started_at).unwrap_or(0));
        family.line(&of(pod, container), started, None);
    }
    let mut family = Family::new(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    family.line("", core_seconds(node.cpu_total_ns), ms(node.timestamp));
    let mut family = Family::new(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    family.line("", node.memory_working_set, ms(node.timestamp));
    let mut family = Family::new(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    for pod in pods {
        let total = pod.containers.iter().map(|c| c.cpu_total_ns).sum();
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
        family.line(&labels, core_seconds(total), None);
    }
    let mut family = Family::new(
        &mut out,
        "pod_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the pod in bytes",
    );
    for pod in pods {
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
        family.line(&labels, pod.memory_working_set(), None);
    }
    let mut family = Family::new(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    family.line("", 0, None);
    out
}

fn agent_metrics(context: &Context) -> String {
    let mut out = String::new();
    let mut sandboxes = 0;
    let mut states = [
        ("created", 0),
        ("exited", 0),
        ("running", 0),
        ("unknown", 0),
    ];
    for uid in context.view.uids() {
        let observed = context.view.observed(&uid);
        sandboxes += usize::from(observed.ready_sandbox().is_some());
        for container in &observed.containers {
            let index = match container.state {
                ContainerState::Created => 0,
                ContainerState::Exited => 1,
                ContainerState::Running => 2,
                ContainerState::Unknown => 3,
            };
            states[index].1 += 1;
        }
    }
    let mut family = Family::new(
        &mut out,
        "kubelet_running_pods",
        "gauge",
        "[BETA] Number of pods that have a running pod sandbox",
    );
    family.line("", sandboxes, None);
    let mut family = Family::new(
        &mut out,
        "kubelet_running_containers",
        "gauge",
        "[BETA] Number of containers currently running",
    );
    for (state, count) in states {
        family.line(&format!("container_state=\"{state}\""), count, None);
    }
    let mut family = Family::new(
        &mut out,
        "kubelet_desired_pods",
        "gauge",
        "[ALPHA] The number of pods the kubelet is being instructed to run",
    );
    family.line("static=\"\"", context.pods.lock().len(), None);
    let mut family = Family::new(
        &mut out,
        "kubelet_node_name",
        "gauge",
        "[ALPHA] The node's name. The count is always 1.",
    );
    family.line(&format!("node=\"{}\"", context.config.name), 1, None);
    out
}
