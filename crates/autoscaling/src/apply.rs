//! Reads the scale and the figures, carries the decision out, writes the status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::oneshot;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::behavior::Memory;
use crate::custom::{Asked, OtherMetrics};
use crate::monitor::{Fault, Monitor, action};
use crate::plan::{self, Plan, Seen};
use crate::sample::{Figure, PodMetrics, SampleError};
use crate::{PERIOD, pods_of};

pub(crate) struct Reconciler {
    scalers: Arc<View<HorizontalPodAutoscaler>>,
    context: LoopContext,
    metrics: Arc<dyn PodMetrics>,
    others: Arc<dyn OtherMetrics>,
    memories: Mutex<HashMap<String, Memory>>,
    /// Resources of target kinds, as discovery named them.
    resources: Mutex<HashMap<(String, String), ApiResource>>,
    monitor: Arc<Monitor>,
}

fn asked<'a>(namespace: &'a str, metric: &'a MetricIdentifier) -> Asked<'a> {
    Asked {
        namespace,
        metric: &metric.name,
        selector: metric.selector.as_ref(),
    }
}

impl Reconciler {
    pub(crate) fn new(
        scalers: Arc<View<HorizontalPodAutoscaler>>,
        context: LoopContext,
        metrics: Arc<dyn PodMetrics>,
        others: Arc<dyn OtherMetrics>,
        monitor: Arc<Monitor>,
    ) -> Self {
        Self {
            scalers,
            context,
            metrics,
            others,
            memories: Mutex::new(HashMap::new()),
            resources: Mutex::new(HashMap::new()),
            monitor,
        }
    }

    pub(crate) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, kube::Error> {
        let Some(scaler) = self.scalers.get_key(&key) else {
            self.forget_gone();
            return Ok(Outcome::Done);
        };
        let began = Instant::now();
        let mut done = ("none", Fault::None);
        let outcome = self.look(&scaler, &mut done).await;
        if outcome.is_err() {
            done.1 = Fault::Internal;
        }
        self.monitor.reconciled(done.0, done.1, began.elapsed());
        outcome
    }

    /// Looks at an autoscaler, and notes what came of it.
    async fn look(
        &self,
        scaler: &HorizontalPodAutoscaler,
        done: &mut (&'static str, Fault),
    ) -> Result<Outcome, kube::Error> {
        let now = self.context.clock.now();
        let target = &scaler.spec.scale_target_ref;
        let found = match self.scales(scaler).await {
            Ok(scales) => scales
                .get_scale(&target.name)
                .await
                .map(|scale| (scales, scale)),
            Err(error) => Err(error),
        };
        let (scales, scale) = match found {
            Ok(found) => found,
            Err(error) => {
                let version = target.api_version.as_deref().unwrap_or_default();
                let readable = version.matches('/').count() < 2;
                done.1 = if readable {
                    Fault::Internal
                } else {
                    Fault::Spec
                };
                let plan = plan::unreadable(scaler, &errors::message(&error), now);
                return self.finish(scaler, plan.status, plan.warnings).await;
            }
        };
        let Plan {
            rescale,
            mut status,
            warnings,
            ..
        } = self.decide(scaler, &scale).await;
        if !warnings.is_empty() {
            done.1 = Fault::Internal;
        }
        if let Some((replicas, reason)) = rescale {
            let from = scale.spec.as_ref().and_then(|spec| spec.replicas);
            let written = self
                .rescale(scaler, &scales, &scale, replicas, &reason, &mut status)
                .await;
            if written {
                done.0 = action(from.unwrap_or(0), replicas);
            } else {
                done.1 = Fault::Internal;
            }
        }
        let meta = &scaler.metadata;
        self.monitor.desires(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            status.desired_replicas,
        );
        self.finish(scaler, status, warnings).await
    }

    fn forget_gone(&self) {
        let live: Vec<_> = self.scalers.list();
        let uids: Vec<_> = live
            .iter()
            .filter_map(|it| it.metadata.uid.as_deref())
            .collect();
        self.memories
            .lock()
            .retain(|uid, _| uids.contains(&uid.as_str()));
    }

    /// The API of the target's kind in the autoscaler's namespace.
    async fn scales(
        &self,
        scaler: &HorizontalPodAutoscaler,
    ) -> Result<Api<DynamicObject>, kube::Error> {
        let target = &scaler.spec.scale_target_ref;
        let version = target
            .api_version
            .clone()
            .unwrap_or_else(|| "v1".to_owned());
        let namespace = scaler.metadata.namespace.as_deref().unwrap_or_default();
        let client = self.context.client.clone();
        let known = (version.clone(), target.kind.clone());
        let found = self.resources.lock().get(&known).cloned();
        if let Some(resource) = found {
            return Ok(Api::namespaced_with(client, namespace, &resource));
        }
        let (group, version) = match version.split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), version),
        };
        let kind = GroupVersionKind::gvk(&group, &version, &target.kind);
        let (resource, _) = oneshot::pinned_kind(&client, &kind).await?;
        self.resources.lock().insert(known, resource.clone());
        Ok(Api::namespaced_with(client, namespace, &resource))
    }

    async fn decide(&self, scaler: &HorizontalPodAutoscaler, scale: &Scale) -> Plan {
        let namespace = scaler.metadata.namespace.as_deref().unwrap_or_default();
        let status = scale.status.as_ref();
        let selector = status
            .and_then(|status| status.selector.as_deref())
            .unwrap_or_default();
        let view = pods_of(&self.context);
        view.synced().await;
        let parsed = LabelSelector::parse(selector).unwrap_or_else(|_| LabelSelector::nothing());
        let pods = if selector.is_empty() {
            Vec::new()
        } else {
            view.matching(namespace, &parsed)
        };
        let (figures, took) = self.figures(scaler, namespace, selector).await;
        let began = Instant::now();
        let measured = |figure: &Figure| matches!(figure, Figure::Samples);
        let samples = if pods.is_empty() || !figures.iter().any(measured) {
            Ok(Vec::new())
        } else {
            self.metrics.samples(namespace, &pods).await
        };
        let samples: Result<_, SampleError> = samples;
        let seen = Seen {
            scaler,
            replicas: scale
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(0),
            running: status.map_or(0, |status| status.replicas),
            selector,
            pods: &pods,
            samples: &samples,
            figures: &figures,
            now: self.context.clock.now(),
        };
        let uid = scaler.metadata.uid.clone().unwrap_or_default();
        let plan = {
            let mut memories = self.memories.lock();
            plan::plan(&seen, memories.entry(uid).or_default())
        };
        self.count_metrics(scaler, &plan, &took, began.elapsed());
        plan
    }

    /// Counts what came of each metric. What the pods use is read for all of them at once, so its
    /// time is that of each.
    fn count_metrics(
        &self,
        scaler: &HorizontalPodAutoscaler,
        plan: &Plan,
        took: &[Duration],
        of_pods: Duration,
    ) {
        let status = scaler.status.as_ref();
        let current = status.and_then(|it| it.current_replicas).unwrap_or(0);
        let metrics = scaler.spec.metrics.iter().flatten();
        for ((metric, replicas), took) in metrics.zip(&plan.proposed).zip(took) {
            let (action, fault) = match replicas {
                Some(replicas) => (action(current, *replicas), Fault::None),
                None => ("none", Fault::Internal),
            };
            let took = *took + of_pods;
            self.monitor.computed(&metric.type_, action, fault, took);
        }
    }

    /// What the metrics need that the pods' samples do not have.
    async fn figures(
        &self,
        scaler: &HorizontalPodAutoscaler,
        namespace: &str,
        pods: &str,
    ) -> (Vec<Figure>, Vec<Duration>) {
        let (mut found, mut took) = (Vec::new(), Vec::new());
        for spec in scaler.spec.metrics.iter().flatten() {
            let began = Instant::now();
            found.push(match spec {
                MetricSpec {
                    pods: Some(source), ..
                } if spec.type_ == "Pods" => {
                    let asked = asked(namespace, &source.metric);
                    Figure::Pods(self.others.of_pods(asked, pods).await)
                }
                MetricSpec {
                    object: Some(source),
                    ..
                } if spec.type_ == "Object" => {
                    let asked = asked(namespace, &source.metric);
                    Figure::Object(self.others.of_object(asked, &source.described_object).await)
                }
                MetricSpec {
                    external: Some(source),
                    ..
                } if spec.type_ == "External" => {
                    let asked = asked(namespace, &source.metric);
                    Figure::External(self.others.external(asked).await)
                }
                _ => Figure::Samples,
            });
            took.push(began.elapsed());
        }
        (found, took)
    }

    /// Writes the scale; answers whether that went well.
    async fn rescale(
        &self,
        scaler: &HorizontalPodAutoscaler,
        scales: &Api<DynamicObject>,
        scale: &Scale,
        replicas: i32,
        reason: &str,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> bool {
        let now = self.context.clock.now();
        let recorder = &self.context.recorder;
        let from = scale
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(0);
        let mut fresh = scale.clone();
        fresh.spec.get_or_insert_default().replicas = Some(replicas);
        let target = &scaler.spec.scale_target_ref.name;
        match scales
            .replace_scale(target, &PostParams::default(), &fresh)
            .await
        {
            Ok(_) => {
                let text =
                    format!("the HPA controller was able to update the target scale to {replicas}");
                plan::set_condition(status, "AbleToScale", true, "SucceededRescale", &text, now);
                status.last_scale_time = Some(Time(now));
                plan::set_scaled_to_zero(status, scaler, from, replicas, now);
                let text = format!("New size: {replicas}; reason: {reason}");
                recorder.tell(scaler, EventType::Normal, "SuccessfulRescale", text);
                let uid = scaler.metadata.uid.clone().unwrap_or_default();
                let mut memories = self.memories.lock();
                memories
                    .entry(uid)
                    .or_default()
                    .changed(from, replicas, now);
                true
            }
            Err(error) => {
                let why = errors::message(&error);
                let text =
                    format!("the HPA controller was unable to update the target scale: {why}");
                plan::set_condition(
                    status,
                    "AbleToScale",
                    false,
                    "FailedUpdateScale",
                    &text,
                    now,
                );
                let text = format!("New size: {replicas}; reason: {reason}; error: {why}");
                recorder.tell(scaler, EventType::Warning, "FailedRescale", text);
                status.desired_replicas = from;
                false
            }
        }
    }

    async fn finish(
        &self,
        scaler: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
        warnings: Vec<(&'static str, String)>,
    ) -> Result<Outcome, kube::Error> {
        for (reason, message) in warnings {
            self.context
                .recorder
                .tell(scaler, EventType::Warning, reason, message);
        }
        if scaler.status.as_ref() != Some(&status) {
            let mut fresh = scaler.clone();
            fresh.status = Some(status);
            let namespace = scaler.metadata.namespace.as_deref().unwrap_or_default();
            let name = scaler.metadata.name.as_deref().unwrap_or_default();
            let api: evenkeel_client::Api<HorizontalPodAutoscaler> =
                evenkeel_client::Api::namespaced(self.context.client.clone(), namespace);
            let params = PostParams::default();
            match api
                .replace_subresource("status", name, &params, &fresh)
                .await
            {
                Ok(written) => {
                    self.scalers.note_written(written);
                }
                // The scale is written; the status follows with the next look.
                Err(error) if errors::is_conflict(&error) || errors::is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Outcome::After(PERIOD))
    }
}
