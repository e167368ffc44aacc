//! Priority and fairness (KEP-1040): every request takes seats in a priority level before it is
//! served, waits for them in a fair queue, or is told to come again.
//!
//! A request is classified by the flow schemas ([`classify`]), reckoned in seats ([`estimate`]) and
//! enters its level ([`level`]), whose lock is held for some additions and no longer. Levels,
//! schemas and their defaults are API objects like any other; [`keep`] follows them and lends seats
//! from levels that don't need them. What never lives here: authorization, and anything that a
//! request does once it has its seats.

mod classify;
mod counts;
mod deal;
mod defaults;
mod demand;
mod dump;
mod estimate;
mod keep;
mod level;
mod queues;
mod retry;
mod shares;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use evenkeel_api::field::quoted;
use evenkeel_api::kinds::flow_control::{mandatory_level, mandatory_schema};
use evenkeel_api::{Status, object};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::auth::Identity;
use crate::http::{Answer, Attributes, Query, full};
use crate::registry::Registry;

pub(crate) use estimate::Watched;
pub(crate) use keep::{open, run};
pub(crate) use level::Seat;

use classify::{Distinguisher, Rules};
use counts::Counts;
use deal::FlowHash;
use estimate::Watchers;
use level::{Entry, Level};
use queues::{Nanos, Shape, Way};
use shares::Config as Share;

/// Seats of a server: `--max-requests-inflight` and `--max-mutating-requests-inflight` of the
/// reference together.
pub const DEFAULT_SEATS: u32 = 400 + 200;

pub(crate) const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
/// A request waits a quarter of the time that it has, which is at most a minute.
const TIMEOUT: Duration = Duration::from_secs(60);
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A flow schema that leads to a level.
#[derive(Debug)]
pub(crate) struct Schema {
    name: String,
    uid: HeaderValue,
    level_uid: HeaderValue,
    precedence: i64,
    rules: Rules,
    level: Arc<Level>,
    counts: Arc<Counts>,
}

impl Schema {
    /// Says in an answer how the request was classified: by UIDs, which tell nothing to those who
    /// can't read the objects.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA_UID, self.uid.clone());
        headers.insert(LEVEL_UID, self.level_uid.clone());
    }
}

#[derive(Debug, Default)]
struct Config {
    /// In the order of their precedence.
    schemas: Vec<Arc<Schema>>,
    levels: BTreeMap<String, Arc<Level>>,
}

/// What a schema's status is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    schema: String,
    level: String,
    dangling: bool,
}

/// A request that is not served now.
#[derive(Debug)]
pub(crate) struct TooMany {
    schema: Arc<Schema>,
    after: u64,
}

impl TooMany {
    /// The answer: plain text, as the reference has it.
    pub(crate) fn answer(&self) -> Answer {
        let mut answer = Answer::new(full("Too many requests, please try again later.\n"));
        *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let headers = answer.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, text);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(RETRY_AFTER, HeaderValue::from(self.after));
        self.schema.mark(headers);
        answer
    }
}

/// Streams that are not held to seats, and are counted apart.
#[must_use]
pub(crate) fn is_long_running(attributes: &Attributes) -> bool {
    attributes.verb == "watch"
        || attributes.resource_request
            && matches!(
                attributes.subresource.as_str(),
                "attach" | "exec" | "proxy" | "log" | "portforward"
            )
}

/// The time that a request gives itself; `None` when it says nothing.
///
/// # Errors
/// 400 when that is no time.
pub(crate) fn timeout(query: &Query) -> Result<Option<Duration>, Status> {
    let text = query.get("timeout");
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let asked = text.parse::<jiff::SignedDuration>().map_err(|_| {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {}",
            quoted(text)
        ))
    })?;
    Ok(Duration::try_from(asked).ok().filter(|it| !it.is_zero()))
}

/// How long a request may wait for seats.
fn patience(query: &Query) -> Duration {
    let asked = timeout(query).ok().flatten();
    asked.unwrap_or(TIMEOUT).min(TIMEOUT) / 4
}

/// The levels of a server and who goes where.
#[derive(Debug)]
pub(crate) struct FlowControl {
    total: u32,
    began: Instant,
    hash: FlowHash,
    watchers: Arc<Watchers>,
    config: ArcSwap<Config>,
    /// By level and schema; they outlive both, as counters do.
    counts: Mutex<BTreeMap<(String, String), Arc<Counts>>>,
    /// Bits of the fraction of its target that each level got last.
    fraction: AtomicU64,
}

impl FlowControl {
    /// With `total` seats; only the mandatory levels and schemas are there.
    pub(crate) fn new(total: u32) -> Self {
        let flow = Self {
            total,
            began: Instant::now(),
            hash: FlowHash::default(),
            watchers: Arc::default(),
            config: ArcSwap::default(),
            counts: Mutex::default(),
            fraction: AtomicU64::default(),
        };
        flow.digest(&[], &[]);
        flow
    }

    /// Takes seats for a request; `None`: it needs none.
    ///
    /// # Errors
    /// There are none for it, and it can't wait (any longer).
    pub(crate) async fn admit(
        &self,
        registry: &Registry,
        identity: &Identity,
        attributes: &Attributes,
        query: &Query,
    ) -> Result<Option<Seat>, TooMany> {
        let watch = attributes.verb == "watch";
        if !watch && is_long_running(attributes) {
            return Ok(None);
        }
        let schema = self.classify(identity, attributes);
        let Some(schema) = schema else {
            // Only before the first configuration, which is made with the door.
            return Ok(None);
        };
        let level = &schema.level;
        let most = level.most();
        let width = estimate::width(registry, &self.watchers, attributes, query, most);
        let flow = match schema.rules.by {
            Some(Distinguisher::User) => identity.user.as_str(),
            Some(Distinguisher::Namespace) => attributes.namespace.as_str(),
            None => "",
        };
        let hash = if level.exempt {
            0
        } else {
            self.hash.of(&schema.name, flow)
        };
        let seat = match level.enter(&schema, width, hash, flow, watch) {
            Entry::Seat(seat) => Some(seat),
            Entry::Place(place) => place.wait(patience(query)).await,
            Entry::Refused => None,
        };
        match seat {
            Some(seat) => Ok(Some(seat)),
            None => {
                let after = schema.level.dropped.note(self.began.elapsed().as_secs());
                Err(TooMany { schema, after })
            }
        }
    }

    /// Counts a watch as long as it is held.
    pub(crate) fn watched(&self, attributes: &Attributes, query: &Query) -> Option<Watched> {
        self.watchers.add(attributes, query)
    }

    fn classify(&self, identity: &Identity, attributes: &Attributes) -> Option<Arc<Schema>> {
        let config = self.config.load();
        let matching = config
            .schemas
            .iter()
            .find(|schema| schema.rules.matches(identity, attributes));
        // Somebody in neither of the two groups of everybody still belongs somewhere.
        let found = matching.or_else(|| {
            let mut schemas = config.schemas.iter();
            schemas.find(|schema| schema.name == CATCH_ALL)
        });
        found.cloned()
    }

    /// Takes over what the objects say; answers what the schemas' statuses are to say. A level
    /// that is gone or broken is served until it is empty.
    fn digest(&self, schemas: &[Value], levels: &[Value]) -> Vec<Reference> {
        let old = self.config.load_full();
        let mut wanted: BTreeMap<String, (Way, Share, String)> = BTreeMap::new();
        for level in levels {
            let name = object::name(level);
            match level_of(name, level.get("spec").unwrap_or(&Value::Null)) {
                Some((way, share)) => {
                    wanted.insert(name.to_owned(), (way, share, object::uid(level).to_owned()));
                }
                None => tracing::warn!(name, "a priority level is ignored: its spec is broken"),
            }
        }
        for name in [EXEMPT, CATCH_ALL] {
            if !wanted.contains_key(name)
                && let Some((way, share)) =
                    mandatory_level(name).and_then(|spec| level_of(name, &spec))
            {
                wanted.insert(name.to_owned(), (way, share, String::new()));
            }
        }
        let lingering: Vec<&Arc<Level>> = old
            .levels
            .values()
            .filter(|level| !wanted.contains_key(&level.name) && !level.is_idle())
            .collect();
        let shares = |share: Share| f64::from(share.shares);
        let sum: f64 = wanted
            .values()
            .map(|(_, share, _)| shares(*share))
            .sum::<f64>()
            + lingering
                .iter()
                .map(|level| shares(level.config()))
                .sum::<f64>();
        let mut next = Config::default();
        let mut uids = BTreeMap::new();
        for (name, (way, share, uid)) in wanted {
            let limits = shares::limits(share, sum, self.total);
            let known = old.levels.get(&name).cloned();
            let new = known.is_none().then(|| shares::first(limits));
            let level = known.unwrap_or_else(|| Arc::new(Level::new(&name, self.began)));
            level.configure(way, share, limits, new);
            uids.insert(name.clone(), uid);
            next.levels.insert(name, level);
        }
        for level in lingering {
            level.quiesce(shares::limits(level.config(), sum, self.total));
            next.levels.insert(level.name.clone(), Arc::clone(level));
        }
        let mut references = Vec::new();
        for schema in schemas {
            let spec = schema.get("spec").unwrap_or(&Value::Null);
            let level = object::text(spec, &["priorityLevelConfiguration", "name"]);
            let name = object::name(schema);
            let uid = uids.get(level);
            references.push(Reference {
                schema: name.to_owned(),
                level: level.to_owned(),
                dangling: uid.is_none(),
            });
            if let (Some(uid), Some(level)) = (uid, next.levels.get(level)) {
                let schema = self.schema(name, object::uid(schema), spec, level, uid);
                next.schemas.push(schema);
            }
        }
        for name in [EXEMPT, CATCH_ALL] {
            let is_there = next.schemas.iter().any(|schema| schema.name == name);
            if !is_there
                && let (Some(spec), Some(level)) = (mandatory_schema(name), next.levels.get(name))
            {
                let uid = uids.get(name).map_or("", String::as_str);
                let schema = self.schema(name, "", &spec, level, uid);
                next.schemas.push(schema);
            }
        }
        next.schemas
            .sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        self.config.store(Arc::new(next));
        references
    }

    fn schema(
        &self,
        name: &str,
        uid: &str,
        spec: &Value,
        level: &Arc<Level>,
        level_uid: &str,
    ) -> Arc<Schema> {
        let value = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        let mut counts = self.counts.lock();
        let counts = counts
            .entry((level.name.clone(), name.to_owned()))
            .or_insert_with(|| Arc::new(Counts::new(name, &level.name)));
        Arc::new(Schema {
            name: name.to_owned(),
            uid: value(uid),
            level_uid: value(level_uid),
            precedence: object::integer(spec, &["matchingPrecedence"]).unwrap_or(1000),
            rules: Rules::read(spec),
            level: Arc::clone(level),
            counts: Arc::clone(counts),
        })
    }

    /// Divides the seats anew by what has been wanted since the last time. Answers whether a level
    /// that nobody wants any more is empty by now.
    fn adjust(&self) -> bool {
        let levels = self.levels();
        let parties: Vec<shares::Party> = levels
            .iter()
            .map(|level| {
                let (limits, wanted, current) = level.look();
                shares::Party {
                    exempt: level.exempt,
                    limits,
                    wanted,
                    current,
                }
            })
            .collect();
        let (given, fraction) = shares::divide(&parties);
        self.fraction.store(fraction.to_bits(), Ordering::Relaxed);
        for ((level, party), given) in levels.iter().zip(&parties).zip(given) {
            level.adjust(given, party.target());
        }
        levels
            .iter()
            .any(|level| level.is_quiescing() && level.is_idle())
    }

    fn levels(&self) -> Vec<Arc<Level>> {
        self.config.load().levels.values().cloned().collect()
    }

    fn all_counts(&self) -> Vec<Arc<Counts>> {
        self.counts.lock().values().cloned().collect()
    }

    fn fraction(&self) -> f64 {
        f64::from_bits(self.fraction.load(Ordering::Relaxed))
    }

    fn now(&self) -> Nanos {
        Nanos::try_from(self.began.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// Its series, as Prometheus text.
    pub(crate) fn metrics(&self) -> String {
        counts::text(self)
    }

    /// A page under `/debug/api_priority_and_fairness/`.
    pub(crate) fn page(&self, name: &str, wall: jiff::Timestamp) -> Option<String> {
        dump::page(self, name, wall)
    }
}

/// Reads the spec of a level; `None`: it says nothing that can be done.
fn level_of(name: &str, spec: &Value) -> Option<(Way, Share)> {
    let number = |at: &Value, path: &[&str]| {
        object::integer(at, path).and_then(|value| u32::try_from(value).ok())
    };
    let exempt = object::text(spec, &["type"]) == "Exempt";
    if exempt != (name == EXEMPT) {
        return None;
    }
    let at = spec.get(if exempt { "exempt" } else { "limited" })?;
    let share = Share {
        shares: number(at, &["nominalConcurrencyShares"]).unwrap_or(if exempt { 0 } else { 30 }),
        lendable: number(at, &["lendablePercent"]).unwrap_or(0).min(100),
        borrowing: number(at, &["borrowingLimitPercent"]),
    };
    if exempt {
        return Some((Way::Exempt, share));
    }
    let way = match object::text(at, &["limitResponse", "type"]) {
        "Reject" => Way::Reject,
        "Queue" => {
            let queuing = |name: &str| {
                let value = number(at, &["limitResponse", "queuing", name])?;
                usize::try_from(value).ok().filter(|value| *value > 0)
            };
            let shape = Shape {
                queues: queuing("queues")?,
                hand: queuing("handSize")?,
                length: queuing("queueLengthLimit")?,
            };
            if shape.hand > shape.queues || shape.hand > deal::HAND_MOST {
                return None;
            }
            Way::Queue(shape)
        }
        _ => return None,
    };
    Some((way, share))
}

#[cfg(test)]
mod tests;
