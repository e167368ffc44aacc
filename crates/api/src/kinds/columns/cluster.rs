//! Columns of what a cluster is run with: drivers, classes, flow control, certificates, devices.

use serde_json::Value;

use super::{INTEGER, STRING, count};
use crate::kinds::table::{age, column, or_none, since};
use crate::object::{at, deletion_timestamp, integer, list, text};
use crate::row::{Cell, Column};

const BOOLEAN: &str = "boolean";

fn is_true(object: &Value, path: &[&str]) -> bool {
    at(object, path) == Some(&Value::Bool(true))
}

pub(in crate::kinds) fn csi_driver() -> Vec<Column> {
    vec![
        column(
            "AttachRequired",
            BOOLEAN,
            Cell::Of(|object| {
                (at(object, &["spec", "attachRequired"]) != Some(&Value::Bool(false))).into()
            }),
            "Volumes have to be attached before they are mounted.",
        ),
        column(
            "PodInfoOnMount",
            BOOLEAN,
            Cell::Of(|object| is_true(object, &["spec", "podInfoOnMount"]).into()),
            "The driver is told about the pod.",
        ),
        column(
            "StorageCapacity",
            BOOLEAN,
            Cell::Of(|object| is_true(object, &["spec", "storageCapacity"]).into()),
            "The driver reports how much there is.",
        ),
        column(
            "TokenRequests",
            STRING,
            Cell::Of(|object| match at(object, &["spec", "tokenRequests"]) {
                Some(Value::Array(requests)) => {
                    let all: Vec<&str> = requests
                        .iter()
                        .map(|request| text(request, &["audience"]))
                        .collect();
                    all.join(",").into()
                }
                _ => "<unset>".into(),
            }),
            "Audiences of the tokens that the driver gets.",
        ),
        column(
            "RequiresRepublish",
            BOOLEAN,
            Cell::Of(|object| is_true(object, &["spec", "requiresRepublish"]).into()),
            "Mounted volumes are refreshed.",
        ),
        column(
            "Modes",
            STRING,
            Cell::Of(|object| {
                let modes: Vec<&str> = list(object, &["spec", "volumeLifecycleModes"])
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                or_none(&modes.join(","))
            }),
            "The ways volumes live.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn csi_node() -> Vec<Column> {
    vec![
        column(
            "Drivers",
            INTEGER,
            Cell::Of(|object| list(object, &["spec", "drivers"]).len().into()),
            "How many drivers are registered on the node",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn volume_attachment() -> Vec<Column> {
    vec![
        crate::kinds::table::name(),
        Column {
            format: "name".into(),
            ..column(
                "Attacher",
                STRING,
                Cell::Of(|object| text(object, &["spec", "attacher"]).into()),
                "The driver that attaches.",
            )
        },
        column(
            "PV",
            STRING,
            Cell::Of(|object| text(object, &["spec", "source", "persistentVolumeName"]).into()),
            "The volume.",
        ),
        column(
            "Node",
            STRING,
            Cell::Of(|object| text(object, &["spec", "nodeName"]).into()),
            "The node.",
        ),
        column(
            "Attached",
            BOOLEAN,
            Cell::Of(|object| is_true(object, &["status", "attached"]).into()),
            "The volume is attached.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn volume_attributes_class() -> Vec<Column> {
    vec![
        column(
            "DriverName",
            STRING,
            Cell::Of(|object| text(object, &["driverName"]).into()),
            "The driver that knows the attributes.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn runtime_class() -> Vec<Column> {
    vec![
        column(
            "Handler",
            STRING,
            Cell::Of(|object| text(object, &["handler"]).into()),
            "What the runtime of the node calls it.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn flow_schema() -> Vec<Column> {
    vec![
        column(
            "PriorityLevel",
            STRING,
            Cell::Of(|object| text(object, &["spec", "priorityLevelConfiguration", "name"]).into()),
            "The level that serves these requests.",
        ),
        column(
            "MatchingPrecedence",
            STRING,
            Cell::Of(|object| count(object, &["spec", "matchingPrecedence"])),
            "Of schemas that match, the lowest counts.",
        ),
        column(
            "DistinguisherMethod",
            STRING,
            Cell::Of(|object| or_none(text(object, &["spec", "distinguisherMethod", "type"]))),
            "What makes requests one flow.",
        ),
        age(),
        column(
            "MissingPL",
            STRING,
            Cell::Of(|object| {
                list(object, &["status", "conditions"])
                    .iter()
                    .find(|condition| text(condition, &["type"]) == "Dangling")
                    .map_or("?", |condition| text(condition, &["status"]))
                    .into()
            }),
            "references a broken or non-existent PriorityLevelConfiguration",
        ),
    ]
}

pub(in crate::kinds) fn priority_level() -> Vec<Column> {
    fn or_nothing(object: &Value, path: &[&str]) -> Value {
        match integer(object, path) {
            Some(number) => number.into(),
            None => "<none>".into(),
        }
    }
    const QUEUING: [&str; 4] = ["spec", "limited", "limitResponse", "queuing"];
    fn queuing(object: &Value, name: &str) -> Value {
        match at(object, &QUEUING) {
            Some(queuing) => count(queuing, &[name]),
            None => "<none>".into(),
        }
    }
    vec![
        column(
            "Type",
            STRING,
            Cell::Of(|object| text(object, &["spec", "type"]).into()),
            "Whether requests are limited.",
        ),
        column(
            "NominalConcurrencyShares",
            STRING,
            Cell::Of(|object| or_nothing(object, &["spec", "limited", "nominalConcurrencyShares"])),
            "Its share of the server.",
        ),
        column(
            "Queues",
            STRING,
            Cell::Of(|object| queuing(object, "queues")),
            "How many queues there are.",
        ),
        column(
            "HandSize",
            STRING,
            Cell::Of(|object| queuing(object, "handSize")),
            "How many of them a flow may use.",
        ),
        column(
            "QueueLengthLimit",
            STRING,
            Cell::Of(|object| queuing(object, "queueLengthLimit")),
            "How many requests wait in one.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn only_age() -> Vec<Column> {
    vec![age()]
}

pub(in crate::kinds) fn resource_claim() -> Vec<Column> {
    vec![
        column(
            "State",
            STRING,
            Cell::Of(|object| {
                let gone = deletion_timestamp(object).is_some();
                let mut states = Vec::new();
                if gone {
                    states.push("deleted");
                }
                if at(object, &["status", "allocation"]).is_some() {
                    states.push("allocated");
                    if !list(object, &["status", "reservedFor"]).is_empty() {
                        states.push("reserved");
                    }
                } else if !gone {
                    states.push("pending");
                }
                states.join(",").into()
            }),
            "A summary of the current state (allocated, pending, reserved, etc.).",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn resource_slice() -> Vec<Column> {
    vec![
        column(
            "Node",
            STRING,
            Cell::Of(|object| text(object, &["spec", "nodeName"]).into()),
            "The node that has the devices.",
        ),
        column(
            "Driver",
            STRING,
            Cell::Of(|object| text(object, &["spec", "driver"]).into()),
            "Who drives them.",
        ),
        column(
            "Pool",
            STRING,
            Cell::Of(|object| text(object, &["spec", "pool", "name"]).into()),
            "The pool that they are part of.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn pod_group() -> Vec<Column> {
    fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
        let mut all = list(object, &["status", "conditions"]).iter();
        all.find(|condition| text(condition, &["type"]) == name)
    }
    vec![
        column(
            "Policy",
            STRING,
            Cell::Of(
                |object| match at(object, &["spec", "schedulingPolicy", "gang"]) {
                    None | Some(Value::Null) => "Basic".into(),
                    Some(_) => "Gang".into(),
                },
            ),
            "Whether its pods are placed together or one by one.",
        ),
        column(
            "Workload",
            STRING,
            Cell::Of(|object| or_none(text(object, &["spec", "workloadRef", "workloadName"]))),
            "Name of the referenced Workload object",
        ),
        column(
            "Status",
            STRING,
            Cell::Of(|object| {
                if let Some(disrupted) = condition(object, "DisruptionTarget") {
                    return text(disrupted, &["reason"]).into();
                }
                match condition(object, "PodGroupInitiallyScheduled") {
                    None => "Pending".into(),
                    Some(known) if text(known, &["status"]) == "True" => "Scheduled".into(),
                    Some(_) => "Unschedulable".into(),
                }
            }),
            "Status of the PodGroup",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn storage_version_migration() -> Vec<Column> {
    vec![
        column(
            "Resource",
            STRING,
            Cell::Of(|object| {
                let of = |name| text(object, &["spec", "resource", name]);
                match of("group") {
                    "" => of("resource").into(),
                    group => format!("{}.{group}", of("resource")).into(),
                }
            }),
            "GroupResource to migrate",
        ),
        column(
            "Status",
            STRING,
            Cell::Of(|object| {
                let all = list(object, &["status", "conditions"]).iter();
                let told = all.filter(|condition| text(condition, &["status"]) == "True");
                let told = told.map(|condition| text(condition, &["type"]));
                let mut known = told.filter(|it| matches!(*it, "Running" | "Failed" | "Succeeded"));
                known.next_back().unwrap_or("Unknown").into()
            }),
            "Status of the migration",
        ),
    ]
}

pub(in crate::kinds) fn device_taint_rule() -> Vec<Column> {
    vec![
        column(
            "Key",
            STRING,
            Cell::Of(|object| text(object, &["spec", "taint", "key"]).into()),
            "The taint key to be applied to a device.",
        ),
        column(
            "Value",
            STRING,
            Cell::Of(|object| text(object, &["spec", "taint", "value"]).into()),
            "The taint value corresponding to the taint key.",
        ),
        column(
            "Effect",
            STRING,
            Cell::Of(|object| text(object, &["spec", "taint", "effect"]).into()),
            "What the taint does to claims and pods that do not bear it.",
        ),
        column(
            "TimeAdded",
            STRING,
            Cell::At(
                |object, now| match text(object, &["spec", "taint", "timeAdded"]) {
                    "" => "".into(),
                    added => since(added, now).into(),
                },
            ),
            "Since when the taint is there.",
        ),
        age(),
    ]
}
