//! What programs may do: parts of the cluster, those who watch over it, and everybody who asks what is
//! there. Where the reference has a role for programs that come from elsewhere, it is here too.

use serde_json::{Value, json};

use super::{binding, role, rule, rules, subject, urls};

/// The rights of a node's agent. Nobody has the role, as in the reference: the node authorizer gives
/// these rights, and of what belongs to a node or its pods only the part that is about this node.
pub(super) const NODE: &[&str] = &[
    "authentication.k8s.io : tokenreviews : create",
    "authorization.k8s.io : localsubjectaccessreviews,subjectaccessreviews : create",
    "core : services : get,list,watch",
    "core : nodes : create,get,list,watch",
    "core : nodes/status : patch,update",
    "core : nodes : patch,update",
    "core,events.k8s.io : events : create,patch,update",
    "core : pods : get,list,watch",
    "core : pods : create,delete",
    "core : pods/status : patch,update",
    "core : pods/eviction : create",
    "core : configmaps,secrets : get,list,watch",
    "core : persistentvolumeclaims,persistentvolumes : get",
    "core : endpoints : get",
    "certificates.k8s.io : certificatesigningrequests : create,get,list,watch",
    "coordination.k8s.io : leases : create,delete,get,patch,update",
    "storage.k8s.io : volumeattachments : get",
    "core : serviceaccounts/token : create",
    "core : persistentvolumeclaims/status : get,patch,update",
    "storage.k8s.io : csidrivers : get,list,watch",
    "storage.k8s.io : csinodes : create,delete,get,patch,update",
    "node.k8s.io : runtimeclasses : get,list,watch",
    "resource.k8s.io : resourceclaims : get",
    "resource.k8s.io : resourceslices : deletecollection",
    "certificates.k8s.io : clustertrustbundles : get,list,watch",
    "core : serviceaccounts : get",
    "certificates.k8s.io : podcertificaterequests : create,get,list,watch",
];

/// What the agent of this program needs beyond that: it routes services itself, where the reference
/// has another program for it, with an identity of its own.
const NODE_NETWORK: &[&str] = &["discovery.k8s.io : endpointslices : get,list,watch"];

/// The rights of a scheduler; [`VOLUMES`] are its as well.
const SCHEDULER: &[&str] = &[
    "core : nodes,pods,services,namespaces : get,list,watch",
    "core : pods : delete",
    "core : bindings,pods/binding : create",
    "core : pods/status : patch,update",
    "core : replicationcontrollers : get,list,watch",
    "core : pods/finalizers : update",
    "apps,extensions : replicasets : get,list,watch",
    "apps : statefulsets : get,list,watch",
    "policy : poddisruptionbudgets : get,list,watch",
    "storage.k8s.io : csidrivers,csinodes,csistoragecapacities,volumeattachments : get,list,watch",
    "core : persistentvolumeclaims,persistentvolumes : get,list,watch",
    "resource.k8s.io : deviceclasses,devicetaintrules,resourceslices : get,list,watch",
    "resource.k8s.io : resourceclaims : create,delete,get,list,patch,update,watch",
    "resource.k8s.io : resourceclaims/status : get,list,patch,update,watch",
    "resource.k8s.io : resourceclaims/binding : patch,update",
    "coordination.k8s.io : leases : create",
    "coordination.k8s.io : leases : get,list,update,watch : kube-scheduler",
    "coordination.k8s.io : leasecandidates : create,delete,deletecollection,get,list,patch,update,watch",
    "authentication.k8s.io : tokenreviews : create",
    "authorization.k8s.io : subjectaccessreviews : create",
    "core,events.k8s.io : events : create,patch,update",
];

/// What binds volumes to claims.
const VOLUMES: &[&str] = &[
    "core : persistentvolumeclaims,persistentvolumes : get,list,patch,update,watch",
    "storage.k8s.io : storageclasses : get,list,watch",
];

/// The rights of the loops beside those that each has for itself. Which of several servers runs them
/// they write down in `kube-system`, where they may by [`leader`].
const CONTROLLER_MANAGER: &[&str] = &[
    "* : * : list,watch",
    "coordination.k8s.io : leases : create",
    "coordination.k8s.io : leases : get,update : kube-controller-manager",
    "core : configmaps,namespaces,secrets,serviceaccounts : get",
    "core : secrets,serviceaccounts : create,update",
    "core : secrets : delete",
    "core : serviceaccounts/token : create",
    "authentication.k8s.io : tokenreviews : create",
    "authorization.k8s.io : subjectaccessreviews : create",
    "core,events.k8s.io : events : create,patch,update",
];

/// Roles that nobody has until somebody binds them to a program of his.
const OTHERS: &[(&str, &[&str])] = &[
    (
        "system:heapster",
        &[
            "core : events,namespaces,nodes,pods : get,list,watch",
            "extensions : deployments : get,list,watch",
        ],
    ),
    (
        "system:kube-aggregator",
        &["core : endpoints,services : get,list,watch"],
    ),
    (
        "system:node-problem-detector",
        &[
            "core : nodes : get",
            "core : nodes/status : patch",
            "core,events.k8s.io : events : create,patch,update",
        ],
    ),
    (
        "system:persistent-volume-provisioner",
        &[
            "core : persistentvolumes : create,delete,get,list,watch",
            "core : persistentvolumeclaims : get,list,update,watch",
            "storage.k8s.io : storageclasses : get,list,watch",
            "core : events : watch",
            "core,events.k8s.io : events : create,patch,update",
        ],
    ),
];

/// Signers whose requests a role lets its holder approve.
const SIGNERS: [&str; 4] = [
    "kube-apiserver-client",
    "kube-apiserver-client-kubelet",
    "kubelet-serving",
    "legacy-unknown",
];

/// The roles of programs and who has them.
///
/// With `workloads` those about the kinds behind the gate `GenericWorkload` too.
pub(super) fn objects(workloads: bool) -> Vec<Value> {
    let mut objects = everybody();
    objects.extend(parts(workloads));
    for (name, lines) in OTHERS {
        objects.push(role(name, rules(lines)));
    }
    for signer in SIGNERS {
        let name = format!("system:certificates.k8s.io:{signer}-approver");
        let line = format!("certificates.k8s.io : signers : approve : kubernetes.io/{signer}");
        objects.push(role(&name, vec![rule(&line)]));
    }
    objects.extend(extensions());
    objects.extend(signer());
    objects.extend(leader("kube-controller-manager"));
    objects.extend(leader("kube-scheduler"));
    objects
}

fn scheduler(workloads: bool) -> Vec<Value> {
    let mut scheduler = rules(SCHEDULER);
    if workloads {
        scheduler.extend(rules(&[
            "scheduling.k8s.io : podgroups : get,list,watch",
            "scheduling.k8s.io : podgroups/status : patch,update",
        ]));
    }
    scheduler
}

/// What everybody may ask, or everybody who is known.
fn everybody() -> Vec<Value> {
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
    let issuer = [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/",
    ];
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
            vec![urls(&issuer, &["get"])],
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
    ]
}

/// The parts of a cluster, and those who watch over it.
fn parts(workloads: bool) -> Vec<Value> {
    let watched = [
        "/flagz",
        "/healthz",
        "/healthz/*",
        "/livez",
        "/livez/*",
        "/metrics",
        "/metrics/slis",
        "/readyz",
        "/readyz/*",
        "/statusz",
    ];
    vec![
        role(
            "system:monitoring",
            vec![urls(&watched, &["get"]), rule("core : nodes/metrics : get")],
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
                "core : nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats : *",
            ]),
        ),
        role("system:node", rules(NODE)),
        binding("system:node", "system:node", Vec::new()),
        role("evenkeel:node-network", rules(NODE_NETWORK)),
        binding(
            "evenkeel:node-network",
            "evenkeel:node-network",
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
                "core : endpoints,services : list,watch",
                "core : nodes : get,list,watch",
                "discovery.k8s.io : endpointslices : list,watch",
                "networking.k8s.io : servicecidrs : list,watch",
                "core,events.k8s.io : events : create,patch,update",
            ]),
        ),
        binding(
            "system:node-proxier",
            "system:node-proxier",
            vec![subject("User", "system:kube-proxy")],
        ),
        role("system:kube-scheduler", scheduler(workloads)),
        binding(
            "system:kube-scheduler",
            "system:kube-scheduler",
            vec![subject("User", "system:kube-scheduler")],
        ),
        role("system:kube-controller-manager", rules(CONTROLLER_MANAGER)),
        binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            vec![subject("User", "system:kube-controller-manager")],
        ),
        role("system:volume-scheduler", rules(VOLUMES)),
        binding(
            "system:volume-scheduler",
            "system:volume-scheduler",
            vec![subject("User", "system:kube-scheduler")],
        ),
        role(
            "system:kube-dns",
            rules(&["core : endpoints,services : list,watch"]),
        ),
        binding(
            "system:kube-dns",
            "system:kube-dns",
            vec![subject("ServiceAccount", "kube-dns")],
        ),
    ]
}

/// A role or binding of one namespace.
pub(super) fn inside(mut object: Value, kind: &str, namespace: &str) -> Value {
    object["kind"] = kind.into();
    object["metadata"]["namespace"] = namespace.into();
    if kind == "RoleBinding" {
        object["roleRef"]["kind"] = "Role".into();
    }
    object
}

/// Programs of which one leads write down who it is.
fn leader(program: &str) -> [Value; 2] {
    let name = format!("system::leader-locking-{program}");
    let mut subjects = vec![
        subject("User", &format!("system:{program}")),
        subject("ServiceAccount", program),
    ];
    if program == "kube-controller-manager" {
        subjects.push(subject("ServiceAccount", "leader-election-controller"));
    }
    let locks = ["coordination.k8s.io : leases,leasecandidates : create,get,list,update,watch"];
    [
        inside(role(&name, rules(&locks)), "Role", "kube-system"),
        inside(
            binding(&name, &name, subjects),
            "RoleBinding",
            "kube-system",
        ),
    ]
}

/// What servers behind the door, and those who start them, may read of how it proves itself.
fn extensions() -> [Value; 2] {
    let name = "extension-apiserver-authentication";
    let reader = format!("{name}-reader");
    let mut rule = rule("core : configmaps : get,list,watch");
    rule["resourceNames"] = json!([name]);
    let subjects = vec![
        subject("User", "system:kube-controller-manager"),
        subject("User", "system:kube-scheduler"),
    ];
    let binding = binding(&format!("system::{reader}"), &reader, subjects);
    [
        inside(role(&reader, vec![rule]), "Role", "kube-system"),
        inside(binding, "RoleBinding", "kube-system"),
    ]
}

/// What signs `cluster-info` reads tokens in one namespace and writes in another.
fn signer() -> [Value; 4] {
    let name = "system:controller:bootstrap-signer";
    let bound = |namespace: &str| {
        let subjects = vec![subject("ServiceAccount", "bootstrap-signer")];
        inside(binding(name, name, subjects), "RoleBinding", namespace)
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
