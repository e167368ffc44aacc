//! What a server says of itself: its resources, for discovery, and the documents of its OpenAPI.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::object::{self, list, text};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::remote::Remote;
use crate::auth::Identity;
use crate::registry::Registry;

const LIMIT: Duration = Duration::from_secs(5);
/// A Swagger document is long, and nobody waits for it.
const SWAGGER_LIMIT: Duration = Duration::from_secs(60);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;\
                          as=APIGroupDiscoveryList,application/json";

/// What is known of one version of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Learned {
    /// Its resources, as aggregated discovery lists them.
    pub(crate) resources: Vec<Value>,
    /// It said so when it was last asked.
    pub(crate) is_fresh: bool,
    /// Where its OpenAPI document is, with the hash: `/openapi/v3/…?hash=…`.
    pub(crate) openapi: Option<String>,
    /// Its part of the Swagger document.
    pub(crate) swagger: Option<Arc<Swagger>>,
}

/// What a server's `/openapi/v2` says about a version of a group.
#[derive(Debug)]
pub(crate) struct Swagger {
    /// As the server named it; empty where it does not.
    tag: String,
    /// Of the whole document.
    pub(crate) digest: [u8; 32],
    /// JSON of its own paths and what they need.
    pub(crate) part: Vec<u8>,
}

impl Learned {
    /// The same, from somebody who does not answer now.
    pub(super) fn stale(&self) -> Self {
        Self {
            is_fresh: false,
            ..self.clone()
        }
    }
}

fn aggregator() -> Identity {
    Identity::user("system:kube-aggregator", &["system:masters"])
}

/// Asks a server. `before` is what it said last.
pub(super) async fn ask(registry: &Registry, remote: &Remote, before: &Learned) -> Learned {
    let resources = match resources(registry, remote).await {
        Ok(resources) => resources,
        Err(why) => {
            tracing::debug!(server = remote.name, why, "no discovery");
            return before.stale();
        }
    };
    Learned {
        resources,
        is_fresh: true,
        openapi: openapi(registry, remote).await,
        swagger: before.swagger.clone(),
    }
}

/// Asks a server for its Swagger document. What it said last stays where there is no answer, as in
/// the reference; a server that has none adds nothing.
pub(super) async fn swagger(
    registry: &Registry,
    remote: &Remote,
    before: Option<Arc<Swagger>>,
) -> Option<Arc<Swagger>> {
    let who = Identity::user("system:aggregator", &[]);
    let tag = before.as_ref().map_or("", |before| before.tag.as_str());
    let found = remote
        .get_unless(
            registry,
            "/openapi/v2",
            "application/json",
            &who,
            SWAGGER_LIMIT,
            tag,
        )
        .await;
    let (headers, body) = match found {
        Ok((StatusCode::OK, headers, body)) => (headers, body),
        Ok((code, _, _)) => {
            if code != StatusCode::NOT_MODIFIED && code != StatusCode::NOT_FOUND {
                tracing::debug!(server = remote.name, %code, "no Swagger document");
            }
            return before;
        }
        Err(why) => {
            tracing::debug!(server = remote.name, why, "no Swagger document");
            return before;
        }
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, &body);
    let digest: [u8; 32] = digest.as_ref().try_into().ok()?;
    if let Some(before) = before.as_ref().filter(|before| before.digest == digest) {
        return Some(Arc::clone(before));
    }
    let tag = headers
        .get(http::header::ETAG)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let prefix = format!("{}/", remote.path());
    // Documents have megabytes: they are not read on a thread that serves others.
    let read = tokio::task::spawn_blocking(move || {
        let document: Value = serde_json::from_slice(&body).ok()?;
        serde_json::to_vec(&evenkeel_api::openapi::within(document, &prefix)).ok()
    });
    match read.await.ok().flatten() {
        Some(part) => Some(Arc::new(Swagger { tag, digest, part })),
        None => {
            tracing::debug!(server = remote.name, "its Swagger document is no JSON");
            before
        }
    }
}

async fn resources(registry: &Registry, remote: &Remote) -> Result<Vec<Value>, String> {
    let who = aggregator();
    let (code, headers, body) = remote
        .get(registry, "/apis", AGGREGATED, &who, LIMIT)
        .await?;
    if code == StatusCode::SERVICE_UNAVAILABLE {
        return Err(format!("it answered {code}"));
    }
    let is_aggregated = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.contains("as=APIGroupDiscoveryList"));
    if code == StatusCode::OK && is_aggregated {
        let all: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let version = list(&all, &["items"])
            .iter()
            .filter(|group| object::name(group) == remote.group)
            .flat_map(|group| list(group, &["versions"]))
            .find(|version| text(version, &["version"]) == remote.version);
        return Ok(version
            .map(|version| list(version, &["resources"]).to_vec())
            .unwrap_or_default());
    }
    let path = remote.path();
    let (code, _, body) = remote
        .get(registry, &path, "application/json", &who, LIMIT)
        .await?;
    if code != StatusCode::OK {
        return Err(format!(
            "failed to download legacy discovery for {path}: {code}"
        ));
    }
    let all: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(from_classic(
        &remote.group,
        &remote.version,
        list(&all, &["resources"]),
    ))
}

/// Resources of the classic documents in the form of the aggregated one.
fn from_classic(group: &str, version: &str, all: &[Value]) -> Vec<Value> {
    let kind = |entry: &Value| {
        let or = |name: &str, usual: &str| match text(entry, &[name]) {
            "" => usual.to_owned(),
            given => given.to_owned(),
        };
        json!({"group": or("group", group), "version": or("version", version),
            "kind": text(entry, &["kind"])})
    };
    let scope = |entry: &Value| {
        if entry.get("namespaced") == Some(&Value::Bool(true)) {
            "Namespaced"
        } else {
            "Cluster"
        }
    };
    let mut out: Vec<Value> = Vec::new();
    for entry in all {
        let name = text(entry, &["name"]);
        let verbs = entry.get("verbs").cloned().unwrap_or_default();
        let (resource, subresource) = name.split_once('/').unwrap_or((name, ""));
        let known = out.iter().position(|it| it["resource"] == resource);
        if subresource.is_empty() {
            let mut shown = json!({
                "resource": resource, "responseKind": kind(entry), "scope": scope(entry),
                "singularResource": text(entry, &["singularName"]), "verbs": verbs,
            });
            for field in ["shortNames", "categories"] {
                if let Some(given) = entry.get(field) {
                    shown[field] = given.clone();
                }
            }
            match known {
                Some(at) => {
                    if let Some(before) = out[at].get("subresources") {
                        shown["subresources"] = before.clone();
                    }
                    out[at] = shown;
                }
                None => out.push(shown),
            }
            continue;
        }
        let at = known.unwrap_or_else(|| {
            // A subresource whose parent is not served stands in a resource without verbs.
            out.push(
                json!({"resource": resource, "scope": scope(entry), "verbs": [],
                "singularResource": "", "responseKind": {"group": "", "version": "", "kind": ""}}),
            );
            out.len() - 1
        });
        let shown =
            json!({"subresource": subresource, "responseKind": kind(entry), "verbs": verbs});
        match out[at].get_mut("subresources") {
            Some(Value::Array(all)) => all.push(shown),
            _ => out[at]["subresources"] = json!([shown]),
        }
    }
    out
}

/// Where the server's OpenAPI document is; `None` where it has none.
async fn openapi(registry: &Registry, remote: &Remote) -> Option<String> {
    let who = aggregator();
    let found = remote
        .get(registry, "/openapi/v3", "application/json", &who, LIMIT)
        .await;
    let (code, _, body) = found.ok()?;
    if code != StatusCode::OK {
        return None;
    }
    let index: Value = serde_json::from_slice(&body).ok()?;
    let paths: &Map<String, Value> = index.get("paths")?.as_object()?;
    let path = remote.path();
    let entry = paths.get(path.trim_start_matches('/'))?;
    let url = text(entry, &["serverRelativeURL"]);
    url.starts_with("/openapi/v3/").then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_documents_say_the_same() {
        let all = json!([
            {"name": "flunders", "singularName": "flunder", "namespaced": true,
                "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "alone/scale", "namespaced": false, "group": "autoscaling",
                "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]);
        let found = from_classic("wardle.example.com", "v1", all.as_array().unwrap());
        let kind = json!({"group": "wardle.example.com", "version": "v1", "kind": "Flunder"});
        assert_eq!(
            found[0],
            json!({"resource": "flunders", "responseKind": kind, "scope": "Namespaced",
                "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"],
                "subresources": [
                    {"subresource": "status", "responseKind": kind, "verbs": ["update"]}]})
        );
        assert_eq!(found[1]["resource"], "alone");
        assert_eq!(found[1]["subresources"][0]["responseKind"]["kind"], "Scale");
    }
}
