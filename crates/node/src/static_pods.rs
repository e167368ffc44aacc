//! Static pods: made from files on this node, run whether or not the API server answers, and shown
//! there by mirror pods.
//!
//! A static pod's UID is a hash of its file and node, so a changed file is another pod. Its worker
//! gets the file's object with the mirror's status; what the worker reports goes to the mirror. A
//! mirror that is deleted comes back; one whose file is gone, or is another, goes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_api::Strategy as _;
use evenkeel_api::kinds::pod::Pods;
use evenkeel_client::Api;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::context::Context;

/// Annotation of a mirror pod: the hash of the static pod it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with the hash of a static pod.
const HASH: &str = "kubernetes.io/config.hash";
/// Annotation with where a pod came from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of the object a worker gets: the UID of the mirror pod. It never leaves the agent.
pub const MIRROR_UID: &str = "evenkeel.dev/mirror-uid";

/// Namespace and name.
type Key = (String, String);

fn key(pod: &Pod) -> Key {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// Does a pod of the API only mirror one of this node's files?
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// What a look at the directory changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// To run.
    pub added: Vec<Arc<Pod>>,
    /// To end.
    pub removed: Vec<Arc<Pod>>,
}

/// The static pods of a node and their mirrors.
#[derive(Debug, Default)]
pub struct StaticPods {
    node: String,
    pods: BTreeMap<Key, Arc<Pod>>,
    mirrors: HashMap<Key, Arc<Pod>>,
}

impl StaticPods {
    /// None yet.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            ..Self::default()
        }
    }

    /// UIDs of all static pods.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.pods
            .values()
            .filter_map(|pod| pod.metadata.uid.as_deref())
    }

    /// Takes over what was read from the directory.
    pub fn update(&mut self, found: Vec<Pod>) -> Changes {
        let mut changes = Changes::default();
        let mut left = std::mem::take(&mut self.pods);
        for pod in found {
            let key = key(&pod);
            if self.pods.contains_key(&key) {
                warn!(pod = key.1, "two files name the same static pod");
                continue;
            }
            match left.remove(&key) {
                Some(same) if same.metadata.uid == pod.metadata.uid => {
                    self.pods.insert(key, same);
                }
                before => {
                    changes.removed.extend(before);
                    let pod = Arc::new(pod);
                    changes.added.push(Arc::clone(&pod));
                    self.pods.insert(key, pod);
                }
            }
        }
        changes.removed.extend(left.into_values());
        changes
    }

    /// Notes a mirror as the API has it now. Answers the object for the worker of the pod that it
    /// shows; `None` for a mirror that shows none (any more) and must go.
    pub fn mirrored(&mut self, mirror: Arc<Pod>) -> Option<Arc<Pod>> {
        let key = key(&mirror);
        self.mirrors.insert(key.clone(), Arc::clone(&mirror));
        let pod = self.pods.get(&key)?;
        let shows = annotation(&mirror, MIRROR) == pod.metadata.uid.as_deref();
        if !shows || mirror.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let mut merged = Pod::clone(pod);
        merged.status.clone_from(&mirror.status);
        if let Some(uid) = &mirror.metadata.uid {
            let annotations = merged.metadata.annotations.get_or_insert_default();
            annotations.insert(MIRROR_UID.to_owned(), uid.clone());
        }
        Some(Arc::new(merged))
    }

    /// Notes that a mirror is gone.
    pub fn unmirrored(&mut self, mirror: &Pod) {
        self.mirrors.remove(&key(mirror));
    }

    /// Forgets all mirrors: they are about to be listed anew.
    pub fn forget_mirrors(&mut self) {
        self.mirrors.clear();
    }

    /// Mirrors to be made.
    #[must_use]
    pub fn missing(&self) -> Vec<Arc<Pod>> {
        let pods = self.pods.iter();
        pods.filter(|(key, _)| !self.mirrors.contains_key(*key))
            .map(|(_, pod)| Arc::clone(pod))
            .collect()
    }

    /// Mirrors that show no pod of this node as it is now.
    #[must_use]
    pub fn stale(&self) -> Vec<Arc<Pod>> {
        let mirrors = self.mirrors.iter();
        mirrors
            .filter(|(key, mirror)| {
                let pod = self.pods.get(*key);
                mirror.metadata.deletion_timestamp.is_some()
                    || pod
                        .is_none_or(|pod| annotation(mirror, MIRROR) != pod.metadata.uid.as_deref())
            })
            .map(|(_, mirror)| Arc::clone(mirror))
            .collect()
    }

    /// Reads the pods of a directory. A file that makes no sense is told of and left out.
    #[must_use]
    pub fn read(&self, dir: &Path) -> Vec<Pod> {
        read(dir, &self.node)
    }
}

/// Reads the pods of a directory for a node.
#[must_use]
pub fn read(dir: &Path, node: &str) -> Vec<Pod> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            debug!(%error, dir = %dir.display(), "no static pods");
            return Vec::new();
        }
    };
    files.sort();
    let hidden = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    files
        .iter()
        .filter(|file| file.is_file() && !hidden(file))
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
            let pod = text.and_then(|text| parse(file, &text, node));
            pod.inspect_err(|error| warn!(file = %file.display(), error, "not a static pod"))
                .ok()
        })
        .collect()
}

/// A file's pod, with defaults, checked, and with what makes it a static one.
pub(crate) fn parse(file: &Path, text: &str, node: &str) -> Result<Pod, String> {
    let mut value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("it is no v1 Pod".to_owned());
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    if !value["spec"].is_object() {
        return Err("its spec is no object".to_owned());
    }
    let uid = hash(&[node, &file.to_string_lossy(), text]);
    let name = format!("{name}-{node}");
    let metadata = &mut value["metadata"];
    metadata["name"] = name.into();
    metadata["uid"] = uid.clone().into();
    if metadata["namespace"].as_str().is_none_or(str::is_empty) {
        metadata["namespace"] = "default".into();
    }
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][HASH] = uid.into();
    metadata["annotations"][SOURCE] = "file".into();
    value["spec"]["nodeName"] = node.into();
    // It is this node's, whatever befalls the node.
    let tolerates = json!({ "operator": "Exists", "effect": "NoExecute" });
    match value["spec"]["tolerations"].as_array_mut() {
        Some(list) => list.push(tolerates),
        None => value["spec"]["tolerations"] = json!([tolerates]),
    }
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    Pods.defaults(&mut value);
    let wrong = Pods.validate(&value);
    if !wrong.is_empty() {
        let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        return Err(texts.join(", "));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// 128 bits of FNV-1a as hexadecimal digits: the same file on the same node has the same UID after
/// every start.
fn hash(parts: &[&str]) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash =
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    format!("{hash:032x}")
}

/// Makes the mirror of a static pod. Another try follows if it can't be made now.
pub(crate) async fn make_mirror(context: &Context, pod: &Pod) {
    let name = &context.config.name;
    let client = context.config.client.clone();
    let owner = match Api::<Node>::all(client.clone()).get_opt(name).await {
        Ok(Some(node)) => node.metadata.uid.unwrap_or_default(),
        Ok(None) => return,
        Err(error) => return debug!(%error, "node not read"),
    };
    let mut mirror = pod.clone();
    let hash = mirror.metadata.uid.take().unwrap_or_default();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid: owner,
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    let namespace = mirror.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    match api.create(&PostParams::default(), &mirror).await {
        Ok(_) => info!(pod = mirror.metadata.name, "mirror pod created"),
        Err(error) => debug!(%error, pod = mirror.metadata.name, "mirror pod not created"),
    }
}

/// Deletes a mirror at once. Another try follows if it can't be deleted now.
pub(crate) async fn delete_mirror(context: &Context, mirror: &Pod) {
    let (namespace, name) = key(mirror);
    let api: Api<Pod> = Api::namespaced(context.config.client.clone(), &namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: mirror.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    if let Err(error) = api.delete(&name, &params).await {
        debug!(%error, pod = name, "mirror pod not deleted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: main, image: \"app:1\"}]
";

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("web.yaml"), FILE).unwrap();
        std::fs::write(dir.path().join(".web.yaml.swp"), FILE).unwrap();
        std::fs::write(dir.path().join("wrong.yaml"), "kind: Service").unwrap();
        let pods = read(dir.path(), "n1");
        let [pod] = pods.as_slice() else {
            panic!("{pods:#?}")
        };
        assert_eq!(key(pod), ("default".to_owned(), "web-n1".to_owned()));
        assert_eq!(annotation(pod, SOURCE), Some("file"));
        assert_eq!(annotation(pod, HASH), pod.metadata.uid.as_deref());
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
        assert_eq!(read(dir.path(), "n1"), pods);
        assert_ne!(read(dir.path(), "n2")[0].metadata.uid, pod.metadata.uid);
    }

    #[test]
    fn what_is_no_pod_is_refused_by_its_place() {
        let wrong = |text: &str| parse(Path::new("/p/web.yaml"), text, "n1").unwrap_err();
        for spec in ["5", "[]", "text"] {
            let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
            assert_eq!(wrong(&text), "its spec is no object");
        }
        assert_eq!(wrong("5"), "it is no v1 Pod");
    }

    #[test]
    fn mirrors_follow_the_files() {
        let pod = |text: &str| parse(Path::new("/p/web.yaml"), text, "n1").unwrap();
        let mut all = StaticPods::new("n1");
        let changes = all.update(vec![pod(FILE)]);
        assert_eq!((changes.added.len(), changes.removed.len()), (1, 0));
        assert_eq!(all.missing().len(), 1);
        let mut mirror = pod(FILE);
        let hash = mirror
            .metadata
            .uid
            .replace("of-the-mirror".to_owned())
            .unwrap();
        mirror
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(MIRROR.to_owned(), hash);
        let mirror = Arc::new(mirror);
        let told = all.mirrored(Arc::clone(&mirror)).unwrap();
        assert_eq!(annotation(&told, MIRROR_UID), Some("of-the-mirror"));
        assert!(all.missing().is_empty() && all.stale().is_empty());
        // Another content is another pod, and the mirror shows the old one.
        let changes = all.update(vec![pod(&FILE.replace("app:1", "app:2"))]);
        assert_eq!((changes.added.len(), changes.removed.len()), (1, 1));
        assert_eq!(all.stale().len(), 1);
        assert!(all.mirrored(Arc::clone(&mirror)).is_none());
        all.unmirrored(&mirror);
        assert_eq!(all.missing().len(), 1);
        let changes = all.update(Vec::new());
        assert_eq!((changes.added.len(), changes.removed.len()), (0, 1));
        assert!(all.missing().is_empty());
    }
}
