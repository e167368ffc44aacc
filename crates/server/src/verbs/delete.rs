//! delete and deletecollection: at once, after a grace period, or when finalizers are done.

use std::sync::Arc;

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::{Status, clock, object};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::Value;

use super::delete_options::{self, Options};
use super::read::{page, show_page};
use super::show::show_value;
use super::{Request, write};
use crate::admission::{Change, Operation};
use crate::http::{Answer, status_answer_as};
use crate::object::Object;
use crate::registry::Outcome;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Objects of a collection that are deleted at the same time.
const AT_ONCE: usize = 32;

pub(super) async fn delete(request: Request<'_>) -> Result<Answer, Status> {
    let options = Options::of(&request)?;
    let registry = request.door.registry.clone();
    let seen = registry
        .get(&request.row, request.namespace(), request.name())
        .await?
        .ok_or_else(|| request.not_found())?;
    if options.unreadable {
        let (row, name) = (&request.row, request.name());
        let why = "unsafe deletion is not allowed because the object is decodable from storage";
        return Err(Status::conflict(&row.gvk.group, &row.plural, name, why));
    }
    match delete_object(&request, seen, &options).await? {
        Deleted::Gone(object) => gone(&request, &object),
        Deleted::Marked(value) => show_value(&request, StatusCode::OK, value),
    }
}

/// The answer to a delete that removed the object: a status, or, for kinds with graceful
/// deletion, the object itself, as the reference does.
fn gone(request: &Request<'_>, object: &Object) -> Result<Answer, Status> {
    let value = object.value();
    if request.row.strategy.grace_period(&value, None).is_some() {
        return show_value(request, StatusCode::OK, value);
    }
    let status = Status::success()
        .about(
            &request.row.gvk.group,
            &request.row.plural,
            object::name(&value),
        )
        .with_uid(object::uid(&value));
    Ok(status_answer_as(request.media.encoding, &status))
}

/// What became of a deleted object.
pub(super) enum Deleted {
    Gone(Arc<Object>),
    Marked(Value),
}

/// Deletes one object, however often others change it meanwhile.
pub(super) async fn delete_object(
    request: &Request<'_>,
    mut seen: Arc<Object>,
    options: &Options,
) -> Result<Deleted, Status> {
    let door = request.door;
    let row = &request.row;
    loop {
        let old = seen.value();
        preconditions(request, &old, options)?;
        let change = Change {
            row,
            operation: Operation::Delete,
            subresource: None,
            identity: &request.call.identity,
            namespace: &seen.head.namespace,
            old: Some(&old),
            dry_run: options.dry_run,
            call: &request.call,
        };
        door.admission
            .validate(&door.registry, &change, &Value::Null)
            .await?;
        let next = mark(request, &old, options);
        if options.dry_run || request.dry_run() {
            return Ok(match next {
                Some(value) => Deleted::Marked(value),
                None => Deleted::Gone(seen),
            });
        }
        drop(old);
        let stays = next.is_some();
        let outcome = match next {
            Some(value) => door.registry.replace(row, &seen, value).await?,
            None => door.registry.remove(row, &seen).await?,
        };
        match outcome {
            Outcome::Done(object) if stays => return Ok(Deleted::Marked(object.value())),
            Outcome::Done(object) => return Ok(Deleted::Gone(object)),
            Outcome::Stale(None) => {
                return Err(Status::not_found(
                    &row.gvk.group,
                    &row.plural,
                    &seen.head.name,
                ));
            }
            Outcome::Stale(Some(newer)) => seen = newer,
        }
    }
}

pub(super) fn preconditions(
    request: &Request<'_>,
    old: &Value,
    options: &Options,
) -> Result<(), Status> {
    let conflict = |what: &str, wanted: &str, found: &str, perhaps: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record \
             ({found}). The object might have been {perhaps}"
        );
        // The reference names the kind here.
        let gvk = &request.row.gvk;
        Status::conflict(&gvk.group, &gvk.kind, object::name(old), &why)
    };
    if let Some(wanted) = options.uid.as_deref()
        && wanted != object::uid(old)
    {
        let perhaps = "deleted and then recreated";
        return Err(conflict("UID", wanted, object::uid(old), perhaps));
    }
    if let Some(wanted) = options.revision.as_deref()
        && wanted != object::resource_version(old)
    {
        return Err(conflict(
            "ResourceVersion",
            wanted,
            object::resource_version(old),
            "modified",
        ));
    }
    Ok(())
}

/// What the object becomes when it is deleted; `None` when it goes at once.
fn mark(request: &Request<'_>, old: &Value, options: &Options) -> Option<Value> {
    let row = &request.row;
    let mut new = old.clone();
    if object::deletion_timestamp(old).is_none() {
        row.strategy
            .prepare_delete(&mut new, request.door.clock().now());
    }
    let decided = object::finalizers(old)
        .iter()
        .any(|name| matches!(*name, FOREGROUND | ORPHAN));
    let default = (row.orphans && !decided).then_some("Orphan");
    set_propagation(&mut new, options.propagation.as_deref().or(default));
    let asked = options.grace.map(|grace| if grace < 0 { 1 } else { grace });
    let grace = row.strategy.grace_period(old, asked);
    let pending = !object::finalizers(&new).is_empty()
        || !object::list(&new, &["spec", "finalizers"]).is_empty();
    let wait = grace.unwrap_or(0);
    if wait == 0 && !pending {
        return None;
    }
    let now = request.door.clock().now();
    let already = object::deletion_timestamp(old).is_some();
    let left = object::integer(old, &["metadata", "deletionGracePeriodSeconds"]);
    // A second delete can only shorten the time that is left.
    let shorter = left.is_some_and(|left| wait < left) && grace.is_some();
    if !already || shorter {
        let at = now
            .checked_add(jiff::SignedDuration::from_secs(wait))
            .unwrap_or(now);
        let metadata = object::metadata(&mut new);
        metadata.insert("deletionTimestamp".to_owned(), clock::rfc3339(at).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), wait.into());
        if row.generation && !already {
            let generation = object::integer(old, &["metadata", "generation"]).unwrap_or(0) + 1;
            object::metadata(&mut new).insert("generation".to_owned(), generation.into());
        }
    }
    if row.gvk.kind == "Namespace" && row.gvk.group.is_empty() {
        object::fields(object::child(&mut new, "status"))
            .insert("phase".to_owned(), "Terminating".into());
    }
    if write::is_finished(&new) && !pending {
        None
    } else {
        Some(new)
    }
}

/// Foreground and orphan deletion wait behind a finalizer that the garbage collector removes.
fn set_propagation(value: &mut Value, policy: Option<&str>) {
    let Some(policy) = policy else { return };
    let mut finalizers: Vec<String> = object::finalizers(value)
        .into_iter()
        .filter(|name| !matches!(*name, FOREGROUND | ORPHAN))
        .map(str::to_owned)
        .collect();
    match policy {
        "Foreground" => finalizers.push(FOREGROUND.to_owned()),
        "Orphan" => finalizers.push(ORPHAN.to_owned()),
        _ => {}
    }
    let metadata = object::metadata(value);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
}

pub(super) async fn delete_collection(request: Request<'_>) -> Result<Answer, Status> {
    let options = Options::of(&request)?;
    if options.unreadable {
        let error = FieldError::invalid(
            &Path::new(delete_options::UNREADABLE),
            true,
            "is not allowed with DELETECOLLECTION, try again after removing the option",
        );
        super::options::refuse("DeleteOptions", &[error])?;
    }
    let mut page = page(&request, &request.call.query).await?;
    let objects = std::mem::take(&mut page.objects);
    // Several at a time, so that they share the store's fsyncs.
    let deletions = objects.into_iter().map(|object| {
        let deleted = delete_object(&request, Arc::clone(&object), &options);
        async move {
            match deleted.await {
                Ok(_) => Ok(Some(object)),
                // Somebody else has deleted it: that is what was wanted.
                Err(status) if status.code == 404 => Ok(None),
                Err(status) => Err(status),
            }
        }
    });
    let mut deletions = futures::stream::iter(deletions).buffered(AT_ONCE);
    while let Some(deleted) = deletions.next().await {
        page.objects.extend(deleted?);
    }
    drop(deletions);
    show_page(&request, &page.whole())
}
