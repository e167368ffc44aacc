use std::collections::BTreeSet;

use super::*;
use crate::row::Rows;

fn v3(rows: &Rows, of: &GroupVersion) -> Value {
    let mut out = Vec::new();
    write_v3(rows, of, &mut out).expect("memory takes all");
    serde_json::from_slice(&out).expect("JSON")
}

fn v2(rows: &Rows) -> Value {
    let mut out = Vec::new();
    write_v2(rows, &mut out).expect("memory takes all");
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
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}], "default": {}})
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
    assert_eq!(
        core("PodList")["properties"]["items"]["items"]["default"],
        json!({})
    );
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
    assert!(
        options["x-kubernetes-group-version-kind"]
            .as_array()
            .is_some_and(|kinds| kinds
                .contains(&json!({"group": "apps", "version": "v1", "kind": "DeleteOptions"})))
    );
    for kind in ["Status", "Patch", "WatchEvent", "ListMeta", "ObjectMeta"] {
        assert!(schemas[schemas::meta(kind)].is_object(), "{kind}");
    }
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
        write_v3(&Rows::builtin(), &group_version("", "v1"), &mut out).expect("memory takes all");
        out
    };
    assert_eq!(write(), write());
}
