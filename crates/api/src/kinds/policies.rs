//! Admission policies and their bindings: their form. They are carried out by the door's
//! admission chain; expressions that can't be compiled are refused here.

use k8s_openapi::api::admissionregistration::v1 as admission;
use serde_json::{Value, json};

use super::table::{age, column};
use crate::expressions::{Declarations, Expressions, Output};
use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::object::default_field;
use crate::row::{Cell, ResourceDef, Strategy, Subresource};
use crate::validation::{self, Cursor};

/// Operations that a policy may change something in.
const CHANGING: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
/// Audit annotations of a policy at most.
const MAX_AUDIT_ANNOTATIONS: usize = 20;
/// Longest expression of an audit annotation, in bytes.
const MAX_AUDIT_EXPRESSION: usize = 5 * 1024;
/// Match conditions at most.
const MAX_CONDITIONS: usize = 64;

/// The rows of the four kinds.
pub(super) fn rows() -> Vec<ResourceDef> {
    let mut rows = vec![
        ResourceDef::of::<admission::MutatingAdmissionPolicy>()
            .plain_finalizers()
            .rechecked()
            .updated_by_version()
            .generations()
            .strategy(Policies { mutating: true })
            .columns(vec![count("Mutations", "mutations"), param_kind(), age()]),
        ResourceDef::of::<admission::MutatingAdmissionPolicyBinding>()
            .plain_finalizers()
            .rechecked()
            .updated_by_version()
            .generations()
            .strategy(Bindings { mutating: true })
            .columns(binding_columns()),
        ResourceDef::of::<admission::ValidatingAdmissionPolicy>()
            .plain_finalizers()
            .rechecked()
            .updated_by_version()
            .with(&[Subresource::Status])
            .generations()
            .strategy(Policies { mutating: false })
            .columns(vec![
                count("Validations", "validations"),
                param_kind(),
                age(),
            ]),
        ResourceDef::of::<admission::ValidatingAdmissionPolicyBinding>()
            .plain_finalizers()
            .rechecked()
            .updated_by_version()
            .generations()
            .strategy(Bindings { mutating: false })
            .columns(binding_columns()),
    ];
    for row in &mut rows {
        row.categories.push("api-extensions".into());
    }
    rows
}

fn count(name: &'static str, field: &'static str) -> crate::row::Column {
    let cell: fn(&Value) -> Value = match field {
        "mutations" => |object: &Value| {
            crate::object::list(object, &["spec", "mutations"])
                .len()
                .into()
        },
        _ => |object: &Value| {
            crate::object::list(object, &["spec", "validations"])
                .len()
                .into()
        },
    };
    column(
        name,
        "integer",
        Cell::Of(cell),
        "How many rules the policy has",
    )
}

fn param_kind() -> crate::row::Column {
    let cell = |object: &Value| -> Value {
        let kind = &object["spec"]["paramKind"];
        let text = |name: &str| kind[name].as_str().unwrap_or_default().to_owned();
        if kind.is_object() {
            format!("{}/{}", text("apiVersion"), text("kind")).into()
        } else {
            "<unset>".into()
        }
    };
    column(
        "ParamKind",
        "string",
        Cell::Of(cell),
        "The kind of the policy's parameters",
    )
}

fn binding_columns() -> Vec<crate::row::Column> {
    let policy =
        |object: &Value| -> Value { crate::object::text(object, &["spec", "policyName"]).into() };
    let param = |object: &Value| -> Value {
        let reference = &object["spec"]["paramRef"];
        let text = |name: &str| reference[name].as_str().unwrap_or_default();
        match (text("namespace"), text("name")) {
            ("", "") if reference["selector"].is_object() => {
                reference["selector"].to_string().into()
            }
            ("", "") => "<unset>".into(),
            ("", name) => name.into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        }
    };
    vec![
        column(
            "PolicyName",
            "string",
            Cell::Of(policy),
            "The policy that is bound",
        ),
        column(
            "ParamRef",
            "string",
            Cell::Of(param),
            "The parameters it is bound with",
        ),
        age(),
    ]
}

fn default_match(resources: &mut Value) {
    default_field(resources, "matchPolicy", "Equivalent");
    default_field(resources, "namespaceSelector", json!({}));
    default_field(resources, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        if let Some(Value::Array(rules)) = resources.get_mut(rules) {
            for rule in rules {
                default_field(rule, "scope", "*");
            }
        }
    }
}

/// What policies do beyond their row.
#[derive(Debug, Clone, Copy)]
pub struct Policies {
    /// `MutatingAdmissionPolicy` rather than `ValidatingAdmissionPolicy`.
    pub mutating: bool,
}

impl Strategy for Policies {
    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
            return;
        };
        default_field(spec, "failurePolicy", "Fail");
        if let Some(resources) = spec.get_mut("matchConstraints").filter(|r| r.is_object()) {
            default_match(resources);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let spec = root.child("spec");
        set_to_one_of(&spec, "failurePolicy", &["Fail", "Ignore"], &mut out);
        let params = spec.get("paramKind");
        if let Some(kind) = &params {
            param_kind_form(kind, &mut out);
        }
        match spec.get("matchConstraints") {
            None => out.push(FieldError::required(&spec.at("matchConstraints"), "")),
            Some(resources) => {
                match_resources(&resources, &mut out);
                if resources.list("resourceRules").is_empty() {
                    out.push(FieldError::required(&resources.at("resourceRules"), ""));
                }
                if self.mutating {
                    changing_operations(&resources, &mut out);
                }
            }
        }
        let declarations = Declarations {
            params: params.is_some(),
            authorizer: true,
            patches: self.mutating,
        };
        match_conditions(&spec, declarations, &mut out);
        let mut expressions = Expressions::new(declarations);
        let silent = Declarations {
            authorizer: false,
            ..declarations
        };
        let mut messages = Expressions::new(silent);
        for variable in spec.items("variables") {
            self.variable(&variable, &mut expressions, &mut messages, &mut out);
        }
        if self.mutating {
            mutations(&spec, &expressions, &mut out);
        } else {
            validations(&root, &spec, &expressions, &messages, &mut out);
        }
        out
    }
}

impl Policies {
    fn variable(
        self,
        variable: &Cursor<'_>,
        expressions: &mut Expressions,
        messages: &mut Expressions,
        out: &mut ErrorList,
    ) {
        let name = variable.text("name");
        if name.trim().is_empty() {
            out.push(FieldError::required(
                &variable.at("name"),
                "name is not specified",
            ));
        } else if !is_identifier(name) {
            let detail = "must be a valid CEL identifier";
            out.push(FieldError::invalid(&variable.at("name"), name, detail));
        }
        let source = variable.text("expression");
        if source.trim().is_empty() {
            let detail = "expression is not specified";
            out.push(FieldError::required(&variable.at("expression"), detail));
            return;
        }
        match expressions.compile(source, Output::Any) {
            Ok(program) => {
                expressions.declare(name, program.output().clone());
                messages.declare(name, program.output().clone());
            }
            Err(detail) => out.push(FieldError::invalid(
                &variable.at("expression"),
                source,
                &detail,
            )),
        }
    }
}

/// Whether expressions can use it as a name.
fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit())
        && !evenkeel_cel::is_no_name(name)
}

fn expression(
    at: &Cursor<'_>,
    field: &str,
    expressions: &Expressions,
    output: Output,
    out: &mut ErrorList,
) {
    let source = at.text(field);
    if let Err(detail) = expressions.compile(source, output) {
        out.push(FieldError::invalid(&at.at(field), source, &detail));
    }
}

/// Conditions under which a policy or a webhook is asked at all.
pub(super) fn match_conditions(at: &Cursor<'_>, declarations: Declarations, out: &mut ErrorList) {
    let path = at.at("matchConditions");
    let conditions = at.items("matchConditions");
    if conditions.len() > MAX_CONDITIONS {
        out.push(FieldError::too_many(
            &path,
            conditions.len(),
            MAX_CONDITIONS,
        ));
    }
    let expressions = Expressions::new(Declarations {
        patches: false,
        ..declarations
    });
    let mut seen = Vec::new();
    for condition in conditions {
        let source = condition.text("expression").trim();
        if source.is_empty() {
            out.push(FieldError::required(&condition.at("expression"), ""));
        } else if let Err(detail) = expressions.compile(source, Output::Bool) {
            out.push(FieldError::invalid(
                &condition.at("expression"),
                source,
                &detail,
            ));
        }
        let name = condition.text("name");
        if name.is_empty() {
            out.push(FieldError::required(&condition.at("name"), ""));
            continue;
        }
        validation::qualified_name(name, &condition.at("name"), out);
        if seen.contains(&name) {
            out.push(FieldError::duplicate(&condition.at("name"), name));
        }
        seen.push(name);
    }
}

fn validations(
    root: &Cursor<'_>,
    spec: &Cursor<'_>,
    expressions: &Expressions,
    messages: &Expressions,
    out: &mut ErrorList,
) {
    let (rules, annotations) = (spec.items("validations"), spec.items("auditAnnotations"));
    if rules.len() == 0 && annotations.len() == 0 {
        let detail = "validations or auditAnnotations must contain at least one item";
        for field in ["validations", "auditAnnotations"] {
            out.push(FieldError::required(&spec.at(field), detail));
        }
        return;
    }
    for rule in rules {
        if rule.text("expression").trim().is_empty() {
            let detail = "expression is not specified";
            out.push(FieldError::required(&rule.at("expression"), detail));
        } else {
            expression(&rule, "expression", expressions, Output::Bool, out);
        }
        let source = rule.text("messageExpression");
        if !source.is_empty() && source.trim().is_empty() {
            let detail = "must be non-empty if specified";
            out.push(FieldError::invalid(
                &rule.at("messageExpression"),
                source,
                detail,
            ));
        } else if !source.is_empty() {
            expression(&rule, "messageExpression", messages, Output::Text, out);
        }
        let message = rule.text("message");
        if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            out.push(FieldError::invalid(&rule.at("message"), message, detail));
        } else if message.trim().contains(['\n', '\r']) {
            let detail = "message must not contain line breaks";
            out.push(FieldError::invalid(&rule.at("message"), message, detail));
        }
        validation::one_of(&rule, "reason", &REASONS, out);
    }
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        let value = spec.raw("auditAnnotations").clone();
        out.push(FieldError::invalid(
            &spec.at("auditAnnotations"),
            value,
            &detail,
        ));
    }
    let name = root.child("metadata").text("name");
    let mut seen = Vec::new();
    for annotation in annotations {
        audit_annotation(&annotation, name, expressions, out);
        let key = annotation.text("key");
        if seen.contains(&key) {
            out.push(FieldError::duplicate(&annotation.at("key"), key));
        }
        seen.push(key);
    }
}

fn audit_annotation(
    annotation: &Cursor<'_>,
    policy: &str,
    expressions: &Expressions,
    out: &mut ErrorList,
) {
    let key = annotation.text("key");
    if policy.is_empty() {
        let detail = "requires metadata.name be non-empty";
        out.push(FieldError::invalid(&annotation.at("key"), key, detail));
    } else {
        validation::qualified_name(&format!("{policy}/{key}"), &annotation.at("key"), out);
    }
    let source = annotation.text("valueExpression").trim();
    let path = annotation.at("valueExpression");
    if source.is_empty() {
        out.push(FieldError::required(
            &path,
            "valueExpression is not specified",
        ));
    } else if source.len() > MAX_AUDIT_EXPRESSION {
        let detail = format!("must not exceed {MAX_AUDIT_EXPRESSION} bytes in length");
        out.push(FieldError::required(&path, &detail));
    } else if let Err(detail) = expressions.compile(source, Output::TextOrNull) {
        out.push(FieldError::invalid(
            &path,
            annotation.text("valueExpression"),
            &detail,
        ));
    }
}

fn mutations(spec: &Cursor<'_>, expressions: &Expressions, out: &mut ErrorList) {
    if spec.text("reinvocationPolicy").is_empty() {
        out.push(FieldError::required(&spec.at("reinvocationPolicy"), "").declared());
    } else {
        validation::one_of(spec, "reinvocationPolicy", &["IfNeeded", "Never"], out);
    }
    let mutations = spec.items("mutations");
    if mutations.len() == 0 {
        let detail = "mutations must contain at least one item";
        out.push(FieldError::required(&spec.at("mutations"), detail));
    }
    for mutation in mutations {
        let kind = mutation.text("patchType");
        let (mine, other, output) = match kind {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Output::Object),
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Output::Patches),
            _ => {
                let known = ["ApplyConfiguration", "JSONPatch"];
                validation::required_one_of(&mutation, "patchType", &known, out);
                continue;
            }
        };
        if mutation.has(other) {
            let detail = format!("must not be specified when patchType is {kind}");
            // The reference shows what it is, not what stands there.
            let shown = format!("{{{other}}}");
            out.push(FieldError::invalid(&mutation.at(other), shown, &detail));
        }
        let Some(patch) = mutation.get(mine) else {
            let detail = format!("must be specified when patchType is {kind}");
            out.push(FieldError::required(&mutation.at(mine), &detail));
            continue;
        };
        if patch.text("expression").trim().is_empty() {
            out.push(FieldError::required(&patch.at("expression"), ""));
        } else {
            expression(&patch, "expression", expressions, output, out);
        }
    }
}

fn param_kind_form(kind: &Cursor<'_>, out: &mut ErrorList) {
    let api_version = kind.text("apiVersion");
    let path = kind.at("apiVersion");
    let parts: Vec<&str> = api_version.split('/').collect();
    match parts.as_slice() {
        [""] => out.push(FieldError::required(&path, "")),
        [version] => validation::named(names::dns1035_label, version, &path, out),
        [group, version] => {
            validation::named(names::dns1123_subdomain, group, &path, out);
            if version.is_empty() {
                let detail = "version must be specified";
                out.push(FieldError::invalid(&path, api_version, detail));
            } else {
                validation::named(names::dns1035_label, version, &path, out);
            }
        }
        _ => {
            let detail = format!("unexpected GroupVersion string: {api_version}");
            out.push(FieldError::invalid(&path, api_version, &detail));
        }
    }
    let name = kind.text("kind");
    if name.is_empty() {
        out.push(FieldError::required(&kind.at("kind"), ""));
    } else {
        let wrong = names::dns1035_label(&name.to_lowercase());
        if !wrong.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            out.push(FieldError::invalid(&kind.at("kind"), name, &detail));
        }
    }
}

/// A field that is held by pointer: one that is there must be one of these, and an empty one is none.
fn set_to_one_of(at: &Cursor<'_>, name: &str, allowed: &[&str], out: &mut ErrorList) {
    if at.has(name) {
        validation::one_of(at, name, allowed, out);
    } else {
        out.push(FieldError::required(&at.at(name), ""));
    }
}

fn match_resources(at: &Cursor<'_>, out: &mut ErrorList) {
    set_to_one_of(at, "matchPolicy", &["Equivalent", "Exact"], out);
    for selector in ["namespaceSelector", "objectSelector"] {
        match at.get(selector) {
            Some(selector) => validation::label_selector(&selector, out),
            None => out.push(FieldError::required(&at.at(selector), "")),
        }
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in at.items(rules) {
            let mut seen = Vec::new();
            for (index, name) in rule.texts("resourceNames").enumerate() {
                let path = rule.at("resourceNames").index(index);
                validation::named(names::path_segment, name, &path, out);
                if seen.contains(&name) {
                    out.push(FieldError::duplicate(&path, name));
                }
                seen.push(name);
            }
            super::webhooks::rule(&rule, out);
        }
    }
}

/// What is deleted can't be changed any more.
fn changing_operations(resources: &Cursor<'_>, out: &mut ErrorList) {
    let path = resources.at("resourceRules").child("operations");
    for operation in resources
        .items("resourceRules")
        .flat_map(|rule| rule.texts("operations"))
        .filter(|operation| !CHANGING.contains(operation))
    {
        out.push(FieldError::not_supported(&path, operation, &CHANGING));
    }
}

/// What bindings do beyond their row.
#[derive(Debug, Clone, Copy)]
pub struct Bindings {
    /// `MutatingAdmissionPolicyBinding` rather than `ValidatingAdmissionPolicyBinding`.
    pub mutating: bool,
}

impl Strategy for Bindings {
    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
            return;
        };
        if let Some(resources) = spec.get_mut("matchResources").filter(|r| r.is_object()) {
            default_match(resources);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let policy = spec.text("policyName");
        if policy.is_empty() {
            out.push(FieldError::required(&spec.at("policyName"), ""));
        } else {
            validation::dns_subdomain(policy, &spec.at("policyName"), &mut out);
        }
        if let Some(reference) = spec.get("paramRef") {
            param_ref(&reference, &mut out);
        }
        if let Some(resources) = spec.get("matchResources") {
            match_resources(&resources, &mut out);
            if self.mutating {
                changing_operations(&resources, &mut out);
            }
        }
        if !self.mutating {
            actions(&spec, &mut out);
        }
        out
    }
}

fn param_ref(reference: &Cursor<'_>, out: &mut ErrorList) {
    let (name, selector) = (reference.text("name"), reference.get("selector"));
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        validation::named(names::path_segment, name, &reference.at("name"), out);
        if selector.is_some() {
            out.push(FieldError::forbidden(&reference.at("name"), exclusive));
        }
    }
    if let Some(selector) = &selector {
        validation::label_selector(selector, out);
        if !name.is_empty() {
            out.push(FieldError::forbidden(&reference.at("selector"), exclusive));
        }
    } else if name.is_empty() {
        let detail = "one of name or selector must be specified";
        out.push(FieldError::required(&reference.path, detail));
    }
    validation::required_one_of(
        reference,
        "parameterNotFoundAction",
        &["Deny", "Allow"],
        out,
    );
}

fn actions(spec: &Cursor<'_>, out: &mut ErrorList) {
    let path = spec.at("validationActions");
    let given: Vec<&str> = spec.texts("validationActions").collect();
    for (index, action) in given.iter().enumerate() {
        if !ACTIONS.contains(action) {
            out.push(FieldError::not_supported(
                &path.index(index),
                *action,
                &ACTIONS,
            ));
        }
        if given[..index].contains(action) {
            out.push(FieldError::duplicate(&path.index(index), *action));
        }
    }
    if given.contains(&"Deny") && given.contains(&"Warn") {
        out.push(FieldError::invalid(
            &path,
            spec.raw("validationActions").clone(),
            "must not contain both Deny and Warn (repeating the same validation failure information \
             in the API response and headers serves no purpose)",
        ));
    }
    if given.is_empty() {
        out.push(FieldError::required(&path, ""));
    }
}
