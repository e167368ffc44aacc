//! What expressions see of a change. Everything is made when it is first asked for.

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use evenkeel_api::expressions::namespace_schema;
use evenkeel_api::object;
use evenkeel_api::row::ResourceDef;
use evenkeel_cel::{
    Activation, AuthorizationQuery, Authorizer as Ask, Decision as Answer, EvalError, Meter,
    Opaque, Program, Value as Cel, authorizer_value, resource_check_value,
};
use serde_json::Value;

use super::super::Change;
use super::super::webhook::review::{self, attributes, seen_as};
use super::matching::namespace;
use crate::auth::{Authorizer, Decision, Identity};
use crate::http::Attributes;
use crate::registry::Registry;

/// The values of the variables.
#[derive(Debug)]
pub(super) struct Inputs {
    object: Value,
    old: Value,
    params: Value,
    request: Value,
    namespace: Value,
    asker: Arc<Asker>,
    query: AuthorizationQuery,
    made: [OnceLock<Cel>; 5],
}

impl Inputs {
    /// The inputs of a change as a policy is shown it, with a parameter (null for none).
    /// `requested` is the kind of the request itself.
    pub(super) fn of(
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
        params: &Value,
        authorizer: &Arc<dyn Authorizer>,
        requested: &ResourceDef,
    ) -> Self {
        let space = if change.is_core("Namespace") {
            ""
        } else {
            change.namespace
        };
        let namespace = namespace(registry, space).filter(|_| !space.is_empty());
        let query = AuthorizationQuery {
            group: change.row.gvk.group.to_string(),
            resource: change.row.plural.to_string(),
            subresource: change.subresource.map_or("", |s| s.as_str()).to_owned(),
            namespace: change.namespace.to_owned(),
            name: change.name(object).to_owned(),
            ..AuthorizationQuery::default()
        };
        Self {
            object: shown(change, Some(object)),
            old: shown(change, change.old),
            params: params.clone(),
            request: request(change, object, requested),
            namespace: namespace.unwrap_or_default(),
            asker: Arc::new(Asker {
                authorizer: Arc::clone(authorizer),
                identity: change.identity.clone(),
            }),
            query,
            made: Default::default(),
        }
    }
}

impl Activation for Inputs {
    fn variable(&self, name: &str) -> Option<Cel> {
        let (slot, json) = match name {
            "object" => (0, &self.object),
            "oldObject" => (1, &self.old),
            "params" => (2, &self.params),
            "request" => (3, &self.request),
            "namespaceObject" => (4, &self.namespace),
            "authorizer" => return Some(authorizer_value(self.asker.clone())),
            "authorizer.requestResource" => {
                return Some(resource_check_value(self.asker.clone(), self.query.clone()));
            }
            _ => return None,
        };
        let made = self.made[slot].get_or_init(|| match slot {
            4 => namespace_schema()
                .value(json)
                .unwrap_or_else(|_| Cel::from_json(json)),
            _ => Cel::from_json(json),
        });
        Some(made.clone())
    }
}

/// An object as expressions see it under a subresource.
fn shown(change: &Change<'_>, object: Option<&Value>) -> Value {
    match object {
        Some(object) if object.is_object() => seen_as(change, object),
        _ => Value::Null,
    }
}

/// `request`: the reference's `AdmissionRequest` without its id.
fn request(change: &Change<'_>, object: &Value, requested: &ResourceDef) -> Value {
    let mut request = attributes(change, "", object);
    review::requested(&mut request, change, requested);
    let fields = object::fields(&mut request);
    fields.remove("uid");
    fields.retain(|_, value| !value.is_null());
    request
}

/// Asks the door's authorizer about the one who makes the change.
struct Asker {
    authorizer: Arc<dyn Authorizer>,
    identity: Identity,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Asker").field(&self.identity.user).finish()
    }
}

impl Ask for Asker {
    fn decide(&self, query: &AuthorizationQuery) -> Answer {
        let account = query
            .service_account
            .as_ref()
            .map(|(namespace, name)| Identity::service_account(namespace, name));
        let attributes = match &query.path {
            Some(path) => Attributes {
                verb: query.verb.to_lowercase(),
                path: path.clone(),
                ..Attributes::default()
            },
            None => Attributes {
                verb: query.verb.clone(),
                resource_request: true,
                group: query.group.clone(),
                version: "*".to_owned(),
                resource: query.resource.clone(),
                subresource: query.subresource.clone(),
                namespace: query.namespace.clone(),
                name: query.name.clone(),
                ..Attributes::default()
            },
        };
        let identity = account.as_ref().unwrap_or(&self.identity);
        match self.authorizer.authorize(identity, &attributes) {
            Decision::Allow(reason) => Answer {
                allowed: true,
                reason,
                error: String::new(),
            },
            Decision::NoOpinion(reason) | Decision::Deny(reason) => Answer {
                allowed: false,
                reason,
                error: String::new(),
            },
        }
    }
}

/// A policy's variables over the inputs: each is evaluated once, when it is first named.
#[derive(Debug, Clone)]
pub(super) struct Scope(Arc<Variables>);

#[derive(Debug)]
struct Variables {
    inputs: Inputs,
    programs: Arc<[(String, Program)]>,
    values: Vec<OnceLock<Result<Cel, EvalError>>>,
}

impl Scope {
    pub(super) fn new(inputs: Inputs, programs: Arc<[(String, Program)]>) -> Self {
        let values = programs.iter().map(|_| OnceLock::new()).collect();
        Self(Arc::new(Variables {
            inputs,
            programs,
            values,
        }))
    }
}

impl Activation for Scope {
    fn variable(&self, name: &str) -> Option<Cel> {
        match name {
            "variables" => Some(Cel::opaque(Names(Arc::downgrade(&self.0)))),
            name => self.0.inputs.variable(name),
        }
    }
}

/// `variables` as a value. It does not keep the scope alive, so that a variable whose value is
/// `variables` makes no circle.
#[derive(Debug)]
struct Names(Weak<Variables>);

impl Opaque for Names {
    fn type_name(&self) -> &str {
        "kubernetes.variables"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn field(&self, name: &str, meter: &mut Meter) -> Option<Result<Cel, EvalError>> {
        let scope = Scope(self.0.upgrade()?);
        let at = scope
            .0
            .programs
            .iter()
            .position(|(known, _)| known == name)?;
        if let Some(value) = scope.0.values[at].get() {
            return Some(value.clone());
        }
        let program = &scope.0.programs[at].1;
        let value = program
            .evaluate_within(&scope, meter)
            .map_err(|error| match error {
                EvalError::Failed(why) => EvalError::new(format!(
                    "composited variable {name:?} fails to evaluate: {why}"
                )),
                limit => limit,
            });
        Some(scope.0.values[at].get_or_init(|| value).clone())
    }
}
