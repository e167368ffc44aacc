//! What is written of an allocation: devices, configuration, and the nodes that reach them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult,
    DeviceRequestAllocationResult,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pools::SliceInfo;
use super::request::{Alternative, Wanted};
use super::shares::Amounts;

/// A device chosen for a request.
#[derive(Debug, Clone)]
pub struct Picked {
    /// The request, by its position in the claim.
    pub request: usize,
    /// Which of its alternatives.
    pub alternative: usize,
    /// The slice of the device.
    pub slice: Arc<SliceInfo>,
    /// Its position in the slice.
    pub at: usize,
    /// How much of it, if others may have the rest.
    pub share: Option<Amounts>,
}

/// The allocation of a claim, made for a node.
#[must_use]
pub fn allocation(wanted: &Wanted, picked: &[Picked], node: &str) -> AllocationResult {
    let results = picked.iter().map(|pick| {
        let alternative = &wanted.requests[pick.request][pick.alternative];
        let id = &pick.slice.devices[pick.at].id;
        let tolerations = &alternative.tolerations;
        let device = pick.slice.device(pick.at);
        let consumed = pick.share.iter().flatten();
        let consumed: BTreeMap<String, Quantity> = consumed
            .map(|(name, amount)| (name.clone(), Quantity(amount.to_string())))
            .collect();
        DeviceRequestAllocationResult {
            request: alternative.name.clone(),
            driver: id.driver.to_string(),
            pool: id.pool.to_string(),
            device: id.device.to_string(),
            admin_access: alternative.admin.then_some(true),
            tolerations: (!tolerations.is_empty()).then(|| tolerations.clone()),
            consumed_capacity: (!consumed.is_empty()).then_some(consumed),
            // Whoever keeps the result names the share.
            share_id: pick.share.is_some().then(String::new),
            binding_conditions: device.and_then(|device| device.binding_conditions.clone()),
            binding_failure_conditions: device
                .and_then(|device| device.binding_failure_conditions.clone()),
            ..DeviceRequestAllocationResult::default()
        }
    });
    let config = configuration(wanted, picked);
    AllocationResult {
        devices: Some(DeviceAllocationResult {
            config: (!config.is_empty()).then_some(config),
            results: Some(results.collect()),
        }),
        node_selector: node_selector(picked, node),
        ..AllocationResult::default()
    }
}

/// The alternative that serves each request.
fn chosen<'w>(wanted: &'w Wanted, picked: &[Picked]) -> Vec<&'w Alternative> {
    let requests = wanted.requests.iter().enumerate();
    let chosen = requests.map(|(request, alternatives)| {
        let mut picks = picked.iter().filter(|pick| pick.request == request);
        let at = picks.next().map_or(0, |pick| pick.alternative);
        &alternatives[at]
    });
    chosen.collect()
}

fn configuration(wanted: &Wanted, picked: &[Picked]) -> Vec<DeviceAllocationConfiguration> {
    let chosen = chosen(wanted, picked);
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    // Each class once, for all requests that are of it.
    let mut classes: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for alternative in &chosen {
        let name = alternative
            .class
            .metadata
            .name
            .as_deref()
            .unwrap_or_default();
        if let Some((_, range)) = classes.iter().find(|(known, _)| *known == name) {
            for config in &mut all[range.clone()] {
                config
                    .requests
                    .get_or_insert_default()
                    .push(alternative.name.clone());
            }
            continue;
        }
        let start = all.len();
        for config in alternative.configuration() {
            all.push(DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![alternative.name.clone()]),
                opaque: config.opaque.clone(),
            });
        }
        classes.push((name, start..all.len()));
    }
    let devices = wanted.devices();
    let own = devices.and_then(|devices| devices.config.as_ref());
    for config in own.into_iter().flatten() {
        let about = config.requests.as_deref().unwrap_or_default();
        let applies = |one: &Alternative| about.contains(&one.request) || about.contains(&one.name);
        if about.is_empty() || chosen.iter().any(|one| applies(one)) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    // What is about all requests says so by naming none.
    for config in &mut all {
        let count = config.requests.as_ref().map_or(0, Vec::len);
        if count == wanted.requests.len() {
            config.requests = None;
        }
    }
    all
}

/// The nodes that reach all of the devices; `None` for all nodes.
fn node_selector(picked: &[Picked], node: &str) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for pick in picked {
        let spec = &pick.slice.slice.spec;
        let device = pick.slice.device(pick.at);
        let (name, selector) = if spec.per_device_node_selection == Some(true) {
            (
                device.and_then(|device| device.node_name.as_ref()),
                device.and_then(|device| device.node_selector.as_ref()),
            )
        } else {
            (spec.node_name.as_ref(), spec.node_selector.as_ref())
        };
        let binds = device.and_then(|device| device.binds_to_node) == Some(true);
        if name.is_some() || binds {
            let field = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            };
            return Some(one(NodeSelectorTerm {
                match_fields: Some(vec![field]),
                ..NodeSelectorTerm::default()
            }));
        }
        let terms = selector.map(|selector| selector.node_selector_terms.as_slice());
        if let Some([other]) = terms {
            merge(&mut term.match_fields, other.match_fields.as_ref());
            merge(
                &mut term.match_expressions,
                other.match_expressions.as_ref(),
            );
        }
    }
    let nothing = term.match_fields.is_none() && term.match_expressions.is_none();
    (!nothing).then(|| one(term))
}

fn one(term: NodeSelectorTerm) -> NodeSelector {
    NodeSelector {
        node_selector_terms: vec![term],
    }
}

fn merge(
    into: &mut Option<Vec<NodeSelectorRequirement>>,
    from: Option<&Vec<NodeSelectorRequirement>>,
) {
    for requirement in from.into_iter().flatten() {
        let known = into.get_or_insert_default();
        if !known.contains(requirement) {
            known.push(requirement.clone());
        }
    }
}
