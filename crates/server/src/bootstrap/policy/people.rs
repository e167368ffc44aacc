//! What people may do: in a namespace as those who read, change or run it, and everywhere.

use serde_json::{Value, json};

use super::{binding, role, rule, rules, subject, urls};

/// What people may read in a namespace.
const VIEW: &[&str] = &[
    "core : configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status : get,list,watch",
    "core : bindings,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status : get,list,watch",
    "core : namespaces : get,list,watch",
    "core,events.k8s.io : events : get,list,watch",
    "discovery.k8s.io : endpointslices : get,list,watch",
    "apps : controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status : get,list,watch",
    "autoscaling : horizontalpodautoscalers,horizontalpodautoscalers/status : get,list,watch",
    "batch : cronjobs,cronjobs/status,jobs,jobs/status : get,list,watch",
    "extensions : daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale : get,list,watch",
    "policy : poddisruptionbudgets,poddisruptionbudgets/status : get,list,watch",
    "networking.k8s.io : ingresses,ingresses/status,networkpolicies : get,list,watch",
    "resource.k8s.io : resourceclaims,resourceclaims/status,resourceclaimtemplates : get,list,watch",
];

/// What is measured there: who installs what measures gives this to people.
const MEASURED: &str = "metrics.k8s.io : nodes,pods : get,list,watch";

/// What people may change in a namespace. Not endpoints: who writes them has services send others'
/// traffic to where he may not go himself (CVE-2021-25740).
const EDIT: &[&str] = &[
    "core : pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy : get,list,watch",
    "core : serviceaccounts : impersonate",
    "core : pods,pods/attach,pods/exec,pods/portforward,pods/proxy : create,delete,deletecollection,patch,update",
    "core : pods/eviction : create",
    "core : configmaps,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy : create,delete,deletecollection,patch,update",
    "core : serviceaccounts/token : create",
    "core,events.k8s.io : events : create,delete,deletecollection,patch,update",
    "apps : daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale : create,delete,deletecollection,patch,update",
    "autoscaling : horizontalpodautoscalers : create,delete,deletecollection,patch,update",
    "batch : cronjobs,jobs : create,delete,deletecollection,patch,update",
    "extensions : daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale : create,delete,deletecollection,patch,update",
    "policy : poddisruptionbudgets : create,delete,deletecollection,patch,update",
    "networking.k8s.io : ingresses,networkpolicies : create,delete,deletecollection,patch,update",
    "coordination.k8s.io : leases : create,delete,deletecollection,get,list,patch,update,watch",
    "resource.k8s.io : resourceclaims,resourceclaimtemplates : create,delete,deletecollection,patch,update",
];

/// What administrators of a namespace may do beyond that.
const ADMIN: &[&str] = &[
    "authorization.k8s.io : localsubjectaccessreviews : create",
    "rbac.authorization.k8s.io : roles,rolebindings : get,list,watch,create,delete,deletecollection,patch,update",
];

fn aggregation_label(to: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{to}")
}

/// A role whose rules belong to another one too.
fn labelled(mut role: Value, to: &str) -> Value {
    role["metadata"]["labels"][aggregation_label(to)] = "true".into();
    role
}

/// A role that has the rules of all that are labelled so. It begins with what they will give.
fn aggregated(mut role: Value, of: &str) -> Value {
    let selector = json!({"matchLabels": {aggregation_label(of): "true"}});
    role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
    role
}

/// The roles of people and who has them.
///
/// With `workloads` those about the kinds behind the gate `GenericWorkload` too.
pub(super) fn objects(workloads: bool) -> Vec<Value> {
    let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let (mut view, mut change) = (rules(VIEW), rules(EDIT));
    if workloads {
        view.push(rule(
            "scheduling.k8s.io : podgroups,podgroups/status,workloads : get,list,watch",
        ));
        change.push(rule(
            "scheduling.k8s.io : podgroups,workloads : create,delete,deletecollection,patch,update",
        ));
    }
    // A role stands for the next larger one by its label, and so do all that carry it.
    let read = [view.clone(), vec![rule(MEASURED)]].concat();
    let edit = [change.clone(), read.clone()].concat();
    let admin = [edit.clone(), rules(ADMIN)].concat();
    let (to_view, to_edit, to_admin) = ("view", "edit", "admin");
    let measured = role("system:aggregated-metrics-reader", vec![rule(MEASURED)]);
    vec![
        role("cluster-admin", vec![all, urls(&["*"], &["*"])]),
        binding(
            "cluster-admin",
            "cluster-admin",
            vec![subject("Group", "system:masters")],
        ),
        labelled(role("system:aggregate-to-view", view), to_view),
        labelled(measured, to_view),
        labelled(role("system:aggregate-to-edit", change), to_edit),
        labelled(role("system:aggregate-to-admin", rules(ADMIN)), to_admin),
        labelled(aggregated(role("view", read), to_view), to_edit),
        labelled(aggregated(role("edit", edit), to_edit), to_admin),
        aggregated(role("admin", admin), to_admin),
    ]
}
