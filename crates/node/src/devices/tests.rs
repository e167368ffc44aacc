//! Device plugins: who gets which device, and a plugin of ours over real sockets.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use evenkeel_grpc::{Channel, GrpcError, Target};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use proptest::prelude::*;
use prost::Message;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::ledger::{Ledger, Wish};
use super::{Devices, proto};

const RESOURCE: &str = "example.com/card";

fn pod(init: u32, apps: &[u32]) -> Pod {
    let container = |name: String, count: u32| json!({"name": name, "resources": {"limits": {RESOURCE: count.to_string(), "cpu": "1"}}});
    let mut containers = Vec::new();
    for (at, count) in apps.iter().enumerate() {
        containers.push(container(format!("app-{at}"), *count));
    }
    let mut spec = json!({"containers": containers});
    if init > 0 {
        spec["initContainers"] = json!([container("init".to_owned(), init)]);
    }
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
}

/// A method, and the devices that it was about.
type Call = (String, Vec<String>);

/// What a plugin of the tests knows.
#[derive(Clone)]
struct Fake {
    devices: watch::Sender<Vec<(String, bool)>>,
    asked: Arc<Mutex<Vec<Call>>>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn framed(message: &impl Message) -> Frame<Bytes> {
    let bytes = message.encode_to_vec();
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(bytes.len()).expect("small"));
    out.put_slice(&bytes);
    Frame::data(out.freeze())
}

fn fine() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(0));
    Frame::trailers(trailers)
}

fn answered(message: &impl Message) -> Body {
    let frames = [framed(message), fine()];
    StreamBody::new(futures::stream::iter(frames.map(Ok))).boxed_unsync()
}

impl Fake {
    async fn call(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let whole = request.into_body().collect().await.expect("a request");
        let bytes = whole.to_bytes().slice(5..);
        let body = match path.as_str() {
            "/v1beta1.DevicePlugin/ListAndWatch" => {
                let lists = tokio_stream(self.devices.subscribe()).map(|devices| {
                    let devices = devices.into_iter().map(|(id, works)| proto::Device {
                        id,
                        health: if works { "Healthy" } else { "Unhealthy" }.to_owned(),
                    });
                    let list = proto::ListAndWatchResponse {
                        devices: devices.collect(),
                    };
                    Ok(framed(&list))
                });
                StreamBody::new(lists).boxed_unsync()
            }
            "/v1beta1.DevicePlugin/Allocate" => {
                let asked = proto::AllocateRequest::decode(bytes).expect("a request");
                let ids = asked.container_requests[0].device_ids.clone();
                self.asked.lock().push(("Allocate".to_owned(), ids.clone()));
                let given = proto::ContainerAllocateResponse {
                    envs: [("CARDS".to_owned(), ids.join(","))].into(),
                    devices: vec![proto::DeviceSpec {
                        container_path: "/dev/card".to_owned(),
                        host_path: "/dev/null".to_owned(),
                        permissions: "rw".to_owned(),
                    }],
                    ..proto::ContainerAllocateResponse::default()
                };
                answered(&proto::AllocateResponse {
                    container_responses: vec![given],
                })
            }
            "/v1beta1.DevicePlugin/PreStartContainer" => {
                let asked = proto::ContainerDevices::decode(bytes).expect("a request");
                self.asked
                    .lock()
                    .push(("PreStart".to_owned(), asked.device_ids));
                answered(&proto::Empty {})
            }
            "/v1beta1.DevicePlugin/GetPreferredAllocation" => {
                let asked = proto::PreferredAllocationRequest::decode(bytes).expect("a request");
                let one = &asked.container_requests[0];
                // The last ones.
                let size = usize::try_from(one.allocation_size).expect("a size");
                let ids = one.available_device_ids.iter().rev().take(size);
                answered(&proto::PreferredAllocationResponse {
                    container_responses: vec![proto::ContainerDevices {
                        device_ids: ids.cloned().collect(),
                    }],
                })
            }
            other => panic!("nobody calls {other}"),
        };
        let mut response = Response::new(body);
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    }

    /// Serves at a socket until the handle is dropped.
    fn serve(&self, path: &Path) -> AbortOnDropHandle<()> {
        let listener = UnixListener::bind(path).expect("a socket");
        let fake = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let fake = fake.clone();
                connections.spawn(async move {
                    let each = service_fn(move |request| {
                        let fake = fake.clone();
                        async move { Ok::<_, Infallible>(fake.call(request).await) }
                    });
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(stream), each).await);
                });
            }
        }))
    }
}

/// The value of a watch, and each that it has after that.
fn tokio_stream<T: Clone + Send + Sync + 'static>(
    receiver: watch::Receiver<T>,
) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold((receiver, true), |(mut receiver, first)| async move {
        if !first {
            receiver.changed().await.ok()?;
        }
        let value = receiver.borrow_and_update().clone();
        Some((value, (receiver, false)))
    })
}

async fn register(root: &Path, request: &proto::RegisterRequest) -> Result<(), GrpcError> {
    let path = root.join("device-plugins").join(super::SOCKET);
    let channel = Channel::new(Target::Unix { path }, HeaderMap::new());
    let within = Duration::from_secs(60);
    let answer = channel.unary::<proto::Empty>(super::REGISTER, request, within);
    answer.await.map(drop)
}

async fn until(devices: &Devices, what: &str, holds: impl Fn(&Devices) -> bool) {
    let waiting = async {
        while !holds(devices) {
            // Told, or looked at again: a notice may have gone to another look.
            let _ = tokio::time::timeout(Duration::from_millis(50), devices.changed()).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "{what}: {:?}", devices.amounts());
}

fn request() -> proto::RegisterRequest {
    proto::RegisterRequest {
        version: "v1beta1".to_owned(),
        endpoint: "card.sock".to_owned(),
        resource_name: RESOURCE.to_owned(),
        options: Some(proto::Options {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        }),
    }
}

#[tokio::test]
async fn a_plugin_registers_lists_gives_and_goes() {
    let home = tempfile::tempdir().expect("a directory");
    let devices = Devices::new(home.path());
    let agent = AbortOnDropHandle::new(tokio::spawn(devices.clone().run()));
    let directory = home.path().join("device-plugins");
    let waiting = async {
        while !directory.join(super::SOCKET).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let there = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    there.expect("the agent's socket");
    for (wrong, text) in [
        (
            proto::RegisterRequest {
                version: "v9".to_owned(),
                ..request()
            },
            "requested API version \"v9\" is not supported by kubelet. Supported version is \
             \"v1beta1\"",
        ),
        (
            proto::RegisterRequest {
                resource_name: "card".to_owned(),
                ..request()
            },
            "the ResourceName \"card\" is invalid",
        ),
        (
            proto::RegisterRequest {
                endpoint: "../x.sock".to_owned(),
                ..request()
            },
            "the Endpoint \"../x.sock\" is invalid",
        ),
    ] {
        match register(home.path(), &wrong).await {
            Err(GrpcError::Status { message, .. }) => assert_eq!(message, text),
            other => panic!("it is refused: {other:?}"),
        }
    }
    let names = ["c0", "c1", "c2", "c3"];
    let list = |broken: &str| {
        let all = names
            .iter()
            .map(|name| ((*name).to_owned(), *name != broken));
        all.collect::<Vec<_>>()
    };
    let fake = Fake {
        devices: watch::Sender::new(list("")),
        asked: Arc::default(),
    };
    let plugin = fake.serve(&directory.join("card.sock"));
    register(home.path(), &request())
        .await
        .expect("it registers");
    until(&devices, "four devices", |devices| {
        devices.amounts().get(RESOURCE) == Some(&(4, 4))
    })
    .await;
    fake.devices.send_replace(list("c1"));
    until(&devices, "one is broken", |devices| {
        devices.amounts().get(RESOURCE) == Some(&(3, 4))
    })
    .await;
    // Two pods: the second gets what is left, and a third nothing.
    let (one, two) = (pod(0, &[1]), pod(2, &[2]));
    devices.admit("one", &one).await.expect("a device");
    devices.admit("two", &two).await.expect("two devices");
    let refused = devices
        .admit("three", &one)
        .await
        .expect_err("none is left");
    assert_eq!(
        refused,
        "requested number of devices unavailable for example.com/card. Requested: 1, Available: 0"
    );
    let given = devices.start("one", &one, "app-0").await.expect("given");
    assert_eq!(given[0].env["CARDS"], "c3");
    assert_eq!(given[0].devices[0].1, "/dev/null");
    // What the init container had goes to the container after it.
    let first = devices.start("two", &two, "init").await.expect("given");
    let second = devices.start("two", &two, "app-0").await.expect("given");
    assert_eq!(first[0].env["CARDS"], "c0,c2");
    assert_eq!(first, second);
    assert!(
        fake.asked
            .lock()
            .contains(&("PreStart".to_owned(), vec!["c3".to_owned()]))
    );
    // Another agent finds who has what; until the plugin comes again it gives nothing.
    drop(agent);
    let devices = Devices::new(home.path());
    assert_eq!(devices.amounts().get(RESOURCE), Some(&(0, 0)));
    let given = devices.start("one", &one, "app-0").await.expect("kept");
    assert_eq!(given[0].env["CARDS"], "c3");
    devices
        .admit("four", &one)
        .await
        .expect_err("its plugin is not there");
    devices.keep(&|uid| uid == "one");
    devices
        .start("two", &two, "app-0")
        .await
        .expect_err("it is gone");
    drop(plugin);
}

#[tokio::test(start_paused = true)]
async fn the_devices_of_a_plugin_that_is_gone_do_not_work_and_then_are_not_there() {
    let mut ledger = Ledger::default();
    assert!(ledger.list(RESOURCE, [("a".to_owned(), true)].into()));
    assert_eq!(ledger.amounts()[RESOURCE], (1, 1));
    ledger.lost(RESOURCE);
    assert_eq!(ledger.amounts()[RESOURCE], (0, 1));
    ledger.forget(RESOURCE);
    assert_eq!(ledger.amounts()[RESOURCE], (0, 0));
    assert!(!ledger.list(RESOURCE, [("a".to_owned(), true)].into()));
    ledger.forget(RESOURCE);
    assert_eq!(ledger.amounts()[RESOURCE], (1, 1));
}

#[derive(Debug, Clone)]
enum Step {
    /// Pod, sizes of its init container and its containers.
    Admit(u8, u32, Vec<u32>),
    Release(u8),
    /// Which devices work.
    List(Vec<bool>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let admit = (0u8..6, 0u32..3, prop::collection::vec(1u32..3, 1..3));
    let step = prop_oneof![
        3 => admit.prop_map(|(pod, init, apps)| Step::Admit(pod, init, apps)),
        2 => (0u8..6).prop_map(Step::Release),
        1 => prop::collection::vec(any::<bool>(), 6).prop_map(Step::List),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// Whatever comes: no device is held by two containers that may run at the same time, and each
    /// container holds as many as it asked for.
    #[test]
    fn no_device_is_given_twice(steps in steps()) {
        let mut ledger = Ledger::default();
        let list = |works: &[bool]| {
            let all = works.iter().enumerate();
            all.map(|(at, works)| (format!("d{at}"), *works)).collect()
        };
        ledger.list(RESOURCE, list(&[true; 6]));
        for step in steps {
            match step {
                Step::Release(uid) => {
                    ledger.release(&uid.to_string());
                }
                Step::List(works) => {
                    ledger.list(RESOURCE, list(&works));
                }
                Step::Admit(uid, init, apps) => {
                    let uid = uid.to_string();
                    if ledger.pods.contains_key(&uid) {
                        continue;
                    }
                    let mut passed_on = BTreeSet::new();
                    for wish in super::wishes(&pod(init, &apps), &uid) {
                        match ledger.choose(&wish, &passed_on) {
                            Ok(Some(choice)) => {
                                let ids = Ledger::pick(&wish, &choice, &[]);
                                prop_assert_eq!(ids.len(), wish.count);
                                let works = &ledger.resources[RESOURCE].devices;
                                prop_assert!(ids.iter().all(|id| works[id]));
                                ledger.take(&wish, ids);
                            }
                            Ok(None) => {}
                            Err(_) => {
                                ledger.release(&uid);
                                break;
                            }
                        }
                        if wish.passes_on {
                            passed_on.insert(wish.container.clone());
                        }
                    }
                }
            }
            let mut owners: Vec<(&String, &String, &String)> = Vec::new();
            for (uid, containers) in &ledger.pods {
                for (container, held) in containers {
                    for id in held.values().flat_map(|holding| &holding.ids) {
                        for (other, theirs, known) in &owners {
                            let apart = *other == uid
                                && (container == "init") != (theirs.as_str() == "init");
                            prop_assert!(*known != id || apart, "{id} twice");
                        }
                        owners.push((uid, container, id));
                    }
                }
            }
        }
    }
}

#[test]
fn a_wish_that_changes_is_refused() {
    let mut ledger = Ledger::default();
    ledger.list(
        RESOURCE,
        [("a".to_owned(), true), ("b".to_owned(), true)].into(),
    );
    let wish = |count| Wish {
        pod: "u".to_owned(),
        container: "c".to_owned(),
        passes_on: false,
        resource: RESOURCE.to_owned(),
        count,
    };
    ledger.take(&wish(1), ["a".to_owned()].into());
    assert_eq!(ledger.choose(&wish(1), &BTreeSet::new()), Ok(None));
    assert_eq!(
        ledger.choose(&wish(2), &BTreeSet::new()).unwrap_err(),
        "pod \"u\" container \"c\" changed request for resource \"example.com/card\" from 1 to 2"
    );
}
