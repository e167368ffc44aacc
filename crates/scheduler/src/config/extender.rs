//! Reads `extenders` of a configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::file::ConfigError;
use crate::extenders::{ExtenderConfig, Pem, TlsConfig};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileExtender {
    url_prefix: String,
    #[serde(default)]
    filter_verb: String,
    #[serde(default)]
    preempt_verb: String,
    #[serde(default)]
    prioritize_verb: String,
    #[serde(default)]
    bind_verb: String,
    #[serde(default)]
    weight: i64,
    #[serde(default, rename = "enableHTTPS")]
    enable_https: bool,
    #[serde(default)]
    tls_config: Option<FileTls>,
    #[serde(default, rename = "httpTimeout")]
    timeout: Option<String>,
    #[serde(default)]
    node_cache_capable: bool,
    #[serde(default)]
    managed_resources: Vec<Managed>,
    #[serde(default)]
    ignorable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileTls {
    #[serde(default)]
    insecure: bool,
    server_name: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cert_data: Option<String>,
    key_data: Option<String>,
    ca_data: Option<String>,
}

/// Data counts before a file, as in the reference.
fn pem(data: Option<String>, file: Option<PathBuf>) -> Option<Pem> {
    data.map(Pem::Data).or_else(|| file.map(Pem::File))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Managed {
    name: String,
    #[serde(default)]
    ignored_by_scheduler: bool,
}

/// Reads what Go writes of a duration that people write here: hours to milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        let seconds = number.parse::<f64>().ok()? * unit;
        whole = whole.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = next;
    }
    Some(whole)
}

impl FileExtender {
    /// The names of resources that the scheduler leaves to the extender.
    pub(super) fn ignored(&self) -> impl Iterator<Item = &str> {
        let managed = self.managed_resources.iter();
        managed
            .filter(|one| one.ignored_by_scheduler)
            .map(|one| one.name.as_str())
    }

    pub(super) fn read(self) -> Result<ExtenderConfig, ConfigError> {
        let url = &self.url_prefix;
        if !self.prioritize_verb.is_empty() && self.weight <= 0 {
            return Err(ConfigError::Value(format!(
                "extender {url:?}: must have a positive weight applied to it"
            )));
        }
        let timeout = match self.timeout.as_deref() {
            None => None,
            Some(text) => Some(duration(text).ok_or_else(|| {
                ConfigError::Value(format!("extender {url:?}: httpTimeout {text:?}"))
            })?),
        };
        let uri: Option<http::Uri> = url.parse().ok();
        if !uri.is_some_and(|uri| uri.scheme().is_some() && uri.host().is_some()) {
            return Err(ConfigError::Value(format!(
                "extender {url:?}: urlPrefix needs a scheme and a host"
            )));
        }
        if self.enable_https != url.starts_with("https:") {
            return Err(ConfigError::Value(format!(
                "extender {url:?}: enableHTTPS and the scheme of urlPrefix must agree"
            )));
        }
        let tls = self.tls_config.map(|tls| TlsConfig {
            insecure: tls.insecure,
            server_name: tls.server_name,
            ca: pem(tls.ca_data, tls.ca_file),
            certificate: pem(tls.cert_data, tls.cert_file),
            key: pem(tls.key_data, tls.key_file),
        });
        Ok(ExtenderConfig {
            url_prefix: self.url_prefix,
            filter_verb: self.filter_verb,
            preempt_verb: self.preempt_verb,
            prioritize_verb: self.prioritize_verb,
            bind_verb: self.bind_verb,
            weight: self.weight,
            timeout: timeout.filter(|timeout| !timeout.is_zero()),
            node_cache_capable: self.node_cache_capable,
            managed: self
                .managed_resources
                .into_iter()
                .map(|one| one.name)
                .collect(),
            ignorable: self.ignorable,
            tls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let rows = [
            ("5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("100ms", Some(100)),
            ("0.5s", Some(500)),
            ("5", None),
            ("x", None),
        ];
        for (text, wanted) in rows {
            assert_eq!(duration(text), wanted.map(Duration::from_millis), "{text}");
        }
    }
}
