//! What is to be done about the migrations of one resource, and what their status says. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Under way.
pub const RUNNING: &str = "Running";
/// Ended well.
pub const SUCCEEDED: &str = "Succeeded";
/// Ended badly.
pub const FAILED: &str = "Failed";

/// A condition by its type, if it is true.
fn is_true(migration: &StorageVersionMigration, kind: &str) -> bool {
    let status = migration.status.as_ref();
    let mut all = status
        .and_then(|it| it.conditions.as_ref())
        .into_iter()
        .flatten();
    all.any(|it| it.type_ == kind && it.status == "True")
}

/// It has ended.
#[must_use]
pub fn has_ended(migration: &StorageVersionMigration) -> bool {
    is_true(migration, SUCCEEDED) || is_true(migration, FAILED)
}

/// It ended well.
#[must_use]
pub fn has_succeeded(migration: &StorageVersionMigration) -> bool {
    is_true(migration, SUCCEEDED)
}

/// The revision up to which objects are written again, once it is known.
#[must_use]
pub fn revision(migration: &StorageVersionMigration) -> Option<u64> {
    let text = migration.status.as_ref()?.resource_version.as_deref()?;
    text.parse().ok()
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// These have ended and still say that they run.
    pub ended: Vec<Arc<StorageVersionMigration>>,
    /// This one is due: no other one of the resource runs.
    pub start: Option<Arc<StorageVersionMigration>>,
    /// These run.
    pub running: Vec<Arc<StorageVersionMigration>>,
}

/// Of the migrations of one resource one runs at a time, the oldest first.
#[must_use]
pub fn plan(all: &[Arc<StorageVersionMigration>]) -> Plan {
    let mut plan = Plan::default();
    for migration in all {
        match (is_true(migration, RUNNING), has_ended(migration)) {
            (true, true) => plan.ended.push(Arc::clone(migration)),
            (true, false) => plan.running.push(Arc::clone(migration)),
            _ => {}
        }
    }
    if plan.running.is_empty() {
        let waiting = all.iter().filter(|it| {
            !is_true(it, RUNNING) && !has_ended(it) && it.metadata.deletion_timestamp.is_none()
        });
        let age = |it: &&Arc<StorageVersionMigration>| {
            let made = it.metadata.creation_timestamp.as_ref().map(|at| at.0);
            (made, it.metadata.name.clone())
        };
        plan.start = waiting.min_by_key(age).map(Arc::clone);
    }
    plan
}

/// The migration with a condition as it is to be. The time changes with the status alone.
#[must_use]
pub fn with(
    migration: &StorageVersionMigration,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> StorageVersionMigration {
    let mut wanted = migration.clone();
    let conditions = wanted
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let status = if status { "True" } else { "False" };
    let since = conditions
        .iter()
        .find(|it| it.type_ == kind && it.status == status)
        .map(|it| it.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match conditions.iter_mut().find(|it| it.type_ == kind) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    wanted
}

/// What `Running` says.
#[must_use]
pub fn running_text(left: usize, total: usize, error: Option<&str>) -> String {
    let mut text = "The migration is running".to_owned();
    if total > 0 && left > 0 {
        text.push_str(&format!(", {left}/{total} objects not yet migrated"));
    } else if total > 0 {
        text.push_str(&format!(", {total} objects verified migrated"));
    }
    if let Some(error) = error {
        text.push_str(&format!("; transient error: {error}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(
        name: &str,
        made: u32,
        conditions: &[(&str, &str)],
    ) -> Arc<StorageVersionMigration> {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "r", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        let value = json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{made:02}Z")},
            "spec": {"resource": {"group": "", "resource": "secrets"}},
            "status": {"conditions": conditions},
        });
        Arc::new(serde_json::from_value(value).expect("a migration"))
    }

    fn names(all: &[Arc<StorageVersionMigration>]) -> Vec<&str> {
        all.iter()
            .filter_map(|it| it.metadata.name.as_deref())
            .collect()
    }

    #[test]
    fn one_at_a_time_the_oldest_first() {
        let first = migration("b", 1, &[]);
        let later = migration("a", 2, &[]);
        let found = plan(&[Arc::clone(&later), Arc::clone(&first)]);
        assert_eq!(names(found.start.as_slice()), ["b"]);
        let running = migration("c", 3, &[(RUNNING, "True")]);
        let found = plan(&[first, later, running]);
        assert!(found.start.is_none());
        assert_eq!(names(&found.running), ["c"]);
    }

    #[test]
    fn what_has_ended_stops_running_and_the_next_one_starts() {
        let ended = migration("a", 1, &[(RUNNING, "True"), (SUCCEEDED, "True")]);
        let failed = migration("b", 1, &[(RUNNING, "False"), (FAILED, "True")]);
        let next = migration("c", 2, &[]);
        let found = plan(&[ended, failed, next]);
        assert_eq!(names(&found.ended), ["a"]);
        assert_eq!(names(found.start.as_slice()), ["c"]);
        assert!(found.running.is_empty());
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_status() {
        let now = "2026-02-02T00:00:00Z".parse().expect("a time");
        let before = migration("a", 1, &[(RUNNING, "True")]);
        let same = with(&before, RUNNING, true, "MigrationRunning", "again", now);
        let other = with(&before, RUNNING, false, "MigrationCompleted", "done", now);
        let time = |it: &StorageVersionMigration| {
            let status = it.status.as_ref().expect("a status");
            status.conditions.as_ref().expect("conditions")[0]
                .last_transition_time
                .0
                .to_string()
        };
        assert_eq!(time(&same), "2026-01-01T00:00:00Z");
        assert_eq!(time(&other), "2026-02-02T00:00:00Z");
    }

    #[test]
    fn the_text_counts() {
        assert_eq!(running_text(0, 0, None), "The migration is running");
        assert_eq!(
            running_text(2, 5, Some("too busy")),
            "The migration is running, 2/5 objects not yet migrated; transient error: too busy"
        );
        assert_eq!(
            running_text(0, 5, None),
            "The migration is running, 5 objects verified migrated"
        );
    }
}
