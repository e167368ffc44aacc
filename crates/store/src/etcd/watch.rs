//! A watch on etcd: one stream, made anew at another member when it breaks, without a gap.
//!
//! **Progress.** etcd can be asked how far a watch has come, but the version that Debian carries
//! may say so before it has sent the events (etcd issue 15220). So progress is told by what cannot
//! be overtaken: an event. Every watch covers, besides its interval, all that lies behind it up to
//! one key of the engine's own. Writing that key makes an event behind all earlier ones in the same
//! stream. It is written only when progress is owed and nothing else has come for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_grpc::{Incoming, Outgoing};
use futures::StreamExt as _;
use tokio::sync::watch;

use super::cluster::{Verdict, verdict};
use super::{PROGRESS, Shared, proto};
use crate::error::StoreError;
use crate::model::{EventBatch, Revision};
use crate::store::WatchStream;

/// So long a watch that owes progress waits for an event before it asks for one.
const PATIENCE: Duration = Duration::from_millis(150);
/// Between two attempts to open a stream.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(2);

type Stream = (
    usize,
    Outgoing<proto::WatchRequest>,
    Incoming<proto::WatchResponse>,
);

struct Watch {
    shared: Arc<Shared>,
    start: Bytes,
    end: Option<Bytes>,
    /// The first revision that has not been received.
    next: Revision,
    stream: Option<Stream>,
    pause: Duration,
    ready: VecDeque<Arc<EventBatch>>,
    /// The revision of the batch that was told last.
    told: Revision,
    /// Progress is owed up to this revision.
    owed: Option<Revision>,
    asked: watch::Receiver<Revision>,
    ended: bool,
}

/// Opens a watch from the revision `from` on; `current` is where the store stands. etcd knows of it
/// when this returns, so that compaction does not overtake one that nobody reads yet.
pub(super) async fn open(
    shared: &Arc<Shared>,
    start: Bytes,
    end: Option<Bytes>,
    from: Revision,
    current: Revision,
) -> Result<WatchStream, StoreError> {
    let mut watch = Watch {
        asked: shared.asked.subscribe(),
        shared: Arc::clone(shared),
        start,
        end,
        next: from,
        stream: None,
        pause: PAUSE,
        ready: VecDeque::new(),
        told: 0,
        owed: Some(current),
        ended: false,
    };
    watch.connect().await?;
    Ok(futures::stream::unfold(watch, |mut watch| async move {
        let item = watch.item().await?;
        Some((item, watch))
    })
    .boxed())
}

impl Watch {
    async fn item(&mut self) -> Option<Result<Arc<EventBatch>, StoreError>> {
        if self.ended {
            return None;
        }
        let item = self.read().await;
        self.ended = item.is_err();
        Some(item)
    }

    async fn read(&mut self) -> Result<Arc<EventBatch>, StoreError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.told = batch.revision;
                return Ok(batch);
            }
            if let Some(owed) = self.owed.filter(|owed| self.next > *owed) {
                self.owed = None;
                return Ok(Arc::new(EventBatch {
                    revision: owed.max(self.told),
                    events: Vec::new(),
                }));
            }
            if self.stream.is_none() && !self.connect().await? {
                continue;
            }
            let Some((_, _, incoming)) = &mut self.stream else {
                continue;
            };
            let owed = self.owed;
            let answer = tokio::select! {
                answer = incoming.next() => answer,
                changed = self.asked.changed() => {
                    if changed.is_err() {
                        return Err(StoreError::Closed);
                    }
                    let asked = *self.asked.borrow_and_update();
                    self.owed = Some(asked.max(owed.unwrap_or(0)));
                    continue;
                }
                () = tokio::time::sleep(PATIENCE), if owed.is_some() => {
                    if let Some(owed) = owed {
                        self.shared.barrier(owed).await;
                    }
                    continue;
                }
            };
            match answer {
                Ok(Some(response)) => self.take(&response)?,
                Ok(None) => self.lost("the stream ended"),
                Err(error) => match verdict(&error, "etcd") {
                    Verdict::Final(error @ StoreError::Corrupt { .. }) => return Err(error),
                    _ => self.lost(&error.chain()),
                },
            }
        }
    }

    /// Opens a stream from where the last one ended. Answers whether it is open.
    async fn connect(&mut self) -> Result<bool, StoreError> {
        let keys = &self.shared.keys;
        let wire = keys.to_wire(self.next).ok_or(StoreError::Compacted {
            requested: self.next,
            compacted: keys.offset + 1,
        })?;
        let mut range_end = keys.own(PROGRESS).to_vec();
        range_end.push(0);
        let create = proto::WatchCreateRequest {
            key: keys.wire_start(&self.start),
            range_end: range_end.into(),
            start_revision: wire,
            prev_kv: true,
        };
        let request = proto::WatchRequest {
            create: Some(create),
        };
        match self.shared.cluster.stream(proto::WATCH, &request).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(true)
            }
            Err(error) => {
                let text = error.chain();
                if self.pause > PAUSE {
                    tracing::warn!(error = text, "etcd can't be watched; trying again");
                }
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(PAUSE_MOST);
                Ok(false)
            }
        }
    }

    fn lost(&mut self, why: &str) {
        if let Some((member, ..)) = self.stream.take() {
            tracing::info!(why, from = self.next, "watching etcd at another member");
            self.shared.cluster.failed(member);
        }
    }

    fn take(&mut self, response: &proto::WatchResponse) -> Result<(), StoreError> {
        let keys = &self.shared.keys;
        self.shared.cluster.recognize(response.header.as_ref())?;
        if response.compact_revision > 0 {
            let compacted = self
                .shared
                .floor()
                .max(keys.to_ours(response.compact_revision));
            return Err(StoreError::Compacted {
                requested: self.next,
                compacted,
            });
        }
        if response.canceled {
            let why = response.cancel_reason.clone();
            self.lost(&why);
            return Ok(());
        }
        self.pause = PAUSE;
        let first = self.next;
        for wire in &response.events {
            let Some(kv) = &wire.kv else { continue };
            let revision = keys.to_ours(kv.mod_revision);
            if revision < first {
                // Told before the stream broke. Within one answer a revision is whole.
                continue;
            }
            self.next = self.next.max(revision + 1);
            if self.owed.is_none() && kv.key == keys.own(PROGRESS) {
                // Somebody else asked for progress; those who read here may wait for it as well.
                self.owed = Some(revision);
            }
            if !keys.concerns(&self.start, self.end.as_deref(), &kv.key) {
                continue;
            }
            let event = keys.event(wire);
            match self.ready.back_mut().and_then(Arc::get_mut) {
                Some(batch) if batch.revision == revision => batch.events.push(event),
                _ => self.ready.push_back(Arc::new(EventBatch {
                    revision,
                    events: vec![event],
                })),
            }
        }
        Ok(())
    }
}
