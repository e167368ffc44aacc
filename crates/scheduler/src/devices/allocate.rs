//! The search: free devices of a node that serve all claims of a pod at once. Pure.
//!
//! As in the reference the first solution is taken, and everything is tried until there is one:
//! claim after claim, request after request, device after device, with constraints, counters and
//! taints checked on the way. Two things differ. Devices of one request are only taken in one
//! order, since the others are the same solution. And the search ends after a number of steps
//! instead of a time, so that the same question has the same answer on a slow machine.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::devices::claims::RESULTS_MAX;
use evenkeel_api::devices::taints::{applies, tolerates};
use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceAttribute, DeviceConstraint, DeviceToleration,
};

use super::pools::{Pool, PoolId, SliceInfo};
use super::request::{Alternative, Want, Wanted};
use super::result::{Picked, allocation};
use super::{DeviceId, Devices};
use crate::snapshot::NodeInfo;

/// Devices that one search looks at, at most.
const STEPS: usize = 100_000;

/// Allocates all claims on a node. `None` when its free devices do not serve them.
///
/// # Errors
/// A selector failed, a pool is being changed, or the search became too long.
pub fn allocate(
    devices: &Devices,
    in_use: &dyn Fn(&DeviceId) -> bool,
    wanted: &[Wanted],
    node: &NodeInfo,
) -> Result<Option<Vec<AllocationResult>>, String> {
    let pools = devices.pools.of(node);
    let mut search = Search {
        devices,
        in_use,
        wanted,
        node,
        pools: &pools,
        taken: HashMap::new(),
        picked: vec![Vec::new(); wanted.len()],
        constraints: wanted.iter().map(constraints).collect(),
        consumed: HashMap::new(),
        steps: 0,
    };
    match search.claim(0) {
        Ok(()) => {
            let results = wanted
                .iter()
                .zip(&search.picked)
                .map(|(wanted, picked)| allocation(wanted, picked));
            Ok(Some(results.collect()))
        }
        Err(Miss::None | Miss::TooMany) => {
            if pools.iter().any(|pool| pool.invalid) {
                return Err("invalid resource pools were encountered".to_owned());
            }
            Ok(None)
        }
        Err(Miss::Broken(why)) => Err(why),
    }
}

/// Why there is no solution from here on.
enum Miss {
    /// Devices do not suffice.
    None,
    /// It would be more devices than a claim may have.
    TooMany,
    /// The whole search ends.
    Broken(String),
}

/// A constraint and the values of the devices chosen so far.
struct Constraint<'c> {
    written: &'c DeviceConstraint,
    values: Vec<DeviceAttribute>,
}

fn constraints(wanted: &Wanted) -> Vec<Constraint<'_>> {
    let devices = wanted.devices();
    let written = devices.and_then(|devices| devices.constraints.as_ref());
    let read = |written| Constraint {
        written,
        values: Vec::new(),
    };
    written.into_iter().flatten().map(read).collect()
}

impl Constraint<'_> {
    fn is_about(&self, alternative: &Alternative) -> bool {
        let about = self.written.requests.as_deref().unwrap_or_default();
        about.is_empty()
            || about.contains(&alternative.request)
            || about.contains(&alternative.name)
    }

    /// Takes a device in, if it agrees with the others.
    fn add(&mut self, driver: &str, device: &Device) -> bool {
        let (name, same) = match (
            &self.written.match_attribute,
            &self.written.distinct_attribute,
        ) {
            (Some(name), _) => (name, true),
            (None, Some(name)) => (name, false),
            (None, None) => return false,
        };
        let Some(value) = attribute(driver, device, name).filter(|value| is_single(value)) else {
            return false;
        };
        let known = self.values.contains(value);
        if !self.values.is_empty() && known != same {
            return false;
        }
        self.values.push(value.clone());
        true
    }
}

/// Lists are equal to nothing.
fn is_single(value: &DeviceAttribute) -> bool {
    value.string.is_some() || value.int.is_some() || value.bool.is_some() || value.version.is_some()
}

/// An attribute by its full name; a driver need not write its own domain.
fn attribute<'d>(driver: &str, device: &'d Device, name: &str) -> Option<&'d DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        (domain == driver).then(|| attributes.get(id))?
    })
}

/// Does a request mind the taints of a device, those of its driver and those of rules?
fn is_tainted(
    devices: &Devices,
    id: &DeviceId,
    device: &Device,
    tolerations: &[DeviceToleration],
) -> bool {
    let rules = devices.rules.values();
    let ruled = rules
        .filter(|rule| applies(rule, &id.driver, &id.pool, &id.device))
        .map(|rule| &rule.spec.taint);
    device.taints.iter().flatten().chain(ruled).any(|taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !tolerations.iter().any(|one| tolerates(one, taint))
    })
}

/// A counter of a set of a pool.
type CounterId = (PoolId, String, String);

struct Search<'s> {
    devices: &'s Devices,
    in_use: &'s dyn Fn(&DeviceId) -> bool,
    wanted: &'s [Wanted],
    node: &'s NodeInfo,
    pools: &'s [Pool],
    /// Devices chosen so far, and for which claims.
    taken: HashMap<DeviceId, Vec<usize>>,
    /// By claim.
    picked: Vec<Vec<Picked>>,
    /// By claim.
    constraints: Vec<Vec<Constraint<'s>>>,
    /// What is taken of shared counters, by others and by devices chosen so far.
    consumed: HashMap<CounterId, Quantity>,
    steps: usize,
}

/// Where the search stands.
#[derive(Clone, Copy)]
struct At {
    claim: usize,
    request: usize,
    alternative: usize,
}

/// A device among the pools of the node: pool, slice, device.
type Place = (usize, usize, usize);

impl<'s> Search<'s> {
    fn claim(&mut self, claim: usize) -> Result<(), Miss> {
        if claim >= self.wanted.len() {
            return Ok(());
        }
        match self.request(claim, 0) {
            // Another choice for an earlier claim may lead to one that takes fewer devices here.
            Err(Miss::TooMany) => Err(Miss::None),
            other => other,
        }
    }

    fn request(&mut self, claim: usize, request: usize) -> Result<(), Miss> {
        let Some(alternatives) = self.wanted[claim].requests.get(request) else {
            return self.claim(claim + 1);
        };
        let mut only_too_many = true;
        for alternative in 0..alternatives.len() {
            let at = At {
                claim,
                request,
                alternative,
            };
            match self.alternative(at) {
                Err(Miss::None) => only_too_many = false,
                Err(Miss::TooMany) => {}
                done => return done,
            }
        }
        Err(if only_too_many {
            Miss::TooMany
        } else {
            Miss::None
        })
    }

    fn of(&self, at: At) -> &'s Alternative {
        &self.wanted[at.claim].requests[at.request][at.alternative]
    }

    fn alternative(&mut self, at: At) -> Result<(), Miss> {
        let many = self.picked[at.claim].len();
        match self.of(at).want {
            Want::Count(count) => {
                if many.saturating_add(count) > RESULTS_MAX {
                    return Err(Miss::TooMany);
                }
                self.some(at, count, (0, 0, 0))
            }
            Want::All => {
                let all = self.matching(at)?;
                if all.is_empty() {
                    return Err(Miss::None);
                }
                if many.saturating_add(all.len()) > RESULTS_MAX {
                    return Err(Miss::TooMany);
                }
                self.all(at, &all)
            }
        }
    }

    /// All devices that match a request, whoever has them.
    fn matching(&mut self, at: At) -> Result<Vec<Place>, Miss> {
        let key = evenkeel_client::ObjectKey::of(&*self.wanted[at.claim].claim);
        let mut all = Vec::new();
        for (pool_at, pool) in self.pools.iter().enumerate() {
            let PoolId { driver, pool: name } = &pool.id;
            let state = match (pool.incomplete, pool.invalid) {
                (true, _) => "being updated",
                (false, true) => "invalid",
                (false, false) => "",
            };
            if !state.is_empty() {
                let request = &self.of(at).name;
                return Err(Miss::Broken(format!(
                    "claim {key}, request {request}: asks for all devices, but resource pool \
                     {driver}/{name} is currently {state}"
                )));
            }
            for (slice_at, slice) in pool.here.iter().enumerate() {
                for device in 0..slice.devices.len() {
                    if self.is_selected(at, slice, device)? {
                        all.push((pool_at, slice_at, device));
                    }
                }
            }
        }
        Ok(all)
    }

    fn all(&mut self, at: At, places: &[Place]) -> Result<(), Miss> {
        let Some((place, rest)) = places.split_first() else {
            return self.request(at.claim, at.request + 1);
        };
        self.step()?;
        if !self.take(at, *place) {
            return Err(Miss::None);
        }
        let done = self.all(at, rest);
        if done.is_err() {
            self.give_back(at, *place);
        }
        done
    }

    /// `count` devices at `from` or behind it.
    fn some(&mut self, at: At, count: usize, from: Place) -> Result<(), Miss> {
        if count == 0 {
            return self.request(at.claim, at.request + 1);
        }
        let pools = self.pools;
        for pool_at in from.0..pools.len() {
            let pool = &pools[pool_at];
            if pool.incomplete || pool.invalid {
                continue;
            }
            let first_slice = if pool_at == from.0 { from.1 } else { 0 };
            for slice_at in first_slice..pool.here.len() {
                let slice = &pool.here[slice_at];
                let begun = pool_at == from.0 && slice_at == from.1;
                let first = if begun { from.2 } else { 0 };
                for device in first..slice.devices.len() {
                    self.step()?;
                    let place = (pool_at, slice_at, device);
                    if !self.is_free(at, &slice.devices[device].id)
                        || !self.is_selected(at, slice, device)?
                        || !self.take(at, place)
                    {
                        continue;
                    }
                    let next = (pool_at, slice_at, device + 1);
                    let done = self.some(at, count - 1, next);
                    match done {
                        Ok(()) => return Ok(()),
                        Err(miss) => {
                            self.give_back(at, place);
                            if !matches!(miss, Miss::None) {
                                return Err(miss);
                            }
                        }
                    }
                }
            }
        }
        Err(Miss::None)
    }

    fn step(&mut self) -> Result<(), Miss> {
        self.steps += 1;
        if self.steps > STEPS {
            return Err(Miss::Broken(
                "timed out trying to allocate devices".to_owned(),
            ));
        }
        Ok(())
    }

    fn is_free(&self, at: At, id: &DeviceId) -> bool {
        let taken = self.taken.get(id);
        if self.of(at).admin {
            // Not twice in one claim; whoever else has it does not matter.
            return !taken.is_some_and(|claims| claims.contains(&at.claim));
        }
        taken.is_none_or(Vec::is_empty) && !self.devices.is_held(id) && !(self.in_use)(id)
    }

    fn is_selected(&self, at: At, slice: &SliceInfo, device: usize) -> Result<bool, Miss> {
        let written = slice.device(device);
        // What only its driver or several consumers at once could make of it is not done here.
        let simple = written.is_some_and(|device| {
            device.binding_conditions.as_ref().is_none_or(Vec::is_empty)
                && device.allow_multiple_allocations != Some(true)
        });
        if !simple || !slice.device_reaches(device, self.node) {
            return Ok(false);
        }
        for selector in &self.of(at).selectors {
            let ask = |value: &_| selector.compiled.matches(value);
            match slice.answer(device, &selector.expression, ask) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => {
                    let id = &slice.devices[device].id;
                    return Err(Miss::Broken(format!(
                        "{} on device {id}: CEL runtime error: {why}",
                        selector.of
                    )));
                }
            }
        }
        Ok(true)
    }

    /// Chooses a device, if it is free and taints, counters and constraints allow.
    fn take(&mut self, at: At, place: Place) -> bool {
        let pools = self.pools;
        let pool = &pools[place.0];
        let slice = &pool.here[place.1];
        let id = &slice.devices[place.2].id;
        let alternative = self.of(at);
        let Some(device) = slice.device(place.2) else {
            return false;
        };
        if !self.is_free(at, id)
            || is_tainted(self.devices, id, device, &alternative.tolerations)
            || !(alternative.admin || self.counters_suffice(pool, device))
        {
            return false;
        }
        let mut added = 0;
        let constraints = &mut self.constraints[at.claim];
        for constraint in constraints.iter_mut() {
            if constraint.is_about(alternative) && !constraint.add(&id.driver, device) {
                break;
            }
            added += 1;
        }
        if added < constraints.len() {
            for constraint in &mut constraints[..added] {
                if constraint.is_about(alternative) {
                    constraint.values.pop();
                }
            }
            return false;
        }
        if !alternative.admin {
            self.count(pool, device, true);
        }
        self.taken.entry(id.clone()).or_default().push(at.claim);
        self.picked[at.claim].push(Picked {
            request: at.request,
            alternative: at.alternative,
            slice: Arc::clone(slice),
            at: place.2,
        });
        true
    }

    /// Undoes the last choice.
    fn give_back(&mut self, at: At, place: Place) {
        let pools = self.pools;
        let pool = &pools[place.0];
        let slice = &pool.here[place.1];
        let alternative = self.of(at);
        self.picked[at.claim].pop();
        if let Some(claims) = self.taken.get_mut(&slice.devices[place.2].id) {
            claims.pop();
        }
        for constraint in &mut self.constraints[at.claim] {
            if constraint.is_about(alternative) {
                constraint.values.pop();
            }
        }
        if let Some(device) = slice.device(place.2)
            && !alternative.admin
        {
            self.count(pool, device, false);
        }
    }

    fn count(&mut self, pool: &Pool, device: &Device, add: bool) {
        for (id, amount) in consumption(&pool.id, device) {
            let taken = self.consumed.entry(id).or_default();
            *taken = if add {
                taken.plus(&amount)
            } else {
                taken.minus(&amount)
            };
        }
    }

    /// Is there enough of each counter that the device takes from (KEP-4815)?
    fn counters_suffice(&mut self, pool: &Pool, device: &Device) -> bool {
        if device.consumes_counters.as_ref().is_none_or(Vec::is_empty) {
            return true;
        }
        // Others' devices of this pool, once.
        let marker = (pool.id.clone(), String::new(), String::new());
        if !self.consumed.contains_key(&marker) {
            self.consumed.insert(marker, Quantity::default());
            for slice in &pool.all {
                for (at, info) in slice.devices.iter().enumerate() {
                    let held = self.devices.is_held(&info.id) || (self.in_use)(&info.id);
                    if let Some(device) = slice.device(at).filter(|_| held) {
                        self.count(pool, device, true);
                    }
                }
            }
        }
        let mut wanted: HashMap<CounterId, Quantity> = HashMap::new();
        for (id, amount) in consumption(&pool.id, device) {
            let sum = wanted.entry(id).or_default();
            *sum = sum.plus(&amount);
        }
        wanted.into_iter().all(|(id, amount)| {
            let taken = self.consumed.get(&id).copied().unwrap_or_default();
            capacity(pool, &id.1, &id.2).is_some_and(|most| taken.plus(&amount) <= most)
        })
    }
}

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_default()
}

/// What a device takes from the shared counters of its pool.
fn consumption<'d>(
    pool: &'d PoolId,
    device: &'d Device,
) -> impl Iterator<Item = (CounterId, Quantity)> + 'd {
    let sets = device.consumes_counters.iter().flatten();
    sets.flat_map(move |set| {
        set.counters.iter().map(move |(name, counter)| {
            let id = (pool.clone(), set.counter_set.clone(), name.clone());
            (id, quantity(&counter.value.0))
        })
    })
}

/// How much of a counter the pool has.
fn capacity(pool: &Pool, set: &str, counter: &str) -> Option<Quantity> {
    let sets = pool
        .all
        .iter()
        .flat_map(|slice| slice.slice.spec.shared_counters.iter().flatten());
    let mut sets = sets.filter(|known| known.name == set);
    let found = sets.next()?.counters.get(counter)?;
    Some(quantity(&found.value.0))
}
