//! A running watch: asks the hub what is next, reads history where the hub no longer has it, and
//! waits without cost when there is nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::Notify;

use super::core::Core;
use super::hub::{Interest, Next};
use crate::error::StoreError;
use crate::model::{EventBatch, Revision};
use crate::store::WatchStream;

struct Watch {
    core: Arc<Core>,
    interest: Interest,
    id: u64,
    notify: Arc<Notify>,
    /// Read, but not delivered yet; at most one read's worth.
    ready: VecDeque<Arc<EventBatch>>,
    ended: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.core.hub.lock().unregister(self.id);
    }
}

/// Opens a watch.
pub(crate) fn open(
    core: &Arc<Core>,
    interest: Interest,
    from: Option<Revision>,
) -> Result<WatchStream, StoreError> {
    // Revision 1 is the empty store: nothing happened at it.
    let from = from
        .filter(|revision| *revision > 0)
        .map(|revision| revision.max(2));
    // The index lock is held until the watch is registered, so that no compaction and no write
    // comes between.
    let index = core.index.read();
    if let Some(from) = from {
        index.check_compacted(from)?;
    }
    let (id, notify) = core.hub.lock().register(interest.clone(), from);
    drop(index);
    let core = Arc::clone(core);
    let watch = Watch {
        core,
        interest,
        id,
        notify,
        ready: VecDeque::new(),
        ended: false,
    };
    Ok(futures::stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item, watch))
    })
    .boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Arc<EventBatch>, StoreError>> {
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
                return Ok(batch);
            }
            let next = self.core.hub.lock().next(self.id);
            match next {
                Next::Batches(batches) => self.ready.extend(batches),
                Next::History(from, until) => self.read_history(from, until).await?,
                Next::Progress(revision) => {
                    return Ok(Arc::new(EventBatch {
                        revision,
                        events: Vec::new(),
                    }));
                }
                Next::Wait => self.notify.notified().await,
                Next::Closed => return Err(StoreError::Closed),
            }
        }
    }

    /// Reads one portion of history, off the async threads because it may wait for the disk.
    async fn read_history(&mut self, from: Revision, until: Revision) -> Result<(), StoreError> {
        let (core, interest) = (Arc::clone(&self.core), self.interest.clone());
        let read = tokio::task::spawn_blocking(move || core.history(&interest, from, until)).await;
        // The task does not panic and is not aborted; when the runtime shuts down it may not run.
        let (batches, last) = read.map_err(|_| StoreError::Closed)??;
        self.core.hub.lock().read_until(self.id, last);
        self.ready.extend(batches);
        Ok(())
    }
}
