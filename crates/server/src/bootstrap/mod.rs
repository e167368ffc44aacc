//! What a cluster has from its first second: namespaces, roles, bindings, the door itself as
//! a service, and the network that services get addresses of.
//!
//! Missing objects are made at each start, and some of them whenever they are gone. Roles that exist are brought up to date unless they
//! say `rbac.authorization.kubernetes.io/autoupdate: "false"`, as in the reference.

mod policy;
mod ranges;
mod service;
mod told;

use std::sync::Arc;

use evenkeel_api::{Status, object};
use serde_json::{Value, json};

use crate::door::Door;
use crate::registry::Outcome;
use crate::verbs::touch_create;
pub(crate) use ranges::Upkeep;
pub(crate) use service::{Published, keep_service};

pub(crate) use told::{Place, keep};

/// What the node authorizer gives to every agent, as policy rules.
pub(crate) fn node_rules() -> Vec<Value> {
    policy::of_nodes()
}

/// Makes what is missing.
pub(crate) async fn run(door: &Arc<Door>) -> Result<(), Status> {
    door.registry.drop_old_claims().await?;
    service::restore(door).await?;
    // One round of concurrent creates shares fsyncs; a loop of single ones would not.
    let groups = door.rows();
    let groups = groups.by_kind("scheduling.k8s.io", "v1beta1", "PodGroup");
    let objects = policy::objects(groups.is_some());
    futures::future::try_join_all(objects.into_iter().map(|object| reconcile(door, object)))
        .await?;
    for class in priority_classes() {
        touch_create(door, class).await?;
    }
    crate::aggregation::register_builtin(door).await?;
    told::authentication(door).await
}

/// The classes of pods that a cluster can't do without.
fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
        })
    };
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to \
             another node if necessary.",
        ),
    ]
}

/// Creates a role or binding, or updates its rules, role and subjects.
async fn reconcile(door: &Arc<Door>, wanted: Value) -> Result<(), Status> {
    if touch_create(door, wanted.clone()).await? {
        return Ok(());
    }
    let api_version = object::text(&wanted, &["apiVersion"]).to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(row) = door
        .rows()
        .by_kind(group, version, object::text(&wanted, &["kind"]))
        .cloned()
    else {
        return Ok(());
    };
    let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
    loop {
        let Some(seen) = door.registry.get(&row, namespace, name).await? else {
            return Ok(());
        };
        let mut value = seen.value();
        if object::annotation(&value, "rbac.authorization.kubernetes.io/autoupdate")
            == Some("false")
        {
            return Ok(());
        }
        // The rules of an aggregated role are others' business.
        let aggregated = wanted.get("aggregationRule").is_some();
        for part in ["rules", "roleRef", "aggregationRule"] {
            if aggregated && part == "rules" {
                continue;
            }
            if let Some(wanted) = wanted.get(part) {
                object::fields(&mut value).insert(part.to_owned(), wanted.clone());
            }
        }
        let labels = object::at(&wanted, &["metadata", "labels"]).and_then(Value::as_object);
        for (name, label) in labels.into_iter().flatten() {
            let metadata = object::child(&mut value, "metadata");
            object::fields(object::child(metadata, "labels")).insert(name.clone(), label.clone());
        }
        add_subjects(&mut value, &wanted);
        row.strategy.defaults(&mut value);
        match door.registry.replace(&row, &seen, value).await? {
            Outcome::Done(_) | Outcome::Stale(None) => return Ok(()),
            Outcome::Stale(Some(_)) => {}
        }
    }
}

/// Subjects that were added by hand stay; missing ones come back.
fn add_subjects(value: &mut Value, wanted: &Value) {
    for subject in object::list(wanted, &["subjects"]) {
        let same = |found: &Value| {
            ["kind", "name", "namespace"]
                .iter()
                .all(|name| object::text(found, &[name]) == object::text(subject, &[name]))
        };
        if object::list(value, &["subjects"]).iter().any(same) {
            continue;
        }
        let subjects = object::fields(value)
            .entry("subjects")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(subjects) = subjects {
            subjects.push(subject.clone());
        }
    }
}

impl Door {
    /// Says to everybody where the cluster is and by which authority it can be believed, as
    /// `kubeadm` does: a machine that joins checks it by the token it was given. From now on that is
    /// kept so; what an administrator has written stays, he may have named a load balancer.
    ///
    /// # Errors
    /// The store fails.
    pub async fn publish_cluster_info(
        self: &Arc<Self>,
        server: &str,
        authority: &str,
    ) -> Result<(), Status> {
        use base64::Engine as _;
        const NAME: &str = "cluster-info";
        const ROLE: &str = "kubeadm:bootstrap-signer-clusterinfo";
        const GROUP: &str = "rbac.authorization.k8s.io";
        *self.place.lock() = Some(Place {
            server: server.to_owned(),
            authority: base64::engine::general_purpose::STANDARD.encode(authority),
        });
        told::info(self, true).await?;
        let api = format!("{GROUP}/v1");
        let metadata = |name: &str| json!({"name": name, "namespace": "kube-public"});
        for object in [
            json!({"apiVersion": api, "kind": "Role", "metadata": metadata(ROLE),
                "rules": [{"apiGroups": [""], "resources": ["configmaps"],
                    "resourceNames": [NAME], "verbs": ["get"]}]}),
            json!({"apiVersion": api, "kind": "RoleBinding", "metadata": metadata(ROLE),
                "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": ROLE},
                "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "system:anonymous"}]}),
        ] {
            touch_create(self, object).await?;
        }
        Ok(())
    }

    /// Creates an object, or replaces some of its fields.
    async fn put(self: &Arc<Self>, wanted: Value, parts: &[&str]) -> Result<(), Status> {
        if touch_create(self, wanted.clone()).await? {
            return Ok(());
        }
        let api_version = object::text(&wanted, &["apiVersion"]).to_owned();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let row = self
            .rows()
            .by_kind(group, version, object::text(&wanted, &["kind"]))
            .cloned()
            .ok_or_else(Status::no_such_path)?;
        loop {
            let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
            let Some(seen) = self.registry.get(&row, namespace, name).await? else {
                return Ok(());
            };
            let mut value = seen.value();
            for part in parts {
                let wanted = wanted.get(*part).cloned().unwrap_or_default();
                object::fields(&mut value).insert((*part).to_owned(), wanted);
            }
            match self.registry.replace(&row, &seen, value).await? {
                Outcome::Done(_) | Outcome::Stale(None) => return Ok(()),
                Outcome::Stale(Some(_)) => {}
            }
        }
    }
}
