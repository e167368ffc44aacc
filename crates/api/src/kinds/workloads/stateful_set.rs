//! Stateful sets, as `pkg/apis/apps` and `pkg/registry/apps/statefulset` of the reference.

use serde_json::{Value, json};

use super::{convertible, int_or_percent, int_or_percent_value, not_above_100_percent};
use crate::field::{ErrorList, FieldError};
use crate::kinds::pod;
use crate::kinds::storage::claim;
use crate::object::{self, child, default_field, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{
    self, Cursor, annotations, is_new, label_selector, labels, nonnegative, selects,
};

const RETENTION: [&str; 2] = ["Retain", "Delete"];

/// What stateful sets do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatefulSets;

/// Members that go down by themselves can't be voted out by the rest where the rest is no
/// majority: what a database needs a person for. Stopping all is meant as it is said.
fn quorum_warning(from: i64, to: i64) -> Option<String> {
    let majority = from / 2 + 1;
    (from >= 3 && to > 0 && to < majority).then(|| {
        format!(
            "spec.replicas: going from {from} to {to} at once leaves less than a majority \
             ({majority} of {from}); members that decide by majority lose their quorum. Remove \
             members from the application first, or go down in steps that leave a majority"
        )
    })
}

impl Strategy for StatefulSets {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default_field(spec, "podManagementPolicy", "OrderedReady");
        let strategy = child(spec, "updateStrategy");
        if object::text(strategy, &["type"]).is_empty() {
            default_field(strategy, "type", "RollingUpdate");
            child(strategy, "rollingUpdate");
        }
        if object::text(strategy, &["type"]) == "RollingUpdate"
            && let Some(rolling) = strategy
                .get_mut("rollingUpdate")
                .filter(|at| at.is_object())
        {
            default_field(rolling, "partition", 0);
            default_field(rolling, "maxUnavailable", 1);
        }
        let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
        default_field(retention, "whenDeleted", "Retain");
        default_field(retention, "whenScaled", "Retain");
        default_field(spec, "replicas", 1);
        default_field(spec, "revisionHistoryLimit", 10);
        pod::template_defaults(child(spec, "template"));
        for template in list_mut(spec, "volumeClaimTemplates") {
            // Clients that look at the type of what they read need it here too.
            let fields = fields(template);
            fields.insert("apiVersion".to_owned(), "v1".into());
            fields.insert("kind".to_owned(), "PersistentVolumeClaim".into());
            claim::defaults(template);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"replicas": 0, "availableReplicas": 0});
        fields(object).insert("status".to_owned(), status);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        spec(object, is_new(object), &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        for name in [
            "selector",
            "volumeClaimTemplates",
            "serviceName",
            "podManagementPolicy",
        ] {
            validation::immutable(at.raw(name), before.raw(name), &at.at(name), &mut out);
        }
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        for name in [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ] {
            nonnegative(&at, name, &mut out);
        }
        for name in [
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ] {
            super::not_above(&at, name, "replicas", super::OVER_REPLICAS, &mut out);
        }
        super::not_above(
            &at,
            "availableReplicas",
            "readyReplicas",
            "cannot be greater than status.readyReplicas",
            &mut out,
        );
        super::not_decremented(&at, &Cursor::root(old).child("status"), &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = super::template_warnings(new, old);
        let spec = Cursor::root(new).child("spec");
        if let Some(old) = old {
            out.extend(quorum_warning(
                Cursor::root(old).child("spec").number("replicas"),
                spec.number("replicas"),
            ));
        }
        for template in spec.items("volumeClaimTemplates") {
            claim::spec_warnings(&template.child("spec"), &mut out);
        }
        if spec.number("revisionHistoryLimit") < 0 {
            out.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a \
                 value >= 0 is recommended"
                    .to_owned(),
            );
        }
        out
    }
}

/// Checks the spec. What can't be changed any more (`serviceName`, `volumeClaimTemplates`) is
/// looked at when the set is made only.
fn spec(object: &Value, new: bool, out: &mut ErrorList) {
    let spec = Cursor::root(object).child("spec");
    match spec.text("podManagementPolicy") {
        "" => out.push(FieldError::required(&spec.at("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => out.push(FieldError::invalid(
            &spec.at("podManagementPolicy"),
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
    update_strategy(&spec.child("updateStrategy"), out);
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        if retention.has(name) && !RETENTION.contains(&retention.text(name)) {
            out.push(FieldError::not_supported(
                &retention.at(name),
                retention.text(name),
                &RETENTION,
            ));
        }
    }
    if new {
        for template in spec.items("volumeClaimTemplates") {
            claim::validate_spec(&template.child("spec"), out);
        }
    }
    nonnegative(&spec, "replicas", out);
    nonnegative(&spec, "minReadySeconds", out);
    let ordinals = spec.child("ordinals");
    if ordinals.number("start") < 0 {
        out.push(FieldError::invalid(
            &ordinals.at("start"),
            ordinals.number("start"),
            validation::NEGATIVE,
        ));
    }
    if new && !spec.text("serviceName").is_empty() {
        validation::dns_label(spec.text("serviceName"), &spec.at("serviceName"), out);
    }
    selector_and_template(&spec, out);
}

fn update_strategy(at: &Cursor<'_>, out: &mut ErrorList) {
    let rolling = at.child("rollingUpdate");
    match at.text("type") {
        "" => out.push(FieldError::required(&at.path, "")),
        "OnDelete" => {
            if at.has("rollingUpdate") {
                out.push(FieldError::invalid_shown(
                    &rolling.path,
                    &rolling_shown(&rolling),
                    "only allowed for updateStrategy 'RollingUpdate'",
                ));
            }
        }
        "RollingUpdate" => {
            nonnegative(&rolling, "partition", out);
            if rolling.has("maxUnavailable") {
                int_or_percent(&rolling, "maxUnavailable", out);
                if int_or_percent_value(&rolling, "maxUnavailable") == 0 {
                    out.push(FieldError::invalid(
                        &rolling.at("maxUnavailable"),
                        rolling.raw("maxUnavailable").clone(),
                        "cannot be 0",
                    ));
                }
                not_above_100_percent(&rolling, "maxUnavailable", out);
            }
        }
        other => {
            let shown = if rolling.value.is_null() {
                "null".to_owned()
            } else {
                rolling_shown(&rolling)
            };
            out.push(FieldError::invalid_shown(
                &at.path,
                &format!(
                    "{{\"Type\":{},\"RollingUpdate\":{shown}}}",
                    Value::from(other)
                ),
                "must be 'RollingUpdate' or 'OnDelete'",
            ));
        }
    }
}

/// The reference shows the internal type, with Go's names.
fn rolling_shown(rolling: &Cursor<'_>) -> String {
    format!(
        "{{\"Partition\":{},\"MaxUnavailable\":{}}}",
        rolling.number("partition"),
        rolling.raw("maxUnavailable")
    )
}

fn selector_and_template(spec: &Cursor<'_>, out: &mut ErrorList) {
    let selector = spec.child("selector");
    if selector.value.is_null() {
        out.push(FieldError::required(&selector.path, ""));
    } else {
        label_selector(&selector, out);
        let terms =
            selector.entries("matchLabels").count() + selector.list("matchExpressions").len();
        if terms == 0 {
            out.push(FieldError::invalid(
                &selector.path,
                selector.value.clone(),
                "empty selector is invalid for statefulset",
            ));
        }
    }
    let template = spec.child("template");
    let found = template.child("metadata").child("labels");
    match convertible(&selector).then(|| selects(selector.value, found.value)) {
        None | Some(None) => out.push(FieldError::invalid(
            &selector.path,
            selector.value.clone(),
            "",
        )),
        Some(Some(matches)) => {
            if !matches {
                out.push(FieldError::invalid(
                    &found.path,
                    found.value.clone(),
                    "`selector` does not match template `labels`",
                ));
            }
            let made = as_the_controller_makes_it(spec);
            let made = Cursor::new(&made, template.path.clone());
            pod::validate_template(&made, out);
            labels(found.value, &template.at("labels"), out);
            let notes = template.child("metadata");
            annotations(notes.raw("annotations"), &template.at("annotations"), out);
        }
    }
    super::always_restarts(&template, "StatefulSet", out);
}

/// The template with what the controller puts into every pod: the host name and the subdomain
/// are its own, and claims made from templates take the place of volumes of the same name.
fn as_the_controller_makes_it(spec: &Cursor<'_>) -> Value {
    let mut template = spec.raw("template").clone();
    let pod_spec = child(&mut template, "spec");
    fields(pod_spec).remove("subdomain");
    fields(pod_spec).remove("hostname");
    let mut names: Vec<&str> = spec
        .list("volumeClaimTemplates")
        .iter()
        .map(object::name)
        .collect();
    if names.is_empty() {
        return template;
    }
    names.sort_unstable();
    names.dedup();
    let mut volumes: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let others = object::list(pod_spec, &["volumes"])
        .iter()
        .filter(|volume| !names.contains(&object::text(volume, &["name"])));
    volumes.extend(others.cloned());
    fields(pod_spec).insert("volumes".to_owned(), volumes.into());
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_below_a_majority_is_warned_of() {
        for (from, to, warns) in [
            (3, 1, true),
            (5, 2, true),
            (3, 2, false),
            (5, 3, false),
            // Stopped on purpose; no group; growing.
            (3, 0, false),
            (2, 1, false),
            (1, 3, false),
        ] {
            assert_eq!(quorum_warning(from, to).is_some(), warns, "{from} to {to}");
        }
    }
}
