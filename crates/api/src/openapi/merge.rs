//! Swagger documents of other servers in that of this one, as the reference's aggregator merges
//! them.
//!
//! Of a document of another server [`within`] leaves the paths that are asked for there, and the
//! definitions that they need. [`Merged`] adds such documents one after the other: a path that is
//! there already stays as it is, a definition that another one has the name of gets a new name
//! (`…_v2`), and one that is the same but for the kinds that it stands for stands for those too.
//! Parameters that several paths share are written out at each, as in this server's own document.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

const DEFINITION: &str = "#/definitions/";
const PARAMETER: &str = "#/parameters/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// What a document says about the paths under a prefix.
#[must_use]
pub fn within(mut document: Value, prefix: &str) -> Value {
    let shared = document
        .get_mut("parameters")
        .map(Value::take)
        .unwrap_or_default();
    if let Some(paths) = document.get_mut("paths") {
        write_out(paths, &shared);
    }
    if let Some(fields) = document.as_object_mut() {
        fields.remove("parameters");
    }
    keep(&mut document, |path| path.starts_with(prefix));
    json!({
        "paths": document.get_mut("paths").map(Value::take),
        "definitions": document.get_mut("definitions").map(Value::take),
    })
}

/// Writes shared parameters out where they are referred to.
fn write_out(value: &mut Value, shared: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| write_out(item, shared)),
        Value::Object(fields) => {
            let found = reference(fields, PARAMETER).and_then(|name| shared.get(name));
            if let Some(found) = found {
                *value = found.clone();
            } else {
                fields.values_mut().for_each(|item| write_out(item, shared));
            }
        }
        _ => {}
    }
}

fn reference<'v>(fields: &'v Map<String, Value>, prefix: &str) -> Option<&'v str> {
    fields.get("$ref")?.as_str()?.strip_prefix(prefix)
}

/// Leaves some paths, and drops the definitions that only the others needed.
fn keep(document: &mut Value, wanted: impl Fn(&str) -> bool) {
    let before = needed(document);
    match document.get_mut("paths").and_then(Value::as_object_mut) {
        Some(paths) => paths.retain(|path, _| wanted(path)),
        None => return,
    }
    let after = needed(document);
    if let Some(definitions) = document
        .get_mut("definitions")
        .and_then(Value::as_object_mut)
    {
        definitions.retain(|name, _| after.contains(name) || !before.contains(name));
    }
}

/// The definitions that the paths refer to, directly or not.
fn needed(document: &Value) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut open: Vec<&Value> = document.get("paths").into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                if let Some(name) = reference(fields, DEFINITION)
                    && found.insert(name.to_owned())
                {
                    open.extend(document.get("definitions").and_then(|all| all.get(name)));
                }
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    found
}

/// What other servers add to the document of this one.
#[derive(Debug, Default)]
pub struct Merged {
    /// The names of all definitions, those of this server too.
    names: HashSet<String>,
    /// The definitions of this server that another has the names of.
    own: BTreeMap<String, Value>,
    /// Those of them that stand for more kinds now.
    changed: HashSet<String>,
    own_paths: HashSet<String>,
    added: BTreeMap<String, Value>,
    paths: BTreeMap<String, Value>,
}

impl Merged {
    /// Merges documents into that of this server, of which only the names matter and the
    /// definitions that others name the same. The first document goes before the others.
    pub(super) fn of(
        documents: Vec<Value>,
        definitions: impl Iterator<Item = (String, Value)>,
        paths: impl Iterator<Item = String>,
    ) -> Self {
        let theirs: HashSet<String> = documents
            .iter()
            .filter_map(|document| document.get("definitions")?.as_object())
            .flat_map(|all| all.keys().cloned())
            .collect();
        let mut merged = Self {
            own_paths: paths.collect(),
            ..Self::default()
        };
        for (name, definition) in definitions {
            if theirs.contains(&name) {
                merged.own.insert(name.clone(), definition);
            }
            merged.names.insert(name);
        }
        for document in documents {
            merged.add(document);
        }
        merged
    }

    /// A definition of this server as it is shown now.
    pub(super) fn own<'m>(&'m self, name: &str) -> Option<&'m Value> {
        self.changed.contains(name).then(|| self.own.get(name))?
    }

    /// What other servers define.
    pub(super) fn definitions(&self) -> &BTreeMap<String, Value> {
        &self.added
    }

    /// The paths of other servers.
    pub(super) fn paths(&self) -> &BTreeMap<String, Value> {
        &self.paths
    }

    fn definition(&self, name: &str) -> Option<&Value> {
        self.own.get(name).or_else(|| self.added.get(name))
    }

    fn add(&mut self, mut document: Value) {
        let known = |path: &str| self.own_paths.contains(path) || self.paths.contains_key(path);
        let Some(paths) = document.get("paths").and_then(Value::as_object) else {
            return;
        };
        let kept = paths.keys().filter(|path| !known(path)).count();
        if kept == 0 {
            return;
        }
        if kept < paths.len() {
            keep(&mut document, |path| !known(path));
        }
        let take = |document: &mut Value, name: &str| {
            let found = document.get_mut(name).map(Value::take);
            match found {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            }
        };
        let definitions = take(&mut document, "definitions");
        let mut paths = Value::Object(take(&mut document, "paths"));
        let renames: BTreeMap<String, String> = definitions
            .iter()
            .filter_map(|(name, definition)| {
                Some((name.clone(), self.rename(name, definition, &definitions)?))
            })
            .collect();
        refer(&mut paths, &renames);
        for (name, mut definition) in definitions {
            refer(&mut definition, &renames);
            let name = renames.get(&name).cloned().unwrap_or(name);
            self.define(name, definition);
        }
        if let Value::Object(paths) = paths {
            self.paths.extend(paths);
        }
    }

    /// The name that a definition gets whose own another one has.
    fn rename(&self, name: &str, new: &Value, source: &Map<String, Value>) -> Option<String> {
        if self.definition(name).is_none_or(|found| same(found, new)) {
            return None;
        }
        (2_usize..)
            .map(|number| format!("{name}_v{number}"))
            .find(|other| match self.definition(other) {
                // It has been renamed before, for another server.
                Some(found) => same(found, new),
                None => !self.names.contains(other) && !source.contains_key(other),
            })
    }

    fn define(&mut self, name: String, new: Value) {
        if !self.names.contains(&name) {
            self.names.insert(name.clone());
            self.added.insert(name, new);
            return;
        }
        let is_own = self.own.contains_key(&name);
        let all = if is_own {
            &mut self.own
        } else {
            &mut self.added
        };
        let Some(found) = all.get_mut(&name) else {
            return;
        };
        let kinds = |value: &Value| match value.get(KINDS) {
            Some(Value::Array(kinds)) => kinds.clone(),
            _ => Vec::new(),
        };
        let mut both = kinds(found);
        let before = both.len();
        for kind in kinds(&new) {
            if !both.iter().any(|known| key(known) == key(&kind)) {
                both.push(kind);
            }
        }
        if both.len() == before {
            return;
        }
        both.sort_by_key(key);
        found[KINDS] = Value::Array(both);
        if is_own {
            self.changed.insert(name);
        }
    }
}

/// How kinds are ordered and told apart.
fn key(kind: &Value) -> String {
    let text = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}.{}", text("group"), text("version"), text("kind"))
}

/// The same definition, whatever kinds it stands for.
fn same(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let of = |fields: &Map<String, Value>| fields.len() - usize::from(fields.contains_key(KINDS));
    of(a) == of(b)
        && a.iter()
            .all(|(name, value)| name == KINDS || b.get(name) == Some(value))
}

/// Refers to definitions by their new names.
fn refer(value: &mut Value, renames: &BTreeMap<String, String>) {
    if renames.is_empty() {
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, renames)),
        Value::Object(fields) => {
            let new = reference(fields, DEFINITION).and_then(|name| renames.get(name));
            if let Some(new) = new {
                fields.insert("$ref".to_owned(), format!("{DEFINITION}{new}").into());
            }
            fields.values_mut().for_each(|item| refer(item, renames));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(definition: &str) -> Value {
        json!({"get": {"responses": {"200": {"schema":
            {"$ref": format!("#/definitions/{definition}")}}}}})
    }

    fn merged(documents: Vec<Value>) -> Merged {
        let own = [
            (
                "Shared",
                json!({"type": "object", KINDS: [
                {"group": "", "version": "v1", "kind": "Options"}]}),
            ),
            ("Meta", json!({"type": "object", "description": "ours"})),
            ("Meta_v2", json!({"type": "integer"})),
        ];
        Merged::of(
            documents,
            own.map(|(name, value)| (name.to_owned(), value))
                .into_iter(),
            ["/version/".to_owned()].into_iter(),
        )
    }

    #[test]
    fn a_document_is_cut_to_the_paths_of_its_group() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "theirs"},
            "parameters": {"pretty-1": {"name": "pretty", "in": "query", "type": "string"}},
            "paths": {
                "/apis/g/v1/things": {"get": {"responses": {"200": {"schema":
                    {"$ref": "#/definitions/Thing"}}}}, "parameters": [
                        {"$ref": "#/parameters/pretty-1"}]},
                "/version/": path("Info"),
            },
            "definitions": {
                "Thing": {"properties": {"inner": {"$ref": "#/definitions/Inner"}}},
                "Inner": {"properties": {"again": {"$ref": "#/definitions/Thing"}}},
                "Info": {"type": "object"},
                "Unused": {"type": "object"},
            },
        });
        let cut = within(document, "/apis/g/v1/");
        let names = |of: &str| -> Vec<&String> { cut[of].as_object().unwrap().keys().collect() };
        assert_eq!(names("paths"), ["/apis/g/v1/things"]);
        // What nobody needed is no less needed than before.
        let mut definitions = names("definitions");
        definitions.sort();
        assert_eq!(definitions, ["Inner", "Thing", "Unused"]);
        let parameter = &cut["paths"]["/apis/g/v1/things"]["parameters"][0];
        assert_eq!(parameter["name"], "pretty");
    }

    #[test]
    fn a_definition_of_the_same_name_is_renamed_or_shared() {
        let document = json!({
            "paths": {"/apis/g/v1/things": path("Thing"), "/version/": path("Info")},
            "definitions": {
                "Thing": {"properties": {"meta": {"$ref": "#/definitions/Meta"},
                    "shared": {"$ref": "#/definitions/Shared"}}},
                "Meta": {"type": "object", "description": "theirs"},
                "Info": {"type": "object"},
                "Shared": {"type": "object", KINDS: [
                    {"group": "g", "version": "v1", "kind": "Options"},
                    {"group": "", "version": "v1", "kind": "Options"}]},
            },
        });
        let other = json!({
            "paths": {"/apis/h/v1/others": path("Meta")},
            "definitions": {"Meta": document["definitions"]["Meta"]},
        });
        let merged = merged(vec![document, other]);
        let paths: Vec<&String> = merged.paths().keys().collect();
        assert_eq!(paths, ["/apis/g/v1/things", "/apis/h/v1/others"]);
        // `Meta_v2` is somebody else's here, and the second server's is the first one's.
        let names: Vec<&String> = merged.definitions().keys().collect();
        assert_eq!(names, ["Meta_v3", "Thing"]);
        assert_eq!(
            merged.definitions()["Thing"]["properties"]["meta"]["$ref"],
            "#/definitions/Meta_v3"
        );
        assert_eq!(merged.paths()["/apis/h/v1/others"], path("Meta_v3"));
        let shared = merged.own("Shared").unwrap();
        assert_eq!(shared[KINDS].as_array().unwrap().len(), 2);
        assert_eq!(shared[KINDS][0]["group"], "");
        assert!(merged.own("Meta").is_none());
    }
}
