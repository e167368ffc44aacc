//! Media types: what a client accepts, and what a body is.

use evenkeel_api::Status;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// What is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    Object,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata(List)`.
    Metadata,
}

/// What the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// What is in it.
    pub shape: Shape,
    /// YAML rather than JSON.
    pub yaml: bool,
}

const OFFERED: &str = "application/json, application/yaml";

impl Media {
    /// JSON objects.
    pub const JSON: Self = Self { shape: Shape::Object, yaml: false };

    /// Chooses from the `Accept` header, by quality and then by order.
    ///
    /// # Errors
    /// 406 when nothing that is accepted can be given.
    pub fn negotiate(headers: &HeaderMap) -> Result<Self, Status> {
        let mut best: Option<(u16, Self)> = None;
        let mut any = false;
        for value in headers.get_all(ACCEPT) {
            for clause in value.to_str().unwrap_or_default().split(',') {
                any |= !clause.trim().is_empty();
                if let Some((quality, media)) = Self::clause(clause) {
                    if quality > 0 && best.is_none_or(|(found, _)| quality > found) {
                        best = Some((quality, media));
                    }
                }
            }
        }
        match best {
            Some((_, media)) => Ok(media),
            None if !any => Ok(Self::JSON),
            None => Err(Status::not_acceptable(OFFERED)),
        }
    }

    fn clause(clause: &str) -> Option<(u16, Self)> {
        let mut parts = clause.split(';').map(str::trim);
        let yaml = match parts.next()? {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let (mut quality, mut kind, mut group, mut version) = (1000, "", "", "");
        for part in parts {
            match part.split_once('=').unwrap_or((part, "")) {
                ("q", value) => quality = thousandths(value),
                ("as", value) => kind = value,
                ("g", value) => group = value,
                ("v", value) => version = value,
                _ => {}
            }
        }
        let shape = match (kind, group, version) {
            ("", _, _) => Shape::Object,
            ("Table", "meta.k8s.io", "v1") => Shape::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Shape::Metadata
            }
            _ => return None,
        };
        Some((quality, Self { shape, yaml }))
    }
}

fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole == "1" {
        return 1000;
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    digits.parse().unwrap_or(0)
}

/// The media type of a request body, without parameters.
#[must_use]
pub fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accept(text: &'static str) -> Result<Media, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(text));
        Media::negotiate(&headers).map_err(|status| status.code)
    }

    #[test]
    fn kubectl_gets_tables_and_others_json() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl).map(|media| media.shape), Ok(Shape::Table));
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(go), Ok(Media::JSON));
        assert_eq!(accept("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(accept("application/json;q=0.5,application/yaml").map(|media| media.yaml), Ok(true));
        assert_eq!(accept("*/*"), Ok(Media::JSON));
        assert_eq!(Media::negotiate(&HeaderMap::new()), Ok(Media::JSON));
    }
}
