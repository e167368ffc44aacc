//! Paths of the fake, and the kinds its discovery tells of.

use kube::Resource;

/// Group, version, plural, kind, namespaced, subresources.
pub(super) type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
);

/// What discovery tells. Objects of other kinds are stored all the same.
pub(super) const ROWS: &[Row] = &[
    (
        "",
        "v1",
        "namespaces",
        "Namespace",
        false,
        &["status", "finalize"],
    ),
    ("", "v1", "nodes", "Node", false, &["status"]),
    (
        "",
        "v1",
        "pods",
        "Pod",
        true,
        &["status", "binding", "eviction"],
    ),
    ("", "v1", "services", "Service", true, &["status"]),
    ("", "v1", "endpoints", "Endpoints", true, &[]),
    ("", "v1", "configmaps", "ConfigMap", true, &[]),
    ("", "v1", "secrets", "Secret", true, &[]),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, &[]),
    ("", "v1", "events", "Event", true, &[]),
    (
        "apps",
        "v1",
        "deployments",
        "Deployment",
        true,
        &["status", "scale"],
    ),
    (
        "apps",
        "v1",
        "replicasets",
        "ReplicaSet",
        true,
        &["status", "scale"],
    ),
    (
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        true,
        &["status"],
    ),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, &[]),
    (
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        true,
        &[],
    ),
    (
        "apps",
        "v1",
        "statefulsets",
        "StatefulSet",
        true,
        &["status", "scale"],
    ),
    ("apps", "v1", "daemonsets", "DaemonSet", true, &["status"]),
    ("batch", "v1", "jobs", "Job", true, &["status"]),
    (
        "",
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        true,
        &["status"],
    ),
    ("example.org", "v1", "widgets", "Widget", true, &["status"]),
];

/// Group-version and plural, such as `apps/v1/deployments` or `v1/pods`.
pub(super) fn collection_of<K: Resource<DynamicType = ()>>() -> String {
    format!("{}/{}", K::api_version(&()), K::plural(&()))
}

pub(super) fn row_of(collection: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| {
        let slash = if row.0.is_empty() { "" } else { "/" };
        collection == format!("{}{slash}{}/{}", row.0, row.1, row.2)
    })
}

/// A path taken apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Route {
    pub(super) collection: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) sub: String,
}

impl Route {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => {
                ("", rest)
            }
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, sub) = match rest {
            [plural] => (plural, "", ""),
            [plural, name] => (plural, *name, ""),
            [plural, name, sub] => (plural, *name, *sub),
            _ => return None,
        };
        Some(Self {
            collection: format!("{version}/{plural}"),
            plural: (*plural).to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            sub: sub.to_owned(),
        })
    }

    /// `pods` or `pods/status`.
    pub(super) fn resource(&self) -> String {
        if self.sub.is_empty() {
            self.plural.clone()
        } else {
            format!("{}/{}", self.plural, self.sub)
        }
    }
}
