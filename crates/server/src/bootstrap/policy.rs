//! The bootstrap policy: which roles there are and who has them.
//!
//! A line is a rule: `GROUPS : RESOURCES : VERBS`, and `: NAMES` where it is for some objects only,
//! with commas inside; the core group is `core`.
//! The content restates the reference's bootstrap policy for the kinds that exist here; each loop
//! of this program is a service account in `kube-system` with the rights that its controller has
//! in the reference.

use serde_json::{Value, json};

const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";
const API: &str = "rbac.authorization.k8s.io/v1";

/// What people may read in a namespace.
const VIEW: &[&str] = &[
    "core : configmaps,endpoints,pods,pods/log,pods/status,serviceaccounts,services,services/status : get,list,watch",
    "core : bindings,events,namespaces,namespaces/status : get,list,watch",
    "discovery.k8s.io : endpointslices : get,list,watch",
    "apps : deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status : get,list,watch",
    "autoscaling : horizontalpodautoscalers,horizontalpodautoscalers/status : get,list,watch",
    "metrics.k8s.io : nodes,pods : get,list,watch",
    "apps : controllerrevisions,daemonsets,daemonsets/status,statefulsets,statefulsets/scale,statefulsets/status : get,list,watch",
    "batch : cronjobs,cronjobs/status,jobs,jobs/status : get,list,watch",
    "core : replicationcontrollers,replicationcontrollers/scale,replicationcontrollers/status : get,list,watch",
    "policy : poddisruptionbudgets,poddisruptionbudgets/status : get,list,watch",
    "core : limitranges,persistentvolumeclaims,persistentvolumeclaims/status,resourcequotas,resourcequotas/status : get,list,watch",
    "networking.k8s.io : ingresses,ingresses/status,networkpolicies : get,list,watch",
];

/// What people may change in a namespace.
const EDIT: &[&str] = &[
    "core : pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy : get,list,watch",
    "core : serviceaccounts : impersonate",
    "core : pods,pods/attach,pods/exec,pods/portforward,pods/proxy : create,delete,deletecollection,patch,update",
    "core : pods/eviction,serviceaccounts/token : create",
    "core : configmaps,events,secrets,serviceaccounts,services,services/proxy,endpoints : create,delete,deletecollection,patch,update",
    "apps : deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale : create,delete,deletecollection,patch,update",
    "autoscaling : horizontalpodautoscalers : create,delete,deletecollection,patch,update",
    "coordination.k8s.io : leases : get,list,watch,create,delete,deletecollection,patch,update",
    "apps : daemonsets,statefulsets,statefulsets/scale : create,delete,deletecollection,patch,update",
    "batch : cronjobs,jobs : create,delete,deletecollection,patch,update",
    "core : replicationcontrollers,replicationcontrollers/scale : create,delete,deletecollection,patch,update",
    "policy : poddisruptionbudgets : create,delete,deletecollection,patch,update",
    "core : persistentvolumeclaims : create,delete,deletecollection,patch,update",
    "networking.k8s.io : ingresses,networkpolicies : create,delete,deletecollection,patch,update",
];

/// What administrators of a namespace may do beyond that.
const ADMIN: &[&str] = &[
    "authorization.k8s.io : localsubjectaccessreviews : create",
    "rbac.authorization.k8s.io : roles,rolebindings : get,list,watch,create,delete,deletecollection,patch,update",
];

/// The rights of a node's agent. Secrets, ConfigMaps, tokens and pods' certificates are given by the node authorizer,
/// for what the node's pods refer to.
const NODE: &[&str] = &[
    "authentication.k8s.io : tokenreviews : create",
    "authorization.k8s.io : localsubjectaccessreviews,subjectaccessreviews : create",
    "core : services : get,list,watch",
    "discovery.k8s.io : endpointslices : get,list,watch",
    "core : nodes : create,get,list,watch,patch,update",
    "core : nodes/status : patch,update",
    "core : events : create,patch,update",
    "core : pods : get,list,watch,create,delete",
    "core : pods/status : patch,update",
    "core : pods/eviction : create",
    "coordination.k8s.io : leases : create,delete,get,patch,update",
    "certificates.k8s.io : certificatesigningrequests : create,get,list,watch",
    "certificates.k8s.io : clustertrustbundles : get,list,watch",
    "storage.k8s.io : csidrivers : get,list,watch",
    "storage.k8s.io : csinodes : create,delete,get,patch,update",
];

/// Rights of the loops: (service account, rules). Every loop may also record events.
const LOOPS: &[(&str, &[&str])] = &[
    (
        "deployment-controller",
        &[
            "apps : deployments : get,list,watch,update,patch",
            "apps : deployments/finalizers : update",
            "apps : deployments/status : update,patch",
            "apps : replicasets : create,delete,get,list,patch,update,watch",
            "core : pods : get,list,update,watch",
        ],
    ),
    (
        "replicaset-controller",
        &[
            "apps : replicasets : get,list,update,watch",
            "apps : replicasets/finalizers : update",
            "apps : replicasets/status : update,patch",
            "core : pods : create,delete,list,get,patch,watch",
        ],
    ),
    (
        "replication-controller",
        &[
            "core : replicationcontrollers : get,list,update,watch",
            "core : replicationcontrollers/finalizers,replicationcontrollers/status : update",
            "core : pods : create,delete,list,patch,watch",
        ],
    ),
    (
        "statefulset-controller",
        &[
            "apps : statefulsets : get,list,watch",
            "apps : statefulsets/finalizers,statefulsets/status : update",
            "apps : controllerrevisions : create,delete,get,list,patch,update,watch",
            "core : pods : create,delete,get,list,patch,update,watch",
            "core : pods/finalizers : update",
            "core : persistentvolumeclaims : create,delete,get,list,update,watch",
        ],
    ),
    (
        "daemon-set-controller",
        &[
            "apps : daemonsets : get,list,watch",
            "apps : daemonsets/finalizers,daemonsets/status : update",
            "apps : controllerrevisions : create,delete,get,list,patch,update,watch",
            "core : nodes : list,watch",
            "core : pods : create,delete,list,patch,watch",
        ],
    ),
    (
        "job-controller",
        &[
            "batch : jobs : get,list,patch,update,watch",
            "batch : jobs/finalizers,jobs/status : update",
            "core : pods : create,delete,get,list,patch,watch",
        ],
    ),
    (
        "ttl-after-finished-controller",
        &["batch : jobs : delete,get,list,watch"],
    ),
    (
        "cronjob-controller",
        &[
            "batch : cronjobs : get,list,update,watch",
            "batch : cronjobs/finalizers,cronjobs/status : update",
            "batch : jobs : create,delete,get,list,patch,update,watch",
            "core : pods : delete,list,watch",
        ],
    ),
    (
        "disruption-controller",
        &[
            "apps : deployments,replicasets,statefulsets : get,list,watch",
            "core : replicationcontrollers : get,list,watch",
            "core : pods/status : patch,update",
            "policy : poddisruptionbudgets : get,list,watch",
            "policy : poddisruptionbudgets/status : update",
            "* : */scale : get",
        ],
    ),
    (
        "endpointslice-controller",
        &[
            "core : nodes,pods,services : get,list,watch",
            "core : services/finalizers : update",
            "discovery.k8s.io : endpointslices : create,delete,get,list,update,patch,watch",
        ],
    ),
    (
        "endpoint-controller",
        &[
            "core : pods,services : get,list,watch",
            "core : endpoints : create,delete,get,list,update,patch,watch",
            "core : endpoints/restricted : create",
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            "core : endpoints,services : get,list,watch",
            "discovery.k8s.io : endpointslices : create,delete,get,list,update,patch,watch",
        ],
    ),
    (
        "load-balancer-controller",
        &[
            "core : services : get,list,patch,watch",
            "core : services/status : patch",
            "core : namespaces,nodes : get,list,watch",
            "discovery.k8s.io : endpointslices : get,list,watch",
            "metallb.io : ipaddresspools,l2advertisements : get,list,watch",
            "metallb.io : ipaddresspools/status : patch",
            "apiextensions.k8s.io : customresourcedefinitions : create",
        ],
    ),
    (
        "namespace-controller",
        &[
            "core : namespaces : delete,get,list,watch",
            "core : namespaces/finalize,namespaces/status : update,patch",
            "* : * : delete,deletecollection,get,list",
        ],
    ),
    (
        "generic-garbage-collector",
        &["* : * : delete,get,list,patch,update,watch"],
    ),
    (
        "service-account-controller",
        &[
            "core : namespaces : get,list,watch",
            "core : serviceaccounts : create,get,list,watch",
        ],
    ),
    (
        "root-ca-cert-publisher",
        &[
            "core : namespaces : get,list,watch",
            "core : configmaps : create,get,list,watch,update,patch",
        ],
    ),
    (
        "node-controller",
        &[
            "core : nodes : get,list,update,delete,patch,watch",
            "core : nodes/status : patch,update",
            "core : pods : get,list,watch,delete,patch",
            "core : pods/status : patch,update",
            "coordination.k8s.io : leases : get,list,watch",
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            "core : nodes : get,list,watch",
            "core : pods : get,list,watch,delete",
            "core : pods/status : patch",
        ],
    ),
    (
        "horizontal-pod-autoscaler",
        &[
            "autoscaling : horizontalpodautoscalers : get,list,watch",
            "autoscaling : horizontalpodautoscalers/status : update,patch",
            "* : */scale : get,update,patch",
            "core : pods,nodes : get,list,watch",
            "core : nodes/proxy : get",
            "custom.metrics.k8s.io : * : get,list",
            "external.metrics.k8s.io : * : get,list",
        ],
    ),
    (
        "resourcequota-controller",
        &[
            "* : * : list,watch",
            "core : resourcequotas/status : update,patch",
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &["rbac.authorization.k8s.io : clusterroles : escalate,get,list,patch,update,watch"],
    ),
    (
        "persistent-volume-binder",
        &[
            "core : persistentvolumes : get,list,watch,update,create,delete",
            "core : persistentvolumes/status : update",
            "core : persistentvolumeclaims : get,list,watch,update",
            "core : persistentvolumeclaims/status : update",
            "core : pods : list,watch,get,create,delete",
            "storage.k8s.io : storageclasses : get,list,watch",
            "core : nodes : get,list,watch",
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            "core : persistentvolumeclaims : get,list,watch,update",
            "core : persistentvolumeclaims/status : update",
            "core : pods : list,watch,get",
        ],
    ),
    (
        "pv-protection-controller",
        &["core : persistentvolumes : get,list,watch,update"],
    ),
    (
        "ephemeral-volume-controller",
        &[
            "core : pods : get,list,watch",
            "core : pods/finalizers : update",
            "core : persistentvolumeclaims : get,list,watch,create",
        ],
    ),
    (
        "descheduler",
        &[
            "core : nodes : get,list,watch,patch",
            "core : pods,namespaces : get,list,watch",
            "core : pods/eviction : create",
        ],
    ),
    (
        "resource-claim-controller",
        &[
            "core : pods : get,list,watch",
            "core : pods/finalizers : update",
            "core : pods/status : patch",
            "resource.k8s.io : resourceclaims : get,list,watch,create,delete,update",
            "resource.k8s.io : resourceclaims/status : update",
            "resource.k8s.io : resourceclaimtemplates : get,list,watch",
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            "core : pods : get,list,watch,delete",
            "core : pods/status : patch",
            "resource.k8s.io : resourceclaims,resourceslices,devicetaintrules : get,list,watch",
            "resource.k8s.io : devicetaintrules/status : patch",
        ],
    ),
    (
        "expand-controller",
        &[
            "core : persistentvolumes : get,list,watch,update,patch",
            "core : persistentvolumeclaims/status : update,patch",
            "core : persistentvolumeclaims : get,list,watch",
            "storage.k8s.io : storageclasses : get,list,watch",
        ],
    ),
    (
        "attachdetach-controller",
        &[
            "core : persistentvolumes,persistentvolumeclaims : get,list,watch",
            "core : nodes : get,list,watch",
            "core : nodes/status : patch,update",
            "core : pods : get,list,watch",
            "storage.k8s.io : volumeattachments : create,delete,get,list,patch,watch",
            "storage.k8s.io : csidrivers,csinodes : get,list,watch",
        ],
    ),
    (
        "local-path-provisioner",
        &[
            "core : persistentvolumes : get,list,watch,create,update,delete",
            "core : persistentvolumeclaims : get,list,watch,update",
            "core : nodes : get,list,watch",
            "storage.k8s.io : storageclasses : get,list,watch,create",
            "snapshot.storage.k8s.io : volumesnapshots,volumesnapshotcontents : get",
        ],
    ),
    (
        "snapshot-controller",
        &[
            "apiextensions.k8s.io : customresourcedefinitions : create",
            "core : nodes : get,list,watch",
            "core : persistentvolumes : get,list,watch,patch",
            "core : persistentvolumeclaims : get,list,watch,patch",
            "snapshot.storage.k8s.io : volumesnapshotclasses : get,list,watch,create",
            "snapshot.storage.k8s.io : volumesnapshots : get,list,watch,patch",
            "snapshot.storage.k8s.io : volumesnapshots/status : patch",
            "snapshot.storage.k8s.io : volumesnapshotcontents : get,list,watch,create,delete,patch",
            "snapshot.storage.k8s.io : volumesnapshotcontents/status : patch",
        ],
    ),
    (
        "certificate-controller",
        &[
            "certificates.k8s.io : certificatesigningrequests : delete,get,list,watch",
            "certificates.k8s.io : certificatesigningrequests/approval,certificatesigningrequests/status : update",
            "certificates.k8s.io : signers : approve : kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving",
            "certificates.k8s.io : signers : sign : kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown",
            "core : nodes : get,list,watch",
            "authorization.k8s.io : subjectaccessreviews : create",
        ],
    ),
    (
        "podcertificaterequestcleaner",
        &["certificates.k8s.io : podcertificaterequests : get,list,watch,delete"],
    ),
    (
        "kube-apiserver-serving-clustertrustbundle-publisher",
        &[
            "certificates.k8s.io : signers : attest : kubernetes.io/kube-apiserver-serving",
            "certificates.k8s.io : clustertrustbundles : create,update,delete,list,watch",
        ],
    ),
    (
        "storage-version-migrator-controller",
        &[
            // Whatever is to be migrated.
            "* : * : list,patch",
            "apiextensions.k8s.io : customresourcedefinitions : get",
            "apiextensions.k8s.io : customresourcedefinitions/status : patch",
            "storagemigration.k8s.io : storageversionmigrations : get,list,watch",
            "storagemigration.k8s.io : storageversionmigrations/status : update",
        ],
    ),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            "admissionregistration.k8s.io : validatingadmissionpolicies : get,list,watch",
            "admissionregistration.k8s.io : validatingadmissionpolicies/status : get,patch,update",
        ],
    ),
];

fn rule(line: &str) -> Value {
    let mut parts = line.split(" : ").map(str::trim);
    let mut list = || -> Vec<&str> {
        parts
            .next()
            .map(|part| part.split(',').collect())
            .unwrap_or_default()
    };
    let groups: Vec<&str> = list()
        .into_iter()
        .map(|group| if group == "core" { "" } else { group })
        .collect();
    let (resources, verbs) = (list(), list());
    let names = list();
    let mut rule = json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

fn urls(paths: &[&str], verbs: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": verbs})
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn role(name: &str, rules: Vec<Value>) -> Value {
    json!({"apiVersion": API, "kind": "ClusterRole", "metadata": metadata(name), "rules": rules})
}

fn subject(kind: &str, name: &str) -> Value {
    if kind == "ServiceAccount" {
        return json!({"kind": kind, "name": name, "namespace": "kube-system"});
    }
    json!({"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"})
}

fn binding(name: &str, role: &str, subjects: Vec<Value>) -> Value {
    json!({
        "apiVersion": API, "kind": "ClusterRoleBinding", "metadata": metadata(name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

fn rules(lines: &[&str]) -> Vec<Value> {
    lines.iter().map(|line| rule(line)).collect()
}

/// All bootstrap roles and bindings.
///
/// With `workloads` those about the kinds behind the gate `GenericWorkload` too.
pub(super) fn objects(workloads: bool) -> Vec<Value> {
    let mut objects = people(workloads);
    objects.extend(system(workloads));
    if workloads {
        let name = "podgroup-protection-controller";
        let full = format!("system:controller:{name}");
        objects.push(role(&full, rules(&POD_GROUP_PROTECTION)));
        objects.push(binding(&full, &full, vec![subject("ServiceAccount", name)]));
    }
    objects.extend(extensions());
    objects.extend(signer());
    for (name, lines) in LOOPS {
        let full = format!("system:controller:{name}");
        let mut rules = rules(lines);
        rules.push(rule("core,events.k8s.io : events : create,patch,update"));
        objects.push(role(&full, rules));
        objects.push(binding(&full, &full, vec![subject("ServiceAccount", name)]));
    }
    objects
}

/// What servers behind the door, and those who start them, may read of how it proves itself.
fn extensions() -> [Value; 2] {
    let name = "extension-apiserver-authentication";
    let reader = format!("{name}-reader");
    let bound = format!("system::{reader}");
    let mut rule = rule("core : configmaps : get,list,watch");
    rule["resourceNames"] = json!([name]);
    let inside = |mut object: Value, kind: &str| {
        object["kind"] = kind.into();
        object["metadata"]["namespace"] = "kube-system".into();
        object
    };
    let subjects = vec![
        subject("User", "system:kube-controller-manager"),
        subject("User", "system:kube-scheduler"),
    ];
    let mut binding = inside(binding(&bound, &reader, subjects), "RoleBinding");
    binding["roleRef"]["kind"] = "Role".into();
    [inside(role(&reader, vec![rule]), "Role"), binding]
}

/// What signs `cluster-info` reads tokens in one namespace and writes in another.
fn signer() -> [Value; 4] {
    let name = "system:controller:bootstrap-signer";
    let inside = |mut object: Value, kind: &str, namespace: &str| {
        object["kind"] = kind.into();
        object["metadata"]["namespace"] = namespace.into();
        object
    };
    let bound = |namespace: &str| {
        let subjects = vec![subject("ServiceAccount", "bootstrap-signer")];
        let mut binding = inside(binding(name, name, subjects), "RoleBinding", namespace);
        binding["roleRef"]["kind"] = "Role".into();
        binding
    };
    let role =
        |namespace: &str, lines: &[&str]| inside(role(name, rules(lines)), "Role", namespace);
    let public = [
        "core : configmaps : get,list,watch",
        "core : configmaps : update : cluster-info",
        "core,events.k8s.io : events : create,patch,update",
    ];
    [
        role("kube-public", &public),
        role("kube-system", &["core : secrets : get,list,watch"]),
        bound("kube-public"),
        bound("kube-system"),
    ]
}

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

/// Keeps groups that pods belong to.
const POD_GROUP_PROTECTION: [&str; 3] = [
    "scheduling.k8s.io : podgroups : get,list,watch,update",
    "core : pods : get,list,watch",
    "core,events.k8s.io : events : create,patch,update",
];

fn people(workloads: bool) -> Vec<Value> {
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
    let edit = [change.clone(), view.clone()].concat();
    let admin = [edit.clone(), rules(ADMIN)].concat();
    let (to_view, to_edit, to_admin) = ("view", "edit", "admin");
    vec![
        role("cluster-admin", vec![all, urls(&["*"], &["*"])]),
        binding(
            "cluster-admin",
            "cluster-admin",
            vec![subject("Group", "system:masters")],
        ),
        labelled(role("system:aggregate-to-view", view.clone()), to_view),
        labelled(role("system:aggregate-to-edit", change), to_edit),
        labelled(role("system:aggregate-to-admin", rules(ADMIN)), to_admin),
        labelled(aggregated(role("view", view), to_view), to_edit),
        labelled(aggregated(role("edit", edit), to_edit), to_admin),
        aggregated(role("admin", admin), to_admin),
    ]
}

fn system(workloads: bool) -> Vec<Value> {
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let public = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let both = vec![
        subject("Group", "system:authenticated"),
        subject("Group", "system:unauthenticated"),
    ];
    let authenticated = || vec![subject("Group", "system:authenticated")];
    let all_read = format!("* : * : {READ}");
    let scheduler = [
        "core : nodes,pods,services,namespaces : get,list,watch",
        "core : pods : delete",
        "core : bindings,pods/binding : create",
        "core : pods/status : patch,update",
        "core : replicationcontrollers : get,list,watch",
        "apps : replicasets,statefulsets : get,list,watch",
        "policy : poddisruptionbudgets : get,list,watch",
        "storage.k8s.io : csidrivers,csinodes,csistoragecapacities,storageclasses : get,list,watch",
        "core : persistentvolumeclaims,persistentvolumes : get,list,watch,patch,update",
        "resource.k8s.io : deviceclasses,devicetaintrules,resourceslices : get,list,watch",
        "resource.k8s.io : resourceclaims : create,delete,get,list,update,watch",
        "resource.k8s.io : resourceclaims/status : patch,update",
        "coordination.k8s.io : leases : create,get,list,update,watch",
        "core,events.k8s.io : events : create,patch,update",
    ];
    let mut scheduler = rules(&scheduler);
    if workloads {
        scheduler.extend(rules(&[
            "scheduling.k8s.io : podgroups : get,list,watch",
            "scheduling.k8s.io : podgroups/status : patch,update",
        ]));
    }
    vec![
        role("system:discovery", vec![urls(&discovery, &["get"])]),
        binding("system:discovery", "system:discovery", authenticated()),
        role("system:public-info-viewer", vec![urls(&public, &["get"])]),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            both,
        ),
        role(
            "system:basic-user",
            rules(&[
                "authorization.k8s.io : selfsubjectaccessreviews,selfsubjectrulesreviews : create",
                "authentication.k8s.io : selfsubjectreviews : create",
            ]),
        ),
        binding("system:basic-user", "system:basic-user", authenticated()),
        role(
            "system:service-account-issuer-discovery",
            vec![urls(
                &["/.well-known/openid-configuration", "/openid/v1/jwks"],
                &["get"],
            )],
        ),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            vec![subject("Group", "system:serviceaccounts")],
        ),
        role(
            "system:cluster-trust-bundle-discovery",
            rules(&["certificates.k8s.io : clustertrustbundles : get,list,watch"]),
        ),
        binding(
            "system:cluster-trust-bundle-discovery",
            "system:cluster-trust-bundle-discovery",
            vec![subject("Group", "system:serviceaccounts")],
        ),
        role(
            "system:monitoring",
            vec![urls(
                &["/metrics", "/healthz", "/livez", "/readyz"],
                &["get"],
            )],
        ),
        binding(
            "system:monitoring",
            "system:monitoring",
            vec![subject("Group", "system:monitoring")],
        ),
        role(
            "system:auth-delegator",
            rules(&[
                "authentication.k8s.io : tokenreviews : create",
                "authorization.k8s.io : subjectaccessreviews : create",
            ]),
        ),
        role(
            "system:kubelet-api-admin",
            rules(&[
                "core : nodes : get,list,watch,proxy",
                "core : nodes/proxy,nodes/log,nodes/stats,nodes/metrics : *",
            ]),
        ),
        role("system:node", rules(NODE)),
        binding(
            "system:node",
            "system:node",
            vec![subject("Group", "system:nodes")],
        ),
        role(
            "system:node-bootstrapper",
            rules(&["certificates.k8s.io : certificatesigningrequests : create,get,list,watch"]),
        ),
        binding(
            "evenkeel:node-bootstrapper",
            "system:node-bootstrapper",
            vec![subject("Group", "system:bootstrappers")],
        ),
        role(
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            rules(&["certificates.k8s.io : certificatesigningrequests/nodeclient : create"]),
        ),
        binding(
            "evenkeel:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            vec![subject("Group", "system:bootstrappers")],
        ),
        role(
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            rules(&["certificates.k8s.io : certificatesigningrequests/selfnodeclient : create"]),
        ),
        binding(
            "evenkeel:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            vec![subject("Group", "system:nodes")],
        ),
        role(
            "system:node-proxier",
            rules(&[
                "core : services,endpoints,nodes : get,list,watch",
                "discovery.k8s.io : endpointslices : get,list,watch",
                "core,events.k8s.io : events : create,patch,update",
            ]),
        ),
        binding(
            "system:node-proxier",
            "system:node-proxier",
            vec![subject("User", "system:kube-proxy")],
        ),
        role("system:kube-scheduler", scheduler),
        binding(
            "system:kube-scheduler",
            "system:kube-scheduler",
            vec![subject("User", "system:kube-scheduler")],
        ),
        role(
            "system:kube-controller-manager",
            vec![
                rule(&all_read),
                rule("coordination.k8s.io : leases : create,get,list,update,watch"),
                rule("core : serviceaccounts/token : create"),
                rule(&format!("core,events.k8s.io : events : {WRITE}")),
            ],
        ),
        binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            vec![subject("User", "system:kube-controller-manager")],
        ),
    ]
}
