//! patch: JSON patch, merge patch, strategic merge patch and server-side apply.

use evenkeel_api::patch::apply::{ManagerRequest, apply};
use evenkeel_api::patch::{self, PatchError};
use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, cbor, json, object};
use http::StatusCode;
use serde_json::Value;

use super::forms::Forms;
use super::show::{show, show_value};
use super::write::{Created, Owners, Unmade, create_once, finish, place, replace};
use super::{Request, decode};
use crate::http::{Answer, content_type};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";
const APPLY_PATCH_CBOR: &str = "application/apply-patch+cbor";

/// How a patch is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// A patch that has been read but not yet applied.
pub(super) struct Patch {
    kind: Kind,
    value: Value,
    duplicates: Vec<String>,
}

impl Patch {
    pub(super) fn read(request: &Request<'_>) -> Result<Self, Status> {
        // Merge keys are facts of built-in types: custom kinds have none to merge by.
        let custom = request.row.custom.is_some();
        let content_type = content_type(&request.call.parts.headers);
        let speaks_cbor = request.door.speaks_cbor();
        let kind = match content_type.as_str() {
            JSON_PATCH => Kind::Json,
            MERGE_PATCH => Kind::Merge,
            STRATEGIC_MERGE_PATCH if !custom => Kind::Strategic,
            APPLY_PATCH => Kind::Apply,
            APPLY_PATCH_CBOR if speaks_cbor => Kind::Apply,
            _ => {
                let strategic = (!custom).then_some(STRATEGIC_MERGE_PATCH);
                let cbor = speaks_cbor.then_some(APPLY_PATCH_CBOR);
                let accepted: Vec<&str> = [JSON_PATCH, MERGE_PATCH]
                    .into_iter()
                    .chain(strategic)
                    .chain([APPLY_PATCH])
                    .chain(cbor)
                    .collect();
                return Err(Status::unsupported_media_type(&accepted.join(", ")));
            }
        };
        let force = request.call.query.has("force");
        if kind == Kind::Apply && request.call.query.get("fieldManager").is_empty() {
            return Err(Status::failure(
                422,
                "Invalid",
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                 required for apply patch",
            ));
        }
        if kind != Kind::Apply && force {
            return Err(Status::failure(
                422,
                "Invalid",
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be \
                 specified for non-apply patch",
            ));
        }
        let body = &request.call.body;
        let parsed = if content_type == APPLY_PATCH_CBOR {
            cbor::decode(body)
                .map(|value| json::Parsed {
                    value,
                    duplicates: Vec::new(),
                })
                .map_err(|error| json::DecodeError::Json(error.to_string()))
        } else if kind == Kind::Apply {
            json::parse(body).or_else(|_| json::parse_yaml(body))
        } else {
            json::parse(body)
        };
        let parsed = parsed
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        if let Some(trail) = &request.call.trail {
            trail.request_patch(&parsed.value);
        }
        Ok(Self {
            kind,
            value: parsed.value,
            duplicates: parsed.duplicates,
        })
    }

    /// Can it change an outermost field?
    fn touches(&self, name: &str) -> bool {
        match (self.kind, &self.value) {
            (Kind::Merge | Kind::Strategic, Value::Object(fields)) => {
                // A directive may be about the object as a whole.
                fields.contains_key(name) || fields.keys().any(|name| name.starts_with('$'))
            }
            _ => true,
        }
    }

    /// What `old` becomes. The result has not been checked against the schema.
    pub(super) fn on(
        &self,
        request: &Request<'_>,
        old: &Value,
        type_name: &str,
    ) -> Result<Value, Status> {
        let rows = request.door.rows();
        let schema = rows.schema();
        let ty = schema
            .named(type_name)
            .unwrap_or(evenkeel_api::schema::Ty::Any);
        let new = match self.kind {
            Kind::Json => patch::json_patch(old, &self.value),
            Kind::Merge => patch::merge_patch(old, &self.value),
            Kind::Strategic => patch::strategic_merge_patch(schema, &ty, old, &self.value),
            Kind::Apply => Err(PatchError::Invalid(
                "apply is not supported here".to_owned(),
            )),
        };
        new.map_err(|error| error.status())
    }
}

pub(super) async fn patch(
    mut request: Request<'_>,
    subresource: Option<Subresource>,
) -> Result<Answer, Status> {
    // First of all, as for an update.
    request.door.registry.fresh().await?;
    let patch = Patch::read(&request)?;
    if patch.kind == Kind::Apply {
        return Box::pin(server_side_apply(request, subresource, patch)).await;
    }
    let gvk = request.row.gvk.clone();
    let type_name = request.row.type_name.to_string();
    let replaced = replace(
        &mut request,
        subresource,
        Owners::Tracked,
        |request, old| {
            let mut new = patch.on(request, old, &type_name)?;
            unchanged(old, &new)?;
            let touched = |name: &str| patch.touches(name);
            let duplicates = &patch.duplicates;
            decode::settle_touched(request, &gvk, &type_name, &mut new, duplicates, touched)?;
            Ok(new)
        },
    )
    .await?;
    finish(&request, replaced)
}

/// A patch can't make an object another one.
fn unchanged(old: &Value, new: &Value) -> Result<(), Status> {
    for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
        let (was, is) = (object::text(old, path), object::text(new, path));
        if was != is {
            return Err(Status::bad_request(format!(
                "the {} of the object ({is}) does not match the {} on the URL ({was})",
                path.join("."),
                path.join("."),
            )));
        }
    }
    Ok(())
}

async fn server_side_apply(
    mut request: Request<'_>,
    subresource: Option<Subresource>,
    patch: Patch,
) -> Result<Answer, Status> {
    let row = std::sync::Arc::clone(&request.row);
    let mut config = patch.value;
    let type_name = row.type_name.to_string();
    check_apply(&request, &config)?;
    let given = object::name(&config).to_owned();
    if given.is_empty() {
        object::metadata(&mut config).insert("name".to_owned(), request.name().into());
    } else if given != request.name() {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            request.name()
        )));
    }
    place(&request, &mut config)?;
    let manager = request.field_manager();
    let api_version = row.gvk.api_version();
    let force = request.call.query.flag("force");
    let now = request.door.clock().now();
    let forms = Forms::of(&request);
    let owners = Owners::Applied(&forms);
    let merged = |live: Option<&Value>| -> Result<Value, Unmade> {
        let by = ManagerRequest {
            manager: &manager,
            subresource: subresource.map_or("", Subresource::as_str),
            api_version: &api_version,
            now,
            custom: row.custom.is_some().then(|| row.has_status()),
            versions: &forms,
        };
        let (schema, ty) = forms.shape();
        Ok(apply(schema, &ty, live, &config, force, &by)?)
    };
    loop {
        let path = crate::registry::path(request.namespace(), request.name());
        request.door.registry.fresh().await?;
        if request.door.registry.cache(&row)?.get(&path).is_some() {
            let replaced = replace(&mut request, subresource, owners, |request, old| {
                let mut new = merged(Some(old))?;
                decode::settle(request, &row.gvk, &type_name, &mut new, &patch.duplicates)?;
                Ok(new)
            })
            .await?;
            return finish(&request, replaced);
        }
        if subresource.is_some() || !object::uid(&config).is_empty() {
            return Err(request.not_found());
        }
        let mut new = owners.made(&mut request, |_| merged(None)).await?;
        decode::settle(
            &mut request,
            &row.gvk,
            &type_name,
            &mut new,
            &patch.duplicates,
        )?;
        match create_once(&mut request, new, false).await? {
            Created::Stored(found) => return show(&request, StatusCode::CREATED, &found),
            Created::Dry(value) => return show_value(&request, StatusCode::CREATED, value),
            // Somebody made it just now: apply to that.
            Created::Taken => {}
        }
    }
}

fn check_apply(request: &Request<'_>, config: &Value) -> Result<(), Status> {
    let expected = request.row.gvk.api_version();
    let (api_version, kind) = (
        object::text(config, &["apiVersion"]),
        object::text(config, &["kind"]),
    );
    if api_version != expected || kind != request.row.gvk.kind {
        return Err(Status::bad_request(format!(
            "invalid object type: {api_version}, Kind={kind}; expected {expected}, Kind={}",
            request.row.gvk.kind
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_touches_what_it_names_and_all_where_it_is_about_the_whole() {
        let of = |kind, value| Patch {
            kind,
            value,
            duplicates: Vec::new(),
        };
        let status = json!({"status": {"phase": "Running"}});
        for kind in [Kind::Merge, Kind::Strategic] {
            let patch = of(kind, status.clone());
            assert!(patch.touches("status") && !patch.touches("spec"));
        }
        assert!(of(Kind::Merge, json!({"spec": null})).touches("spec"));
        let whole = json!({"$retainKeys": ["spec"], "spec": {}});
        assert!(of(Kind::Strategic, whole).touches("status"));
        let moved = json!([{"op": "move", "from": "/spec/a", "path": "/status/a"}]);
        assert!(of(Kind::Json, moved).touches("spec"));
        assert!(of(Kind::Apply, status).touches("spec"));
    }
}
