//! `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`: others are asked, over HTTPS.
//!
//! Those that change objects are asked one after the other, in the order of their configurations'
//! names; those that only judge are asked at once. Who wants to see what was changed after it is
//! asked a second time, once. Configurations of webhooks and of policies are shown to nobody, and
//! neither are reviews of rights: a broken webhook must be possible to remove.

mod conditions;
mod hook;
pub(super) mod review;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use evenkeel_api::row::{ResourceDef, Storage, Subresource};
use evenkeel_api::{Status, object};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

pub(super) use self::conditions::MatchConditions;
use self::hook::Hook;
pub(super) use self::hook::Version;
use super::{Change, Operation};
use crate::auth::Authorizer;
use crate::cache::Followed;
use crate::outbound::Client;
use crate::registry::Registry;

const GROUP: &str = "admissionregistration.k8s.io";
const KINDS: [&str; 2] = [
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

/// All webhooks, read anew when a configuration has changed.
pub(super) struct Webhooks {
    /// Conditions may ask it.
    authorizer: Arc<dyn Authorizer>,
    compiled: ArcSwap<Compiled>,
    followed: Followed<2>,
    /// Connections outlive a change of the rules: by the text of their `clientConfig`.
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

#[derive(Debug, Default)]
struct Compiled {
    revisions: [u64; 2],
    mutating: Vec<Hook>,
    validating: Vec<Hook>,
}

/// What a request remembers from its first round of changing webhooks for the second one.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// This is the second one.
    again: bool,
    /// Asked already, and wanting to see later changes.
    asked: HashSet<String>,
    /// To be asked again.
    waiting: HashSet<String>,
    /// What the object was after the last webhook.
    last: Value,
    needed: bool,
}

impl Rounds {
    /// Has anything changed that calls for a second round? It begins with this question.
    /// `policies` says that one is needed for others than webhooks.
    pub(super) fn begin_second(&mut self, policies: bool) -> bool {
        self.again = self.needed || policies;
        self.again
    }

    /// Is this the second round? There is no third.
    pub(super) fn is_second(&self) -> bool {
        self.again
    }

    fn changed(&mut self) {
        self.needed = true;
        self.wake();
    }

    fn wake(&mut self) {
        self.waiting.extend(self.asked.drain());
    }
}

/// Why a webhook's answer does not let the request pass.
enum Failure {
    /// It said no, or the request can't be shown to it.
    Refused(Status),
    /// It could not be asked, or its answer means nothing.
    Unreachable(String),
}

impl Webhooks {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self {
            authorizer,
            compiled: ArcSwap::default(),
            followed: Followed::new(GROUP, KINDS),
            clients: Mutex::default(),
        }
    }

    fn compiled(&self, registry: &Registry) -> Arc<Compiled> {
        let revisions = self.followed.revisions(registry);
        let now = self.compiled.load_full();
        if now.revisions == revisions {
            return now;
        }
        let mut kept = HashMap::new();
        let [mutating, validating] = KINDS.map(|kind| self.read(registry, kind, &mut kept));
        *self.clients.lock() = kept;
        let fresh = Arc::new(Compiled {
            revisions,
            mutating,
            validating,
        });
        self.compiled.store(Arc::clone(&fresh));
        fresh
    }

    fn read(
        &self,
        registry: &Registry,
        kind: &'static str,
        kept: &mut HashMap<String, Arc<Client>>,
    ) -> Vec<Hook> {
        let known = self.clients.lock().clone();
        let mut hooks = Vec::new();
        for configuration in super::look_up::objects(registry, (GROUP, "v1", kind), "") {
            for (index, value) in object::list(&configuration, &["webhooks"])
                .iter()
                .enumerate()
            {
                hooks.push(Hook::read(
                    object::name(&configuration),
                    index,
                    value,
                    |config| {
                        let text = config.to_string();
                        let client = known
                            .get(&text)
                            .or_else(|| kept.get(&text))
                            .cloned()
                            .unwrap_or_else(|| Arc::new(Client::read(config)));
                        kept.insert(text, Arc::clone(&client));
                        client
                    },
                ));
            }
        }
        hooks
    }

    /// Lets webhooks change an object (null for a deletion), or refuse it.
    ///
    /// # Errors
    /// The refusal, or 500 for a webhook that can't be asked.
    pub(super) async fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<(), Status> {
        let compiled = self.compiled(registry);
        if compiled.mutating.is_empty() || is_exempt(change) {
            return Ok(());
        }
        // Apart on the heap, so that other requests are not futures of this one's size.
        Box::pin(self.mutate_by(&compiled, registry, change, object, rounds)).await
    }

    async fn mutate_by(
        &self,
        compiled: &Compiled,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<(), Status> {
        if rounds.again && rounds.last != *object {
            rounds.wake();
        }
        for (index, hook) in compiled.mutating.iter().enumerate() {
            let Some(version) = hook.concerns(registry, change, object)? else {
                continue;
            };
            let shown = Shown::new(registry, change, object, version).await?;
            let (as_shown, seen) = (shown.change(change), shown.object(object));
            let counted = (&*registry.counted, "admit");
            if !hook.holds(&self.authorizer, &as_shown, seen, change.row, counted)? {
                continue;
            }
            if rounds.again && !rounds.waiting.contains(&hook.id) {
                continue;
            }
            let round = usize::from(rounds.again);
            let place = format!("round_{round}_index_{index}");
            let began = Instant::now();
            let outcome =
                mutate_once(registry, change, &as_shown, hook, seen.clone(), &place).await;
            let took = began.elapsed();
            change.notes().waited_for(took);
            count(
                registry,
                change,
                hook,
                "admit",
                outcome.as_ref().err(),
                took,
            );
            let outcome = match outcome {
                Ok(None) => Ok(false),
                Ok(Some(after)) => {
                    let before = object.clone();
                    match take_back(registry, change, &as_shown, after, object).await {
                        Ok(()) => Ok(before != *object),
                        Err(status) => Err(Failure::Refused(status)),
                    }
                }
                Err(failure) => Err(failure),
            };
            let mutated = matches!(outcome, Ok(true));
            note_mutation(change, hook, &place, mutated);
            if mutated {
                rounds.changed();
            }
            if hook.reinvocable {
                rounds.asked.insert(hook.id.clone());
            }
            if let Err(failure) = outcome {
                settle(registry, change, hook, failure, "mutation", &place)?;
            }
        }
        rounds.last = object.clone();
        Ok(())
    }

    /// Asks webhooks to judge an object (null for a deletion).
    ///
    /// # Errors
    /// The first refusal in the order of the configurations, or 500 for a webhook that can't be
    /// asked.
    pub(super) async fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let compiled = self.compiled(registry);
        if compiled.validating.is_empty() || is_exempt(change) {
            return Ok(());
        }
        Box::pin(self.validate_by(&compiled, registry, change, object)).await
    }

    async fn validate_by(
        &self,
        compiled: &Compiled,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let mut asked = Vec::new();
        for hook in &compiled.validating {
            let Some(version) = hook.concerns(registry, change, object)? else {
                continue;
            };
            let shown = Shown::new(registry, change, object, version).await?;
            let (as_shown, seen) = (shown.change(change), shown.object(object));
            let counted = (&*registry.counted, "validate");
            if hook.holds(&self.authorizer, &as_shown, seen, change.row, counted)? {
                asked.push((hook, shown));
            }
        }
        let began = Instant::now();
        let judged = futures::future::join_all(asked.iter().map(|(hook, shown)| async move {
            let (as_shown, seen) = (shown.change(change), shown.object(object));
            let said = ask(registry, &as_shown, hook, seen, change.row, false).await;
            let took = began.elapsed();
            count(
                registry,
                change,
                hook,
                "validating",
                said.as_ref().err(),
                took,
            );
            (*hook, said)
        }));
        let judged = judged.await;
        change.notes().waited_for(began.elapsed());
        for (index, (hook, said)) in judged.into_iter().enumerate() {
            if let Err(failure) = said {
                let place = format!("round_0_index_{index}");
                settle(registry, change, hook, failure, "validating", &place)?;
            }
        }
        Ok(())
    }
}

/// Nobody outside is asked about these.
fn is_exempt(change: &Change<'_>) -> bool {
    let gvk = &change.row.gvk;
    let configures = gvk.group == GROUP;
    let reviews = change.row.storage == Storage::Answered
        && matches!(
            gvk.group.as_ref(),
            "authentication.k8s.io" | "authorization.k8s.io"
        );
    // A pod is given to a node by a binding, and goes by an eviction: these have been shown.
    let shown = change.subresource == Some(Subresource::Binding)
        && change.operation == Operation::Update
        || change.operation == Operation::Delete
            && change.call.attributes.subresource == Subresource::Eviction.as_str();
    configures || reviews || shown
}

/// A change as a webhook or a policy is shown it.
pub(super) enum Shown {
    /// As the request has it.
    AsIs,
    /// In another version of the kind.
    Converted {
        row: Arc<ResourceDef>,
        object: Value,
        old: Option<Value>,
    },
}

impl Shown {
    pub(super) async fn new(
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
        version: Version,
    ) -> Result<Self, Status> {
        let Version::Of(row) = version else {
            return Ok(Self::AsIs);
        };
        let internal = |status: Status| Status::internal(status.message);
        let object = registry
            .convert(change.row, &row, object)
            .await
            .map_err(internal)?;
        let old = match change.old {
            Some(old) => Some(
                registry
                    .convert(change.row, &row, old)
                    .await
                    .map_err(internal)?,
            ),
            None => None,
        };
        Ok(Self::Converted { row, object, old })
    }

    pub(super) fn change<'c>(&'c self, change: &Change<'c>) -> Change<'c> {
        let (row, old) = match self {
            Self::AsIs => (change.row, change.old),
            Self::Converted { row, old, .. } => (&**row, old.as_ref()),
        };
        Change {
            row,
            operation: change.operation,
            subresource: change.subresource,
            identity: change.identity,
            namespace: change.namespace,
            old,
            dry_run: change.dry_run,
            call: change.call,
        }
    }

    pub(super) fn object<'c>(&'c self, object: &'c Value) -> &'c Value {
        match self {
            Self::AsIs => object,
            Self::Converted { object, .. } => object,
        }
    }
}

/// Takes over what a webhook or a policy has made, brought back to the version of the request.
pub(super) async fn take_back(
    registry: &Registry,
    change: &Change<'_>,
    shown: &Change<'_>,
    after: Value,
    object: &mut Value,
) -> Result<(), Status> {
    let after = registry
        .convert(shown.row, change.row, &after)
        .await
        .map_err(|status| Status::internal(status.message))?;
    put_back(registry, change, after, object)
}

/// Asks one webhook; what it says beside yes and no is noted.
async fn ask(
    registry: &Registry,
    change: &Change<'_>,
    hook: &Hook,
    object: &Value,
    of_request: &ResourceDef,
    mutating: bool,
) -> Result<review::Response, Failure> {
    if change.dry_run && !hook.dry_runs {
        return Err(Failure::Refused(Status::bad_request(format!(
            "admission webhook \"{}\" does not support dry run",
            hook.name
        ))));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let request = review::request(hook, change, &uid, object, of_request);
    let answer = hook
        .client
        .post(registry, &request, hook.timeout)
        .await
        .map_err(|why| Failure::Unreachable(format!("failed to call webhook: {why}")))?;
    let response = review::response(hook, mutating, &uid, &answer)
        .map_err(|why| Failure::Unreachable(format!("received invalid webhook response: {why}")))?;
    for (key, value) in &response.annotations {
        change
            .notes()
            .annotate(format!("{}/{key}", hook.name), value);
    }
    for warning in &response.warnings {
        change.notes().warn(warning);
    }
    if response.allowed {
        Ok(response)
    } else {
        let why = review::denial(&hook.name, response.status.as_ref());
        Err(Failure::Refused(why))
    }
}

/// Asks one webhook, which is shown a change as `shown`; answers what its patch makes of the
/// object, when that is another.
async fn mutate_once(
    registry: &Registry,
    change: &Change<'_>,
    shown: &Change<'_>,
    hook: &Hook,
    object: Value,
    place: &str,
) -> Result<Option<Value>, Failure> {
    let response = ask(registry, shown, hook, &object, change.row, true).await?;
    if response.patch.is_empty() {
        return Ok(None);
    }
    let patch: Value = serde_json::from_slice(&response.patch).map_err(|error| {
        Failure::Unreachable(format!(
            "received undecodable patch in webhook response: {error}"
        ))
    })?;
    if patch.as_array().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    if object.is_null() {
        return Err(Failure::Refused(Status::internal(format!(
            "admission webhook \"{}\" attempted to modify the object, which is not supported for \
             this operation",
            hook.name
        ))));
    }
    if response.patch_type != "JSONPatch" {
        return Err(Failure::Unreachable(format!(
            "unsupported patch type \"{}\"",
            response.patch_type
        )));
    }
    let before = review::seen_as(shown, &object);
    let after = evenkeel_api::patch::json_patch(&before, &patch)
        .map_err(|error| Failure::Refused(Status::internal(error.status().message)))?;
    if after == before {
        return Ok(None);
    }
    // A patch shows what the request holds: it is recorded where that is.
    if change
        .call
        .trail
        .as_ref()
        .is_some_and(|trail| trail.wants_request())
    {
        let text = json!({
            "configuration": hook.configuration,
            "webhook": hook.name,
            "patch": patch,
            "patchType": response.patch_type,
        });
        let key = format!("patch.webhook.admission.k8s.io/{place}");
        change.notes().annotate(key, text.to_string());
    }
    Ok(Some(after))
}

/// Takes over what a webhook has made of an object: pruned, in canonical form, with defaults.
pub(super) fn put_back(
    registry: &Registry,
    change: &Change<'_>,
    after: Value,
    object: &mut Value,
) -> Result<(), Status> {
    if let (Some(Subresource::Scale), Some(paths)) = (change.subresource, &change.row.scale) {
        let replicas = object::at(&after, &["spec", "replicas"]).cloned();
        let mut parts: Vec<&str> = paths.spec_replicas.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let place = parts.into_iter().fold(object, object::child);
        object::set_or_remove(object::fields(place), last, replicas);
        return Ok(());
    }
    *object = after;
    if change.subresource.and_then(Subresource::own_kind).is_some() {
        return Ok(());
    }
    let found = registry.rows.admit(change.row, object);
    if let Some(mismatch) = found.mismatch {
        return Err(Status::internal(mismatch));
    }
    change.row.strategy.defaults(object);
    Ok(())
}

/// Counts what a webhook was asked, and what came of it.
fn count(
    registry: &Registry,
    change: &Change<'_>,
    hook: &Hook,
    side: &str,
    failure: Option<&Failure>,
    took: Duration,
) {
    let (kind, code) = match failure {
        None => ("", 200),
        Some(Failure::Refused(status)) => ("no_error", status.code),
        // As the reference's client says of whom it can't reach.
        Some(Failure::Unreachable(_)) => ("calling_webhook_error", 503),
    };
    let passes = match failure {
        None => true,
        Some(Failure::Refused(_)) => false,
        Some(Failure::Unreachable(_)) => hook.ignores_failure,
    };
    let (name, operation) = (hook.name.as_str(), change.operation.as_str());
    let (rejected, code) = (if passes { "false" } else { "true" }, code.to_string());
    let counted = &registry.counted;
    counted
        .webhooks
        .took(&[name, operation, rejected, side], took);
    counted
        .webhook_requests
        .one(&[&code, name, operation, rejected, side]);
    if !passes {
        counted
            .webhook_rejections
            .one(&[kind, name, operation, &code, side]);
    }
}

/// Lets a failure pass where the webhook's policy says so.
fn settle(
    registry: &Registry,
    change: &Change<'_>,
    hook: &Hook,
    failure: Failure,
    side: &str,
    place: &str,
) -> Result<(), Status> {
    match failure {
        Failure::Refused(status) => Err(status),
        Failure::Unreachable(why) => {
            let text = format!("failed calling webhook \"{}\": {why}", hook.name);
            if !hook.ignores_failure {
                return Err(Status::internal(text));
            }
            tracing::warn!(webhook = hook.name, "let pass: {text}");
            let side_told = if side == "mutation" { "admit" } else { side };
            let open = &registry.counted.webhooks_failed_open;
            open.one(&[&hook.name, side_told]);
            let key = format!("failed-open.{side}.webhook.admission.k8s.io/{place}");
            change.notes().annotate(key, &hook.name);
            Ok(())
        }
    }
}

fn note_mutation(change: &Change<'_>, hook: &Hook, place: &str, mutated: bool) {
    let text = json!({
        "configuration": hook.configuration,
        "webhook": hook.name,
        "mutated": mutated,
    });
    change.notes().annotate(
        format!("mutation.webhook.admission.k8s.io/{place}"),
        text.to_string(),
    );
}
