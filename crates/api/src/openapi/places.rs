//! Documents of paths that belong to no version of a group: what there is, which release this is,
//! and how tokens of service accounts are checked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::version::Info;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::operation::{JSON, Operation, group_prefix, tag};
use super::schemas;
use crate::row::{Rows, Text};

/// A path that belongs to no version of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The issuer of tokens of service accounts.
    Issuer,
    /// Versions of the core group.
    CoreVersions,
    /// All other groups.
    Groups,
    /// One of them.
    Group(Text),
    /// The keys that tokens of service accounts are signed with.
    Keys,
    /// The release.
    Version,
}

/// All of them. Groups of custom kinds have documents by version alone.
pub(super) fn all(rows: &Rows) -> Vec<Place> {
    let mut all = vec![
        Place::Issuer,
        Place::CoreVersions,
        Place::Groups,
        Place::Keys,
        Place::Version,
    ];
    let builtin = super::group_versions(&rows.with_custom(Vec::new()));
    let groups = builtin.into_iter().map(|of| of.group);
    all.extend(groups.filter(|group| !group.is_empty()).map(Place::Group));
    all.sort();
    all.dedup();
    all
}

impl Place {
    /// Its path, without the slashes at its ends.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Issuer => ".well-known/openid-configuration".to_owned(),
            Self::CoreVersions => "api".to_owned(),
            Self::Groups => "apis".to_owned(),
            Self::Group(group) => format!("apis/{group}"),
            Self::Keys => "openid/v1/jwks".to_owned(),
            Self::Version => "version".to_owned(),
        }
    }

    /// The path as documents name it, and what can be done there.
    pub(super) fn item(&self) -> (String, Value) {
        let found = |kind| vec![(200, Some(schemas::meta(kind)))];
        let plain = |produces| Operation {
            produces: vec![produces],
            answers: vec![(200, None)],
            ..Operation::default()
        };
        let (id, tag, description, operation) = match self {
            Self::Issuer => (
                "getServiceAccountIssuerOpenIDConfiguration".to_owned(),
                "WellKnown".to_owned(),
                "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
                plain(JSON),
            ),
            Self::Keys => (
                "getServiceAccountIssuerOpenIDKeyset".to_owned(),
                "openid".to_owned(),
                "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
                plain("application/jwk-set+json"),
            ),
            Self::Version => (
                "getCodeVersion".to_owned(),
                "version".to_owned(),
                "get the version information for this server",
                Operation {
                    answers: vec![(200, Some(schemas::VERSION.to_owned()))],
                    ..plain(JSON)
                },
            ),
            Self::CoreVersions => (
                "getCoreAPIVersions".to_owned(),
                "core".to_owned(),
                "get available API versions",
                Operation::in_all_forms(found("APIVersions")),
            ),
            Self::Groups => (
                "getAPIVersions".to_owned(),
                "apis".to_owned(),
                "get available API versions",
                Operation::in_all_forms(found("APIGroupList")),
            ),
            Self::Group(group) => (
                format!("get{}APIGroup", group_prefix(group)),
                tag(group),
                "get information of a group",
                Operation::in_all_forms(found("APIGroup")),
            ),
        };
        let operation = Operation {
            id,
            tag,
            description: description.to_owned(),
            ..operation
        };
        (
            format!("/{}/", self.path()),
            json!({"get": operation.build()}),
        )
    }

    /// Adds the types of its answers.
    pub(super) fn types(&self, generator: &mut SchemaGenerator) {
        match self {
            Self::Issuer | Self::Keys => {}
            Self::CoreVersions => drop(generator.subschema_for::<meta::APIVersions>()),
            Self::Groups => drop(generator.subschema_for::<meta::APIGroupList>()),
            Self::Group(_) => drop(generator.subschema_for::<meta::APIGroup>()),
            Self::Version => drop(generator.subschema_for::<Info>()),
        }
    }
}
