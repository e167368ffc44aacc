//! `evenkeel node`: the agent alone, on a machine that joins a cluster; and the kubeconfig that
//! lets it in.
//!
//! The kubeconfig holds one certificate: the agent shows it to the API server, and serves its own
//! API with it. A machine that comes with a token instead asks for one certificate for each. Either
//! asks again before they end ([`crate::enrol`]). Nothing else of the cluster's secrets is on the
//! machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use evenkeel_api::clock::{Clock, SharedClock, SystemClock};
use evenkeel_client::Api;
use evenkeel_server::pki::{self, Leaf, LeafSpec, Pki};
use ipnet::Ipv4Net;
use jiff::SignedDuration;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::config::{LogFormat, Settings, UpArgs};
use crate::enrol::{self, Authority, Invitation};
use crate::node::{Node, Way};
use crate::running::Running;
use crate::{kubeconfig, rest, up};

/// Between two looks at the certificates.
const LOOK: Duration = Duration::from_secs(60);
/// Wait between two looks for the node's pod network.
const PAUSE: Duration = Duration::from_millis(500);
/// A node that joins has its pod network by then.
const POD_CIDR_WITHIN: Duration = Duration::from_secs(30);

/// Flags of `evenkeel node`; the config file has the same names.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct NodeArgs {
    /// Read settings from a YAML file whose keys are these flags' names
    #[arg(long, env = "EVENKEEL_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,

    /// How to reach the API server, with the node's certificate: what `evenkeel kubeconfig node`
    /// wrote. Without it the node asks for its certificates, at first with a token
    #[arg(long, env = "EVENKEEL_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// URL of the API server that the token is for
    #[arg(long, env = "EVENKEEL_SERVER", value_name = "URL")]
    server: Option<String>,

    /// Token with which this machine asks for its first certificate: see `evenkeel token create`
    #[arg(long, env = "EVENKEEL_TOKEN", value_name = "TOKEN")]
    token: Option<String>,

    /// Hash of the public key of the cluster's authority, by which it is recognized: sha256:…
    /// (may be repeated)
    #[arg(
        long,
        env = "EVENKEEL_CA_CERT_HASH",
        value_name = "HASH",
        value_delimiter = ','
    )]
    ca_cert_hash: Option<Vec<String>>,

    /// Certificate of the cluster's authority, in PEM, instead of its hash
    #[arg(long, env = "EVENKEEL_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Ask for new certificates at this start, whether or not those there are end soon
    #[arg(long, env = "EVENKEEL_RENEW_CERTIFICATES", num_args = 0..=1, default_missing_value = "true")]
    renew_certificates: Option<bool>,

    /// Address of this machine at which the API server reaches the agent
    /// [default: that by which this machine reaches the API server]
    #[arg(long, env = "EVENKEEL_NODE_IP", value_name = "ADDRESS")]
    node_ip: Option<Ipv4Addr>,

    /// Addresses of this node's pods [default: what the cluster assigns]
    #[arg(long, env = "EVENKEEL_POD_CIDR", value_name = "CIDR")]
    pod_cidr: Option<Ipv4Net>,

    /// Where everything is kept [default: /var/lib/evenkeel]
    #[arg(long, env = "EVENKEEL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Name of this node [default: the host name]
    #[arg(long, env = "EVENKEEL_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,

    /// All pods' addresses, as the API server has it [default: 10.244.0.0/16]
    #[arg(long, env = "EVENKEEL_CLUSTER_CIDR", value_name = "CIDR")]
    cluster_cidr: Option<Ipv4Net>,

    /// All services' addresses, as the API server has it [default: 10.96.0.0/16]
    #[arg(long, env = "EVENKEEL_SERVICE_CIDR", value_name = "CIDR")]
    service_cidr: Option<Ipv4Net>,

    /// Port of the node's own API; 0 takes any that is free [default: 10250]
    #[arg(long, env = "EVENKEEL_NODE_PORT", value_name = "PORT")]
    node_port: Option<u16>,

    /// Pull images of a registry from another place: HOST=URL (may be repeated)
    #[arg(
        long,
        env = "EVENKEEL_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_delimiter = ','
    )]
    registry_mirror: Option<Vec<String>>,

    /// Run the pods of this directory's files, whether or not the API server answers
    #[arg(long, env = "EVENKEEL_STATIC_POD_PATH", value_name = "DIR")]
    static_pod_path: Option<PathBuf>,

    /// Evict pods when less than this is left, as kubelet writes it; "" never evicts
    #[arg(long, env = "EVENKEEL_EVICTION_HARD", value_name = "THRESHOLDS")]
    eviction_hard: Option<String>,

    /// Sysctls that pods may set beside the safe ones: names, or beginnings of names with a * behind
    #[arg(
        long,
        env = "EVENKEEL_ALLOWED_UNSAFE_SYSCTLS",
        value_name = "PATTERN,…"
    )]
    allowed_unsafe_sysctls: Option<String>,

    /// How log lines look [default: text]
    #[arg(long, env = "EVENKEEL_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// What is logged, as `level` or `module=level,…` [default: info]
    #[arg(long, env = "EVENKEEL_LOG", value_name = "FILTER")]
    log: Option<String>,
}

/// `evenkeel kubeconfig …`
#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    #[command(subcommand)]
    command: KubeconfigCommand,
}

#[derive(Debug, Subcommand)]
enum KubeconfigCommand {
    /// Print the kubeconfig that lets a machine join as a node; run where the API server runs
    Node {
        /// Name of the node
        name: String,
        /// Address of the machine, as its --node-ip
        #[arg(long, value_name = "ADDRESS")]
        address: IpAddr,
        /// Where the machine reaches the API server [default: as in DATA-DIR/kubeconfig]
        #[arg(long, value_name = "URL")]
        server: Option<String>,
        /// Data directory of the API server [default: /var/lib/evenkeel]
        #[arg(long, env = "EVENKEEL_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// How long the certificate lives [default: 8760h]
        #[arg(long, value_name = "DURATION", default_value = "8760h")]
        validity: SignedDuration,
    },
}

/// The parts of a kubeconfig that the agent needs beside a client.
#[derive(Debug, Deserialize)]
struct Parts {
    #[serde(default)]
    clusters: Vec<ClusterPart>,
    #[serde(default)]
    users: Vec<UserPart>,
}

#[derive(Debug, Deserialize)]
struct ClusterPart {
    cluster: ClusterFields,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterFields {
    server: String,
    #[serde(default)]
    certificate_authority_data: String,
}

#[derive(Debug, Deserialize)]
struct UserPart {
    user: UserFields,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserFields {
    #[serde(default)]
    client_certificate_data: String,
    #[serde(default)]
    client_key_data: String,
}

/// URL and authority (PEM) in a kubeconfig.
pub(crate) fn server_of(path: &Path) -> anyhow::Result<(String, String)> {
    let parts = parts(path)?;
    let cluster = parts.clusters.into_iter().next();
    let cluster = cluster.with_context(|| format!("{} names no cluster", path.display()))?;
    let ca = STANDARD.decode(&cluster.cluster.certificate_authority_data);
    let ca = String::from_utf8(ca.context("certificate-authority-data")?)?;
    Ok((cluster.cluster.server, ca))
}

fn parts(path: &Path) -> anyhow::Result<Parts> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can't read kubeconfig {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("kubeconfig {}", path.display()))
}

/// CA and certificate of a kubeconfig that has both in itself.
fn credentials(path: &Path) -> anyhow::Result<(String, Leaf)> {
    let parts = parts(path)?;
    let (Some(cluster), Some(user)) = (parts.clusters.first(), parts.users.first()) else {
        anyhow::bail!("kubeconfig {} names no cluster or no user", path.display());
    };
    let pem = |text: &str, what: &str| -> anyhow::Result<String> {
        anyhow::ensure!(
            !text.is_empty(),
            "kubeconfig {} has no {what}; write it with: evenkeel kubeconfig node",
            path.display()
        );
        let bytes = STANDARD.decode(text).with_context(|| what.to_owned())?;
        String::from_utf8(bytes).with_context(|| what.to_owned())
    };
    let ca = &cluster.cluster.certificate_authority_data;
    let leaf = Leaf {
        certificate: pem(
            &user.user.client_certificate_data,
            "client-certificate-data",
        )?,
        key: pem(&user.user.client_key_data, "client-key-data")?,
    };
    Ok((pem(ca, "certificate-authority-data")?, leaf))
}

pub(crate) fn print(args: KubeconfigArgs) -> anyhow::Result<()> {
    let KubeconfigCommand::Node {
        name,
        address,
        server,
        data_dir,
        validity,
    } = args.command;
    let wrong = evenkeel_api::names::dns1123_subdomain(&name);
    anyhow::ensure!(wrong.is_empty(), "{name:?}: {}", wrong.join("; "));
    let data = data_dir.unwrap_or_else(|| PathBuf::from("/var/lib/evenkeel"));
    let directory = data.join("pki");
    anyhow::ensure!(
        directory.join("ca.key").exists(),
        "there is no certificate authority in {}; run this where the API server's data directory \
         is, and name it with --data-dir",
        directory.display()
    );
    let server = match server {
        Some(server) => server,
        None => {
            let parts = parts(&data.join("kubeconfig"))?;
            let first = parts.clusters.into_iter().next();
            first
                .context("the kubeconfig names no cluster")?
                .cluster
                .server
        }
    };
    let now = evenkeel_api::clock::Clock::now(&SystemClock);
    let pki = Pki::open(&directory, now)?.with_leaf_validity(validity);
    let leaf = pki.issue(
        &LeafSpec {
            name: String::new(),
            common_name: format!("system:node:{name}"),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: vec![name, "localhost".to_owned()],
            addresses: vec![address, IpAddr::V4(Ipv4Addr::LOCALHOST)],
            client: true,
            server: true,
            ..LeafSpec::default()
        },
        now,
    )?;
    print!("{}", kubeconfig::render(&server, pki.ca(), &leaf));
    Ok(())
}

/// Where the node's certificates come from.
#[derive(Debug)]
enum Source {
    /// Somebody wrote a kubeconfig with one for everything. What the cluster signs later is kept in
    /// the data directory: the file is its writer's.
    Kubeconfig { given: PathBuf, renew: bool },
    /// The data directory has them, or will, by an invitation.
    Kept {
        invitation: Option<Invitation>,
        renew: bool,
    },
}

/// In the data directory: what the cluster has signed for this node.
const KUBECONFIG: &str = "node.kubeconfig";

/// What `evenkeel node` was told.
#[derive(Debug)]
struct Told {
    source: Source,
    node_ip: Option<Ipv4Addr>,
    pod_cidr: Option<Ipv4Net>,
    settings: Settings,
}

impl NodeArgs {
    /// Flags before what the config file says.
    fn or(self, file: Self) -> Self {
        Self {
            config: self.config,
            kubeconfig: self.kubeconfig.or(file.kubeconfig),
            server: self.server.or(file.server),
            token: self.token.or(file.token),
            ca_cert_hash: self.ca_cert_hash.or(file.ca_cert_hash),
            ca_file: self.ca_file.or(file.ca_file),
            renew_certificates: self.renew_certificates.or(file.renew_certificates),
            node_ip: self.node_ip.or(file.node_ip),
            pod_cidr: self.pod_cidr.or(file.pod_cidr),
            data_dir: self.data_dir.or(file.data_dir),
            node_name: self.node_name.or(file.node_name),
            cluster_cidr: self.cluster_cidr.or(file.cluster_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            node_port: self.node_port.or(file.node_port),
            registry_mirror: self.registry_mirror.or(file.registry_mirror),
            static_pod_path: self.static_pod_path.or(file.static_pod_path),
            eviction_hard: self.eviction_hard.or(file.eviction_hard),
            allowed_unsafe_sysctls: self.allowed_unsafe_sysctls.or(file.allowed_unsafe_sysctls),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
        }
    }

    fn source(&self) -> anyhow::Result<Source> {
        if let Some(path) = &self.kubeconfig {
            let both = self.token.is_some() || self.server.is_some();
            anyhow::ensure!(!both, "--kubeconfig and --token exclude each other");
            return Ok(Source::Kubeconfig {
                given: path.clone(),
                renew: self.renew_certificates.unwrap_or(false),
            });
        }
        let authority = match (&self.ca_file, &self.ca_cert_hash) {
            (Some(path), None) => {
                let pem = std::fs::read_to_string(path);
                let pem = pem.with_context(|| format!("--ca-file {}", path.display()))?;
                Some(Authority::Pem(pem))
            }
            (None, Some(hashes)) => {
                for hash in hashes {
                    let hex = hash.strip_prefix("sha256:").unwrap_or_default();
                    let good = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
                    anyhow::ensure!(
                        good,
                        "--ca-cert-hash {hash:?}: expected sha256: and 64 hexadecimal digits"
                    );
                }
                Some(Authority::Hashes(hashes.clone()))
            }
            (None, None) => None,
            (Some(_), Some(_)) => {
                anyhow::bail!("--ca-file and --ca-cert-hash exclude each other")
            }
        };
        let invitation = match (&self.server, &self.token, authority) {
            (Some(server), Some(token), Some(authority)) => {
                crate::enrol::place(server)?;
                Some(Invitation {
                    server: server.clone(),
                    token: token.clone(),
                    authority,
                })
            }
            (None, None, None) => None,
            _ => anyhow::bail!(
                "--server, --token and --ca-cert-hash (or --ca-file) belong together; see: \
                 evenkeel token create --print-join-command"
            ),
        };
        Ok(Source::Kept {
            invitation,
            renew: self.renew_certificates.unwrap_or(false),
        })
    }

    /// Settings with every gap filled; the pod network is not known yet when it is not given.
    fn settle(self) -> anyhow::Result<Told> {
        let file = match &self.config {
            Some(path) => crate::config::read::<Self>(path)?,
            None => Self::default(),
        };
        let args = self.or(file);
        let source = args.source()?;
        let flags = UpArgs {
            data_dir: args.data_dir,
            node_name: args.node_name,
            node_ip: args.node_ip,
            cluster_cidr: args.cluster_cidr,
            service_cidr: args.service_cidr,
            node_port: args.node_port,
            registry_mirror: args.registry_mirror,
            static_pod_path: args.static_pod_path,
            eviction_hard: args.eviction_hard,
            allowed_unsafe_sysctls: args.allowed_unsafe_sysctls,
            log_format: args.log_format,
            log: args.log,
            ..UpArgs::default()
        };
        Ok(Told {
            source,
            node_ip: args.node_ip,
            pod_cidr: args.pod_cidr,
            settings: flags.settle()?,
        })
    }
}

/// Why the agent ended.
enum Ended {
    /// Somebody asked it to.
    Asked,
    /// It has new certificates.
    Renewed,
}

pub(crate) fn main(args: NodeArgs) -> anyhow::Result<()> {
    let told = args.settle()?;
    up::logging(&told.settings)?;
    let ended = rest::run(run(told))?;
    match ended {
        Ended::Asked => Ok(()),
        // Containers outlive the agent, so beginning anew is the simplest way to new certificates
        // in every connection.
        Ended::Renewed => {
            let mut command = std::process::Command::new("/proc/self/exe");
            let words = std::env::args_os().skip(1);
            // What was asked for once is done.
            command.args(words.filter(|word| {
                let word = word.to_string_lossy();
                word.split('=').next() != Some("--renew-certificates")
            }));
            let error = command.env_remove("EVENKEEL_RENEW_CERTIFICATES").exec();
            Err(anyhow::Error::new(error).context("can't begin anew with new certificates"))
        }
    }
}

/// The node's kubeconfig in the data directory, made with the invitation when it is not there.
async fn kept(
    settings: &Settings,
    invitation: Option<&Invitation>,
    renew: bool,
) -> anyhow::Result<PathBuf> {
    let path = settings.data_dir.join(KUBECONFIG);
    let name = &settings.node_name;
    match invitation {
        // A token is for the first time; what was got with it is better than it.
        Some(invitation) if !path.exists() => {
            enrol::with_token(&path, name, invitation)
                .await
                .context("this machine can't join")?;
            tracing::info!(node = name, "joined: the cluster signed a certificate");
        }
        None if !path.exists() => anyhow::bail!(
            "this machine has not joined yet: give --server, --token and --ca-cert-hash (see: \
             evenkeel token create --print-join-command), or a --kubeconfig"
        ),
        _ if renew => {
            anew(settings, &path, &path).await?;
        }
        _ => {}
    }
    Ok(path)
}

/// Another certificate by the one in `path`, written to `keep`.
async fn anew(settings: &Settings, path: &Path, keep: &Path) -> anyhow::Result<()> {
    let name = &settings.node_name;
    let (server, ca) = server_of(path)?;
    let client = client(path).await?;
    enrol::again(keep, name, &client, &server, &ca)
        .await
        .context("no new certificate")?;
    // What is served with is asked for anew as well, where it is missing.
    for file in ["serving.crt", "serving.key"] {
        match std::fs::remove_file(settings.data_dir.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(anyhow::Error::new(error).context(file));
            }
            _ => {}
        }
    }
    tracing::info!(node = name, "the cluster signed a new certificate");
    Ok(())
}

/// The kubeconfig to use where somebody wrote one, and whether it is one that was got since.
async fn written(
    settings: &Settings,
    given: &Path,
    renew: bool,
    clock: &dyn Clock,
) -> anyhow::Result<(PathBuf, bool)> {
    let keep = settings.data_dir.join(KUBECONFIG);
    let newer = follows(given, &keep, clock.now());
    let path: &Path = if newer { &keep } else { given };
    if renew {
        anew(settings, path, &keep).await?;
        return Ok((keep, true));
    }
    Ok((path.to_path_buf(), newer))
}

/// Was the second got with the first, or one like it? It is for the same server of the same cluster
/// and has not ended, and the first was not signed later: whoever writes a new file means it.
fn follows(given: &Path, kept: &Path, now: jiff::Timestamp) -> bool {
    if !kept.exists() {
        return false;
    }
    let of = |path: &Path| -> anyhow::Result<_> {
        let (_, leaf) = credentials(path)?;
        let lives = evenkeel_server::pki::join::lives(&leaf.certificate);
        let lives = lives.with_context(|| path.display().to_string())?;
        Ok((server_of(path)?, lives))
    };
    match (of(given), of(kept)) {
        (Ok((server, (signed, _))), Ok((own, (since, end)))) => {
            server == own && end > now && signed <= since
        }
        // The one that was written may have been taken away since.
        (Err(_), Ok((_, (_, end)))) if !given.exists() => end > now,
        _ => false,
    }
}

async fn run(told: Told) -> anyhow::Result<Ended> {
    let Told {
        source,
        node_ip,
        pod_cidr,
        mut settings,
    } = told;
    let clock: SharedClock = Arc::new(SystemClock);
    up::prepare(&settings.data_dir)?;
    let _running = Running::claim(&settings.data_dir)?;
    let (path, is_kept) = match &source {
        Source::Kubeconfig { given, renew } => written(&settings, given, *renew, &*clock).await?,
        Source::Kept { invitation, renew } => {
            (kept(&settings, invitation.as_ref(), *renew).await?, true)
        }
    };
    let keep = settings.data_dir.join(KUBECONFIG);
    let (ca, leaf) = credentials(&path)?;
    let address = match node_ip {
        Some(address) => address,
        None => enrol::own_address(&server_of(&path)?.0)?,
    };
    settings.node_ip = Some(address);
    let client = client(&path).await?;
    verify(&client, &settings.node_name).await?;
    settings.pod_cidr = match pod_cidr {
        Some(given) => given,
        None => assigned(&client, &settings).await?,
    };
    anyhow::ensure!(
        settings.cluster_cidr.contains(&settings.pod_cidr),
        "pod network {} is not part of --cluster-cidr {}",
        settings.pod_cidr,
        settings.cluster_cidr
    );
    let serving = if is_kept {
        let (data, name) = (&settings.data_dir, &settings.node_name);
        enrol::serving(data, &client, name, address, clock.now())
            .await
            .context("no certificate to serve with")?
    } else {
        leaf.clone()
    };
    let mut tls = pki::server_config(&ca, &serving, false)?;
    evenkeel_server::listen::offer_http(&mut tls);
    let renewing = Renewing {
        path,
        keep,
        client: client.clone(),
        leaves: [leaf, serving],
        clock: Arc::clone(&clock),
    };
    let name = settings.node_name.clone();
    let stop = CancellationToken::new();
    let mut signals = up::Signals::new()?;
    let node = Node::open(&settings).await?;
    let way = Way {
        // The agent's own identity may read what service routing needs.
        proxy: client.clone(),
        client,
        tls,
    };
    let address = SocketAddr::from((node.address, node.port()?));
    let mut running = tokio::spawn(node.run(settings.clone(), way, clock, stop.clone()));
    tracing::info!(node = settings.node_name, %address, "ready");
    up::notify(&[sd_notify::NotifyState::Ready]);
    let mut why = Ended::Asked;
    let ended = tokio::select! {
        () = signals.end() => None,
        () = renewing.run(&name) => {
            why = Ended::Renewed;
            None
        }
        ended = &mut running => Some(ended),
    };
    up::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping; containers go on running");
    stop.cancel();
    match ended {
        Some(ended) => ended,
        None => running.await,
    }
    .context("the node ended badly")??;
    Ok(why)
}

/// Certificates that are kept here, and how to get others.
struct Renewing {
    /// Where they are read from.
    path: PathBuf,
    /// Where the next ones go.
    keep: PathBuf,
    client: Client,
    leaves: [Leaf; 2],
    clock: SharedClock,
}

impl Renewing {
    /// Returns when it is time for other certificates, with the first of them written.
    async fn run(&self, name: &str) {
        loop {
            let now = self.clock.now();
            if self.leaves.iter().any(|leaf| enrol::ends_soon(leaf, now)) {
                match self.renew(name).await {
                    Ok(()) => {
                        tracing::info!("new certificates; the agent begins anew with them");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "certificates not renewed");
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn renew(&self, name: &str) -> anyhow::Result<()> {
        let (server, ca) = server_of(&self.path)?;
        // The serving one is asked for at the next beginning, with this one.
        enrol::again(&self.keep, name, &self.client, &server, &ca).await
    }
}

async fn client(path: &Path) -> anyhow::Result<Client> {
    let found = Kubeconfig::read_from(path)
        .with_context(|| format!("can't read kubeconfig {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(found, &KubeConfigOptions::default())
        .await
        .with_context(|| path.display().to_string())?;
    Ok(Client::try_from(config)?)
}

/// Is the certificate this node's? An API server that does not answer is waited for later.
async fn verify(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let asked = SelfSubjectReview::default();
    match api.create(&PostParams::default(), &asked).await {
        Ok(review) => {
            let user = review.status.and_then(|status| status.user_info);
            let user = user.and_then(|user| user.username).unwrap_or_default();
            anyhow::ensure!(
                user == format!("system:node:{name}"),
                "the kubeconfig is {user}'s and not node {name}'s; give the name it was written \
                 for with --node-name"
            );
            Ok(())
        }
        Err(kube::Error::Api(refused)) => {
            anyhow::bail!("the API server refuses the kubeconfig: {}", refused.message)
        }
        Err(error) => {
            tracing::warn!(%error, "the API server does not answer yet");
            Ok(())
        }
    }
}

/// The pod network that the cluster gives to this node, remembered for a start without the API
/// server.
async fn assigned(client: &Client, settings: &Settings) -> anyhow::Result<Ipv4Net> {
    let memo = settings.data_dir.join("pod-cidr");
    if let Ok(text) = std::fs::read_to_string(&memo) {
        return text
            .trim()
            .parse()
            .with_context(|| format!("{} has no network", memo.display()));
    }
    let api: Api<NodeObject> = Api::all(client.clone());
    let name = &settings.node_name;
    let begun = tokio::time::Instant::now();
    let mut why = "the cluster does not assign one".to_owned();
    while begun.elapsed() < POD_CIDR_WITHIN {
        match api.get_opt(name).await {
            Ok(Some(node)) => {
                let given = node.spec.and_then(|spec| spec.pod_cidr);
                if let Some(given) = given {
                    std::fs::write(&memo, &given)
                        .with_context(|| format!("can't write {}", memo.display()))?;
                    return given
                        .parse()
                        .with_context(|| format!("pod network {given}"));
                }
            }
            Ok(None) => {
                let node = NodeObject {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        ..ObjectMeta::default()
                    },
                    ..NodeObject::default()
                };
                if let Err(error) = api.create(&PostParams::default(), &node).await {
                    why = error.to_string();
                }
            }
            Err(error) => why = error.to_string(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!("this node has no pod network: {why}; give one with --pod-cidr")
}
