//! What expressions cost: estimated before, counted during evaluation.
//!
//! One unit is about 50 ns on the reference's machine. Both sides follow the reference's tables,
//! because limits are part of the API: which rules a definition may contain follows from them.

mod estimate;
mod library;
pub(crate) mod runtime;

pub use estimate::CostEstimate;
pub(crate) use estimate::{estimate, uses};

/// Reading text once.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// Matching one unit of text against one character of a pattern.
pub(crate) const REGEX: f64 = 0.25;

/// `x · factor`, rounded up, at most what fits.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "saturates, as meant"
)]
pub(crate) fn scaled(x: u64, factor: f64) -> u64 {
    (x as f64 * factor).ceil() as u64
}
