//! Others behind and before the door: aggregated servers, front proxies, issuers of tokens, and
//! webhooks that know people and rights.

#![allow(clippy::unwrap_used, reason = "tests")]

mod aggregation;
mod extension;
mod front;
mod metrics;
mod rights;
mod site;
mod tokens;
mod wire;

use std::time::Duration;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};

/// How long anything may take on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &[ADMIN]))
}

/// Asks until the answer is what is waited for, with a bound.
async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, asking)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}
