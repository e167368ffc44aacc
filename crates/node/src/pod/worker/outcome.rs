//! What the ends of operations, probes and writes change in a worker's memory. Nothing is begun
//! here: the next plan reads the memory.

use evenkeel_runtime::RuntimeError;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;
use tracing::{debug, warn};

use super::Worker;
use crate::events::Kind;
use crate::pod::memory::{Backoff, ImageState, ProbeResults, Refusal, VolumesState};
use crate::pod::ops::{self, Outcome};
use crate::pod::plan;
use crate::pod::pull::{self, Pulled};
use crate::pod::start;
use crate::pod::status_patch::merged;
use crate::probe::{ProbeKind, Report};
use crate::volume::VolumeError;

/// Wait after a status could not be written.
const STATUS_RETRY: SignedDuration = SignedDuration::from_secs(1);
/// Wait after a start could not be tried.
const START_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// First wait after a volume could not be made; it doubles from there. Short, because what is
/// missing in a new namespace (the CA's config map) is about to be published.
const VOLUME_RETRY_MS: i64 = 100;
/// Longest of those waits.
const VOLUME_RETRY_MAX_MS: i64 = 10_000;
/// Longest of them while somebody else has to act, who needs no rest from us.
const VOLUME_WAIT_RETRY_MS: i64 = 1_000;
/// So long others may take before a pod says that it waits for them, as kubelet has it.
const VOLUME_WAIT: SignedDuration = SignedDuration::from_secs(123);
/// Longest wait between tries to make a sandbox.
const SANDBOX_RETRY_MAX: i64 = 60;

impl Worker {
    pub(super) fn take_report(&mut self, report: Report) {
        let known = self.memory.container(&report.container);
        if known.probes.container_id != report.container_id {
            known.probes = ProbeResults {
                container_id: report.container_id,
                ..ProbeResults::default()
            };
        }
        let slot = match report.kind {
            ProbeKind::Startup => &mut known.probes.startup,
            ProbeKind::Liveness => &mut known.probes.liveness,
            ProbeKind::Readiness => &mut known.probes.readiness,
        };
        *slot = Some(report.passed);
    }

    /// Notes what came of an operation; true when it failed and must not be tried again at once.
    pub(super) fn take(&mut self, outcome: Outcome) -> bool {
        let now = self.now();
        match outcome {
            Outcome::VolumesPrepared(Ok(volumes)) => {
                self.volumes = volumes;
                self.memory.volumes = VolumesState::Ready;
                self.volume_failures = 0;
                self.volumes_wait_since = None;
                self.plan_refresh();
            }
            Outcome::VolumesPrepared(Err(error)) => {
                let waits = matches!(error, VolumeError::Waiting { .. });
                let since = *self.volumes_wait_since.get_or_insert(now);
                if !waits || now.duration_since(since) > VOLUME_WAIT {
                    ops::report_volume_failure(&self.context, &self.model, &error);
                    self.volumes_wait_since = Some(now);
                }
                let wait = VOLUME_RETRY_MS << self.volume_failures.min(7);
                self.volume_failures += 1;
                let most = if waits {
                    VOLUME_WAIT_RETRY_MS
                } else {
                    VOLUME_RETRY_MAX_MS
                };
                let wait = SignedDuration::from_millis(wait.min(most));
                self.memory.volumes = VolumesState::Failed {
                    retry_at: now + wait,
                };
            }
            Outcome::VolumesRefreshed(Ok(volumes)) => {
                self.volumes = volumes;
                self.plan_refresh();
            }
            Outcome::VolumesRefreshed(Err(error)) => {
                // What was mounted goes on to serve.
                ops::report_volume_failure(&self.context, &self.model, &error);
            }
            Outcome::VolumesReleased(Ok(())) => self.memory.volumes = VolumesState::Released,
            Outcome::VolumesReleased(Err(error)) => {
                warn!(pod = self.model.full_name(), error, "volumes not released");
                self.memory.volumes = VolumesState::Failed { retry_at: now };
                return true;
            }
            Outcome::SandboxCreated(result) => self.take_sandbox(result, now),
            Outcome::SandboxStopped(id, Ok(())) => {
                self.memory.stopped_sandboxes.insert(id);
            }
            Outcome::SandboxStopped(id, Err(error)) => {
                let text = format!("failed to stop sandbox {id}: {}", pull::error_chain(&error));
                self.context
                    .recorder
                    .pod(&self.model, Kind::Warning, "FailedKillPod", text);
                return true;
            }
            Outcome::Image(container, pulled) => self.take_image(&container, pulled, now),
            Outcome::Started(container, after, result) => {
                self.take_start(&container, after, result, now);
            }
            Outcome::Killed(container, Err(error)) => {
                let text = format!("error killing container {container}: {error}");
                self.context
                    .recorder
                    .pod(&self.model, Kind::Warning, "FailedKillPod", text);
                return true;
            }
            Outcome::Removed(container, Err(error)) => {
                warn!(pod = self.model.full_name(), container, %error, "container not removed");
                return true;
            }
            Outcome::Resized(ids, result) => self.take_resize(&ids, result, now),
            Outcome::StatusWritten(status, result) => self.take_write(&status, result, now),
            Outcome::ApiDeleted(Ok(())) => self.memory.api_deleted = true,
            Outcome::ApiDeleted(Err(error)) => {
                debug!(pod = self.model.full_name(), %error, "pod not deleted");
                self.memory.delete_retry = Some(now + STATUS_RETRY);
            }
            Outcome::CleanedUp(Ok(())) => self.over = true,
            Outcome::CleanedUp(Err(error)) => {
                warn!(pod = self.model.full_name(), error, "pod not cleaned up");
                return true;
            }
            Outcome::Killed(_, Ok(())) | Outcome::Removed(_, Ok(())) | Outcome::Cancelled => {}
        }
        false
    }

    pub(super) fn take_sandbox(&mut self, result: Result<(), RuntimeError>, now: Timestamp) {
        let Err(error) = result else {
            self.memory.sandbox_retry = None;
            self.memory.sandbox_failures = 0;
            return;
        };
        let text = format!(
            "Failed to create pod sandbox: {}",
            pull::error_chain(&error)
        );
        self.context
            .recorder
            .pod(&self.model, Kind::Warning, "FailedCreatePodSandBox", text);
        let failures = self.memory.sandbox_failures.min(6);
        self.memory.sandbox_failures += 1;
        let wait = (1_i64 << failures).min(SANDBOX_RETRY_MAX);
        self.memory.sandbox_retry = Some(now + SignedDuration::from_secs(wait));
    }

    pub(super) fn take_image(&mut self, container: &str, pulled: Pulled, now: Timestamp) {
        let known = self.memory.container(container);
        match pulled {
            Pulled::Present(images) => known.image = ImageState::Present(images),
            Pulled::StillMissing => {
                if let ImageState::Failed { checked_at, .. } = &mut known.image {
                    *checked_at = now;
                }
            }
            Pulled::Failed {
                image,
                reason,
                message,
            } => {
                known.pull_backoff.next(now, now);
                known.image = ImageState::Failed {
                    image,
                    reason,
                    message,
                    at: now,
                    checked_at: now,
                };
            }
        }
    }

    pub(super) fn take_start(
        &mut self,
        container: &str,
        after: Option<Timestamp>,
        result: Result<(), start::StartFailure>,
        now: Timestamp,
    ) {
        let full_name = self.model.full_name();
        let observed = self.context.view.observed(self.model.uid());
        let known = self.memory.container(container);
        known.starting = false;
        match result {
            Ok(()) => {
                known.refusal = None;
                known.crash_backoff.next(after.unwrap_or(now), now);
                if after.is_none() {
                    // The first start holds nothing back: only restarts are counted.
                    known.crash_backoff = Backoff::default();
                }
            }
            Err(failure) => {
                if observed.latest(container).is_some_and(plan::ended) {
                    known.crash_backoff.next(after.unwrap_or(now), now);
                }
                debug!(
                    pod = full_name,
                    container,
                    reason = failure.reason,
                    "start failed"
                );
                known.refusal = Some(Refusal {
                    reason: failure.reason.to_owned(),
                    message: failure.message,
                    retry_at: now + START_RETRY,
                });
            }
        }
    }

    pub(super) fn take_write(
        &mut self,
        status: &PodStatus,
        result: Result<(), kube::Error>,
        now: Timestamp,
    ) {
        self.writing = false;
        match result {
            Ok(()) => {
                self.written = merged(&self.written, status);
                self.write_retry = None;
            }
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
                // The pod is gone, or another one has its name; the watch will say so.
                debug!(
                    pod = self.model.full_name(),
                    message = answer.message,
                    "status refused"
                );
                self.write_retry = Some(now + STATUS_RETRY);
            }
            Err(error) => {
                debug!(pod = self.model.full_name(), %error, "status not written");
                self.write_retry = Some(now + STATUS_RETRY);
            }
        }
    }
}
