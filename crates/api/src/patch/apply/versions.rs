//! The versions of a kind, as far as owners need them.
//!
//! An owner's set names fields of the version that it wrote in. What a write takes from it is
//! therefore found by comparing the objects before and after in that version, and so is what it
//! keeps alive in an apply. While all owners wrote in the version of the request nothing is
//! converted.
//!
//! Who can convert is outside: [`Versions`] is handed in. Where that takes a question to somebody
//! else the merge is told [`Unconverted::Pending`], ends, and is called again when the answer is
//! there. It is pure, so it comes to the same place.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::managed::{Managed, Owner};
use super::reset::Filter;
use super::{ManagerRequest, filtered, take_managed};
use crate::patch::structured::{Comparison, New, Shape, compare};
use crate::patch::{FieldSet, PathElement};
use crate::schema::{Schema, Ty};

/// The other versions of a kind, and how objects come to be of them.
pub trait Versions: fmt::Debug + Sync {
    /// A version by its `apiVersion`, the request's own excepted; `None` when there is none, or
    /// none any more.
    fn version(&self, api_version: &str) -> Option<Version<'_>>;

    /// An object, whose `apiVersion` says of which version it is, in another one that there is.
    ///
    /// # Errors
    /// See [`Unconverted`].
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted>;
}

/// One version of a kind.
#[derive(Debug)]
pub struct Version<'v> {
    /// The schema that the type is part of.
    pub schema: &'v Schema,
    /// The type of its objects.
    pub ty: Ty,
    /// Of a custom kind: has this version a status subresource? `None` for built-in kinds.
    pub custom: Option<bool>,
}

/// Why there is no object in another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unconverted {
    /// It has been asked for. The merge is to be called again when there is an answer.
    #[error("an object waits for its conversion")]
    Pending,
    /// It can't be converted.
    #[error("{0}")]
    Failed(String),
}

impl Unconverted {
    fn told(self, head: &str) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Failed(why) => Self::Failed(format!("{head}{why}")),
        }
    }
}

/// A kind that has no other version than the request's.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn version(&self, _: &str) -> Option<Version<'_>> {
        None
    }

    fn convert(&self, _: &Value, api_version: &str) -> Result<Value, Unconverted> {
        Err(Unconverted::Failed(format!("there is no {api_version}")))
    }
}

/// The versions that a merge has to do with: the request's, and those that owners wrote in.
pub(super) struct Known<'a> {
    pub(super) own: Shape<'a>,
    pub(super) filter: Filter,
    api_version: &'a str,
    versions: &'a dyn Versions,
    others: Vec<Other<'a>>,
}

struct Other<'a> {
    api_version: String,
    version: Version<'a>,
    filter: Filter,
    /// The live object in this version, once it has been brought there.
    live: Option<Value>,
}

impl Other<'_> {
    fn shape(&self) -> Shape<'_> {
        Shape::root(self.version.schema, &self.version.ty)
    }
}

impl<'a> Known<'a> {
    /// Those of `managed`. A version that is not among them is none.
    pub(super) fn of(
        schema: &'a Schema,
        ty: &'a Ty,
        request: &ManagerRequest<'a>,
        managed: &Managed,
    ) -> Self {
        let mut others: Vec<Other<'a>> = Vec::new();
        for entry in &managed.entries {
            let name = entry.api_version.as_str();
            if name == request.api_version || others.iter().any(|it| it.api_version == name) {
                continue;
            }
            if let Some(version) = request.versions.version(name) {
                let Version { schema, ty, custom } = &version;
                others.push(Other {
                    api_version: name.to_owned(),
                    filter: Filter::of(schema, ty, request.subresource, *custom),
                    version,
                    live: None,
                });
            }
        }
        others.sort_by(|left, right| left.api_version.cmp(&right.api_version));
        Self {
            own: Shape::root(schema, ty),
            filter: Filter::of(schema, ty, request.subresource, request.custom),
            api_version: request.api_version,
            versions: request.versions,
            others,
        }
    }

    /// The version of the request.
    pub(super) fn api_version(&self) -> &'a str {
        self.api_version
    }

    /// The shape of objects in a version; `None` when there is no such version.
    pub(super) fn shape(&self, api_version: &str) -> Option<Shape<'_>> {
        if api_version == self.api_version {
            return Some(self.own);
        }
        let mut others = self.others.iter();
        others
            .find(|other| other.api_version == api_version)
            .map(Other::shape)
    }

    /// Brings the live object to all versions at once: one that it can't be brought to ends an
    /// apply before anything is looked at.
    pub(super) fn bring(&mut self, live: &Value) -> Result<(), Unconverted> {
        let mut waits = false;
        for other in &mut self.others {
            match self.versions.convert(live, &other.api_version) {
                Ok(live) => other.live = Some(live),
                Err(Unconverted::Pending) => waits = true,
                Err(failed) => return Err(failed),
            }
        }
        if waits {
            return Err(Unconverted::Pending);
        }
        Ok(())
    }

    /// An object of one version in another.
    pub(super) fn at<'v>(
        &self,
        object: &'v Value,
        (from, to): (&str, &str),
    ) -> Result<Cow<'v, Value>, Unconverted> {
        if from == to {
            return Ok(Cow::Borrowed(object));
        }
        self.versions.convert(object, to).map(Cow::Owned)
    }

    /// What a write changes, in the version of every entry but that of one owner.
    pub(super) fn changes(
        &self,
        live: Option<&Value>,
        new: (&Value, New),
        managed: &Managed,
        but: Option<&Owner>,
    ) -> Result<Changes<'_>, Unconverted> {
        let (new, kind) = new;
        let difference = compare(self.own, live, Some(new), kind);
        let mut others = Vec::new();
        let mut waits = false;
        // What is the same in one version is so in every one.
        let same = is_nothing(&difference);
        for other in &self.others {
            let mut entries = managed.entries.iter();
            let counts = entries.any(|entry| {
                entry.api_version == other.api_version && but.is_none_or(|it| *it != entry.owner)
            });
            if same || !counts {
                continue;
            }
            let convert = |object: &Value| self.versions.convert(object, &other.api_version);
            let was = match (&other.live, live) {
                (Some(live), _) => Ok(Some(Cow::Borrowed(live))),
                (None, Some(live)) => convert(&bare(live)).map(|live| Some(Cow::Owned(live))),
                (None, None) => Ok(None),
            };
            let was = was.map_err(|why| why.told("failed to convert old object: "));
            let is = convert(new).map_err(|why| why.told("failed to convert new object: "));
            match (was, is) {
                (Err(Unconverted::Pending), _) | (_, Err(Unconverted::Pending)) => waits = true,
                (Err(failed), _) | (_, Err(failed)) => return Err(failed),
                (Ok(was), Ok(is)) => {
                    // Custom objects have what they say, in every version.
                    let kind = if other.version.custom.is_some() {
                        kind
                    } else {
                        New::Object
                    };
                    let found = compare(other.shape(), was.as_deref(), Some(&is), kind);
                    let found = filtered(&other.filter, found);
                    others.push((other.api_version.as_str(), Loss::of(found)));
                }
            }
        }
        if waits {
            return Err(Unconverted::Pending);
        }
        Ok(Changes {
            api_version: self.api_version,
            own: Loss::of(filtered(&self.filter, difference)),
            others,
            none: Loss::default(),
        })
    }
}

/// Is it nothing that differs, but for the list of owners, which a new object does not bring?
fn is_nothing(difference: &Comparison) -> bool {
    let Comparison {
        removed,
        modified,
        added,
    } = difference;
    let list = [
        PathElement::field("metadata"),
        PathElement::field("managedFields"),
    ];
    let mut owners = FieldSet::default();
    owners.insert(&list);
    modified.is_empty()
        && added.is_empty()
        && (removed.is_empty() || removed.difference_with_children(&owners).is_empty())
}

/// A live object without the list of its owners.
fn bare(live: &Value) -> Value {
    let mut bare = live.clone();
    take_managed(&mut bare);
    bare
}

/// What a write takes from those who own it, in one version.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// What was added or modified.
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

impl Loss {
    pub(super) fn of(difference: Comparison) -> Self {
        let Comparison {
            removed,
            modified,
            added,
        } = difference;
        let changed = match (added.is_empty(), modified.is_empty()) {
            (_, true) => added,
            (true, false) => modified,
            (false, false) => modified.union(&added),
        };
        Self { changed, removed }
    }
}

/// What a write takes, in every version that somebody owns fields in.
#[derive(Debug)]
pub(super) struct Changes<'k> {
    api_version: &'k str,
    pub(super) own: Loss,
    others: Vec<(&'k str, Loss)>,
    none: Loss,
}

impl<'k> Changes<'k> {
    /// Of a kind all of whose owners wrote in one version.
    pub(super) fn of_one(api_version: &'k str, own: Loss) -> Self {
        Self {
            api_version,
            own,
            others: Vec::new(),
            none: Loss::default(),
        }
    }

    /// As a version sees it.
    pub(super) fn seen_in(&self, api_version: &str) -> &Loss {
        if api_version == self.api_version {
            return &self.own;
        }
        let mut others = self.others.iter();
        let found = others.find(|(name, _)| *name == api_version);
        found.map_or(&self.none, |(_, loss)| loss)
    }
}

#[cfg(test)]
mod tests;
