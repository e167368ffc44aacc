//! Custom objects brought from one version of their kind to another by the webhook that their
//! definition names.
//!
//! The caches keep what is stored. Bytes of another version than the one that a cache shows are
//! marked as foreign and converted when somebody reads them, once for all readers: a list asks for
//! all that it misses at once. So a webhook that fails costs those who read its objects an answer,
//! and nobody else anything; the feed never waits for it. Form and checks of reviews are in
//! [`evenkeel_api::custom`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::custom::{Conversion, CustomType, settle_converted};
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, json, object};
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::Change;
use crate::object::{Head, Object};
use crate::outbound::Client;
use crate::registry::Registry;

/// A webhook has so long for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So many objects are put into one review,
const BATCH: usize = 256;
/// and, but for the first, no more bytes than that.
const BATCH_BYTES: usize = 1 << 20;
/// So many ways to webhooks are kept open.
const CLIENTS_MOST: usize = 256;

/// The ways to conversion webhooks, by the text of their `clientConfig`.
#[derive(Debug, Default)]
pub struct Converters {
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

impl Converters {
    fn client(&self, config: &Value) -> Arc<Client> {
        let text = config.to_string();
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MOST && !clients.contains_key(&text) {
            clients.clear();
        }
        let client = clients
            .entry(text)
            .or_insert_with(|| Arc::new(Client::read(config)));
        Arc::clone(client)
    }
}

/// An answer without a reason, as the reference gives for errors that have none.
fn failure(message: String) -> Status {
    Status::failure(500, "", message)
}

/// `GROUP/VERSION, Kind=KIND`, as the reference shows one.
fn shown(object: &Value) -> String {
    format!(
        "{}, Kind={}",
        object::text(object, &["apiVersion"]),
        object::text(object, &["kind"])
    )
}

impl Registry {
    /// The objects in the version of their row.
    ///
    /// # Errors
    /// The webhook can't be asked, or does not convert.
    pub async fn shown(
        &self,
        row: &ResourceDef,
        objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let Some((custom, conversion)) = by_webhook(row) else {
            return Ok(objects);
        };
        let waits = |object: &&Arc<Object>| {
            let foreign = object.foreign.as_ref();
            foreign.is_some_and(|foreign| foreign.get().is_none())
        };
        let missing: Vec<Arc<Object>> = objects.iter().filter(waits).cloned().collect();
        let mut rest = missing.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |object: &&Arc<Object>| {
                bytes += object.bytes.len();
                bytes <= BATCH_BYTES
            };
            let count = rest.iter().take(BATCH).take_while(fits).count().max(1);
            let (batch, more) = rest.split_at(count);
            self.convert_foreign(row, custom, conversion, batch).await?;
            rest = more;
        }
        Ok(objects.into_iter().map(converted).collect())
    }

    /// One object in the version of its row. Who asks while somebody else does waits for that
    /// answer.
    ///
    /// # Errors
    /// The webhook can't be asked, or does not convert.
    pub async fn shown_one(
        &self,
        row: &ResourceDef,
        object: Arc<Object>,
    ) -> Result<Arc<Object>, Status> {
        if let (Some(foreign), Some((custom, conversion))) = (&object.foreign, by_webhook(row)) {
            let converting = foreign.get_or_try_init(|| async {
                let one = [Arc::clone(&object)];
                let mut made = self.converted(row, custom, conversion, &one).await?;
                made.pop().ok_or_else(|| failure("no object".to_owned()))
            });
            // Apart on the heap: every request that reads or writes has room for this.
            Box::pin(converting).await?;
        }
        Ok(converted(object))
    }

    /// Changes in the version of their row.
    ///
    /// # Errors
    /// The webhook can't be asked, or does not convert.
    pub async fn shown_changes(
        &self,
        row: &ResourceDef,
        changes: Vec<Arc<Change>>,
    ) -> Result<Vec<Arc<Change>>, Status> {
        if by_webhook(row).is_none() {
            return Ok(changes);
        }
        let mut out = Vec::with_capacity(changes.len());
        for change in changes {
            let previous = change.previous.clone();
            let foreign = |object: &Arc<Object>| object.foreign.is_some();
            if !foreign(&change.object) && !previous.as_ref().is_some_and(foreign) {
                out.push(change);
                continue;
            }
            let object = self.shown_one(row, Arc::clone(&change.object)).await?;
            let previous = match previous {
                Some(previous) => Some(self.shown_one(row, previous).await?),
                None => None,
            };
            out.push(Arc::new(Change::new(change.kind, object, previous)));
        }
        Ok(out)
    }

    async fn convert_foreign(
        &self,
        row: &ResourceDef,
        custom: &CustomType,
        conversion: &Conversion,
        batch: &[Arc<Object>],
    ) -> Result<(), Status> {
        let made = self.converted(row, custom, conversion, batch).await?;
        for (object, made) in batch.iter().zip(made) {
            if let Some(foreign) = &object.foreign {
                // Somebody else may have been faster; that is as good.
                drop(foreign.set(made));
            }
        }
        Ok(())
    }

    /// Objects of other versions, as the webhook makes them.
    async fn converted(
        &self,
        row: &ResourceDef,
        custom: &CustomType,
        conversion: &Conversion,
        batch: &[Arc<Object>],
    ) -> Result<Vec<Arc<Object>>, Status> {
        let mut sent = Vec::with_capacity(batch.len());
        for object in batch {
            let mut value: Value = serde_json::from_slice(&object.bytes)
                .map_err(|error| Status::internal(error.to_string()))?;
            let version = object::text(&value, &["apiVersion"]).to_owned();
            let from = custom.sibling(&version).ok_or_else(|| {
                failure(format!(
                    "request to convert CR from an invalid group/version: {version}"
                ))
            })?;
            from.read_stored(&mut value);
            sent.push(value);
        }
        let made = self.ask(conversion, custom, sent).await?;
        let made = made.into_iter().zip(batch).map(|(value, object)| {
            let encoded = json::encode(&value);
            Arc::new(Object {
                head: Head::of(row, &value),
                bytes: encoded.bytes,
                splice: encoded.splice,
                revision: object.revision,
                stale: object.stale,
                foreign: None,
            })
        });
        Ok(made.collect())
    }

    /// What is stored of an object, when a webhook has to say; `None` when it is stored as it is
    /// or in a way that needs none.
    ///
    /// # Errors
    /// The webhook can't be asked, or does not convert.
    pub async fn stored_form(
        &self,
        row: &ResourceDef,
        value: &Value,
    ) -> Result<Option<Value>, Status> {
        let Some((custom, conversion)) = by_webhook(row) else {
            return Ok(None);
        };
        let Some(stored) = custom.sibling(custom.stored_version()) else {
            return Ok(None);
        };
        if stored.api_version() == custom.api_version() {
            return Ok(None);
        }
        let mut sent = value.clone();
        object::metadata(&mut sent).remove("resourceVersion");
        let mut made = Box::pin(self.ask(conversion, &stored, vec![sent])).await?;
        Ok(made.pop())
    }

    /// An object of one row as an object of another row of the same things.
    ///
    /// # Errors
    /// The webhook can't be asked, or does not convert.
    pub async fn convert(
        &self,
        from: &ResourceDef,
        to: &ResourceDef,
        value: &Value,
    ) -> Result<Value, Status> {
        if from.gvk == to.gvk || !value.is_object() {
            return Ok(value.clone());
        }
        if let (Some((_, conversion)), Some(wanted)) = (by_webhook(from), &to.custom) {
            let mut made = self.ask(conversion, wanted, vec![value.clone()]).await?;
            return made.pop().ok_or_else(|| failure("no object".to_owned()));
        }
        let mut value = value.clone();
        if let Some(view) = &from.view {
            (view.to_stored)(&mut value);
        }
        let fields = object::fields(&mut value);
        fields.insert("apiVersion".to_owned(), to.gvk.api_version().into());
        fields.insert("kind".to_owned(), to.gvk.kind.to_string().into());
        if let Some(view) = &to.view {
            (view.from_stored)(&mut value);
        }
        if let Some(custom) = &to.custom {
            custom.prune(&mut value);
        }
        Ok(value)
    }

    /// Objects of a custom kind, each in whatever version of it, in one version, which need not be
    /// served.
    ///
    /// # Errors
    /// There is no such version, the webhook can't be asked, or does not convert.
    pub(crate) async fn to_version(
        &self,
        row: &ResourceDef,
        api_version: &str,
        objects: Vec<Value>,
    ) -> Result<Vec<Value>, Status> {
        let found = by_webhook(row)
            .and_then(|(custom, conversion)| Some((custom.sibling(api_version)?, conversion)));
        let (to, conversion) = found.ok_or_else(|| {
            failure(format!(
                "request to convert CR to an invalid group/version: {api_version}"
            ))
        })?;
        self.ask(conversion, &to, objects).await
    }

    /// Asks a webhook to bring objects to a version. Those that are of it are not sent.
    async fn ask(
        &self,
        conversion: &Conversion,
        to: &CustomType,
        objects: Vec<Value>,
    ) -> Result<Vec<Value>, Status> {
        let desired = to.api_version();
        let is_there = |object: &Value| object::text(object, &["apiVersion"]) == desired;
        let sent: Vec<Value> = objects.iter().filter(|it| !is_there(it)).cloned().collect();
        let Some(first) = sent.first() else {
            return Ok(objects);
        };
        let head = format!("conversion webhook for {}", shown(first));
        let uid = uuid::Uuid::new_v4().to_string();
        let review = conversion.review(&uid, desired, &sent).map_err(failure)?;
        let client = self.converters.client(&conversion.client_config);
        let began = tokio::time::Instant::now();
        let count = |failure: &str| {
            let result = if failure.is_empty() {
                "success"
            } else {
                "failure"
            };
            let told = [failure, result];
            self.counted.conversions.took(&told, began.elapsed());
            self.counted.conversion_requests.one(&told);
        };
        let answer = client.post(self, &review, TIMEOUT).await;
        if answer.is_err() {
            count("conversion_webhook_call_failure");
        }
        let answer = answer.and_then(|answer| {
            let read = conversion.answer(&uid, answer);
            if read.is_err() {
                count("conversion_webhook_malformed_response_failure");
            }
            read
        });
        let made = answer.map_err(|why| failure(format!("{head} failed: {why}")))?;
        if made.len() == sent.len() {
            count("");
        } else {
            count("conversion_webhook_partial_response_failure");
            return Err(failure(format!(
                "{head} returned {} objects, expected {}",
                made.len(),
                sent.len()
            )));
        }
        let many = sent.len() > 1;
        let mut made = sent.iter().zip(made).enumerate();
        objects
            .into_iter()
            .map(|object| {
                if is_there(&object) {
                    return Ok(object);
                }
                let Some((index, (sent, mut converted))) = made.next() else {
                    return Ok(object);
                };
                settle_converted(sent, &mut converted, desired, (index, many))
                    .map_err(|why| failure(format!("{head} returned {why}")))?;
                to.prune(&mut converted);
                Ok(converted)
            })
            .collect()
    }
}

/// The type and the webhook of a row whose versions a webhook converts.
fn by_webhook(row: &ResourceDef) -> Option<(&CustomType, &Conversion)> {
    let custom = row.custom.as_deref()?;
    Some((custom, custom.conversion()?))
}

/// What a foreign object was converted to, at its revision: a deleted one has another than it had
/// before.
pub(crate) fn converted(object: Arc<Object>) -> Arc<Object> {
    let made = object.foreign.as_ref().and_then(|foreign| foreign.get());
    match made {
        None => object,
        Some(made) if made.revision == object.revision => Arc::clone(made),
        Some(made) => {
            let mut made = Object::clone(made);
            made.revision = object.revision;
            Arc::new(made)
        }
    }
}
