//! The one pipeline: nothing reaches a verb but through [`authorize`].

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_api::Status;
use http::request::Parts;

use crate::admission::Notes;
use crate::audit::Trail;
use crate::auth::{Authorizer, Decision, Identity};
use crate::http::{Attributes, Query};

/// A request with its body, and who makes it. It stands on the heap from the door on: each step holds a
/// pointer to it, where its own size would count at every step, and a future is moved as a whole.
#[derive(Debug)]
pub struct Call {
    /// Method, URI, headers.
    pub parts: Parts,
    /// Decoded query.
    pub query: Query,
    /// What it wants.
    pub attributes: Attributes,
    /// Who asks.
    pub identity: Identity,
    /// The body, whole; empty until it has come.
    pub body: Bytes,
    /// What admission says beside yes and no.
    pub notes: Arc<Notes>,
    /// What is recorded of it, if anything is.
    pub(crate) trail: Option<Arc<Trail>>,
}

/// A request that the authorizer has allowed. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Authorized<T>(T);

impl<T> Deref for Authorized<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Authorized<T> {
    /// The request itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Asks the authorizer.
///
/// # Errors
/// 403 in the reference's words, or 401 for somebody who has shown no credential.
pub fn authorize(
    authorizer: &dyn Authorizer,
    call: Box<Call>,
) -> Result<Authorized<Box<Call>>, Box<Refused>> {
    match authorizer.authorize(&call.identity, &call.attributes) {
        Decision::Allow(why) => {
            if let Some(trail) = &call.trail {
                trail.decided("allow", &why);
            }
            Ok(Authorized(call))
        }
        Decision::NoOpinion(why) | Decision::Deny(why) => {
            if let Some(trail) = &call.trail {
                trail.decided("forbid", &why);
            }
            let status = refusal(&call.identity, &call.attributes, &why);
            Err(Box::new(Refused { call, status }))
        }
    }
}

/// A request that is not allowed, as it came, and the answer to it.
#[derive(Debug)]
pub struct Refused {
    /// The request.
    pub call: Box<Call>,
    /// The answer.
    pub status: Status,
}

/// The 403 that the reference words for a request.
#[must_use]
pub fn refusal(identity: &Identity, attributes: &Attributes, why: &str) -> Status {
    let user = &identity.user;
    let suffix = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    if !attributes.resource_request {
        let mut status = Status::failure(
            403,
            "Forbidden",
            format!(
                "forbidden: User \"{user}\" cannot {} path \"{}\"{suffix}",
                attributes.verb, attributes.path
            ),
        );
        status.details = Some(Box::default());
        return status;
    }
    let Attributes {
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        ..
    } = attributes;
    let resource = if subresource.is_empty() {
        resource.clone()
    } else {
        format!("{resource}/{subresource}")
    };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{namespace}\"")
    };
    Status::forbidden(
        group,
        &attributes.resource,
        name,
        &format!(
            "User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" \
             {place}{suffix}"
        ),
    )
}
