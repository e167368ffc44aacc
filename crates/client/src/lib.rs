//! How every loop reaches the door: in process or over HTTPS, with shared views, work queues,
//! leases and events.
//!
//! Everything stands on [`kube::Client`], which runs over any tower service: the door's own
//! pipeline in process, or HTTPS. So a loop never knows where it runs. What never lives here: the
//! store, a kind's rules, a decision. Loops decide; this crate carries.

pub mod api;
pub mod errors;
pub mod key;
pub mod kind;
pub mod lease;
pub mod metrics;
pub mod queue;
pub mod recorder;
pub mod retry;
pub mod run;
pub mod served;
pub mod testing;
pub mod view;

pub use api::Api;
pub use evenkeel_api::clock::{Clock, SharedClock, SystemClock};
pub use key::ObjectKey;
pub use kind::{Decode, Kind};
pub use kube::Client;
pub use lease::{LeaderElector, LeaseTimes};
pub use metrics::{Family, FamilyKind, LoopMetrics, LoopRegistry};
pub use queue::WorkQueue;
pub use recorder::{EventType, Recorder};
pub use retry::{Backoff, retry_on_conflict};
pub use run::{LoopContext, Outcome, run_loop};
pub use served::is_served;
pub use tokio_util::sync::CancellationToken;
pub use view::{Change, Changes, Target, Update, View, Views, follow};
