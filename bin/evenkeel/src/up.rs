//! `evenkeel up`: opens the store, the door, the loops and the node, in that order, and closes
//! them in the opposite one.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_api::clock::{SharedClock, SystemClock};
use evenkeel_autoscaling::NodeSummaries;
use evenkeel_client::{LeaderElector, LeaseTimes, LoopContext, LoopRegistry, Recorder, Views};
use evenkeel_controllers::Composition;
use evenkeel_scheduler::Scheduler;
use evenkeel_scheduler::config::ProfileConfig;
use evenkeel_scheduler::descheduling::plan::Aims;
use evenkeel_scheduler::descheduling::{Descheduler, clean_up};
use evenkeel_server::audit::Audit;
use evenkeel_server::auth::SecretToken;
use evenkeel_server::listen::{self, SharedTls};
use evenkeel_server::pki::{Leaf, LeafSpec, Pki};
use evenkeel_server::{Door, DoorOptions, Identity};
use evenkeel_store::Store;
use rustix::fs::Access;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{LogFormat, Settings, UpArgs};
use crate::node::{Node, Way};
use crate::open::{self, Opened};
use crate::running::Running;
use crate::{kubeconfig, local, rest};

/// History is kept this long, as by the reference with etcd.
const HISTORY: Duration = Duration::from_secs(300);
/// Events are kept this long.
const EVENTS: Duration = Duration::from_secs(3600);
/// So long a server that ends tries to give its lease back.
const RELEASE: Duration = Duration::from_secs(3);
/// So long a server that ends tries to send the audit events that wait.
const FLUSH: Duration = Duration::from_secs(10);
/// Certificates are looked at this often at least; short-lived ones twelve times in their life.
const CERTIFICATES: Duration = Duration::from_secs(12 * 3600);

pub(crate) fn main(args: UpArgs) -> anyhow::Result<()> {
    let settings = args.settle()?;
    logging(&settings)?;
    rest::run(run(settings))
}

pub(crate) fn logging(settings: &Settings) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)
        .with_context(|| format!("--log {:?}", settings.log))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let clock: SharedClock = Arc::new(SystemClock);
    let data = &settings.data_dir;
    prepare(data)?;
    // The socket first: a port that is taken should be told before anything is touched.
    let listener = listen::bind(settings.listen).await.with_context(|| {
        format!(
            "can't listen on {}; choose another address with --listen",
            settings.listen
        )
    })?;
    let address = listener.local_addr().context("the socket has no address")?;
    let _running = Running::claim(data)?;
    let opened = Opened::open(&settings).await?;
    let store = opened.store();
    let pki = Pki::open(&data.join("pki"), clock.now()).context("certificates")?;
    let pki = Arc::new(pki.with_leaf_validity(settings.certificate_validity));
    let (seal, followed) = open::seal(&settings)?;
    if opened.is_shared() {
        open::recognize(store.as_ref(), &pki, &settings).await?;
    }
    let audit = settings
        .audit
        .as_ref()
        .map(|options| Audit::open(options, Arc::clone(&clock)));
    let audit = audit.transpose()?.map(Arc::new);
    let (issuer, tokens) = settings.tokens.read(pki.token_keys())?;
    let outside = settings.outside.read(&issuer)?;
    let (door, mut follower) = Door::open(DoorOptions {
        store: Arc::clone(&store),
        pki: Arc::clone(&pki),
        seal: Arc::clone(&seal),
        clock: Arc::clone(&clock),
        service_cidr: settings.service_cidr,
        port: address.port(),
        issuer,
        tokens,
        seats: settings.seats,
        audit: audit.clone(),
        outside,
        gates: settings.gates.clone(),
    })
    .await
    .context("can't open the API server")?;
    door.speak_cbor(settings.cbor);
    door.tell_flags(crate::flags("up"));

    let tls = listen::shared_tls(server_tls(&pki, &settings, address, &clock)?);
    write_kubeconfig(&pki, &settings, address, &clock)?;
    let stop = CancellationToken::new();
    // Before anybody can see that it serves: a signal right after that must end it cleanly.
    let mut signals = Signals::new()?;
    let serving = tokio::spawn(listen::serve(
        Arc::clone(&door),
        listener,
        Arc::clone(&tls),
        stop.clone(),
    ));
    if let Some(followed) = followed {
        tokio::spawn(followed.follow(seal));
    }
    tokio::spawn(Arc::clone(&door).compact_by_age(HISTORY));
    tokio::spawn(Arc::clone(&door).expire_events(EVENTS));
    tokio::spawn(Arc::clone(&door).expire_bootstrap_tokens());
    tokio::spawn(renew(
        Arc::clone(&pki),
        settings.clone(),
        address,
        Arc::clone(&clock),
        Arc::clone(&tls),
    ));
    let (metrics, election) = loops(&door, &pki, &settings, &clock, &stop, opened.is_shared());
    door.metrics().also(move || metrics.render());
    let stored = Arc::clone(&store);
    door.metrics().also(move || store_metrics(stored.as_ref()));
    let node = if settings.node {
        let node = Node::open(&settings).await?;
        inward(&door, &node, address, tls, &stop).await?;
        let way = way(&door, &pki, &settings, &node, &clock)?;
        let run = node.run(settings.clone(), way, Arc::clone(&clock), stop.clone());
        Some(tokio::spawn(run))
    } else {
        // Without a node no pod runs here, and an endpoint can't be a loopback address.
        if !address.ip().is_loopback() && !address.ip().is_unspecified() {
            door.publish(address.ip(), address.port()).await?;
        }
        None
    };
    let host = match (address.ip().is_unspecified(), settings.node_ip) {
        (true, Some(ip)) => SocketAddr::from((ip, address.port())),
        _ => address,
    };
    if !host.ip().is_unspecified() {
        let server = format!("https://{host}");
        door.publish_cluster_info(&server, pki.ca()).await?;
    }
    tracing::info!(%address, data = %data.display(), "ready");
    notify(&[sd_notify::NotifyState::Ready]);

    let failed = tokio::select! {
        () = signals.end() => None,
        ended = &mut follower => Some(ended),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping; containers go on running");
    stop.cancel();
    if let Some(node) = node {
        node.await.context("the node ended badly")??;
    }
    serving.await.context("the server ended badly")?;
    if let Some(audit) = audit
        && tokio::time::timeout(FLUSH, audit.close()).await.is_err()
    {
        tracing::warn!("audit events that could not be sent are lost");
    }
    if let Some(election) = election
        && tokio::time::timeout(RELEASE, election).await.is_err()
    {
        tracing::debug!("the lease is left to run out");
    }
    opened.close();
    match failed {
        None => Ok(()),
        Some(Ok(error)) => Err(anyhow::Error::new(error).context("the store failed while serving")),
        Some(Err(error)) => Err(anyhow::Error::new(error).context("the cache ended badly")),
    }
}

/// Makes the data directory, and checks that it can be used.
pub(crate) fn prepare(data: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(data)
        .and_then(|()| std::fs::read_dir(data).map(drop))
        .and_then(|()| {
            Ok(rustix::fs::access(
                data,
                Access::WRITE_OK | Access::EXEC_OK,
            )?)
        })
        .with_context(|| {
            format!(
                "can't use data directory {}; make it writable, or choose another with --data-dir",
                data.display()
            )
        })
}

/// What asks the process to end.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("signals")?,
            interrupt: signal(SignalKind::interrupt()).context("signals")?,
        })
    }

    /// Returns when one has come.
    pub(crate) async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How the node of this process reaches the door: without a socket. Its certificate is for those
/// who reach the node.
fn way(
    door: &Arc<Door>,
    pki: &Pki,
    settings: &Settings,
    node: &Node,
    clock: &SharedClock,
) -> anyhow::Result<Way> {
    let name = &settings.node_name;
    let user = format!("system:node:{name}");
    let mut addresses = vec![IpAddr::V4(node.gateway), IpAddr::from([127, 0, 0, 1])];
    if node.address != node.gateway {
        addresses.push(IpAddr::V4(node.address));
    }
    let spec = LeafSpec {
        name: "kubelet".to_owned(),
        common_name: user.clone(),
        organizations: vec!["system:nodes".to_owned()],
        dns_names: vec![name.clone(), "localhost".to_owned()],
        addresses,
        client: true,
        server: true,
        ..LeafSpec::default()
    };
    let leaf = pki
        .live(spec, clock.now())
        .context("the node's certificate")?;
    let mut tls = pki.live_server_config(&leaf, false)?;
    listen::offer_http(&mut tls);
    Ok(Way {
        client: local::client(door, Identity::user(user, &["system:nodes"])),
        proxy: local::client(door, Identity::user("system:kube-proxy", &[])),
        tls,
    })
}

/// What the store counts, in the Prometheus text format.
fn store_metrics(store: &dyn Store) -> String {
    // The embedded store answers at once; one that does not is not waited for.
    let Some(Ok(stats)) = futures::FutureExt::now_or_never(store.stats()) else {
        return String::new();
    };
    let counters = [
        (
            "txns_total",
            "counter",
            "Transactions answered.",
            stats.txns,
        ),
        (
            "fsyncs_total",
            "counter",
            "Groups of transactions made durable.",
            stats.fsyncs,
        ),
        ("revision", "gauge", "The current revision.", stats.revision),
        (
            "live_bytes",
            "gauge",
            "Bytes of live keys and values.",
            stats.live_bytes,
        ),
        (
            "disk_bytes",
            "gauge",
            "Bytes of the files.",
            stats.size_on_disk,
        ),
    ];
    // What the reference calls one of them.
    let size = format!(
        "# HELP apiserver_storage_size_bytes Size of the storage database file physically \
         allocated in bytes.\n# TYPE apiserver_storage_size_bytes gauge\n\
         apiserver_storage_size_bytes{{storage_cluster_id=\"embedded\"}} {}\n",
        stats.size_on_disk
    );
    let counters: String = counters
        .iter()
        .map(|(name, kind, help, value)| {
            format!(
                "# HELP evenkeel_store_{name} {help}\n# TYPE evenkeel_store_{name} {kind}\n\
                 evenkeel_store_{name} {value}\n"
            )
        })
        .collect();
    counters + &size
}

/// Starts all loops: at once where this is the only server, and where others are on the same store
/// as long as this one leads. The handle ends when the lease has been given back.
fn loops(
    door: &Arc<Door>,
    pki: &Arc<Pki>,
    settings: &Settings,
    clock: &SharedClock,
    stop: &CancellationToken,
    shared: bool,
) -> (LoopRegistry, Option<tokio::task::JoinHandle<()>>) {
    let metrics = LoopRegistry::default();
    let lead = {
        let (door, clock, metrics) = (Arc::clone(door), Arc::clone(clock), metrics.clone());
        let (pki, cidr) = (Arc::clone(pki), settings.cluster_cidr);
        let scheduling = Scheduling {
            profiles: settings.scheduler.clone(),
            consolidate: settings.consolidate_nodes,
        };
        move |until: CancellationToken| {
            lead(
                Arc::clone(&door),
                Arc::clone(&clock),
                metrics.clone(),
                Arc::clone(&pki),
                cidr,
                scheduling.clone(),
                until,
            )
        }
    };
    let election = shared.then(|| {
        let elector = LeaderElector::new(
            local::client(door, Identity::user("system:kube-controller-manager", &[])),
            Arc::clone(clock),
            "kube-system",
            "evenkeel-loops",
            // Two servers may have one name; and one that starts anew is another candidate.
            &format!("{}_{:08x}", settings.node_name, rand::random::<u32>()),
            LeaseTimes::default(),
        );
        let stop = stop.clone();
        let lead = lead.clone();
        tokio::spawn(async move { elector.run(stop, lead).await })
    });
    if election.is_none() {
        tokio::spawn(lead(stop.clone()));
    }
    (metrics, election)
}

/// How pods are placed.
#[derive(Clone)]
struct Scheduling {
    profiles: Vec<ProfileConfig>,
    /// Nodes that are little used are emptied.
    consolidate: bool,
}

/// Runs all loops, each as its own service account, until told to end. Dropping the future ends
/// them at once: another server may lead by then.
async fn lead(
    door: Arc<Door>,
    clock: SharedClock,
    metrics: LoopRegistry,
    pki: Arc<Pki>,
    cluster_cidr: ipnet::Ipv4Net,
    scheduling: Scheduling,
    until: CancellationToken,
) {
    let views = Views::new(
        local::client(&door, Identity::user("system:kube-controller-manager", &[])),
        Arc::clone(&clock),
    );
    // The views' own tasks end with the leadership as well, also when this is dropped.
    tokio::spawn({
        let (views, until) = (views.clone(), until.clone());
        async move {
            until.cancelled().await;
            views.shutdown().await;
        }
    });
    let composition = Composition {
        views,
        client_for: {
            let door = Arc::clone(&door);
            Arc::new(move |account| local::loop_client(&door, account))
        },
        clock: Arc::clone(&clock),
        shutdown: until.clone(),
        metrics,
        cluster_ca: pki.ca().to_owned(),
        signer: Some(Arc::new(move |request| {
            let life = evenkeel_server::pki::request::life(request.seconds);
            pki.sign_request(request.pem, request.usages, life, request.now)
                .map_err(|error| error.to_string())
        })),
        secret_tokens: Some({
            let door = Arc::clone(&door);
            Arc::new(move |of| {
                door.token_of_secret(&SecretToken {
                    namespace: of.namespace,
                    secret: of.secret,
                    account: of.account,
                    uid: of.uid,
                })
                .map_err(|status| status.to_string())
            })
        }),
        cluster_cidr: Some(cluster_cidr.into()),
    };
    let mut running = tokio::task::JoinSet::new();
    // Kept until all loops have ended.
    let _manager = door.components().runs("controller-manager");
    for each in evenkeel_controllers::all(&composition) {
        running.spawn(each.run);
    }
    let context = composition.context("horizontal-pod-autoscaler", "horizontal-pod-autoscaler");
    let summaries = Arc::new(NodeSummaries::new(context.client.clone()));
    running.spawn(evenkeel_autoscaling::run(context, summaries));
    let client = local::client(&door, Identity::user("system:kube-scheduler", &[]));
    let recorder = Recorder::new(client.clone(), Arc::clone(&clock), "default-scheduler", "");
    let context = LoopContext {
        views: composition.views.clone(),
        client,
        recorder,
        clock,
        shutdown: until,
        metrics: composition.metrics.clone(),
    };
    if scheduling.consolidate {
        let context = composition.context("descheduler", "descheduler");
        let descheduler = Descheduler::new(context, Aims::default());
        let report = descheduler.report();
        door.debug_pages()
            .add("descheduler", move |_| Some(report.page()));
        running.spawn(descheduler.run());
    } else {
        // An earlier start may have had it on.
        let context = composition.context("descheduler", "descheduler");
        running.spawn(clean_up(context));
    }
    let scheduler = Scheduler::configured(context, &scheduling.profiles);
    let traces = scheduler.traces();
    door.debug_pages()
        .add("scheduler", move |path| traces.page(path));
    let alive = door.components().runs("scheduler");
    running.spawn(async move {
        scheduler.run().await;
        drop(alive);
    });
    while running.join_next().await.is_some() {}
}

/// Opens the door to pods: they reach it at the gateway of their network, through the service
/// `kubernetes`.
async fn inward(
    door: &Arc<Door>,
    node: &Node,
    address: SocketAddr,
    tls: SharedTls,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let here = SocketAddr::from((node.gateway, address.port()));
    if !address.ip().is_unspecified() {
        let listener = listen::bind(here)
            .await
            .with_context(|| format!("can't listen on {here}, where pods reach the API"))?;
        tokio::spawn(listen::serve(Arc::clone(door), listener, tls, stop.clone()));
    }
    door.publish(here.ip(), here.port()).await?;
    Ok(())
}

/// Tells systemd, when it asked to be told.
pub(crate) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

fn server_tls(
    pki: &Pki,
    settings: &Settings,
    address: SocketAddr,
    clock: &SharedClock,
) -> anyhow::Result<rustls::ServerConfig> {
    let mut addresses: Vec<IpAddr> = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        settings.service_address(1).into(),
        IpAddr::from(node_gateway(settings)),
    ];
    let told = (!address.ip().is_unspecified()).then_some(address.ip());
    for reached in told.into_iter().chain(settings.node_ip.map(IpAddr::from)) {
        if !addresses.contains(&reached) {
            addresses.push(reached);
        }
    }
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let spec = LeafSpec {
        name: "apiserver".to_owned(),
        common_name: "kube-apiserver".to_owned(),
        dns_names: names
            .iter()
            .map(|name| (*name).to_owned())
            .chain([settings.node_name.clone()])
            .collect(),
        addresses,
        server: true,
        ..LeafSpec::default()
    };
    let leaf = pki
        .leaf(&spec, clock.now())
        .context("the server's certificate")?;
    // With the authority beside it, so that a machine that knows only its hash can join.
    let leaf = Leaf {
        certificate: format!("{}\n{}", leaf.certificate.trim_end(), pki.ca()),
        key: leaf.key,
    };
    let front_ca = settings.outside.request_headers()?.client_ca;
    let front_ca = front_ca.as_deref().unwrap_or_else(|| pki.front_proxy_ca());
    let mut config = pki.door_config(&leaf, front_ca)?;
    listen::offer_http(&mut config);
    Ok(config)
}

/// The first address of the first node's pod network: where pods reach the host.
pub(crate) fn node_gateway(settings: &Settings) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(u32::from(settings.cluster_cidr.network()).saturating_add(1))
}

fn write_kubeconfig(
    pki: &Pki,
    settings: &Settings,
    address: SocketAddr,
    clock: &SharedClock,
) -> anyhow::Result<()> {
    let spec = LeafSpec {
        name: "admin".to_owned(),
        common_name: "kubernetes-admin".to_owned(),
        organizations: vec!["system:masters".to_owned()],
        client: true,
        ..LeafSpec::default()
    };
    let leaf = pki
        .leaf(&spec, clock.now())
        .context("the administrator's certificate")?;
    let host = if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    };
    let text = kubeconfig::render(&format!("https://{host}"), pki.ca(), &leaf);
    kubeconfig::write(&settings.data_dir.join("kubeconfig"), &text)?;
    if let Some(path) = &settings.write_kubeconfig {
        kubeconfig::write(path, &text)?;
    }
    Ok(())
}

/// Makes certificates anew before they end; connections made from then on get the new one.
async fn renew(
    pki: Arc<Pki>,
    settings: Settings,
    address: SocketAddr,
    clock: SharedClock,
    tls: SharedTls,
) {
    let life = Duration::try_from(settings.certificate_validity).unwrap_or(CERTIFICATES);
    let period = (life / 12).min(CERTIFICATES);
    loop {
        tokio::time::sleep(period).await;
        if let Err(error) = pki.renew(clock.now()) {
            tracing::error!(%error, "certificates can't be renewed");
        }
        match server_tls(&pki, &settings, address, &clock) {
            Ok(config) => tls.store(Arc::new(config)),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "certificates can't be renewed"
            ),
        }
        if let Err(error) = write_kubeconfig(&pki, &settings, address, &clock) {
            tracing::error!(
                error = format!("{error:#}"),
                "the kubeconfig can't be renewed"
            );
        }
    }
}
