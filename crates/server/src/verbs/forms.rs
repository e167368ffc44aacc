//! The versions of a request's kind, for the owners of fields that wrote in another one.
//!
//! A merge is pure and asks here. What names alone tell apart, or a view converts, is answered at
//! once; what a webhook has to convert is noted, asked for between two calls of the merge, and
//! answered from then on.

use std::sync::{Arc, OnceLock};

use evenkeel_api::custom::CustomType;
use evenkeel_api::patch::apply::{Unconverted, Version, Versions};
use evenkeel_api::row::ResourceDef;
use evenkeel_api::schema::{Schema, Ty};
use evenkeel_api::{Rows, object};
use parking_lot::Mutex;
use serde_json::Value;

use super::Request;
use crate::registry::Registry;

/// What a merge may ask of a kind.
#[derive(Debug)]
pub(super) struct Forms {
    rows: Arc<Rows>,
    row: Arc<ResourceDef>,
    /// Of a custom kind: its versions, those that are not served too.
    siblings: OnceLock<Vec<CustomType>>,
    made: Mutex<Vec<Made>>,
    wanted: Mutex<Vec<Wanted>>,
}

/// An object that a webhook is to bring to a version.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    object: Value,
    api_version: String,
}

#[derive(Debug)]
struct Made {
    of: Wanted,
    /// The object, or why there is none.
    outcome: Result<Value, String>,
}

impl Forms {
    pub(super) fn of(request: &Request<'_>) -> Self {
        Self {
            rows: request.door.rows(),
            row: Arc::clone(&request.row),
            siblings: OnceLock::new(),
            made: Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    /// The type of the request's own version, with the schema that it is part of.
    pub(super) fn shape(&self) -> (&Schema, Ty) {
        self.rows.shape(&self.row)
    }

    /// Has a webhook convert what merges have missed. `false` when they missed nothing.
    pub(super) async fn fetch(&self, registry: &Registry) -> bool {
        let mut wanted = std::mem::take(&mut *self.wanted.lock());
        let any = !wanted.is_empty();
        // Those of one version are asked for together.
        while let Some(first) = wanted.first() {
            let version = first.api_version.clone();
            let batch: Vec<Wanted> = wanted
                .extract_if(.., |it| it.api_version == version)
                .collect();
            let objects = batch.iter().map(|it| it.object.clone()).collect();
            let answer = registry.to_version(&self.row, &version, objects).await;
            let mut made = self.made.lock();
            match answer {
                Ok(objects) => {
                    let pairs = batch.into_iter().zip(objects);
                    made.extend(pairs.map(|(of, object)| Made {
                        of,
                        outcome: Ok(object),
                    }));
                }
                Err(status) => made.extend(batch.into_iter().map(|of| Made {
                    of,
                    outcome: Err(status.message.clone()),
                })),
            }
        }
        any
    }

    fn siblings(&self, custom: &CustomType) -> &[CustomType] {
        self.siblings.get_or_init(|| custom.siblings().collect())
    }

    /// The row of a built-in kind in another version. As in the reference a version is one of the
    /// same prefix: `/api` and `/apis` know nothing of each other's types, so that an event's owner
    /// of one group is unknown in the other.
    fn row_of(&self, api_version: &str) -> Option<&Arc<ResourceDef>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = self.rows.by_kind(group, version, &self.row.gvk.kind)?;
        let same_prefix = group.is_empty() == self.row.gvk.group.is_empty();
        (same_prefix && found.store_prefix() == self.row.store_prefix()).then_some(found)
    }

    /// A built-in object in another version, as a typed object of the reference would be: without
    /// nulls, and with what Go writes of empty structs.
    fn viewed(&self, object: &Value, from: &str, to: &str) -> Result<Value, Unconverted> {
        let missing = |version: &str| Unconverted::Failed(format!("there is no {version}"));
        let from = self.row_of(from).ok_or_else(|| missing(from))?;
        let to = self.row_of(to).ok_or_else(|| missing(to))?;
        let mut out = object.clone();
        drop_nulls(&mut out);
        if let Some(view) = &from.view {
            (view.to_stored)(&mut out);
        }
        let version = to.gvk.api_version();
        object::fields(&mut out).insert("apiVersion".to_owned(), version.into());
        if let Some(view) = &to.view {
            (view.from_stored)(&mut out);
        }
        self.rows.fill(to, &mut out);
        Ok(out)
    }

    /// What a webhook has made of an object, or will.
    fn asked(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted> {
        let is_it = |of: &Wanted| of.api_version == api_version && of.object == *object;
        if let Some(made) = self.made.lock().iter().find(|made| is_it(&made.of)) {
            return made.outcome.clone().map_err(Unconverted::Failed);
        }
        let mut wanted = self.wanted.lock();
        if !wanted.iter().any(is_it) {
            wanted.push(Wanted {
                object: object.clone(),
                api_version: api_version.to_owned(),
            });
        }
        Err(Unconverted::Pending)
    }
}

impl Versions for Forms {
    fn version(&self, api_version: &str) -> Option<Version<'_>> {
        if let Some(custom) = &self.row.custom {
            let mut siblings = self.siblings(custom).iter();
            let found = siblings.find(|it| it.api_version() == api_version)?;
            let (schema, ty) = found.merge();
            return Some(Version {
                schema,
                ty: ty.clone(),
                custom: Some(found.has_status()),
            });
        }
        let row = self.row_of(api_version)?;
        Some(Version {
            schema: self.rows.schema(),
            ty: self.rows.ty(row),
            custom: None,
        })
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted> {
        let from = object::text(object, &["apiVersion"]);
        if from == api_version {
            return Ok(object.clone());
        }
        match &self.row.custom {
            None => self.viewed(object, from, api_version),
            Some(custom) if custom.conversion().is_some() => self.asked(object, api_version),
            // Versions that differ by name have the same fields, those too that a schema does not
            // declare: to take them away would lose them on the way back.
            Some(_) => {
                let mut out = object.clone();
                object::fields(&mut out).insert("apiVersion".to_owned(), api_version.into());
                Ok(out)
            }
        }
    }
}

/// Takes the nulls out of maps: Go's structs have none.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
