//! What each loop of this program may do: a service account in `kube-system` with the rights that its
//! controller has in the reference, and those that only this one needs.

use serde_json::Value;

use super::{binding, role, rule, rules, subject};

/// Rights that the controllers of the reference have and that these loops do without: who runs such a
/// controller in place of the loop finds them.
const FURTHER: &[(&str, &[&str])] = &[
    (
        "daemon-set-controller",
        &[
            "extensions : daemonsets : get,list,watch",
            "extensions : daemonsets/finalizers,daemonsets/status : update",
            "core : pods/binding : create",
        ],
    ),
    (
        "deployment-controller",
        &[
            "extensions : deployments : get,list,update,watch",
            "extensions : deployments/finalizers,deployments/status : update",
            "extensions : replicasets : create,delete,get,list,patch,update,watch",
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            "resource.k8s.io : deviceclasses : get,list,watch",
            "resource.k8s.io : devicetaintrules/status : update",
            "core : pods/status : update",
        ],
    ),
    (
        "disruption-controller",
        &["extensions : deployments,replicasets : get,list,watch"],
    ),
    (
        "endpointslicemirroring-controller",
        &["core : endpoints/finalizers,services/finalizers : update"],
    ),
    (
        "horizontal-pod-autoscaler",
        &[
            "metrics.k8s.io : pods : list,watch",
            "custom.metrics.k8s.io,external.metrics.k8s.io : * : watch",
        ],
    ),
    ("namespace-controller", &["* : * : watch"]),
    ("persistent-volume-binder", &["core : events : watch"]),
    (
        "replicaset-controller",
        &[
            "extensions : replicasets : get,list,update,watch",
            "extensions : replicasets/finalizers,replicasets/status : update",
        ],
    ),
    (
        "resource-claim-controller",
        &[
            "resource.k8s.io : resourceclaims : patch",
            "resource.k8s.io : resourceclaims/binding : patch,update",
            "resource.k8s.io : resourceclaims/status : patch",
            "core : pods/status : update",
        ],
    ),
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
        // The reference's has the rights of all controllers.
        "serviceaccount-token-controller",
        &[
            "core : secrets : get,list,watch,update,delete",
            "core : serviceaccounts : get,list,watch",
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            "core : persistentvolumeclaims,persistentvolumes : get,list,watch",
            "storage.k8s.io : volumeattributesclasses : get,list,update,watch",
        ],
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
        "service-cidrs-controller",
        &[
            "networking.k8s.io : servicecidrs : get,list,watch,patch,update",
            "networking.k8s.io : servicecidrs/finalizers,servicecidrs/status : patch,update",
            "networking.k8s.io : ipaddresses : get,list,watch",
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

/// Keeps groups that pods belong to.
const POD_GROUP_PROTECTION: [&str; 3] = [
    "scheduling.k8s.io : podgroups : get,list,watch,update",
    "core : pods : get,list,watch",
    "core,events.k8s.io : events : create,patch,update",
];

/// The roles of all loops and who has them.
pub(super) fn objects(workloads: bool) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut add = |name: &str, rules: Vec<Value>| {
        let full = format!("system:controller:{name}");
        objects.push(role(&full, rules));
        objects.push(binding(&full, &full, vec![subject("ServiceAccount", name)]));
    };
    if workloads {
        add(
            "podgroup-protection-controller",
            rules(&POD_GROUP_PROTECTION),
        );
    }
    for (name, lines) in LOOPS {
        let mut all = rules(lines);
        all.push(rule("core,events.k8s.io : events : create,patch,update"));
        let further = FURTHER.iter().filter(|(of, _)| of == name);
        all.extend(further.flat_map(|(_, lines)| rules(lines)));
        add(name, all);
    }
    objects
}
