//! An apply: the configuration laid over the object, what nobody claims any more taken out, and
//! who loses what by it.

use serde_json::Value;

use super::conflict::Conflict;
use super::managed::{Entry, Managed, Owner};
use super::versions::{Changes, Known, Unconverted};
use super::{PatchError, take};
use crate::patch::FieldSet;
use crate::patch::structured::{self, Emptied, New, fields_of, with_named_fields};

/// An apply before conflicts are looked at.
pub(super) struct Applied {
    /// The outcome, with nulls where maps and lists lost all they had: whoever owns such a map
    /// itself still owns it.
    pub(super) marked: Value,
    /// The outcome.
    pub(super) merged: Value,
    pub(super) managed: Managed,
    pub(super) owner: Owner,
}

/// What others own of what an apply changes.
pub(super) type Contested = Vec<(Owner, FieldSet)>;

/// What the manager applied last, in the version that it did so in.
struct Last {
    api_version: String,
    set: FieldSet,
}

pub(super) fn applied(
    known: &Known<'_>,
    live: &Value,
    config: &Value,
    managed: &Managed,
    owner: &Owner,
) -> Result<Applied, PatchError> {
    let merged = structured::merge(known.own, live, config);
    let set = known.filter.apply(fields_of(known.own, config));
    let mut managed = managed.clone();
    let api_version = known.api_version().to_owned();
    let last = match managed.of(owner) {
        Some(at) => {
            let entry = &mut managed.entries[at];
            Some(Last {
                api_version: std::mem::replace(&mut entry.api_version, api_version),
                set: std::mem::replace(&mut entry.set, set),
            })
        }
        None => {
            managed.entries.push(Entry {
                owner: owner.clone(),
                api_version,
                time: None,
                set,
            });
            None
        }
    };
    let (marked, merged) = match last.filter(|last| !last.set.is_empty()) {
        Some(last) => prune(known, &merged, &managed, &last)?,
        None => (merged.clone(), merged),
    };
    Ok(Applied {
        marked,
        merged,
        managed,
        owner: owner.clone(),
    })
}

/// Removes what the manager applied last time and nobody claims now. Answers the outcome with and
/// without nulls in the place of what was emptied.
fn prune(
    known: &Known<'_>,
    merged: &Value,
    managed: &Managed,
    last: &Last,
) -> Result<(Value, Value), PatchError> {
    let own = known.api_version();
    let Some(shape) = known.shape(&last.api_version) else {
        return Ok((merged.clone(), merged.clone()));
    };
    let there = known
        .at(merged, (own, last.api_version.as_str()))
        .map_err(failed(
            "failed to convert merged object to last applied version: ".to_owned(),
        ))?;
    let applied = with_named_fields(shape, &last.set);
    let mut pruned = structured::remove(shape, &there, &applied, Emptied::Null);
    // Back with what somebody claims, version by version; first where it was taken from, since
    // what is missing there may be needed to convert at all …
    let mut at = last.api_version.as_str();
    for (version, claimed) in claims(managed, at) {
        let Some(shape) = known.shape(version) else {
            continue;
        };
        let trouble = |what: &str| {
            failed(format!(
                "failed add back owned items: failed to convert {what} object at version {version}: "
            ))
        };
        let everything = known.at(merged, (own, version));
        let left = known.at(&pruned, (at, version));
        // Both are asked for before one that is missing ends this.
        let (everything, left) = match (everything, left) {
            (Err(Unconverted::Pending), _) => return Err(PatchError::Pending),
            (everything, left) => (
                everything.map_err(trouble("merged"))?,
                left.map_err(trouble("pruned"))?,
            ),
        };
        let named = |set: &FieldSet| with_named_fields(shape, set);
        let keep = named(&fields_of(shape, &left)).union(&named(&claimed));
        let lost = named(&fields_of(shape, &everything)).difference(&keep);
        pruned = structured::remove(shape, &everything, &lost, Emptied::Null);
        at = version;
    }
    // … and with what this manager never applied.
    let left = known
        .at(&pruned, (at, last.api_version.as_str()))
        .map_err(failed(
            "failed add back dangling items: failed to convert pruned object to last applied \
             version: "
                .to_owned(),
        ))?;
    let named = |object: &Value| with_named_fields(shape, &fields_of(shape, object));
    let gone = named(&there)
        .difference(&named(&left))
        .intersection(&applied);
    let without = |emptied| structured::remove(shape, &there, &gone, emptied);
    let (marked, merged) = (without(Emptied::Null), without(Emptied::Gone));
    let back = (last.api_version.as_str(), own);
    let (marked, merged) = match (known.at(&marked, back), known.at(&merged, back)) {
        (Err(Unconverted::Pending), _) => return Err(PatchError::Pending),
        (marked, merged) => (
            marked.map_err(failed(String::new()))?.into_owned(),
            merged.map_err(failed(String::new()))?.into_owned(),
        ),
    };
    Ok((marked, merged))
}

fn failed(head: String) -> impl FnOnce(Unconverted) -> PatchError {
    move |why| match why {
        Unconverted::Pending => PatchError::Pending,
        Unconverted::Failed(why) => {
            PatchError::Internal(format!("failed to prune fields: {head}{why}"))
        }
    }
}

/// What is claimed, by version: that of `first` before the others.
fn claims<'m>(managed: &'m Managed, first: &str) -> Vec<(&'m str, FieldSet)> {
    let mut out: Vec<(&str, FieldSet)> = Vec::new();
    for entry in &managed.entries {
        let version = entry.api_version.as_str();
        match out.iter_mut().find(|(name, _)| *name == version) {
            Some((_, all)) => *all = all.union(&entry.set),
            None => out.push((version, entry.set.clone())),
        }
    }
    out.sort_by_key(|(name, _)| (*name != first, *name));
    out
}

impl Applied {
    /// What the apply does to others.
    ///
    /// # Errors
    /// The objects can't be had in the version of one of them.
    pub(super) fn changes<'k>(
        &self,
        known: &'k Known<'_>,
        live: &Value,
    ) -> Result<Changes<'k>, PatchError> {
        let new = (&self.marked, New::Configuration);
        known
            .changes(Some(live), new, &self.managed, Some(&self.owner))
            .map_err(PatchError::from)
    }

    /// What others own of what changes.
    pub(super) fn contested(&self, changes: &Changes<'_>) -> Contested {
        let mut contested = Contested::new();
        for entry in &self.managed.entries {
            let changed = &changes.seen_in(&entry.api_version).changed;
            if entry.owner == self.owner || changed.is_empty() {
                continue;
            }
            let set = entry.set.intersection(changed);
            if !set.is_empty() {
                contested.push((entry.owner.clone(), set));
            }
        }
        contested
    }

    /// Others lose what changes.
    pub(super) fn settle(self, changes: &Changes<'_>) -> (Value, Managed) {
        let mut managed = self.managed;
        take(&mut managed, changes, Some(&self.owner));
        (self.merged, managed)
    }
}

/// Conflicts by owner, in the reference's order.
pub(super) fn listing(contested: &Contested) -> Vec<Conflict> {
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
