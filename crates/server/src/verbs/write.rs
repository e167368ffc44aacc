//! create and update, and the steps that every write shares.

use std::sync::Arc;

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::kinds::{namespace, pod};
use evenkeel_api::object::Fields;
use evenkeel_api::patch::PatchError;
use evenkeel_api::patch::apply::{ManagerRequest, Unconverted, keep_times, track_update};
use evenkeel_api::row::{ResourceDef, Subresource};
use evenkeel_api::{Status, clock, object, validation};
use http::{Method, StatusCode};
use serde_json::Value;

use super::forms::Forms;
use super::show::{show, show_value};
use super::{Request, decode, options};
use crate::admission::{Change, Operation};
use crate::auth::{Decision, escalation};
use crate::claims;
use crate::door::Door;
use crate::http::{Answer, Attributes};
use crate::object::Object;
use crate::pipeline::refusal;
use crate::registry::Outcome;

/// So often a service is written again when another server was faster to give something out.
const CLAIM_TRIES: usize = 8;
/// So many names are tried for `generateName`.
const NAME_TRIES: usize = 8;
/// Letters of generated names: no vowels, so that no words come out.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// A generated name is cut so that five letters fit.
const NAME_PREFIX_MOST: usize = 58;

pub(super) async fn create(mut request: Request<'_>) -> Result<Answer, Status> {
    // Admission reads the caches: what the client wrote just before must be there.
    request.door.registry.fresh().await?;
    let mut value = decode::body(&mut request)?;
    place(&request, &mut value)?;
    let generated = object::name(&value).is_empty()
        && !object::text(&value, &["metadata", "generateName"]).is_empty();
    // What is tried once is not kept for a second try.
    let again = generated || claims::may_claim(&request.row);
    let name = object::name(&value).to_owned();
    for attempt in 1.. {
        let sent = if again {
            value.clone()
        } else {
            std::mem::take(&mut value)
        };
        let outcome = match create_once(&mut request, sent, true).await {
            // Another server gave the same out at the same moment; it is seen now.
            Err(status) if claims::is_taken(&status) && attempt < CLAIM_TRIES => {
                request.door.registry.fresh().await?;
                continue;
            }
            outcome => outcome?,
        };
        match outcome {
            Created::Stored(found) => return show(&request, StatusCode::CREATED, &found),
            Created::Dry(value) => return show_value(&request, StatusCode::CREATED, value),
            Created::Taken if generated && attempt < NAME_TRIES => {}
            Created::Taken => {
                let row = &request.row;
                return Err(Status::already_exists(&row.gvk.group, &row.plural, &name));
            }
        }
    }
    Err(Status::internal("no name could be generated"))
}

/// Makes a name of the prefix and five random letters, unless there is a name. Whoever changes new
/// objects sees them without it, as in the reference.
fn generate_name(value: &mut Value) {
    let prefix = object::text(value, &["metadata", "generateName"]);
    if prefix.is_empty() || !object::name(value).is_empty() {
        return;
    }
    let prefix: String = prefix.chars().take(NAME_PREFIX_MOST).collect();
    let letters =
        (0..5).map(|_| char::from(NAME_LETTERS[rand::random_range(0..NAME_LETTERS.len())]));
    let name: String = prefix.chars().chain(letters).collect();
    object::metadata(value).insert("name".to_owned(), name.into());
}

/// Namespace and name of the path and of the object must agree.
pub(super) fn place(request: &Request<'_>, value: &mut Value) -> Result<(), Status> {
    let namespace = request.namespace();
    let given = object::namespace(value).to_owned();
    if !request.row.namespaced() {
        object::metadata(value).remove("namespace");
        return Ok(());
    }
    if namespace.is_empty() {
        return Err(Status::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    if !given.is_empty() && given != namespace {
        return Err(Status::bad_request(decode::WRONG_NAMESPACE));
    }
    object::metadata(value).insert("namespace".to_owned(), namespace.into());
    Ok(())
}

pub(super) enum Created {
    Stored(Arc<Object>),
    Dry(Value),
    Taken,
}

/// All steps of a create for one name. `tracked` says whether managed fields are to be computed
/// here (apply brings its own).
pub(super) async fn create_once(
    request: &mut Request<'_>,
    mut value: Value,
    tracked: bool,
) -> Result<Created, Status> {
    let row = Arc::clone(&request.row);
    let door = Arc::clone(request.door);
    if row.closing {
        return Err(Status::forbidden(
            &row.gvk.group,
            &row.plural,
            object::name(&value),
            "create not allowed while custom resource definition is terminating",
        ));
    }
    // What is no number is no version here.
    let versioned = tracked && options::revision(&value).is_ok_and(|revision| revision != 0);
    wipe(&mut value);
    let labels = object::at(&value, &["metadata", "labels"]).and_then(Value::as_object);
    let unlabelled = labels.is_none_or(Fields::is_empty);
    row.strategy.defaults(&mut value);
    // Nobody owns what admission and the kind itself add.
    if tracked {
        track(request, None, &mut value, None).await;
    }
    let dropped = door.rows().drop_off(&row, &mut value, None);
    request.warn(dropped);
    let change = Change {
        row: &row,
        operation: Operation::Create,
        subresource: None,
        identity: &request.call.identity,
        namespace: request.namespace(),
        old: None,
        dry_run: request.dry_run(),
        call: &request.call,
    };
    door.admission
        .mutate(&door.registry, &change, &mut value)
        .await?;
    generate_name(&mut value);
    prepare_create(&door, &row, &mut value);
    row.strategy.prepare_new(&mut value, unlabelled);
    let creator = super::kinds::user_info(&request.call.identity);
    row.strategy.prepare_creator(&mut value, &creator);
    door.rows().fill(&row, &mut value);
    let mut errors = validation::validate_metadata(&row, &value);
    errors.extend(row.strategy.validate(&value));
    refuse(&row, object::name(&value), &errors)?;
    request.warn(row.strategy.warnings(&value, None));
    let hold = door.allocate.on_create(&door.registry, &row, &mut value)?;
    door.admission
        .validate(&door.registry, &change, &value)
        .await?;
    let identity = &request.call.identity;
    escalation::check(
        door.authorizer(),
        &door.registry,
        identity,
        &row,
        &value,
        None,
    )?;
    if request.dry_run() {
        let name = object::name(&value);
        let there = door.registry.get(&row, request.namespace(), name).await?;
        return Ok(match there {
            Some(_) => Created::Taken,
            None => Created::Dry(value),
        });
    }
    // The store says so in the reference, so that admission is asked first.
    if versioned {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(Status::failure(500, "", why));
    }
    let stored = door.registry.create(&row, value).await?;
    if let Some(found) = &stored {
        hold.keep(found.revision);
    }
    Ok(stored.map_or(Created::Taken, Created::Stored))
}

/// Takes off what no creator decides, before it could be owned by him.
fn wipe(value: &mut Value) {
    let metadata = object::metadata(value);
    for name in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        metadata.remove(name);
    }
}

/// Sets what the system decides on create.
fn prepare_create(door: &Door, row: &ResourceDef, value: &mut Value) {
    // A node's agent registers it with what it knows; other kinds begin without a status.
    if row.has_status() && row.gvk.kind != "Node" {
        object::fields(value).remove("status");
    }
    let now = clock::rfc3339(door.clock().now());
    // Those who change new objects on the way don't decide it either.
    wipe(value);
    let metadata = object::metadata(value);
    metadata.remove("resourceVersion");
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now.into());
    // Where nobody counts, it is what the creator says.
    if row.generation && !row.generation_from_changes {
        metadata.insert("generation".to_owned(), 1.into());
    }
    row.strategy.prepare_create(value);
    let now = clock::rfc3339(door.clock().now());
    row.strategy.prepare_at(value, None, &now);
}

/// 422 when anything is wrong.
pub(super) fn refuse(row: &ResourceDef, name: &str, errors: &ErrorList) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let mut once = ErrorList::new();
    for error in errors {
        if !once.contains(error) {
            once.push(error.clone());
        }
    }
    once.sort_by_key(|error| error.declared);
    // What is another form of a stored kind is called as that one.
    let group = row.view.as_ref().map_or(&*row.gvk.group, |view| view.group);
    Err(Status::invalid(group, &row.gvk.kind, name, &once))
}

/// Records in managed fields what a write has changed. What it changes for an owner that wrote in
/// a version which can't be had now is not known: then all owners stay as they are, and the write
/// goes on, as in the reference.
pub(super) async fn track(
    request: &Request<'_>,
    live: Option<&Value>,
    value: &mut Value,
    subresource: Option<Subresource>,
) {
    let manager = request.field_manager();
    let api_version = request.row.gvk.api_version();
    let now = request.door.clock().now();
    let forms = Forms::of(request);
    loop {
        let tracked = {
            let by = ManagerRequest {
                manager: &manager,
                subresource: subresource.map_or("", Subresource::as_str),
                api_version: &api_version,
                now,
                custom: request
                    .row
                    .custom
                    .is_some()
                    .then(|| request.row.has_status()),
                versions: &forms,
            };
            let (schema, ty) = forms.shape();
            track_update(schema, &ty, live, value, &by)
        };
        let Err(why) = tracked else { return };
        let waits = why == Unconverted::Pending;
        if !(waits && Box::pin(forms.fetch(&request.door.registry)).await) {
            let (kind, name) = (&request.row.gvk.kind, request.name());
            tracing::warn!(%kind, name, %why, "owners of fields stay as they were");
            return;
        }
    }
}

pub(super) async fn update(
    mut request: Request<'_>,
    subresource: Option<Subresource>,
) -> Result<Answer, Status> {
    // First of all: what is read before would have left the processor's caches when they are there.
    request.door.registry.fresh().await?;
    let sent = decode::body(&mut request)?;
    decode::check_place(&request, &sent)?;
    if request.row.made_by_updates && subresource.is_none() {
        match Box::pin(make(&mut request, &sent)).await? {
            Some(Created::Stored(found)) => return show(&request, StatusCode::CREATED, &found),
            Some(Created::Dry(value)) => return show_value(&request, StatusCode::CREATED, value),
            // It is there already, or somebody made it just now.
            Some(Created::Taken) | None => {}
        }
    }
    let mut sent = Some(sent);
    let stored = replace(&mut request, subresource, Owners::Tracked, |request, _| {
        // Read again for the few that somebody was faster than, and kept a second time for none.
        Ok(sent.take().map_or_else(|| decode::body(request), Ok)?)
    });
    let stored = stored.await?;
    finish(&request, stored)
}

/// Makes the object of an update, for kinds whose updates may, unless it is there: with all that a
/// create takes, the right to it too.
async fn make(request: &mut Request<'_>, sent: &Value) -> Result<Option<Created>, Status> {
    let (door, row) = (Arc::clone(request.door), Arc::clone(&request.row));
    let there = door
        .registry
        .known(&row, request.namespace(), request.name())
        .await?;
    if there.is_some() {
        return Ok(None);
    }
    let uid = object::uid(sent);
    if !uid.is_empty() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        let (group, plural) = (&row.gvk.group, &row.plural);
        return Err(Status::conflict(group, plural, request.name(), &why));
    }
    let attributes = Attributes {
        verb: "create".to_owned(),
        ..request.call.attributes.clone()
    };
    let identity = &request.call.identity;
    let authorizer = door.authorizer();
    if let Some(preparing) = authorizer.prepare(identity, &attributes) {
        preparing.await;
    }
    match authorizer.authorize(identity, &attributes) {
        Decision::Allow(_) => {}
        Decision::NoOpinion(why) | Decision::Deny(why) => {
            return Err(refusal(identity, &attributes, &why));
        }
    }
    let mut value = sent.clone();
    place(request, &mut value)?;
    create_once(request, value, true).await.map(Some)
}

/// What a replacement came to.
pub(super) enum Replaced {
    Stored(Arc<Object>),
    /// What is not in the store: it was only tried, or the object went with what held it.
    Made(Value),
}

pub(super) fn finish(request: &Request<'_>, replaced: Replaced) -> Result<Answer, Status> {
    match replaced {
        Replaced::Stored(found) => show(request, StatusCode::OK, &found),
        Replaced::Made(value) => show_value(request, StatusCode::OK, value),
    }
}

/// Where the owners of an update come from.
#[derive(Clone, Copy)]
pub(super) enum Owners<'f> {
    /// They are found here, by what has changed.
    Tracked,
    /// The new object brings them, as an apply does that asks for these forms.
    Applied(&'f Forms),
}

/// Why there is no new object.
pub(super) enum Unmade {
    /// It is refused.
    Refused(Status),
    /// Forms are missing: when they are there, it is tried again.
    Pending,
}

impl From<Status> for Unmade {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<PatchError> for Unmade {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Pending => Self::Pending,
            error => Self::Refused(error.status()),
        }
    }
}

impl Owners<'_> {
    /// What `make` makes, with all forms that it asks for.
    pub(super) async fn made(
        self,
        request: &mut Request<'_>,
        mut make: impl FnMut(&mut Request<'_>) -> Result<Value, Unmade>,
    ) -> Result<Value, Status> {
        loop {
            match make(request) {
                Ok(new) => return Ok(new),
                Err(Unmade::Refused(status)) => return Err(status),
                Err(Unmade::Pending) => {}
            }
            let fetched = match self {
                Self::Applied(forms) => Box::pin(forms.fetch(&request.door.registry)).await,
                Self::Tracked => false,
            };
            if !fetched {
                return Err(PatchError::Pending.status());
            }
        }
    }
}

/// Changes an object: reads it, lets `change` make the new one, runs all steps, and writes it if
/// nobody was faster; otherwise from the start with what is there now.
pub(super) async fn replace(
    request: &mut Request<'_>,
    subresource: Option<Subresource>,
    owners: Owners<'_>,
    mut change: impl FnMut(&mut Request<'_>, &Value) -> Result<Value, Unmade>,
) -> Result<Replaced, Status> {
    let row = Arc::clone(&request.row);
    let door = Arc::clone(request.door);
    let registry = door.registry.clone();
    let mut seen = registry
        .get(&row, request.namespace(), request.name())
        .await?
        .ok_or_else(|| request.not_found())?;
    let mut claim_tries = 0;
    loop {
        let mut old = seen.value();
        // Of objects that were stored without it too, so that old and new differ in what was
        // changed alone.
        door.rows().fill(&row, &mut old);
        let mut new = owners
            .made(request, |request| change(request, &old))
            .await?;
        steps(request, subresource, owners, &old, &mut new).await?;
        drop(old);
        if request.dry_run() {
            return Ok(Replaced::Made(new));
        }
        let outcome = if is_finished(&new) {
            match registry.remove(&row, &seen).await {
                // It is shown as it would have been.
                Ok(Outcome::Done(_)) => return Ok(Replaced::Made(new)),
                outcome => outcome,
            }
        } else {
            registry.replace(&row, &seen, new).await
        };
        let outcome = match outcome {
            Err(status) if claims::is_taken(&status) && claim_tries < CLAIM_TRIES => {
                claim_tries += 1;
                let now = registry
                    .get(&row, request.namespace(), request.name())
                    .await?;
                Outcome::Stale(now)
            }
            outcome => outcome?,
        };
        match outcome {
            Outcome::Done(found) => return Ok(Replaced::Stored(found)),
            Outcome::Stale(None) => return Err(request.not_found()),
            Outcome::Stale(Some(newer)) => seen = newer,
        }
    }
}

/// Changes an object as the server itself does: what comes of it is neither admitted, checked nor
/// owned by anybody, as in the reference's `GuaranteedUpdate`. The request itself was, and admission
/// has seen to it that the caches are as fresh as the request.
pub(super) async fn rewrite(
    request: &Request<'_>,
    mut change: impl FnMut(&mut Value) -> Result<(), Status>,
) -> Result<(), Status> {
    let (row, registry) = (&request.row, &request.door.registry);
    let mut seen = registry
        .known(row, request.namespace(), request.name())
        .await?
        .ok_or_else(|| request.not_found())?;
    loop {
        let mut value = seen.value();
        change(&mut value)?;
        request.door.rows().fill(row, &mut value);
        if request.dry_run() {
            return Ok(());
        }
        match registry.replace(row, &seen, value).await? {
            Outcome::Done(_) => return Ok(()),
            Outcome::Stale(None) => return Err(request.not_found()),
            Outcome::Stale(Some(newer)) => seen = newer,
        }
    }
}

/// An object that is being deleted goes when nothing holds it any more.
pub(super) fn is_finished(value: &Value) -> bool {
    object::deletion_timestamp(value).is_some()
        && object::finalizers(value).is_empty()
        && object::integer(value, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && object::list(value, &["spec", "finalizers"]).is_empty()
}

/// All steps of an update but the write.
async fn steps(
    request: &mut Request<'_>,
    subresource: Option<Subresource>,
    owners: Owners<'_>,
    old: &Value,
    new: &mut Value,
) -> Result<(), Status> {
    let row = Arc::clone(&request.row);
    let door = Arc::clone(request.door);
    preconditions(request, old, new)?;
    row.strategy.defaults(new);
    // Nobody owns what admission and the kind itself change.
    if matches!(owners, Owners::Tracked) {
        track(request, Some(old), new, subresource).await;
    }
    let dropped = door.rows().drop_off(&row, new, Some(old));
    request.warn(dropped);
    let change = Change {
        row: &row,
        operation: Operation::Update,
        subresource,
        identity: &request.call.identity,
        namespace: request.namespace(),
        old: Some(old),
        dry_run: request.dry_run(),
        call: &request.call,
    };
    door.admission.mutate(&door.registry, &change, new).await?;
    keep_system_fields(&row, old, new, subresource);
    door.rows().fill(&row, new);
    let mut errors = validation::validate_metadata_update(&row, new, old);
    match subresource {
        None => {
            row.strategy.prepare_update(new, old);
            let now = clock::rfc3339(door.clock().now());
            row.strategy.prepare_at(new, Some(old), &now);
            door.allocate.on_update(&door.registry, &row, old, new)?;
            errors.extend(row.strategy.validate_change(new, old));
        }
        Some(Subresource::Status) => {
            let now = door.clock().now();
            row.strategy
                .prepare_status_at(new, old, &clock::rfc3339(now));
            errors.extend(row.strategy.validate_status_at(new, old, now));
        }
        Some(Subresource::Approval) => {
            let now = clock::rfc3339(door.clock().now());
            row.strategy.prepare_approval(new, old, &now);
            errors.extend(row.strategy.validate_approval(new, old));
        }
        Some(Subresource::EphemeralContainers) => {
            pod::prepare_ephemeral_containers(new, old);
            errors.extend(pod::validate_ephemeral_containers(new, old));
        }
        Some(Subresource::Resize) => {
            pod::prepare_resize(new, old);
            errors.extend(pod::validate_resize(new, old));
        }
        Some(Subresource::Finalize) => {
            namespace::prepare_finalize(new, old);
            errors.extend(namespace::validate_finalize(new));
        }
        Some(Subresource::Scale) => errors.extend(row.strategy.validate_change(new, old)),
        Some(_) => errors.extend(row.strategy.validate(new)),
    }
    refuse(&row, object::name(old), &errors)?;
    request.warn(match subresource {
        Some(Subresource::Status) => row.strategy.status_warnings(new),
        _ => row.strategy.warnings(new, Some(old)),
    });
    if row.generation
        && subresource != Some(Subresource::Status)
        && row.strategy.bumps_generation(new, old)
    {
        let generation = object::integer(old, &["metadata", "generation"]).unwrap_or(0) + 1;
        object::metadata(new).insert("generation".to_owned(), generation.into());
    }
    door.admission
        .validate(&door.registry, &change, new)
        .await?;
    let identity = &request.call.identity;
    escalation::check(
        door.authorizer(),
        &door.registry,
        identity,
        &row,
        new,
        Some(old),
    )?;
    keep_times(old, new);
    Ok(())
}

fn preconditions(request: &Request<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let row = &request.row;
    let (group, name) = (&row.gvk.group, object::name(old));
    let metadata = Path::new("metadata");
    let wanted = object::uid(new);
    if !wanted.is_empty() && wanted != object::uid(old) {
        // What a patch makes is another object; what an update sends is meant for another one.
        if request.call.parts.method == Method::PATCH {
            let error = FieldError::invalid(&metadata.child("uid"), wanted, "field is immutable");
            return Err(Status::invalid(group, &row.gvk.kind, name, &[error]));
        }
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Status::conflict(group, &row.plural, name, &why));
    }
    let revision = options::revision(new)?;
    if revision == 0 && row.versioned_updates {
        let path = metadata.child("resourceVersion");
        let error = FieldError::invalid(&path, 0, "must be specified for an update");
        return Err(Status::invalid(group, &row.plural, name, &[error]));
    }
    if revision != 0 && revision != options::revision(old)? {
        return Err(Status::modified(group, &row.plural, name));
    }
    Ok(())
}

/// What an update can't change, and what belongs to the other half of the object.
fn keep_system_fields(
    row: &ResourceDef,
    old: &Value,
    new: &mut Value,
    subresource: Option<Subresource>,
) {
    if subresource == Some(Subresource::Status) {
        let status = object::fields(new).remove("status");
        let owners = object::at(old, &["metadata", "ownerReferences"]).cloned();
        // All but status and metadata is as it was. Mostly it is already: to see that is cheaper
        // than to copy it.
        let fields = object::fields(new);
        fields.retain(|name, _| name == "metadata" || old.get(name).is_some());
        for (name, was) in old.as_object().into_iter().flatten() {
            let keep = match name.as_str() {
                "status" => true,
                "metadata" => fields.contains_key(name),
                _ => fields.get(name) == Some(was),
            };
            if !keep {
                fields.insert(name.clone(), was.clone());
            }
        }
        object::set_or_remove(object::fields(new), "status", status);
        if row.custom.is_some() {
            keep_metadata(old, new);
        } else {
            object::set_or_remove(object::metadata(new), "ownerReferences", owners);
        }
    } else if row.has_status() && subresource != Some(Subresource::Approval) {
        let status = old.get("status").cloned();
        object::set_or_remove(object::fields(new), "status", status);
    }
    let kept = object::at(old, &["metadata"]).unwrap_or(&Value::Null);
    let metadata = object::metadata(new);
    for name in [
        "uid",
        "creationTimestamp",
        "generation",
        "namespace",
        "resourceVersion",
    ] {
        object::set_or_remove(metadata, name, kept.get(name).cloned());
    }
    keep_deletion(kept, metadata);
    metadata.remove("selfLink");
}

/// Of a deletion that has begun nothing can be taken back; what begins one otherwise than by a delete
/// is left in, to be refused.
fn keep_deletion(kept: &Value, metadata: &mut Fields) {
    if let Some(at) = kept.get("deletionTimestamp") {
        metadata.insert("deletionTimestamp".to_owned(), at.clone());
    }
    if let Some(grace) = kept.get("deletionGracePeriodSeconds") {
        metadata
            .entry("deletionGracePeriodSeconds")
            .or_insert_with(|| grace.clone());
    }
}

/// The status of a custom object is all that can be written through its path; who owns what of it is
/// noted all the same.
fn keep_metadata(old: &Value, new: &mut Value) {
    let owners = object::metadata(new).remove("managedFields");
    let was = old.get("metadata").cloned();
    object::set_or_remove(object::fields(new), "metadata", was);
    object::set_or_remove(object::metadata(new), "managedFields", owners);
}

/// Creates an object from inside the door (bootstrap objects), with every step that a request
/// would take; answers whether it was made now.
pub(crate) async fn touch_create(door: &Arc<Door>, value: Value) -> Result<bool, Status> {
    let api_version = object::text(&value, &["apiVersion"]).to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = object::text(&value, &["kind"]);
    let row = door
        .rows()
        .by_kind(group, version, kind)
        .cloned()
        .ok_or_else(|| Status::internal(format!("no row for {api_version} {kind}")))?;
    let namespace = object::namespace(&value).to_owned();
    if door
        .registry
        .get(&row, &namespace, object::name(&value))
        .await?
        .is_some()
    {
        return Ok(false);
    }
    let mut value = value;
    row.strategy.defaults(&mut value);
    prepare_create(door, &row, &mut value);
    door.rows().fill(&row, &mut value);
    let mut errors = validation::validate_metadata(&row, &value);
    errors.extend(row.strategy.validate(&value));
    refuse(&row, object::name(&value), &errors)?;
    let hold = door.allocate.on_create(&door.registry, &row, &mut value)?;
    let stored = door.registry.create(&row, value).await?;
    if let Some(found) = &stored {
        hold.keep(found.revision);
    }
    Ok(stored.is_some())
}
