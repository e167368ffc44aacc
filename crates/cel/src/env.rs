//! What an expression may name: variables, functions, types and syntax. Compiling happens here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use crate::checker;
use crate::errors::{CompileErrors, Issues};
use crate::library::{self, Function, Library, Overload};
use crate::parser;
use crate::plan;
use crate::program::Program;
use crate::schema::Schema;
use crate::types::{ObjectType, Type};
use crate::validators;

/// Which parts of the language are on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Features {
    pub(crate) optional_types: bool,
    pub(crate) two_variables: bool,
    pub(crate) bindings: bool,
    pub(crate) math: bool,
    pub(crate) quoted_fields: bool,
    /// Whether the elements of a literal list must have one type.
    pub(crate) homogeneous: bool,
}

/// Functions of an environment; the same for all environments of one make.
pub(crate) struct Functions {
    pub(crate) overloads: HashMap<String, Vec<Overload>>,
    pub(crate) implementations: HashMap<&'static str, Function>,
}

/// How objects that are written in an expression are typed.
#[derive(Debug, Clone)]
pub(crate) enum Constructor {
    /// A declared object.
    Object(Arc<ObjectType>),
    /// Any object whose name is this or begins with this and a dot; fields are not checked.
    Dynamic,
}

#[derive(Clone)]
struct Inner {
    features: Features,
    functions: Arc<Functions>,
    variables: BTreeMap<String, Schema>,
    constructors: BTreeMap<String, Constructor>,
}

/// An environment. Cheap to clone; extending one makes another.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("variables", &self.0.variables.keys())
            .finish_non_exhaustive()
    }
}

/// Kubernetes' set, in the order in which it was introduced.
const KUBERNETES: [&Library; 14] = [
    &library::standard::LIBRARY,
    &library::urls::LIBRARY,
    &library::regex::LIBRARY,
    &library::lists::LIBRARY,
    &library::authorizer::LIBRARY,
    &library::optional::LIBRARY,
    &library::quantity::LIBRARY,
    &library::strings::LIBRARY,
    &library::sets::LIBRARY,
    &library::net::LIBRARY,
    &library::format::LIBRARY,
    &library::authorizer::SELECTORS,
    &library::lists::COMPREHENSIONS,
    &library::semver::LIBRARY,
];

/// The language with the extensions that the conformance vectors speak of.
const GENERAL: [&Library; 7] = [
    &library::standard::LIBRARY,
    &library::optional::LIBRARY,
    &library::strings::LIBRARY,
    &library::lists::COMPREHENSIONS,
    &library::math::LIBRARY,
    &library::strings::ENCODERS,
    &library::net::GENERAL,
];

fn functions(libraries: &[&Library]) -> Arc<Functions> {
    let mut overloads: HashMap<String, Vec<Overload>> = HashMap::new();
    let mut implementations = HashMap::new();
    let mut declare = |line: &str| {
        let (name, overload) = library::declaration(line);
        overloads.entry(name.to_owned()).or_default().push(overload);
    };
    library::standard::orderings()
        .iter()
        .for_each(|line| declare(line));
    for library in libraries {
        library
            .declarations
            .lines()
            .filter(|line| !line.is_empty())
            .for_each(&mut declare);
        implementations.extend(library.functions.iter().copied());
    }
    for op in ["_<_", "_<=_", "_>_", "_>=_"] {
        if let Some(function) = library::standard::ordering(op) {
            implementations.insert(op, function);
        }
    }
    Arc::new(Functions {
        overloads,
        implementations,
    })
}

impl Env {
    /// The environment of Kubernetes 1.37: its libraries, its syntax, no variables.
    pub fn kubernetes() -> Self {
        static BASE: OnceLock<Env> = OnceLock::new();
        BASE.get_or_init(|| {
            Self(Arc::new(Inner {
                features: Features {
                    optional_types: true,
                    two_variables: true,
                    homogeneous: true,
                    ..Features::default()
                },
                functions: functions(&KUBERNETES),
                variables: BTreeMap::new(),
                constructors: BTreeMap::new(),
            }))
        })
        .clone()
    }

    /// The language as its specification has it, with the common extensions.
    pub fn general() -> Self {
        static BASE: OnceLock<Env> = OnceLock::new();
        BASE.get_or_init(|| {
            Self(Arc::new(Inner {
                features: Features {
                    optional_types: true,
                    two_variables: true,
                    bindings: true,
                    math: true,
                    quoted_fields: true,
                    homogeneous: false,
                },
                functions: functions(&GENERAL),
                variables: BTreeMap::new(),
                constructors: BTreeMap::new(),
            }))
        })
        .clone()
    }

    /// Adds a variable, or replaces one.
    #[must_use]
    pub fn with_variable(&self, name: impl Into<String>, schema: Schema) -> Self {
        let mut inner = (*self.0).clone();
        inner.variables.insert(name.into(), schema);
        Self(Arc::new(inner))
    }

    /// Adds an object that expressions may write: `name{field: value}`.
    #[must_use]
    pub fn with_object(&self, object: Arc<ObjectType>) -> Self {
        let mut inner = (*self.0).clone();
        inner
            .constructors
            .insert(object.name.to_string(), Constructor::Object(object));
        Self(Arc::new(inner))
    }

    /// Adds a family of objects that expressions may write without a declaration: `name{…}` and
    /// `name.path{…}` with any fields.
    #[must_use]
    pub fn with_dynamic_objects(&self, name: impl Into<String>) -> Self {
        let mut inner = (*self.0).clone();
        inner.constructors.insert(name.into(), Constructor::Dynamic);
        Self(Arc::new(inner))
    }

    /// Adds a library for patches: `jsonpatch.escapeKey`.
    #[must_use]
    pub fn with_json_patch(&self) -> Self {
        static FUNCTIONS: OnceLock<Arc<Functions>> = OnceLock::new();
        let mut inner = (*self.0).clone();
        inner.functions = FUNCTIONS
            .get_or_init(|| {
                let mut all = KUBERNETES.to_vec();
                all.push(&library::strings::JSON_PATCH);
                functions(&all)
            })
            .clone();
        Self(Arc::new(inner))
    }

    /// Switches on `cel.bind(name, value, expression)`.
    #[must_use]
    pub fn with_bindings(&self) -> Self {
        let mut inner = (*self.0).clone();
        inner.features.bindings = true;
        Self(Arc::new(inner))
    }

    pub(crate) fn features(&self) -> &Features {
        &self.0.features
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.0.functions
    }

    /// The schema of a declared variable.
    pub fn variable(&self, name: &str) -> Option<&Schema> {
        self.0.variables.get(name)
    }

    /// The object that `name{…}` makes.
    pub(crate) fn constructor(&self, name: &str) -> Option<(String, &Constructor)> {
        let name = name.trim_start_matches('.');
        let mut prefix = name;
        loop {
            match self.0.constructors.get(prefix) {
                Some(found @ Constructor::Dynamic) => return Some((name.to_owned(), found)),
                Some(found) if prefix == name => return Some((name.to_owned(), found)),
                _ => prefix = prefix.rsplit_once('.')?.0,
            }
        }
    }

    /// The type that an identifier names, as `int` or `net.IP`.
    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        let name = name.trim_start_matches('.');
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "string" => Type::String,
            "uint" => Type::Uint,
            "type" => Type::Type(Arc::new(Type::Dyn)),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "optional_type" => Type::optional(Type::Dyn),
            "kubernetes.URL"
            | "kubernetes.Quantity"
            | "kubernetes.Semver"
            | "kubernetes.NamedFormat"
            | "net.IP"
            | "net.CIDR" => Type::opaque(name),
            _ => return None,
        })
    }

    /// Parses, checks and plans an expression.
    pub fn compile(&self, source: &str) -> Result<Program, CompileErrors> {
        let chars: Vec<char> = source.chars().collect();
        let mut issues = Issues::new(&chars);
        let parsed = parser::parse(&chars, self.features(), &mut issues);
        let Some((mut expr, ids)) = parsed.filter(|_| issues.is_empty()) else {
            return Err(issues.finish().unwrap_or_else(|| CompileErrors(Vec::new())));
        };
        let checked = checker::check(self, &mut expr, ids, &mut issues);
        if issues.is_empty() {
            validators::validate(&expr, &mut issues);
        }
        if let Some(errors) = issues.finish() {
            return Err(errors);
        }
        let plan = plan::plan(self, &expr, &checked);
        Ok(Program::new(source, self.clone(), expr, checked, plan))
    }
}
