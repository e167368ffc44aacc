//! An image store without images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use evenkeel_runtime::{ImageStatus, Images, RegistryAuth, Result, RuntimeError};
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// Images by reference; pulls succeed unless told otherwise.
#[derive(Debug, Default)]
pub struct FakeImages {
    present: Mutex<BTreeMap<String, ImageStatus>>,
    missing: Mutex<BTreeSet<String>>,
    pulls: Mutex<Vec<String>>,
    takes: Mutex<Duration>,
}

impl FakeImages {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an image there.
    pub fn put(&self, reference: &str) {
        self.present
            .lock()
            .insert(reference.to_owned(), status(reference));
    }

    /// Pulls of this reference fail, until [`Self::put`] or [`Self::allow`].
    pub fn refuse(&self, reference: &str) {
        self.missing.lock().insert(reference.to_owned());
    }

    /// Pulls of this reference succeed again.
    pub fn allow(&self, reference: &str) {
        self.missing.lock().remove(reference);
    }

    /// Pulls take so long from now on.
    pub fn slow(&self, takes: Duration) {
        *self.takes.lock() = takes;
    }

    /// Every pull so far.
    #[must_use]
    pub fn pulls(&self) -> Vec<String> {
        self.pulls.lock().clone()
    }
}

fn status(reference: &str) -> ImageStatus {
    ImageStatus {
        id: format!("sha256:{:0>64}", reference.len()),
        tags: vec![reference.to_owned()],
        size: 1 << 20,
        entrypoint: vec!["/app".to_owned()],
        ..ImageStatus::default()
    }
}

impl Images for FakeImages {
    fn status<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<ImageStatus>>> {
        Box::pin(async move { Ok(self.present.lock().get(reference).cloned()) })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _auth: Option<&'a RegistryAuth>,
    ) -> BoxFuture<'a, Result<ImageStatus>> {
        Box::pin(async move {
            self.pulls.lock().push(reference.to_owned());
            let takes = *self.takes.lock();
            tokio::time::sleep(takes).await;
            if self.missing.lock().contains(reference) {
                return Err(RuntimeError::Pull {
                    reason: "ErrImagePull",
                    message: format!("{reference}: not found"),
                });
            }
            self.put(reference);
            Ok(status(reference))
        })
    }

    fn import<'a>(
        &'a self,
        file: &'a Path,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<ImageStatus>>> {
        Box::pin(async move {
            let name = name.map_or_else(|| file.to_string_lossy().into_owned(), str::to_owned);
            self.put(&name);
            Ok(vec![status(&name)])
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageStatus>>> {
        Box::pin(async move { Ok(self.present.lock().values().cloned().collect()) })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.present.lock().remove(reference);
            Ok(())
        })
    }
}
