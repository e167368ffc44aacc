//! Which of the prepared devices a container is to have: those of the claims that it names, and those
//! that the scheduler has found for its extended resources.

use evenkeel_api::devices::claims::{PodClaimName, claim_name, extended_claim};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Dra;

/// A device that a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The driver.
    pub driver: String,
    /// Its pool.
    pub pool: String,
    /// Its name there.
    pub device: String,
    /// What it is called in the Container Device Interface.
    pub cdi: Vec<String>,
    /// Which share of it, where several have one.
    pub share: Option<String>,
}

impl Dra {
    /// The devices that a container is to have.
    #[must_use]
    pub fn of(&self, uid: &str, pod: &Pod, container: &Container) -> Vec<Used> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let resources = container.resources.as_ref();
        let wanted = resources.and_then(|resources| resources.claims.as_ref());
        let entries: Vec<_> = pod
            .spec
            .iter()
            .flat_map(|spec| spec.resource_claims.iter().flatten())
            .collect();
        // Claims by name, each with the request that is meant, or all.
        let mut wishes: Vec<(&str, Option<&str>)> = Vec::new();
        for wish in wanted.into_iter().flatten() {
            let entry = entries.iter().find(|entry| entry.name == wish.name);
            let name = entry.map(|entry| claim_name(pod, entry));
            if let Some(PodClaimName::Named(name) | PodClaimName::Generated(name)) = name {
                let request = wish.request.as_deref().filter(|it| !it.is_empty());
                wishes.push((name, request));
            }
        }
        if let Some(made) = extended_claim(pod) {
            let mine = made.request_mappings.iter();
            let mine = mine.filter(|one| one.container_name == container.name);
            wishes.extend(mine.map(|one| {
                let request = one.request_name.as_str();
                (made.resource_claim_name.as_str(), Some(request))
            }));
        }
        let kept = self.kept.lock();
        let mut out: Vec<Used> = Vec::new();
        for (name, request) in wishes {
            let mut all = kept.values();
            let held = all.find(|held| {
                held.namespace == namespace && held.name == name && held.pods.contains(uid)
            });
            let Some(held) = held else { continue };
            for (driver, devices) in &held.drivers {
                for device in devices.iter().flatten() {
                    // `REQUEST/ALTERNATIVE` is one of the request's.
                    let is_for = |of: &String| {
                        request.is_none_or(|request| {
                            of == request || of.split('/').next() == Some(request)
                        })
                    };
                    if device.requests.is_empty() || device.requests.iter().any(is_for) {
                        let used = Used {
                            namespace: namespace.to_owned(),
                            claim: name.to_owned(),
                            driver: driver.clone(),
                            pool: device.pool.clone(),
                            device: device.device.clone(),
                            cdi: device.cdi.clone(),
                            share: device.share.clone(),
                        };
                        if !out.contains(&used) {
                            out.push(used);
                        }
                    }
                }
            }
        }
        out
    }
}
