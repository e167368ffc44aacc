//! From observed objects to sentences. Pure.

use std::fmt;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod, Service};

/// One step towards the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `Pod default/shop-1`.
    pub object: String,
    /// What the API says of it.
    pub says: String,
    /// More of the same, line by line.
    pub details: Vec<String>,
}

/// A cause chain: from what was asked about to the cause, and what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// From the question to the cause.
    pub links: Vec<Link>,
    /// What to do next; empty when all is well.
    pub next: Vec<String>,
}

impl Chain {
    /// Is there nothing to explain?
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.next.is_empty()
    }

    /// Adds a link.
    pub fn link(&mut self, object: impl Into<String>, says: impl Into<String>) {
        self.links.push(Link {
            object: object.into(),
            says: says.into(),
            details: Vec::new(),
        });
    }

    /// Adds a line to the last link.
    pub fn detail(&mut self, text: impl Into<String>) {
        if let Some(link) = self.links.last_mut() {
            link.details.push(text.into());
        }
    }

    /// Adds a next step, once.
    pub fn step(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.next.contains(&text) {
            self.next.push(text);
        }
    }

    /// Takes on the links and steps of a cause further down.
    pub fn follow(&mut self, cause: Self) {
        self.links.extend(cause.links);
        cause.next.into_iter().for_each(|step| self.step(step));
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, link) in self.links.iter().enumerate() {
            let arrow = if depth == 0 { "" } else { "└─ " };
            let indent = "   ".repeat(depth.saturating_sub(1));
            writeln!(f, "{indent}{arrow}{}: {}", link.object, link.says)?;
            let indent = "   ".repeat(depth);
            for detail in &link.details {
                writeln!(f, "{indent}- {detail}")?;
            }
        }
        for step in &self.next {
            writeln!(f, "next: {step}")?;
        }
        Ok(())
    }
}

fn named(kind: &str, namespace: Option<&String>, name: Option<&String>) -> String {
    let name = name.map_or("", String::as_str);
    match namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The newest warning among an object's events.
fn warning(events: &[Event]) -> Option<&Event> {
    events
        .iter()
        .filter(|event| event.type_.as_deref() == Some("Warning"))
        .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))
}

/// Why a pod has no node, if it has none for a reason.
pub(crate) fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
    found.message.clone()
}

/// The claims that a pod uses.
pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().filter_map(|volume| {
        let named = volume
            .persistent_volume_claim
            .as_ref()
            .map(|it| it.claim_name.clone());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        named.or_else(|| {
            volume
                .ephemeral
                .as_ref()
                .map(|_| format!("{name}-{}", volume.name))
        })
    })
}

/// Containers that ended badly, and whether it was the one before that did.
pub(crate) fn ended(pod: &Pod) -> Vec<(String, bool)> {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    });
    all.filter_map(|container| {
        let bad = |ended: Option<&ContainerStateTerminated>| {
            ended.is_some_and(|ended| ended.exit_code != 0)
        };
        let state = container.state.as_ref();
        let last = container.last_state.as_ref();
        if bad(state.and_then(|it| it.terminated.as_ref())) {
            return Some((container.name.clone(), false));
        }
        let waits = state.is_some_and(|it| it.waiting.is_some());
        let before = bad(last.and_then(|it| it.terminated.as_ref()));
        (before && waits).then(|| (container.name.clone(), true))
    })
    .collect()
}

/// Did a liveness probe end the container, and what did it say?
fn killed_by_probe<'e>(name: &str, events: &'e [Event]) -> Option<&'e str> {
    let said = |event: &&Event, reason: &str| event.reason.as_deref() == Some(reason);
    let field = format!("spec.containers{{{name}}}");
    let of_it = |event: &&Event| event.involved_object.field_path.as_deref() == Some(&field);
    let text = |event: &'e Event| event.message.as_deref().unwrap_or_default();
    let killing = events
        .iter()
        .filter(|event| said(event, "Killing") && of_it(event))
        .any(|event| text(event).contains("failed liveness probe"));
    let failed = events
        .iter()
        .filter(|event| said(event, "Unhealthy") && of_it(event))
        .filter(|event| text(event).starts_with("Liveness probe failed"))
        .max_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0));
    failed.filter(|_| killing).map(text)
}

/// Explains a pod from its status and events.
#[must_use]
pub(crate) fn pod(pod: &Pod, events: &[Event]) -> Chain {
    let mut chain = Chain::default();
    let meta = &pod.metadata;
    let this = named("Pod", meta.namespace.as_ref(), meta.name.as_ref());
    let place = format!(
        "{} -n {}",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default()
    );
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let condition = |kind: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind)
    };
    if meta.deletion_timestamp.is_some() {
        chain.link(&this, "is being deleted");
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        if finalizers.is_empty() {
            chain.step(format!(
                "wait for its containers to stop: kubectl get pod {place} -w"
            ));
        } else {
            chain.link(
                &this,
                format!("waits for its finalizers: {}", finalizers.join(", ")),
            );
            chain.step("see whether the owners of these finalizers are running");
        }
        return chain;
    }
    if let Some(scheduled) = condition("PodScheduled").filter(|found| found.status == "False") {
        let message = scheduled.message.clone().unwrap_or_default();
        chain.link(&this, format!("has no node: {message}"));
        if scheduled.reason.as_deref() == Some("SchedulingGated") {
            let spec = pod.spec.as_ref();
            let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
            for gate in gates.into_iter().flatten() {
                chain.detail(format!("gate {}", gate.name));
            }
            chain.step("see whether the owners of these gates are running; they lift them");
        } else if let Some(node) = status.nominated_node_name.filter(|node| !node.is_empty()) {
            chain.link(
                format!("Node {node}"),
                "is set aside for it, and is being made free of less important pods",
            );
            chain.step(format!(
                "wait for these pods to stop: kubectl get pods -A --field-selector spec.nodeName={node}"
            ));
        } else {
            chain.step(next_for_scheduling(&message));
        }
        return chain;
    }
    if pod
        .spec
        .as_ref()
        .is_none_or(|spec| spec.node_name.is_none())
    {
        chain.link(&this, "waits to be scheduled");
        chain.step("see whether a scheduler is running: evenkeel status");
        return chain;
    }
    let all: Vec<&ContainerStatus> = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .collect();
    for container in &all {
        container_chain(&mut chain, &this, &place, container, events);
        if let Some(said) =
            killed_by_probe(&container.name, events).filter(|_| container.restart_count > 0)
        {
            probe_kills(&mut chain, pod, container, said);
        }
    }
    if chain.next.is_empty() {
        let ready = condition("Ready").is_some_and(|found| found.status == "True");
        if ready || phase == "Succeeded" {
            chain.link(&this, if ready { "is ready" } else { "has finished" });
            // Health now hides what happened; somebody who asks wants to hear of it.
            for container in &all {
                let state = container.last_state.as_ref();
                if let Some(last) = state.and_then(|state| state.terminated.as_ref()) {
                    let why = last.reason.as_deref().unwrap_or("Error");
                    chain.link(
                        format!("container {}", container.name),
                        format!(
                            "was restarted {} times; last it ended with exit code {} ({why})",
                            container.restart_count, last.exit_code
                        ),
                    );
                }
            }
        } else if let Some(event) = warning(events) {
            let reason = event.reason.as_deref().unwrap_or_default();
            chain.link(
                &this,
                format!(
                    "is {phase}: {reason}: {}",
                    event.message.as_deref().unwrap_or_default()
                ),
            );
            chain.step(format!("kubectl describe pod {place}"));
        } else {
            let why = condition("Ready")
                .and_then(|found| found.message.clone())
                .unwrap_or_else(|| "its containers are being made".to_owned());
            chain.link(&this, format!("is {phase}: {why}"));
            chain.step(format!("wait, and look again: kubectl get pod {place} -w"));
        }
    }
    chain
}

/// A liveness probe that ends a container which is only slow makes things worse: what it asks for
/// is put beside how long the container lived.
fn probe_kills(chain: &mut Chain, pod: &Pod, container: &ContainerStatus, said: &str) {
    let name = &container.name;
    chain.link(
        format!("container {name}"),
        format!("was ended by its liveness probe: {said}"),
    );
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let lived = last.and_then(|last| {
        let (start, end) = (last.started_at.as_ref()?, last.finished_at.as_ref()?);
        Some(end.0.duration_since(start.0).as_secs())
    });
    if let Some(lived) = lived {
        chain.detail(format!("it had run for {lived} s"));
    }
    let spec = pod.spec.as_ref();
    let found = spec.and_then(|spec| spec.containers.iter().find(|it| it.name == *name));
    let probe = found.and_then(|found| found.liveness_probe.as_ref());
    if let Some(probe) = probe {
        chain.detail(format!(
            "the probe waits {} s for an answer, asks every {} s and gives up after {} failures",
            probe.timeout_seconds.unwrap_or(1),
            probe.period_seconds.unwrap_or(10),
            probe.failure_threshold.unwrap_or(3)
        ));
    }
    let starts = found.is_some_and(|found| found.startup_probe.is_some());
    // It has come back by now: told, and nothing is to do.
    if container.ready {
        return;
    }
    chain.step(if starts {
        format!(
            "if the container is slow and not dead, raise timeoutSeconds or failureThreshold of \
             the liveness probe of {name}"
        )
    } else {
        format!(
            "if container {name} is slow to start and not dead, give it a startupProbe; if it is \
             slow to answer, raise timeoutSeconds or failureThreshold of its liveness probe"
        )
    });
}

pub(crate) fn next_for_scheduling(message: &str) -> String {
    // What is said of preemption repeats the reasons and names no remedy.
    let message = message.split("preemption:").next().unwrap_or_default();
    if message.contains("unbound immediate PersistentVolumeClaims") {
        "see why its claims are not bound: kubectl get pvc".to_owned()
    } else if message.contains("PersistentVolume's node affinity") {
        "see where its volumes are, and why the pod can't go there: kubectl describe pv".to_owned()
    } else if message.contains("persistentvolumeclaim") {
        "make the claim, or correct the pod's claimName (kubectl get pvc)".to_owned()
    } else if message.contains("Insufficient") {
        "lower the pod's requests, or free or add capacity (kubectl describe nodes)".to_owned()
    } else if message.contains("taint") {
        "add a toleration to the pod, or remove the taint (kubectl describe nodes)".to_owned()
    } else if message.contains("affinity") || message.contains("selector") {
        "make the pod's node selector or affinity match a node's labels (kubectl get nodes --show-labels)".to_owned()
    } else {
        "kubectl get nodes".to_owned()
    }
}

fn container_chain(
    chain: &mut Chain,
    this: &str,
    place: &str,
    container: &ContainerStatus,
    events: &[Event],
) {
    let name = &container.name;
    let state = container.state.clone().unwrap_or_default();
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_default();
        if matches!(reason.as_str(), "PodInitializing" | "ContainerCreating") {
            return;
        }
        let message = waiting.message.unwrap_or_default();
        chain.link(this, format!("container {name} waits: {reason}: {message}"));
        if let Some(last) = last {
            ended_before(chain, place, container, last);
        } else {
            chain.step(match reason.as_str() {
                "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => format!(
                    "check the name {} and the registry, or bring it here: evenkeel image import FILE.tar --as {}",
                    container.image, container.image
                ),
                "CreateContainerConfigError" => {
                    format!("make what it refers to, or correct the reference: kubectl describe pod {place}")
                }
                _ => format!("kubectl describe pod {place}"),
            });
        }
        return;
    }
    if let Some(ended) = state.terminated.filter(|ended| ended.exit_code != 0) {
        let why = ended.reason.unwrap_or_default();
        chain.link(
            this,
            format!(
                "container {name} ended with exit code {} ({why})",
                ended.exit_code
            ),
        );
        chain.step(format!("kubectl logs {place} -c {name}"));
        return;
    }
    if state.running.is_some() && !container.ready {
        // What a probe said of the container before this one is not why this one is not ready.
        let begun = state.running.and_then(|running| running.started_at);
        let probe = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("Unhealthy"))
            .filter(|event| event.last_timestamp >= begun)
            .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))
            .and_then(|event| event.message.clone());
        let says = probe.unwrap_or_else(|| "it has not passed its readiness probe yet".to_owned());
        chain.link(
            this,
            format!("container {name} runs but is not ready: {says}"),
        );
        if let Some(last) = last.filter(|last| last.exit_code != 0) {
            ended_before(chain, place, container, last);
        }
        chain.step(format!("kubectl logs {place} -c {name}"));
    }
}

/// How the container ended the last time, and what helps against it.
fn ended_before(
    chain: &mut Chain,
    place: &str,
    container: &ContainerStatus,
    last: &ContainerStateTerminated,
) {
    let name = &container.name;
    let why = last.reason.clone().unwrap_or_default();
    chain.link(
        format!("container {name}"),
        format!(
            "ended with exit code {} ({why}) after {} restarts",
            last.exit_code, container.restart_count
        ),
    );
    chain.step(match why.as_str() {
        "OOMKilled" => format!("raise the memory limit of container {name}, or make it use less"),
        _ => format!("read its last words: kubectl logs {place} -c {name} --previous"),
    });
}

/// Explains a Deployment; `sets` are its replica sets and `pods` explanations of pods that are
/// not healthy.
#[must_use]
pub(crate) fn deployment(deployment: &Deployment, sets: &[ReplicaSet], pods: Vec<Chain>) -> Chain {
    let mut chain = Chain::default();
    let meta = &deployment.metadata;
    let this = named("Deployment", meta.namespace.as_ref(), meta.name.as_ref());
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    if ready >= wanted && updated >= wanted {
        chain.link(this, format!("has {ready} of {wanted} replicas ready"));
        return chain;
    }
    chain.link(
        &this,
        format!("has {ready} of {wanted} replicas ready, {updated} up to date"),
    );
    if deployment.spec.paused == Some(true) {
        chain.link(&this, "is paused");
        chain.step(format!(
            "kubectl rollout resume deployment/{} -n {}",
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default()
        ));
    }
    for condition in status.conditions.iter().flatten() {
        let bad = matches!(
            (condition.type_.as_deref(), condition.status.as_deref()),
            (Some("ReplicaFailure"), Some("True")) | (Some("Progressing"), Some("False"))
        );
        if bad {
            let message = condition.message.clone().unwrap_or_default();
            chain.link(
                &this,
                format!(
                    "{}: {message}",
                    condition.reason.clone().unwrap_or_default()
                ),
            );
        }
    }
    for set in sets {
        for condition in set
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
        {
            if condition.type_.as_deref() == Some("ReplicaFailure")
                && condition.status.as_deref() == Some("True")
            {
                let name = named(
                    "ReplicaSet",
                    set.metadata.namespace.as_ref(),
                    set.metadata.name.as_ref(),
                );
                chain.link(name, condition.message.clone().unwrap_or_default());
                chain.step("correct the pod template, or what refuses its pods");
            }
        }
    }
    if let Some(first) = pods.into_iter().find(|pod| !pod.is_healthy()) {
        chain.follow(first);
    }
    if chain.next.is_empty() {
        chain.step("wait, and look again: the rollout is under way");
    }
    chain
}

/// What keeps a service of type LoadBalancer from its address.
fn balancer(service: &Service, this: &str, chain: &mut Chain) {
    let Some(spec) = service.spec.as_ref() else {
        return;
    };
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return;
    }
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let failed = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|found| found.type_ == kind && found.status == "False")
    };
    if let Some(found) = failed("evenkeel.io/AddressAssigned") {
        chain.link(this, format!("has no address outside: {}", found.message));
        chain.step(match found.reason.as_str() {
            "NoAddressPool" => {
                "declare addresses of your network: an IPAddressPool and an L2Advertisement of \
                 metallb.io/v1beta1 (examples/load-balancer.yaml)"
            }
            "AddressPoolExhausted" => {
                "add addresses to a pool (kubectl edit ipaddresspool -A), or let services share one \
                 with the annotation metallb.io/allow-shared-ip"
            }
            _ => "change what the service asks for, or the pools: kubectl get ipaddresspools -A",
        });
    } else if let Some(found) = failed("evenkeel.io/AddressAnnounced") {
        chain.link(
            this,
            format!("has an address that leads nowhere: {}", found.message),
        );
        chain.step("see the advertisements: kubectl get l2advertisements -A -o yaml");
    } else if ingress.is_none_or(Vec::is_empty) {
        let class = spec.load_balancer_class.as_deref();
        match class.filter(|class| *class != "evenkeel.io/load-balancer") {
            Some(class) => {
                chain.link(
                    this,
                    format!("waits for an address from load balancer class {class}"),
                );
                chain.step(format!(
                    "see whether the implementation of class {class} is running"
                ));
            }
            None => {
                chain.link(this, "waits for an address");
                chain.step("wait, and look again: addresses are given within a second");
            }
        }
    }
}

/// Explains a Service from its selector and its endpoints.
#[must_use]
pub(crate) fn service(
    service: &Service,
    ready: usize,
    not_ready: usize,
    pods: Vec<Chain>,
) -> Chain {
    let mut chain = Chain::default();
    let meta = &service.metadata;
    let this = named("Service", meta.namespace.as_ref(), meta.name.as_ref());
    balancer(service, &this, &mut chain);
    if ready > 0 {
        chain.link(this, format!("has {ready} ready endpoints"));
        return chain;
    }
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.clone())
        .unwrap_or_default();
    if selector.is_empty() {
        chain.link(this, "has no selector and no ready endpoints");
        chain.step("give it endpoints, or a selector");
        return chain;
    }
    let selector: Vec<String> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let selector = selector.join(",");
    chain.link(
        this,
        format!("has no ready endpoints, {not_ready} that are not ready"),
    );
    if pods.is_empty() {
        chain.link("Pods", format!("none match {selector}"));
        chain.step(format!(
            "make the selector match the labels of running pods: kubectl get pods -n {} --show-labels",
            meta.namespace.as_deref().unwrap_or_default()
        ));
        return chain;
    }
    if let Some(first) = pods.into_iter().find(|pod| !pod.is_healthy()) {
        chain.follow(first);
    }
    chain
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn a_pod(status: Value) -> Pod {
        read(json!({
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
            "status": status,
        }))
    }

    fn container(state: Value, last: Value) -> Value {
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "shop:1", "imageID": "",
            "ready": false, "restartCount": 3, "state": state, "lastState": last}]})
    }

    #[test]
    fn a_crash_loop_ends_at_the_last_words() {
        let chain = pod(
            &a_pod(container(
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
                json!({"terminated": {"exitCode": 1, "reason": "Error"}}),
            )),
            &[],
        );
        assert_eq!(chain.links.len(), 2);
        assert_eq!(
            chain.next,
            ["read its last words: kubectl logs p -n d -c c --previous"]
        );
    }

    #[test]
    fn memory_and_images_have_their_own_steps() {
        let chain = pod(
            &a_pod(container(
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            )),
            &[],
        );
        assert!(chain.next[0].contains("memory limit"), "{chain}");
        let chain = pod(
            &a_pod(container(
                json!({"waiting": {"reason": "ErrImagePull"}}),
                json!({}),
            )),
            &[],
        );
        assert!(
            chain.next[0].contains("evenkeel image import FILE.tar --as shop:1"),
            "{chain}"
        );
    }

    #[test]
    fn what_no_node_fits_says_why() {
        let mut found = a_pod(
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
            "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
        );
        found.spec.as_mut().expect("there").node_name = None;
        let chain = pod(&found, &[]);
        assert!(chain.links[0].says.contains("Insufficient cpu"));
        assert!(chain.next[0].contains("requests"));
    }

    #[test]
    fn the_healthy_have_no_next_step() {
        let chain = pod(
            &a_pod(
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            ),
            &[],
        );
        assert!(chain.is_healthy());
        let found: Deployment = read(json!({"metadata": {"name": "a"}, "spec": {"replicas": 2,
            "selector": {}, "template": {}}, "status": {"readyReplicas": 2, "updatedReplicas": 2}}));
        assert!(deployment(&found, &[], Vec::new()).is_healthy());
    }

    #[test]
    fn a_service_without_an_address_says_which_pool_is_empty() {
        let of = |spec: Value, conditions: Value| -> String {
            let found: Service = read(json!({
                "metadata": {"name": "web", "namespace": "d"}, "spec": spec,
                "status": {"conditions": conditions},
            }));
            service(&found, 1, 0, Vec::new()).to_string()
        };
        let condition = |kind: &str, reason: &str, message: &str| {
            json!([{"type": kind, "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let balancer = json!({"type": "LoadBalancer"});
        let text = of(
            balancer.clone(),
            condition(
                "evenkeel.io/AddressAssigned",
                "AddressPoolExhausted",
                "no available IPs in pool \"p\"",
            ),
        );
        assert!(
            text.starts_with(
                "Service d/web: has no address outside: no available IPs in pool \"p\"\n"
            ),
            "{text}"
        );
        assert!(text.contains("next: add addresses to a pool"), "{text}");
        let text = of(
            balancer,
            condition("evenkeel.io/AddressAnnounced", "NotAnnounced", "nobody"),
        );
        assert!(text.contains("leads nowhere: nobody"), "{text}");
        let foreign = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x"});
        assert!(of(foreign, json!([])).contains("class example.com/x"));
        let text = of(json!({"type": "ClusterIP"}), json!([]));
        assert_eq!(text, "Service d/web: has 1 ready endpoints\n");
    }

    #[test]
    fn a_service_without_matching_pods_says_so() {
        let found: Service = read(
            json!({"metadata": {"name": "s", "namespace": "d"}, "spec": {"selector": {"app": "x"}}}),
        );
        let chain = service(&found, 0, 0, Vec::new());
        assert_eq!(chain.links[1].says, "none match app=x");
        assert!(!chain.is_healthy());
    }
}
