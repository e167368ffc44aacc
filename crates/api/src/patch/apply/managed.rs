//! `metadata.managedFields`: who owns which fields, decoded and encoded.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::clock::rfc3339;
use crate::patch::field_set::FieldSet;
use crate::patch::structured::{self, Shape};

/// Most entries of updates; the oldest beyond them are merged.
pub(super) const MAX_UPDATE_MANAGERS: usize = 10;

/// The manager of merged old entries.
const ANCIENT: &str = "ancient-changes";

/// Who owns fields. Updates of one manager in two API versions are two owners; applies are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) manager: String,
    pub(super) apply: bool,
    /// Empty for appliers.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Owner {
    pub(super) fn new(manager: &str, apply: bool, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: manager.to_owned(),
            apply,
            api_version: if apply { "" } else { api_version }.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// The reference's name for an owner, which it sorts by.
    pub(super) fn identity(&self) -> String {
        let mut out = String::from("{");
        let parts = [
            ("manager", self.manager.as_str()),
            ("operation", self.operation()),
            ("apiVersion", self.api_version.as_str()),
            ("subresource", self.subresource.as_str()),
        ];
        for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&format!("\"{name}\":{}", Value::from(value)));
        }
        out.push('}');
        out
    }

    pub(super) fn operation(&self) -> &'static str {
        if self.apply { "Apply" } else { "Update" }
    }

    /// Is a written entry this owner's?
    pub(super) fn has_written(&self, entry: &Value) -> bool {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        text("operation") == self.operation()
            && text("manager") == self.manager
            && text("subresource") == self.subresource
            && (self.apply || text("apiVersion") == self.api_version)
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    /// The version that the set is written in.
    pub(super) api_version: String,
    /// As written.
    pub(super) time: Option<String>,
    pub(super) set: FieldSet,
}

impl Entry {
    fn seconds(&self) -> i64 {
        self.time.as_deref().map_or(0, seconds)
    }
}

/// A time of an entry for sorting: seconds since 1970, 0 for none.
pub(super) fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().map_or(0, Timestamp::as_second)
}

/// All entries, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) entries: Vec<Entry>,
}

impl Managed {
    /// Reads the list; the error is the reference's text.
    pub(super) fn decode(list: Option<&Value>) -> Result<Self, String> {
        match list {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Array(entries)) => Self::decode_entries(entries),
            Some(_) => Err("managedFields is not a list".to_owned()),
        }
    }

    /// Reads some entries.
    pub(super) fn decode_entries<'v>(
        entries: impl IntoIterator<Item = &'v Value>,
    ) -> Result<Self, String> {
        let mut managed = Self::default();
        for (index, entry) in entries.into_iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let apply = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => {
                    return Err(format!(
                        "missing fieldsType in managed fields entry {index}"
                    ));
                }
                other => {
                    return Err(format!(
                        "invalid fieldsType {other:?} in managed fields entry {index}"
                    ));
                }
            }
            let set = match entry.get("fieldsV1") {
                Some(fields) => FieldSet::from_fields_v1(fields)
                    .map_err(|why| format!("error decoding set: {why}"))?,
                None => FieldSet::default(),
            };
            let entry = Entry {
                owner: Owner::new(text("manager"), apply, api_version, text("subresource")),
                api_version: api_version.to_owned(),
                time: Some(text("time"))
                    .filter(|time| !time.is_empty())
                    .map(str::to_owned),
                set,
            };
            match managed.of(&entry.owner) {
                Some(at) => managed.entries[at] = entry,
                None => managed.entries.push(entry),
            }
        }
        Ok(managed)
    }

    /// Brings every set up to the shape that its version has today. Entries of versions that there
    /// are not any more go: nobody can say what they own.
    pub(super) fn reconcile<'s>(&mut self, shape_of: impl Fn(&str) -> Option<Shape<'s>>) {
        self.entries.retain_mut(|entry| {
            let shape = shape_of(&entry.api_version);
            if let Some(shape) = shape {
                structured::reconcile(shape, &mut entry.set);
            }
            shape.is_some()
        });
    }

    /// The list as it is stored; `None` when nobody owns anything.
    pub(super) fn encode(&self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|left, right| {
            left.owner
                .operation()
                .cmp(right.owner.operation())
                .then_with(|| left.seconds().cmp(&right.seconds()))
                .then_with(|| left.owner.manager.cmp(&right.owner.manager))
                .then_with(|| left.api_version.cmp(&right.api_version))
                .then_with(|| left.owner.subresource.cmp(&right.owner.subresource))
        });
        Some(entries.into_iter().map(encode).collect())
    }

    /// Its entries as they are written, in no order.
    pub(super) fn encoded(&self) -> impl Iterator<Item = Value> {
        self.entries.iter().map(encode)
    }

    /// Where the entry of an owner is.
    pub(super) fn of(&self, owner: &Owner) -> Option<usize> {
        self.entries.iter().position(|entry| entry.owner == *owner)
    }

    /// Merges the oldest updates when there are too many.
    pub(super) fn cap(&mut self) {
        let updates = self
            .entries
            .iter()
            .filter(|entry| !entry.owner.apply)
            .count();
        let Some(mut surplus) = updates.checked_sub(MAX_UPDATE_MANAGERS).filter(|n| *n > 0) else {
            return;
        };
        let (mut updates, mut kept): (Vec<Entry>, Vec<Entry>) =
            self.entries.drain(..).partition(|entry| !entry.owner.apply);
        updates.sort_by(|left, right| {
            left.seconds()
                .cmp(&right.seconds())
                .then_with(|| left.owner.identity().cmp(&right.owner.identity()))
        });
        // The first entry of each version becomes the bucket that later ones go into.
        let mut buckets: Vec<Entry> = Vec::new();
        for entry in updates {
            let bucket = buckets
                .iter_mut()
                .find(|bucket| bucket.api_version == entry.api_version);
            match bucket {
                Some(bucket) if surplus > 0 => {
                    surplus -= 1;
                    bucket.owner = Owner::new(ANCIENT, false, &entry.api_version, "");
                    bucket.set = bucket.set.union(&entry.set);
                    bucket.time = entry.time;
                }
                _ if surplus > 0 => buckets.push(entry),
                _ => kept.push(entry),
            }
        }
        // A bucket of an earlier round may be among the kept.
        for bucket in buckets {
            match kept.iter_mut().find(|entry| entry.owner == bucket.owner) {
                Some(found) => found.set = found.set.union(&bucket.set),
                None => kept.push(bucket),
            }
        }
        self.entries = kept;
    }
}

fn encode(entry: &Entry) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    put("apiVersion", Value::from(entry.api_version.as_str()));
    put("fieldsType", Value::from("FieldsV1"));
    put("fieldsV1", entry.set.to_fields_v1());
    if !entry.owner.manager.is_empty() {
        put("manager", Value::from(entry.owner.manager.as_str()));
    }
    put("operation", Value::from(entry.owner.operation()));
    if !entry.owner.subresource.is_empty() {
        put("subresource", Value::from(entry.owner.subresource.as_str()));
    }
    if let Some(time) = &entry.time {
        put("time", Value::from(time.as_str()));
    }
    Value::Object(out)
}

/// Did the client ask to forget all owners, by an empty list or a list of one empty entry?
pub(super) fn is_reset(list: Option<&Value>) -> bool {
    match list.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The time stamp of an entry.
pub(super) fn stamp(now: Timestamp) -> Option<String> {
    Some(rfc3339(now))
}
