//! The conformance suite on the embedded engine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{Store, suite};

async fn run(options: EmbeddedOptions) {
    let root = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    suite::run_all(|| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = root.path().join(number.to_string());
        let options = options.clone();
        async move {
            Arc::new(EmbeddedStore::open(&dir, options).expect("a new store")) as Arc<dyn Store>
        }
    })
    .await;
}

#[tokio::test]
async fn the_embedded_engine_conforms() {
    run(EmbeddedOptions::default()).await;
}

/// Without a tail every watch reads the log, so the suite then tests that path.
#[tokio::test]
async fn it_conforms_when_watches_read_history_from_disk() {
    run(EmbeddedOptions {
        tail_bytes: 0,
        tail_batches: 0,
        ..EmbeddedOptions::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_several_threads() {
    run(EmbeddedOptions {
        tail_bytes: 64 << 10,
        tail_batches: 16,
        ..EmbeddedOptions::default()
    })
    .await;
}
