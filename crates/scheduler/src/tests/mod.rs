//! Tests of the whole scheduler and of its parts.

mod door;
mod objects;
mod placement;
mod preempting;
mod profiles;
mod properties;
mod queueing;
mod speed;
mod spreading;
mod volumes;
