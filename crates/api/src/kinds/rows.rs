//! All rows, in the order in which discovery lists their groups.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::autoscaling::v1 as autoscaling_v1;
use k8s_openapi::api::autoscaling::v2 as autoscaling;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::certificates::v1 as certificates;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::flowcontrol::v1 as flowcontrol;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::node::v1 as node_v1;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::api::resource::v1 as resource;
use k8s_openapi::api::scheduling::v1 as scheduling;
use k8s_openapi::api::scheduling::v1beta1 as scheduling_v1beta1;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::api::storagemigration::v1 as storagemigration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

use super::view::Viewed;
use super::{
    api_services, autoscaling as scaling, batch as jobs, certificates as requests, columns, config,
    devices, disruption, endpoints, event, flow_control, limit_range, metrics, migration,
    namespace, networking as network, node, pod, quota, rbac as roles, reviews, runtime_class,
    scheduling as groups, service, storage as volumes, workloads,
};
use crate::custom::definition;
use crate::names;
use crate::row::{ResourceDef, Subresource as Sub, Verb};

/// The built-in kinds.
#[must_use]
pub fn rows() -> Vec<ResourceDef> {
    let mut rows = core_rows();
    rows.extend(workload_rows());
    rows.extend(network_rows());
    rows.extend(storage_rows());
    rows.extend(cluster_rows());
    rows.extend([
        ResourceDef::of::<policy::PodDisruptionBudget>()
            .plain_finalizers()
            .updated_by_version()
            .short("pdb")
            .named(names::path_segment)
            .with(&[Sub::Status])
            .generations()
            .columns(columns::disruption_budget())
            .strategy(disruption::PodDisruptionBudgets),
        ResourceDef::of::<scheduling::PriorityClass>()
            .short("pc")
            .generations()
            .columns(columns::priority_class())
            .strategy(disruption::PriorityClasses),
        ResourceDef::of::<scheduling_v1beta1::Workload>()
            .updated_by_version()
            .gated(groups::GENERIC_WORKLOAD)
            .columns(columns::only_age())
            .strategy(groups::Workloads),
        ResourceDef::of::<scheduling_v1beta1::PodGroup>()
            .updated_by_version()
            .gated(groups::GENERIC_WORKLOAD)
            .with(&[Sub::Status])
            .columns(columns::pod_group())
            .strategy(groups::PodGroups),
        ResourceDef::of::<autoscaling::HorizontalPodAutoscaler>()
            .short("hpa")
            .in_all()
            .with(&[Sub::Status])
            .generations()
            .columns(columns::autoscaler())
            .strategy(scaling::Autoscalers),
        ResourceDef::of::<autoscaling_v1::HorizontalPodAutoscaler>()
            .short("hpa")
            .in_all()
            .with(&[Sub::Status])
            .generations()
            .columns(columns::autoscaler())
            .viewing(scaling::v1::VIEW)
            .strategy(Viewed {
                stored: scaling::Autoscalers,
                view: scaling::v1::VIEW,
            }),
        ResourceDef::of::<autoscaling_v1::Scale>()
            .body_only()
            .columns(columns::scale())
            .strategy(scaling::Scales),
        ResourceDef::of::<policy::Eviction>().body_only(),
        ResourceDef::of::<coordination::Lease>()
            .plain_finalizers()
            .made_by_updates()
            .updated_by_version()
            .columns(columns::lease())
            .strategy(endpoints::Leases),
        ResourceDef::of::<discovery::EndpointSlice>()
            .rechecked()
            .generations()
            .columns(columns::endpoint_slice())
            .strategy(endpoints::EndpointSlices),
        ResourceDef::of::<apiextensions::CustomResourceDefinition>()
            .plain_finalizers()
            .updated_by_version()
            .short("crd")
            .short("crds")
            .category("api-extensions")
            .with(&[Sub::Status])
            .generations()
            .columns(definition::columns())
            .strategy(definition::Definitions),
        ResourceDef::of::<apiregistration::APIService>()
            .rechecked()
            .plain_finalizers()
            .updated_by_version()
            .category("api-extensions")
            .with(&[Sub::Status])
            .named(names::path_segment)
            .columns(api_services::columns())
            .strategy(api_services::ApiServices),
        ResourceDef::of::<authentication::TokenReview>()
            .answered()
            .strategy(reviews::TokenReviews),
        ResourceDef::of::<authentication::SelfSubjectReview>().answered(),
        ResourceDef::of::<authentication::TokenRequest>()
            .body_only()
            .strategy(reviews::TokenRequests),
        ResourceDef::of::<authorization::SubjectAccessReview>()
            .answered()
            .strategy(reviews::AccessReviews::Subject),
        ResourceDef::of::<authorization::LocalSubjectAccessReview>()
            .answered()
            .strategy(reviews::AccessReviews::Local),
        ResourceDef::of::<authorization::SelfSubjectAccessReview>()
            .answered()
            .strategy(reviews::AccessReviews::Own),
        ResourceDef::of::<authorization::SelfSubjectRulesReview>().answered(),
        ResourceDef::of::<rbac::ClusterRole>()
            .made_by_updates()
            .named(names::path_segment)
            .columns(columns::created_at())
            .strategy(roles::Roles { namespaced: false }),
        ResourceDef::of::<rbac::ClusterRoleBinding>()
            .made_by_updates()
            .named(names::path_segment)
            .columns(columns::binding())
            .strategy(roles::Bindings { namespaced: false }),
        ResourceDef::of::<rbac::Role>()
            .made_by_updates()
            .named(names::path_segment)
            .columns(columns::created_at())
            .strategy(roles::Roles { namespaced: true }),
        ResourceDef::of::<rbac::RoleBinding>()
            .made_by_updates()
            .named(names::path_segment)
            .columns(columns::binding())
            .strategy(roles::Bindings { namespaced: true }),
        ResourceDef::of::<core::ComponentStatus>()
            .short("cs")
            .measured()
            .deprecated("v1 ComponentStatus is deprecated in v1.19+")
            .columns(columns::component_status()),
        ResourceDef::of::<metrics::NodeMetrics>().measured(),
        ResourceDef::of::<metrics::PodMetrics>().measured(),
    ]);
    rows.extend(super::webhooks::rows());
    rows.extend(super::policies::rows());
    rows
}

fn network_rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::of::<networking::Ingress>()
            .rechecked()
            .short("ing")
            .with(&[Sub::Status])
            .generations()
            .columns(columns::ingress())
            .strategy(network::Ingresses),
        ResourceDef::of::<networking::IngressClass>()
            .rechecked()
            .generations()
            .columns(columns::ingress_class())
            .strategy(network::IngressClasses),
        ResourceDef::of::<networking::NetworkPolicy>()
            .short("netpol")
            .generations()
            .columns(columns::network_policy())
            .strategy(network::NetworkPolicies),
        ResourceDef::of::<networking::IPAddress>()
            .rechecked()
            .short("ip")
            .named(network::ip_address_name)
            .columns(columns::ip_address())
            .strategy(network::IpAddresses),
        ResourceDef::of::<networking::ServiceCIDR>()
            .with(&[Sub::Status])
            .columns(columns::service_cidr())
            .strategy(network::ServiceCidrs),
    ]
}

fn storage_rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::of::<storage::StorageClass>()
            .rechecked()
            .short("sc")
            .columns(columns::storage_class())
            .strategy(volumes::StorageClasses),
        ResourceDef::of::<storage::CSIDriver>()
            .generations_from_changes()
            .updated_by_version()
            .columns(columns::csi_driver())
            .strategy(volumes::CsiDrivers),
        ResourceDef::of::<storage::CSINode>()
            .rechecked()
            .updated_by_version()
            .with(&[Sub::Status])
            .columns(columns::csi_node())
            .strategy(volumes::CsiNodes),
        ResourceDef::of::<storage::CSIStorageCapacity>()
            .rechecked()
            .updated_by_version()
            .columns(columns::created_at())
            .strategy(volumes::CsiStorageCapacities),
        ResourceDef::of::<storage::VolumeAttachment>()
            .rechecked()
            .updated_by_version()
            .with(&[Sub::Status])
            .columns(columns::volume_attachment())
            .strategy(volumes::VolumeAttachments),
        ResourceDef::of::<storage::VolumeAttributesClass>()
            .rechecked()
            .short("vac")
            .columns(columns::volume_attributes_class())
            .strategy(volumes::VolumeAttributesClasses),
        ResourceDef::of::<storagemigration::StorageVersionMigration>()
            .rechecked()
            .updated_by_version()
            .with(&[Sub::Status])
            .columns(columns::storage_version_migration())
            .strategy(migration::StorageVersionMigrations),
    ]
}

fn cluster_rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::of::<node_v1::RuntimeClass>()
            .rechecked()
            .plain_finalizers()
            .made_by_updates()
            .updated_by_version()
            .columns(columns::runtime_class())
            .strategy(runtime_class::RuntimeClasses),
        ResourceDef::of::<certificates::CertificateSigningRequest>()
            .short("csr")
            .with(&[Sub::Approval, Sub::Status])
            .named(names::path_segment)
            .selectable("spec.signerName")
            .columns(columns::signing_request())
            .strategy(requests::CertificateSigningRequests),
        // Its name depends on its signer, and is checked with it.
        ResourceDef::of::<certificates::ClusterTrustBundle>()
            .rechecked()
            .updated_by_version()
            .named(names::any)
            .selectable("spec.signerName")
            .columns(columns::trust_bundle())
            .strategy(requests::ClusterTrustBundles),
        ResourceDef::of::<certificates::PodCertificateRequest>()
            .updated_by_version()
            .with(&[Sub::Status])
            .selectable("spec.signerName")
            .selectable("spec.podName")
            .selectable("spec.nodeName")
            .columns(columns::pod_certificate_request())
            .strategy(requests::PodCertificateRequests),
        ResourceDef::of::<flowcontrol::FlowSchema>()
            .rechecked()
            .with(&[Sub::Status])
            .generations()
            .columns(columns::flow_schema())
            .strategy(flow_control::FlowSchemas),
        ResourceDef::of::<flowcontrol::PriorityLevelConfiguration>()
            .rechecked()
            .with(&[Sub::Status])
            .generations()
            .columns(columns::priority_level())
            .strategy(flow_control::PriorityLevels),
        ResourceDef::of::<resource::DeviceClass>()
            .generations()
            .columns(columns::only_age())
            .strategy(devices::DeviceClasses),
        ResourceDef::of::<resource::ResourceClaim>()
            .rechecked()
            .with(&[Sub::Status])
            .columns(columns::resource_claim())
            .strategy(devices::ResourceClaims),
        ResourceDef::of::<resource::ResourceClaimTemplate>()
            .rechecked()
            .columns(columns::only_age())
            .strategy(devices::ResourceClaimTemplates),
        ResourceDef::of::<resource::DeviceTaintRule>()
            .updated_by_version()
            .with(&[Sub::Status])
            .generations()
            .columns(columns::device_taint_rule())
            .strategy(devices::DeviceTaintRules),
        ResourceDef::of::<resource::ResourceSlice>()
            .generations()
            .selectable("spec.nodeName")
            .selectable("spec.driver")
            .selectable("spec.pool.name")
            .columns(columns::resource_slice())
            .strategy(devices::ResourceSlices),
    ]
}

fn workload_rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::of::<apps::Deployment>()
            .short("deploy")
            .in_all()
            .with(&[Sub::Status])
            .scalable()
            .generations()
            .strategy(workloads::Deployments)
            .columns(columns::deployment()),
        ResourceDef::of::<apps::ReplicaSet>()
            .short("rs")
            .in_all()
            .with(&[Sub::Status])
            .scalable()
            .generations()
            .strategy(workloads::ReplicaSets)
            .columns(columns::replica_set()),
        ResourceDef::of::<apps::StatefulSet>()
            .short("sts")
            .in_all()
            .with(&[Sub::Status])
            .scalable()
            .generations()
            .named(names::dns1123_label)
            .strategy(workloads::StatefulSets)
            .columns(columns::stateful_set()),
        ResourceDef::of::<apps::DaemonSet>()
            .short("ds")
            .in_all()
            .with(&[Sub::Status])
            .generations()
            .strategy(workloads::DaemonSets)
            .columns(columns::daemon_set()),
        ResourceDef::of::<apps::ControllerRevision>()
            .rechecked()
            .strategy(workloads::ControllerRevisions)
            .columns(columns::controller_revision()),
        ResourceDef::of::<batch::Job>()
            .in_all()
            .with(&[Sub::Status])
            .generations()
            .orphaning()
            .selectable_at_or("status.successful", "status.succeeded", "0")
            .strategy(jobs::Jobs)
            .columns(columns::job()),
        ResourceDef::of::<batch::CronJob>()
            .short("cj")
            .in_all()
            .with(&[Sub::Status])
            .generations()
            .strategy(jobs::CronJobs)
            .columns(columns::cron_job()),
    ]
}

fn core_rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::of::<core::Namespace>()
            .short("ns")
            .without(Verb::DeleteCollection)
            .with(&[Sub::Finalize, Sub::Status])
            .named(names::dns1123_label)
            .selectable("status.phase")
            .strategy(namespace::Namespaces)
            .columns(columns::namespace()),
        ResourceDef::of::<core::Node>()
            .rechecked()
            .short("no")
            .with(&[Sub::Status, Sub::Proxy])
            .selectable_or("spec.unschedulable", "false")
            .strategy(node::Nodes)
            .columns(columns::node()),
        ResourceDef::of::<core::Pod>()
            .rechecked()
            .short("po")
            .in_all()
            .with(&[
                Sub::Attach,
                Sub::Binding,
                Sub::EphemeralContainers,
                Sub::Eviction,
                Sub::Exec,
                Sub::Log,
                Sub::PortForward,
                Sub::Proxy,
                Sub::Resize,
                Sub::Status,
            ])
            .generations()
            .selectable("spec.nodeName")
            // What old clients call it.
            .selectable_among("spec.host", &["spec.nodeName"])
            .selectable("spec.restartPolicy")
            .selectable("spec.schedulerName")
            .selectable("spec.serviceAccountName")
            .selectable_or("spec.hostNetwork", "false")
            .selectable("status.phase")
            .selectable("status.podIP")
            // Known, and never set, in the reference too.
            .selectable_among("status.podIPs", &[])
            .selectable("status.nominatedNodeName")
            .strategy(pod::Pods)
            .columns(pod::columns()),
        ResourceDef::of::<core::Binding>()
            .answered()
            .strategy(reviews::PodBindings),
        ResourceDef::of::<core::Service>()
            .made_by_updates()
            .short("svc")
            .in_all()
            .with(&[Sub::Proxy, Sub::Status])
            .named(names::dns1123_label)
            .selectable("spec.clusterIP")
            .selectable("spec.type")
            .strategy(service::Services)
            .columns(columns::service()),
        ResourceDef::of::<core::Endpoints>()
            .rechecked()
            .made_by_updates()
            .short("ep")
            .deprecated(endpoints::DEPRECATED)
            .columns(columns::endpoints())
            .strategy(endpoints::Endpoints),
        ResourceDef::of::<core::ConfigMap>()
            .rechecked()
            .short("cm")
            .strategy(config::ConfigMaps)
            .columns(columns::config_map()),
        ResourceDef::of::<core::Secret>()
            .rechecked()
            .selectable("type")
            .strategy(config::Secrets)
            .columns(columns::secret()),
        ResourceDef::of::<core::ServiceAccount>()
            .rechecked()
            .short("sa")
            .with(&[Sub::Token])
            .strategy(config::ServiceAccounts)
            .columns(columns::only_age()),
        ResourceDef::of::<core::Event>()
            .made_by_updates()
            .short("ev")
            .named(names::path_segment)
            .columns(columns::event())
            .strategy(event::Events)
            .selectable("involvedObject.kind")
            .selectable("involvedObject.namespace")
            .selectable("involvedObject.name")
            .selectable("involvedObject.uid")
            .selectable("involvedObject.apiVersion")
            .selectable("involvedObject.resourceVersion")
            .selectable("involvedObject.fieldPath")
            .selectable("reason")
            .selectable("reportingComponent")
            .selectable_among("source", &["source.component", "reportingComponent"])
            .selectable("type"),
        ResourceDef::of::<events::Event>()
            .made_by_updates()
            .short("ev")
            .columns(columns::event())
            .viewing(event::VIEW)
            .strategy(Viewed {
                stored: event::StrictEvents,
                view: event::VIEW,
            })
            .selectable("regarding.kind")
            .selectable("regarding.namespace")
            .selectable("regarding.name")
            .selectable("regarding.uid")
            .selectable("regarding.apiVersion")
            .selectable("regarding.resourceVersion")
            .selectable("regarding.fieldPath")
            .selectable("reason")
            .selectable("reportingController")
            .selectable("type"),
        ResourceDef::of::<core::ReplicationController>()
            .short("rc")
            .in_all()
            .with(&[Sub::Status])
            .scalable()
            .generations()
            .orphaning()
            .selectable_or("status.replicas", "0")
            .strategy(workloads::ReplicationControllers)
            .columns(columns::replication_controller()),
        ResourceDef::of::<core::PodTemplate>()
            .generations()
            .strategy(workloads::PodTemplates)
            .columns(columns::pod_template()),
        ResourceDef::of::<core::PersistentVolume>()
            .rechecked()
            .short("pv")
            .with(&[Sub::Status])
            .strategy(volumes::PersistentVolumes)
            .columns(columns::persistent_volume()),
        ResourceDef::of::<core::PersistentVolumeClaim>()
            .rechecked()
            .short("pvc")
            .with(&[Sub::Status])
            .strategy(volumes::PersistentVolumeClaims)
            .columns(columns::persistent_volume_claim()),
        ResourceDef::of::<core::ResourceQuota>()
            .short("quota")
            .with(&[Sub::Status])
            .strategy(quota::ResourceQuotas)
            .columns(columns::quota()),
        ResourceDef::of::<core::LimitRange>()
            .rechecked()
            .made_by_updates()
            .short("limits")
            .columns(columns::created_at())
            .strategy(limit_range::LimitRanges),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::row::{ResourceDef, Rows};
    use crate::schema::{ListType, Ty};

    #[test]
    fn every_row_has_a_type_with_metadata() {
        let rows = Rows::builtin();
        for row in rows.iter() {
            let ty = rows.ty(row);
            assert!(matches!(ty, Ty::Struct(_)), "{:?}", row.gvk);
        }
    }

    #[test]
    fn kinds_differ_in_what_the_reference_lets_them() {
        let rows = Rows::builtin();
        let kinds = |is: fn(&ResourceDef) -> bool| -> Vec<String> {
            let found = rows.iter().filter(|row| is(row));
            let mut kinds: Vec<String> = found.map(|row| row.gvk.kind.to_string()).collect();
            kinds.sort();
            kinds.dedup();
            kinds
        };
        assert_eq!(
            kinds(|row| row.versioned_updates),
            [
                "APIService",
                "CSIDriver",
                "CSINode",
                "CSIStorageCapacity",
                "ClusterTrustBundle",
                "CustomResourceDefinition",
                "DeviceTaintRule",
                "Lease",
                "MutatingAdmissionPolicy",
                "MutatingAdmissionPolicyBinding",
                "MutatingWebhookConfiguration",
                "PodCertificateRequest",
                "PodDisruptionBudget",
                "PodGroup",
                "RuntimeClass",
                "StorageVersionMigration",
                "ValidatingAdmissionPolicy",
                "ValidatingAdmissionPolicyBinding",
                "ValidatingWebhookConfiguration",
                "VolumeAttachment",
                "Workload",
            ]
        );
        assert_eq!(
            kinds(|row| row.plain_finalizers),
            [
                "APIService",
                "CustomResourceDefinition",
                "Lease",
                "MutatingAdmissionPolicy",
                "MutatingAdmissionPolicyBinding",
                "MutatingWebhookConfiguration",
                "PodDisruptionBudget",
                "RuntimeClass",
                "ValidatingAdmissionPolicy",
                "ValidatingAdmissionPolicyBinding",
                "ValidatingWebhookConfiguration",
            ]
        );
        assert_eq!(kinds(|row| row.generation_from_changes), ["CSIDriver"]);
        assert_eq!(
            kinds(|row| row.made_by_updates),
            [
                "ClusterRole",
                "ClusterRoleBinding",
                "Endpoints",
                "Event",
                "Lease",
                "LimitRange",
                "Role",
                "RoleBinding",
                "RuntimeClass",
                "Service",
            ]
        );
    }

    #[test]
    fn an_empty_text_is_no_time() {
        let rows = Rows::builtin();
        let row = rows.by_kind("", "v1", "ConfigMap").expect("there");
        let mut object = json!({"metadata": {"creationTimestamp": ""}});
        let found = rows.schema().admit(&rows.ty(row), &mut object);
        assert_eq!(
            found.mismatch.as_deref(),
            Some(
                "parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\""
            )
        );
        let mut unset = json!({"metadata": {"creationTimestamp": null}});
        assert_eq!(
            rows.schema().admit(&rows.ty(row), &mut unset).mismatch,
            None
        );
    }

    #[test]
    fn facts_are_joined() {
        let rows = Rows::builtin();
        let schema = rows.schema();
        let spec = schema.named("io.k8s.api.core.v1.PodSpec").expect("there");
        let containers = schema.field(&spec, "containers").expect("there");
        assert_eq!(containers.list, ListType::Map(vec!["name".into()]));
        assert_eq!(containers.patch.key.as_deref(), Some("name"));
    }

    #[test]
    fn admission_prunes_and_canonicalises() {
        let rows = Rows::builtin();
        let row = rows.by_kind("apps", "v1", "Deployment").expect("there");
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {}},
            "spec": {"replicas": 0, "paused": false, "bogus": 1, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{"name": "c", "image": null, "foo": 1,
                    "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}}}
        });
        let found = rows.schema().admit(&rows.ty(row), &mut object);
        assert_eq!(found.mismatch, None);
        assert_eq!(
            found.unknown,
            ["spec.bogus", "spec.template.spec.containers[0].foo"]
        );
        assert_eq!(object["spec"]["replicas"], 0);
        assert!(object["spec"].get("paused").is_none());
        assert!(object["metadata"].get("labels").is_none());
        let limits = &object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!(limits, &json!({"cpu": "500m", "memory": "1Gi"}));

        let mut wrong = json!({"spec": {"replicas": "three"}});
        let found = rows.schema().admit(&rows.ty(row), &mut wrong);
        assert_eq!(
            found.mismatch.as_deref(),
            Some(
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
            )
        );
    }
}
