//! Probes: by exec on paused time, by sockets on real time.

use std::time::Duration;

use evenkeel_node::testing::Behaviour;
use evenkeel_runtime::ExecOutput;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cluster::{Node, condition, container};

fn answering(code: i32, text: &str) -> Behaviour {
    let exec = ExecOutput {
        stderr: text.as_bytes().to_vec(),
        exit_code: code,
        ..ExecOutput::default()
    };
    Behaviour {
        exec,
        ..Behaviour::default()
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_probe_at_once() {
    let node = Node::start();
    node.runtime.behave("app", answering(1, "no"));
    let mut app = container("app");
    app["readinessProbe"] =
        json!({ "exec": { "command": ["check"] }, "periodSeconds": 5, "failureThreshold": 2 });
    node.pod("web", json!({ "containers": [app] }));
    let pod = node
        .until("web", |pod| {
            pod["status"]["containerStatuses"][0]["started"] == true
        })
        .await;
    assert_eq!(condition(&pod, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(
        condition(&pod, "Ready")["message"],
        "containers with unready status: [app]"
    );
    tokio::time::sleep(Duration::from_secs(7)).await;
    node.runtime.behave("app", answering(0, ""));
    let began = tokio::time::Instant::now();
    node.until_ready("web").await;
    assert!(began.elapsed() <= Duration::from_secs(5));
    node.runtime.behave("app", answering(1, "no"));
    let began = tokio::time::Instant::now();
    node.until("web", |pod| condition(pod, "Ready")["status"] == "False")
        .await;
    let passed = began.elapsed().as_secs();
    assert!((5..=10).contains(&passed), "{passed}");
    let events = node.events();
    let wanted = (
        "Unhealthy".to_owned(),
        "Readiness probe failed: no".to_owned(),
    );
    assert!(events.contains(&wanted), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_the_container() {
    let node = Node::start();
    node.runtime.behave("app", answering(2, "stuck"));
    let mut app = container("app");
    app["livenessProbe"] = json!({ "exec": { "command": ["check"] }, "periodSeconds": 1 });
    node.pod("web", json!({ "containers": [app] }));
    node.until("web", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    let events = node.events();
    for (reason, text) in [
        ("Unhealthy", "Liveness probe failed: stuck"),
        (
            "Killing",
            "Container app failed liveness probe, will be restarted",
        ),
    ] {
        assert!(
            events.contains(&(reason.to_owned(), text.to_owned())),
            "{events:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_holds_the_others_back() {
    let node = Node::start();
    node.runtime.behave("app", answering(1, ""));
    let mut app = container("app");
    let check = json!({ "exec": { "command": ["check"] }, "periodSeconds": 2,
                        "failureThreshold": 30 });
    app["startupProbe"] = check.clone();
    app["livenessProbe"] = json!({ "exec": { "command": ["alive"] }, "failureThreshold": 1 });
    node.pod("web", json!({ "containers": [app] }));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let pod = node.api.get("pods", "default", "web").expect("there");
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], false);
    assert!(!node.runtime.calls().contains(&"exec alive".to_owned()));
    node.runtime.behave("app", answering(0, ""));
    let pod = node.until_ready("web").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], true);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

/// Answers every request with a status line, one connection at a time.
async fn serve(listener: TcpListener, head: &'static str) {
    serve_text(listener, head, "").await;
}

/// The same, with a body.
async fn serve_text(listener: TcpListener, head: &'static str, body: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).await.is_ok() {
            let length = body.len();
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    }
}

fn http_probe(port: u16) -> Value {
    json!({ "httpGet": { "host": "127.0.0.1", "port": port, "path": "/ready" },
            "periodSeconds": 30, "timeoutSeconds": 2 })
}

#[tokio::test]
async fn a_program_that_comes_up_late_is_ready_when_it_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let node = Node::start();
    let mut app = container("app");
    app["readinessProbe"] = http_probe(port);
    node.pod("web", json!({ "containers": [app] }));
    node.until("web", |pod| {
        pod["status"]["containerStatuses"][0]["started"] == true
    })
    .await;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("bound again");
    let server = tokio::spawn(serve(listener, "200 OK"));
    let ready = tokio::time::timeout(Duration::from_secs(10), node.until_ready("web")).await;
    assert!(ready.is_ok(), "not a period later");
    server.abort();
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_a_success_with_a_warning() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let head = "302 Found\r\nlocation: http://other.example/";
    let server = tokio::spawn(serve_text(listener, head, "<a>Found</a>.\n"));
    let node = Node::start();
    let mut app = container("app");
    app["readinessProbe"] = http_probe(port);
    node.pod("web", json!({ "containers": [app] }));
    node.until_ready("web").await;
    let wanted = (
        "ProbeWarning".to_owned(),
        "Readiness probe warning: Probe terminated redirects, Response body: <a>Found</a>.\n"
            .to_owned(),
    );
    let events = node.events();
    assert!(events.contains(&wanted), "{events:?}");
    server.abort();
}

#[tokio::test]
async fn an_http_status_of_500_is_told_in_kubelets_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(serve(listener, "500 Internal Server Error"));
    let node = Node::start();
    let mut app = container("app");
    app["readinessProbe"] = http_probe(port);
    node.pod("web", json!({ "containers": [app] }));
    let wanted = "Readiness probe failed: HTTP probe failed with statuscode: 500";
    let mut told = false;
    for _ in 0..100 {
        told = node.events().iter().any(|(_, message)| message == wanted);
        if told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told, "{:?}", node.events());
    server.abort();
}
