//! Flow control windows (SPDY Protocol Draft 3.1, section 2.6.8).
//!
//! The library under kubectl (moby/spdystream) neither sends WINDOW_UPDATE nor counts what it may
//! send, so a server that keeps to the letter stops after 64 KiB. Therefore windows bind us only
//! once the peer has shown that it keeps them, by a WINDOW_UPDATE or a SETTINGS frame; and we send
//! updates for what was consumed, for clients that count.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::connection::Control;

/// The window that a stream of ours starts with, bytes; announced by SETTINGS.
pub(super) const STREAM_WINDOW: u32 = 1024 * 1024;
/// The connection's window, bytes; announced by a WINDOW_UPDATE on stream 0.
pub(super) const SESSION_WINDOW: u32 = 16 * 1024 * 1024;
/// What the specification starts with.
pub(super) const DEFAULT_WINDOW: u32 = 64 * 1024;

/// Gives the client room again for what was consumed.
#[derive(Debug)]
pub(crate) struct Credit {
    stream: u32,
    pending: u32,
    threshold: u32,
    control: mpsc::Sender<Control>,
}

impl Credit {
    pub(super) fn new(stream: u32, window: u32, control: mpsc::Sender<Control>) -> Self {
        Self {
            stream,
            pending: 0,
            threshold: window / 2,
            control,
        }
    }

    /// Counts consumed bytes; half a window's worth is announced at once.
    pub(crate) fn consumed(&mut self, bytes: usize) {
        self.pending = self
            .pending
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.pending >= self.threshold {
            let update = Control::WindowUpdate {
                stream: self.stream,
                delta: self.pending,
            };
            // With a full queue the next piece tries again.
            if self.control.try_send(update).is_ok() {
                self.pending = 0;
            }
        }
    }
}

/// How much the client lets us send.
#[derive(Debug, Default)]
pub(crate) struct SendWindows {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// A stream's window counts.
    streams_counted: bool,
    /// The session's window counts.
    session_counted: bool,
    initial: i64,
    session: i64,
    /// `None` once the stream was reset.
    streams: HashMap<u32, Option<i64>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            streams_counted: false,
            session_counted: false,
            initial: i64::from(DEFAULT_WINDOW),
            session: i64::from(DEFAULT_WINDOW),
            streams: HashMap::new(),
        }
    }
}

impl SendWindows {
    /// A stream begins.
    pub(super) fn begin(&self, stream: u32) {
        let mut state = self.state.lock();
        let initial = state.initial;
        state.streams.insert(stream, Some(initial));
    }

    /// The client resets a stream: nothing more can be sent on it.
    pub(super) fn reset(&self, stream: u32) {
        if let Some(window) = self.state.lock().streams.get_mut(&stream) {
            *window = None;
        }
        self.changed.notify_waiters();
    }

    /// Nobody sends on the stream any more.
    pub(crate) fn forget(&self, stream: u32) {
        self.state.lock().streams.remove(&stream);
    }

    /// How many streams can still be written.
    pub(super) fn open(&self) -> usize {
        self.state.lock().streams.len()
    }

    /// SETTINGS changed the initial window: open streams move by the difference.
    pub(super) fn set_initial(&self, value: u32) {
        let mut state = self.state.lock();
        let difference = i64::from(value) - state.initial;
        state.initial = i64::from(value);
        state.streams_counted = true;
        for window in state.streams.values_mut().flatten() {
            *window += difference;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The client gives room.
    pub(super) fn update(&self, stream: u32, delta: u32) {
        let mut state = self.state.lock();
        if stream == 0 {
            state.session_counted = true;
            state.session += i64::from(delta);
        } else {
            state.streams_counted = true;
            if let Some(Some(window)) = state.streams.get_mut(&stream) {
                *window += i64::from(delta);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// How many of `wanted` bytes may be sent now, at least one; waits for room. `None` when the
    /// stream was reset.
    pub(crate) async fn take(&self, stream: u32, wanted: usize) -> Option<usize> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.try_take(stream, wanted) {
                Ok(granted) => return granted,
                Err(()) => changed.await,
            }
        }
    }

    /// Returns once the stream was reset.
    pub(crate) async fn was_reset(&self, stream: u32) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self
                .state
                .lock()
                .streams
                .get(&stream)
                .is_none_or(Option::is_none)
            {
                return;
            }
            changed.await;
        }
    }

    fn try_take(&self, stream: u32, wanted: usize) -> Result<Option<usize>, ()> {
        let mut state = self.state.lock();
        let Some(Some(window)) = state.streams.get(&stream).copied() else {
            return Ok(None);
        };
        let mut room = i64::try_from(wanted).unwrap_or(i64::MAX);
        if state.streams_counted {
            room = room.min(window);
        }
        if state.session_counted {
            room = room.min(state.session);
        }
        if room <= 0 && wanted > 0 {
            return Err(());
        }
        state.session -= room;
        if let Some(Some(window)) = state.streams.get_mut(&stream) {
            *window -= room;
        }
        Ok(Some(usize::try_from(room).unwrap_or(wanted)))
    }
}
