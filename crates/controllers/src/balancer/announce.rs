//! Which node announces an address on the link: pure.
//!
//! One node for each address. It stays with the node that has it for as long as that node may,
//! since every move costs clients their connections; otherwise nodes are ranked by a hash of
//! their name and the address, so that addresses spread over nodes without anybody counting.

use std::collections::BTreeSet;
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;

use super::assign::any_matches;
use super::kinds::{AddressPool, Advertisement};
use crate::claim;

/// Nodes with this label carry no outside traffic.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A node that may announce, and where: no name means every interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Its interfaces.
    pub interfaces: BTreeSet<String>,
}

/// The node can carry traffic now.
#[must_use]
pub fn is_fit(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let is = |kind: &str, state: &str| {
        conditions
            .into_iter()
            .flatten()
            .any(|found| found.type_ == kind && found.status == state)
    };
    is("Ready", "True")
        && !is("NetworkUnavailable", "True")
        && !claim::labels(&node.metadata).contains_key(EXCLUDED)
}

/// Do the advertisements speak of this pool and service?
fn speaks_of(
    advertisement: &Advertisement,
    pool: &AddressPool,
    labels: &std::collections::BTreeMap<String, String>,
) -> bool {
    let spec = &advertisement.spec;
    let all = spec.ip_address_pools.is_empty() && spec.ip_address_pool_selectors.is_empty();
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let named = spec.ip_address_pools.iter().any(|found| found == name);
    let selected = any_matches(
        &spec.ip_address_pool_selectors,
        claim::labels(&pool.metadata),
        false,
    );
    advertisement.metadata.namespace == pool.metadata.namespace
        && (all || named || selected)
        && any_matches(&spec.service_selectors, labels, true)
}

/// The nodes that may announce addresses of a pool for a service with these labels; `None` when
/// no advertisement speaks of it.
#[must_use]
pub fn candidates(
    advertisements: &[Advertisement],
    pool: &AddressPool,
    labels: &std::collections::BTreeMap<String, String>,
    nodes: &[&Node],
) -> Option<Vec<Candidate>> {
    let speaking: Vec<&Advertisement> = advertisements
        .iter()
        .filter(|advertisement| speaks_of(advertisement, pool, labels))
        .collect();
    if speaking.is_empty() {
        return None;
    }
    let candidate = |node: &&Node| {
        let matching: Vec<&&Advertisement> = speaking
            .iter()
            .filter(|found| {
                any_matches(
                    &found.spec.node_selectors,
                    claim::labels(&node.metadata),
                    true,
                )
            })
            .collect();
        if matching.is_empty() {
            return None;
        }
        let everywhere = matching
            .iter()
            .any(|found| found.spec.interfaces.is_empty());
        let named = matching
            .iter()
            .flat_map(|found| found.spec.interfaces.iter());
        Some(Candidate {
            node: node.metadata.name.clone().unwrap_or_default(),
            interfaces: named.filter(|_| !everywhere).cloned().collect(),
        })
    };
    Some(nodes.iter().filter_map(candidate).collect())
}

/// The one that announces.
#[must_use]
pub fn choose<'c>(
    address: IpAddr,
    candidates: &'c [Candidate],
    current: Option<&str>,
) -> Option<&'c Candidate> {
    let stays = candidates
        .iter()
        .find(|found| Some(found.node.as_str()) == current);
    stays.or_else(|| {
        candidates.iter().max_by_key(|found| {
            // The choice is kept in the service, so that a hash that differs between builds
            // moves nothing.
            let mut hasher = std::hash::DefaultHasher::new();
            (found.node.as_str(), address).hash(&mut hasher);
            (hasher.finish(), found.node.as_str())
        })
    })
}
