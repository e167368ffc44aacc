//! Opens what keeps the state: the embedded store or etcd.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use evenkeel_server::pki::Pki;
use evenkeel_server::seal::Seal;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore, usual_reserve};
use evenkeel_store::etcd::EtcdStore;
use evenkeel_store::{Compare, Op, OpResult, Range, Store, Txn};

use crate::config::Settings;

/// Whose certificate authority signs what is in the store.
const AUTHORITY: &str = "/registry/evenkeel/authority";

/// What keeps the state.
pub(crate) enum Opened {
    Embedded(Arc<EmbeddedStore>),
    Etcd(Arc<EtcdStore>),
}

/// Where the embedded store is.
pub(crate) fn directory(settings: &Settings) -> PathBuf {
    settings.data_dir.join("store")
}

impl Opened {
    /// Opens the store that the settings name.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if let Some(options) = &settings.etcd {
            let store = EtcdStore::open(options).await.with_context(|| {
                format!(
                    "can't open the store in etcd at {}",
                    options.endpoints.join(",")
                )
            })?;
            return Ok(Self::Etcd(Arc::new(store)));
        }
        let options = EmbeddedOptions {
            reserve_bytes: usual_reserve(&settings.data_dir),
            ..EmbeddedOptions::default()
        };
        let store = EmbeddedStore::open(&directory(settings), options)
            .with_context(|| format!("can't open the store in {}", settings.data_dir.display()))?;
        Ok(Self::Embedded(Arc::new(store)))
    }

    /// The store, whichever it is.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Etcd(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    /// Whether other servers may be on the same store.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }

    pub(crate) fn close(&self) {
        if let Self::Embedded(store) = self {
            store.close();
        }
    }
}

/// Refuses to serve the state of a cluster with the certificates of another one: servers on one
/// etcd share their authority, the keys of tokens and of encryption.
pub(crate) async fn recognize(
    store: &dyn Store,
    pki: &Pki,
    settings: &Settings,
) -> anyhow::Result<()> {
    let key = Bytes::from_static(AUTHORITY.as_bytes());
    let ours = Bytes::copy_from_slice(pki.ca().as_bytes());
    let txn = Txn {
        compare: vec![Compare::ModRevision {
            key: key.clone(),
            revision: 0,
        }],
        success: vec![Op::Put {
            key: key.clone(),
            value: ours.clone(),
        }],
        failure: vec![Op::Range(Range::key(key))],
    };
    let done = store.txn(txn).await.context("the store can't be written")?;
    let theirs = done.results.iter().find_map(|result| match result {
        OpResult::Range(read) => read.kvs.first().map(|kv| kv.value.clone()),
        _ => None,
    });
    anyhow::ensure!(
        theirs.is_none_or(|theirs| theirs == ours),
        "the store belongs to a cluster with another certificate authority: copy the directory \
         `pki` of its first server to {}",
        settings.data_dir.join("pki").display()
    );
    Ok(())
}

/// What seals Secrets, or whatever the configuration names; a configuration that is to be followed
/// comes with its file and text.
pub(crate) fn seal(settings: &Settings) -> anyhow::Result<(Arc<Seal>, Option<Followed>)> {
    let own = settings.data_dir.join("pki").join("encryption.key");
    let Some(path) = &settings.encryption else {
        return Ok((Arc::new(Seal::open(&own)?), None));
    };
    let place = || format!("--encryption-provider-config {}", path.display());
    let text = std::fs::read_to_string(path).with_context(place)?;
    let seal = Arc::new(Seal::configured(&text, &own).with_context(place)?);
    let followed = settings.encryption_reload.then(|| Followed {
        path: path.clone(),
        text,
    });
    Ok((seal, followed))
}

/// A configuration of encryption that may change.
pub(crate) struct Followed {
    path: PathBuf,
    text: String,
}

impl Followed {
    /// Takes over its changes. Runs for ever.
    pub(crate) async fn follow(self, seal: Arc<Seal>) {
        seal.follow(&self.path, self.text).await;
    }
}
