//! Authorization checks: `authorizer.group('apps').resource('deployments').check('get').allowed()`.
//!
//! Who decides is not known here; the caller brings an [`Authorizer`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::format::is_name;
use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::types::Type;
use crate::value::{Opaque, Value};

pub(crate) const LIBRARY: Library = Library {
    declarations: "
path authorizer_path kubernetes.authorization.Authorizer.(string)->kubernetes.authorization.PathCheck
group authorizer_group kubernetes.authorization.Authorizer.(string)->kubernetes.authorization.GroupCheck
serviceAccount authorizer_serviceaccount kubernetes.authorization.Authorizer.(string,string)->kubernetes.authorization.Authorizer
resource groupcheck_resource kubernetes.authorization.GroupCheck.(string)->kubernetes.authorization.ResourceCheck
subresource resourcecheck_subresource kubernetes.authorization.ResourceCheck.(string)->kubernetes.authorization.ResourceCheck
namespace resourcecheck_namespace kubernetes.authorization.ResourceCheck.(string)->kubernetes.authorization.ResourceCheck
name resourcecheck_name kubernetes.authorization.ResourceCheck.(string)->kubernetes.authorization.ResourceCheck
check pathcheck_check kubernetes.authorization.PathCheck.(string)->kubernetes.authorization.Decision
check resourcecheck_check kubernetes.authorization.ResourceCheck.(string)->kubernetes.authorization.Decision
errored decision_errored kubernetes.authorization.Decision.()->bool
error decision_error kubernetes.authorization.Decision.()->string
allowed decision_allowed kubernetes.authorization.Decision.()->bool
reason decision_reason kubernetes.authorization.Decision.()->string
",
    functions: &[
        ("path", |a| on(a, |c, s| c.path(s))),
        ("group", |a| on(a, |c, s| c.group(s))),
        ("serviceAccount", service_account),
        ("resource", |a| on(a, |c, s| c.resource(s))),
        ("subresource", |a| on(a, |c, s| c.refine(|q| &mut q.subresource, s))),
        ("namespace", |a| on(a, |c, s| c.refine(|q| &mut q.namespace, s))),
        ("name", |a| on(a, |c, s| c.refine(|q| &mut q.name, s))),
        ("check", |a| on(a, Builder::check)),
        ("errored", |a| decision(a, |d| Value::Bool(!d.error.is_empty()))),
        ("error", |a| decision(a, |d| Value::from(d.error.as_str()))),
        ("allowed", |a| decision(a, |d| Value::Bool(d.allowed))),
        ("reason", |a| decision(a, |d| Value::from(d.reason.as_str()))),
    ],
};

pub(crate) const SELECTORS: Library = Library {
    declarations: "
fieldSelector authorizer_fieldselector kubernetes.authorization.ResourceCheck.(string)->kubernetes.authorization.ResourceCheck
labelSelector authorizer_labelselector kubernetes.authorization.ResourceCheck.(string)->kubernetes.authorization.ResourceCheck
",
    functions: &[
        ("fieldSelector", |a| on(a, |c, s| c.refine(|q| &mut q.field_selector, s))),
        ("labelSelector", |a| on(a, |c, s| c.refine(|q| &mut q.label_selector, s))),
    ],
};

/// The type of an authorizer, to declare a variable with.
pub fn authorizer_type() -> Type {
    Type::opaque("kubernetes.authorization.Authorizer")
}

/// The type of a check of a resource, as `authorizer.requestResource` is.
pub fn resource_check_type() -> Type {
    Type::opaque("kubernetes.authorization.ResourceCheck")
}

/// What is asked of an authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationQuery {
    /// The verb.
    pub verb: String,
    /// The path, for a question about a path.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The resource's plural name.
    pub resource: String,
    /// The subresource, or nothing.
    pub subresource: String,
    /// The namespace, or nothing for the cluster.
    pub namespace: String,
    /// The object's name, or nothing for all.
    pub name: String,
    /// A field selector as text, or nothing.
    pub field_selector: String,
    /// A label selector as text, or nothing.
    pub label_selector: String,
    /// Somebody else than the caller: namespace and name of a service account.
    pub service_account: Option<(String, String)>,
}

/// An authorizer's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong, or nothing.
    pub error: String,
}

/// Decides what a principal may do.
pub trait Authorizer: fmt::Debug + Send + Sync {
    /// Answers a question about the principal it stands for.
    fn decide(&self, query: &AuthorizationQuery) -> Decision;
}

/// An authorizer as a value for expressions.
pub fn authorizer_value(authorizer: Arc<dyn Authorizer>) -> Value {
    Value::opaque(Builder {
        authorizer,
        query: AuthorizationQuery::default(),
        stage: Stage::Authorizer,
    })
}

/// A check of a resource as a value, as `authorizer.requestResource` is.
pub fn resource_check_value(authorizer: Arc<dyn Authorizer>, query: AuthorizationQuery) -> Value {
    Value::opaque(Builder {
        authorizer,
        query,
        stage: Stage::Resource,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
}

/// A question that is being put together.
#[derive(Debug, Clone)]
struct Builder {
    authorizer: Arc<dyn Authorizer>,
    query: AuthorizationQuery,
    stage: Stage,
}

impl Opaque for Builder {
    fn type_name(&self) -> &str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other
            .as_any()
            .downcast_ref::<Self>()
            .is_some_and(|o| o.stage == self.stage && o.query == self.query)
    }
}

impl Opaque for Decision {
    fn type_name(&self) -> &str {
        "kubernetes.authorization.Decision"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
}

impl Builder {
    fn at(&self, stage: Stage, change: impl FnOnce(&mut AuthorizationQuery)) -> Value {
        let mut next = self.clone();
        next.stage = stage;
        change(&mut next.query);
        Value::opaque(next)
    }

    fn path(&self, path: &str) -> Outcome {
        if self.stage != Stage::Authorizer {
            return None;
        }
        if path.trim().is_empty() {
            return Some(Err(EvalError::new("path must not be empty")));
        }
        Some(Ok(self.at(Stage::Path, |q| q.path = Some(path.into()))))
    }

    fn group(&self, group: &str) -> Outcome {
        (self.stage == Stage::Authorizer)
            .then(|| Ok(self.at(Stage::Group, |q| q.group = group.into())))
    }

    fn resource(&self, resource: &str) -> Outcome {
        if self.stage != Stage::Group {
            return None;
        }
        if resource.trim().is_empty() {
            return Some(Err(EvalError::new("resource must not be empty")));
        }
        Some(Ok(
            self.at(Stage::Resource, |q| q.resource = resource.into())
        ))
    }

    fn refine(&self, field: fn(&mut AuthorizationQuery) -> &mut String, text: &str) -> Outcome {
        (self.stage == Stage::Resource)
            .then(|| Ok(self.at(Stage::Resource, |q| *field(q) = text.into())))
    }

    fn check(&self, verb: &str) -> Outcome {
        if !matches!(self.stage, Stage::Path | Stage::Resource) {
            return None;
        }
        let mut query = self.query.clone();
        query.verb = verb.into();
        Some(Ok(Value::opaque(self.authorizer.decide(&query))))
    }
}

fn on(args: &[Value], then: fn(&Builder, &str) -> Outcome) -> Outcome {
    let [receiver, Value::String(text)] = args else {
        return None;
    };
    then(receiver.downcast()?, text)
}

fn service_account(args: &[Value]) -> Outcome {
    let [receiver, Value::String(namespace), Value::String(name)] = args else {
        return None;
    };
    let builder: &Builder = receiver.downcast()?;
    if builder.stage != Stage::Authorizer {
        return None;
    }
    if !is_name("dns1123Subdomain", name) {
        return Some(Err(EvalError::new("Invalid service account name")));
    }
    if !is_name("dns1123Label", namespace) {
        return Some(Err(EvalError::new("Invalid service account namespace")));
    }
    let account = (namespace.to_string(), name.to_string());
    Some(Ok(builder.at(Stage::Authorizer, |q| {
        q.service_account = Some(account)
    })))
}

fn decision(args: &[Value], of: fn(&Decision) -> Value) -> Outcome {
    let [value] = args else { return None };
    value.downcast::<Decision>().map(|d| Ok(of(d)))
}
