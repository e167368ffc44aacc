//! Validation of definitions, in the reference's words and with its paths.
//!
//! What all versions have in common is reported as if it stood in the spec itself
//! (`spec.validation.openAPIV3Schema`), because the reference's internal form has it there and
//! people match on those texts.

use serde_json::Value;

use super::conditions;
use super::conversion::validate_reviews;
use super::definition::metadata_types;
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::webhooks::client_config;
use crate::names;
use crate::object::{self, list, text};
use crate::structural::{Structural, Type, check, field_at, is_known_format};
use crate::validation::{self, Cursor};

/// The annotation by which definitions in groups of the project are approved.
pub const API_APPROVED: &str = "api-approved.kubernetes.io";

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
const MOST_SELECTABLE: usize = 8;

/// Everything that is wrong with a definition, or with the change of one.
pub(super) fn validate(definition: &Value, old: Option<&Value>) -> ErrorList {
    let mut out = ErrorList::new();
    let empty = Value::Null;
    let spec = definition.get("spec").unwrap_or(&empty);
    if old.is_none() {
        let wanted = format!(
            "{}.{}",
            text(spec, &["names", "plural"]),
            text(spec, &["group"])
        );
        let wrong = "must be spec.names.plural+\".\"+spec.group";
        let mut held = |field: &str, name: &str| {
            if name != wanted && !name.is_empty() {
                let at = Path::new("metadata").child(field);
                out.push(FieldError::invalid(&at, name, wrong));
            }
        };
        // One that is missing is told of with the metadata, and the prefix of one is held to the same.
        held("name", object::name(definition));
        held(
            "generateName",
            text(definition, &["metadata", "generateName"]),
        );
    }
    self::spec(spec, old, &mut out);
    if let Some(old) = old {
        unchanged(spec, old, &mut out);
    }
    out.extend(validate_names(definition, &["status", "acceptedNames"]));
    stored_versions(definition, &mut out);
    approved(definition, old, &mut out);
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(true)) {
        let at = Path::new("spec").child("preserveUnknownFields");
        out.push(FieldError::invalid(
            &at,
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
             spec.versions[*].schema instead",
        ));
    }
    out
}

/// What an update may not change.
fn unchanged(spec: &Value, old: &Value, out: &mut ErrorList) {
    let before = old.get("spec").unwrap_or(&Value::Null);
    let mut fixed = vec![vec!["group"], vec!["names", "plural"]];
    if conditions::is_true(old, "Established") {
        fixed.insert(0, vec!["scope"]);
        fixed.insert(1, vec!["names", "kind"]);
    }
    for path in fixed {
        let at = path
            .iter()
            .fold(Path::new("spec"), |at, name| at.child(name));
        let (new, old) = (text(spec, &path), text(before, &path));
        validation::immutable(&new.into(), &old.into(), &at, out);
    }
}

fn spec(spec: &Value, old: Option<&Value>, out: &mut ErrorList) {
    let path = Path::new("spec");
    let group = text(spec, &["group"]);
    let at = path.child("group");
    let wrong = names::dns1123_subdomain(group);
    if group.is_empty() {
        out.push(FieldError::required(&at, ""));
    } else if !wrong.is_empty() {
        out.push(FieldError::invalid(&at, group, &wrong.join(",")));
    } else if !group.contains('.') {
        let wrong = "should be a domain with at least one dot";
        out.push(FieldError::invalid(&at, group, wrong));
    }
    let scope = text(spec, &["scope"]);
    if scope.is_empty() {
        out.push(FieldError::required(&path.child("scope"), ""));
    } else if !matches!(scope, "Cluster" | "Namespaced") {
        out.push(FieldError::not_supported(
            &path.child("scope"),
            scope,
            &["Cluster", "Namespaced"],
        ));
    }
    let all = list(spec, &["versions"]);
    let at = path.child("versions");
    for (index, version) in all.iter().enumerate() {
        let at = at.index(index);
        let schema_at = at.child("schema").child("openAPIV3Schema");
        if version
            .pointer("/schema/openAPIV3Schema")
            .is_none_or(Value::is_null)
        {
            out.push(FieldError::required(&schema_at, ""));
        }
    }
    for (index, version) in all.iter().enumerate() {
        let name = text(version, &["name"]);
        let wrong = names::dns1035_label(name);
        let at = at.index(index);
        if !wrong.is_empty() {
            let wrong = wrong.join(",");
            out.push(FieldError::invalid(&at.child("name"), name, &wrong));
        }
        deprecation(version, &at, out);
    }
    parts(all, old, &path, out);
    let mut seen = Vec::new();
    let unique = all.iter().all(|version| {
        let name = text(version, &["name"]);
        let new = !seen.contains(&name);
        seen.push(name);
        new
    });
    let shown = || Value::from(all.to_vec());
    if !unique {
        let wrong = "must contain unique version names";
        out.push(FieldError::invalid(&at, shown(), wrong));
    }
    let stored = |version: &&Value| version.get("storage") == Some(&Value::Bool(true));
    if all.iter().filter(stored).count() != 1 {
        let wrong = "must have exactly one version marked as storage version";
        out.push(FieldError::invalid(&at, shown(), wrong));
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(spec, &["names", name]).is_empty() {
            out.push(FieldError::required(&path.child("names").child(name), ""));
        }
    }
    out.extend(names_of(spec.get("names"), &path.child("names")));
    conversion(spec, old, &path.child("conversion"), out);
}

/// What may differ from version to version: once, in the spec's own words, when it does not.
fn parts(all: &[Value], old: Option<&Value>, path: &Path, out: &mut ErrorList) {
    let same = |name: &str| {
        all.first().is_some_and(|first| {
            all.iter()
                .all(|version| version.get(name) == first.get(name))
        })
    };
    let has_status = |version: &Value| {
        version
            .pointer("/subresources/status")
            .is_some_and(|it| !it.is_null())
    };
    type Check = fn(&Part<'_>, &Path, &mut ErrorList);
    let checks: [(&str, &str, Check); 4] = [
        ("schema", "validation", schema),
        ("subresources", "subresources", subresources),
        (
            "additionalPrinterColumns",
            "additionalPrinterColumns",
            columns,
        ),
        ("selectableFields", "selectableFields", selectable),
    ];
    for (name, common, check) in checks {
        if same(name) {
            let any_status = all.iter().any(has_status);
            if let Some(version) = all.first() {
                let part = Part {
                    version,
                    old,
                    has_status: any_status,
                };
                check(&part, &path.child(common), out);
            }
            continue;
        }
        for (index, version) in all.iter().enumerate() {
            let at = path.child("versions").index(index).child(name);
            let part = Part {
                version,
                old,
                has_status: has_status(version),
            };
            check(&part, &at, out);
        }
    }
}

/// A version whose parts are checked.
struct Part<'v> {
    version: &'v Value,
    /// The definition before the change.
    old: Option<&'v Value>,
    /// Is the status written through its own path?
    has_status: bool,
}

fn schema(part: &Part<'_>, path: &Path, out: &mut ErrorList) {
    let version = part.version;
    if let Some(schema) = version
        .pointer("/schema/openAPIV3Schema")
        .filter(|schema| schema.is_object())
    {
        let at = path.child("openAPIV3Schema");
        let unchanged = part.old.is_some_and(|old| {
            list(old, &["spec", "versions"]).iter().any(|before| {
                before.get("name") == version.get("name")
                    && before.get("schema") == version.get("schema")
            })
        });
        let types = metadata_types();
        out.extend(check::check(&at, schema, part.has_status, unchanged, types));
    }
}

fn deprecation(version: &Value, path: &Path, out: &mut ErrorList) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return;
    };
    let at = path.child("deprecationWarning");
    let mut refuse = |wrong: &str| out.push(FieldError::invalid(&at, warning, wrong));
    if version.get("deprecated") != Some(&Value::Bool(true)) {
        refuse("can only be set for deprecated versions");
        return;
    }
    if warning.len() > 256 {
        refuse("must be <= 256 characters long");
    }
    if warning.is_empty() {
        refuse("must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        refuse(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at \
             index {at}"
        ));
    }
}

fn simple_path(value: &str, at: &Path, below: &[&str], wrong: &str, out: &mut ErrorList) {
    if !value.starts_with('.') {
        let wrong = "must be a simple json path starting with .";
        out.push(FieldError::invalid(at, value, wrong));
    } else if !below.is_empty() && !below.iter().any(|prefix| value.starts_with(prefix)) {
        out.push(FieldError::invalid(at, value, wrong));
    }
}

fn subresources(part: &Part<'_>, path: &Path, out: &mut ErrorList) {
    let version = part.version;
    let Some(scale) = version
        .pointer("/subresources/scale")
        .filter(|scale| scale.is_object())
    else {
        return;
    };
    for (name, below, wrong) in [
        (
            "specReplicasPath",
            ".spec.",
            "should be a json path under .spec",
        ),
        (
            "statusReplicasPath",
            ".status.",
            "should be a json path under .status",
        ),
    ] {
        let at = path.child("scale").child(name);
        match text(scale, &[name]) {
            "" => out.push(FieldError::required(&at, "")),
            value => simple_path(value, &at, &[below], wrong, out),
        }
    }
    let selector = text(scale, &["labelSelectorPath"]);
    if !selector.is_empty() {
        let at = path.child("scale").child("labelSelectorPath");
        let wrong = "should be a json path under either .spec or .status";
        simple_path(selector, &at, &[".spec.", ".status."], wrong, out);
    }
}

fn columns(part: &Part<'_>, path: &Path, out: &mut ErrorList) {
    let version = part.version;
    for (index, column) in list(version, &["additionalPrinterColumns"])
        .iter()
        .enumerate()
    {
        let at = path.index(index);
        if text(column, &["name"]).is_empty() {
            out.push(FieldError::required(&at.child("name"), ""));
        }
        let allowed = format!("must be one of {}", COLUMN_TYPES.join(","));
        match text(column, &["type"]) {
            "" => out.push(FieldError::required(&at.child("type"), &allowed)),
            ty if !COLUMN_TYPES.contains(&ty) => {
                out.push(FieldError::invalid(&at.child("type"), ty, &allowed));
            }
            _ => {}
        }
        let format = text(column, &["format"]);
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let allowed = format!("must be one of {}", COLUMN_FORMATS.join(","));
            out.push(FieldError::invalid(&at.child("format"), format, &allowed));
        }
        match text(column, &["jsonPath"]) {
            "" => out.push(FieldError::required(&at.child("JSONPath"), "")),
            value => simple_path(value, &at.child("JSONPath"), &[], "", out),
        }
    }
}

fn selectable(part: &Part<'_>, path: &Path, out: &mut ErrorList) {
    let version = part.version;
    let all = list(version, &["selectableFields"]);
    let Some(schema) = version
        .pointer("/schema/openAPIV3Schema")
        .and_then(|schema| Structural::read(schema).ok())
    else {
        return;
    };
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (index, field) in all.iter().enumerate() {
        let at = path.index(index).child("jsonPath");
        let value = text(field, &["jsonPath"]);
        if value.is_empty() {
            out.push(FieldError::required(&at, ""));
            continue;
        }
        let (names, found) = match field_at(&schema, value, false) {
            Ok(found) => found,
            Err(wrong) => {
                let wrong = format!("is an invalid path: {wrong}");
                out.push(FieldError::invalid(&at, value, &wrong));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            let wrong = "must not point to fields in metadata";
            out.push(FieldError::invalid(&at, value, wrong));
        }
        if !matches!(found.ty, Type::String | Type::Boolean | Type::Integer) {
            out.push(FieldError::invalid(
                &at,
                value,
                "must point to a field of type string, boolean or integer. Enum string fields and \
                 strings with formats are allowed.",
            ));
        }
        if seen.contains(&names) {
            out.push(FieldError::duplicate(&at, value));
        } else {
            seen.push(names);
        }
    }
    if seen.len() > MOST_SELECTABLE {
        out.push(FieldError::too_many(path, seen.len(), MOST_SELECTABLE));
    }
}

/// What is wrong with names, in the spec or in the status.
pub(super) fn validate_names(definition: &Value, path: &[&str]) -> ErrorList {
    let at = path.iter().fold(Path::root(), |at, name| at.child(name));
    names_of(object::at(definition, path), &at)
}

fn names_of(given: Option<&Value>, path: &Path) -> ErrorList {
    let mut out = ErrorList::new();
    let Some(given) = given else { return out };
    for name in ["plural", "singular"] {
        let value = text(given, &[name]);
        let wrong = names::dns1035_label(value);
        if !value.is_empty() && !wrong.is_empty() {
            out.push(FieldError::invalid(
                &path.child(name),
                value,
                &wrong.join(","),
            ));
        }
    }
    for name in ["kind", "listKind"] {
        let value = text(given, &[name]);
        let wrong = names::dns1035_label(&value.to_lowercase());
        if !value.is_empty() && !wrong.is_empty() {
            let wrong = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            out.push(FieldError::invalid(&path.child(name), value, &wrong));
        }
    }
    for name in ["shortNames", "categories"] {
        for (index, value) in list(given, &[name]).iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let wrong = names::dns1035_label(value);
            if !wrong.is_empty() {
                let at = path.child(name).index(index);
                out.push(FieldError::invalid(&at, value, &wrong.join(",")));
            }
        }
    }
    let kind = text(given, &["kind"]);
    if !kind.is_empty() && kind == text(given, &["listKind"]) {
        let wrong = "kind and listKind may not be the same";
        out.push(FieldError::invalid(&path.child("listKind"), kind, wrong));
    }
    out
}

fn conversion(spec: &Value, old: Option<&Value>, path: &Path, out: &mut ErrorList) {
    let Some(conversion) = spec.get("conversion").filter(|it| it.is_object()) else {
        return;
    };
    let at = path.child("strategy");
    match text(conversion, &["strategy"]) {
        "" => out.push(FieldError::required(&at, "")),
        "None" => {
            let webhook = conversion.get("webhook");
            let wrong = "should not be set when strategy is not set to Webhook";
            if webhook.is_some_and(|it| it.get("clientConfig").is_some()) {
                out.push(FieldError::forbidden(
                    &path.child("webhookClientConfig"),
                    wrong,
                ));
            }
            if !list(conversion, &["webhook", "conversionReviewVersions"]).is_empty() {
                out.push(FieldError::forbidden(
                    &path.child("conversionReviewVersions"),
                    wrong,
                ));
            }
        }
        "Webhook" => webhook(conversion, old, path, out),
        other => out.push(FieldError::not_supported(&at, other, &["None", "Webhook"])),
    }
}

/// The webhook that converts, in the fields of the reference's internal form.
fn webhook(conversion: &Value, old: Option<&Value>, path: &Path, out: &mut ErrorList) {
    let at = path.child("webhookClientConfig");
    let before = old.and_then(|old| object::at(old, &["spec", "conversion"]));
    match object::at(conversion, &["webhook", "clientConfig"]).filter(|it| it.is_object()) {
        None => out.push(FieldError::required(
            &at,
            "required when strategy is set to Webhook",
        )),
        Some(config) => {
            client_config(&Cursor::new(config, at.clone()), out);
            let bundle = |conversion: &Value| {
                text(conversion, &["webhook", "clientConfig", "caBundle"]).to_owned()
            };
            // What was bad may stay so, and what is not in use yet may be mended later.
            let held = old.is_some_and(|old| conditions::is_true(old, "Established"))
                && before.is_none_or(|before| !is_bad_bundle(&bundle(before)));
            let given = bundle(conversion);
            if held && is_bad_bundle(&given) {
                let wrong = "unable to load root certificates: unable to parse bytes as PEM block";
                out.push(FieldError::invalid(&at.child("caBundle"), given, wrong));
            }
        }
    }
    let known = before.is_none_or(|before| {
        let reviews = list(before, &["webhook", "conversionReviewVersions"]);
        let known = |version: &Value| version == "v1" || version == "v1beta1";
        reviews.is_empty() || reviews.iter().any(known)
    });
    out.extend(validate_reviews(
        list(conversion, &["webhook", "conversionReviewVersions"]),
        known,
        &path.child("conversionReviewVersions"),
    ));
}

/// Is there something in a CA bundle (base64 of PEM), and no certificate?
fn is_bad_bundle(bundle: &str) -> bool {
    use base64::Engine as _;
    if bundle.is_empty() {
        return false;
    }
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
    let pem = pem.unwrap_or_default();
    let blocks = x509_parser::pem::Pem::iter_from_buffer(&pem).filter_map(Result::ok);
    let mut certificates = blocks.filter(|block| block.label == "CERTIFICATE");
    !certificates.any(|block| block.parse_x509().is_ok())
}

fn stored_versions(definition: &Value, out: &mut ErrorList) {
    let path = Path::new("status").child("storedVersions");
    let stored = list(definition, &["status", "storedVersions"]);
    if stored.is_empty() {
        let wrong = "must have at least one stored version";
        out.push(FieldError::invalid(&path, Value::Array(Vec::new()), wrong));
        return;
    }
    let versions = list(definition, &["spec", "versions"]);
    for version in versions {
        let name = text(version, &["name"]);
        let storage = version.get("storage") == Some(&Value::Bool(true));
        if storage && !stored.iter().any(|stored| stored == name) {
            let wrong = format!("must have the storage version {name}");
            out.push(FieldError::invalid(&path, stored.to_vec(), &wrong));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if !versions
            .iter()
            .any(|version| text(version, &["name"]) == name)
        {
            let wrong = format!(
                "missing from spec.versions; {name} was previously a storage version, and must \
                 remain in spec.versions until a storage migration ensures no data remains \
                 persisted in {name} and removes {name} from status.storedVersions"
            );
            out.push(FieldError::invalid(&path.index(index), name, &wrong));
        }
    }
}

/// What the approval annotation of a definition in a protected group says: status, reason and
/// message of the condition. `None` for all other groups.
#[must_use]
pub fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    let group = text(definition, &["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|root| group == *root || group.ends_with(&format!(".{root}")));
    if !protected {
        return None;
    }
    let annotation = object::annotation(definition, API_APPROVED).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = annotation
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    Some(if annotation.is_empty() {
        (
            "False",
            "MissingAnnotation",
            format!("protected groups must have approval annotation {API_APPROVED:?}, {see}"),
        )
    } else if annotation.starts_with("unapproved") {
        (
            "False",
            "UnapprovedAnnotation",
            format!("not approved: {annotation:?}"),
        )
    } else if is_url {
        (
            "True",
            "ApprovedAnnotation",
            format!("approved in {annotation}"),
        )
    } else {
        (
            "False",
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {API_APPROVED:?} with either a \
                 URL or a reason starting with \"unapproved\", {see}"
            ),
        )
    })
}

fn approved(definition: &Value, old: Option<&Value>, out: &mut ErrorList) {
    let Some((_, reason, message)) = approval(definition) else {
        return;
    };
    if old
        .and_then(approval)
        .is_some_and(|(_, before, _)| before == reason)
    {
        return;
    }
    let at = Path::new("metadata").child("annotations").key(API_APPROVED);
    match reason {
        "MissingAnnotation" => out.push(FieldError::required(&at, &message)),
        "InvalidAnnotation" => {
            let value = object::annotation(definition, API_APPROVED).unwrap_or_default();
            out.push(FieldError::invalid(&at, value, &message));
        }
        _ => {}
    }
}

/// Warnings about parts of schemas that do not do what they seem to.
pub(super) fn odd_parts(definition: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for version in list(definition, &["spec", "versions"]) {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            odd(schema, &mut out);
        }
    }
    out
}

fn odd(schema: &Value, out: &mut Vec<String>) {
    let mut say = |warning: String| {
        if !out.contains(&warning) {
            out.push(warning);
        }
    };
    let format = text(schema, &["format"]);
    let ty = match text(schema, &["type"]) {
        "" => Type::None,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        _ => Type::Object,
    };
    if !format.is_empty() && !is_known_format(ty, format) {
        say(format!("unrecognized format {format:?}"));
    }
    let items = text(schema, &["items", "type"]);
    if text(schema, &["x-kubernetes-list-type"]) == "set" && matches!(items, "object" | "array") {
        say(format!(
            "x-kubernetes-list-type: set for items of type {items:?} is not supported by \
             server-side apply or CEL validation rules"
        ));
    }
    for (name, value) in schema.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("properties", Value::Object(all)) => all.values().for_each(|it| odd(it, out)),
            ("items" | "additionalProperties" | "not", Value::Object(_)) => odd(value, out),
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                all.iter().for_each(|it| odd(it, out));
            }
            _ => {}
        }
    }
}
