//! What every pod gets: a service account with its token, and tolerations for broken nodes.

use evenkeel_api::{Status, object};
use serde_json::{Value, json};

use super::{Change, Operation, Plugin};
use crate::registry::{self, Registry};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A token an hour and seven seconds old is the reference's.
const TOKEN_SECONDS: i64 = 3607;
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn is_new_pod(change: &Change<'_>) -> bool {
    change.is_core("Pod") && change.operation == Operation::Create && change.subresource.is_none()
}

fn refuse(object: &Value, why: &str) -> Status {
    let name = match object::name(object) {
        "" => object::text(object, &["metadata", "generateName"]),
        name => name,
    };
    Status::forbidden("", "pods", name, why)
}

/// `ServiceAccount`: the account must exist; its token, the CA and the namespace are mounted.
pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        if !is_new_pod(change) {
            return Ok(());
        }
        if object::annotation(object, "kubernetes.io/config.mirror").is_some() {
            return Ok(());
        }
        let spec = object::child(object, "spec");
        object::default_field(spec, "serviceAccountName", "default");
        if object::text(spec, &["serviceAccountName"]).is_empty() {
            object::fields(spec).insert("serviceAccountName".to_owned(), "default".into());
        }
        let name = object::text(spec, &["serviceAccountName"]).to_owned();
        // The old name of the same field is still written for old readers.
        object::fields(spec).insert("serviceAccount".to_owned(), name.as_str().into());
        let account = registry
            .rows
            .by_kind("", "v1", "ServiceAccount")
            .and_then(|row| registry.caches.of(row))
            .and_then(|cache| cache.get(&registry::path(change.namespace, &name)))
            .map(|account| account.value());
        let Some(account) = account else {
            return Err(refuse(
                object,
                &format!(
                    "error looking up service account {}/{name}: serviceaccount \"{name}\" not \
                     found",
                    change.namespace
                ),
            ));
        };
        let spec = object::child(object, "spec");
        if object::list(spec, &["imagePullSecrets"]).is_empty()
            && let Some(secrets) = account.get("imagePullSecrets")
        {
            object::fields(spec).insert("imagePullSecrets".to_owned(), secrets.clone());
        }
        let flag = |value: &Value| {
            value
                .get("automountServiceAccountToken")
                .and_then(Value::as_bool)
        };
        if flag(spec).or_else(|| flag(&account)).unwrap_or(true) {
            mount_token(spec);
        }
        Ok(())
    }
}

fn mount_token(spec: &mut Value) {
    let existing = object::list(spec, &["volumes"])
        .iter()
        .map(|volume| object::text(volume, &["name"]))
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let tail: String = (0..5)
            .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
            .collect();
        format!("kube-api-access-{tail}")
    });
    let mut used = false;
    for list in CONTAINERS {
        let Some(Value::Array(containers)) = spec.get_mut(list) else {
            continue;
        };
        for container in containers {
            let mounted = object::list(container, &["volumeMounts"])
                .iter()
                .any(|mount| object::text(mount, &["mountPath"]) == TOKEN_PATH);
            if mounted {
                continue;
            }
            used = true;
            let mounts = object::fields(container)
                .entry("volumeMounts")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(mounts) = mounts {
                mounts.push(json!({"name": name, "mountPath": TOKEN_PATH, "readOnly": true}));
            }
        }
    }
    if !used || existing.is_some() {
        return;
    }
    let volumes = object::fields(spec)
        .entry("volumes")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(volumes) = volumes {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// `DefaultTolerationSeconds`: five minutes on a node that is not ready or not reachable.
pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn mutate(&self, _: &Registry, change: &Change<'_>, object: &mut Value) -> Result<(), Status> {
        // Of pods that are changed too: who takes these tolerations away gets them back.
        let written = matches!(change.operation, Operation::Create | Operation::Update);
        if !(written && change.is_core("Pod") && change.subresource.is_none()) {
            return Ok(());
        }
        let spec = object::child(object, "spec");
        for key in [
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        ] {
            let tolerated = object::list(spec, &["tolerations"])
                .iter()
                .any(|toleration| {
                    let found = object::text(toleration, &["key"]);
                    let effect = object::text(toleration, &["effect"]);
                    (found == key || found.is_empty()) && matches!(effect, "NoExecute" | "")
                });
            if tolerated {
                continue;
            }
            let tolerations = object::fields(spec)
                .entry("tolerations")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(tolerations) = tolerations {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
                }));
            }
        }
        Ok(())
    }
}
