//! Making a layer's directory: whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::config::{finish, layer_name};
use super::{remove_any, unpack};
use crate::contract::{Result, RuntimeError};
use crate::files::{self, Context as _};

/// The layer to make.
pub(super) struct Wanted<'a> {
    /// Chain ids from the lowest layer up to this one.
    pub(super) chain: &'a [String],
    /// Digest of its uncompressed tar.
    pub(super) diff_id: &'a str,
}

/// What is kept beside a layer.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    chain_id: String,
    diff_id: String,
    size: u64,
}

/// The directory of a chain id's layer.
fn place(root: &Path, chain_id: &str) -> PathBuf {
    root.join("layers").join(layer_name(chain_id))
}

/// Whether a chain id's layer is there.
pub(super) fn present(root: &Path, chain_id: &str) -> bool {
    place(root, chain_id).join("about.json").exists()
}

/// Makes the layer unless it is there. Answers its size in bytes.
pub(super) fn ensure(
    root: &Path,
    wanted: &Wanted<'_>,
    open: &mut dyn FnMut() -> Result<Box<dyn Read>>,
) -> Result<u64> {
    let Some((chain_id, lower)) = wanted.chain.split_last() else {
        return Ok(0);
    };
    let dir = place(root, chain_id);
    if let Some(about) = files::read_json::<About>(&dir.join("about.json"))
        .context(|| format!("read about layer {chain_id}"))?
    {
        return Ok(about.size);
    }
    let below: Vec<PathBuf> = lower
        .iter()
        .rev()
        .map(|chain_id| place(root, chain_id).join("diff"))
        .collect();
    let temporary = root.join("tmp").join(files::random_id());
    let made = make(&temporary, &below, wanted, chain_id, open()?).and_then(|size| {
        match fs::rename(&temporary, &dir) {
            // Another import was first; its layer is the same.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                Ok(size)
            }
            other => other
                .map(|()| size)
                .context(|| format!("place layer {chain_id}")),
        }
    });
    if temporary.exists()
        && let Err(error) = remove_any(&temporary)
    {
        tracing::warn!(path = %temporary.display(), %error, "removing an unfinished layer");
    }
    made
}

fn make(
    temporary: &Path,
    below: &[PathBuf],
    wanted: &Wanted<'_>,
    chain_id: &str,
    stream: Box<dyn Read>,
) -> Result<u64> {
    let context = || format!("unpack layer {}", wanted.diff_id);
    let diff = temporary.join("diff");
    fs::create_dir_all(&diff).context(context)?;
    let public = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&diff, public).context(context)?;
    let mut hashed = Hashed {
        inner: decompress(stream).context(context)?,
        hasher: Sha256::new(),
    };
    let size = unpack::unpack(&mut hashed, &diff, below).context(context)?;
    // Whatever the tar reader left belongs to the digest too.
    io::copy(&mut hashed, &mut io::sink()).context(context)?;
    let digest = finish(hashed.hasher);
    if digest != wanted.diff_id {
        return Err(RuntimeError::Invalid(format!(
            "a layer's content has digest {digest}, its image says {}",
            wanted.diff_id
        )));
    }
    let about = About {
        chain_id: chain_id.to_owned(),
        diff_id: wanted.diff_id.to_owned(),
        size,
    };
    files::write_json(&temporary.join("about.json"), &about).context(context)?;
    // The name that follows promises a whole layer, also after a power failure.
    let dir = File::open(temporary).context(context)?;
    rustix::fs::syncfs(&dir).context(context)?;
    Ok(size)
}

/// Passes bytes on and keeps their digest.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Gzip, zstd or nothing, by the first bytes: media types are often wrong.
pub(super) fn decompress(stream: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let head = stream.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(
            256 << 10,
            flate2::bufread::MultiGzDecoder::new(stream),
        )));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
        return Ok(Box::new(BufReader::with_capacity(256 << 10, decoder)));
    }
    Ok(Box::new(stream))
}
