//! A kind is a row.
//!
//! Routes, discovery, OpenAPI, tables, RBAC attributes and the compatibility page all derive from
//! a [`ResourceDef`]; one pipeline serves them all. What differs from kind to kind beyond data is
//! a small [`Strategy`]. Built-in rows and custom resources have the same type.

mod rows;

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::Resource;
use serde_json::Value;

use crate::custom::CustomType;
use crate::field::ErrorList;
use crate::jsonpath::JsonPath;
use crate::names::{self, NameRule};
use crate::schema::SchemaSource;

pub use rows::Rows;

/// Text that is mostly known at build time.
pub type Text = Cow<'static, str>;

/// A group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// Empty for the core group.
    pub group: Text,
    /// `v1`.
    pub version: Text,
    /// `Pod`.
    pub kind: Text,
}

impl GroupVersionKind {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Where objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Once for the cluster.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// What can be done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `create`
    Create,
    /// `delete`
    Delete,
    /// `deletecollection`
    DeleteCollection,
    /// `get`
    Get,
    /// `list`
    List,
    /// `patch`
    Patch,
    /// `update`
    Update,
    /// `watch`
    Watch,
}

impl Verb {
    /// As in RBAC and discovery.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// All verbs, in the order of discovery documents.
pub const ALL_VERBS: [Verb; 8] = [
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// A part of an object, or an action on it, with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// The observed state.
    Status,
    /// `autoscaling/v1 Scale`.
    Scale,
    /// Container logs.
    Log,
    /// Run a program.
    Exec,
    /// Connect to a container.
    Attach,
    /// Forward ports.
    PortForward,
    /// HTTP to the object itself.
    Proxy,
    /// Assign a pod to a node.
    Binding,
    /// `policy/v1 Eviction`.
    Eviction,
    /// Add ephemeral containers.
    EphemeralContainers,
    /// Change resources in place.
    Resize,
    /// `authentication.k8s.io/v1 TokenRequest`.
    Token,
    /// Namespace finalizers.
    Finalize,
    /// Approve a certificate request.
    Approval,
}

impl Subresource {
    /// Path segment.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Token => "token",
            Self::Finalize => "finalize",
            Self::Approval => "approval",
        }
    }

    /// The kind that its bodies have, when it is not the parent's: (group, version, kind).
    #[must_use]
    pub fn own_kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            _ => None,
        }
    }

    /// Verbs in discovery.
    #[must_use]
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status
            | Self::Scale
            | Self::EphemeralContainers
            | Self::Resize
            | Self::Approval => &["get", "patch", "update"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Finalize => &["update"],
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: Text,
    /// `string`, `integer`, `date` …
    pub kind: Text,
    /// `name` for the name column.
    pub format: Text,
    /// For people.
    pub description: Text,
    /// 0 is always shown; higher ones with `-o wide`.
    pub priority: i32,
    /// The cell of an object.
    pub cell: Cell,
}

/// How a cell gets its value.
#[derive(Debug, Clone)]
pub enum Cell {
    /// From the object alone. Times are given as RFC 3339 text in cells of kind `date`.
    Of(fn(&Value) -> Value),
    /// From the object and the current time: ages.
    At(fn(&Value, jiff::Timestamp) -> Value),
    /// By a JSON path, as custom resource columns do; the column's kind says how the value is
    /// shown. A path that can't be read shows nothing.
    Path(Option<JsonPath>),
}

/// A field that lists and watches can select by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectableField {
    /// What it is called in selectors, `spec.nodeName`.
    pub path: Text,
    /// Where its value stands, as dotted paths: the first that is set counts. Mostly the same one.
    pub at: Vec<Text>,
    /// What an unset field compares as.
    pub unset: Text,
}

/// Where a scalable kind keeps its numbers, as dotted paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired replicas, `spec.replicas`.
    pub spec_replicas: Text,
    /// Observed replicas, `status.replicas`.
    pub status_replicas: Text,
    /// The selector; a `metav1.LabelSelector`, a map, or text in query form.
    pub selector: Text,
}

/// What a kind prepares, validates and derives beyond what its row says.
///
/// All of it is pure. The pipeline has already decoded the object, pruned unknown fields and put
/// values in canonical form; it handles metadata, status separation, generation and managed
/// fields for every kind.
pub trait Strategy: Send + Sync + 'static {
    /// Sets defaults. Runs on create, update and patch, and must be idempotent.
    fn defaults(&self, _object: &mut Value) {}
    /// Clears or sets what a creator may not decide.
    fn prepare_create(&self, _object: &mut Value) {}
    /// What follows from how an object came: `unlabelled` says that its maker gave it no labels. Runs
    /// after [`Self::prepare_create`].
    fn prepare_new(&self, _object: &mut Value, _unlabelled: bool) {}
    /// Writes in who makes the object: `username`, `uid`, `groups` and `extra`, as a
    /// `UserInfo` has them.
    fn prepare_creator(&self, _object: &mut Value, _creator: &Value) {}
    /// Keeps what an updater may not change silently.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}
    /// Notes when something was first said, on create (`old` is `None`) and update. `now` is an RFC
    /// 3339 time.
    fn prepare_at(&self, _new: &mut Value, _old: Option<&Value>, _now: &str) {}
    /// Keeps what a status update may not change silently (`spec` is kept already).
    fn prepare_status(&self, _new: &mut Value, _old: &Value) {}
    /// Like [`Self::prepare_status`], for kinds that note when something happened. `now` is an RFC
    /// 3339 time.
    fn prepare_status_at(&self, new: &mut Value, old: &Value, _now: &str) {
        self.prepare_status(new, old);
    }
    /// Keeps what an update through `approval` may not change silently. `now` is an RFC 3339 time.
    fn prepare_approval(&self, _new: &mut Value, _old: &Value, _now: &str) {}
    /// What is wrong with an object beyond metadata.
    fn validate(&self, _object: &Value) -> ErrorList {
        ErrorList::new()
    }
    /// What is wrong with a change; [`Self::validate`] of the new object runs as well.
    fn validate_update(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }
    /// Is of a changed object said first what may not change?
    fn changes_first(&self) -> bool {
        false
    }
    /// What is wrong with a changed object: with what it is now and with what changed. Kinds that
    /// forgive what was wrong before say so here.
    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let (now, changed) = (self.validate(new), self.validate_update(new, old));
        let (mut first, last) = if self.changes_first() {
            (changed, now)
        } else {
            (now, changed)
        };
        first.extend(last);
        first
    }
    /// Marks an object whose deletion begins, before it is decided whether it stays for a while.
    fn prepare_delete(&self, _object: &mut Value, _now: jiff::Timestamp) {}
    /// What is wrong with a change through `approval`.
    fn validate_approval(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }
    /// What is wrong with a status change.
    fn validate_status(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }
    /// Like [`Self::validate_status`], for kinds whose answers must be of now.
    fn validate_status_at(&self, new: &Value, old: &Value, _now: jiff::Timestamp) -> ErrorList {
        self.validate_status(new, old)
    }
    /// Warnings for the client that creates an object (`old` is `None`) or updates it.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }
    /// Warnings for the client that writes a status.
    fn status_warnings(&self, _new: &Value) -> Vec<String> {
        Vec::new()
    }
    /// Seconds an object stays after a delete so that others can wind it down; `None` removes it
    /// at once. `asked` is what the client's delete options say.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }
    /// Does a change need a new generation? By default when anything but metadata and status
    /// differs.
    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        differs(new, old)
    }
}

fn differs(new: &Value, old: &Value) -> bool {
    let desired = |object: &'_ Value| -> Vec<(String, Value)> {
        object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| {
                !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind")
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    match (new.get("spec"), old.get("spec")) {
        (Some(new), Some(old)) => new != old,
        _ => desired(new) != desired(old),
    }
}

/// A kind with nothing of its own to say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Strategy for Plain {}

/// How a kind shows objects that are stored as another kind: both are forms of one thing, and what
/// is written through one is seen through the other.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The group of the stored kind.
    pub group: &'static str,
    /// Its path segment.
    pub plural: &'static str,
    /// Brings an object of this kind into the stored form.
    pub to_stored: fn(&mut Value),
    /// Brings a stored object into the form of this kind.
    pub from_stored: fn(&mut Value),
}

/// What the door does with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Keeps them.
    Stored,
    /// Answers a create and forgets: the review kinds.
    Answered,
    /// Asks the nodes when somebody reads it: the metrics kinds.
    Measured,
    /// Takes bodies of this kind in subresources only; it has no path of its own.
    BodyOnly,
}

/// A kind as the door serves it.
#[derive(Clone)]
pub struct ResourceDef {
    /// Group, version and kind.
    pub gvk: GroupVersionKind,
    /// `pods`: the path segment.
    pub plural: Text,
    /// `pod`.
    pub singular: Text,
    /// `PodList`.
    pub list_kind: Text,
    /// Where it lives.
    pub scope: Scope,
    /// `po`.
    pub short_names: Vec<Text>,
    /// `all`.
    pub categories: Vec<Text>,
    /// What can be done with it.
    pub verbs: Vec<Verb>,
    /// Its other paths.
    pub subresources: Vec<Subresource>,
    /// Table columns after the name, age excluded unless given.
    pub columns: Vec<Column>,
    /// Beyond `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<SelectableField>,
    /// Replicas, for `scale`.
    pub scale: Option<ScalePaths>,
    /// Kept or answered.
    pub storage: Storage,
    /// The stored kind that this one is another form of.
    pub view: Option<View>,
    /// `metadata.generation` is kept.
    pub generation: bool,
    /// It is counted from the first change on: a new object has none, or what it came with.
    pub generation_from_changes: bool,
    /// Finalizers are held to the form of their names alone, and need no domain.
    pub plain_finalizers: bool,
    /// An update is held to the rule for names again, which concerns `generateName`: that may change.
    pub rechecked: bool,
    /// A delete that says nothing of dependents leaves them behind, as with the oldest kinds.
    pub orphans: bool,
    /// An update must say which version of the object it is based on.
    pub versioned_updates: bool,
    /// An update of an object that is not there makes it.
    pub made_by_updates: bool,
    /// What may be a name.
    pub name_rule: NameRule,
    /// The name of its type in the schema.
    pub type_name: Text,
    /// Adds its published schema to a generator; `None` for custom resources.
    pub source: Option<SchemaSource>,
    /// What it does beyond the row.
    pub strategy: Arc<dyn Strategy>,
    /// Told to every client of a version that is to be given up.
    pub deprecation: Option<Text>,
    /// The feature gate that it is behind, which is closed unless somebody opens it.
    pub gate: Option<&'static str>,
    /// Its definition is being deleted: nothing new is made of it.
    pub closing: bool,
    /// The type of a custom kind; built-in types are in the rows' schema.
    pub custom: Option<Arc<CustomType>>,
}

impl std::fmt::Debug for ResourceDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceDef")
            .field("gvk", &self.gvk)
            .finish_non_exhaustive()
    }
}

impl ResourceDef {
    /// The row of a built-in type: group, version, kind, plural and scope come from the type.
    #[must_use]
    pub fn of<K>() -> Self
    where
        K: Resource + schemars::JsonSchema,
        K::Scope: ScopeOf,
    {
        let kind = K::KIND;
        Self {
            gvk: GroupVersionKind {
                group: K::GROUP.into(),
                version: K::VERSION.into(),
                kind: kind.into(),
            },
            plural: K::URL_PATH_SEGMENT.into(),
            singular: kind.to_lowercase().into(),
            list_kind: format!("{kind}List").into(),
            scope: K::Scope::SCOPE,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: ALL_VERBS.to_vec(),
            subresources: Vec::new(),
            columns: Vec::new(),
            selectable: Vec::new(),
            scale: None,
            storage: Storage::Stored,
            view: None,
            generation: false,
            generation_from_changes: false,
            plain_finalizers: false,
            rechecked: false,
            orphans: false,
            versioned_updates: false,
            made_by_updates: false,
            name_rule: names::dns1123_subdomain,
            type_name: K::schema_name(),
            source: Some(|generator| {
                generator.subschema_for::<K>();
            }),
            strategy: Arc::new(Plain),
            deprecation: None,
            gate: None,
            closing: false,
            custom: None,
        }
    }

    /// Takes a verb away.
    #[must_use]
    pub fn without(mut self, verb: Verb) -> Self {
        self.verbs.retain(|kept| *kept != verb);
        self
    }

    /// Adds a short name.
    #[must_use]
    pub fn short(mut self, name: &'static str) -> Self {
        self.short_names.push(name.into());
        self
    }

    /// Puts it into the category `all`.
    #[must_use]
    pub fn in_all(mut self) -> Self {
        self.categories.push("all".into());
        self
    }

    /// Puts it into a category.
    #[must_use]
    pub fn category(mut self, name: &'static str) -> Self {
        self.categories.push(name.into());
        self
    }

    /// Adds subresources. With [`Subresource::Status`] the status is written only there.
    #[must_use]
    pub fn with(mut self, subresources: &[Subresource]) -> Self {
        self.subresources.extend_from_slice(subresources);
        self
    }

    /// Adds a selectable field.
    #[must_use]
    pub fn selectable(self, path: &'static str) -> Self {
        self.selectable_among(path, &[path])
    }

    /// Adds a selectable field whose value is the first that is set of some others.
    #[must_use]
    pub fn selectable_among(mut self, path: &'static str, at: &[&'static str]) -> Self {
        self.selectable.push(SelectableField {
            path: path.into(),
            at: at.iter().map(|&at| at.into()).collect(),
            unset: "".into(),
        });
        self
    }

    /// Adds a selectable field that compares as `unset` when it is not there.
    #[must_use]
    pub fn selectable_or(mut self, path: &'static str, unset: &'static str) -> Self {
        self.selectable.push(SelectableField {
            path: path.into(),
            at: vec![path.into()],
            unset: unset.into(),
        });
        self
    }

    /// Adds a selectable field whose value stands somewhere else, and that compares as `unset` when
    /// it is not there.
    #[must_use]
    pub fn selectable_at_or(
        mut self,
        path: &'static str,
        at: &'static str,
        unset: &'static str,
    ) -> Self {
        self.selectable.push(SelectableField {
            path: path.into(),
            at: vec![at.into()],
            unset: unset.into(),
        });
        self
    }

    /// Makes it scalable through the usual fields.
    #[must_use]
    pub fn scalable(mut self) -> Self {
        self.scale = Some(ScalePaths {
            spec_replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: "spec.selector".into(),
        });
        self.subresources.push(Subresource::Scale);
        self
    }

    /// Keeps `metadata.generation`.
    #[must_use]
    pub fn generations(mut self) -> Self {
        self.generation = true;
        self
    }

    /// Keeps `metadata.generation` from the first change on.
    #[must_use]
    pub fn generations_from_changes(mut self) -> Self {
        self.generation_from_changes = true;
        self.generations()
    }

    /// Takes finalizers without a domain.
    #[must_use]
    pub fn plain_finalizers(mut self) -> Self {
        self.plain_finalizers = true;
        self
    }

    /// Holds updates to the rule for names again.
    #[must_use]
    pub fn rechecked(mut self) -> Self {
        self.rechecked = true;
        self
    }

    /// Leaves dependents behind when a delete says nothing of them.
    #[must_use]
    pub fn orphaning(mut self) -> Self {
        self.orphans = true;
        self
    }

    /// Refuses updates that do not say which version of the object they are based on.
    #[must_use]
    pub fn updated_by_version(mut self) -> Self {
        self.versioned_updates = true;
        self
    }

    /// Lets updates make objects that are not there.
    #[must_use]
    pub fn made_by_updates(mut self) -> Self {
        self.made_by_updates = true;
        self
    }

    /// Makes it another form of a stored kind.
    #[must_use]
    pub fn viewing(mut self, view: View) -> Self {
        self.view = Some(view);
        self
    }

    /// Sets the rule for names.
    #[must_use]
    pub fn named(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    /// Sets the columns.
    #[must_use]
    pub fn columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// Sets the strategy.
    #[must_use]
    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// Answers creates and keeps nothing.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.storage = Storage::Answered;
        self.verbs = vec![Verb::Create];
        self
    }

    /// Says that its version is on its way out: the text that clients are warned with.
    #[must_use]
    pub fn deprecated(mut self, told: &'static str) -> Self {
        self.deprecation = Some(Cow::Borrowed(told));
        self
    }

    /// Is served only where a feature gate has been opened, as in the reference.
    #[must_use]
    pub fn gated(mut self, gate: &'static str) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Is measured when it is read, and never kept.
    #[must_use]
    pub fn measured(mut self) -> Self {
        self.storage = Storage::Measured;
        self.verbs = vec![Verb::Get, Verb::List];
        self
    }

    /// A body of subresources without a path of its own.
    #[must_use]
    pub fn body_only(mut self) -> Self {
        self.storage = Storage::BodyOnly;
        self.verbs = Vec::new();
        self
    }

    /// Is there a status that is written through its own path?
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.subresources.contains(&Subresource::Status)
    }

    /// In a namespace?
    #[must_use]
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Where its objects are in the store: `/registry/GROUP/PLURAL/`, the core group without a
    /// group segment. A view's are where those of its kind are.
    #[must_use]
    pub fn store_prefix(&self) -> String {
        let (group, plural) = match &self.view {
            Some(view) => (view.group, view.plural),
            None => (self.gvk.group.as_ref(), self.plural.as_ref()),
        };
        if group.is_empty() {
            format!("/registry/{plural}/")
        } else {
            format!("/registry/{group}/{plural}/")
        }
    }

    /// `pods` or `deployments.apps`.
    #[must_use]
    pub fn group_resource(&self) -> String {
        crate::status::group_resource(&self.gvk.group, &self.plural)
    }

    /// The same of the kind as which its objects are stored.
    #[must_use]
    pub fn stored_group_resource(&self) -> String {
        self.view.as_ref().map_or_else(
            || self.group_resource(),
            |view| crate::status::group_resource(view.group, view.plural),
        )
    }
}

/// A scope as a type of `k8s-openapi`.
pub trait ScopeOf {
    /// The scope.
    const SCOPE: Scope;
}

impl ScopeOf for k8s_openapi::ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}

impl ScopeOf for k8s_openapi::NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

impl ScopeOf for k8s_openapi::SubResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}
