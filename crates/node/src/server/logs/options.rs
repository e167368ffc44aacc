//! What a client wants of a log (`v1.PodLogOptions`).

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::line::LogStream;
use crate::server::backend::BackendError;
use crate::server::query::{Query, undecodable};

/// The options of `/containerLogs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    /// The last so many lines.
    pub(crate) tail: Option<u64>,
    /// Nothing older.
    pub(crate) since: Option<Timestamp>,
    /// At most so many bytes.
    pub(crate) limit: Option<u64>,
    /// One of the two streams only.
    pub(crate) stream: Option<LogStream>,
}

impl LogOptions {
    /// Reads a query; `now` turns `sinceSeconds` into a time.
    pub(crate) fn parse(query: &Query, now: Timestamp) -> Result<Self, BackendError> {
        let invalid = |message: &str| {
            BackendError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("Invalid request: {message}"),
            )
        };
        let tail = match query.number("tailLines")? {
            None => None,
            Some(lines) => Some(
                u64::try_from(lines)
                    .map_err(|_| invalid("tailLines must be greater than or equal to 0"))?,
            ),
        };
        let limit = match query.number("limitBytes")? {
            None => None,
            Some(bytes) => match u64::try_from(bytes) {
                Ok(bytes) if bytes > 0 => Some(bytes),
                _ => return Err(invalid("limitBytes must be greater than 0")),
            },
        };
        let since_time = match query.get("sinceTime") {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| undecodable("sinceTime", text))?),
        };
        let since = match (query.number("sinceSeconds")?, since_time) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            (Some(seconds), None) if seconds < 1 => {
                return Err(invalid("sinceSeconds must be greater than 0"));
            }
            (Some(seconds), None) => Some(
                now.checked_sub(SignedDuration::from_secs(seconds))
                    .unwrap_or(Timestamp::MIN),
            ),
            (None, time) => time,
        };
        let stream = match query.get("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some(LogStream::Stdout),
            Some("Stderr") => Some(LogStream::Stderr),
            Some(_) => return Err(invalid("stream must be one of All, Stdout, Stderr")),
        };
        Ok(Self {
            follow: query.boolean("follow")?,
            previous: query.boolean("previous")?,
            timestamps: query.boolean("timestamps")?,
            tail,
            since,
            limit,
            stream,
        })
    }
}
