//! What a node's agent may ask for pods: certificates for those that run on it, as what they are,
//! by signers that they name.
//!
//! What the caches may not know yet is answered as an error and not as a refusal, so that the agent
//! asks again.

use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Change, Operation, look_up, restriction};
use crate::auth::{Authorizer, Decision};
use crate::http::Attributes;
use crate::registry::Registry;

pub(super) const GROUP: &str = "certificates.k8s.io";
pub(super) const KIND: &str = "PodCertificateRequest";

enum No {
    /// It may not.
    Forbidden(String),
    /// It may be right in a moment.
    Later(String),
    /// Something that it speaks of is not there.
    Missing(String),
}

/// The part of `NodeRestriction` that is about requests for pods' certificates.
///
/// # Errors
/// The refusal.
pub(super) fn validate(
    authorizer: &dyn Authorizer,
    registry: &Registry,
    change: &Change<'_>,
    node: &str,
    object: &Value,
) -> Result<(), Status> {
    let asked = Asked {
        authorizer,
        registry,
        change,
        node,
        object,
    };
    asked.judge().map_err(|no| match no {
        No::Forbidden(why) => change.forbidden(object, &why),
        No::Later(why) => Status::failure(500, "", why),
        No::Missing(why) => Status::failure(404, "NotFound", why),
    })
}

struct Asked<'a> {
    authorizer: &'a dyn Authorizer,
    registry: &'a Registry,
    change: &'a Change<'a>,
    node: &'a str,
    object: &'a Value,
}

impl Asked<'_> {
    fn says(&self, name: &str) -> &str {
        object::text(self.object, &["spec", name])
    }

    /// An object that the request speaks of: a node, or something in its namespace.
    fn find(&self, kind: &'static str, word: &str, plural: &str, name: &str) -> Result<Value, No> {
        let (namespace, shown) = match kind {
            "Node" => ("", name.to_owned()),
            _ => (
                self.change.namespace,
                format!("{}/{name}", self.change.namespace),
            ),
        };
        look_up::object(self.registry, ("", "v1", kind), namespace, name).ok_or_else(|| {
            No::Missing(format!(
                "while retrieving {word} {shown:?} named in the PodCertificateRequest: {plural} \
                 {name:?} not found"
            ))
        })
    }

    fn judge(&self) -> Result<(), No> {
        let change = self.change;
        if change.operation != Operation::Create {
            let operation = change.operation.as_str();
            return Err(No::Forbidden(format!("unexpected operation {operation}")));
        }
        if let Some(subresource) = change.subresource {
            let subresource = subresource.as_str();
            let why = format!("unexpected subresource {subresource}");
            return Err(No::Forbidden(why));
        }
        let node = self.node;
        let said = self.says("nodeName");
        if said != node {
            return Err(No::Forbidden(format!(
                "PodCertificateRequest.Spec.NodeName={said:?}, which is not the requesting node \
                 {node:?}"
            )));
        }
        let pod_name = self.says("podName");
        let of = format!("{}/{pod_name}", change.namespace);
        let found = self.find("Node", "node", "nodes", node)?;
        let (said, uid) = (self.says("nodeUID"), object::uid(&found));
        if said != uid {
            return Err(No::Later(format!(
                "PodCertificateRequest for pod {of:?} names node UID {said:?}, inconsistent with \
                 the running node ({uid:?})"
            )));
        }
        let pod = self.find("Pod", "pod", "pods", pod_name)?;
        let (said, uid) = (self.says("podUID"), object::uid(&pod));
        if said != uid {
            return Err(No::Later(format!(
                "PodCertificateRequest for pod {of:?} contains pod UID ({said:?}) which differs \
                 from running pod {uid:?}"
            )));
        }
        if object::text(&pod, &["spec", "nodeName"]) != node {
            return Err(No::Forbidden(format!(
                "pod {of:?} is not running on node {node:?} named in the PodCertificateRequest"
            )));
        }
        if object::annotation(&pod, restriction::MIRROR).is_some() {
            return Err(No::Forbidden(format!("pod {of:?} is a mirror pod")));
        }
        self.account(&pod, &of)?;
        self.signer(&pod, &of)
    }

    fn account(&self, pod: &Value, of: &str) -> Result<(), No> {
        let said = self.says("serviceAccountName");
        let account = object::text(pod, &["spec", "serviceAccountName"]);
        if said != account {
            return Err(No::Forbidden(format!(
                "PodCertificateRequest for pod {of:?} contains serviceAccountName ({said:?}) that \
                 differs from running pod ({account:?})"
            )));
        }
        let found = self.find(
            "ServiceAccount",
            "service account",
            "serviceaccounts",
            account,
        )?;
        let (said, uid) = (self.says("serviceAccountUID"), object::uid(&found));
        if said != uid {
            return Err(No::Later(format!(
                "PodCertificateRequest for pod {of:?} names service account UID {said:?}, which \
                 differs from the running service account ({uid:?})"
            )));
        }
        Ok(())
    }

    /// The pod asks this signer itself, or the node may ask it for the pod's account.
    fn signer(&self, pod: &Value, of: &str) -> Result<(), No> {
        let signer = self.says("signerName");
        let mounts = object::list(pod, &["spec", "volumes"])
            .iter()
            .flat_map(|volume| object::list(volume, &["projected", "sources"]))
            .any(|source| {
                source.get("podCertificate").is_some_and(Value::is_object)
                    && object::text(source, &["podCertificate", "signerName"]) == signer
            });
        if mounts {
            return Ok(());
        }
        let attributes = Attributes {
            verb: "request-serviceaccounts-podcertificate-signer".to_owned(),
            resource_request: true,
            group: GROUP.to_owned(),
            version: self.change.row.gvk.version.to_string(),
            // No rule can name a resource with a slash.
            resource: signer.replace('/', ":"),
            namespace: self.change.namespace.to_owned(),
            name: self.says("serviceAccountName").to_owned(),
            ..Attributes::default()
        };
        let decision = self.authorizer.authorize(self.change.identity, &attributes);
        if matches!(decision, Decision::Allow(_)) {
            return Ok(());
        }
        Err(No::Forbidden(format!(
            "pod {of:?} does not mount a podCertificate projected volume for signer {signer:?}"
        )))
    }
}
