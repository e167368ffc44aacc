//! Asks the door, then deletes, disowns or lets go.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_client::{EventType, LoopContext, Outcome, errors};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use serde_json::{Value, json};

use super::graph::{FOREGROUND, Node, ORPHAN};
use super::plan::{Owner, Policy, Verdict, judge};
use super::{Item, Shared};
use crate::error::ReconcileError;

pub(super) struct Reconciler {
    pub(super) context: LoopContext,
    pub(super) shared: Arc<Shared>,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, item: Item) -> Result<Outcome, ReconcileError> {
        match item {
            Item::Delete(uid) => self.look(&uid).await?,
            Item::Orphan(uid) => self.orphan(&uid).await?,
        }
        Ok(Outcome::Done)
    }

    fn node(&self, uid: &str) -> Option<Node> {
        self.shared.graph.lock().get(uid).cloned()
    }

    async fn look(&self, uid: &str) -> Result<(), ReconcileError> {
        let Some(node) = self.node(uid) else {
            return Ok(());
        };
        if node.deleting && !node.foreground {
            return Ok(());
        }
        if !node.foreground && self.is_well_owned(&node) {
            return Ok(());
        }
        let Some(meta) = self.live(&node, uid).await? else {
            let work = self.shared.graph.lock().gone(uid);
            self.shared.enqueue(work);
            return Ok(());
        };
        let has = |name: &str| meta.finalizers.iter().flatten().any(|found| found == name);
        if meta.deletion_timestamp.is_some() {
            if has(FOREGROUND) {
                return self.finish_foreground(uid, &node, &meta).await;
            }
            return Ok(());
        }
        let mut states = HashMap::new();
        for owner in meta.owner_references.iter().flatten() {
            states.insert(owner.uid.clone(), self.state(&node, uid, owner).await?);
        }
        let (has_dependents, circle) = {
            let graph = self.shared.graph.lock();
            let mut dependents = graph.dependents(uid).peekable();
            (
                dependents.peek().is_some(),
                dependents.any(|(_, node)| node.foreground),
            )
        };
        let state =
            |owner: &OwnerReference| states.get(&owner.uid).copied().unwrap_or(Owner::Solid);
        match judge(&meta, state, has_dependents, circle) {
            Verdict::Keep => Ok(()),
            Verdict::Disown(left) => {
                let patch = json!({"metadata": {"ownerReferences": left}});
                self.patch(&node, &meta, patch).await
            }
            Verdict::Delete { policy, unblock } => {
                if unblock {
                    let mut owners = meta.owner_references.clone().unwrap_or_default();
                    for owner in &mut owners {
                        owner.block_owner_deletion = Some(false);
                    }
                    let patch = json!({"metadata": {"ownerReferences": owners}});
                    self.patch(&node, &meta, patch).await?;
                    // The patch moved the revision on: judge again on what is there then.
                    self.shared
                        .queue
                        .add_rate_limited(Item::Delete(uid.to_owned()));
                    return Ok(());
                }
                self.delete(&node, &meta, policy).await
            }
        }
    }

    /// Every owner is in the graph, where it may be, and not waiting for this object.
    fn is_well_owned(&self, node: &Node) -> bool {
        let graph = self.shared.graph.lock();
        node.owners.iter().all(|owner| {
            graph.is_owned_rightly(node, owner)
                && !graph.get(&owner.uid).is_some_and(|found| found.foreground)
        })
    }

    /// The state of an owner: from the graph where it is there, from the door where it is not.
    async fn state(
        &self,
        node: &Node,
        uid: &str,
        owner: &OwnerReference,
    ) -> Result<Owner, ReconcileError> {
        let resource = {
            let graph = self.shared.graph.lock();
            match graph.get(&owner.uid) {
                Some(found) if graph.is_owned_rightly(node, owner) => {
                    return Ok(if found.foreground {
                        Owner::Waiting
                    } else {
                        Owner::Solid
                    });
                }
                Some(found) => {
                    let found = found.clone();
                    drop(graph);
                    self.tell_invalid(node, uid, owner);
                    // A namespaced owner cannot be looked up from a cluster-scoped object:
                    // unresolvable, so never collected.
                    return Ok(if node.resource.namespaced && found.resource.namespaced {
                        Owner::Absent
                    } else {
                        Owner::Solid
                    });
                }
                None => self.shared.resource_of(owner),
            }
        };
        let Some(resource) = resource else {
            return Err(ReconcileError::State(format!(
                "no resource is served for owner {} {} of {}",
                owner.api_version, owner.kind, node.name
            )));
        };
        if resource.namespaced && !node.resource.namespaced {
            self.tell_invalid(node, uid, owner);
            return Ok(Owner::Solid);
        }
        let path = resource.path(&node.namespace);
        let Some(meta) = self.get(&path, &owner.name).await? else {
            return Ok(Owner::Absent);
        };
        if meta.uid.as_ref() != Some(&owner.uid) {
            return Ok(Owner::Absent);
        }
        let has = |name: &str| meta.finalizers.iter().flatten().any(|found| found == name);
        Ok(if meta.deletion_timestamp.is_some() && has(FOREGROUND) {
            Owner::Waiting
        } else {
            Owner::Solid
        })
    }

    fn tell_invalid(&self, node: &Node, uid: &str, owner: &OwnerReference) {
        let reference = format!(
            "[{}/{}, namespace: {}, name: {}, uid: {}]",
            owner.api_version, owner.kind, node.namespace, owner.name, owner.uid
        );
        let message = format!(
            "ownerRef {reference} does not exist in namespace \"{}\"",
            node.namespace
        );
        let about = ObjectReference {
            api_version: Some(node.resource.api_version()),
            kind: Some(node.resource.kind.clone()),
            namespace: Some(node.namespace.clone()).filter(|text| !text.is_empty()),
            name: Some(node.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let recorder = &self.context.recorder;
        recorder.tell_about(
            about,
            EventType::Warning,
            "OwnerRefInvalidNamespace",
            message,
        );
    }

    /// Dependents that block have gone: the owner may go. Else they are looked at once more.
    async fn finish_foreground(
        &self,
        uid: &str,
        node: &Node,
        meta: &ObjectMeta,
    ) -> Result<(), ReconcileError> {
        let blocking: Vec<String> = {
            let graph = self.shared.graph.lock();
            let dependents = graph.dependents(uid).filter(|(_, dependent)| {
                let reference = dependent.reference(uid);
                reference.is_some_and(|item| item.block_owner_deletion == Some(true))
            });
            dependents.map(|(uid, _)| uid.clone()).collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(node, meta, FOREGROUND).await;
        }
        for dependent in blocking {
            let waits = self.node(&dependent).is_some_and(|node| node.deleting);
            if !waits {
                self.shared.queue.add(Item::Delete(dependent));
            }
        }
        Ok(())
    }

    async fn orphan(&self, uid: &str) -> Result<(), ReconcileError> {
        let Some(node) = self.node(uid).filter(|node| node.orphan) else {
            return Ok(());
        };
        let dependents: Vec<(String, Node)> = {
            let graph = self.shared.graph.lock();
            let pairs = graph.dependents(uid);
            pairs
                .map(|(uid, node)| (uid.clone(), node.clone()))
                .collect()
        };
        for (dependent, found) in dependents {
            let Some(meta) = self.live(&found, &dependent).await? else {
                continue;
            };
            let owners = meta.owner_references.iter().flatten();
            let left: Vec<_> = owners.filter(|owner| owner.uid != uid).cloned().collect();
            let left = if left.is_empty() {
                Value::Null
            } else {
                json!(left)
            };
            let patch = json!({"metadata": {"ownerReferences": left}});
            self.patch(&found, &meta, patch).await?;
        }
        let Some(meta) = self.live(&node, uid).await? else {
            return Ok(());
        };
        self.remove_finalizer(&node, &meta, ORPHAN).await
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        name: &str,
    ) -> Result<(), ReconcileError> {
        let finalizers = meta.finalizers.iter().flatten();
        let left: Vec<_> = finalizers.filter(|item| *item != name).cloned().collect();
        let left = if left.is_empty() {
            Value::Null
        } else {
            json!(left)
        };
        self.patch(node, meta, json!({"metadata": {"finalizers": left}}))
            .await
    }

    async fn get(&self, path: &str, name: &str) -> Result<Option<ObjectMeta>, ReconcileError> {
        let request = Request::new(path)
            .get_metadata(name, &GetParams::default())
            .map_err(kube::Error::BuildRequest)?;
        let found: Result<PartialObjectMeta<DynamicObject>, _> =
            self.context.client.request(request).await;
        match found {
            Ok(found) => Ok(Some(found.metadata)),
            Err(error) if errors::is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The object at the door, if it still is the same one.
    async fn live(&self, node: &Node, uid: &str) -> Result<Option<ObjectMeta>, ReconcileError> {
        let path = node.resource.path(&node.namespace);
        let found = self.get(&path, &node.name).await?;
        Ok(found.filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    async fn patch(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        mut patch: Value,
    ) -> Result<(), ReconcileError> {
        patch["metadata"]["uid"] = json!(meta.uid);
        patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
        let request = Request::new(node.resource.path(&node.namespace))
            .patch_metadata(&node.name, &PatchParams::default(), &Patch::Merge(&patch))
            .map_err(kube::Error::BuildRequest)?;
        match self.context.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(error) if errors::is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        policy: Policy,
    ) -> Result<(), ReconcileError> {
        let policy = match policy {
            Policy::Background => PropagationPolicy::Background,
            Policy::Foreground => PropagationPolicy::Foreground,
            Policy::Orphan => PropagationPolicy::Orphan,
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                // Somebody who adopts it in the meantime wins.
                resource_version: meta.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let request = Request::new(node.resource.path(&node.namespace))
            .delete(&node.name, &params)
            .map_err(kube::Error::BuildRequest)?;
        match self.context.client.request::<Value>(request).await {
            Ok(_) => {
                tracing::debug!(
                    kind = node.resource.kind,
                    namespace = node.namespace,
                    name = node.name,
                    "collected"
                );
                Ok(())
            }
            Err(error) if errors::is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
