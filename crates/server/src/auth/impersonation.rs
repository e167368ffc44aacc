//! Impersonation: somebody acts as somebody else, when he may impersonate each part of him that
//! he names: the user or service account, groups, extra values, UID.

use evenkeel_api::Status;
use http::{HeaderMap, HeaderValue};

use super::{AUTHENTICATED, Authorizer, Decision, Identity, UNAUTHENTICATED};
use crate::http::{Attributes, decode_segment};
use crate::pipeline::refusal;

const PREFIX: &str = "impersonate-";
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATION: &str = "authentication.k8s.io/v1";

/// One part of somebody, as a reference to what it is.
#[derive(Debug, Default)]
struct Part {
    kind: &'static str,
    namespace: String,
    name: String,
    api_version: &'static str,
    /// The key of an extra value.
    field_path: String,
}

impl Part {
    /// As the reference prints one.
    fn shown(&self) -> String {
        format!(
            "{{{} {} {}  {}  {}}}",
            self.kind, self.namespace, self.name, self.api_version, self.field_path
        )
    }

    fn attributes(&self) -> Attributes {
        let (resource, subresource) = match self.kind {
            "ServiceAccount" => ("serviceaccounts", ""),
            "User" => ("users", ""),
            "Group" => ("groups", ""),
            "UserExtra" => ("userextras", self.field_path.as_str()),
            _ => ("uids", ""),
        };
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", ""));
        Attributes {
            verb: "impersonate".to_owned(),
            resource_request: true,
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            ..Attributes::default()
        }
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// What the headers ask for, in the order in which it is authorized.
fn parts(headers: &HeaderMap) -> Vec<Part> {
    let first = |name: &str| headers.get(name).map(text).filter(|text| !text.is_empty());
    let mut parts = Vec::new();
    if let Some(user) = first("impersonate-user") {
        let account = user
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        parts.push(match account {
            Some((namespace, name)) => Part {
                kind: "ServiceAccount",
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Part::default()
            },
            None => Part {
                kind: "User",
                name: user,
                ..Part::default()
            },
        });
    }
    for group in headers.get_all("impersonate-group").iter().map(text) {
        parts.push(Part {
            kind: "Group",
            name: group,
            ..Part::default()
        });
    }
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            parts.push(Part {
                kind: "UserExtra",
                name: text(value),
                api_version: AUTHENTICATION,
                field_path: decode_segment(key),
                ..Part::default()
            });
        }
    }
    if let Some(uid) = first("impersonate-uid") {
        parts.push(Part {
            kind: "UID",
            name: uid,
            api_version: AUTHENTICATION,
            ..Part::default()
        });
    }
    parts
}

/// Takes on another identity when the headers say so and the caller may.
///
/// # Errors
/// 403 when the caller may not; 400 for groups, extra values or a UID without a user.
pub(super) fn impersonate(
    headers: &HeaderMap,
    identity: Identity,
    authorizer: &dyn Authorizer,
) -> Result<Identity, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(identity);
    }
    let parts = parts(headers);
    let has_user = parts
        .iter()
        .any(|part| matches!(part.kind, "User" | "ServiceAccount"));
    if !has_user {
        if parts.is_empty() {
            return Ok(identity);
        }
        let shown: Vec<String> = parts.iter().map(Part::shown).collect();
        return Err(Status::bad_request(format!(
            "requested [{}] without impersonating a user",
            shown.join(" ")
        )));
    }
    let named_groups = parts.iter().any(|part| part.kind == "Group");
    let mut taken = Identity::default();
    for part in parts {
        let attributes = part.attributes();
        if let Decision::NoOpinion(why) | Decision::Deny(why) =
            authorizer.authorize(&identity, &attributes)
        {
            return Err(refusal(&identity, &attributes, &why));
        }
        match part.kind {
            "ServiceAccount" => {
                let account = Identity::service_account(&part.namespace, &part.name);
                taken.user = account.user;
                if !named_groups {
                    taken.groups = account.groups;
                }
            }
            "User" => taken.user = part.name,
            "Group" => taken.groups.push(part.name),
            "UserExtra" => taken
                .extra
                .entry(part.field_path)
                .or_default()
                .push(part.name),
            _ => taken.uid = part.name,
        }
    }
    // Whoever is named as not authenticated stays so; otherwise a user is, and nobody is not.
    let missing = if taken.user == ANONYMOUS {
        (!taken.in_group(UNAUTHENTICATED)).then_some(UNAUTHENTICATED)
    } else {
        let said = taken.in_group(AUTHENTICATED) || taken.in_group(UNAUTHENTICATED);
        (!said).then_some(AUTHENTICATED)
    };
    taken.groups.extend(missing.map(str::to_owned));
    Ok(taken)
}
