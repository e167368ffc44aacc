//! CEL in admission: which variables an expression has, and what it must give.
//!
//! Both sides need it: validation compiles expressions to refuse those that can't work, the
//! admission chain compiles them to evaluate them. Variables of a policy come one after the other,
//! each sees those before it.

mod typing;

use std::sync::{Arc, LazyLock};

use evenkeel_cel::{Env, ObjectType, Program, Schema, Type, authorizer_type, resource_check_type};

pub use typing::{Documents, Finding, GroupVersion, documents, schema_of, type_check};

/// Which variables there are beyond `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Declarations {
    /// `params`.
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`.
    pub authorizer: bool,
    /// `Object{…}`, `JSONPatch{…}` and `jsonpatch.escapeKey`.
    pub patches: bool,
}

/// What an expression must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A truth value.
    Bool,
    /// Text.
    Text,
    /// Text, or null for none.
    TextOrNull,
    /// Anything.
    Any,
    /// `Object{…}`.
    Object,
    /// A list of `JSONPatch{…}`.
    Patches,
}

fn objects(name: &str, fields: &[(&str, Schema)]) -> Schema {
    Schema::object(
        name,
        fields
            .iter()
            .map(|(name, schema)| ((*name).to_owned(), schema.clone())),
    )
}

/// `request`: the reference's `AdmissionRequest` without what is a variable of its own.
fn request() -> Schema {
    let text = || Schema::simple(Type::String);
    let kind = objects(
        "kubernetes.GroupVersionKind",
        &[("group", text()), ("version", text()), ("kind", text())],
    );
    let resource = objects(
        "kubernetes.GroupVersionResource",
        &[("group", text()), ("version", text()), ("resource", text())],
    );
    let user = objects(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", Schema::list(text())),
            ("extra", Schema::map(Schema::list(text()))),
        ],
    );
    objects(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Schema::simple(Type::Bool)),
            ("options", Schema::dynamic()),
        ],
    )
}

/// `namespaceObject`: the part of a namespace that expressions see.
fn namespace() -> Schema {
    let text = || Schema::simple(Type::String);
    let time = || Schema::simple(Type::Timestamp);
    let number = || Schema::simple(Type::Int);
    let condition = objects(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let metadata = objects(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", Schema::map(text())),
            ("annotations", Schema::map(text())),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", number()),
            ("deletionTimestamp", time()),
            ("generation", number()),
            ("resourceVersion", text()),
            ("finalizers", Schema::list(text())),
        ],
    );
    objects(
        "kubernetes.Namespace",
        &[
            ("metadata", metadata),
            (
                "spec",
                objects(
                    "kubernetes.NamespaceSpec",
                    &[("finalizers", Schema::list(text()))],
                ),
            ),
            (
                "status",
                objects(
                    "kubernetes.NamespaceStatus",
                    &[("conditions", Schema::list(condition)), ("phase", text())],
                ),
            ),
        ],
    )
}

static REQUEST: LazyLock<Schema> = LazyLock::new(request);
static NAMESPACE: LazyLock<Schema> = LazyLock::new(namespace);

/// The schema of `namespaceObject`.
#[must_use]
pub fn namespace_schema() -> &'static Schema {
    &NAMESPACE
}

/// `JSONPatch{…}`: one operation of a patch.
static JSON_PATCH: LazyLock<Arc<ObjectType>> = LazyLock::new(|| {
    let fields = [
        ("op", Type::String),
        ("path", Type::String),
        ("from", Type::String),
        ("value", Type::Dyn),
    ];
    Arc::new(ObjectType {
        name: "JSONPatch".into(),
        fields: fields
            .into_iter()
            .map(|(name, ty)| (name.to_owned(), ty))
            .collect(),
    })
});

/// An environment, and the variables that a policy has added to it so far.
#[derive(Debug, Clone)]
pub struct Expressions {
    base: Env,
    variables: Vec<(String, Schema)>,
}

impl Expressions {
    /// The environment of admission, with `object` and `oldObject` of any type.
    #[must_use]
    pub fn new(declarations: Declarations) -> Self {
        Self::typed(declarations, &Schema::dynamic(), &Schema::dynamic())
    }

    /// The same, with the types of the objects and of the parameter known.
    #[must_use]
    pub fn typed(declarations: Declarations, object: &Schema, params: &Schema) -> Self {
        let mut env = Env::kubernetes();
        if declarations.patches {
            env = env
                .with_json_patch()
                .with_dynamic_objects("Object")
                .with_object(JSON_PATCH.clone());
        }
        env = env
            .with_variable("object", object.clone())
            .with_variable("oldObject", object.clone())
            .with_variable("request", REQUEST.clone())
            .with_variable("namespaceObject", NAMESPACE.clone());
        if declarations.params {
            env = env.with_variable("params", params.clone());
        }
        if declarations.authorizer {
            env = env
                .with_variable("authorizer", Schema::simple(authorizer_type()))
                .with_variable(
                    "authorizer.requestResource",
                    Schema::simple(resource_check_type()),
                );
        }
        Self {
            base: env,
            variables: Vec::new(),
        }
    }

    /// Adds a variable of the policy: `variables.NAME` from here on.
    pub fn declare(&mut self, name: &str, ty: Type) {
        self.variables.push((name.to_owned(), Schema::simple(ty)));
    }

    fn env(&self) -> Env {
        if self.variables.is_empty() {
            return self.base.clone();
        }
        let variables = Schema::object("kubernetes.variables", self.variables.iter().cloned());
        self.base.with_variable("variables", variables)
    }

    /// What is wrong with an expression, whatever it gives.
    pub(crate) fn check(&self, source: &str) -> Option<String> {
        self.env()
            .compile(source)
            .err()
            .map(|errors| errors.to_string())
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong, in the reference's words.
    pub fn compile(&self, source: &str, output: Output) -> Result<Program, String> {
        let program = self
            .env()
            .compile(source)
            .map_err(|errors| format!("compilation failed: {errors}"))?;
        let got = program.output();
        let (fits, wanted) = match output {
            Output::Any => (true, ""),
            Output::Bool => (*got == Type::Bool, "bool"),
            Output::Text => (*got == Type::String, "string"),
            Output::TextOrNull => (
                matches!(got, Type::String | Type::Null),
                "one of [string null_type]",
            ),
            Output::Object => (
                matches!(got, Type::Object(object) if &*object.name == "Object"),
                "Object",
            ),
            Output::Patches => {
                let patches = matches!(got, Type::List(item)
                    if matches!(&**item, Type::Object(object) if &*object.name == "JSONPatch"));
                (patches, "list(JSONPatch)")
            }
        };
        if fits {
            return Ok(program);
        }
        let got = if *got == Type::Null {
            "null_type".to_owned()
        } else {
            got.to_string()
        };
        Err(format!("must evaluate to {wanted} but got {got}"))
    }
}
