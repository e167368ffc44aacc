//! OpenAPI documents.

use std::sync::Arc;

use evenkeel_api::Status;

use crate::door::Door;
use crate::http::Answer;
use crate::pipeline::Call;

pub(super) fn serve(_door: &Arc<Door>, _call: &Call, _rest: &[&str]) -> Result<Answer, Status> {
    Err(Status::no_such_path())
}
