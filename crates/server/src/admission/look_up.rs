//! Objects that plugins look at, as the caches have them.

use serde_json::Value;

use crate::registry::{self, Registry};

/// Group, version and kind.
pub(crate) type Kind = (&'static str, &'static str, &'static str);

/// One object; `None` when it, or its kind, is not there.
pub(crate) fn object(
    registry: &Registry,
    (group, version, kind): Kind,
    namespace: &str,
    name: &str,
) -> Option<Value> {
    let row = registry.rows.by_kind(group, version, kind)?;
    let cache = registry.caches.of(row)?;
    Some(cache.get(&registry::path(namespace, name))?.value())
}

/// All objects of a kind in a namespace; of all namespaces, or cluster-scoped, when it is empty.
pub(crate) fn objects(
    registry: &Registry,
    (group, version, kind): Kind,
    namespace: &str,
) -> Vec<Value> {
    registry
        .rows
        .by_kind(group, version, kind)
        .and_then(|row| registry.caches.of(row))
        .map(|cache| {
            let found = cache.list(namespace, None);
            found.iter().map(|object| object.value()).collect()
        })
        .unwrap_or_default()
}
