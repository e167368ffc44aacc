//! `metav1.DeleteOptions`: read from the body of a request, or from its query where there is none.

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::schema::{Schema, Ty};
use evenkeel_api::{Status, cbor, json as codec, object, protobuf};
use serde_json::{Value, json};

use super::{Request, decode, options};
use crate::http::{Query, content_type};

const KIND: &str = "DeleteOptions";
/// Deletes what can't be read; what can be is not deleted this way.
pub(super) const UNREADABLE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// What a delete is to look at and to do.
#[derive(Debug, Default, Clone)]
pub(super) struct Options {
    pub(super) grace: Option<i64>,
    pub(super) propagation: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) dry_run: bool,
    pub(super) unreadable: bool,
}

impl Options {
    /// Those of a delete.
    ///
    /// # Errors
    /// 400 for what are no options, 422 for those that are not allowed.
    pub(super) fn of(request: &Request<'_>) -> Result<Self, Status> {
        let query = &request.call.query;
        if request.call.body.is_empty() {
            return Self::read(&from_query(query)?);
        }
        let body = from_body(request)?;
        if let Some(trail) = &request.call.trail {
            trail.request_object(&body);
        }
        let rows = request.door.rows();
        check_type(rows.schema(), &body)?;
        let mut options = Self::read(&body)?;
        // Who tries something by the query alone has not asked for it to be done.
        options.dry_run |= query.has("dryRun");
        Ok(options)
    }

    /// Those that an object holds.
    ///
    /// # Errors
    /// 422 for what is not allowed.
    pub(super) fn read(value: &Value) -> Result<Self, Status> {
        options::refuse(KIND, &wrong(value))?;
        let text = |path: &[&str]| object::at(value, path).and_then(Value::as_str);
        let text = |path: &[&str]| text(path).map(str::to_owned);
        let orphans = value.get("orphanDependents").and_then(Value::as_bool);
        let policy = orphans.map(|orphans| if orphans { "Orphan" } else { "Background" });
        Ok(Self {
            grace: object::integer(value, &["gracePeriodSeconds"]),
            propagation: text(&["propagationPolicy"]).or(policy.map(str::to_owned)),
            uid: text(&["preconditions", "uid"]),
            revision: text(&["preconditions", "resourceVersion"]),
            dry_run: !object::list(value, &["dryRun"]).is_empty(),
            unreadable: value.get(UNREADABLE).and_then(Value::as_bool) == Some(true),
        })
    }
}

fn from_query(query: &Query) -> Result<Value, Status> {
    let mut value = json!({});
    if let Some(grace) = options::number(query, "gracePeriodSeconds")? {
        value["gracePeriodSeconds"] = grace.into();
    }
    for flag in ["orphanDependents", UNREADABLE] {
        if query.has(flag) {
            value[flag] = query.flag(flag).into();
        }
    }
    if query.has("propagationPolicy") {
        value["propagationPolicy"] = query.get("propagationPolicy").into();
    }
    if query.has("dryRun") {
        value["dryRun"] = query.all("dryRun").collect();
    }
    Ok(value)
}

fn from_body(request: &Request<'_>) -> Result<Value, Status> {
    let body = &request.call.body;
    let wrong = |error: codec::DecodeError| {
        Status::bad_request(format!("couldn't get version/kind; {error}"))
    };
    match content_type(&request.call.parts.headers).as_str() {
        "" | "application/json" => Ok(codec::parse(body).map_err(wrong)?.value),
        "application/yaml" => Ok(codec::parse_yaml(body).map_err(wrong)?.value),
        protobuf::MEDIA_TYPE => decode::delete_options(request),
        cbor::MEDIA_TYPE if request.door.speaks_cbor() => Ok(decode::from_cbor(body)?.value),
        _ => Err(decode::unreadable(request, true)),
    }
}

/// 400 for a body that does not hold delete options. Their version may be any: they are part of all.
fn check_type(schema: &Schema, body: &Value) -> Result<(), Status> {
    if !body.is_object() {
        return Err(decode::no_object(body));
    }
    let kind = object::text(body, &["kind"]);
    if !matches!(kind, "" | KIND) {
        return Err(Status::bad_request(format!(
            "no kind \"{kind}\" is registered for version \"{}\"",
            object::text(body, &["apiVersion"])
        )));
    }
    let ty = protobuf::kind_type(schema, "v1", KIND).unwrap_or(Ty::Any);
    let mut read = body.clone();
    match schema.admit(&ty, &mut read).mismatch {
        Some(why) => Err(Status::bad_request(why)),
        None => Ok(()),
    }
}

fn wrong(value: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let has = |name: &str| value.get(name).is_some_and(|value| !value.is_null());
    let path = Path::new("propagationPolicy");
    if has("propagationPolicy") {
        let policy = object::text(value, &["propagationPolicy"]);
        if has("orphanDependents") {
            errors.push(FieldError::invalid(
                &path,
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if !matches!(policy, "Foreground" | "Background" | "Orphan") {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(&path, policy, &known));
        }
    }
    let dry_run = object::list(value, &["dryRun"]).iter();
    let dry_run: Vec<&str> = dry_run.map(|it| it.as_str().unwrap_or_default()).collect();
    options::dry_run(&dry_run, &mut errors);
    if value.get(UNREADABLE).and_then(Value::as_bool) == Some(true) {
        for other in [
            "propagationPolicy",
            "orphanDependents",
            "gracePeriodSeconds",
            "preconditions",
        ] {
            if has(other) {
                let why = format!("cannot be set together with .{other}");
                errors.push(FieldError::invalid(&Path::new(UNREADABLE), true, &why));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use evenkeel_api::Rows;

    use super::*;

    fn refused(value: &Value) -> String {
        let status = Options::read(value).unwrap_err();
        assert_eq!(status.code, 422);
        let text = status.message;
        let told = text.strip_prefix("DeleteOptions.meta.k8s.io \"\" is invalid: ");
        told.expect("it is about the options").to_owned()
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        assert_eq!(
            refused(&json!({"orphanDependents": true, "propagationPolicy": "Orphan"})),
            "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and \
             deletionPropagation cannot be both set"
        );
        assert_eq!(
            refused(&json!({"propagationPolicy": "Foo", "dryRun": ["X"]})),
            "[propagationPolicy: Unsupported value: \"Foo\": supported values: \"Foreground\", \
             \"Background\", \"Orphan\", \"nil\", dryRun: Unsupported value: [\"X\"]: supported \
             values: \"All\"]"
        );
        assert_eq!(
            refused(&json!({UNREADABLE: true, "gracePeriodSeconds": 1})),
            format!(
                "{UNREADABLE}: Invalid value: true: cannot be set together with \
                 .gracePeriodSeconds"
            )
        );
    }

    #[test]
    fn a_body_must_hold_options() {
        let rows = Rows::builtin();
        let check = |body: Value| check_type(rows.schema(), &body).map_err(|it| it.code);
        assert_eq!(check(json!([])), Err(400));
        assert_eq!(
            check(json!({"kind": "ConfigMap", "apiVersion": "v1"})),
            Err(400)
        );
        assert_eq!(check(json!({"gracePeriodSeconds": "x"})), Err(400));
        assert_eq!(
            check(json!({"kind": KIND, "apiVersion": "apps/v1"})),
            Ok(())
        );
        assert_eq!(check(json!({"foo": 1})), Ok(()));
    }

    #[test]
    fn the_query_holds_options_too() {
        let read = |text: &str| from_query(&Query::parse(text)).and_then(|it| Options::read(&it));
        assert_eq!(read("gracePeriodSeconds=x").unwrap_err().code, 400);
        assert_eq!(read("dryRun=Foo").unwrap_err().code, 422);
        let options = read("gracePeriodSeconds=5&orphanDependents=false").unwrap();
        assert_eq!(options.grace, Some(5));
        assert_eq!(options.propagation.as_deref(), Some("Background"));
        assert!(!options.dry_run);
    }
}
