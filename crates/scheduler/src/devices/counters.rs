//! Counters that the devices of a pool share (KEP-4815): a device can be had while there is enough of
//! each counter that it takes from. Pure.

use std::collections::{HashMap, HashSet};

use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::resource::v1::Device;

use super::DeviceId;
use super::pools::{Pool, PoolId};

/// A counter of a set of a pool.
type CounterId = (PoolId, String, String);

/// What is taken of shared counters: by others, and by devices chosen so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    taken: HashMap<CounterId, Quantity>,
    /// Pools of which others' devices are in.
    known: HashSet<PoolId>,
}

impl Counters {
    /// A device is chosen (`add`), or is not after all.
    pub(super) fn count(&mut self, pool: &Pool, device: &Device, add: bool) {
        for (id, amount) in consumption(&pool.id, device) {
            let taken = self.taken.entry(id).or_default();
            *taken = if add {
                taken.plus(&amount)
            } else {
                taken.minus(&amount)
            };
        }
    }

    /// Is there enough of each counter that the device takes from? `held` says which devices others
    /// have.
    pub(super) fn suffice(
        &mut self,
        pool: &Pool,
        device: &Device,
        held: impl Fn(&DeviceId) -> bool,
    ) -> bool {
        if device.consumes_counters.as_ref().is_none_or(Vec::is_empty) {
            return true;
        }
        if self.known.insert(pool.id.clone()) {
            for slice in &pool.all {
                for (at, info) in slice.devices.iter().enumerate() {
                    if let Some(device) = slice.device(at).filter(|_| held(&info.id)) {
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
            let taken = self.taken.get(&id).copied().unwrap_or_default();
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
