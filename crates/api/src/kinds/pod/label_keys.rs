//! `matchLabelKeys` and `mismatchLabelKeys` of affinity and spread (KEP-3633, KEP-3243): a pod means its
//! own values of these labels, and when it is made they become part of the selectors.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::object::{self, child, fields, list_mut};
use crate::validation::{Cursor, label_name};

const AFFINITIES: [&str; 2] = ["podAffinity", "podAntiAffinity"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Makes the pod's labels part of the selectors that name their keys. A pod is made once.
pub(super) fn merge(pod: &mut Value) {
    let labels = object::at(pod, &["metadata", "labels"]).cloned();
    let Some(Value::Object(labels)) = labels else {
        return;
    };
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    let each = |term: &mut Value| of_term(term, &labels);
    for kind in AFFINITIES {
        let affinity = spec.get_mut("affinity").and_then(|all| all.get_mut(kind));
        let Some(affinity) = affinity else { continue };
        list_mut(affinity, REQUIRED).for_each(each);
        for weighted in list_mut(affinity, PREFERRED) {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                each(term);
            }
        }
    }
    list_mut(spec, "topologySpreadConstraints").for_each(each);
}

fn of_term(term: &mut Value, labels: &serde_json::Map<String, Value>) {
    // No selector matches nothing, whatever the keys.
    if !term.get("labelSelector").is_some_and(Value::is_object) {
        return;
    }
    let mut found = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in object::list(term, &[list]).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                found.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if found.is_empty() {
        return;
    }
    let selector = fields(child(term, "labelSelector"));
    let expressions = selector.entry("matchExpressions").or_insert(Value::Null);
    if !expressions.is_array() {
        *expressions = json!([]);
    }
    if let Value::Array(expressions) = expressions {
        expressions.extend(found);
    }
}

/// Checks the keys of a term of affinity or a constraint of spread. What is merged is there already.
pub(super) fn validate(term: &Cursor<'_>, out: &mut ErrorList) {
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        if term.list(name).is_empty() {
            continue;
        }
        if !term.has("labelSelector") {
            out.push(FieldError::forbidden(
                &term.at(name),
                "must not be specified when labelSelector is not set",
            ));
            continue;
        }
        for key in term.items(name) {
            label_name(key.value.as_str().unwrap_or_default(), &key.path, out);
        }
    }
    let keys: Vec<&str> = term.texts("matchLabelKeys").collect();
    let selector = term.child("labelSelector");
    let mut selected: BTreeSet<&str> = selector
        .entries("matchLabels")
        .map(|(key, _)| key.as_str())
        .collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        // The last of equal keys is the one that is named, as in the reference.
        let at = keys.iter().rposition(|known| *known == key);
        if let Some(at) = at.filter(|_| selected.contains(key)) {
            out.push(FieldError::invalid(
                &term.path.index(at),
                key,
                "exists in both matchLabelKeys and labelSelector",
            ));
        }
        selected.insert(key);
    }
    for key in term.items("matchLabelKeys") {
        if term.list("mismatchLabelKeys").contains(key.value) {
            out.push(FieldError::invalid(
                &key.path,
                key.value.clone(),
                "exists in both matchLabelKeys and mismatchLabelKeys",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(term: &Value) -> Value {
        json!({
            "metadata": {"labels": {"app": "web", "pod-template-hash": "1"}},
            "spec": {
                "affinity": {"podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [term],
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "podAffinityTerm": term}]}},
                "topologySpreadConstraints": [term],
            },
        })
    }

    /// The term as it is in all three places.
    fn merged(term: &Value) -> Value {
        let mut made = pod(term);
        merge(&mut made);
        let spread = &made["spec"]["topologySpreadConstraints"][0];
        let affinity = &made["spec"]["affinity"]["podAntiAffinity"];
        assert_eq!(affinity[REQUIRED][0], *spread);
        assert_eq!(affinity[PREFERRED][0]["podAffinityTerm"], *spread);
        spread.clone()
    }

    fn told(term: &Value) -> Vec<String> {
        let mut out = ErrorList::new();
        let object = json!({"term": term});
        validate(&Cursor::root(&object).child("term"), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_pods_own_labels_become_part_of_the_selectors() {
        let term = json!({"labelSelector": {"matchLabels": {"app": "web"}},
            "matchLabelKeys": ["pod-template-hash", "absent"], "mismatchLabelKeys": ["app"]});
        let found = merged(&term);
        assert_eq!(
            found["labelSelector"],
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [
                {"key": "pod-template-hash", "operator": "In", "values": ["1"]},
                {"key": "app", "operator": "NotIn", "values": ["web"]}]})
        );
        assert_eq!(told(&found), [""; 0]);
        let none = json!({"matchLabelKeys": ["app"]});
        assert_eq!(merged(&none), none);
    }

    #[test]
    fn a_key_is_named_once() {
        let term = json!({"labelSelector": {"matchLabels": {"pod-template-hash": "1"}},
            "matchLabelKeys": ["app", "pod-template-hash"]});
        // A template is not merged.
        assert_eq!(told(&term), [""; 0]);
        assert_eq!(
            told(&merged(&term)),
            [
                "term[1]: Invalid value: \"pod-template-hash\": exists in both matchLabelKeys and labelSelector"
            ]
        );
        let both = json!({"labelSelector": {}, "matchLabelKeys": ["app"],
            "mismatchLabelKeys": ["app"]});
        assert_eq!(
            told(&both),
            [
                "term.matchLabelKeys[0]: Invalid value: \"app\": exists in both matchLabelKeys and mismatchLabelKeys"
            ]
        );
        let none = json!({"matchLabelKeys": ["app"]});
        assert_eq!(
            told(&none),
            ["term.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"]
        );
    }
}
