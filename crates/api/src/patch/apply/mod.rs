//! Server-side apply and the book-keeping of field owners.
//!
//! Semantics are those of `k8s.io/apimachinery/pkg/util/managedfields` over
//! `sigs.k8s.io/structured-merge-diff/v6/merge`. Owners keep the version that they wrote in, and
//! lose fields as that version sees them: see `versions`.

mod applied;
mod conflict;
mod last_applied;
mod managed;
mod reset;
mod untouched;
mod versions;

use jiff::Timestamp;
use serde_json::Value;

use applied::{Contested, applied, listing};
use managed::{Entry, Managed, Owner, is_reset, stamp};
use reset::Filter;
use versions::{Changes, Known, Loss};

pub(super) use conflict::message;
pub use conflict::{Conflict, conflicts_status};
pub use versions::{OneVersion, Unconverted, Version, Versions};

use super::PatchError;
use super::field_set::{FieldSet, PathElement};
use super::structured::{self, Comparison, New, Shape, compare, equal};
use crate::object;
use crate::schema::{Schema, Ty};

/// The manager of all that an object had before somebody applied it for the first time.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who makes a request.
#[derive(Debug, Clone, Copy)]
pub struct ManagerRequest<'a> {
    /// The field manager: the request's parameter, or what the user agent says.
    pub manager: &'a str,
    /// The subresource that the request goes to; empty for the object itself. It also says which
    /// fields the request can't set: `status` for the object itself, `spec` for `status`.
    pub subresource: &'a str,
    /// The API version of the request: `apps/v1`.
    pub api_version: &'a str,
    /// Now.
    pub now: Timestamp,
    /// Of a custom kind: has it a status subresource? `None` for built-in kinds.
    pub custom: Option<bool>,
    /// The other versions of the kind, for the sake of those who wrote in them.
    pub versions: &'a dyn Versions,
}

impl ManagerRequest<'_> {
    fn owner(&self, apply: bool) -> Owner {
        let manager = if self.manager.is_empty() {
            "unknown"
        } else {
            self.manager
        };
        Owner::new(manager, apply, self.api_version, self.subresource)
    }
}

/// Records what a create, update or non-apply patch changed: `new` gets its
/// `metadata.managedFields`.
///
/// `live` is the stored object, `None` on create. What the client sent in
/// `new.metadata.managedFields` is honoured as the reference does: an empty list or a list of one
/// empty entry forgets all owners, a valid list replaces them, anything else is ignored. Through a
/// subresource the list of the live object always counts.
///
/// # Errors
/// [`Unconverted::Pending`] leaves `new` as it was: to be called again.
/// [`Unconverted::Failed`] leaves the owners as they were: the write may go on.
pub fn track_update(
    schema: &Schema,
    ty: &Ty,
    live: Option<&Value>,
    new: &mut Value,
    request: &ManagerRequest<'_>,
) -> Result<(), Unconverted> {
    if !new.is_object() {
        return Ok(());
    }
    let shape = Shape::root(schema, ty);
    let mut given = take_managed(new);
    if let Some((live, entries)) = untouched::listed(live, given.as_ref(), request) {
        let filter = Filter::of(schema, ty, request.subresource, request.custom);
        let difference = filtered(&filter, compare(shape, Some(live), Some(new), New::Object));
        if let Some(list) =
            untouched::track(shape, entries, Loss::of(difference), request, &mut given)
        {
            object::metadata(new).insert("managedFields".to_owned(), list);
            return Ok(());
        }
    }
    let tracked = track_whole(schema, ty, live, new, given.as_ref(), request);
    let list = match &tracked {
        Ok(()) => None,
        Err(Unconverted::Pending) => given,
        Err(Unconverted::Failed(_)) => live
            .and_then(|live| object::at(live, &["metadata", "managedFields"]))
            .cloned(),
    };
    if let Some(list) = list {
        object::metadata(new).insert("managedFields".to_owned(), list);
    }
    tracked
}

/// The same by reading and writing every entry. `given` is what the client sent, taken out of
/// `new`, which is left alone by what fails.
fn track_whole(
    schema: &Schema,
    ty: &Ty,
    live: Option<&Value>,
    new: &mut Value,
    given: Option<&Value>,
    request: &ManagerRequest<'_>,
) -> Result<(), Unconverted> {
    let mut managed = live_or_given(live, given, request.subresource);
    // An object that nobody's fields are tracked of stays so until somebody applies.
    if !(managed.entries.is_empty() && live.is_some()) {
        let known = Known::of(schema, ty, request, &managed);
        managed.reconcile(|version| known.shape(version));
        update(&known, live, new, &mut managed, request)?;
        managed.cap();
    }
    put_managed(new, &managed);
    Ok(())
}

/// Applies a configuration: merges it into the live object (`None` creates), removes what the
/// manager applied before and no longer does, and records who owns what. An apply that changes
/// nothing answers the live object.
///
/// The configuration must come as the client sent it, not admitted: unknown fields are refused
/// here, and a default is not an opinion.
///
/// # Errors
/// [`PatchError::Conflict`] unless `force`, [`PatchError::Invalid`] for a configuration of another
/// kind or with managed fields, [`PatchError::Internal`] for one that does not fit the type or an
/// object that can't be converted, [`PatchError::Pending`] to be called again.
pub fn apply(
    schema: &Schema,
    ty: &Ty,
    live: Option<&Value>,
    config: &Value,
    force: bool,
    request: &ManagerRequest<'_>,
) -> Result<Value, PatchError> {
    check_config(live, config, request)?;
    let listed = live.and_then(|live| object::at(live, &["metadata", "managedFields"]));
    let mut managed = Managed::decode(listed)
        .map_err(|why| PatchError::Internal(format!("failed to decode managed fields: {why}")))?;
    let mut bare = live
        .cloned()
        .unwrap_or_else(|| Value::Object(object::Fields::new()));
    take_managed(&mut bare);
    let mut known = Known::of(schema, ty, request, &managed);

    if managed.entries.is_empty() && live.is_some() {
        let before = ManagerRequest {
            manager: BEFORE_FIRST_APPLY,
            ..*request
        };
        update(&known, None, &bare, &mut managed, &before)?;
        managed.cap();
    }
    structured::validate(known.own, config).map_err(|why| {
        PatchError::Internal(format!(
            "failed to create typed patch object ({}): {why}",
            described(config)
        ))
    })?;
    managed.reconcile(|version| known.shape(version));
    known.bring(&bare)?;

    let owner = request.owner(true);
    let applied = applied(&known, &bare, config, &managed, &owner)?;
    let changes = applied.changes(&known, &bare)?;
    let contested = applied.contested(&changes);
    if !force && !contested.is_empty() {
        let left = last_applied::unresolved(known.own, &bare, &contested, request);
        if !left.is_empty() {
            return Err(PatchError::Conflict(listing(&left)));
        }
    }
    let (mut merged, mut managed) = applied.settle(&changes);
    let changed = !equal(&bare, &merged);
    if let Some(at) = managed.of(&owner) {
        strip(&mut managed.entries[at].set);
        if managed.entries[at].set.is_empty() {
            managed.entries.remove(at);
        } else if changed {
            // Who comes to own what is there already has no time, as in the reference.
            managed.entries[at].time = stamp(request.now);
        }
    }
    if changed {
        last_applied::refresh(&mut merged, config, request.manager);
    }
    put_managed(&mut merged, &managed);
    Ok(merged)
}

/// When nothing but time stamps of managed fields differs, `new` gets those of `live`, so that a
/// request which changes nothing writes nothing. To be called last, before storing.
pub fn keep_times(live: &Value, new: &mut Value) {
    let path = ["metadata", "managedFields"];
    let (Some(Value::Array(before)), Some(Value::Array(after))) =
        (object::at(live, &path), object::at(new, &path))
    else {
        return;
    };
    let same = before.len() == after.len()
        && after.iter().all(|entry| {
            before
                .iter()
                .any(|other| equal_without(entry, other, "time"))
        });
    if same && equal_without_managed(live, new) {
        let before = before.clone();
        object::metadata(new).insert("managedFields".to_owned(), Value::Array(before));
    }
}

/// Are two objects equal but for one field of theirs?
fn equal_without(left: &Value, right: &Value, name: &str) -> bool {
    let (Value::Object(left), Value::Object(right)) = (left, right) else {
        return left == right;
    };
    let but = |(key, _): &(&String, &Value)| *key != name;
    left.iter().filter(but).eq(right.iter().filter(but))
}

/// Are two objects equal but for their managed fields?
fn equal_without_managed(left: &Value, right: &Value) -> bool {
    let metadata = match (left.get("metadata"), right.get("metadata")) {
        (Some(left), Some(right)) => equal_without(left, right, "managedFields"),
        (left, right) => left == right,
    };
    metadata && equal_without(left, right, "metadata")
}

fn check_config(
    live: Option<&Value>,
    config: &Value,
    request: &ManagerRequest<'_>,
) -> Result<(), PatchError> {
    let (version, kind) = (
        object::text(config, &["apiVersion"]),
        object::text(config, &["kind"]),
    );
    let live_kind = live.map_or("", |live| object::text(live, &["kind"]));
    if version != request.api_version || (!live_kind.is_empty() && kind != live_kind) {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        return Err(PatchError::Invalid(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    match object::at(config, &["metadata", "managedFields"]) {
        Some(Value::Array(_)) => Err(PatchError::Invalid(
            "metadata.managedFields must be nil".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// `default/web; apps/v1, Kind=Deployment`
fn described(config: &Value) -> String {
    let version = object::text(config, &["apiVersion"]);
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    format!(
        "{}/{}; {group}/{version}, Kind={}",
        object::namespace(config),
        object::name(config),
        object::text(config, &["kind"])
    )
}

fn take_managed(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .remove("managedFields")
}

fn put_managed(object: &mut Value, managed: &Managed) {
    if let Some(list) = managed.encode() {
        object::metadata(object).insert("managedFields".to_owned(), list);
    }
}

fn live_or_given(live: Option<&Value>, given: Option<&Value>, subresource: &str) -> Managed {
    let of_live = || {
        let listed = live.and_then(|live| object::at(live, &["metadata", "managedFields"]));
        Managed::decode(listed).unwrap_or_default()
    };
    if !subresource.is_empty() {
        return of_live();
    }
    if is_reset(given) {
        return Managed::default();
    }
    match Managed::decode(given) {
        Ok(managed) if !managed.entries.is_empty() => managed,
        _ => of_live(),
    }
}

fn filtered(filter: &Filter, difference: Comparison) -> Comparison {
    Comparison {
        removed: filter.apply(difference.removed),
        modified: filter.apply(difference.modified),
        added: filter.apply(difference.added),
    }
}

/// Takes what changed from everybody, and gives it to who made the request.
fn update(
    known: &Known<'_>,
    live: Option<&Value>,
    new: &Value,
    managed: &mut Managed,
    request: &ManagerRequest<'_>,
) -> Result<(), Unconverted> {
    let changes = known.changes(live, (new, New::Object), managed, None)?;
    take(managed, &changes, None);
    give(managed, changes.own.changed, request);
    Ok(())
}

/// Takes what changed or went from everybody but one.
fn take(managed: &mut Managed, changes: &Changes<'_>, but: Option<&Owner>) {
    for entry in &mut managed.entries {
        if but == Some(&entry.owner) {
            continue;
        }
        let Loss { changed, removed } = changes.seen_in(&entry.api_version);
        for lost in [changed, removed] {
            if !lost.is_empty() {
                entry.set = entry.set.difference(lost);
            }
        }
    }
    managed.entries.retain(|entry| !entry.set.is_empty());
}

/// Gives a set of fields to who made an update.
fn give(managed: &mut Managed, mut set: FieldSet, request: &ManagerRequest<'_>) {
    strip(&mut set);
    if set.is_empty() {
        return;
    }
    let owner = request.owner(false);
    let time = stamp(request.now);
    match managed.of(&owner) {
        Some(at) => {
            let entry = &mut managed.entries[at];
            entry.set = entry.set.union(&set);
            entry.time = time;
        }
        None => managed.entries.push(Entry {
            owner,
            api_version: request.api_version.to_owned(),
            time,
            set,
        }),
    }
}

/// Nobody owns what the server decides or what identifies the object.
fn strip(set: &mut FieldSet) {
    for node in &mut set.nodes {
        let PathElement::Field(name) = &node.element else {
            continue;
        };
        match &**name {
            "apiVersion" | "kind" => node.member = false,
            "metadata" => {
                node.member = false;
                for inner in &mut node.children.nodes {
                    if let PathElement::Field(name) = &inner.element {
                        inner.member &= !matches!(
                            &**name,
                            "name"
                                | "namespace"
                                | "creationTimestamp"
                                | "selfLink"
                                | "uid"
                                | "clusterName"
                                | "generation"
                                | "managedFields"
                                | "resourceVersion"
                        );
                    }
                }
                node.children.tidy();
            }
            _ => {}
        }
    }
    set.tidy();
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;
