//! What the kernel's table holds, and how it comes to hold something else: the difference between
//! what owners want now and what they wanted before becomes one atomic transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Nfnetlink;
use crate::conntrack::{self, Flows};
use crate::nft::{Batch, Data, Family, NftError, commit, remove_table, table_exists};

use super::model::ServiceKey;
use super::plan::{ElementKey, Objects, UdpFlow, affinity_set};
use super::table::{TableConfig, rebuild};

/// Who wants objects in the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A service.
    Service(ServiceKey),
    /// A sandbox with host ports.
    Sandbox(String),
}

/// The node's nftables table.
#[derive(Debug)]
pub struct Routes {
    socket: Nfnetlink,
    config: TableConfig,
    applied: HashMap<Owner, Objects>,
    /// Everybody who wants an element. The first owner by name has it: two services with the
    /// same external address must not alternate.
    claims: BTreeMap<ElementKey, BTreeMap<Owner, Option<Data>>>,
    /// False after a refusal: the table is then replaced as a whole.
    known: bool,
    /// The table is there only while somebody wants something of it.
    on_demand: bool,
    /// It is not there now.
    absent: bool,
}

/// What a change did, for logs and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Owners whose objects differ from before.
    pub changed: usize,
    /// Bytes of the transaction; 0 when there was nothing to do.
    pub bytes: usize,
    /// Connections to departed UDP endpoints that were forgotten.
    pub forgotten: usize,
}

impl Routes {
    /// Remembers nothing of an earlier table: the first `apply` replaces it.
    pub fn new(socket: Nfnetlink, config: TableConfig) -> Self {
        Self {
            socket,
            config,
            applied: HashMap::new(),
            claims: BTreeMap::new(),
            known: false,
            on_demand: false,
            absent: false,
        }
    }

    /// Like `new`, with a table that comes with the first object and goes with the last: hooks
    /// cost every packet something.
    pub fn on_demand(socket: Nfnetlink, config: TableConfig) -> Self {
        Self {
            on_demand: true,
            ..Self::new(socket, config)
        }
    }

    /// What the rules know of the node.
    pub fn config(&self) -> &TableConfig {
        &self.config
    }

    /// The zone of this node; plans that were made before may differ by it.
    pub fn set_zone(&mut self, zone: Option<String>) {
        self.config.zone = zone;
    }

    /// Makes these owners' objects be what is given; empty objects remove the owner. Others stay.
    ///
    /// # Errors
    /// When the kernel refuses; the table is then as before, and the next call replaces it whole.
    pub fn apply(
        &mut self,
        wanted: impl IntoIterator<Item = (Owner, Objects)>,
    ) -> Result<Applied, NftError> {
        let mut change = Change::default();
        let mut udp: Vec<UdpFlow> = Vec::new();
        for (owner, objects) in wanted {
            let old = self.applied.remove(&owner).unwrap_or_default();
            if old == objects {
                if old != Objects::default() {
                    self.applied.insert(owner, old);
                }
                continue;
            }
            change.owners += 1;
            change.chains(self.config.family, &old, &objects);
            self.claim(&owner, &old, &objects, &mut change);
            for flow in &objects.udp {
                if !old.udp.contains(flow) {
                    udp.push(flow.clone());
                }
            }
            for flow in &old.udp {
                if !objects
                    .udp
                    .iter()
                    .any(|f| (f.address, f.port) == (flow.address, flow.port))
                {
                    udp.push(UdpFlow {
                        targets: BTreeSet::new(),
                        ..flow.clone()
                    });
                }
            }
            if objects != Objects::default() {
                self.applied.insert(owner, objects);
            }
        }
        let gone = self.on_demand && self.applied.is_empty();
        let whole = !gone && !self.known;
        let mut done = Applied {
            changed: change.owners,
            bytes: 0,
            forgotten: 0,
        };
        if gone {
            self.remove()?;
        } else {
            let batch = if whole {
                self.whole()
            } else {
                change.batch(&self.config)
            };
            if !batch.is_empty() {
                done.bytes = batch.size();
                self.known = false;
                self.absent = false;
                commit(&mut self.socket, batch)?;
                self.known = true;
            }
        }
        if whole {
            udp = self
                .applied
                .values()
                .flat_map(|objects| objects.udp.clone())
                .collect();
        }
        if whole || !udp.is_empty() {
            let complete = self.config.service_cidr.filter(|_| whole);
            let flows = Flows::new(&udp, complete);
            done.forgotten = conntrack::forget_stale(&mut self.socket, self.config.family, &flows)?;
        }
        Ok(done)
    }

    /// Removes the table, also that of an earlier run.
    fn remove(&mut self) -> Result<(), NftError> {
        if self.absent {
            return Ok(());
        }
        let Self { socket, config, .. } = self;
        self.known = false;
        if table_exists(socket, config.family, &config.table)? {
            remove_table(socket, config.family, &config.table)?;
        }
        self.absent = true;
        Ok(())
    }

    /// Records what owners want without carrying it out: the first `apply` will.
    pub fn prepare(&mut self, wanted: impl IntoIterator<Item = (Owner, Objects)>) {
        for (owner, objects) in wanted {
            let old = self.applied.remove(&owner).unwrap_or_default();
            self.claim(&owner, &old, &objects, &mut Change::default());
            self.applied.insert(owner, objects);
        }
    }

    /// Whether this owner has objects in the table.
    pub fn has(&self, owner: &Owner) -> bool {
        self.applied.contains_key(owner)
    }

    /// Records the owner's elements and notes which of the table's elements change by it.
    fn claim(&mut self, owner: &Owner, old: &Objects, new: &Objects, change: &mut Change) {
        let removed = old
            .elements
            .keys()
            .filter(|key| !new.elements.contains_key(*key));
        let removed = removed.map(|key| (key, None));
        let set = new
            .elements
            .iter()
            .filter(|(key, data)| old.elements.get(*key) != Some(*data));
        let set = set.map(|(key, data)| (key, Some(data)));
        for (key, data) in removed.chain(set) {
            let claims = self.claims.entry(key.clone()).or_default();
            let before = claims.first_key_value().map(|(_, data)| data.clone());
            match data {
                Some(data) => claims.insert(owner.clone(), data.clone()),
                None => claims.remove(owner),
            };
            let after = claims.first_key_value().map(|(_, data)| data.clone());
            if claims.is_empty() {
                self.claims.remove(key);
            }
            change.element(key, before, after);
        }
    }

    /// A transaction that builds everything anew.
    fn whole(&self) -> Batch {
        let mut change = Change::default();
        for objects in self.applied.values() {
            change.chains(self.config.family, &Objects::default(), objects);
        }
        for (key, claims) in &self.claims {
            change.element(
                key,
                None,
                claims.first_key_value().map(|(_, data)| data.clone()),
            );
        }
        let mut batch = rebuild(&self.config);
        change.write(&mut batch);
        batch
    }
}

/// What an element leads to: `None` when it is absent, `Some(None)` when it is a set's.
type Value = Option<Option<Data>>;

/// The difference between two states of the table.
#[derive(Debug, Default)]
struct Change {
    owners: usize,
    new_chains: Vec<String>,
    new_sets: Vec<crate::nft::Set>,
    flushed: Vec<String>,
    rules: Vec<(String, Vec<Vec<crate::nft::Expr>>)>,
    gone_chains: Vec<String>,
    gone_sets: Vec<String>,
    /// Value before this change and after it.
    elements: BTreeMap<ElementKey, (Value, Value)>,
}

impl Change {
    fn chains(&mut self, family: Family, old: &Objects, new: &Objects) {
        for (name, rules) in &new.chains {
            match old.chains.get(name) {
                // An affinity map that has to be made anew must be let go of first.
                Some(before) if before == rules && old.affinity == new.affinity => {}
                Some(_) => {
                    self.flushed.push(name.clone());
                    self.rules.push((name.clone(), rules.clone()));
                }
                None => {
                    self.new_chains.push(name.clone());
                    self.rules.push((name.clone(), rules.clone()));
                }
            }
        }
        for name in old
            .chains
            .keys()
            .filter(|name| !new.chains.contains_key(*name))
        {
            self.flushed.push(name.clone());
            self.gone_chains.push(name.clone());
        }
        let timeout = |objects: &Objects, name: &str| objects.affinity.get(name).copied();
        for (name, after) in &new.affinity {
            if timeout(old, name) != Some(*after) {
                self.new_sets.push(affinity_set(family, name, *after));
            }
        }
        for (name, before) in &old.affinity {
            if timeout(new, name) != Some(*before) {
                self.gone_sets.push(name.clone());
            }
        }
    }

    fn element(&mut self, key: &ElementKey, before: Value, after: Value) {
        self.elements.entry(key.clone()).or_insert((before, None)).1 = after;
    }

    fn batch(&self, config: &TableConfig) -> Batch {
        let mut batch = Batch::new(config.family, &config.table);
        self.write(&mut batch);
        batch
    }

    /// The order matters: what is referred to is there before, and goes after, what refers to it.
    fn write(&self, batch: &mut Batch) {
        for chain in &self.new_chains {
            batch.add_chain(chain, None);
        }
        for chain in &self.flushed {
            batch.flush_chain(chain);
        }
        for set in &self.gone_sets {
            batch.delete_set(set);
        }
        for set in &self.new_sets {
            batch.add_set(set);
        }
        for (chain, rules) in &self.rules {
            for rule in rules {
                batch.add_rule(chain, rule);
            }
        }
        let changed = || {
            self.elements
                .iter()
                .filter(|(_, (before, after))| before != after)
        };
        let mut by_set: BTreeMap<&str, (Vec<_>, Vec<_>)> = BTreeMap::new();
        for ((set, key), (before, after)) in changed() {
            let (gone, new) = by_set.entry(set).or_default();
            if before.is_some() {
                gone.push((&key[..], None));
            }
            if let Some(data) = after {
                new.push((&key[..], data.as_ref()));
            }
        }
        for (set, (gone, _)) in &by_set {
            batch.delete_elements(set, gone.iter().copied());
        }
        for (set, (_, new)) in &by_set {
            batch.add_elements(set, new.iter().copied());
        }
        for chain in &self.gone_chains {
            batch.delete_chain(chain);
        }
    }
}
