//! Settings of `evenkeel up`: flags before environment before the config file before defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use evenkeel_node::eviction::thresholds::{self, Thresholds};
use evenkeel_node::sysctl::UnsafeSysctls;
use evenkeel_scheduler::config::ProfileConfig;
use evenkeel_server::audit::AuditOptions;
use evenkeel_store::etcd::{EtcdOptions, TlsFiles};
use ipnet::Ipv4Net;
use jiff::SignedDuration;
use serde::Deserialize;

use crate::accounts::TokenFiles;
use crate::audit::{AuditFormat, AuditMode};
use crate::outside::OutsideFiles;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// For programs, one object a line
    Json,
}

/// What keeps the cluster's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// A store in the data directory, for one server
    Embedded,
    /// A cluster of etcd, for several servers at once
    Etcd,
}

/// Flags of `evenkeel up`; the config file has the same names.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct UpArgs {
    /// Read settings from a YAML file whose keys are these flags' names
    #[arg(long, env = "EVENKEEL_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// Where everything is kept [default: /var/lib/evenkeel]
    #[arg(long, env = "EVENKEEL_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Address of the API server [default: 127.0.0.1:6443]
    #[arg(long, env = "EVENKEEL_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Write the administrator's kubeconfig here as well (it is always in DATA-DIR/kubeconfig)
    #[arg(long, env = "EVENKEEL_WRITE_KUBECONFIG", value_name = "PATH")]
    pub(crate) write_kubeconfig: Option<PathBuf>,

    /// Run the control plane alone
    #[arg(long, env = "EVENKEEL_NO_NODE", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) no_node: Option<bool>,

    /// Name of this node [default: the host name]
    #[arg(long, env = "EVENKEEL_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,

    /// Address of this machine at which others reach the node [default: the gateway of its pods,
    /// which this machine alone reaches]
    #[arg(long, env = "EVENKEEL_NODE_IP", value_name = "ADDRESS")]
    pub(crate) node_ip: Option<Ipv4Addr>,

    /// Pod addresses are taken from here, a /24 for each node [default: 10.244.0.0/16]
    #[arg(long, env = "EVENKEEL_CLUSTER_CIDR", value_name = "CIDR")]
    pub(crate) cluster_cidr: Option<Ipv4Net>,

    /// Service addresses are taken from here [default: 10.96.0.0/16]
    #[arg(long, env = "EVENKEEL_SERVICE_CIDR", value_name = "CIDR")]
    pub(crate) service_cidr: Option<Ipv4Net>,

    /// Port of the node's own API; 0 takes any that is free [default: 10250]
    #[arg(long, env = "EVENKEEL_NODE_PORT", value_name = "PORT")]
    pub(crate) node_port: Option<u16>,

    /// What keeps the cluster's state [default: embedded]
    #[arg(long, env = "EVENKEEL_STORE", value_enum)]
    pub(crate) store: Option<StoreKind>,

    /// Members of the etcd that keeps the state: URL,… (with --store etcd)
    #[arg(
        long,
        env = "EVENKEEL_ETCD_ENDPOINTS",
        value_name = "URL,…",
        value_delimiter = ','
    )]
    pub(crate) etcd_endpoints: Option<Vec<String>>,

    /// Certificate authority of etcd, in PEM
    #[arg(long, env = "EVENKEEL_ETCD_CA", value_name = "FILE")]
    pub(crate) etcd_ca: Option<PathBuf>,

    /// Certificate shown to etcd, in PEM
    #[arg(long, env = "EVENKEEL_ETCD_CERT", value_name = "FILE")]
    pub(crate) etcd_cert: Option<PathBuf>,

    /// Key of that certificate, in PEM
    #[arg(long, env = "EVENKEEL_ETCD_KEY", value_name = "FILE")]
    pub(crate) etcd_key: Option<PathBuf>,

    /// Put before every key in etcd, so that several clusters can share one [default: nothing]
    #[arg(long, env = "EVENKEEL_ETCD_PREFIX", value_name = "PREFIX")]
    pub(crate) etcd_prefix: Option<String>,

    /// How resources are encrypted at rest: an EncryptionConfiguration as kube-apiserver takes it
    /// [default: Secrets, with a key of this cluster's own]
    #[arg(long, env = "EVENKEEL_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub(crate) encryption_provider_config: Option<PathBuf>,

    /// Take over changes of that file without a new start
    #[arg(
        long,
        env = "EVENKEEL_ENCRYPTION_PROVIDER_CONFIG_AUTOMATIC_RELOAD",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub(crate) encryption_provider_config_automatic_reload: Option<bool>,

    /// Believe front proxies whose certificates this authority (PEM) vouches for
    /// [default: an authority of this cluster's own, for aggregated servers]
    #[arg(
        long,
        env = "EVENKEEL_REQUESTHEADER_CLIENT_CA_FILE",
        value_name = "FILE"
    )]
    pub(crate) requestheader_client_ca_file: Option<PathBuf>,

    /// Common names of front proxies that are believed; all when empty
    /// [default: front-proxy-client, or all with --requestheader-client-ca-file]
    #[arg(
        long,
        env = "EVENKEEL_REQUESTHEADER_ALLOWED_NAMES",
        value_name = "NAME,…",
        value_delimiter = ','
    )]
    pub(crate) requestheader_allowed_names: Option<Vec<String>>,

    /// Headers in which front proxies name the user [default: X-Remote-User]
    #[arg(
        long,
        env = "EVENKEEL_REQUESTHEADER_USERNAME_HEADERS",
        value_name = "HEADER,…",
        value_delimiter = ','
    )]
    pub(crate) requestheader_username_headers: Option<Vec<String>>,

    /// Headers in which front proxies give the user's UID [default: X-Remote-Uid]
    #[arg(
        long,
        env = "EVENKEEL_REQUESTHEADER_UID_HEADERS",
        value_name = "HEADER,…",
        value_delimiter = ','
    )]
    pub(crate) requestheader_uid_headers: Option<Vec<String>>,

    /// Headers in which front proxies name groups [default: X-Remote-Group]
    #[arg(
        long,
        env = "EVENKEEL_REQUESTHEADER_GROUP_HEADERS",
        value_name = "HEADER,…",
        value_delimiter = ','
    )]
    pub(crate) requestheader_group_headers: Option<Vec<String>>,

    /// How headers begin in which front proxies tell more [default: X-Remote-Extra-]
    #[arg(
        long,
        env = "EVENKEEL_REQUESTHEADER_EXTRA_HEADERS_PREFIX",
        value_name = "PREFIX,…",
        value_delimiter = ','
    )]
    pub(crate) requestheader_extra_headers_prefix: Option<Vec<String>>,

    /// Whose tokens are believed: an AuthenticationConfiguration as kube-apiserver takes it
    #[arg(long, env = "EVENKEEL_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub(crate) authentication_config: Option<PathBuf>,

    /// Ask a webhook, which this kubeconfig names, about tokens that are not known otherwise
    #[arg(
        long,
        env = "EVENKEEL_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE",
        value_name = "FILE"
    )]
    pub(crate) authentication_token_webhook_config_file: Option<PathBuf>,

    /// How long its answers are kept [default: 2m]
    #[arg(
        long,
        env = "EVENKEEL_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL",
        value_name = "DURATION"
    )]
    pub(crate) authentication_token_webhook_cache_ttl: Option<String>,

    /// Signs the tokens of service accounts: a private key, RSA or on P-256 or P-384, in PEM
    /// [default: DATA/pki/sa.key]
    #[arg(
        long,
        env = "EVENKEEL_SERVICE_ACCOUNT_SIGNING_KEY_FILE",
        value_name = "FILE"
    )]
    pub(crate) service_account_signing_key_file: Option<PathBuf>,

    /// Keys (private, public, or certificates, in PEM) whose tokens are good beside those of the key
    /// that signs: an older one stays here until its last token has expired
    #[arg(
        long,
        env = "EVENKEEL_SERVICE_ACCOUNT_KEY_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub(crate) service_account_key_file: Option<Vec<PathBuf>>,

    /// Who issues the tokens of service accounts; tokens of further ones are good too
    /// [default: https://kubernetes.default.svc.cluster.local]
    #[arg(
        long,
        env = "EVENKEEL_SERVICE_ACCOUNT_ISSUER",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) service_account_issuer: Option<Vec<String>>,

    /// Who decides what may be done, in which order: an AuthorizationConfiguration
    /// [default: nodes, then roles]
    #[arg(long, env = "EVENKEEL_AUTHORIZATION_CONFIG", value_name = "FILE")]
    pub(crate) authorization_config: Option<PathBuf>,

    /// Ask a webhook, which this kubeconfig names, what may be done beyond nodes and roles
    #[arg(
        long,
        env = "EVENKEEL_AUTHORIZATION_WEBHOOK_CONFIG_FILE",
        value_name = "FILE"
    )]
    pub(crate) authorization_webhook_config_file: Option<PathBuf>,

    /// How long it is remembered that it allowed something [default: 5m]
    #[arg(
        long,
        env = "EVENKEEL_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL",
        value_name = "DURATION"
    )]
    pub(crate) authorization_webhook_cache_authorized_ttl: Option<String>,

    /// How long it is remembered that it did not [default: 30s]
    #[arg(
        long,
        env = "EVENKEEL_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL",
        value_name = "DURATION"
    )]
    pub(crate) authorization_webhook_cache_unauthorized_ttl: Option<String>,

    /// Pull images of a registry from another place: HOST=URL (may be repeated)
    #[arg(
        long,
        env = "EVENKEEL_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_delimiter = ','
    )]
    pub(crate) registry_mirror: Option<Vec<String>>,

    /// Profiles of the scheduler, as a KubeSchedulerConfiguration
    /// [default: default-scheduler and bin-packing-scheduler]
    #[arg(long, env = "EVENKEEL_SCHEDULER_CONFIG", value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Empty nodes that are little used where their pods fit on others, under disruption budgets
    #[arg(long, env = "EVENKEEL_CONSOLIDATE_NODES", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) consolidate_nodes: Option<bool>,
    /// Run the pods of this directory's files, whether or not the API server answers
    #[arg(long, env = "EVENKEEL_STATIC_POD_PATH", value_name = "DIR")]
    pub(crate) static_pod_path: Option<PathBuf>,

    /// How long certificates live; they are made anew when a third of that is left
    /// [default: 8760h]
    #[arg(long, env = "EVENKEEL_CERTIFICATE_VALIDITY", value_name = "DURATION")]
    pub(crate) certificate_validity: Option<String>,

    /// Evict pods when less than this is left, as kubelet writes it; "" never evicts
    /// [default: memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%]
    #[arg(long, env = "EVENKEEL_EVICTION_HARD", value_name = "THRESHOLDS")]
    pub(crate) eviction_hard: Option<String>,

    /// Sysctls that pods may set beside the safe ones: names, or beginnings of names with a * behind
    #[arg(
        long,
        env = "EVENKEEL_ALLOWED_UNSAFE_SYSCTLS",
        value_name = "PATTERN,…"
    )]
    pub(crate) allowed_unsafe_sysctls: Option<String>,

    /// So many requests that read are served at once; together with the next this is what priority
    /// and fairness divide [default: 400]
    #[arg(long, env = "EVENKEEL_MAX_REQUESTS_INFLIGHT", value_name = "N")]
    pub(crate) max_requests_inflight: Option<u32>,

    /// So many requests that write are served at once [default: 200]
    #[arg(
        long,
        env = "EVENKEEL_MAX_MUTATING_REQUESTS_INFLIGHT",
        value_name = "N"
    )]
    pub(crate) max_mutating_requests_inflight: Option<u32>,

    /// Record requests by this policy: an audit.k8s.io/v1 Policy [default: nothing is recorded]
    #[arg(long, env = "EVENKEEL_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub(crate) audit_policy_file: Option<PathBuf>,

    /// Record them in this file; - is standard output
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_PATH", value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,

    /// Days that full audit logs are kept; 0 keeps them [default: 366]
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_MAXAGE", value_name = "DAYS")]
    pub(crate) audit_log_maxage: Option<u32>,

    /// Full audit logs that are kept; 0 keeps all [default: 100]
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_MAXBACKUP", value_name = "N")]
    pub(crate) audit_log_maxbackup: Option<u32>,

    /// Megabytes at which an audit log is full; 0 never [default: 100]
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_MAXSIZE", value_name = "MB")]
    pub(crate) audit_log_maxsize: Option<u32>,

    /// Compress full audit logs
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_COMPRESS", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) audit_log_compress: Option<bool>,

    /// How lines of the audit log look [default: json]
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_FORMAT", value_enum)]
    pub(crate) audit_log_format: Option<AuditFormat>,

    /// Whether requests wait for the audit log [default: blocking]
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_MODE", value_enum)]
    pub(crate) audit_log_mode: Option<AuditMode>,

    /// Leave objects out of events longer than 100 KiB in the audit log
    #[arg(long, env = "EVENKEEL_AUDIT_LOG_TRUNCATE_ENABLED", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) audit_log_truncate_enabled: Option<bool>,

    /// Send events to the webhook that this kubeconfig names
    #[arg(long, env = "EVENKEEL_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub(crate) audit_webhook_config_file: Option<PathBuf>,

    /// Wait this long before events are sent again [default: 10s]
    #[arg(
        long,
        env = "EVENKEEL_AUDIT_WEBHOOK_INITIAL_BACKOFF",
        value_name = "DURATION"
    )]
    pub(crate) audit_webhook_initial_backoff: Option<String>,

    /// Whether requests wait for the audit webhook [default: batch]
    #[arg(long, env = "EVENKEEL_AUDIT_WEBHOOK_MODE", value_enum)]
    pub(crate) audit_webhook_mode: Option<AuditMode>,

    /// Events that wait for the webhook at most [default: 10000]
    #[arg(
        long,
        env = "EVENKEEL_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE",
        value_name = "N"
    )]
    pub(crate) audit_webhook_batch_buffer_size: Option<usize>,

    /// Events that are sent together at most [default: 400]
    #[arg(long, env = "EVENKEEL_AUDIT_WEBHOOK_BATCH_MAX_SIZE", value_name = "N")]
    pub(crate) audit_webhook_batch_max_size: Option<usize>,

    /// Send what has waited this long [default: 30s]
    #[arg(
        long,
        env = "EVENKEEL_AUDIT_WEBHOOK_BATCH_MAX_WAIT",
        value_name = "DURATION"
    )]
    pub(crate) audit_webhook_batch_max_wait: Option<String>,

    /// Limit how often batches are sent [default: true]
    #[arg(long, env = "EVENKEEL_AUDIT_WEBHOOK_BATCH_THROTTLE_ENABLE", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) audit_webhook_batch_throttle_enable: Option<bool>,

    /// Batches a second on average [default: 10]
    #[arg(
        long,
        env = "EVENKEEL_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS",
        value_name = "N"
    )]
    pub(crate) audit_webhook_batch_throttle_qps: Option<f64>,

    /// Batches at once after a quiet time [default: 15]
    #[arg(
        long,
        env = "EVENKEEL_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST",
        value_name = "N"
    )]
    pub(crate) audit_webhook_batch_throttle_burst: Option<u32>,

    /// Leave objects out of events longer than 100 KiB for the webhook
    #[arg(long, env = "EVENKEEL_AUDIT_WEBHOOK_TRUNCATE_ENABLED", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) audit_webhook_truncate_enabled: Option<bool>,

    /// Features that are off by default: CBORServingAndStorage=true (CBOR bodies),
    /// GenericWorkload=true (Workloads and PodGroups of scheduling.k8s.io/v1beta1, gang scheduling)
    #[arg(long, env = "EVENKEEL_FEATURE_GATES", value_name = "NAME=BOOL,…")]
    pub(crate) feature_gates: Option<String>,

    /// How log lines look [default: text]
    #[arg(long, env = "EVENKEEL_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// What is logged, as `level` or `module=level,…` [default: info]
    #[arg(long, env = "EVENKEEL_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// Settings with every gap filled.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) write_kubeconfig: Option<PathBuf>,
    pub(crate) node: bool,
    pub(crate) node_name: String,
    pub(crate) cluster_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    /// This node's pods.
    pub(crate) pod_cidr: Ipv4Net,
    /// Where the node is reached; at the gateway of its pod network when not set.
    pub(crate) node_ip: Option<Ipv4Addr>,
    pub(crate) node_port: u16,
    /// The etcd that keeps the state; `None`: the embedded store does.
    pub(crate) etcd: Option<EtcdOptions>,
    pub(crate) encryption: Option<PathBuf>,
    pub(crate) encryption_reload: bool,
    pub(crate) outside: OutsideFiles,
    /// How the tokens of accounts are signed and known.
    pub(crate) tokens: TokenFiles,
    pub(crate) registry_mirrors: Vec<(String, String)>,
    pub(crate) scheduler: Vec<ProfileConfig>,
    pub(crate) consolidate_nodes: bool,
    pub(crate) static_pods: Option<PathBuf>,
    pub(crate) certificate_validity: SignedDuration,
    pub(crate) eviction_hard: Thresholds,
    pub(crate) unsafe_sysctls: UnsafeSysctls,
    /// Requests that are served at once.
    pub(crate) seats: u32,
    /// What is recorded of requests.
    pub(crate) audit: Option<AuditOptions>,
    /// CBOR is spoken.
    pub(crate) cbor: bool,
    /// Feature gates that are open.
    pub(crate) gates: Vec<String>,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
}

/// The etcd that keeps the state, if one does.
fn etcd(kind: Option<StoreKind>, options: EtcdOptions) -> anyhow::Result<Option<EtcdOptions>> {
    if kind == Some(StoreKind::Etcd) {
        anyhow::ensure!(
            !options.endpoints.is_empty(),
            "--store etcd: name its members with --etcd-endpoints https://HOST:2379,…"
        );
        return Ok(Some(options));
    }
    // Settings that nobody reads would hide that the state is elsewhere.
    anyhow::ensure!(
        options == EtcdOptions::default(),
        "--etcd-… is for --store etcd, and the store is the embedded one"
    );
    Ok(None)
}

/// The name of this machine, in the form that a node's name must have.
fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let good: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let good = good.trim_matches(|c| c == '-' || c == '.');
    if good.is_empty() {
        "node".to_owned()
    } else {
        good.to_owned()
    }
}

/// How long certificates live. Very short lives are for tests: everything but the authority is
/// made anew all the time.
fn validity(text: &str) -> anyhow::Result<SignedDuration> {
    let life: SignedDuration = text.parse().with_context(|| {
        format!("--certificate-validity {text:?}: expected a duration like 720h")
    })?;
    anyhow::ensure!(
        life >= SignedDuration::from_secs(10),
        "--certificate-validity {text:?}: it must be 10s or more"
    );
    Ok(life)
}

/// How many requests are served at once: what readers and writers may have together, as the
/// reference reckons it.
fn seats(reading: Option<u32>, writing: Option<u32>) -> anyhow::Result<u32> {
    let seats = reading
        .unwrap_or(400)
        .saturating_add(writing.unwrap_or(200));
    anyhow::ensure!(
        seats > 0,
        "--max-requests-inflight and --max-mutating-requests-inflight are both 0: at least one \
         must be positive"
    );
    Ok(seats)
}

/// The features that can be switched on, by the reference's names.
const GATES: [&str; 2] = [CBOR, GENERIC_WORKLOAD];
const CBOR: &str = "CBORServingAndStorage";
const GENERIC_WORKLOAD: &str = "GenericWorkload";

/// The gates that are opened. Others are not there to be opened, and are refused by name.
fn gates_open(text: &str) -> anyhow::Result<Vec<String>> {
    let mut open: Vec<String> = Vec::new();
    for gate in text.split(',').filter(|gate| !gate.is_empty()) {
        let Some((name, value)) = gate.split_once('=') else {
            anyhow::bail!("--feature-gates {gate}: expected NAME=true or NAME=false");
        };
        anyhow::ensure!(
            GATES.contains(&name),
            "--feature-gates {gate}: unknown feature {name}"
        );
        // The last word on a gate counts.
        open.retain(|other| other != name);
        match value {
            "true" => open.push(name.to_owned()),
            "false" => {}
            other => {
                anyhow::bail!("--feature-gates {gate}: {other:?} is neither true nor false")
            }
        }
    }
    Ok(open)
}

/// What is wrong with a config file in one line: place, fault, and the line it stands in.
fn fault(error: &serde_saphyr::Error, file: &str) -> String {
    // The first line says place and fault; the rest is a picture of the file.
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let fault = first.strip_prefix("error: ").unwrap_or(first);
    let place = fault
        .strip_prefix("line ")
        .and_then(|rest| rest.split(' ').next());
    let line = place
        .and_then(|place| place.parse::<usize>().ok())
        .and_then(|place| file.lines().nth(place.checked_sub(1)?));
    match line {
        Some(line) => format!("{fault} in `{}`", line.trim()),
        None => fault.to_owned(),
    }
}

/// Reads a config file.
///
/// # Errors
/// It can't be read, or has an unknown or wrong setting.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("config file {}", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|error| {
        anyhow::anyhow!("config file {}: {}", path.display(), fault(&error, &text))
    })
}

impl UpArgs {
    /// Fills gaps from the config file and from defaults.
    ///
    /// # Errors
    /// The file can't be read, or has an unknown or wrong setting.
    pub(crate) fn settle(self) -> anyhow::Result<Settings> {
        let file = match &self.config {
            Some(path) => read::<Self>(path)?,
            None => Self::default(),
        };
        let audit = crate::audit::settle(&self, &file)?;
        let cidr = |text: &str| text.parse::<Ipv4Net>().context("built-in network");
        let mirrors = self
            .registry_mirror
            .or(file.registry_mirror)
            .unwrap_or_default();
        let registry_mirrors = mirrors
            .iter()
            .map(|mirror| {
                mirror
                    .split_once('=')
                    .map(|(host, url)| (host.to_owned(), url.to_owned()))
                    .with_context(|| format!("--registry-mirror {mirror}: expected HOST=URL"))
            })
            .collect::<anyhow::Result<_>>()?;
        let scheduler = match self.scheduler_config.or(file.scheduler_config) {
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("--scheduler-config {}", path.display()))?;
                evenkeel_scheduler::config::read(&text)
                    .with_context(|| format!("--scheduler-config {}", path.display()))?
            }
            None => evenkeel_scheduler::config::defaults(),
        };
        let cluster_cidr = self
            .cluster_cidr
            .or(file.cluster_cidr)
            .map_or_else(|| cidr("10.244.0.0/16"), Ok)?;
        let etcd = etcd(
            self.store.or(file.store),
            EtcdOptions {
                endpoints: self
                    .etcd_endpoints
                    .or(file.etcd_endpoints)
                    .unwrap_or_default(),
                tls: TlsFiles {
                    ca: self.etcd_ca.or(file.etcd_ca),
                    cert: self.etcd_cert.or(file.etcd_cert),
                    key: self.etcd_key.or(file.etcd_key),
                },
                prefix: self.etcd_prefix.or(file.etcd_prefix).unwrap_or_default(),
            },
        )?;
        let tokens = TokenFiles {
            signing_key: self
                .service_account_signing_key_file
                .or(file.service_account_signing_key_file),
            keys: self
                .service_account_key_file
                .or(file.service_account_key_file)
                .unwrap_or_default(),
            issuers: self
                .service_account_issuer
                .or(file.service_account_issuer)
                .unwrap_or_default(),
        };
        let outside = OutsideFiles {
            requestheader_client_ca: self
                .requestheader_client_ca_file
                .or(file.requestheader_client_ca_file),
            requestheader_allowed_names: self
                .requestheader_allowed_names
                .or(file.requestheader_allowed_names),
            requestheader_username_headers: self
                .requestheader_username_headers
                .or(file.requestheader_username_headers),
            requestheader_uid_headers: self
                .requestheader_uid_headers
                .or(file.requestheader_uid_headers),
            requestheader_group_headers: self
                .requestheader_group_headers
                .or(file.requestheader_group_headers),
            requestheader_extra_headers_prefix: self
                .requestheader_extra_headers_prefix
                .or(file.requestheader_extra_headers_prefix),
            authentication: self.authentication_config.or(file.authentication_config),
            token_webhook: self
                .authentication_token_webhook_config_file
                .or(file.authentication_token_webhook_config_file),
            token_webhook_cache_ttl: self
                .authentication_token_webhook_cache_ttl
                .or(file.authentication_token_webhook_cache_ttl),
            authorization: self.authorization_config.or(file.authorization_config),
            authorization_webhook: self
                .authorization_webhook_config_file
                .or(file.authorization_webhook_config_file),
            authorized_ttl: self
                .authorization_webhook_cache_authorized_ttl
                .or(file.authorization_webhook_cache_authorized_ttl),
            unauthorized_ttl: self
                .authorization_webhook_cache_unauthorized_ttl
                .or(file.authorization_webhook_cache_unauthorized_ttl),
        };
        let gates = self.feature_gates.or(file.feature_gates);
        let gates = gates_open(&gates.unwrap_or_default())?;
        let settings = Settings {
            data_dir: self
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| PathBuf::from("/var/lib/evenkeel")),
            listen: self
                .listen
                .or(file.listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6443))),
            write_kubeconfig: self.write_kubeconfig.or(file.write_kubeconfig),
            node: !self.no_node.or(file.no_node).unwrap_or(false),
            node_name: self.node_name.or(file.node_name).unwrap_or_else(host_name),
            cluster_cidr,
            // The first node has the first addresses. A network too small for that is refused
            // below.
            pod_cidr: Ipv4Net::new(cluster_cidr.network(), cluster_cidr.prefix_len().max(24))
                .context("pod network")?,
            node_ip: self.node_ip.or(file.node_ip),
            service_cidr: self
                .service_cidr
                .or(file.service_cidr)
                .map_or_else(|| cidr("10.96.0.0/16"), Ok)?,
            node_port: self.node_port.or(file.node_port).unwrap_or(10250),
            etcd,
            encryption: self
                .encryption_provider_config
                .or(file.encryption_provider_config),
            encryption_reload: self
                .encryption_provider_config_automatic_reload
                .or(file.encryption_provider_config_automatic_reload)
                .unwrap_or(false),
            outside,
            tokens,
            registry_mirrors,
            scheduler,
            consolidate_nodes: self
                .consolidate_nodes
                .or(file.consolidate_nodes)
                .unwrap_or(false),
            static_pods: self.static_pod_path.or(file.static_pod_path),
            certificate_validity: validity(
                self.certificate_validity
                    .or(file.certificate_validity)
                    .as_deref()
                    .unwrap_or("8760h"),
            )?,
            eviction_hard: self
                .eviction_hard
                .or(file.eviction_hard)
                .as_deref()
                .unwrap_or(thresholds::DEFAULT)
                .parse()
                .context("--eviction-hard")?,
            unsafe_sysctls: self
                .allowed_unsafe_sysctls
                .or(file.allowed_unsafe_sysctls)
                .unwrap_or_default()
                .parse()
                .map_err(|why| anyhow::anyhow!("--allowed-unsafe-sysctls: {why}"))?,
            audit,
            seats: seats(
                self.max_requests_inflight.or(file.max_requests_inflight),
                self.max_mutating_requests_inflight
                    .or(file.max_mutating_requests_inflight),
            )?,
            cbor: gates.iter().any(|gate| gate == CBOR),
            gates,
            log_format: self
                .log_format
                .or(file.log_format)
                .unwrap_or(LogFormat::Text),
            log: self.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
        };
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        let wrong = evenkeel_api::names::dns1123_subdomain(&self.node_name);
        anyhow::ensure!(
            wrong.is_empty(),
            "--node-name {:?}: {}",
            self.node_name,
            wrong.join("; ")
        );
        if let Some(address) = self.node_ip {
            anyhow::ensure!(
                !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
                "--node-ip {address}: it must be an address at which other machines reach this one"
            );
        }
        anyhow::ensure!(
            self.cluster_cidr.prefix_len() <= 24,
            "--cluster-cidr {}: each node takes a /24, so it must be /24 or larger",
            self.cluster_cidr
        );
        anyhow::ensure!(
            self.service_cidr.prefix_len() <= 26,
            "--service-cidr {}: it must be /26 or larger",
            self.service_cidr
        );
        let apart = !self.cluster_cidr.contains(&self.service_cidr)
            && !self.service_cidr.contains(&self.cluster_cidr);
        anyhow::ensure!(
            apart,
            "--cluster-cidr {} and --service-cidr {} overlap",
            self.cluster_cidr,
            self.service_cidr
        );
        Ok(())
    }

    /// The `n`th address of the service network.
    pub(crate) fn service_address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()).saturating_add(n))
    }

    /// A short name for this data directory, for kernel objects that must not collide when
    /// several instances run on one machine: a hash of the path.
    pub(crate) fn instance(&self) -> String {
        let path = self.data_dir.to_string_lossy();
        // FNV-1a (64 bits): stable between builds, which the standard hasher is not.
        let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{:06x}", hash & 0x00ff_ffff)
    }
}
