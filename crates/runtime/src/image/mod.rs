//! The image store: names, configurations, and layers unpacked once and shared by all containers.
//!
//! Layout below the store's root:
//! - `layers/<chain>/diff`: an overlay lower directory, complete whenever the name exists;
//! - `blobs/<hex>`: configurations and manifests as they came, by digest;
//! - `index.json`: names and records, replaced atomically and durably;
//! - `holds/<container>`: which image a container stands on;
//! - `tmp/`, `downloads/`: what is being made and fetched; emptied when the store opens.
//!
//! Several processes may use one store at once (`evenkeel image import` beside a running node):
//! changes happen under a file lock, and readers notice a new index by its inode.

pub(crate) mod archive;
pub(crate) mod config;
mod index;
mod layers;
pub(crate) mod reference;
pub(crate) mod registry;
pub(crate) mod unpack;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::clock;
use crate::contract::{ImageStatus, Images, RegistryAuth, Result, RuntimeError};
use crate::files::{self, Context as _};
use config::ImageConfig;
use index::{Cached, Record};
use reference::Reference;

/// How the store reaches registries.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// Registry host (`docker.io`, or `*` for all) to base URLs tried in order before the registry
    /// itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registry host to credentials, used when a pull brings none.
    pub credentials: BTreeMap<String, RegistryAuth>,
    /// Registry hosts spoken to by plain HTTP. Loopback hosts are tried so without being named.
    pub plain_http: Vec<String>,
    /// PEM file of trusted roots; the system's (`/etc/ssl/certs/ca-certificates.crt`) when absent.
    pub ca_file: Option<PathBuf>,
}

/// The local image store. Cloning gives another handle on the same store.
#[derive(Debug, Clone)]
pub struct ImageStore(Arc<Store>);

/// What the handles share.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    options: ImageOptions,
    index: Mutex<Cached>,
    /// Pulls of the same reference wait for each other instead of fetching twice.
    pulls: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// An image as containers are made from it.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// `sha256:…`.
    pub(crate) id: String,
    /// How to run it.
    pub(crate) config: ImageConfig,
    /// Layer directories relative to [`ImageStore::layers_dir`], the topmost first.
    pub(crate) lower: Vec<String>,
}

impl ImageStore {
    /// Opens (or makes) the store at `root`.
    ///
    /// # Errors
    /// When the directory can't be used.
    pub fn open(root: impl Into<PathBuf>, options: ImageOptions) -> Result<Self> {
        let root = root.into();
        if root
            .as_os_str()
            .to_string_lossy()
            .contains([':', ',', '\\'])
        {
            return Err(RuntimeError::Invalid(format!(
                "{}: an overlay can't be mounted from a path with ':', ',' or '\\'",
                root.display()
            )));
        }
        for dir in ["layers", "blobs", "holds", "tmp", "downloads"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
        }
        // Layers hold files of all modes and owners; only root may walk there.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&root, private).context(|| format!("protect {}", root.display()))?;
        let store = Store {
            root,
            options,
            index: Mutex::default(),
            pulls: Mutex::default(),
        };
        store.clear_leftovers();
        Ok(Self(Arc::new(store)))
    }

    /// The store itself, for the runtime.
    pub(crate) fn store(&self) -> &Store {
        &self.0
    }
}

impl Store {
    /// Directory that [`Resolved::lower`] is relative to.
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The lock of a reference or a blob that is being fetched.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.pulls.lock();
        pulls.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(pulls.entry(name.to_owned()).or_default())
    }

    /// What a crash left half-made, unless another process is at work right now.
    fn clear_leftovers(&self) {
        let Ok(Some(_lock)) = self.lock_for_collection() else {
            return;
        };
        for dir in [self.root.join("tmp"), self.root.join("downloads")] {
            for name in files::entries(&dir).unwrap_or_default() {
                let path = dir.join(name);
                if let Err(error) = remove_any(&path) {
                    tracing::warn!(path = %path.display(), %error, "removing a leftover");
                }
            }
        }
        if let Err(error) = self.collect_layers() {
            tracing::warn!(%error, "removing unreferenced layers");
        }
    }

    /// Adds an image whose configuration and layers are at hand. `layer` opens the n-th layer's
    /// stream, plain or compressed; it is asked only for layers that are missing.
    fn add(
        &self,
        raw_config: &[u8],
        names: Names,
        layer: &mut dyn FnMut(usize) -> Result<Box<dyn Read>>,
    ) -> Result<ImageStatus> {
        let id = config::digest(raw_config);
        let parsed = config::parse(raw_config).map_err(RuntimeError::Invalid)?;
        let chain = config::chain(&parsed.diff_ids);
        let mut size = 0;
        for number in 0..chain.len() {
            let wanted = layers::Wanted {
                chain: &chain[..=number],
                diff_id: &parsed.diff_ids[number],
            };
            size += layers::ensure(&self.root, &wanted, &mut || layer(number))?;
        }
        let blob = self.root.join("blobs").join(&id["sha256:".len()..]);
        if !blob.exists() {
            files::write_durable(&blob, raw_config)
                .context(|| format!("write {}", blob.display()))?;
        }
        self.change(|index| {
            let record = index.images.entry(id.clone()).or_insert_with(|| Record {
                chain: chain.clone(),
                config: parsed.config.clone(),
                size,
                created_at: clock::now_ns(),
                ..Record::default()
            });
            // What was once imported stays, also when a registry has it too.
            let fresh = record.tags.is_empty() && record.digests.is_empty();
            record.pulled = names.pulled && (fresh || record.pulled);
            let status = {
                for digest in names.digests {
                    if !record.digests.contains(&digest) {
                        record.digests.push(digest);
                    }
                }
                record.status(&id)
            };
            for tag in names.tags {
                index.tag(&tag, &id);
            }
            index
                .images
                .get(&id)
                .map_or(status, |record| record.status(&id))
        })
    }

    /// The record that a reference, an id or an id's prefix names.
    fn find(&self, reference: &str) -> Result<Option<(String, Record)>> {
        self.read(|index| index.find(reference))
    }

    /// What containers need of an image.
    pub(crate) fn resolve(&self, reference: &str) -> Result<Option<Resolved>> {
        Ok(self.find(reference)?.map(|(id, record)| Resolved {
            id,
            config: record.config,
            lower: record
                .chain
                .iter()
                .rev()
                .map(|chain| format!("{}/diff", config::layer_name(chain)))
                .collect(),
        }))
    }

    /// Notes that a container stands on images, so that their layers stay.
    pub(crate) fn hold(&self, ids: &[String], container: &str) -> Result<()> {
        let path = self.root.join("holds").join(container);
        let ids = ids.join("\n");
        files::write_atomic(&path, ids.as_bytes())
            .context(|| format!("note that container {container} uses image {ids}"))
    }

    /// The images that a container stands on; none for one that has noted nothing.
    pub(crate) fn held(&self, container: &str) -> Vec<String> {
        let path = self.root.join("holds").join(container);
        let ids = fs::read_to_string(path).unwrap_or_default();
        ids.lines().map(str::to_owned).collect()
    }

    /// Takes a note back; an image without names and notes goes with its last one.
    pub(crate) fn release(&self, container: &str) -> Result<()> {
        let path = self.root.join("holds").join(container);
        let held = self.held(container);
        files::absent_ok(fs::remove_file(&path))
            .context(|| format!("forget the image of container {container}"))?;
        for id in held {
            if let Some((_, record)) = self.find(&id)?
                && record.tags.is_empty()
            {
                return self.collect();
            }
        }
        Ok(())
    }

    /// Containers that hold images.
    pub(crate) fn holders(&self) -> Vec<String> {
        files::entries(&self.root.join("holds")).unwrap_or_default()
    }

    fn remove_now(&self, reference: &str) -> Result<()> {
        self.change(|index| index.remove(reference))?;
        self.collect()
    }
}

/// Names to give to an image, in full form.
#[derive(Debug, Clone, Default)]
struct Names {
    tags: Vec<String>,
    digests: Vec<String>,
    /// From a registry?
    pulled: bool,
}

fn remove_any(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(RuntimeError::Io {
                context: "image work".into(),
                source: error.into(),
            })
        })
}

impl Images for ImageStore {
    fn status<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<ImageStatus>>> {
        Box::pin(async move {
            Ok(self
                .0
                .find(reference)?
                .map(|(id, record)| record.status(&id)))
        })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a RegistryAuth>,
    ) -> BoxFuture<'a, Result<ImageStatus>> {
        Box::pin(async move {
            let parsed = Reference::parse(reference)?;
            let turn = Arc::clone(self.0.pulls.lock().entry(parsed.to_string()).or_default());
            let held = turn.lock().await;
            let result = registry::pull(Arc::clone(&self.0), &parsed, auth.cloned()).await;
            drop(held);
            self.0
                .pulls
                .lock()
                .retain(|_, turn| Arc::strong_count(turn) > 1);
            result
        })
    }

    fn import<'a>(
        &'a self,
        file: &'a Path,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<ImageStatus>>> {
        let store = Arc::clone(&self.0);
        let file = file.to_path_buf();
        let name = name.map(str::to_owned);
        Box::pin(blocking(move || {
            archive::import(&store, &file, name.as_deref())
        }))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageStatus>>> {
        Box::pin(async move {
            self.0.read(|index| {
                index
                    .images
                    .iter()
                    .map(|(id, record)| record.status(id))
                    .collect()
            })
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>> {
        let store = Arc::clone(&self.0);
        let reference = reference.to_owned();
        Box::pin(blocking(move || store.remove_now(&reference)))
    }
}

impl Store {
    /// Opens the lock file.
    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join(name);
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context(|| format!("open {}", path.display()))
    }
}

#[cfg(test)]
mod tests;
