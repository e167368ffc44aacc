//! A driver of dynamic resources: it registers, prepares devices as CDI names of its own, and keeps
//! what it was asked.
//!
//! It runs on a thread of its own, so that a test of a whole process can have it too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_grpc::Code;
use evenkeel_grpc::serve::{Answer, Service, answer, message, serve};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::UnixListener;

use crate::csi::proto as registration;
use crate::dra::proto;

#[derive(Debug)]
struct State {
    name: String,
    home: PathBuf,
    /// The CDI device that every claim gets.
    cdi: String,
    /// `prepare NAME`, `unprepare NAME`.
    calls: Mutex<Vec<String>>,
    prepared: Mutex<BTreeSet<String>>,
    /// What it says instead of doing its work.
    refusal: Mutex<Option<String>>,
    registered: Mutex<Option<Result<(), String>>>,
}

/// The driver.
#[derive(Debug)]
pub struct FakeResourceDriver {
    state: Arc<State>,
    registration: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
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
            name: name.to_owned(),
            home: home.to_owned(),
            cdi: cdi.to_owned(),
            calls: Mutex::default(),
            prepared: Mutex::default(),
            refusal: Mutex::default(),
            registered: Mutex::default(),
        });
        fs::create_dir_all(home).expect("the driver's directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let own = state.socket();
        let registration = registry.join(format!("{name}-dra-reg.sock"));
        {
            let _inside = runtime.enter();
            for (path, registers) in [(&own, false), (&registration, true)] {
                // One that was killed leaves its sockets.
                if path.exists() {
                    fs::remove_file(path).expect("the socket before");
                }
                let listener = UnixListener::bind(path).expect("a socket");
                let service = Arc::new(Served {
                    state: Arc::clone(&state),
                    registers,
                });
                runtime.spawn(serve(listener, service));
            }
        }
        Self {
            state,
            registration,
            runtime: Some(runtime),
        }
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
        self.state.registered.lock().clone()
    }
}

impl Drop for FakeResourceDriver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        for path in [&self.registration, &self.state.socket()] {
            if fs::remove_file(path).is_err() {
                tracing::debug!(path = %path.display(), "the socket is gone already");
            }
        }
    }
}

struct Served {
    state: Arc<State>,
    registers: bool,
}

impl Service for Served {
    fn call(&self, path: String, bytes: Bytes) -> BoxFuture<'static, Answer> {
        let (state, registers) = (Arc::clone(&self.state), self.registers);
        Box::pin(async move {
            if registers {
                state.registration(&path, bytes)
            } else {
                state.plugin(&path, bytes)
            }
        })
    }
}

impl State {
    fn socket(&self) -> PathBuf {
        self.home.join("dra.sock")
    }

    fn registration(&self, path: &str, bytes: Bytes) -> Answer {
        match path {
            "/pluginregistration.Registration/GetInfo" => answer(&registration::PluginInfo {
                r#type: "DRAPlugin".to_owned(),
                name: self.name.clone(),
                endpoint: self.socket().to_string_lossy().into_owned(),
                supported_versions: vec!["v1.DRAPlugin".to_owned(), "v1beta1.DRAPlugin".to_owned()],
            }),
            "/pluginregistration.Registration/NotifyRegistrationStatus" => {
                let status: registration::RegistrationStatus = message(bytes)?;
                let told = if status.plugin_registered {
                    Ok(())
                } else {
                    Err(status.error)
                };
                *self.registered.lock() = Some(told);
                answer(&registration::Empty {})
            }
            other => Err((Code::UNIMPLEMENTED, other.to_owned())),
        }
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
