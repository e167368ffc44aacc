//! Devices that several claims share: how much of a device's capacity a request takes, and what is
//! left of it (KEP-5075). Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::resource::v1::{AllocationResult, CapacityRequestPolicy, Device};

use super::{DeviceId, taken};

/// Amounts by the name of the capacity, as the device's slice spells it.
pub type Amounts = BTreeMap<String, Quantity>;

/// Is the device for several claims at once?
#[must_use]
pub fn is_shared(device: &Device) -> bool {
    device.allow_multiple_allocations == Some(true)
}

/// What is taken of a device that several share.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shares {
    /// So many have a share.
    pub count: u32,
    /// So much they take.
    pub consumed: Amounts,
}

impl Shares {
    /// One more has a share.
    pub fn add(&mut self, amounts: &Amounts) {
        self.count += 1;
        for (name, amount) in amounts {
            let sum = self.consumed.entry(name.clone()).or_default();
            *sum = sum.plus(amount);
        }
    }

    /// One of them has it no more.
    pub fn remove(&mut self, amounts: &Amounts) {
        self.count = self.count.saturating_sub(1);
        for (name, amount) in amounts {
            let sum = self.consumed.entry(name.clone()).or_default();
            *sum = sum.minus(amount);
        }
    }
}

/// The shares of devices that an allocation has.
#[must_use]
pub fn shared(allocation: &AllocationResult) -> Vec<(DeviceId, Amounts)> {
    let results = allocation
        .devices
        .as_ref()
        .and_then(|all| all.results.as_ref());
    results
        .into_iter()
        .flatten()
        .filter(|result| result.share_id.is_some() && result.admin_access != Some(true))
        .map(|result| {
            let id = DeviceId {
                driver: result.driver.as_str().into(),
                pool: result.pool.as_str().into(),
                device: result.device.as_str().into(),
            };
            let consumed = result.consumed_capacity.iter().flatten();
            let amounts = consumed.map(|(name, amount)| (name.clone(), quantity(&amount.0)));
            (id, amounts.collect())
        })
        .collect()
}

/// What is taken of all devices that several share. A device nobody has a share of is not in it.
#[derive(Debug, Default, Clone)]
pub struct SharedDevices(HashMap<DeviceId, Shares>);

impl SharedDevices {
    /// What is taken of a device.
    #[must_use]
    pub fn get(&self, id: &DeviceId) -> Option<&Shares> {
        self.0.get(id)
    }

    /// One more has a share of a device.
    pub fn add(&mut self, id: DeviceId, amounts: &Amounts) {
        self.0.entry(id).or_default().add(amounts);
    }

    /// One of them has it no more.
    pub fn remove(&mut self, id: &DeviceId, amounts: &Amounts) {
        if let Some(shares) = self.0.get_mut(id) {
            shares.remove(amounts);
            if shares.count == 0 {
                self.0.remove(id);
            }
        }
    }

    /// Takes in the shares that an allocation has.
    pub fn add_all(&mut self, allocation: &AllocationResult) {
        for (id, amounts) in shared(allocation) {
            self.add(id, &amounts);
        }
    }

    /// It has them no more.
    pub fn remove_all(&mut self, allocation: &AllocationResult) {
        for (id, amounts) in shared(allocation) {
            self.remove(&id, &amounts);
        }
    }
}

/// What is set aside beside what claims say.
#[derive(Debug, Default)]
pub struct Outstanding {
    devices: HashSet<DeviceId>,
    shares: SharedDevices,
}

impl Outstanding {
    /// An allocation is set aside.
    pub fn add(&mut self, allocation: &AllocationResult) {
        self.devices.extend(taken(allocation));
        self.shares.add_all(allocation);
    }

    /// It is not any more.
    pub fn remove(&mut self, allocation: &AllocationResult) {
        for id in taken(allocation) {
            self.devices.remove(&id);
        }
        self.shares.remove_all(allocation);
    }

    /// Is the device set aside as a whole?
    #[must_use]
    pub fn holds(&self, id: &DeviceId) -> bool {
        self.devices.contains(id)
    }

    /// The shares of it that are set aside.
    #[must_use]
    pub fn shares(&self, id: &DeviceId) -> Option<&Shares> {
        self.shares.get(id)
    }
}

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_default()
}

/// The device's own spelling of a capacity: its driver's domain may be left out on either side.
/// Results say it so, as drivers look it up.
fn spelled<'d>(device: &'d Device, driver: &str, name: &str) -> Option<&'d str> {
    let capacity = device.capacity.as_ref()?;
    let key = |name: &str| capacity.get_key_value(name).map(|(name, _)| name.as_str());
    key(name).or_else(|| match name.split_once('/') {
        Some((domain, short)) if domain == driver => key(short),
        Some(_) => None,
        None => key(&format!("{driver}/{name}")),
    })
}

/// What a request for so much comes to under a device's policy; `None`: it gives that to nobody.
fn rounded(wanted: Quantity, policy: Option<&CapacityRequestPolicy>) -> Option<Quantity> {
    let Some(policy) = policy else {
        return Some(wanted);
    };
    if let Some(range) = &policy.valid_range {
        let least = quantity(&range.min.0);
        let mut amount = wanted.max(least);
        if let Some(step) = range.step.as_ref().filter(|_| amount > least) {
            amount = amount.stepped(&least, &quantity(&step.0));
        }
        let most = range.max.as_ref().map(|most| quantity(&most.0));
        return most.is_none_or(|most| amount <= most).then_some(amount);
    }
    match policy.valid_values.as_deref() {
        None | Some([]) => Some(wanted),
        Some(values) => {
            let values = values.iter().map(|value| quantity(&value.0));
            values.filter(|value| *value >= wanted).min()
        }
    }
}

/// What a request takes of each capacity of a device: what it asks for, rounded as the device's
/// policy says, or the policy's default, or all of it. `None` when the device does not have or does
/// not give that.
#[must_use]
pub fn takes(device: &Device, driver: &str, requests: &Amounts) -> Option<Amounts> {
    let mut asked: HashMap<&str, Quantity> = HashMap::new();
    for (name, amount) in requests {
        // One capacity under two names is no request that makes sense.
        if asked
            .insert(spelled(device, driver, name)?, *amount)
            .is_some()
        {
            return None;
        }
    }
    let mut all = Amounts::new();
    for (name, capacity) in device.capacity.iter().flatten() {
        let policy = capacity.request_policy.as_ref();
        let value = quantity(&capacity.value.0);
        let amount = match asked.get(name.as_str()) {
            Some(wanted) => rounded(*wanted, policy)?,
            None => policy
                .and_then(|policy| policy.default.as_ref())
                .map_or(value, |default| quantity(&default.0)),
        };
        if amount > value || amount.is_negative() {
            return None;
        }
        all.insert(name.clone(), amount);
    }
    Some(all)
}

/// Is there so much left of a device, beside what others have of it?
#[must_use]
pub fn suffices(device: &Device, wanted: &Amounts, others: &[&Shares]) -> bool {
    wanted.iter().all(|(name, amount)| {
        let capacity = device.capacity.as_ref().and_then(|all| all.get(name));
        let Some(most) = capacity.map(|capacity| quantity(&capacity.value.0)) else {
            return false;
        };
        let consumed = others.iter().filter_map(|shares| shares.consumed.get(name));
        let all = consumed.fold(*amount, |sum, one| sum.plus(one));
        all <= most
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn amounts(of: &[(&str, &str)]) -> Amounts {
        let of = of.iter();
        of.map(|(name, amount)| ((*name).to_owned(), quantity(amount)))
            .collect()
    }

    fn device(policy: &serde_json::Value) -> Device {
        serde_json::from_value(json!({
            "name": "nic", "allowMultipleAllocations": true,
            "capacity": {"bandwidth": {"value": "10G", "requestPolicy": policy},
                "example.com/queues": {"value": "8"}},
        }))
        .expect("a device")
    }

    /// A policy, what is asked for, and bandwidth and queues that it comes to.
    type Row<'a> = (
        &'a serde_json::Value,
        &'a [(&'a str, &'a str)],
        Option<(&'a str, &'a str)>,
    );

    #[test]
    fn what_a_request_comes_to() {
        let range = json!({"default": "1G",
            "validRange": {"min": "1G", "max": "8G", "step": "2G"}});
        let values = json!({"default": "1G", "validValues": ["1G", "4G"]});
        let none = serde_json::Value::Null;
        let rows: Vec<Row<'_>> = vec![
            (&none, &[], Some(("10G", "8"))),
            (&none, &[("bandwidth", "3G")], Some(("3G", "8"))),
            (&none, &[("example.com/bandwidth", "3G")], Some(("3G", "8"))),
            (&none, &[("queues", "2")], Some(("10G", "2"))),
            (&none, &[("other.com/queues", "2")], None),
            (&none, &[("memory", "1")], None),
            (&none, &[("bandwidth", "11G")], None),
            (&none, &[("queues", "1"), ("example.com/queues", "2")], None),
            (&range, &[], Some(("1G", "8"))),
            (&range, &[("bandwidth", "500M")], Some(("1G", "8"))),
            (&range, &[("bandwidth", "1500M")], Some(("3G", "8"))),
            (&range, &[("bandwidth", "7G")], Some(("7G", "8"))),
            (&range, &[("bandwidth", "7100M")], None),
            (&values, &[("bandwidth", "1")], Some(("1G", "8"))),
            (&values, &[("bandwidth", "2G")], Some(("4G", "8"))),
            (&values, &[("bandwidth", "5G")], None),
        ];
        for (policy, asked, wanted) in rows {
            let found = takes(&device(policy), "example.com", &amounts(asked));
            let wanted = wanted.map(|(bandwidth, queues)| {
                amounts(&[("bandwidth", bandwidth), ("example.com/queues", queues)])
            });
            assert_eq!(found, wanted, "{policy} {asked:?}");
        }
    }

    #[test]
    fn what_is_left() {
        let device = device(&serde_json::Value::Null);
        let mut shares = Shares::default();
        shares.add(&amounts(&[
            ("bandwidth", "6G"),
            ("example.com/queues", "1"),
        ]));
        let wanted = |amount: &str| amounts(&[("bandwidth", amount)]);
        assert!(suffices(&device, &wanted("4G"), &[&shares]));
        assert!(!suffices(&device, &wanted("4001M"), &[&shares]));
        assert!(!suffices(&device, &wanted("3G"), &[&shares, &shares]));
        shares.remove(&amounts(&[
            ("bandwidth", "6G"),
            ("example.com/queues", "1"),
        ]));
        assert_eq!(shares.count, 0);
        assert!(suffices(&device, &wanted("10G"), &[&shares]));
    }
}
