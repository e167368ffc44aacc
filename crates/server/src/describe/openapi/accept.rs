//! Which form of a document a client accepts.

use evenkeel_api::Status;
use http::HeaderMap;
use http::header::ACCEPT;

const JSON: &str = "application/json";
/// What answers are called, whichever of the two names was asked for.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The older name, which is no valid media type; kubectl still asks by it.
const PROTOBUF_BY_OLD_NAME: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The form of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Protobuf,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }
}

/// Chooses the form of the v2 document.
///
/// # Errors
/// 406 when none is accepted.
pub(super) fn v2(headers: &HeaderMap) -> Result<Form, Status> {
    choose(headers, |media| match media {
        JSON | "*/*" | "application/*" => Some(Form::Json),
        PROTOBUF | PROTOBUF_BY_OLD_NAME => Some(Form::Protobuf),
        _ => None,
    })
    .ok_or_else(|| Status::not_acceptable(&format!("{JSON}, {PROTOBUF}")))
}

/// The v3 documents have one form.
///
/// # Errors
/// 406 when it is not accepted.
pub(super) fn v3(headers: &HeaderMap) -> Result<&'static str, Status> {
    choose(headers, |media| {
        matches!(media, JSON | "*/*" | "application/*").then_some(JSON)
    })
    .ok_or_else(|| Status::not_acceptable(JSON))
}

/// The offered form of the highest quality; among equals the first.
fn choose<T>(headers: &HeaderMap, offered: impl Fn(&str) -> Option<T>) -> Option<T> {
    let clauses: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .collect();
    if clauses.is_empty() {
        return offered("*/*");
    }
    let mut best: Option<(f32, T)> = None;
    for clause in clauses {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |text| text.parse().unwrap_or(0.0));
        if quality <= 0.0 || best.as_ref().is_some_and(|(found, _)| *found >= quality) {
            continue;
        }
        if let Some(form) = offered(&media) {
            best = Some((quality, form));
        }
    }
    best.map(|(_, form)| form)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers
    }

    #[test]
    fn forms_are_chosen_by_quality_and_order() {
        let v2 = |accept| v2(&headers(accept)).map_err(|status| status.code);
        assert_eq!(v2(PROTOBUF_BY_OLD_NAME), Ok(Form::Protobuf));
        assert_eq!(v2(PROTOBUF), Ok(Form::Protobuf));
        assert_eq!(
            v2(
                "application/json;q=0.5, application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
            ),
            Ok(Form::Protobuf)
        );
        assert_eq!(v2("application/json, */*"), Ok(Form::Json));
        assert_eq!(v2("*/*"), Ok(Form::Json));
        assert_eq!(v2("text/html"), Err(406));
        assert_eq!(super::v2(&HeaderMap::new()).ok(), Some(Form::Json));
    }

    #[test]
    fn v3_is_json_or_nothing() {
        let v3 = |accept| v3(&headers(accept)).map_err(|status| status.code);
        let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
        assert_eq!(v3(protobuf), Err(406));
        assert_eq!(
            v3("application/com.github.proto-openapi.spec.v3@v1.0+protobuf, application/json"),
            Ok(JSON)
        );
        assert_eq!(v3("application/json"), Ok(JSON));
    }
}
