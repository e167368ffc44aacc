//! Leader election by a Lease: one active set of loops among several processes.
//!
//! As client-go's `leaderelection`: a lease is taken over when its record has not changed for its
//! duration by our own monotonic time (clocks of other machines are never trusted); the leader
//! that cannot renew in time stops before anybody else may start.

use std::future::Future;
use std::time::Duration;

use crate::Api;
use evenkeel_api::clock::SharedClock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::errors;

/// The times of an election.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// Others wait so long after the last renewal they saw.
    pub duration: Duration,
    /// The leader gives up when it could not renew for so long. Shorter than `duration`.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A candidate.
#[derive(Clone)]
pub struct LeaderElector {
    client: kube::Client,
    clock: SharedClock,
    namespace: String,
    name: String,
    identity: String,
    times: LeaseTimes,
}

impl std::fmt::Debug for LeaderElector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderElector")
            .field("lease", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Seen {
    spec: Option<LeaseSpec>,
    at: Instant,
}

impl LeaderElector {
    /// A candidate `identity` for the lease `namespace/name`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        clock: SharedClock,
        namespace: &str,
        name: &str,
        identity: &str,
        times: LeaseTimes,
    ) -> Self {
        Self {
            client,
            clock,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            times,
        }
    }

    /// Waits for leadership, runs `lead` while it lasts, and starts over when it is lost, until
    /// `shutdown`. `lead` gets a token that is cancelled when leadership ends; its future is
    /// dropped if it has not ended by then. On shutdown the lease is released.
    pub async fn run<F, Fut>(&self, shutdown: CancellationToken, lead: F)
    where
        F: Fn(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut seen = Seen {
            spec: None,
            at: Instant::now(),
        };
        while !shutdown.is_cancelled() {
            match self.try_hold(&mut seen).await {
                Ok(true) => {
                    tracing::info!(lease = self.name, identity = self.identity, "leading");
                    let token = shutdown.child_token();
                    tokio::select! {
                        () = lead(token.clone()) => {}
                        () = self.keep(&mut seen) => {
                            tracing::warn!(lease = self.name, "leadership lost");
                        }
                        () = shutdown.cancelled() => {}
                    }
                    token.cancel();
                    self.release().await;
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    let error = errors::message(&error);
                    tracing::debug!(lease = self.name, error, "lease not taken");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.times.retry) => {}
            }
        }
    }

    /// Renews until the deadline passes without success.
    async fn keep(&self, seen: &mut Seen) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.times.retry).await;
            let left = (renewed + self.times.renew_deadline).duration_since(Instant::now());
            match tokio::time::timeout(left, self.try_hold(seen)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(_)) | Err(_) => {}
            }
            if renewed.elapsed() >= self.times.renew_deadline {
                return;
            }
        }
    }

    async fn try_hold(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.record(None)),
            };
            let made = api.create(&PostParams::default(), &lease).await?;
            seen.spec = made.spec;
            seen.at = Instant::now();
            return Ok(true);
        };
        let found = lease.spec.take().unwrap_or_default();
        if seen.spec.as_ref() != Some(&found) {
            seen.spec = Some(found.clone());
            seen.at = Instant::now();
        }
        let holder = found.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() {
            let seconds = found.lease_duration_seconds.unwrap_or(0);
            let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            if seen.at.elapsed() < lasts {
                return Ok(false);
            }
        }
        lease.spec = Some(self.record(Some(&found)));
        let written = api
            .replace(&self.name, &PostParams::default(), &lease)
            .await?;
        seen.spec = written.spec;
        seen.at = Instant::now();
        Ok(true)
    }

    fn record(&self, found: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let ours = found.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = found.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs()).ok(),
            acquire_time: ours
                .and_then(|spec| spec.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(match (found, ours) {
                (Some(_), None) => transitions + 1,
                _ => transitions,
            }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let released = async {
            let mut lease = api.get(&self.name).await?;
            if let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_ref() == Some(&self.identity)
            {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(self.clock.now()));
                api.replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<(), kube::Error>(())
        };
        // Nobody waits for a lease that cannot be released: it runs out by itself.
        if let Ok(Err(error)) = tokio::time::timeout(self.times.retry, released).await {
            let error = errors::message(&error);
            tracing::debug!(lease = self.name, error, "lease not released");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::testing::{FakeApi, FakeClock};

    #[tokio::test(start_paused = true)]
    async fn one_leads_at_a_time_and_the_other_follows() {
        let clock = FakeClock::shared();
        let fake = FakeApi::new(Arc::clone(&clock));
        let leaders = Arc::new(Mutex::new(Vec::new()));
        let start = |identity: &'static str| {
            let times = LeaseTimes::default();
            let clock = Arc::clone(&clock);
            let elector = LeaderElector::new(
                fake.client(),
                clock,
                "kube-system",
                "loops",
                identity,
                times,
            );
            let shutdown = CancellationToken::new();
            let (stop, leaders) = (shutdown.clone(), Arc::clone(&leaders));
            let task = tokio::spawn(async move {
                let lead = |token: CancellationToken| {
                    leaders.lock().push(identity);
                    async move { token.cancelled().await }
                };
                elector.run(stop, lead).await;
            });
            (shutdown, task)
        };
        let (stop_one, one) = start("one");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (stop_two, two) = start("two");
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(*leaders.lock(), ["one"], "renewals keep the other out");
        // Killed without release: the other waits for the lease to run out.
        one.abort();
        drop(stop_one);
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(*leaders.lock(), ["one"]);
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(*leaders.lock(), ["one", "two"]);
        stop_two.cancel();
        two.await.unwrap();
        let lease: Lease = fake.get("kube-system", "loops").unwrap();
        let spec = lease.spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some(""), "released");
        assert_eq!(spec.lease_transitions, Some(1));
    }
}
