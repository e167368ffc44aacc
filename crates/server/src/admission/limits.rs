//! `LimitRanger`: what containers get that say nothing, and how little and how much may be asked
//! for.

use std::collections::BTreeMap;

use evenkeel_api::kinds::{pod_limits, pod_requests};
use evenkeel_api::quantity::Quantity;
use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Change, Operation, Plugin, look_up};
use crate::registry::Registry;

const SET: &str = "kubernetes.io/limit-ranger";
/// Amounts up to this are compared by thousandths.
const MILLI_MOST: i64 = i64::MAX / 1000;

type Amounts = BTreeMap<String, Quantity>;

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        if concerns(change) && change.is_core("Pod") {
            for range in ranges(registry, change) {
                fill(&range, object);
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        if !concerns(change) {
            return Ok(());
        }
        for range in ranges(registry, change) {
            let mut wrong: Vec<String> = Vec::new();
            for limit in object::list(&range, &["spec", "limits"]) {
                for found in broken(limit, change, object) {
                    if !wrong.contains(&found) {
                        wrong.push(found);
                    }
                }
            }
            let why = match wrong.as_slice() {
                [] => continue,
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(change.forbidden(object, &why));
        }
        Ok(())
    }
}

/// New pods, pods whose resources change in place, and claims; nothing that is going already.
fn concerns(change: &Change<'_>) -> bool {
    if change
        .old
        .is_some_and(|old| object::deletion_timestamp(old).is_some())
    {
        return false;
    }
    match (change.operation, change.subresource) {
        (Operation::Create, None) => {
            change.is_core("Pod") || change.is_core("PersistentVolumeClaim")
        }
        (Operation::Update, None) => change.is_core("PersistentVolumeClaim"),
        (Operation::Update, Some(Subresource::Resize)) => change.is_core("Pod"),
        _ => false,
    }
}

fn ranges(registry: &Registry, change: &Change<'_>) -> Vec<Value> {
    look_up::objects(registry, ("", "v1", "LimitRange"), change.namespace)
}

fn amounts(value: Option<&Value>) -> Amounts {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

/// Sets what containers leave open, and tells it in an annotation.
fn fill(range: &Value, pod: &mut Value) {
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    for limit in object::list(range, &["spec", "limits"]) {
        if object::text(limit, &["type"]) != "Container" {
            continue;
        }
        for (name, into) in [("defaultRequest", &mut requests), ("default", &mut limits)] {
            let given = limit.get(name).and_then(Value::as_object);
            into.extend(
                given
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
        }
    }
    let mut told = Vec::new();
    let spec = object::child(pod, "spec");
    for (list, word) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else {
            continue;
        };
        for container in containers {
            let name = object::text(container, &["name"]).to_owned();
            for (field, defaults, kind) in [
                ("requests", &requests, "request"),
                ("limits", &limits, "limit"),
            ] {
                let set = set_missing(container, field, defaults);
                if !set.is_empty() {
                    told.push(format!("{} {kind} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let metadata = object::child(pod, "metadata");
        let annotations = object::child(metadata, "annotations");
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        object::fields(annotations).insert(SET.to_owned(), text.into());
    }
}

/// Adds what is missing in a container's requests or limits; answers the names, in order.
fn set_missing(
    container: &mut Value,
    field: &str,
    defaults: &BTreeMap<String, Value>,
) -> Vec<String> {
    let has = |name: &String| object::at(container, &["resources", field, name]).is_some();
    let missing: Vec<String> = defaults.keys().filter(|name| !has(name)).cloned().collect();
    if !missing.is_empty() {
        let resources = object::child(container, "resources");
        let amounts = object::fields(object::child(resources, field));
        for name in &missing {
            amounts.insert(name.clone(), defaults[name].clone());
        }
    }
    missing
}

/// Everything about an object that a limit does not allow.
fn broken(limit: &Value, change: &Change<'_>, object: &Value) -> Vec<String> {
    let kind = object::text(limit, &["type"]);
    let mut wrong = Vec::new();
    match (kind, change.row.gvk.kind.as_ref()) {
        ("Container", "Pod") => {
            for list in ["containers", "initContainers"] {
                for container in object::list(object, &["spec", list]) {
                    let of = |field| amounts(object::at(container, &["resources", field]));
                    of_compute(limit, kind, &of("requests"), &of("limits"), &mut wrong);
                }
            }
        }
        ("Pod", "Pod") => {
            // What a pod costs beside its containers is not the limit's business.
            let mut pod = object.clone();
            object::fields(object::child(&mut pod, "spec")).remove("overhead");
            of_compute(
                limit,
                kind,
                &pod_requests(&pod),
                &pod_limits(&pod),
                &mut wrong,
            );
        }
        ("PersistentVolumeClaim", "PersistentVolumeClaim") => {
            let requests = amounts(object::at(object, &["spec", "resources", "requests"]));
            for (name, least) in amounts(limit.get("min")) {
                wrong.extend(minimum(kind, &name, least, &requests, &Amounts::new()));
            }
            for (name, most) in amounts(limit.get("max")) {
                let text = format!("maximum {name} usage per {kind} is {most}");
                match requests.get(&name) {
                    None => wrong.push(format!("{text}.  No request is specified")),
                    Some(asked) if *asked > most => {
                        wrong.push(format!("{text}, but request is {asked}"));
                    }
                    Some(_) => {}
                }
            }
        }
        _ => {}
    }
    wrong
}

fn of_compute(
    limit: &Value,
    kind: &str,
    requests: &Amounts,
    limits: &Amounts,
    wrong: &mut Vec<String>,
) {
    for (name, least) in amounts(limit.get("min")) {
        wrong.extend(minimum(kind, &name, least, requests, limits));
    }
    for (name, most) in amounts(limit.get("max")) {
        let text = format!("maximum {name} usage per {kind} is {most}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => wrong.push(format!("{text}.  No limit is specified")),
            (Some(limit), _) if *limit > most => {
                wrong.push(format!("{text}, but limit is {limit}"));
            }
            (_, Some(asked)) if *asked > most => {
                wrong.push(format!("{text}, but request is {asked}"));
            }
            _ => {}
        }
    }
    for (name, most) in amounts(limit.get("maxLimitRequestRatio")) {
        wrong.extend(ratio(kind, &name, most, requests, limits));
    }
}

fn minimum(
    kind: &str,
    name: &str,
    least: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let text = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{text}.  No request is specified")),
        (Some(asked), _) if *asked < least => Some(format!("{text}, but request is {asked}")),
        (_, Some(limit)) if *limit < least => Some(format!("{text}, but limit is {limit}")),
        _ => None,
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "the reference computes the ratio in floating point"
)]
fn ratio(
    kind: &str,
    name: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let text = format!("{name} max limit to request ratio per {kind} is {most}");
    let given = |amounts: &Amounts| {
        amounts
            .get(name)
            .copied()
            .filter(|amount| !amount.is_zero())
    };
    let Some(asked) = given(requests) else {
        return Some(format!(
            "{text}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = given(limits) else {
        return Some(format!("{text}, but no limit is specified or limit is 0"));
    };
    let small = [asked, limit, most]
        .iter()
        .all(|amount| amount.units() <= MILLI_MOST);
    let found = if small {
        limit.milli() as f64 / asked.milli() as f64
    } else {
        limit.units() as f64 / asked.units() as f64
    };
    let most = if most.units() <= MILLI_MOST {
        most.milli() as f64 / 1000.0
    } else {
        most.units() as f64
    };
    (found > most).then(|| format!("{text}, but provided ratio is {found:.6}"))
}
