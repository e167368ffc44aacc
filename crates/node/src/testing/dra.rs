//! A driver of dynamic resources: it registers, prepares devices as CDI names of its own, and keeps
//! what it was asked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_grpc::Code;
use evenkeel_grpc::serve::{Answer, answer, message};
use parking_lot::Mutex;

use super::plugin::Plugin;
use crate::csi::proto as registration;
use crate::dra::proto;

#[derive(Debug)]
struct State {
    home: PathBuf,
    /// The CDI device that every claim gets.
    cdi: String,
    /// `prepare NAME`, `unprepare NAME`.
    calls: Mutex<Vec<String>>,
    prepared: Mutex<BTreeSet<String>>,
    /// What it says instead of doing its work.
    refusal: Mutex<Option<String>>,
}

/// The driver.
#[derive(Debug)]
pub struct FakeResourceDriver {
    state: Arc<State>,
    plugin: Plugin,
}

impl FakeResourceDriver {
    /// Starts a driver that has its socket in `home` and registers in a directory. Whoever has a
    /// claim of it gets the CDI device `cdi`.
    ///
    /// # Panics
    /// When its sockets can't be made.
    #[must_use]
    pub fn start(name: &str, cdi: &str, home: &Path, registry: &Path) -> Self {
        let state = Arc::new(State {
            home: home.to_owned(),
            cdi: cdi.to_owned(),
            calls: Mutex::default(),
            prepared: Mutex::default(),
            refusal: Mutex::default(),
        });
        let info = registration::PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: name.to_owned(),
            endpoint: state.socket().to_string_lossy().into_owned(),
            supported_versions: vec!["v1.DRAPlugin".to_owned(), "v1beta1.DRAPlugin".to_owned()],
        };
        let called = Arc::clone(&state);
        let plugin = Plugin::start(
            info,
            registry.join(format!("{name}-dra-reg.sock")),
            move |path, bytes| called.plugin(path, bytes),
        );
        Self { state, plugin }
    }

    /// Where it is called.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.socket()
    }

    /// What it was asked so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.state.calls.lock().clone()
    }

    /// The claims that are prepared, by uid.
    #[must_use]
    pub fn prepared(&self) -> BTreeSet<String> {
        self.state.prepared.lock().clone()
    }

    /// From now on it says this instead of doing its work; `None`: it works again.
    pub fn refuse(&self, why: Option<&str>) {
        *self.state.refusal.lock() = why.map(str::to_owned);
    }

    /// What the node said of its registration; `None` before it did.
    #[must_use]
    pub fn registered(&self) -> Option<Result<(), String>> {
        self.plugin.registered()
    }
}

impl Drop for FakeResourceDriver {
    fn drop(&mut self) {
        self.plugin.end();
        if fs::remove_file(self.state.socket()).is_err() {
            tracing::debug!("its socket is gone already");
        }
    }
}

impl State {
    fn socket(&self) -> PathBuf {
        self.home.join("dra.sock")
    }

    fn plugin(&self, path: &str, bytes: Bytes) -> Answer {
        let method = path
            .strip_prefix("/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/")
            .ok_or_else(|| (Code::UNIMPLEMENTED, path.to_owned()))?;
        let asked: proto::Claims = message(bytes)?;
        let error = self.refusal.lock().clone().unwrap_or_default();
        let works = error.is_empty();
        match method {
            "NodePrepareResources" => {
                let claims = asked.claims.into_iter().map(|claim| {
                    self.calls.lock().push(format!("prepare {}", claim.name));
                    let mut prepared = proto::Prepared {
                        error: error.clone(),
                        devices: Vec::new(),
                    };
                    if works {
                        self.prepared.lock().insert(claim.uid.clone());
                        prepared.devices.push(proto::Device {
                            request_names: Vec::new(),
                            pool_name: "pool".to_owned(),
                            device_name: "one".to_owned(),
                            cdi_device_ids: vec![self.cdi.clone()],
                            share_id: None,
                        });
                    }
                    (claim.uid, prepared)
                });
                answer(&proto::PrepareResponse {
                    claims: claims.collect(),
                })
            }
            "NodeUnprepareResources" => {
                let claims = asked.claims.into_iter().map(|claim| {
                    self.calls.lock().push(format!("unprepare {}", claim.name));
                    if works {
                        self.prepared.lock().remove(&claim.uid);
                    }
                    let error = error.clone();
                    (claim.uid, proto::Unprepared { error })
                });
                answer(&proto::UnprepareResponse {
                    claims: claims.collect(),
                })
            }
            other => Err((Code::UNIMPLEMENTED, other.to_owned())),
        }
    }
}
