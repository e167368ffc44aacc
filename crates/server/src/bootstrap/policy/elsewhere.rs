//! Roles of controllers that this program has no loop for: who runs one of the reference's finds them.

use serde_json::Value;

use super::programs::inside;
use super::{binding, role, rules, subject};

/// (service account, rules).
const CONTROLLERS: &[(&str, &[&str])] = &[
    (
        "legacy-service-account-token-cleaner",
        &[
            "core : configmaps : get : kube-apiserver-legacy-service-account-token-tracking",
            "core : secrets : delete,patch",
        ],
    ),
    (
        "route-controller",
        &[
            "core : nodes : list,watch",
            "core : nodes/status : patch",
            EVENTS,
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            "core : persistentvolumeclaims,persistentvolumes,pods : get,list,watch",
            "storage.k8s.io : csidrivers : get,list,watch",
        ],
    ),
    (
        "service-controller",
        &[
            "core : services : get,list,watch",
            "core : services/status : patch,update",
            "core : nodes : list,watch",
            EVENTS,
        ],
    ),
    (
        "ttl-controller",
        &["core : nodes : list,patch,update,watch", EVENTS],
    ),
];

const EVENTS: &str = "core,events.k8s.io : events : create,patch,update";

/// The same of those that have their rights in `kube-system` alone.
const WITHIN: &[(&str, &[&str])] = &[
    (
        "cloud-provider",
        &["core : configmaps : create,get,list,watch"],
    ),
    (
        "token-cleaner",
        &["core : secrets : delete,get,list,watch", EVENTS],
    ),
];

/// Their roles and who has them.
pub(super) fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, lines) in CONTROLLERS {
        let full = format!("system:controller:{name}");
        objects.push(role(&full, rules(lines)));
        objects.push(binding(&full, &full, vec![subject("ServiceAccount", name)]));
    }
    for (name, lines) in WITHIN {
        let full = format!("system:controller:{name}");
        let binding = binding(&full, &full, vec![subject("ServiceAccount", name)]);
        objects.push(inside(role(&full, rules(lines)), "Role", "kube-system"));
        objects.push(inside(binding, "RoleBinding", "kube-system"));
    }
    objects
}
