//! Stand-ins for what the agent talks to: a runtime and an image store without processes, an API
//! without a server.
//!
//! They hold to the contracts (idempotence, events, not-found answers) and to nothing else: what a
//! container does is said by the test. Thousands of pods fit one process. Time comes from tokio,
//! so a paused clock moves everything.

mod api;
mod clock;
pub mod csi;
pub mod dra;
mod images;
mod plugin;
mod runtime;
mod scratch;

pub use api::FakeApi;
pub use clock::TokioClock;
pub use images::FakeImages;
pub use runtime::{Behaviour, FakeRuntime};
pub use scratch::Scratch;
