//! `AuthorizationConfiguration` (`apiserver.config.k8s.io/v1`, and its beta forms), and webhooks
//! that know rights: `SubjectAccessReview`.

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::selector::{FieldSelector, LabelSelector, Operator};
use evenkeel_api::{names, object};
use evenkeel_cel::{self as cel, Budget, Env, Program, Schema, Type};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cached::{Cached, digest};
use super::jwt_config::told;
use crate::auth::{Decision, Identity};
use crate::families::Families;
use crate::http::Attributes;
use crate::outbound::{Peer, Url};

/// A webhook that fails is asked again after these times.
const RETRIES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(750)];
const CONDITIONS_MOST: usize = 64;
const TYPES: [&str; 3] = ["Node", "RBAC", "Webhook"];

/// An authorizer of the configuration.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Nodes, by what runs on them.
    Node,
    /// Roles and their bindings.
    Roles,
    /// Somebody outside.
    Webhook(Arc<RightsWebhook>),
}

/// A webhook that knows rights.
#[derive(Debug)]
pub(crate) struct RightsWebhook {
    /// What metrics call it.
    name: String,
    url: Url,
    peer: Peer,
    review: &'static str,
    timeout: Duration,
    /// How long answers are kept: yes, and anything else.
    keep: [Duration; 2],
    denies_on_failure: bool,
    conditions: Vec<Program>,
    cached: Cached<Decision>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<AuthorizerFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizerFile {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WebhookFile {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<String>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionFile,
    match_conditions: Vec<ConditionFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ConnectionFile {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionFile {
    #[serde(default)]
    expression: String,
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn read(text: &str) -> Result<Vec<Kind>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let known =
        ["v1", "v1beta1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
    if file.kind != "AuthorizationConfiguration" || !known.contains(&file.api_version) {
        return Err(format!(
            "no kind {:?} is registered for version {:?}",
            file.kind, file.api_version
        ));
    }
    let mut out = ErrorList::new();
    let root = Path::new("authorizers");
    if file.authorizers.is_empty() {
        let wrong = "at least one authorization mode must be defined";
        out.push(FieldError::required(&root, wrong));
    }
    let mut kinds = Vec::new();
    let (mut types, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, given) in file.authorizers.iter().enumerate() {
        let at = root.index(index);
        let kind = given.kind.as_str();
        if kind.is_empty() {
            out.push(FieldError::required(&at.child("type"), ""));
            continue;
        }
        if !TYPES.contains(&kind) {
            out.push(FieldError::not_supported(&at.child("type"), kind, &TYPES));
            continue;
        }
        if !types.insert(kind) && kind != "Webhook" {
            out.push(FieldError::duplicate(&at.child("type"), kind));
            continue;
        }
        let name_at = at.child("name");
        let wrong = names::dns1123_subdomain(&given.name);
        if given.name.is_empty() {
            out.push(FieldError::required(&name_at, ""));
        } else if !seen.insert(&given.name) {
            out.push(FieldError::duplicate(&name_at, given.name.as_str()));
        } else if !wrong.is_empty() {
            let wrong = format!("authorizer name is invalid: {}", wrong.join(", "));
            out.push(FieldError::invalid(&name_at, given.name.as_str(), &wrong));
        }
        match (kind, &given.webhook) {
            ("Webhook", None) => {
                let wrong = "required when type=Webhook";
                out.push(FieldError::required(&at.child("webhook"), wrong));
            }
            ("Webhook", Some(webhook)) => {
                let made = self::webhook(webhook, &at, &mut out);
                kinds.extend(made.map(|webhook| {
                    Kind::Webhook(Arc::new(RightsWebhook {
                        name: given.name.clone(),
                        ..webhook
                    }))
                }));
            }
            (_, Some(_)) => {
                let wrong = "may only be specified when type=Webhook";
                out.push(FieldError::invalid(&at.child("webhook"), "non-null", wrong));
            }
            ("Node", None) => kinds.push(Kind::Node),
            (_, None) => kinds.push(Kind::Roles),
        }
    }
    // Without roles the loops of this very process could do nothing.
    if !types.contains("RBAC") && out.is_empty() {
        let wrong = "this server needs an authorizer of type RBAC, for its own loops";
        out.push(FieldError::required(&root, wrong));
    }
    if out.is_empty() {
        return Ok(kinds);
    }
    Err(told(&out))
}

fn duration(given: Option<&str>, usual: Duration, at: &Path, out: &mut ErrorList) -> Duration {
    let Some(text) = given else { return usual };
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let parsed = parsed.and_then(|it| Duration::try_from(it).ok());
    match parsed.filter(|it| !it.is_zero()) {
        Some(found) => found,
        None => {
            out.push(FieldError::invalid(at, text, "must be > 0s"));
            usual
        }
    }
}

fn webhook(given: &WebhookFile, at: &Path, out: &mut ErrorList) -> Option<RightsWebhook> {
    let before = out.len();
    let usual = (Duration::from_secs(300), Duration::from_secs(30));
    let allowed = duration(
        given.authorized_ttl.as_deref(),
        usual.0,
        &at.child("authorizedTTL"),
        out,
    );
    let refused = duration(
        given.unauthorized_ttl.as_deref(),
        usual.1,
        &at.child("unauthorizedTTL"),
        out,
    );
    let kept = |flag: Option<bool>, time: Duration| match flag {
        Some(false) => Duration::ZERO,
        _ => time,
    };
    let timeout_at = at.child("timeout");
    let timeout = match given.timeout.as_deref() {
        None => {
            out.push(FieldError::required(&timeout_at, ""));
            Duration::from_secs(3)
        }
        Some(text) => duration(Some(text), Duration::from_secs(3), &timeout_at, out),
    };
    if timeout > Duration::from_secs(30) {
        let shown = given.timeout.clone().unwrap_or_default();
        out.push(FieldError::invalid(
            &timeout_at,
            shown,
            "must be > 0s and <= 30s",
        ));
    }
    let version_at = at.child("subjectAccessReviewVersion");
    let review = match given.subject_access_review_version.as_str() {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        "" => {
            out.push(FieldError::required(&version_at, ""));
            "v1"
        }
        other => {
            out.push(FieldError::not_supported(
                &version_at,
                other,
                &["v1", "v1beta1"],
            ));
            "v1"
        }
    };
    let of_conditions = at.child("matchConditionSubjectAccessReviewVersion");
    match given.match_condition_subject_access_review_version.as_str() {
        "" if !given.match_conditions.is_empty() => {
            let wrong = "required if match conditions are specified";
            out.push(FieldError::required(&of_conditions, wrong));
        }
        "" | "v1" => {}
        other => out.push(FieldError::not_supported(&of_conditions, other, &["v1"])),
    }
    let policy_at = at.child("failurePolicy");
    match given.failure_policy.as_str() {
        "NoOpinion" | "Deny" => {}
        "" => out.push(FieldError::required(&policy_at, "")),
        other => out.push(FieldError::not_supported(
            &policy_at,
            other,
            &["NoOpinion", "Deny"],
        )),
    }
    let peer = connection(&given.connection_info, &at.child("connectionInfo"), out);
    let conditions = conditions(&given.match_conditions, &at.child("matchConditions"), out);
    if out.len() > before {
        return None;
    }
    let (url, peer) = peer?;
    Some(RightsWebhook {
        name: String::new(),
        url,
        peer,
        review,
        timeout,
        keep: [
            kept(given.cache_authorized_requests, allowed),
            kept(given.cache_unauthorized_requests, refused),
        ],
        denies_on_failure: given.failure_policy == "Deny",
        conditions,
        cached: Cached::default(),
    })
}

fn connection(given: &ConnectionFile, at: &Path, out: &mut ErrorList) -> Option<(Url, Peer)> {
    let file_at = at.child("kubeConfigFile");
    match given.kind.as_str() {
        "KubeConfigFile" => {}
        "" => {
            out.push(FieldError::required(&at.child("type"), ""));
            return None;
        }
        other => {
            let at = at.child("type");
            out.push(FieldError::not_supported(&at, other, &["KubeConfigFile"]));
            return None;
        }
    }
    let Some(file) = given
        .kube_config_file
        .as_deref()
        .filter(|it| !it.is_empty())
    else {
        out.push(FieldError::required(&file_at, ""));
        return None;
    };
    let path = FilePath::new(file);
    if !path.is_absolute() {
        out.push(FieldError::invalid(
            &file_at,
            file,
            "must be an absolute path",
        ));
        return None;
    }
    let directory = path.parent().unwrap_or(FilePath::new("/"));
    std::fs::read_to_string(path)
        .map_err(|error| format!("error loading file: {error}"))
        .and_then(|text| Peer::of_kubeconfig(&text, directory))
        .map_err(|wrong| out.push(FieldError::invalid(&file_at, file, &wrong)))
        .ok()
}

/// The language of conditions, and the form of `request` in it.
fn language() -> (Env, Schema) {
    let text = || Schema::simple(Type::String);
    let field = |(name, schema): (&str, Schema)| (name.to_owned(), schema);
    let plain = [
        "namespace",
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "name",
    ];
    let resource = plain
        .iter()
        .map(|name| (*name, text()))
        .chain([
            ("fieldSelector", Schema::dynamic()),
            ("labelSelector", Schema::dynamic()),
        ])
        .map(field);
    let resource = Schema::object("kubernetes.ResourceAttributes", resource);
    let path = [("path", text()), ("verb", text())].map(field);
    let path = Schema::object("kubernetes.NonResourceAttributes", path);
    let request = [
        ("resourceAttributes", resource),
        ("nonResourceAttributes", path),
        ("user", text()),
        ("uid", text()),
        ("groups", Schema::list(text())),
        ("extra", Schema::map(Schema::list(text()))),
    ]
    .map(field);
    let request = Schema::object("kubernetes.SubjectAccessReviewSpec", request);
    let env = Env::kubernetes().with_variable("request", request.clone());
    (env, request)
}

fn conditions(given: &[ConditionFile], at: &Path, out: &mut ErrorList) -> Vec<Program> {
    if given.len() > CONDITIONS_MOST {
        out.push(FieldError::too_many(at, given.len(), CONDITIONS_MOST));
        return Vec::new();
    }
    if given.is_empty() {
        return Vec::new();
    }
    let (env, _) = language();
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, condition) in given.iter().enumerate() {
        let at = at.index(index).child("expression");
        let expression = condition.expression.as_str();
        if expression.trim().is_empty() {
            out.push(FieldError::required(&at, ""));
            continue;
        }
        if !seen.insert(expression) {
            out.push(FieldError::duplicate(&at, expression));
            continue;
        }
        match env.compile(expression) {
            Ok(program) if matches!(program.output(), Type::Bool) => all.push(program),
            Ok(_) => out.push(FieldError::invalid(
                &at,
                expression,
                "must evaluate to bool",
            )),
            Err(errors) => {
                let wrong = format!("compilation failed: {errors}");
                out.push(FieldError::invalid(&at, expression, &wrong));
            }
        }
    }
    all
}

/// A webhook that flags name, with the reference's defaults.
pub(super) fn plain(
    kubeconfig: &str,
    directory: &FilePath,
    allowed: Duration,
    refused: Duration,
) -> Result<RightsWebhook, String> {
    let (url, peer) = Peer::of_kubeconfig(kubeconfig, directory)?;
    Ok(RightsWebhook {
        name: "default".to_owned(),
        url,
        peer,
        review: "v1",
        timeout: Duration::from_secs(30),
        keep: [allowed, refused],
        denies_on_failure: false,
        conditions: Vec::new(),
        cached: Cached::default(),
    })
}

/// What is asked, as a `SubjectAccessReviewSpec`.
fn spec(identity: &Identity, attributes: &Attributes) -> Value {
    let mut spec = json!({"user": identity.user, "groups": identity.groups});
    if !identity.uid.is_empty() {
        spec["uid"] = identity.uid.clone().into();
    }
    if !identity.extra.is_empty() {
        spec["extra"] = json!(identity.extra);
    }
    if !attributes.resource_request {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
        return spec;
    }
    let mut about = json!({});
    for (name, text) in [
        ("namespace", &attributes.namespace),
        ("verb", &attributes.verb),
        ("group", &attributes.group),
        ("version", &attributes.version),
        ("resource", &attributes.resource),
        ("subresource", &attributes.subresource),
        ("name", &attributes.name),
    ] {
        if !text.is_empty() {
            about[name] = text.clone().into();
        }
    }
    let labels = label_requirements(&attributes.label_selector);
    let fields = field_requirements(&attributes.field_selector);
    for (name, requirements) in [("labelSelector", labels), ("fieldSelector", fields)] {
        if !requirements.is_empty() {
            about[name] = json!({"requirements": requirements});
        }
    }
    spec["resourceAttributes"] = about;
    spec
}

/// What a label selector asks, as reviews tell it. One that can't be read asks for nothing here,
/// and is refused later.
fn label_requirements(selector: &str) -> Vec<Value> {
    let parsed = LabelSelector::parse(selector).unwrap_or_default();
    let told = parsed.requirements.iter().filter_map(|one| {
        let operator = match one.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // Reviews have no words for these: what is told asks for less.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut told = json!({"key": one.key, "operator": operator});
        if !one.values.is_empty() {
            let mut values = one.values.clone();
            values.sort();
            told["values"] = json!(values);
        }
        Some(told)
    });
    told.collect()
}

fn field_requirements(selector: &str) -> Vec<Value> {
    let parsed = FieldSelector::parse(selector).unwrap_or_default();
    let told = parsed.terms.iter().map(|(field, equal, value)| {
        let operator = if *equal { "In" } else { "NotIn" };
        json!({"key": field, "operator": operator, "values": [value]})
    });
    told.collect()
}

/// What conditions see: every field is there, as in the reference.
fn shown(spec: &Value) -> Value {
    let mut shown = spec.clone();
    let texts = [
        "namespace",
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "name",
    ];
    if let Some(about) = shown.get_mut("resourceAttributes") {
        for name in texts {
            object::fields(about)
                .entry(name)
                .or_insert_with(|| "".into());
        }
    }
    for (name, empty) in [("uid", json!("")), ("extra", json!({}))] {
        object::fields(&mut shown).entry(name).or_insert(empty);
    }
    shown
}

impl RightsWebhook {
    /// What it stands for when it can't be asked.
    pub(super) fn failed(&self) -> Decision {
        if self.denies_on_failure {
            Decision::Deny(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }

    /// What it says, if that needs nobody to be asked.
    pub(super) fn known(&self, identity: &Identity, attributes: &Attributes) -> Option<Decision> {
        let spec = spec(identity, attributes);
        match self.concerns(&spec) {
            Err(()) => Some(self.failed()),
            Ok(false) => Some(Decision::NoOpinion(String::new())),
            Ok(true) => self.cached.get(&digest(&spec.to_string())),
        }
    }

    /// Do all conditions hold? One that does not decides; otherwise one that fails does.
    fn concerns(&self, spec: &Value) -> Result<bool, ()> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let Ok(request) = language().1.value(&shown(spec)) else {
            return Err(());
        };
        let variables = [("request", request)];
        let mut failed = false;
        for condition in &self.conditions {
            match condition.evaluate(&variables, &mut Budget::default()) {
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(condition = condition.source(), %error, "a condition fails");
                    failed = true;
                }
            }
        }
        if failed { Err(()) } else { Ok(true) }
    }

    /// Asks, unless the answer is known.
    pub(super) async fn decide(
        &self,
        identity: &Identity,
        attributes: &Attributes,
        counted: &Families,
    ) -> Decision {
        if let Some(known) = self.known(identity, attributes) {
            return known;
        }
        let spec = spec(identity, attributes);
        let key = digest(&spec.to_string());
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.review),
            "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": null},
            "spec": self.spoken(spec), "status": {"allowed": false},
        });
        let began = tokio::time::Instant::now();
        let mut said = self.ask(&review).await;
        for pause in RETRIES {
            if said.is_ok() {
                break;
            }
            tokio::time::sleep(pause).await;
            said = self.ask(&review).await;
        }
        let result = if said.is_ok() { "success" } else { "error" };
        let told = [self.name.as_str(), result];
        counted.rights.one(&told);
        counted.rights_took.took(&told, began.elapsed());
        let status = match said {
            Ok(status) => status,
            Err(error) => {
                if !self.denies_on_failure {
                    counted.rights_failed_open.one(&told);
                }
                tracing::warn!(error, "a webhook can't be asked about rights");
                return self.failed();
            }
        };
        let is = |name: &str| status[name] == true;
        let reason = object::text(&status, &["reason"]).to_owned();
        let decision = match (is("allowed"), is("denied")) {
            (_, true) => Decision::Deny(reason),
            (true, false) => Decision::Allow(reason),
            (false, false) => Decision::NoOpinion(reason),
        };
        let [allowed, refused] = self.keep;
        let keep = if is("allowed") { allowed } else { refused };
        self.cached.put(key, decision.clone(), keep);
        decision
    }

    /// The older form names groups otherwise.
    fn spoken(&self, mut spec: Value) -> Value {
        if self.review == "v1beta1"
            && let Some(groups) = object::fields(&mut spec).remove("groups")
        {
            spec["group"] = groups;
        }
        spec
    }

    async fn ask(&self, review: &Value) -> Result<Value, String> {
        let (code, body) = self
            .peer
            .ask(Method::POST, &self.url, Some(review), self.timeout)
            .await?;
        if !code.is_success() {
            return Err(format!("webhook authorizer answered {code}"));
        }
        let answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(answer["status"].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        let wrong = |rest: &str| read(&format!("{head}authorizers:\n{rest}")).unwrap_err();
        assert_eq!(
            wrong("- {type: ABAC, name: a}\n"),
            "authorizers[0].type: Unsupported value: \"ABAC\": supported values: \"Node\", \
             \"RBAC\", \"Webhook\""
        );
        assert!(wrong("- {type: Node, name: node}\n").contains("type RBAC"));
        let told = wrong(
            "- {type: RBAC, name: rbac}\n- type: Webhook\n  name: w\n  webhook:\n    timeout: 40s\n    \
             subjectAccessReviewVersion: v2\n    connectionInfo: {type: InClusterConfig}\n    \
             matchConditions: [{expression: 'request.nope'}]\n",
        );
        for part in [
            "authorizers[1].timeout: Invalid value: \"40s\": must be > 0s and <= 30s",
            "authorizers[1].subjectAccessReviewVersion: Unsupported value: \"v2\"",
            "authorizers[1].matchConditionSubjectAccessReviewVersion: Required value",
            "authorizers[1].failurePolicy: Required value",
            "authorizers[1].connectionInfo.type: Unsupported value: \"InClusterConfig\"",
            "authorizers[1].matchConditions[0].expression: Invalid value",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
        let kinds =
            format!("{head}authorizers: [{{type: Node, name: n}}, {{type: RBAC, name: r}}]");
        assert!(matches!(
            read(&kinds).unwrap()[..],
            [Kind::Node, Kind::Roles]
        ));
    }
}
