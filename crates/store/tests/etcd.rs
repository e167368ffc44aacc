//! The conformance suite on a real etcd: whether the suite's words are the reference's.
//!
//! Runs where an `etcd` is found in the path or named by `EVENKEEL_ETCD`, and says that it was
//! skipped elsewhere. The adapter here speaks etcd's JSON gateway and is for this test only: it
//! cannot ask for progress notes, so the cases about them are left out by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use evenkeel_store::{
    Compare, Event, EventBatch, EventKind, KeyValue, Op, OpResult, Range, RangeResult, Revision,
    Store, StoreError, StoreStats, Txn, TxnResult, WatchStream, suite,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Cases that need what the JSON gateway of etcd 3.4 does not offer.
const LEFT_OUT: &[&str] = &[
    "progress_is_told_when_caught_up_and_when_asked",
    "a_read_and_a_watch_meet_without_gap",
];
/// A promise that only later versions than Debian's 3.4.23 keep: a watch from the compacted revision
/// on sees the deletions of that revision (etcd issue 19179).
const NEWER: &[&str] = &["deleted_keys_stay_deleted"];

#[derive(Clone)]
struct Etcd {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    compacted: Arc<AtomicU64>,
}

fn b64(bytes: &[u8]) -> Value {
    json!(BASE64_STANDARD.encode(bytes))
}

fn bytes(value: &Value) -> Bytes {
    BASE64_STANDARD
        .decode(value.as_str().unwrap_or_default())
        .unwrap()
        .into()
}

/// Numbers are strings there, and zero is left out.
fn number(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

fn kv(value: &Value) -> KeyValue {
    KeyValue {
        key: bytes(&value["key"]),
        value: bytes(&value["value"]),
        create_revision: number(&value["create_revision"]),
        mod_revision: number(&value["mod_revision"]),
        version: number(&value["version"]),
    }
}

fn kvs(value: &Value) -> Vec<KeyValue> {
    value.as_array().into_iter().flatten().map(kv).collect()
}

/// The empty key and the empty end are one zero byte there.
fn interval(start: &Bytes, end: Option<&Bytes>) -> Value {
    let or_zero = |bytes: &Bytes| {
        if bytes.is_empty() {
            b64(b"\0")
        } else {
            b64(bytes)
        }
    };
    match end {
        None => json!({ "key": b64(start) }),
        Some(end) => json!({ "key": or_zero(start), "range_end": or_zero(end) }),
    }
}

fn with(mut request: Value, more: Value) -> Value {
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

fn range_request(range: &Range) -> Value {
    let more = json!({
        "revision": range.revision.unwrap_or(0), "limit": range.limit,
        "count_only": range.count_only, "keys_only": range.keys_only,
    });
    with(interval(&range.start, range.end.as_ref()), more)
}

fn range_result(value: &Value, revision: Revision) -> RangeResult {
    RangeResult {
        kvs: kvs(&value["kvs"]),
        more: value["more"].as_bool().unwrap_or(false),
        count: usize::try_from(number(&value["count"])).unwrap(),
        revision,
    }
}

fn compare(compare: &Compare) -> Value {
    match compare {
        Compare::ModRevision { key, revision } => {
            json!({ "target": "MOD", "key": b64(key), "mod_revision": revision })
        }
        Compare::CreateRevision { key, revision } => {
            json!({ "target": "CREATE", "key": b64(key), "create_revision": revision })
        }
        Compare::Version { key, version } => {
            json!({ "target": "VERSION", "key": b64(key), "version": version })
        }
        Compare::Value { key, value } => {
            json!({ "target": "VALUE", "key": b64(key), "value": b64(value) })
        }
    }
}

fn operation(op: &Op) -> Value {
    let prev = json!({ "prev_kv": true });
    match op {
        Op::Put { key, value } => {
            json!({ "requestPut": { "key": b64(key), "value": b64(value), "prev_kv": true } })
        }
        Op::Delete { key } => json!({ "requestDeleteRange": with(interval(key, None), prev) }),
        Op::DeleteRange { start, end } => {
            json!({ "requestDeleteRange": with(interval(start, Some(end)), prev) })
        }
        Op::Range(range) => json!({ "requestRange": range_request(range) }),
    }
}

fn outcome(op: &Op, response: &Value, revision: Revision) -> OpResult {
    match op {
        Op::Put { .. } => {
            let prev = &response["response_put"]["prev_kv"];
            OpResult::Put {
                prev: (!prev.is_null()).then(|| kv(prev)),
            }
        }
        Op::Delete { .. } | Op::DeleteRange { .. } => OpResult::Delete {
            prev: kvs(&response["response_delete_range"]["prev_kvs"]),
        },
        Op::Range(_) => OpResult::Range(range_result(&response["response_range"], revision)),
    }
}

impl Etcd {
    async fn send(&self, path: &str, body: &Value) -> hyper::Response<hyper::body::Incoming> {
        let request = hyper::Request::post(format!("{}{path}", self.base))
            .body(Full::from(body.to_string()))
            .unwrap();
        self.client.request(request).await.unwrap()
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value, StoreError> {
        let response = self
            .send(path, body)
            .await
            .into_body()
            .collect()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&response.to_bytes()).unwrap();
        let Some(error) = answer["error"].as_str() else {
            return Ok(answer);
        };
        let requested = body["revision"].as_u64().unwrap_or(0);
        Err(match error {
            e if e.contains("compacted") => StoreError::Compacted {
                requested,
                compacted: self.compacted.load(Ordering::SeqCst),
            },
            e if e.contains("future") => {
                let current = number(&self.now().await["header"]["revision"]);
                StoreError::FutureRevision { requested, current }
            }
            e if e.contains("duplicate key") => StoreError::Invalid {
                reason: "duplicate key",
            },
            e if e.contains("key is not provided") => StoreError::Invalid {
                reason: "empty key",
            },
            other => panic!("{path}: {other}"),
        })
    }

    fn now(&self) -> BoxFuture<'_, Value> {
        async move {
            let any = json!({ "key": b64(b"any"), "count_only": true });
            self.call("/v3/kv/range", &any).await.unwrap()
        }
        .boxed()
    }
}

impl Store for Etcd {
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>> {
        async move {
            let answer = self.call("/v3/kv/range", &range_request(&range)).await?;
            Ok(range_result(&answer, number(&answer["header"]["revision"])))
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        async move {
            let all = |ops: &[Op]| ops.iter().map(operation).collect::<Vec<_>>();
            let request = json!({
                "compare": txn.compare.iter().map(compare).collect::<Vec<_>>(),
                "success": all(&txn.success), "failure": all(&txn.failure),
            });
            let answer = self.call("/v3/kv/txn", &request).await?;
            let succeeded = answer["succeeded"].as_bool().unwrap_or(false);
            let revision = number(&answer["header"]["revision"]);
            let ops = if succeeded {
                &txn.success
            } else {
                &txn.failure
            };
            let responses = answer["responses"].as_array().cloned().unwrap_or_default();
            let results = ops
                .iter()
                .zip(&responses)
                .map(|(op, r)| outcome(op, r, revision))
                .collect();
            Ok(TxnResult {
                succeeded,
                revision,
                results,
            })
        }
        .boxed()
    }

    fn watch(
        &self,
        start: Bytes,
        end: Option<Bytes>,
        from: Option<Revision>,
    ) -> BoxFuture<'_, Result<WatchStream, StoreError>> {
        async move {
            let from = match from.filter(|from| *from > 0) {
                None => self.revision().await? + 1,
                Some(from) => match self.range(Range::key("any").at(from)).await {
                    Err(error @ StoreError::Compacted { .. }) => return Err(error),
                    _ => from,
                },
            };
            let more = json!({ "start_revision": from, "prev_kv": true });
            let request = json!({ "create_request": with(interval(&start, end.as_ref()), more) });
            let body = self.send("/v3/watch", &request).await.into_body();
            let reader = Reader {
                body,
                buffer: Vec::new(),
                ready: VecDeque::new(),
                ended: false,
            };
            let stream = futures::stream::unfold(reader, |mut reader| async move {
                let item = reader.next().await?;
                Some((item, reader))
            });
            Ok(stream.boxed())
        }
        .boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        unimplemented_here("progress")
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let request = json!({ "revision": revision, "physical": true });
            self.call("/v3/kv/compaction", &request).await?;
            self.compacted.store(revision, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move { Ok(number(&self.now().await["header"]["revision"])) }.boxed()
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, StoreError>> {
        unimplemented_here("stats")
    }
}

fn unimplemented_here<T>(what: &str) -> T {
    panic!("this adapter has no {what}")
}

/// The lines of a watch, cut into batches of one revision.
struct Reader {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
    ready: VecDeque<Arc<EventBatch>>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Arc<EventBatch>, StoreError>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(batch));
            }
            if self.ended {
                return None;
            }
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                let frame = self.body.frame().await?.unwrap();
                self.buffer.extend_from_slice(frame.data_ref().unwrap());
                continue;
            };
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line).unwrap();
            let result = &line["result"];
            if result["canceled"].as_bool().unwrap_or(false) {
                self.ended = true;
                let compacted = number(&result["compact_revision"]);
                return Some(Err(StoreError::Compacted {
                    requested: 0,
                    compacted,
                }));
            }
            let mut batches: Vec<EventBatch> = Vec::new();
            for event in result["events"].as_array().into_iter().flatten() {
                let deleted = event["type"] == "DELETE";
                let kind = if deleted {
                    EventKind::Delete
                } else {
                    EventKind::Put
                };
                let prev = &event["prev_kv"];
                let prev = (!prev.is_null()).then(|| kv(prev));
                let event = Event {
                    kind,
                    kv: kv(&event["kv"]),
                    prev,
                };
                let revision = event.kv.mod_revision;
                match batches.last_mut() {
                    Some(batch) if batch.revision == revision => batch.events.push(event),
                    _ => batches.push(EventBatch {
                        revision,
                        events: vec![event],
                    }),
                }
            }
            self.ready.extend(batches.into_iter().map(Arc::new));
        }
    }
}

struct Server {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn start() -> Option<(Server, Etcd)> {
    let binary = std::env::var_os("EVENKEEL_ETCD").unwrap_or_else(|| "etcd".into());
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..2)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .map(|free| free.local_addr().unwrap().port())
        .collect();
    let url = |port| format!("http://127.0.0.1:{port}");
    let (client, peer) = (url(ports[0]), url(ports[1]));
    let child = Command::new(binary)
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args([
            "--initial-cluster",
            &format!("default={peer}"),
            "--data-dir",
        ])
        .arg(dir.path())
        .args(["--max-request-bytes", "4194304"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let server = Server { child, _dir: dir };
    let http = Client::builder(TokioExecutor::new()).build_http();
    let etcd = Etcd {
        client: http,
        base: client,
        compacted: Arc::default(),
    };
    for _ in 0..300 {
        let health = format!("{}/health", etcd.base).parse().unwrap();
        if etcd
            .client
            .get(health)
            .await
            .is_ok_and(|r| r.status().is_success())
        {
            return Some((server, etcd));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("etcd did not become healthy");
}

#[tokio::test]
async fn the_suite_says_what_etcd_does() {
    let Some((_server, etcd)) = start().await else {
        eprintln!("skipped: no etcd found");
        return;
    };
    for (name, case) in suite::cases() {
        if LEFT_OUT.contains(&name) || NEWER.contains(&name) {
            continue;
        }
        // Empty for the case; revisions go on, and no case depends on where they begin.
        let all = Op::DeleteRange {
            start: Bytes::new(),
            end: Bytes::new(),
        };
        etcd.txn(Txn {
            success: vec![all],
            ..Txn::default()
        })
        .await
        .unwrap();
        eprintln!("{name}");
        case(Arc::new(etcd.clone())).await;
    }
}
