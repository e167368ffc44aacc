//! The pod resources API (KEP-606, `podresources/v1`): who on the machine may know which container
//! has which device asks at a socket, as monitors of devices do.
//!
//! It only restates what device plugins and drivers of dynamic resources have given; whole
//! processors and memory of NUMA nodes are never given out here, so that their lists are empty.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_grpc::Code;
use evenkeel_grpc::serve::{self, Answer, Service};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::net::UnixListener;
use tracing::warn;

use crate::context::Context;

/// The directory of the socket, in the agent's.
pub const DIRECTORY: &str = "pod-resources";
const SOCKET: &str = "kubelet.sock";
const LISTER: &str = "/v1.PodResourcesLister/";

/// The messages, as the published service has them.
#[allow(
    missing_docs,
    reason = "the fields are those of the published service, which says what they mean"
)]
pub mod proto {
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct ContainerDevices {
        #[prost(string, tag = "1")]
        pub resource_name: String,
        #[prost(string, repeated, tag = "2")]
        pub device_ids: Vec<String>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct CdiDevice {
        #[prost(string, tag = "1")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ClaimResource {
        #[prost(message, repeated, tag = "1")]
        pub cdi_devices: Vec<CdiDevice>,
        #[prost(string, tag = "2")]
        pub driver_name: String,
        #[prost(string, tag = "3")]
        pub pool_name: String,
        #[prost(string, tag = "4")]
        pub device_name: String,
        #[prost(string, optional, tag = "5")]
        pub share_id: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct DynamicResource {
        #[prost(string, tag = "2")]
        pub claim_name: String,
        #[prost(string, tag = "3")]
        pub claim_namespace: String,
        #[prost(message, repeated, tag = "4")]
        pub claim_resources: Vec<ClaimResource>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ContainerResources {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub devices: Vec<ContainerDevices>,
        #[prost(message, repeated, tag = "5")]
        pub dynamic_resources: Vec<DynamicResource>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PodResources {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub namespace: String,
        #[prost(message, repeated, tag = "3")]
        pub containers: Vec<ContainerResources>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ListResponse {
        #[prost(message, repeated, tag = "1")]
        pub pod_resources: Vec<PodResources>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AllocatableResponse {
        #[prost(message, repeated, tag = "1")]
        pub devices: Vec<ContainerDevices>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct GetRequest {
        #[prost(string, tag = "1")]
        pub pod_name: String,
        #[prost(string, tag = "2")]
        pub pod_namespace: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GetResponse {
        #[prost(message, optional, tag = "1")]
        pub pod_resources: Option<PodResources>,
    }
}

struct Lister(Arc<Context>);

impl Lister {
    fn container(&self, uid: &str, pod: &Pod, container: &Container) -> proto::ContainerResources {
        let devices = self.0.devices.held(uid, &container.name).into_iter();
        let mut claims: BTreeMap<(String, String), Vec<proto::ClaimResource>> = BTreeMap::new();
        for used in self.0.dra.of(uid, pod, container) {
            let names = used.cdi.into_iter();
            let resource = proto::ClaimResource {
                cdi_devices: names.map(|name| proto::CdiDevice { name }).collect(),
                driver_name: used.driver,
                pool_name: used.pool,
                device_name: used.device,
                share_id: used.share,
            };
            let all = claims.entry((used.namespace, used.claim)).or_default();
            all.push(resource);
        }
        let claims = claims.into_iter();
        proto::ContainerResources {
            name: container.name.clone(),
            devices: devices
                .map(|(resource_name, device_ids)| proto::ContainerDevices {
                    resource_name,
                    device_ids,
                })
                .collect(),
            dynamic_resources: claims
                .map(|((namespace, name), resources)| proto::DynamicResource {
                    claim_name: name,
                    claim_namespace: namespace,
                    claim_resources: resources,
                })
                .collect(),
        }
    }

    fn pod(&self, uid: &str, pod: &Pod) -> proto::PodResources {
        let spec = pod.spec.as_ref();
        // Of those that run before the others only the ones that stay are told, as kubelet does.
        let stays = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
        let sidecars = spec
            .into_iter()
            .flat_map(|spec| spec.init_containers.iter().flatten())
            .filter(stays);
        let all = sidecars.chain(spec.into_iter().flat_map(|spec| spec.containers.iter()));
        proto::PodResources {
            name: pod.metadata.name.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            containers: all.map(|one| self.container(uid, pod, one)).collect(),
        }
    }

    fn is_active(pod: &Pod) -> bool {
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    }

    fn answer(&self, path: &str, message: Bytes) -> Answer {
        match path.strip_prefix(LISTER) {
            Some("List") => {
                let pods = self.0.pods.lock().clone();
                let active = pods.iter().filter(|(_, pod)| Self::is_active(pod));
                let mut all: Vec<_> = active.map(|(uid, pod)| self.pod(uid, pod)).collect();
                all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
                serve::answer(&proto::ListResponse { pod_resources: all })
            }
            Some("GetAllocatableResources") => {
                let all = self.0.devices.healthy().into_iter();
                serve::answer(&proto::AllocatableResponse {
                    devices: all
                        .map(|(resource_name, device_ids)| proto::ContainerDevices {
                            resource_name,
                            device_ids,
                        })
                        .collect(),
                })
            }
            Some("Get") => {
                let asked: proto::GetRequest = serve::message(message)?;
                let pods = self.0.pods.lock().clone();
                let found = pods.iter().find(|(_, pod)| {
                    pod.metadata.name.as_deref() == Some(&asked.pod_name)
                        && pod.metadata.namespace.as_deref() == Some(&asked.pod_namespace)
                });
                let Some((uid, pod)) = found else {
                    return Err((
                        Code(2),
                        format!(
                            "pod {} in namespace {} not found",
                            asked.pod_name, asked.pod_namespace
                        ),
                    ));
                };
                serve::answer(&proto::GetResponse {
                    pod_resources: Some(self.pod(uid, pod)),
                })
            }
            _ => Err((Code::UNIMPLEMENTED, format!("unknown method {path}"))),
        }
    }
}

impl Service for Lister {
    fn call(&self, path: String, message: Bytes) -> BoxFuture<'static, Answer> {
        let answer = self.answer(&path, message);
        Box::pin(std::future::ready(answer))
    }
}

fn listen(directory: &Path) -> std::io::Result<UnixListener> {
    std::fs::create_dir_all(directory)?;
    let socket = directory.join(SOCKET);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Answers until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let directory = context.config.root.join(DIRECTORY);
    match listen(&directory) {
        Ok(listener) => serve::serve(listener, Arc::new(Lister(context))).await,
        Err(error) => {
            let directory = directory.display();
            warn!(%error, %directory, "nobody can ask which pod has which device");
        }
    }
}
