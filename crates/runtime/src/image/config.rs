//! The parts of an OCI image configuration that running needs, and the digests of layer chains.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::reference::is_digest;

/// What an image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    /// USER.
    #[serde(deserialize_with = "or_default")]
    pub(crate) user: String,
    /// ENV, `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    /// ENTRYPOINT.
    #[serde(deserialize_with = "or_default")]
    pub(crate) entrypoint: Vec<String>,
    /// CMD.
    #[serde(deserialize_with = "or_default")]
    pub(crate) cmd: Vec<String>,
    /// WORKDIR.
    #[serde(deserialize_with = "or_default")]
    pub(crate) working_dir: String,
    /// STOPSIGNAL: a name or a number.
    #[serde(deserialize_with = "or_default")]
    pub(crate) stop_signal: String,
}

/// Tools write `null` where they mean nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// A parsed configuration file.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    /// How to run it.
    pub(crate) config: ImageConfig,
    /// Digests of the uncompressed layers, the lowest first.
    pub(crate) diff_ids: Vec<String>,
}

/// Layers that an overlay's mount data has room for.
const MAX_LAYERS: usize = 127;

/// Reads a configuration file; the reason when it can't run here.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|error| format!("image configuration: {error}"))?;
    if !file.os.is_empty() && file.os != "linux" {
        return Err(format!("the image is for {}, not linux", file.os));
    }
    if !file.architecture.is_empty() && file.architecture != architecture() {
        return Err(format!(
            "the image is for {}, this machine is {}",
            file.architecture,
            architecture()
        ));
    }
    if file.rootfs.diff_ids.len() > MAX_LAYERS {
        return Err(format!(
            "the image has {} layers; at most {MAX_LAYERS} can be mounted",
            file.rootfs.diff_ids.len()
        ));
    }
    if let Some(odd) = file.rootfs.diff_ids.iter().find(|id| !is_digest(id)) {
        return Err(format!("layer digest {odd:?} is not a sha256 digest"));
    }
    Ok(Parsed {
        config: file.config.unwrap_or_default(),
        diff_ids: file.rootfs.diff_ids,
    })
}

/// This machine's architecture in the words of the OCI.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `sha256:…` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    finish(Sha256::new_with_prefix(bytes))
}

/// `sha256:…` of what a hasher has seen.
pub(crate) fn finish(hasher: Sha256) -> String {
    let mut out = String::with_capacity(71);
    out.push_str("sha256:");
    for byte in hasher.finalize() {
        write!(out, "{byte:02x}").expect("writing to a string never fails");
    }
    out
}

/// Chain ids of a stack of layers, the lowest first (OCI image specification, "Layer ChainID").
pub(crate) fn chain(diff_ids: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        out.push(match out.last() {
            None => diff_id.clone(),
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
        });
    }
    out
}

/// The directory name of a layer: 96 bits of its chain id, since mount data is short.
pub(crate) fn layer_name(chain_id: &str) -> &str {
    chain_id.get(7..31).unwrap_or(chain_id)
}
