//! Columns of what keeps pods running.

use jiff::Timestamp;
use serde_json::Value;

use super::{INTEGER, STRING, count, template_columns};
use crate::kinds::pod::has_condition;
use crate::kinds::table::{
    age, column, human_duration, labels_text, or_none, selector_text, since, wide,
};
use crate::object::{at, deletion_timestamp, integer, list, text};
use crate::row::{Cell, Column};

/// The containers of a template at `$path`: names and images, shown only with `-o wide` or always.
macro_rules! container_columns {
    ($column:ident, [$($path:literal),*]) => {
        [
            $column(
                "Containers",
                STRING,
                Cell::Of(|object| super::containers_at(object, &[$($path),*], "name")),
                super::CONTAINERS,
            ),
            $column(
                "Images",
                STRING,
                Cell::Of(|object| super::containers_at(object, &[$($path),*], "image")),
                super::IMAGES,
            ),
        ]
    };
}

pub(in crate::kinds) fn stateful_set() -> Vec<Column> {
    let mut columns = vec![
        column(
            "Ready",
            STRING,
            Cell::Of(|object| {
                format!(
                    "{}/{}",
                    count(object, &["status", "readyReplicas"]),
                    count(object, &["spec", "replicas"])
                )
                .into()
            }),
            "Number of the pod with ready state",
        ),
        age(),
    ];
    columns.extend(container_columns!(
        wide,
        ["spec", "template", "spec", "containers"]
    ));
    columns
}

pub(in crate::kinds) fn daemon_set() -> Vec<Column> {
    let mut columns = vec![
        column(
            "Desired",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "desiredNumberScheduled"])),
            "Number of nodes that should run the pod.",
        ),
        column(
            "Current",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "currentNumberScheduled"])),
            "Number of nodes that run the pod and should.",
        ),
        column(
            "Ready",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "numberReady"])),
            "Number of nodes where the pod is ready.",
        ),
        column(
            "Up-to-date",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "updatedNumberScheduled"])),
            "Number of nodes that run the pod of the current template.",
        ),
        column(
            "Available",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "numberAvailable"])),
            "Number of nodes where the pod has been ready for at least minReadySeconds.",
        ),
        column(
            "Node Selector",
            STRING,
            Cell::Of(|object| {
                let path = ["spec", "template", "spec", "nodeSelector"];
                labels_text(at(object, &path).unwrap_or(&Value::Null))
            }),
            "Nodes with these labels run the pod.",
        ),
        age(),
    ];
    columns.extend(template_columns());
    columns
}

pub(in crate::kinds) fn replication_controller() -> Vec<Column> {
    let mut columns = super::replica_set();
    columns.pop();
    columns.push(wide(
        "Selector",
        STRING,
        Cell::Of(|object| labels_text(at(object, &["spec", "selector"]).unwrap_or(&Value::Null))),
        super::SELECTOR,
    ));
    columns
}

pub(in crate::kinds) fn controller_revision() -> Vec<Column> {
    vec![
        column(
            "Controller",
            STRING,
            Cell::Of(controller),
            "Controller of the object",
        ),
        column(
            "Revision",
            STRING,
            Cell::Of(|object| count(object, &["revision"])),
            "Which revision of the state this is.",
        ),
        age(),
    ]
}

/// `deployment.apps/web`
fn controller(object: &Value) -> Value {
    let owner = list(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    let Some(owner) = owner else {
        return "<none>".into();
    };
    let kind = text(owner, &["kind"]).to_lowercase();
    let name = text(owner, &["name"]);
    match text(owner, &["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}").into(),
        None => format!("{kind}/{name}").into(),
    }
}

pub(in crate::kinds) fn pod_template() -> Vec<Column> {
    let mut columns = container_columns!(column, ["template", "spec", "containers"]).to_vec();
    columns.push(column(
        "Pod Labels",
        STRING,
        Cell::Of(|object| {
            labels_text(at(object, &["template", "metadata", "labels"]).unwrap_or(&Value::Null))
        }),
        "The labels for the pod template.",
    ));
    columns
}

pub(in crate::kinds) fn job() -> Vec<Column> {
    let mut columns = vec![
        column("Status", STRING, Cell::Of(job_status), "Status of the job."),
        column(
            "Completions",
            STRING,
            Cell::Of(completions),
            "The number of pods which reached phase Succeeded.",
        ),
        column(
            "Duration",
            STRING,
            Cell::At(|object, now| duration(object, now).into()),
            "Time required to complete the job.",
        ),
        age(),
    ];
    columns.extend(template_columns());
    columns
}

fn job_status(job: &Value) -> Value {
    let ended = ["Complete", "Failed"];
    let on_its_way = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    let first = |of: &[&'static str]| of.iter().copied().find(|kind| has_condition(job, kind));
    first(&ended)
        .or_else(|| deletion_timestamp(job).map(|_| "Terminating"))
        .or_else(|| first(&on_its_way))
        .unwrap_or("Running")
        .into()
}

fn completions(job: &Value) -> Value {
    let succeeded = count(job, &["status", "succeeded"]);
    let parallelism = integer(job, &["spec", "parallelism"]).unwrap_or(0);
    match integer(job, &["spec", "completions"]) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
    .into()
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |name: &str| text(job, &["status", name]).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else {
        return String::new();
    };
    let end = time("completionTime").unwrap_or(now);
    human_duration(end.duration_since(start).as_secs())
}

pub(in crate::kinds) fn cron_job() -> Vec<Column> {
    let mut columns = vec![
        column(
            "Schedule",
            STRING,
            Cell::Of(|object| text(object, &["spec", "schedule"]).into()),
            "The schedule in cron form.",
        ),
        column(
            "Timezone",
            STRING,
            Cell::Of(|object| or_none(text(object, &["spec", "timeZone"]))),
            "The time zone of the schedule.",
        ),
        column(
            "Suspend",
            "boolean",
            Cell::Of(|object| match at(object, &["spec", "suspend"]) {
                Some(Value::Bool(true)) => "True".into(),
                Some(Value::Bool(false)) => "False".into(),
                _ => "<unset>".into(),
            }),
            "No further jobs are started.",
        ),
        column(
            "Active",
            INTEGER,
            Cell::Of(|object| list(object, &["status", "active"]).len().into()),
            "Jobs that run.",
        ),
        column(
            "Last Schedule",
            STRING,
            Cell::At(
                |object, now| match text(object, &["status", "lastScheduleTime"]) {
                    "" => "<none>".into(),
                    time => since(time, now).into(),
                },
            ),
            "The last time a job was started.",
        ),
        age(),
    ];
    columns.extend(container_columns!(
        wide,
        [
            "spec",
            "jobTemplate",
            "spec",
            "template",
            "spec",
            "containers"
        ]
    ));
    columns.push(wide(
        "Selector",
        STRING,
        Cell::Of(|object| {
            let path = ["spec", "jobTemplate", "spec", "selector"];
            selector_text(at(object, &path).unwrap_or(&Value::Null))
        }),
        super::SELECTOR,
    ));
    columns
}

pub(in crate::kinds) fn disruption_budget() -> Vec<Column> {
    fn limit(object: &Value, name: &str) -> Value {
        match at(object, &["spec", name]) {
            Some(Value::String(share)) => share.as_str().into(),
            Some(Value::Number(number)) => number.to_string().into(),
            _ => "N/A".into(),
        }
    }
    vec![
        column(
            "Min Available",
            STRING,
            Cell::Of(|object| limit(object, "minAvailable")),
            "The minimum number of pods that must be available.",
        ),
        column(
            "Max Unavailable",
            STRING,
            Cell::Of(|object| limit(object, "maxUnavailable")),
            "The maximum number of pods that may be unavailable.",
        ),
        column(
            "Allowed Disruptions",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "disruptionsAllowed"])),
            "Calculated number of pods that may be disrupted at this time.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn priority_class() -> Vec<Column> {
    vec![
        column(
            "Value",
            INTEGER,
            Cell::Of(|object| count(object, &["value"])),
            "The priority of pods of this class.",
        ),
        column(
            "Global-Default",
            "boolean",
            Cell::Of(|object| (object.get("globalDefault") == Some(&Value::Bool(true))).into()),
            "Pods without a class have this one.",
        ),
        age(),
        column(
            "PreemptionPolicy",
            STRING,
            Cell::Of(|object| text(object, &["preemptionPolicy"]).into()),
            "Whether pods of this class make others go.",
        ),
    ]
}

pub(in crate::kinds) fn quota() -> Vec<Column> {
    vec![
        column(
            "Request",
            STRING,
            Cell::Of(|object| used(object, false)),
            "Amounts used and allowed, of requests and objects.",
        ),
        column(
            "Limit",
            STRING,
            Cell::Of(|object| used(object, true)),
            "Amounts used and allowed, of limits.",
        ),
        age(),
    ]
}

/// `pods: 1/10, cpu: 500m/1`, those of limits or the others.
fn used(quota: &Value, limits: bool) -> Value {
    let mut parts: Vec<String> = Vec::new();
    let hard = at(quota, &["status", "hard"]).and_then(Value::as_object);
    let mut names: Vec<&String> = hard.into_iter().flat_map(serde_json::Map::keys).collect();
    names.sort_unstable();
    for name in names
        .into_iter()
        .filter(|name| name.starts_with("limits.") == limits)
    {
        let amount = |list: &str| match text(quota, &["status", list, name]) {
            "" => "0",
            amount => amount,
        };
        parts.push(format!("{name}: {}/{}", amount("used"), amount("hard")));
    }
    parts.join(", ").into()
}
