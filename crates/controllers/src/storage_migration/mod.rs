//! Storage-version migrations: every object of a resource is written again, so that it is stored in
//! today's version and sealed with today's key (KEP-4192).
//!
//! The writing is the door's: a patch that changes nothing is kept only where the object would be
//! stored differently now. Here it is decided which migration runs, which objects are older than its
//! beginning, and what its status says. Of a custom kind the definition says meanwhile that it is
//! being migrated, and afterwards that no other version is stored any more.

pub mod plan;

use std::sync::Arc;

use evenkeel_client::{LoopContext, Outcome, View, WorkQueue, errors, run_loop};
use futures::stream::{self, StreamExt as _};
use jiff::SignedDuration;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::discovered::{Resource, discover};
use crate::error::ReconcileError;
use plan::{FAILED, RUNNING, SUCCEEDED, has_succeeded, revision, running_text, with};

const MANAGER: &str = "storage-version-migrator-controller";
/// What a resource must be able to do.
const VERBS: [&str; 3] = ["update", "patch", "list"];
/// A kind that was defined a moment ago may not be served yet.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
/// Objects of a page.
const PAGE: u32 = 500;
/// Patches under way at once.
const AT_ONCE: usize = 16;
/// The condition of definitions.
const MIGRATING: &str = "StorageMigrating";

/// `deployments.apps`; of the core group `secrets`.
fn resource_of(migration: &StorageVersionMigration) -> String {
    let Some(resource) = migration.spec.as_ref().map(|spec| &spec.resource) else {
        return String::new();
    };
    if resource.group.is_empty() {
        resource.resource.clone()
    } else {
        format!("{}.{}", resource.resource, resource.group)
    }
}

/// How writing one object again ended.
enum Written {
    /// It is as it would be stored now, or gone.
    Done,
    /// It may work later.
    Later(String),
    /// It will not.
    Never(String),
}

fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        _ => true,
    }
}

struct Reconciler {
    migrations: Arc<View<StorageVersionMigration>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, resource: String) -> Result<Outcome, ReconcileError> {
        let mut all = self.migrations.list();
        all.retain(|migration| resource_of(migration) == resource);
        let plan = plan::plan(&all);
        for ended in &plan.ended {
            self.end(ended, &resource).await?;
        }
        if let Some(next) = &plan.start {
            self.start(next, &resource).await?;
        }
        for running in &plan.running {
            self.go_on(running).await?;
        }
        Ok(Outcome::Done)
    }

    async fn write(&self, wanted: &StorageVersionMigration) -> Result<(), ReconcileError> {
        let api: evenkeel_client::Api<StorageVersionMigration> =
            evenkeel_client::Api::all(self.context.client.clone());
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        match api
            .replace_status(name, &PostParams::default(), wanted)
            .await
        {
            Ok(written) => {
                self.migrations.note_written(written);
                Ok(())
            }
            Err(error) if errors::is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn start(
        &self,
        migration: &StorageVersionMigration,
        resource: &str,
    ) -> Result<(), ReconcileError> {
        let name = migration.metadata.name.as_deref().unwrap_or_default();
        let text = format!("Migration {name} is running");
        self.define(resource, true, "MigrationRunning", &text, false)
            .await?;
        let now = self.context.clock.now();
        let text = running_text(0, 0, None);
        let wanted = with(migration, RUNNING, true, "MigrationRunning", &text, now);
        self.write(&wanted).await
    }

    async fn end(
        &self,
        migration: &StorageVersionMigration,
        resource: &str,
    ) -> Result<(), ReconcileError> {
        if has_succeeded(migration) {
            let text = "The migration has succeeded";
            self.define(resource, false, "MigrationSucceeded", text, true)
                .await?;
        } else {
            let text = "The migration has failed";
            self.define(resource, false, "MigrationFailed", text, false)
                .await?;
        }
        let (reason, text) = ("MigrationCompleted", "Migration completed");
        let now = self.context.clock.now();
        self.write(&with(migration, RUNNING, false, reason, text, now))
            .await
    }

    async fn fail(
        &self,
        migration: &StorageVersionMigration,
        why: &str,
    ) -> Result<(), ReconcileError> {
        tracing::warn!(migration = migration.metadata.name, why, "failed");
        let now = self.context.clock.now();
        let reason = "StorageVersionMigrationFailed";
        self.write(&with(migration, FAILED, true, reason, why, now))
            .await
    }

    /// The next thing about a migration that runs: from when on it need not look, and then the
    /// objects.
    async fn go_on(&self, migration: &StorageVersionMigration) -> Result<(), ReconcileError> {
        let Some(wanted) = migration.spec.as_ref().map(|spec| &spec.resource) else {
            return Ok(());
        };
        let served = discover(&self.context.client).await?;
        let found = served
            .iter()
            .find(|it| it.group == wanted.group && it.plural == wanted.resource);
        let Some(resource) = found else {
            let made = migration.metadata.creation_timestamp.as_ref();
            let age = made.map(|made| self.context.clock.now().duration_since(made.0));
            if age.is_some_and(|age| age < PATIENCE) {
                let text = format!("{} is not served yet", resource_of(migration));
                return Err(ReconcileError::State(text));
            }
            return self
                .fail(migration, "resource does not exist in discovery")
                .await;
        };
        if !resource.can(&VERBS) {
            let text = format!(
                "resource \"{}, Resource={}\" does not support discovery operations: [{}]",
                resource.api_version(),
                resource.plural,
                VERBS.join(" ")
            );
            return self.fail(migration, &text).await;
        }
        let Some(until) = revision(migration) else {
            let objects = objects(self.context.client.clone(), resource, "");
            let list = objects
                .list_metadata(&ListParams::default().limit(1))
                .await?;
            let mut wanted = migration.clone();
            wanted.status.get_or_insert_default().resource_version = list.metadata.resource_version;
            return self.write(&wanted).await;
        };
        self.rewrite(migration, resource, until).await
    }

    async fn rewrite(
        &self,
        migration: &StorageVersionMigration,
        resource: &Resource,
        until: u64,
    ) -> Result<(), ReconcileError> {
        let client = &self.context.client;
        let everywhere = objects(client.clone(), resource, "");
        let mut params = ListParams::default().limit(PAGE);
        let (mut total, mut old) = (0, Vec::new());
        loop {
            let page = everywhere.list_metadata(&params).await?;
            total += page.items.len();
            for item in page.items {
                let version = item.metadata.resource_version.unwrap_or_default();
                // What was written since is stored as it should be.
                if version.parse::<u64>().is_ok_and(|version| version <= until) {
                    let namespace = item.metadata.namespace.unwrap_or_default();
                    let name = item.metadata.name.unwrap_or_default();
                    old.push((namespace, name, version));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
                None => break,
            }
        }
        let count = old.len();
        let writing = old.into_iter().map(|(namespace, name, version)| {
            let of = objects(client.clone(), resource, &namespace);
            async move { again(&of, resource, &name, &version).await }
        });
        let mut writing = stream::iter(writing).buffer_unordered(AT_ONCE);
        let (mut done, mut later, mut never) = (0, None, None);
        while let Some(written) = writing.next().await {
            match written {
                Written::Done => done += 1,
                Written::Later(why) => later = Some(why),
                Written::Never(why) => never = Some(why),
            }
        }
        drop(writing);
        let left = count - done;
        let now = self.context.clock.now();
        let told = |error: Option<&str>| {
            let text = running_text(left, total, error);
            with(migration, RUNNING, true, "MigrationRunning", &text, now)
        };
        if let Some(why) = never {
            let text = format!(
                "{left}/{total} not yet migrated. migration encountered unhandled error: {why}"
            );
            return self.fail(&told(None), &text).await;
        }
        if let Some(why) = later {
            self.write(&told(Some(&why))).await?;
            return Err(ReconcileError::State(why));
        }
        let reason = "StorageVersionMigrationSucceeded";
        let text = "Migration completed";
        self.write(&with(&told(None), SUCCEEDED, true, reason, text, now))
            .await
    }

    /// Says in the definition of a custom kind what is going on; with `only` that today's version is
    /// the only one that is stored, if it is still the one with which the migration began.
    async fn define(
        &self,
        resource: &str,
        running: bool,
        reason: &str,
        message: &str,
        only: bool,
    ) -> Result<(), ReconcileError> {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{resource}");
        let client = &self.context.client;
        let ask = http::Request::get(&path).body(Vec::new());
        let ask = ask.map_err(kube::Error::HttpError)?;
        let found: Value = match client.request(ask).await {
            Ok(found) => found,
            Err(error) if errors::is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = self.context.clock.now().to_string();
        let status = defined(&found, running, reason, message, only, &now);
        let patch = json!({
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "status": status,
        });
        let patch = serde_json::to_vec(&patch).map_err(kube::Error::SerdeError)?;
        let write = http::Request::patch(format!("{path}/status?fieldManager={MANAGER}"))
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch)
            .map_err(kube::Error::HttpError)?;
        client.request::<Value>(write).await?;
        Ok(())
    }
}

/// What a definition's status is to say.
fn defined(
    definition: &Value,
    running: bool,
    reason: &str,
    message: &str,
    only: bool,
    now: &str,
) -> Value {
    let generation = &definition["metadata"]["generation"];
    let conditions = definition["status"]["conditions"].as_array();
    let mut conditions = conditions.cloned().unwrap_or_default();
    let before = conditions.iter().find(|it| it["type"] == MIGRATING);
    let same = before.is_some_and(|it| it["observedGeneration"] == *generation);
    let mut status = json!({});
    let mut message = message.to_owned();
    if only {
        message.push_str(if same {
            " and the stored versions have been updated"
        } else {
            " but the stored versions have not been updated due to a generation mismatch"
        });
    }
    if only && same {
        let versions = definition["spec"]["versions"].as_array();
        let mut versions = versions.into_iter().flatten();
        if let Some(stored) = versions.find(|version| version["storage"] == true) {
            status["storedVersions"] = json!([stored["name"]]);
        }
    }
    conditions.retain(|it| it["type"] != MIGRATING);
    conditions.push(json!({
        "type": MIGRATING,
        "status": if running { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
        "observedGeneration": generation,
    }));
    status["conditions"] = conditions.into();
    status
}

fn objects(client: Client, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource {
        group: resource.group.clone(),
        version: resource.version.clone(),
        api_version: resource.api_version(),
        kind: resource.kind.clone(),
        plural: resource.plural.clone(),
    };
    if namespace.is_empty() {
        Api::all_with(client, &kind)
    } else {
        Api::namespaced_with(client, namespace, &kind)
    }
}

/// Writes an object again as it is.
async fn again(
    objects: &Api<DynamicObject>,
    resource: &Resource,
    name: &str,
    version: &str,
) -> Written {
    let patch = json!({
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": {"resourceVersion": version},
    });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match objects.patch(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Written::Done,
        // Changed meanwhile, which wrote it again, or deleted.
        Err(error) if errors::is_conflict(&error) || errors::is_not_found(&error) => Written::Done,
        Err(error) if is_transient(&error) => Written::Later(errors::message(&error)),
        Err(error) => Written::Never(errors::message(&error)),
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let migrations = context.views.of::<StorageVersionMigration>();
    migrations.synced().await;
    let queue = WorkQueue::new(context.metrics.of("storage-version-migrator"));
    {
        let queue = Arc::clone(&queue);
        migrations.on_change(move |change| {
            for side in change.sides() {
                queue.add(resource_of(side));
            }
        });
    }
    let reconciler = Reconciler {
        migrations,
        context: context.clone(),
    };
    run_loop(
        "storage-version-migrator",
        5,
        queue,
        context.shutdown,
        |resource| reconciler.reconcile(resource),
    )
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_forgets_old_versions_unless_it_has_changed_meanwhile() {
        let now = "2026-01-01T00:00:00Z";
        let mut definition = json!({
            "metadata": {"generation": 3},
            "spec": {"versions": [{"name": "v1", "storage": false}, {"name": "v2", "storage": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}],
                "storedVersions": ["v1", "v2"]},
        });
        let status = defined(&definition, true, "MigrationRunning", "m", false, now);
        assert_eq!(status["conditions"][0]["type"], "Established");
        assert_eq!(status["conditions"][1]["observedGeneration"], 3);
        assert!(status["storedVersions"].is_null());
        definition["status"]["conditions"] = status["conditions"].clone();
        let ended = defined(&definition, false, "MigrationSucceeded", "m", true, now);
        assert_eq!(ended["storedVersions"], json!(["v2"]));
        assert_eq!(ended["conditions"][1]["status"], "False");
        definition["metadata"]["generation"] = json!(4);
        let changed = defined(&definition, false, "MigrationSucceeded", "m", true, now);
        assert!(changed["storedVersions"].is_null());
        let failed = defined(&definition, false, "MigrationFailed", "m", false, now);
        assert!(failed["storedVersions"].is_null());
    }
}
