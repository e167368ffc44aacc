//! Objects, lists and watches in every encoding, and what can't be given.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use evenkeel_api::{cbor, protobuf};
use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{NAMESPACE, open};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
const METADATA: &str = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

fn maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

async fn map(admin: &Caller, name: &str) -> Value {
    let object = json!({"metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}});
    admin.post(&maps(), &object).await.expect(201).body
}

/// Code, content type and bytes of an answer.
async fn read(
    admin: &Caller,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, String, Bytes) {
    let answer = admin.exchange(method, path, headers, body).await;
    let content_type = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, content_type, bytes)
}

fn from_protobuf(cluster: &Cluster, bytes: &[u8]) -> Value {
    let rows = cluster.the_door().rows();
    let envelope = protobuf::decode_envelope(bytes).unwrap();
    let mut reader = envelope.raw;
    if envelope.kind.ends_with("List") {
        // Items are field 2 of every list.
        let mut items = Vec::new();
        while reader.has_remaining() {
            let number = reader.get_u8() >> 3;
            let mut length = 0;
            for shift in 0.. {
                let byte = reader.get_u8();
                length |= usize::from(byte & 0x7f) << (7 * shift);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let (field, rest) = reader.split_at(length);
            reader = rest;
            if number == 2 {
                items.push(metadata(&rows, field));
            }
        }
        return json!({"kind": envelope.kind, "apiVersion": envelope.api_version, "items": items});
    }
    let mut value = metadata(&rows, envelope.raw);
    value["kind"] = envelope.kind.into();
    value["apiVersion"] = envelope.api_version.into();
    value
}

/// `PartialObjectMetadata` is a message with metadata as field 1, as every object is.
fn metadata(rows: &evenkeel_api::Rows, message: &[u8]) -> Value {
    let ty = protobuf::kind_type(rows.schema(), "v1", "ConfigMap").unwrap();
    protobuf::decode(rows.schema(), &ty, message).unwrap()
}

/// The first data of a watch.
async fn first(admin: &Caller, path: &str, accept: &str) -> (String, Bytes) {
    let answer = admin
        .exchange("GET", path, &[("accept", accept)], Vec::new())
        .await;
    assert_eq!(answer.status(), 200);
    let content_type = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let mut body = answer.into_body();
    let mut data = BytesMut::new();
    while data.is_empty() {
        let frame = tokio::time::timeout(LIMIT, body.frame()).await.unwrap();
        data.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap_or_default());
    }
    (content_type, data.freeze())
}

#[tokio::test]
async fn metadata_is_given_as_protobuf() {
    let (cluster, admin) = open().await;
    let made = map(&admin, "one").await;
    let accept = |as_what: &str| format!("{}{as_what},application/json", protobuf::MEDIA_TYPE);
    let path = format!("{}/one", maps());
    let one = accept(METADATA);
    let (code, content_type, bytes) = read(&admin, "GET", &path, &[("accept", &one)], vec![]).await;
    assert_eq!((code, content_type.as_str()), (200, protobuf::MEDIA_TYPE));
    let found = from_protobuf(&cluster, &bytes);
    assert_eq!(found["kind"], "PartialObjectMetadata");
    assert_eq!(found["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(found["metadata"]["uid"], made["metadata"]["uid"]);
    assert!(found.get("data").is_none());

    let list = accept(METADATA_LIST);
    let (_, content_type, bytes) = read(&admin, "GET", &maps(), &[("accept", &list)], vec![]).await;
    assert_eq!(content_type, protobuf::MEDIA_TYPE);
    let found = from_protobuf(&cluster, &bytes);
    assert_eq!(found["kind"], "PartialObjectMetadataList");
    assert_eq!(found["items"][0]["metadata"]["name"], "one");

    let watch = format!("{}?watch=true", maps());
    let (content_type, data) = first(&admin, &watch, &one).await;
    assert_eq!(
        content_type,
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    // Length, type, object: the object in its envelope.
    let length = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
    let event = &data[4..4 + length];
    assert_eq!(event[..7], *b"\x0a\x05ADDED");
    let at = event
        .windows(4)
        .position(|window| window == b"k8s\0")
        .unwrap();
    let found = from_protobuf(&cluster, &event[at..]);
    assert_eq!(found["kind"], "PartialObjectMetadata");
    assert_eq!(found["metadata"]["name"], "one");
}

#[tokio::test]
async fn old_clients_get_tables_and_metadata_of_their_version() {
    const BETA: &str = "meta.k8s.io/v1beta1";
    const OLD_TABLE: &str = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    let (_cluster, admin) = open().await;
    let made = map(&admin, "one").await;
    let path = format!("{}/one", maps());
    for (path, rows) in [(maps(), 1), (path.clone(), 1)] {
        let table = admin.get_as(&path, OLD_TABLE).await.expect(200).body;
        assert_eq!(
            (&table["kind"], &table["apiVersion"]),
            (&json!("Table"), &json!(BETA))
        );
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(table["rows"].as_array().unwrap().len(), rows);
        let object = &table["rows"][0]["object"];
        assert_eq!(object["kind"], "PartialObjectMetadata");
        assert_eq!(object["apiVersion"], BETA);
        assert_eq!(object["metadata"]["uid"], made["metadata"]["uid"]);
    }
    // What is first in the list is given, and the newer version where that is named first.
    let both = format!("{TABLE},{OLD_TABLE},application/json");
    let table = admin.get_as(&maps(), &both).await.expect(200).body;
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
    let metadata = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1";
    for media in ["application/json", "application/yaml"] {
        let accept = format!("{media}{metadata}");
        let (code, _, bytes) = read(&admin, "GET", &maps(), &[("accept", &accept)], vec![]).await;
        assert_eq!(code, 200);
        let list: Value = serde_saphyr::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(list["apiVersion"], BETA);
        assert_eq!(list["items"][0]["apiVersion"], BETA);
        assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
        assert_eq!(list["items"][0]["metadata"]["name"], "one");
        assert!(list["items"][0].get("data").is_none());
    }
    // Of this one list the numbers were the other way around: items are field 1.
    let accept = format!("{}{metadata}", protobuf::MEDIA_TYPE);
    let (_, content_type, bytes) =
        read(&admin, "GET", &maps(), &[("accept", &accept)], vec![]).await;
    assert_eq!(content_type, protobuf::MEDIA_TYPE);
    let envelope = protobuf::decode_envelope(&bytes).unwrap();
    assert_eq!(
        (envelope.api_version, envelope.kind),
        (BETA, "PartialObjectMetadataList")
    );
    assert!(envelope.raw.starts_with(b"\x12"), "metadata is field 2");
    assert!(envelope.raw.windows(5).any(|at| at == b"\x0a\x03one"));

    let watch = format!("{}?watch=true", maps());
    for (accept, kind) in [
        (OLD_TABLE.to_owned(), "Table"),
        (
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1".to_owned(),
            "PartialObjectMetadata",
        ),
    ] {
        let (_, data) = first(&admin, &watch, &accept).await;
        let event: Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(event["object"]["kind"], kind);
        assert_eq!(event["object"]["apiVersion"], BETA);
    }
}

/// What a document of discovery says in JSON, and the same asked for otherwise.
async fn document(admin: &Caller, path: &str, accept: &str) -> (u16, String, Bytes) {
    read(admin, "GET", path, &[("accept", accept)], vec![]).await
}

#[tokio::test]
async fn discovery_is_given_as_the_client_accepts_it() {
    const ALL: &str = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (cluster, admin) = open().await;
    // Off, as in the reference: what is accepted next is given, or nothing.
    assert_eq!(document(&admin, "/apis", cbor::MEDIA_TYPE).await.0, 406);
    let both = "application/cbor,application/json;q=0.9";
    let (_, content_type, json) = document(&admin, "/apis", both).await;
    assert_eq!(content_type, "application/json");
    assert!(!json.is_empty());
    assert_eq!(document(&admin, "/apis", "text/html").await.0, 406);

    cluster.the_door().speak_cbor(true);
    for path in ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"] {
        let plain = admin.get(path).await.expect(200).body;
        let (_, content_type, bytes) = document(&admin, path, both).await;
        assert_eq!(content_type, cbor::MEDIA_TYPE);
        assert_eq!(cbor::decode(&bytes).unwrap(), plain, "{path}");
        let (_, content_type, bytes) = document(&admin, path, "application/yaml").await;
        assert_eq!(content_type, "application/yaml");
        let found: Value = serde_saphyr::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap();
        assert_eq!(found, plain, "{path}");
        let (_, content_type, bytes) = document(&admin, path, protobuf::MEDIA_TYPE).await;
        assert_eq!(content_type, protobuf::MEDIA_TYPE);
        let envelope = protobuf::decode_envelope(&bytes).unwrap();
        assert_eq!(envelope.kind, plain["kind"], "{path}");
        assert!(!envelope.raw.is_empty());
    }
    for path in ["/api", "/apis"] {
        let of = |media: &str| format!("{media}{ALL}");
        let json = of("application/json");
        let plain = admin.get_as(path, &json).await.expect(200);
        assert_eq!(plain.body["kind"], "APIGroupDiscoveryList");
        for media in [cbor::MEDIA_TYPE, protobuf::MEDIA_TYPE] {
            let accept = of(media);
            let answer = admin
                .exchange("GET", path, &[("accept", &accept)], Vec::new())
                .await;
            let head = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            // One tag for all forms, with the form in `Vary`.
            assert_eq!(head("etag"), plain.header("etag"));
            assert_eq!(
                (head("vary"), head("content-type")),
                ("Accept".to_owned(), accept)
            );
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            if media == cbor::MEDIA_TYPE {
                assert_eq!(cbor::decode(&bytes).unwrap(), plain.body);
            } else {
                let envelope = protobuf::decode_envelope(&bytes).unwrap();
                assert_eq!(envelope.api_version, "apidiscovery.k8s.io/v2");
            }
        }
    }
}

#[tokio::test]
async fn what_can_not_be_given_is_refused_by_name() {
    let (_cluster, admin) = open().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let refused = admin
        .send("POST", reviews, &[("accept", TABLE)], Some(&review))
        .await;
    assert_eq!(refused.reason(), "NotAcceptable");
    assert_eq!(
        refused.expect(406).message(),
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    );
    let both = format!("{TABLE},application/json");
    admin
        .send("POST", reviews, &[("accept", &both)], Some(&review))
        .await
        .expect(201);
    let watch = format!("{}?watch=true", maps());
    admin.get_as(&watch, "application/yaml").await.expect(406);
    admin.get_as(&maps(), "text/html").await.expect(406);
    // Off, as in the reference.
    admin.get_as(&maps(), cbor::MEDIA_TYPE).await.expect(406);
    let headers = [("content-type", cbor::MEDIA_TYPE)];
    admin
        .send("POST", &maps(), &headers, Some(&json!({})))
        .await
        .expect(415);
    // A refusal is written as the client reads.
    let path = format!("{}/nobody", maps());
    let refused = admin.get_as(&path, "application/yaml").await.expect(404);
    assert_eq!(refused.content_type, "application/yaml");
}

#[tokio::test]
async fn people_get_indented_json() {
    let (_cluster, admin) = open().await;
    map(&admin, "one").await;
    let path = format!("{}/one", maps());
    let of = |headers: &'static [(&'static str, &'static str)], query: &str| {
        let (admin, path) = (admin.clone(), format!("{path}{query}"));
        async move {
            let (_, _, bytes) = read(&admin, "GET", &path, headers, vec![]).await;
            bytes.starts_with(b"{\n  \"apiVersion\"")
        }
    };
    assert!(of(&[], "?pretty=true").await);
    assert!(of(&[("user-agent", "curl/7.88.1")], "").await);
    assert!(!of(&[("user-agent", "curl/7.88.1")], "?pretty=false").await);
    assert!(!of(&[], "").await);
}

#[tokio::test]
async fn cbor_is_spoken_when_it_is_on() {
    let (cluster, admin) = open().await;
    cluster.the_door().speak_cbor(true);
    let body = cbor::encode(&json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "one"}, "data": {"k": "v"}}));
    let headers = [
        ("accept", "application/cbor, application/json"),
        ("content-type", cbor::MEDIA_TYPE),
    ];
    let (code, content_type, bytes) = read(&admin, "POST", &maps(), &headers, body).await;
    assert_eq!((code, content_type.as_str()), (201, cbor::MEDIA_TYPE));
    let made = cbor::decode(&bytes).unwrap();
    let path = format!("{}/one", maps());
    assert_eq!(admin.get(&path).await.expect(200).body, made);

    let apply = cbor::encode(&json!({"apiVersion": "v1", "kind": "ConfigMap",
        "data": {"more": "x"}}));
    let patch = [headers[0], ("content-type", "application/apply-patch+cbor")];
    let url = format!("{path}?fieldManager=tests");
    let (code, _, bytes) = read(&admin, "PATCH", &url, &patch, apply).await;
    let applied = cbor::decode(&bytes).unwrap();
    assert_eq!(code, 200, "{applied:#}");
    assert_eq!(applied["data"], json!({"k": "v", "more": "x"}));

    let (_, _, bytes) = read(&admin, "GET", &maps(), &headers[..1], vec![]).await;
    let list = cbor::decode(&bytes).unwrap();
    assert_eq!(list["kind"], "ConfigMapList");
    let mut item = applied.clone();
    item.as_object_mut()
        .unwrap()
        .retain(|name, _| name != "apiVersion" && name != "kind");
    assert_eq!(list["items"][0], item);

    let watch = format!("{}?watch=true", maps());
    let (content_type, data) = first(&admin, &watch, cbor::MEDIA_TYPE).await;
    assert_eq!(content_type, cbor::SEQUENCE);
    let event = cbor::decode(&data).unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["data"], applied["data"]);

    let twice = b"\xa2\x44kind\x41a\x44kind\x41b".to_vec();
    let (code, content_type, bytes) = read(&admin, "POST", &maps(), &headers, twice).await;
    assert_eq!((code, content_type.as_str()), (400, cbor::MEDIA_TYPE));
    let refused = cbor::decode(&bytes).unwrap();
    assert_eq!(
        refused["message"],
        "couldn't get version/kind; cbor: found duplicate map key \"kind\""
    );

    let options = cbor::encode(&json!({"kind": "DeleteOptions", "apiVersion": "v1",
        "preconditions": {"uid": "other"}}));
    let (code, _, _) = read(&admin, "DELETE", &path, &headers, options).await;
    assert_eq!(code, 409);
    let options = cbor::encode(&json!({"kind": "DeleteOptions", "apiVersion": "v1"}));
    let (code, _, _) = read(&admin, "DELETE", &path, &headers, options).await;
    assert_eq!(code, 200);
}

/// Opens a watch over WebSocket to the door, on a connection in memory.
async fn socket(
    cluster: &Cluster,
    path: &str,
    accept: &'static str,
) -> tokio_tungstenite::WebSocketStream<tokio::io::DuplexStream> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let door = Arc::clone(cluster.the_door());
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let door = Arc::clone(&door);
            async move {
                let (parts, body) = request.into_parts();
                let body = Full::new(body.collect().await?.to_bytes());
                let request = http::Request::from_parts(parts, body);
                let admin = Identity::user("admin", &[ADMIN]);
                Ok::<_, hyper::Error>(door.handle(request, admin).await)
            }
        });
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .with_upgrades(),
    );
    let mut request = format!("ws://door{path}").into_client_request().unwrap();
    request
        .headers_mut()
        .insert("accept", accept.parse().unwrap());
    let opened = tokio_tungstenite::client_async(request, near).await;
    opened.map_err(|error: Error| error.to_string()).unwrap().0
}

#[tokio::test]
async fn a_watch_over_websocket_sends_one_event_a_message() {
    let (cluster, admin) = open().await;
    cluster.the_door().speak_cbor(true);
    for name in ["one", "two"] {
        map(&admin, name).await;
    }
    let path = format!("{}?watch=true&labelSelector=a&timeoutSeconds=600", maps());
    let mut text = socket(&cluster, &path, "application/json").await;
    let mut binary = socket(&cluster, &path, cbor::MEDIA_TYPE).await;
    let mut frames = socket(&cluster, &path, protobuf::MEDIA_TYPE).await;
    map(&admin, "three").await;
    let next = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| {
        let next = tokio::time::timeout(LIMIT, socket.next()).await;
        next.unwrap().unwrap().unwrap()
    };
    for name in ["one", "two", "three"] {
        let Message::Text(line) = next(&mut text).await else {
            panic!("JSON is text");
        };
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!(name))
        );
        let Message::Binary(item) = next(&mut binary).await else {
            panic!("CBOR is binary");
        };
        let event = cbor::decode(&item).unwrap();
        assert_eq!(event["object"]["metadata"]["name"], name);
        let Message::Binary(event) = next(&mut frames).await else {
            panic!("protobuf is binary");
        };
        // Without a length in front.
        assert_eq!(event[..7], *b"\x0a\x05ADDED");
    }
    // What a client says is not listened to, and its end is taken.
    futures::SinkExt::send(&mut text, Message::Text("hello".into()))
        .await
        .unwrap();
    futures::SinkExt::send(&mut text, Message::Ping(Bytes::new()))
        .await
        .unwrap();
    assert!(matches!(next(&mut text).await, Message::Pong(_)));
    text.close(None).await.unwrap();

    let short = format!("{}?watch=true&timeoutSeconds=1", maps());
    let mut ends = socket(&cluster, &short, "application/json").await;
    for _ in 0..3 {
        assert!(matches!(next(&mut ends).await, Message::Text(_)));
    }
    assert!(matches!(next(&mut ends).await, Message::Close(_)));
}

/// Go clients of today write definitions so: schemas hold what is one thing or another.
#[tokio::test]
async fn definitions_are_written_and_read_as_protobuf() {
    let (cluster, admin) = open().await;
    let rows = cluster.the_door().rows();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "shirts.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "shirts", "kind": "Shirt"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "sizes": {"type": "array", "maxItems": 4, "items": {
                        "type": "number", "minimum": 0, "default": 1.5, "enum": [1.5, 2]}},
                    "open": {"type": "object", "additionalProperties": true},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "port": {"x-kubernetes-int-or-string": true},
                }}}}]},
    });
    let body = protobuf::encode_object(rows.schema(), &definition).unwrap();
    let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let headers = [
        ("content-type", protobuf::MEDIA_TYPE),
        ("accept", protobuf::MEDIA_TYPE),
    ];
    let (code, content_type, bytes) = read(&admin, "POST", all, &headers, body).await;
    assert_eq!((code, content_type.as_str()), (201, protobuf::MEDIA_TYPE));
    let envelope = protobuf::decode_envelope(&bytes).unwrap();
    let ty = protobuf::kind_type(rows.schema(), envelope.api_version, envelope.kind).unwrap();
    let answer = protobuf::decode(rows.schema(), &ty, envelope.raw).unwrap();
    let stored = admin.get(&format!("{all}/shirts.example.com")).await;
    let stored = stored.expect(200).body;
    for found in [&answer, &stored] {
        let version = &found["spec"]["versions"][0];
        assert_eq!(
            version["schema"],
            definition["spec"]["versions"][0]["schema"]
        );
    }
}
