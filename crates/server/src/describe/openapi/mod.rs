//! `/openapi/v2` and `/openapi/v3`.
//!
//! Documents are built when they are asked for and forgotten when they are sent: clients cache
//! them by their hashes, and the hashes are all that stays here.

mod accept;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use evenkeel_api::openapi::{self, GroupVersion, Subject};
use evenkeel_api::{Rows, Status};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::aggregation::Swagger;
use crate::door::Door;
use crate::http::{Answer, full};
use crate::pipeline::Call;
use accept::Form;

/// A year, for answers whose URL names their content.
const FOREVER: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 365);

/// The hashes of all documents. Those of built-in kinds never change; custom kinds have theirs
/// from their definitions, so that no document is built for an index.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    v3: OnceLock<HashMap<Subject, String>>,
    v2: OnceLock<String>,
}

impl Hashes {
    fn v3(&self, rows: &Rows) -> Vec<(Subject, String)> {
        let builtin = self.v3.get_or_init(|| {
            let rows = rows.with_custom(Vec::new());
            openapi::subjects(&rows)
                .into_iter()
                .map(|of| {
                    let hash = hash(|out| openapi::write_v3(&rows, &of, out));
                    (of, hash)
                })
                .collect()
        });
        let mut digests: HashMap<Subject, Vec<[u8; 32]>> = HashMap::new();
        for row in rows.iter() {
            if let Some(custom) = &row.custom {
                let of = GroupVersion {
                    group: row.gvk.group.clone(),
                    version: row.gvk.version.clone(),
                };
                let of = Subject::Kinds(of);
                digests.entry(of).or_default().push(*custom.digest());
            }
        }
        openapi::subjects(rows)
            .into_iter()
            .map(|of| {
                let own = builtin.get(&of).map(String::as_str).unwrap_or_default();
                let hash = match digests.get(&of) {
                    None => own.to_owned(),
                    Some(digests) => joined(own, digests),
                };
                (of, hash)
            })
            .collect()
    }

    fn v2(&self, rows: &Rows, swaggers: &[Arc<Swagger>]) -> String {
        let builtin = self.v2.get_or_init(|| {
            let rows = rows.with_custom(Vec::new());
            hash(|out| openapi::write_v2(&rows, &openapi::Merged::default(), out))
        });
        let mut digests: Vec<[u8; 32]> = rows
            .iter()
            .filter_map(|row| row.custom.as_ref().map(|custom| *custom.digest()))
            .collect();
        digests.extend(swaggers.iter().map(|swagger| swagger.digest));
        if digests.is_empty() {
            builtin.clone()
        } else {
            joined(builtin, &digests)
        }
    }
}

/// The hash of a document that custom kinds are part of.
fn joined(builtin: &str, digests: &[[u8; 32]]) -> String {
    hash(|out| {
        out.write_all(builtin.as_bytes())?;
        digests.iter().try_for_each(|digest| out.write_all(digest))
    })
}

/// The hash of what is written, in the reference's form: SHA-512 in upper-case hexadecimal.
fn hash(write: impl FnOnce(&mut Digest) -> io::Result<()>) -> String {
    let mut digest = Digest(ring::digest::Context::new(&ring::digest::SHA512));
    write(&mut digest).expect("a digest takes all that is written");
    digest
        .0
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

struct Digest(ring::digest::Context);

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is to be built, with the answer's head.
enum Document {
    Index,
    V3(Subject),
    V2(Form),
}

pub(super) async fn serve(door: &Arc<Door>, call: &Call, rest: &[&str]) -> Result<Answer, Status> {
    // Definitions that are written are shown: the rows are as fresh as the caches.
    door.registry().fresh().await?;
    let headers = &call.parts.headers;
    let (document, content_type) = match rest {
        ["v3"] => (Document::Index, accept::v3(headers)?),
        ["v3", path @ ..] => {
            let path = path.join("/");
            let of = openapi::subjects(&door.rows())
                .into_iter()
                .find(|of| of.path() == path)
                .ok_or_else(Status::no_such_path)?;
            (Document::V3(of), accept::v3(headers)?)
        }
        ["v2"] => {
            let form = accept::v2(headers)?;
            (Document::V2(form), form.content_type())
        }
        _ => return Err(Status::no_such_path()),
    };
    let asked = call.query.get("hash").to_owned();
    let known = known(headers);
    let (rows, hashes) = (door.rows(), Arc::clone(door.openapi()));
    // What servers behind the door have is told with the addresses that they gave.
    let mut others = Vec::new();
    for remote in door.aggregator().remotes() {
        let said = door.aggregator().learned(&remote.group, &remote.version);
        let url = said.and_then(|said| said.openapi.clone());
        others.push((remote.path().trim_start_matches('/').to_owned(), url));
    }
    // Building takes tens of milliseconds: not on a thread that serves others.
    let swaggers = door.aggregator().swaggers();
    let built = tokio::task::spawn_blocking(move || {
        let others = Others {
            indexed: &others,
            swaggers: &swaggers,
        };
        build(&rows, &hashes, others, &document, &asked, &known)
    });
    let built = built
        .await
        .map_err(|error| Status::failure(500, "InternalError", format!("OpenAPI: {error}")))?;
    Ok(answer(built, content_type, door.clock().now()))
}

/// What other servers have said.
#[derive(Clone, Copy, Default)]
struct Others<'o> {
    /// Their v3 documents: path and URL.
    indexed: &'o [(String, Option<String>)],
    /// Their parts of the v2 document, in the order in which they are merged.
    swaggers: &'o [Arc<Swagger>],
}

/// An answer without its head.
struct Built {
    code: StatusCode,
    tag: String,
    /// The URL named the content.
    named: bool,
    location: Option<String>,
    body: Vec<u8>,
}

fn build(
    rows: &Rows,
    hashes: &Hashes,
    others: Others<'_>,
    document: &Document,
    asked: &str,
    known: &[String],
) -> Built {
    let mut built = Built {
        code: StatusCode::OK,
        tag: String::new(),
        named: false,
        location: None,
        body: Vec::new(),
    };
    match document {
        Document::Index => {
            built.body = index(&hashes.v3(rows), others.indexed)
                .to_string()
                .into_bytes();
            built.tag = hash(|out| out.write_all(&built.body));
        }
        Document::V2(_) => built.tag = hashes.v2(rows, others.swaggers),
        Document::V3(of) => {
            let all = hashes.v3(rows);
            let found = all.into_iter().find(|(found, _)| found == of);
            built.tag = found.map(|(_, hash)| hash).unwrap_or_default();
            if !asked.is_empty() && asked != built.tag {
                built.code = StatusCode::MOVED_PERMANENTLY;
                built.location = Some(url(of, &built.tag));
                return built;
            }
            built.named = !asked.is_empty();
        }
    }
    if known
        .iter()
        .any(|known| known == "*" || *known == built.tag)
    {
        built.code = StatusCode::NOT_MODIFIED;
        built.body = Vec::new();
        return built;
    }
    let merged = || {
        let parts = others.swaggers.iter();
        let parts = parts.filter_map(|swagger| serde_json::from_slice(&swagger.part).ok());
        openapi::merge_v2(rows, parts.collect())
    };
    let written = match document {
        Document::Index => Ok(()),
        Document::V3(of) => openapi::write_v3(rows, of, &mut built.body),
        Document::V2(Form::Json) => openapi::write_v2(rows, &merged(), &mut built.body),
        Document::V2(Form::Protobuf) => {
            built.body = openapi::v2_protobuf(rows, &merged());
            Ok(())
        }
    };
    written.expect("memory takes all that is written");
    built
}

fn index(hashes: &[(Subject, String)], others: &[(String, Option<String>)]) -> Value {
    let mut paths: Map<String, Value> = hashes
        .iter()
        .map(|(of, hash)| (of.path(), json!({"serverRelativeURL": url(of, hash)})))
        .collect();
    for (path, url) in others {
        match url {
            Some(url) => paths.insert(path.clone(), json!({"serverRelativeURL": url})),
            None => paths.remove(path),
        };
    }
    json!({"paths": paths})
}

fn url(of: &Subject, hash: &str) -> String {
    format!("/openapi/v3/{}?hash={hash}", of.path())
}

/// The entity tags that the client has.
fn known(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| {
            tag.trim()
                .trim_start_matches("W/")
                .trim_matches('"')
                .to_owned()
        })
        .collect()
}

fn answer(built: Built, content_type: &'static str, now: jiff::Timestamp) -> Answer {
    let mut answer = Answer::new(full(built.body));
    *answer.status_mut() = built.code;
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", built.tag)) {
        headers.insert(ETAG, tag);
    }
    if let Some(Ok(location)) = built.location.map(HeaderValue::try_from) {
        headers.insert(LOCATION, location);
    }
    if built.named {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let end = now.saturating_add(FOREVER).unwrap_or(now);
        let text = end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(EXPIRES, value);
        }
    }
    answer
}

#[cfg(test)]
mod tests;
