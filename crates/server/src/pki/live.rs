//! Leaves that are exchanged while TLS uses them: whoever serves or connects with one takes the
//! newest at each handshake, and never learns that there was an older one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use super::{Leaf, LeafSpec, Pki, PkiError, client_builder, identity, server_builder};

/// A leaf in use. [`Pki::renew`] exchanges what is in it.
pub struct LiveLeaf {
    spec: LeafSpec,
    key: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for LiveLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LiveLeaf").field(&self.spec.name).finish()
    }
}

fn certified(leaf: &Leaf) -> Result<CertifiedKey, PkiError> {
    let (chain, key) = identity(leaf)?;
    let key = rustls::crypto::ring::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(CertifiedKey::new(chain, key))
}

impl ResolvesServerCert for LiveLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

impl ResolvesClientCert for LiveLeaf {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Pki {
    /// A leaf that is kept from ending while it is in use.
    ///
    /// # Errors
    /// It can't be read, made or written.
    pub fn live(&self, spec: LeafSpec, now: Timestamp) -> Result<Arc<LiveLeaf>, PkiError> {
        let key = ArcSwap::from_pointee(certified(&self.leaf(&spec, now)?)?);
        let live = Arc::new(LiveLeaf { spec, key });
        self.live.lock().push(Arc::clone(&live));
        Ok(live)
    }

    /// Makes every live leaf anew that nears its end.
    ///
    /// # Errors
    /// The first leaf that can't be made; the others are renewed all the same.
    pub fn renew(&self, now: Timestamp) -> Result<(), PkiError> {
        let all = self.live.lock().clone();
        let mut outcome = Ok(());
        for live in all {
            let fresh = self.leaf(&live.spec, now).and_then(|leaf| certified(&leaf));
            match fresh {
                Ok(fresh) => {
                    if fresh.cert != live.key.load().cert {
                        live.key.store(Arc::new(fresh));
                        tracing::info!(certificate = live.spec.name, "certificate renewed");
                    }
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// TLS for a server, as [`Self::server_config`], with a leaf that may be exchanged.
    ///
    /// # Errors
    /// The authority can't be used.
    pub fn live_server_config(
        &self,
        leaf: &Arc<LiveLeaf>,
        required: bool,
    ) -> Result<ServerConfig, PkiError> {
        let leaf = Arc::clone(leaf);
        Ok(server_builder(&self.ca_pem, required)?.with_cert_resolver(leaf))
    }

    /// TLS for a client that trusts only this authority, with a leaf that may be exchanged.
    ///
    /// # Errors
    /// The authority can't be used.
    pub fn live_client_config(&self, leaf: &Arc<LiveLeaf>) -> Result<ClientConfig, PkiError> {
        let leaf = Arc::clone(leaf);
        Ok(client_builder(&self.ca_pem)?.with_client_cert_resolver(leaf))
    }

    /// What the door shows to servers behind it, so that they believe it about who asks.
    pub(crate) fn front_proxy_client(
        &self,
        now: Timestamp,
    ) -> Result<Arc<dyn ResolvesClientCert>, PkiError> {
        let spec = LeafSpec {
            name: "front-proxy-client".to_owned(),
            common_name: "front-proxy-client".to_owned(),
            client: true,
            front_proxy: true,
            ..LeafSpec::default()
        };
        Ok(self.live(spec, now)?)
    }

    /// How the door reaches node agents.
    pub(crate) fn node_client(&self, now: Timestamp) -> Result<Arc<ClientConfig>, PkiError> {
        let spec = LeafSpec {
            name: "apiserver-kubelet-client".to_owned(),
            common_name: "kube-apiserver-kubelet-client".to_owned(),
            organizations: vec!["system:masters".to_owned()],
            client: true,
            ..LeafSpec::default()
        };
        let leaf = self.live(spec, now)?;
        self.live_client_config(&leaf).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn serial(leaf: &LiveLeaf) -> Vec<u8> {
        leaf.key.load().cert[0].to_vec()
    }

    #[test]
    fn a_live_leaf_is_exchanged_when_a_third_of_its_life_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let hour = SignedDuration::from_hours(1);
        let pki = Pki::open(dir.path(), at(0))
            .unwrap()
            .with_leaf_validity(hour);
        let spec = LeafSpec {
            name: "kubelet".to_owned(),
            common_name: "system:node:n".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            client: true,
            server: true,
            ..LeafSpec::default()
        };
        let live = pki.live(spec.clone(), at(0)).unwrap();
        let first = serial(&live);
        pki.renew(at(2390)).unwrap();
        assert_eq!(serial(&live), first);
        pki.renew(at(2410)).unwrap();
        let second = serial(&live);
        assert_ne!(second, first);
        // What the next start finds on disk is the same one.
        let again = Pki::open(dir.path(), at(2420))
            .unwrap()
            .with_leaf_validity(hour);
        assert_eq!(serial(&again.live(spec, at(2420)).unwrap()), second);
        let (_, parsed) = x509_parser::parse_x509_certificate(&second).unwrap();
        assert_eq!(
            parsed.validity().not_after.timestamp(),
            at(2410 + 3600).as_second()
        );
        pki.live_server_config(&live, false).unwrap();
        pki.live_client_config(&live).unwrap();
    }
}
