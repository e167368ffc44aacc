//! What a claim asks for, read and compiled once for a pod.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::devices::DeviceSelector;
use evenkeel_api::devices::claims::RESULTS_MAX;
use evenkeel_api::quantity::Quantity;
use evenkeel_client::ObjectKey;
use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClaim, DeviceClass, DeviceClassConfiguration,
    DeviceSelector as Written, DeviceToleration, ResourceClaim,
};
use parking_lot::Mutex;

use super::shares::Amounts;

/// Compiled selectors by their text.
#[derive(Debug, Default)]
pub struct Selectors(Mutex<HashMap<Arc<str>, Result<DeviceSelector, String>>>);

/// Selectors that are kept compiled.
const KEPT: usize = 256;

impl Selectors {
    fn get(&self, text: &str) -> (Arc<str>, Result<DeviceSelector, String>) {
        let mut known = self.0.lock();
        if let Some((text, compiled)) = known.get_key_value(text) {
            return (Arc::clone(text), compiled.clone());
        }
        if known.len() >= KEPT {
            known.clear();
        }
        let (text, compiled): (Arc<str>, _) = (text.into(), DeviceSelector::compile(text));
        known.insert(Arc::clone(&text), compiled.clone());
        (text, compiled)
    }
}

/// One selector of a class or request.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Whose it is, for texts.
    pub of: String,
    /// Its text.
    pub expression: Arc<str>,
    /// The same, compiled.
    pub compiled: DeviceSelector,
}

/// How many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// So many.
    Count(usize),
    /// All that match; at least one.
    All,
}

/// One way to serve a request.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// `request`, or `request/alternative`.
    pub name: String,
    /// The request alone.
    pub request: String,
    /// What its devices are.
    pub class: Arc<DeviceClass>,
    /// Of the class, then its own.
    pub selectors: Vec<Selector>,
    /// How many.
    pub want: Want,
    /// Devices that others have will do.
    pub admin: bool,
    /// Taints it does not mind.
    pub tolerations: Vec<DeviceToleration>,
    /// How much of their capacities it asks for.
    pub capacity: Amounts,
}

impl Alternative {
    /// What its class tells the drivers.
    pub fn configuration(&self) -> impl Iterator<Item = &DeviceClassConfiguration> {
        let spec = self.class.spec.as_ref();
        spec.and_then(|spec| spec.config.as_ref())
            .into_iter()
            .flatten()
    }
}

/// A claim that is to be allocated.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The claim.
    pub claim: Arc<ResourceClaim>,
    /// Its requests, each with the ways to serve it, the best first.
    pub requests: Vec<Vec<Alternative>>,
}

/// A request or one of its alternatives, as written.
struct Part<'c> {
    name: String,
    request: &'c str,
    class: &'c str,
    selectors: Option<&'c Vec<Written>>,
    mode: Option<&'c str>,
    count: Option<i64>,
    admin: bool,
    tolerations: Option<&'c Vec<DeviceToleration>>,
    capacity: Option<&'c CapacityRequirements>,
}

impl Wanted {
    /// What the claim says of devices.
    #[must_use]
    pub fn devices(&self) -> Option<&DeviceClaim> {
        self.claim.spec.as_ref()?.devices.as_ref()
    }

    /// Reads a claim.
    ///
    /// # Errors
    /// Why it can't be allocated, in the reference's words.
    pub fn read(
        claim: &Arc<ResourceClaim>,
        classes: &HashMap<String, Arc<DeviceClass>>,
        compiled: &Selectors,
    ) -> Result<Self, String> {
        let key = ObjectKey::of(&**claim);
        let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
        let requests = devices.and_then(|devices| devices.requests.as_ref());
        let mut all = Vec::new();
        for request in requests.into_iter().flatten() {
            let mut parts: Vec<Part<'_>> = Vec::new();
            if let Some(exactly) = &request.exactly {
                parts.push(Part {
                    name: request.name.clone(),
                    request: &request.name,
                    class: &exactly.device_class_name,
                    selectors: exactly.selectors.as_ref(),
                    mode: exactly.allocation_mode.as_deref(),
                    count: exactly.count,
                    admin: exactly.admin_access == Some(true),
                    tolerations: exactly.tolerations.as_ref(),
                    capacity: exactly.capacity.as_ref(),
                });
            }
            for part in request.first_available.iter().flatten() {
                parts.push(Part {
                    name: format!("{}/{}", request.name, part.name),
                    request: &request.name,
                    class: &part.device_class_name,
                    selectors: part.selectors.as_ref(),
                    mode: part.allocation_mode.as_deref(),
                    count: part.count,
                    admin: false,
                    tolerations: part.tolerations.as_ref(),
                    capacity: part.capacity.as_ref(),
                });
            }
            if parts.is_empty() {
                return Err(format!(
                    "request {}: unsupported request type",
                    request.name
                ));
            }
            let alternatives = parts
                .into_iter()
                .map(|part| alternative(part, &key, classes, compiled));
            all.push(alternatives.collect::<Result<Vec<_>, _>>()?);
        }
        let least = |alternatives: &Vec<Alternative>| {
            let counts = alternatives
                .iter()
                .map(|alternative| match alternative.want {
                    Want::Count(count) => count,
                    Want::All => 1,
                });
            counts.min().unwrap_or(0)
        };
        let least: usize = all.iter().map(least).fold(0, usize::saturating_add);
        if least > RESULTS_MAX {
            return Err(format!(
                "claim {key}: number of requested devices {least} exceeds the claim limit of {}",
                RESULTS_MAX
            ));
        }
        Ok(Self {
            claim: Arc::clone(claim),
            requests: all,
        })
    }
}

fn capacity(written: Option<&CapacityRequirements>, request: &str) -> Result<Amounts, String> {
    let requests = written.and_then(|written| written.requests.as_ref());
    let requests = requests.into_iter().flatten();
    requests
        .map(|(name, amount)| match amount.0.parse::<Quantity>() {
            Ok(amount) => Ok((name.clone(), amount)),
            Err(error) => Err(format!("request {request}, capacity {name}: {error}")),
        })
        .collect()
}

fn alternative(
    part: Part<'_>,
    key: &ObjectKey,
    classes: &HashMap<String, Arc<DeviceClass>>,
    compiled: &Selectors,
) -> Result<Alternative, String> {
    let Part { name, class, .. } = part;
    let class = classes
        .get(class)
        .ok_or_else(|| format!("request {name}: device class {class} does not exist"))?;
    let want = match part.mode {
        Some("All") => Want::All,
        None | Some("ExactCount" | "") => {
            let count = usize::try_from(part.count.unwrap_or(1)).unwrap_or(usize::MAX);
            Want::Count(count)
        }
        Some(other) => {
            return Err(format!(
                "claim {key}, request {name}: unsupported count mode {other}"
            ));
        }
    };
    let class_name = class.metadata.name.as_deref().unwrap_or_default();
    let of_class = class.spec.as_ref().and_then(|spec| spec.selectors.as_ref());
    let of_class = of_class.into_iter().flatten().enumerate();
    let of_class = of_class.map(|(at, one)| (format!("class {class_name}: selector #{at}"), one));
    let own = part.selectors.into_iter().flatten().enumerate();
    let own = own.map(|(at, one)| (format!("claim {key}: selector #{at}"), one));
    let mut selectors = Vec::new();
    for (of, written) in of_class.chain(own) {
        let Some(cel) = &written.cel else {
            return Err(format!(
                "{of}: CEL expression empty (unsupported selector type?)"
            ));
        };
        let (expression, result) = compiled.get(&cel.expression);
        let compiled = result.map_err(|why| format!("{of}: CEL compile error: {why}"))?;
        selectors.push(Selector {
            of,
            expression,
            compiled,
        });
    }
    Ok(Alternative {
        request: part.request.to_owned(),
        class: Arc::clone(class),
        selectors,
        want,
        admin: part.admin,
        tolerations: part.tolerations.cloned().unwrap_or_default(),
        capacity: capacity(part.capacity, &name)?,
        name,
    })
}
