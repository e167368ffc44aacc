//! The store's index: which names lead to which image, and which layers stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::config::{ImageConfig, layer_name};
use super::reference::Reference;
use super::{Store, remove_any};
use crate::contract::{ImageStatus, Result, RuntimeError};
use crate::files::{self, Context as _};

/// An image's record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Chain ids of its layers, the lowest first.
    pub(super) chain: Vec<String>,
    /// How to run it.
    pub(super) config: ImageConfig,
    /// Bytes, unpacked.
    pub(super) size: u64,
    /// ns since the epoch.
    pub(super) created_at: i64,
    /// Full names with tags.
    pub(super) tags: Vec<String>,
    /// Full names with digests.
    pub(super) digests: Vec<String>,
    /// From a registry?
    #[serde(default)]
    pub(super) pulled: bool,
}

impl Record {
    /// As the contract shows it.
    pub(super) fn status(&self, id: &str) -> ImageStatus {
        ImageStatus {
            id: id.to_owned(),
            tags: self.tags.clone(),
            digests: self.digests.clone(),
            size: self.size,
            user: self.config.user.clone(),
            entrypoint: self.config.entrypoint.clone(),
            cmd: self.config.cmd.clone(),
            created_at: self.created_at,
            pulled: self.pulled,
        }
    }
}

/// All records, by image id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) images: BTreeMap<String, Record>,
}

impl Index {
    /// The image that a reference, an id or at least twelve digits of one names.
    pub(super) fn find(&self, reference: &str) -> Option<(String, Record)> {
        let found = |id: &String, record: &Record| (id.clone(), record.clone());
        if let Some((id, record)) = self.images.get_key_value(reference) {
            return Some(found(id, record));
        }
        let bare = reference.strip_prefix("sha256:").unwrap_or(reference);
        if bare.len() >= 12 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let prefix = format!("sha256:{bare}");
            let mut matching = self.images.iter().filter(|(id, _)| id.starts_with(&prefix));
            if let (Some((id, record)), None) = (matching.next(), matching.next()) {
                return Some(found(id, record));
            }
        }
        let parsed = Reference::parse(reference).ok()?;
        let digest = parsed
            .digest
            .as_ref()
            .map(|digest| parsed.with_digest(digest));
        let tagged = parsed.tagged();
        self.images
            .iter()
            .find(|(id, record)| match (&digest, &parsed.digest) {
                (Some(full), Some(digest)) => record.digests.contains(full) || *id == digest,
                _ => tagged
                    .as_ref()
                    .is_some_and(|tagged| record.tags.contains(tagged)),
            })
            .map(|(id, record)| found(id, record))
    }

    /// Moves a name to an image.
    pub(super) fn tag(&mut self, tag: &str, id: &str) {
        for record in self.images.values_mut() {
            record.tags.retain(|other| other != tag);
        }
        if let Some(record) = self.images.get_mut(id) {
            record.tags.push(tag.to_owned());
            record.tags.sort();
        }
    }

    /// Takes a name away; an id takes all names of its image.
    pub(super) fn remove(&mut self, reference: &str) {
        let Some((id, _)) = self.find(reference) else {
            return;
        };
        let Some(record) = self.images.get_mut(&id) else {
            return;
        };
        let by_id = id == reference || Reference::parse(reference).is_err() || {
            let bare = reference.strip_prefix("sha256:").unwrap_or(reference);
            id.contains(bare)
        };
        if by_id {
            record.tags.clear();
            record.digests.clear();
            return;
        }
        if let Ok(parsed) = Reference::parse(reference) {
            if let Some(digest) = &parsed.digest {
                let full = parsed.with_digest(digest);
                record.digests.retain(|other| *other != full);
            } else if let Some(tagged) = parsed.tagged() {
                record.tags.retain(|other| *other != tagged);
                if record.tags.is_empty() {
                    record.digests.clear();
                }
            }
        }
    }
}

/// The index in memory with the file it was read from.
#[derive(Debug, Default)]
pub(super) struct Cached {
    index: Index,
    /// Inode and change time (ns): every change is a new file.
    seen: Option<(u64, i64, i64)>,
}

impl Store {
    /// Looks at the index.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> Result<T> {
        let mut cached = self.index.lock();
        self.refresh(&mut cached)?;
        Ok(look(&cached.index))
    }

    fn refresh(&self, cached: &mut Cached) -> Result<()> {
        let path = self.root.join("index.json");
        let seen = match fs::metadata(&path) {
            Ok(metadata) => Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).context(|| format!("look at {}", path.display()));
            }
        };
        if seen != cached.seen {
            cached.index = files::read_json(&path)
                .context(|| format!("read {}", path.display()))?
                .unwrap_or_default();
            cached.seen = seen;
        }
        Ok(())
    }

    /// Changes the index, durably, while no other process does.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T> {
        let file = self.lock_file("index.lock")?;
        flock(&file, FlockOperation::LockExclusive).context(|| "lock the image index".into())?;
        let mut cached = self.index.lock();
        self.refresh(&mut cached)?;
        let before = serde_json::to_vec(&cached.index).unwrap_or_default();
        let answer = change(&mut cached.index);
        let after = serde_json::to_vec(&cached.index).map_err(|error| RuntimeError::Io {
            context: "write the image index".into(),
            source: error.into(),
        })?;
        if before != after {
            let path = self.root.join("index.json");
            let written = files::write_durable(&path, &after);
            // On failure the file holds; forget the change in memory.
            cached.seen = None;
            written.context(|| format!("write {}", path.display()))?;
        }
        Ok(answer)
    }

    /// Held while layers are being made: nobody collects meanwhile.
    pub(super) fn lock_for_making(&self) -> Result<File> {
        let file = self.lock_file("layers.lock")?;
        flock(&file, FlockOperation::LockShared).context(|| "lock the layers".into())?;
        Ok(file)
    }

    /// Held while layers are removed; `None` while somebody makes some.
    pub(super) fn lock_for_collection(&self) -> Result<Option<File>> {
        let file = self.lock_file("layers.lock")?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).context(|| "lock the layers".into()),
        }
    }

    /// Removes images that nothing names or holds, and layers that no image has. While somebody
    /// makes layers this is left to the next time.
    pub(super) fn collect(&self) -> Result<()> {
        match self.lock_for_collection()? {
            Some(_lock) => self.collect_layers(),
            None => Ok(()),
        }
    }

    pub(super) fn collect_layers(&self) -> Result<()> {
        let held: BTreeSet<String> = self
            .holders()
            .iter()
            .flat_map(|name| self.held(name))
            .collect();
        let (needed, blobs) = self.change(|index| {
            index.images.retain(|id, record| {
                !record.tags.is_empty() || !record.digests.is_empty() || held.contains(id)
            });
            let layers: BTreeSet<String> = index
                .images
                .values()
                .flat_map(|record| record.chain.iter().map(|id| layer_name(id).to_owned()))
                .collect();
            let blobs: BTreeSet<String> = index
                .images
                .keys()
                .map(|id| id.replace("sha256:", ""))
                .collect();
            (layers, blobs)
        })?;
        let layers = self.root.join("layers");
        for name in files::entries(&layers).context(|| "list layers".into())? {
            if !needed.contains(&name) {
                // First out of the way: a name in `layers` promises a whole layer.
                let doomed = self.root.join("tmp").join(files::random_id());
                fs::rename(layers.join(&name), &doomed)
                    .and_then(|()| remove_any(&doomed))
                    .context(|| format!("remove layer {name}"))?;
            }
        }
        let dir = self.root.join("blobs");
        for name in files::entries(&dir).context(|| "list blobs".into())? {
            if !blobs.contains(&name) {
                files::absent_ok(fs::remove_file(dir.join(&name)))
                    .context(|| format!("remove blob {name}"))?;
            }
        }
        Ok(())
    }
}
