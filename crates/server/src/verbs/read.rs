//! get and list.

use std::fmt;
use std::sync::Arc;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use evenkeel_api::Status;
use evenkeel_api::row::ResourceDef;
use evenkeel_api::selector::{FieldSelector, LabelSelector};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Request;
use super::options;
use super::show::{TableStyle, encode, metadata_only, show};
use crate::http::{Answer, Encoding, Media, Query, Shape, json_bytes};
use crate::object::{Object, Selection};

/// What is said of a token whose revision is gone.
const CONTINUE_GONE: &str = "The provided continue parameter is too old to display a consistent list \
     result. You can start a new list without the continue parameter, or use the continue token in \
     this response to retrieve the remainder of the results. Continuing with the provided token \
     results in an inconsistent list - objects that were created, modified, or deleted between the \
     time the first chunk was returned and now may show up in the list.";
/// What tells the tokens of this form from others.
const TOKEN: &str = "meta.k8s.io/v1";
/// In a token: go on with what is there now.
const NEWEST: i64 = -1;

/// Where a list goes on: the revision it shows and the last object given out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Continue {
    v: String,
    pub(crate) rv: i64,
    pub(crate) start: String,
}

pub(super) async fn get(request: Request<'_>) -> Result<Answer, Status> {
    let registry = &request.door.registry;
    let cache = registry.cache(&request.row)?;
    // "0" takes what the cache has; anything else, a fresh read included, is served from a cache
    // that is at least that new.
    match request.call.query.get("resourceVersion") {
        "0" => {}
        "" => {
            registry.fresh().await?;
        }
        at_least => reach(&request, revision_of(at_least)?).await?,
    }
    let path = crate::registry::path(request.namespace(), request.name());
    let found = cache.get(&path).ok_or_else(|| request.not_found())?;
    let found = registry.shown_one(&request.row, found).await?;
    show(&request, StatusCode::OK, &found)
}

/// Reads a resource version.
pub(super) fn revision_of(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        Status::failure(
            400,
            "BadRequest",
            format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"),
        )
    })
}

/// Waits for the cache to be as new as the client asks, within reason.
async fn reach(request: &Request<'_>, revision: u64) -> Result<(), Status> {
    let registry = &request.door.registry;
    let current = registry.fresh().await?;
    if revision > current {
        return Err(crate::registry::store_status(
            &evenkeel_store::StoreError::FutureRevision {
                requested: revision,
                current,
            },
        ));
    }
    Ok(())
}

/// Reads label and field selectors.
pub(super) fn selection(request: &Request<'_>) -> Result<Selection, Status> {
    let query = &request.call.query;
    let labels = LabelSelector::parse(query.get("labelSelector")).map_err(|error| {
        Status::bad_request(format!("unable to parse requirement: {error}").replace(
            "unable to parse requirement: unable to parse requirement",
            "unable to parse requirement",
        ))
    })?;
    let mut fields = FieldSelector::parse(query.get("fieldSelector"))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    // The old path of a watch may name one object; otherwise the name is one of these terms.
    let name = request.name();
    let named = fields
        .terms
        .iter()
        .any(|(field, ..)| field == "metadata.name");
    if request.call.attributes.verb == "watch" && !name.is_empty() && !named {
        let term = ("metadata.name".to_owned(), true, name.to_owned());
        fields.terms.push(term);
    }
    for (field, _, _) in &fields.terms {
        if !is_selectable(&request.row, field) {
            return Err(Status::bad_request(format!(
                "field label not supported: {field}"
            )));
        }
    }
    Ok(Selection {
        namespace: request.namespace().to_owned(),
        labels,
        fields,
    })
}

/// Can objects of a kind be selected by a field? The reference lets those in no namespace be selected
/// by their namespace only where nobody wrote down what they can be selected by.
fn is_selectable(row: &ResourceDef, field: &str) -> bool {
    match field {
        "metadata.name" => true,
        "metadata.namespace" => {
            row.namespaced() || (row.custom.is_none() && row.selectable.is_empty())
        }
        _ => row.selectable.iter().any(|known| known.path == *field),
    }
}

/// Which objects a list shows: them, the revision, and how the list goes on.
pub(super) struct Page {
    pub(super) objects: Vec<Arc<Object>>,
    pub(super) revision: u64,
    continue_token: String,
    /// There are others behind it.
    more: bool,
    /// How many, where that is told.
    remaining: Option<usize>,
}

pub(super) async fn page(request: &Request<'_>, query: &Query) -> Result<Page, Status> {
    let registry = &request.door.registry;
    let cache = registry.cache(&request.row)?;
    options::check_list(query, false)?;
    let selection = selection(request)?;
    let limit = match query.number("limit") {
        Some(limit) if limit > 0 => usize::try_from(limit).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let asked = query.get("resourceVersion");
    let how = query.get("resourceVersionMatch");
    let token = query.get("continue");
    let from = if token.is_empty() {
        None
    } else {
        Some(check_token(asked, token)?)
    };
    // Without a selector a page is the first objects, and one more shows that there are others;
    // with one, it takes what it takes.
    let plain = selection.labels.is_everything() && selection.fields.is_everything();
    let most = if plain {
        limit.saturating_add(1)
    } else {
        usize::MAX
    };
    // Who asks for a part of a list as of a revision means that one, without saying so.
    let exact =
        how == "Exact" || (how.is_empty() && limit < usize::MAX && !matches!(asked, "" | "0"));
    let (candidates, count, revision) = if let Some(from) = from {
        onward(request, &selection, from, most).await?
    } else {
        match (asked, how) {
            ("0", _) => {}
            ("", _) => {
                registry.fresh().await?;
            }
            (at_least, _) => reach(request, revision_of(at_least)?).await?,
        }
        if exact {
            let exact = revision_of(asked)?;
            let (objects, count) = at(request, &selection, None, exact, most).await?;
            (objects, count, exact)
        } else {
            // Read before the objects: they are complete up to this revision at least.
            let revision = registry.caches.revision();
            let snapshot = cache.snapshot_of(&selection.namespace, most);
            let revision = revision.max(snapshot.last);
            (snapshot.objects, snapshot.count, revision)
        }
    };
    // Before selection: a conversion may change labels and fields.
    let candidates = registry.shown(&request.row, candidates).await?;
    let mut page = cut(request, &selection, candidates, revision, limit);
    if plain && page.more {
        page.remaining = Some(count - page.objects.len());
    }
    Ok(page)
}

/// What comes behind a page: the objects, how many there are, and the revision.
async fn onward(
    request: &Request<'_>,
    selection: &Selection,
    from: Continue,
    most: usize,
) -> Result<(Vec<Arc<Object>>, usize, u64), Status> {
    // What is in other namespaces is nothing to those who may read this one.
    let inside = crate::registry::path(&selection.namespace, "");
    if !from.start.starts_with(&inside) {
        return Err(wrong_token(&from.start));
    }
    let revision = match u64::try_from(from.rv) {
        Ok(revision) => revision,
        Err(_) => request.door.registry.fresh().await?,
    };
    let found = at(request, selection, Some(&from.start), revision, most).await;
    let (objects, count) = found.map_err(|status| offer(status, from))?;
    Ok((objects, count, revision))
}

/// The first objects behind a path at a revision, at most so many, and how many there are: from
/// the cache when nothing changed since, otherwise from history.
async fn at(
    request: &Request<'_>,
    selection: &Selection,
    after: Option<&str>,
    revision: u64,
    most: usize,
) -> Result<(Vec<Arc<Object>>, usize), Status> {
    let registry = &request.door.registry;
    let cache = registry.cache(&request.row)?;
    registry.fresh().await?;
    match cache.list_at(&selection.namespace, after, revision, most) {
        Some(found) => Ok(found),
        None => {
            registry
                .list_at(&request.row, &selection.namespace, after, revision, most)
                .await
        }
    }
}

fn cut(
    request: &Request<'_>,
    selection: &Selection,
    candidates: Vec<Arc<Object>>,
    revision: u64,
    limit: usize,
) -> Page {
    let mut objects = Vec::new();
    let mut more = false;
    for candidate in candidates {
        if !selection.matches(&request.row, &candidate.head) {
            continue;
        }
        if objects.len() == limit {
            more = true;
            break;
        }
        objects.push(candidate);
    }
    let continue_token = match objects.last() {
        Some(last) if more => write_token(&Continue {
            v: TOKEN.to_owned(),
            rv: revision.cast_signed(),
            start: last.path(),
        }),
        _ => String::new(),
    };
    Page {
        objects,
        revision,
        continue_token,
        more,
        remaining: None,
    }
}

/// Adds to what is said of a revision that is gone how the list may go on nevertheless.
fn offer(mut status: Status, from: Continue) -> Status {
    if status.code == 410 {
        CONTINUE_GONE.clone_into(&mut status.message);
        status.metadata.continue_ = write_token(&Continue { rv: NEWEST, ..from });
    }
    status
}

fn check_token(asked: &str, token: &str) -> Result<Continue, Status> {
    let from = read_token(token)?;
    if !matches!(asked, "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    Ok(from)
}

/// 400 for a token that says nothing useful.
fn wrong_token(why: impl fmt::Display) -> Status {
    Status::bad_request(format!(
        "invalid continue token: continue key is not valid: {why}"
    ))
}

pub(crate) fn read_token(token: &str) -> Result<Continue, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            // What is left over behind the last four.
            _ => token.len() / 4 * 4,
        };
        wrong_token(format_args!("illegal base64 data at input byte {at}"))
    })?;
    let found: Continue = serde_json::from_slice(&bytes).map_err(wrong_token)?;
    if found.v != TOKEN {
        let why = "server does not recognize this encoded version";
        return Err(wrong_token(format_args!("{why} {}", found.v)));
    }
    if found.rv == 0 {
        let why = "incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
        return Err(wrong_token(why));
    }
    if found.start.is_empty() {
        return Err(wrong_token(
            "encoded start key empty (version meta.k8s.io/v1)",
        ));
    }
    Ok(found)
}

pub(crate) fn write_token(token: &Continue) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

impl Page {
    /// The same as a list that goes on nowhere.
    pub(super) fn whole(self) -> Self {
        Self {
            continue_token: String::new(),
            more: false,
            remaining: None,
            ..self
        }
    }

    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            metadata["continue"] = self.continue_token.clone().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

pub(super) async fn list(request: Request<'_>) -> Result<Answer, Status> {
    let page = page(&request, &request.call.query).await?;
    show_page(&request, &page)
}

/// Takes version and kind off an item of a list of the reference's own kinds, as its lists have them:
/// the list says what its items are. Custom objects keep theirs.
pub(super) fn as_item(row: &ResourceDef, mut object: Value) -> Value {
    if row.custom.is_none()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    object
}

/// Answers a list.
pub(super) fn show_page(request: &Request<'_>, page: &Page) -> Result<Answer, Status> {
    match request.media.shape {
        Shape::Object if request.media == Media::JSON => {
            let gvk = (request.row.gvk.api_version(), &*request.row.list_kind);
            let write = match &request.row.custom {
                Some(_) => Object::write,
                None => Object::write_untyped,
            };
            Ok(plain_list(page, (&gvk.0, gvk.1), write))
        }
        Shape::Metadata if request.media.encoding == Encoding::Json => {
            let version = request.media.meta_version();
            let gvk = (version, "PartialObjectMetadataList");
            Ok(plain_list(page, gvk, |object, out| {
                object.write_metadata(out, version);
            }))
        }
        Shape::Object | Shape::Groups => {
            let items: Vec<Value> = page
                .objects
                .iter()
                .map(|object| as_item(&request.row, object.value()))
                .collect();
            let list = json!({
                "apiVersion": request.row.gvk.api_version(),
                "kind": request.row.list_kind,
                "metadata": page.metadata(),
                "items": items,
            });
            encode(request, StatusCode::OK, &list)
        }
        Shape::Metadata => {
            let items: Vec<Value> = page
                .objects
                .iter()
                .map(|object| metadata_only(&object.value(), request.media.meta_version()))
                .collect();
            let list = json!({
                "apiVersion": request.media.meta_version(),
                "kind": "PartialObjectMetadataList",
                "metadata": page.metadata(),
                "items": items,
            });
            encode(request, StatusCode::OK, &list)
        }
        Shape::Table => {
            let values: Vec<Value> = page.objects.iter().map(|object| object.value()).collect();
            let table = TableStyle::new(request)?.table(&values, page.metadata());
            encode(request, StatusCode::OK, &table)
        }
    }
}

/// A list is its objects' bytes, or those of their metadata, copied once.
fn plain_list(
    page: &Page,
    (api_version, kind): (&str, &str),
    write: impl Fn(&Object, &mut Vec<u8>),
) -> Answer {
    let bytes: usize = page
        .objects
        .iter()
        .map(|object| object.bytes.len() + 48)
        .sum();
    let mut out = Vec::with_capacity(bytes + 256);
    let head = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": page.metadata(),
    })
    .to_string();
    out.extend_from_slice(head.trim_end_matches('}').as_bytes());
    // The metadata's own closing brace was trimmed with the outer one.
    out.extend_from_slice(b"},\"items\":[");
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(object, &mut out);
    }
    out.extend_from_slice(b"]}");
    json_bytes(StatusCode::OK, out)
}
