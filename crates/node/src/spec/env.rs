//! A container's environment, in the order and with the texts of kubelet.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Secret};

use super::expand::expand;
use super::fields::{FieldError, NodeFacts, field, resource};
use crate::pod::model::PodModel;

/// What a container's environment refers to. `None`: it does not exist.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// By name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// By name.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// Why an environment can't be made; shown as `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A referenced object is missing.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A referenced key is missing.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Of the pod.
        namespace: String,
        /// Of the object.
        name: String,
        /// What was asked for.
        key: String,
    },
    /// A downward reference has no value.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A source that this agent does not have.
    #[error("env {0}: fileKeyRef is not supported by this node")]
    FileKey(String),
}

/// Names of the config maps and secrets that a container's environment refers to.
#[must_use]
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref())
    {
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    for list in [&mut maps, &mut secrets] {
        list.sort();
        list.dedup();
    }
    (maps, secrets)
}

/// The environment of a container.
///
/// # Errors
/// When something that is not optional is missing.
pub fn environment(
    model: &PodModel,
    container: &Container,
    facts: &NodeFacts,
    sources: &Sources,
    services: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut vars: BTreeMap<String, String> = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources
                .config_maps
                .get(&reference.name)
                .and_then(Option::as_ref)
            {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        insert(&mut vars, format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources
                .secrets
                .get(&reference.name)
                .and_then(Option::as_ref)
            {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let text = String::from_utf8_lossy(&value.0).into_owned();
                        insert(&mut vars, format!("{prefix}{key}"), text);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("secret", &reference.name)),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let given = var.value.as_deref().unwrap_or_default();
        let value = if !given.is_empty() {
            Some(expand(given, |name| {
                vars.get(name).or_else(|| services.get(name)).cloned()
            }))
        } else if let Some(source) = &var.value_from {
            from_source(model, container, facts, sources, &var.name, source)?
        } else {
            Some(String::new())
        };
        if let Some(value) = value {
            vars.insert(var.name.clone(), value);
        }
    }
    for (name, value) in services {
        vars.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(vars.into_iter().collect())
}

/// Names from `envFrom` that can't be variables are left out, as kubelet does.
fn insert(vars: &mut BTreeMap<String, String>, name: String, value: String) {
    if !name.is_empty()
        && name
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
    {
        vars.insert(name, value);
    }
}

fn from_source(
    model: &PodModel,
    container: &Container,
    facts: &NodeFacts,
    sources: &Sources,
    name: &str,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    if let Some(reference) = &source.field_ref {
        return Ok(Some(field(model, facts, &reference.field_path)?));
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(resource(model, facts, Some(container), reference)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = sources
            .config_maps
            .get(&reference.name)
            .and_then(Option::as_ref)
        else {
            return missing(optional, not_found("configmap", &reference.name));
        };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing(
                optional,
                no_key("ConfigMap", model, &reference.name, &reference.key),
            ),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = sources
            .secrets
            .get(&reference.name)
            .and_then(Option::as_ref)
        else {
            return missing(optional, not_found("secret", &reference.name));
        };
        return match secret
            .data
            .as_ref()
            .and_then(|data| data.get(&reference.key))
        {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => missing(
                optional,
                no_key("Secret", model, &reference.name, &reference.key),
            ),
        };
    }
    if source.file_key_ref.is_some() {
        return Err(EnvError::FileKey(name.to_owned()));
    }
    Ok(Some(String::new()))
}

fn missing(optional: bool, error: EnvError) -> Result<Option<String>, EnvError> {
    if optional { Ok(None) } else { Err(error) }
}

fn not_found(kind: &'static str, name: &str) -> EnvError {
    EnvError::NotFound {
        kind,
        name: name.to_owned(),
    }
}

fn no_key(kind: &'static str, model: &PodModel, name: &str, key: &str) -> EnvError {
    EnvError::NoKey {
        kind,
        namespace: model.namespace().to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    }
}
