//! Tests of the whole scheduler and of its parts.

mod device_shares;
mod devices;
mod door;
mod extended;
mod extenders;
mod gangs;
pub(crate) mod objects;
mod placement;
mod preempting;
mod profiles;
mod properties;
mod queueing;
mod speed;
mod spreading;
mod volumes;
