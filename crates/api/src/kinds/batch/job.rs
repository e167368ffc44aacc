//! Jobs.

use serde_json::{Value, json};

use super::{policies, status};
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::pod;
use crate::kinds::workloads::{convertible, name_warning};
use crate::names;
use crate::object::{self, child, default_field, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{self, Cursor, is_new, label_selector, nonnegative, selects};

const PARALLELISM_MAX_INDEXED: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_WITH_MANY: i64 = 10_000;
const MANAGED_BY_MAX: usize = 63;
const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// What jobs do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jobs;

/// Sets the defaults of a job's spec.
pub(super) fn spec_defaults(spec: &mut Value) {
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        default_field(spec, "completions", 1);
    }
    default_field(spec, "parallelism", 1);
    let per_index = spec
        .get("backoffLimitPerIndex")
        .is_some_and(|limit| !limit.is_null());
    default_field(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    default_field(spec, "completionMode", "NonIndexed");
    default_field(spec, "suspend", false);
    let with_policy = spec.get("podFailurePolicy").is_some_and(Value::is_object);
    let replacement = if with_policy {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default_field(spec, "podReplacementPolicy", replacement);
    default_field(spec, "manualSelector", false);
    template_defaults(spec);
}

/// Sets the defaults that jobs and templates of jobs share.
pub(super) fn template_defaults(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in list_mut(policy, "rules") {
            for pattern in list_mut(rule, "onPodConditions") {
                // Go holds it by value: what was not written is empty by now.
                if object::text(pattern, &["status"]).is_empty() {
                    fields(pattern).insert("status".to_owned(), "True".into());
                }
            }
        }
    }
    pod::template_defaults(child(spec, "template"));
}

fn is_true(object: &Value, path: &[&str]) -> bool {
    object::at(object, path) == Some(&Value::Bool(true))
}

/// Labels the pods with the job's name and identity, and selects by the latter.
fn generate_selector(object: &mut Value) {
    let (name, uid) = (
        object::name(object).to_owned(),
        object::uid(object).to_owned(),
    );
    let spec = child(object, "spec");
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (keys, value) in [(JOB_NAME, &name), (CONTROLLER_UID, &uid)] {
        for key in keys {
            default_field(labels, key, value.clone());
        }
    }
    let matched = child(child(spec, "selector"), "matchLabels");
    default_field(matched, CONTROLLER_UID[1], uid);
}

impl Strategy for Jobs {
    fn defaults(&self, object: &mut Value) {
        spec_defaults(child(object, "spec"));
        let labels = object::at(object, &["spec", "template", "metadata", "labels"])
            .filter(|labels| labels.is_object())
            .cloned();
        let has_labels = object::at(object, &["metadata", "labels"])
            .and_then(Value::as_object)
            .is_some_and(|labels| !labels.is_empty());
        if let Some(labels) = labels.filter(|_| !has_labels) {
            object::metadata(object).insert("labels".to_owned(), labels);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if !is_true(object, &["spec", "manualSelector"]) {
            generate_selector(object);
        }
        object::clear_status(object);
    }

    /// A job that came without labels has those of its template, the generated ones too. Others that
    /// it got on the way stay.
    fn prepare_new(&self, object: &mut Value, unlabelled: bool) {
        let labels = object::at(object, &["spec", "template", "metadata", "labels"]);
        let own = object::at(object, &["metadata", "labels"]).and_then(Value::as_object);
        let mut own = own.into_iter().flatten();
        let all_from_template =
            own.all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)));
        if let Some(labels) = labels.filter(|_| unlabelled && all_from_template).cloned() {
            object::metadata(object).insert("labels".to_owned(), labels);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        if is_new(object) {
            generated_selector(object, &spec, &mut out);
        }
        validate_spec(&spec, &mut out);
        let selector = spec.child("selector");
        if selector.value.is_null() {
            out.push(FieldError::required(&selector.path, ""));
        } else {
            label_selector(&selector, &mut out);
        }
        let labels = spec.child("template").child("metadata").child("labels");
        let matches = convertible(&selector).then(|| selects(selector.value, labels.value));
        if matches == Some(Some(false)) {
            out.push(FieldError::invalid(
                &labels.path,
                labels.value.clone(),
                "`selector` does not match template `labels`",
            ));
        }
        host_names(object, &spec, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        completions(&at, &before, &mut out);
        let immutable = |name: &str, out: &mut ErrorList| {
            validation::immutable(at.raw(name), before.raw(name), &at.at(name), out);
        };
        immutable("selector", &mut out);
        template(&at, &before, old, &mut out);
        for name in [
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ] {
            immutable(name, &mut out);
        }
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        status::validate(new, old)
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() {
            name_warning(object::name(new), &mut out);
        }
        let spec = Cursor::root(new).child("spec");
        if old.is_none_or(|old| old.get("spec") != new.get("spec")) {
            spec_warnings(&spec, &mut out);
        }
        out
    }
}

/// Warnings about the spec of a job or of a job template.
pub(super) fn spec_warnings(spec: &Cursor<'_>, out: &mut Vec<String>) {
    if spec.text("completionMode") == "Indexed"
        && spec.number("completions") > MANY_COMPLETIONS
        && spec.number("parallelism") > MAX_WITH_MANY
    {
        out.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism \
             higher than 10^4, Kubernetes might not be able to track completedIndexes when a big \
             number of indexes fail",
            spec.path
        ));
    }
    out.extend(pod::warnings_of(&spec.child("template")));
}

/// Checks that labels and selector are those that the system generates.
fn generated_selector(object: &Value, spec: &Cursor<'_>, out: &mut ErrorList) {
    if spec.is_true("manualSelector") || !spec.has("selector") {
        return;
    }
    let (name, uid) = (object::name(object), object::uid(object));
    if uid.is_empty() {
        out.push(FieldError::required(
            &Path::new("metadata").child("uid"),
            "",
        ));
    }
    let labels = spec.child("template").child("metadata").child("labels");
    let mut expected = json!({});
    let wanted = [
        (CONTROLLER_UID[0], uid),
        (JOB_NAME[0], name),
        (CONTROLLER_UID[1], uid),
        (JOB_NAME[1], name),
    ];
    for (key, value) in wanted {
        expected[key] = value.into();
        let detail = format!("must be '{value}'");
        match labels.raw(key).as_str() {
            None => out.push(FieldError::required(&labels.path.key(key), &detail)),
            Some(found) if found != value => out.push(FieldError::invalid(
                &labels.path.key(key),
                labels.value.clone(),
                &detail,
            )),
            Some(_) => {}
        }
    }
    let selector = spec.child("selector");
    if convertible(&selector) && selects(selector.value, &expected) == Some(false) {
        out.push(FieldError::invalid(
            &selector.path,
            selector.value.clone(),
            "`selector` not auto-generated",
        ));
    }
}

/// The pods of an indexed job get host names made of the job's name and their index.
fn host_names(object: &Value, spec: &Cursor<'_>, out: &mut ErrorList) {
    let completions = spec.number("completions");
    if spec.text("completionMode") != "Indexed" || completions <= 0 {
        return;
    }
    let name = object::name(object);
    let longest = format!("{name}-{}", completions - 1);
    if !names::dns1123_label(&longest).is_empty() {
        out.push(FieldError::invalid(
            &Path::new("metadata").child("name"),
            name,
            &format!("will not able to create pod with invalid DNS label: {longest}"),
        ));
    }
}

/// Checks what jobs and templates of jobs share.
pub(super) fn validate_spec(spec: &Cursor<'_>, out: &mut ErrorList) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        nonnegative(spec, name, out);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        out.push(FieldError::required(
            &spec.at("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        ));
    }
    if spec.has("managedBy") {
        let manager = spec.text("managedBy");
        validation::domain_prefixed_path(manager, &spec.at("managedBy"), out);
        if manager.len() > MANAGED_BY_MAX {
            out.push(FieldError::too_long(&spec.at("managedBy"), MANAGED_BY_MAX));
        }
    }
    completion_mode(spec, out);
    if spec.has("podFailurePolicy") {
        policies::failure(spec, out);
    }
    if spec.has("successPolicy") {
        if spec.text("completionMode") == "Indexed" {
            policies::success(spec, out);
        } else {
            out.push(FieldError::invalid(
                &spec.at("successPolicy"),
                spec.raw("successPolicy").clone(),
                "requires indexed completion mode",
            ));
        }
    }
    policies::replacement(spec, out);
    let template = spec.child("template");
    pod::validate_template(&template, out);
    restart_policy(spec, &template.child("spec"), out);
}

fn restart_policy(spec: &Cursor<'_>, pod: &Cursor<'_>, out: &mut ErrorList) {
    let path = pod.at("restartPolicy");
    match pod.text("restartPolicy") {
        "" | "Always" => out.push(FieldError::required(
            &path,
            "valid values: \"OnFailure\", \"Never\"",
        )),
        "Never" => {}
        "OnFailure" => {
            if spec.has("podFailurePolicy") {
                out.push(FieldError::invalid(
                    &path,
                    "OnFailure",
                    "only \"Never\" is supported when podFailurePolicy is specified",
                ));
            }
        }
        other => out.push(FieldError::not_supported(
            &path,
            other,
            &["OnFailure", "Never"],
        )),
    }
}

fn completion_mode(spec: &Cursor<'_>, out: &mut ErrorList) {
    let mode = spec.text("completionMode");
    if spec.has("completionMode") && !matches!(mode, "NonIndexed" | "Indexed") {
        out.push(FieldError::not_supported(
            &spec.at("completionMode"),
            mode,
            &["NonIndexed", "Indexed"],
        ));
    }
    match mode {
        "Indexed" => indexed(spec, out),
        "" | "NonIndexed" => {
            for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = spec.integer(name) {
                    out.push(FieldError::invalid(
                        &spec.at(name),
                        value,
                        "requires indexed completion mode",
                    ));
                }
            }
        }
        _ => {}
    }
}

fn indexed(spec: &Cursor<'_>, out: &mut ErrorList) {
    let (parallelism, failed) = (spec.number("parallelism"), spec.number("maxFailedIndexes"));
    let mut above = |name: &str, value: i64, max: i64, rest: &str| {
        if value > max {
            out.push(FieldError::invalid(
                &spec.at(name),
                value,
                &format!("must be less than or equal to {max}{rest}"),
            ));
        }
    };
    above(
        "parallelism",
        parallelism,
        PARALLELISM_MAX_INDEXED,
        " when completion mode is Indexed",
    );
    above("maxFailedIndexes", failed, FAILED_INDEXES_MAX, "");
    let completions = spec.integer("completions");
    if completions.is_some_and(|completions| completions > MANY_COMPLETIONS)
        && spec.has("backoffLimitPerIndex")
    {
        let rest = format!(
            " when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
        );
        above("parallelism", parallelism, MAX_WITH_MANY, &rest);
        above("maxFailedIndexes", failed, MAX_WITH_MANY, &rest);
        if !spec.has("maxFailedIndexes") {
            out.push(FieldError::required(
                &spec.at("maxFailedIndexes"),
                &format!("must be specified when completions is above {MANY_COMPLETIONS}"),
            ));
        }
    }
    match completions {
        None => out.push(FieldError::required(
            &spec.at("completions"),
            "when completion mode is Indexed",
        )),
        Some(completions) if failed > completions => out.push(FieldError::invalid(
            &spec.at("maxFailedIndexes"),
            failed,
            "must be less than or equal to completions",
        )),
        Some(_) => {}
    }
}

/// Completions never change, but those of indexed jobs together with the parallelism.
fn completions(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    let path = at.at("completions");
    let (new, old) = (at.raw("completions"), before.raw("completions"));
    if at.text("completionMode") != "Indexed" {
        validation::immutable(new, old, &path, out);
    } else if new != old && !new.is_null() && new != at.raw("parallelism") {
        out.push(FieldError::invalid(
            &path,
            new.clone(),
            "can only be modified in tandem with spec.parallelism",
        ));
    }
}

/// The template never changes, but for a suspended job that has no pods: then where its pods go
/// and what they need may.
fn template(at: &Cursor<'_>, before: &Cursor<'_>, old: &Value, out: &mut ErrorList) {
    let new = at.raw("template");
    let mut old_template = before.raw("template").clone();
    let stopped = !object::at(old, &["status", "startTime"]).is_some_and(Value::is_string)
        || pod::has_condition(old, "Suspended");
    let idle = object::integer(old, &["status", "active"]).unwrap_or(0) == 0;
    let suspended = before.is_true("suspend");
    let path = at.at("template");
    if !(suspended && stopped && idle) {
        validation::immutable(new, &old_template, &path, out);
        return;
    }
    take_scheduling(&mut old_template, new);
    // The reference compares the pod specs here, and reports under this path.
    for list in ["containers", "initContainers"] {
        take_resources(&mut old_template, new, list);
    }
    let none = Value::Null;
    validation::immutable(
        new.get("spec").unwrap_or(&none),
        old_template.get("spec").unwrap_or(&none),
        &at.at("template.spec"),
        out,
    );
}

fn take_scheduling(old: &mut Value, new: &Value) {
    let spec = child(old, "spec");
    for name in ["nodeSelector", "tolerations", "schedulingGates"] {
        object::set_or_remove(
            fields(spec),
            name,
            object::at(new, &["spec", name]).cloned(),
        );
    }
    let affinity = object::at(new, &["spec", "affinity"]);
    let node = affinity
        .and_then(|affinity| affinity.get("nodeAffinity"))
        .cloned();
    if spec.get("affinity").is_none() && affinity.is_none() {
        return;
    }
    let kept = child(spec, "affinity");
    object::set_or_remove(fields(kept), "nodeAffinity", node);
    if affinity.is_none() && fields(kept).is_empty() {
        fields(spec).remove("affinity");
    }
}

fn take_resources(old: &mut Value, new: &Value, list: &str) {
    let wanted = object::list(new, &["spec", list]);
    let spec = child(old, "spec");
    if object::list(spec, &[list]).len() != wanted.len() {
        return;
    }
    for (container, new) in list_mut(spec, list).zip(wanted) {
        if container.get("name") == new.get("name") {
            object::set_or_remove(
                fields(container),
                "resources",
                new.get("resources").cloned(),
            );
        }
    }
}
