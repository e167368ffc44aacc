//! Getting a container's image, and those that it has as volumes: pull policy, credentials, events.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use evenkeel_runtime::{ImageReference, ImageStatus, RegistryAuth, RuntimeError};
use futures::future::join_all;
use jiff::SignedDuration;
use serde_json::Value;

use super::model::{ContainerModel, PodModel};
use crate::context::Context;
use crate::events::Kind;

/// The images that a container cannot start without.
#[derive(Debug, Clone)]
pub struct Needed {
    /// Its own.
    pub own: ImageStatus,
    /// Those that it mounts, by the names of the volumes.
    pub volumes: BTreeMap<String, ImageStatus>,
}

/// How it went.
#[derive(Debug)]
pub enum Pulled {
    /// The images are here.
    Present(Box<Needed>),
    /// One is not, and why.
    Failed {
        /// Which one.
        image: String,
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName` …
        reason: String,
        /// What went wrong.
        message: String,
    },
    /// Only looked, and still not here.
    StillMissing,
}

/// An image that is wanted.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    image: &'a str,
    /// Not given: by the tag.
    policy: Option<&'a str>,
    /// The container, or the volume of it.
    of: &'static str,
}

/// When to pull an image: by its tag when nobody says it.
fn policy<'a>(wanted: &Wanted<'a>) -> &'a str {
    if let Some(policy) = wanted.policy {
        return policy;
    }
    let image = wanted.image;
    let last = image.rsplit('/').next().unwrap_or_default();
    if image.contains('@') || (last.contains(':') && !last.ends_with(":latest")) {
        "IfNotPresent"
    } else {
        "Always"
    }
}

/// The images that a container mounts, by the names of the volumes.
fn volumes<'a>(
    model: &'a PodModel,
    container: &'a ContainerModel,
) -> impl Iterator<Item = (&'a str, Wanted<'a>)> {
    let all = model.spec().and_then(|spec| spec.volumes.as_deref());
    let mounts = container.spec.volume_mounts.as_deref().unwrap_or_default();
    let mounted = move |name: &str| mounts.iter().any(|mount| mount.name == name);
    let all = all.unwrap_or_default().iter();
    all.filter(move |volume| mounted(&volume.name))
        .filter_map(|volume| {
            let source = volume.image.as_ref()?;
            let wanted = Wanted {
                image: source.reference.as_deref().unwrap_or_default(),
                policy: source.pull_policy.as_deref(),
                of: "volume",
            };
            Some((volume.name.as_str(), wanted))
        })
}

/// Makes sure that the images of a container are here: those of its volumes first, as kubelet does.
pub async fn ensure(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    may_pull: bool,
) -> Pulled {
    let failed = |image: &str, failure: Missing| match failure {
        Missing::Still => Pulled::StillMissing,
        Missing::Failed { reason, message } => Pulled::Failed {
            image: image.to_owned(),
            reason,
            message,
        },
    };
    let mut of_volumes = BTreeMap::new();
    for (name, wanted) in volumes(model, container) {
        match ensure_one(context, model, container, wanted, may_pull).await {
            Ok(found) => of_volumes.insert(name.to_owned(), found),
            Err(failure) => return failed(wanted.image, failure),
        };
    }
    let wanted = Wanted {
        image: container.spec.image.as_deref().unwrap_or_default(),
        policy: container.spec.image_pull_policy.as_deref(),
        of: "container",
    };
    match ensure_one(context, model, container, wanted, may_pull).await {
        Ok(own) => Pulled::Present(Box::new(Needed {
            own,
            volumes: of_volumes,
        })),
        Err(failure) => failed(wanted.image, failure),
    }
}

/// Why an image is not here.
enum Missing {
    /// It was looked for only.
    Still,
    Failed {
        reason: String,
        message: String,
    },
}

async fn ensure_one(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    wanted: Wanted<'_>,
    may_pull: bool,
) -> Result<ImageStatus, Missing> {
    let image = wanted.image;
    let event = |kind, reason, text: String| {
        context
            .recorder
            .container(model, container, kind, reason, text);
    };
    if let Err(wrong) = ImageReference::parse(image) {
        let message = match wrong {
            RuntimeError::Pull { message, .. } => message,
            other => error_chain(&other),
        };
        event(Kind::Warning, "InspectFailed", message.clone());
        event(
            Kind::Warning,
            "Failed",
            "Error: InvalidImageName".to_owned(),
        );
        return Err(Missing::Failed {
            reason: "InvalidImageName".to_owned(),
            message,
        });
    }
    let found = match context.config.images.status(image).await {
        Ok(found) => found,
        Err(error) => return Err(failed(&event, image, &error)),
    };
    let policy = policy(&wanted);
    let title = match wanted.of {
        "container" => "Container",
        _ => "Volume",
    };
    match found {
        Some(found) if policy != "Always" => {
            event(
                Kind::Normal,
                "Pulled",
                format!(
                    "{title} image \"{image}\" already present on machine and can be accessed by \
                     the pod"
                ),
            );
            return Ok(found);
        }
        None if policy == "Never" => {
            let message =
                format!("{title} image \"{image}\" is not present with pull policy of Never");
            event(Kind::Warning, "ErrImageNeverPull", message.clone());
            event(
                Kind::Warning,
                "Failed",
                "Error: ErrImageNeverPull".to_owned(),
            );
            return Err(Missing::Failed {
                reason: "ErrImageNeverPull".to_owned(),
                message,
            });
        }
        _ if !may_pull => return Err(Missing::Still),
        _ => {}
    }
    pull(context, model, image, &event).await
}

async fn pull(
    context: &Context,
    model: &PodModel,
    image: &str,
    event: &impl Fn(Kind, &'static str, String),
) -> Result<ImageStatus, Missing> {
    let begun = tokio::time::Instant::now();
    let gate = context
        .pulls
        .lock()
        .entry(image.to_owned())
        .or_default()
        .clone();
    event(
        Kind::Normal,
        "Pulling",
        format!("Pulling image \"{image}\""),
    );
    let turn = gate.lock().await;
    let alone = tokio::time::Instant::now();
    let mut credentials = credentials(context, model, image).await.into_iter();
    let result = loop {
        let auth = credentials.next();
        let result = context.config.images.pull(image, auth.as_ref()).await;
        if result.is_ok() || credentials.len() == 0 {
            break result;
        }
    };
    drop(turn);
    let mut pulls = context.pulls.lock();
    if Arc::strong_count(&gate) <= 2 {
        pulls.remove(image);
    }
    drop(pulls);
    match result {
        Ok(found) => {
            event(
                Kind::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image \
                     size: {} bytes.",
                    go_elapsed(alone.elapsed()),
                    go_elapsed(begun.elapsed()),
                    found.size
                ),
            );
            Ok(found)
        }
        Err(error) => Err(failed(event, image, &error)),
    }
}

fn failed(
    event: &impl Fn(Kind, &'static str, String),
    image: &str,
    error: &RuntimeError,
) -> Missing {
    let (reason, message) = match error {
        RuntimeError::Pull { reason, message } => ((*reason).to_owned(), message.clone()),
        other => ("ErrImagePull".to_owned(), error_chain(other)),
    };
    event(
        Kind::Warning,
        "Failed",
        format!("Failed to pull image \"{image}\": {message}"),
    );
    event(Kind::Warning, "Failed", format!("Error: {reason}"));
    Missing::Failed { reason, message }
}

/// An error with its causes.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// `1.234s`, `56ms`, as Go prints a duration rounded to milliseconds.
fn go_elapsed(elapsed: std::time::Duration) -> String {
    let ms = elapsed.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Credentials for the image's registry from the pod's pull secrets, in order.
async fn credentials(context: &Context, model: &PodModel, image: &str) -> Vec<RegistryAuth> {
    let secrets = model
        .spec()
        .and_then(|spec| spec.image_pull_secrets.as_deref());
    let fetched = join_all(secrets.unwrap_or_default().iter().map(|secret| {
        context.objects.secret(
            model.namespace(),
            &secret.name,
            SignedDuration::from_secs(10),
        )
    }))
    .await;
    let mut out = Vec::new();
    for secret in fetched.into_iter().filter_map(Result::ok).flatten() {
        let data = secret.data.as_ref();
        let modern = data.and_then(|data| data.get(".dockerconfigjson"));
        let old = data.and_then(|data| data.get(".dockercfg"));
        if let Some(text) = modern.and_then(|bytes| serde_json::from_slice::<Value>(&bytes.0).ok())
        {
            out.extend(matching(&text["auths"], image));
        } else if let Some(text) = old.and_then(|bytes| serde_json::from_slice(&bytes.0).ok()) {
            out.extend(matching(&text, image));
        }
    }
    out
}

/// Entries for the image's registry, the longest path first.
pub(crate) fn matching(auths: &Value, image: &str) -> Vec<RegistryAuth> {
    let first = image.split('/').next().unwrap_or_default();
    let named = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = if named {
        image.to_owned()
    } else {
        format!("docker.io/{image}")
    };
    let mut found: Vec<(usize, RegistryAuth)> = Vec::new();
    for (key, entry) in auths.as_object().into_iter().flatten() {
        let place = key
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let place = place.trim_end_matches('/');
        let place = place
            .strip_suffix("/v1")
            .or(place.strip_suffix("/v2"))
            .unwrap_or(place);
        let place = if place == "index.docker.io" {
            "docker.io"
        } else {
            place
        };
        if full == place || full.starts_with(&format!("{place}/")) {
            found.push((place.len(), auth(entry)));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn auth(entry: &Value) -> RegistryAuth {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut out = RegistryAuth {
        username: text("username"),
        password: text("password"),
        token: text("registrytoken"),
    };
    let packed = base64::engine::general_purpose::STANDARD
        .decode(text("auth"))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((user, password)) = packed.as_deref().and_then(|text| text.split_once(':')) {
        user.clone_into(&mut out.username);
        password.clone_into(&mut out.password);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::matching;

    #[test]
    fn the_registry_of_an_image_finds_its_credentials() {
        let auths = serde_json::json!({
            "registry.example.com": { "auth": "dTpw" },
            "registry.example.com/team": { "username": "t", "password": "q" },
            "https://index.docker.io/v1/": { "username": "hub", "password": "h" },
        });
        let names = |image: &str| -> Vec<String> {
            matching(&auths, image)
                .into_iter()
                .map(|auth| auth.username)
                .collect()
        };
        assert_eq!(names("registry.example.com/team/app:1"), ["t", "u"]);
        assert_eq!(names("registry.example.com/other"), ["u"]);
        assert_eq!(names("nginx"), ["hub"]);
        assert!(names("registry.example.community/x").is_empty());
    }
}
