//! What stand-ins of plugins share: the socket on which one is called, the other by which the node
//! learns of it, and the word of the node on that.
//!
//! They run on a thread of their own, so that a test of a whole process can have them too. What a
//! plugin does is no matter of this module.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_grpc::Code;
use evenkeel_grpc::serve::{Answer, Service, answer, message, serve};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::csi::proto;

/// A plugin that listens, until it is dropped.
#[derive(Debug)]
pub(super) struct Plugin {
    registration: Arc<Registration>,
    path: PathBuf,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Registration {
    info: proto::PluginInfo,
    told: Mutex<Option<Result<(), String>>>,
}

impl Plugin {
    /// Serves `calls` (method and message) at the endpoint that `info` names, and registers by a
    /// socket at `path`.
    ///
    /// # Panics
    /// When the sockets can't be made.
    pub(super) fn start<F>(info: proto::PluginInfo, path: PathBuf, calls: F) -> Self
    where
        F: Fn(&str, Bytes) -> Answer + Send + Sync + 'static,
    {
        let endpoint = PathBuf::from(&info.endpoint);
        let home = endpoint.parent().expect("an endpoint in a directory");
        fs::create_dir_all(home).expect("the plugin's directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let registration = Arc::new(Registration {
            info,
            told: Mutex::default(),
        });
        {
            let _inside = runtime.enter();
            runtime.spawn(serve(listener(&endpoint), Arc::new(Calls::new(calls))));
            let registers = {
                let registration = Arc::clone(&registration);
                Calls::new(move |path: &str, bytes| registration.call(path, bytes))
            };
            runtime.spawn(serve(listener(&path), Arc::new(registers)));
        }
        Self {
            registration,
            path,
            runtime: Some(runtime),
        }
    }

    /// What the node said of the registration; `None` before it did.
    pub(super) fn registered(&self) -> Option<Result<(), String>> {
        self.registration.told.lock().clone()
    }

    /// Is called no more, and takes its registration back.
    pub(super) fn end(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        runtime.shutdown_background();
        if fs::remove_file(&self.path).is_err() {
            tracing::debug!("the registration's socket is gone already");
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.end();
    }
}

fn listener(path: &Path) -> UnixListener {
    // One that was killed leaves its sockets.
    if path.exists() {
        fs::remove_file(path).expect("the socket before");
    }
    UnixListener::bind(path).expect("a socket")
}

impl Registration {
    fn call(&self, path: &str, bytes: Bytes) -> Answer {
        match path {
            "/pluginregistration.Registration/GetInfo" => answer(&self.info),
            "/pluginregistration.Registration/NotifyRegistrationStatus" => {
                let status: proto::RegistrationStatus = message(bytes)?;
                let told = if status.plugin_registered {
                    Ok(())
                } else {
                    Err(status.error)
                };
                *self.told.lock() = Some(told);
                answer(&proto::Empty {})
            }
            other => Err((Code::UNIMPLEMENTED, other.to_owned())),
        }
    }
}

/// A function as a service.
struct Calls<F>(Arc<F>);

impl<F> Calls<F> {
    fn new(calls: F) -> Self {
        Self(Arc::new(calls))
    }
}

impl<F> Service for Calls<F>
where
    F: Fn(&str, Bytes) -> Answer + Send + Sync + 'static,
{
    fn call(&self, path: String, bytes: Bytes) -> BoxFuture<'static, Answer> {
        let calls = Arc::clone(&self.0);
        Box::pin(async move { calls(&path, bytes) })
    }
}
