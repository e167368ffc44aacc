//! A CSI driver whose volumes are directories: it registers, stages and publishes by bind mounts,
//! and keeps what it was asked.
//!
//! Like a real one it is idempotent, and like a real one it leaves its mounts when it ends: [`Drop`]
//! takes them down only because tests clean up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_grpc::Code;
use evenkeel_grpc::serve::{Answer, answer, message};
use parking_lot::Mutex;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use super::plugin::Plugin;
use crate::csi::proto;
use crate::volume::release::{is_mount, mounts_below};

/// A call as the driver had it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// `NodeStageVolume` and its like.
    pub method: String,
    /// The volume.
    pub volume: String,
    /// Where.
    pub path: String,
    /// What the attachment gave.
    pub publish_context: BTreeMap<String, String>,
    /// What it knows of the volume, and of the pod.
    pub context: BTreeMap<String, String>,
    /// Secrets.
    pub secrets: BTreeMap<String, String>,
    /// To be read only.
    pub read_only: bool,
}

#[derive(Debug)]
struct State {
    name: String,
    node_id: String,
    home: PathBuf,
    calls: Mutex<Vec<Call>>,
}

/// The driver.
#[derive(Debug)]
pub struct FakeDriver {
    state: Arc<State>,
    plugin: Plugin,
}

impl FakeDriver {
    /// Starts a driver that keeps its volumes in `home` and registers in a directory.
    ///
    /// # Panics
    /// When its sockets can't be made.
    #[must_use]
    pub fn start(name: &str, home: &Path, registry: &Path) -> Self {
        let state = Arc::new(State {
            name: name.to_owned(),
            node_id: format!("{name}-node"),
            home: home.to_owned(),
            calls: Mutex::default(),
        });
        let info = proto::PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: name.to_owned(),
            endpoint: home.join("csi.sock").to_string_lossy().into_owned(),
            supported_versions: vec!["1.0.0".to_owned()],
        };
        let node = Arc::clone(&state);
        let plugin = Plugin::start(
            info,
            registry.join(format!("{name}-reg.sock")),
            move |path, bytes| node.node(path, bytes),
        );
        Self { state, plugin }
    }

    /// What it was asked so far, but for what it is and can do.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().clone()
    }

    /// Forgets what it was asked.
    pub fn forget(&self) {
        self.state.calls.lock().clear();
    }

    /// What the node said of its registration; `None` before it did.
    #[must_use]
    pub fn registered(&self) -> Option<Result<(), String>> {
        self.plugin.registered()
    }

    /// Where the data of a volume is.
    #[must_use]
    pub fn data(&self, volume: &str) -> PathBuf {
        self.state.data(volume)
    }
}

impl Drop for FakeDriver {
    fn drop(&mut self) {
        self.plugin.end();
        for path in mounts_below(&self.state.home).unwrap_or_default() {
            if unmount(&path, UnmountFlags::DETACH).is_err() {
                tracing::debug!(path = %path.display(), "not mounted any more");
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> (Code, String) {
    (Code::INTERNAL, error.to_string())
}

impl State {
    fn data(&self, volume: &str) -> PathBuf {
        self.home.join("volumes").join(volume)
    }

    fn note(&self, call: Call) {
        self.calls.lock().push(call);
    }

    fn node(&self, path: &str, bytes: Bytes) -> Answer {
        let method = path.strip_prefix("/csi.v1.Node/").unwrap_or(path);
        match method {
            "NodeGetInfo" => answer(&proto::NodeGetInfoResponse {
                node_id: self.node_id.clone(),
                max_volumes_per_node: 7,
                accessible_topology: Some(proto::Topology {
                    segments: [(format!("topology.{}/rack", self.name), "r1".to_owned())].into(),
                }),
            }),
            "NodeGetCapabilities" => {
                let each = |number| proto::NodeServiceCapability {
                    rpc: Some(proto::Rpc { r#type: number }),
                };
                let all = [
                    proto::STAGE_UNSTAGE_VOLUME,
                    proto::GET_VOLUME_STATS,
                    proto::EXPAND_VOLUME,
                ];
                answer(&proto::NodeGetCapabilitiesResponse {
                    capabilities: all.map(each).into(),
                })
            }
            "NodeStageVolume" => self.stage(method, message(bytes)?),
            "NodePublishVolume" => self.publish(method, message(bytes)?),
            "NodeUnpublishVolume" => {
                let request: proto::NodeUnpublishVolumeRequest = message(bytes)?;
                self.end(method, request.volume_id, request.target_path, true)
            }
            "NodeUnstageVolume" => {
                let request: proto::NodeUnstageVolumeRequest = message(bytes)?;
                let path = request.staging_target_path;
                self.end(method, request.volume_id, path, false)
            }
            "NodeExpandVolume" => {
                let request: proto::NodeExpandVolumeRequest = message(bytes)?;
                let bytes = request.capacity_range.map_or(0, |it| it.required_bytes);
                self.note(Call {
                    method: method.to_owned(),
                    volume: request.volume_id,
                    path: request.volume_path,
                    context: [("bytes".to_owned(), bytes.to_string())].into(),
                    ..Call::default()
                });
                answer(&proto::NodeExpandVolumeResponse {
                    capacity_bytes: bytes,
                })
            }
            "NodeGetVolumeStats" => {
                let usage = |unit, total: i64, used: i64| proto::VolumeUsage {
                    available: total - used,
                    total,
                    used,
                    unit,
                };
                answer(&proto::NodeGetVolumeStatsResponse {
                    usage: vec![usage(proto::BYTES, 1000, 400), usage(proto::INODES, 100, 7)],
                })
            }
            other => Err((Code::UNIMPLEMENTED, other.to_owned())),
        }
    }

    fn stage(&self, method: &str, request: proto::NodeStageVolumeRequest) -> Answer {
        let data = self.data(&request.volume_id);
        fs::create_dir_all(&data).map_err(failed)?;
        let at = PathBuf::from(&request.staging_target_path);
        self.note(Call {
            method: method.to_owned(),
            volume: request.volume_id,
            path: request.staging_target_path,
            publish_context: request.publish_context,
            context: request.volume_context,
            secrets: request.secrets,
            read_only: false,
        });
        if !is_mount(&at).map_err(failed)? {
            mount_bind(&data, &at).map_err(failed)?;
        }
        answer(&proto::Empty {})
    }

    fn publish(&self, method: &str, request: proto::NodePublishVolumeRequest) -> Answer {
        let from = if request.staging_target_path.is_empty() {
            let data = self.data(&request.volume_id);
            fs::create_dir_all(&data).map_err(failed)?;
            data
        } else {
            PathBuf::from(&request.staging_target_path)
        };
        let at = PathBuf::from(&request.target_path);
        let read_only = request.readonly;
        self.note(Call {
            method: method.to_owned(),
            volume: request.volume_id,
            path: request.target_path,
            publish_context: request.publish_context,
            context: request.volume_context,
            secrets: request.secrets,
            read_only,
        });
        fs::create_dir_all(&at).map_err(failed)?;
        if !is_mount(&at).map_err(failed)? {
            mount_bind(&from, &at).map_err(failed)?;
            if read_only {
                mount_remount(&at, MountFlags::BIND | MountFlags::RDONLY, c"").map_err(failed)?;
            }
        }
        answer(&proto::Empty {})
    }

    fn end(&self, method: &str, volume: String, path: String, removes: bool) -> Answer {
        let at = PathBuf::from(&path);
        self.note(Call {
            method: method.to_owned(),
            volume,
            path,
            ..Call::default()
        });
        if is_mount(&at).map_err(failed)? {
            unmount(&at, UnmountFlags::empty()).map_err(failed)?;
        }
        if removes && at.exists() {
            fs::remove_dir(&at).map_err(failed)?;
        }
        answer(&proto::Empty {})
    }
}
