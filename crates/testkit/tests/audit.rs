//! The audit log through the door: what is recorded by which policy, and that no secret is.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::clock::SystemClock;
use evenkeel_server::Identity;
use evenkeel_server::audit::{
    Audit, AuditOptions, Batch, Format, LogOptions, Mode, Rotation, WebhookOptions,
};
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// A door that records, and where.
struct Recorded {
    cluster: Cluster,
    audit: Arc<Audit>,
    log: PathBuf,
    _directory: TempDir,
}

/// Asks until the answer is what is waited for, with a bound.
async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, asking)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

fn log_options(path: PathBuf) -> LogOptions {
    LogOptions {
        path,
        rotation: Rotation {
            max_age_days: 0,
            max_backups: 0,
            max_size_mb: 100,
            compress: false,
        },
        format: Format::Json,
        mode: Mode::Blocking,
        truncate: false,
    }
}

impl Recorded {
    async fn open(rules: &str, set: impl FnOnce(&mut AuditOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.yaml");
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        std::fs::write(&policy, format!("{head}{rules}")).unwrap();
        let log = directory.path().join("audit.log");
        let mut options = AuditOptions {
            policy,
            log: Some(log_options(log.clone())),
            webhook: None,
        };
        set(&mut options);
        let audit = Arc::new(Audit::open(&options, Arc::new(SystemClock)).unwrap());
        let given = Arc::clone(&audit);
        let cluster = Cluster::door_options(|door| door.audit = Some(given)).await;
        Self {
            cluster,
            audit,
            log,
            _directory: directory,
        }
    }

    fn admin(&self) -> Caller {
        self.cluster.caller(Identity::user("admin", &[ADMIN]))
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// What was recorded of a request that was named by its client.
    fn of(&self, id: &str) -> Vec<Value> {
        let events = self.text();
        let events = events
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &Value| event["auditID"] == id)
            .collect()
    }

    fn stages(&self, id: &str) -> Vec<String> {
        let events = self.of(id).into_iter();
        events
            .map(|event| event["stage"].as_str().unwrap().to_owned())
            .collect()
    }
}

const EVERYTHING: &str = "rules: [{level: RequestResponse}]";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_who_did_what_and_what_came_of_it() {
    let recorded = Recorded::open(EVERYTHING, |_| {}).await;
    let admin = recorded.admin();
    let body = json!({"metadata": {"name": "shop", "labels": {"a": "b"}}});
    let headers = [
        ("audit-id", "first"),
        ("user-agent", "tester/1"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    let path = "/api/v1/namespaces?fieldManager=me";
    let reply = admin
        .send("POST", path, &headers, Some(&body))
        .await
        .expect(201);
    assert_eq!(reply.header("audit-id"), "first");
    let [received, complete] = recorded.of("first").try_into().unwrap();
    assert_eq!(received["stage"], "RequestReceived");
    assert!(received.get("responseStatus").is_none());
    assert!(received.get("requestObject").is_none());
    for (field, expected) in [
        ("kind", json!("Event")),
        ("apiVersion", json!("audit.k8s.io/v1")),
        ("level", json!("RequestResponse")),
        ("stage", json!("ResponseComplete")),
        ("requestURI", json!(path)),
        ("verb", json!("create")),
        (
            "user",
            json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]}),
        ),
        ("sourceIPs", json!(["1.2.3.4"])),
        ("userAgent", json!("tester/1")),
        (
            "objectRef",
            json!({"resource": "namespaces", "name": "shop", "apiVersion": "v1"}),
        ),
        ("responseStatus", json!({"metadata": {}, "code": 201})),
        (
            "annotations",
            json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}),
        ),
    ] {
        assert_eq!(complete[field], expected, "{field} of {complete:#}");
    }
    assert_eq!(complete["requestObject"]["metadata"]["labels"]["a"], "b");
    assert_eq!(complete["responseObject"], reply.body);
    let stamp = complete["requestReceivedTimestamp"].as_str().unwrap();
    assert_eq!((stamp.len(), &stamp[26..]), (27, "Z"), "{stamp}");
    assert!(complete["stageTimestamp"].as_str().unwrap() >= stamp);

    // Names that nobody gave are made.
    let reply = admin.get("/version").await.expect(200);
    let id = reply.header("audit-id");
    assert_eq!(id.len(), 36);
    assert_eq!(recorded.stages(id), ["RequestReceived", "ResponseComplete"]);

    // Refusals, with their reason; who acts as another is both.
    let ann = recorded.cluster.caller(Identity::user("ann", &[]));
    let named = |id: &'static str| [("audit-id", id), ("accept", "application/json")];
    ann.send("GET", "/api/v1/nodes", &named("refused"), None)
        .await
        .expect(403);
    let event = recorded.of("refused").pop().unwrap();
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    assert_eq!(event["responseStatus"]["reason"], "Forbidden");
    assert_eq!(event["responseStatus"]["code"], 403);
    assert!(
        event["responseStatus"]["message"]
            .as_str()
            .unwrap()
            .contains("\"ann\"")
    );
    assert_eq!(event["responseObject"]["kind"], "Status");
    let headers = [("audit-id", "as"), ("impersonate-user", "bob")];
    admin
        .send("GET", "/api/v1/nodes", &headers, None)
        .await
        .expect(403);
    let event = recorded.of("as").pop().unwrap();
    assert_eq!(event["user"]["username"], "admin");
    let bob = json!({"username": "bob", "groups": ["system:authenticated"]});
    assert_eq!(event["impersonatedUser"], bob);

    // Nobody knows who this is.
    let request = http::Request::get("/api/v1/nodes")
        .header("authorization", "Bearer nonsense")
        .header("audit-id", "stranger")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = recorded.cluster.the_door().serve(request, None).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["audit-id"], "stranger");
    let event = recorded.of("stranger").pop().unwrap();
    assert_eq!(event["stage"], "ResponseStarted");
    assert_eq!(event["user"], json!({}));
    assert_eq!(event["responseStatus"]["code"], 401);
    assert!(!recorded.text().contains("nonsense"));

    // Patches as they came; deletions with their options and their answer.
    let patch = json!({"metadata": {"labels": {"c": "d"}}});
    let headers = [
        ("audit-id", "patch"),
        ("content-type", "application/merge-patch+json"),
        ("accept", "application/yaml"),
    ];
    admin
        .send("PATCH", "/api/v1/namespaces/shop", &headers, Some(&patch))
        .await
        .expect(200);
    let event = recorded.of("patch").pop().unwrap();
    assert_eq!(event["requestObject"], patch);
    assert_eq!(event["responseObject"]["metadata"]["labels"]["c"], "d");
    let account = json!({"metadata": {"name": "one"}});
    let place = "/api/v1/namespaces/default/configmaps";
    admin.post(place, &account).await.expect(201);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    let path = format!("{place}/one");
    admin
        .send("DELETE", &path, &named("gone"), Some(&options))
        .await
        .expect(200);
    let event = recorded.of("gone").pop().unwrap();
    assert_eq!(event["requestObject"], options);
    assert_eq!(event["responseStatus"]["status"], "Success");
    assert_eq!(event["responseStatus"]["code"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_told_as_begun_and_as_ended() {
    let recorded = Recorded::open(
        "omitStages: [RequestReceived]\nrules: [{level: Metadata}]",
        |_| {},
    )
    .await;
    let admin = recorded.admin();
    let mut watch = admin.watch("/api/v1/configmaps?watch=true").await;
    let body = json!({"metadata": {"name": "one"}});
    admin
        .post("/api/v1/namespaces/default/configmaps", &body)
        .await
        .expect(201);
    watch.event().await;
    let watches = || -> Vec<Value> {
        let text = recorded.text();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &Value| event["verb"] == "watch")
            .collect()
    };
    let begun = watches();
    assert_eq!(begun.len(), 1, "{begun:#?}");
    assert_eq!(begun[0]["stage"], "ResponseStarted");
    drop(watch);
    let ended = until("the end", || Some(watches()).filter(|it| it.len() == 2)).await;
    assert_eq!(ended[1]["stage"], "ResponseComplete");
    assert_eq!(ended[1]["auditID"], ended[0]["auditID"]);
    assert_eq!(ended[1]["responseStatus"]["code"], 200);
    // One that is refused has both stages too, in order.
    let ann = recorded.cluster.caller(Identity::user("ann", &[]));
    let headers = [("audit-id", "no")];
    ann.send("GET", "/api/v1/nodes?watch=1", &headers, None)
        .await
        .expect(403);
    assert_eq!(
        recorded.stages("no"),
        ["ResponseStarted", "ResponseComplete"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_recorded_that_the_policy_does_not_ask_for() {
    let rules = r#"
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: ["/version"]
- level: Metadata
  resources:
  - {group: "", resources: [secrets, configmaps, serviceaccounts/token]}
  - {group: authentication.k8s.io, resources: [tokenreviews]}
- level: RequestResponse
"#;
    let recorded = Recorded::open(rules, |_| {}).await;
    let admin = recorded.admin();
    admin.get("/version").await.expect(200);
    let place = "/api/v1/namespaces/default";
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2hunter2"}});
    admin
        .post(&format!("{place}/secrets"), &secret)
        .await
        .expect(201);
    admin.get(&format!("{place}/secrets/s")).await.expect(200);
    admin.get(&format!("{place}/secrets")).await.expect(200);
    let patch = json!({"stringData": {"password": "hunter3hunter3"}});
    let merge = "application/merge-patch+json";
    admin
        .patch(&format!("{place}/secrets/s"), merge, &patch)
        .await
        .expect(200);
    let account = json!({"metadata": {"name": "robot"}});
    admin
        .post(&format!("{place}/serviceaccounts"), &account)
        .await
        .expect(201);
    let asked = json!({"spec": {"expirationSeconds": 600}});
    let token = format!("{place}/serviceaccounts/robot/token");
    let token = admin.post(&token, &asked).await.expect(201).body;
    let token = token["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    admin.post(reviews, &review).await.expect(201);
    let text = recorded.text();
    assert!(!text.contains("/version"));
    assert!(!text.contains("managedFields"));
    let hidden = ["hunter2", "hunter3", "aHVudGVy", token.as_str()];
    for secret in hidden {
        assert!(!text.contains(secret), "{secret}");
    }
    let of_secrets = text
        .lines()
        .filter(|line| line.contains("\"secrets\""))
        .count();
    assert_eq!(of_secrets, 4, "{text}");
    let metrics = admin.get("/metrics").await.expect(200);
    let metrics = metrics.body.as_str().unwrap();
    assert!(
        metrics.contains("apiserver_audit_level_total{level=\"None\"} "),
        "{metrics}"
    );
    assert!(metrics.contains("apiserver_audit_event_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_must_be_written_and_can_not_refuses_requests() {
    let set = |options: &mut AuditOptions| {
        // Nothing fits into this file: every line is longer than it may be.
        let log = options.log.as_mut().unwrap();
        log.path = PathBuf::from("/dev/full");
        log.mode = Mode::BlockingStrict;
        log.rotation.max_size_mb = 0;
    };
    let rules = "rules: [{level: Metadata, nonResourceURLs: [/version]}]";
    let recorded = Recorded::open(rules, set).await;
    let admin = recorded.admin();
    let reply = admin.get("/version").await.expect(500);
    let text = reply.body.as_str().unwrap();
    assert!(text.contains("failed to store audit event"), "{text}");
    admin.get("/api/v1/namespaces").await.expect(200);
}

/// A webhook that keeps what it is sent, and refuses the first time.
async fn webhook() -> (u16, Arc<Mutex<Vec<Value>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let given = Arc::clone(&kept);
    tokio::spawn(async move {
        let refused = Arc::new(Mutex::new(false));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (kept, refused) = (Arc::clone(&given), Arc::clone(&refused));
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (kept, refused) = (Arc::clone(&kept), Arc::clone(&refused));
                async move {
                    assert_eq!(request.headers()["authorization"], "Bearer hidden");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let first = !std::mem::replace(&mut *refused.lock(), true);
                    let mut answer = hyper::Response::new(String::new());
                    if first {
                        *answer.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
                    } else {
                        kept.lock().push(serde_json::from_slice(&body).unwrap());
                    }
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // A client that is done hangs up.
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (port, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_batches_and_is_asked_again() {
    let (port, kept) = webhook().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("webhook.yaml");
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{port}/events\"}}}}]\n\
         users: [{{name: u, user: {{token: hidden}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
         current-context: x\n"
    );
    std::fs::write(&config, text).unwrap();
    let set = |options: &mut AuditOptions| {
        options.log = None;
        options.webhook = Some(WebhookOptions {
            config,
            initial_backoff: Duration::from_millis(10),
            mode: Mode::Batch,
            batch: Batch {
                buffer_size: 1000,
                max_size: 400,
                // They are sent because the server ends, not because they have waited.
                max_wait: Duration::from_secs(600),
                throttle: Some((10.0, 15)),
            },
            truncate: true,
        });
    };
    let rules = "rules: [{level: Request, users: [admin]}]";
    let recorded = Recorded::open(rules, set).await;
    let admin = recorded.admin();
    let place = "/api/v1/namespaces/default/configmaps";
    let long = "x".repeat(200 << 10);
    for (name, data) in [("small", "y"), ("large", long.as_str())] {
        let body = json!({"metadata": {"name": name}, "data": {"key": data}});
        admin.post(place, &body).await.expect(201);
    }
    recorded.audit.close().await;
    let lists = kept.lock().clone();
    assert_eq!(lists.len(), 1, "{lists:#?}");
    assert_eq!(lists[0]["kind"], "EventList");
    assert_eq!(lists[0]["apiVersion"], "audit.k8s.io/v1");
    let items = lists[0]["items"].as_array().unwrap();
    let complete: Vec<&Value> = items
        .iter()
        .filter(|item| item["stage"] == "ResponseComplete")
        .collect();
    assert_eq!(complete.len(), 2);
    assert_eq!(complete[0]["requestObject"]["data"]["key"], "y");
    assert!(complete[1].get("requestObject").is_none());
    assert_eq!(complete[1]["annotations"]["audit.k8s.io/truncated"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_compressed_for_those_who_ask() {
    let cluster = Cluster::door().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let place = "/api/v1/namespaces/default/configmaps";
    for number in 0..8 {
        let data = format!("{number}").repeat(30 << 10);
        let body = json!({"metadata": {"name": format!("c{number}")}, "data": {"key": data}});
        admin.post(place, &body).await.expect(201);
    }
    let plain = admin.get(place).await.expect(200);
    assert_eq!(plain.header("content-encoding"), "");
    let headers = [("accept-encoding", "gzip")];
    let list = admin.send("GET", place, &headers, None).await.expect(200);
    assert_eq!(list.header("content-encoding"), "gzip");
    assert_eq!(list.header("vary"), "Accept-Encoding");
    let one = format!("{place}/c1");
    let one = admin.send("GET", &one, &headers, None).await.expect(200);
    assert_eq!(one.header("content-encoding"), "", "too short");
    assert_eq!(one.body["metadata"]["name"], "c1");
}
