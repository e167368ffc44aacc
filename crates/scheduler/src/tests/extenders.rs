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

#[test]
fn what_is_not_done_is_refused_by_name() {
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
        file(json!({"urlPrefix": "http://x", "preemptVerb": "preempt"})),
        "preemptVerb of extender \"http://x\" is not supported by Evenkeel's scheduler"
    );
    assert_eq!(
        file(json!({"urlPrefix": "http://x", "prioritizeVerb": "p"})),
        "extender \"http://x\": must have a positive weight applied to it"
    );
    assert_eq!(
        file(json!({"urlPrefix": "x"})),
        "extender \"x\": urlPrefix needs a scheme and a host"
    );
}
