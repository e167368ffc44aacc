//! `metav1.Status`: how the door says no.
//!
//! The constructors follow `k8s.io/apimachinery/pkg/api/errors`, texts included, because clients
//! match on reasons and people search for the texts.

use serde::{Deserialize, Serialize};

use crate::field::FieldError;

/// The answer to a request that failed, or succeeded without an object to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `Status`.
    pub kind: String,
    /// Always `v1`.
    pub api_version: String,
    /// Empty list metadata.
    #[serde(default)]
    pub metadata: StatusMeta,
    /// `Success` or `Failure`.
    #[serde(default)]
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs: `NotFound`, `AlreadyExists`, `Conflict` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<StatusDetails>>,
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

/// List metadata of a status; carries a continue token when a list expired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusMeta {
    /// A token to go on with in an inconsistent list.
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_: String,
    /// Revision of the answer.
    #[serde(
        default,
        rename = "resourceVersion",
        skip_serializing_if = "String::is_empty"
    )]
    pub resource_version: String,
}

/// What a status is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource or kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One for each thing that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds to wait before trying again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// `FieldValueInvalid` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `pods` or `deployments.apps`.
#[must_use]
pub fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

impl Status {
    /// A failure with nothing but code, reason and message.
    #[must_use]
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: StatusMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }
    }

    /// A success without an object.
    #[must_use]
    pub fn success() -> Self {
        Self {
            status: "Success".to_owned(),
            ..Self::failure(200, "", "")
        }
    }

    /// Says what it is about.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    /// Adds the UID of the object it is about.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details.get_or_insert_default().uid = uid.to_owned();
        self
    }

    /// Adds causes.
    #[must_use]
    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    /// 404 for a named object.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let what = group_resource(group, resource);
        Self::failure(404, "NotFound", format!("{what} \"{name}\" not found"))
            .about(group, resource, name)
    }

    /// 404 for a path that nothing serves.
    #[must_use]
    pub fn no_such_path() -> Self {
        let mut status = Self::failure(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 409 on create.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let what = group_resource(group, resource);
        Self::failure(
            409,
            "AlreadyExists",
            format!("{what} \"{name}\" already exists"),
        )
        .about(group, resource, name)
    }

    /// 409 on update, delete or apply.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = group_resource(group, resource);
        Self::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {what} \"{name}\": {why}"),
        )
        .about(group, resource, name)
    }

    /// The conflict of an update that was based on an older version.
    #[must_use]
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and \
             try again",
        )
    }

    /// 422 with a cause for each field error.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let what = group_resource(group, kind);
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = errors
            .iter()
            .map(|error| StatusCause {
                reason: error.kind.reason().to_owned(),
                message: error.body.clone(),
                field: error.field.clone(),
            })
            .collect();
        Self::failure(
            422,
            "Invalid",
            format!("{what} \"{name}\" is invalid: {joined}"),
        )
        .about(group, kind, name)
        .with_causes(causes)
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for a named object (or a whole resource, with an empty name).
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = group_resource(group, resource);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} \"{name}\" is forbidden: {why}")
        };
        Self::failure(403, "Forbidden", message).about(group, resource, name)
    }

    /// 405 for a path that has other methods.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let mut status = Self::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 405.
    #[must_use]
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let what = group_resource(group, resource);
        Self::failure(
            405,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind \"{what}\""),
        )
        .about(group, resource, "")
    }

    /// 406.
    #[must_use]
    pub fn not_acceptable(accepted: &str) -> Self {
        Self::failure(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {accepted}"),
        )
    }

    /// 410: the asked-for revision is gone.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, "RequestEntityTooLarge", message)
    }

    /// 415.
    #[must_use]
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::failure(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types \
                 include: {accepted}"
            ),
        )
    }

    /// 500.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        let text = message.into();
        Self::failure(
            500,
            "InternalError",
            format!("Internal error occurred: {text}"),
        )
        .with_causes(vec![StatusCause {
            message: text,
            ..StatusCause::default()
        }])
    }

    /// 503.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504 with a hint when to come back.
    #[must_use]
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(504, "Timeout", message);
        status.details.get_or_insert_default().retry_after_seconds = retry_after_seconds;
        status
    }

    /// 429 with a hint when to come back.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(429, "TooManyRequests", message);
        status.details.get_or_insert_default().retry_after_seconds = retry_after_seconds;
        status
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
