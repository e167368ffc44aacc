//! Types: from the published schemas and the facts to OpenAPI.
//!
//! Definitions are made in the form of OpenAPI 3.0; [`to_v2`] takes from one what Swagger 2.0
//! does not have.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::row::{GroupVersionKind, ResourceDef, Rows, Subresource, Text, Verb};
use crate::schema::{Field, ListType, Ty};

use super::places::Place;
use super::{custom, group_versions, unions};

/// The name of the type that `/version` answers with.
pub(super) const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
pub(super) const REFERENCE: &str = "#/components/schemas/";

/// The name of a type of `meta/v1`.
pub(super) fn meta(kind: &str) -> String {
    format!("{META}{kind}")
}

/// The name of a row's list type.
pub(super) fn list_type(row: &ResourceDef) -> String {
    let parent = row
        .type_name
        .rsplit_once('.')
        .map_or("", |(parent, _)| parent);
    format!("{parent}.{}", row.list_kind)
}

/// All types that a set of rows reaches.
pub(super) struct Definitions<'r> {
    rows: &'r Rows,
    kinds: HashMap<String, Vec<GroupVersionKind>>,
    raw: BTreeMap<String, Value>,
    custom: BTreeMap<String, &'r ResourceDef>,
    form: Form,
}

/// Which OpenAPI a document is in: schemas of custom kinds lose in 2.0 what it can't say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl<'r> Definitions<'r> {
    /// Collects the types of rows, of their lists and subresources, of requests for them, and those
    /// that are answered at places.
    pub(super) fn of(
        rows: &'r Rows,
        own: &[&'r ResourceDef],
        places: &[Place],
        form: Form,
    ) -> Self {
        let mut generator = SchemaGenerator::default();
        let mut kinds: HashMap<String, Vec<GroupVersionKind>> = HashMap::new();
        let mut name_kind = |name: &str, gvk: &GroupVersionKind| {
            let known = kinds.entry(name.to_owned()).or_default();
            if !known.contains(gvk) {
                known.push(gvk.clone());
            }
        };
        for row in rows.iter_builtin() {
            name_kind(&row.type_name, &row.gvk);
        }
        for place in places {
            place.types(&mut generator);
        }
        let builtin = is_builtin(own);
        if !own.is_empty() {
            generator.subschema_for::<meta::ObjectMeta>();
        }
        if builtin {
            generator.subschema_for::<meta::APIResourceList>();
        }
        // What is only ever created, as reviews are, has no requests of these types.
        if own.iter().any(|row| row.verbs.contains(&Verb::List)) {
            generator.subschema_for::<meta::DeleteOptions>();
            generator.subschema_for::<meta::ListMeta>();
            generator.subschema_for::<meta::Patch>();
            generator.subschema_for::<meta::Status>();
            if builtin {
                generator.subschema_for::<meta::WatchEvent<RawExtension>>();
            }
        }
        let bodies = own
            .iter()
            .flat_map(|row| row.subresources.iter())
            .filter_map(|sub| {
                let (group, version, kind) = sub.own_kind()?;
                rows.by_kind(group, version, kind).map(AsRef::as_ref)
            });
        for row in own.iter().copied().chain(bodies) {
            if let Some(source) = row.source {
                source(&mut generator);
            }
        }
        let mut raw: BTreeMap<String, Value> =
            generator.take_definitions(false).into_iter().collect();
        let (customs, published): (Vec<&'r ResourceDef>, Vec<&'r ResourceDef>) =
            own.iter().partition(|row| row.custom.is_some());
        let custom = customs
            .into_iter()
            .map(|row| (row.type_name.to_string(), row))
            .collect();
        for row in published
            .into_iter()
            .filter(|row| row.verbs.contains(&Verb::List))
        {
            let name = list_type(row);
            let kind = GroupVersionKind {
                kind: row.list_kind.clone(),
                ..row.gvk.clone()
            };
            name_kind(&name, &kind);
            raw.insert(name, list(row));
        }
        for of in requests(rows, own, form) {
            for kind in ["DeleteOptions", "WatchEvent"] {
                let kind = GroupVersionKind {
                    kind: kind.into(),
                    ..of.clone()
                };
                name_kind(&meta(&kind.kind), &kind);
            }
        }
        let plain = [
            "Status",
            "APIResourceList",
            "APIVersions",
            "APIGroup",
            "APIGroupList",
        ];
        for kind in plain {
            let gvk = GroupVersionKind {
                group: "".into(),
                version: "v1".into(),
                kind: kind.into(),
            };
            name_kind(&meta(kind), &gvk);
        }
        Self {
            rows,
            kinds,
            raw,
            custom,
            form,
        }
    }

    /// The definitions by name, one after the other.
    pub(super) fn finish(self) -> impl Iterator<Item = (String, Value)> + use<'r> {
        let Self {
            rows,
            kinds,
            raw,
            custom,
            form,
        } = self;
        let published = raw.into_iter().map(move |(name, raw)| {
            let definition = definition(rows, &kinds, &name, raw);
            (name, definition)
        });
        // One custom kind at a time: their schemas are read from their definitions.
        let custom = custom
            .into_values()
            .flat_map(move |row| custom::definitions(row, form));
        published.chain(custom)
    }
}

/// Is any of these rows built in? Documents of custom kinds are about them alone.
pub(super) fn is_builtin(own: &[&ResourceDef]) -> bool {
    own.iter().any(|row| row.custom.is_none())
}

/// Groups and versions that the kinds of requests are listed for: a document of one built-in version
/// has its own, others have all that there ever were. Those of custom kinds are not among them there, so that
/// what is listed does not change when custom kinds come and go.
fn requests(rows: &Rows, own: &[&ResourceDef], form: Form) -> Vec<GroupVersionKind> {
    let of = |group: Text, version: Text| GroupVersionKind {
        group,
        version,
        kind: "".into(),
    };
    let mut all = vec![of("".into(), "v1".into())];
    match form {
        Form::V3 if is_builtin(own) => {
            let own = own.iter().map(|row| &row.gvk);
            all.extend(own.map(|kind| of(kind.group.clone(), kind.version.clone())));
        }
        Form::V2 | Form::V3 => {
            for (group, versions) in KNOWN {
                let versions = versions.split(' ');
                all.extend(versions.map(|version| of((*group).into(), version.into())));
            }
            let served = group_versions(&rows.with_custom(Vec::new()));
            all.extend(served.into_iter().map(|it| of(it.group, it.version)));
        }
    }
    all.sort_by(|a, b| (&a.group, &a.version).cmp(&(&b.group, &b.version)));
    all.dedup();
    all
}

/// Groups and versions that the reference knows, served or not.
const KNOWN: &[(&str, &str)] = &[
    ("admission.k8s.io", "v1 v1beta1"),
    ("admissionregistration.k8s.io", "v1 v1alpha1 v1beta1"),
    ("apiextensions.k8s.io", "v1 v1beta1"),
    ("apiregistration.k8s.io", "v1 v1beta1"),
    ("apps", "v1 v1beta1 v1beta2"),
    ("authentication.k8s.io", "v1 v1alpha1 v1beta1"),
    ("authorization.k8s.io", "v1 v1beta1"),
    ("autoscaling", "v1 v2"),
    ("batch", "v1 v1beta1"),
    ("certificates.k8s.io", "v1 v1alpha1 v1beta1"),
    ("coordination.k8s.io", "v1 v1alpha2 v1beta1"),
    ("discovery.k8s.io", "v1 v1beta1"),
    ("events.k8s.io", "v1 v1beta1"),
    ("extensions", "v1beta1"),
    ("flowcontrol.apiserver.k8s.io", "v1 v1beta1 v1beta2 v1beta3"),
    ("imagepolicy.k8s.io", "v1alpha1"),
    ("internal.apiserver.k8s.io", "v1alpha1"),
    ("lifecycle.k8s.io", "v1alpha1"),
    ("networking.k8s.io", "v1 v1beta1"),
    ("node.k8s.io", "v1 v1alpha1 v1beta1"),
    ("policy", "v1 v1beta1"),
    ("rbac.authorization.k8s.io", "v1 v1alpha1 v1beta1"),
    ("resource.k8s.io", "v1 v1alpha3 v1beta1 v1beta2"),
    ("scheduling.k8s.io", "v1 v1alpha3 v1beta1"),
    ("storage.k8s.io", "v1 v1alpha1 v1beta1"),
    ("storagemigration.k8s.io", "v1 v1beta1"),
];

pub(super) fn list(row: &ResourceDef) -> Value {
    let kind = &row.gvk.kind;
    json!({
        "description": format!("{} is a list of {kind} objects.", row.list_kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"},
            "kind": {"type": "string", "description": "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"},
            "metadata": {"$ref": format!("#/$defs/{META}ListMeta"), "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"},
            "items": {"type": "array", "description": format!("Items is the list of {kind} objects."), "items": {"$ref": format!("#/$defs/{}", row.type_name)}},
        },
    })
}

/// Fields that the reference requires, and the types that they are in.
const REQUIRED: [(&str, &str); 2] = [
    ("io.k8s.api.core.v1.Event", "metadata"),
    ("io.k8s.api.events.v1.Event", "eventTime"),
];

fn definition(
    rows: &Rows,
    kinds: &HashMap<String, Vec<GroupVersionKind>>,
    name: &str,
    raw: Value,
) -> Value {
    let Value::Object(mut fields) = raw else {
        return raw;
    };
    fields.remove("x-kubernetes-int-or-string");
    match name.rsplit('.').next().unwrap_or_default() {
        "IntOrString" => {
            fields.insert("format".into(), "int-or-string".into());
            fields.insert(
                "oneOf".into(),
                json!([{"type": "integer"}, {"type": "string"}]),
            );
        }
        // The reference does not say what these may be.
        "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
            fields.remove("oneOf");
        }
        "JSON" => {
            fields.remove("type");
        }
        "Quantity" => {
            fields.insert(
                "oneOf".into(),
                json!([{"type": "string"}, {"type": "number"}]),
            );
        }
        _ => {}
    }
    let properties = fields.remove("properties");
    let known = properties.as_ref().and_then(Value::as_object);
    let top =
        known.is_some_and(|known| known.contains_key("kind") && known.contains_key("apiVersion"));
    let mut required: Vec<Value> = match fields.remove("required") {
        Some(Value::Array(required)) => required,
        _ => Vec::new(),
    };
    let ty = rows.schema().named(name);
    let facts = |field: &str| rows.schema().field(ty.as_ref()?, field);
    // The types of `k8s-openapi` hold by value what is optional to the API: metadata, and what has a
    // default.
    required.retain(|field| {
        let field = field.as_str().unwrap_or_default();
        let by_value = facts(field).is_some_and(|it| it.default.is_some() && !it.always);
        !(by_value || top && field == "metadata")
    });
    let missing = REQUIRED.iter().filter(|(of, _)| *of == name);
    required.extend(missing.map(|(_, field)| Value::from(*field)));
    if let Some(Value::Object(properties)) = properties {
        let finished: Map<String, Value> = properties
            .into_iter()
            .map(|(field, shape)| {
                let facts = facts(&field);
                let must = required.iter().any(|required| required == field.as_str());
                let is_held =
                    |it: &Field| it.always && !it.pointer && matches!(it.ty, Ty::Struct(_));
                let by_value = facts.is_some_and(is_held)
                    || top
                        && matches!(
                            field.as_str(),
                            "metadata" | "spec" | "status" | "preferredVersion"
                        );
                let plain_list = is_plain_list(name, &field);
                let shape = property(shape, facts, must, by_value, plain_list);
                (field, shape)
            })
            .collect();
        fields.insert("properties".into(), finished.into());
    }
    if !required.is_empty() {
        fields.insert("required".into(), required.into());
    }
    if ty
        .as_ref()
        .and_then(|ty| rows.schema().definition(ty))
        .is_some_and(|found| found.atomic)
    {
        fields.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if let Some(unions) = unions::of(name) {
        fields.insert("x-kubernetes-unions".into(), unions);
    }
    if let Some(kinds) = kinds.get(name) {
        let kinds: Vec<Value> = kinds.iter().map(gvk).collect();
        fields.insert("x-kubernetes-group-version-kind".into(), kinds.into());
    }
    Value::Object(fields)
}

/// A kind as the extension `x-kubernetes-group-version-kind` names it.
pub(super) fn gvk(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

/// The kind of a subresource's bodies: its own or its parent's.
#[must_use]
pub fn body_kind(row: &ResourceDef, sub: Subresource) -> GroupVersionKind {
    if sub == Subresource::Proxy {
        let kind = format!("{}ProxyOptions", row.gvk.kind);
        return GroupVersionKind {
            kind: kind.into(),
            ..row.gvk.clone()
        };
    }
    sub.own_kind().map_or_else(
        || row.gvk.clone(),
        |(group, version, kind)| GroupVersionKind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        },
    )
}

/// A field: `must` says that it is required, `by_value` that it is a struct which is always there,
/// `plain_list` that nobody says how it merges.
fn property(
    shape: Value,
    facts: Option<&Field>,
    must: bool,
    by_value: bool,
    plain_list: bool,
) -> Value {
    let mut shape = reshape(shape);
    let Value::Object(fields) = &mut shape else {
        return shape;
    };
    if by_value && let Some(target) = fields.remove("$ref") {
        fields.insert("allOf".into(), json!([{"$ref": target}]));
    }
    let declared = facts.and_then(|field| field.default.clone());
    let always = facts.map_or(must, |field| field.always && !field.pointer);
    let default = declared
        .or_else(|| (by_value && fields.contains_key("allOf")).then(|| json!({})))
        .or_else(|| if always { zero(fields) } else { None });
    if let Some(default) = default {
        fields.insert("default".into(), default);
    }
    let Some(facts) = facts else {
        if fields.get("type").is_some_and(|ty| ty == "array") && !plain_list {
            fields.insert("x-kubernetes-list-type".into(), "atomic".into());
        }
        return shape;
    };
    if matches!(facts.ty, Ty::List(_)) {
        let kind = match &facts.list {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map(keys) => {
                fields.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                "map"
            }
        };
        fields.insert("x-kubernetes-list-type".into(), kind.into());
    }
    if !facts.values.is_empty() {
        let values = json!(facts.values);
        let held = match facts.ty {
            Ty::List(_) => fields.get_mut("items"),
            Ty::Map(_) => fields.get_mut("additionalProperties"),
            _ => None,
        };
        match held {
            Some(Value::Object(held)) => held.insert("enum".into(), values),
            _ => fields.insert("enum".into(), values),
        };
    }
    if let Some(atomic) = facts.atomic {
        let kind = if atomic { "atomic" } else { "granular" };
        fields.insert("x-kubernetes-map-type".into(), kind.into());
    }
    let strategy = match (facts.patch.merge, facts.patch.retain_keys) {
        (true, true) => Some("merge,retainKeys"),
        (true, false) => Some("merge"),
        (false, true) => Some("retainKeys"),
        (false, false) => facts.patch.replace.then_some("replace"),
    };
    if let Some(strategy) = strategy {
        fields.insert("x-kubernetes-patch-strategy".into(), strategy.into());
    }
    if let Some(key) = &facts.patch.key {
        fields.insert(
            "x-kubernetes-patch-merge-key".into(),
            key.to_string().into(),
        );
    }
    shape
}

/// Lists of kinds (`PodList.items`) have no list type, nor has what the reference gives a type of its
/// own.
fn is_plain_list(name: &str, field: &str) -> bool {
    match field {
        "items" => name.ends_with("List"),
        "verbs" => name.ends_with(".APIResource"),
        _ => false,
    }
}

/// References in OpenAPI's words; one with anything beside it moves into `allOf`, where 3.0 lets
/// it have siblings.
fn reshape(shape: Value) -> Value {
    let Value::Object(mut fields) = shape else {
        return shape;
    };
    if let Some(target) = fields.remove("$ref") {
        let name = target
            .as_str()
            .and_then(|text| text.rsplit('/').next())
            .unwrap_or_default();
        let target = json!({"$ref": format!("{REFERENCE}{name}")});
        if fields.is_empty() {
            return target;
        }
        fields.insert("allOf".into(), json!([target]));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(shape) = fields.remove(inner) {
            fields.insert(inner.into(), reshape(shape));
        }
    }
    Value::Object(fields)
}

fn zero(fields: &Map<String, Value>) -> Option<Value> {
    if fields.get("format").is_some_and(|format| format == "byte") {
        return None;
    }
    match fields.get("type")?.as_str()? {
        "string" => Some("".into()),
        "integer" | "number" => Some(0.into()),
        "boolean" => Some(false.into()),
        _ => None,
    }
}

/// A definition in the words of Swagger 2.0: no defaults (clients of that time take them for
/// their own), references with siblings instead of `allOf`, one type instead of a choice.
pub(super) fn to_v2(shape: Value) -> Value {
    match shape {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("default", _) => {}
                    ("oneOf", _) => {
                        out.insert("type".into(), "string".into());
                    }
                    ("properties", Value::Object(properties)) => {
                        let properties: Map<String, Value> = properties
                            .into_iter()
                            .map(|(name, shape)| (name, to_v2(shape)))
                            .collect();
                        out.insert(name, properties.into());
                    }
                    ("allOf", Value::Array(parts)) => {
                        if let Some(Value::Object(target)) = parts.into_iter().next().map(to_v2) {
                            out.extend(target);
                        }
                    }
                    ("items" | "additionalProperties", inner) => {
                        out.insert(name, to_v2(inner));
                    }
                    ("$ref", Value::String(target)) => {
                        out.insert(name, target.replace(REFERENCE, "#/definitions/").into());
                    }
                    (_, value) => {
                        out.insert(name, value);
                    }
                }
            }
            Value::Object(out)
        }
        other => other,
    }
}
