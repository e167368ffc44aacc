//! Several authorizers, asked in the order of the configuration: the first that has an opinion
//! decides.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::rights::{Kind, RightsWebhook};
use crate::auth::{Authorizer, Decision, Identity, MASTERS, RbacAuthorizer};
use crate::families::Families;
use crate::http::Attributes;

/// Authorizers, in order.
pub(crate) struct Chain {
    roles: RbacAuthorizer,
    members: Vec<Member>,
    counted: Arc<Families>,
}

enum Member {
    Node,
    Roles,
    Webhook(Arc<RightsWebhook>),
}

impl Chain {
    pub(crate) fn new(roles: RbacAuthorizer, kinds: Vec<Kind>, counted: &Arc<Families>) -> Self {
        let members = kinds.into_iter().map(|kind| match kind {
            Kind::Node => Member::Node,
            Kind::Roles => Member::Roles,
            Kind::Webhook(webhook) => Member::Webhook(webhook),
        });
        Self {
            roles,
            members: members.collect(),
            counted: Arc::clone(counted),
        }
    }

    /// What those say who need no time; `None` for a webhook.
    fn at_once(
        &self,
        member: &Member,
        identity: &Identity,
        about: &Attributes,
    ) -> Option<Decision> {
        match member {
            Member::Node => Some(
                self.roles
                    .node(identity, about)
                    .unwrap_or_else(|| Decision::NoOpinion(String::new())),
            ),
            Member::Roles => Some(self.roles.roles(identity, about)),
            Member::Webhook(_) => None,
        }
    }
}

impl Authorizer for Chain {
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        if identity.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for member in &self.members {
            let said = match member {
                Member::Webhook(webhook) => blocking(webhook, identity, attributes, &self.counted),
                other => self
                    .at_once(other, identity, attributes)
                    .unwrap_or_else(|| Decision::NoOpinion(String::new())),
            };
            match said {
                Decision::NoOpinion(why) if why.is_empty() => {}
                Decision::NoOpinion(why) => reasons.push(why),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules(&self, identity: &Identity, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        self.roles.rules(identity, namespace)
    }

    fn rules_gap(&self) -> Option<&'static str> {
        let asks = |member: &Member| matches!(member, Member::Webhook(_));
        self.members
            .iter()
            .any(asks)
            .then_some("webhook authorizer does not support user rule resolution")
    }

    fn prepare<'a>(
        &'a self,
        identity: &'a Identity,
        attributes: &'a Attributes,
    ) -> Option<BoxFuture<'a, ()>> {
        if identity.in_group(MASTERS) {
            return None;
        }
        Some(Box::pin(async move {
            for member in &self.members {
                let said = match member {
                    Member::Webhook(webhook) => {
                        webhook.decide(identity, attributes, &self.counted).await
                    }
                    other => match self.at_once(other, identity, attributes) {
                        Some(said) => said,
                        None => continue,
                    },
                };
                if !matches!(said, Decision::NoOpinion(_)) {
                    return;
                }
            }
        }))
    }
}

/// Asks a webhook where nobody can wait, in expressions for one: this thread does, and others take
/// over its tasks. Mostly the answer is known by then.
fn blocking(
    webhook: &RightsWebhook,
    identity: &Identity,
    attributes: &Attributes,
    counted: &Families,
) -> Decision {
    if let Some(known) = webhook.known(identity, attributes) {
        return known;
    }
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            let deciding = webhook.decide(identity, attributes, counted);
            tokio::task::block_in_place(|| handle.block_on(deciding))
        }
        _ => webhook.failed(),
    }
}
