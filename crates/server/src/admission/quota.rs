//! `ResourceQuota`: a change that would exceed a quota is refused; another is charged before it is
//! kept.
//!
//! The charge is a compare-and-swap of the quota's status, so that two requests, here or at
//! another server, never spend the same rest. Requests of one namespace wait for each other here
//! rather than at the store. What is charged and then not kept is given back by the quota
//! controller, which recounts.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::row::{ResourceDef, Subresource};
use evenkeel_api::usage::{Amounts, Around, Classes, Measure};
use evenkeel_api::{Status, object};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Change, Operation, look_up};
use crate::object::Object;
use crate::registry::{Outcome, Registry};

/// So often a charge is tried anew when another server was faster.
const TRIES: usize = 16;

/// Checks and charges quotas.
pub(super) struct Quotas {
    clock: SharedClock,
    /// One charge at a time for each namespace.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Quotas {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            turns: Mutex::default(),
        }
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(namespace.to_owned()).or_default())
    }

    /// Charges the quotas of a namespace for a change.
    ///
    /// # Errors
    /// 403 that names the quota and what of it is exceeded; what the store says.
    pub(super) async fn charge(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        if change.namespace.is_empty() {
            return Ok(());
        }
        let gvk = &change.row.gvk;
        let Some(measure) = Measure::of(&gvk.group, &change.row.plural) else {
            return Ok(());
        };
        if !handles(&measure, change, object) {
            return Ok(());
        }
        let Some(row) = registry.rows.by_kind("", "v1", "ResourceQuota").cloned() else {
            return Ok(());
        };
        let Some(cache) = registry.caches.of(&row) else {
            return Ok(());
        };
        if cache.list(change.namespace, None).is_empty() {
            return Ok(());
        }
        let turn = self.turn(change.namespace);
        let _turn = turn.lock().await;
        let classes = classes(registry, &measure);
        let request = Request {
            measure,
            change,
            object,
            classes,
            registry,
            now: self.clock.now(),
        };
        let quotas = cache.list(change.namespace, None);
        // All of them are asked before the first is charged.
        for quota in &quotas {
            request.charged(&quota.value())?;
        }
        if change.dry_run {
            return Ok(());
        }
        for quota in quotas {
            Box::pin(request.keep(registry, &row, quota)).await?;
        }
        Ok(())
    }
}

/// Does a change use more or less of anything that is measured?
fn handles(measure: &Measure, change: &Change<'_>, object: &Value) -> bool {
    let differs = |path: &[&str]| {
        change
            .old
            .is_some_and(|old| object::at(old, path) != object::at(object, path))
    };
    match (measure, change.operation, change.subresource) {
        (_, Operation::Create, None)
        | (Measure::Services | Measure::Claims | Measure::Devices, Operation::Update, None)
        | (Measure::Pods, Operation::Update, Some(Subresource::Resize)) => true,
        (Measure::Pods, Operation::Update, None) => differs(&["spec", "activeDeadlineSeconds"]),
        (Measure::Claims, Operation::Update, Some(Subresource::Status)) => {
            differs(&["status", "allocatedResources"])
        }
        _ => false,
    }
}

/// `a=1,b=2`, of some of the amounts.
fn shown(amounts: &Amounts, only: &[String]) -> String {
    let parts: Vec<String> = amounts
        .iter()
        .filter(|(name, _)| only.contains(name))
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    parts.join(",")
}

fn amounts(quota: &Value, part: &str) -> Amounts {
    object::at(quota, &["status", part])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

/// What classes of devices say, where that matters.
fn classes(registry: &Registry, measure: &Measure) -> Classes {
    if *measure != Measure::Devices {
        return Classes::default();
    }
    let kind = ("resource.k8s.io", "v1", "DeviceClass");
    Classes::read(look_up::objects(registry, kind, "").iter())
}

struct Request<'r> {
    measure: Measure,
    change: &'r Change<'r>,
    object: &'r Value,
    classes: Classes,
    registry: &'r Registry,
    now: jiff::Timestamp,
}

impl Request<'_> {
    fn refuse(&self, why: &str) -> Status {
        self.change.forbidden(self.object, why)
    }

    fn usage(&self, object: &Value) -> Amounts {
        let claims = ("resource.k8s.io", "v1", "ResourceClaim");
        let around = Around {
            now: self.now,
            classes: &self.classes,
            pod: &|namespace, name| {
                look_up::object(self.registry, ("", "v1", "Pod"), namespace, name)
            },
            claims: &|namespace| look_up::objects(self.registry, claims, namespace),
        };
        self.measure.usage(object, &around)
    }

    /// What a quota's used amounts become; `None` when they stay.
    fn charged(&self, quota: &Value) -> Result<Option<Amounts>, Status> {
        let name = object::name(quota);
        let (hard, used) = (amounts(quota, "hard"), amounts(quota, "used"));
        let limited = object::at(quota, &["status", "hard"]).unwrap_or(&Value::Null);
        let matches = |object: &Value| self.measure.matches(quota, limited, object, &self.classes);
        if !matches(self.object) {
            return Ok(None);
        }
        let names = hard.keys().map(String::as_str);
        let concerned = self.measure.names(names, &self.classes);
        if let Some(missing) = self.measure.missing(&concerned, self.object) {
            return Err(self.refuse(&format!("failed quota: {name}: {missing}")));
        }
        if concerned.iter().any(|name| !used.contains_key(name)) {
            return Err(self.refuse(&format!(
                "status unknown for quota: {name}, resources: {}",
                concerned.join(",")
            )));
        }
        let mut wanted = self.usage(self.object);
        let negative: Vec<&str> = wanted
            .iter()
            .filter(|(_, amount)| amount.is_negative())
            .map(|(name, _)| name.as_str())
            .collect();
        if !negative.is_empty() {
            return Err(self.refuse(&format!(
                "quota usage is negative for resource(s): {}",
                negative.join(",")
            )));
        }
        if let Some(old) = self.change.old.filter(|old| matches(old)) {
            for (name, before) in self.usage(old) {
                if let Some(amount) = wanted.get_mut(&name) {
                    *amount = amount.minus(&before);
                }
            }
        }
        // What becomes less is given back when it is counted, not before it is kept.
        wanted.retain(|name, amount| {
            !amount.is_zero() && !amount.is_negative() && hard.contains_key(name)
        });
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut after = used.clone();
        for (name, amount) in &wanted {
            let sum = after.get(name).map_or(*amount, |used| used.plus(amount));
            after.insert(name.clone(), sum);
        }
        let exceeded: Vec<String> = wanted
            .keys()
            .filter(|name| after.get(*name) > hard.get(*name))
            .cloned()
            .collect();
        if !exceeded.is_empty() && self.change.subresource != Some(Subresource::Status) {
            return Err(self.refuse(&format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                shown(&wanted, &exceeded),
                shown(&used, &exceeded),
                shown(&hard, &exceeded)
            )));
        }
        Ok(Some(after))
    }

    /// Writes what a quota's used amounts become, from what it is when nobody else was faster.
    async fn keep(
        &self,
        registry: &Registry,
        row: &ResourceDef,
        mut seen: Arc<Object>,
    ) -> Result<(), Status> {
        for _ in 0..TRIES {
            let mut quota = seen.value();
            let Some(after) = self.charged(&quota)? else {
                return Ok(());
            };
            let used = object::child(object::child(&mut quota, "status"), "used");
            for (name, amount) in after {
                object::fields(used).insert(name, amount.to_string().into());
            }
            match registry.replace(row, &seen, quota).await? {
                Outcome::Done(_) | Outcome::Stale(None) => return Ok(()),
                Outcome::Stale(Some(newer)) => seen = newer,
            }
        }
        Err(Status::conflict(
            "",
            "resourcequotas",
            &seen.head.name,
            "the quota is being changed too often; please apply your changes to the latest version \
             and try again",
        ))
    }
}
