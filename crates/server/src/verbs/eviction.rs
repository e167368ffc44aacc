//! `pods/NAME/eviction`: a delete that asks the pod's disruption budget first.
//!
//! The budget's status says how many disruptions it allows; each eviction spends one by a
//! compare-and-swap on the budget, before the pod is deleted. The disruption loop sets the number
//! anew when it has seen the pod go. So two evictions at once never spend the same one.

use std::sync::Arc;

use evenkeel_api::kinds::pod;
use evenkeel_api::row::{GroupVersionKind, ResourceDef, Subresource};
use evenkeel_api::selector::LabelSelector;
use evenkeel_api::status::StatusCause;
use evenkeel_api::{Status, clock, object};
use serde_json::{Value, json};

use super::delete::{self, delete_object};
use super::delete_options::Options;
use super::{Request, decode};
use crate::admission::Operation;
use crate::http::{Answer, status_answer_as};
use crate::object::Object;
use crate::registry::Outcome;

const TYPE: &str = "io.k8s.api.policy.v1.Eviction";
/// So often a write that others got in front of is tried again.
const TRIES: usize = 20;
/// Evictions allowed and not yet seen by the disruption loop, at most.
const MOST_DISRUPTED: usize = 2000;
const CAUSE: &str = "DisruptionBudget";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(super) async fn evict(mut request: Request<'_>) -> Result<Answer, Status> {
    let (group, version, kind) = Subresource::Eviction.own_kind().unwrap_or_default();
    let gvk = GroupVersionKind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
    };
    let mut body = decode::body_of(&mut request, &gvk, TYPE)?;
    if object::name(&body) != request.name() {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    super::subresource::admit(
        &request,
        Operation::Create,
        Subresource::Eviction,
        &mut body,
    )
    .await?;
    let mut options = match body.get("deleteOptions") {
        Some(given) => Options::read(given)?,
        None => Options::default(),
    };
    options.dry_run |= request.dry_run();
    let pod = super::subresource::current(&request).await?;
    let held = match hold(&pod.value()) {
        Hold::Never => None,
        Hold::Unbound => Some(pod.revision),
        Hold::ByBudget => return by_budget(&request, pod, &options).await,
    };
    // Nothing is disrupted: but a pod that is about to become ready must be looked at again.
    let mut pod = pod;
    let mut held = held;
    for _ in 0..TRIES {
        let mut with = options.clone();
        if let Some(revision) = held
            && with.revision.is_none()
        {
            with.revision = Some(revision.to_string());
        }
        match mark_and_delete(&request, pod, &with).await {
            Ok(()) => return Ok(created(&request)),
            Err(status) if status.code == 409 && options.revision.is_none() => {}
            Err(status) => return Err(status),
        }
        pod = super::subresource::current(&request).await?;
        held = match hold(&pod.value()) {
            Hold::Never => None,
            Hold::Unbound => Some(pod.revision),
            Hold::ByBudget => return by_budget(&request, pod, &options).await,
        };
    }
    let name = request.name().to_owned();
    Err(Status::modified("", &request.row.plural, &name))
}

fn created(request: &Request<'_>) -> Answer {
    let status = Status {
        code: 201,
        ..Status::success()
    };
    status_answer_as(request.media.encoding, &status)
}

/// What stands between a pod and its eviction.
enum Hold {
    /// Nothing: it has ended or is on its way out.
    Never,
    /// Nothing, while it has not begun.
    Unbound,
    /// Its budget.
    ByBudget,
}

fn hold(pod: &Value) -> Hold {
    if pod::is_finished(pod) || object::deletion_timestamp(pod).is_some() {
        Hold::Never
    } else if object::text(pod, &["status", "phase"]) == "Pending" {
        Hold::Unbound
    } else {
        Hold::ByBudget
    }
}

async fn by_budget(
    request: &Request<'_>,
    pod: Arc<Object>,
    options: &Options,
) -> Result<Answer, Status> {
    let value = pod.value();
    let budgets = budgets_of(request, &value).await?;
    if budgets.len() > 1 {
        let status = Status::failure(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
             not support.",
        );
        return Ok(status_answer_as(request.media.encoding, &status));
    }
    let Some((row, budget)) = budgets.into_iter().next() else {
        mark_and_delete(request, pod, options).await?;
        return Ok(created(request));
    };
    let name = object::name(&budget.value()).to_owned();
    if is_sick_and_free(&value, &budget.value()) {
        // It does not count as healthy, so nothing is spent; but it must still be sick then.
        let mut with = options.clone();
        with.revision
            .get_or_insert_with(|| pod.revision.to_string());
        return match mark_and_delete(request, pod, &with).await {
            Ok(()) => Ok(created(request)),
            Err(status) if status.code == 409 && options.revision.is_none() => {
                Err(still_processed(&name))
            }
            Err(status) => Err(status),
        };
    }
    spend(request, &row, budget, object::name(&value), options.dry_run).await?;
    mark_and_delete(request, pod, options).await?;
    Ok(created(request))
}

/// The budgets that select a pod.
async fn budgets_of(
    request: &Request<'_>,
    pod: &Value,
) -> Result<Vec<(Arc<ResourceDef>, Arc<Object>)>, Status> {
    let registry = &request.door.registry;
    let row = registry.rows.by_kind("policy", "v1", "PodDisruptionBudget");
    let Some(row) = row.cloned() else {
        return Ok(Vec::new());
    };
    let cache = registry.cache(&row)?;
    registry.fresh().await?;
    let mut found = Vec::new();
    for budget in cache.list(request.namespace(), None) {
        let value = budget.value();
        let selector = value.pointer("/spec/selector").cloned();
        let selector = selector.and_then(|it| serde_json::from_value(it).ok());
        let selector = LabelSelector::from_spec(selector.as_ref());
        let matches =
            selector.is_ok_and(|selector| selector.matches_with(|key| object::label(pod, key)));
        if matches {
            found.push((Arc::clone(&row), budget));
        }
    }
    Ok(found)
}

/// A pod that is not ready, and whose budget lets such go.
fn is_sick_and_free(pod: &Value, budget: &Value) -> bool {
    if pod::is_ready(pod) {
        return false;
    }
    let policy = object::text(budget, &["spec", "unhealthyPodEvictionPolicy"]);
    let number = |name: &str| object::integer(budget, &["status", name]).unwrap_or(0);
    let desired = number("desiredHealthy");
    policy == "AlwaysAllow" || (desired > 0 && number("currentHealthy") >= desired)
}

fn cause(message: String) -> Vec<StatusCause> {
    vec![StatusCause {
        reason: CAUSE.to_owned(),
        message,
        ..StatusCause::default()
    }]
}

fn still_processed(budget: &str) -> Status {
    Status::too_many_requests(REFUSED, 10).with_causes(cause(format!(
        "The disruption budget {budget} is still being processed by the server."
    )))
}

/// Takes one disruption off the budget, however often others change it meanwhile.
async fn spend(
    request: &Request<'_>,
    row: &Arc<ResourceDef>,
    mut budget: Arc<Object>,
    pod: &str,
    dry_run: bool,
) -> Result<(), Status> {
    let name = object::name(&budget.value()).to_owned();
    for _ in 0..TRIES {
        let now = clock::rfc3339(request.door.clock().now());
        let next = spent(&budget.value(), pod, &now)?;
        if dry_run {
            return Ok(());
        }
        match request.door.registry.replace(row, &budget, next).await? {
            Outcome::Done(_) => return Ok(()),
            Outcome::Stale(Some(newer)) => budget = newer,
            // It went: nothing holds the pod any more.
            Outcome::Stale(None) => return Ok(()),
        }
    }
    let text = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
    Err(Status::timeout(text, 10))
}

/// The budget with one disruption less, or why it allows none.
fn spent(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let name = object::name(budget);
    let number = |path: &[&str]| object::integer(budget, path).unwrap_or(0);
    if number(&["status", "observedGeneration"]) < number(&["metadata", "generation"]) {
        return Err(still_processed(name));
    }
    let allowed = number(&["status", "disruptionsAllowed"]);
    let forbidden = |why: &str, told: &str| {
        let status = Status::forbidden("policy", "poddisruptionbudget", name, why);
        Err(status.with_causes(cause(format!(
            "The disruption budget {name} does not allow evicting pods currently: {told}"
        ))))
    };
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return forbidden(why, why);
    }
    let disrupted = budget.pointer("/status/disruptedPods");
    if disrupted
        .and_then(Value::as_object)
        .is_some_and(|all| all.len() > MOST_DISRUPTED)
    {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            "too many pending evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        let status = Status::too_many_requests(REFUSED, 0);
        return Err(status.with_causes(cause(why_none(budget))));
    }
    let mut next = budget.clone();
    let status = object::child(&mut next, "status");
    object::fields(status).insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
    let disrupted = object::child(status, "disruptedPods");
    object::fields(disrupted).insert(pod.to_owned(), now.into());
    if allowed == 1 {
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": number(&["status", "observedGeneration"]),
        });
        pod::set_condition(status, condition, now);
    }
    Ok(next)
}

fn why_none(budget: &Value) -> String {
    let name = object::name(budget);
    let number = |field: &str| object::integer(budget, &["status", field]).unwrap_or(0);
    let condition = pod::condition(budget, "DisruptionAllowed");
    let text = |field: &str| {
        let found = condition.filter(|it| object::text(it, &["status"]) == "False");
        found.map_or("", |it| object::text(it, &[field]))
    };
    let (reason, message) = (text("reason"), text("message"));
    let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
    if !message.is_empty() && reason == "SyncFailed" {
        format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed \
             sync: {message}"
        )
    } else if current <= desired {
        format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        )
    } else if message.is_empty() {
        format!("The disruption budget {name} does not allow evicting pods currently")
    } else {
        format!(
            "The disruption budget {name} does not allow evicting pods currently ({reason}): \
             {message}"
        )
    }
}

/// Says on the pod that it is evicted, then deletes it.
async fn mark_and_delete(
    request: &Request<'_>,
    mut pod: Arc<Object>,
    options: &Options,
) -> Result<(), Status> {
    let mut with = options.clone();
    if !options.dry_run {
        pod = mark(request, pod, options).await?;
        // Our own write moved the object on.
        with.revision = options.revision.as_ref().map(|_| pod.revision.to_string());
    }
    delete_object(request, pod, &with).await?;
    Ok(())
}

async fn mark(
    request: &Request<'_>,
    mut pod: Arc<Object>,
    options: &Options,
) -> Result<Arc<Object>, Status> {
    let row = &request.row;
    loop {
        let mut new = pod.value();
        delete::preconditions(request, &new, options)?;
        let now = clock::rfc3339(request.door.clock().now());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        });
        pod::set_condition(object::child(&mut new, "status"), condition, &now);
        match request.door.registry.replace(row, &pod, new).await? {
            Outcome::Done(object) => return Ok(object),
            Outcome::Stale(Some(newer)) => pod = newer,
            Outcome::Stale(None) => return Err(request.not_found()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64, current: i64, desired: i64) -> Value {
        json!({
            "metadata": {"name": "web", "generation": 2},
            "status": {
                "observedGeneration": 2, "disruptionsAllowed": allowed,
                "currentHealthy": current, "desiredHealthy": desired,
            },
        })
    }

    #[test]
    fn a_disruption_is_spent_and_noted() {
        let next = spent(&budget(1, 3, 2), "web-1", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(next["status"]["disruptionsAllowed"], 0);
        assert_eq!(
            next["status"]["disruptedPods"]["web-1"],
            "2026-01-01T00:00:00Z"
        );
        let condition = pod::condition(&next, "DisruptionAllowed").unwrap();
        assert_eq!(condition["reason"], "InsufficientPods");
        let error = spent(&next, "web-2", "2026-01-01T00:00:00Z").unwrap_err();
        assert_eq!(
            (error.code, error.reason.as_str()),
            (429, "TooManyRequests")
        );
        assert_eq!(error.message, REFUSED);
    }

    #[test]
    fn what_is_refused_says_why() {
        let told = |budget: &Value| {
            let error = spent(budget, "web-1", "").unwrap_err();
            let causes = error.details.unwrap().causes;
            assert_eq!(causes[0].reason, "DisruptionBudget");
            (error.code, causes[0].message.clone())
        };
        let none = budget(0, 2, 2);
        let wanted = "The disruption budget web needs 2 healthy pods and has 2 currently";
        assert_eq!(told(&none), (429, wanted.to_owned()));
        let mut failed = none.clone();
        failed["status"]["conditions"] = json!([{
            "type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed",
            "message": "no controllers",
        }]);
        let wanted = "The disruption budget web does not allow evicting pods currently because it \
                      failed sync: no controllers";
        assert_eq!(told(&failed), (429, wanted.to_owned()));
        let mut new = budget(5, 9, 2);
        new["metadata"]["generation"] = json!(3);
        let wanted = "The disruption budget web is still being processed by the server.";
        assert_eq!(told(&new), (429, wanted.to_owned()));
        assert_eq!(told(&budget(-1, 9, 2)).0, 403);
    }

    #[test]
    fn the_sick_may_go_where_enough_are_healthy_or_always() {
        let sick = json!({"status": {"phase": "Running"}});
        assert!(is_sick_and_free(&sick, &budget(0, 2, 2)));
        assert!(!is_sick_and_free(&sick, &budget(0, 1, 2)));
        assert!(!is_sick_and_free(&sick, &budget(0, 0, 0)));
        let mut always = budget(0, 1, 2);
        always["spec"] = json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"});
        assert!(is_sick_and_free(&sick, &always));
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(!is_sick_and_free(&ready, &always));
    }
}
