//! Beginning what a plan asks for: each action becomes a future whose end the worker waits for.
//! Nothing is decided here.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::SignedDuration;

use super::Worker;
use crate::events::Kind;
use crate::pod::kill::{self, Kill};
use crate::pod::memory::{Backoff, ImageState};
use crate::pod::observed::Observed;
use crate::pod::ops::{self, Outcome};
use crate::pod::plan::{self, Action, KillReason};
use crate::pod::pull;
use crate::pod::resize;
use crate::pod::start::{self, Start};

impl Worker {
    pub(super) fn begin(&mut self, action: Action, observed: &Observed) {
        let op = action.op();
        if let Some(op) = &op {
            self.memory.busy.insert(op.clone());
        }
        let context = Arc::clone(&self.context);
        let model = Arc::clone(&self.model);
        let stop = self.stop.clone();
        let work: BoxFuture<'static, Outcome> = match action {
            Action::PrepareVolumes => Box::pin(async move {
                tokio::select! {
                    made = ops::prepare_volumes(&context, &model, SignedDuration::ZERO) => {
                        Outcome::VolumesPrepared(made)
                    }
                    () = stop.cancelled() => Outcome::Cancelled,
                }
            }),
            Action::ReleaseVolumes => Box::pin(async move {
                Outcome::VolumesReleased(ops::release_volumes(&context, model.uid()).await)
            }),
            Action::CreateSandbox { attempt } => Box::pin(async move {
                Outcome::SandboxCreated(ops::create_sandbox(&context, &model, attempt).await)
            }),
            Action::StopSandbox { id } => {
                if self.memory.termination.is_none() && !plan::finished(&model, observed) {
                    let text = "Pod sandbox changed, it will be killed and re-created.";
                    context
                        .recorder
                        .pod(&model, Kind::Normal, "SandboxChanged", text);
                }
                Box::pin(async move {
                    let stopped = ops::stop_sandbox(&context, &id).await;
                    Outcome::SandboxStopped(id, stopped)
                })
            }
            Action::EnsureImage {
                container,
                may_pull,
            } => Box::pin(async move {
                let Some(spec) = model.container(&container) else {
                    return Outcome::Cancelled;
                };
                tokio::select! {
                    pulled = pull::ensure(&context, &model, spec, may_pull) => {
                        Outcome::Image(container, pulled)
                    }
                    () = stop.cancelled() => Outcome::Cancelled,
                }
            }),
            Action::StartContainer {
                container,
                attempt,
                sandbox_id,
                after,
            } => {
                let known = self.memory.container(&container);
                known.starting = true;
                let ImageState::Present(images) = std::mem::take(&mut known.image) else {
                    known.starting = false;
                    if let Some(op) = &op {
                        self.memory.busy.remove(op);
                    }
                    return;
                };
                let start = Start {
                    attempt,
                    sandbox_id,
                    images: *images,
                    volumes: self.volumes.clone(),
                    stop,
                };
                Box::pin(async move {
                    let Some(spec) = model.container(&container) else {
                        return Outcome::Cancelled;
                    };
                    let started = start::start(&context, &model, spec, start).await;
                    Outcome::Started(container, after, started)
                })
            }
            Action::KillContainer {
                container,
                id,
                why,
                grace,
            } => {
                let known = self.memory.container(&container);
                if matches!(why, KillReason::Changed | KillReason::Resized) {
                    known.replaced = Some(id.clone());
                }
                if why == KillReason::Changed {
                    // What comes is another container: it waits for none that failed before.
                    known.crash_backoff = Backoff::default();
                }
                let deadline = self.deadline.subscribe();
                Box::pin(async move {
                    let spec = model.container(&container);
                    let kill = Kill {
                        name: container.clone(),
                        id,
                        why,
                        grace,
                        deadline,
                    };
                    let killed = kill::kill(&context, &model, spec, kill).await;
                    Outcome::Killed(container, killed)
                })
            }
            Action::RemoveContainer { container, id } => Box::pin(async move {
                Outcome::Removed(container, ops::remove_container(&context, &id).await)
            }),
            Action::Resize {
                sandbox_id,
                containers,
            } => {
                let progress = self.memory.resize.progress.as_ref();
                let before = progress.map(|it| it.before.clone()).unwrap_or_default();
                Box::pin(async move {
                    let done =
                        resize::carry_out(&context, &model, &before, &sandbox_id, &containers);
                    let done = done.await;
                    let ids = containers.into_iter().map(|(_, id)| id).collect();
                    Outcome::Resized(ids, done)
                })
            }
            Action::DeleteFromApi => Box::pin(async move {
                Outcome::ApiDeleted(ops::delete_from_api(&context, &model).await)
            }),
            Action::Cleanup => Box::pin(async move {
                let (namespace, name, uid) = (model.namespace(), model.name(), model.uid());
                Outcome::CleanedUp(ops::clean_up(&context, namespace, name, uid).await)
            }),
            Action::End(_) => return,
        };
        self.running.push(Box::pin(async move { (op, work.await) }));
    }
}
