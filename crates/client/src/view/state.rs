//! What a view holds, and how lists, events and own writes change it. Pure: no I/O, no waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use kube::Resource;

use super::Change;
use super::reflect::Event;
use crate::key::ObjectKey;
use crate::kind::Kind;

/// Computes the values under which an object is found in an index.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

#[derive(Debug)]
struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

#[derive(Debug)]
pub(super) struct State<K> {
    pub(super) objects: BTreeMap<ObjectKey, Arc<K>>,
    /// The revision the watch has reached; own writes may be ahead of it.
    pub(super) revision: u64,
    /// Uids removed by our own deletes that the watch has not reported yet.
    removed: HashSet<String>,
    indexes: HashMap<&'static str, Index<K>>,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            revision: 0,
            removed: HashSet::new(),
            indexes: HashMap::new(),
        }
    }
}

/// The revision of an object, 0 when it has none.
pub(super) fn revision<K: Resource>(object: &K) -> u64 {
    let text = object.meta().resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<K: Kind> State<K> {
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let from = Bound::Included(ObjectKey::new(namespace, ""));
        let owned = namespace.to_owned();
        self.objects
            .range((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.namespace == owned)
            .map(|(_, object)| object)
    }

    pub(super) fn add_index(&mut self, name: &'static str, values: IndexFn<K>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut keys: HashMap<String, BTreeSet<ObjectKey>> = HashMap::new();
        for (key, object) in &self.objects {
            for value in values(object) {
                keys.entry(value).or_default().insert(key.clone());
            }
        }
        self.indexes.insert(name, Index { values, keys });
    }

    pub(super) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let index = self
            .indexes
            .get(name)
            .expect("the index was added before it is read");
        let keys = index.keys.get(value).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).cloned())
            .collect()
    }

    fn put(&mut self, key: ObjectKey, object: K) -> Change<K> {
        let object = object.kept();
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        self.reindex(&key, old.as_deref(), Some(&object));
        Change {
            key,
            old,
            new: Some(object),
        }
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Change<K>> {
        let old = self.objects.remove(key)?;
        self.reindex(key, Some(&old), None);
        Some(Change {
            key: key.clone(),
            old: Some(old),
            new: None,
        })
    }

    fn reindex(&mut self, key: &ObjectKey, old: Option<&K>, new: Option<&K>) {
        for index in self.indexes.values_mut() {
            let before = old.map(index.values).unwrap_or_default();
            let after = new.map(index.values).unwrap_or_default();
            if before == after {
                continue;
            }
            for value in before {
                if let Some(keys) = index.keys.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.keys.remove(&value);
                    }
                }
            }
            for value in after {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
    }

    fn was_removed(&self, object: &K) -> bool {
        let uid = object.meta().uid.as_deref();
        !self.removed.is_empty() && uid.is_some_and(|uid| self.removed.contains(uid))
    }

    pub(super) fn event(&mut self, event: Event<K>, revision: u64) -> Option<Change<K>> {
        self.revision = revision;
        match event {
            Event::Put(object) => {
                if self.was_removed(&object) {
                    return None;
                }
                let mut object = object;
                object.trim();
                let key = ObjectKey::of(&object);
                let held = self.objects.get(&key);
                // An own write is held already, or an older event arrives late.
                if held.is_some_and(|held| self::revision(held.as_ref()) >= revision) {
                    return None;
                }
                Some(self.put(key, object))
            }
            Event::Gone(object) => {
                if let Some(uid) = object.meta().uid.as_deref() {
                    self.removed.remove(uid);
                }
                let key = ObjectKey::of(&object);
                let held = self.objects.get(&key)?;
                // The name may have been taken again by an own create since.
                if self::revision(held.as_ref()) > revision {
                    return None;
                }
                self.remove(&key)
            }
        }
    }

    pub(super) fn replace(&mut self, items: Vec<K>, revision: u64) -> Vec<Change<K>> {
        self.revision = revision;
        let mut changes = Vec::new();
        let mut listed = BTreeSet::new();
        let mut still_listed = HashSet::new();
        for mut object in items {
            let key = ObjectKey::of(&object);
            if self.was_removed(&object) {
                still_listed.extend(object.meta().uid.clone());
                continue;
            }
            listed.insert(key.clone());
            let version = self::revision(&object);
            let held = self.objects.get(&key);
            if held.is_some_and(|held| self::revision(held.as_ref()) >= version) {
                continue;
            }
            object.trim();
            changes.push(self.put(key, object));
        }
        self.removed = still_listed;
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, held)| {
                !listed.contains(*key) && self::revision(held.as_ref()) <= revision
            })
            .map(|(key, _)| key.clone())
            .collect();
        changes.extend(gone.iter().filter_map(|key| self.remove(key)));
        changes
    }

    pub(super) fn note_written(&mut self, object: K) -> (Arc<K>, Option<Change<K>>) {
        let key = ObjectKey::of(&object);
        let version = revision(&object);
        if let Some(held) = self.objects.get(&key)
            && revision(held.as_ref()) >= version
        {
            return (Arc::clone(held), None);
        }
        // The watch is past this revision: it has brought this object and what became of it.
        if version <= self.revision || self.was_removed(&object) {
            let kept = self.objects.get(&key).cloned();
            return (kept.unwrap_or_else(|| Arc::new(object)), None);
        }
        let change = self.put(key, object);
        (Arc::clone(change.latest()), Some(change))
    }

    pub(super) fn note_deleted(&mut self, object: &K) -> Option<Change<K>> {
        let uid = object.meta().uid.clone()?;
        let key = ObjectKey::of(object);
        let held = self.objects.get(&key)?;
        if held.meta().uid.as_ref() != Some(&uid) {
            return None;
        }
        self.removed.insert(uid);
        self.remove(&key)
    }
}
