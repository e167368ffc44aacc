//! Pulling images from registries that speak the OCI distribution protocol.
//!
//! Written on hyper, which is in the binary anyway: what is needed of the protocol is four
//! requests, and mirrors, credentials, resumption and messages are policy of our own.
//!
//! Everything that arrives is checked against the digest that asked for it. Layers come in
//! parallel into `downloads/`, where a broken transfer is continued by the next attempt, and are
//! unpacked in order.

pub(crate) mod auth;
mod http;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue, RANGE};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::archive::{Descriptor, Manifest, for_this_machine};
use super::reference::{Reference, is_digest};
use super::{Names, Store, config, layers};
use crate::contract::{ImageStatus, RegistryAuth, Result, RuntimeError};
use crate::files::Context as _;
use http::{Endpoint, RequestError};

/// Kinds of manifests that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest or configuration, bytes.
const MAX_DOCUMENT: usize = 8 << 20;
/// Layers fetched at once.
const PARALLEL: usize = 3;
/// Attempts at one layer within one pull.
const ATTEMPTS: usize = 5;

/// Why one endpoint did not give the image.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{0}: not found")]
    NotFound(String),
    #[error(
        "pull access denied, repository does not exist or may require authorization: \
         authorization failed{0}"
    )]
    Denied(String),
    #[error("unexpected status from GET request to {url}: {status}{detail}")]
    Status {
        url: String,
        status: StatusCode,
        detail: String,
    },
    #[error("{0}")]
    Content(String),
    #[error(transparent)]
    Store(#[from] RuntimeError),
}

/// Fetches an image from the first endpoint that has it.
pub(super) async fn pull(
    store: Arc<Store>,
    reference: &Reference,
    auth: Option<RegistryAuth>,
) -> Result<ImageStatus> {
    let auth = auth.or_else(|| store.options.credentials.get(&reference.registry).cloned());
    let mut failed: Vec<(String, PullError)> = Vec::new();
    for endpoint in endpoints(&store, reference, auth) {
        let host = endpoint.host().to_owned();
        match pull_from(&store, &Arc::new(endpoint), reference).await {
            Ok(status) => return Ok(status),
            Err(PullError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(%reference, %error, "an endpoint did not give the image");
                failed.push((host, error));
            }
        }
    }
    // The last one is the registry itself, whose words come last, as tools look for them there.
    let registry = failed.pop();
    let mirrors: String = failed
        .iter()
        .map(|(host, error)| format!("mirror {host}: {error}; "))
        .collect();
    let cause = registry.map_or_else(|| "no endpoint".to_owned(), |(_, error)| error.to_string());
    let cause = mirrors + &cause;
    Err(RuntimeError::Pull {
        reason: "ErrImagePull",
        message: format!("failed to pull and unpack image \"{reference}\": {cause}"),
    })
}

/// Mirrors first, then the registry itself.
fn endpoints(store: &Store, reference: &Reference, auth: Option<RegistryAuth>) -> Vec<Endpoint> {
    let options = &store.options;
    let mirrors = options
        .mirrors
        .get(&reference.registry)
        .or_else(|| options.mirrors.get("*"))
        .into_iter()
        .flatten();
    let mut out: Vec<Endpoint> = mirrors
        .filter_map(|base| {
            let mirror = Endpoint::new(base, options.ca_file.clone());
            match mirror {
                Ok(mut mirror) => {
                    // A mirror's credentials are its own; the registry's never go to it.
                    mirror.auth = auth::State::new(options.credentials.get(mirror.host()).cloned());
                    Some(mirror)
                }
                Err(error) => {
                    tracing::warn!(base, %error, "a mirror's URL can't be used");
                    None
                }
            }
        })
        .collect();
    let host = match reference.registry.as_str() {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    let plain = options.plain_http.contains(&reference.registry) || is_loopback(host);
    let scheme = if plain { "http" } else { "https" };
    if let Ok(mut origin) = Endpoint::new(&format!("{scheme}://{host}"), options.ca_file.clone()) {
        origin.auth = auth::State::new(auth);
        out.push(origin);
    }
    out
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn pull_from(
    store: &Arc<Store>,
    endpoint: &Arc<Endpoint>,
    reference: &Reference,
) -> std::result::Result<ImageStatus, PullError> {
    let wanted = reference
        .digest
        .as_deref()
        .or(reference.tag.as_deref())
        .unwrap_or("latest");
    let (digest, mut body) = manifest(endpoint, reference, wanted).await?;
    let mut parsed = parse(&body)?;
    for _ in 0..4 {
        if parsed.config.is_some() {
            break;
        }
        let entry = for_this_machine(&parsed.manifests).ok_or_else(|| {
            PullError::Content(format!(
                "no match for platform in manifest: not found (linux/{})",
                config::architecture()
            ))
        })?;
        check_digest(&entry.digest)?;
        (_, body) = manifest(endpoint, reference, &entry.digest).await?;
        parsed = parse(&body)?;
    }
    let Some(config_at) = parsed.config else {
        return Err(PullError::Content(
            "the manifest has no configuration".to_owned(),
        ));
    };
    let raw_config = document(endpoint, reference, &config_at).await?;
    let image = config::parse(&raw_config).map_err(PullError::Content)?;
    if image.diff_ids.len() != parsed.layers.len() {
        return Err(PullError::Content(format!(
            "the manifest has {} layers, the configuration {}",
            parsed.layers.len(),
            image.diff_ids.len()
        )));
    }
    let making = {
        let store = Arc::clone(store);
        super::blocking(move || store.lock_for_making()).await?
    };
    let chain = config::chain(&image.diff_ids);
    let missing: Vec<Descriptor> = chain
        .iter()
        .zip(&parsed.layers)
        .filter(|(chain_id, _)| !layers::present(&store.root, chain_id))
        .map(|(_, layer)| layer.clone())
        .collect();
    futures::stream::iter(missing)
        .map(|layer| {
            let (store, endpoint) = (Arc::clone(store), Arc::clone(endpoint));
            let reference = reference.clone();
            async move { download(&store, &endpoint, &reference, &layer).await }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    let names = Names {
        tags: reference.tagged().into_iter().collect(),
        digests: vec![reference.with_digest(&digest)],
        pulled: true,
    };
    let files: Vec<PathBuf> = parsed
        .layers
        .iter()
        .map(|layer| downloaded(store, &layer.digest))
        .collect();
    let store = Arc::clone(store);
    Ok(super::blocking(move || {
        let status = store.add(&raw_config, names, &mut |number| {
            let path = &files[number];
            let file = std::fs::File::open(path).context(|| format!("open {}", path.display()))?;
            Ok(Box::new(file) as Box<dyn Read>)
        })?;
        for path in &files {
            crate::files::absent_ok(std::fs::remove_file(path))
                .context(|| format!("remove {}", path.display()))?;
        }
        drop(making);
        Ok(status)
    })
    .await?)
}

/// Reads a manifest. Its digests become names of files and parts of addresses, those of layers that
/// are here already too: so what is none is refused before anything is done.
fn parse(body: &[u8]) -> std::result::Result<Manifest, PullError> {
    let manifest: Manifest = serde_json::from_slice(body)
        .map_err(|error| PullError::Content(format!("the manifest can't be read: {error}")))?;
    for descriptor in manifest.layers.iter().chain(&manifest.config) {
        check_digest(&descriptor.digest)?;
    }
    Ok(manifest)
}

fn check_digest(digest: &str) -> std::result::Result<(), PullError> {
    if is_digest(digest) {
        return Ok(());
    }
    Err(PullError::Content(format!(
        "{digest:?} is not a sha256 digest"
    )))
}

/// [`parse`], for `crates/fuzz`.
pub(crate) fn read_manifest(body: &[u8]) -> std::result::Result<Manifest, String> {
    parse(body).map_err(|error| error.to_string())
}

/// A manifest by tag or digest: its digest and its bytes.
async fn manifest(
    endpoint: &Endpoint,
    reference: &Reference,
    wanted: &str,
) -> std::result::Result<(String, Vec<u8>), PullError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
    let path = format!("/v2/{}/manifests/{wanted}", reference.repository);
    let mut response = endpoint.get(&path, &reference.repository, headers).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(PullError::NotFound(format!(
            "failed to resolve reference \"{reference}\": {reference}"
        )));
    }
    check(&mut response).await?;
    let body = response.bytes(MAX_DOCUMENT).await?;
    let digest = config::digest(&body);
    let promised = if is_digest(wanted) {
        Some(wanted.to_owned())
    } else {
        response
            .header("docker-content-digest")
            .filter(|value| is_digest(value))
    };
    if let Some(promised) = promised
        && promised != digest
    {
        return Err(PullError::Content(format!(
            "the manifest's content has digest {digest}, not {promised}"
        )));
    }
    Ok((digest, body))
}

async fn check(response: &mut http::Answer) -> std::result::Result<(), PullError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let detail = response.error_text().await;
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        return Err(PullError::Denied(detail));
    }
    Err(PullError::Status {
        url: response.url.clone(),
        status,
        detail,
    })
}

/// A small blob, checked.
async fn document(
    endpoint: &Endpoint,
    reference: &Reference,
    descriptor: &Descriptor,
) -> std::result::Result<Vec<u8>, PullError> {
    let path = blob_path(reference, &descriptor.digest)?;
    let mut response = endpoint
        .get(&path, &reference.repository, HeaderMap::new())
        .await?;
    check(&mut response).await?;
    let body = response.bytes(MAX_DOCUMENT).await?;
    let digest = config::digest(&body);
    if digest != descriptor.digest {
        return Err(PullError::Content(format!(
            "a blob's content has digest {digest}, not {}",
            descriptor.digest
        )));
    }
    Ok(body)
}

fn blob_path(reference: &Reference, digest: &str) -> std::result::Result<String, PullError> {
    check_digest(digest)?;
    Ok(format!("/v2/{}/blobs/{digest}", reference.repository))
}

fn downloaded(store: &Store, digest: &str) -> PathBuf {
    store
        .root
        .join("downloads")
        .join(digest.trim_start_matches("sha256:"))
}

/// Fetches a layer into `downloads/`, continuing what an earlier attempt left.
async fn download(
    store: &Store,
    endpoint: &Endpoint,
    reference: &Reference,
    layer: &Descriptor,
) -> std::result::Result<(), PullError> {
    let path = blob_path(reference, &layer.digest)?;
    let place = downloaded(store, &layer.digest);
    let turn = store.turn(&layer.digest);
    let _held = turn.lock().await;
    if place.exists() {
        return Ok(());
    }
    let partial = place.with_extension("partial");
    let mut attempt = 0;
    loop {
        attempt += 1;
        match transfer(endpoint, reference, &path, &partial, layer).await {
            Ok(()) => break,
            Err(PullError::Request(error)) if attempt < ATTEMPTS => {
                tracing::debug!(digest = layer.digest, attempt, %error, "a transfer broke");
            }
            Err(error) => return Err(error),
        }
    }
    tokio::fs::rename(&partial, &place)
        .await
        .context(|| format!("place {}", place.display()))?;
    Ok(())
}

async fn transfer(
    endpoint: &Endpoint,
    reference: &Reference,
    path: &str,
    partial: &std::path::Path,
    layer: &Descriptor,
) -> std::result::Result<(), PullError> {
    let context = || format!("write {}", partial.display());
    let mut file = tokio::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(partial)
        .await
        .context(context)?;
    let mut have = file
        .seek(std::io::SeekFrom::End(0))
        .await
        .context(context)?;
    let mut headers = HeaderMap::new();
    if have > 0
        && let Ok(range) = HeaderValue::from_str(&format!("bytes={have}-"))
    {
        headers.insert(RANGE, range);
    }
    let mut response = endpoint.get(path, &reference.repository, headers).await?;
    let mut hasher = Sha256::new();
    match response.status() {
        StatusCode::PARTIAL_CONTENT => hasher = hash_of(partial).await?,
        // All of it was there already; the digest will tell.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            hasher = hash_of(partial).await?;
        }
        _ => {
            check(&mut response).await?;
            // The registry does not continue: from the start.
            file.set_len(0).await.context(context)?;
            file.rewind().await.context(context)?;
            have = 0;
        }
    }
    if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
        while let Some(chunk) = response.chunk().await? {
            have += chunk.len() as u64;
            if layer.size > 0 && have > layer.size {
                break;
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.context(context)?;
        }
        file.flush().await.context(context)?;
        if layer.size > 0 && have < layer.size {
            return Err(PullError::Request(RequestError::Short));
        }
    }
    let digest = config::finish(hasher);
    if digest != layer.digest {
        tokio::fs::remove_file(partial).await.context(context)?;
        return Err(PullError::Content(format!(
            "a layer's content has digest {digest}, not {}",
            layer.digest
        )));
    }
    Ok(())
}

/// A hasher that has seen a file.
async fn hash_of(path: &std::path::Path) -> std::result::Result<Sha256, PullError> {
    let path = path.to_path_buf();
    Ok(super::blocking(move || {
        let context = || format!("read {}", path.display());
        let mut file = std::fs::File::open(&path).context(context)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).context(context)? {
                0 => return Ok(hasher),
                count => hasher.update(&buffer[..count]),
            }
        }
    })
    .await?)
}

#[cfg(test)]
mod tests {
    use super::read_manifest;

    #[test]
    fn digests_that_are_none_are_refused() {
        let good = format!("sha256:{}", "a1".repeat(32));
        let read = |config: &str, layer: &str| {
            let manifest = serde_json::json!({
                "config": {"digest": config},
                "layers": [{"digest": good}, {"digest": layer}],
            });
            read_manifest(manifest.to_string().as_bytes())
        };
        assert_eq!(read(&good, &good).expect("good").layers.len(), 2);
        // They would be names of files.
        for wrong in ["/etc/hosts", "sha256:../../x", "sha256:/etc/hosts", ""] {
            assert!(read(&good, wrong).is_err(), "{wrong:?}");
            assert!(read(wrong, &good).is_err(), "{wrong:?}");
        }
    }
}
