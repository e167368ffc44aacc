//! What the writer takes together, and whom it waits for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use super::*;

/// Longer than any test: who waits so long waits in vain.
const FOREVER: Duration = Duration::from_secs(600);

fn queue() -> Queue {
    Queue {
        each: FOREVER,
        // Only where a test is about it.
        recent: Duration::ZERO,
        ..Queue::default()
    }
}

fn write() -> Request {
    Request::Txn(Txn::default(), oneshot::channel().0)
}

/// How many the writer takes.
fn take(queue: &Queue) -> usize {
    assert_eq!(queue.wait(false, None), Waited::Work);
    queue.group().len()
}

/// The same, while others go on.
fn taken(queue: &Arc<Queue>) -> std::thread::JoinHandle<usize> {
    let queue = Arc::clone(queue);
    std::thread::spawn(move || take(&queue))
}

#[test]
fn who_writes_alone_does_not_wait() {
    let queue = queue();
    queue.send(write());
    assert_eq!(take(&queue), 1, "nobody was announced");
    queue.announce();
    queue.send(write());
    assert_eq!(take(&queue), 1, "it is there itself");
}

#[test]
fn a_group_waits_for_what_was_announced() {
    let queue = Arc::new(queue());
    for _ in 0..3 {
        queue.announce();
    }
    let taken = taken(&queue);
    for _ in 0..3 {
        queue.send(write());
    }
    assert_eq!(taken.join().unwrap(), 3);
}

#[test]
fn what_does_not_come_any_more_is_not_waited_for() {
    let queue = Arc::new(queue());
    queue.announce();
    queue.announce();
    let taken = taken(&queue);
    queue.send(write());
    queue.ended();
    assert_eq!(taken.join().unwrap(), 1);
}

#[test]
fn closing_ends_the_wait() {
    let queue = Arc::new(queue());
    queue.announce();
    queue.announce();
    queue.send(write());
    let taken = taken(&queue);
    queue.close();
    assert_eq!(taken.join().unwrap(), 1);
}

#[test]
fn who_was_waited_for_in_vain_is_not_waited_for_again_soon() {
    let mut queue = queue();
    queue.each = Duration::from_millis(1);
    queue.announce();
    queue.announce();
    queue.send(write());
    assert_eq!(take(&queue), 1);
    queue.each = FOREVER;
    for _ in 0..IMPATIENT {
        queue.send(write());
        assert_eq!(take(&queue), 1);
    }
    assert_eq!(queue.waiting.lock().impatient, 0, "the next one may");
}

#[test]
fn a_group_waits_for_as_many_as_there_were_in_the_last_one() {
    let mut queue = queue();
    queue.recent = FOREVER;
    for _ in 0..3 {
        queue.send(write());
    }
    assert_eq!(take(&queue), 3);
    let queue = Arc::new(queue);
    queue.send(write());
    let taken = taken(&queue);
    queue.send(write());
    queue.send(write());
    assert_eq!(taken.join().unwrap(), 3);
}

#[test]
fn who_does_not_come_again_is_waited_for_once() {
    let mut queue = queue();
    queue.recent = FOREVER;
    for _ in 0..3 {
        queue.send(write());
    }
    assert_eq!(take(&queue), 3);
    queue.each = Duration::from_millis(1);
    queue.send(write());
    assert_eq!(take(&queue), 1);
    queue.each = FOREVER;
    for _ in 0..=IMPATIENT {
        queue.send(write());
        assert_eq!(take(&queue), 1);
    }
}

#[test]
fn somebody_is_alone_until_another_is_on_his_way_or_waits() {
    let queue = queue();
    assert!(queue.is_alone());
    queue.announce();
    assert!(queue.is_alone(), "that is himself");
    queue.announce();
    assert!(!queue.is_alone());
    queue.ended();
    queue.send(write());
    assert!(!queue.is_alone(), "that one is first");
    assert_eq!(take(&queue), 1);
    assert!(queue.is_alone());
    queue.close();
    assert!(!queue.is_alone(), "nobody writes any more");
}

#[test]
fn a_nudge_is_heard_once() {
    let queue = queue();
    queue.nudge();
    assert_eq!(queue.wait(false, None), Waited::Work, "without a request");
    assert!(queue.group().is_empty());
    let moment = Some(Duration::from_millis(1));
    assert_eq!(queue.wait(false, moment), Waited::Quiet);
    queue.close();
    assert_eq!(queue.wait(false, moment), Waited::Closed);
}
