//! The `default` service account of every namespace.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use super::plan;
use crate::error::ReconcileError;

const NAME: &str = "default";

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("serviceaccount"));
    let namespaces = context.views.of::<Namespace>();
    let accounts = context.views.of::<ServiceAccount>();
    accounts.synced().await;
    {
        let queue = Arc::clone(&queue);
        namespaces.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let queue = Arc::clone(&queue);
        accounts.on_change(move |change| {
            if change.new.is_none() && change.key.name == NAME {
                queue.add(ObjectKey::new("", change.key.namespace.clone()));
            }
        });
    }
    let client = context.client.clone();
    run_loop(
        "serviceaccount",
        4,
        queue,
        context.shutdown,
        |key: ObjectKey| {
            let (namespaces, accounts) = (Arc::clone(&namespaces), Arc::clone(&accounts));
            let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &key.name);
            async move {
                let wanted = namespaces
                    .get("", &key.name)
                    .is_some_and(|namespace| !plan::is_terminating(&namespace));
                if !wanted || accounts.get(&key.name, NAME).is_some() {
                    return Ok(Outcome::Done);
                }
                let account = ServiceAccount {
                    metadata: ObjectMeta {
                        name: Some(NAME.to_owned()),
                        namespace: Some(key.name.clone()),
                        ..ObjectMeta::default()
                    },
                    ..ServiceAccount::default()
                };
                match api.create(&PostParams::default(), &account).await {
                    Ok(made) => {
                        accounts.note_written(made);
                        Ok(Outcome::Done)
                    }
                    Err(error)
                        if errors::is_already_exists(&error)
                            || errors::is_namespace_terminating(&error)
                            || errors::is_not_found(&error) =>
                    {
                        Ok(Outcome::Done)
                    }
                    Err(error) => Err(ReconcileError::from(error)),
                }
            }
        },
    )
    .await;
}
