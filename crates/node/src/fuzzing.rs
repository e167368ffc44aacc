//! Decoders that nobody outside needs, for `crates/fuzz` alone.

use std::path::Path;

use serde_json::Value;

pub use crate::server::fuzzing::{
    Log, Stream, is_finished, log, ports, spdy, terminal_sizes, websocket,
};

/// The name of a static pod's file content on node `n`, and the pod as JSON.
///
/// # Errors
/// What is wrong with it.
pub fn static_pod(text: &str) -> Result<Value, String> {
    let pod = crate::static_pods::parse(Path::new("/pods/p.yaml"), text, "n")?;
    serde_json::to_value(pod).map_err(|error| error.to_string())
}

/// How many of a pull secret's credentials are for an image.
#[must_use]
pub fn credentials(auths: &Value, image: &str) -> usize {
    crate::pod::pull::matching(auths, image).len()
}
