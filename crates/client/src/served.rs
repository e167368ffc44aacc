//! Which kinds the door serves: some are behind feature gates, and a smaller door may lack others.

use std::time::Duration;

use serde_json::Value;

use crate::kind::Kind;
use crate::{Backoff, Client, errors};

/// Does the door serve the kind? Waits for an answer.
pub async fn is_served<K: Kind>(client: &Client) -> bool {
    let group = K::group(&());
    let path = if group.is_empty() {
        format!("/api/{}", K::version(&()))
    } else {
        format!("/apis/{group}/{}", K::version(&()))
    };
    let mut wait = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), 0);
    loop {
        let Ok(request) = http::Request::get(&path).body(Vec::new()) else {
            return false;
        };
        match client.request::<Value>(request).await {
            Ok(list) => {
                let resources = list["resources"].as_array().into_iter().flatten();
                let plural = K::plural(&());
                return resources
                    .into_iter()
                    .any(|resource| resource["name"].as_str() == Some(&*plural));
            }
            Err(error) if errors::is_not_found(&error) => return false,
            Err(error) => {
                let error = errors::message(&error);
                tracing::warn!(path, error, "which kinds are served is not known yet");
                tokio::time::sleep(wait.next_wait()).await;
            }
        }
    }
}
