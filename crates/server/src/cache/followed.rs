//! The caches of a few built-in kinds, found once. Roles, policies and webhooks are compiled when one of them
//! changes, and each request asks several times whether one has.

use std::sync::{Arc, OnceLock};

use super::KindCache;
use crate::registry::Registry;

/// Kinds of one group, in `v1`.
#[derive(Debug)]
pub(crate) struct Followed<const N: usize> {
    group: &'static str,
    kinds: [&'static str; N],
    caches: OnceLock<[Option<Arc<KindCache>>; N]>,
}

impl<const N: usize> Followed<N> {
    pub(crate) const fn new(group: &'static str, kinds: [&'static str; N]) -> Self {
        Self {
            group,
            kinds,
            caches: OnceLock::new(),
        }
    }

    /// In the order of the kinds; `None` for one that is not served. To be asked with one registry only:
    /// the caches of built-in kinds stay the same as long as it lives.
    pub(crate) fn caches(&self, registry: &Registry) -> [Option<&Arc<KindCache>>; N] {
        let caches = self.caches.get_or_init(|| {
            self.kinds.map(|kind| {
                let row = registry.rows.by_kind(self.group, "v1", kind)?;
                registry.caches.of(row)
            })
        });
        caches.each_ref().map(Option::as_ref)
    }

    /// The revisions of the last changes.
    pub(crate) fn revisions(&self, registry: &Registry) -> [u64; N] {
        let caches = self.caches(registry);
        caches.map(|cache| cache.map_or(0, |cache| cache.last()))
    }
}
