//! What has had its time goes: history, events, bootstrap tokens. Nothing here is asked for by a
//! request, and nothing but age decides.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_store::StoreError;

use super::Door;
use crate::auth::bootstrap_token;

impl Door {
    /// Removes history older than `age`, by the revision that was current then. Runs for ever.
    pub async fn compact_by_age(self: Arc<Self>, age: Duration) {
        let store = Arc::clone(&self.registry.store);
        let mut then = self.registry.caches.revision();
        loop {
            tokio::time::sleep(age).await;
            let now = self.registry.caches.revision();
            match store.compact(then).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => tracing::warn!(%error, "history can't be compacted"),
            }
            then = now;
        }
    }

    /// Removes events whose time is up. Runs for ever.
    pub async fn expire_events(self: Arc<Self>, keep: Duration) {
        let keep =
            jiff::SignedDuration::try_from(keep).unwrap_or(jiff::SignedDuration::from_hours(1));
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let Some(row) = self.registry.rows.by_kind("", "v1", "Event") else {
                return;
            };
            let Some(cache) = self.registry.caches.of(row) else {
                return;
            };
            let now = self.clock.now();
            for event in cache.list("", None) {
                let value = event.value();
                let last = ["lastTimestamp", "eventTime"]
                    .iter()
                    .map(|name| evenkeel_api::object::text(&value, &[name]))
                    .chain([evenkeel_api::object::text(
                        &value,
                        &["metadata", "creationTimestamp"],
                    )])
                    .find_map(|text| text.parse::<jiff::Timestamp>().ok());
                if last.is_some_and(|last| now.duration_since(last) > keep)
                    && let Err(status) = self.registry.remove(row, &event).await
                {
                    tracing::warn!(%status, "an old event can't be removed");
                }
            }
        }
    }

    /// Removes the Secrets of bootstrap tokens whose time is up. Runs for ever.
    pub async fn expire_bootstrap_tokens(self: Arc<Self>) {
        let Some(row) = self.registry.rows.by_kind("", "v1", "Secret") else {
            return;
        };
        let Some(cache) = self.registry.caches.of(row) else {
            return;
        };
        let mut changes = cache.subscribe();
        loop {
            changes.mark_unchanged();
            let now = self.clock.now();
            let mut wait = Duration::from_secs(3600);
            for secret in cache.list("kube-system", None) {
                let Some(until) = bootstrap_token::expiration(&secret.value()) else {
                    continue;
                };
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                if !left.is_zero() {
                    wait = wait.min(left);
                } else if let Err(status) = self.registry.remove(row, &secret).await {
                    tracing::warn!(%status, "an expired bootstrap token can't be removed");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}
