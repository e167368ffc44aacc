//! Names of images, as far as their form goes: what is told from it is when to pull.

/// The longest name of an image, without tag and digest.
const NAME_MOST: usize = 255;
const TAG_MOST: usize = 128;
const DIGEST_LEAST: usize = 32;
/// Image identifiers have this many hexadecimal digits, and names may not look like one.
const IDENTIFIER: usize = 64;
const DEFAULT_DOMAIN: &str = "docker.io/";
const DEFAULT_FOLDER: &str = "library/";

/// When to pull an image that says nothing of it: always, where its name leads to its newest version.
/// A name of no good form leads nowhere.
#[must_use]
pub fn pull_policy(image: &str) -> &'static str {
    match tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The tag of an image, `latest` without tag and digest; `None` when the name is of no good form or
/// has a digest alone.
fn tag(image: &str) -> Option<&str> {
    if image.len() == IDENTIFIER && image.bytes().all(is_hex) {
        return None;
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let (domain, remote) = rest
        .split_once('/')
        .filter(|(first, _)| is_domain(first))
        .unwrap_or(("", rest));
    let (path, tag) = match remote.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (remote, None),
    };
    let long = if domain.is_empty() {
        let folder = if path.contains('/') {
            ""
        } else {
            DEFAULT_FOLDER
        };
        DEFAULT_DOMAIN.len() + folder.len() + path.len()
    } else {
        domain.len() + 1 + path.len()
    };
    let good = long <= NAME_MOST
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
        && (domain.is_empty() || is_host(domain));
    match (good, tag, digest) {
        (true, Some(tag), _) => Some(tag),
        (true, None, None) => Some("latest"),
        _ => None,
    }
}

/// Does a first segment name a registry? Otherwise it is a folder in the default one.
fn is_domain(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(domain: &str) -> bool {
    let (host, port) = if domain.starts_with('[') {
        domain
            .split_once(']')
            .map_or((domain, ""), |(host, port)| (&host[1..], port))
    } else {
        domain
            .find(':')
            .map_or((domain, ""), |at| domain.split_at(at))
    };
    let good_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()));
    let good_host = if domain.starts_with('[') {
        host.bytes().all(|byte| is_hex(byte) || byte == b':')
    } else {
        host.split('.').all(|part| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !part.is_empty()
                && part.bytes().all(inner)
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
    };
    good_port && good_host
}

/// Lower-case words, joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    ends && bytes.split(|byte| word(*byte)).all(|joint| {
        matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|it| *it == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_MOST
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        algorithm.split(['-', '_', '+', '.']).all(|part| {
            part.bytes()
                .next()
                .is_some_and(|it| it.is_ascii_alphabetic())
                && part.bytes().all(|it| it.is_ascii_alphanumeric())
        }) && digits.len() >= DIGEST_LEAST
            && digits.bytes().all(is_hex)
    })
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}
