//! Keeps levels and schemas: makes the default ones and changes them back, follows what the
//! objects say, tells schemas whether their level is there, and lends seats every ten seconds.
//!
//! It talks to the door like anybody, as `system:apiserver`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use evenkeel_api::row::ResourceDef;
use evenkeel_api::{clock, object};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::defaults::{self, Default as Wanted};
use super::{EXEMPT, Reference};
use crate::auth::{Identity, MASTERS};
use crate::cache::KindCache;
use crate::door::Door;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const PATH: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Seats are lent anew this often,
const ADJUST: Duration = Duration::from_secs(10);
/// and defaults looked at this often.
const ENSURE: Duration = Duration::from_secs(60);
/// A schema's status is written so often in a minute at most: another server may think otherwise.
const WRITES: usize = 6;

struct Kind {
    kind: &'static str,
    plural: &'static str,
    wanted: fn() -> Vec<Wanted>,
}

const LEVELS: Kind = Kind {
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    wanted: defaults::levels,
};
const SCHEMAS: Kind = Kind {
    kind: "FlowSchema",
    plural: "flowschemas",
    wanted: defaults::schemas,
};

impl Kind {
    fn row(&self, door: &Door) -> Option<Arc<ResourceDef>> {
        door.registry()
            .rows
            .by_kind(GROUP, "v1", self.kind)
            .cloned()
    }

    fn cache(&self, door: &Door) -> Option<Arc<KindCache>> {
        let row = self.row(door)?;
        door.registry().caches.of(&row)
    }

    fn objects(&self, door: &Door) -> Vec<Value> {
        let objects = self.cache(door).map(|cache| cache.list("", None));
        let objects = objects.unwrap_or_default();
        objects.iter().map(|object| object.value()).collect()
    }
}

/// Sends a request through the door; answers the code and the body.
async fn send(
    door: &Arc<Door>,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, content_type)
        .header(USER_AGENT, "kube-apiserver")
        .body(Full::new(bytes::Bytes::from(body.to_string())));
    let Ok(request) = request else {
        return (StatusCode::BAD_REQUEST, Value::Null);
    };
    let identity = Identity::user("system:apiserver", &[MASTERS]);
    let answer = door.handle(request, identity).await;
    let code = answer.status();
    let body = match answer.into_body().collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    (code, body)
}

fn warn(what: &str, name: &str, answer: &Value) {
    let message = object::text(answer, &["message"]);
    tracing::warn!(name, message, "{what}");
}

/// Makes the default objects and takes over what there is, before the first request comes.
pub(crate) async fn open(door: &Arc<Door>) {
    ensure(door).await;
    digest(door, &mut Recent::default()).await;
}

/// Keeps levels and schemas until the door is gone. The sender tells of a door that is open.
pub(crate) async fn run(door: oneshot::Receiver<Weak<Door>>) {
    let Ok(door) = door.await else { return };
    let subscribed = door.upgrade().and_then(|door| {
        let schemas = SCHEMAS.cache(&door)?.subscribe();
        Some((schemas, LEVELS.cache(&door)?.subscribe()))
    });
    let Some((mut schemas, mut levels)) = subscribed else {
        return;
    };
    let mut adjusting = tokio::time::interval_at(Instant::now() + ADJUST, ADJUST);
    let mut ensuring = tokio::time::interval_at(Instant::now() + ENSURE, ENSURE);
    let mut recent = Recent::default();
    // What came between the opening and the subscription.
    schemas.mark_changed();
    loop {
        let mut changed = true;
        tokio::select! {
            seen = schemas.changed() => if seen.is_err() { return },
            seen = levels.changed() => if seen.is_err() { return },
            _ = adjusting.tick() => {
                let Some(door) = door.upgrade() else { return };
                changed = door.flow().adjust() || recent.is_late;
            }
            _ = ensuring.tick() => {
                let Some(door) = door.upgrade() else { return };
                ensure(&door).await;
            }
        }
        if changed {
            let Some(door) = door.upgrade() else { return };
            digest(&door, &mut recent).await;
        }
    }
}

/// Writes of statuses in the last minute.
#[derive(Debug, Default)]
struct Recent {
    writes: HashMap<String, VecDeque<Instant>>,
    /// A write was put off.
    is_late: bool,
}

impl Recent {
    fn may_write(&mut self, name: &str) -> bool {
        let now = Instant::now();
        let writes = self.writes.entry(name.to_owned()).or_default();
        writes.retain(|then| now.duration_since(*then) < Duration::from_secs(60));
        if writes.len() >= WRITES {
            self.is_late = true;
            return false;
        }
        writes.push_back(now);
        true
    }
}

/// Waits until the caches show what is acknowledged: what was written just before is looked at.
async fn is_fresh(door: &Door) -> bool {
    let fresh = door.registry().fresh().await;
    if let Err(status) = &fresh {
        tracing::warn!(%status, "flow control can't see its objects");
    }
    fresh.is_ok()
}

/// Takes over what the objects say, and brings the schemas' statuses up to date.
async fn digest(door: &Arc<Door>, recent: &mut Recent) {
    recent.is_late = false;
    if !is_fresh(door).await {
        return;
    }
    let schemas = SCHEMAS.objects(door);
    let references = door.flow().digest(&schemas, &LEVELS.objects(door));
    let mut writes = Vec::new();
    for (schema, reference) in schemas.iter().zip(references) {
        let condition = condition(&reference);
        let said = object::list(schema, &["status", "conditions"])
            .iter()
            .find(|said| said["type"] == condition["type"]);
        let same = |said: &Value| {
            ["status", "reason", "message"]
                .iter()
                .all(|name| said[*name] == condition[*name])
        };
        if !said.is_some_and(same) && recent.may_write(&reference.schema) {
            writes.push(tell(door, reference.schema, condition));
        }
    }
    futures::future::join_all(writes).await;
}

/// What a schema says of the level that it leads to.
fn condition(reference: &Reference) -> Value {
    let Reference {
        level, dangling, ..
    } = reference;
    let named =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    if *dangling {
        json!({"type": "Dangling", "status": "True", "reason": "NotFound",
            "message": format!("{named} but there is no such object")})
    } else {
        json!({"type": "Dangling", "status": "False", "reason": "Found",
            "message": format!("{named} and it exists")})
    }
}

async fn tell(door: &Arc<Door>, name: String, mut condition: Value) {
    condition["lastTransitionTime"] = clock::rfc3339(door.clock().now()).into();
    let body = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": SCHEMAS.kind, "metadata": {"name": name},
        "status": {"conditions": [condition]},
    });
    let path = format!(
        "{PATH}/{}/{name}/status?fieldManager={CONSUMER}&force=true",
        SCHEMAS.plural
    );
    let apply = "application/apply-patch+yaml";
    let (code, answer) = send(door, Method::PATCH, &path, apply, &body).await;
    // One that is gone needs no status.
    if !code.is_success() && code != StatusCode::NOT_FOUND {
        warn("a flow schema's status can't be written", &name, &answer);
    }
}

/// Makes default objects that are missing, changes back what may not be changed, and removes what
/// an earlier version has made and this one does not.
async fn ensure(door: &Arc<Door>) {
    if !is_fresh(door).await {
        return;
    }
    // Levels first: a schema of a level that is not there yet would be told so.
    for kind in [&LEVELS, &SCHEMAS] {
        let stored = kind.objects(door);
        let wanted = (kind.wanted)();
        let unwanted = stored.iter().filter(|stored| {
            let is_default = wanted.iter().any(|one| one.name == object::name(stored));
            !is_default && autoupdate(stored) == Some(true)
        });
        let removals = unwanted.map(|stored| remove(door, kind, object::name(stored)));
        futures::future::join_all(removals).await;
        let keeping = wanted.into_iter().map(|wanted| {
            let found = stored.iter().find(|one| object::name(one) == wanted.name);
            keep(door, kind, wanted, found)
        });
        // One round of concurrent writes shares fsyncs.
        futures::future::join_all(keeping).await;
    }
}

async fn remove(door: &Arc<Door>, kind: &Kind, name: &str) {
    let path = format!("{PATH}/{}/{name}", kind.plural);
    let json = "application/json";
    let (code, answer) = send(door, Method::DELETE, &path, json, &json!({})).await;
    if !code.is_success() && code != StatusCode::NOT_FOUND {
        warn("an old default object can't be removed", name, &answer);
    }
}

/// What the annotation says, in Go's words for truth.
fn autoupdate(stored: &Value) -> Option<bool> {
    match object::annotation(stored, AUTOUPDATE)? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

async fn keep(door: &Arc<Door>, kind: &Kind, wanted: Wanted, stored: Option<&Value>) {
    let Some(row) = kind.row(door) else { return };
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind.kind,
        "metadata": {"name": wanted.name, "annotations": {AUTOUPDATE: "true"}},
        "spec": wanted.spec,
    });
    row.strategy.defaults(&mut object);
    let (method, path, body) = match stored {
        None => (Method::POST, format!("{PATH}/{}", kind.plural), object),
        Some(stored) => match revised(stored, &object, wanted.mandatory) {
            Some(revised) => {
                let path = format!("{PATH}/{}/{}", kind.plural, wanted.name);
                (Method::PUT, path, revised)
            }
            None => return,
        },
    };
    let path = format!("{path}?fieldManager={PRODUCER}");
    let (code, answer) = send(door, method, &path, "application/json", &body).await;
    // Somebody else was faster: it is looked at again.
    if !code.is_success() && code != StatusCode::CONFLICT {
        warn("a default object can't be kept", wanted.name, &answer);
    }
}

/// A stored default object as it should be; `None`: as it is.
fn revised(stored: &Value, wanted: &Value, mandatory: bool) -> Option<Value> {
    let said = autoupdate(stored);
    // Without a word about it, a spec that nobody has changed is brought up to date.
    let untouched = || object::integer(stored, &["metadata", "generation"]) == Some(1);
    let update = mandatory || said.unwrap_or_else(untouched);
    let mut spec = wanted["spec"].clone();
    if object::name(stored) == EXEMPT
        && let Some(exempt) = object::at(stored, &["spec", "exempt"])
        && spec.get("exempt").is_some()
    {
        // Everybody may change its share.
        spec["exempt"] = exempt.clone();
    }
    let differs = update && stored["spec"] != spec;
    if !differs && said == Some(update) {
        return None;
    }
    let mut revised = stored.clone();
    if differs {
        revised["spec"] = wanted["spec"].clone();
    }
    let metadata = object::metadata(&mut revised);
    let annotations = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(serde_json::Map::new()));
    annotations[AUTOUPDATE] = update.to_string().into();
    Some(revised)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(annotation: Option<&str>, generation: i64, shares: i64) -> Value {
        let mut object = json!({"metadata": {"name": "system", "generation": generation},
            "spec": {"limited": {"nominalConcurrencyShares": shares}}});
        if let Some(text) = annotation {
            object["metadata"]["annotations"] = json!({AUTOUPDATE: text});
        }
        object
    }

    #[test]
    fn what_a_person_has_changed_stays_unless_it_is_mandatory() {
        let wanted = stored(Some("true"), 1, 30);
        let after = |found: &Value, mandatory| {
            revised(found, &wanted, mandatory).map(|revised| {
                (
                    revised["spec"]["limited"]["nominalConcurrencyShares"].as_i64(),
                    revised["metadata"]["annotations"][AUTOUPDATE]
                        .as_str()
                        .map(str::to_owned),
                )
            })
        };
        let told = |shares, text: &str| Some((Some(shares), Some(text.to_owned())));
        assert_eq!(after(&stored(Some("true"), 5, 30), false), None);
        assert_eq!(after(&stored(Some("true"), 5, 7), false), told(30, "true"));
        assert_eq!(after(&stored(Some("false"), 5, 7), false), None);
        assert_eq!(after(&stored(Some("false"), 5, 7), true), told(30, "true"));
        // Without a word: by whether anybody has changed it.
        assert_eq!(after(&stored(None, 1, 7), false), told(30, "true"));
        assert_eq!(after(&stored(None, 2, 7), false), told(7, "false"));
        assert_eq!(
            after(&stored(Some("perhaps"), 2, 30), false),
            told(30, "false")
        );
    }

    #[test]
    fn the_share_of_exempt_traffic_is_anybodys() {
        let wanted = json!({"metadata": {"name": EXEMPT},
            "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}});
        let mut found = wanted.clone();
        found["metadata"]["annotations"] = json!({AUTOUPDATE: "true"});
        found["spec"]["exempt"]["nominalConcurrencyShares"] = 10.into();
        assert_eq!(revised(&found, &wanted, true), None);
    }
}
