//! Clients that others wrote, against a live cluster: the Python client and kube-rs. What needs a
//! Go or JavaScript toolchain is in `make test-foreign`.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{self, Cluster};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams,
    PostParams,
};
use kube::runtime::controller::Action;
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::{Controller, WatchStreamExt as _, finalizer, reflector, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long anything may take on a busy machine.
const BOUND: Duration = common::BOUND;

#[test]
fn the_python_client_works() {
    if !common::can_run_containers() {
        return;
    }
    let cluster = Cluster::with_node(28);
    cluster.import_busybox();
    let script = common::repository("bin/evenkeel/tests/e2e/foreign/client.py");
    let answer = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(cluster.home().join("data/kubeconfig"))
        .env("HOME", cluster.home())
        .output()
        .expect("python3 is there; `make packages` installs it and its client");
    assert!(
        answer.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&answer.stdout),
        String::from_utf8_lossy(&answer.stderr)
    );
}

#[test]
fn kube_rs_works() {
    if !common::can_run_containers() {
        return;
    }
    let cluster = Cluster::with_node(29);
    cluster.import_busybox();
    let kubeconfig = cluster.home().join("data/kubeconfig");
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            let config = kube::config::Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
            let options = kube::config::KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(config, &options).await;
            let client = Client::try_from(config.expect("a configuration")).expect("a client");
            discovery(&client).await;
            watches(&client).await;
            applies(&client).await;
            custom(&client).await;
            controls(&client).await;
            finalizes(&client).await;
            streams(&client).await;
        });
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"))
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kube-rs": "yes"}}, "data": {"key": value},
    }))
    .expect("a map")
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

async fn discovery(client: &Client) {
    let found = kube::discovery::Discovery::new(client.clone())
        .run_aggregated()
        .await
        .expect("aggregated discovery");
    assert!(found.has_group("apps"));
    let kind = kube::core::GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, able) = found
        .resolve_gvk(&kind)
        .expect("Deployments are discovered");
    assert_eq!(resource.plural, "deployments");
    assert!(
        able.subresources
            .iter()
            .any(|(sub, _)| sub.plural == "scale")
    );
    let older = kube::discovery::Discovery::new(client.clone()).run().await;
    assert!(older.expect("discovery").has_group("batch"));
}

/// Both ways to begin a watch, and a store that follows one.
async fn watches(client: &Client) {
    let api = maps(client);
    for (strategy, name) in [
        (watcher::Config::default(), "listed"),
        (watcher::Config::default().streaming_lists(), "streamed"),
    ] {
        api.create(&PostParams::default(), &map(name, "1"))
            .await
            .expect("it is made");
        let (store, writer) = reflector::store();
        let events = watcher(api.clone(), strategy.labels("kube-rs=yes")).default_backoff();
        let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let driving = events
            .reflect(writer)
            .applied_objects()
            .for_each(move |object| {
                // Nobody listens any more at the end of this round.
                drop(send.send(object.expect("no error")));
                futures::future::ready(())
            });
        let driving = tokio::spawn(driving);
        within("the store is filled", store.wait_until_ready())
            .await
            .expect("the writer lives");
        let key = reflector::ObjectRef::new(name).within("default");
        assert!(store.get(&key).is_some(), "{name} is in the store");
        let patch = json!({"data": {"key": "2"}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("it is patched");
        let changed = |object: &ConfigMap| {
            let data = object.data.as_ref();
            object.name_any() == name
                && data
                    .and_then(|data| data.get("key"))
                    .is_some_and(|key| key == "2")
        };
        within("the change", async {
            while !changed(&seen.recv().await.expect("the stream goes on")) {}
        })
        .await;
        api.delete(name, &DeleteParams::default())
            .await
            .expect("it is deleted");
        within("the store forgets", async {
            while store.get(&key).is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        driving.abort();
    }
    // From the future it begins, and says nothing until then. (It was refused with 504 once, which
    // kube's client repeats by itself for minutes.)
    let params = kube::api::WatchParams::default().timeout(1);
    let future = api.watch(&params, "999999999").await.expect("it begins");
    let told: Vec<_> = within("its end", future.collect()).await;
    assert!(told.is_empty(), "{told:?}");
}

async fn applies(client: &Client) {
    let api = maps(client);
    let config = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"},
            "data": {"key": value}})
    };
    let by = PatchParams::apply;
    api.patch("applied", &by("one"), &Patch::Apply(config("1")))
        .await
        .expect("it is applied");
    let refused = api
        .patch("applied", &by("two"), &Patch::Apply(config("2")))
        .await;
    let Err(kube::Error::Api(status)) = refused else {
        panic!("a conflict is told");
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(
        status.message.contains("conflict with \"one\": .data.key"),
        "{}",
        status.message
    );
    let forced = api
        .patch("applied", &by("two").force(), &Patch::Apply(config("2")))
        .await
        .expect("force wins");
    assert_eq!(forced.data.expect("data")["key"], "2");
    let strict = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..by("two")
    };
    let mut odd = config("2");
    odd["unknown"] = 1.into();
    assert!(
        api.patch("applied", &strict, &Patch::Apply(odd))
            .await
            .is_err()
    );
    let entry = api.entry("applied").await.expect("it is read");
    assert!(entry.get().is_some());
    let metadata = api.get_metadata("applied").await.expect("metadata alone");
    assert_eq!(metadata.name_any(), "applied");
    let listed = api
        .list_metadata(&ListParams::default().limit(1))
        .await
        .expect("metadata of a list");
    assert_eq!(listed.items.len(), 1);
}

fn boats() -> (CustomResourceDefinition, kube::api::ApiResource) {
    let definition = serde_json::from_value(json!({
        "metadata": {"name": "boats.rust.example.com"},
        "spec": {"group": "rust.example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"oars": {"type": "integer"}}},
                    "status": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    }));
    let kind = kube::core::GroupVersionKind::gvk("rust.example.com", "v1", "Boat");
    let resource = kube::api::ApiResource::from_gvk_with_plural(&kind, "boats");
    (definition.expect("a definition"), resource)
}

async fn custom(client: &Client) {
    let (definition, resource) = boats();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.create(&PostParams::default(), &definition)
        .await
        .expect("it is defined");
    let established = await_condition(
        crds,
        "boats.rust.example.com",
        conditions::is_crd_established(),
    );
    within("the definition is established", established)
        .await
        .expect("no error");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let boat = DynamicObject::new("boat", &resource).data(json!({"spec": {"oars": 2}}));
    api.create(&PostParams::default(), &boat)
        .await
        .expect("a boat");
    let status = json!({"status": {"afloat": true}});
    let told = api
        .patch_status("boat", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("its status");
    assert_eq!(told.data["status"]["afloat"], true);
}

/// A controller that gives every boat a map, and puts it back when somebody takes it away.
async fn controls(client: &Client) {
    let (_, resource) = boats();
    let boats: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let context = Arc::new((client.clone(), resource.clone()));
    let reconcile = |boat: Arc<DynamicObject>, context: Arc<(Client, kube::api::ApiResource)>| async move {
        let owner = boat.controller_owner_ref(&context.1);
        let child = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "of-boat", "ownerReferences": owner.map(|owner| vec![owner])},
            "data": {"oars": boat.data["spec"]["oars"].to_string()}});
        let by = PatchParams::apply("boats").force();
        maps(&context.0)
            .patch("of-boat", &by, &Patch::Apply(child))
            .await?;
        Ok::<_, kube::Error>(Action::await_change())
    };
    let run = Controller::new_with(boats.clone(), watcher::Config::default(), resource.clone())
        .owns(maps(client), watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            context,
        )
        .for_each(|_| async {});
    let running = tokio::spawn(run);
    let has = |oars: &'static str| {
        move |map: Option<&ConfigMap>| {
            let data = map.and_then(|map| map.data.as_ref());
            data.and_then(|data| data.get("oars"))
                .is_some_and(|found| found == oars)
        }
    };
    let seen = |what: &'static str, oars| {
        let api = maps(client);
        async move {
            within(what, await_condition(api, "of-boat", has(oars)))
                .await
                .expect("no error")
        }
    };
    seen("the map is made", "2").await;
    let first = maps(client).get("of-boat").await.expect("the map");
    maps(client)
        .delete("of-boat", &DeleteParams::default())
        .await
        .expect("it is taken away");
    let again = move |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid() != first.uid());
    within(
        "it is put back",
        await_condition(maps(client), "of-boat", again),
    )
    .await
    .expect("no error");
    let more = json!({"spec": {"oars": 4}});
    boats
        .patch("boat", &PatchParams::default(), &Patch::Merge(more))
        .await
        .expect("it is patched");
    seen("the map follows", "4").await;
    running.abort();
    // Without its owner the map goes.
    let uid = boats
        .get("boat")
        .await
        .expect("the boat")
        .uid()
        .expect("a uid");
    boats
        .delete("boat", &DeleteParams::default())
        .await
        .expect("it is deleted");
    let gone = conditions::is_deleted(&uid);
    within("the boat is gone", await_condition(boats, "boat", gone))
        .await
        .expect("no error");
    let none = |map: Option<&ConfigMap>| map.is_none();
    within(
        "the map is collected",
        await_condition(maps(client), "of-boat", none),
    )
    .await
    .expect("no error");
}

async fn finalizes(client: &Client) {
    let api = maps(client);
    api.create(&PostParams::default(), &map("final", "1"))
        .await
        .expect("it is made");
    let step = |what: &'static str| {
        let api = api.clone();
        async move {
            let object = Arc::new(api.get("final").await.expect("it is there"));
            let done = finalizer::finalizer(&api, "example.com/rust", object, |event| async move {
                let found = match event {
                    finalizer::Event::Apply(_) => "apply",
                    finalizer::Event::Cleanup(_) => "cleanup",
                };
                assert_eq!(found, what);
                Ok::<_, std::io::Error>(Action::await_change())
            });
            done.await.expect("no error");
        }
    };
    // The first only adds the finalizer.
    step("apply").await;
    step("apply").await;
    api.delete("final", &DeleteParams::default())
        .await
        .expect("it waits");
    step("cleanup").await;
    assert!(api.get_opt("final").await.expect("no error").is_none());
}

async fn streams(client: &Client) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "web", "image": "busybox:test", "command": ["sh", "-c",
                "echo started; mkdir /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www"],
            "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}}]},
    }));
    pods.create(&PostParams::default(), &pod.expect("a pod"))
        .await
        .expect("it is made");
    let ready = |pod: Option<&Pod>| {
        conditions::is_pod_running().matches_object(pod)
            && pod
                .and_then(|pod| pod.status.as_ref()?.conditions.as_ref())
                .is_some_and(|all| {
                    all.iter()
                        .any(|each| each.type_ == "Ready" && each.status == "True")
                })
    };
    within(
        "the pod is ready",
        await_condition(pods.clone(), "web", ready),
    )
    .await
    .expect("no error");
    assert_eq!(
        pods.logs("web", &LogParams::default())
            .await
            .expect("a log"),
        "started\n"
    );

    let attach = AttachParams::default().stdin(true).stderr(false);
    let mut shell = pods.exec("web", ["cat"], &attach).await.expect("it runs");
    let (mut input, mut output) = (
        shell.stdin().expect("its input"),
        shell.stdout().expect("its output"),
    );
    input
        .write_all(b"there and back\n")
        .await
        .expect("it is written");
    let mut line = vec![0; 15];
    within("it comes back", output.read_exact(&mut line))
        .await
        .expect("a line");
    assert_eq!(line, b"there and back\n");
    // The end of the input ends the program: only the newest protocol can say that. (Dropping
    // what `kube` hands out does not end it.)
    input.shutdown().await.expect("it is closed");
    let status = shell.take_status().expect("a status");
    let status = within("the program ends", status).await.expect("a status");
    assert_eq!(status.status.as_deref(), Some("Success"));

    let mut fails = pods
        .exec("web", ["sh", "-c", "exit 7"], &AttachParams::default())
        .await
        .expect("it runs");
    let status = fails.take_status().expect("a status");
    let status = within("the program ends", status).await.expect("a status");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));

    let mut forward = pods
        .portforward("web", &[8080])
        .await
        .expect("it is forwarded");
    let mut stream = forward.take_stream(8080).expect("a stream");
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("it is written");
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer))
        .await
        .expect("text");
    assert!(answer.ends_with("hello\n"), "{answer}");

    // A rollout through the scale of its own.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "d"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"d": "d"}},
            "template": {"metadata": {"labels": {"d": "d"}}, "spec": {
                "containers": [{"name": "c", "image": "busybox:test", "command": ["sleep", "1000"]}],
                "terminationGracePeriodSeconds": 0}}},
    }));
    deployments
        .create(&PostParams::default(), &deployment.expect("a deployment"))
        .await
        .expect("it is made");
    let one = json!({"spec": {"replicas": 1}});
    let scaled = deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(one))
        .await
        .expect("it is scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(1));
    let done = conditions::is_deployment_completed();
    within("it is rolled out", await_condition(deployments, "d", done))
        .await
        .expect("no error");
}
