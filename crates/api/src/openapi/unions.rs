//! Types of which one field says which of the others counts: `x-kubernetes-unions`.

use serde_json::{Map, Value, json};

/// Types (without `io.k8s.api.`), the field that says it, and the fields that it chooses from.
const UNIONS: &[(&str, Option<&str>, &[&str])] = &[
    (
        "core.v1.AppArmorProfile",
        Some("type"),
        &["localhostProfile"],
    ),
    ("core.v1.PodSchedulingGroup", None, &["podGroupName"]),
    (
        "core.v1.SeccompProfile",
        Some("type"),
        &["localhostProfile"],
    ),
    ("flowcontrol.v1.LimitResponse", Some("type"), &["queuing"]),
    (
        "flowcontrol.v1.PriorityLevelConfigurationSpec",
        Some("type"),
        &["exempt", "limited"],
    ),
    (
        "flowcontrol.v1.Subject",
        Some("kind"),
        &["group", "serviceAccount", "user"],
    ),
    (
        "batch.v1.WorkloadPodGroupDisruptionMode",
        None,
        &["all", "single"],
    ),
    (
        "batch.v1.WorkloadPodGroupSchedulingPolicy",
        None,
        &["basic", "gang"],
    ),
];

/// The unions of a type.
pub(super) fn of(name: &str) -> Option<Value> {
    let name = name.strip_prefix("io.k8s.api.")?;
    let (_, by, fields) = UNIONS.iter().find(|(known, ..)| *known == name)?;
    let fields: Map<String, Value> = fields
        .iter()
        .map(|field| ((*field).to_owned(), super::operation::title(field).into()))
        .collect();
    let mut union = json!({"fields-to-discriminateBy": fields});
    if let Some(by) = by {
        union["discriminator"] = (*by).into();
    }
    Some(json!([union]))
}
