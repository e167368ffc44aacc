//! Paths of resources and what can be done on them, in the form of Swagger 2.0.

use serde_json::{Map, Value, json};

use crate::row::{GroupVersionKind, ResourceDef, Rows, Subresource, Verb};

use super::operation::{Operation, answers, id_prefix, title};
use super::{GroupVersion, parameters, schemas};

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The paths of a group and version, one after the other.
pub(super) fn paths<'p>(
    rows: &'p Rows,
    of: &'p GroupVersion,
    own: &'p [&'p ResourceDef],
) -> impl Iterator<Item = (String, Value)> + 'p {
    // What is said of custom kinds is about them alone.
    let builtin = schemas::is_builtin(own);
    let discovery = builtin.then(|| discovery(of));
    discovery.into_iter().chain(
        own.iter()
            .flat_map(move |row| Resource { rows, of, row }.paths()),
    )
}

fn discovery(of: &GroupVersion) -> (String, Value) {
    let get = Operation {
        id: format!("get{}APIResources", id_prefix(of)),
        description: "get available resources".to_owned(),
        answers: vec![(200, Some(schemas::meta("APIResourceList")))],
        ..Operation::of(of).in_protobuf()
    };
    (format!("/{}/", of.path()), json!({"get": get.build()}))
}

pub(super) struct Resource<'p> {
    rows: &'p Rows,
    pub(super) of: &'p GroupVersion,
    pub(super) row: &'p ResourceDef,
}

impl Resource<'_> {
    fn paths(&self) -> Vec<(String, Value)> {
        let row = self.row;
        let base = format!("/{}", self.of.path());
        let mut paths = Vec::new();
        let collection = if row.namespaced() {
            if row.verbs.contains(&Verb::List) {
                let mut item = Map::new();
                item.insert("get".to_owned(), self.list(true));
                paths.push((
                    format!("{base}/{}", row.plural),
                    self.item(item, false, false, false),
                ));
            }
            format!("{base}/namespaces/{{namespace}}/{}", row.plural)
        } else {
            format!("{base}/{}", row.plural)
        };
        let object = format!("{collection}/{{name}}");
        let namespaced = row.namespaced();
        paths.push((
            collection.clone(),
            self.item(self.collection(), namespaced, false, true),
        ));
        if row.verbs.contains(&Verb::Watch) && row.custom.is_none() {
            paths.extend(self.watches(&base, &collection));
        }
        paths.push((
            object.clone(),
            self.item(self.object(), namespaced, true, true),
        ));
        for sub in &row.subresources {
            let path = format!("{object}/{}", sub.as_str());
            let methods = self.subresource(*sub, false);
            let mut item = self.item(methods, namespaced, true, !is_stream(*sub));
            if let Some(Value::Array(all)) = item.get_mut("parameters") {
                all.extend(parameters::subresource(*sub));
            }
            paths.push((path.clone(), item));
            if *sub == Subresource::Proxy {
                let mut item = self.item(self.subresource(*sub, true), namespaced, true, false);
                if let Some(Value::Array(all)) = item.get_mut("parameters") {
                    all.push(parameters::segment("path", "path to the resource"));
                    all.extend(parameters::subresource(*sub));
                }
                paths.push((format!("{path}/{{path}}"), item));
            }
        }
        paths.retain(|(_, item)| item.as_object().is_some_and(|item| item.len() > 1));
        for (_, item) in &mut paths {
            parameters::share(item);
        }
        paths
    }

    /// A path item: methods and the parameters that all of them take.
    pub(super) fn item(
        &self,
        mut methods: Map<String, Value>,
        namespaced: bool,
        named: bool,
        pretty: bool,
    ) -> Value {
        let mut shared = Vec::new();
        if named {
            let text = format!("name of the {}", self.row.gvk.kind);
            shared.push(parameters::segment("name", &text));
        }
        if namespaced {
            let text = "object name and auth scope, such as for teams and projects";
            shared.push(parameters::segment("namespace", text));
        }
        if pretty {
            shared.push(parameters::pretty());
        }
        methods.insert("parameters".to_owned(), shared.into());
        Value::Object(methods)
    }

    pub(super) fn id(&self, verb: &str, infix: &str, suffix: &str) -> String {
        let place = if self.row.namespaced() && !suffix.ends_with("ForAllNamespaces") {
            "Namespaced"
        } else {
            ""
        };
        format!(
            "{verb}{}{infix}{place}{}{suffix}",
            id_prefix(self.of),
            self.row.gvk.kind
        )
    }

    pub(super) fn operation(
        &self,
        action: &'static str,
        id: String,
        description: String,
    ) -> Operation {
        let plain = Operation::of(self.of);
        let plain = match self.row.custom {
            None => plain.in_protobuf(),
            Some(_) => plain,
        };
        Operation {
            id,
            description,
            action: Some(action),
            kind: Some(self.row.gvk.clone()),
            ..plain
        }
    }

    fn list(&self, everywhere: bool) -> Value {
        let row = self.row;
        let suffix = if everywhere { "ForAllNamespaces" } else { "" };
        let watch = row.verbs.contains(&Verb::Watch);
        let mut operation = self.operation(
            "list",
            self.id("list", "", suffix),
            format!("list or watch objects of kind {}", row.gvk.kind),
        );
        operation.parameters = parameters::list(watch);
        if everywhere {
            operation.parameters.push(parameters::pretty());
        }
        if watch && row.custom.is_none() {
            operation.streams();
        }
        operation.answers = vec![(200, Some(schemas::list_type(row)))];
        operation.build()
    }

    fn collection(&self) -> Map<String, Value> {
        let row = self.row;
        let kind = &row.gvk.kind;
        let mut methods = Map::new();
        if row.verbs.contains(&Verb::List) {
            methods.insert("get".to_owned(), self.list(false));
        }
        if row.verbs.contains(&Verb::Create) {
            let id = self.id("create", "", "");
            let mut operation =
                self.operation("post", id, format!("create {} {kind}", article(kind)));
            operation.parameters = parameters::write();
            operation
                .parameters
                .push(parameters::body(&row.type_name, true));
            operation.consumes = vec!["*/*"];
            operation.answers = answers(&[200, 201, 202], &row.type_name);
            methods.insert("post".to_owned(), operation.build());
        }
        if row.verbs.contains(&Verb::DeleteCollection) {
            let id = self.id("delete", "Collection", "");
            let mut operation = self.operation(
                "deletecollection",
                id,
                format!("delete collection of {kind}"),
            );
            operation.parameters = parameters::select();
            operation.parameters.extend(parameters::delete());
            operation
                .parameters
                .push(parameters::body(&schemas::meta("DeleteOptions"), false));
            operation.consumes = vec!["*/*"];
            operation.answers = answers(&[200], &schemas::meta("Status"));
            methods.insert("delete".to_owned(), operation.build());
        }
        methods
    }

    fn object(&self) -> Map<String, Value> {
        let row = self.row;
        let kind = row.gvk.kind.as_ref();
        let mut methods = Map::new();
        if row.verbs.contains(&Verb::Get) {
            methods.insert(
                "get".to_owned(),
                self.read(&format!("read the specified {kind}"), "", &row.gvk),
            );
        }
        if row.verbs.contains(&Verb::Update) {
            let text = format!("replace the specified {kind}");
            methods.insert("put".to_owned(), self.replace(&text, "", &row.gvk));
        }
        if row.verbs.contains(&Verb::Patch) {
            let text = format!("partially update the specified {kind}");
            methods.insert("patch".to_owned(), self.patch(&text, "", &row.gvk));
        }
        if row.verbs.contains(&Verb::Delete) {
            let id = self.id("delete", "", "");
            let mut operation =
                self.operation("delete", id, format!("delete {} {kind}", article(kind)));
            operation.parameters = parameters::delete();
            operation
                .parameters
                .push(parameters::body(&schemas::meta("DeleteOptions"), false));
            operation.consumes = vec!["*/*"];
            // Kinds with graceful deletion are answered with the object, others with a status.
            let graceful = row.strategy.grace_period(&Value::Null, None).is_some();
            let status = schemas::meta("Status");
            operation.answers =
                answers(&[200, 202], if graceful { &row.type_name } else { &status });
            methods.insert("delete".to_owned(), operation.build());
        }
        methods
    }

    fn type_of<'s>(&'s self, kind: &GroupVersionKind) -> Option<&'s str> {
        if *kind == self.row.gvk {
            return Some(&self.row.type_name);
        }
        self.rows
            .by_kind(&kind.group, &kind.version, &kind.kind)
            .map(|row| row.type_name.as_ref())
    }

    fn with_kind(
        &self,
        action: &'static str,
        id: String,
        text: &str,
        kind: &GroupVersionKind,
    ) -> Operation {
        Operation {
            kind: Some(kind.clone()),
            ..self.operation(action, id, text.to_owned())
        }
    }

    fn read(&self, text: &str, suffix: &str, kind: &GroupVersionKind) -> Value {
        let mut operation = self.with_kind("get", self.id("read", "", suffix), text, kind);
        operation.answers = self
            .type_of(kind)
            .map_or_else(Vec::new, |ty| answers(&[200], ty));
        operation.build()
    }

    fn replace(&self, text: &str, suffix: &str, kind: &GroupVersionKind) -> Value {
        let mut operation = self.with_kind("put", self.id("replace", "", suffix), text, kind);
        operation.parameters = parameters::write();
        operation.consumes = vec!["*/*"];
        if let Some(ty) = self.type_of(kind) {
            operation.parameters.push(parameters::body(ty, true));
            operation.answers = answers(&[200, 201], ty);
        }
        operation.build()
    }

    fn patch(&self, text: &str, suffix: &str, kind: &GroupVersionKind) -> Value {
        let mut operation = self.with_kind("patch", self.id("patch", "", suffix), text, kind);
        operation.parameters = parameters::patch();
        operation
            .parameters
            .push(parameters::body(&schemas::meta("Patch"), true));
        operation.consumes = PATCHES
            .into_iter()
            .filter(|media| self.row.custom.is_none() || !media.contains("strategic"))
            .collect();
        operation.answers = self
            .type_of(kind)
            .map_or_else(Vec::new, |ty| answers(&[200, 201], ty));
        operation.build()
    }

    fn subresource(&self, sub: Subresource, with_path: bool) -> Map<String, Value> {
        let kind = schemas::body_kind(self.row, sub);
        let parent = self.row.gvk.kind.as_ref();
        let suffix = format!(
            "{}{}",
            title(sub.as_str()),
            if with_path { "WithPath" } else { "" }
        );
        let name = sub.as_str();
        let mut methods = Map::new();
        // Proxies take whatever HTTP has.
        let further: &[&str] = match sub {
            Subresource::Proxy => &["head", "options"],
            _ => &[],
        };
        for verb in sub.verbs().iter().chain(further) {
            let method = match *verb {
                "create" => "post",
                "update" => "put",
                other => other,
            };
            let operation = if is_stream(sub) {
                self.connect(method, &suffix, name, &kind)
            } else {
                match method {
                    "get" if sub == Subresource::Log => {
                        let id = self.id("read", "", &suffix);
                        let text = format!("read {name} of the specified {parent}");
                        let mut operation = self.with_kind("get", id, &text, &kind);
                        operation.produces.insert(0, "text/plain");
                        operation.answers = vec![(200, None)];
                        operation.build()
                    }
                    "get" => self.read(
                        &format!("read {name} of the specified {parent}"),
                        &suffix,
                        &kind,
                    ),
                    "put" => self.replace(
                        &format!("replace {name} of the specified {parent}"),
                        &suffix,
                        &kind,
                    ),
                    "patch" => self.patch(
                        &format!("partially update {name} of the specified {parent}"),
                        &suffix,
                        &kind,
                    ),
                    _ => self.create_in(&suffix, name, &kind),
                }
            };
            methods.insert(method.to_owned(), operation);
        }
        methods
    }

    fn create_in(&self, suffix: &str, name: &str, kind: &GroupVersionKind) -> Value {
        let parent = self.row.gvk.kind.as_ref();
        let text = format!("create {name} of {} {parent}", article(parent));
        let mut operation = self.with_kind("post", self.id("create", "", suffix), &text, kind);
        operation.parameters = parameters::write();
        operation.consumes = vec!["*/*"];
        if let Some(ty) = self.type_of(kind) {
            operation.parameters.push(parameters::body(ty, true));
            operation.answers = answers(&[200, 201, 202], ty);
        }
        operation.build()
    }

    fn connect(&self, method: &str, suffix: &str, name: &str, kind: &GroupVersionKind) -> Value {
        let id = self.id("connect", &title(method), suffix);
        let text = format!(
            "connect {} requests to {name} of {}",
            method.to_uppercase(),
            self.row.gvk.kind
        );
        let mut operation = self.with_kind("connect", id, &text, kind);
        operation.consumes = vec!["*/*"];
        operation.produces = vec!["*/*"];
        operation.answers = vec![(200, None)];
        operation.build()
    }
}

fn is_stream(sub: Subresource) -> bool {
    matches!(
        sub,
        Subresource::Exec | Subresource::Attach | Subresource::PortForward | Subresource::Proxy
    )
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an"
    } else {
        "a"
    }
}
