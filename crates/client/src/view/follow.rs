//! What a reflection brings, as a stream: for those who keep little of what they see.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use kube::Resource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::reflect::{Event, Sink, Target, reflect};
use crate::kind::Decode;

/// One step of a stream of objects.
#[derive(Debug)]
pub enum Update<K> {
    /// These are all there are: at first, and whenever the thread was lost.
    All(Vec<K>),
    /// Added or modified.
    Put(K),
    /// Deleted.
    Gone(K),
}

struct Sender<K>(mpsc::UnboundedSender<Update<K>>);

impl<K> Sender<K> {
    fn send(&self, update: Update<K>) {
        // Nobody listens any more when the stream is being dropped.
        drop(self.0.send(update));
    }
}

impl<K: Send + 'static> Sink<K> for Sender<K> {
    fn replace(&self, items: Vec<K>, _: u64) {
        self.send(Update::All(items));
    }

    fn event(&self, event: Event<K>, _: u64) {
        self.send(match event {
            Event::Put(object) => Update::Put(object),
            Event::Gone(object) => Update::Gone(object),
        });
    }

    fn bookmark(&self, _: u64) {}
}

/// Follows `target` while the stream is read. It never ends; what is in the way of following is
/// logged and tried again.
pub fn follow<K>(client: kube::Client, target: Target) -> impl Stream<Item = Update<K>> + Send
where
    K: Decode + Resource + Send + 'static,
{
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let following = reflect(
        client,
        target,
        Arc::new(Sender(sender)),
        CancellationToken::new(),
    );
    let updates = stream::poll_fn(move |context| receiver.poll_recv(context));
    stream::select(
        updates,
        stream::once(following).filter_map(|()| std::future::ready(None)),
    )
}
