//! The list of loops that the composition starts.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;

use evenkeel_client::{
    CancellationToken, Client, LoopContext, LoopRegistry, Recorder, SharedClock, Views,
};

use crate::{certificates, garbage, namespaces, nodes, token_secrets, volumes};

/// What the composition gives to the loops of this crate.
#[derive(Clone)]
pub struct Composition {
    /// Shared views.
    pub views: Views,
    /// A client acting as `system:serviceaccount:kube-system:NAME`.
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// Wall clock.
    pub clock: SharedClock,
    /// Cancelled to end all loops.
    pub shutdown: CancellationToken,
    /// Where loops count.
    pub metrics: LoopRegistry,
    /// Certificate of the cluster's CA (PEM), published into every namespace.
    pub cluster_ca: String,
    /// Signs certificates with the cluster's authority; `None`: requests are signed by somebody
    /// else.
    pub signer: Option<certificates::Signer>,
    /// Signs the tokens of Secrets of accounts; `None`: these get theirs from somebody else.
    pub secret_tokens: Option<token_secrets::TokenSigner>,
    /// Where nodes' pod ranges are cut from; `None`: somebody else gives them.
    pub cluster_cidr: Option<IpNet>,
}

impl Debug for Composition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composition").finish_non_exhaustive()
    }
}

impl Composition {
    /// The context of one loop, acting as the service account `account` of `kube-system` and
    /// telling events as `component`. Must be called within a tokio runtime.
    #[must_use]
    pub fn context(&self, account: &str, component: &str) -> LoopContext {
        let client = (self.client_for)(account);
        LoopContext {
            views: self.views.clone(),
            recorder: Recorder::new(client.clone(), Arc::clone(&self.clock), component, ""),
            client,
            clock: Arc::clone(&self.clock),
            shutdown: self.shutdown.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// A loop ready to be spawned.
pub struct Loop {
    /// Its name, for logs and metrics.
    pub name: &'static str,
    /// Runs until the composition's shutdown.
    pub run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Loop {
    fn new(name: &'static str, run: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            name,
            run: Box::pin(run),
        }
    }
}

/// All loops of this crate. Each ends when the composition's shutdown is cancelled. Must be
/// called within a tokio runtime.
#[must_use]
pub fn all(composition: &Composition) -> Vec<Loop> {
    let context = |account, component| composition.context(account, component);
    let mut all = vec![
        Loop::new(
            "deployment",
            crate::deployment::run(context("deployment-controller", "deployment-controller")),
        ),
        Loop::new(
            "replicaset",
            crate::replicaset::run(context("replicaset-controller", "replicaset-controller")),
        ),
        Loop::new(
            "replicationcontroller",
            crate::replicaset::run_replication(context(
                "replication-controller",
                "replication-controller",
            )),
        ),
        Loop::new(
            "statefulset",
            crate::statefulset::run(context("statefulset-controller", "statefulset-controller")),
        ),
        Loop::new(
            "daemonset",
            crate::daemonset::run(context("daemon-set-controller", "daemonset-controller")),
        ),
        Loop::new(
            "job",
            crate::job::run(context("job-controller", "job-controller")),
        ),
        Loop::new(
            "ttl-after-finished",
            crate::job::ttl::run(context(
                "ttl-after-finished-controller",
                "ttl-after-finished-controller",
            )),
        ),
        Loop::new(
            "cronjob",
            crate::cronjob::run(context("cronjob-controller", "cronjob-controller")),
        ),
        Loop::new(
            "disruption",
            crate::disruption::run(context("disruption-controller", "controllermanager")),
        ),
        Loop::new(
            "endpointslice",
            crate::endpoints::run_slices(context(
                "endpointslice-controller",
                "endpoint-slice-controller",
            )),
        ),
        Loop::new(
            "endpoint",
            crate::endpoints::run_endpoints(context("endpoint-controller", "endpoint-controller")),
        ),
        Loop::new(
            "endpointslicemirroring",
            crate::endpoints::run_mirror(context(
                "endpointslicemirroring-controller",
                "endpoint-slice-mirroring-controller",
            )),
        ),
        Loop::new(
            "service-load-balancer",
            crate::balancer::run(context("load-balancer-controller", "service-controller")),
        ),
        Loop::new(
            "service-cidr",
            crate::service_cidrs::run(context(
                "service-cidrs-controller",
                "service-cidr-controller",
            )),
        ),
        Loop::new(
            "garbage-collector",
            garbage::run(context(
                "generic-garbage-collector",
                "garbage-collector-controller",
            )),
        ),
        Loop::new(
            "namespace",
            namespaces::run_deletion(context("namespace-controller", "namespace-controller")),
        ),
        Loop::new(
            "serviceaccount",
            namespaces::service_account::run(context(
                "service-account-controller",
                "service-account-controller",
            )),
        ),
        Loop::new(
            "root-ca-publisher",
            namespaces::root_ca::run(
                context("root-ca-cert-publisher", "root-ca-cert-publisher"),
                composition.cluster_ca.clone(),
            ),
        ),
        Loop::new(
            "node-lifecycle",
            nodes::run_health(context("node-controller", "node-controller")),
        ),
        Loop::new(
            "taint-eviction",
            nodes::run_eviction(context("node-controller", "taint-eviction-controller")),
        ),
        Loop::new(
            "pod-gc",
            nodes::run_pod_gc(context(
                "pod-garbage-collector",
                "pod-garbage-collector-controller",
            )),
        ),
        Loop::new(
            "resourcequota",
            crate::quota::run(context(
                "resourcequota-controller",
                "resourcequota-controller",
            )),
        ),
        Loop::new(
            "clusterrole-aggregation",
            crate::roles::run(context(
                "clusterrole-aggregation-controller",
                "clusterrole-aggregation-controller",
            )),
        ),
        Loop::new(
            "validatingadmissionpolicy-status",
            crate::policies::run(context(
                "validatingadmissionpolicy-status-controller",
                "validatingadmissionpolicy-status-controller",
            )),
        ),
        Loop::new(
            "bootstrapsigner",
            crate::bootstrap_signer::run(context("bootstrap-signer", "bootstrap-signer")),
        ),
        Loop::new(
            "csrapproving",
            certificates::approve::run(context("certificate-controller", "csrapproving")),
        ),
        Loop::new(
            "csrcleaner",
            certificates::clean::run(context("certificate-controller", "csrcleaner")),
        ),
        Loop::new(
            "podcertificaterequestcleaner",
            certificates::clean_pods::run(context(
                "podcertificaterequestcleaner",
                "podcertificaterequestcleaner",
            )),
        ),
        Loop::new(
            "kube-apiserver-serving-clustertrustbundle-publisher",
            certificates::publish::run(
                context(
                    "kube-apiserver-serving-clustertrustbundle-publisher",
                    "kube-apiserver-serving-clustertrustbundle-publisher",
                ),
                composition.cluster_ca.clone(),
            ),
        ),
        Loop::new(
            "persistentvolume-binder",
            volumes::run_binder(context(
                "persistent-volume-binder",
                "persistentvolume-controller",
            )),
        ),
        Loop::new(
            "pvc-protection",
            volumes::protection::run_claims(context(
                "pvc-protection-controller",
                "pvc-protection-controller",
            )),
        ),
        Loop::new(
            "pv-protection",
            volumes::protection::run_volumes(context(
                "pv-protection-controller",
                "pv-protection-controller",
            )),
        ),
        Loop::new(
            "vac-protection",
            volumes::class_protection::run(context(
                "volumeattributesclass-protection-controller",
                "volumeattributesclass-protection-controller",
            )),
        ),
        Loop::new(
            "ephemeral-volume",
            volumes::ephemeral::run(context("ephemeral-volume-controller", "ephemeral_volume")),
        ),
        Loop::new(
            "resource-claim",
            crate::resource_claims::run(context("resource-claim-controller", "resource_claim")),
        ),
        Loop::new(
            "device-taint-eviction",
            crate::device_taints::run(context(
                "device-taint-eviction-controller",
                "device-taint-eviction-controller",
            )),
        ),
        Loop::new(
            "podgroup-protection",
            crate::pod_groups::run(context(
                "podgroup-protection-controller",
                "podgroup-protection-controller",
            )),
        ),
        Loop::new(
            "storage-version-migrator",
            crate::storage_migration::run(context(
                "storage-version-migrator-controller",
                "storage-version-migrator-controller",
            )),
        ),
        Loop::new(
            "volume-expand",
            volumes::expand::run(context("expand-controller", "volume_expand")),
        ),
        Loop::new(
            "attachdetach",
            volumes::attach::run(context(
                "attachdetach-controller",
                "attachdetach-controller",
            )),
        ),
        Loop::new(
            "volume-snapshot",
            volumes::snapshots::run(context("snapshot-controller", "snapshot-controller")),
        ),
        Loop::new(
            "local-path",
            volumes::local_path::run(context(
                "local-path-provisioner",
                evenkeel_api::local_volume::PROVISIONER,
            )),
        ),
    ];
    if let Some(signer) = composition.signer.clone() {
        let context = context("certificate-controller", "csrsigning");
        let run = certificates::sign::run(context, signer);
        all.push(Loop::new("csrsigning", run));
    }
    if let Some(sign) = composition.secret_tokens.clone() {
        let account = "serviceaccount-token-controller";
        let run = token_secrets::run(
            context(account, account),
            composition.cluster_ca.clone(),
            sign,
        );
        all.push(Loop::new("serviceaccount-token", run));
    }
    if let Some(cluster) = composition.cluster_cidr {
        let context = context("node-controller", "cidrAllocator");
        all.push(Loop::new("node-ipam", nodes::run_cidr(context, cluster)));
    }
    all
}
