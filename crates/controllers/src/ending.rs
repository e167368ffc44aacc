//! How a loop ends a pod before its time: the pod's status says who and why, then it is deleted. Who
//! has to go is for the loops to say.

use evenkeel_client::{Api, View, errors};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

/// The condition that says who ended a pod and why.
pub(crate) fn disruption(reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

/// Writes a condition and a phase, where they are given, on a pod about to be deleted. False: it
/// is gone.
pub(crate) async fn mark(
    api: &Api<Pod>,
    pod: &Pod,
    condition: Option<PodCondition>,
    phase: Option<&str>,
) -> Result<bool, kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut patch = json!({
        // The list is written whole, so nobody may have changed it in between.
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {},
    });
    if let Some(condition) = condition {
        let status = pod.status.as_ref();
        let mut conditions = status
            .and_then(|status| status.conditions.clone())
            .unwrap_or_default();
        conditions.retain(|item| item.type_ != condition.type_);
        conditions.push(condition);
        patch["status"]["conditions"] = json!(conditions);
    }
    if let Some(phase) = phase {
        patch["status"]["phase"] = json!(phase);
    }
    let params = PatchParams::default();
    match api.patch_status(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(true),
        Err(error) if errors::is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes this pod and no other of its name, and notes it in the view. False: it was gone already.
pub(crate) async fn delete(
    api: &Api<Pod>,
    view: &View<Pod>,
    pod: &Pod,
    params: DeleteParams,
) -> Result<bool, kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let params = params.preconditions(Preconditions {
        uid: pod.metadata.uid.clone(),
        resource_version: None,
    });
    match api.delete(name, &params).await {
        Ok(answer) => view.note_delete_answer(pod, answer.left()),
        Err(error) if errors::is_not_found(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Marks a pod with a condition and deletes it, with the time it has to end. False: it was gone
/// already.
pub(crate) async fn evict(
    api: &Api<Pod>,
    view: &View<Pod>,
    pod: &Pod,
    condition: PodCondition,
) -> Result<bool, kube::Error> {
    Ok(mark(api, pod, Some(condition), None).await?
        && delete(api, view, pod, DeleteParams::default()).await?)
}
