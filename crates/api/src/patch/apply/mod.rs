//! Server-side apply and the book-keeping of field owners.
//!
//! Semantics are those of `k8s.io/apimachinery/pkg/util/managedfields` over
//! `sigs.k8s.io/structured-merge-diff/v6/merge`, with one simplification: all versions of a kind
//! have one shape here, so the sets of managers that used another version are taken as they are
//! instead of being converted.

mod conflict;
mod last_applied;
mod managed;
mod reset;
mod untouched;

use jiff::Timestamp;
use serde_json::Value;

use managed::{Entry, Managed, Owner, is_reset, stamp};
use reset::Filter;

pub(super) use conflict::message;
pub use conflict::{Conflict, conflicts_status};

use super::PatchError;
use super::field_set::{FieldSet, PathElement};
use super::structured::{
    self, Comparison, Emptied, New, Shape, compare, equal, fields_of, with_named_fields,
};
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
pub fn track_update(
    schema: &Schema,
    ty: &Ty,
    live: Option<&Value>,
    new: &mut Value,
    request: &ManagerRequest<'_>,
) {
    if !new.is_object() {
        return;
    }
    let shape = Shape::root(schema, ty);
    let given = take_managed(new);
    if let Some((live, entries)) = untouched::listed(live, given.as_ref(), request) {
        let filter = Filter::of(schema, ty, request.subresource, request.custom);
        let difference = filtered(&filter, compare(shape, Some(live), Some(new), New::Object));
        if let Some(list) = untouched::track(shape, entries, &difference, request) {
            object::metadata(new).insert("managedFields".to_owned(), list);
            return;
        }
    }
    track_whole(schema, ty, live, new, given.as_ref(), request);
}

/// The same by reading and writing every entry. `given` is what the client sent, taken out of
/// `new`.
fn track_whole(
    schema: &Schema,
    ty: &Ty,
    live: Option<&Value>,
    new: &mut Value,
    given: Option<&Value>,
    request: &ManagerRequest<'_>,
) {
    let shape = Shape::root(schema, ty);
    let mut managed = live_or_given(shape, live, given, request.subresource);
    // An object that nobody's fields are tracked of stays so until somebody applies.
    if !(managed.entries.is_empty() && live.is_some()) {
        let filter = Filter::of(schema, ty, request.subresource, request.custom);
        update(
            shape,
            live,
            new,
            &mut managed,
            request.owner(false),
            &filter,
            request,
        );
        managed.cap();
    }
    put_managed(new, &managed);
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
/// kind or with managed fields, [`PatchError::Internal`] for one that does not fit the type.
pub fn apply(
    schema: &Schema,
    ty: &Ty,
    live: Option<&Value>,
    config: &Value,
    force: bool,
    request: &ManagerRequest<'_>,
) -> Result<Value, PatchError> {
    let shape = Shape::root(schema, ty);
    check_config(live, config, request)?;
    let listed = live.and_then(|live| object::at(live, &["metadata", "managedFields"]));
    let mut managed = Managed::decode(shape, listed)
        .map_err(|why| PatchError::Internal(format!("failed to decode managed fields: {why}")))?;
    let mut bare = live
        .cloned()
        .unwrap_or_else(|| Value::Object(object::Fields::new()));
    take_managed(&mut bare);
    let filter = Filter::of(schema, ty, request.subresource, request.custom);

    if managed.entries.is_empty() && live.is_some() {
        let before = ManagerRequest {
            manager: BEFORE_FIRST_APPLY,
            ..*request
        };
        update(
            shape,
            None,
            &bare,
            &mut managed,
            before.owner(false),
            &filter,
            &before,
        );
        managed.cap();
    }
    structured::validate(shape, config).map_err(|why| {
        PatchError::Internal(format!(
            "failed to create typed patch object ({}): {why}",
            described(config)
        ))
    })?;

    let owner = request.owner(true);
    let known = managed.of(&owner).is_some();
    let applied = applied(
        shape,
        &bare,
        config,
        &managed,
        &owner,
        &filter,
        request.api_version,
    );
    let (mut merged, mut managed) = match applied.settle(shape, &bare, force, &filter) {
        Ok(done) => done,
        Err(refused) => {
            let (applied, conflicts) = *refused;
            let left = last_applied::unresolved(shape, &bare, &conflicts, request);
            if !left.is_empty() {
                return Err(PatchError::Conflict(listing(&left)));
            }
            applied
                .settle(shape, &bare, true, &filter)
                .map_err(|refused| PatchError::Conflict(listing(&refused.1)))?
        }
    };
    let changed = !equal(&bare, &merged);
    if let Some(at) = managed.of(&owner) {
        strip(&mut managed.entries[at].set);
        if managed.entries[at].set.is_empty() {
            managed.entries.remove(at);
        } else if changed || !known {
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

fn live_or_given(
    shape: Shape<'_>,
    live: Option<&Value>,
    given: Option<&Value>,
    subresource: &str,
) -> Managed {
    let of_live = || {
        let listed = live.and_then(|live| object::at(live, &["metadata", "managedFields"]));
        Managed::decode(shape, listed).unwrap_or_default()
    };
    if !subresource.is_empty() {
        return of_live();
    }
    if is_reset(given) {
        return Managed::default();
    }
    match Managed::decode(shape, given) {
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

/// Takes what changed from everybody, and gives it to `owner`.
fn update(
    shape: Shape<'_>,
    live: Option<&Value>,
    new: &Value,
    managed: &mut Managed,
    owner: Owner,
    filter: &Filter,
    request: &ManagerRequest<'_>,
) {
    let difference = filtered(filter, compare(shape, live, Some(new), New::Object));
    let set = changed(&difference);
    take(managed, &set, &difference.removed);
    give(managed, set, owner, request);
}

/// What was added or modified.
fn changed(difference: &Comparison) -> FieldSet {
    match (difference.added.is_empty(), difference.modified.is_empty()) {
        (_, true) => difference.added.clone(),
        (true, false) => difference.modified.clone(),
        (false, false) => difference.modified.union(&difference.added),
    }
}

/// Takes what changed or went from everybody.
fn take(managed: &mut Managed, changed: &FieldSet, removed: &FieldSet) {
    for entry in &mut managed.entries {
        for lost in [changed, removed] {
            if !lost.is_empty() {
                entry.set = entry.set.difference(lost);
            }
        }
    }
    managed.entries.retain(|entry| !entry.set.is_empty());
}

/// Gives a set of fields to `owner`.
fn give(managed: &mut Managed, mut set: FieldSet, owner: Owner, request: &ManagerRequest<'_>) {
    strip(&mut set);
    if set.is_empty() {
        return;
    }
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

/// An apply before conflicts are looked at.
struct Applied {
    /// The outcome, with nulls where maps and lists lost all they had: whoever owns such a map
    /// itself still owns it.
    marked: Value,
    /// The outcome.
    merged: Value,
    managed: Managed,
    owner: Owner,
}

/// What others own of what an apply changes.
type Contested = Vec<(Owner, FieldSet)>;

fn applied(
    shape: Shape<'_>,
    live: &Value,
    config: &Value,
    managed: &Managed,
    owner: &Owner,
    filter: &Filter,
    api_version: &str,
) -> Applied {
    let merged = structured::merge(shape, live, config);
    let set = filter.apply(fields_of(shape, config));
    let mut managed = managed.clone();
    let last = match managed.of(owner) {
        Some(at) => {
            let entry = &mut managed.entries[at];
            api_version.clone_into(&mut entry.api_version);
            std::mem::replace(&mut entry.set, set)
        }
        None => {
            managed.entries.push(Entry {
                owner: owner.clone(),
                api_version: api_version.to_owned(),
                time: None,
                set,
            });
            FieldSet::default()
        }
    };
    let (marked, merged) = prune(shape, merged, &managed, &last);
    Applied {
        marked,
        merged,
        managed,
        owner: owner.clone(),
    }
}

/// Removes what the manager applied last time and nobody claims now. Answers the outcome with and
/// without nulls in the place of what was emptied.
fn prune(shape: Shape<'_>, merged: Value, managed: &Managed, last: &FieldSet) -> (Value, Value) {
    if last.is_empty() {
        return (merged.clone(), merged);
    }
    let named = |set: &FieldSet| with_named_fields(shape, set);
    let without = |set: &FieldSet, emptied| structured::remove(shape, &merged, set, emptied);
    let last = named(last);
    let everything = named(&fields_of(shape, &merged));
    let claimed = managed
        .entries
        .iter()
        .fold(FieldSet::default(), |all, entry| all.union(&entry.set));

    let pruned = without(&last, Emptied::Null);
    let keep = named(&fields_of(shape, &pruned)).union(&named(&claimed));
    // Back with what somebody claims …
    let pruned = without(&everything.difference(&keep), Emptied::Null);
    // … and with what this manager never applied.
    let gone = everything
        .difference(&named(&fields_of(shape, &pruned)))
        .intersection(&last);
    (without(&gone, Emptied::Null), without(&gone, Emptied::Gone))
}

impl Applied {
    /// Settles who owns what: others lose what changes, if that is forced or nobody objects.
    fn settle(
        self,
        shape: Shape<'_>,
        live: &Value,
        force: bool,
        filter: &Filter,
    ) -> Result<(Value, Managed), Box<(Self, Contested)>> {
        let difference = filtered(
            filter,
            compare(shape, Some(live), Some(&self.marked), New::Configuration),
        );
        let changed = difference.modified.union(&difference.added);
        let mut contested: Contested = Vec::new();
        if !changed.is_empty() {
            for entry in &self.managed.entries {
                if entry.owner == self.owner {
                    continue;
                }
                let set = entry.set.intersection(&changed);
                if !set.is_empty() {
                    contested.push((entry.owner.clone(), set));
                }
            }
        }
        if !force && !contested.is_empty() {
            return Err(Box::new((self, contested)));
        }
        let mut managed = self.managed;
        for entry in &mut managed.entries {
            if entry.owner == self.owner {
                continue;
            }
            for lost in [&changed, &difference.removed] {
                if !lost.is_empty() {
                    entry.set = entry.set.difference(lost);
                }
            }
        }
        managed.entries.retain(|entry| !entry.set.is_empty());
        Ok((self.merged, managed))
    }
}

/// Conflicts by owner, in the reference's order.
fn listing(contested: &Contested) -> Vec<Conflict> {
    let mut owners: Vec<&(Owner, FieldSet)> = contested.iter().collect();
    owners.sort_by_key(|(owner, _)| owner.identity());
    owners
        .into_iter()
        .flat_map(|(owner, set)| {
            set.paths().into_iter().map(|path| Conflict {
                manager: owner.manager.clone(),
                operation: owner.operation().to_owned(),
                api_version: owner.api_version.clone(),
                subresource: owner.subresource.clone(),
                path,
            })
        })
        .collect()
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;
