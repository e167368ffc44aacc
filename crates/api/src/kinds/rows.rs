//! All rows, in the order in which discovery lists their groups.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::autoscaling::v1 as autoscaling_v1;
use k8s_openapi::api::autoscaling::v2 as autoscaling;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;

use super::{
    autoscaling as scaling, columns, config, endpoints, event, namespace, node, pod, rbac as roles,
    reviews, service, workloads,
};
use crate::custom::definition;
use crate::names;
use crate::row::{ResourceDef, Subresource as Sub, Verb};

/// The built-in kinds.
#[must_use]
pub fn rows() -> Vec<ResourceDef> {
    let mut rows = core_rows();
    rows.extend([
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
            .selectable("status.replicas")
            .strategy(workloads::ReplicaSets)
            .columns(columns::replica_set()),
        ResourceDef::of::<autoscaling::HorizontalPodAutoscaler>()
            .short("hpa")
            .in_all()
            .with(&[Sub::Status])
            .columns(columns::autoscaler())
            .strategy(scaling::Autoscalers),
        ResourceDef::of::<autoscaling_v1::Scale>()
            .body_only()
            .strategy(scaling::Scales),
        ResourceDef::of::<policy::Eviction>().body_only(),
        ResourceDef::of::<coordination::Lease>()
            .columns(columns::lease())
            .strategy(endpoints::Leases),
        ResourceDef::of::<discovery::EndpointSlice>()
            .generations()
            .columns(columns::endpoint_slice())
            .strategy(endpoints::EndpointSlices),
        ResourceDef::of::<apiextensions::CustomResourceDefinition>()
            .short("crd")
            .short("crds")
            .category("api-extensions")
            .with(&[Sub::Status])
            .generations()
            .columns(definition::columns())
            .strategy(definition::Definitions),
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
            .named(names::path_segment)
            .columns(columns::role())
            .strategy(roles::Roles { namespaced: false }),
        ResourceDef::of::<rbac::ClusterRoleBinding>()
            .named(names::path_segment)
            .columns(columns::binding())
            .strategy(roles::Bindings { namespaced: false }),
        ResourceDef::of::<rbac::Role>()
            .named(names::path_segment)
            .columns(columns::role())
            .strategy(roles::Roles { namespaced: true }),
        ResourceDef::of::<rbac::RoleBinding>()
            .named(names::path_segment)
            .columns(columns::binding())
            .strategy(roles::Bindings { namespaced: true }),
    ]);
    rows
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
            .short("no")
            .with(&[Sub::Status, Sub::Proxy])
            .selectable_or("spec.unschedulable", "false")
            .strategy(node::Nodes)
            .columns(columns::node()),
        ResourceDef::of::<core::Pod>()
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
                Sub::Status,
            ])
            .generations()
            .selectable("spec.nodeName")
            .selectable("spec.restartPolicy")
            .selectable("spec.schedulerName")
            .selectable("spec.serviceAccountName")
            .selectable_or("spec.hostNetwork", "false")
            .selectable("status.phase")
            .selectable("status.podIP")
            .selectable("status.nominatedNodeName")
            .strategy(pod::Pods)
            .columns(pod::columns()),
        ResourceDef::of::<core::Binding>()
            .answered()
            .strategy(reviews::PodBindings),
        ResourceDef::of::<core::Service>()
            .short("svc")
            .in_all()
            .with(&[Sub::Proxy, Sub::Status])
            .named(names::dns1035_label)
            .selectable("spec.clusterIP")
            .selectable("spec.type")
            .strategy(service::Services)
            .columns(columns::service()),
        ResourceDef::of::<core::Endpoints>()
            .short("ep")
            .columns(columns::endpoints())
            .strategy(endpoints::Endpoints),
        ResourceDef::of::<core::ConfigMap>()
            .short("cm")
            .strategy(config::ConfigMaps)
            .columns(columns::config_map()),
        ResourceDef::of::<core::Secret>()
            .selectable("type")
            .strategy(config::Secrets)
            .columns(columns::secret()),
        ResourceDef::of::<core::ServiceAccount>()
            .short("sa")
            .with(&[Sub::Token])
            .columns(columns::service_account()),
        ResourceDef::of::<core::Event>()
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
            .selectable_at("source", "source.component")
            .selectable("type"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::row::Rows;
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
