//! Media types: what a client accepts, and what a body is.

use evenkeel_api::{Status, protobuf};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

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
    /// How it is written.
    pub encoding: Encoding,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

const OFFERED: &str = "application/json, application/yaml";

impl Media {
    /// JSON objects.
    pub const JSON: Self = Self {
        shape: Shape::Object,
        encoding: Encoding::Json,
    };

    /// Chooses from the `Accept` header, by quality and then by order. Objects of a kind without
    /// a protobuf form are not given as protobuf; tables never are.
    ///
    /// # Errors
    /// 406 when nothing that is accepted can be given.
    pub fn negotiate(headers: &HeaderMap, has_protobuf: impl Fn() -> bool) -> Result<Self, Status> {
        let mut best: Option<(u16, Self)> = None;
        let mut any = false;
        for value in headers.get_all(ACCEPT) {
            for clause in value.to_str().unwrap_or_default().split(',') {
                any |= !clause.trim().is_empty();
                if let Some((quality, media)) = Self::clause(clause) {
                    let given = media.encoding != Encoding::Protobuf
                        || media.shape == Shape::Metadata
                        || (media.shape == Shape::Object && has_protobuf());
                    if quality > 0 && given && best.is_none_or(|(found, _)| quality > found) {
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

    /// How a status is written, by the `Accept` header. Every client reads JSON, so that nothing
    /// else is looked for but whether it would rather have protobuf.
    #[must_use]
    pub fn of_status(accept: Option<&HeaderValue>) -> Encoding {
        let mut best = (0, Encoding::Json);
        let text = accept
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        for (quality, media) in text.split(',').filter_map(Self::clause) {
            if quality > best.0 {
                best = (quality, media.encoding);
            }
        }
        best.1
    }

    fn clause(clause: &str) -> Option<(u16, Self)> {
        let mut parts = clause.split(';').map(str::trim);
        let encoding = match parts.next()? {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            protobuf::MEDIA_TYPE => Encoding::Protobuf,
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
        Some((quality, Self { shape, encoding }))
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
    use super::*;

    fn accept(text: &'static str, has_protobuf: bool) -> Result<(Shape, Encoding), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(text));
        Media::negotiate(&headers, || has_protobuf)
            .map(|media| (media.shape, media.encoding))
            .map_err(|status| status.code)
    }

    #[test]
    fn kubectl_gets_tables_and_others_json() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl, true), Ok((Shape::Table, Encoding::Json)));
        let yaml = accept("application/json;q=0.5,application/yaml", true);
        assert_eq!(yaml, Ok((Shape::Object, Encoding::Yaml)));
        assert_eq!(accept("*/*", true), Ok((Shape::Object, Encoding::Json)));
        assert_eq!(
            Media::negotiate(&HeaderMap::new(), || true),
            Ok(Media::JSON)
        );
    }

    #[test]
    fn go_clients_get_protobuf_where_there_is_a_form() {
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(go, true), Ok((Shape::Object, Encoding::Protobuf)));
        assert_eq!(accept(go, false), Ok((Shape::Object, Encoding::Json)));
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf", false),
            Err(406)
        );
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(
            accept(metadata, false),
            Ok((Shape::Metadata, Encoding::Protobuf))
        );
        let table =
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(accept(table, true), Ok((Shape::Object, Encoding::Json)));
    }
}
