//! Discovery: which groups, versions and resources there are, in the classic documents and in the
//! aggregated one (`apidiscovery.k8s.io/v2`). All of it derives from the rows.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::openapi::body_kind;
use evenkeel_api::row::{GroupVersionKind, ResourceDef, Storage, Subresource, Verb};
use evenkeel_api::{Rows, Status, cbor, protobuf};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::aggregation::Group;
use crate::door::Door;
use crate::http::{
    Answer, Encoding, Media, Offer, Shape, answer, full, is_pretty, json, json_bytes,
};
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

/// What can be done with a kind: less when its definition is going. Those of custom kinds stand in an
/// order of their own in the reference.
fn verbs(row: &ResourceDef) -> Vec<&'static str> {
    let makes = |verb: &Verb| matches!(verb, Verb::Create | Verb::Update | Verb::Watch);
    let kept =
        |verb: &Verb| !row.closing || !matches!(verb, Verb::Create | Verb::Patch | Verb::Update);
    let mut verbs: Vec<Verb> = row.verbs.iter().copied().filter(kept).collect();
    if row.custom.is_some() {
        verbs.sort_by_key(makes);
    }
    verbs.iter().map(|verb| verb.as_str()).collect()
}

/// The subresources of a kind in the order in which they are told: by name, but for those of custom
/// kinds.
fn subresources(row: &ResourceDef) -> Vec<Subresource> {
    let mut all = row.subresources.to_vec();
    if row.custom.is_none() {
        all.sort_by_key(|subresource| subresource.as_str());
    }
    all
}

pub(super) async fn serve(
    door: &Arc<Door>,
    call: &Call,
    segments: &[&str],
) -> Result<Answer, Status> {
    // Definitions that are written are shown: the rows are as fresh as the caches.
    door.registry().fresh().await?;
    let rows = &door.rows();
    let root = matches!(segments, ["api"] | ["apis"]);
    let mut media = Media::negotiate(&call.parts.headers, || Offer {
        protobuf: true,
        table: false,
        metadata: false,
        groups: root,
        cbor: door.speaks_cbor(),
        watch: false,
    })?;
    if media.encoding == Encoding::Json && is_pretty(&call.parts.headers, &call.query) {
        media.encoding = Encoding::Pretty;
    }
    let document = match segments {
        ["api"] | ["apis"] if media.shape == Shape::Groups => {
            return Ok(aggregated(door, rows, call, segments == ["api"], media));
        }
        ["api"] => api_versions(),
        ["apis"] => api_groups(door),
        ["api", version] => resources(rows, "", version)?,
        ["apis", group] => {
            let groups = groups(door);
            let found = groups.iter().find(|(name, _)| name == group);
            let mut shown = api_group(found.ok_or_else(Status::no_such_path)?);
            shown["kind"] = "APIGroup".into();
            shown["apiVersion"] = "v1".into();
            shown
        }
        ["apis", group, version] => resources(rows, group, version)?,
        _ => return Err(Status::no_such_path()),
    };
    Ok(shown(media, &document))
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

fn resources(rows: &Rows, group: &str, version: &str) -> Result<Value, Status> {
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
                // The reference writes the core group's slash here.
                None => format!("{}/{}", stored.gvk.group, kept_version(&stored.gvk)),
            };
            entry["storageVersionHash"] = hash(&format!("{version}/{}", stored.gvk.kind)).into();
        }
        resources.push(entry);
        for subresource in subresources(row) {
            let body = body_kind(row, subresource);
            let mut entry = json!({
                "name": format!("{}/{}", row.plural, subresource.as_str()),
                "singularName": "", "namespaced": row.namespaced(),
                "kind": body.kind,
                "verbs": subresource.verbs(),
            });
            if body.group != row.gvk.group || body.version != row.gvk.version {
                entry["group"] = body.group.as_ref().into();
                entry["version"] = body.version.as_ref().into();
            }
            resources.push(entry);
        }
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version(group, version), "resources": resources,
    }))
}

/// The version in which the reference keeps objects of a kind. It keeps some in an older one than it
/// serves, so that a server of the release before can read them; clients know the hash of it.
fn kept_version(kind: &GroupVersionKind) -> &str {
    match (kind.group.as_ref(), kind.kind.as_ref()) {
        ("certificates.k8s.io", "ClusterTrustBundle" | "PodCertificateRequest")
        | ("apiextensions.k8s.io", "CustomResourceDefinition")
        | ("storagemigration.k8s.io", "StorageVersionMigration") => "v1beta1",
        ("resource.k8s.io", "DeviceTaintRule") => "v1beta2",
        _ => &kind.version,
    }
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

/// A document as the client asked for it.
fn shown(media: Media, document: &Value) -> Answer {
    match media.encoding {
        Encoding::Json => json(StatusCode::OK, document),
        Encoding::Pretty => {
            let bytes = serde_json::to_vec_pretty(document).unwrap_or_default();
            json_bytes(StatusCode::OK, bytes)
        }
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(document).unwrap_or_default();
            answer(StatusCode::OK, "application/yaml", full(text))
        }
        Encoding::Protobuf => {
            let bytes = protobuf::encode_discovery(document).unwrap_or_default();
            answer(StatusCode::OK, protobuf::MEDIA_TYPE, full(bytes))
        }
        Encoding::Cbor => answer(
            StatusCode::OK,
            cbor::MEDIA_TYPE,
            full(cbor::encode(document)),
        ),
    }
}

fn aggregated(door: &Door, rows: &Rows, call: &Call, core: bool, media: Media) -> Answer {
    let version = media.version;
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
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": versions})
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
        let mut answer = Answer::new(full(""));
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        shown(media, &body)
    };
    let encoding = match media.encoding {
        Encoding::Json | Encoding::Pretty => "application/json",
        Encoding::Yaml => "application/yaml",
        Encoding::Protobuf => protobuf::MEDIA_TYPE,
        Encoding::Cbor => cbor::MEDIA_TYPE,
    };
    let content_type =
        format!("{encoding};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
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
    answer.headers_mut().insert(
        http::header::CACHE_CONTROL,
        HeaderValue::from_static("public"),
    );
    answer
}

fn entry(row: &ResourceDef) -> Value {
    // Of a built-in kind group and version are left out where they are the document's own.
    let kind = |it: &GroupVersionKind| {
        let own = row.gvk.group == it.group && row.gvk.version == it.version;
        if own && row.custom.is_none() {
            return json!({"group": "", "version": "", "kind": it.kind});
        }
        json!({"group": it.group, "version": it.version, "kind": it.kind})
    };
    let subresources: Vec<Value> = subresources(row)
        .into_iter()
        .map(|subresource| {
            json!({
                "subresource": subresource.as_str(),
                "responseKind": kind(&body_kind(row, subresource)),
                "verbs": subresource.verbs(),
            })
        })
        .collect();
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": kind(&row.gvk),
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
    let mut paths = Vec::new();
    for (group, versions) in groups(door).iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    for kind in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{kind}"));
        let checks = super::health::names(kind).into_iter();
        paths.extend(checks.map(|name| format!("/{kind}/{name}")));
    }
    let plain = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/flagz",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/statusz",
        "/version",
    ];
    paths.extend(plain.map(str::to_owned));
    paths.sort();
    json!({"paths": paths})
}
