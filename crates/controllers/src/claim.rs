//! Whose objects are whose: adoption and release by selector and controller reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Api;
use evenkeel_client::{Client, Kind, ObjectKey, View, WorkQueue, errors};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector as SelectorSpec, ObjectMeta, OwnerReference,
};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use serde_json::json;

use crate::error::ReconcileError;

/// Name of the index of objects nobody controls, by namespace.
pub const ORPHAN: &str = "orphan";

/// The index function of [`ORPHAN`].
#[must_use]
pub fn orphan<K: Kind>(object: &K) -> Vec<String> {
    let meta = object.meta();
    if controller_of(meta).is_some() {
        return Vec::new();
    }
    meta.namespace.iter().cloned().collect()
}

/// The reference to the controlling owner.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.iter().flatten();
    owners
        .into_iter()
        .find(|owner| owner.controller == Some(true))
}

/// The key of the controlling owner when it is of `kind` in `group`.
#[must_use]
pub fn controller_key(meta: &ObjectMeta, group: &str, kind: &str) -> Option<ObjectKey> {
    let owner = controller_of(meta)?;
    let found = owner.api_version.split_once('/').map_or("", |pair| pair.0);
    (owner.kind == kind && found == group).then(|| {
        ObjectKey::new(
            meta.namespace.clone().unwrap_or_default(),
            owner.name.clone(),
        )
    })
}

/// Wakes the controller of a changed object when it is of kind `O`; of an object that nobody
/// controls, all that select it and may adopt it.
pub fn wake<O>(
    meta: &ObjectMeta,
    owners: &View<O>,
    selector: impl Fn(&O) -> &SelectorSpec,
    queue: &WorkQueue<ObjectKey>,
) where
    O: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    if controller_of(meta).is_some() {
        if let Some(key) = controller_key(meta, &O::group(&()), &O::kind(&())) {
            queue.add(key);
        }
        return;
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    for owner in owners.in_namespace(namespace) {
        let selector = LabelSelector::from_spec(Some(selector(&owner)));
        if selector.is_ok_and(|selector| selector.matches(labels(meta))) {
            queue.add(ObjectKey::of(owner.as_ref()));
        }
    }
}

/// The labels, an empty map where there are none.
#[must_use]
pub fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&EMPTY)
}

/// What to do about the objects a controller owns or could own.
#[derive(Debug)]
pub struct Claims<K> {
    /// Owned and matching.
    pub mine: Vec<Arc<K>>,
    /// Matching and nobody's: to be adopted.
    pub adopt: Vec<Arc<K>>,
    /// Owned but no longer matching: to be released.
    pub release: Vec<Arc<K>>,
}

impl<K: Kind> Claims<K> {
    /// Keeps to objects that `is_member` knows: others are released, and never adopted.
    #[must_use]
    pub fn members(mut self, owner_deleting: bool, is_member: impl Fn(&K) -> bool) -> Self {
        self.adopt.retain(|object| is_member(object));
        let (mine, others): (Vec<_>, Vec<_>) =
            self.mine.into_iter().partition(|object| is_member(object));
        self.mine = mine;
        if !owner_deleting {
            let going = |object: &Arc<K>| object.meta().deletion_timestamp.is_some();
            self.release
                .extend(others.into_iter().filter(|object| !going(object)));
        }
        self
    }
}

/// Sorts `owned` (controlled by us) and `orphans` of the namespace. An owner on its way out
/// neither adopts nor releases; objects on their way out are not adopted or released.
#[must_use]
pub fn claims<K: Kind>(
    owner_deleting: bool,
    selector: &LabelSelector,
    owned: Vec<Arc<K>>,
    orphans: Vec<Arc<K>>,
) -> Claims<K> {
    let mut claims = Claims {
        mine: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    for object in owned {
        let matches = selector.matches(labels(object.meta()));
        if matches {
            claims.mine.push(object);
        } else if !owner_deleting && object.meta().deletion_timestamp.is_none() {
            claims.release.push(object);
        }
    }
    if !owner_deleting {
        claims.adopt.extend(orphans.into_iter().filter(|object| {
            object.meta().deletion_timestamp.is_none() && selector.matches(labels(object.meta()))
        }));
    }
    claims
}

/// Carries claims out and returns all objects that are ours now. `owner` is read afresh before
/// the first adoption, so that an owner being deleted adopts nothing.
///
/// # Errors
/// When a patch fails for another reason than the object having gone or changed hands.
pub async fn carry_out<O, K>(
    client: &Client,
    view: &View<K>,
    owner: &O,
    claims: Claims<K>,
) -> Result<Vec<Arc<K>>, ReconcileError>
where
    O: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    carry_out_with(client, view, owner, claims, None).await
}

/// As [`carry_out`], where what is adopted also gets `finalizer`, and loses it when released.
///
/// # Errors
/// As [`carry_out`].
pub async fn carry_out_with<O, K>(
    client: &Client,
    view: &View<K>,
    owner: &O,
    claims: Claims<K>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>, ReconcileError>
where
    O: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    for object in claims.release {
        let owners = object.meta().owner_references.iter().flatten();
        let left: Vec<_> = owners.filter(|owner| owner.uid != uid).cloned().collect();
        let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
        finalizers.retain(|item| Some(item.as_str()) != finalizer);
        write_owners(&api, view, &object, left, finalizers).await?;
    }
    let mut mine = claims.mine;
    if claims.adopt.is_empty() {
        return Ok(mine);
    }
    let owners: Api<O> = Api::namespaced(client.clone(), namespace);
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let fresh = owners.get(name).await?;
    if fresh.meta().uid != owner.meta().uid || fresh.meta().deletion_timestamp.is_some() {
        return Ok(mine);
    }
    let reference = reference_to(owner);
    for object in claims.adopt {
        let mut owners = object.meta().owner_references.clone().unwrap_or_default();
        owners.retain(|item| item.uid != reference.uid);
        owners.push(reference.clone());
        let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
        if let Some(finalizer) = finalizer
            && !finalizers.iter().any(|item| item == finalizer)
        {
            finalizers.push(finalizer.to_owned());
        }
        mine.extend(write_owners(&api, view, &object, owners, finalizers).await?);
    }
    Ok(mine)
}

/// The controller reference to an owner.
#[must_use]
pub fn reference_to<O: Kind>(owner: &O) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..owner.owner_ref(&()).unwrap_or_default()
    }
}

async fn write_owners<K: Kind>(
    api: &Api<K>,
    view: &View<K>,
    object: &K,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
) -> Result<Option<Arc<K>>, ReconcileError> {
    let meta = object.meta();
    let owners = if owners.is_empty() {
        serde_json::Value::Null
    } else {
        json!(owners)
    };
    let mut patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners,
    }});
    if finalizers != meta.finalizers.clone().unwrap_or_default() {
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    let name = meta.name.as_deref().unwrap_or_default();
    match api
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(written) => Ok(Some(view.note_written(written))),
        // Gone, replaced by another of the same name, or not for us: the watch will tell.
        Err(error) if errors::is_not_found(&error) || errors::is_invalid(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
