//! How many pods the owner of a pod asks for.

use std::sync::Arc;

use evenkeel_client::{Client, View, errors};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use crate::claim;
use crate::discovered::discover;
use crate::error::ReconcileError;

pub(super) struct Scales {
    pub(super) sets: Arc<View<ReplicaSet>>,
    pub(super) deployments: Arc<View<Deployment>>,
    pub(super) stateful: Arc<View<StatefulSet>>,
    pub(super) replication: Arc<View<ReplicationController>>,
    pub(super) client: Client,
}

/// An owner and what it asks for.
pub(super) struct Scale {
    pub(super) uid: String,
    pub(super) replicas: i32,
}

impl Scales {
    /// The scale of a pod's controller: of the Deployment where that is a Deployment's ReplicaSet.
    /// `None`: there is no such object.
    pub(super) async fn of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<Scale>, ReconcileError> {
        let group = owner.api_version.split_once('/').map_or("", |pair| pair.0);
        let scale = |uid: &str, replicas: Option<i32>| Scale {
            uid: uid.to_owned(),
            replicas: replicas.unwrap_or(1),
        };
        let same = |uid: &Option<String>| uid.as_deref() == Some(owner.uid.as_str());
        match (group, owner.kind.as_str()) {
            ("apps" | "extensions", "ReplicaSet") => {
                let set = self.sets.get(namespace, &owner.name);
                let Some(set) = set.filter(|set| same(&set.metadata.uid)) else {
                    return Ok(None);
                };
                let above = claim::controller_of(&set.metadata);
                let Some(above) = above.filter(|it| it.kind == "Deployment") else {
                    return Ok(Some(scale(&owner.uid, set.spec.replicas)));
                };
                let deployment = self.deployments.get(namespace, &above.name);
                let deployment =
                    deployment.filter(|it| it.metadata.uid.as_deref() == Some(above.uid.as_str()));
                Ok(deployment.map(|it| scale(&above.uid, it.spec.replicas)))
            }
            ("apps", "StatefulSet") => {
                let set = self.stateful.get(namespace, &owner.name);
                let set = set.filter(|set| same(&set.metadata.uid));
                Ok(set.map(|set| scale(&owner.uid, set.spec.replicas)))
            }
            ("", "ReplicationController") => {
                let set = self.replication.get(namespace, &owner.name);
                let set = set.filter(|set| same(&set.metadata.uid));
                let replicas =
                    |set: &ReplicationController| set.spec.as_ref().and_then(|spec| spec.replicas);
                Ok(set.map(|set| scale(&owner.uid, replicas(&set))))
            }
            _ => self.by_subresource(namespace, owner).await,
        }
    }

    /// Of any other kind that has a scale.
    async fn by_subresource(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<Scale>, ReconcileError> {
        let group = owner.api_version.split_once('/').map_or("", |pair| pair.0);
        let all = discover(&self.client).await?;
        let kind = all
            .iter()
            .find(|it| it.group == group && it.kind == owner.kind);
        let Some(kind) = kind else {
            let text = format!(
                "no matches for kind {:?} in version {:?}",
                owner.kind, owner.api_version
            );
            return Err(ReconcileError::State(text));
        };
        let path = format!("{}/{}/scale", kind.path(namespace), owner.name);
        let request = http_get(&path)?;
        match self.client.request::<Value>(request).await {
            Ok(found) => {
                let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
                let replicas = found["spec"]["replicas"].as_i64();
                let replicas = replicas.and_then(|it| i32::try_from(it).ok());
                Ok((uid == owner.uid).then(|| Scale {
                    uid: owner.uid.clone(),
                    replicas: replicas.unwrap_or(0),
                }))
            }
            // Gone, or of a kind that has none.
            Err(error) if errors::is_not_found(&error) && !kind.scales => {
                let dot = if group.is_empty() { "" } else { "." };
                let text = format!(
                    "{}{dot}{group} does not implement the scale subresource",
                    kind.plural
                );
                Err(ReconcileError::State(text))
            }
            Err(error) if errors::is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>, ReconcileError> {
    let request = http::Request::get(path).body(Vec::new());
    request.map_err(|error| ReconcileError::State(error.to_string()))
}
