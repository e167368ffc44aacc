//! Reads the scale and the figures, carries the decision out, writes the status.

use std::collections::HashMap;
use std::sync::Arc;

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

use crate::behavior::Memory;
use crate::custom::{Asked, OtherMetrics};
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
    ) -> Self {
        Self {
            scalers,
            context,
            metrics,
            others,
            memories: Mutex::new(HashMap::new()),
            resources: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, kube::Error> {
        let Some(scaler) = self.scalers.get_key(&key) else {
            self.forget_gone();
            return Ok(Outcome::Done);
        };
        let now = self.context.clock.now();
        let scales = match self.scales(&scaler).await {
            Ok(scales) => scales,
            Err(error) => {
                let plan = plan::unreadable(&scaler, &errors::message(&error), now);
                return self.finish(&scaler, plan.status, plan.warnings).await;
            }
        };
        let target = &scaler.spec.scale_target_ref.name;
        let scale = match scales.get_scale(target).await {
            Ok(scale) => scale,
            Err(error) => {
                let plan = plan::unreadable(&scaler, &errors::message(&error), now);
                return self.finish(&scaler, plan.status, plan.warnings).await;
            }
        };
        let plan = self.decide(&scaler, &scale).await;
        let Plan {
            rescale,
            mut status,
            warnings,
        } = plan;
        if let Some((replicas, reason)) = rescale {
            self.rescale(&scaler, &scales, &scale, replicas, &reason, &mut status)
                .await;
        }
        self.finish(&scaler, status, warnings).await
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
        let figures = self.figures(scaler, namespace, selector).await;
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
        let mut memories = self.memories.lock();
        plan::plan(&seen, memories.entry(uid).or_default())
    }

    /// What the metrics need that the pods' samples do not have.
    async fn figures(
        &self,
        scaler: &HorizontalPodAutoscaler,
        namespace: &str,
        pods: &str,
    ) -> Vec<Figure> {
        let mut found = Vec::new();
        for spec in scaler.spec.metrics.iter().flatten() {
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
        }
        found
    }

    async fn rescale(
        &self,
        scaler: &HorizontalPodAutoscaler,
        scales: &Api<DynamicObject>,
        scale: &Scale,
        replicas: i32,
        reason: &str,
        status: &mut HorizontalPodAutoscalerStatus,
    ) {
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
