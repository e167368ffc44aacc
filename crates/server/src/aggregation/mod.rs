//! Aggregation: groups that other servers serve, through this door.
//!
//! An APIService says who serves a version of a group. Requests for it are authorized here and
//! passed on ([`remote`]) with the caller's name in headers that only the door's front-proxy
//! certificate may carry. [`follow`] asks those servers whether they answer, writes the condition
//! `Available`, and keeps what they say of themselves for discovery and OpenAPI ([`learned`]). What
//! this server serves itself has APIServices too ([`local`]). Nothing here looks into what is
//! passed on.

mod follow;
mod learned;
mod local;
mod remote;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use evenkeel_api::kinds::api_services;
use evenkeel_api::names::version_order;
use evenkeel_api::row::Storage;
use evenkeel_api::{Rows, object};
use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use serde_json::Value;

use crate::cache::KindCache;
use crate::registry::Registry;

pub(crate) use follow::run;
pub(crate) use learned::{Learned, Swagger};
pub(crate) use local::register_builtin;
pub(crate) use remote::Remote;

/// A version of a group, as APIServices order them.
#[derive(Debug, Clone)]
struct Place {
    /// Name of the APIService.
    name: String,
    group: String,
    version: String,
    /// Of the group, and of the version in it.
    priority: (i64, i64),
}

/// Group name and its versions, the preferred one first.
pub(crate) type Group = (String, Vec<String>);

/// An APIService, as far as it matters here.
#[derive(Debug)]
struct Entry {
    place: Place,
    /// The server behind it, if it is another than this one.
    remote: Option<Arc<Remote>>,
    /// It is looked after by this server: `onstart` or `true`.
    managed: Option<String>,
    /// It stands for this server and does not say so yet.
    unmarked: bool,
}

/// All APIServices; those that have changed are read anew.
#[derive(Debug, Default)]
struct Compiled {
    revision: u64,
    /// By name, with the revision of each.
    entries: HashMap<Box<str>, (u64, Arc<Entry>)>,
    remotes: HashMap<(String, String), Arc<Remote>>,
}

/// Who serves what.
pub(crate) struct Aggregator {
    cache: Arc<KindCache>,
    compiled: ArcSwap<Compiled>,
    /// Shown to the servers behind it.
    certificate: Arc<dyn ResolvesClientCert>,
    /// What they have said of themselves, by the name of the APIService.
    learned: Mutex<HashMap<String, Arc<Learned>>>,
}

impl Aggregator {
    /// `None` only where there is no such kind.
    pub(crate) fn new(
        registry: &Registry,
        certificate: Arc<dyn ResolvesClientCert>,
    ) -> Option<Self> {
        let row = registry
            .rows
            .by_kind(api_services::GROUP, "v1", "APIService")?;
        Some(Self {
            cache: registry.caches.of(row)?,
            compiled: ArcSwap::from_pointee(Compiled {
                revision: u64::MAX,
                ..Compiled::default()
            }),
            certificate,
            learned: Mutex::default(),
        })
    }

    fn compiled(&self) -> Arc<Compiled> {
        let revision = self.cache.last();
        let now = self.compiled.load_full();
        if now.revision == revision {
            return now;
        }
        let mut fresh = Compiled {
            revision,
            ..Compiled::default()
        };
        for object in self.cache.list("", None) {
            let name = object.head.name.clone();
            let known = now
                .entries
                .get(&name)
                .filter(|(revision, _)| *revision == object.revision);
            let entry = match known {
                Some((_, entry)) => Arc::clone(entry),
                None => {
                    let before = now
                        .entries
                        .get(&name)
                        .and_then(|(_, it)| it.remote.as_ref());
                    Arc::new(Entry::read(&object.value(), before, &self.certificate))
                }
            };
            if let Some(remote) = &entry.remote {
                let key = (remote.group.clone(), remote.version.clone());
                fresh.remotes.insert(key, Arc::clone(remote));
            }
            fresh.entries.insert(name, (object.revision, entry));
        }
        let fresh = Arc::new(fresh);
        self.compiled.store(Arc::clone(&fresh));
        fresh
    }

    /// All APIServices.
    fn entries(&self) -> Vec<Arc<Entry>> {
        let compiled = self.compiled();
        let all = compiled.entries.values();
        all.map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// The server behind a version of a group, if it is another than this one.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let compiled = self.compiled();
        if compiled.remotes.is_empty() {
            return None;
        }
        let key = (group.to_owned(), version.to_owned());
        compiled.remotes.get(&key).cloned()
    }

    /// The server behind a path, if it is another than this one.
    pub(crate) fn by_path(&self, path: &str) -> Option<Arc<Remote>> {
        if self.compiled().remotes.is_empty() {
            return None;
        }
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        match segments.next()? {
            "api" => self.remote("", segments.next()?),
            "apis" => self.remote(segments.next()?, segments.next()?),
            _ => None,
        }
    }

    /// All servers behind this one.
    pub(crate) fn remotes(&self) -> Vec<Arc<Remote>> {
        self.compiled().remotes.values().cloned().collect()
    }

    /// What a server has said of a version of a group; `None` for what this server serves.
    pub(crate) fn learned(&self, group: &str, version: &str) -> Option<Arc<Learned>> {
        let remote = self.remote(group, version)?;
        let known = self.learned.lock().get(&remote.name).cloned();
        let known = known.unwrap_or_default();
        if known.is_fresh && !remote.is_available {
            return Some(Arc::new(known.stale()));
        }
        Some(known)
    }

    /// Takes in what a server has said.
    fn learn(&self, name: &str, said: Learned) {
        self.learned.lock().insert(name.to_owned(), Arc::new(said));
    }

    fn learn_swagger(&self, name: &str, said: Option<Arc<Swagger>>) {
        let mut learned = self.learned.lock();
        if let Some(known) = learned.get(name).filter(|it| !same(&it.swagger, &said)) {
            let fresh = Learned {
                swagger: said,
                ..Learned::clone(known)
            };
            learned.insert(name.to_owned(), Arc::new(fresh));
        }
    }

    /// What the servers behind this one add to its Swagger document, in the order in which they are
    /// merged: groups by priority, then by the names of their APIServices.
    pub(crate) fn swaggers(&self) -> Vec<Arc<Swagger>> {
        let compiled = self.compiled();
        if compiled.remotes.is_empty() {
            return Vec::new();
        }
        let mut groups: HashMap<&str, i64> = HashMap::new();
        let remote = || {
            let all = compiled.entries.values().map(|(_, entry)| entry);
            all.filter(|entry| entry.remote.is_some())
                .map(|entry| &entry.place)
        };
        for place in remote() {
            let highest = groups.entry(&place.group).or_insert(place.priority.0);
            *highest = place.priority.0.max(*highest);
        }
        let mut places: Vec<&Place> = remote().collect();
        places.sort_by_key(|place| {
            let priority = groups.get(place.group.as_str()).copied();
            (std::cmp::Reverse(priority), place.name.as_str())
        });
        let learned = self.learned.lock();
        places
            .into_iter()
            .filter_map(|place| learned.get(&place.name)?.swagger.clone())
            .collect()
    }

    fn known(&self, name: &str) -> Arc<Learned> {
        self.learned.lock().get(name).cloned().unwrap_or_default()
    }

    fn forget(&self, name: &str) {
        self.learned.lock().remove(name);
    }

    /// All groups and versions that are served here or through here, in the reference's order: by
    /// the priorities of APIServices, its own group first.
    pub(crate) fn groups(&self, rows: &Rows) -> Vec<Group> {
        let compiled = self.compiled();
        let entries = || compiled.entries.values().map(|(_, entry)| entry);
        let mut places: Vec<Place> = entries()
            .filter(|entry| entry.remote.is_some())
            .map(|entry| entry.place.clone())
            .collect();
        let known: HashMap<(&str, &str), &Place> = entries()
            .map(|entry| &entry.place)
            .map(|place| ((place.group.as_str(), place.version.as_str()), place))
            .collect();
        for (group, version) in own(rows) {
            if compiled
                .remotes
                .contains_key(&(group.to_owned(), version.to_owned()))
            {
                continue;
            }
            places.push(match known.get(&(group, version)) {
                Some(place) => Place::clone(place),
                None => Place {
                    name: format!("{version}.{group}"),
                    group: group.to_owned(),
                    version: version.to_owned(),
                    priority: usual(group, version),
                },
            });
        }
        order(places)
    }
}

impl Entry {
    fn read(
        value: &Value,
        before: Option<&Arc<Remote>>,
        certificate: &Arc<dyn ResolvesClientCert>,
    ) -> Self {
        let part = |name: &str| object::text(value, &["spec", name]).to_owned();
        let number = |name: &str| object::integer(value, &["spec", name]).unwrap_or(0);
        let remote = api_services::is_remote(value)
            .then(|| Arc::new(Remote::read(value, before, certificate)));
        let marked = || !api_services::set_local(&mut value.clone(), "");
        Self {
            place: Place {
                name: object::name(value).to_owned(),
                group: part("group"),
                version: part("version"),
                priority: (number("groupPriorityMinimum"), number("versionPriority")),
            },
            managed: object::label(value, api_services::AUTOMANAGED).map(str::to_owned),
            unmarked: remote.is_none() && !marked(),
            remote,
        }
    }
}

fn same(a: &Option<Arc<Swagger>>, b: &Option<Arc<Swagger>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// The versions of the groups of the rows, each once.
fn own(rows: &Rows) -> Vec<(&str, &str)> {
    let mut seen = HashSet::new();
    rows.iter()
        .filter(|row| row.storage != Storage::BodyOnly)
        .map(|row| (row.gvk.group.as_ref(), row.gvk.version.as_ref()))
        .filter(|key| seen.insert(*key))
        .collect()
}

fn usual(group: &str, version: &str) -> (i64, i64) {
    if group == api_services::GROUP {
        return (20_001, 15);
    }
    api_services::priority(group, version).unwrap_or(api_services::CUSTOM_PRIORITY)
}

fn order(mut places: Vec<Place>) -> Vec<Group> {
    places.sort_by(|a, b| {
        b.priority
            .0
            .cmp(&a.priority.0)
            .then_with(|| a.name.cmp(&b.name))
    });
    let mut groups: Vec<(String, Vec<Place>)> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for place in places {
        let at = *index.entry(place.group.clone()).or_insert_with(|| {
            groups.push((place.group.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(place);
    }
    groups
        .into_iter()
        .map(|(group, mut versions)| {
            versions.sort_by(|a, b| {
                b.priority
                    .1
                    .cmp(&a.priority.1)
                    .then_with(|| version_order(&b.version, &a.version))
            });
            let versions = versions.into_iter().map(|place| place.version).collect();
            (group, versions)
        })
        .collect()
}

/// The EndpointSlices of a service.
fn slices(registry: &Registry, namespace: &str, name: &str) -> Vec<Value> {
    use crate::admission::look_up;
    let kind = ("discovery.k8s.io", "v1", "EndpointSlice");
    look_up::objects(registry, kind, namespace)
        .into_iter()
        .filter(|slice| object::label(slice, "kubernetes.io/service-name") == Some(name))
        .collect()
}
