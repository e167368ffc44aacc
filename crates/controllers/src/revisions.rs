//! Writes ControllerRevisions: the apply side of [`history`](crate::history).

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, View, errors};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::claim;
use crate::error::ReconcileError;
use crate::history::{self, Step};

/// How a [`Step`] ended.
#[derive(Debug)]
pub enum Written {
    /// This is the newest revision now.
    Done(Arc<ControllerRevision>),
    /// The name is taken by other data: count it and try another.
    Collision,
}

/// Writes revisions in the name of one loop.
#[derive(Debug)]
pub struct RevisionControl<'a> {
    /// The loop.
    pub context: &'a LoopContext,
    /// Where answers go.
    pub view: &'a View<ControllerRevision>,
}

impl RevisionControl<'_> {
    fn api(&self, revision: &ControllerRevision) -> Api<ControllerRevision> {
        let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Does what a step says.
    ///
    /// # Errors
    /// What the door said.
    pub async fn take(&self, step: Step) -> Result<Written, ReconcileError> {
        match step {
            Step::Keep(revision) => Ok(Written::Done(revision)),
            Step::Renumber(revision) => Ok(Written::Done(self.replace(&revision).await?)),
            Step::Create(revision) => self.create(&revision).await,
        }
    }

    /// Replaces a revision.
    ///
    /// # Errors
    /// What the door said.
    pub async fn replace(
        &self,
        revision: &ControllerRevision,
    ) -> Result<Arc<ControllerRevision>, ReconcileError> {
        let api = self.api(revision);
        let params = PostParams::default();
        let written = api
            .replace(history::name(revision), &params, revision)
            .await?;
        Ok(self.view.note_written(written))
    }

    async fn create(&self, revision: &ControllerRevision) -> Result<Written, ReconcileError> {
        let api = self.api(revision);
        match api.create(&PostParams::default(), revision).await {
            Ok(made) => Ok(Written::Done(self.view.note_written(made))),
            Err(error) if errors::is_already_exists(&error) => {
                let found = api.get(history::name(revision)).await?;
                let uid = |item: &ControllerRevision| {
                    claim::controller_of(&item.metadata).map(|owner| owner.uid.clone())
                };
                if found.data.0 == revision.data.0 && uid(&found) == uid(revision) {
                    return Ok(Written::Done(self.view.note_written(found)));
                }
                Ok(Written::Collision)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a revision; one that is gone is done.
    ///
    /// # Errors
    /// What the door said.
    pub async fn delete(&self, revision: &ControllerRevision) -> Result<(), ReconcileError> {
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: revision.metadata.uid.clone(),
            resource_version: None,
        });
        let api = self.api(revision);
        match api.delete(history::name(revision), &params).await {
            Ok(answer) => self.view.note_delete_answer(revision, answer.left()),
            Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => {
                self.view.note_deleted(revision);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
