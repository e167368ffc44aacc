//! Importing tar files: OCI layouts and docker-archives, plain or compressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::config::{self, architecture};
use super::reference::{Reference, is_digest};
use super::{Names, Store, layers};
use crate::contract::{ImageStatus, Result, RuntimeError};
use crate::files::{self, Context as _};

/// Documents larger than this are not what they say.
const MAX_DOCUMENT: u64 = 32 << 20;

/// Where an entry's bytes lie in the file.
enum Place {
    Bytes { offset: u64, length: u64 },
    Link(PathBuf),
}

/// A tar file whose entries can be read in any order.
struct Archive {
    path: PathBuf,
    /// Removed with this object: a decompressed copy.
    temporary: Option<PathBuf>,
    entries: BTreeMap<PathBuf, Place>,
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "removing a decompressed archive");
        }
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

impl Archive {
    fn open(store: &Store, file: &Path) -> Result<Self> {
        let context = || format!("read {}", file.display());
        let mut head = [0; 4];
        let mut input = File::open(file).context(|| format!("open {}", file.display()))?;
        let read = input.read(&mut head).context(context)?;
        let compressed =
            head[..read].starts_with(&[0x1f, 0x8b]) || head == [0x28, 0xb5, 0x2f, 0xfd];
        let mut archive = Self {
            path: file.to_path_buf(),
            temporary: None,
            entries: BTreeMap::new(),
        };
        if compressed {
            // Entries are needed out of order, which a compressed stream can't give.
            let path = store.root.join("tmp").join(files::random_id());
            archive.temporary = Some(path.clone());
            input.seek(SeekFrom::Start(0)).context(context)?;
            let mut out = File::create(&path).context(context)?;
            let mut plain = layers::decompress(Box::new(input)).context(context)?;
            io::copy(&mut plain, &mut out).context(context)?;
            archive.path = path;
        }
        let input = File::open(&archive.path).context(context)?;
        let mut tar = tar::Archive::new(input);
        for entry in tar.entries_with_seek().context(context)? {
            let entry = entry.context(context)?;
            let name = normal(&entry.path().context(context)?);
            let kind = entry.header().entry_type();
            let place = if kind.is_file() {
                Place::Bytes {
                    offset: entry.raw_file_position(),
                    length: entry.size(),
                }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let Some(target) = entry.link_name().context(context)? else {
                    continue;
                };
                let base = name
                    .parent()
                    .filter(|_| kind.is_symlink())
                    .unwrap_or(Path::new(""));
                Place::Link(normal(&base.join(target)))
            } else {
                continue;
            };
            archive.entries.insert(name, place);
        }
        Ok(archive)
    }

    /// Position and length of an entry, through links.
    fn find(&self, name: &Path) -> Option<(u64, u64)> {
        let mut name = name.to_path_buf();
        for _ in 0..8 {
            match self.entries.get(&name)? {
                Place::Bytes { offset, length } => return Some((*offset, *length)),
                Place::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    fn stream(&self, name: &Path) -> Result<io::Take<File>> {
        let context = || format!("read {} of {}", name.display(), self.path.display());
        let (offset, length) = self.find(name).ok_or_else(|| {
            RuntimeError::Invalid(format!("the archive lacks {}", name.display()))
        })?;
        let mut file = File::open(&self.path).context(context)?;
        file.seek(SeekFrom::Start(offset)).context(context)?;
        Ok(file.take(length))
    }

    fn document(&self, name: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream(name)?
            .take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .context(|| format!("read {}", name.display()))?;
        Ok(bytes)
    }

    /// A blob of an OCI layout, checked against its digest.
    fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_path(digest)?)?;
        if config::digest(&bytes) != digest {
            return Err(RuntimeError::Invalid(format!(
                "blob {digest} has another digest"
            )));
        }
        Ok(bytes)
    }
}

fn blob_path(digest: &str) -> Result<PathBuf> {
    if !is_digest(digest) {
        return Err(RuntimeError::Invalid(format!(
            "{digest:?} is not a sha256 digest"
        )));
    }
    Ok(Path::new("blobs/sha256").join(&digest["sha256:".len()..]))
}

fn json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| RuntimeError::Invalid(format!("{what} of the archive: {error}")))
}

/// An image found in an archive.
struct Found {
    config: Vec<u8>,
    layers: Vec<PathBuf>,
    names: Vec<String>,
    digest: Option<String>,
}

/// Imports every image of a file. `name` replaces the names in it.
pub(super) fn import(store: &Store, file: &Path, name: Option<&str>) -> Result<Vec<ImageStatus>> {
    let name = name.map(Reference::parse).transpose()?;
    let _lock = store.lock_for_making()?;
    let archive = Archive::open(store, file)?;
    let found = if archive.find(Path::new("manifest.json")).is_some() {
        docker_images(&archive)?
    } else if archive.find(Path::new("index.json")).is_some() {
        oci_images(&archive)?
    } else {
        return Err(RuntimeError::Invalid(format!(
            "{} is neither a docker-archive (no manifest.json) nor an OCI layout (no index.json)",
            file.display()
        )));
    };
    if name.is_some() && found.len() != 1 {
        return Err(RuntimeError::Invalid(format!(
            "{} holds {} images; one name can't be given to all",
            file.display(),
            found.len()
        )));
    }
    let mut out = Vec::with_capacity(found.len());
    for image in found {
        let references = match &name {
            Some(name) => vec![name.clone()],
            None => image
                .names
                .iter()
                .map(|n| Reference::parse(n))
                .collect::<Result<_>>()?,
        };
        if references.is_empty() {
            return Err(RuntimeError::Invalid(format!(
                "{} does not name its image; give a name for it",
                file.display()
            )));
        }
        let mut names = Names {
            tags: references.iter().filter_map(Reference::tagged).collect(),
            digests: Vec::new(),
            pulled: false,
        };
        if let Some(digest) = &image.digest {
            names.digests = references
                .iter()
                .map(|reference| reference.with_digest(digest))
                .collect();
        }
        out.push(store.add(&image.config, names, &mut |number| {
            let layer = image.layers.get(number).ok_or_else(|| {
                RuntimeError::Invalid("the image has fewer layers than its configuration".into())
            })?;
            Ok(Box::new(archive.stream(layer)?))
        })?);
    }
    Ok(out)
}

fn docker_images(archive: &Archive) -> Result<Vec<Found>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: PathBuf,
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        layers: Vec<PathBuf>,
    }
    let manifest = archive.document(Path::new("manifest.json"))?;
    let entries: Vec<Entry> = json("manifest.json", &manifest)?;
    entries
        .into_iter()
        .map(|entry| {
            Ok(Found {
                config: archive.document(&normal(&entry.config))?,
                layers: entry.layers.iter().map(|layer| normal(layer)).collect(),
                names: entry.repo_tags.unwrap_or_default(),
                digest: None,
            })
        })
        .collect()
}

/// A descriptor of the OCI image specification.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Whom a manifest is for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

/// A manifest or an index, told apart by what they hold.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// The manifest of an index that is for this machine.
pub(crate) fn for_this_machine(manifests: &[Descriptor]) -> Option<&Descriptor> {
    manifests
        .iter()
        .find(|entry| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os == "linux" && platform.architecture == architecture()
            })
        })
        // A single manifest without platform can only be meant for all.
        .or_else(|| match manifests {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        })
}

fn oci_images(archive: &Archive) -> Result<Vec<Found>> {
    let index = archive.document(Path::new("index.json"))?;
    let index: Manifest = json("index.json", &index)?;
    let mut entries: Vec<&Descriptor> = index.manifests.iter().collect();
    let named = |entry: &Descriptor| !entry_names(entry).is_empty();
    if entries.iter().any(|entry| named(entry)) {
        entries.retain(|entry| named(entry));
    } else if let Some(one) = for_this_machine(&index.manifests) {
        entries = vec![one];
    }
    let mut out = Vec::new();
    for entry in entries {
        if entry.platform.as_ref().is_some_and(|platform| {
            !platform.architecture.is_empty() && platform.architecture != architecture()
        }) {
            continue;
        }
        let mut digest = entry.digest.clone();
        let mut manifest: Manifest = json("a manifest", &archive.blob(&digest)?)?;
        for _ in 0..4 {
            if manifest.config.is_some() || manifest.manifests.is_empty() {
                break;
            }
            digest = for_this_machine(&manifest.manifests)
                .ok_or_else(|| {
                    RuntimeError::Invalid(format!(
                        "no manifest in the archive is for linux/{}",
                        architecture()
                    ))
                })?
                .digest
                .clone();
            manifest = json("a manifest", &archive.blob(&digest)?)?;
        }
        let config = manifest.config.ok_or_else(|| {
            RuntimeError::Invalid(format!("manifest {digest} has no configuration"))
        })?;
        out.push(Found {
            config: archive.blob(&config.digest)?,
            layers: manifest
                .layers
                .iter()
                .map(|layer| blob_path(&layer.digest))
                .collect::<Result<_>>()?,
            names: entry_names(entry),
            digest: Some(entry.digest.clone()),
        });
    }
    if out.is_empty() {
        return Err(RuntimeError::Invalid(format!(
            "no image in the archive is for linux/{}",
            architecture()
        )));
    }
    Ok(out)
}

/// Names by annotation. A bare tag (as some tools write) names no image.
fn entry_names(entry: &Descriptor) -> Vec<String> {
    let full = entry.annotations.get("io.containerd.image.name");
    let short = entry
        .annotations
        .get("org.opencontainers.image.ref.name")
        .filter(|name| name.contains(['/', ':']));
    full.or(short).cloned().into_iter().collect()
}
