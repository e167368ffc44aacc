//! Match conditions: expressions that say whether a webhook is asked at all.

use std::fmt;
use std::sync::{Arc, OnceLock};

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::{Status, object};
use evenkeel_cel as cel;
use evenkeel_cel::{AuthorizationQuery, Budget, Env, Program, Schema, Type};
use serde_json::Value;

use super::super::{Change, Operation, Plugin};
use super::{GROUP, KINDS};
use crate::auth::{Authorizer, Decision, Identity};
use crate::http::Attributes;
use crate::registry::Registry;

/// All conditions of one webhook may cost this much for one request.
const COST_MOST: u64 = 2_500_000;

/// A condition of a webhook.
#[derive(Debug)]
pub(super) struct Condition {
    expression: String,
    /// What can't be compiled fails when it is asked: it was written by an older server.
    program: Result<Program, String>,
}

fn schema_of_request() -> Schema {
    let text = || Schema::simple(Type::String);
    let texts = |name: &str, fields: &[&str]| {
        let fields = fields.iter().map(|field| ((*field).to_owned(), text()));
        Schema::object(name, fields)
    };
    let kind = || texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = || {
        texts(
            "kubernetes.GroupVersionResource",
            &["group", "version", "resource"],
        )
    };
    let user = Schema::object(
        "kubernetes.UserInfo",
        [
            ("username".to_owned(), text()),
            ("uid".to_owned(), text()),
            ("groups".to_owned(), Schema::list(text())),
            ("extra".to_owned(), Schema::map(Schema::list(text()))),
        ],
    );
    let mut fields = vec![
        ("kind".to_owned(), kind()),
        ("resource".to_owned(), resource()),
        ("requestKind".to_owned(), kind()),
        ("requestResource".to_owned(), resource()),
        ("userInfo".to_owned(), user),
        ("dryRun".to_owned(), Schema::simple(Type::Bool)),
        ("options".to_owned(), Schema::dynamic()),
    ];
    for name in [
        "subResource",
        "requestSubResource",
        "name",
        "namespace",
        "operation",
    ] {
        fields.push((name.to_owned(), text()));
    }
    Schema::object("kubernetes.AdmissionRequest", fields)
}

/// The language of conditions, and the form of `request` in it.
fn language() -> &'static (Env, Schema) {
    static LANGUAGE: OnceLock<(Env, Schema)> = OnceLock::new();
    LANGUAGE.get_or_init(|| {
        let request = schema_of_request();
        let env = Env::kubernetes()
            .with_variable("object", Schema::dynamic())
            .with_variable("oldObject", Schema::dynamic())
            .with_variable("request", request.clone())
            .with_variable("authorizer", Schema::simple(cel::authorizer_type()))
            .with_variable(
                "authorizer.requestResource",
                Schema::simple(cel::resource_check_type()),
            );
        (env, request)
    })
}

fn compile(expression: &str) -> Result<Program, String> {
    let program = language()
        .0
        .compile(expression)
        .map_err(|errors| format!("compilation failed: {errors}"))?;
    if matches!(program.output(), Type::Bool) {
        Ok(program)
    } else {
        Err("must evaluate to bool".to_owned())
    }
}

/// Reads the conditions of a webhook.
pub(super) fn read(hook: &Value) -> Vec<Condition> {
    object::list(hook, &["matchConditions"])
        .iter()
        .map(|condition| {
            let expression = object::text(condition, &["expression"]).trim().to_owned();
            Condition {
                program: compile(&expression),
                expression,
            }
        })
        .collect()
}

/// Do all conditions hold? The first that does not decides; what fails to be said is told when
/// none is false.
pub(super) fn hold(
    conditions: &[Condition],
    authorizer: &Arc<dyn Authorizer>,
    change: &Change<'_>,
    object: &Value,
    request: &Value,
) -> Result<bool, String> {
    let asker: Arc<dyn cel::Authorizer> = Arc::new(Asker {
        authorizer: Arc::clone(authorizer),
        identity: change.identity.clone(),
    });
    let about = AuthorizationQuery {
        group: change.row.gvk.group.to_string(),
        resource: change.row.plural.to_string(),
        subresource: change
            .subresource
            .map_or("", |subresource| subresource.as_str())
            .to_owned(),
        namespace: change.namespace.to_owned(),
        name: change.name(object).to_owned(),
        ..AuthorizationQuery::default()
    };
    let any = Schema::dynamic();
    let old = change.old.unwrap_or(&Value::Null);
    let told = |error: cel::EvalError| error.to_string();
    let variables = [
        ("object", any.value(object).map_err(told)?),
        ("oldObject", any.value(old).map_err(told)?),
        ("request", language().1.value(request).map_err(told)?),
        ("authorizer", cel::authorizer_value(Arc::clone(&asker))),
        (
            "authorizer.requestResource",
            cel::resource_check_value(asker, about),
        ),
    ];
    let mut budget = Budget::new(cel::PER_CALL_LIMIT, COST_MOST);
    let mut failed = Vec::new();
    for condition in conditions {
        let said = match &condition.program {
            Ok(program) => program
                .evaluate(&variables, &mut budget)
                .map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        match said {
            Ok(cel::Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => failed.push(format!(
                "expression '{}' resulted in error: {why}",
                condition.expression
            )),
        }
    }
    match failed.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// Answers questions of expressions about the caller.
struct Asker {
    authorizer: Arc<dyn Authorizer>,
    identity: Identity,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identity.user)
    }
}

impl cel::Authorizer for Asker {
    fn decide(&self, query: &AuthorizationQuery) -> cel::Decision {
        let attributes = Attributes {
            verb: query.verb.clone(),
            resource_request: query.path.is_none(),
            group: query.group.clone(),
            version: "*".to_owned(),
            resource: query.resource.clone(),
            subresource: query.subresource.clone(),
            namespace: query.namespace.clone(),
            name: query.name.clone(),
            path: query.path.clone().unwrap_or_default(),
            ..Attributes::default()
        };
        let account;
        let identity = match &query.service_account {
            Some((namespace, name)) => {
                account = Identity::service_account(namespace, name);
                &account
            }
            None => &self.identity,
        };
        let (allowed, reason) = match self.authorizer.authorize(identity, &attributes) {
            Decision::Allow(reason) => (true, reason),
            Decision::NoOpinion(reason) | Decision::Deny(reason) => (false, reason),
        };
        cel::Decision {
            allowed,
            reason,
            error: String::new(),
        }
    }
}

/// Refuses configurations whose conditions can't be compiled. Their form is checked with the rest;
/// the language is known only here.
pub(in super::super) struct MatchConditions;

impl Plugin for MatchConditions {
    fn validate(&self, _: &Registry, change: &Change<'_>, object: &Value) -> Result<(), Status> {
        let gvk = &change.row.gvk;
        let configures = gvk.group == GROUP && KINDS.contains(&gvk.kind.as_ref());
        if !configures || !matches!(change.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let mut errors = ErrorList::new();
        let hooks = Path::new("webhooks");
        for (index, hook) in object::list(object, &["webhooks"]).iter().enumerate() {
            let conditions = hooks.index(index).child("matchConditions");
            let given = object::list(hook, &["matchConditions"]);
            for (index, condition) in given.iter().enumerate() {
                let expression = object::text(condition, &["expression"]).trim();
                if let Err(why) = compile(expression) {
                    let path = conditions.index(index).child("expression");
                    errors.push(FieldError::invalid(&path, expression, &why));
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let name = object::name(object);
        Err(Status::invalid(&gvk.group, &gvk.kind, name, &errors))
    }
}
