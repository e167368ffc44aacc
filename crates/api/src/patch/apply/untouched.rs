//! Tracking an update without reading what it leaves as it is.
//!
//! Most writes change fields of one manager: an agent its status, a controller its replicas. The
//! entries of the others stay as they are written. Only those that lose something, and the
//! writer's own, are decoded, and the outcome is that of the whole way.

use std::cmp::Ordering;

use serde_json::Value;

use super::managed::{MAX_UPDATE_MANAGERS, Managed, seconds};
use super::versions::{Changes, Loss};
use super::{ManagerRequest, give, take};
use crate::object;
use crate::patch::structured::Shape;

/// The live object and its entries, when it is they that count and not what the client has sent.
/// `None` where only the whole way will do.
pub(super) fn listed<'a>(
    live: Option<&'a Value>,
    given: Option<&Value>,
    request: &ManagerRequest<'_>,
) -> Option<(&'a Value, &'a [Value])> {
    let live = live?;
    let listed = object::at(live, &["metadata", "managedFields"])?;
    let entries = listed.as_array()?;
    let counts =
        !request.subresource.is_empty() || given.is_none() || given.is_some_and(|it| it == listed);
    // The shape of a custom kind may have changed since, which moves what is owned; the eldest of
    // too many are made one; and who wrote in another version loses what that version sees change.
    let plain = request.custom.is_none() && entries.len() < MAX_UPDATE_MANAGERS;
    let of_version = |entry: &Value| {
        entry.get("apiVersion").and_then(Value::as_str) == Some(request.api_version)
    };
    (counts && plain && !entries.is_empty() && entries.iter().all(of_version))
        .then_some((live, entries))
}

/// The new list. `None` when an entry can't be read, or none is left. What stays as it is is taken from
/// `given`, the list that the new object came with, where it has it: mostly it is a copy of the live one.
pub(super) fn track(
    shape: Shape<'_>,
    entries: &[Value],
    loss: Loss,
    request: &ManagerRequest<'_>,
    given: &mut Option<Value>,
) -> Option<Value> {
    let owner = request.owner(false);
    let is_touched = |entry: &Value| {
        let fields = entry.get("fieldsV1").unwrap_or(&Value::Null);
        owner.has_written(entry) || loss.changed.touches(fields) || loss.removed.touches(fields)
    };
    let all = entries.iter().enumerate();
    let (touched, kept): (Vec<_>, Vec<_>) = all.partition(|(_, entry)| is_touched(entry));
    let mut managed = Managed::decode_entries(touched.into_iter().map(|(_, entry)| entry)).ok()?;
    managed.reconcile(|_| Some(shape));
    let changes = Changes::of_one(request.api_version, loss);
    take(&mut managed, &changes, None);
    give(&mut managed, changes.own.changed, request);
    let mut given = given.as_mut().and_then(Value::as_array_mut);
    let kept = kept.into_iter().map(|(at, entry)| {
        let copy = given.as_mut().and_then(|list| list.get_mut(at));
        match copy.filter(|copy| *copy == entry) {
            Some(copy) => copy.take(),
            None => entry.clone(),
        }
    });
    let mut all: Vec<Value> = managed.encoded().chain(kept).collect();
    all.sort_by(order);
    (!all.is_empty()).then_some(Value::Array(all))
}

/// The order of entries: see [`Managed::encode`].
fn order(left: &Value, right: &Value) -> Ordering {
    fn text<'v>(entry: &'v Value, name: &str) -> &'v str {
        entry.get(name).and_then(Value::as_str).unwrap_or_default()
    }
    let by = |name: &str| text(left, name).cmp(text(right, name));
    let time = |entry| seconds(text(entry, "time"));
    by("operation")
        .then_with(|| time(left).cmp(&time(right)))
        .then_with(|| by("manager"))
        .then_with(|| by("apiVersion"))
        .then_with(|| by("subresource"))
}
