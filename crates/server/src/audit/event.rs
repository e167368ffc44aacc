//! What is recorded of a request, in the form of `audit.k8s.io/v1`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_api::Status;
use evenkeel_api::status::{StatusDetails, StatusMeta};
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::auth::Identity;
use crate::http::Attributes;

/// Longer names of clients are cut.
const AGENT_MOST: usize = 1024;

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(super) const ALL: [Self; 4] = [
        Self::None,
        Self::Metadata,
        Self::Request,
        Self::RequestResponse,
    ];

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Self; 4] = [
        Self::RequestReceived,
        Self::ResponseStarted,
        Self::ResponseComplete,
        Self::Panic,
    ];

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    pub(super) fn bit(self) -> u8 {
        match self {
            Self::RequestReceived => 1,
            Self::ResponseStarted => 2,
            Self::ResponseComplete => 4,
            Self::Panic => 8,
        }
    }
}

/// Somebody, as `UserInfo` has him.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub(super) fn of(identity: &Identity) -> Self {
        Self {
            username: identity.user.clone(),
            uid: identity.uid.clone(),
            groups: identity.groups.clone(),
            extra: identity.extra.clone(),
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

/// The answer, without what is recorded elsewhere.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ResponseStatus {
    metadata: StatusMeta,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<StatusDetails>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) code: u16,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(value: &u16) -> bool {
    *value == 0
}

impl ResponseStatus {
    pub(super) fn of(status: &Status) -> Self {
        Self {
            metadata: StatusMeta::default(),
            status: status.status.clone(),
            message: status.message.clone(),
            reason: status.reason.clone(),
            details: status.details.clone(),
            code: status.code,
        }
    }

    /// A connection that ended before there was an answer.
    pub(super) fn closed() -> Self {
        Self {
            status: "Success".to_owned(),
            message: "Connection closed early".to_owned(),
            code: 200,
            ..Self::default()
        }
    }
}

/// An object of a request or an answer.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Object {
    Value(Value),
    Raw(Box<RawValue>),
}

/// How the caller came to be who he acts as.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthenticationMetadata {
    pub(super) impersonation_constraint: String,
}

/// A request at one of its stages.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) level: Level,
    #[serde(rename = "auditID")]
    pub(super) audit_id: String,
    pub(super) stage: Stage,
    #[serde(rename = "requestURI")]
    pub(super) request_uri: String,
    pub(super) verb: String,
    pub(super) user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub(super) source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<Object>,
    pub(super) request_received_timestamp: String,
    pub(super) stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Event {
    pub(super) fn object_ref(attributes: &Attributes) -> Option<ObjectRef> {
        attributes.resource_request.then(|| ObjectRef {
            resource: attributes.resource.clone(),
            namespace: attributes.namespace.clone(),
            name: attributes.name.clone(),
            api_group: attributes.group.clone(),
            api_version: attributes.version.clone(),
            subresource: attributes.subresource.clone(),
            ..ObjectRef::default()
        })
    }

    /// One line of text (`--audit-log-format legacy`).
    pub(super) fn legacy(&self) -> String {
        let none = || "<none>".to_owned();
        let or_none = |text: &str| {
            if text.is_empty() {
                none()
            } else {
                text.to_owned()
            }
        };
        let list = |texts: &[String]| -> String {
            let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
            quoted.join(",")
        };
        let groups = if self.user.groups.is_empty() {
            none()
        } else {
            list(&self.user.groups)
        };
        let (r#as, as_groups) = match &self.impersonated_user {
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
            Some(user) => (user.username.clone(), list(&user.groups)),
        };
        let namespace = self
            .object_ref
            .as_ref()
            .map_or("", |it| it.namespace.as_str());
        let response = match &self.response_status {
            None => "<deferred>".to_owned(),
            Some(status) => status.code.to_string(),
        };
        let ip = self.source_ips.first().map_or("<unknown>", String::as_str);
        format!(
            "{} AUDIT: id={:?} stage={:?} ip={ip:?} method={:?} user={:?} groups={groups:?} \
             as={as:?} asgroups={as_groups:?} user-agent={:?} namespace={:?} uri={:?} \
             response=\"{response}\"",
            self.request_received_timestamp,
            self.audit_id,
            self.stage.as_str(),
            self.verb,
            or_none(&self.user.username),
            self.user_agent,
            or_none(namespace),
            self.request_uri,
        )
    }
}

/// The name of a client, cut when it is too long.
pub(super) fn user_agent(headers: &HeaderMap) -> String {
    let Some(value) = headers.get(http::header::USER_AGENT) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    if text.len() <= AGENT_MOST {
        return text.into_owned();
    }
    let mut end = AGENT_MOST;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...TRUNCATED", &text[..end])
}

/// Where a request came from: what proxies say, then the address of the connection. Only the last
/// can't be made up by the client.
pub(super) fn source_ips(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut found: Vec<IpAddr> = text("x-forwarded-for")
        .unwrap_or_default()
        .split(',')
        .filter_map(|part| part.trim().parse().ok())
        .collect();
    let real = text("x-real-ip").and_then(|text| text.trim().parse().ok());
    if let Some(real) = real.filter(|real| !found.contains(real)) {
        found.push(real);
    }
    if let Some(peer) = peer
        && found.last() != Some(&peer)
    {
        found.push(peer);
    }
    found.iter().map(ToString::to_string).collect()
}

/// Takes managed fields out of an object, the items of a list, or the rows of a table.
pub(super) fn drop_managed_fields(value: &mut Value) {
    let strip = |value: &mut Value| {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(value);
    for (list, within) in [("items", None), ("rows", Some("object"))] {
        let items = value.get_mut(list).and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            match within {
                None => strip(item),
                Some(name) => item.get_mut(name).into_iter().for_each(strip),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_those_of_proxies_and_of_the_connection() {
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(source_ips(&headers, Some(peer)), ["10.0.0.9"]);
        let forwarded = HeaderValue::from_static("1.2.3.4, nonsense, 10.0.0.8");
        headers.insert("x-forwarded-for", forwarded);
        headers.insert("x-real-ip", HeaderValue::from_static("1.2.3.4"));
        let all = ["1.2.3.4", "10.0.0.8", "10.0.0.9"];
        assert_eq!(source_ips(&headers, Some(peer)), all);
        assert_eq!(source_ips(&headers, None), all[..2]);
    }

    #[test]
    fn managed_fields_go_wherever_they_are() {
        let object = json!({"metadata": {"name": "a", "managedFields": [1]}});
        let mut all = json!({
            "metadata": {"managedFields": [1]}, "items": [object], "rows": [{"object": object}],
        });
        drop_managed_fields(&mut all);
        assert!(!all.to_string().contains("managedFields"), "{all}");
        assert_eq!(all["rows"][0]["object"]["metadata"]["name"], "a");
    }
}
