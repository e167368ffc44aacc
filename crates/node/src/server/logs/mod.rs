//! Container logs: the CRI format, its last lines, following it across rotation, and rotating it.
//!
//! The log is a file that the runtime writes; nothing here talks to the container. Reading happens
//! on blocking threads in bounded steps, waiting by inotify, so that an idle `logs -f` costs one
//! watch and no CPU.

mod follow;
pub(super) mod line;
mod options;
pub(super) mod reader;
pub mod rotate;
mod tail;
#[cfg(test)]
mod tests;
mod watch;

pub(super) use follow::{container_ended, stream};
pub(super) use options::LogOptions;
pub(crate) use watch::Watch;
