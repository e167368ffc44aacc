//! Carries events to the door.

use crate::Api;
use evenkeel_api::clock::SharedClock;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use super::Told;
use super::correlate::{Correlator, Verdict, Written};
use crate::errors;

/// Tries of one write.
const TRIES: u32 = 12;

pub(super) struct Writer {
    client: kube::Client,
    clock: SharedClock,
    component: String,
    host: String,
    correlator: Correlator,
}

impl Writer {
    pub(super) fn new(
        client: kube::Client,
        clock: SharedClock,
        component: &str,
        host: &str,
    ) -> Self {
        Self {
            client,
            clock,
            component: component.to_owned(),
            host: host.to_owned(),
            correlator: Correlator::new(),
        }
    }

    pub(super) async fn run(mut self, mut receiver: mpsc::Receiver<Told>) {
        while let Some(told) = receiver.recv().await {
            self.write(told).await;
        }
    }

    async fn write(&mut self, told: Told) {
        let namespace = match told.about.namespace.as_deref() {
            Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
            _ => "default".to_owned(),
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match self.correlator.judge(&told, self.clock.now()) {
            Verdict::Drop => {}
            Verdict::Create { message, slot } => {
                self.create(&api, &namespace, told, message, &slot).await;
            }
            Verdict::Again {
                message,
                slot,
                written,
            } => {
                if !self.count(&api, &message, &slot, written).await {
                    // The event has expired: tell it anew.
                    self.correlator.wrote(&slot, None);
                    self.create(&api, &namespace, told, message, &slot).await;
                }
            }
        }
    }

    async fn count(&mut self, api: &Api<Event>, message: &str, slot: &str, was: Written) -> bool {
        let count = was.count.saturating_add(1);
        let patch = serde_json::json!({
            "count": count,
            "lastTimestamp": Time(self.clock.now()),
            "message": message,
        });
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        match api.patch_unread(&was.name, &params, &patch).await {
            Ok(()) => {
                self.correlator.wrote(slot, Some(Written { count, ..was }));
                true
            }
            Err(error) if errors::is_not_found(&error) => false,
            Err(error) => {
                tracing::debug!(error = errors::message(&error), "event not counted");
                true
            }
        }
    }

    async fn create(
        &mut self,
        api: &Api<Event>,
        namespace: &str,
        told: Told,
        message: String,
        slot: &str,
    ) {
        let now = self.clock.now();
        let subject = told.about.name.clone().unwrap_or_default();
        let name = format!("{subject}.{:x}", now.as_nanosecond());
        let host = Some(self.host.clone()).filter(|host| !host.is_empty());
        let mut event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: told.about,
            reason: Some(told.reason),
            message: Some(message),
            type_: Some(told.kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host,
            }),
            ..Event::default()
        };
        let mut backoff = crate::Backoff::new(
            std::time::Duration::from_millis(50),
            std::time::Duration::from_secs(10),
            0,
        );
        for attempt in 0..TRIES {
            let Err(error) = api.create_unread(&PostParams::default(), &event).await else {
                let written = Written {
                    name: event.metadata.name.unwrap_or_default(),
                    count: 1,
                    first: now,
                };
                self.correlator.wrote(slot, Some(written));
                return;
            };
            if errors::is_already_exists(&error) {
                // Two events of one object within one tick of the clock.
                let name = format!(
                    "{subject}.{:x}",
                    now.as_nanosecond() + i128::from(attempt) + 1
                );
                event.metadata.name = Some(name);
                continue;
            }
            if matches!(&error, kube::Error::Api(status) if status.code < 500 && status.code != 429)
            {
                // The namespace is gone, or we may not write there: trying again is useless.
                let error = errors::message(&error);
                tracing::debug!(error, reason = event.reason, "event refused");
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
        tracing::warn!(reason = event.reason, "event given up");
    }
}
