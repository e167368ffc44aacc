//! `/statusz` and `/flagz`: what this process is and how it was started, for a person who looks for a
//! fault. Programs ask for one of the forms that have a version.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use evenkeel_api::{Status, clock};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::RELEASE;
use crate::http::{Answer, answer, full, json, text};

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";
const GROUP: &str = "config.k8s.io";
const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];
/// What a person may look at next.
const PATHS: [&str; 7] = [
    "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version",
];

/// What the pages tell.
#[derive(Debug)]
pub(crate) struct Pages {
    began: Timestamp,
    flags: OnceLock<BTreeMap<String, String>>,
}

impl Pages {
    pub(crate) fn new(began: Timestamp) -> Self {
        Self {
            began,
            flags: OnceLock::new(),
        }
    }

    /// Whoever composes the process says once what it was started with.
    pub(crate) fn tell_flags(&self, flags: BTreeMap<String, String>) {
        // Told twice it is the same: a process is started once.
        self.flags.set(flags).ok();
    }
}

/// The form of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json(&'static str),
    Yaml(&'static str),
}

/// The first form that the client takes of a kind: objects have to be named with their version.
fn form(headers: &HeaderMap, kind: &str) -> Option<Form> {
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    if accept.is_empty() {
        return Some(Form::Text);
    }
    accept.into_iter().find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let given: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        let version = VERSIONS
            .into_iter()
            .find(|version| given.get("v") == Some(version))
            .filter(|_| given.get("as") == Some(&kind) && given.get("g") == Some(&GROUP));
        match (media, version) {
            ("text/plain" | "text/*" | "*/*", _) => Some(Form::Text),
            ("application/json", Some(version)) => Some(Form::Json(version)),
            ("application/yaml", Some(version)) => Some(Form::Yaml(version)),
            _ => None,
        }
    })
}

fn shown(
    headers: &HeaderMap,
    kind: &str,
    plain: impl FnOnce() -> String,
    object: impl FnOnce() -> Value,
) -> Result<Answer, Status> {
    let built = |version: &str| {
        let mut object = object();
        object["kind"] = kind.into();
        object["apiVersion"] = format!("{GROUP}/{version}").into();
        object["metadata"] = json!({"name": "apiserver"});
        object
    };
    Ok(match form(headers, kind) {
        Some(Form::Text) => text(StatusCode::OK, plain()),
        Some(Form::Json(version)) => json(StatusCode::OK, &built(version)),
        Some(Form::Yaml(version)) => {
            let text = serde_saphyr::to_string(&built(version)).unwrap_or_default();
            answer(StatusCode::OK, "application/yaml", full(text))
        }
        None => {
            let media = "application/json, application/yaml, text/plain";
            return Err(Status::not_acceptable(media));
        }
    })
}

pub(super) fn statusz(
    pages: &Pages,
    now: Timestamp,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let up = now.duration_since(pages.began).as_secs().max(0);
    let plain = || {
        let began = pages.began.strftime("%a %b %e %H:%M:%S UTC %Y");
        let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
        let paths = PATHS.join(" ");
        format!(
            "\napiserver statusz\n{WARNING}\n\nStarted: {began}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nGo version: none\nBinary version: {RELEASE}\nEmulation version: {RELEASE}\nPaths: {paths}\n"
        )
    };
    shown(headers, "Statusz", plain, || {
        json!({
            "startTime": clock::rfc3339(pages.began), "uptimeSeconds": up, "goVersion": "none",
            "binaryVersion": RELEASE, "emulationVersion": RELEASE, "paths": PATHS,
        })
    })
}

pub(super) fn flagz(pages: &Pages, headers: &HeaderMap) -> Result<Answer, Status> {
    let flags = pages.flags.get().cloned().unwrap_or_default();
    let plain = || {
        let lines: String = flags
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        format!("\napiserver flagz\n{WARNING}\n{lines}")
    };
    shown(headers, "Flagz", plain, || json!({"flags": flags}))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asking(accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers
    }

    #[test]
    fn objects_are_asked_for_by_kind_and_version() {
        let of = |accept| form(&asking(accept), "Statusz");
        assert_eq!(form(&HeaderMap::new(), "Statusz"), Some(Form::Text));
        assert_eq!(of("*/*"), Some(Form::Text));
        assert_eq!(of("application/json"), None);
        let named = "application/json;as=Statusz;v=v1beta1;g=config.k8s.io";
        assert_eq!(of(named), Some(Form::Json("v1beta1")));
        assert_eq!(form(&asking(named), "Flagz"), None);
        let unknown = "application/json;as=Statusz;v=v1;g=config.k8s.io, text/plain";
        assert_eq!(of(unknown), Some(Form::Text));
    }

    #[test]
    fn a_process_tells_how_long_it_runs_and_by_which_flags() {
        let began: Timestamp = "2026-11-22T22:00:05Z".parse().expect("a time");
        let now = "2026-11-22T23:21:42Z".parse().expect("a time");
        let pages = Pages::new(began);
        pages.tell_flags([("listen".to_owned(), "x".to_owned())].into());
        let answer = statusz(&pages, now, &asking("text/html"));
        assert_eq!(answer.map_err(|status| status.code).err(), Some(406));
        let found = statusz(&pages, now, &asking("*/*")).expect("an answer");
        assert_eq!(found.status(), 200);
        let found = flagz(&pages, &asking("*/*")).expect("an answer");
        assert_eq!(found.headers()["content-type"], "text/plain; charset=utf-8");
    }
}
