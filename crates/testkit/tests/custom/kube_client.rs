//! A typed client of a custom kind, as kube's derive makes it.

use std::borrow::Cow;

use futures::TryStreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CronTab {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    cron_spec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<i32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Status {
    replicas: i32,
}

impl kube::Resource for CronTab {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "CronTab".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "stable.example.com".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "crontabs".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn tab(name: &str, replicas: Option<i32>) -> CronTab {
    CronTab {
        api_version: "stable.example.com/v1".into(),
        kind: "CronTab".into(),
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        spec: Spec {
            cron_spec: "* * * * *".into(),
            replicas,
        },
        status: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_installs_a_kind_and_works_with_it() {
    let (cluster, _admin) = open().await;
    let client = cluster.admin();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: CustomResourceDefinition = serde_json::from_value(cron_tabs()).unwrap();
    let apply = PatchParams::apply("installer").force();
    definitions
        .patch(
            "crontabs.stable.example.com",
            &apply,
            &Patch::Apply(&definition),
        )
        .await
        .unwrap();
    let established = await_condition(
        definitions.clone(),
        "crontabs.stable.example.com",
        conditions::is_crd_established(),
    );
    tokio::time::timeout(BOUND, established)
        .await
        .expect("established within the bound")
        .unwrap();

    let tabs: Api<CronTab> = Api::namespaced(client.clone(), NAMESPACE);
    let made = tabs
        .create(&PostParams::default(), &tab("a", None))
        .await
        .unwrap();
    assert_eq!(made.spec.replicas, Some(1));
    let mut changed = made.clone();
    changed.status = Some(Status { replicas: 2 });
    tabs.replace_status("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    let applied = tabs
        .patch("b", &apply, &Patch::Apply(&tab("b", Some(3))))
        .await
        .unwrap();
    assert_eq!(applied.spec.replicas, Some(3));
    let scale = tabs.get_scale("b").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(3));

    let mut stream =
        std::pin::pin!(watcher(tabs.clone(), watcher::Config::default()).applied_objects());
    for _ in 0..2 {
        tokio::time::timeout(BOUND, stream.try_next())
            .await
            .expect("an event within the bound")
            .unwrap()
            .unwrap();
    }
    let merge = json!({"spec": {"replicas": 5}});
    tabs.patch("a", &PatchParams::default(), &Patch::Merge(&merge))
        .await
        .unwrap();
    let event = tokio::time::timeout(BOUND, stream.try_next())
        .await
        .expect("an event within the bound")
        .unwrap()
        .unwrap();
    assert_eq!(event.spec.replicas, Some(5));
    assert_eq!(event.status.unwrap().replicas, 2);
    let listed = tabs.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 2);
    tabs.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
}
