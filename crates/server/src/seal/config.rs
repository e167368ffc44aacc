//! The reference's `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::kms::Kms;
use super::provider::{Cbc, Gcm, Provider, Secretbox};
use super::{Rule, SealError};

/// How long a key management service may take if nothing is said.
const SERVICE_WITHIN: Duration = Duration::from_secs(3);

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
    /// A key management service of a changed configuration does not work.
    #[error("{0}")]
    Unhealthy(String),
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
    kms: Option<KmsConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KmsConfig {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    name: String,
    /// The reference's spelling.
    cachesize: Option<i64>,
    #[serde(default)]
    endpoint: String,
    timeout: Option<String>,
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
pub(crate) fn parse(text: &str) -> Result<Vec<Rule>, ConfigError> {
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
    let mut services = BTreeSet::new();
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
            .map(|(index, config)| {
                let at = format!("{at}.providers[{index}]");
                provider(config, &at, &mut services)
            })
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

fn provider(
    config: ProviderConfig,
    at: &str,
    services: &mut BTreeSet<String>,
) -> Result<Provider, ConfigError> {
    let ProviderConfig {
        aesgcm,
        aescbc,
        secretbox,
        identity,
        kms,
    } = config;
    let given = usize::from(aesgcm.is_some())
        + usize::from(aescbc.is_some())
        + usize::from(secretbox.is_some())
        + usize::from(identity.is_some())
        + usize::from(kms.is_some());
    if given != 1 {
        return wrong(
            at,
            "must be exactly one of aesgcm, aescbc, secretbox, kms, identity",
        );
    }
    if let Some(config) = aesgcm {
        let sizes = "16, 24 or 32 bytes";
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
    if let Some(config) = kms {
        return service(config, &format!("{at}.kms"), services)
            .map(|service| Provider::Kms(Arc::new(service)));
    }
    Ok(Provider::Identity)
}

/// A key management service; `names` are those there have been.
fn service(config: KmsConfig, at: &str, names: &mut BTreeSet<String>) -> Result<Kms, ConfigError> {
    let KmsConfig {
        api_version,
        name,
        cachesize,
        endpoint,
        timeout,
    } = config;
    // Without a version it is v1, as there.
    if matches!(api_version.as_str(), "" | "v1") {
        return wrong(
            format!("{at}.apiVersion"),
            "KMSv1 is deprecated and not supported; use v2",
        );
    }
    if api_version != "v2" {
        let at = format!("{at}.apiVersion");
        return wrong(at, format!("{api_version:?}: must be v2"));
    }
    if name.is_empty() || name.contains(':') {
        return wrong(format!("{at}.name"), "must be set, and without a colon");
    }
    if !names.insert(name.clone()) {
        let at = format!("{at}.name");
        return wrong(at, format!("{name:?}: names must be unique"));
    }
    if cachesize.is_some() {
        let at = format!("{at}.cachesize");
        return wrong(at, "cachesize is not supported in v2");
    }
    let within = timeout.as_deref().map_or(Some(SERVICE_WITHIN), duration);
    let Some(within) = within.filter(|within| !within.is_zero()) else {
        return wrong(format!("{at}.timeout"), "should be a positive value");
    };
    let at = format!("{at}.endpoint");
    if !endpoint.starts_with("unix://") {
        return wrong(at, format!("{endpoint:?}: must be unix:///PATH"));
    }
    Kms::new(&name, &endpoint, within).or_else(|why| wrong(at, why))
}

/// A duration as Go writes it, of hours, minutes, seconds and milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut all = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        all += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(all).ok()
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
    let mut names = BTreeSet::new();
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
