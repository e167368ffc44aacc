//! Carries a CronJob's plan out: old jobs, the job that is due, the status.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy};

use super::plan::{Plan, plan};
use crate::claim;
use crate::error::ReconcileError;
use crate::pod_control::wait_until;
use crate::told::write_status;

pub(super) struct Reconciler {
    pub(super) crons: Arc<View<CronJob>>,
    pub(super) jobs: Arc<View<Job>>,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(cron) = self.crons.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let jobs = self.jobs.by_index(index::CONTROLLER, uid);
        let mut plan = plan(&cron, &jobs, self.context.clock.now());
        let look_again = plan.look_again;
        let done = self.carry_out(&cron, &mut plan).await;
        for (warning, reason, message) in std::mem::take(&mut plan.events) {
            self.tell(&cron, warning, reason, message);
        }
        self.write_status(&cron, plan.status).await?;
        done?;
        let now = self.context.clock.now();
        Ok(look_again.map_or(Outcome::Done, |at| Outcome::After(wait_until(at, now))))
    }

    fn api(&self, cron: &CronJob) -> Api<Job> {
        let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn tell(&self, cron: &CronJob, warning: bool, reason: &str, message: impl Into<String>) {
        let kind = if warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        self.context.recorder.tell(cron, kind, reason, message);
    }

    async fn carry_out(&self, cron: &CronJob, plan: &mut Plan) -> Result<(), ReconcileError> {
        let mut gone = Vec::new();
        for reference in std::mem::take(&mut plan.missing) {
            let name = reference.name.as_deref().unwrap_or_default();
            let found = self.api(cron).get_opt(name).await?;
            if found.is_none_or(|job| job.metadata.uid != reference.uid) {
                gone.push(reference);
            }
        }
        // Whether the next may start was asked with the missing ones counted as active: the
        // status written here asks again.
        plan.note_gone(&gone);
        for job in std::mem::take(&mut plan.forget) {
            let uid = job.metadata.uid.clone();
            if self.delete(cron, &job).await.is_ok() {
                plan.note_deleted(uid.as_ref());
            }
        }
        for reference in std::mem::take(&mut plan.replace) {
            if gone.iter().any(|it| it.uid == reference.uid) {
                continue;
            }
            let name = reference.name.as_deref().unwrap_or_default();
            let job = match self.api(cron).get(name).await {
                Ok(job) => job,
                Err(error) => {
                    let text = format!("Get job: {}", errors::message(&error));
                    self.tell(cron, true, "FailedGet", text);
                    return Err(error.into());
                }
            };
            self.delete(cron, &job).await?;
            plan.note_deleted(reference.uid.as_ref());
        }
        let Some((job, due)) = plan.start.take() else {
            return Ok(());
        };
        if let Some(reference) = self.start(cron, &job).await? {
            plan.note_started(reference, due);
        }
        Ok(())
    }

    /// Makes the job, or finds it made. `None`: it is somebody else's, or known already.
    async fn start(
        &self,
        cron: &CronJob,
        job: &Job,
    ) -> Result<Option<ObjectReference>, ReconcileError> {
        let api = self.api(cron);
        let made = match api.create(&PostParams::default(), job).await {
            Ok(made) => {
                let name = made.metadata.name.as_deref().unwrap_or_default();
                let text = format!("Created job {name}");
                self.tell(cron, false, "SuccessfulCreate", text);
                made
            }
            Err(error) if errors::is_already_exists(&error) => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                let found = api.get(name).await?;
                let owner = claim::controller_of(&found.metadata).map(|owner| owner.uid.clone());
                if owner != cron.metadata.uid {
                    return Ok(None);
                }
                found
            }
            Err(error) if errors::is_namespace_terminating(&error) => return Err(error.into()),
            Err(error) => {
                let text = format!("Error creating job: {}", errors::message(&error));
                self.tell(cron, true, "FailedCreate", text);
                return Err(error.into());
            }
        };
        let made = self.jobs.note_written(made);
        Ok(Some(evenkeel_client::recorder::reference(made.as_ref())))
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), ReconcileError> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let params = params.preconditions(Preconditions {
            uid: job.metadata.uid.clone(),
            resource_version: None,
        });
        match self.api(cron).delete(name, &params).await {
            Ok(answer) => self.jobs.note_delete_answer(job, answer.left()),
            Err(error) if errors::is_not_found(&error) => self.jobs.note_deleted(job),
            Err(error) => {
                let text = format!("Deleted job: {}", errors::message(&error));
                self.tell(cron, true, "FailedDelete", text);
                return Err(error.into());
            }
        }
        let text = format!("Deleted job {name}");
        self.tell(cron, false, "SuccessfulDelete", text);
        Ok(())
    }

    async fn write_status(
        &self,
        cron: &CronJob,
        status: CronJobStatus,
    ) -> Result<(), ReconcileError> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let mut fresh = cron.clone();
        fresh.status = Some(status);
        write_status(&self.context, &self.crons, &fresh).await?;
        Ok(())
    }
}
