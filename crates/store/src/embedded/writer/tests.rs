//! Who writes for himself, and who leaves it to the writer's thread.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::embedded::core::Counters;
use crate::embedded::hub::Hub;
use crate::embedded::index::Index;
use crate::embedded::log::{Log, Visit};
use crate::embedded::space::Space;
use crate::model::{Txn, TxnResult};

/// A log that notes who appends, and takes its time.
struct Noted {
    took: Duration,
    by: Arc<Mutex<Vec<std::thread::ThreadId>>>,
    breaks: Arc<AtomicBool>,
}

impl Log for Noted {
    fn append(&self, _: &Append) -> Result<(), StoreError> {
        assert!(!self.breaks.load(Ordering::SeqCst), "as told");
        std::thread::sleep(self.took);
        self.by.lock().push(std::thread::current().id());
        Ok(())
    }

    fn load(&self, _: Visit<'_>) -> Result<Revision, StoreError> {
        Ok(0)
    }

    fn scan(&self, _: Revision, _: Visit<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn get(&self, _: RecordId) -> Result<Option<Record>, StoreError> {
        Ok(None)
    }

    fn maintain(&self, _: bool) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn wants_tidying(&self) -> bool {
        false
    }

    fn wants_room(&self) -> bool {
        false
    }

    fn make_room(&self) {}

    fn corrupt(&self, _: String) -> StoreError {
        StoreError::Closed
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn close(&self) {}
}

/// A desk whose thread has written once, and who wrote.
struct World {
    desk: Arc<Desk>,
    queue: Arc<Queue>,
    by: Arc<Mutex<Vec<std::thread::ThreadId>>>,
    breaks: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

fn put(key: &str) -> (Request, oneshot::Receiver<Result<TxnResult, StoreError>>) {
    let (answer, answered) = oneshot::channel();
    (
        Request::Txn(Txn::put(key.to_owned(), "v"), answer),
        answered,
    )
}

fn world(took: Duration) -> World {
    let (by, breaks) = (Arc::default(), Arc::default());
    let core = Arc::new(Core {
        index: Index::new().into(),
        hub: Hub::new(1, 1 << 20, 64).into(),
        log: Box::new(Noted {
            took,
            by: Arc::clone(&by),
            breaks: Arc::clone(&breaks),
        }),
        counters: Counters::default(),
        space: Space::new(std::path::Path::new("/"), 0),
    });
    let queue = Arc::new(Queue::default());
    let desk = Arc::new(Desk::new(core, Arc::clone(&queue), Vec::new()));
    let running = Arc::clone(&desk);
    let thread = std::thread::spawn(move || running.run());
    let (request, answered) = put("first");
    let request = desk.alone(request).expect("nobody knows the disk yet");
    queue.send(request);
    answered.blocking_recv().unwrap().unwrap();
    World {
        desk,
        queue,
        by,
        breaks,
        thread,
    }
}

impl World {
    fn end(self) -> Vec<std::thread::ThreadId> {
        self.queue.close();
        self.thread.join().unwrap();
        std::mem::take(&mut *self.by.lock())
    }
}

/// Writes as somebody alone. The thread may still be about to go to sleep.
fn write_alone(desk: &Desk) -> oneshot::Receiver<Result<TxnResult, StoreError>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (request, answered) = put("k");
        if desk.alone(request).is_none() {
            return answered;
        }
        assert!(Instant::now() < deadline, "never alone");
        std::thread::yield_now();
    }
}

#[test]
fn who_is_alone_on_a_quick_disk_writes_for_himself() {
    let world = world(Duration::ZERO);
    world.queue.announce();
    let answered = write_alone(&world.desk);
    answered.blocking_recv().unwrap().unwrap();
    world.queue.announce();
    let (request, _) = put("k");
    let request = world.desk.alone(request);
    assert!(request.is_some(), "somebody is on his way");
    let own = std::thread::current().id();
    let by = world.end();
    assert_eq!(by.len(), 2);
    assert!(by[0] != own && by[1] == own);
}

#[test]
fn nobody_waits_himself_for_a_slow_disk() {
    let world = world(Duration::from_millis(5));
    let (request, _) = put("k");
    assert!(world.desk.alone(request).is_some());
    assert_eq!(world.end().len(), 1);
}

#[test]
fn who_breaks_down_while_he_writes_leaves_a_closed_store() {
    let world = world(Duration::ZERO);
    world.breaks.store(true, Ordering::SeqCst);
    let write = || drop(write_alone(&world.desk));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).is_err());
    // Whoever waits is let go.
    assert_eq!(world.queue.wait(false, None), Waited::Closed);
    world.thread.join().unwrap();
}
