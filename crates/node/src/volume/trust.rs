//! What bundles of trust come to in a volume: their certificates, each once.
//!
//! The order is not that of the bundles, and another one after each start of the agent, so that
//! nobody comes to rely on it; it holds while the agent runs, so that files do not change for
//! nothing.

use std::collections::{BTreeMap, HashMap};

use evenkeel_api::clock::SharedClock;
use evenkeel_api::kinds::certificates::pem;
use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use kube::Client;
use kube::api::ListParams;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::payload::api_text;

/// Answers kept at most; beyond it, all are asked for anew.
const CACHE: usize = 256;

/// Asks for bundles, and remembers what they came to for a short while.
pub struct Bundles {
    client: Client,
    clock: SharedClock,
    /// Makes the order.
    salt: [u8; 16],
    known: Mutex<HashMap<String, (Timestamp, Vec<u8>)>>,
}

impl std::fmt::Debug for Bundles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundles").finish_non_exhaustive()
    }
}

impl Bundles {
    /// Over a client.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock) -> Self {
        Self {
            client,
            clock,
            salt: rand::random(),
            known: Mutex::default(),
        }
    }

    /// The certificates that a source names, PEM; at most `age` old.
    ///
    /// # Errors
    /// In kubelet's words: what is missing.
    pub async fn anchors(
        &self,
        source: &ClusterTrustBundleProjection,
        age: SignedDuration,
    ) -> Result<Vec<u8>, String> {
        let key =
            serde_json::to_string(&(&source.name, &source.signer_name, &source.label_selector))
                .map_err(|error| error.to_string())?;
        let now = self.clock.now();
        if let Some((at, anchors)) = self.known.lock().get(&key)
            && now.duration_since(*at) < age
        {
            return Ok(anchors.clone());
        }
        let optional = source.optional == Some(true);
        let bundles = match (&source.name, &source.signer_name) {
            (Some(name), _) => self.named(name, optional).await?,
            (None, Some(signer)) => self.of_signer(signer, source, optional).await?,
            (None, None) => {
                return Err(
                    "ClusterTrustBundle projection requires either name or signerName to be set"
                        .to_owned(),
                );
            }
        };
        let texts = bundles.iter().map(|it| it.spec.trust_bundle.as_str());
        let anchors = normalized(texts, &self.salt);
        if !bundles.is_empty() {
            let mut known = self.known.lock();
            if known.len() >= CACHE {
                known.clear();
            }
            known.insert(key, (now, anchors.clone()));
        }
        Ok(anchors)
    }

    async fn named(&self, name: &str, optional: bool) -> Result<Vec<ClusterTrustBundle>, String> {
        let api: Api<ClusterTrustBundle> = Api::all(self.client.clone());
        let failed = |why: &str| format!("while getting ClusterTrustBundle: {why}");
        match api.get_opt(name).await {
            Ok(Some(bundle)) => Ok(vec![bundle]),
            Ok(None) if optional => Ok(Vec::new()),
            Ok(None) => Err(failed(&format!(
                "clustertrustbundle.certificates.k8s.io {name:?} not found"
            ))),
            Err(error) => Err(failed(&api_text(&error))),
        }
    }

    async fn of_signer(
        &self,
        signer: &str,
        source: &ClusterTrustBundleProjection,
        optional: bool,
    ) -> Result<Vec<ClusterTrustBundle>, String> {
        // Without a selector nothing is meant, with an empty one everything.
        let selector = LabelSelector::from_spec(source.label_selector.as_ref())
            .map_err(|error| format!("while parsing label selector: {error}"))?;
        let mut found = Vec::new();
        if !selector.is_nothing() {
            let api: Api<ClusterTrustBundle> = Api::all(self.client.clone());
            let params = ListParams::default().fields(&format!("spec.signerName={signer}"));
            let all = api.list(&params).await.map_err(|error| {
                format!("while listing ClusterTrustBundles: {}", api_text(&error))
            })?;
            let none = BTreeMap::new();
            found = all.items;
            found.retain(|bundle| {
                bundle.spec.signer_name.as_deref() == Some(signer)
                    && selector.matches(bundle.metadata.labels.as_ref().unwrap_or(&none))
            });
        }
        if found.is_empty() && !optional {
            return Err(
                "combination of signerName and labelSelector matched zero ClusterTrustBundles"
                    .to_owned(),
            );
        }
        Ok(found)
    }
}

/// The certificates of some bundles, each once, in an order that the salt makes.
fn normalized<'a>(bundles: impl Iterator<Item = &'a str>, salt: &[u8]) -> Vec<u8> {
    let mut anchors = BTreeMap::new();
    for mut block in bundles.flat_map(pem::blocks) {
        let place = Sha256::new()
            .chain_update(salt)
            .chain_update(&block.content)
            .finalize();
        "CERTIFICATE".clone_into(&mut block.label);
        anchors.insert(place.to_vec(), block);
    }
    let texts = anchors.values().map(pem::Block::to_text);
    texts.collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_there_once_and_nothing_else() {
        let block = |content: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")
        };
        let (one, two) = (block("AAAA"), block("BBBB"));
        let first = format!("about one\n{one}{two}");
        let headed = one.replace("AAAA", "Made-By: me\n\nAAAA");
        let made = normalized([first.as_str(), headed.as_str()].into_iter(), b"x");
        let made = String::from_utf8(made).expect("text");
        assert!(
            made == format!("{one}{two}") || made == format!("{two}{one}"),
            "{made}"
        );
        let again = normalized([headed.as_str(), first.as_str()].into_iter(), b"x");
        assert_eq!(made.into_bytes(), again);
    }
}
