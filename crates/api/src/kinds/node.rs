//! Nodes. Unlike other kinds, a node's status is taken from its creator: the node registers
//! itself with what it has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod;
use crate::field::{ErrorList, FieldError, quoted};
use crate::names;
use crate::object::{self, child, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor};

/// What nodes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nodes;

impl Strategy for Nodes {
    fn defaults(&self, object: &mut Value) {
        child(object, "spec");
        let status = child(object, "status");
        if status.get("allocatable").is_none_or(Value::is_null)
            && let Some(capacity) = status.get("capacity").filter(|c| c.is_object()).cloned()
        {
            fields(status).insert("allocatable".to_owned(), capacity);
        }
        // The single and the plural field of pod networks are kept in step; the single one counts,
        // for clients that know no list.
        let spec = child(object, "spec");
        let single = Value::from(object::text(spec, &["podCIDR"]));
        let first = object::list(spec, &["podCIDRs"]).first().cloned();
        if single == "" {
            if let Some(first) = first.filter(|first| *first != "") {
                fields(spec).insert("podCIDR".to_owned(), first);
            }
        } else if first.as_ref() != Some(&single) {
            fields(spec).insert("podCIDRs".to_owned(), vec![single].into());
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        // Nothing has read it since 1.24.
        fields(child(object, "spec")).remove("configSource");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let known = object::at(old, &["spec", "configSource"]).cloned();
        object::set_or_remove(fields(child(new, "spec")), "configSource", known);
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let spec = root.child("spec");
        taints(&root, &mut out);
        resources(&root, &mut out);
        declared_features(&root, &mut out);
        let cidrs = spec.list("podCIDRs");
        for cidr in spec.items("podCIDRs") {
            validation::legacy_cidr(
                cidr.value.as_str().unwrap_or_default(),
                &cidr.path,
                &mut out,
            );
        }
        let six = |value: &Value| value.as_str().is_some_and(|text| text.contains(':'));
        if cidrs.len() > 2 || (cidrs.len() == 2 && six(&cidrs[0]) == six(&cidrs[1])) {
            out.push(FieldError::invalid(
                &spec.at("podCIDRs"),
                cidrs.to_vec(),
                "may specify no more than one CIDR for each IP family",
            ));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(new).child("spec");
        let before = Cursor::root(old).child("spec");
        if !before.list("podCIDRs").is_empty() && before.raw("podCIDRs") != spec.raw("podCIDRs") {
            out.push(FieldError::forbidden(
                &spec.at("podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
        if before.text("externalID") != spec.text("externalID") {
            out.push(FieldError::forbidden(
                &spec.at("externalID"),
                "may not be updated",
            ));
        }
        let (provider, known) = (spec.text("providerID"), before.text("providerID"));
        if !known.is_empty() && provider != known {
            let wrong = if provider.is_empty() {
                "field cannot be cleared once set"
            } else {
                "field cannot be modified once set"
            };
            out.push(FieldError::invalid(
                &spec.at("providerID"),
                Value::Null,
                wrong,
            ));
        }
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(new);
        resources(&root, &mut out);
        declared_features(&root, &mut out);
        let mut seen: Vec<&Value> = Vec::new();
        for address in root.child("status").items("addresses") {
            if seen.contains(&address.value) {
                out.push(FieldError::duplicate(&address.path, address.value.clone()));
            }
            seen.push(address.value);
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = Cursor::root(new).child("spec");
        let mut out = Vec::new();
        if spec.has("configSource") {
            out.push(format!(
                "{}: the feature is removed",
                spec.at("configSource")
            ));
        }
        if !spec.text("externalID").is_empty() {
            out.push(format!(
                "{}: this field is deprecated, and is unused by Kubernetes",
                spec.at("externalID")
            ));
        }
        for network in spec.items("podCIDRs") {
            let text = network.value.as_str().unwrap_or_default();
            out.extend(validation::cidr_warning(text, &network.path));
        }
        out
    }
}

/// Checks what the node says that it can do: sorted names in camel case, in parts by slashes.
fn declared_features(root: &Cursor<'_>, out: &mut ErrorList) {
    let status = root.child("status");
    let mut before: Option<&str> = None;
    for feature in status.items("declaredFeatures") {
        let name = feature.value.as_str().unwrap_or_default();
        match before {
            Some(before) if before == name => {
                out.push(FieldError::duplicate(&feature.path, name));
            }
            Some(before) if before > name => out.push(FieldError::invalid(
                &feature.path,
                name,
                "list must be sorted alphabetically",
            )),
            _ => {}
        }
        before = Some(name);
        let wrong = if name.len() > names::SUBDOMAIN_MAX {
            format!("must be no more than {} characters", names::SUBDOMAIN_MAX)
        } else if !is_feature(name) {
            "must start with an UpperCamelCase segment, with subsequent segments separated by '/' \
             (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric \
             characters and slashes"
                .to_owned()
        } else {
            continue;
        };
        let detail = format!("invalid feature name {}: {wrong}", quoted(name));
        out.push(FieldError::invalid(&feature.path, name, &detail));
    }
}

fn is_feature(name: &str) -> bool {
    let segment = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(segment)
}

fn resources(root: &Cursor<'_>, out: &mut ErrorList) {
    let status = root.child("status");
    for list in ["capacity", "allocatable"] {
        for (name, value) in status.entries(list) {
            if let Some(amount) = value.as_str().and_then(|text| text.parse().ok()) {
                pod::validate_amount(name, &amount, &status.at(list).child(name), out);
            }
        }
    }
}

/// The reference says `metadata.taints` here, although they are in the spec.
fn taints(root: &Cursor<'_>, out: &mut ErrorList) {
    let path = root.at("metadata").child("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in root.child("spec").list("taints").iter().enumerate() {
        let at = Cursor::new(taint, path.index(index));
        validation::label_name(at.text("key"), &at.at("key"), out);
        let wrong = names::label_value(at.text("value"));
        if !wrong.is_empty() {
            out.push(FieldError::invalid(
                &at.at("value"),
                at.text("value"),
                &wrong.join(";"),
            ));
        }
        pod::validate_taint_effect(&at, false, out);
        if !seen.insert((at.text("key"), at.text("effect"))) {
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":null}}",
                Value::from(at.text("key")),
                Value::from(at.text("value")),
                Value::from(at.text("effect"))
            );
            out.push(
                FieldError::duplicate_shown(&at.path, &shown)
                    .with_detail("taints must be unique by key and effect pair"),
            );
        }
    }
}
