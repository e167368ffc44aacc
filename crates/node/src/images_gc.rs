//! Images that nobody uses: removed when the disk fills up, least recently used first, as kubelet
//! does.
//!
//! Only what was pulled is removed. An image that somebody imported from a file could not be had
//! again, so it stays until it is removed by hand; kubelet knows no such difference.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};

use crate::context::Context;
use crate::events::Kind;
use crate::machine::filesystem;
use crate::pod::plan::timestamp;
use crate::register;

/// Time between looks.
const PERIOD: Duration = Duration::from_secs(300);
/// Images go when the disk is fuller than this, in hundredths …
const HIGH_PERCENT: i64 = 85;
/// … until it is no fuller than this.
const LOW_PERCENT: i64 = 80;
/// Younger images stay: somebody may be about to use them.
const YOUNG: SignedDuration = SignedDuration::from_mins(2);

/// An image as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    id: String,
    size: u64,
    /// When a container or pod was last seen to use it; its arrival when none ever was.
    last_used: Timestamp,
    arrived: Timestamp,
}

/// When images were last in use, by id.
pub type LastUsed = parking_lot::Mutex<BTreeMap<String, Timestamp>>;

/// Frees the disk now and then until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some((size, free, ..)) = filesystem(&context.config.root) else {
            continue;
        };
        let wanted = to_free(size, free);
        let freed = remove(&context, wanted).await;
        if wanted > freed {
            let text = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} \
                 bytes, but only found {freed} bytes eligible to free."
            );
            let about = register::reference(&context);
            let recorder = &context.recorder;
            recorder.record(about, Kind::Warning, "FreeDiskSpaceFailed", text);
        }
    }
}

/// Bytes that images should give back.
fn to_free(size: i64, free: i64) -> u64 {
    let used = i128::from(size - free);
    if used * 100 < i128::from(size) * i128::from(HIGH_PERCENT) {
        return 0;
    }
    let target = i128::from(size) * i128::from(LOW_PERCENT) / 100;
    u64::try_from(used - target).unwrap_or(0)
}

/// Removes every image that may go.
pub(crate) async fn remove_unused(context: &Context) {
    remove(context, u64::MAX).await;
}

/// Removes images until `wanted` bytes are freed; answers how many were. With nothing wanted it
/// only notes which images are in use.
async fn remove(context: &Context, wanted: u64) -> u64 {
    let now = context.config.clock.now();
    let images = match context.config.images.list().await {
        Ok(images) => images,
        Err(error) => {
            warn!(%error, "images not listed");
            return 0;
        }
    };
    let in_use = in_use(context).await;
    let known = {
        let mut last_used = context.images_used.lock();
        last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
        for id in &in_use {
            last_used.insert(id.clone(), now);
        }
        images
            .into_iter()
            .filter(|image| image.pulled && !in_use.contains(&image.id))
            .map(|image| {
                let arrived = timestamp(image.created_at);
                Known {
                    last_used: last_used.get(&image.id).copied().unwrap_or(arrived),
                    arrived,
                    id: image.id,
                    size: image.size,
                }
            })
            .collect()
    };
    let mut freed = 0_u64;
    for image in chosen(known, wanted, now) {
        match context.config.images.remove(&image.id).await {
            Ok(()) => {
                info!(image = image.id, bytes = image.size, "image removed");
                freed = freed.saturating_add(image.size);
            }
            Err(error) => warn!(%error, image = image.id, "image not removed"),
        }
    }
    freed
}

/// Images of containers, and of pods whose containers may start (again).
async fn in_use(context: &Context) -> HashSet<String> {
    let mut ids = HashSet::new();
    for uid in context.view.uids() {
        for container in &context.view.observed(&uid).containers {
            ids.insert(container.image_id.clone());
        }
    }
    let mut names = HashSet::new();
    for pod in context.pods.lock().values() {
        let Some(spec) = &pod.spec else { continue };
        let containers = spec.containers.iter();
        let all = containers.chain(spec.init_containers.iter().flatten());
        names.extend(all.filter_map(|container| container.image.clone()));
        let volumes = spec.volumes.iter().flatten();
        names.extend(volumes.filter_map(|volume| volume.image.as_ref()?.reference.clone()));
    }
    for name in names {
        match context.config.images.status(&name).await {
            Ok(found) => ids.extend(found.map(|image| image.id)),
            Err(error) => debug!(%error, name, "image not looked up"),
        }
    }
    ids
}

/// Which go, the least recently used first, until `wanted` bytes are had.
fn chosen(mut images: Vec<Known>, wanted: u64, now: Timestamp) -> Vec<Known> {
    images.retain(|image| now.duration_since(image.arrived) >= YOUNG);
    images.sort_by_key(|image| (image.last_used, image.arrived));
    let mut had = 0_u64;
    images
        .into_iter()
        .take_while(|image| {
            let more = had < wanted;
            had = had.saturating_add(image.size);
            more
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_freed_from_85_down_to_80_percent() {
        assert_eq!(to_free(1000, 151), 0);
        assert_eq!(to_free(1000, 150), 50);
        assert_eq!(to_free(1000, 0), 200);
    }

    #[test]
    fn the_least_recently_used_go_first_and_young_ones_stay() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let image = |id: &str, last_used: i64, arrived: i64| Known {
            id: id.to_owned(),
            size: 10,
            last_used: at(last_used),
            arrived: at(arrived),
        };
        let images = vec![
            image("young", 950, 950),
            image("recent", 900, 0),
            image("old", 10, 0),
            image("older", 5, 0),
        ];
        let ids = |wanted: u64| -> Vec<String> {
            let chosen = chosen(images.clone(), wanted, at(1000));
            chosen.into_iter().map(|image| image.id).collect()
        };
        assert!(ids(0).is_empty());
        assert_eq!(ids(11), ["older", "old"]);
        assert_eq!(ids(u64::MAX), ["older", "old", "recent"]);
    }
}
