//! Others behind and before the door: aggregated servers, front proxies, issuers of tokens, and
//! webhooks that know people and rights.

#![allow(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod aggregation;
mod extension;
mod front;
mod metrics;
mod rights;
mod site;
mod tokens;
mod wire;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, BOUND, Caller, Cluster, until};

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &[ADMIN]))
}
