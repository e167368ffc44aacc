//! Starting one container: back-off first, then its image, then the start itself.

use evenkeel_runtime::ContainerStatus;
use jiff::{SignedDuration, Timestamp};

use super::{Action, Planner, go_duration, timestamp};
use crate::pod::memory::{ImageState, Op, PULL_ERROR_SHOWN, VolumesState};
use crate::pod::model::ContainerModel;

/// How often a missing image is looked for in the local store while its pull is held back.
const IMAGE_RECHECK: SignedDuration = SignedDuration::from_secs(10);

impl<'a> Planner<'a> {
    pub(super) fn restart(&mut self, container: &'a ContainerModel, status: &ContainerStatus) {
        let finished = timestamp(if status.finished_at == 0 {
            status.created_at
        } else {
            status.finished_at
        });
        let known = self.at.memory.containers.get(container.name());
        let held = known.and_then(|known| known.crash_backoff.since(finished));
        if let Some(delay) = held
            && finished + delay > self.at.now
        {
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(delay),
                container.name(),
                self.at.model.full_name()
            );
            let refused = known.and_then(|known| known.refusal.as_ref());
            match refused.filter(|refusal| refusal.retry_at > self.at.now) {
                Some(refusal) => {
                    self.wait_for(container, &refusal.reason, refusal.message.clone());
                    self.wake(refusal.retry_at);
                }
                None => self.wait_for(container, "CrashLoopBackOff", message),
            }
            self.wake(finished + delay);
            return;
        }
        self.start(container, Some(finished));
    }

    pub(super) fn start(&mut self, container: &'a ContainerModel, after: Option<Timestamp>) {
        let name = container.name().to_owned();
        let known = self.at.memory.containers.get(&name);
        // What it was refused for last is what it waits for, until a start comes about.
        if let Some(refusal) = known.and_then(|known| known.refusal.as_ref()) {
            self.wait_for(container, &refusal.reason, refusal.message.clone());
        }
        let busy = self.at.memory.container_busy(&name);
        match known.map(|known| &known.image) {
            Some(failed @ ImageState::Failed { .. }) if busy => {
                self.wait_for_image(container, failed);
            }
            _ if busy => {}
            None | Some(ImageState::Unknown) => {
                self.act(Action::EnsureImage {
                    container: name,
                    may_pull: true,
                });
            }
            Some(
                failed @ ImageState::Failed {
                    reason,
                    at,
                    checked_at,
                    ..
                },
            ) => {
                self.wait_for_image(container, failed);
                self.retry_image(container, reason, *at, *checked_at);
            }
            Some(ImageState::Present(_)) => {
                let refused = known.and_then(|known| known.refusal.as_ref());
                if let Some(refusal) = refused.filter(|it| it.retry_at > self.at.now) {
                    self.wake(refusal.retry_at);
                    return;
                }
                let ready = self.at.observed.ready_sandbox();
                let Some(sandbox) = ready.filter(|_| self.volumes_ready()) else {
                    return;
                };
                let attempt = self
                    .at
                    .observed
                    .latest(&name)
                    .map_or(0, |last| last.attempt + 1);
                let sandbox_id = sandbox.id.clone();
                self.act(Action::StartContainer {
                    container: name,
                    attempt,
                    sandbox_id,
                    after,
                });
            }
        }
    }

    pub(super) fn volumes_ready(&self) -> bool {
        self.at.memory.volumes == VolumesState::Ready && !self.at.memory.busy.contains(&Op::Volumes)
    }

    /// Tells what a container waits for whose image is not here.
    pub(super) fn wait_for_image(&mut self, container: &ContainerModel, state: &ImageState) {
        let ImageState::Failed {
            image,
            reason,
            message,
            at,
            ..
        } = state
        else {
            return;
        };
        let shown_until = *at + PULL_ERROR_SHOWN;
        let never = reason == "ErrImageNeverPull";
        if reason == "InvalidImageName" || never || self.at.now < shown_until {
            self.wait_for(container, reason, message.clone());
            self.wake(shown_until);
        } else {
            self.wait_for(
                container,
                "ImagePullBackOff",
                format!("Back-off pulling image \"{image}\": {reason}: {message}"),
            );
        }
    }

    /// Pulls again when the back-off is over. Until then the local store is looked at now and
    /// then: somebody may import the image.
    pub(super) fn retry_image(
        &mut self,
        container: &ContainerModel,
        reason: &str,
        at: Timestamp,
        checked_at: Timestamp,
    ) {
        let known = self.at.memory.containers.get(container.name());
        let held = known.and_then(|known| known.pull_backoff.since(at));
        let pull_at = match held {
            Some(delay) if reason != "ErrImageNeverPull" => at + delay,
            _ => at + IMAGE_RECHECK,
        };
        let check_at = (checked_at + IMAGE_RECHECK).min(pull_at);
        if check_at > self.at.now {
            self.wake(check_at);
            return;
        }
        self.act(Action::EnsureImage {
            container: container.name().to_owned(),
            may_pull: pull_at <= self.at.now,
        });
    }
}
