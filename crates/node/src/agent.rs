//! The agent as a whole: what runs, and how pods find their workers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Target, Update, follow};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::admission::Ledger;
use crate::backend::AgentBackend;
use crate::config::{NodeConfig, NodeError};
use crate::context::Context;
use crate::csi::{self, Csi};
use crate::devices::Devices;
use crate::dra::{self, Dra};
use crate::events::Recorder;
use crate::eviction::Evictions;
use crate::machine::Machine;
use crate::objects::Objects;
use crate::pod::worker::{Mailbox, Worker};
use crate::probe::Dialers;
use crate::server::{NodeServer, Reviews};
use crate::services::Services;
use crate::spec::dns::DnsFacts;
use crate::spec::service_env::ServiceFacts;
use crate::static_pods::{self, StaticPods};
use crate::stats::StatsSampler;
use crate::view::{RuntimeView, Wakers};
use crate::volume::local::{self, LocalVolumes};
use crate::volume::pod_certificate::PodCertificates;
use crate::volume::snapshot;
use crate::volume::token::Tokens;
use crate::volume::trust::Bundles;
use crate::volume::usage::Usage;
use crate::volume::{Gatherer, release};
use crate::{eviction, gc, images_gc, orphan, pod_resources, register};

/// The runtime is listed anew this often, in case an event was lost.
const RELIST: Duration = Duration::from_secs(90);
/// The files of static pods are looked at this often.
const STATIC_PERIOD: Duration = Duration::from_secs(5);
/// Wait between tries to list the runtime at start.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

/// A node agent that has not started yet.
#[derive(Debug)]
pub struct Agent {
    context: Arc<Context>,
    writer: crate::events::Writer,
    stats: Arc<StatsSampler>,
    server: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
}

impl Agent {
    /// Prepares an agent: directories are made, nothing is contacted.
    ///
    /// # Errors
    /// When a directory can't be made.
    pub fn new(config: NodeConfig) -> Result<Self, NodeError> {
        for (dir, mode) in [
            (config.root.join("pods"), 0o750),
            (config.log_root.clone(), 0o755),
        ] {
            release::make_dir(&dir, mode).map_err(NodeError::Directory)?;
        }
        let machine = Machine::read();
        let wakers = Arc::new(Wakers::default());
        let (recorder, writer) = Recorder::new(
            config.client.clone(),
            Arc::clone(&config.clock),
            config.name.clone(),
        );
        let objects = Arc::new(Objects::new(
            config.client.clone(),
            Arc::clone(&config.clock),
        ));
        let context = Context {
            view: RuntimeView::new(Arc::clone(&config.runtime), Arc::clone(&wakers)),
            wakers,
            services: Arc::new(Services::new(ServiceFacts {
                name: "kubernetes".to_owned(),
                cluster_ip: config.api_server_host.clone(),
                ports: vec![(
                    "https".to_owned(),
                    i32::from(config.api_server_port),
                    "TCP".to_owned(),
                )],
            })),
            gatherer: Gatherer {
                root: config.root.clone(),
                objects: Arc::clone(&objects),
                tokens: Tokens::new(config.client.clone(), Arc::clone(&config.clock)),
                certificates: PodCertificates::new(
                    config.client.clone(),
                    Arc::clone(&config.clock),
                    config.name.clone(),
                    recorder.clone(),
                ),
                bundles: Bundles::new(config.client.clone(), Arc::clone(&config.clock)),
                local: LocalVolumes::new(
                    config.volumes.clone(),
                    config.name.clone(),
                    config.client.clone(),
                ),
                csi: Csi::new(
                    &config.root,
                    config.name.clone(),
                    config.client.clone(),
                    recorder.clone(),
                ),
                claims: Mutex::default(),
            },
            objects,
            dns: DnsFacts {
                cluster_dns: config.cluster_dns.clone(),
                cluster_domain: config.cluster_domain.clone(),
                host: machine.resolv_conf.clone(),
            },
            machine,
            dialers: Dialers::new()?,
            pulls: Mutex::default(),
            admitted: Ledger::default(),
            devices: Devices::new(&config.root),
            volumes: Usage::default(),
            dra: Dra::new(&config.root, config.client.clone()),
            node_labels: Mutex::default(),
            evictions: Evictions::default(),
            pressure: Mutex::default(),
            images_used: Mutex::default(),
            pods: Mutex::default(),
            recorder,
            config,
        };
        let context = Arc::new(context);
        let stats = Arc::new(StatsSampler::new(Arc::clone(&context)));
        Ok(Self {
            context,
            writer,
            stats,
            server: None,
        })
    }

    /// Serves the node's HTTPS API too. `tls` should ask for client certificates of the cluster's
    /// CA; the API server says whose tokens come and what others than masters may.
    #[must_use]
    pub fn with_server(mut self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) -> Self {
        self.server = Some((listener, tls));
        self
    }

    /// What the agent's parts share; the node's API answers from it.
    #[must_use]
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context)
    }

    /// Works until `shutdown`. Containers are left running.
    ///
    /// # Errors
    /// When the runtime can't be reached before the shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let Self {
            context,
            writer,
            stats,
            server,
        } = self;
        let serving = server.map(|(listener, tls)| {
            let backend = AgentBackend::new(Arc::clone(&context), Arc::clone(&stats));
            let config = &context.config;
            let reviews = Reviews::new(config.client.clone(), config.name.clone());
            let server = NodeServer::new(Arc::new(backend), Arc::new(reviews), shutdown.clone());
            spawn(async move { server.serve(listener, tls).await })
        });
        let mut tasks = vec![
            spawn(async move { stats.run().await }),
            spawn(writer.run()),
            spawn(context.devices.clone().run()),
            spawn(register::run(Arc::clone(&context))),
            spawn({
                let context = Arc::clone(&context);
                async move { context.services.run(context.config.client.clone()).await }
            }),
        ];
        // Events are subscribed to before the list, so that nothing falls between.
        let events = context.config.runtime.events();
        while let Err(error) = context.view.relist().await {
            warn!(%error, "container runtime does not answer");
            tokio::select! {
                () = tokio::time::sleep(RUNTIME_RETRY) => {}
                () = shutdown.cancelled() => return Err(error.into()),
            }
        }
        tasks.push(spawn(follow_runtime(Arc::clone(&context), events)));
        tasks.push(spawn(local::run(Arc::clone(&context))));
        tasks.push(spawn(snapshot::run(Arc::clone(&context))));
        tasks.push(spawn(csi::registration::run(Arc::clone(&context))));
        tasks.push(spawn(pod_resources::run(Arc::clone(&context))));
        tasks.push(spawn(dra::run(Arc::clone(&context))));
        tasks.push(spawn(gc::run(Arc::clone(&context))));
        tasks.push(spawn(images_gc::run(Arc::clone(&context))));
        tasks.push(spawn(eviction::run(Arc::clone(&context))));
        tokio::select! {
            () = follow_pods(Arc::clone(&context)) => {}
            () = shutdown.cancelled() => {}
        }
        info!(
            node = context.config.name,
            "node agent ends; containers go on"
        );
        drop(tasks);
        if let Some(serving) = serving {
            // Sessions get a moment to end; the server bounds it.
            if serving.await.is_err() {
                warn!("the node's API ended badly");
            }
        }
        Ok(())
    }
}

/// Runs a node agent until `shutdown`.
///
/// # Errors
/// When it can't start.
pub async fn run(config: NodeConfig, shutdown: CancellationToken) -> Result<(), NodeError> {
    Agent::new(config)?.run(shutdown).await
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

async fn follow_runtime(
    context: Arc<Context>,
    mut events: tokio::sync::broadcast::Receiver<evenkeel_runtime::ContainerEvent>,
) {
    let mut relist = tokio::time::interval_at(tokio::time::Instant::now() + RELIST, RELIST);
    loop {
        let anew = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    if let Err(error) = context.view.refresh_container(&event.container_id).await {
                        warn!(%error, container = event.container_id, "container not read");
                    }
                    false
                }
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => {
                    relist.tick().await;
                    true
                }
            },
            _ = relist.tick() => true,
        };
        if anew && let Err(error) = context.view.relist().await {
            warn!(%error, "container runtime does not answer");
        }
    }
}

struct Handle {
    mailbox: Arc<Mailbox>,
    task: AbortOnDropHandle<()>,
}

async fn follow_pods(context: Arc<Context>) {
    let target = Target {
        field_selector: Some(format!("spec.nodeName={}", context.config.name)),
        ..Target::of::<Pod>()
    };
    let mut updates = follow::<Pod>(context.config.client.clone(), target).boxed();
    let mut workers: HashMap<String, Handle> = HashMap::new();
    let mut first = true;
    let mut statics = StaticPods::new(&context.config.name);
    let mut look = tokio::time::interval(STATIC_PERIOD);
    let dir = context.config.static_pods.clone();
    loop {
        let update = tokio::select! {
            // Files first: what they name must be known before orphans are looked for.
            biased;
            _ = look.tick(), if dir.is_some() => {
                if let Some(dir) = &dir {
                    look_at_files(&context, &mut workers, &mut statics, dir);
                }
                if !first {
                    mirror(&context, &statics);
                }
                continue;
            }
            update = updates.next() => update,
        };
        match update {
            None => return,
            Some(Update::All(pods)) => {
                statics.forget_mirrors();
                let mut listed = HashSet::new();
                for pod in pods.into_iter().map(Arc::new) {
                    if !static_pods::is_mirror(&pod) {
                        listed.extend(pod.uid());
                        apply(&context, &mut workers, pod);
                    } else if let Some(pod) = statics.mirrored(pod) {
                        apply(&context, &mut workers, pod);
                    }
                }
                remove_missing(&context, &workers, &statics, &listed);
                if std::mem::take(&mut first) {
                    let files = statics.uids().map(str::to_owned);
                    let known: HashSet<String> = listed.into_iter().chain(files).collect();
                    context.devices.keep(&|uid| known.contains(uid));
                    context.dra.keep(&|uid| known.contains(uid));
                    orphan::clean_up_all(&context, &known);
                }
                mirror(&context, &statics);
            }
            Some(Update::Put(pod)) if static_pods::is_mirror(&pod) => {
                if let Some(pod) = statics.mirrored(Arc::new(pod)) {
                    apply(&context, &mut workers, pod);
                } else {
                    mirror(&context, &statics);
                }
            }
            Some(Update::Gone(pod)) if static_pods::is_mirror(&pod) => {
                statics.unmirrored(&pod);
                mirror(&context, &statics);
            }
            Some(Update::Put(pod)) => apply(&context, &mut workers, Arc::new(pod)),
            Some(Update::Gone(pod)) => remove(&context, &workers, Arc::new(pod)),
        }
    }
}

/// Ends the pods that are here and neither listed nor in a file.
fn remove_missing(
    context: &Arc<Context>,
    workers: &HashMap<String, Handle>,
    statics: &StaticPods,
    listed: &HashSet<String>,
) {
    let gone: Vec<Arc<Pod>> = {
        let pods = context.pods.lock();
        let missing = pods
            .iter()
            .filter(|(uid, _)| !listed.contains(*uid) && !statics.uids().any(|one| one == **uid));
        missing.map(|(_, pod)| Arc::clone(pod)).collect()
    };
    for pod in gone {
        remove(context, workers, pod);
    }
}

/// Runs what the directory has (now), ends what it has no more.
fn look_at_files(
    context: &Arc<Context>,
    workers: &mut HashMap<String, Handle>,
    statics: &mut StaticPods,
    dir: &Path,
) {
    let changes = statics.update(statics.read(dir));
    for pod in changes.removed {
        remove(context, workers, pod);
    }
    for pod in changes.added {
        apply(context, workers, pod);
    }
}

/// Makes the mirrors that are missing and deletes those that show nothing.
fn mirror(context: &Arc<Context>, statics: &StaticPods) {
    for pod in statics.missing() {
        let context = Arc::clone(context);
        tokio::spawn(async move { static_pods::make_mirror(&context, &pod).await });
    }
    for stale in statics.stale() {
        let context = Arc::clone(context);
        tokio::spawn(async move { static_pods::delete_mirror(&context, &stale).await });
    }
}

fn apply(context: &Arc<Context>, workers: &mut HashMap<String, Handle>, pod: Arc<Pod>) {
    let Some(uid) = pod.uid() else { return };
    context.pods.lock().insert(uid.clone(), Arc::clone(&pod));
    if let Some(handle) = workers.get(&uid)
        && !handle.task.is_finished()
    {
        handle.mailbox.tell(pod, false);
        return;
    }
    workers.retain(|_, handle| !handle.task.is_finished());
    let mailbox = Arc::new(Mailbox::new(context.wakers.bell(&uid)));
    let worker = Worker::new(Arc::clone(context), Arc::clone(&mailbox), pod);
    let owner = Arc::clone(context);
    let key = uid.clone();
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        worker.run().await;
        owner.wakers.forget(&key);
    }));
    workers.insert(uid, Handle { mailbox, task });
}

fn remove(context: &Context, workers: &HashMap<String, Handle>, pod: Arc<Pod>) {
    let Some(uid) = pod.uid() else { return };
    context.pods.lock().remove(&uid);
    if let Some(handle) = workers.get(&uid) {
        handle.mailbox.tell(pod, true);
    }
}
