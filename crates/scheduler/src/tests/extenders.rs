//! Extenders: who is asked what, and what their answers do.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use k8s_openapi::api::core::v1::{Event, Pod};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::door::start_with;
use super::objects::{node, pod, pod_with};
use crate::config;
use crate::pod::node_name;

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// One request and its answer; `None` at the end of the connection.
async fn serve_one(stream: &mut TcpStream, answers: &Value, asked: &Asked) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1)?.to_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    let mut body = vec![0; length.1.trim().parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let verb = path.rsplit('/').next()?.to_owned();
    let (status, answer) = match answers.get(&verb) {
        Some(answer) => ("200 OK", answer.to_string()),
        None => ("500 Internal Server Error", "no".to_owned()),
    };
    asked
        .lock()
        .push((path, serde_json::from_slice(&body).ok()?));
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    );
    stream.write_all(text.as_bytes()).await.ok()
}

async fn extender(answers: Value) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!(
        "http://{}/prefix",
        listener.local_addr().expect("an address")
    );
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio_util::task::TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answers, seen) = (answers.clone(), Arc::clone(&seen));
            tokio_util::task::TaskTracker::new().spawn(async move {
                while serve_one(&mut stream, &answers, &seen).await.is_some() {}
            });
        }
    });
    (url, asked)
}

fn configuration(extender: &Value) -> Vec<config::ProfileConfig> {
    let file = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "extenders": [extender],
    });
    config::read(&file.to_string()).expect("a configuration")
}

#[tokio::test]
async fn filters_and_scores_choose_the_node() {
    let (url, asked) = extender(json!({
        // Go reads names in any case.
        "filter": {"nodenames": ["b", "c"], "failedNodes": {"a": "too far"}},
        "prioritize": [{"Host": "b", "Score": 1}, {"host": "c", "score": 10}],
    }))
    .await;
    let api = FakeApi::new(FakeClock::shared());
    // Alone, the plugins prefer the emptier node b.
    for (name, size) in [("a", 4000), ("b", 4000), ("c", 2000)] {
        api.put(&node(name, size, 4096));
    }
    let configs = configuration(&json!({"urlPrefix": url, "filterVerb": "filter",
        "prioritizeVerb": "prioritize", "weight": 5, "nodeCacheCapable": true,
        "httpTimeout": "60s"}));
    let (_, shutdown) = start_with(&api, &configs);
    api.put(&pod("web", 500));
    let bound = api
        .wait_for("a binding", |api| {
            let pod = api.get::<Pod>("default", "web")?;
            node_name(&pod).map(str::to_owned)
        })
        .await;
    assert_eq!(bound, "c");
    let asked = asked.lock().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0].0, "/prefix/filter");
    assert_eq!(asked[0].1["Pod"]["metadata"]["name"], "web");
    let mut names: Vec<&str> = asked[0].1["NodeNames"]
        .as_array()
        .expect("names")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(asked[1].1["NodeNames"].as_array().map(Vec::len), Some(2));
    shutdown.cancel();
}

#[tokio::test]
async fn what_they_refuse_is_told_in_their_words() {
    let (url, _) = extender(json!({"filter": {"Nodes": {"items": []},
        "FailedNodes": {"a": "no licence"}, "FailedAndUnresolvableNodes": {"b": "wrong rack"}}}))
    .await;
    let api = FakeApi::new(FakeClock::shared());
    for name in ["a", "b"] {
        api.put(&node(name, 1000, 1024));
    }
    let configs =
        configuration(&json!({"urlPrefix": url, "filterVerb": "filter", "httpTimeout": "60s"}));
    let (_, shutdown) = start_with(&api, &configs);
    api.put(&pod("web", 500));
    let event = api
        .wait_for("an event", |api| api.all::<Event>().into_iter().next())
        .await;
    let text = event.message.unwrap_or_default();
    assert!(
        text.starts_with("0/2 nodes are available: 1 no licence, 1 wrong rack."),
        "{text}"
    );
    shutdown.cancel();
}

#[tokio::test]
async fn one_that_fails_stops_its_pods_unless_it_is_ignorable() {
    let (url, asked) = extender(json!({"bind": {"Error": ""}})).await;
    let api = FakeApi::new(FakeClock::shared());
    api.put(&node("a", 1000, 1024));
    api.put(&node("b", 1000, 1024));
    let mut extender = json!({"urlPrefix": url, "filterVerb": "filter", "httpTimeout": "60s",
        "bindVerb": "bind",
        "managedResources": [{"name": "example.com/card", "ignoredByScheduler": true}]});
    let (_, shutdown) = start_with(&api, &configuration(&extender));
    // Of pods that do not ask for what it manages it is not asked.
    api.put(&pod("plain", 100));
    let card = json!({"spec": {"containers": [{"name": "main", "image": "x",
        "resources": {"requests": {"example.com/card": "1"}}}]}});
    api.put(&pod_with("carded", 100, &card));
    let event = api
        .wait_for("the failure", |api| {
            let mut events = api.all::<Event>().into_iter();
            events.find(|event| event.reason.as_deref() == Some("FailedScheduling"))
        })
        .await;
    assert_eq!(
        event.message,
        Some(format!(
            "failed filter with extender at URL {url}/filter, code 500"
        ))
    );
    api.wait_for("the other pod's binding", |api| {
        api.get::<Pod>("default", "plain")
            .filter(|pod| node_name(pod).is_some())
    })
    .await;
    shutdown.cancel();
    // Ignorable: it is skipped, and still binds.
    extender["ignorable"] = true.into();
    let (_, shutdown) = start_with(&api, &configuration(&extender));
    let seen = Arc::clone(&asked);
    api.wait_for("the question to bind", move |_| {
        let seen = seen.lock();
        seen.iter()
            .find(|(path, _)| path == "/prefix/bind")
            .cloned()
    })
    .await;
    let asked = asked.lock();
    let (_, binding) = asked
        .iter()
        .find(|(path, _)| path == "/prefix/bind")
        .expect("it was asked");
    assert_eq!(binding["PodName"], "carded");
    assert_eq!(binding["PodUID"], "uid-carded");
    shutdown.cancel();
}

/// Two full nodes, whose pods may go for a more important one: that of `a` is the less important.
fn two_full_nodes(api: &FakeApi) {
    for (name, priority) in [("a", 1), ("b", 5)] {
        api.put(&node(name, 1000, 1024));
        let there = json!({"spec": {"priority": priority, "nodeName": name}});
        api.put(&pod_with(&format!("low-{name}"), 1000, &there));
    }
}

fn important() -> Pod {
    pod_with("web", 500, &json!({"spec": {"priority": 100}}))
}

fn leaving(api: &FakeApi, name: &str) -> bool {
    let pod = api.get::<Pod>("default", name).expect("a pod");
    pod.metadata.deletion_timestamp.is_some()
}

async fn nominated(api: &FakeApi) -> String {
    api.wait_for("a nomination", |api| {
        api.get::<Pod>("default", "web")?
            .status?
            .nominated_node_name
    })
    .await
}

#[tokio::test]
async fn whose_place_a_pod_takes_they_may_decide() {
    let (url, asked) = extender(json!({"preempt": {"nodeNameToMetaVictims":
        {"b": {"Pods": [{"UID": "uid-low-b"}], "numPDBViolations": 0}}}}))
    .await;
    let api = FakeApi::new(FakeClock::shared());
    two_full_nodes(&api);
    let knows = json!({"urlPrefix": url, "preemptVerb": "preempt", "nodeCacheCapable": true,
        "httpTimeout": "60s"});
    let (_, shutdown) = start_with(&api, &configuration(&knows));
    api.put(&important());
    assert_eq!(nominated(&api).await, "b", "alone, a would be taken");
    api.wait_for("the victim's deletion", |api| {
        leaving(api, "low-b").then_some(())
    })
    .await;
    assert!(!leaving(&api, "low-a"));
    shutdown.cancel();
    let (path, question) = asked.lock().first().cloned().expect("it was asked");
    assert_eq!(path, "/prefix/preempt");
    assert_eq!(question["Pod"]["metadata"]["name"], "web");
    assert_eq!(question["NodeNameToVictims"], Value::Null);
    let victims =
        |node: &str| json!({"Pods": [{"UID": format!("uid-low-{node}")}], "NumPDBViolations": 0});
    assert_eq!(
        question["NodeNameToMetaVictims"],
        json!({"a": victims("a"), "b": victims("b")})
    );
}

#[tokio::test]
async fn where_they_leave_no_node_nobody_goes() {
    let (url, asked) = extender(json!({"preempt": {}})).await;
    let api = FakeApi::new(FakeClock::shared());
    two_full_nodes(&api);
    let knows_nothing = json!({"urlPrefix": url, "preemptVerb": "preempt", "httpTimeout": "60s"});
    let (_, shutdown) = start_with(&api, &configuration(&knows_nothing));
    api.put(&important());
    let event = api
        .wait_for("an event", |api| api.all::<Event>().into_iter().next())
        .await;
    assert_eq!(
        event.message.unwrap_or_default(),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: no candidate node for preemption"
    );
    shutdown.cancel();
    assert!(!leaving(&api, "low-a") && !leaving(&api, "low-b"));
    // Who does not know pods is told of them as a whole.
    let (_, question) = asked.lock().first().cloned().expect("it was asked");
    let victim = &question["NodeNameToVictims"]["a"]["Pods"][0];
    assert_eq!(victim["spec"]["nodeName"], "a");
    assert_eq!(question["NodeNameToMetaVictims"], Value::Null);
}

#[tokio::test]
async fn victims_that_make_no_sense_are_told_or_ignored() {
    let strange = |victims: Value| json!({"preempt": {"nodeNameToMetaVictims": victims}});
    let pods = |uid: &str| json!({"pods": [{"uid": uid}]});
    let none = json!({"b": {"pods": []}});
    let rows = [
        (
            strange(json!({"b": pods("uid-low-a")})),
            "extender: URL claims to preempt pod (UID: uid-low-a) on node: b, but the pod is not found on that node",
        ),
        (
            strange(json!({"c": pods("uid-low-a")})),
            "nodeinfo not found for node name \"c\"",
        ),
        (
            strange(none.clone()),
            "expected at least one victim pod on node \"b\"",
        ),
        (
            json!({}),
            "failed preempt with extender at URL URL/preempt, code 500",
        ),
    ];
    for (answers, wanted) in rows {
        let (url, _) = extender(answers).await;
        let api = FakeApi::new(FakeClock::shared());
        two_full_nodes(&api);
        let asked = json!({"urlPrefix": url, "preemptVerb": "preempt", "httpTimeout": "60s"});
        let (_, shutdown) = start_with(&api, &configuration(&asked));
        api.put(&important());
        let event = api
            .wait_for("an event", |api| api.all::<Event>().into_iter().next())
            .await;
        let told = event.message.unwrap_or_default().replace(&url, "URL");
        let before = "0/2 nodes are available: 2 Insufficient cpu. preemption: ";
        assert_eq!(told, format!("{before}{wanted}"));
        shutdown.cancel();
    }
    // One that may be ignored is, and the cheapest node is taken.
    let (url, _) = extender(json!({})).await;
    let api = FakeApi::new(FakeClock::shared());
    two_full_nodes(&api);
    let ignorable = json!({"urlPrefix": url, "preemptVerb": "preempt", "httpTimeout": "60s",
        "ignorable": true});
    let (_, shutdown) = start_with(&api, &configuration(&ignorable));
    api.put(&important());
    assert_eq!(nominated(&api).await, "a");
    shutdown.cancel();
}

/// A certificate authority, PEM in base64, that was made for this and has no key any more.
const CA: &str = "\
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJoRENDQVNtZ0F3SUJBZ0lVZDNia1hWTDZxeXRFSHRTY05W\
    NzZ4bk9lZDdBd0NnWUlLb1pJemowRUF3SXcKRmpFVU1CSUdBMVVFQXd3TFpYaDBaVzVrWlhJdFkyRXdJQmNOTWpZ\
    eE1USXpNREV5T0RNeldoZ1BNakV5TmpFdwpNekF3TVRJNE16TmFNQll4RkRBU0JnTlZCQU1NQzJWNGRHVnVaR1Z5\
    TFdOaE1Ga3dFd1lIS29aSXpqMENBUVlJCktvWkl6ajBEQVFjRFFnQUVNem83STdYRktWZmJVbUdKWlgra1gxb1BL\
    Y1ArdG9LSlh2SGxURkk2blc5djNQTk4KKzhwUG9LV0hVTTB6N3RZeVowTnZhWnN2MnpoaC9FaklLRW1iWktOVE1G\
    RXdIUVlEVlIwT0JCWUVGRVh3RjdRagovSzdTb3NYTU83emxlTElWemZ3R01COEdBMVVkSXdRWU1CYUFGRVh3RjdR\
    ai9LN1Nvc1hNTzd6bGVMSVZ6ZndHCk1BOEdBMVVkRXdFQi93UUZNQU1CQWY4d0NnWUlLb1pJemowRUF3SURTUUF3\
    UmdJaEFMaHRGR29weXFhUUVDTDIKRHp3UFh1M1VaNm5VdzZOUGMzSWR4dldMQW1ZOUFpRUE0MHlMSFZOdWsrb0Fq\
    VWdpZ0hZcDJEd2FraVNMaGp2ZgpzVFpVTzhQMjFIST0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";

#[tokio::test]
async fn certificates_may_stand_in_the_file_itself() {
    let secured = |ca: &str| {
        configuration(
            &json!({"urlPrefix": "https://127.0.0.1:1", "filterVerb": "filter",
            "enableHTTPS": true,
            "tlsConfig": {"caData": ca, "caFile": "/nowhere", "serverName": "x"}}),
        )
    };
    // What can't be read is told when it is asked; nobody listens there.
    for (ca, wanted) in [(CA, "Post"), ("?", "Invalid symbol")] {
        let api = FakeApi::new(FakeClock::shared());
        api.put(&node("a", 1000, 1024));
        let (_, shutdown) = start_with(&api, &secured(ca));
        api.put(&pod("web", 500));
        let event = api
            .wait_for("an event", |api| api.all::<Event>().into_iter().next())
            .await;
        let told = event.message.unwrap_or_default();
        assert!(told.contains(wanted), "{told}");
        shutdown.cancel();
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let file = |extender: Value| {
        let file = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "extenders": [extender],
        });
        config::read(&file.to_string())
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        file(json!({"urlPrefix": "http://x", "prioritizeVerb": "p"})),
        "extender \"http://x\": must have a positive weight applied to it"
    );
    assert_eq!(
        file(json!({"urlPrefix": "x"})),
        "extender \"x\": urlPrefix needs a scheme and a host"
    );
}
