//! Discovery: which groups, versions and resources there are, in the classic documents and in the
//! aggregated one (`apidiscovery.k8s.io/v2`). All of it derives from the rows.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::row::{ResourceDef, Storage, Verb};
use evenkeel_api::{Rows, Status};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::aggregation::Group;
use crate::door::Door;
use crate::http::{Answer, json};
use crate::pipeline::Call;

/// The groups that are served here or through here.
fn groups(door: &Door) -> Vec<Group> {
    door.aggregator().groups(&door.rows())
}

/// The rows of all groups and versions, each by name.
fn by_version(rows: &Rows) -> HashMap<(&str, &str), Vec<&Arc<ResourceDef>>> {
    let mut all: HashMap<(&str, &str), Vec<&Arc<ResourceDef>>> = HashMap::new();
    for row in rows.iter().filter(|row| row.storage != Storage::BodyOnly) {
        let key = (row.gvk.group.as_ref(), row.gvk.version.as_ref());
        all.entry(key).or_default().push(row);
    }
    for rows in all.values_mut() {
        rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    }
    all
}

/// What can be done with a kind: less when its definition is going.
fn verbs(row: &ResourceDef) -> Vec<&'static str> {
    let kept =
        |verb: &Verb| !row.closing || !matches!(verb, Verb::Create | Verb::Patch | Verb::Update);
    row.verbs
        .iter()
        .filter(|verb| kept(verb))
        .map(|verb| verb.as_str())
        .collect()
}

pub(super) async fn serve(
    door: &Arc<Door>,
    call: &Call,
    segments: &[&str],
) -> Result<Answer, Status> {
    // Definitions that are written are shown: the rows are as fresh as the caches.
    door.registry().fresh().await?;
    let rows = &door.rows();
    match segments {
        ["api"] | ["apis"] => {
            let core = segments == ["api"];
            if let Some(version) = aggregated_version(call) {
                return Ok(aggregated(door, rows, call, core, version));
            }
            Ok(json(
                StatusCode::OK,
                &if core {
                    api_versions()
                } else {
                    api_groups(door)
                },
            ))
        }
        ["api", version] => resources(rows, "", version),
        ["apis", group] => groups(door)
            .iter()
            .find(|(name, _)| name == group)
            .map(|found| {
                let mut shown = api_group(found);
                shown["kind"] = "APIGroup".into();
                shown["apiVersion"] = "v1".into();
                json(StatusCode::OK, &shown)
            })
            .ok_or_else(Status::no_such_path),
        ["apis", group, version] => resources(rows, group, version),
        _ => Err(Status::no_such_path()),
    }
}

fn api_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn api_group((group, versions): &Group) -> Value {
    let shown: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "versions": shown, "preferredVersion": shown.first()})
}

fn api_groups(door: &Door) -> Value {
    let groups: Vec<Value> = groups(door)
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(api_group)
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(rows: &Rows, group: &str, version: &str) -> Result<Answer, Status> {
    let all = by_version(rows);
    let own = all
        .get(&(group, version))
        .ok_or_else(Status::no_such_path)?;
    let mut resources = Vec::new();
    for row in own {
        let mut entry = json!({
            "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(),
            "kind": row.gvk.kind, "verbs": verbs(row),
        });
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        if row.storage == Storage::Stored {
            // Stable between servers: a hash of what identifies the stored form.
            let stored = stored_row(rows, row);
            let version = match &stored.custom {
                Some(custom) => custom.stored_version().to_owned(),
                None => stored.gvk.api_version(),
            };
            entry["storageVersionHash"] = hash(&format!("{version}/{}", stored.gvk.kind)).into();
        }
        resources.push(entry);
        for subresource in &row.subresources {
            let (group, version, kind) = subresource.own_kind().unwrap_or_default();
            let mut entry = json!({
                "name": format!("{}/{}", row.plural, subresource.as_str()),
                "singularName": "", "namespaced": row.namespaced(),
                "kind": if kind.is_empty() { row.gvk.kind.as_ref() } else { kind },
                "verbs": subresource.verbs(),
            });
            if !kind.is_empty() && (group != row.gvk.group || version != row.gvk.version) {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    Ok(json(
        StatusCode::OK,
        &json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": group_version(group, version), "resources": resources,
        }),
    ))
}

/// The row in whose form the objects of a row are stored.
fn stored_row(rows: &Rows, row: &Arc<ResourceDef>) -> Arc<ResourceDef> {
    if row.view.is_none() {
        return Arc::clone(row);
    }
    let prefix = row.store_prefix();
    let stored = rows
        .iter_builtin()
        .find(|other| other.view.is_none() && other.store_prefix() == prefix);
    Arc::clone(stored.unwrap_or(row))
}

/// The version of aggregated discovery that the client prefers to the classic documents.
fn aggregated_version(call: &Call) -> Option<&'static str> {
    let accept = call
        .parts
        .headers
        .get(http::header::ACCEPT)?
        .to_str()
        .ok()?;
    accept.split(',').find_map(|clause| {
        let has = |part: &str| clause.split(';').any(|found| found.trim() == part);
        if !has("g=apidiscovery.k8s.io")
            || !has("as=APIGroupDiscoveryList")
            || !has("application/json")
        {
            return None;
        }
        if has("v=v2") {
            Some("v2")
        } else if has("v=v2beta1") {
            Some("v2beta1")
        } else {
            None
        }
    })
}

fn aggregated(door: &Door, rows: &Rows, call: &Call, core: bool, version: &'static str) -> Answer {
    let all = by_version(rows);
    let items: Vec<Value> = groups(door)
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    if let Some(said) = door.aggregator().learned(group, version) {
                        let freshness = if said.is_fresh { "Current" } else { "Stale" };
                        return json!({"version": version, "freshness": freshness,
                            "resources": said.resources});
                    }
                    let own = all.get(&(group.as_str(), version.as_str()));
                    let resources: Vec<Value> =
                        own.into_iter().flatten().map(|row| entry(row)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let tag = format!("\"{}\"", hash(&body.to_string()));
    let same = call
        .parts
        .headers
        .get(http::header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = if same {
        let mut answer = Answer::new(crate::http::full(""));
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        json(StatusCode::OK, &body)
    };
    let content_type =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    for (name, value) in [
        (http::header::CONTENT_TYPE, content_type),
        (http::header::ETAG, tag),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
        .headers_mut()
        .insert(http::header::VARY, HeaderValue::from_static("Accept"));
    answer
}

fn entry(row: &ResourceDef) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let gvk = &row.gvk;
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|subresource| {
            let own = subresource.own_kind().map_or_else(
                || kind(&gvk.group, &gvk.version, &gvk.kind),
                |(g, v, k)| kind(g, v, k),
            );
            json!({
                "subresource": subresource.as_str(), "responseKind": own,
                "verbs": subresource.verbs(),
            })
        })
        .collect();
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": kind(&gvk.group, &gvk.version, &gvk.kind),
        "scope": if row.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(row),
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

/// A short stable hash of a text.
pub(super) fn hash(text: &str) -> String {
    use base64::Engine as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let short = digest.as_ref().get(..8).unwrap_or_default();
    base64::engine::general_purpose::STANDARD.encode(short)
}

/// All paths that `/` lists.
pub(super) fn paths(door: &Door) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups(door).iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    json!({"paths": paths})
}
