use std::collections::BTreeSet;

use serde_json::Map;

use super::*;
use crate::row::Rows;

fn v3(rows: &Rows, of: &GroupVersion) -> Value {
    about(rows, &Subject::Kinds(of.clone()))
}

fn about(rows: &Rows, subject: &Subject) -> Value {
    let mut out = Vec::new();
    write_v3(rows, subject, &mut out).expect("memory takes all");
    serde_json::from_slice(&out).expect("JSON")
}

fn v2(rows: &Rows) -> Value {
    let mut out = Vec::new();
    write_v2(rows, &Merged::default(), &mut out).expect("memory takes all");
    serde_json::from_slice(&out).expect("JSON")
}

fn group_version(group: &'static str, version: &'static str) -> GroupVersion {
    GroupVersion {
        group: group.into(),
        version: version.into(),
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                found.insert(target.to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn resolves(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        let pointer = target.strip_prefix('#').expect("local");
        assert!(document.pointer(pointer).is_some(), "dangling {target}");
    }
}

#[test]
fn every_reference_resolves() {
    let rows = Rows::builtin();
    for of in group_versions(&rows) {
        resolves(&v3(&rows, &of));
    }
    resolves(&v2(&rows));
}

#[test]
fn every_row_has_its_kind_and_paths() {
    let rows = Rows::builtin();
    let whole = v2(&rows);
    for row in rows.iter() {
        let wanted = schemas::gvk(&row.gvk);
        let name = row.type_name.as_ref();
        let has = |definitions: &Value| {
            definitions[name]["x-kubernetes-group-version-kind"]
                .as_array()
                .is_some_and(|kinds| kinds.contains(&wanted))
        };
        assert!(has(&whole["definitions"]), "{name}");
        if row.storage == Storage::BodyOnly {
            continue;
        }
        let of = GroupVersion {
            group: row.gvk.group.clone(),
            version: row.gvk.version.clone(),
        };
        let document = v3(&rows, &of);
        assert!(has(&document["components"]["schemas"]), "{name}");
        let place = if row.namespaced() {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let path = format!("/{}/{place}{}", of.path(), row.plural);
        assert!(document["paths"][&path].is_object(), "{path}");
        if row.verbs.contains(&crate::row::Verb::Patch) {
            let patch = &document["paths"][format!("{path}/{{name}}")]["patch"];
            assert_eq!(patch["x-kubernetes-group-version-kind"], wanted);
            let names: Vec<&str> = patch["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(
                names,
                ["dryRun", "fieldManager", "fieldValidation", "force"]
            );
        }
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = v2(&Rows::builtin());
    let mut seen = BTreeSet::new();
    for item in document["paths"].as_object().expect("paths").values() {
        for operation in item.as_object().expect("an item").values() {
            if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
                assert!(seen.insert(id.to_owned()), "{id} twice");
            }
        }
    }
    for id in [
        "getCoreV1APIResources",
        "listCoreV1PodForAllNamespaces",
        "listCoreV1NamespacedPod",
        "deleteCoreV1CollectionNamespacedPod",
        "replaceAppsV1NamespacedDeploymentScale",
        "readCoreV1NamespacedPodLog",
        "connectCoreV1PostNamespacedPodExec",
        "connectCoreV1GetNodeProxyWithPath",
        "createRbacAuthorizationV1ClusterRole",
        "createCoreV1NamespacedPodEviction",
        "replaceCoreV1NamespaceFinalize",
    ] {
        assert!(seen.contains(id), "{id}");
    }
}

/// The type that a property leads to, through lists and `allOf`.
fn step<'d>(document: &'d Value, ty: &'d Value, field: &str) -> &'d Value {
    let mut at = &ty["properties"][field];
    if at["type"] == "array" {
        at = &at["items"];
    }
    let target = at
        .get("$ref")
        .unwrap_or(&at["allOf"][0]["$ref"])
        .as_str()
        .expect("a reference");
    document
        .pointer(target.trim_start_matches('#'))
        .expect("a definition")
}

#[test]
fn explain_walks_to_containers() {
    let document = v3(&Rows::builtin(), &group_version("apps", "v1"));
    let mut at = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    for field in ["spec", "template", "spec", "containers"] {
        at = step(&document, at, field);
    }
    assert_eq!(at["properties"]["image"]["type"], "string");
    assert!(
        at["description"]
            .as_str()
            .is_some_and(|text| text.contains("single application container"))
    );
}

#[test]
fn fields_carry_what_clients_merge_by() {
    let document = v3(&Rows::builtin(), &group_version("", "v1"));
    let schemas = &document["components"]["schemas"];
    let core = |name: &str| &schemas[format!("io.k8s.api.core.v1.{name}")];
    let containers = &core("PodSpec")["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(
        containers["items"],
        json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"})
    );
    assert_eq!(
        core("PodSpec")["properties"]["volumes"]["x-kubernetes-patch-strategy"],
        "merge,retainKeys"
    );
    assert_eq!(
        core("PodSpec")["properties"]["nodeSelector"]["x-kubernetes-map-type"],
        "atomic"
    );
    assert_eq!(
        core("ServicePort")["properties"]["protocol"]["default"],
        "TCP"
    );
    assert_eq!(core("ServicePort")["properties"]["port"]["default"], 0);
    assert_eq!(
        core("LocalObjectReference")["x-kubernetes-map-type"],
        "atomic"
    );
    assert_eq!(
        core("Secret")["properties"]["data"]["additionalProperties"]["format"],
        "byte"
    );
    assert_eq!(core("Pod")["properties"]["metadata"]["default"], json!({}));
    assert!(core("Pod").get("required").is_none());
    assert!(core("LocalObjectReference").get("required").is_none());
    let policy = &core("Container")["properties"]["imagePullPolicy"]["enum"];
    assert_eq!(*policy, json!(["Always", "IfNotPresent", "Never"]));
    let modes = &core("PersistentVolumeSpec")["properties"]["accessModes"]["items"]["enum"];
    assert_eq!(modes[0], "ReadOnlyMany");
    let last = &core("ContainerStatus")["properties"]["lastState"];
    assert_eq!(last["default"], json!({}));
    let claim = &core("PersistentVolumeSpec")["properties"]["claimRef"];
    assert_eq!(claim["x-kubernetes-map-type"], "granular");
    assert!(
        core("PodList")["properties"]["items"]
            .get("x-kubernetes-list-type")
            .is_none()
    );
    assert_eq!(core("PodSpec")["required"], json!(["containers"]));
    let int_or_string = &schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(int_or_string["format"], "int-or-string");
    assert_eq!(
        int_or_string["oneOf"],
        json!([{"type": "integer"}, {"type": "string"}])
    );
    let options = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    let core = json!([{"group": "", "version": "v1", "kind": "DeleteOptions"}]);
    assert_eq!(options["x-kubernetes-group-version-kind"], core);
    for kind in ["Status", "Patch", "WatchEvent", "ListMeta", "ObjectMeta"] {
        assert!(schemas[schemas::meta(kind)].is_object(), "{kind}");
    }
}

#[test]
fn places_without_a_version_have_documents() {
    let rows = Rows::builtin();
    let group = about(&rows, &Subject::Place(Place::Group("apps".into())));
    let get = &group["paths"]["/apis/apps/"]["get"];
    assert_eq!(get["operationId"], "getAppsAPIGroup");
    assert_eq!(get["tags"], json!(["apps"]));
    resolves(&group);
    let schemas = group["components"]["schemas"].as_object().expect("types");
    let names: Vec<&str> = schemas
        .keys()
        .filter_map(|name| name.rsplit('.').next())
        .collect();
    let wanted = [
        "APIGroup",
        "GroupVersionForDiscovery",
        "ServerAddressByClientCIDR",
    ];
    assert_eq!(names, wanted);
    let preferred = &schemas[&schemas::meta("APIGroup")]["properties"]["preferredVersion"];
    assert_eq!(preferred["default"], json!({}));
    // Nothing is said of keys but that they are text.
    let keys = about(&rows, &Subject::Place(Place::Keys));
    assert!(keys["components"].get("schemas").is_none());
    let answer = &keys["paths"]["/openid/v1/jwks/"]["get"]["responses"]["200"];
    assert!(answer["content"]["application/jwk-set+json"].is_object());
    let paths = v2(&rows)["paths"].clone();
    for path in ["/api/", "/apis/", "/apis/batch/", "/version/"] {
        assert!(paths[path]["get"].is_object(), "{path}");
    }
}

#[test]
fn kinds_can_be_watched_at_their_old_paths() {
    let document = v3(&Rows::builtin(), &group_version("apps", "v1"));
    let item = |path: &str| document["paths"][format!("/apis/apps/v1/watch/{path}")].clone();
    let all = item("deployments");
    let id = "watchAppsV1DeploymentListForAllNamespaces";
    assert_eq!(all["get"]["operationId"], id);
    assert_eq!(all["get"]["x-kubernetes-action"], "watchlist");
    let list = item("namespaces/{namespace}/deployments");
    let id = "watchAppsV1NamespacedDeploymentList";
    assert_eq!(list["get"]["operationId"], id);
    let one = item("namespaces/{namespace}/deployments/{name}");
    assert_eq!(one["get"]["operationId"], "watchAppsV1NamespacedDeployment");
    let stream = &one["get"]["responses"]["200"]["content"]["application/json;stream=watch"];
    let event = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
    assert_eq!(stream["schema"]["$ref"], event);
    // What the only method of a path takes, the path takes.
    assert!(one["get"].get("parameters").is_none());
    let names: Vec<&str> = one["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    for name in ["name", "namespace", "pretty", "resourceVersion", "watch"] {
        assert!(names.contains(&name), "{name}");
    }
    let core = v3(&Rows::builtin(), &group_version("", "v1"));
    assert!(
        core["paths"]
            .get("/api/v1/watch/componentstatuses")
            .is_none()
    );
}

#[test]
fn reviews_have_no_types_of_requests() {
    let document = v3(
        &Rows::builtin(),
        &group_version("authorization.k8s.io", "v1"),
    );
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("types");
    for kind in ["DeleteOptions", "ListMeta", "Patch", "Status", "WatchEvent"] {
        assert!(!schemas.contains_key(&schemas::meta(kind)), "{kind}");
    }
    assert!(schemas.contains_key(&schemas::meta("ObjectMeta")));
}

#[test]
fn unions_say_what_chooses() {
    let document = v3(&Rows::builtin(), &group_version("", "v1"));
    let profile = &document["components"]["schemas"]["io.k8s.api.core.v1.SeccompProfile"];
    assert_eq!(
        profile["x-kubernetes-unions"],
        json!([{
            "discriminator": "type",
            "fields-to-discriminateBy": {"localhostProfile": "LocalhostProfile"},
        }])
    );
}

#[test]
fn bodies_and_answers_are_contents_in_v3() {
    let document = v3(&Rows::builtin(), &group_version("apps", "v1"));
    let object = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &object["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["tags"], json!(["apps_v1"]));
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["requestBody"]["content"]["application/apply-patch+yaml"]["schema"]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
    );
    assert_eq!(
        patch["parameters"][3]["schema"],
        json!({"type": "boolean", "uniqueItems": true})
    );
    assert_eq!(
        object["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.Deployment"
    );
    assert_eq!(object["parameters"][0]["name"], "name");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(
        scale["get"]["x-kubernetes-group-version-kind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
}

#[test]
fn v2_says_what_old_clients_understand() {
    let document = v2(&Rows::builtin());
    let definitions = &document["definitions"];
    assert_eq!(
        definitions["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"],
        json!({
            "$ref": "#/definitions/io.k8s.api.apps.v1.DeploymentSpec",
            "description": "Specification of the desired behavior of the Deployment.",
        })
    );
    let port = &definitions["io.k8s.api.core.v1.ServicePort"]["properties"]["protocol"];
    assert!(port.get("default").is_none());
    let int_or_string = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(
        (&int_or_string["type"], &int_or_string["format"]),
        (&json!("string"), &json!("int-or-string"))
    );
    let quantity = &definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["type"], "string");
    // A property that is named like a keyword is a property.
    assert_eq!(
        definitions["io.k8s.api.core.v1.Secret"]["properties"]["type"]["type"],
        "string"
    );
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let write = || {
        let mut out = Vec::new();
        let subject = Subject::Kinds(group_version("", "v1"));
        write_v3(&Rows::builtin(), &subject, &mut out).expect("memory takes all");
        out
    };
    assert_eq!(write(), write());
}

/// A field of a protobuf message: numbers or bytes.
enum Wire<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a byte");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return value;
        }
    }
    panic!("too long")
}

/// Decodes one level of a message; panics on what the encoder never writes.
fn decode(mut bytes: &[u8]) -> Vec<(u64, Wire<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Wire::Number(varint(&mut bytes)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).expect("short");
                let (inner, rest) = bytes.split_at(length);
                bytes = rest;
                Wire::Bytes(inner)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn all(message: &[u8], field: u64) -> Vec<&[u8]> {
    decode(message)
        .into_iter()
        .filter_map(|(found, value)| match value {
            Wire::Bytes(bytes) if found == field => Some(bytes),
            _ => None,
        })
        .collect()
}

fn one(message: &[u8], field: u64) -> &[u8] {
    all(message, field).first().copied().unwrap_or_default()
}

fn text(message: &[u8], field: u64) -> &str {
    std::str::from_utf8(one(message, field)).expect("text")
}

/// The value of a `Named*` entry.
fn named<'b>(entries: &'b [u8], field: u64, name: &str) -> &'b [u8] {
    let found = all(entries, field)
        .into_iter()
        .find(|entry| text(entry, 1) == name);
    one(found.unwrap_or_else(|| panic!("no {name}")), 2)
}

#[test]
fn protobuf_decodes_to_what_the_json_says() {
    let rows = Rows::builtin();
    let json = v2(&rows);
    let bytes = v2_protobuf(&rows, &Merged::default());
    assert_eq!(text(&bytes, 1), "2.0");
    assert_eq!(text(one(&bytes, 2), 1), "Kubernetes");
    let definitions = one(&bytes, 9);
    let wanted = json["definitions"].as_object().expect("definitions");
    assert_eq!(all(definitions, 1).len(), wanted.len());
    for (name, wanted) in wanted {
        let found = named(definitions, 1, name);
        assert_eq!(
            text(found, 4),
            wanted["description"].as_str().unwrap_or_default(),
            "{name}"
        );
        let properties = wanted["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        assert_eq!(all(one(found, 25), 1).len(), properties.len(), "{name}");
        for (field, wanted) in &properties {
            let found = named(one(found, 25), 1, field);
            assert_eq!(text(found, 1), wanted["$ref"].as_str().unwrap_or_default());
            assert_eq!(
                text(one(found, 22), 1),
                wanted["type"].as_str().unwrap_or_default()
            );
        }
    }
    let deployment = named(definitions, 1, "io.k8s.api.apps.v1.Deployment");
    let kinds = named(deployment, 31, "x-kubernetes-group-version-kind");
    assert_eq!(
        text(kinds, 2),
        "- group: apps\n  kind: Deployment\n  version: v1\n"
    );
    let spec = named(definitions, 1, "io.k8s.api.core.v1.PodSpec");
    let containers = named(one(spec, 25), 1, "containers");
    assert_eq!(
        text(named(containers, 31, "x-kubernetes-list-map-keys"), 2),
        "- name\n"
    );
    assert_eq!(
        text(named(containers, 31, "x-kubernetes-patch-merge-key"), 2),
        "name\n"
    );
    let pod = named(definitions, 1, "io.k8s.api.core.v1.Pod");
    let kinds = named(pod, 31, "x-kubernetes-group-version-kind");
    assert_eq!(
        text(kinds, 2),
        "- group: \"\"\n  kind: Pod\n  version: v1\n"
    );
}

#[test]
fn protobuf_says_that_patches_can_be_dry() {
    let rows = Rows::builtin();
    let bytes = v2_protobuf(&rows, &Merged::default());
    let paths = one(&bytes, 8);
    assert_eq!(
        all(paths, 2).len(),
        v2(&rows)["paths"].as_object().map_or(0, Map::len)
    );
    let item = named(
        paths,
        2,
        "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
    );
    let patch = one(item, 8);
    assert_eq!(text(patch, 5), "patchAppsV1NamespacedDeployment");
    let kind = named(patch, 13, "x-kubernetes-group-version-kind");
    assert_eq!(
        text(kind, 2),
        "group: apps\nkind: Deployment\nversion: v1\n"
    );
    // ParametersItem → Parameter → NonBodyParameter → QueryParameterSubSchema.
    let query: Vec<&str> = all(patch, 8)
        .into_iter()
        .map(|item| one(one(one(item, 1), 2), 3))
        .filter(|found| !found.is_empty())
        .map(|found| text(found, 4))
        .collect();
    assert_eq!(
        query,
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    let path: Vec<&str> = all(item, 9)
        .into_iter()
        .map(|item| text(one(one(one(item, 1), 2), 4), 4))
        .collect();
    assert_eq!(path[..2], ["name", "namespace"]);
    // The body comes before it.
    let unique = decode(one(one(one(all(patch, 8)[1], 1), 2), 3))
        .into_iter()
        .any(|(field, value)| field == 20 && matches!(value, Wire::Number(1)));
    assert!(unique);
}
