//! Dynamic resources: classes, claims and slices of devices, as `pkg/apis/resource` of the
//! reference.
//!
//! Expressions are compiled as the scheduler does ([`crate::devices`]): what does not compile, is no
//! truth, or could cost too much is refused.

mod capacity;
mod claim;
mod slice;
mod status;
mod taint_rule;

use std::collections::BTreeSet;

use serde_json::Value;

pub use claim::{ResourceClaimTemplates, ResourceClaims};
pub use slice::ResourceSlices;
pub use taint_rule::DeviceTaintRules;

use crate::devices::{DeviceSelector, MAX_COST};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const DRIVER_MAX: usize = 63;
const DRIVER_FORM: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end \
     with an alphanumeric character (e.g. 'Example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SELECTORS_MAX: usize = 32;
const CONFIG_MAX: usize = 32;
const EXPRESSION_MAX: usize = 10 * 1024;
const PARAMETERS_MAX: usize = 10 * 1024;

/// What device classes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        selectors(&spec, &mut out);
        at_most(&spec, "config", CONFIG_MAX, &mut out);
        for config in spec.items("config") {
            configuration(&config, &mut out);
        }
        let name = spec.text("extendedResourceName");
        if spec.has("extendedResourceName") && !super::pod::is_extended_resource(name) {
            out.push(FieldError::invalid(
                &spec.at("extendedResourceName"),
                name,
                "must be a valid extended resource name",
            ));
        }
        out
    }
}

/// Takes off what belongs to a gate that is closed.
fn drop_gated(value: &mut Value, names: &[&str]) {
    if let Value::Object(fields) = value {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
}

/// Checks the length of a list.
fn at_most(at: &Cursor<'_>, name: &str, max: usize, out: &mut ErrorList) {
    let count = at.list(name).len();
    if count > max {
        out.push(FieldError::too_many(&at.at(name), count, max));
    }
}

/// Checks that the items of a list differ by a key.
fn distinct<'a>(
    items: impl Iterator<Item = Cursor<'a>>,
    key: impl Fn(&Cursor<'a>) -> String,
    out: &mut ErrorList,
) {
    let mut seen = BTreeSet::new();
    for item in items {
        let key = key(&item);
        if !seen.insert(key.clone()) {
            out.push(FieldError::duplicate(&item.path, key));
        }
    }
}

fn selectors(at: &Cursor<'_>, out: &mut ErrorList) {
    at_most(at, "selectors", SELECTORS_MAX, out);
    for selector in at.items("selectors") {
        let cel = selector.child("cel");
        let expression = cel.text("expression");
        if cel.value.is_null() {
            out.push(FieldError::required(&cel.path, ""));
        } else if expression.is_empty() {
            out.push(FieldError::required(&cel.at("expression"), ""));
        } else if expression.len() > EXPRESSION_MAX {
            out.push(FieldError::too_long(&cel.at("expression"), EXPRESSION_MAX));
        } else {
            match DeviceSelector::compile(expression) {
                Err(why) => out.push(FieldError::invalid(&cel.at("expression"), expression, &why)),
                Ok(selector) if selector.most() > MAX_COST => out.push(FieldError::forbidden(
                    &cel.at("expression"),
                    "too complex, exceeds cost limit",
                )),
                Ok(_) => {}
            }
        }
    }
}

/// Checks a taint of a device.
fn taint(at: &Cursor<'_>, out: &mut ErrorList) {
    validation::label_name(at.text("key"), &at.at("key"), out);
    let rule = crate::names::label_value;
    validation::named(rule, at.text("value"), &at.at("value"), out);
    validation::required_one_of(at, "effect", &["NoExecute", "NoSchedule", "None"], out);
}

/// Checks what a driver is told and nobody else understands.
fn configuration(at: &Cursor<'_>, out: &mut ErrorList) {
    let Some(opaque) = at.get("opaque") else {
        out.push(FieldError::required(&at.at("opaque"), ""));
        return;
    };
    declared_driver(opaque.text("driver"), &opaque.at("driver"), out);
    let (parameters, path) = (opaque.raw("parameters"), opaque.at("parameters"));
    if parameters.is_null() {
        out.push(FieldError::required(&path, ""));
    } else if parameters.to_string().len() > PARAMETERS_MAX {
        out.push(FieldError::too_long(&path, PARAMETERS_MAX));
    } else if !parameters.is_object() {
        out.push(FieldError::invalid(
            &path,
            "<value omitted>",
            "must be a valid JSON object",
        ));
    }
}

/// Checks the name of a driver by the rule that is declared for it, which has words of its own.
fn declared_driver(name: &str, path: &Path, out: &mut ErrorList) {
    if name.is_empty() {
        out.push(FieldError::required(path, "").declared());
        return;
    }
    if name.len() > names::SUBDOMAIN_MAX {
        let wrong = format!("must be no more than {} bytes", names::SUBDOMAIN_MAX);
        out.push(FieldError::invalid(path, name, &wrong).declared());
    } else if !names::dns1123_subdomain(&name.to_lowercase()).is_empty() {
        out.push(FieldError::invalid(path, name, DRIVER_FORM).declared());
    }
    if name.chars().count() > DRIVER_MAX {
        out.push(FieldError::too_long_text(path, DRIVER_MAX).declared());
    }
}
