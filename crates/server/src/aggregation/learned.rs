//! What a server says of itself: its resources, for discovery, and the documents of its OpenAPI.

use std::time::Duration;

use evenkeel_api::object::{self, list, text};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::remote::Remote;
use crate::auth::Identity;
use crate::registry::Registry;

const LIMIT: Duration = Duration::from_secs(5);
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
