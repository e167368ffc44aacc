//! Device plugins (KEP-3573, `deviceplugin/v1beta1`): they register at a socket of the agent, say
//! which devices they have, and are asked what a container needs to use those that it gets.
//!
//! Devices are given to a pod when the node admits it, and kept in a file beside the sockets: no
//! API says which container has which device, and containers outlive the agent. Hints about NUMA
//! are not heeded.

pub mod ledger;
pub mod proto;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_grpc::serve::{self, Answer, Service};
use evenkeel_grpc::{Channel, Code, GrpcError, Target};
use futures::future::BoxFuture;
use http::HeaderMap;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::cdi;
use ledger::{Given, Ledger, OfPod, Resource, Wish};

/// The socket at which plugins register, in the agent's directory of plugins.
pub const SOCKET: &str = "kubelet.sock";
/// Who holds what, beside it.
const CHECKPOINT: &str = "evenkeel_devices.json";
/// How long a plugin may take to answer.
const WITHIN: Duration = Duration::from_secs(60);
/// After this the devices of a plugin that is gone are no longer shown.
const GRACE: Duration = Duration::from_secs(5 * 60);
const REGISTER: &str = "/v1beta1.Registration/Register";
const PLUGIN: &str = "/v1beta1.DevicePlugin";

/// A plugin that has registered.
#[derive(Debug, Clone)]
struct Plugin {
    channel: Channel,
    options: proto::Options,
}

/// The devices of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Devices {
    directory: PathBuf,
    ledger: Arc<Mutex<Ledger>>,
    plugins: Arc<Mutex<BTreeMap<String, Plugin>>>,
    /// One pod at a time is given devices: a plugin is asked in between.
    giving: Arc<tokio::sync::Mutex<()>>,
    changed: Arc<Notify>,
}

/// What is in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    resources: BTreeSet<String>,
    pods: BTreeMap<String, OfPod>,
}

/// How much of a resource a container asks for.
fn wishes(pod: &Pod, uid: &str) -> Vec<Wish> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let init = spec.init_containers.iter().flatten().map(|one| {
        let sidecar = one.restart_policy.as_deref() == Some("Always");
        (one, !sidecar)
    });
    let apps = spec.containers.iter().map(|one| (one, false));
    let asked = |container: &Container| -> Vec<(String, usize)> {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|all| all.limits.as_ref());
        let limits = limits.into_iter().flatten();
        limits
            .filter(|(name, _)| evenkeel_api::kinds::is_extended_resource(name))
            .filter_map(|(name, amount)| {
                let amount: evenkeel_api::quantity::Quantity = amount.0.parse().ok()?;
                let count = usize::try_from(amount.units()).ok()?;
                (count > 0).then(|| (name.clone(), count))
            })
            .collect()
    };
    init.chain(apps)
        .flat_map(|(container, passes_on)| {
            asked(container)
                .into_iter()
                .map(move |(resource, count)| Wish {
                    pod: uid.to_owned(),
                    container: container.name.clone(),
                    passes_on,
                    resource,
                    count,
                })
        })
        .collect()
}

impl Devices {
    /// Below an agent's directory, with the holdings that it finds there.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let directory = root.join("device-plugins");
        let kept: Kept = read(&directory.join(CHECKPOINT));
        // A resource that was here is ours, though its plugin has yet to come again: a pod that
        // asks for it must not start without.
        let resources = kept.resources.into_iter();
        let ledger = Ledger {
            resources: resources.map(|name| (name, Resource::default())).collect(),
            pods: kept.pods,
        };
        Self {
            directory,
            ledger: Arc::new(Mutex::new(ledger)),
            plugins: Arc::default(),
            giving: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Devices that work, and all, by resource.
    #[must_use]
    pub fn amounts(&self) -> BTreeMap<String, (usize, usize)> {
        self.ledger.lock().amounts()
    }

    /// Waits until [`Devices::amounts`] may be different.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Gives a pod the devices it asks for, all or none. Resources that no plugin has ever had here
    /// are not ours.
    ///
    /// # Errors
    /// Why it can't have them, in kubelet's words.
    pub async fn admit(&self, uid: &str, pod: &Pod) -> Result<(), String> {
        let all = wishes(pod, uid);
        if all.is_empty() {
            return Ok(());
        }
        let _one = self.giving.lock().await;
        let mut passed_on = BTreeSet::new();
        let mut result = Ok(());
        for wish in &all {
            let known = self.ledger.lock().resources.contains_key(&wish.resource);
            if known {
                result = self.give(wish, &passed_on).await;
            }
            if result.is_err() {
                break;
            }
            if wish.passes_on {
                passed_on.insert(wish.container.clone());
            }
        }
        if result.is_err() {
            self.ledger.lock().release(uid);
        }
        self.save();
        result
    }

    async fn give(&self, wish: &Wish, passed_on: &BTreeSet<String>) -> Result<(), String> {
        let choice = self.ledger.lock().choose(wish, passed_on)?;
        let Some(choice) = choice else {
            return Ok(());
        };
        let plugin = self.plugins.lock().get(&wish.resource).cloned();
        let Some(plugin) = plugin else {
            return Err(format!("unknown Device Plugin {}", wish.resource));
        };
        let mut preferred = Vec::new();
        if plugin.options.get_preferred_allocation_available && choice.free.len() > wish.count {
            preferred = prefer(&plugin, wish, &choice).await;
        }
        let ids = Ledger::pick(wish, &choice, &preferred);
        self.ledger.lock().take(wish, ids.clone());
        let request = proto::AllocateRequest {
            container_requests: vec![proto::ContainerDevices {
                device_ids: ids.into_iter().collect(),
            }],
        };
        let answer: proto::AllocateResponse = plugin
            .channel
            .unary(&format!("{PLUGIN}/Allocate"), &request, WITHIN)
            .await
            .map_err(|error| said(&error))?;
        let first = answer.container_responses.into_iter().next();
        let first = first.ok_or_else(|| {
            format!(
                "no containers return in allocation response for {}",
                wish.resource
            )
        })?;
        self.ledger.lock().give(wish, Given::from(first));
        Ok(())
    }

    /// The devices that a container holds, by resource.
    #[must_use]
    pub fn held(&self, uid: &str, container: &str) -> BTreeMap<String, Vec<String>> {
        let ledger = self.ledger.lock();
        let held = ledger.pods.get(uid).and_then(|pod| pod.get(container));
        let all = held.into_iter().flatten();
        all.map(|(resource, held)| (resource.clone(), held.ids.iter().cloned().collect()))
            .collect()
    }

    /// The devices that work, by resource.
    #[must_use]
    pub fn healthy(&self) -> BTreeMap<String, Vec<String>> {
        let ledger = self.ledger.lock();
        let served = ledger.resources.iter().filter(|(_, one)| one.served);
        served
            .map(|(name, one)| {
                let works = one.devices.iter().filter(|(_, works)| **works);
                (name.clone(), works.map(|(id, _)| id.clone()).collect())
            })
            .collect()
    }

    /// What a pod held is free: it has stopped.
    pub fn release(&self, uid: &str) {
        if self.ledger.lock().release(uid) {
            self.save();
        }
    }

    /// Only these pods hold devices: others have gone while no agent ran.
    pub fn keep(&self, uids: &dyn Fn(&str) -> bool) {
        let mut ledger = self.ledger.lock();
        let before = ledger.pods.len();
        ledger.pods.retain(|uid, _| uids(uid));
        let less = ledger.pods.len() < before;
        drop(ledger);
        if less {
            self.save();
        }
    }

    /// What a container is to be given; its plugins are told that it starts.
    ///
    /// # Errors
    /// It has no devices that it asks for, or a plugin does not let it start.
    pub async fn start(&self, uid: &str, pod: &Pod, container: &str) -> Result<Vec<Given>, String> {
        let mut all = Vec::new();
        let own = wishes(pod, uid).into_iter();
        for wish in own.filter(|wish| wish.container == container) {
            let held = {
                let ledger = self.ledger.lock();
                let held = ledger
                    .pods
                    .get(uid)
                    .and_then(|pod| pod.get(container)?.get(&wish.resource));
                match held {
                    Some(held) => held.clone(),
                    None if ledger.resources.contains_key(&wish.resource) => {
                        return Err(format!(
                            "no devices of {} are set aside for the container",
                            wish.resource
                        ));
                    }
                    // Somebody else's resource.
                    None => continue,
                }
            };
            let mut given = held.given.ok_or_else(|| {
                format!("the plugin of {} has not given its devices", wish.resource)
            })?;
            given.edit(cdi::resolve(&given.cdi)?);
            let plugin = self.plugins.lock().get(&wish.resource).cloned();
            if let Some(plugin) = plugin.filter(|plugin| plugin.options.pre_start_required) {
                let request = proto::ContainerDevices {
                    device_ids: held.ids.into_iter().collect(),
                };
                let path = format!("{PLUGIN}/PreStartContainer");
                let answer = plugin.channel.unary(&path, &request, WITHIN).await;
                let _empty: proto::Empty = answer.map_err(|error| {
                    format!(
                        "device plugin PreStartContainer rpc failed with err: {}",
                        said(&error)
                    )
                })?;
            }
            all.push(given);
        }
        Ok(all)
    }

    /// Serves registrations and follows plugins until the future is dropped.
    pub async fn run(self) {
        let (registered, mut registrations) = mpsc::channel(16);
        let listener = match self.listen() {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, directory = %self.directory.display(), "device plugins can't register");
                return;
            }
        };
        let service = Arc::new(Registration {
            directory: self.directory.clone(),
            registered,
        });
        let mut following = JoinSet::new();
        following.spawn(serve::serve(listener, service));
        let mut current: BTreeMap<String, tokio::task::AbortHandle> = BTreeMap::new();
        loop {
            tokio::select! {
                Some(plugin) = registrations.recv() => {
                    let New { resource, channel, options } = plugin;
                    info!(resource, "a device plugin has registered");
                    let plugin = Plugin { channel, options };
                    self.plugins.lock().insert(resource.clone(), plugin.clone());
                    let follow = self.clone().follow(resource.clone(), plugin);
                    let handle = following.spawn(follow);
                    // A plugin that comes again takes the place of the one before.
                    if let Some(before) = current.insert(resource, handle) {
                        before.abort();
                    }
                }
                Some(_) = following.join_next(), if !following.is_empty() => {}
            }
        }
    }

    fn listen(&self) -> std::io::Result<UnixListener> {
        std::fs::create_dir_all(&self.directory)?;
        // Plugins that see the sockets go know that the agent is new, and register again.
        for entry in std::fs::read_dir(&self.directory)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        UnixListener::bind(self.directory.join(SOCKET))
    }

    async fn follow(self, resource: String, plugin: Plugin) {
        let path = format!("{PLUGIN}/ListAndWatch");
        let opened = plugin
            .channel
            .answers::<proto::ListAndWatchResponse>(&path, &proto::Empty {}, WITHIN)
            .await;
        let ended = match opened {
            Ok(mut incoming) => loop {
                match incoming.next().await {
                    Ok(Some(list)) => {
                        let devices = list.devices.into_iter();
                        let devices = devices.map(|device| {
                            let works = device.health == proto::HEALTHY;
                            (device.id, works)
                        });
                        let new = self.ledger.lock().list(&resource, devices.collect());
                        if new {
                            self.save();
                        }
                        self.changed.notify_one();
                    }
                    Ok(None) => break "it ended the list".to_owned(),
                    Err(error) => break error.chain(),
                }
            },
            Err(error) => error.chain(),
        };
        warn!(resource, why = ended, "a device plugin is gone");
        self.ledger.lock().lost(&resource);
        self.plugins.lock().remove(&resource);
        self.changed.notify_one();
        tokio::time::sleep(GRACE).await;
        self.ledger.lock().forget(&resource);
        self.changed.notify_one();
    }

    fn save(&self) {
        let kept = {
            let ledger = self.ledger.lock();
            Kept {
                resources: ledger.resources.keys().cloned().collect(),
                pods: ledger.pods.clone(),
            }
        };
        if let Err(error) = write(&self.directory.join(CHECKPOINT), &kept) {
            warn!(%error, "who has which device is not kept");
        }
    }
}

fn said(error: &GrpcError) -> String {
    match error {
        GrpcError::Status { message, .. } => format!("rpc error: {message}"),
        other => format!("rpc error: {}", other.chain()),
    }
}

async fn prefer(plugin: &Plugin, wish: &Wish, choice: &ledger::Choice) -> Vec<String> {
    let available = choice.again.union(&choice.free);
    let request = proto::PreferredAllocationRequest {
        container_requests: vec![proto::ContainerPreferred {
            available_device_ids: available.cloned().collect(),
            must_include_device_ids: choice.again.iter().cloned().collect(),
            allocation_size: i32::try_from(wish.count).unwrap_or(i32::MAX),
        }],
    };
    let path = format!("{PLUGIN}/GetPreferredAllocation");
    let answer = plugin
        .channel
        .unary::<proto::PreferredAllocationResponse>(&path, &request, WITHIN)
        .await;
    match answer {
        Ok(answer) => {
            let first = answer.container_responses.into_iter().next();
            first.map(|first| first.device_ids).unwrap_or_default()
        }
        Err(error) => {
            // A preference is no more than that.
            warn!(
                resource = wish.resource,
                error = error.chain(),
                "no preferred devices"
            );
            Vec::new()
        }
    }
}

pub(crate) fn read<T: serde::de::DeserializeOwned + Default>(path: &Path) -> T {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return T::default(),
        Err(error) => {
            warn!(%error, path = %path.display(), "not read");
            return T::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(%error, path = %path.display(), "not understood");
        T::default()
    })
}

/// Whole or not at all.
pub(crate) fn write<T: serde::Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(value)?)?;
    std::fs::rename(&new, path)
}

/// A plugin that registers.
struct New {
    resource: String,
    channel: Channel,
    options: proto::Options,
}

struct Registration {
    directory: PathBuf,
    registered: mpsc::Sender<New>,
}

impl Registration {
    fn read(&self, bytes: Bytes) -> Result<New, (Code, String)> {
        let asked: proto::RegisterRequest = serve::message(bytes)?;
        let wrong = |text: String| (Code(2), text);
        if asked.version != proto::VERSION {
            return Err(wrong(format!(
                "requested API version {:?} is not supported by kubelet. Supported version is {:?}",
                asked.version,
                proto::VERSION
            )));
        }
        if !evenkeel_api::kinds::is_extended_resource(&asked.resource_name) {
            return Err(wrong(format!(
                "the ResourceName {:?} is invalid",
                asked.resource_name
            )));
        }
        // A name in the directory, and nowhere else.
        let name = Path::new(&asked.endpoint).file_name();
        let path = name
            .filter(|name| Path::new(name) == Path::new(&asked.endpoint))
            .map(|name| self.directory.join(name))
            .ok_or_else(|| wrong(format!("the Endpoint {:?} is invalid", asked.endpoint)))?;
        Ok(New {
            resource: asked.resource_name,
            channel: Channel::new(Target::Unix { path }, HeaderMap::new()),
            options: asked.options.unwrap_or_default(),
        })
    }
}

impl Service for Registration {
    fn call(&self, path: String, message: Bytes) -> BoxFuture<'static, Answer> {
        let new = if path == REGISTER {
            self.read(message)
        } else {
            Err((Code::UNIMPLEMENTED, format!("unknown method {path}")))
        };
        let registered = self.registered.clone();
        Box::pin(async move {
            // The plugin is connected to after it has been answered.
            if registered.send(new?).await.is_err() {
                return Err((Code::UNAVAILABLE, "the agent ends".to_owned()));
            }
            serve::answer(&proto::Empty {})
        })
    }
}
