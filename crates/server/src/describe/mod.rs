//! What the door says of itself: health, version, discovery, OpenAPI, metrics.

mod components;
mod debug;
mod discovery;
mod health;
mod openapi;
mod zpages;

use std::sync::Arc;

use evenkeel_api::Status;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::door::Door;
use crate::http::{Answer, answer, full, json, page_not_found, stream, text};
use crate::pipeline::{Authorized, Call};
use crate::verbs::is_ours;

pub(crate) use components::PARTS;
pub use components::{Components, Runs};
pub use debug::DebugPages;
pub(crate) use health::Checked;
pub(crate) use openapi::Hashes as OpenApiHashes;
pub(crate) use zpages::Pages;

/// The Kubernetes version whose API this is.
pub const KUBERNETES_VERSION: &str = "v1.37.0";
/// The release of it.
const RELEASE: &str = "1.37";

/// Serves a path that is not a resource.
pub(crate) async fn serve(door: &Arc<Door>, call: Authorized<Box<Call>>) -> Result<Answer, Status> {
    let call = call.into_inner();
    let path = call.attributes.path.trim_end_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    // These are asked as one likes.
    let any = matches!(
        segments.as_slice(),
        ["healthz" | "livez" | "readyz", ..] | ["statusz" | "flagz"]
    );
    let read = any
        || call.parts.method == Method::GET
        // Documents of discovery have no route for it.
        || call.parts.method == Method::HEAD
            && !matches!(
                segments.as_slice(),
                ["version"] | ["api", ..] | ["apis", _, ..]
            );
    if !read {
        return if leads_somewhere(&segments) {
            Err(Status::method_not_allowed())
        } else {
            Ok(page_not_found())
        };
    }
    match described(door, call, &segments).await {
        Err(status) if status == Status::no_such_path() => {
            let group = match segments.as_slice() {
                ["api", ..] => Some(""),
                ["apis", group, ..] => Some(*group),
                _ => None,
            };
            if group.is_some_and(|group| is_ours(&door.rows(), group)) {
                Err(status)
            } else {
                Ok(page_not_found())
            }
        }
        answer => answer,
    }
}

/// Is there anything that can be read at a path, or below it?
fn leads_somewhere(segments: &[&str]) -> bool {
    matches!(
        segments,
        [] | [
            "" | "healthz"
                | "livez"
                | "readyz"
                | "index.html"
                | "version"
                | "metrics"
                | "debug"
                | "evenkeel"
                | "api"
                | "apis"
                | "openapi"
                | ".well-known"
                | "openid",
            ..
        ]
    )
}

async fn described(door: &Arc<Door>, call: Box<Call>, segments: &[&str]) -> Result<Answer, Status> {
    match segments {
        ["healthz" | "livez" | "readyz", ..] => Ok(health::serve(door, &call, segments).await),
        ["statusz"] if call.attributes.path == "/statusz" => {
            zpages::statusz(door.pages(), door.clock().now(), &call.parts.headers)
        }
        ["flagz"] if call.attributes.path == "/flagz" => {
            zpages::flagz(door.pages(), &call.parts.headers)
        }
        ["version"] => {
            takes(&call, "application/json")?;
            Ok(json(StatusCode::OK, &version()))
        }
        ["metrics"] => Ok(metrics(door)),
        ["metrics", "slis"] => Ok(exposition(door.checked().text())),
        ["debug", "api_priority_and_fairness", page] => door
            .flow()
            .page(page, door.clock().now())
            .map(|page| text(StatusCode::OK, page))
            .ok_or_else(Status::no_such_path),
        ["debug", rest @ ..] => door.debug_pages().serve(rest),
        ["evenkeel", "backup"] => Ok(backup(door)),
        ["api" | "apis", ..] => discovery::serve(door, &call, segments).await,
        ["openapi", "v3", path @ ..]
            if let Some(remote) = door.aggregator().by_path(&path.join("/")) =>
        {
            let mut call = call;
            call.identity = Identity::user("system:aggregator", &[]);
            remote.pass(door.registry(), call).await
        }
        ["openapi", rest @ ..] => openapi::serve(door, &call, rest).await,
        [".well-known", "openid-configuration"] => issued(
            &call,
            "application/json",
            &json!({
                "issuer": door.issuer(),
                "jwks_uri": format!("{}/openid/v1/jwks", door.issuer()),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": door.tokens().algorithms(),
            }),
        ),
        ["openid", "v1", "jwks"] => {
            issued(&call, "application/jwk-set+json", &door.tokens().key_set())
        }
        [] | ["" | "index.html"] => Ok(json(StatusCode::OK, &discovery::paths(door))),
        _ => Err(Status::no_such_path()),
    }
}

/// 406 for a client that does not take the one form that a path is answered in.
fn takes(call: &Call, media: &str) -> Result<(), Status> {
    let kind = media.split('/').next().unwrap_or_default();
    let fits = |range: &str| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range == media || range == "*/*" || range.strip_suffix("/*") == Some(kind)
    };
    let ranges = call.parts.headers.get_all(http::header::ACCEPT);
    let mut texts = ranges.iter().filter_map(|value| value.to_str().ok());
    if ranges.iter().next().is_none() || texts.any(|text| text.split(',').any(fits)) {
        return Ok(());
    }
    Err(Status::failure(
        406,
        "NotAcceptable",
        format!("406: Not Acceptable\n\nAvailable representations: {media}"),
    ))
}

/// What is said of tokens of service accounts: others may keep it for an hour.
fn issued(call: &Call, media: &'static str, document: &Value) -> Result<Answer, Status> {
    takes(call, media)?;
    let mut answer = answer(StatusCode::OK, media, full(document.to_string()));
    answer.headers_mut().insert(
        http::header::CACHE_CONTROL,
        http::HeaderValue::from_static("public, max-age=3600"),
    );
    Ok(answer)
}

/// The whole store as of now, as `evenkeel backup` keeps it. The authorizer lets only those get it
/// who may get every path that is not a resource.
fn backup(door: &Door) -> Answer {
    use futures::StreamExt as _;
    let taken = u64::try_from(door.clock().now().as_second()).unwrap_or(0);
    let pieces = evenkeel_store::snapshot::take(Arc::clone(&door.registry().store), taken);
    let body = stream(pieces.map(|piece| piece.map_err(std::io::Error::other)));
    answer(StatusCode::OK, "application/octet-stream", body)
}

fn metrics(door: &Door) -> Answer {
    let mut out = door.metrics().text();
    out.push_str(&door.flow().metrics());
    if let Some(audit) = door.audit() {
        out.push_str(&audit.metrics());
    }
    out.push_str(&door.registry().counted.text());
    door.registry().seal.write_metrics(&mut out);
    out.push_str("# HELP apiserver_storage_objects Stored objects by resource.\n");
    out.push_str("# TYPE apiserver_storage_objects gauge\n");
    // Other forms of the same objects don't count twice.
    for row in door.rows().iter().filter(|row| row.view.is_none()) {
        if let Some(cache) = door.registry().caches.of(row) {
            out.push_str(&format!(
                "apiserver_storage_objects{{resource=\"{}\"}} {}\n",
                row.group_resource(),
                cache.len()
            ));
        }
    }
    let events = "apiserver_storage_events_received_total";
    out.push_str(&format!(
        "# HELP {events} Number of etcd events received split by kind.\n# TYPE {events} counter\n"
    ));
    for row in door.rows().iter().filter(|row| row.view.is_none()) {
        if let Some(cache) = door.registry().caches.of(row) {
            out.push_str(&format!(
                "{events}{{group=\"{}\",resource=\"{}\"}} {}\n",
                row.gvk.group,
                row.plural,
                cache.received()
            ));
        }
    }
    exposition(out)
}

/// Series as Prometheus reads them.
fn exposition(series: String) -> Answer {
    let mut answer = text(StatusCode::OK, series);
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    answer
}

/// The commit of a build that was not told its own: clients expect a hexadecimal number.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// `/version`.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": format!("{KUBERNETES_VERSION}+evenkeel-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": option_env!("EVENKEEL_COMMIT").unwrap_or(NO_COMMIT),
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}
