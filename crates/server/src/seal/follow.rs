//! What goes on while a server runs: keys of key management services, and changed configurations.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::kms::Kms;
use super::provider::Provider;
use super::{ConfigError, Rule, Seal, SealError, config};

/// How often services are asked for their current key: while all is well,
const STEADY: Duration = Duration::from_secs(60);
/// while something is not.
const HURRY: Duration = Duration::from_secs(10);
/// How often the file of the configuration is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long a service may take to come up, at the start and in a changed configuration, before it
/// goes on without.
const COME_UP: Duration = Duration::from_secs(10);
/// So long a service is asked again for the key of a value that it says it can't decrypt.
const INSIST: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);

/// How often a changed configuration was taken over.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// The file is followed.
    followed: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
}

fn services(rules: &[Rule]) -> Vec<Arc<Kms>> {
    let providers = rules.iter().flat_map(|rule| &rule.providers);
    providers
        .filter_map(|provider| match provider {
            Provider::Kms(service) => Some(Arc::clone(service)),
            _ => None,
        })
        .collect()
}

/// Asks services until all are well, for a while; answers what is wrong.
async fn come_up(services: &[Arc<Kms>]) -> Result<(), String> {
    let until = tokio::time::Instant::now() + COME_UP;
    for service in services {
        while let Err(why) = service.probe().await {
            if tokio::time::Instant::now() >= until {
                return Err(why);
            }
            tokio::time::sleep(AGAIN / 2).await;
        }
    }
    Ok(())
}

impl Seal {
    /// Whether a stored value can be opened without asking anybody.
    #[must_use]
    pub fn knows(&self, stored: &Bytes) -> bool {
        !stored.starts_with(super::BY_SERVICE)
            || services(&self.rules.load())
                .iter()
                .all(|service| service.knows(stored))
    }

    /// Asks for the key of a stored value, if it is not known.
    ///
    /// # Errors
    /// The key management service fails.
    pub async fn learn(&self, stored: &Bytes) -> Result<(), SealError> {
        if self.knows(stored) {
            return Ok(());
        }
        for service in services(&self.rules.load()) {
            service.learn(stored).await?;
        }
        Ok(())
    }

    /// As [`Self::learn`], for who can't go on without: asks a service that is not there again and
    /// again, and one that refuses for some time.
    pub(crate) async fn insist(&self, stored: &Bytes) {
        let until = tokio::time::Instant::now() + INSIST;
        while let Err(error) = self.learn(stored).await {
            tracing::warn!(%error, "a stored value can't be opened yet");
            let refused = !matches!(
                error,
                SealError::Kms {
                    unreachable: true,
                    ..
                }
            );
            if refused && tokio::time::Instant::now() >= until {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Asks all services for their keys; goes on after some seconds without an answer: then
    /// reading and writing what they protect fails until they come.
    pub async fn prepare(&self) {
        if let Err(why) = come_up(&services(&self.rules.load())).await {
            tracing::error!(why, "encryption at rest is not ready");
        }
    }

    /// Asks all services for their current keys now; a new one is taken over.
    pub async fn refresh(&self) {
        for service in services(&self.rules.load()) {
            if let Err(why) = service.probe().await {
                tracing::warn!(why, "encryption at rest");
            }
        }
    }

    /// Keeps the keys of services current. Runs for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let mut wait = STEADY;
            for service in services(&self.rules.load()) {
                if let Err(why) = service.health().await {
                    tracing::warn!(why, "encryption at rest");
                    wait = HURRY;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// How the services are, each by the name of its health check.
    pub async fn health(&self) -> Vec<(String, Result<(), String>)> {
        let services = services(&self.rules.load());
        let mut checks = Vec::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            checks.push((format!("kms-provider-{index}"), service.health().await));
        }
        if !self.reloads.followed.load(Ordering::Relaxed) || checks.is_empty() {
            return checks;
        }
        // What can change has one name, as in the reference.
        let mut all = Ok(());
        for (_, check) in checks {
            all = all.and(check);
        }
        vec![("kms-providers".to_owned(), all)]
    }

    /// Takes over a changed configuration; the old one stays if something is wrong with it.
    ///
    /// # Errors
    /// It is wrong, or a service in it is not well.
    pub async fn reload(&self, text: &str) -> Result<(), ConfigError> {
        let rules = config::parse(text)?;
        let services = services(&rules);
        come_up(&services).await.map_err(ConfigError::Unhealthy)?;
        self.rules.store(Arc::new(rules));
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
        tracing::info!(?names, "a changed encryption configuration is in force");
        Ok(())
    }

    /// Follows the file of a configuration that holds `text` now. Runs for ever.
    pub async fn follow(self: Arc<Self>, path: &Path, text: String) {
        self.reloads.followed.store(true, Ordering::Relaxed);
        let mut known = text;
        loop {
            tokio::time::sleep(LOOK).await;
            let outcome = match tokio::fs::read_to_string(path).await {
                Ok(text) if text == known => continue,
                Ok(text) => {
                    let outcome = self.reload(&text).await;
                    if outcome.is_ok() {
                        known = text;
                    }
                    outcome.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            let count = match outcome {
                Ok(()) => &self.reloads.taken,
                Err(why) => {
                    tracing::error!(path = %path.display(), why, "encryption configuration");
                    &self.reloads.refused
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters of reloads in the Prometheus text format, under the reference's names.
    pub(crate) fn write_metrics(&self, out: &mut String) {
        use std::fmt::Write as _;
        const NAME: &str = "apiserver_encryption_config_controller_automatic_reloads_total";
        if !self.reloads.followed.load(Ordering::Relaxed) {
            return;
        }
        crate::metrics::head(
            out,
            NAME,
            "counter",
            "Total number of reload successes and failures of encryption configuration split by \
             apiserver identity.",
        );
        for (status, count) in [
            ("success", &self.reloads.taken),
            ("failure", &self.reloads.refused),
        ] {
            let count = count.load(Ordering::Relaxed);
            // Writing into a String can't fail.
            writeln!(out, "{NAME}{{status=\"{status}\"}} {count}").unwrap_or_default();
        }
    }
}
