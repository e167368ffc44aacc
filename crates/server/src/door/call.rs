//! What stands between a request and its verb, in the order of the reference: impersonation, flow
//! control, the body, authorization; and how long each of them takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::Status;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Limited};

use super::Door;
use crate::audit::Closing;
use crate::auth::{Impersonated, acts_as_another};
use crate::describe;
use crate::families;
use crate::flow;
use crate::http::{
    Answer, Attributes, Encoding, LongRunning, Media, Target, content_type, hold, is_pretty,
    status_answer, status_answer_as, warn,
};
use crate::metrics::{Labels, Outcome};
use crate::pipeline::{Call, authorize};
use crate::verbs;

/// Larger bodies are refused with 413, as by the reference.
pub const BODY_LIMIT: usize = 3 << 20;
/// A body that has not come in this time keeps no seat any longer.
const BODY_WAIT: Duration = Duration::from_secs(60);
/// The content type of configurations to be applied.
const APPLY_PATCH: &str = "application/apply-patch+yaml";

impl Door {
    /// Has a request pass what stands before its verb: who the caller acts as, the queue, the
    /// body, authorization.
    pub(super) async fn serve_call<B>(
        self: &Arc<Self>,
        mut call: Box<Call>,
        body: B,
        closing: &mut Option<Closing>,
    ) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let asked_at = tokio::time::Instant::now();
        if acts_as_another(&call.parts.headers)
            && let Err(status) = Box::pin(self.impersonate(&mut call)).await
        {
            if let Some(trail) = &call.trail {
                trail.refused(&status);
            }
            return status_answer(&status);
        }
        let took = families::nanoseconds(asked_at.elapsed());
        self.filters.impersonation.observe(took);
        let (notes, trail) = (Arc::clone(&call.notes), call.trail.clone());
        let attributes = &call.attributes;
        let patches = attributes.verb == "patch";
        let applies = patches && content_type(&call.parts.headers) == APPLY_PATCH;
        let labels = Labels::of(attributes, call.query.has("dryRun"), applies);
        let series = self.metrics.series(labels, || self.serves(attributes));
        let began = tokio::time::Instant::now();
        let writes = !matches!(attributes.verb.as_str(), "get" | "list" | "watch");
        let mut under_way = self.metrics.under_way(writes);
        let admitted = self
            .flow
            .admit(&self.registry, &call.identity, attributes, &call.query)
            .await;
        let waited = began.elapsed();
        self.filters.fairness.observe(families::nanoseconds(waited));
        let seat = match admitted {
            Ok(seat) => seat,
            Err(too_many) => {
                series.observe(Outcome {
                    code: 429,
                    took: began.elapsed(),
                    waited,
                    bytes: None,
                    dropped: true,
                });
                return too_many.answer();
            }
        };
        under_way.begin();
        let long = flow::is_long_running(attributes).then(|| {
            let watched = if attributes.verb == "watch" {
                self.flow.watched(attributes, &call.query)
            } else {
                None
            };
            // What tells of the end goes with whatever ends last.
            LongRunning::new((series.long_running(), watched, closing.take()))
        });
        if let Some(long) = &long {
            // A connection that is upgraded outlives its answer.
            call.parts.extensions.insert(long.clone());
        }
        let accept = call.parts.headers.get(http::header::ACCEPT).cloned();
        let pretty = is_pretty(&call.parts.headers, &call.query);
        let refuse = |status: &Status| {
            let encoding = match Media::of_status(accept.as_ref(), self.speaks_cbor()) {
                Encoding::Json if pretty => Encoding::Pretty,
                encoding => encoding,
            };
            status_answer_as(encoding, status)
        };
        let answering = async {
            if long.is_none() {
                flow::timeout(&call.query)?;
            }
            call.body = whole(body).await?;
            self.dispatch(call).await
        };
        let mut answer = answering.await.unwrap_or_else(|status| {
            if let Some(trail) = &trail {
                trail.refused(&status);
            }
            refuse(&status)
        });
        // Refusals too come with what there was to warn of.
        warn(&mut answer, &notes.warnings());
        if let Some(seat) = &seat {
            seat.schema().mark(answer.headers_mut());
        }
        // A watch holds its seats no longer than it takes to begin.
        drop(seat);
        series.observe(Outcome {
            code: answer.status().as_u16(),
            took: began.elapsed(),
            waited: waited + notes.waited(),
            bytes: answer.body().size_hint().exact(),
            dropped: false,
        });
        match long {
            Some(long) => hold(answer, long),
            None => answer,
        }
    }

    /// Is a request about something that is served? What is not does not get series of its own.
    fn serves(&self, asked: &Attributes) -> bool {
        let Attributes {
            group,
            version,
            resource,
            subresource,
            ..
        } = asked;
        if !asked.resource_request {
            return true;
        }
        let rows = self.rows();
        rows.by_path(group, version, resource).is_some_and(|row| {
            let mut known = row.subresources.iter();
            subresource.is_empty() || known.any(|sub| sub.as_str() == subresource)
        })
    }

    /// Has a call made by whom the caller acts as. What is refused is asked again when the caches have all
    /// that is acknowledged: the right may have been given just now.
    async fn impersonate(&self, call: &mut Call) -> Result<(), Status> {
        let take = || {
            let (headers, identity) = (&call.parts.headers, call.identity.clone());
            self.authenticator
                .impersonate(headers, identity, &call.attributes, self.authorizer())
        };
        let began = tokio::time::Instant::now();
        let taken = match take() {
            Err(status) if status.code == 403 => {
                self.registry.fresh().await?;
                take()
            }
            taken => taken,
        };
        let mode = match &taken {
            Ok(taken) if taken.constraint.is_empty() => Some("legacy"),
            Ok(taken) => taken.constraint.strip_prefix("impersonate:"),
            Err(_) => None,
        };
        self.registry
            .counted
            .impersonation_tried(mode, began.elapsed());
        let Impersonated {
            identity,
            constraint,
        } = taken?;
        if let Some(trail) = &call.trail {
            trail.impersonated(&identity, &constraint);
        }
        call.identity = identity;
        Ok(())
    }

    async fn dispatch(self: &Arc<Self>, call: Box<Call>) -> Result<Answer, Status> {
        let began = tokio::time::Instant::now();
        if let Some(preparing) = self.authorizer().prepare(&call.identity, &call.attributes) {
            preparing.await;
        }
        let call = match authorize(self.authorizer(), call) {
            Ok(call) => call,
            Err(refused) => {
                // The right may have been given by a write that is acknowledged and not yet in the
                // caches: only what is still refused after that is refused.
                self.registry.fresh().await?;
                authorize(self.authorizer(), refused.call).map_err(|refused| refused.status)?
            }
        };
        let took = families::nanoseconds(began.elapsed());
        self.filters.authorization.observe(took);
        if let Some(remote) = self.aggregator.by_path(&call.attributes.path) {
            return Box::pin(remote.pass(&self.registry, call.into_inner())).await;
        }
        match call.attributes.target() {
            Target::Resource => verbs::serve(self, call).await,
            Target::Other => Box::pin(describe::serve(self, call)).await,
        }
    }
}

/// All of a request's body.
async fn whole<B>(body: B) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let body = tokio::time::timeout(BODY_WAIT, Limited::new(body, BODY_LIMIT).collect());
    match body.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(
            format!("Request entity too large: limit is {BODY_LIMIT}"),
        )),
        Ok(Err(error)) => Err(Status::bad_request(error.to_string())),
        Err(_) => {
            let text = "Timeout: request did not complete within requested timeout";
            Err(Status::timeout(text, 0))
        }
    }
}
