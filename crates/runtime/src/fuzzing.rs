//! Decoders of what images and registries say, for `crates/fuzz` alone.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::registry::{self, auth};
use crate::image::{archive, config, unpack};
use crate::shim::spec::UserSpec;
use crate::shim::user;

/// Unpacks a layer into an empty directory.
///
/// # Errors
/// It is broken, or leads out of the directory.
pub fn layer(tar: &[u8], into: &Path, below: &[PathBuf]) -> io::Result<u64> {
    unpack::unpack(tar, into, below)
}

/// A manifest or an index: the digests of its layers, and whether it names one for this machine.
///
/// # Errors
/// What is wrong with it.
pub fn manifest(body: &[u8]) -> Result<(Vec<String>, bool), String> {
    let found = registry::read_manifest(body)?;
    let here = archive::for_this_machine(&found.manifests).is_some();
    let layers = found.layers.into_iter().map(|layer| layer.digest);
    Ok((layers.collect(), here))
}

/// The configuration of an image: how many layers it has.
///
/// # Errors
/// What is wrong with it.
pub fn image_config(body: &[u8]) -> Result<usize, String> {
    let parsed = config::parse(body)?;
    Ok(config::chain(&parsed.diff_ids).len())
}

/// The address that a registry's challenge leads to.
#[must_use]
pub fn challenge(header: &str) -> Option<String> {
    match auth::challenge(header)? {
        auth::Challenge::Basic => Some(String::new()),
        auth::Challenge::Bearer {
            realm,
            service,
            scope,
        } => Some(auth::token_url(&realm, &service, &scope, "library/a")),
    }
}

/// The number of an image's user and of its group, by the image's own files.
///
/// # Errors
/// There is no such user.
pub fn user(image: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let spec = UserSpec {
        image: image.to_owned(),
        ..UserSpec::default()
    };
    user::resolve_with(&spec, passwd, group)
        .map(|user| (user.uid, user.gid))
        .map_err(|failure| failure.message)
}

/// The program of a seccomp profile: instructions of eight bytes as the kernel has them.
///
/// # Errors
/// What is wrong with the profile.
pub fn seccomp(profile: &[u8]) -> Result<Vec<u8>, String> {
    crate::seccomp::program(profile)
}

/// A frame's type, its payload, and what is left.
pub type Frame<'b> = (u8, &'b [u8], &'b [u8]);

/// A frame between agent and shim.
///
/// # Errors
/// It is too long.
pub fn frame(bytes: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let found = crate::wire::decode(bytes)?;
    Ok(found.map(|(kind, payload, length)| (kind, &bytes[payload], &bytes[length..])))
}
