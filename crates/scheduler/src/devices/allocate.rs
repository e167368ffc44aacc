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
use k8s_openapi::api::resource::v1::{AllocationResult, Device, DeviceToleration};

use super::constraint::{Constraint, constraints};
use super::counters::Counters;
use super::pools::{Pool, PoolId, SliceInfo};
use super::request::{Alternative, Want, Wanted};
use super::result::{Picked, allocation};
use super::shares::{Amounts, is_shared, suffices, takes};
use super::{DeviceId, Devices, Outstanding, SharedDevices, Shares};
use crate::snapshot::NodeInfo;

/// Devices that one search looks at, at most.
const STEPS: usize = 100_000;

/// Allocates all claims on a node. `None` when its free devices do not serve them.
///
/// # Errors
/// A selector failed, a pool is being changed, or the search became too long.
pub fn allocate(
    devices: &Devices,
    outstanding: &Outstanding,
    wanted: &[Wanted],
    node: &NodeInfo,
) -> Result<Option<Vec<AllocationResult>>, String> {
    let pools = devices.pools.of(node);
    let mut search = Search {
        devices,
        outstanding,
        wanted,
        node,
        pools: &pools,
        taken: HashMap::new(),
        shares: SharedDevices::default(),
        picked: vec![Vec::new(); wanted.len()],
        constraints: wanted.iter().map(constraints).collect(),
        counters: Counters::default(),
        steps: 0,
    };
    match search.claim(0) {
        Ok(()) => {
            let results = wanted
                .iter()
                .zip(&search.picked)
                .map(|(wanted, picked)| allocation(wanted, picked, &node.name));
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

struct Search<'s> {
    devices: &'s Devices,
    outstanding: &'s Outstanding,
    wanted: &'s [Wanted],
    node: &'s NodeInfo,
    pools: &'s [Pool],
    /// Devices chosen so far, and for which claims.
    taken: HashMap<DeviceId, Vec<usize>>,
    /// Shares of devices chosen so far.
    shares: SharedDevices,
    /// By claim.
    picked: Vec<Vec<Picked>>,
    /// By claim.
    constraints: Vec<Vec<Constraint<'s>>>,
    counters: Counters,
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
                    // One that has not so much left of it is not among all.
                    if self.is_selected(at, slice, device)?
                        && self.amounts(at, slice, device).is_some()
                    {
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
        for (pool_at, pool) in pools.iter().enumerate().skip(from.0) {
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
                    if !self.is_free(at, slice, device)
                        || !self.is_selected(at, slice, device)?
                        || !self.take(at, place)
                    {
                        continue;
                    }
                    // One of which others may have the rest does not serve a request twice either.
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

    fn is_free(&self, at: At, slice: &SliceInfo, device: usize) -> bool {
        let id = &slice.devices[device].id;
        let shared = slice.device(device).is_some_and(is_shared);
        let taken = self.taken.get(id);
        if self.of(at).admin {
            // Not twice in one claim; whoever else has it does not matter.
            return shared || !taken.is_some_and(|claims| claims.contains(&at.claim));
        }
        if self.devices.is_held(id) || self.outstanding.holds(id) {
            return false;
        }
        // How much is left of a shared one is asked when it is taken.
        shared || (taken.is_none_or(Vec::is_empty) && self.shares_of(id).is_empty())
    }

    /// What the request takes of the capacities of a device; `None` when there is not so much of them
    /// for it.
    fn amounts(&self, at: At, slice: &SliceInfo, device: usize) -> Option<Amounts> {
        let alternative = self.of(at);
        let id = &slice.devices[device].id;
        let device = slice.device(device)?;
        let shared = is_shared(device);
        if !shared && alternative.capacity.is_empty() {
            return Some(Amounts::new());
        }
        let amounts = takes(device, &id.driver, &alternative.capacity)?;
        let enough =
            !shared || alternative.admin || suffices(device, &amounts, &self.shares_of(id));
        enough.then_some(amounts)
    }

    fn is_selected(&self, at: At, slice: &SliceInfo, device: usize) -> Result<bool, Miss> {
        if !slice.device_reaches(device, self.node) {
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
        let share = is_shared(device);
        let Some(amounts) = self.amounts(at, slice, place.2) else {
            return false;
        };
        // Whoever shares a device takes its counters once for all.
        let counts = !alternative.admin && (!share || self.shares_of(id).is_empty());
        if !self.is_free(at, slice, place.2)
            || is_tainted(self.devices, id, device, &alternative.tolerations)
            || (counts && !self.counters_suffice(pool, device))
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
                    constraint.give_back();
                }
            }
            return false;
        }
        if counts {
            self.counters.count(pool, device, true);
        }
        if share && !alternative.admin {
            self.shares.add(id.clone(), &amounts);
        } else if !share {
            self.taken.entry(id.clone()).or_default().push(at.claim);
        }
        self.picked[at.claim].push(Picked {
            request: at.request,
            alternative: at.alternative,
            slice: Arc::clone(slice),
            at: place.2,
            share: share.then_some(amounts),
        });
        true
    }

    /// Undoes the last choice.
    fn give_back(&mut self, at: At, place: Place) {
        let pools = self.pools;
        let pool = &pools[place.0];
        let slice = &pool.here[place.1];
        let alternative = self.of(at);
        let id = &slice.devices[place.2].id;
        let picked = self.picked[at.claim].pop();
        let share = picked.and_then(|picked| picked.share);
        match &share {
            Some(_) if alternative.admin => {}
            Some(amounts) => self.shares.remove(id, amounts),
            None => {
                if let Some(claims) = self.taken.get_mut(id) {
                    claims.pop();
                }
            }
        }
        for constraint in &mut self.constraints[at.claim] {
            if constraint.is_about(alternative) {
                constraint.give_back();
            }
        }
        let counted = !alternative.admin && (share.is_none() || self.shares_of(id).is_empty());
        if let Some(device) = slice.device(place.2).filter(|_| counted) {
            self.counters.count(pool, device, false);
        }
    }

    fn counters_suffice(&mut self, pool: &Pool, device: &Device) -> bool {
        let (devices, outstanding) = (self.devices, self.outstanding);
        self.counters.suffice(pool, device, |id| {
            devices.is_held(id)
                || outstanding.holds(id)
                || devices.shares(id).is_some()
                || outstanding.shares(id).is_some()
        })
    }

    /// Who has a share of the device: claims, what is set aside, and this search.
    fn shares_of(&self, id: &DeviceId) -> Vec<&Shares> {
        let all = [
            self.devices.shares(id),
            self.outstanding.shares(id),
            self.shares.get(id),
        ];
        all.into_iter().flatten().collect()
    }
}
