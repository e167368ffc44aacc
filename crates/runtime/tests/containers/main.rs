//! The built-in runtime against the real kernel. Needs root, cgroups and busybox-static; every
//! test has a runtime in a directory of its own and checks that nothing of it stays behind.

mod adoption;
mod common;
mod exec;
mod isolation;
mod lifecycle;
mod pods;
mod registry;
mod resources;
