//! The patch types of the API: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge
//! patch, and server-side apply with managed fields.
//!
//! Everything works on the JSON of objects and on [`Schema`](crate::schema::Schema), so built-in
//! and custom kinds go the same way. Nothing here decodes into a Go-like struct, sets defaults or
//! validates: the door admits the result of a patch as it would admit an update.

pub mod apply;
pub mod field_set;
mod golang;
mod json;
mod lay_over;
mod strategic;
mod structured;
#[cfg(test)]
mod test_values;

use crate::status::Status;

pub use apply::{Conflict, ManagerRequest, conflicts_status, keep_times, track_update};
pub use field_set::{FieldSet, PathElement};
pub use golang::plain as go_text;
pub use json::{MAX_COPY_BYTES, MAX_OPERATIONS, json_patch, merge_patch};
pub use lay_over::lay_over;
pub use strategic::strategic_merge_patch;

/// Why a patch could not be applied. [`PatchError::status`] gives the answer of the reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not of its format: 400.
    #[error("{0}")]
    Invalid(String),
    /// The patch is too big to try: 413.
    #[error("{0}")]
    TooLarge(String),
    /// The patch does not apply to this object: 422. The reference keeps the reason to itself;
    /// it is here for logs.
    #[error("{0}")]
    Unprocessable(String),
    /// What the reference answers with 500 and the bare text, although the client is to blame:
    /// unknown directives, missing merge keys, values that an apply configuration can't have.
    #[error("{0}")]
    Internal(String),
    /// Others own what an apply changes: 409.
    #[error("{}", apply::message(.0))]
    Conflict(Vec<Conflict>),
    /// An object waits to be converted: the apply is to be called again, and no client hears of it.
    #[error("{}", apply::Unconverted::Pending)]
    Pending,
}

impl From<apply::Unconverted> for PatchError {
    fn from(why: apply::Unconverted) -> Self {
        match why {
            apply::Unconverted::Pending => Self::Pending,
            apply::Unconverted::Failed(why) => Self::Internal(why),
        }
    }
}

impl PatchError {
    /// The API status, as `kube-apiserver` words it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Invalid(text) => Status::bad_request(text.as_str()),
            Self::TooLarge(text) => Status::too_large(format!("Request entity too large: {text}")),
            Self::Unprocessable(_) => {
                let mut status = Status::failure(
                    422,
                    "Invalid",
                    "the server rejected our request due to an error in our request",
                );
                status.details = Some(Box::default());
                status
            }
            Self::Internal(text) => Status::failure(500, "", text.as_str()),
            Self::Pending => Status::failure(500, "", self.to_string()),
            Self::Conflict(conflicts) => conflicts_status(conflicts),
        }
    }
}
