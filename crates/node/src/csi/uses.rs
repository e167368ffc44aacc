//! Which volumes of drivers this node has, for which pods: what the disk says after a restart,
//! and what is being prepared.
//!
//! The node says of each that had to be attached that it is in use (`status.volumesInUse`), from
//! before it is staged until after it is unstaged: so long nobody detaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::facts::{DATA_FILE, PLUGIN_DIR, staging_root, unique_name};
use crate::volume::atomic::text;

/// A volume: its driver and the driver's handle for it.
pub type Key = (String, String);

/// What the file beside a mount says. The names are kubelet's, but for the last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Data {
    /// The driver.
    pub driver_name: String,
    /// Its handle.
    pub volume_handle: String,
    /// The volume's name, of those that are published.
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub spec_vol_id: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// `Persistent` or `Ephemeral`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_lifecycle_mode: String,
    /// Name of the attachment.
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub attachment_id: String,
    /// `true` when it had to be attached.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub attach_required: String,
}

impl Data {
    /// Whose data it is.
    #[must_use]
    pub fn key(&self) -> Key {
        (self.driver_name.clone(), self.volume_handle.clone())
    }

    /// Writes it into a directory.
    ///
    /// # Errors
    /// What could not be written.
    pub fn save(&self, directory: &Path) -> Result<(), String> {
        let path = directory.join(DATA_FILE);
        let body = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        fs::write(&path, body).map_err(|error| text(&path, &error))
    }

    /// Reads it from a directory; `None` when there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join(DATA_FILE);
        match fs::read(&path) {
            Ok(body) => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(text(&path, &error)),
        }
    }
}

#[derive(Debug, Default)]
struct Use {
    pods: BTreeSet<String>,
    attached: bool,
}

/// The volumes in use.
#[derive(Debug, Default)]
pub struct Uses(Mutex<BTreeMap<Key, Use>>);

fn entries(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let found = fs::read_dir(directory);
    found.into_iter().flatten().flatten().map(|it| it.path())
}

impl Uses {
    /// What an agent's directory holds.
    #[must_use]
    pub fn on_disk(root: &Path) -> Self {
        let uses = Self::default();
        let load = |directory: &Path| match Data::load(directory) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error, "a volume's data is not read");
                None
            }
        };
        for driver in entries(&staging_root(root)) {
            for data in entries(&driver).filter_map(|volume| load(&volume)) {
                uses.known(data.key(), None, data.attach_required == "true");
            }
        }
        for pod in entries(&root.join("pods")) {
            let uid = pod.file_name().unwrap_or_default().to_string_lossy();
            for volume in entries(&pod.join("volumes").join(PLUGIN_DIR)) {
                if let Some(data) = load(&volume) {
                    let attached = data.attach_required == "true";
                    uses.known(data.key(), Some(&uid), attached);
                }
            }
        }
        uses
    }

    fn known(&self, key: Key, uid: Option<&str>, attached: bool) {
        let mut all = self.0.lock();
        let one = all.entry(key).or_default();
        one.attached |= attached;
        one.pods.extend(uid.map(str::to_owned));
    }

    /// A pod is about to use a volume.
    pub fn add(&self, key: &Key, uid: &str, attached: bool) {
        self.known(key.clone(), Some(uid), attached);
    }

    /// The volumes of a pod.
    #[must_use]
    pub fn of(&self, uid: &str) -> Vec<Key> {
        let all = self.0.lock();
        let uses = all.iter().filter(|(_, one)| one.pods.contains(uid));
        uses.map(|(key, _)| key.clone()).collect()
    }

    /// The volumes of a driver that no pod uses.
    #[must_use]
    pub fn idle(&self, driver: &str) -> Vec<Key> {
        let all = self.0.lock();
        let mine = all.iter().filter(|((name, _), _)| name == driver);
        let idle = mine.filter(|(_, one)| one.pods.is_empty());
        idle.map(|(key, _)| key.clone()).collect()
    }

    /// Does anybody but this pod use the volume?
    #[must_use]
    pub fn by_others(&self, key: &Key, uid: &str) -> bool {
        let all = self.0.lock();
        let one = all.get(key);
        one.is_some_and(|one| one.pods.iter().any(|pod| pod != uid))
    }

    /// A pod does not use the volume any more; the volume is forgotten when nobody does.
    pub fn remove(&self, key: &Key, uid: &str) {
        let mut all = self.0.lock();
        if let Some(one) = all.get_mut(key) {
            one.pods.remove(uid);
            if one.pods.is_empty() {
                all.remove(key);
            }
        }
    }

    /// What the node's status says.
    #[must_use]
    pub fn reported(&self) -> Vec<String> {
        let all = self.0.lock();
        let attached = all.iter().filter(|(_, one)| one.attached);
        attached
            .map(|((driver, handle), _)| unique_name(driver, handle))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts;
    use super::*;

    #[test]
    fn what_is_in_use_is_read_back_from_the_disk() {
        let home = tempfile::tempdir().expect("a directory");
        let root = home.path();
        let data = |handle: &str| Data {
            driver_name: "d".to_owned(),
            volume_handle: handle.to_owned(),
            attach_required: "true".to_owned(),
            ..Data::default()
        };
        for handle in ["a", "idle"] {
            let staged = facts::staging_dir(root, "d", handle);
            fs::create_dir_all(&staged).expect("a directory");
            data(handle).save(&staged).expect("written");
        }
        for (uid, handle) in [("u1", "a"), ("u2", "a"), ("u2", "direct")] {
            let published = facts::published_dir(root, uid, handle);
            fs::create_dir_all(&published).expect("a directory");
            data(handle).save(&published).expect("written");
        }
        let uses = Uses::on_disk(root);
        let key = |handle: &str| ("d".to_owned(), handle.to_owned());
        assert_eq!(uses.idle("d"), [key("idle")]);
        assert_eq!(uses.of("u2"), [key("a"), key("direct")]);
        assert!(uses.by_others(&key("a"), "u1") && !uses.by_others(&key("direct"), "u2"));
        let name = |handle| facts::unique_name("d", handle);
        assert_eq!(uses.reported(), ["a", "direct", "idle"].map(name));
        uses.remove(&key("a"), "u1");
        uses.remove(&key("a"), "u2");
        uses.remove(&key("idle"), "");
        assert_eq!(uses.reported(), [name("direct")]);
    }
}
