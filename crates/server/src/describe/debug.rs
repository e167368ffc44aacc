//! Pages under `/debug/`, on which parts of this process tell of their last decisions.
//!
//! The door knows nothing of what they say: whoever composes the process registers them. A page is
//! a path like any other that is not a resource, so RBAC gives it through `nonResourceURLs`; a path
//! that carries a namespace can be given for that namespace alone, for example
//! `/debug/scheduler/trace/shop/*`. Nobody but administrators has one unless it is given.

use evenkeel_api::Status;
use http::StatusCode;
use parking_lot::RwLock;
use serde_json::Value;

use crate::http::{Answer, json};

/// Answers for what follows `/debug/NAME/` in a path; `None` when there is nothing to tell.
type Page = Box<dyn Fn(&[&str]) -> Option<Value> + Send + Sync>;

/// The pages, by the first segment of their paths.
#[derive(Default)]
pub struct DebugPages(RwLock<Vec<(&'static str, Page)>>);

impl std::fmt::Debug for DebugPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DebugPages")
    }
}

impl DebugPages {
    /// Shows `page` under `/debug/NAME/`, in place of what was shown there: loops that are elected
    /// again are made anew.
    pub fn add(
        &self,
        name: &'static str,
        page: impl Fn(&[&str]) -> Option<Value> + Send + Sync + 'static,
    ) {
        let mut pages = self.0.write();
        pages.retain(|(known, _)| *known != name);
        pages.push((name, Box::new(page)));
    }

    /// Serves what follows `/debug/`.
    pub(super) fn serve(&self, path: &[&str]) -> Result<Answer, Status> {
        let [name, rest @ ..] = path else {
            return Err(Status::no_such_path());
        };
        let pages = self.0.read();
        let (_, page) = pages
            .iter()
            .find(|(known, _)| known == name)
            .ok_or_else(Status::no_such_path)?;
        match page(rest) {
            Some(value) => Ok(json(StatusCode::OK, &value)),
            None => Err(Status::failure(
                404,
                "NotFound",
                format!("nothing is known about {}", rest.join("/")),
            )),
        }
    }
}
