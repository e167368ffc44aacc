//! The reference's `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::provider::{Cbc, Gcm, Provider, Secretbox};
use super::{Rule, SealError};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not YAML of this form.
    #[error("not an EncryptionConfiguration: {0}")]
    Unreadable(String),
    /// A value in it is wrong.
    #[error("{at}: {what}")]
    Wrong {
        /// Where, as a path of fields.
        at: String,
        /// What.
        what: String,
    },
    /// The key of the first start.
    #[error(transparent)]
    Key(#[from] SealError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderConfig {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Identity>,
    kms: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

fn wrong<T>(at: impl Into<String>, what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Wrong {
        at: at.into(),
        what: what.into(),
    })
}

/// Reads a configuration.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, ConfigError> {
    // The first line of the error says place and fault; the rest quotes the file, secrets and all.
    let config: Configuration = serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        ConfigError::Unreadable(first.to_owned())
    })?;
    if config.api_version != "apiserver.config.k8s.io/v1" {
        return wrong("apiVersion", "must be apiserver.config.k8s.io/v1");
    }
    if config.kind != "EncryptionConfiguration" {
        return wrong("kind", "must be EncryptionConfiguration");
    }
    if config.resources.is_empty() {
        return wrong("resources", "must name at least one set of resources");
    }
    let mut rules: Vec<Rule> = Vec::new();
    for (index, set) in config.resources.into_iter().enumerate() {
        let at = format!("resources[{index}]");
        if set.resources.is_empty() {
            return wrong(format!("{at}.resources"), "must not be empty");
        }
        for resource in &set.resources {
            check_resource(resource, &at)?;
            let hidden = rules
                .iter()
                .any(|rule| rule.covers(resource) || rule.resources.contains(resource));
            if hidden {
                return wrong(
                    format!("{at}.resources"),
                    format!("{resource:?} is covered by a set before it"),
                );
            }
        }
        if set.providers.is_empty() {
            return wrong(format!("{at}.providers"), "must not be empty");
        }
        let providers = set
            .providers
            .into_iter()
            .enumerate()
            .map(|(index, config)| provider(config, &format!("{at}.providers[{index}]")))
            .collect::<Result<_, _>>()?;
        rules.push(Rule {
            resources: set.resources,
            providers,
        });
    }
    Ok(rules)
}

fn check_resource(resource: &str, at: &str) -> Result<(), ConfigError> {
    let at = format!("{at}.resources");
    if resource.contains('/') {
        return wrong(at, format!("{resource:?}: subresources are not stored"));
    }
    if resource != resource.to_lowercase() || resource.is_empty() {
        return wrong(at, format!("{resource:?}: must be in lower case"));
    }
    if resource == "*" || (resource.contains('*') && !resource.starts_with("*.")) {
        return wrong(at, format!("{resource:?}: use *.GROUP, *. or *.*"));
    }
    Ok(())
}

fn provider(config: ProviderConfig, at: &str) -> Result<Provider, ConfigError> {
    let ProviderConfig {
        aesgcm,
        aescbc,
        secretbox,
        identity,
        kms,
    } = config;
    if kms.is_some() {
        return wrong(
            format!("{at}.kms"),
            "key management services are not supported; use secretbox or aesgcm",
        );
    }
    let given = usize::from(aesgcm.is_some())
        + usize::from(aescbc.is_some())
        + usize::from(secretbox.is_some())
        + usize::from(identity.is_some());
    if given != 1 {
        return wrong(
            at,
            "must be exactly one of aesgcm, aescbc, secretbox, identity",
        );
    }
    if let Some(config) = aesgcm {
        let sizes = "16 or 32 bytes (24 are not supported)";
        return keys(config, &format!("{at}.aesgcm"), sizes, Gcm::new).map(Provider::Gcm);
    }
    if let Some(config) = aescbc {
        let sizes = "16, 24 or 32 bytes";
        return keys(config, &format!("{at}.aescbc"), sizes, Cbc::new).map(Provider::Cbc);
    }
    if let Some(config) = secretbox {
        let at = format!("{at}.secretbox");
        return keys(config, &at, "32 bytes", Secretbox::new).map(Provider::Secretbox);
    }
    Ok(Provider::Identity)
}

fn keys<K>(
    config: Keys,
    at: &str,
    sizes: &str,
    make: impl Fn(&str, &[u8]) -> Option<K>,
) -> Result<Vec<K>, ConfigError> {
    if config.keys.is_empty() {
        return wrong(format!("{at}.keys"), "must not be empty");
    }
    let mut names = std::collections::BTreeSet::new();
    let mut made = Vec::new();
    for (index, key) in config.keys.into_iter().enumerate() {
        let at = format!("{at}.keys[{index}]");
        if key.name.is_empty() || key.name.contains(':') {
            return wrong(format!("{at}.name"), "must be set, and without a colon");
        }
        if !names.insert(key.name.clone()) {
            return wrong(
                format!("{at}.name"),
                format!("{:?} is there twice", key.name),
            );
        }
        let Ok(secret) = STANDARD.decode(key.secret.trim()) else {
            return wrong(format!("{at}.secret"), "must be in base64");
        };
        match make(&key.name, &secret) {
            Some(key) => made.push(key),
            None => return wrong(format!("{at}.secret"), format!("must be of {sizes}")),
        }
    }
    Ok(made)
}
