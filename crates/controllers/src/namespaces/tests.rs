//! Namespaces against the fake.

use evenkeel_client::Api;
use evenkeel_client::testing::{FakeApi, FakeClock};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::{root_ca, service_account};
use crate::testing;

async fn make(fake: &FakeApi, name: &str) -> Api<Namespace> {
    let api: Api<Namespace> = Api::all(fake.client());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    api.create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    api
}

#[tokio::test(start_paused = true)]
async fn every_namespace_gets_an_account_and_the_certificate_and_keeps_them() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    world.spawn(|context| Box::pin(service_account::run(context)));
    world.spawn(|context| Box::pin(root_ca::run(context, "PEM".to_owned())));
    make(&fake, "a").await;
    let whole = |fake: &FakeApi| {
        let map = fake.get::<ConfigMap>("a", root_ca::NAME)?;
        fake.get::<ServiceAccount>("a", "default")?;
        (map.data?.get("ca.crt")? == "PEM").then_some(())
    };
    fake.wait_for("both", whole).await;
    fake.remove::<ServiceAccount>("a", "default");
    let mut map = fake.get::<ConfigMap>("a", root_ca::NAME).unwrap();
    map.data = None;
    fake.put(&map);
    fake.wait_for("both again", whole).await;
    fake.remove::<ConfigMap>("a", root_ca::NAME);
    fake.wait_for("the certificate again", whole).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_when_its_pods_and_then_all_else_are_gone() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run_deletion(context)));
    let api = make(&fake, "a").await;
    let mut pod = testing::pod("a", "web", &[]);
    pod.spec.as_mut().unwrap().node_name = Some("n".to_owned());
    fake.put(&pod);
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "m", "namespace": "a"}})).unwrap();
    fake.put(&map);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let message = fake
        .wait_for("the condition", |fake| {
            let status = fake.get::<Namespace>("", "a")?.status?;
            let conditions = status.conditions?;
            let found = conditions
                .into_iter()
                .find(|item| item.type_ == "NamespaceContentRemaining" && item.status == "True");
            found?.message
        })
        .await;
    assert_eq!(
        message,
        "Some resources are remaining: pods. has 1 resource instances"
    );
    assert!(
        fake.get::<ConfigMap>("a", "m").is_some(),
        "the pod may still need it"
    );
    fake.remove::<Pod>("a", "web");
    fake.wait_for("the namespace gone", |fake| {
        fake.get::<Namespace>("", "a").is_none().then_some(())
    })
    .await;
    assert!(fake.get::<ConfigMap>("a", "m").is_none());
    world.end().await;
}
