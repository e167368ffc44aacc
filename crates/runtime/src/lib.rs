//! Containers: sandboxes, images and layers, and the runtime that is built in.
//!
//! What lives here: the [`Runtime`] and [`Images`] contracts, shaped after the Kubernetes
//! Container Runtime Interface so that a CRI socket can stand in for the built-in runtime, and
//! the built-in implementation (namespaces, cgroups, overlay, seccomp).
//!
//! What never lives here: pods, the API, networking policy. The runtime is told what to run; it
//! does not know why.

mod caps;
mod cgroup;
mod clock;
pub mod contract;
mod embedded;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod seccomp;
mod shim;
mod sys;
pub mod testing;
mod wire;

pub use contract::*;
pub use embedded::{EmbeddedOptions, EmbeddedRuntime, cleanup};
pub use image::reference::Reference as ImageReference;
pub use image::{ImageOptions, ImageStore};
pub use shim::helper_main;
