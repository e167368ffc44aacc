//! Door, store and loops.

use std::sync::Arc;

use evenkeel_client::{
    CancellationToken, LoopContext, LoopRegistry, Recorder, SharedClock, SystemClock, Views,
};
use evenkeel_controllers::Composition;
use evenkeel_node::testing::Scratch;
use evenkeel_scheduler::Scheduler;
use evenkeel_server::auth::SecretToken;
use evenkeel_server::local::Local;
use evenkeel_server::pki::Pki;
use evenkeel_server::seal::Seal;
use evenkeel_server::{DEFAULT_SEATS, Door, DoorOptions, Identity, Outside, TokenOptions};
use evenkeel_store::Store;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;

use crate::node::FakeNode;
use crate::request::Caller;

/// The group that may do everything.
pub const ADMIN: &str = "system:masters";

/// A cluster in this process. Its loops end and its directory goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    door: Arc<Door>,
    store: Arc<EmbeddedStore>,
    clock: SharedClock,
    pki: Arc<Pki>,
    views: Views,
    metrics: LoopRegistry,
    shutdown: CancellationToken,
    _stop: DropGuard,
    tasks: Vec<AbortOnDropHandle<()>>,
    directory: Scratch,
}

impl Cluster {
    /// The door alone: nothing changes but what the test changes.
    pub async fn door() -> Self {
        Self::door_options(|_| {}).await
    }

    /// The door with controllers and scheduler.
    pub async fn start() -> Self {
        let mut cluster = Self::door().await;
        cluster.run_loops();
        cluster
    }

    /// The door alone, with options that the test sets.
    pub async fn door_options(set: impl FnOnce(&mut DoorOptions)) -> Self {
        let directory = Scratch::new().expect("a directory");
        Self::over_with(directory, EmbeddedOptions::default(), set).await
    }

    async fn over(directory: Scratch, options: EmbeddedOptions) -> Self {
        Self::over_with(directory, options, |_| {}).await
    }

    async fn over_with(
        directory: Scratch,
        options: EmbeddedOptions,
        set: impl FnOnce(&mut DoorOptions),
    ) -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        let path = directory.path();
        let store = EmbeddedStore::open(&path.join("store"), options).expect("a store");
        let store = Arc::new(store);
        let pki = Pki::open(&path.join("pki"), clock.now()).expect("certificates");
        let seal = Seal::open(&path.join("encryption.key")).expect("a key");
        let pki = Arc::new(pki);
        let mut door = DoorOptions {
            store: Arc::clone(&store) as Arc<dyn Store>,
            pki: Arc::clone(&pki),
            seal: Arc::new(seal),
            clock: Arc::clone(&clock),
            service_cidr: "10.96.0.0/16".parse().expect("a network"),
            port: 6443,
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            tokens: TokenOptions::default(),
            seats: DEFAULT_SEATS,
            audit: None,
            outside: Outside::default(),
            gates: Vec::new(),
        };
        set(&mut door);
        let (door, follower) = Door::open(door).await.expect("a door");
        let follower = AbortOnDropHandle::new(tokio::spawn(async move {
            // It ends with the store; a test that goes on after that sees its own failures.
            drop(follower.await);
        }));
        let shutdown = CancellationToken::new();
        let manager = Identity::user("system:kube-controller-manager", &[]);
        let manager = kube::Client::new(Local::new(&door, manager), "default");
        Self {
            views: Views::new(manager, Arc::clone(&clock)),
            metrics: LoopRegistry::default(),
            door,
            store,
            clock,
            pki,
            _stop: shutdown.clone().drop_guard(),
            shutdown,
            tasks: vec![follower],
            directory,
        }
    }

    /// Closes everything and opens it again on the same data, as a restart does. Loops have to be
    /// started again.
    pub async fn restarted(self) -> Self {
        let Self {
            door,
            store,
            shutdown,
            tasks,
            directory,
            views,
            ..
        } = self;
        shutdown.cancel();
        for task in tasks {
            task.abort();
            // Cancelled is how it should end.
            drop(task.await);
        }
        store.close();
        drop((door, store, views));
        Self::over(directory, EmbeddedOptions::default()).await
    }

    /// Starts controllers and scheduler.
    pub fn run_loops(&mut self) {
        self.run_controllers();
        self.run_scheduler();
    }

    /// Starts controllers.
    pub fn run_controllers(&mut self) {
        let composition = Composition {
            views: self.views.clone(),
            client_for: {
                let door = Arc::clone(&self.door);
                Arc::new(move |account| {
                    let account = Identity::service_account("kube-system", account);
                    kube::Client::new(Local::new(&door, account), "default")
                })
            },
            clock: Arc::clone(&self.clock),
            shutdown: self.shutdown.clone(),
            metrics: self.metrics.clone(),
            cluster_ca: self.pki.ca().to_owned(),
            signer: Some({
                let pki = Arc::clone(&self.pki);
                Arc::new(move |request| {
                    let life = evenkeel_server::pki::request::life(request.seconds);
                    pki.sign_request(request.pem, request.usages, life, request.now)
                        .map_err(|error| error.to_string())
                })
            }),
            secret_tokens: Some({
                let door = Arc::clone(&self.door);
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
            cluster_cidr: Some("10.244.0.0/16".parse().expect("a network")),
        };
        for each in evenkeel_controllers::all(&composition) {
            self.tasks
                .push(AbortOnDropHandle::new(tokio::spawn(each.run)));
        }
    }

    /// Starts the scheduler.
    pub fn run_scheduler(&mut self) {
        let client = self.client(Identity::user("system:kube-scheduler", &[]));
        let recorder = Recorder::new(
            client.clone(),
            Arc::clone(&self.clock),
            "default-scheduler",
            "",
        );
        let scheduler = Scheduler::new(LoopContext {
            views: self.views.clone(),
            client,
            recorder,
            clock: Arc::clone(&self.clock),
            shutdown: self.shutdown.clone(),
            metrics: self.metrics.clone(),
        });
        let traces = scheduler.traces();
        self.door
            .debug_pages()
            .add("scheduler", move |path| traces.page(path));
        self.tasks
            .push(AbortOnDropHandle::new(tokio::spawn(scheduler.run())));
    }

    /// The views that its loops share.
    #[must_use]
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Adds a node with pretended containers.
    pub fn node(&self, name: &str) -> FakeNode {
        let identity = Identity::user(format!("system:node:{name}"), &["system:nodes"]);
        FakeNode::start(
            name,
            self.client(identity),
            Arc::clone(&self.clock),
            self.directory.path().join(name),
            self.shutdown.child_token(),
        )
    }

    /// A client that acts as somebody.
    #[must_use]
    pub fn client(&self, identity: Identity) -> kube::Client {
        kube::Client::new(Local::new(&self.door, identity), "default")
    }

    /// A client that may do everything.
    #[must_use]
    pub fn admin(&self) -> kube::Client {
        self.client(Identity::user("admin", &[ADMIN]))
    }

    /// Plain requests as somebody.
    #[must_use]
    pub fn caller(&self, identity: Identity) -> Caller {
        Caller::new(&self.door, identity)
    }

    /// The door itself.
    #[must_use]
    pub fn the_door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Its certificates.
    #[must_use]
    pub fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// The store under the door.
    #[must_use]
    pub fn store(&self) -> &Arc<EmbeddedStore> {
        &self.store
    }
}
