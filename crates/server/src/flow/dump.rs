//! The reference's debugging pages: levels, queues, and requests that wait or are served, as tables
//! of comma-separated columns.

use jiff::Timestamp;

use super::FlowControl;
use super::queues::Work;

/// A page by the last segment of its path.
pub(super) fn page(flow: &FlowControl, name: &str, wall: Timestamp) -> Option<String> {
    let rows = match name {
        "dump_priority_levels" => levels(flow),
        "dump_queues" => queues(flow),
        "dump_requests" => requests(flow, wall),
        _ => return None,
    };
    Some(table(&rows))
}

/// Columns as wide as their widest cell, which a comma follows.
fn table(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        // The comma, and a blank at least; never narrower than a tab stop.
        cells.map(|cell| cell.len() + 2).max().unwrap_or(0).max(8)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (place, cell) in row.iter().enumerate() {
            if place + 1 == count {
                out.push_str(cell);
            } else {
                let cell = format!("{cell},");
                out.push_str(&format!("{cell:<width$}", width = widths[place]));
            }
        }
        out.push('\n');
    }
    out
}

fn header(columns: &[&str]) -> Vec<Vec<String>> {
    vec![columns.iter().map(|column| (*column).to_owned()).collect()]
}

/// Work in seat-seconds with eight places, as the reference prints it.
fn seat_seconds(work: Work) -> String {
    let sign = if work < 0 { "-" } else { "" };
    let hundred_millionths = work.abs() / 10;
    format!(
        "{sign}{}.{:08}ss",
        hundred_millionths / 100_000_000,
        hundred_millionths % 100_000_000
    )
}

fn levels(flow: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = header(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    for level in flow.levels() {
        let figures = level.figures(flow.now());
        let active = level.views().iter().filter(|view| view.waiting > 0).count();
        rows.push(vec![
            level.name.clone(),
            active.to_string(),
            level.is_idle().to_string(),
            figures.quiescing.to_string(),
            figures.waiting.to_string(),
            figures.executing.to_string(),
            figures.tally.dispatched.to_string(),
            figures.tally.rejected.to_string(),
            figures.tally.timed_out.to_string(),
            figures.tally.cancelled.to_string(),
        ]);
    }
    rows
}

fn queues(flow: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = header(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    for level in flow.levels() {
        for (index, view) in level.views().into_iter().enumerate() {
            rows.push(vec![
                level.name.clone(),
                index.to_string(),
                view.waiting.to_string(),
                view.executing.to_string(),
                view.seats.to_string(),
                seat_seconds(view.next),
                view.initial_seats.to_string(),
                view.most_seats.to_string(),
                seat_seconds(view.work),
            ]);
        }
    }
    rows
}

/// Those that wait, and those that are served: these have no place in their queue (`-1`), and where
/// nobody waits no queue either.
fn requests(flow: &FlowControl, wall: Timestamp) -> Vec<Vec<String>> {
    let mut rows = header(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    let now = flow.now();
    let at = |then: u64| {
        let ago = std::time::Duration::from_nanos(now.saturating_sub(then));
        jiff::SignedDuration::try_from(ago)
            .ok()
            .and_then(|ago| wall.checked_sub(ago).ok())
            .unwrap_or(wall)
            .to_string()
    };
    for level in flow.levels() {
        level.waiters(|queue, place, width, token| {
            rows.push(vec![
                level.name.clone(),
                token.schema.name.clone(),
                queue.to_string(),
                place.to_string(),
                token.flow.to_string(),
                at(token.arrived),
                width.initial.to_string(),
                width.last.to_string(),
                format!("{}ns", width.lingers),
                "0001-01-01T00:00:00Z".to_owned(),
            ]);
        });
        level.runners(|running| {
            let width = running.seats.width();
            rows.push(vec![
                level.name.clone(),
                running.schema.name.clone(),
                running
                    .seats
                    .queue()
                    .map_or("-1".to_owned(), |queue| queue.to_string()),
                "-1".to_owned(),
                running.flow.to_string(),
                at(running.arrived),
                width.initial.to_string(),
                width.last.to_string(),
                format!("{}ns", width.lingers),
                at(running.seats.since()),
            ]);
        });
    }
    rows
}
