//! Writes a status: what every loop tells of its object in the end.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{Kind, LoopContext, View, errors};
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use serde::Serialize;

use crate::error::ReconcileError;

/// Replaces the status of an object, at the revision the object has; `None`: it is gone.
///
/// # Errors
/// What the door said, a conflict among it.
pub async fn write_status<K>(
    context: &LoopContext,
    view: &View<K>,
    fresh: &K,
) -> Result<Option<Arc<K>>, ReconcileError>
where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope> + Serialize,
{
    let namespace = fresh.meta().namespace.as_deref().unwrap_or_default();
    let name = fresh.meta().name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let params = PostParams::default();
    match api
        .replace_subresource("status", name, &params, fresh)
        .await
    {
        Ok(written) => Ok(Some(view.note_written(written))),
        Err(error) if errors::is_not_found(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
