//! How wide a request is: a list by what it loads, a write by who watches, anything else one seat.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::queues::{Nanos, Width};
use crate::http::{Attributes, Query};
use crate::registry::Registry;

/// A seat stands for so many bytes that a list holds at once.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list from the cache does not count for more than that: its objects are there anyhow.
const CACHED_MOST: u64 = 1_000_000;
/// Seats of a list at most,
const LIST_MOST: u32 = 100;
/// and of a write.
const WRITE_MOST: u32 = 10;
/// A seat serves so many watchers,
const WATCHERS_PER_SEAT: usize = 10;
/// for that long.
const EVENT: Nanos = 5_000_000;

/// Who watches what, as far as it matters to the width of a write.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    hash: RandomState,
    all: AtomicUsize,
    by_place: RwLock<HashMap<u64, usize>>,
}

/// A watch that is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    watchers: Arc<Watchers>,
    place: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watchers.all.fetch_sub(1, Ordering::Relaxed);
        let mut by_place = self.watchers.by_place.write();
        if let Some(count) = by_place.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                by_place.remove(&self.place);
            }
        }
    }
}

impl Watchers {
    /// Places are kept by their hash: nothing is allocated to look one up, and two that share a
    /// hash only make a write a little wider.
    fn place(&self, attributes: &Attributes, namespace: &str, name: &str) -> u64 {
        let Attributes {
            group, resource, ..
        } = attributes;
        self.hash
            .hash_one((group.as_str(), resource.as_str(), namespace, name))
    }

    /// Counts a watch. Node agents watch the pods of their own node alone: these are not counted,
    /// because a write concerns one of them at most.
    pub(super) fn add(self: &Arc<Self>, attributes: &Attributes, query: &Query) -> Option<Watched> {
        let of_a_node = attributes.resource == "pods"
            && query.get("fieldSelector").split(',').any(|term| {
                term.strip_prefix("spec.nodeName=")
                    .is_some_and(|node| !node.trim_start_matches('=').is_empty())
            });
        if of_a_node {
            return None;
        }
        let place = self.place(attributes, &attributes.namespace, &attributes.name);
        self.all.fetch_add(1, Ordering::Relaxed);
        *self.by_place.write().entry(place).or_default() += 1;
        Some(Watched {
            watchers: Arc::clone(self),
            place,
        })
    }

    /// How many watch what a write changes.
    fn of(&self, attributes: &Attributes) -> usize {
        // Too few in all is the common case.
        if self.all.load(Ordering::Relaxed) < WATCHERS_PER_SEAT {
            return 0;
        }
        let Attributes {
            namespace, name, ..
        } = attributes;
        let everywhere = self.place(attributes, "", "");
        let in_namespace = self.place(attributes, namespace, "");
        let of_one = self.place(attributes, namespace, name);
        let by_place = self.by_place.read();
        let at = |place: u64| by_place.get(&place).copied().unwrap_or(0);
        let mut count = at(everywhere);
        if !namespace.is_empty() {
            count += at(in_namespace);
        }
        if !name.is_empty() {
            count += at(of_one);
        }
        count
    }
}

/// How wide a request is in a level that lets one have `most` seats (0: as many as any may have).
pub(super) fn width(
    registry: &Registry,
    watchers: &Watchers,
    attributes: &Attributes,
    query: &Query,
    most: u32,
) -> Width {
    if !attributes.resource_request {
        return Width::ONE;
    }
    let within = |all: u32| if most == 0 { all } else { most.min(all) };
    match attributes.verb.as_str() {
        "list" => list(registry, attributes, query, within(LIST_MOST)),
        "watch" => {
            // The objects that come first make it a list.
            let asked = query.get("resourceVersion");
            if query.flag("sendInitialEvents") || matches!(asked, "" | "0") {
                list(registry, attributes, query, within(LIST_MOST))
            } else {
                Width::ONE
            }
        }
        "create" | "update" | "patch" | "delete" => {
            let is_token =
                attributes.resource == "serviceaccounts" && attributes.subresource == "token";
            if is_token {
                return Width::ONE;
            }
            write(watchers.of(attributes), within(WRITE_MOST))
        }
        _ => Width::ONE,
    }
}

fn write(watchers: usize, most: u32) -> Width {
    if watchers < WATCHERS_PER_SEAT {
        return Width::ONE;
    }
    let seats = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
    let last = seats.min(most).max(1);
    // As much work, on fewer seats for longer.
    Width {
        initial: 1,
        last,
        lingers: EVENT.saturating_mul(u64::from(seats)) / u64::from(last),
    }
}

fn list(registry: &Registry, attributes: &Attributes, query: &Query, most: u32) -> Width {
    let Attributes {
        group,
        version,
        resource,
        ..
    } = attributes;
    let rows = registry.caches.kinds().rows();
    let stored = rows
        .by_path(group, version, resource)
        .and_then(|row| registry.caches.of(row))
        .map(|cache| cache.stored());
    // Nothing is known of it, or it is somebody else's.
    let Some((count, bytes)) = stored else {
        return Width::ONE;
    };
    let asked = query.get("resourceVersion");
    let limit = query
        .number("limit")
        .and_then(|limit| u64::try_from(limit).ok());
    let limited = limit
        .filter(|limit| *limit > 0)
        .unwrap_or(u64::MAX)
        .min(count);
    let exact = query.get("resourceVersionMatch") == "Exact"
        || limited < count && !matches!(asked, "" | "0");
    let cached = attributes.verb == "watch" || !exact && query.get("continue").is_empty();
    let selects = query.has("fieldSelector") || query.has("labelSelector");
    let loaded = match () {
        () if !attributes.name.is_empty() => 1,
        () if cached || !selects => limited,
        () => limited.max(count / 2),
    };
    let mean = bytes.checked_div(count).unwrap_or(0);
    let mut held = loaded.saturating_mul(mean);
    if cached {
        held = held.min(CACHED_MOST);
    }
    let seats = u32::try_from(held.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
    Width::of(seats.clamp(1, most.max(1)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn asks(method: &Method, url: &str) -> (Attributes, Query) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query);
        (Attributes::of(method, path, &query), query)
    }

    #[test]
    fn a_write_is_as_wide_as_those_who_watch_it() {
        assert_eq!(write(9, 10), Width::ONE);
        let some = write(25, 10);
        assert_eq!((some.initial, some.last, some.lingers), (1, 3, EVENT));
        let many = write(1000, 10);
        assert_eq!((many.last, many.lingers), (10, EVENT * 10));
    }

    #[test]
    fn watchers_are_those_of_the_object_its_namespace_and_all() {
        let watchers = Arc::new(Watchers::default());
        let add = |url: &str| {
            let (attributes, query) = asks(&Method::GET, url);
            watchers.add(&attributes, &query)
        };
        let mut held: Vec<Option<Watched>> = (0..10).map(|_| add("/api/v1/pods?watch=1")).collect();
        held.push(add("/api/v1/namespaces/a/pods?watch=1"));
        held.push(add("/api/v1/namespaces/b/pods?watch=1"));
        held.push(add(
            "/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dx",
        ));
        assert!(add("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").is_none());
        let of = |url: &str| watchers.of(&asks(&Method::PUT, url).0);
        assert_eq!(of("/api/v1/namespaces/a/pods/x"), 12);
        assert_eq!(of("/api/v1/namespaces/a/pods/y"), 11);
        assert_eq!(of("/api/v1/namespaces/c/pods/x"), 10);
        assert_eq!(of("/api/v1/namespaces/a/secrets/x"), 0);
        drop(held);
        assert_eq!(watchers.all.load(Ordering::Relaxed), 0);
        assert!(watchers.by_place.read().is_empty());
    }
}
