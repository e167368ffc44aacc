//! Horizontal pod autoscalers of `autoscaling/v1`: a form of the stored ones of `v2`.
//!
//! The old form has one number, the wanted use of processors. What it has no field for travels in
//! annotations, as the reference's conversion has it, so that a client of the old form that writes
//! back what it read loses nothing.

use serde_json::{Value, json};

use crate::object::{self, at, child, fields, integer, list, set_or_remove, text};
use crate::row::View;

use super::DEFAULT_UTILIZATION;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const OBSERVED: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Annotations of the round trip; the last two are of a form before.
const TRAVELLING: [&str; 6] = [
    METRICS,
    OBSERVED,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// A field of the old form and where its value is in the new one.
type Moves = &'static [(&'static str, &'static [&'static str])];

/// What a metric of each source asks for.
const WANTED: [(&str, Moves); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            (
                "targetAverageUtilization",
                &["target", "averageUtilization"],
            ),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            (
                "targetAverageUtilization",
                &["target", "averageUtilization"],
            ),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

/// What was observed of it.
const SEEN: [(&str, Moves); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            (
                "currentAverageUtilization",
                &["current", "averageUtilization"],
            ),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            (
                "currentAverageUtilization",
                &["current", "averageUtilization"],
            ),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

/// Quantities that the old form always has.
const ALWAYS: [(&str, &str); 4] = [
    ("pods", "targetAverageValue"),
    ("object", "targetValue"),
    ("object", "currentValue"),
    ("external", "currentValue"),
];

/// The old form of autoscalers.
pub const VIEW: View = View {
    group: "autoscaling",
    plural: "horizontalpodautoscalers",
    to_stored,
    from_stored,
};

fn to_stored(object: &mut Value) {
    fields(object).insert("apiVersion".to_owned(), "autoscaling/v2".into());
    let carried = |name: &str| -> Option<Value> {
        serde_json::from_str(object::annotation(object, name)?).ok()
    };
    let metrics = carried(METRICS).filter(Value::is_array);
    let observed = carried(OBSERVED).filter(Value::is_array);
    let conditions = carried(CONDITIONS).filter(Value::is_array);
    let behavior = carried(BEHAVIOR)
        .filter(|behavior| behavior.as_object().is_some_and(|b| !b.is_empty()))
        .map(|behavior| renamed(&behavior, |name| with_first(name, char::to_ascii_lowercase)));
    drop_travelling(object);

    let spec = child(object, "spec");
    let percent = fields(spec).remove("targetCPUUtilizationPercentage");
    let mut wanted: Vec<Value> = list(&json!({ "m": metrics }), &["m"])
        .iter()
        .map(wanted_of_old)
        .collect();
    match percent.filter(|percent| !percent.is_null()) {
        Some(percent) => wanted.push(processors(&percent)),
        None if wanted.is_empty() => wanted.push(processors(&DEFAULT_UTILIZATION.into())),
        None => {}
    }
    fields(spec).insert("metrics".to_owned(), wanted.into());
    if let Some(behavior) = behavior {
        fields(spec).insert("behavior".to_owned(), behavior);
    }

    if observed.is_none() && conditions.is_none() && !has_status(object) {
        return;
    }
    let status = child(object, "status");
    let percent = fields(status).remove("currentCPUUtilizationPercentage");
    let observed = match (observed, percent) {
        (Some(observed), _) => list(&json!({ "m": observed }), &["m"])
            .iter()
            .map(|metric| moved_back(metric, &SEEN))
            .collect::<Vec<Value>>()
            .into(),
        (None, Some(percent)) if !percent.is_null() => json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageUtilization": percent}},
        }]),
        (None, _) => Value::Null,
    };
    set_or_remove(
        fields(status),
        "currentMetrics",
        Some(observed).filter(|observed| !observed.is_null()),
    );
    set_or_remove(fields(status), "conditions", conditions);
}

fn from_stored(object: &mut Value) {
    fields(object).insert("apiVersion".to_owned(), "autoscaling/v1".into());
    drop_travelling(object);
    let mut carried: Vec<(&str, Value)> = Vec::new();

    let spec = child(object, "spec");
    let metrics = fields(spec).remove("metrics").unwrap_or_default();
    let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
    let percent = metrics
        .iter()
        .find_map(|metric| processor_use(metric, "target").cloned());
    set_or_remove(fields(spec), "targetCPUUtilizationPercentage", percent);
    let others: Vec<Value> = metrics
        .iter()
        .filter(|metric| processor_use(metric, "target").is_none())
        .map(|metric| moved(metric, &WANTED))
        .collect();
    if !others.is_empty() {
        carried.push((METRICS, others.into()));
    }
    if let Some(behavior) = fields(spec).remove("behavior").filter(Value::is_object) {
        let behavior = renamed(&behavior, |name| with_first(name, char::to_ascii_uppercase));
        carried.push((BEHAVIOR, behavior));
    }

    if has_status(object) {
        let status = child(object, "status");
        let observed = fields(status).remove("currentMetrics").unwrap_or_default();
        let observed = observed.as_array().map(Vec::as_slice).unwrap_or_default();
        let percent = observed
            .iter()
            .rev()
            .find_map(|metric| processor_use(metric, "current").cloned());
        set_or_remove(fields(status), "currentCPUUtilizationPercentage", percent);
        if !observed.is_empty() {
            let observed: Vec<Value> = observed.iter().map(|metric| moved(metric, &SEEN)).collect();
            carried.push((OBSERVED, observed.into()));
        }
        let conditions = fields(status).remove("conditions").unwrap_or_default();
        if conditions.as_array().is_some_and(|list| !list.is_empty()) {
            carried.push((CONDITIONS, conditions));
        }
    }
    for (name, value) in carried {
        fields(child(child(object, "metadata"), "annotations"))
            .insert(name.to_owned(), value.to_string().into());
    }
}

fn has_status(object: &Value) -> bool {
    object.get("status").is_some_and(Value::is_object)
}

/// Removes the annotations of the round trip.
fn drop_travelling(object: &mut Value) {
    let metadata = object::metadata(object);
    let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    annotations.retain(|name, _| !TRAVELLING.contains(&name.as_str()));
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

fn processors(percent: &Value) -> Value {
    json!({
        "type": "Resource",
        "resource": {
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percent},
        },
    })
}

/// The use of processors that a metric is about, in percent.
fn processor_use<'a>(metric: &'a Value, under: &str) -> Option<&'a Value> {
    let of_processors =
        text(metric, &["type"]) == "Resource" && text(metric, &["resource", "name"]) == "cpu";
    at(metric, &["resource", under, "averageUtilization"])
        .filter(|percent| of_processors && percent.is_number())
}

/// A metric in the old form.
fn moved(metric: &Value, moves: &[(&str, Moves)]) -> Value {
    let mut out = json!({"type": text(metric, &["type"])});
    for (source, moves) in moves {
        let Some(from) = metric.get(*source).filter(|from| from.is_object()) else {
            continue;
        };
        let to = child(&mut out, source);
        for (name, path) in *moves {
            let found = at(from, path).filter(|value| !value.is_null()).cloned();
            let needed = ALWAYS.contains(&(*source, *name))
                || (*name == "currentAverageValue" && *source != "external");
            let zero = needed.then(|| Value::from("0"));
            set_or_remove(fields(to), name, found.or(zero));
        }
    }
    out
}

/// A metric in the new form.
fn moved_back(metric: &Value, moves: &[(&str, Moves)]) -> Value {
    let mut out = json!({"type": text(metric, &["type"])});
    for (source, moves) in moves {
        let Some(from) = metric.get(*source).filter(|from| from.is_object()) else {
            continue;
        };
        for (name, path) in *moves {
            let Some(found) = from.get(*name).filter(|value| !value.is_null()) else {
                continue;
            };
            if let [parents @ .., last] = *path {
                let parent = parents
                    .iter()
                    .fold(child(&mut out, source), |at, name| child(at, name));
                fields(parent).insert((*last).to_owned(), found.clone());
            }
        }
    }
    out
}

/// What is asked for, in the new form: with the type of the target, that the old one leaves open.
fn wanted_of_old(metric: &Value) -> Value {
    let mut out = moved_back(metric, &WANTED);
    for (source, _) in WANTED {
        let Some(metric) = out.get_mut(source) else {
            continue;
        };
        let target = child(metric, "target");
        let (value, average) = (target.get("value"), target.get("averageValue"));
        let kind = match source {
            "resource" | "containerResource"
                if integer(target, &["averageUtilization"]).is_some() =>
            {
                "Utilization"
            }
            "object" if average.is_none() => "Value",
            "external" if value.is_some() => "Value",
            _ => "AverageValue",
        };
        // The old form always has a value; none is meant beside an average.
        if source == "object" && kind == "AverageValue" && value.is_some_and(|v| v == "0") {
            fields(target).remove("value");
        }
        fields(target).insert("type".to_owned(), kind.into());
    }
    out
}

/// A tree with its fields renamed; nulls are left out.
fn renamed(value: &Value, name: impl Fn(&str) -> String + Copy) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(field, value)| (name(field), renamed(value, name)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(|item| renamed(item, name)).collect(),
        other => other.clone(),
    }
}

/// The reference writes the behaviour with the names of its internal type.
fn with_first(name: &str, case: fn(&char) -> char) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| case(&first))
        .into_iter()
        .chain(letters)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_new_form_survives_the_old() {
        let stored = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"mine": "1"}},
            "spec": {
                "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"},
                "metrics": [
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "rate"},
                        "target": {"type": "AverageValue", "averageValue": "2"}}},
                    {"type": "External", "external": {
                        "metric": {"name": "queue", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "Value", "value": "30"}}},
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 60}}},
                ],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15}]}},
            },
            "status": {"desiredReplicas": 2,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 40, "averageValue": "4m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let mut old = stored.clone();
        from_stored(&mut old);
        assert_eq!(old["apiVersion"], "autoscaling/v1");
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(old["status"]["currentCPUUtilizationPercentage"], 40);
        assert_eq!(old["spec"].get("metrics"), None);
        assert_eq!(
            old["metadata"]["annotations"][METRICS],
            "[{\"object\":{\"averageValue\":\"2\",\"metricName\":\"rate\",\"target\":{\"kind\":\
             \"Service\",\"name\":\"s\"},\"targetValue\":\"0\"},\"type\":\"Object\"},{\"external\":\
             {\"metricName\":\"queue\",\"metricSelector\":{\"matchLabels\":{\"a\":\"b\"}},\
             \"targetValue\":\"30\"},\"type\":\"External\"}]"
        );
        to_stored(&mut old);
        assert_eq!(old, stored);
    }

    #[test]
    fn the_default_is_written_out() {
        let mut old = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"}},
        });
        to_stored(&mut old);
        assert_eq!(
            at(&old, &["spec", "metrics"]),
            Some(&json!([processors(&80.into())]))
        );
        from_stored(&mut old);
        assert_eq!(
            integer(&old, &["spec", "targetCPUUtilizationPercentage"]),
            Some(80)
        );
        assert_eq!(at(&old, &["metadata"]), Some(&json!({"name": "a"})));
    }
}
