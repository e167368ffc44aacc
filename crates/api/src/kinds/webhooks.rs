//! Configurations of admission webhooks: their form. Whom they are asked about, and how, is the
//! door's business.

use k8s_openapi::api::admissionregistration::v1 as admission;
use serde_json::{Value, json};

use super::table::{age, column};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object::{child, default_field, fields};
use crate::row::{Cell, ResourceDef, Strategy};
use crate::validation::{self, Cursor};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[/path]";

/// The rows of the two kinds.
pub(super) fn rows() -> Vec<ResourceDef> {
    let mut rows = vec![
        ResourceDef::of::<admission::MutatingWebhookConfiguration>()
            .plain_finalizers()
            .rechecked()
            .updated_by_version()
            .generations()
            .strategy(Webhooks { mutating: true })
            .columns(vec![webhooks(), age()]),
        ResourceDef::of::<admission::ValidatingWebhookConfiguration>()
            .plain_finalizers()
            .rechecked()
            .updated_by_version()
            .generations()
            .strategy(Webhooks { mutating: false })
            .columns(vec![webhooks(), age()]),
    ];
    for row in &mut rows {
        row.categories.push("api-extensions".into());
    }
    rows
}

fn webhooks() -> crate::row::Column {
    column(
        "Webhooks",
        "integer",
        Cell::Of(|object| crate::object::list(object, &["webhooks"]).len().into()),
        "Webhooks indicates the number of webhooks configured in this object",
    )
}

/// What webhook configurations do beyond their row.
#[derive(Debug, Clone, Copy)]
pub struct Webhooks {
    /// `MutatingWebhookConfiguration` rather than `ValidatingWebhookConfiguration`.
    pub mutating: bool,
}

impl Strategy for Webhooks {
    fn defaults(&self, object: &mut Value) {
        let Some(Value::Array(hooks)) = object.get_mut("webhooks") else {
            return;
        };
        for hook in hooks {
            default_field(hook, "failurePolicy", "Fail");
            default_field(hook, "matchPolicy", "Equivalent");
            default_field(hook, "namespaceSelector", json!({}));
            default_field(hook, "objectSelector", json!({}));
            default_field(hook, "timeoutSeconds", 10);
            if self.mutating {
                default_field(hook, "reinvocationPolicy", "Never");
            }
            if let Some(Value::Array(rules)) = hook.get_mut("rules") {
                for rule in rules {
                    default_field(rule, "scope", "*");
                }
            }
            let client = child(hook, "clientConfig");
            if let Some(service) = fields(client).get_mut("service")
                && service.is_object()
            {
                default_field(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let mut seen = Vec::new();
        for hook in Cursor::root(object).items("webhooks") {
            self.hook(&hook, &mut out);
            review_versions(&hook, &mut out);
            let name = hook.text("name");
            if !name.is_empty() && seen.contains(&name) {
                out.push(FieldError::duplicate(&hook.at("name"), name));
            }
            seen.push(name);
        }
        out
    }
}

impl Webhooks {
    fn hook(self, hook: &Cursor<'_>, out: &mut ErrorList) {
        fully_qualified(hook.text("name"), &hook.at("name"), out);
        for rule in hook.items("rules") {
            self::rule(&rule, out);
        }
        validation::one_of(hook, "failurePolicy", &["Fail", "Ignore"], out);
        validation::one_of(hook, "matchPolicy", &["Equivalent", "Exact"], out);
        if hook.has("sideEffects") {
            validation::one_of(hook, "sideEffects", &SIDE_EFFECTS, out);
        } else {
            let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
            out.push(FieldError::required(&hook.at("sideEffects"), &detail));
        }
        if let Some(seconds) = hook.integer("timeoutSeconds")
            && !(1..=30).contains(&seconds)
        {
            out.push(FieldError::invalid(
                &hook.at("timeoutSeconds"),
                seconds,
                "the timeout value must be between 1 and 30 seconds",
            ));
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            validation::label_selector(&hook.child(selector), out);
        }
        if self.mutating {
            validation::one_of(hook, "reinvocationPolicy", &["IfNeeded", "Never"], out);
        }
        client_config(&hook.child("clientConfig"), out);
        match_conditions(hook, out);
    }
}

/// The form of conditions; what their expressions mean is checked where the language is known.
fn match_conditions(hook: &Cursor<'_>, out: &mut ErrorList) {
    const MOST: usize = 64;
    let path = hook.at("matchConditions");
    let count = hook.list("matchConditions").len();
    if count > MOST {
        out.push(FieldError::too_many(&path, count, MOST));
    }
    let mut seen = Vec::new();
    for condition in hook.items("matchConditions") {
        if condition.text("expression").trim().is_empty() {
            out.push(FieldError::required(&condition.at("expression"), ""));
        }
        let name = condition.text("name");
        if name.is_empty() {
            out.push(FieldError::required(&condition.at("name"), ""));
            continue;
        }
        validation::named(names::qualified_name, name, &condition.at("name"), out);
        if seen.contains(&name) {
            out.push(FieldError::duplicate(&condition.at("name"), name));
        }
        seen.push(name);
    }
}

/// Names of webhooks are domains.
fn fully_qualified(name: &str, path: &Path, out: &mut ErrorList) {
    if name.is_empty() {
        out.push(FieldError::required(path, ""));
        return;
    }
    let wrong = names::dns1123_subdomain(name);
    if !wrong.is_empty() {
        out.push(FieldError::invalid(path, name, &wrong.join(",")));
    } else if name.split('.').count() < 3 {
        out.push(FieldError::invalid(
            path,
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
}

/// A list that is needed, and where a star stands alone.
fn alone(rule: &Cursor<'_>, name: &str, what: &str, out: &mut ErrorList) {
    let items = rule.list(name);
    if items.is_empty() {
        out.push(FieldError::required(&rule.at(name), ""));
    }
    if items.len() > 1 && items.iter().any(|item| item == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        let value = rule.raw(name).clone();
        out.push(FieldError::invalid(&rule.at(name), value, &detail));
    }
}

/// What a webhook or a policy is asked about.
pub(super) fn rule(rule: &Cursor<'_>, out: &mut ErrorList) {
    alone(rule, "operations", "operations", out);
    for (index, operation) in rule.texts("operations").enumerate() {
        if !OPERATIONS.contains(&operation) {
            let path = rule.at("operations").index(index);
            out.push(FieldError::not_supported(&path, operation, &OPERATIONS));
        }
    }
    alone(rule, "apiGroups", "API groups", out);
    alone(rule, "apiVersions", "API versions", out);
    for (index, version) in rule.texts("apiVersions").enumerate() {
        if version.is_empty() {
            out.push(FieldError::required(
                &rule.at("apiVersions").index(index),
                "",
            ));
        }
    }
    resources(rule, out);
    validation::one_of(rule, "scope", &SCOPES, out);
}

/// `pods`, `pods/*`, `*/scale`, `*` or `*/*`, without overlap.
fn resources(rule: &Cursor<'_>, out: &mut ErrorList) {
    let path = rule.at("resources");
    let all: Vec<&str> = rule.texts("resources").collect();
    if all.is_empty() {
        out.push(FieldError::required(&path, ""));
    }
    let (mut any_subresource, mut any_resource) = (Vec::new(), Vec::new());
    let mut plain = false;
    for (index, item) in all.iter().enumerate() {
        let at = path.index(index);
        if item.is_empty() {
            out.push(FieldError::required(&at, ""));
            continue;
        }
        let Some((resource, subresource)) = item.split_once('/') else {
            plain = *item != "*";
            continue;
        };
        let mut overlaps = |with: String| {
            let detail = format!("if '{with}' is present, must not specify {item}");
            out.push(FieldError::invalid(&at, *item, &detail));
        };
        if any_subresource.contains(&resource) {
            overlaps(format!("{resource}/*"));
        }
        if any_resource.contains(&subresource) {
            overlaps(format!("*/{subresource}"));
        }
        if subresource == "*" {
            any_subresource.push(resource);
        }
        if resource == "*" {
            any_resource.push(subresource);
        }
    }
    let mut wrong = |detail: &str| {
        out.push(FieldError::invalid(
            &path,
            rule.raw("resources").clone(),
            detail,
        ));
    };
    if all.len() > 1 && all.contains(&"*/*") {
        wrong("if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && plain {
        wrong("if '*' is present, must not specify other resources without subresources");
    }
}

fn review_versions(hook: &Cursor<'_>, out: &mut ErrorList) {
    let path = hook.at("admissionReviewVersions");
    let known = REVIEW_VERSIONS.join(", ");
    let versions: Vec<&str> = hook.texts("admissionReviewVersions").collect();
    if versions.is_empty() {
        out.push(FieldError::required(
            &path,
            &format!("must specify one of {known}"),
        ));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let at = path.index(index);
        if versions[..index].contains(version) {
            out.push(FieldError::invalid(&at, *version, "duplicate version"));
            continue;
        }
        validation::named(names::dns1035_label, version, &at, out);
    }
    if !versions
        .iter()
        .any(|version| REVIEW_VERSIONS.contains(version))
    {
        out.push(FieldError::invalid(
            &path,
            hook.raw("admissionReviewVersions").clone(),
            &format!("must include at least one of {known}"),
        ));
    }
}

/// Where a webhook is. Conversion webhooks say it in the same form.
pub(crate) fn client_config(client: &Cursor<'_>, out: &mut ErrorList) {
    let (url, service) = (client.get("url"), client.get("service"));
    match (url, service) {
        (Some(url), None) => {
            webhook_url(url.value.as_str().unwrap_or_default(), &url.path, out);
        }
        (None, Some(service)) => webhook_service(&service, out),
        _ => out.push(FieldError::required(
            &client.path,
            "exactly one of url or service is required",
        )),
    }
}

fn webhook_url(url: &str, path: &Path, out: &mut ErrorList) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{URL_FORM}");
        out.push(FieldError::invalid(path, scheme, &detail));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() || scheme.is_empty() {
        let detail = format!("host must be specified{URL_FORM}");
        out.push(FieldError::invalid(path, "", &detail));
    }
    let mut none = |value: &str, detail: &str| {
        out.push(FieldError::invalid(path, value, detail));
    };
    if let Some(user) = user {
        none(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        none(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        none(query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(service: &Cursor<'_>, out: &mut ErrorList) {
    // The reference names the one field where the other is empty; so do we.
    for (empty, named) in [("namespace", "name"), ("name", "namespace")] {
        if service.text(empty).is_empty() {
            out.push(FieldError::required(&service.at(named), ""));
        }
    }
    let port = service.number("port");
    if !(1..=65535).contains(&port) {
        let range = validation::text::inclusive_range(1, 65535);
        out.push(FieldError::invalid(
            &service.at("port"),
            port,
            &format!("port is not valid: {range}"),
        ));
    }
    let path = service.text("path");
    if matches!(path, "" | "/") {
        return;
    }
    let at = service.at("path");
    let mut wrong = |detail: &str| out.push(FieldError::invalid(&at, path, detail));
    if path == "//" {
        wrong("segment[0] may not be empty");
        return;
    }
    if !path.starts_with('/') {
        wrong("must start with a '/'");
    }
    let mut chars = path.chars();
    chars.next();
    let rest = chars.as_str();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (index, segment) in rest.split('/').enumerate() {
        if segment.is_empty() {
            wrong(&format!("segment[{index}] may not be empty"));
            continue;
        }
        for failure in names::dns1123_subdomain(segment) {
            wrong(&format!("segment[{index}]: {failure}"));
        }
    }
}
