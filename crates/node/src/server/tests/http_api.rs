//! Plain requests: who gets in, what is refused by name, logs as kubectl asks for them.

use std::io::Write;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::fake::FakeNode;
use super::tls::TestNode;
use crate::server::{Access, Caller, Judge};

const API_SERVER: Option<(&str, Option<&str>)> = Some(("system:kube-apiserver", None));

async fn request(
    node: &TestNode,
    names: Option<(&str, Option<&str>)>,
    method: &str,
    path: &str,
) -> (StatusCode, String) {
    request_with(node, names, method, path, None).await
}

async fn request_with(
    node: &TestNode,
    names: Option<(&str, Option<&str>)>,
    method: &str,
    path: &str,
    authorization: Option<&str>,
) -> (StatusCode, String) {
    let stream = node.connect(names, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn log_file(lines: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    file
}

const LINES: &str = "2026-01-02T03:04:01.000000001Z stdout F one\n\
                     2026-01-02T03:04:02.000000002Z stderr P tw\n\
                     2026-01-02T03:04:02.000000003Z stderr F o\n\
                     2026-01-02T03:04:59.000000004Z stdout F three\n";

#[tokio::test]
async fn only_the_api_server_and_masters_get_in() {
    let log = log_file(LINES);
    let node = TestNode::start(FakeNode::new(log.path())).await;
    let (status, text) = request(&node, None, "GET", "/pods").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::UNAUTHORIZED, "Unauthorized")
    );
    let (status, text) = request(&node, Some(("eve", None)), "GET", "/stats/summary").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        text.contains("user=eve, verb=get, resource=nodes, subresource(s)=[stats]"),
        "{text}"
    );
    for names in [API_SERVER, Some(("root", Some("system:masters")))] {
        assert_eq!(
            request(&node, names, "GET", "/healthz").await,
            (StatusCode::OK, "ok".into())
        );
    }
}

/// Knows one token, whose owner may read figures and pods, and cannot say anything of another.
struct Prometheus;

impl Judge for Prometheus {
    fn who<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<Caller>, String>> {
        Box::pin(async move {
            match token {
                "scrape" => Ok(Some(Caller {
                    name: "prometheus".to_owned(),
                    ..Caller::default()
                })),
                "unknown" => Err("no connection".to_owned()),
                _ => Ok(None),
            }
        })
    }

    fn may<'a>(
        &'a self,
        caller: &'a Caller,
        access: Access<'a>,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            if access.subresources.contains(&"log") {
                return Err("no connection".to_owned());
            }
            Ok(access.verb == "get"
                && matches!(&*caller.name, "prometheus" | "eve")
                && access.subresources.iter().any(|it| *it != "stats"))
        })
    }
}

#[tokio::test]
async fn tokens_and_other_certificates_are_judged() {
    let log = log_file(LINES);
    let node = TestNode::judged(FakeNode::new(log.path()), Prometheus).await;
    let scrape = Some("Bearer scrape");
    for (names, method, path, token, status, text) in [
        (None, "GET", "/healthz", scrape, 200, "ok"),
        (None, "GET", "/healthz", Some("bearer  scrape"), 200, "ok"),
        (Some(("eve", None)), "GET", "/healthz", None, 200, "ok"),
        // A certificate says more than a token.
        (
            Some(("mallory", None)),
            "GET",
            "/healthz",
            scrape,
            403,
            "user=mallory",
        ),
        (
            None,
            "GET",
            "/healthz",
            Some("Basic scrape"),
            401,
            "Unauthorized",
        ),
        (
            None,
            "GET",
            "/healthz",
            Some("Bearer "),
            401,
            "Unauthorized",
        ),
        (
            None,
            "GET",
            "/healthz",
            Some("Bearer forged"),
            401,
            "Unauthorized",
        ),
        (
            None,
            "GET",
            "/healthz",
            Some("Bearer unknown"),
            401,
            "Unauthorized",
        ),
        (
            None,
            "GET",
            "/stats/summary",
            scrape,
            403,
            "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[stats])",
        ),
        (
            None,
            "DELETE",
            "/pods",
            scrape,
            403,
            "Forbidden (user=prometheus, verb=delete, resource=nodes, subresource(s)=[pods proxy])",
        ),
        // Who may look may not act.
        (
            None,
            "GET",
            "/exec/default/p/c?command=id&output=1",
            scrape,
            403,
            "Forbidden (user=prometheus, verb=create, resource=nodes, subresource(s)=[proxy])",
        ),
        (
            None,
            "GET",
            "/logs/",
            scrape,
            500,
            "Authorization error (user=prometheus, verb=get, resource=nodes, subresource(s)=[log])",
        ),
    ] {
        let (found, said) = request_with(&node, names, method, path, token).await;
        assert_eq!(found.as_u16(), status, "{method} {path} {token:?}: {said}");
        assert!(said.contains(text), "{method} {path} {token:?}: {said}");
    }
}

#[tokio::test]
async fn http2_is_served_too() {
    let log = log_file(LINES);
    let node = TestNode::start(FakeNode::new(log.path())).await;
    let stream = node.connect(API_SERVER, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/pods")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&"PodList".into(), &"p".into())
    );
}

#[tokio::test]
async fn refusals_carry_kubelets_texts() {
    let log = log_file(LINES);
    let node = TestNode::start(FakeNode::new(log.path())).await;
    let logs = "/containerLogs/default/p/c";
    for (method, path, status, text) in [
        (
            "GET",
            "/containerLogs/default/x/c",
            404,
            "pods \"x\" not found",
        ),
        (
            "GET",
            "/containerLogs/default/p/y",
            400,
            "container y is not valid for pod p",
        ),
        (
            "GET",
            "/containerLogs/default/p/w",
            400,
            "container \"w\" in pod \"p\" is waiting to start: ContainerCreating",
        ),
        (
            "GET",
            "/containerLogs/default/p/c?previous=true",
            400,
            "previous terminated container \"c\" in pod \"p\" not found",
        ),
        ("GET", &format!("{logs}?tailLines=x"), 400, "tailLines"),
        ("GET", &format!("{logs}?tailLines=-1"), 422, "tailLines"),
        ("GET", &format!("{logs}?limitBytes=0"), 422, "limitBytes"),
        (
            "GET",
            &format!("{logs}?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"),
            422,
            "at most one",
        ),
        (
            "GET",
            "/exec/default/p/c?command=ls&stdout=1",
            400,
            "missing upgrade headers",
        ),
        (
            "GET",
            "/exec/default/p/c?command=ls",
            400,
            "at least 1 of stdin, stdout, stderr",
        ),
        (
            "GET",
            "/exec/default/p/c?stdout=1",
            400,
            "at least one command",
        ),
        (
            "GET",
            "/exec/default/p/other-uid/c?command=ls&stdout=1",
            404,
            "pods \"p\" not found",
        ),
        (
            "GET",
            "/exec/default/p/w?command=ls&stdout=1",
            500,
            "container not found (\"w\")",
        ),
        ("GET", "/portForward/default/x", 404, "pods \"x\" not found"),
        ("GET", "/logs/syslog", 405, "logs endpoint is disabled"),
        ("GET", "/run/default/p/c?cmd=ls", 405, "Method Not Allowed"),
        ("DELETE", "/pods", 405, "Method Not Allowed"),
        (
            "GET",
            "/checkpoint/default/p/c",
            404,
            "/checkpoint is not served",
        ),
        (
            "GET",
            "/metrics/cadvisor",
            404,
            "/metrics/cadvisor is not served",
        ),
        ("GET", "/nothing", 404, "404 page not found"),
    ] {
        let (got, body) = request(&node, API_SERVER, method, path).await;
        assert_eq!(got.as_u16(), status, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

#[tokio::test]
async fn the_other_endpoints_answer() {
    let log = log_file(LINES);
    let node = TestNode::start(FakeNode::new(log.path())).await;
    for (method, path, text) in [
        ("GET", "/stats/summary", "\"nodeName\":\"n\""),
        ("GET", "/metrics", "up 1"),
        ("GET", "/metrics/resource", "node_cpu_usage_seconds_total"),
        ("GET", "/configz", "kubeletconfig"),
        ("POST", "/run/default/p/c?cmd=echo+hello", "hello"),
    ] {
        let (status, body) = request(&node, API_SERVER, method, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

#[tokio::test]
async fn logs_honour_their_options() {
    let log = log_file(LINES);
    let node = TestNode::start(FakeNode::new(log.path())).await;
    for (query, expected) in [
        ("", "one\ntwo\nthree\n"),
        ("tailLines=2", "two\nthree\n"),
        ("tailLines=0", ""),
        ("tailLines=9", "one\ntwo\nthree\n"),
        ("sinceSeconds=30", "three\n"),
        ("sinceTime=2026-01-02T03:04:02Z", "two\nthree\n"),
        ("limitBytes=6", "one\ntw"),
        ("stream=Stderr", "two\n"),
        ("stream=Stdout&tailLines=2", "one\nthree\n"),
        (
            "tailLines=2&timestamps=true&stream=All",
            "2026-01-02T03:04:02.000000002Z two\n2026-01-02T03:04:59.000000004Z three\n",
        ),
    ] {
        let path = format!("/containerLogs/default/p/c?{query}");
        let (status, body) = request(&node, API_SERVER, "GET", &path).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::OK, expected),
            "{query}"
        );
    }
}

#[tokio::test]
async fn followed_logs_come_line_by_line_across_a_rotation_until_the_container_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    std::fs::write(&path, "2026-01-02T03:04:01.0000000Z stdout F one\n").unwrap();
    let fake = FakeNode::new(&path);
    let node = TestNode::start(fake.clone()).await;
    let stream = node.connect_as_api_server().await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("/containerLogs/default/p/c?follow=true")
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
        frame
            .unwrap()
            .map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    };
    assert_eq!(next().await.as_deref(), Some("one\n"));
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("2026-01-02T03:04:02.0000000Z stdout F two\n");
    assert_eq!(next().await.as_deref(), Some("two\n"));
    append("2026-01-02T03:04:03.0000000Z stdout F three\n");
    std::fs::rename(&path, directory.path().join("0.log.20260102-030404")).unwrap();
    std::fs::write(&path, "2026-01-02T03:04:05.0000000Z stdout F four\n").unwrap();
    let mut rest = String::new();
    while !rest.ends_with("four\n") {
        rest += &next().await.expect("the log goes on");
    }
    assert_eq!(rest, "three\nfour\n");
    append("2026-01-02T03:04:06.0000000Z stdout F last\n");
    fake.runtime.end_container();
    assert_eq!(next().await.as_deref(), Some("last\n"));
    assert_eq!(next().await, None);
}
