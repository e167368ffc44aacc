//! The kinds that loops read and write, each with its one decoder.
//!
//! Decoders and encoders are generic code, made anew in each crate that asks for them: for forty
//! kinds in six crates that was a large part of the program's text, of the memory it holds and of
//! the time it takes to build (0040). Here each is made once, behind a function that is not generic.
//! What never lives here: rules of a kind, and the way to the door.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Endpoints, Event, Namespace, Node, PersistentVolume,
    PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use kube::Resource;
use kube::core::{DynamicObject, ObjectMeta, PartialObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a JSON text is not what was expected.
pub type JsonError = serde_json::Error;

/// What an object of the door can be read as.
pub trait Decode: Sized {
    /// Reads the JSON of one object.
    ///
    /// # Errors
    /// When a field has another type, or the text is no JSON.
    fn decode(json: &str) -> Result<Self, JsonError>;
}

/// A kind that loops know by its type.
pub trait Kind:
    Resource<DynamicType = ()> + Decode + Clone + Debug + Send + Sync + 'static
{
    /// Its JSON.
    ///
    /// # Errors
    /// When a map has keys that are no strings, which no kind has.
    fn encode(&self) -> Result<Vec<u8>, JsonError>;

    /// [`Kind::trim`] has left lists no more room than they need.
    const TRIMS_ROOM: bool = false;

    /// The object for keeping: with no more room than it needs, where a decoder lets lists grow and
    /// leaves room for four conditions when there is one. A copy has none to spare.
    fn kept(self) -> Arc<Self>;

    /// Takes off what no loop reads, before the object is kept in a view.
    fn trim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

/// The JSON of an object with its version and kind, which types of custom kinds do not carry and the
/// door asks for.
///
/// # Errors
/// When a map has keys that are no strings.
pub fn encoded<K>(object: &K) -> Result<Vec<u8>, JsonError>
where
    K: Resource<DynamicType = ()> + serde::Serialize,
{
    let plain = serde_json::to_vec(object)?;
    if plain.starts_with(b"{\"apiVersion\"") {
        return Ok(plain);
    }
    let (version, kind) = (K::api_version(&()), K::kind(&()));
    let mut out = format!("{{\"apiVersion\":\"{version}\",\"kind\":\"{kind}\"").into_bytes();
    let rest = plain.get(1..).unwrap_or_default();
    if rest.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Makes types with `serde`'s traits and [`Resource`] kinds of loops, with their decoders in this place.
#[macro_export]
macro_rules! kinds {
    ($($type:ty $({ $($more:item)* })?),+ $(,)?) => {$(
        impl $crate::kind::Decode for $type {
            #[inline(never)]
            fn decode(json: &str) -> Result<Self, $crate::kind::JsonError> {
                ::serde_json::from_str(json)
                    .or_else(|error| $crate::kind::without_nulls(json, error))
            }
        }

        impl $crate::Kind for $type {
            #[inline(never)]
            fn encode(&self) -> Result<Vec<u8>, $crate::kind::JsonError> {
                $crate::kind::encoded(self)
            }

            #[inline(never)]
            fn kept(self) -> ::std::sync::Arc<Self> {
                if <Self as $crate::Kind>::TRIMS_ROOM {
                    return ::std::sync::Arc::new(self);
                }
                ::std::sync::Arc::new(self.clone())
            }

            $($($more)*)?
        }
    )+};
}

/// Makes a type with a field `metadata` a custom kind of loops: its scope, group, version, kind and
/// plural.
#[macro_export]
macro_rules! custom_kind {
    ($type:ty, $scope:ty, $group:expr, $version:expr, $kind:literal, $plural:literal) => {
        impl ::kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> ::std::borrow::Cow<'_, str> {
                ::std::borrow::Cow::Borrowed($kind)
            }
            fn group((): &()) -> ::std::borrow::Cow<'_, str> {
                ::std::borrow::Cow::Borrowed($group)
            }
            fn version((): &()) -> ::std::borrow::Cow<'_, str> {
                ::std::borrow::Cow::Borrowed($version)
            }
            fn plural((): &()) -> ::std::borrow::Cow<'_, str> {
                ::std::borrow::Cow::Borrowed($plural)
            }
            fn meta(&self) -> &::kube::core::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ::kube::core::ObjectMeta {
                &mut self.metadata
            }
        }

        $crate::kinds!($type);
    };
}

kinds!(
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    CertificateSigningRequest,
    ClusterRole,
    ClusterTrustBundle,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    DeviceClass,
    DeviceTaintRule,
    EndpointSlice,
    Endpoints,
    Event,
    HorizontalPodAutoscaler,
    IPAddress,
    Job,
    Lease,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod {
        /// Without projected volumes too, such as the one with the token that every pod is given: a
        /// volume is three kilobytes of empty fields. A pod is changed by patches, never written as a
        /// whole. Pods are the most that views hold, and change most: they are kept without a copy.
        fn trim(&mut self) {
            self.metadata.managed_fields = None;
            fit(&mut self.metadata.owner_references);
            if let Some(spec) = &mut self.spec {
                if let Some(volumes) = &mut spec.volumes {
                    volumes.retain(|volume| volume.projected.is_none());
                }
                fit(&mut spec.volumes);
                fit(&mut spec.tolerations);
                fit(&mut spec.init_containers);
                spec.containers.shrink_to_fit();
                let containers = spec.init_containers.iter_mut().flatten();
                containers.chain(&mut spec.containers).for_each(fit_container);
            }
            if let Some(status) = &mut self.status {
                fit(&mut status.conditions);
                fit(&mut status.container_statuses);
                fit(&mut status.init_container_statuses);
                fit(&mut status.pod_ips);
                fit(&mut status.host_ips);
            }
        }

        const TRIMS_ROOM: bool = true;
    },
    PodCertificateRequest,
    PodDisruptionBudget,
    PodGroup,
    ReplicaSet,
    ReplicationController,
    ResourceClaim,
    ResourceClaimTemplate,
    ResourceQuota,
    ResourceSlice,
    Secret,
    SelfSubjectReview,
    Service,
    ServiceAccount,
    ServiceCIDR,
    StatefulSet,
    StorageClass,
    StorageVersionMigration,
    SubjectAccessReview,
    TokenReview,
    ValidatingAdmissionPolicy,
    VolumeAttachment,
    VolumeAttributesClass,
);

fn fit<T>(list: &mut Option<Vec<T>>) {
    if let Some(list) = list {
        list.shrink_to_fit();
    }
}

fn fit_container(container: &mut Container) {
    fit(&mut container.env);
    fit(&mut container.volume_mounts);
    fit(&mut container.ports);
    fit(&mut container.args);
    fit(&mut container.command);
}

/// Reads once more what did not fit its type, without its nulls. Go writes `null` for a time that
/// nobody gave, where the type has a text: an object that somebody wrote so must not keep a loop from
/// all others of its kind. Of conditions the type wants the time, which is then the one that Go has.
///
/// # Errors
/// The first one, if nulls are not what was wrong.
#[doc(hidden)]
pub fn without_nulls<K: DeserializeOwned>(json: &str, error: JsonError) -> Result<K, JsonError> {
    const OF_CONDITIONS: &str = "lastTransitionTime";
    const NEVER: &str = "0001-01-01T00:00:00Z";

    fn drop_nulls(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if fields.get(OF_CONDITIONS).is_some_and(Value::is_null) {
                    fields.insert(OF_CONDITIONS.to_owned(), NEVER.into());
                }
                fields.retain(|_, value| !value.is_null());
                fields.values_mut().for_each(drop_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(drop_nulls),
            _ => {}
        }
    }
    if !error.is_data() {
        return Err(error);
    }
    let Ok(mut value) = serde_json::from_str(json) else {
        return Err(error);
    };
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|_| error)
}

/// Metadata alone, whatever the kind.
impl Decode for PartialObjectMeta<DynamicObject> {
    fn decode(json: &str) -> Result<Self, JsonError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        let found: Found = serde_json::from_str(json)?;
        Ok(Self {
            types: None,
            metadata: found.metadata,
            _phantom: PhantomData,
        })
    }
}

/// Any kind, as a tree.
impl Decode for DynamicObject {
    fn decode(json: &str) -> Result<Self, JsonError> {
        serde_json::from_str(json)
    }
}
