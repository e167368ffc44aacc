//! Extenders: programs beside the scheduler that are asked over HTTP which nodes they allow, which
//! they prefer, who has to go for a pod, and to bind pods of theirs
//! (`k8s.io/kube-scheduler/extender/v1`).
//!
//! A cycle stops when its own plugins have filtered, and once more when it has found whose place the
//! pod could take. The answers are waited for while nothing else is decided, and it goes on with
//! them: deciding itself stays free of I/O.

mod preempting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use evenkeel_client::{Client, errors};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::framework::{Bind, BindError, Binding, ClusterEvent, Plugin};
use crate::pod::PodInfo;

pub use preempting::Candidates;

/// How much one point of an extender weighs beside the scores of plugins, which go to 100.
pub(crate) const POINT: i64 = 10;
/// How long an extender may take that says nothing else.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is configured of one extender.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtenderConfig {
    /// Where it is.
    pub url_prefix: String,
    /// Appended to that; empty for what it does not do.
    pub filter_verb: String,
    /// Likewise.
    pub preempt_verb: String,
    /// Likewise.
    pub prioritize_verb: String,
    /// Likewise.
    pub bind_verb: String,
    /// Its points are multiplied by this.
    pub weight: i64,
    /// How long it may take; `None` for 5 s.
    pub timeout: Option<Duration>,
    /// It knows the nodes and is told their names only.
    pub node_cache_capable: bool,
    /// It is asked only of pods that ask for one of these; of all when there are none.
    pub managed: BTreeSet<String>,
    /// Scheduling goes on without it when it does not answer.
    pub ignorable: bool,
    /// How it is reached over HTTPS.
    pub tls: Option<TlsConfig>,
}

/// How an extender is reached over HTTPS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Its certificate is not looked at.
    pub insecure: bool,
    /// The name in its certificate.
    pub server_name: Option<String>,
    /// Who signed it.
    pub ca: Option<Pem>,
    /// What is shown to it.
    pub certificate: Option<Pem>,
    /// The key of that.
    pub key: Option<Pem>,
}

/// PEM, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// The text itself, in base64.
    Data(String),
    /// A file that is read when the extender is asked first.
    File(PathBuf),
}

impl Pem {
    /// As a field of a kubeconfig, which says the same of clusters and users.
    fn field(of: Option<&Self>, name: &str) -> Option<(String, Value)> {
        Some(match of? {
            Self::Data(data) => (format!("{name}-data"), json!(data)),
            Self::File(path) => (name.to_owned(), json!(path)),
        })
    }
}

#[derive(Clone)]
struct Extender {
    config: ExtenderConfig,
    /// Or why it can't be asked at all: then it fails whenever it is.
    client: Result<Client, String>,
}

/// All extenders. Cheap to clone.
#[derive(Clone, Default)]
pub struct Extenders(Arc<[Extender]>);

impl std::fmt::Debug for Extenders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls = self.0.iter().map(|extender| &extender.config.url_prefix);
        f.debug_list().entries(urls).finish()
    }
}

/// What extenders said of a pod.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// Nodes that stay; `None` when nobody filtered.
    pub kept: Option<BTreeSet<String>>,
    /// Why others do not, and whether evicting pods could help.
    pub failed: BTreeMap<String, (String, bool)>,
    /// Points by node, times the weight of who gave them.
    pub scores: HashMap<String, i64>,
}

impl Outside {
    /// Does the node stay?
    #[must_use]
    pub fn keeps(&self, node: &str) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(node))
    }
}

/// What a filter answers. Go reads names in any case, so that programs write them in any.
#[derive(Debug, Default, Deserialize)]
struct Filtered {
    #[serde(default)]
    nodes: Option<Value>,
    #[serde(default)]
    nodenames: Option<Vec<String>>,
    #[serde(default)]
    failednodes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    failedandunresolvablenodes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Points {
    host: String,
    score: i64,
}

fn lower(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.to_lowercase(), value))
                    .collect(),
            )
        }
        other => other,
    }
}

/// The certificates of a PEM text in base64, DER.
fn certificates(data: &str) -> Result<Vec<Vec<u8>>, String> {
    let text = BASE64.decode(data).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|one| one.to_vec()).collect())
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn client(config: &ExtenderConfig) -> Result<Client, String> {
    let url = config.url_prefix.trim_end_matches('/');
    let uri: http::Uri = url
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let mut reach = kube::Config::new(uri);
    if let Some(tls) = &config.tls {
        reach.accept_invalid_certs = tls.insecure;
        reach.tls_server_name.clone_from(&tls.server_name);
        match &tls.ca {
            None => {}
            Some(Pem::File(path)) => reach.root_cert_file = Some(path.clone()),
            Some(Pem::Data(data)) => reach.root_cert = Some(certificates(data)?),
        }
        let fields = [
            Pem::field(tls.certificate.as_ref(), "client-certificate"),
            Pem::field(tls.key.as_ref(), "client-key"),
        ];
        reach.auth_info = read(fields.into_iter().flatten().collect())?;
    }
    Client::try_from(reach).map_err(|error| errors::message(&error))
}

impl Extender {
    fn new(config: ExtenderConfig) -> Self {
        let client =
            client(&config).map_err(|why| format!("extender {:?}: {why}", config.url_prefix));
        Self { config, client }
    }

    fn is_interested(&self, pod: &Pod) -> bool {
        let managed = &self.config.managed;
        if managed.is_empty() {
            return true;
        }
        let asks = |container: &Container| {
            let resources = container.resources.as_ref();
            let lists = resources.map(|all| [all.requests.as_ref(), all.limits.as_ref()]);
            let mut names = lists
                .into_iter()
                .flatten()
                .flatten()
                .flat_map(|list| list.keys());
            names.any(|name| managed.contains(name))
        };
        pod.spec.as_ref().is_some_and(|spec| {
            let init = spec.init_containers.iter().flatten();
            spec.containers.iter().chain(init).any(asks)
        })
    }

    async fn send(&self, verb: &str, body: &Value) -> Result<Value, String> {
        let prefix = self.config.url_prefix.trim_end_matches('/');
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        // The address before the verb is the client's.
        let request = http::Request::post(format!("/{verb}"))
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let within = self.config.timeout.unwrap_or(TIMEOUT);
        let answer = tokio::time::timeout(within, client.request_text(request)).await;
        let url = format!("{prefix}/{verb}");
        let text = match answer {
            Ok(Ok(text)) => text,
            Ok(Err(kube::Error::Api(status))) => {
                let code = status.code;
                return Err(format!(
                    "failed {verb} with extender at URL {url}, code {code}"
                ));
            }
            Ok(Err(error)) => return Err(format!("Post {url:?}: {}", errors::message(&error))),
            Err(_) => return Err(format!("Post {url:?}: context deadline exceeded")),
        };
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn arguments(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Value {
        let name = |node: &Arc<Node>| node.metadata.name.clone().unwrap_or_default();
        if self.config.node_cache_capable {
            let names: Vec<String> = nodes.iter().map(name).collect();
            return json!({"Pod": pod, "Nodes": null, "NodeNames": names});
        }
        let items: Vec<&Node> = nodes.iter().map(|node| &**node).collect();
        json!({"Pod": pod, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null})
    }

    /// Who stays, in their order, and what is said of others.
    async fn filter(
        &self,
        pod: &Pod,
        nodes: &[Arc<Node>],
    ) -> Result<(BTreeSet<String>, BTreeMap<String, (String, bool)>), String> {
        let arguments = self.arguments(pod, nodes);
        let answer = self.send(&self.config.filter_verb, &arguments).await?;
        let answer: Filtered = read(lower(answer))?;
        if let Some(error) = answer.error.filter(|error| !error.is_empty()) {
            return Err(error);
        }
        let names: Vec<String> = match (&answer.nodenames, answer.nodes) {
            (Some(names), _) if self.config.node_cache_capable => names.clone(),
            (_, Some(list)) => {
                let list = lower(list);
                let items = list["items"].as_array().into_iter().flatten();
                let names = items.filter_map(|node| node["metadata"]["name"].as_str());
                names.map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let known = |name: &String| {
            nodes
                .iter()
                .any(|node| node.metadata.name.as_ref() == Some(name))
        };
        if let Some(stranger) = names.iter().find(|name| !known(name)) {
            return Err(format!(
                "extender {:?} claims a filtered node {stranger:?} which is not found in the input \
                 node list",
                self.config.url_prefix
            ));
        }
        let mut failed = BTreeMap::new();
        for (node, why) in answer.failednodes.unwrap_or_default() {
            failed.insert(node, (why, true));
        }
        for (node, why) in answer.failedandunresolvablenodes.unwrap_or_default() {
            failed.insert(node, (why, false));
        }
        Ok((names.into_iter().collect(), failed))
    }

    async fn prioritize(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Result<Vec<Points>, String> {
        let arguments = self.arguments(pod, nodes);
        match self.send(&self.config.prioritize_verb, &arguments).await? {
            Value::Array(items) => items.into_iter().map(|item| read(lower(item))).collect(),
            Value::Null => Ok(Vec::new()),
            _ => Err("a list of hosts and scores was expected".to_owned()),
        }
    }
}

impl Extenders {
    /// Prepares to ask. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(configs: &[ExtenderConfig]) -> Self {
        Self(configs.iter().cloned().map(Extender::new).collect())
    }

    /// Is any to be asked about nodes for the pod?
    #[must_use]
    pub fn are_interested(&self, pod: &Pod) -> bool {
        self.0.iter().any(|extender| {
            let config = &extender.config;
            (!config.filter_verb.is_empty() || !config.prioritize_verb.is_empty())
                && extender.is_interested(pod)
        })
    }

    /// Asks which nodes stay, one after the other, and then for points of those.
    ///
    /// # Errors
    /// One that may not be ignored gave no answer.
    pub async fn ask(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Result<Outside, String> {
        let mut outside = Outside::default();
        let mut nodes = nodes.to_vec();
        let interested = || self.0.iter().filter(|extender| extender.is_interested(pod));
        for extender in interested() {
            if nodes.is_empty() {
                break;
            }
            if extender.config.filter_verb.is_empty() {
                continue;
            }
            match extender.filter(pod, &nodes).await {
                Ok((kept, failed)) => {
                    nodes.retain(|node| {
                        let name = node.metadata.name.as_deref().unwrap_or_default();
                        kept.contains(name)
                    });
                    outside.failed.extend(failed);
                    outside.kept = Some(kept);
                }
                Err(error) if extender.config.ignorable => {
                    let url = &extender.config.url_prefix;
                    tracing::info!(url, error, "an extender failed and is skipped");
                }
                Err(error) => return Err(error),
            }
        }
        // Of one node nobody is asked how good it is.
        if nodes.len() < 2 {
            return Ok(outside);
        }
        for extender in interested() {
            if extender.config.prioritize_verb.is_empty() {
                continue;
            }
            match extender.prioritize(pod, &nodes).await {
                Ok(points) => {
                    for Points { host, score } in points {
                        let weighed = score.saturating_mul(extender.config.weight);
                        let sum = outside.scores.entry(host).or_default();
                        *sum = sum.saturating_add(weighed);
                    }
                }
                // Preferences fail quietly, as in the reference.
                Err(error) => {
                    let url = &extender.config.url_prefix;
                    tracing::info!(url, error, "an extender gave no scores");
                }
            }
        }
        Ok(outside)
    }

    /// Does any bind pods?
    #[must_use]
    pub fn bind(&self) -> bool {
        let mut all = self.0.iter();
        all.any(|extender| !extender.config.bind_verb.is_empty())
    }

    /// Are there any?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Lets extenders bind the pods that are theirs; stands before the binder that binds all others.
#[derive(Debug, Clone)]
pub struct ExtenderBinder(pub Extenders);

impl Plugin for ExtenderBinder {
    fn name(&self) -> &'static str {
        "Extender"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        true
    }
}

impl ExtenderBinder {
    async fn ask(&self, binding: &Binding) -> Option<Result<(), BindError>> {
        let meta = &binding.pod.metadata;
        let args = json!({
            "PodName": meta.name, "PodNamespace": meta.namespace, "PodUID": meta.uid,
            "Node": &*binding.node,
        });
        let binders = self.0.0.iter().filter(|extender| {
            !extender.config.bind_verb.is_empty() && extender.is_interested(&binding.pod)
        });
        for extender in binders {
            let answer = extender.send(&extender.config.bind_verb, &args).await;
            let error = match answer.map(lower) {
                Ok(answer) => answer["error"].as_str().unwrap_or_default().to_owned(),
                Err(error) => error,
            };
            if error.is_empty() {
                return Some(Ok(()));
            }
            if !extender.config.ignorable {
                return Some(Err(BindError::Refused(error)));
            }
            let url = &extender.config.url_prefix;
            tracing::info!(url, error, "an extender did not bind and is skipped");
        }
        None
    }
}

impl Bind for ExtenderBinder {
    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Option<Result<(), BindError>>> {
        self.ask(binding).boxed()
    }
}
