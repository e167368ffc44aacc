//! Streams a log to a client: from a starting point to its end, or on and on until the container
//! ends.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use evenkeel_runtime::contract::{ContainerState, RuntimeError, SharedRuntime};
use futures::future::BoxFuture;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::options::LogOptions;
use super::reader::{LogReader, Step};
use super::watch::Watch;

/// Sends the log at `path` into `out` until its end; with `ended`, follows it until that future
/// completes (the container has ended) and all was read, or the client goes.
///
/// The first error is returned before anything is sent, so that the response can still carry it;
/// the rest of the work is in the returned future.
pub(crate) async fn stream(
    path: PathBuf,
    options: LogOptions,
    ended: Option<BoxFuture<'static, ()>>,
    out: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<impl Future<Output = ()> + Send> {
    // The watch begins before the first read, so that nothing written in between is missed.
    let watch = match (&ended, path.parent()) {
        (Some(_), Some(directory)) => Some(Watch::new(directory)?),
        _ => None,
    };
    let reader = blocking(move || LogReader::open(&path, &options)).await?;
    Ok(async move {
        if let Err(error) = run(reader, watch, ended, &out).await {
            tracing::debug!(%error, "reading a container log failed");
            // With the client gone there is nobody to tell.
            drop(out.send(Err(error)).await);
        }
    })
}

async fn run(
    mut reader: LogReader,
    watch: Option<Watch>,
    ended: Option<BoxFuture<'static, ()>>,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut ended = ended.unwrap_or_else(|| Box::pin(std::future::ready(())));
    let mut has_ended = watch.is_none();
    loop {
        let (text, step, more, back) = blocking(move || {
            let mut text = Vec::new();
            let step = reader.step(&mut text)?;
            let more = step == Step::More || (step == Step::End && reader.advance()?);
            Ok((text, step, more, reader))
        })
        .await?;
        reader = back;
        if !text.is_empty() && out.send(Ok(text.into())).await.is_err() {
            return Ok(());
        }
        if step == Step::Limit {
            return Ok(());
        }
        if more && (step == Step::More || watch.is_some()) {
            continue;
        }
        let Some(watch) = watch.as_ref().filter(|_| !has_ended) else {
            return Ok(());
        };
        tokio::select! {
            changed = watch.changed() => changed?,
            // One more round reads what was written before the end.
            () = &mut ended => has_ended = true,
            () = out.closed() => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Completes when a container no longer runs.
pub(crate) async fn container_ended(runtime: SharedRuntime, id: String) {
    let mut events = runtime.events();
    loop {
        match runtime.container_status(&id).await {
            Ok(status)
                if matches!(
                    status.state,
                    ContainerState::Running | ContainerState::Created
                ) => {}
            Ok(_) | Err(RuntimeError::NotFound { .. }) => return,
            Err(error) => tracing::debug!(%error, id, "container status unknown"),
        }
        loop {
            match events.recv().await {
                Ok(event) if event.container_id == id && event.state == ContainerState::Exited => {
                    return;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}
