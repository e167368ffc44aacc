//! What may be given out only once, also by several servers on one store: service addresses and
//! node ports.
//!
//! [`crate::admission::Allocate`] picks from what its server has seen, which another server may have
//! given out a moment ago. So the write of a service claims what the service has, in the same
//! transaction: an object or a key that must be absent, and goes with the service. For an address it
//! is the IPAddress of its name, so that one that somebody else has made claims it too; for a port a
//! key that nobody else reads.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bytes::Bytes;
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, clock, json, object};
use evenkeel_store::{Compare, KeyValue, Op, OpResult, Range, Txn, TxnResult};
use serde_json::Value;

use crate::admission::service_uses;
use crate::object::Object;
use crate::ranges;
use crate::registry::{Registry, key, store_status};

/// The reason of [`taken`], by which the verbs know it.
const REASON: &str = "ClaimTaken";
/// What is claimed by a key alone.
const PREFIX: &str = "/registry/claims/service/";
/// So many keys are removed at once.
const CHUNK: usize = 100;

/// Whether objects of a kind claim anything.
pub(crate) fn may_claim(row: &ResourceDef) -> bool {
    row.gvk.kind == "Service" && row.gvk.group.is_empty()
}

impl Registry {
    /// Adds to a transaction that writes a service the claims that it gains and loses; answers
    /// whether it gains one.
    ///
    /// # Errors
    /// An IPAddress can't be sealed.
    pub(crate) fn claim(
        &self,
        txn: &mut Txn,
        row: &ResourceDef,
        before: Option<&Object>,
        after: Option<&Value>,
    ) -> Result<bool, Status> {
        if !may_claim(row) {
            return Ok(false);
        }
        let uses = |value: &Value| {
            service_uses(value)
                .into_iter()
                .collect::<BTreeSet<String>>()
        };
        let (namespace, name) = match (before, after) {
            (Some(seen), _) => (&*seen.head.namespace, &*seen.head.name),
            (None, Some(value)) => (object::namespace(value), object::name(value)),
            (None, None) => return Ok(false),
        };
        let old = before.map(|seen| uses(&seen.value())).unwrap_or_default();
        let new = after.map(uses).unwrap_or_default();
        for lost in old.difference(&new) {
            let key = match lost.parse() {
                Ok(ip) => self.given_up(ip, namespace, name),
                Err(_) => Some(port_key(lost)),
            };
            txn.success.extend(key.map(|key| Op::Delete { key }));
        }
        for gained in new.difference(&old) {
            let (key, value) = match gained.parse() {
                Ok(ip) => self.given(ip, namespace, name)?,
                Err(_) => (port_key(gained), Bytes::new()),
            };
            txn.compare.push(Compare::ModRevision {
                key: key.clone(),
                revision: 0,
            });
            txn.success.push(Op::Put { key, value });
        }
        Ok(new.difference(&old).next().is_some())
    }

    /// Key and stored form of the IPAddress of a service.
    fn given(&self, ip: IpAddr, namespace: &str, service: &str) -> Result<(Bytes, Bytes), Status> {
        let row = self.address_row()?;
        let mut value = ranges::address_of(ip, namespace, service);
        let metadata = object::metadata(&mut value);
        metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        let now = clock::rfc3339(self.clock.now());
        metadata.insert("creationTimestamp".to_owned(), now.into());
        self.rows.fill(row, &mut value);
        let key = key(row, "", &ip.to_string());
        let plain = json::encode(&value).bytes;
        let sealed = self.seal.seal(&row.stored_group_resource(), &key, &plain);
        let stored = sealed.map_err(|error| Status::internal(error.to_string()))?;
        Ok((key, stored))
    }

    /// The key of an IPAddress that goes with its service. One that belongs to somebody else, or that
    /// somebody holds with a finalizer, stays: who keeps the ranges looks after it.
    fn given_up(&self, ip: IpAddr, namespace: &str, service: &str) -> Option<Bytes> {
        let row = self.address_row().ok()?;
        let name = ip.to_string();
        let known = self.caches.of(row).and_then(|cache| cache.get(&name));
        if let Some(known) = known {
            let value = known.value();
            let is_its = ranges::service_of(&value) == Some((namespace, service));
            if !is_its || !object::finalizers(&value).is_empty() {
                return None;
            }
        }
        Some(key(row, "", &name))
    }

    fn address_row(&self) -> Result<&ResourceDef, Status> {
        let row = self.rows.by_kind(ranges::GROUP, "v1", "IPAddress");
        row.map(AsRef::as_ref).ok_or_else(Status::no_such_path)
    }

    /// Removes the keys by which addresses were claimed before IPAddresses did.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn drop_old_claims(&self) -> Result<(), Status> {
        let all = Range::prefix(Bytes::from_static(PREFIX.as_bytes())).keys_only();
        let found = self.store.range(all).await;
        let found = found.map_err(|error| store_status(&error))?;
        let old: Vec<Bytes> = found
            .kvs
            .into_iter()
            .map(|kv| kv.key)
            .filter(|key| is_address(key))
            .collect();
        for keys in old.chunks(CHUNK) {
            let txn = Txn {
                compare: Vec::new(),
                success: keys
                    .iter()
                    .map(|key| Op::Delete { key: key.clone() })
                    .collect(),
                failure: Vec::new(),
            };
            let done = self.store.txn(txn).await;
            done.map_err(|error| store_status(&error))?;
        }
        Ok(())
    }
}

fn port_key(port: &str) -> Bytes {
    Bytes::from(format!("{PREFIX}{port}"))
}

fn is_address(key: &[u8]) -> bool {
    let used = key.strip_prefix(PREFIX.as_bytes());
    let used = used.and_then(|used| std::str::from_utf8(used).ok());
    used.is_some_and(|used| used.parse::<IpAddr>().is_ok())
}

/// Whether a transaction failed for a claim and not for its object, which is as it `should_be`.
pub(crate) fn lost(result: &TxnResult, should_be: impl Fn(Option<&KeyValue>) -> bool) -> bool {
    if result.succeeded {
        return false;
    }
    let object = result.results.iter().find_map(|result| match result {
        OpResult::Range(read) => Some(read.kvs.first()),
        _ => None,
    });
    object.is_some_and(should_be)
}

/// Another server has just given out what this write claims.
pub(crate) fn taken() -> Status {
    Status::failure(
        409,
        REASON,
        "an address or port of the service was given out at the same moment; try again",
    )
}

/// Whether a status is [`taken`].
pub(crate) fn is_taken(status: &Status) -> bool {
    status.reason == REASON
}
