//! What the door does for a request that is allowed: one implementation of each verb for all
//! kinds.

mod decode;
mod delete;
mod delete_options;
mod eviction;
mod forms;
mod kinds;
pub(crate) mod links;
mod measured;
mod options;
mod patch;
pub(crate) mod read;
mod show;
pub(crate) mod socket;
mod streams;
mod subresource;
mod watch;
mod write;

use std::sync::Arc;

use evenkeel_api::row::{ResourceDef, Storage, Subresource, Verb};
use evenkeel_api::schema::FieldValidation;
use evenkeel_api::{Rows, Status, protobuf};
use http::Method;

use crate::cache::is_on_demand;
use crate::door::Door;
use crate::flow;
use crate::http::{Answer, Attributes, Encoding, Media, Offer, is_pretty, page_not_found};
use crate::pipeline::{Authorized, Call};

pub(crate) use socket::token_of_protocol;
pub(crate) use streams::{NodeTunnel, copy_headers, forwarded_for, join};
pub(crate) use write::touch_create;

/// An allowed request to a known resource.
pub(crate) struct Request<'d> {
    pub(crate) door: &'d Arc<Door>,
    pub(crate) row: Arc<ResourceDef>,
    pub(crate) call: Box<Call>,
    pub(crate) media: Media,
}

impl Request<'_> {
    pub(crate) fn namespace(&self) -> &str {
        if self.row.namespaced() {
            &self.call.attributes.namespace
        } else {
            ""
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.call.attributes.name
    }

    /// Tells the client beside the answer, be it a refusal. The same words are said once.
    pub(crate) fn warn(&self, texts: Vec<String>) {
        for text in texts {
            self.call.notes.warn(text);
        }
    }

    /// Is nothing to be kept?
    pub(crate) fn dry_run(&self) -> bool {
        self.call.query.has("dryRun")
    }

    /// What is to be done with unknown fields. That the value is known has been checked.
    pub(crate) fn field_validation(&self) -> FieldValidation {
        let text = self.call.query.get("fieldValidation");
        FieldValidation::parse(text).unwrap_or(FieldValidation::Warn)
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.row.gvk.group, &self.row.plural, self.name())
    }

    /// Who writes, as managed fields name it.
    pub(crate) fn field_manager(&self) -> String {
        let given = self.call.query.get("fieldManager");
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent = self
            .call
            .parts
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("unknown");
        agent
            .split('/')
            .next()
            .unwrap_or(agent)
            .chars()
            .take(128)
            .collect()
    }

    /// Checks the parameters that every write shares.
    fn check_write_options(&self) -> Result<(), Status> {
        let patching = match patch::kind_of(self) {
            _ if self.call.parts.method != Method::PATCH => None,
            // The media type is refused by itself.
            None => return Ok(()),
            Some(kind) => Some(kind.patching()),
        };
        options::check_write(&self.call.parts.method, &self.call.query, patching)
    }
}

/// Serves an allowed resource request.
pub(crate) async fn serve(door: &Arc<Door>, call: Authorized<Box<Call>>) -> Result<Answer, Status> {
    let call = call.into_inner();
    let Some(row) = row(door, &call).await? else {
        return if is_ours(&door.rows(), &call.attributes.group) {
            Err(Status::no_such_path())
        } else {
            Ok(page_not_found())
        };
    };
    if let Some(told) = &row.deprecation {
        call.notes.warn(told.clone());
        call.notes.annotate("k8s.io/deprecated", "true");
        let Attributes {
            group,
            version,
            resource,
            subresource,
            ..
        } = &call.attributes;
        // None of them is going to be removed.
        let told = [group.as_str(), "", resource, subresource, version];
        door.registry.counted.deprecated.mark(&told);
    }
    serve_row(door, row, call).await
}

/// The row behind a request's path, ready to be read.
async fn row(door: &Arc<Door>, call: &Call) -> Result<Option<Arc<ResourceDef>>, Status> {
    let find = || {
        let Attributes {
            group,
            version,
            resource,
            ..
        } = &call.attributes;
        door.rows().by_path(group, version, resource).cloned()
    };
    if let Some(row) = find().filter(|row| row.custom.is_none()) {
        if is_on_demand(&row) {
            Box::pin(door.registry.warm(&row)).await?;
        }
        return Ok(Some(row));
    }
    // A definition may have been written that the rows do not show yet.
    door.registry.fresh().await?;
    let Some(row) = find() else {
        return Ok(None);
    };
    Box::pin(door.registry.warm(&row)).await?;
    Ok(Some(row))
}

/// Is a group one of those that are built in?
pub(crate) fn is_ours(rows: &Rows, group: &str) -> bool {
    let mut builtin = rows.iter().filter(|row| row.custom.is_none());
    builtin.any(|row| row.gvk.group == group)
}

async fn serve_row(
    door: &Arc<Door>,
    row: Arc<ResourceDef>,
    call: Box<Call>,
) -> Result<Answer, Status> {
    let attributes = &call.attributes;
    let in_namespace = !attributes.namespace.is_empty();
    let misplaced = if row.namespaced() && !in_namespace {
        across_namespaces(&row, attributes).err()
    } else {
        let inside = !row.namespaced() && in_namespace && attributes.resource != "namespaces";
        inside.then(Status::no_such_path)
    };
    match misplaced {
        None => {}
        // Paths of custom kinds are no routes.
        Some(_) if row.custom.is_some() => return Ok(page_not_found()),
        Some(status) => return Err(status),
    }
    if attributes.old_watch && !has_old_watch(&row, attributes) {
        return Err(Status::no_such_path());
    }
    let subresource = attributes.subresource.clone();
    let media = negotiate(door, &row, &call);
    // The store makes durable together what comes together.
    let _announced = writes(&row, attributes).then(|| door.registry.store.announce());
    if !subresource.is_empty() {
        let known = row
            .subresources
            .iter()
            .copied()
            .find(|sub| sub.as_str() == subresource);
        let Some(known) = known else {
            return Err(match row.custom {
                None => Status::no_such_path(),
                // Whatever follows the name of an object is part of what is not found.
                Some(_) => Status::not_found(&row.gvk.group, &row.plural, &attributes.name),
            });
        };
        // A proxy alone goes on behind its name.
        let further = known != Subresource::Proxy && !attributes.rest.is_empty();
        if further && row.custom.is_none() {
            return Err(Status::no_such_path());
        }
        // Streams answer in their own media types.
        let media = match known {
            Subresource::Log
            | Subresource::Exec
            | Subresource::Attach
            | Subresource::PortForward
            | Subresource::Proxy => Media::JSON,
            _ => media?,
        };
        let request = Request {
            door,
            row,
            call,
            media,
        };
        return subresource::serve(request, known).await;
    }
    let request = Request {
        door,
        row,
        call,
        media: media?,
    };
    let measured = request.row.storage == Storage::Measured;
    match verb(&request)? {
        // What is rare, or long in itself, is kept apart on the heap: a request is a future of the size of
        // the largest of these, and is moved more than once.
        Verb::Get if measured => Box::pin(measured::get(request)).await,
        Verb::List if measured => {
            options::check_list(&request.call.query, false)?;
            Box::pin(measured::list(request)).await
        }
        Verb::Get => read::get(request).await,
        Verb::List => Box::pin(read::list(request)).await,
        Verb::Watch => Box::pin(watch::watch(request)).await,
        Verb::Create if request.row.storage == Storage::Answered => {
            request.check_write_options()?;
            Box::pin(kinds::answer(request)).await
        }
        Verb::Create => {
            request.check_write_options()?;
            write::create(request).await
        }
        Verb::Update => {
            request.check_write_options()?;
            write::update(request, None).await
        }
        Verb::Patch => {
            request.check_write_options()?;
            patch::patch(request, None).await
        }
        Verb::Delete => delete::delete(request).await,
        Verb::DeleteCollection => Box::pin(delete::delete_collection(request)).await,
    }
}

/// Is there an old path of watches for this? There is for what can be watched: not for subresources,
/// nor for an object whose namespace the path does not say.
fn has_old_watch(row: &ResourceDef, attributes: &Attributes) -> bool {
    let path = attributes.path.trim_end_matches('/');
    let collection = path.ends_with(&format!("/{}", row.plural));
    row.verbs.contains(&Verb::Watch)
        && attributes.subresource.is_empty()
        && (collection || !row.namespaced() || !attributes.namespace.is_empty())
}

/// How the answer is to be written.
fn negotiate(door: &Door, row: &ResourceDef, call: &Call) -> Result<Media, Status> {
    let watch = call.attributes.verb == "watch";
    let mut media = Media::negotiate(&call.parts.headers, || Offer {
        protobuf: protobuf::has_form(&row.type_name),
        // What is answered and not kept is shown as it is.
        table: row.storage != Storage::Answered
            && !matches!(
                call.attributes.subresource.as_str(),
                "binding" | "eviction" | "token"
            ),
        metadata: true,
        groups: false,
        cbor: door.speaks_cbor(),
        watch,
    })?;
    if media.encoding == Encoding::Json && !watch && is_pretty(&call.parts.headers, &call.query) {
        media.encoding = Encoding::Pretty;
    }
    Ok(media)
}

/// Will it come to a write to the store, unless it is refused?
fn writes(row: &ResourceDef, attributes: &Attributes) -> bool {
    row.storage == Storage::Stored
        && !flow::is_long_running(attributes)
        && !matches!(attributes.verb.as_str(), "get" | "list" | "watch")
}

/// The path of a namespaced kind without a namespace has lists and watches, and nothing else: it must
/// not come to be about all namespaces at once.
fn across_namespaces(row: &ResourceDef, attributes: &Attributes) -> Result<(), Status> {
    let collects = matches!(
        attributes.verb.as_str(),
        "list" | "watch" | "deletecollection"
    );
    // That of a collection comes from a selector.
    let named = !collects && !attributes.name.is_empty();
    if matches!(attributes.verb.as_str(), "list" | "watch") {
        Ok(())
    } else if named || row.custom.is_some() || !row.verbs.contains(&Verb::List) {
        Err(Status::no_such_path())
    } else {
        Err(Status::method_not_allowed())
    }
}

/// As in the reference, where built-in kinds have no route for it, and custom kinds are not routed
/// by method.
fn refuse_head(row: &ResourceDef, method: &Method) -> Result<(), Status> {
    if *method == Method::HEAD && row.custom.is_none() {
        return Err(Status::method_not_allowed());
    }
    Ok(())
}

fn verb(request: &Request<'_>) -> Result<Verb, Status> {
    refuse_head(&request.row, &request.call.parts.method)?;
    let asked = request.call.attributes.verb.as_str();
    let verb = request
        .row
        .verbs
        .iter()
        .copied()
        .find(|verb| verb.as_str() == asked);
    // POST to a name and PUT or PATCH to a collection have no meaning.
    let misplaced = match verb {
        Some(Verb::Create) => !request.call.attributes.name.is_empty(),
        Some(Verb::Update | Verb::Patch) => request.call.attributes.name.is_empty(),
        _ => false,
    };
    match verb {
        Some(verb) if !misplaced => Ok(verb),
        Some(_) => Err(Status::method_not_allowed()),
        None => Err(unsupported(request)),
    }
}

/// 405 for what can't be done: custom kinds have no routes that could be missing.
pub(super) fn unsupported(request: &Request<'_>) -> Status {
    let row = &request.row;
    match row.custom {
        None => Status::method_not_allowed(),
        Some(_) => {
            let verb = &request.call.attributes.verb;
            Status::method_not_supported(&row.gvk.group, &row.plural, verb)
        }
    }
}
