//! patch: JSON patch, merge patch, strategic merge patch and server-side apply.

use std::sync::Arc;

use evenkeel_api::json::Duplicates;
use evenkeel_api::patch::apply::{ManagerRequest, apply};
use evenkeel_api::patch::{self, PatchError};
use evenkeel_api::row::{GroupVersionKind, ResourceDef, Subresource};
use evenkeel_api::schema::FieldValidation;
use evenkeel_api::{Status, cbor, json, object};
use http::StatusCode;
use serde_json::Value;

use super::forms::Forms;
use super::options::Patching;
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
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Kind {
    /// As the options of patches tell them apart.
    pub(super) fn patching(self) -> Patching {
        if self == Self::Apply {
            Patching::Applied
        } else {
            Patching::Other
        }
    }
}

/// How the patch of a request is to be read, unless its media type is none of a patch for its kind.
pub(super) fn kind_of(request: &Request<'_>) -> Option<Kind> {
    // Merge keys are facts of built-in types: custom kinds have none to merge by.
    let custom = request.row.custom.is_some();
    Some(match content_type(&request.call.parts.headers).as_str() {
        JSON_PATCH => Kind::Json,
        MERGE_PATCH => Kind::Merge,
        STRATEGIC_MERGE_PATCH if !custom => Kind::Strategic,
        APPLY_PATCH => Kind::Apply,
        APPLY_PATCH_CBOR if request.door.speaks_cbor() => Kind::Apply,
        _ => return None,
    })
}

fn unknown_media_type(request: &Request<'_>) -> Status {
    let strategic = request
        .row
        .custom
        .is_none()
        .then_some(STRATEGIC_MERGE_PATCH);
    let cbor = request.door.speaks_cbor().then_some(APPLY_PATCH_CBOR);
    let accepted: Vec<&str> = [JSON_PATCH, MERGE_PATCH]
        .into_iter()
        .chain(strategic)
        .chain([APPLY_PATCH])
        .chain(cbor)
        .collect();
    Status::unsupported_media_type(&accepted.join(", "))
}

/// A patch that has been read but not yet applied.
pub(super) struct Patch {
    kind: Kind,
    value: Value,
    duplicates: Duplicates,
}

impl Patch {
    pub(super) fn read(request: &Request<'_>) -> Result<Self, Status> {
        let kind = kind_of(request).ok_or_else(|| unknown_media_type(request))?;
        let content_type = content_type(&request.call.parts.headers);
        let body = &request.call.body;
        let parsed = if content_type == APPLY_PATCH_CBOR {
            cbor::decode(body)
                .map(|value| json::Parsed {
                    value,
                    duplicates: Duplicates::default(),
                })
                .map_err(|error| json::DecodeError::Json(error.to_string()))
        } else if kind == Kind::Apply {
            json::parse(body)
                .or_else(|_| json::parse_yaml(body))
                .map(|mut parsed| {
                    // Both are YAML to whoever applies.
                    if !parsed.duplicates.is_empty() {
                        parsed.duplicates = json::repeated(&String::from_utf8_lossy(body));
                    }
                    parsed
                })
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
            // What is applied is merged with an eye on who owns what.
            Kind::Apply => Err(PatchError::Invalid(
                "an applied configuration is no patch".to_owned(),
            )),
        };
        new.map_err(|error| error.status())
    }

    /// What `old` becomes, checked against the type that it has to be of.
    pub(super) fn settled(
        &self,
        request: &mut Request<'_>,
        old: &Value,
        gvk: &GroupVersionKind,
        type_name: &str,
    ) -> Result<Value, Status> {
        let mut new = self.on(request, old, type_name)?;
        if self.kind == Kind::Strategic {
            // It is about the fields of a Go struct, and these two are not among them.
            let fields = object::fields(&mut new);
            fields.insert("apiVersion".to_owned(), gvk.api_version().into());
            fields.insert("kind".to_owned(), gvk.kind.to_string().into());
        }
        let versionless = new.is_object() && object::text(&new, &["apiVersion"]).is_empty();
        if versionless && request.row.custom.is_none() {
            // Without a version the reference takes it for something that has no metadata.
            let name = request.name();
            return Err(Status::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        decode::keep_kind(request, gvk, &|new| self.shown(new), &mut new)?;
        let touched = |name: &str| self.touches(name);
        let settled =
            decode::settle_touched(request, type_name, &mut new, &self.duplicates, touched);
        if let Err(why) = settled {
            let whole = self.on(request, old, type_name)?;
            return Err(decode::unpatched(&self.shown(&whole), &why));
        }
        decode::check_place(request, &new)?;
        Ok(new)
    }

    /// What is shown of a patch that comes to nothing: itself, or what it made of an object.
    fn shown(&self, new: &Value) -> String {
        match self.kind {
            Kind::Strategic => patch::go_text(&self.value),
            _ => new.to_string(),
        }
    }

    /// The configuration, if it is one to be applied.
    pub(super) fn configuration(&self) -> Option<&Value> {
        (self.kind == Kind::Apply).then_some(&self.value)
    }
}

/// A configuration that is applied, and how.
pub(super) struct Applied<'f> {
    row: Arc<ResourceDef>,
    config: Value,
    manager: String,
    api_version: String,
    force: bool,
    subresource: Option<Subresource>,
    now: jiff::Timestamp,
    forms: &'f Forms,
}

impl<'f> Applied<'f> {
    pub(super) fn new(
        request: &Request<'_>,
        subresource: Option<Subresource>,
        config: Value,
        forms: &'f Forms,
    ) -> Self {
        Self {
            row: Arc::clone(&request.row),
            config,
            manager: request.field_manager(),
            api_version: request.row.gvk.api_version(),
            force: request.call.query.flag("force"),
            subresource,
            now: request.door.clock().now(),
            forms,
        }
    }

    /// What comes of an object, or of none.
    pub(super) fn to(&self, live: Option<&Value>) -> Result<Value, Unmade> {
        let by = ManagerRequest {
            manager: &self.manager,
            subresource: self.subresource.map_or("", Subresource::as_str),
            api_version: &self.api_version,
            now: self.now,
            custom: self.row.custom.is_some().then(|| self.row.has_status()),
            versions: self.forms,
        };
        let (schema, ty) = self.forms.shape();
        Ok(apply(schema, &ty, live, &self.config, self.force, &by)?)
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
        |request, old| Ok(patch.settled(request, old, &gvk, &type_name)?),
    )
    .await?;
    finish(&request, replaced)
}

/// Refuses what is applied with fields that stand twice, or warns of them, as the client wishes.
fn twice(request: &Request<'_>, duplicates: &Duplicates) -> Result<(), Status> {
    let Duplicates::Lines(lines) = duplicates else {
        return Ok(());
    };
    match request.field_validation() {
        FieldValidation::Strict if !lines.is_empty() => Err(Status::bad_request(format!(
            "error strict decoding patch: error converting YAML to JSON: {}",
            decode::of_yaml(lines)
        ))),
        FieldValidation::Warn => {
            let said = lines.iter().cloned();
            said.for_each(|line| request.call.notes.warn(line));
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
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
        // Of what is there the path says the name; what is made has to say its own.
        object::metadata(&mut config).insert("name".to_owned(), request.name().into());
    } else {
        decode::check_name(&request, &given)?;
    }
    place(&request, &mut config)?;
    let settle = |request: &mut Request<'_>, new: &mut Value| {
        decode::settle(request, &type_name, new, &Duplicates::default())
            .map_err(|why| decode::unhandled(&row.gvk, &why))?;
        twice(request, &patch.duplicates)
    };
    let made_of = object::uid(&config).to_owned();
    let forms = Forms::of(&request);
    let owners = Owners::Applied(&forms);
    let applied = Applied::new(&request, subresource, config, &forms);
    loop {
        let path = crate::registry::path(request.namespace(), request.name());
        request.door.registry.fresh().await?;
        if request.door.registry.cache(&row)?.get(&path).is_some() {
            let replaced = replace(&mut request, subresource, owners, |request, old| {
                let mut new = applied.to(Some(old))?;
                settle(request, &mut new)?;
                Ok(new)
            })
            .await?;
            return finish(&request, replaced);
        }
        if subresource.is_some() || !made_of.is_empty() {
            return Err(request.not_found());
        }
        decode::check_name(&request, &given)?;
        let mut new = owners.made(&mut request, |_| applied.to(None)).await?;
        settle(&mut request, &mut new)?;
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
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        return Err(Status::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
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
            duplicates: Duplicates::default(),
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
