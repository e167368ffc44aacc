//! Media types: what a client accepts, and what a body is.
//!
//! The order of preference is the reference's: what is named goes before wildcards, then the
//! higher quality, then what was written first. A quality of nothing is the lowest, not a refusal.

use evenkeel_api::{Status, cbor, protobuf};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};

use super::Query;

/// What is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    Object,
    /// `meta.k8s.io Table`.
    Table,
    /// `meta.k8s.io PartialObjectMetadata(List)`.
    Metadata,
    /// `apidiscovery.k8s.io APIGroupDiscoveryList`.
    Groups,
}

/// What the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// What is in it.
    pub shape: Shape,
    /// The version of that shape, where it has one of its own: old clients ask for tables and
    /// metadata of `v1beta1`.
    pub version: &'static str,
    /// How it is written.
    pub encoding: Encoding,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/json` for people: indented.
    Pretty,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `application/cbor`; watches are `application/cbor-seq`.
    Cbor,
}

/// What can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The objects have a protobuf form. Their metadata has one in any case.
    pub protobuf: bool,
    /// They can be shown as a table.
    pub table: bool,
    /// Their metadata can be shown alone.
    pub metadata: bool,
    /// It is the list of all groups.
    pub groups: bool,
    /// CBOR is spoken.
    pub cbor: bool,
    /// It is a watch: YAML can't be given piece by piece.
    pub watch: bool,
}

impl Offer {
    /// The media types that there are, for those who accept none of them.
    fn named(self) -> String {
        let end = if self.watch { ";stream=watch" } else { "" };
        let mut types = vec![format!("application/json{end}")];
        if !self.watch {
            types.push("application/yaml".to_owned());
        }
        if self.protobuf {
            types.push(format!("{}{end}", protobuf::MEDIA_TYPE));
        }
        if self.cbor {
            let cbor = if self.watch {
                cbor::SEQUENCE
            } else {
                cbor::MEDIA_TYPE
            };
            types.push(cbor.to_owned());
        }
        types.join(", ")
    }

    fn has(self, media: Media) -> bool {
        let encoded = match media.encoding {
            Encoding::Json | Encoding::Pretty => true,
            Encoding::Yaml => !self.watch,
            Encoding::Protobuf => self.protobuf || media.shape == Shape::Metadata,
            Encoding::Cbor => self.cbor,
        };
        // Tables are JSON and YAML alone: their cells are of any type.
        let shaped = match media.shape {
            Shape::Object => true,
            Shape::Metadata => self.metadata,
            Shape::Groups => self.groups,
            Shape::Table => {
                self.table && !matches!(media.encoding, Encoding::Protobuf | Encoding::Cbor)
            }
        };
        encoded && shaped
    }
}

/// One clause of an `Accept` header.
struct Clause<'h> {
    media_type: &'h str,
    parameters: &'h str,
    /// From 0 to 1, in thousandths.
    quality: u16,
}

impl<'h> Clause<'h> {
    fn all(headers: impl IntoIterator<Item = &'h HeaderValue>) -> Vec<Self> {
        let mut clauses: Vec<Self> = headers
            .into_iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .filter(|clause| !clause.trim().is_empty())
            .map(|clause| {
                let (media_type, parameters) = clause.split_once(';').unwrap_or((clause, ""));
                let mut clause = Self {
                    media_type: media_type.trim(),
                    parameters,
                    quality: 1000,
                };
                if let Some((_, value)) = clause.each().find(|(name, _)| *name == "q") {
                    clause.quality = thousandths(value);
                }
                clause
            })
            .collect();
        clauses.sort_by_key(|clause| {
            let named = match clause.media_type {
                "*" | "*/*" => 2,
                some if some.ends_with("/*") => 1,
                _ => 0,
            };
            (named, std::cmp::Reverse(clause.quality))
        });
        clauses
    }

    fn each(&self) -> impl Iterator<Item = (&'h str, &'h str)> + use<'h> {
        self.parameters
            .split(';')
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()))
    }

    /// What this clause asks for, in the encodings that its type covers.
    fn media(&self) -> Option<impl Iterator<Item = Media> + use<>> {
        let encodings: &[Encoding] = match self.media_type {
            "application/json" => &[Encoding::Json],
            "application/yaml" => &[Encoding::Yaml],
            protobuf::MEDIA_TYPE => &[Encoding::Protobuf],
            // A watch is a sequence; who asks for it by its own name means that.
            cbor::MEDIA_TYPE | cbor::SEQUENCE => &[Encoding::Cbor],
            "*" | "*/*" | "application/*" => &[
                Encoding::Json,
                Encoding::Yaml,
                Encoding::Protobuf,
                Encoding::Cbor,
            ],
            _ => return None,
        };
        let (mut kind, mut group, mut version) = ("", "", "");
        for (name, value) in self.each() {
            match name {
                "as" => kind = value,
                "g" => group = value,
                "v" => version = value,
                "stream" if !matches!(value, "" | "watch") => return None,
                "sv" if !matches!(value, "" | "v1") => return None,
                _ => {}
            }
        }
        let shape = match (kind, group) {
            ("", "") => Shape::Object,
            ("Table", "meta.k8s.io") => Shape::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => {
                Shape::Metadata
            }
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io") => Shape::Groups,
            _ => return None,
        };
        let version = match (shape, version) {
            (Shape::Object, "") | (Shape::Table | Shape::Metadata, "v1") => "v1",
            (Shape::Table | Shape::Metadata, "v1beta1") => "v1beta1",
            (Shape::Groups, "v2") => "v2",
            _ => return None,
        };
        let media = |encoding: &Encoding| Media {
            shape,
            version,
            encoding: *encoding,
        };
        Some(encodings.iter().map(media).collect::<Vec<_>>().into_iter())
    }
}

impl Media {
    /// JSON objects.
    pub const JSON: Self = Self {
        shape: Shape::Object,
        version: "v1",
        encoding: Encoding::Json,
    };

    /// The `apiVersion` of tables and metadata.
    #[must_use]
    pub fn meta_version(self) -> &'static str {
        match self.version {
            "v1beta1" => "meta.k8s.io/v1beta1",
            _ => "meta.k8s.io/v1",
        }
    }

    /// Chooses from the `Accept` header what can be given. Objects of a kind without a protobuf
    /// form are not given as protobuf; tables never are.
    ///
    /// # Errors
    /// 406 when nothing that is accepted can be given.
    pub fn negotiate(headers: &HeaderMap, offer: impl Fn() -> Offer) -> Result<Self, Status> {
        // Nearly every request: nothing to choose from.
        match headers.get(ACCEPT).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"*/*" | b"application/json") => return Ok(Self::JSON),
            Some(_) => {}
        }
        let offer = offer();
        let clauses = Clause::all(headers.get_all(ACCEPT));
        if clauses.is_empty() {
            return Ok(Self::JSON);
        }
        clauses
            .iter()
            .filter_map(Clause::media)
            .flatten()
            .find(|media| offer.has(*media))
            .ok_or_else(|| Status::not_acceptable(&offer.named()))
    }

    /// How a status is written, by the `Accept` header. Every client reads JSON: so that is what
    /// those get who accept nothing that there is.
    #[must_use]
    pub fn of_status(accept: Option<&HeaderValue>, cbor: bool) -> Encoding {
        Clause::all(accept)
            .iter()
            .filter_map(Clause::media)
            .flatten()
            .map(|media| media.encoding)
            .find(|encoding| *encoding != Encoding::Cbor || cbor)
            .unwrap_or(Encoding::Json)
    }
}

/// Whether JSON is to be read by a person: asked for, or the agent is a browser or a tool of the
/// command line.
#[must_use]
pub fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.has("pretty") {
        return matches!(
            query.get("pretty"),
            "1" | "t" | "T" | "true" | "TRUE" | "True"
        );
    }
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|tool| agent.is_some_and(|agent| agent.starts_with(tool.as_bytes())))
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

    const ALL: Offer = Offer {
        protobuf: true,
        table: true,
        metadata: true,
        groups: false,
        cbor: false,
        watch: false,
    };

    fn accept(text: &'static str, offer: Offer) -> Result<(Shape, Encoding), String> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(text));
        Media::negotiate(&headers, || offer)
            .map(|media| (media.shape, media.encoding))
            .map_err(|status| {
                assert_eq!(
                    (status.code, status.reason.as_str()),
                    (406, "NotAcceptable")
                );
                status.message
            })
    }

    fn object(encoding: Encoding) -> Result<(Shape, Encoding), String> {
        Ok((Shape::Object, encoding))
    }

    #[test]
    fn kubectl_gets_tables_and_others_json() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl, ALL), Ok((Shape::Table, Encoding::Json)));
        assert_eq!(accept("*/*", ALL), object(Encoding::Json));
        assert_eq!(Media::negotiate(&HeaderMap::new(), || ALL), Ok(Media::JSON));
    }

    #[test]
    fn old_clients_get_the_version_that_they_ask_for() {
        let version = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let media = Media::negotiate(&headers, || ALL).map_err(|status| status.code)?;
            Ok((media.shape, media.version, media.meta_version()))
        };
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let beta = "meta.k8s.io/v1beta1";
        assert_eq!(version(old), Ok((Shape::Table, "v1beta1", beta)));
        let old = "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io";
        assert_eq!(version(old), Ok((Shape::Metadata, "v1beta1", beta)));
        let none = "application/json;as=Table;v=v1alpha1;g=meta.k8s.io";
        assert_eq!(version(none), Err(406));
    }

    #[test]
    fn the_list_of_groups_is_for_those_who_name_its_version() {
        let offer = Offer {
            table: false,
            metadata: false,
            groups: true,
            cbor: true,
            ..ALL
        };
        let groups = |encoding| Ok((Shape::Groups, encoding));
        for (header, expected) in [
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                groups(Encoding::Json),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                object(Encoding::Json),
            ),
            (
                "application/cbor;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                groups(Encoding::Cbor),
            ),
            ("application/cbor", object(Encoding::Cbor)),
            (
                "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                groups(Encoding::Protobuf),
            ),
        ] {
            assert_eq!(accept(header, offer), expected, "{header}");
        }
        assert!(accept("application/json;as=Table;g=meta.k8s.io;v=v1", offer).is_err());
    }

    #[test]
    fn quality_decides_among_what_is_named() {
        for (header, encoding) in [
            ("application/json;q=0.5,application/yaml", Encoding::Yaml),
            (
                "application/json;q=0.5, application/yaml;q=0.25",
                Encoding::Json,
            ),
            (
                "application/json;q=0.811,application/yaml;q=0.812",
                Encoding::Yaml,
            ),
            ("application/yaml,application/json", Encoding::Yaml),
            ("application/yaml;q=0,application/json", Encoding::Json),
            ("*/*,application/yaml;q=0.1", Encoding::Yaml),
            ("application/*;q=0.9,application/yaml;q=0.1", Encoding::Yaml),
            ("text/html,*/*;q=0.8", Encoding::Json),
            ("application/json; charset=utf-8", Encoding::Json),
            (" application/yaml ; q = 1 ", Encoding::Yaml),
        ] {
            assert_eq!(accept(header, ALL), object(encoding), "{header}");
        }
    }

    #[test]
    fn go_clients_get_protobuf_where_there_is_a_form() {
        let none = Offer {
            protobuf: false,
            ..ALL
        };
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(go, ALL), object(Encoding::Protobuf));
        assert_eq!(accept(go, none), object(Encoding::Json));
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf", none),
            Err(
                "only the following media types are accepted: application/json, application/yaml"
                    .to_owned()
            )
        );
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(
            accept(metadata, none),
            Ok((Shape::Metadata, Encoding::Protobuf))
        );
        let table =
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(accept(table, ALL), object(Encoding::Json));
    }

    #[test]
    fn what_can_not_be_given_is_refused() {
        let no_table = Offer {
            table: false,
            ..ALL
        };
        let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
        assert!(accept(table, no_table).is_err());
        let watch = Offer { watch: true, ..ALL };
        assert_eq!(
            accept("application/yaml", watch),
            Err(
                "only the following media types are accepted: application/json;stream=watch, \
                 application/vnd.kubernetes.protobuf;stream=watch"
                    .to_owned()
            )
        );
        assert!(accept("text/plain", ALL).is_err());
        assert!(accept("application/json;stream=other", watch).is_err());
    }

    #[test]
    fn cbor_is_given_where_it_is_spoken() {
        let on = Offer { cbor: true, ..ALL };
        assert!(accept("application/cbor", ALL).is_err());
        assert_eq!(accept("application/cbor", on), object(Encoding::Cbor));
        let go = "application/cbor,application/json;q=0.9";
        assert_eq!(accept(go, on), object(Encoding::Cbor));
        assert_eq!(accept(go, ALL), object(Encoding::Json));
        let watch = Offer { watch: true, ..on };
        let sequence = "application/cbor-seq";
        assert_eq!(accept(sequence, watch), object(Encoding::Cbor));
        let header = HeaderValue::from_static("application/cbor,application/json");
        assert_eq!(Media::of_status(Some(&header), true), Encoding::Cbor);
        assert_eq!(Media::of_status(Some(&header), false), Encoding::Json);
        let table = "application/cbor;as=Table;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(accept(table, on), object(Encoding::Json));
    }
}
