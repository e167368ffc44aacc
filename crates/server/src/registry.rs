//! Reading fresh and writing with compare-and-swap: the only place that talks to the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::clock::SharedClock;
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Rows, Status, json, object};
use evenkeel_store::{Compare, KeyValue, Op, OpResult, Range, Store, StoreError, Txn, TxnResult};
use serde_json::Value;

use crate::cache::{Caches, KindCache};
use crate::claims;
use crate::convert::Converters;
use crate::families::Families;
use crate::object::{Head, Object};
use crate::seal::Seal;

/// How long caches may take to come up to the store before they ask how far they are,
const PATIENCE: Duration = Duration::from_millis(250);
/// and before a reader is told to come again.
const REACH: Duration = Duration::from_secs(20);

/// What came of an attempt to replace or remove an object.
#[derive(Debug)]
pub enum Outcome {
    /// It is done; the object as it is now (of a removed one its last state, with the revision of
    /// its removal).
    Done(Arc<Object>),
    /// Somebody else was faster; this is what is there now.
    Stale(Option<Arc<Object>>),
}

/// The stored objects of all kinds.
#[derive(Clone)]
pub struct Registry {
    /// The built-in kinds.
    pub rows: Arc<Rows>,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Where everything is read.
    pub caches: Arc<Caches>,
    /// Seals Secrets.
    pub seal: Arc<Seal>,
    /// Wall-clock time, for what is written beside an object.
    pub clock: SharedClock,
    /// Bring custom objects from version to version.
    pub converters: Arc<Converters>,
    /// What is counted on the way.
    pub(crate) counted: Arc<Families>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

/// Turns a failure of the store into an answer.
#[must_use]
pub fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::FutureRevision { requested, current } => {
            let mut status = Status::timeout(
                format!("Too large resource version: {requested}, current: {current}"),
                1,
            );
            status.details.get_or_insert_default().causes =
                vec![evenkeel_api::status::StatusCause {
                    reason: "ResourceVersionTooLarge".to_owned(),
                    message: "Too large resource version".to_owned(),
                    field: String::new(),
                }];
            status
        }
        StoreError::TooLarge { .. } => {
            Status::too_large(format!("Request entity too large: {error}"))
        }
        StoreError::Unavailable {
            uncertain: true, ..
        } => Status::timeout(error.to_string(), 1),
        StoreError::Unavailable { .. } => {
            let mut status = Status::failure(503, "ServiceUnavailable", error.to_string());
            status.details.get_or_insert_default().retry_after_seconds = 1;
            status
        }
        StoreError::Full { .. } | StoreError::AlmostFull { .. } => {
            Status::failure(507, "InsufficientStorage", error.to_string())
        }
        other => Status::internal(full_text(other)),
    }
}

/// An error with all its causes.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Registry {
    /// The cache of a row.
    ///
    /// # Errors
    /// The row keeps no objects.
    pub fn cache(&self, row: &ResourceDef) -> Result<Arc<KindCache>, Status> {
        self.caches.of(row).ok_or_else(|| {
            if row.custom.is_some() {
                // Its definition changed while the request was under way.
                return Status::too_many_requests("storage is (re)initializing", 1);
            }
            Status::method_not_supported(&row.gvk.group, &row.plural, "this operation")
        })
    }

    /// Makes sure that a row's cache is filled.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn warm(&self, row: &Arc<ResourceDef>) -> Result<(), Status> {
        self.caches
            .start(row, self.store.as_ref(), &self.seal)
            .await
            .map(drop)
            .map_err(|error| store_status(&error))
    }

    /// Waits until reads from the cache are as fresh as the store; answers the revision.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn fresh(&self) -> Result<u64, Status> {
        let revision = self
            .store
            .revision()
            .await
            .map_err(|error| store_status(&error))?;
        // A revision of somebody else on the same etcd brings the caches no event: so they ask how
        // far they have come. The embedded store's own events are always on their way.
        let until = tokio::time::Instant::now() + REACH;
        while tokio::time::timeout(PATIENCE, self.caches.reach(revision))
            .await
            .is_err()
        {
            if tokio::time::Instant::now() >= until {
                return Err(Status::timeout(
                    format!(
                        "the caches are at revision {}, the store is at {revision}",
                        self.caches.revision()
                    ),
                    1,
                ));
            }
            self.store
                .request_progress()
                .await
                .map_err(|error| store_status(&error))?;
        }
        Ok(revision.max(self.caches.revision()))
    }

    /// The object of a name as the store has it now.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn get(
        &self,
        row: &ResourceDef,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        self.fresh().await?;
        self.known(row, namespace, name).await
    }

    /// The object of a name as the cache has it: for those who have had it come up to the store
    /// ([`Self::fresh`]) since they were asked.
    ///
    /// # Errors
    /// A webhook does not convert it.
    pub async fn known(
        &self,
        row: &ResourceDef,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        match self.cache(row)?.get(&path(namespace, name)) {
            Some(found) => self.shown_one(row, found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores a new object. `None`: the name is taken.
    ///
    /// The tree is taken, here and in [`Self::replace`]: it is many times as large as its bytes and
    /// scattered, so that it goes while the processor still has it at hand. Whoever waits for the store
    /// holds none.
    ///
    /// # Errors
    /// The store refuses or fails.
    pub async fn create(
        &self,
        row: &ResourceDef,
        value: Value,
    ) -> Result<Option<Arc<Object>>, Status> {
        let key = key(row, object::namespace(&value), object::name(&value));
        let form = self.encode(row, &key, &value).await?;
        let mut txn = Txn {
            compare: vec![Compare::ModRevision {
                key: key.clone(),
                revision: 0,
            }],
            success: vec![Op::Put {
                key: key.clone(),
                value: form.stored.clone(),
            }],
            failure: vec![Op::Range(Range::key(key.clone()).keys_only())],
        };
        let claimed = self.claim(&mut txn, row, None, Some(&value))?;
        drop(value);
        let result = self.carry_out("create", row, txn).await?;
        if claimed && claims::lost(&result, |kv| kv.is_none()) {
            return Err(claims::taken());
        }
        if !result.succeeded {
            return Ok(None);
        }
        self.written(row, form, result.revision).await.map(Some)
    }

    /// Replaces an object if it is still what the caller has seen. Writing what is there already
    /// does nothing.
    ///
    /// # Errors
    /// The store refuses or fails.
    pub async fn replace(
        &self,
        row: &ResourceDef,
        seen: &Object,
        value: Value,
    ) -> Result<Outcome, Status> {
        let key = key(row, &seen.head.namespace, &seen.head.name);
        let form = self.encode(row, &key, &value).await?;
        if form.encoded.bytes == seen.bytes && !seen.stale && !self.is_stale(row, &key).await? {
            return Ok(Outcome::Done(Arc::new(seen.clone())));
        }
        let mut txn = Txn {
            compare: vec![Compare::ModRevision {
                key: key.clone(),
                revision: seen.revision,
            }],
            success: vec![Op::Put {
                key: key.clone(),
                value: form.stored.clone(),
            }],
            failure: vec![Op::Range(Range::key(key.clone()))],
        };
        let claimed = self.claim(&mut txn, row, Some(seen), Some(&value))?;
        drop(value);
        let result = self.carry_out("update", row, txn).await?;
        if result.succeeded {
            let done = self.written(row, form, result.revision).await?;
            return Ok(Outcome::Done(done));
        }
        let unchanged =
            |kv: Option<&KeyValue>| kv.is_some_and(|kv| kv.mod_revision == seen.revision);
        if claimed && claims::lost(&result, unchanged) {
            return Err(claims::taken());
        }
        self.stale(row, result.results).await
    }

    /// Removes an object if it is still what the caller has seen.
    ///
    /// # Errors
    /// The store refuses or fails.
    pub async fn remove(&self, row: &ResourceDef, seen: &Object) -> Result<Outcome, Status> {
        let key = key(row, &seen.head.namespace, &seen.head.name);
        let mut txn = Txn {
            compare: vec![Compare::ModRevision {
                key: key.clone(),
                revision: seen.revision,
            }],
            success: vec![Op::Delete { key: key.clone() }],
            failure: vec![Op::Range(Range::key(key.clone()))],
        };
        self.claim(&mut txn, row, Some(seen), None)?;
        let result = self.carry_out("delete", row, txn).await?;
        if result.succeeded {
            let mut gone = seen.clone();
            gone.revision = result.revision;
            return Ok(Outcome::Done(Arc::new(gone)));
        }
        self.stale(row, result.results).await
    }

    /// The first objects of a kind as they were at a revision, at most so many, and how many there
    /// were, read from the store's history.
    ///
    /// # Errors
    /// The revision is compacted, or in the future, or the store fails.
    pub async fn list_at(
        &self,
        row: &ResourceDef,
        namespace: &str,
        after: Option<&str>,
        revision: u64,
        most: usize,
    ) -> Result<(Vec<Arc<Object>>, usize), Status> {
        let prefix = key(row, namespace, "");
        let mut range = Range::prefix(prefix).at(revision);
        // The store takes 0 for all.
        range.limit = if most == usize::MAX { 0 } else { most.max(1) };
        if let Some(after) = after {
            // The key right behind the last one that was given out.
            range.start = Bytes::from(format!("{}{after}\0", row.store_prefix()));
        }
        let began = tokio::time::Instant::now();
        let found = self.store.range(range).await;
        self.counted.stored("list", row, began, &found);
        let found = found.map_err(|error| store_status(&error))?;
        for kv in &found.kvs {
            self.learn(&kv.value).await?;
        }
        let count = found.count;
        let found: Result<Vec<Arc<Object>>, Status> = found
            .kvs
            .into_iter()
            .map(|kv| self.read(row, &kv.key, &kv.value, kv.mod_revision))
            .collect();
        Ok((self.shown(row, found?).await?, count))
    }

    async fn carry_out(
        &self,
        operation: &str,
        row: &ResourceDef,
        txn: Txn,
    ) -> Result<TxnResult, Status> {
        let began = tokio::time::Instant::now();
        let answer = self.store.txn(txn).await;
        self.counted.stored(operation, row, began, &answer);
        answer.map_err(|error| store_status(&error))
    }

    /// Makes sure that a stored value can be opened.
    async fn learn(&self, value: &Bytes) -> Result<(), Status> {
        let learned = self.seal.learn(value).await;
        learned.map_err(|error| Status::internal(error.to_string()))
    }

    /// Reads a stored value. It may be of another version than the row: see [`Self::shown`]. Who
    /// reads from the store has asked for its key before ([`crate::seal::Seal::learn`]).
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(
        &self,
        row: &ResourceDef,
        key: &[u8],
        value: &Bytes,
        revision: u64,
    ) -> Result<Arc<Object>, Status> {
        let plain = self
            .seal
            .unseal(&row.stored_group_resource(), key, value)
            .map_err(|error| Status::internal(error.to_string()))?;
        Object::read(row, plain, revision)
            .map(Arc::new)
            .map_err(|error| Status::internal(error.to_string()))
    }

    /// Whether what is stored was sealed by another provider or key than it would be now: then it
    /// is written again though it is the same.
    async fn is_stale(&self, row: &ResourceDef, key: &Bytes) -> Result<bool, Status> {
        let resource = row.stored_group_resource();
        if !self.seal.covers(&resource) {
            return Ok(false);
        }
        let found = self
            .store
            .range(Range::key(key.clone()))
            .await
            .map_err(|error| store_status(&error))?;
        let stored = found.kvs.first();
        Ok(stored.is_some_and(|kv| self.seal.is_stale(&resource, &kv.value)))
    }

    async fn stale(&self, row: &ResourceDef, results: Vec<OpResult>) -> Result<Outcome, Status> {
        let now = results.into_iter().find_map(|result| match result {
            OpResult::Range(found) => found.kvs.into_iter().next(),
            _ => None,
        });
        let Some(kv) = now else {
            return Ok(Outcome::Stale(None));
        };
        Box::pin(self.learn(&kv.value)).await?;
        let found = self.read(row, &kv.key, &kv.value, kv.mod_revision)?;
        let found = self.shown_one(row, found).await?;
        Ok(Outcome::Stale(Some(found)))
    }

    /// What has been written, as readers see it: what a webhook has converted for the store is
    /// converted back, as readers will have it.
    async fn written(
        &self,
        row: &ResourceDef,
        form: Form,
        revision: u64,
    ) -> Result<Arc<Object>, Status> {
        if let Some(plain) = form.converted {
            let object = Object::read(row, plain, revision)
                .map_err(|error| Status::internal(error.to_string()))?;
            return self.shown_one(row, Arc::new(object)).await;
        }
        Ok(Arc::new(Object {
            bytes: form.encoded.bytes,
            splice: form.encoded.splice,
            revision,
            head: form.head,
            stale: false,
            foreign: None,
        }))
    }

    /// The bytes of an object, plain and as they are stored.
    async fn encode(&self, row: &ResourceDef, key: &Bytes, value: &Value) -> Result<Form, Status> {
        let encoded = json::encode(value);
        let by_webhook = self.stored_form(row, value).await?;
        let converted = by_webhook.as_ref().map(|stored| json::encode(stored).bytes);
        let custom = by_webhook.or_else(|| row.custom.as_ref()?.to_stored(value));
        let plain = match (&row.view, custom) {
            (Some(view), _) => {
                let mut stored = value.clone();
                (view.to_stored)(&mut stored);
                json::encode(&stored).bytes
            }
            (None, Some(stored)) => json::encode(&stored).bytes,
            (None, None) => encoded.bytes.clone(),
        };
        let stored = self
            .seal
            .seal(&row.stored_group_resource(), key, &plain)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Form {
            encoded,
            head: Head::of(row, value),
            converted,
            stored,
        })
    }
}

/// An object on its way into the store.
struct Form {
    /// As its row shows it.
    encoded: json::Encoded,
    /// What selection needs of that.
    head: Head,
    /// As a webhook has made it for the store, plain.
    converted: Option<Bytes>,
    /// As it is stored: sealed where that is due.
    stored: Bytes,
}

/// `NAMESPACE/NAME`, or `NAME` without a namespace.
#[must_use]
pub fn path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// The store key of an object, or the prefix of a namespace when the name is empty.
pub(crate) fn key(row: &ResourceDef, namespace: &str, name: &str) -> Bytes {
    let prefix = row.store_prefix();
    Bytes::from(if namespace.is_empty() {
        format!("{prefix}{name}")
    } else {
        format!("{prefix}{namespace}/{name}")
    })
}
