//! Fills an etcd from a snapshot.

use std::path::Path;

use bytes::Bytes;

use super::{Shared, txn_of};
use crate::error::StoreError;
use crate::model::{KeyValue, Op, Range};
use crate::snapshot::{self, Summary};

/// So many keys and bytes go into one transaction: less than etcd takes by default (128 operations,
/// 1.5 MiB), unless one value alone is larger.
const KEYS: usize = 100;
const BYTES: usize = 1 << 20;
/// Values that wait to be written or compared.
const AHEAD: usize = 4;

/// Reads the file on a thread that may block, in portions.
fn portions(file: &Path) -> tokio::sync::mpsc::Receiver<Result<Vec<KeyValue>, StoreError>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut portion = Vec::new();
        let mut bytes = 0;
        let read = snapshot::read(&file, |kv| {
            let size = kv.key.len() + kv.value.len();
            if !portion.is_empty() && (portion.len() >= KEYS || bytes + size > BYTES) {
                bytes = 0;
                // Nobody receives any more when the filling has failed.
                sender
                    .blocking_send(Ok(std::mem::take(&mut portion)))
                    .map_err(|_| StoreError::Closed)?;
            }
            bytes += size;
            portion.push(kv);
            Ok(())
        });
        let last = read.map(|_| portion);
        sender.blocking_send(last).ok();
    });
    receiver
}

/// Puts every key of the snapshot.
pub(super) async fn fill(shared: &Shared, file: &Path) -> Result<(), StoreError> {
    let mut portions = portions(file);
    while let Some(portion) = portions.recv().await {
        let ops: Vec<Op> = portion?
            .into_iter()
            .map(|KeyValue { key, value, .. }| Op::Put { key, value })
            .collect();
        if ops.is_empty() {
            continue;
        }
        let mut tries = 0;
        // Nobody else writes there yet: doing it twice does no harm.
        while let Err(error) = shared.txn(txn_of(ops.clone())).await {
            tries += 1;
            if tries > 5 || !matches!(error, StoreError::Unavailable { .. }) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Reads everything back.
pub(super) async fn compare(
    shared: &Shared,
    file: &Path,
    summary: Summary,
) -> Result<(), StoreError> {
    let wrong = |detail: String| StoreError::Corrupt {
        path: shared.cluster.names().into(),
        detail: format!("restored, and not what was backed up: {detail}"),
    };
    let mut portions = portions(file);
    let mut after = Bytes::new();
    let mut count = 0;
    while let Some(portion) = portions.recv().await {
        let portion = portion?;
        let Some(last) = portion.last().map(|kv| kv.key.clone()) else {
            continue;
        };
        let end = [&last[..], b"\0"].concat();
        let found = shared.range(Range::interval(after, end.clone())).await?.kvs;
        let same = found.len() == portion.len()
            && found
                .iter()
                .zip(&portion)
                .all(|(found, wanted)| found.key == wanted.key && found.value == wanted.value);
        if !same {
            return Err(wrong(format!("up to {}", String::from_utf8_lossy(&last))));
        }
        count += found.len() as u64;
        after = end.into();
    }
    let all = shared.range(Range::prefix("").count_only()).await?;
    if count != summary.keys || all.count as u64 != summary.keys {
        return Err(wrong(format!("{} keys", all.count)));
    }
    Ok(())
}
