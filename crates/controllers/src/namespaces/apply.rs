//! Empties a terminating namespace, tells how far it is, and lets it go.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, errors};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{DynamicObject, ObjectList, PartialObjectMeta, Request};
use serde_json::Value;

use super::plan::{self, Found, KUBERNETES};
use crate::discovered::{Resource, discover, stale};
use crate::error::ReconcileError;

/// The events of `events.k8s.io` are those of the core group in another form: who asks the door for them
/// has it keep both forms from then on.
fn is_other_form(resource: &Resource) -> bool {
    resource.group == "events.k8s.io" && resource.kind == "Event"
}

pub(super) struct Reconciler {
    pub(super) namespaces: Arc<View<Namespace>>,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(namespace) = self.namespaces.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.as_ref());
        let ours = finalizers.is_some_and(|all| all.iter().any(|name| name == KUBERNETES));
        if !plan::is_terminating(&namespace) || !ours {
            return Ok(Outcome::Done);
        }
        let found = self.empty(&key.name).await;
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let status = plan::status(&namespace, &found, self.context.clock.now());
        let mut fresh = namespace.as_ref().clone();
        if fresh.status.as_ref() != Some(&status) {
            fresh.status = Some(status);
            let params = PostParams::default();
            match api
                .replace_subresource("status", &key.name, &params, &fresh)
                .await
            {
                Ok(written) => fresh = self.namespaces.note_written(written).as_ref().clone(),
                Err(error) if errors::is_not_found(&error) => return Ok(Outcome::Done),
                Err(error) => return Err(error.into()),
            }
        }
        if !found.is_empty() {
            if found.discovery.is_none() && found.failures.is_empty() {
                // Pods wake this loop themselves; finalizers of others have nobody to tell us.
                let seconds = u64::try_from(found.grace_seconds.clamp(0, 10)).unwrap_or(0);
                return Ok(Outcome::After(Duration::from_secs(seconds / 2 + 1)));
            }
            let why = found.discovery.into_iter().chain(found.failures);
            return Err(ReconcileError::State(why.collect::<Vec<_>>().join("; ")));
        }
        if let Some(spec) = &mut fresh.spec
            && let Some(finalizers) = &mut spec.finalizers
        {
            finalizers.retain(|name| name != KUBERNETES);
        }
        let params = PostParams::default();
        match api
            .replace_subresource("finalize", &key.name, &params, &fresh)
            .await
        {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if errors::is_not_found(&error) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what the namespace holds: pods first, and all else once they are gone, so that
    /// nothing a pod still needs is taken from under it (KEP-5080).
    async fn empty(&self, namespace: &str) -> Found {
        let mut found = Found::default();
        let resources = match discover(&self.context.client).await {
            Ok(resources) => resources,
            Err(error) => {
                found.discovery = Some(errors::message(&error));
                return found;
            }
        };
        // What an aggregated server that does not answer has in the namespace is not known: all
        // else goes, and the namespace stays until it answers or is given up.
        match stale(&self.context.client).await {
            Ok(stale) if stale.is_empty() => {}
            Ok(stale) => {
                let each: Vec<String> = stale
                    .iter()
                    .map(|it| format!("{it}: stale GroupVersion discovery: {it}"))
                    .collect();
                found.discovery = Some(format!(
                    "unable to retrieve the complete list of server APIs: {}",
                    each.join(", ")
                ));
            }
            Err(error) => found.discovery = Some(errors::message(&error)),
        }
        let deletable = |resource: &&Resource| {
            resource.namespaced
                && !is_other_form(resource)
                && (resource.can(&["delete", "list"]) || resource.can(&["deletecollection"]))
        };
        let is_pod = |resource: &Resource| resource.group.is_empty() && resource.kind == "Pod";
        for resource in resources.iter().filter(deletable).filter(|it| is_pod(it)) {
            self.empty_of(namespace, resource, &mut found).await;
        }
        if !found.remaining.is_empty() || !found.failures.is_empty() {
            return found;
        }
        for resource in resources.iter().filter(deletable).filter(|it| !is_pod(it)) {
            self.empty_of(namespace, resource, &mut found).await;
        }
        found
    }

    async fn empty_of(&self, namespace: &str, resource: &Resource, found: &mut Found) {
        if let Err(error) = self.try_empty(namespace, resource, found).await
            && !errors::is_not_found(&error)
            && !errors::is_method_not_allowed(&error)
        {
            found.failures.push(errors::message(&error));
        }
    }

    async fn try_empty(
        &self,
        namespace: &str,
        resource: &Resource,
        found: &mut Found,
    ) -> Result<(), kube::Error> {
        let client = &self.context.client;
        let request = Request::new(resource.path(namespace));
        // A look first: most kinds have nothing here, and a list writes nothing.
        let left = self.list(&request).await?;
        if left.is_empty() {
            return Ok(());
        }
        let params = DeleteParams::background();
        if resource.can(&["deletecollection"]) {
            let built = request.delete_collection(&params, &ListParams::default());
            let _: Value = client
                .request(built.map_err(kube::Error::BuildRequest)?)
                .await?;
        } else {
            for item in &left {
                let name = item.metadata.name.as_deref().unwrap_or_default();
                let built = request
                    .delete(name, &params)
                    .map_err(kube::Error::BuildRequest)?;
                match client.request::<Value>(built).await {
                    Err(error) if !errors::is_not_found(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        let left = self.list(&request).await?;
        if left.is_empty() {
            return Ok(());
        }
        let what = format!("{}.{}", resource.plural, resource.group);
        found.remaining.insert(what, left.len());
        for item in &left {
            for name in item.metadata.finalizers.iter().flatten() {
                *found.finalizers.entry(name.clone()).or_insert(0) += 1;
            }
            let grace = item.metadata.deletion_grace_period_seconds.unwrap_or(0);
            found.grace_seconds = found.grace_seconds.max(grace);
        }
        Ok(())
    }

    async fn list(
        &self,
        request: &Request,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>, kube::Error> {
        let built = request.list_metadata(&ListParams::default());
        let client = &self.context.client;
        let list: ObjectList<PartialObjectMeta<DynamicObject>> = client
            .request(built.map_err(kube::Error::BuildRequest)?)
            .await?;
        Ok(list.items)
    }
}
