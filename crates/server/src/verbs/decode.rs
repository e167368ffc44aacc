//! From a request body to an object of the right kind.

use std::collections::HashMap;

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::json::Duplicates;
use evenkeel_api::object::Fields;
use evenkeel_api::row::GroupVersionKind;
use evenkeel_api::schema::{FieldValidation, Ty};
use evenkeel_api::{Status, cbor, json, object, protobuf};
use serde_json::{Value, json as literal};

use super::Request;
use crate::http::content_type;

const ACCEPTED: &str = "application/json, application/yaml";
/// Kinds of bodies that are taken in an older version too, because it has the same fields.
const OLDER: [(&str, &str); 1] = [("policy/v1beta1", "Eviction")];
/// For an object in another namespace than the path is about.
pub(super) const WRONG_NAMESPACE: &str =
    "the namespace of the provided object does not match the namespace sent on the request";
/// So many letters of a body are shown where it is not what it should be.
const SHOWN_OF_BODY: usize = 30;

/// Reads the body as an object of the request's kind.
pub(super) fn body(request: &mut Request<'_>) -> Result<Value, Status> {
    let gvk = request.row.gvk.clone();
    let type_name = request.row.type_name.to_string();
    body_of(request, &gvk, &type_name)
}

/// Reads the body as an object of a given kind (subresources have kinds of their own).
pub(super) fn body_of(
    request: &mut Request<'_>,
    gvk: &GroupVersionKind,
    type_name: &str,
) -> Result<Value, Status> {
    let parsed = parse(request, gvk, type_name)?;
    let mut value = parsed.value;
    if !value.is_object() {
        return Err(no_object(&value));
    }
    if request.row.custom.is_some() && *type_name == *request.row.type_name {
        check_custom_kind(gvk, &request.call.body, &value)?;
    }
    check_kind(gvk, &mut value)?;
    settle(request, type_name, &mut value, &parsed.duplicates)
        .map_err(|why| unhandled(gvk, &why))?;
    record(request, type_name, &value);
    Ok(value)
}

/// 400 for a body that holds something else than an object.
pub(super) fn no_object(value: &Value) -> Status {
    let found = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null | Value::Object(_) => "null",
    };
    Status::bad_request(format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value \
         of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
         \"json:\\\"kind,omitempty\\\"\" }}"
    ))
}

/// Hands the object of a request to the audit log, if it wants it; with defaults, as the reference
/// decodes it.
fn record(request: &Request<'_>, type_name: &str, value: &Value) {
    let Some(trail) = &request.call.trail else {
        return;
    };
    if !trail.wants_request() || *type_name != *request.row.type_name {
        trail.request_object(value);
        return;
    }
    let mut value = value.clone();
    request.row.strategy.defaults(&mut value);
    trail.request_object(&value);
}

fn parse(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    type_name: &str,
) -> Result<json::Parsed, Status> {
    let body = &request.call.body;
    let wrong = |error: json::DecodeError| {
        Status::bad_request(format!("couldn't get version/kind; {error}"))
    };
    match content_type(&request.call.parts.headers).as_str() {
        "" | "application/json" => json::parse(body).map_err(wrong),
        "application/yaml" => json::parse_yaml(body).map_err(wrong),
        protobuf::MEDIA_TYPE if protobuf::has_form(type_name) => {
            from_protobuf(request, gvk, type_name)
        }
        cbor::MEDIA_TYPE if request.door.speaks_cbor() => from_cbor(body),
        _ => Err(unreadable(request, protobuf::has_form(type_name))),
    }
}

/// 415, with the media types that a body may have.
pub(super) fn unreadable(request: &Request<'_>, has_protobuf: bool) -> Status {
    let mut accepted = ACCEPTED.to_owned();
    for (more, is_accepted) in [
        (protobuf::MEDIA_TYPE, has_protobuf),
        (cbor::MEDIA_TYPE, request.door.speaks_cbor()),
    ] {
        if is_accepted {
            accepted.push_str(", ");
            accepted.push_str(more);
        }
    }
    Status::unsupported_media_type(&accepted)
}

/// Reads CBOR, where nothing stands twice: that is refused by itself.
pub(super) fn from_cbor(body: &[u8]) -> Result<json::Parsed, Status> {
    cbor::decode(body)
        .map(|value| json::Parsed {
            value,
            duplicates: Duplicates::default(),
        })
        .map_err(|error| Status::bad_request(format!("couldn't get version/kind; {error}")))
}

/// Reads a protobuf body. The kind in its envelope goes into the object, as JSON has it.
fn from_protobuf(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    type_name: &str,
) -> Result<json::Parsed, Status> {
    let wrong = |error: protobuf::ProtobufError| Status::bad_request(error.to_string());
    let envelope = protobuf::decode_envelope(&request.call.body).map_err(wrong)?;
    let mut head = literal!({"apiVersion": envelope.api_version, "kind": envelope.kind});
    // Before the message is read as what it is not.
    check_kind(gvk, &mut head)?;
    let rows = request.door.rows();
    let schema = rows.schema();
    let ty = schema.named(type_name).unwrap_or(Ty::Any);
    let mut value = protobuf::decode(schema, &ty, envelope.raw).map_err(|error| {
        Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}",
            kind = gvk.kind,
            version = gvk.version
        ))
    })?;
    object::fields(&mut value).append(object::fields(&mut head));
    Ok(json::Parsed {
        value,
        duplicates: Duplicates::default(),
    })
}

/// Reads a body that is `meta.v1.DeleteOptions` of whatever API version.
pub(super) fn delete_options(request: &Request<'_>) -> Result<Value, Status> {
    let wrong = |error: protobuf::ProtobufError| Status::bad_request(error.to_string());
    let envelope = protobuf::decode_envelope(&request.call.body).map_err(wrong)?;
    if !matches!(envelope.kind, "" | "DeleteOptions") {
        return Err(Status::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: {}",
            envelope.kind
        )));
    }
    let rows = request.door.rows();
    let schema = rows.schema();
    let ty = protobuf::kind_type(schema, "v1", "DeleteOptions")
        .ok_or_else(|| Status::unsupported_media_type(ACCEPTED))?;
    protobuf::decode(schema, &ty, envelope.raw).map_err(wrong)
}

/// A custom object says of what kind it is: no type fills that in.
fn check_custom_kind(gvk: &GroupVersionKind, body: &[u8], value: &Value) -> Result<(), Status> {
    let (kind, expected) = (object::text(value, &["kind"]), gvk.api_version());
    if kind.is_empty() {
        let body = String::from_utf8_lossy(body);
        let mut shown: String = body.chars().take(SHOWN_OF_BODY).collect();
        if shown.len() < body.len() {
            shown.push_str(" ...");
        }
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing in \
             '{body}' ({shown})",
            gvk.kind
        )));
    }
    let api_version = object::text(value, &["apiVersion"]);
    if api_version != expected {
        return Err(wrong_version(api_version, &expected));
    }
    check_same(gvk, value, "kind", kind, &gvk.kind)
}

/// 422 for a custom object whose kind or version is another one.
fn check_same(
    gvk: &GroupVersionKind,
    value: &Value,
    field: &str,
    is: &str,
    must_be: &str,
) -> Result<(), Status> {
    if is == must_be {
        return Ok(());
    }
    let error = FieldError::invalid(&Path::new(field), is, &format!("must be {must_be}"));
    let kind = object::text(value, &["kind"]);
    Err(Status::invalid(
        &gvk.group,
        kind,
        object::name(value),
        &[error],
    ))
}

fn wrong_version(found: &str, expected: &str) -> Status {
    Status::bad_request(format!(
        "the API version in the data ({found}) does not match the expected API version ({expected})"
    ))
}

/// The kind of the data must be that of the path. A missing one is filled in.
fn check_kind(gvk: &GroupVersionKind, value: &mut Value) -> Result<(), Status> {
    let api_version = object::text(value, &["apiVersion"]).to_owned();
    let kind = object::text(value, &["kind"]).to_owned();
    let expected = gvk.api_version();
    let is_older = OLDER.contains(&(api_version.as_str(), kind.as_str()));
    if !(api_version.is_empty() || api_version == expected || is_older && kind == gvk.kind) {
        return Err(wrong_version(&api_version, &expected));
    }
    if !kind.is_empty() && kind != gvk.kind {
        let (version, wanted) = (&gvk.version, &gvk.kind);
        return Err(Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {wanted}: converting \
             ({version}.{kind}) to ({version}.{wanted}): unknown conversion"
        )));
    }
    let fields = object::fields(value);
    fields.insert("apiVersion".to_owned(), expected.into());
    fields.insert("kind".to_owned(), gvk.kind.to_string().into());
    Ok(())
}

/// An object must be that of the path: of its name, and of its namespace if it says one.
pub(super) fn check_place(request: &Request<'_>, value: &Value) -> Result<(), Status> {
    check_name(request, object::name(value))?;
    let given = object::namespace(value);
    if request.row.namespaced() && !given.is_empty() && given != request.namespace() {
        return Err(Status::bad_request(WRONG_NAMESPACE));
    }
    Ok(())
}

/// The name of an object must be that of the path.
pub(super) fn check_name(request: &Request<'_>, name: &str) -> Result<(), Status> {
    let wanted = request.name();
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be \
             provided"
        )));
    }
    if name != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}

/// As [`settle`], of a stored object of which only those outermost fields have changed that `touched`
/// says: the others were settled before they were stored.
pub(super) fn settle_touched(
    request: &mut Request<'_>,
    type_name: &str,
    value: &mut Value,
    duplicates: &Duplicates,
    touched: impl Fn(&str) -> bool,
) -> Result<(), String> {
    // The rules of a custom kind are about the whole, and so is what one form of a thing makes of
    // another.
    let apart = request.row.custom.is_none() && request.row.view.is_none();
    let mut settled = Fields::new();
    if apart && let Value::Object(fields) = &mut *value {
        let (changed, kept): (Fields, Fields) = std::mem::take(fields)
            .into_iter()
            .partition(|(name, _)| matches!(name.as_str(), "apiVersion" | "kind") || touched(name));
        (*fields, settled) = (changed, kept);
    }
    settle(request, type_name, value, duplicates)?;
    object::fields(value).append(&mut settled);
    Ok(())
}

/// Checks types, prunes unknown fields as the client wishes, and brings values into canonical
/// form.
///
/// # Errors
/// Why the value is not of its type. What is said with it depends on where the value comes from.
pub(super) fn settle(
    request: &mut Request<'_>,
    type_name: &str,
    value: &mut Value,
    duplicates: &Duplicates,
) -> Result<(), String> {
    let validation = request.field_validation();
    let rows = request.door.rows();
    let found = if *type_name == *request.row.type_name {
        let found = rows.admit(&request.row, value);
        rows.fill(&request.row, value);
        found
    } else {
        let schema = rows.schema();
        let ty = schema.named(type_name).unwrap_or(Ty::Any);
        let found = schema.admit(&ty, value);
        schema.fill(&ty, value);
        found
    };
    if let Some(mismatch) = found.mismatch {
        return Err(mismatch);
    }
    if duplicates.is_empty() && found.unknown.is_empty() {
        return Ok(());
    }
    let (paths, lines): (&[String], &[String]) = match duplicates {
        Duplicates::Fields(paths) => (paths, &[]),
        Duplicates::Lines(lines) => (&[], lines),
    };
    let odd = odd_fields(request, paths, &found.unknown);
    match validation {
        FieldValidation::Ignore => {}
        // Told of refused requests too.
        FieldValidation::Warn => {
            let all = lines.iter().cloned().chain(odd);
            all.for_each(|text| request.call.notes.warn(text));
        }
        FieldValidation::Strict => {
            let lines = (!lines.is_empty()).then(|| of_yaml(lines));
            let all: Vec<String> = lines.into_iter().chain(odd).collect();
            return Err(format!("strict decoding error: {}", all.join(", ")));
        }
    }
    Ok(())
}

/// What the reference's reader of YAML says of fields that stand twice.
pub(super) fn of_yaml(lines: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))
}

/// What is told of fields that stand twice or are not known. The reference meets those of a JSON body
/// as they stand there, but of custom kinds, which it looks at once they are read.
fn odd_fields(request: &Request<'_>, duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let headers = &request.call.parts.headers;
    let json = matches!(content_type(headers).as_str(), "" | "application/json");
    let order = if json && request.row.custom.is_none() {
        json::fields(&request.call.body)
    } else {
        Vec::new()
    };
    // Where a field stands first, and where again.
    let mut places: HashMap<&str, [usize; 2]> = HashMap::new();
    for (at, path) in order.iter().enumerate() {
        let place = places.entry(path).or_insert([at, usize::MAX]);
        if place[0] != at {
            place[1] = place[1].min(at);
        }
    }
    let place = |path: &str, nth: usize| places.get(path).map_or(usize::MAX, |place| place[nth]);
    let twice = duplicates.iter().map(|path| ("duplicate", path, 1));
    let others = unknown.iter().map(|path| ("unknown", path, 0));
    let mut odd: Vec<_> = twice
        .chain(others)
        .map(|(what, path, nth)| (place(path, nth), what, path))
        .collect();
    odd.sort_by_key(|(place, ..)| *place);
    odd.truncate(json::MAX_ODD);
    odd.into_iter()
        .map(|(_, what, path)| format!("{what} field \"{path}\""))
        .collect()
}

/// 400 for a body that is not of its type.
pub(super) fn unhandled(gvk: &GroupVersionKind, why: &str) -> Status {
    Status::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}",
        kind = gvk.kind,
        version = gvk.version
    ))
}

/// 422 for a patch that makes of an object what is not of its type. `shown` is the patch, or what
/// came of it.
pub(super) fn unpatched(shown: &str, why: &str) -> Status {
    let error = FieldError::invalid(&Path::new("patch"), shown, why);
    Status::invalid("", "", "", &[error])
}

/// A patch can't make an object one of another kind. Where it takes kind and version away, built-in
/// types put them back.
pub(super) fn keep_kind(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    shown: &dyn Fn(&Value) -> String,
    value: &mut Value,
) -> Result<(), Status> {
    let expected = gvk.api_version();
    let (kind, api_version) = (
        object::text(value, &["kind"]),
        object::text(value, &["apiVersion"]),
    );
    if kind == gvk.kind && api_version == expected {
        return Ok(());
    }
    let (kind, api_version) = (kind.to_owned(), api_version.to_owned());
    if request.row.custom.is_some() && *gvk == request.row.gvk {
        if kind.is_empty() {
            let why = format!("Object 'Kind' is missing in '{value}'");
            return Err(unpatched(&shown(value), &why));
        }
        if api_version.is_empty() {
            return Err(Status::internal(
                "Object 'apiVersion' is missing in 'object has no apiVersion field'",
            ));
        }
        check_same(gvk, value, "kind", &kind, &gvk.kind)?;
        return check_same(gvk, value, "apiVersion", &api_version, &expected);
    }
    let another =
        !kind.is_empty() && kind != gvk.kind || !api_version.is_empty() && api_version != expected;
    if another {
        let why = format!("no kind \"{kind}\" is registered for version \"{api_version}\"");
        return Err(unpatched(&shown(value), &why));
    }
    let fields = object::fields(value);
    fields.insert("apiVersion".to_owned(), expected.into());
    fields.insert("kind".to_owned(), gvk.kind.to_string().into());
    Ok(())
}
