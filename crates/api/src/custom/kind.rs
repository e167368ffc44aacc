//! A definition read as rows, and the types of its versions.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use serde_json::Value;

use super::conditions;
use super::conversion::Conversion;
use super::definition::metadata_types;
use super::objects::Objects;
use crate::field::Path;
use crate::jsonpath::JsonPath;
use crate::names;
use crate::object::{self, list, text};
use crate::row::{
    ALL_VERBS, Cell, Column, GroupVersionKind, Plain, ResourceDef, ScalePaths, Scope,
    SelectableField, Storage, Subresource, Text,
};
use crate::schema::{Admission, Schema, Ty};
use crate::structural::{Rules, Structural, merge_type};

/// A definition, as far as rows need it.
#[derive(Debug, Clone)]
pub struct Definition {
    /// `crontabs.stable.example.com`
    pub name: String,
    /// `stable.example.com`
    pub group: String,
    /// Its names are its own, so that it is served.
    pub established: bool,
    /// It is being deleted: nothing new is made of its kind.
    pub terminating: bool,
    types: Arc<Types>,
    rows: Vec<Arc<ResourceDef>>,
}

/// Measures what rules in CEL take: it has the clock, which nothing here has.
pub trait Stopwatch: std::fmt::Debug + Send + Sync {
    /// Does the work, which is to compile the rules of a version.
    fn compile(&self, work: &mut dyn FnMut());
    /// Does the work, which is to hold an object to its rules.
    fn evaluate(&self, work: &mut dyn FnMut());
}

/// What the versions of a definition share.
#[derive(Debug)]
struct Types {
    /// The definition as it is stored; the cached object has the same bytes.
    definition: RwLock<Bytes>,
    /// A digest of all that shapes what is served.
    digest: [u8; 32],
    /// Index of the version that is stored.
    storage: usize,
    versions: Vec<Version>,
    /// How they are converted when names and pruning are not all.
    conversion: Option<Conversion>,
    stopwatch: OnceLock<Arc<dyn Stopwatch>>,
}

#[derive(Debug)]
struct Version {
    api_version: String,
    /// Has it a status subresource?
    status: bool,
    compiled: OnceLock<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    structural: Structural,
    rules: Option<Rules>,
    merge: Schema,
    ty: Ty,
}

/// The type of one version of a custom kind. It is compiled when it is first asked.
#[derive(Debug, Clone)]
pub struct CustomType {
    types: Arc<Types>,
    index: usize,
}

impl Definition {
    /// Has what its rules take measured from now on.
    pub fn timed_by(&self, stopwatch: &Arc<dyn Stopwatch>) {
        self.types.stopwatch.get_or_init(|| Arc::clone(stopwatch));
    }

    /// Reads a stored definition. `before` is what it was; types that have not changed are kept,
    /// with all that has been compiled of them.
    #[must_use]
    pub fn read(value: &Value, stored: Bytes, before: Option<&Self>) -> Self {
        let digest = digest(value);
        let group = text(value, &["spec", "group"]);
        let types = match before.filter(|before| before.types.digest == digest) {
            Some(before) => {
                before.types.renew(stored);
                Arc::clone(&before.types)
            }
            None => Arc::new(Types::new(value, group, stored, digest)),
        };
        let mut definition = Self {
            name: object::name(value).to_owned(),
            group: group.to_owned(),
            established: conditions::is_true(value, "Established"),
            terminating: object::deletion_timestamp(value).is_some()
                || conditions::is_true(value, "Terminating"),
            types,
            rows: Vec::new(),
        };
        let same = before.filter(|before| {
            Arc::ptr_eq(&before.types, &definition.types)
                && before.established == definition.established
                && before.terminating == definition.terminating
        });
        definition.rows = match same {
            Some(before) => before.rows.clone(),
            None if definition.established => definition.make_rows(value),
            None => Vec::new(),
        };
        definition
    }

    /// The rows of its served versions; none before its names are accepted.
    #[must_use]
    pub fn rows(&self) -> &[Arc<ResourceDef>] {
        &self.rows
    }

    fn make_rows(&self, value: &Value) -> Vec<Arc<ResourceDef>> {
        let served = |version: &Value| version.get("served") == Some(&Value::Bool(true));
        let mut rows: Vec<Arc<ResourceDef>> = list(value, &["spec", "versions"])
            .iter()
            .enumerate()
            .filter(|(_, version)| served(version))
            .map(|(index, version)| Arc::new(self.row(value, index, version)))
            .collect();
        rows.sort_by(|a, b| names::version_order(&b.gvk.version, &a.gvk.version));
        rows
    }

    fn row(&self, value: &Value, index: usize, version: &Value) -> ResourceDef {
        let accepted =
            |name: &str| Text::from(text(value, &["status", "acceptedNames", name]).to_owned());
        let texts = |name: &str| -> Vec<Text> {
            list(value, &["status", "acceptedNames", name])
                .iter()
                .filter_map(Value::as_str)
                .map(|text| text.to_owned().into())
                .collect()
        };
        let given = |path: &str| version.pointer(path).filter(|it| it.is_object());
        let name = text(version, &["name"]).to_owned();
        let kind = accepted("kind");
        let custom = Arc::new(CustomType {
            types: Arc::clone(&self.types),
            index,
        });
        let scale = given("/subresources/scale").map(scale_paths);
        let mut subresources = Vec::new();
        if given("/subresources/status").is_some() {
            subresources.push(Subresource::Status);
        }
        if scale.is_some() {
            subresources.push(Subresource::Scale);
        }
        let mut row = ResourceDef {
            type_name: model_name(&self.group, &name, &kind).into(),
            deprecation: deprecation(value, version),
            gvk: GroupVersionKind {
                group: self.group.clone().into(),
                version: name.into(),
                kind,
            },
            plural: accepted("plural"),
            singular: accepted("singular"),
            list_kind: accepted("listKind"),
            scope: if text(value, &["spec", "scope"]) == "Cluster" {
                Scope::Cluster
            } else {
                Scope::Namespaced
            },
            short_names: texts("shortNames"),
            categories: texts("categories"),
            verbs: ALL_VERBS.to_vec(),
            subresources,
            columns: columns(version),
            selectable: list(version, &["selectableFields"])
                .iter()
                .map(|field| selectable(text(field, &["jsonPath"])))
                .collect(),
            scale,
            storage: Storage::Stored,
            view: None,
            generation: true,
            generation_from_changes: false,
            plain_finalizers: true,
            rechecked: false,
            orphans: false,
            versioned_updates: true,
            made_by_updates: false,
            name_rule: names::dns1123_subdomain,
            source: None,
            strategy: Arc::new(Plain),
            gate: None,
            closing: self.terminating,
            custom: Some(Arc::clone(&custom)),
        };
        row.strategy = Arc::new(Objects::new(custom, &row));
        row
    }
}

fn digest(value: &Value) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in ["/spec", "/status/acceptedNames"] {
        let part = value.pointer(part).unwrap_or(&Value::Null);
        context.update(part.to_string().as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// `stable.example.com/v1 CronTab` is `com.example.stable.v1.CronTab` in OpenAPI.
fn model_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let path = |name: &str| -> Text {
        let path = text(scale, &[name]);
        path.trim_start_matches('.').to_owned().into()
    };
    ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    }
}

fn selectable(path: &str) -> SelectableField {
    let path: Text = path.trim_start_matches('.').to_owned().into();
    SelectableField {
        at: vec![path.clone()],
        path,
        unset: "".into(),
    }
}

/// The columns of a version: those that it names, or the age.
fn columns(version: &Value) -> Vec<Column> {
    let given = list(version, &["additionalPrinterColumns"]);
    if given.is_empty() {
        return vec![Column {
            name: "Age".into(),
            kind: "date".into(),
            format: "".into(),
            description: "CreationTimestamp is a timestamp representing the server time when this \
                          object was created. It is not guaranteed to be set in happens-before \
                          order across separate operations. Clients may not set this value. It \
                          is represented in RFC3339 form and is in UTC.\n\nPopulated by the \
                          system. Read-only. Null for lists. More info: \
                          https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
                .into(),
            priority: 0,
            cell: Cell::Path(JsonPath::parse(".metadata.creationTimestamp").ok()),
        }];
    }
    given
        .iter()
        .map(|column| {
            let owned = |name: &str| text(column, &[name]).to_owned();
            let path = owned("jsonPath");
            let description = match owned("description") {
                text if text.is_empty() => {
                    format!("Custom resource definition column (in JSONPath format): {path}")
                }
                text => text,
            };
            let priority = object::integer(column, &["priority"]).unwrap_or(0);
            Column {
                name: owned("name").into(),
                kind: owned("type").into(),
                format: owned("format").into(),
                description: description.into(),
                priority: i32::try_from(priority).unwrap_or(0),
                cell: Cell::Path(JsonPath::parse(&path).ok()),
            }
        })
        .collect()
}

/// What clients of a deprecated version are told.
fn deprecation(value: &Value, version: &Value) -> Option<Text> {
    let flag = |version: &Value, name: &str| version.get(name) == Some(&Value::Bool(true));
    if !flag(version, "deprecated") {
        return None;
    }
    if let Some(own) = version.get("deprecationWarning").and_then(Value::as_str) {
        return Some(own.to_owned().into());
    }
    let (group, kind) = (
        text(value, &["spec", "group"]),
        text(value, &["spec", "names", "kind"]),
    );
    let name = text(version, &["name"]);
    let newer = list(value, &["spec", "versions"])
        .iter()
        .filter(|other| flag(other, "served") && !flag(other, "deprecated"))
        .map(|other| text(other, &["name"]))
        .filter(|other| names::version_order(name, other).is_lt())
        .max_by(|a, b| names::version_order(a, b));
    let told = format!("{group}/{name} {kind} is deprecated");
    Some(
        match newer {
            Some(newer) => format!("{told}; use {group}/{newer} {kind}"),
            None => told,
        }
        .into(),
    )
}

impl Types {
    fn new(value: &Value, group: &str, stored: Bytes, digest: [u8; 32]) -> Self {
        let versions = list(value, &["spec", "versions"]);
        Self {
            definition: RwLock::new(stored),
            digest,
            storage: versions
                .iter()
                .position(|version| version.get("storage") == Some(&Value::Bool(true)))
                .unwrap_or(0),
            versions: versions
                .iter()
                .map(|version| Version {
                    api_version: format!("{group}/{}", text(version, &["name"])),
                    status: version
                        .pointer("/subresources/status")
                        .is_some_and(Value::is_object),
                    compiled: OnceLock::new(),
                })
                .collect(),
            conversion: Conversion::read(value),
            stopwatch: OnceLock::new(),
        }
    }

    fn renew(&self, stored: Bytes) {
        *self
            .definition
            .write()
            .unwrap_or_else(PoisonError::into_inner) = stored;
    }

    fn schema(&self, index: usize) -> Option<Value> {
        let stored = self
            .definition
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut definition: Value = serde_json::from_slice(&stored).ok()?;
        definition
            .pointer_mut(&format!("/spec/versions/{index}/schema/openAPIV3Schema"))
            .map(Value::take)
    }

    fn compiled(&self, index: usize) -> &Compiled {
        self.versions[index].compiled.get_or_init(|| {
            let schema = self.schema(index).unwrap_or_default();
            let readable = schema.is_object().then(|| Structural::read(&schema).ok());
            // Without a usable schema nothing is known to be unknown.
            let structural = readable.flatten().unwrap_or_else(|| Structural {
                preserve: true,
                ..Structural::default()
            });
            let mut rules = None;
            let mut compile = || rules = Rules::compile(&schema, &structural);
            match self.stopwatch.get() {
                Some(stopwatch) => stopwatch.compile(&mut compile),
                None => compile(),
            }
            let (merge, ty) = merge_type(&structural, metadata_types());
            Compiled {
                structural,
                rules,
                merge,
                ty,
            }
        })
    }
}

impl CustomType {
    fn compiled(&self) -> &Compiled {
        self.types.compiled(self.index)
    }

    /// The schema, compiled.
    #[must_use]
    pub fn structural(&self) -> &Structural {
        &self.compiled().structural
    }

    /// Does some work that holds an object to its rules, and has it measured.
    pub(super) fn timed(&self, mut work: impl FnMut()) {
        match self.types.stopwatch.get() {
            Some(stopwatch) => stopwatch.evaluate(&mut work),
            None => work(),
        }
    }

    /// The schema's rules in CEL.
    #[must_use]
    pub fn rules(&self) -> Option<&Rules> {
        self.compiled().rules.as_ref()
    }

    /// How objects merge.
    #[must_use]
    pub fn merge(&self) -> (&Schema, &Ty) {
        let compiled = self.compiled();
        (&compiled.merge, &compiled.ty)
    }

    /// The schema as the definition has it, read anew.
    #[must_use]
    pub fn schema(&self) -> Option<Value> {
        self.types.schema(self.index)
    }

    /// Changes with all that shapes what is served.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.types.digest
    }

    /// Is it the same type of the same definition, unchanged?
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.types, &other.types) && self.index == other.index
    }

    /// The API version of stored objects.
    #[must_use]
    pub fn stored_version(&self) -> &str {
        &self.types.versions[self.types.storage].api_version
    }

    /// The API version that this is the type of.
    #[must_use]
    pub fn api_version(&self) -> &str {
        &self.types.versions[self.index].api_version
    }

    /// The webhook that converts between the versions, if one does.
    #[must_use]
    pub fn conversion(&self) -> Option<&Conversion> {
        self.types.conversion.as_ref()
    }

    /// Are these stored bytes of a version that only the webhook can bring to this one?
    #[must_use]
    pub fn is_foreign(&self, stored: &Value) -> bool {
        self.types.conversion.is_some() && text(stored, &["apiVersion"]) != self.api_version()
    }

    /// Has this version a status subresource?
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.types.versions[self.index].status
    }

    /// The kind in all its versions, those that are not served too.
    pub fn siblings(&self) -> impl Iterator<Item = Self> {
        (0..self.types.versions.len()).map(|index| Self {
            types: Arc::clone(&self.types),
            index,
        })
    }

    /// The same kind in another of its versions.
    #[must_use]
    pub fn sibling(&self, api_version: &str) -> Option<Self> {
        let index = self
            .types
            .versions
            .iter()
            .position(|version| version.api_version == api_version)?;
        Some(Self {
            types: Arc::clone(&self.types),
            index,
        })
    }

    /// Takes away what this version does not have, as is done to what a webhook returns.
    pub fn prune(&self, value: &mut Value) {
        let structural = self.structural();
        structural.prune_object(value);
        structural.drop_nulls(value);
    }

    /// Brings what a client sent into form: metadata is read as for every kind, unknown fields
    /// and nulls that may not be go.
    pub fn admit(&self, value: &mut Value) -> Admission {
        let structural = self.structural();
        let mut found = Admission::default();
        if let Some(metadata) = value.get_mut("metadata") {
            let types = metadata_types();
            if let Some(ty) = types.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
                let inner = types.admit(&ty, metadata);
                if inner.mismatch.is_some() {
                    return inner;
                }
                let paths = inner.unknown.iter().map(|path| format!("metadata.{path}"));
                found.unknown.extend(paths);
            }
        }
        found.unknown.extend(structural.prune_object(value));
        structural.drop_nulls(value);
        match structural.settle_embedded(metadata_types(), &Path::root(), value) {
            Ok(unknown) => found.unknown.extend(unknown),
            Err(error) => found.mismatch = Some(error.to_string()),
        }
        found
    }

    /// Brings a stored object to this version: its name, what it no longer has, and defaults
    /// that came later. Answers whether anything changed.
    pub fn read_stored(&self, value: &mut Value) -> bool {
        let structural = self.structural();
        let mut changed = false;
        if text(value, &["apiVersion"]) != self.api_version() {
            let version = self.api_version().to_owned();
            object::fields(value).insert("apiVersion".to_owned(), version.into());
            changed = true;
        }
        changed |= !structural.prune_object(value).is_empty();
        changed |= structural.drop_nulls(value);
        changed | structural.set_defaults(value)
    }

    /// What is stored of an object of this version; `None` when it is stored as it is, or when a
    /// webhook has to say.
    #[must_use]
    pub fn to_stored(&self, value: &Value) -> Option<Value> {
        if self.index == self.types.storage || self.types.conversion.is_some() {
            return None;
        }
        let mut stored = value.clone();
        let version = self.stored_version().to_owned();
        object::fields(&mut stored).insert("apiVersion".to_owned(), version.into());
        let structural = &self.types.compiled(self.types.storage).structural;
        structural.prune_object(&mut stored);
        structural.drop_nulls(&mut stored);
        Some(stored)
    }
}
