//! The fake holds what it promises.

use crate::Api;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{FakeApi, FakeClock};
use crate::errors;

fn config(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"}})).unwrap()
}

#[tokio::test(start_paused = true)]
async fn updates_are_optimistic_and_finalizers_hold() {
    let fake = FakeApi::new(FakeClock::shared());
    let api: Api<ConfigMap> = Api::namespaced(fake.client(), "a");
    let mut made = api
        .create(&PostParams::default(), &config("one"))
        .await
        .unwrap();
    let error = api
        .create(&PostParams::default(), &config("one"))
        .await
        .unwrap_err();
    assert!(errors::is_already_exists(&error));

    let patch = json!({"data": {"k": "v"}, "metadata": {"finalizers": ["x/y"]}});
    let params = PatchParams::default();
    api.patch("one", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    made.data = None;
    let error = api
        .replace("one", &PostParams::default(), &made)
        .await
        .unwrap_err();
    assert!(errors::is_conflict(&error), "{error}");

    api.delete("one", &DeleteParams::default()).await.unwrap();
    let held = api.get("one").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let patch = json!({"metadata": {"finalizers": null}});
    api.patch("one", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    assert!(api.get_opt("one").await.unwrap().is_none());
}
