//! Extenders that have a say in whose place a pod takes.
//!
//! They are asked in turn, each of what the one before has left, and may leave nodes out or name other
//! victims on them. Who is best of what is left is decided as without them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Extender, Extenders, lower};
use crate::framework::Preemption;
use crate::plugins::preemption::importance;
use crate::pod::PodInfo;

/// What they are asked about.
#[derive(Debug)]
pub struct Candidates {
    /// On which node room can be made, and by whose leaving.
    pub found: Vec<Preemption>,
    /// All pods of all nodes: others of them may be named.
    pub on_nodes: BTreeMap<Arc<str>, Vec<Arc<PodInfo>>>,
}

impl Extenders {
    /// Has any a say in whose place the pod takes?
    #[must_use]
    pub fn preempt_for(&self, pod: &Pod) -> bool {
        self.preempting(pod).next().is_some()
    }

    fn preempting(&self, pod: &Pod) -> impl Iterator<Item = &Extender> {
        self.0.iter().filter(|extender| {
            !extender.config.preempt_verb.is_empty() && extender.is_interested(pod)
        })
    }

    /// Asks where room may be made, one after the other.
    ///
    /// # Errors
    /// One that may not be ignored gave no answer, or one that makes no sense.
    pub async fn preempt(
        &self,
        pod: &Pod,
        candidates: &Candidates,
    ) -> Result<Vec<Preemption>, String> {
        let mut left = candidates.found.clone();
        for extender in self.preempting(pod) {
            if left.is_empty() {
                break;
            }
            match extender.preempt(pod, &left, candidates).await {
                Ok(kept) => left = kept,
                Err(error) if extender.config.ignorable => {
                    let url = &extender.config.url_prefix;
                    tracing::info!(url, error, "an extender failed and is skipped");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }
}

impl Extender {
    async fn preempt(
        &self,
        pod: &Pod,
        left: &[Preemption],
        candidates: &Candidates,
    ) -> Result<Vec<Preemption>, String> {
        let knows_pods = self.config.node_cache_capable;
        let victims: BTreeMap<&str, Value> = left
            .iter()
            .map(|one| {
                let pods = one.victims.iter().map(|victim| {
                    if knows_pods {
                        json!({"UID": &*victim.uid})
                    } else {
                        json!(&*victim.pod)
                    }
                });
                let pods: Vec<Value> = pods.collect();
                let all = json!({"Pods": pods, "NumPDBViolations": one.violations});
                (&*one.node, all)
            })
            .collect();
        let (whole, named) = if knows_pods {
            (Value::Null, json!(victims))
        } else {
            (json!(victims), Value::Null)
        };
        let arguments =
            json!({"Pod": pod, "NodeNameToVictims": whole, "NodeNameToMetaVictims": named});
        let answer = lower(self.send(&self.config.preempt_verb, &arguments).await?);
        let nodes = answer["nodenametometavictims"].as_object();
        let mut kept = Vec::new();
        for (node, victims) in nodes.into_iter().flatten() {
            let chosen = self.chosen(node, victims, left, candidates)?;
            if chosen.victims.is_empty() {
                let why = format!("expected at least one victim pod on node {node:?}");
                if !self.config.ignorable {
                    return Err(why);
                }
                tracing::info!(url = self.config.url_prefix, why, "a node is left out");
                continue;
            }
            kept.push(chosen);
        }
        Ok(kept)
    }

    /// Reads what is said of one node.
    fn chosen(
        &self,
        node: &str,
        victims: &Value,
        left: &[Preemption],
        candidates: &Candidates,
    ) -> Result<Preemption, String> {
        let Some((name, there)) = candidates.on_nodes.get_key_value(node) else {
            return Err(format!("nodeinfo not found for node name {node:?}"));
        };
        let victims = lower(victims.clone());
        // Those that leave as one group leave other nodes too.
        let before = left.iter().filter(|one| *one.node == *node);
        let known = || {
            there
                .iter()
                .chain(before.clone().flat_map(|one| &one.victims))
        };
        let mut pods = Vec::new();
        for named in victims["pods"].as_array().into_iter().flatten() {
            let named = lower(named.clone());
            let uid = named["uid"].as_str().unwrap_or_default();
            let found = known().find(|pod| *pod.uid == *uid).ok_or_else(|| {
                format!(
                    "extender: {} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is \
                     not found on that node",
                    self.config.url_prefix
                )
            })?;
            pods.push(Arc::clone(found));
        }
        pods.sort_by_key(importance);
        let violations = victims["numpdbviolations"].as_u64().unwrap_or(0);
        Ok(Preemption {
            node: Arc::clone(name),
            victims: pods,
            violations: usize::try_from(violations).unwrap_or(usize::MAX),
        })
    }
}
