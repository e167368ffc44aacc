//! What a node reads of its clients and of containers: streams over WebSocket and SPDY, logs.

use std::sync::LazyLock;

use evenkeel_node::fuzzing;
use tokio::runtime::Runtime;

use super::text;
use crate::Shape;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

/// Pieces in which bytes come: one by one, a few, and all at once.
const PIECES: [usize; 2] = [3, 1 << 20];

/// The first byte chooses the protocol of channels. What comes on each channel does not depend on
/// how the bytes were cut on their way.
pub(super) fn websocket(input: &[u8]) -> Shape {
    let Some((first, frames)) = input.split_first() else {
        return Shape(0);
    };
    let read = |piece| RUNTIME.block_on(fuzzing::websocket(frames, piece, usize::from(*first)));
    let [cut, whole] = PIECES.map(read);
    // Text that is no base64 is dropped with what came in the same piece.
    if !whole.1 {
        assert_eq!(cut.0, whole.0, "however it was cut");
    }
    let lengths: Vec<u32> = whole
        .0
        .iter()
        .map(|read| read.len().checked_ilog2().map_or(0, |it| it + 1))
        .collect();
    Shape::of((lengths, whole.1))
}

/// The same of SPDY.
pub(super) fn spdy(input: &[u8]) -> Shape {
    let read = |piece| RUNTIME.block_on(fuzzing::spdy(input, piece));
    let [cut, whole] = PIECES.map(read);
    assert_eq!(cut, whole, "however it was cut");
    let streams: Vec<_> = whole
        .iter()
        .take(8)
        .map(|(_, headers, read)| (headers.len().min(4), read.len().checked_ilog2()))
        .collect();
    Shape::of(streams)
}

pub(super) fn terminal_sizes(input: &[u8]) -> Shape {
    let read = |piece| RUNTIME.block_on(fuzzing::terminal_sizes(input, piece));
    let [cut, whole] = PIECES.map(read);
    // Of several that come at once the last one counts.
    assert!(
        whole.iter().all(|size| cut.contains(size)),
        "{whole:?} of {cut:?}"
    );
    let last = whole
        .last()
        .map(|(width, height)| (width.checked_ilog2(), height.checked_ilog2()));
    Shape::of((cut.len().min(8), whole.len(), last))
}

/// The first line is a query, the others are a log.
pub(super) fn log(input: &[u8]) -> Shape {
    let at = input
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(input.len());
    let Some(query) = text(&input[..at]) else {
        return Shape(0);
    };
    let lines = input.get(at + 1..).unwrap_or_default();
    match fuzzing::log(query, lines) {
        Ok(log) => {
            if let Some(limit) = log.limit {
                assert!(log.text.len() as u64 <= limit, "no more than was asked for");
            } else if !query.contains("timestamps")
                && !query.contains("since")
                && fuzzing::is_finished(lines)
            {
                // A line that another stream's cut in two has the time of where it is read from, and
                // one that never ends is shown behind all others, wherever it began.
                assert!(
                    log.without_tail.ends_with(&log.text),
                    "the last lines of all"
                );
            }
            let shown = log.text.len().checked_ilog2();
            let all = log.without_tail.len().checked_ilog2();
            Shape::of((0, shown, all, log.tail.is_some(), log.limit.is_some()))
        }
        Err(wrong) => Shape::of_message(&wrong),
    }
}
