//! The engine on etcd: the same words, kept by a cluster of its own, for several servers at once.
//!
//! What lives here: how the words of the store are said to etcd ([`keyspace`], [`proto`]), which
//! member is asked and what its errors mean ([`cluster`]), and watches that outlive members
//! ([`watch`]). What never does: any state that another server on the same etcd would not see,
//! but for hints that only save work.

mod cluster;
mod fill;
mod keyspace;
mod proto;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
pub use evenkeel_grpc::TlsFiles;
use evenkeel_grpc::{Target, tls_config};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use self::cluster::{Cluster, Repeat};
use self::keyspace::{Keyspace, signed, unsigned};
use crate::error::StoreError;
use crate::model::{Op, Range, RangeResult, Revision, StoreStats, Txn, TxnResult};
use crate::snapshot::{self, Summary};
use crate::store::{Store, WatchStream};
use crate::validate::validate;

/// Written to make an event, see [`watch`].
const PROGRESS: &str = "progress";
/// Holds what is added to etcd's revisions.
const OFFSET: &str = "offset";
/// There while a store is filled.
const UNFINISHED: &str = "unfinished";
/// So many keys are read at once; the rest follows at the same revision.
const PAGE: usize = 2000;
/// How long a member may take to defragment; it serves nobody meanwhile.
const DEFRAGMENT: Duration = Duration::from_secs(120);

/// A transaction without a condition.
fn txn_of(success: Vec<Op>) -> Txn {
    Txn {
        success,
        ..Txn::default()
    }
}

/// How a store on etcd is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdOptions {
    /// The members: `https://HOST:PORT` or, without TLS, `http://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// What TLS needs.
    pub tls: TlsFiles,
    /// Put before every key, so that several clusters can share one etcd.
    pub prefix: String,
}

/// A store that a cluster of etcd keeps.
pub struct EtcdStore {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore")
            .field("cluster", &self.shared.cluster.names())
            .finish_non_exhaustive()
    }
}

/// What the store and its watches share.
struct Shared {
    cluster: Cluster,
    keys: Keyspace,
    /// The last compaction that was asked for here. etcd is asked to compact the revision before
    /// it: 3.4 forgets the deletions of the compacted revision itself (etcd issue 19179).
    floor: AtomicU64,
    /// Watches owe progress up to this revision.
    asked: tokio::sync::watch::Sender<Revision>,
    /// The last write of the progress key; held while one is on its way.
    barrier: Mutex<Revision>,
    /// Reads of the revision on their way: how many were asked for,
    tickets: AtomicU64,
    /// and for which of those the last one was good.
    answered: Mutex<(u64, Revision)>,
    txns: AtomicU64,
}

impl Shared {
    fn floor(&self) -> Revision {
        self.floor.load(Ordering::Relaxed)
    }

    /// Makes an event beyond `revision`, unless there is one.
    async fn barrier(&self, revision: Revision) {
        let mut last = self.barrier.lock().await;
        if *last > revision {
            return;
        }
        let put = proto::PutRequest {
            key: self.keys.own(PROGRESS),
            ..proto::PutRequest::default()
        };
        let request = proto::TxnRequest {
            success: vec![proto::RequestOp {
                request: Some(proto::Request::Put(put)),
            }],
            ..proto::TxnRequest::default()
        };
        match self
            .cluster
            .call::<proto::TxnResponse>(proto::TXN, &request, Repeat::Always)
            .await
        {
            Ok(done) => *last = self.keys.header(done.header.as_ref()),
            Err(error) => tracing::debug!(%error, "no progress can be written"),
        }
    }

    async fn read(
        &self,
        request: &proto::RangeRequest,
    ) -> Result<proto::RangeResponse, StoreError> {
        let answer: proto::RangeResponse = self
            .cluster
            .call(proto::RANGE, request, Repeat::Always)
            .await?;
        self.cluster.recognize(answer.header.as_ref())?;
        Ok(answer)
    }

    /// The revision, as a read that begins now sees it.
    async fn now(&self) -> Result<Revision, StoreError> {
        let nothing = proto::RangeRequest {
            key: self.keys.own("nothing"),
            count_only: true,
            ..proto::RangeRequest::default()
        };
        let answer = self.read(&nothing).await?;
        Ok(self.keys.header(answer.header.as_ref()))
    }

    /// As [`Self::now`]; those who ask while a read is on its way share the next one.
    async fn revision(&self) -> Result<Revision, StoreError> {
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answered = self.answered.lock().await;
        if answered.0 >= ticket {
            return Ok(answered.1);
        }
        // The read begins now: it is good for all who have asked by now.
        let until = self.tickets.load(Ordering::SeqCst);
        let revision = self.now().await?;
        *answered = (until, revision);
        Ok(revision)
    }

    /// Fills in what etcd's errors about revisions do not say.
    async fn explain(&self, error: StoreError, requested: Revision) -> StoreError {
        match error {
            StoreError::Compacted { .. } => StoreError::Compacted {
                requested,
                compacted: self.floor().max(requested + 1),
            },
            StoreError::FutureRevision { .. } => match self.now().await {
                Ok(current) => StoreError::FutureRevision { requested, current },
                Err(error) => error,
            },
            other => other,
        }
    }

    fn check_floor(&self, requested: Revision) -> Result<(), StoreError> {
        let compacted = self.floor().max(match self.keys.offset {
            0 => 0,
            offset => offset + 1,
        });
        if requested < compacted {
            return Err(StoreError::Compacted {
                requested,
                compacted,
            });
        }
        Ok(())
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let asked = range.revision.filter(|revision| *revision > 0);
        let mut wire = 0;
        if let Some(revision) = asked {
            self.check_floor(revision)?;
            wire = self.keys.to_wire(revision).unwrap_or(0);
        }
        let Some(mut request) = self.keys.range(&range, wire) else {
            let revision = self.revision().await?;
            if let Some(requested) = asked.filter(|asked| *asked > revision) {
                return Err(StoreError::FutureRevision {
                    requested,
                    current: revision,
                });
            }
            return Ok(RangeResult {
                revision,
                ..RangeResult::default()
            });
        };
        let wanted = match range.limit {
            0 => usize::MAX,
            limit => limit,
        };
        'whole: loop {
            request.limit = signed(wanted.min(PAGE) as u64);
            let first = match self.read(&request).await {
                Ok(first) => first,
                Err(error) => return Err(self.explain(error, asked.unwrap_or(0)).await),
            };
            let mut result = self.keys.ranged(&first);
            let mut more = first.more;
            // What follows is read as of the same revision.
            let mut next = proto::RangeRequest {
                revision: match wire {
                    0 => first.header.as_ref().map_or(0, |header| header.revision),
                    wire => wire,
                },
                ..request.clone()
            };
            let mut last = first.kvs.last().map(|kv| kv.key.clone());
            while more && result.kvs.len() < wanted {
                let Some(after) = last.take() else { break };
                next.key = [&after[..], b"\0"].concat().into();
                next.limit = signed((wanted - result.kvs.len()).min(PAGE) as u64);
                let page = match self.read(&next).await {
                    Ok(page) => page,
                    // A list of now, overtaken by compaction, is begun anew.
                    Err(StoreError::Compacted { .. }) if asked.is_none() => continue 'whole,
                    Err(error) => return Err(self.explain(error, asked.unwrap_or(0)).await),
                };
                more = page.more;
                last = page.kvs.last().map(|kv| kv.key.clone());
                result
                    .kvs
                    .extend(page.kvs.iter().map(|kv| self.keys.kv(kv)));
            }
            result.more = result.kvs.len() < result.count && !range.count_only;
            return Ok(result);
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        validate(&txn)?;
        let request = self.keys.txn(&txn)?;
        let reads = |ops: &[Op]| ops.iter().all(|op| matches!(op, Op::Range(_)));
        let repeat = if reads(&txn.success) && reads(&txn.failure) {
            Repeat::Always
        } else {
            Repeat::IfUndone
        };
        let answer: proto::TxnResponse = match self.cluster.call(proto::TXN, &request, repeat).await
        {
            Ok(answer) => answer,
            Err(error) => {
                let requested = txn
                    .success
                    .iter()
                    .chain(&txn.failure)
                    .find_map(|op| match op {
                        Op::Range(range) => range.revision,
                        _ => None,
                    });
                return Err(self.explain(error, requested.unwrap_or(0)).await);
            }
        };
        self.cluster.recognize(answer.header.as_ref())?;
        self.txns.fetch_add(1, Ordering::Relaxed);
        let revision = self.keys.header(answer.header.as_ref());
        Ok(TxnResult {
            succeeded: answer.succeeded,
            revision,
            results: answer
                .responses
                .iter()
                .map(|response| self.keys.done(response, revision))
                .collect(),
        })
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let current = self.revision().await?;
        if revision > current {
            return Err(StoreError::FutureRevision {
                requested: revision,
                current,
            });
        }
        let refused = |compacted| StoreError::Compacted {
            requested: revision,
            compacted,
        };
        if revision <= self.floor() {
            return Err(refused(self.floor()));
        }
        let wire = revision
            .checked_sub(1)
            .and_then(|before| self.keys.to_wire(before))
            .ok_or_else(|| refused(self.keys.offset + 1))?;
        let request = proto::CompactionRequest { revision: wire };
        match self
            .cluster
            .call::<proto::CompactionResponse>(proto::COMPACT, &request, Repeat::Always)
            .await
        {
            Ok(_) => {}
            Err(StoreError::Compacted { .. }) => {
                // Another server was faster, or an attempt of ours whose answer was lost.
                self.floor.fetch_max(revision, Ordering::Relaxed);
                return Err(refused(revision));
            }
            Err(error) => return Err(error),
        }
        self.floor.fetch_max(revision, Ordering::Relaxed);
        Ok(())
    }
}

impl EtcdStore {
    /// Connects, and finds out what is kept there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no member answers, or an option is wrong.
    pub async fn open(options: &EtcdOptions) -> Result<Self, StoreError> {
        match Self::connect(options).await? {
            (store, false) => Ok(store),
            (store, true) => Err(StoreError::Corrupt {
                path: store.shared.cluster.names().into(),
                detail: "a store was to be moved or restored there, and it was not finished: do \
                         it again"
                    .to_owned(),
            }),
        }
    }

    /// Connects; answers as well whether a filling did not come to its end.
    async fn connect(options: &EtcdOptions) -> Result<(Self, bool), StoreError> {
        let wrong = |detail: String| StoreError::Unavailable {
            detail,
            uncertain: false,
        };
        if options.endpoints.is_empty() {
            return Err(wrong("no endpoint of etcd is named".to_owned()));
        }
        let tls = tls_config(&options.tls).map_err(wrong)?;
        let targets = options
            .endpoints
            .iter()
            .map(|endpoint| Target::parse(endpoint, tls.as_ref()).map_err(wrong))
            .collect::<Result<Vec<_>, _>>()?;
        let mut keys = Keyspace {
            prefix: Bytes::copy_from_slice(options.prefix.as_bytes()),
            offset: 0,
        };
        let cluster = Cluster::new(targets);
        let (key, range_end) = keys.owns();
        let own: proto::RangeResponse = cluster
            .call(
                proto::RANGE,
                &proto::RangeRequest {
                    key,
                    range_end,
                    ..proto::RangeRequest::default()
                },
                Repeat::Always,
            )
            .await?;
        cluster.recognize(own.header.as_ref())?;
        let unfinished_key = keys.own(UNFINISHED);
        let unfinished = own.kvs.iter().any(|kv| kv.key == unfinished_key);
        let offset_key = keys.own(OFFSET);
        if let Some(kv) = own.kvs.iter().find(|kv| kv.key == offset_key) {
            keys.offset = std::str::from_utf8(&kv.value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| StoreError::Corrupt {
                    path: cluster.names().into(),
                    detail: "the offset of its revisions is not a number".to_owned(),
                })?;
        }
        let store = Self {
            shared: Arc::new(Shared {
                cluster,
                keys,
                floor: AtomicU64::new(0),
                asked: tokio::sync::watch::Sender::new(0),
                barrier: Mutex::default(),
                tickets: AtomicU64::new(0),
                answered: Mutex::default(),
                txns: AtomicU64::new(0),
            }),
        };
        Ok((store, unfinished))
    }

    /// Makes revisions go on beyond `least`, in a store that has no keys yet.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when there are keys.
    pub async fn raise(mut self, least: Revision) -> Result<Self, StoreError> {
        let all = self.shared.range(Range::prefix("").count_only()).await?;
        if all.count > 0 {
            return Err(StoreError::Invalid {
                reason: "the store is not empty",
            });
        }
        let missing = (least + 1).saturating_sub(all.revision);
        if missing > 0 {
            let offset = self.shared.keys.offset + missing;
            let put = proto::PutRequest {
                key: self.shared.keys.own(OFFSET),
                value: offset.to_string().into(),
                prev_kv: false,
            };
            let request = proto::TxnRequest {
                success: vec![proto::RequestOp {
                    request: Some(proto::Request::Put(put)),
                }],
                ..proto::TxnRequest::default()
            };
            self.shared
                .cluster
                .call::<proto::TxnResponse>(proto::TXN, &request, Repeat::Always)
                .await?;
            if let Some(shared) = Arc::get_mut(&mut self.shared) {
                shared.keys.offset = offset;
            }
        }
        Ok(self)
    }

    /// Fills a store that has no keys yet from a snapshot, and reads it back. Revisions go on
    /// `beyond` that of the snapshot. A store whose filling did not come to its end is refused by
    /// [`Self::open`], and emptied by the next attempt.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a damaged snapshot, [`StoreError::Invalid`] when there are keys.
    pub async fn restore(
        options: &EtcdOptions,
        file: &Path,
        beyond: u64,
    ) -> Result<Summary, StoreError> {
        let summary = snapshot::read(file, |_| Ok(()))?;
        let (store, unfinished) = Self::connect(options).await?;
        if unfinished {
            let all = Op::DeleteRange {
                start: Bytes::new(),
                end: Bytes::new(),
            };
            store.shared.txn(txn_of(vec![all])).await?;
        }
        let store = store.raise(summary.revision + beyond).await?;
        store.mark(UNFINISHED, true).await?;
        fill::fill(&store.shared, file).await?;
        fill::compare(&store.shared, file, summary).await?;
        store.mark(UNFINISHED, false).await?;
        Ok(summary)
    }

    /// Sets or removes a key of the engine's own.
    async fn mark(&self, name: &str, set: bool) -> Result<(), StoreError> {
        let key = self.shared.keys.own(name);
        let request = if set {
            proto::Request::Put(proto::PutRequest {
                key,
                ..proto::PutRequest::default()
            })
        } else {
            proto::Request::DeleteRange(proto::DeleteRangeRequest {
                key,
                ..proto::DeleteRangeRequest::default()
            })
        };
        let request = proto::TxnRequest {
            success: vec![proto::RequestOp {
                request: Some(request),
            }],
            ..proto::TxnRequest::default()
        };
        self.shared
            .cluster
            .call::<proto::TxnResponse>(proto::TXN, &request, Repeat::Always)
            .await
            .map(drop)
    }

    /// Gives free space back to the file system, one member after the other: each serves nobody
    /// meanwhile.
    ///
    /// # Errors
    /// A member that could not.
    pub async fn defragment(&self) -> Result<(), StoreError> {
        let request = proto::DefragmentRequest {};
        let answers = self
            .shared
            .cluster
            .each::<proto::DefragmentResponse>(proto::DEFRAGMENT, &request, DEFRAGMENT)
            .await;
        for (member, answer) in answers {
            if let Err(error) = answer {
                return Err(StoreError::Unavailable {
                    detail: format!("{member}: {}", error.chain()),
                    uncertain: false,
                });
            }
        }
        Ok(())
    }
}

impl Store for EtcdStore {
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>> {
        self.shared.range(range).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            // On a task of its own: it takes effect also when nobody waits for it any more.
            tokio::spawn(async move { shared.txn(txn).await })
                .await
                .unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    fn watch(
        &self,
        start: Bytes,
        end: Option<Bytes>,
        from: Option<Revision>,
    ) -> BoxFuture<'_, Result<WatchStream, StoreError>> {
        async move {
            let shared = &self.shared;
            let Some(from) = from.filter(|from| *from > 0) else {
                let current = shared.revision().await?;
                return watch::open(shared, start, end, current + 1, current).await;
            };
            shared.check_floor(from)?;
            // Reading there tells whether it is still there.
            let probe = Range::key(" ").at(from).count_only();
            let (from, current) = match shared.range(probe).await {
                Ok(read) => (from, read.revision),
                Err(StoreError::FutureRevision { current, .. }) => (from, current),
                Err(error) => return Err(error),
            };
            watch::open(shared, start, end, from, current).await
        }
        .boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move {
            let revision = self.shared.revision().await?;
            self.shared
                .asked
                .send_modify(|asked| *asked = revision.max(*asked));
            Ok(revision)
        }
        .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.compact(revision).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.shared.revision().boxed()
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, StoreError>> {
        async move {
            let shared = &self.shared;
            let counted = shared.range(Range::prefix("").count_only()).await?;
            let status: proto::StatusResponse = shared
                .cluster
                .call(proto::STATUS, &proto::StatusRequest {}, Repeat::Always)
                .await?;
            Ok(StoreStats {
                revision: counted.revision,
                compacted: shared.floor(),
                keys: counted.count,
                size_on_disk: unsigned(status.db_size),
                txns: shared.txns.load(Ordering::Relaxed),
                watchers: shared.asked.receiver_count(),
                ..StoreStats::default()
            })
        }
        .boxed()
    }

    fn writable(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let shared = &self.shared;
            let answer: proto::AlarmResponse = shared
                .cluster
                .call(proto::ALARM, &proto::AlarmRequest {}, Repeat::Always)
                .await?;
            match answer.alarms.iter().find(|alarm| alarm.alarm != 0) {
                None => Ok(()),
                Some(alarm) if alarm.alarm == 2 => Err(StoreError::Corrupt {
                    path: shared.cluster.names().into(),
                    detail: format!("etcd says so of its member {:x}", alarm.member),
                }),
                Some(_) => Err(StoreError::Full {
                    path: shared.cluster.names().into(),
                }),
            }
        }
        .boxed()
    }
}
