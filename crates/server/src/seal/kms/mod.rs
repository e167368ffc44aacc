//! A key management service (KMS v2) as a provider.
//!
//! Values are encrypted here, with keys made of a seed; the seed is encrypted by the service and
//! stored with each value. So the service is asked once for each seed, not for each value, and
//! sealing and opening need no waiting once a seed is known: who reads stored values says so first
//! ([`Kms::learn`]). A new seed is made at start and when the service names another key.

mod envelope;
mod service;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message as _;
use ring::rand::SystemRandom;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::SealError;
use envelope::{DataKey, Envelope, SEED_TYPE, SourceId, check_key_id};
use service::{Service, is_unreachable};

/// So long a seed is written with after the service has last said that its key is the current one.
const WRITABLE: Duration = Duration::from_secs(3 * 60);
/// So long the answer to a question about health holds: a good one,
const GOOD_FOR: Duration = Duration::from_secs(20);
/// a bad one.
const BAD_FOR: Duration = Duration::from_secs(3);

/// What values are sealed with now.
struct State {
    key: Arc<DataKey>,
    /// Everything that is stored with a value but the value.
    envelope: Envelope,
    until: Instant,
}

type Health = Option<(Instant, Result<(), String>)>;

/// A key management service.
pub(super) struct Kms {
    name: String,
    prefix: Vec<u8>,
    service: Service,
    random: SystemRandom,
    state: ArcSwapOption<State>,
    /// The keys to what has been stored, by what they were encrypted to.
    keys: RwLock<HashMap<SourceId, Arc<DataKey>>>,
    /// One at a time asks.
    asking: Mutex<()>,
    health: Mutex<Health>,
}

impl Kms {
    pub(super) fn new(name: &str, endpoint: &str, within: Duration) -> Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            prefix: format!("k8s:enc:kms:v2:{name}:").into_bytes(),
            service: Service::new(endpoint, within)?,
            random: SystemRandom::new(),
            state: ArcSwapOption::empty(),
            keys: RwLock::default(),
            asking: Mutex::default(),
            health: Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Seals with the current seed.
    pub(super) fn seal(&self, store_key: &[u8], plain: &[u8]) -> Result<Bytes, SealError> {
        let Some(state) = self.state.load_full() else {
            return Err(self.failed("it has not encrypted a seed yet"));
        };
        if Instant::now() > state.until {
            return Err(self.failed(format!(
                "it has not confirmed the key {:?} for more than {} s",
                state.envelope.key_id,
                WRITABLE.as_secs()
            )));
        }
        let sealed = Envelope {
            data: state.key.seal(&self.random, store_key, plain)?,
            ..state.envelope.clone()
        };
        let mut stored = self.prefix.clone();
        // A vector takes as much as there is.
        sealed.encode(&mut stored).unwrap_or_default();
        Ok(Bytes::from(stored))
    }

    /// `None`: somebody else has sealed it.
    pub(super) fn unseal(
        &self,
        store_key: &[u8],
        stored: &Bytes,
    ) -> Option<Result<Bytes, SealError>> {
        let envelope = match self.envelope(stored)? {
            Ok(envelope) => envelope,
            Err(error) => return Some(Err(error)),
        };
        let key = self.keys.read().get(&envelope.source_id()).map(Arc::clone);
        Some(match key {
            Some(key) => key.unseal(store_key, &envelope.data).ok_or(SealError::Open),
            None => Err(self.failed("it has not been asked for the key of this value")),
        })
    }

    /// Whether a value would be sealed so now.
    pub(super) fn is_newest(&self, stored: &Bytes) -> bool {
        let Some(Ok(envelope)) = self.envelope(stored) else {
            return false;
        };
        // Without a key to write with, nothing is written again.
        self.state.load().as_ref().is_none_or(|state| {
            (envelope.key_id == state.envelope.key_id) && envelope.source_type == SEED_TYPE
        })
    }

    fn envelope(&self, stored: &Bytes) -> Option<Result<Envelope, SealError>> {
        if !stored.starts_with(&self.prefix) {
            return None;
        }
        let read = Envelope::read(stored.slice(self.prefix.len()..));
        Some(read.map_err(|why| self.failed(format!("the stored value is damaged: {why}"))))
    }

    /// Whether nobody has to be asked to open a value.
    pub(super) fn knows(&self, stored: &Bytes) -> bool {
        match self.envelope(stored) {
            Some(Ok(envelope)) => self.keys.read().contains_key(&envelope.source_id()),
            // Asking does not help.
            Some(Err(_)) | None => true,
        }
    }

    /// Asks the service for the key of a value, if it is not known.
    pub(super) async fn learn(&self, stored: &Bytes) -> Result<(), SealError> {
        let Some(Ok(envelope)) = self.envelope(stored) else {
            return Ok(());
        };
        let id = envelope.source_id();
        let asking = self.asking.lock().await;
        if self.keys.read().contains_key(&id) {
            return Ok(());
        }
        let Envelope {
            key_id,
            source,
            annotations,
            source_type,
            ..
        } = envelope;
        let plain = self.service.decrypt(&source, &key_id, &annotations).await;
        let plain = plain.map_err(|error| SealError::Kms {
            provider: self.name.clone(),
            unreachable: is_unreachable(&error),
            why: format!("failed to decrypt DEK: {}", error.chain()),
        })?;
        let key = DataKey::new(source_type, &plain).ok_or_else(|| {
            self.failed(format!("it has decrypted a key of {} bytes", plain.len()))
        })?;
        self.keys.write().insert(id, Arc::new(key));
        drop(asking);
        Ok(())
    }

    /// How the service is, asked again after some seconds; takes over its current key.
    pub(super) async fn health(&self) -> Result<(), String> {
        let mut held = self.health.lock().await;
        if let Some((at, known)) = held.as_ref() {
            let good_for = if known.is_ok() { GOOD_FOR } else { BAD_FOR };
            if at.elapsed() < good_for {
                return known.clone();
            }
        }
        let found = self.ask().await;
        *held = Some((Instant::now(), found.clone()));
        found
    }

    /// As [`Self::health`], always asked now.
    pub(super) async fn probe(&self) -> Result<(), String> {
        let mut held = self.health.lock().await;
        let found = self.ask().await;
        *held = Some((Instant::now(), found.clone()));
        found
    }

    async fn ask(&self) -> Result<(), String> {
        let name = &self.name;
        let status = self.service.status().await.map_err(|error| {
            format!(
                "failed to perform status section of the healthz check for KMS Provider {name}, \
                 error: {}",
                error.chain()
            )
        })?;
        let mut faults = status.faults();
        match check_key_id(&status.key_id) {
            Ok(()) => faults.extend(self.turn(&status.key_id).await.err()),
            Err(why) => faults.push(format!("got invalid KMSv2 KeyID: {why}")),
        }
        match faults.as_slice() {
            [] => Ok(()),
            [fault] => Err(format!(
                "kmsv2 Provider {name} is not healthy, error: {fault}"
            )),
            faults => Err(format!(
                "kmsv2 Provider {name} is not healthy, error: [{}]",
                faults.join(", ")
            )),
        }
    }

    /// Goes on with the current seed if the key is the same; makes a new one otherwise.
    async fn turn(&self, key_id: &str) -> Result<(), String> {
        let until = Instant::now() + WRITABLE;
        if let Some(state) = self.state.load_full()
            && state.envelope.key_id == key_id
        {
            self.state.store(Some(Arc::new(State {
                key: Arc::clone(&state.key),
                envelope: state.envelope.clone(),
                until,
            })));
            return Ok(());
        }
        let (seed, key) = DataKey::fresh(&self.random).map_err(|error| error.to_string())?;
        let failed = |why: String| format!("failed to rotate DEK: {why}");
        let answer = self.service.encrypt(&seed).await;
        let answer = answer
            .map_err(|error| failed(format!("failed to encrypt DEK, error: {}", error.chain())))?;
        let envelope = Envelope {
            data: Bytes::new(),
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations,
            source_type: SEED_TYPE,
        };
        envelope.check().map_err(&failed)?;
        if envelope.key_id != key_id {
            return Err(failed(format!(
                "its status names the key {key_id:?}, it encrypts with {:?}",
                envelope.key_id
            )));
        }
        let key = Arc::new(key);
        self.keys
            .write()
            .insert(envelope.source_id(), Arc::clone(&key));
        tracing::info!(
            provider = self.name,
            key_id,
            "a new seed encrypts what is written"
        );
        self.state.store(Some(Arc::new(State {
            key,
            envelope,
            until,
        })));
        Ok(())
    }

    fn failed(&self, why: impl Into<String>) -> SealError {
        SealError::Kms {
            provider: self.name.clone(),
            unreachable: false,
            why: why.into(),
        }
    }
}
