//! What images and registries say: names, manifests, layers, accounts, credentials.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use evenkeel_node::fuzzing::credentials;
use evenkeel_runtime::{ImageReference, fuzzing};
use serde_json::Value;
use tar::{EntryType, Header};

use super::text;
use crate::{Scratch, Shape};

pub(super) fn reference(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match ImageReference::parse(text) {
        Ok(reference) => {
            let full = reference.to_string();
            let again = ImageReference::parse(&full);
            assert_eq!(again.as_ref().ok(), Some(&reference), "{full} is the same");
            Shape::of((
                reference.tag.is_some(),
                reference.digest.is_some(),
                reference.registry == "docker.io",
            ))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

/// A manifest, a configuration, or a registry's challenge.
pub(super) fn manifest(input: &[u8]) -> Shape {
    let told = |wrong: String| Shape::of_message(&wrong).0;
    let manifest = fuzzing::manifest(input).map(|(layers, here)| {
        for digest in &layers {
            // They are names of files.
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        (layers.len().min(4), here)
    });
    let manifest = manifest.map_err(told);
    let config = fuzzing::image_config(input).map_err(told);
    let challenge = text(input).and_then(fuzzing::challenge);
    if let Some(address) = challenge.as_deref().filter(|address| !address.is_empty()) {
        // What the registry has told stands before it as it was told.
        let (_, query) = address.rsplit_once("scope=").expect("a scope is asked for");
        assert!(
            query.bytes().all(|byte| byte.is_ascii_graphic()),
            "{query:?}"
        );
    }
    Shape::of((manifest, config, challenge.map(|it| it.is_empty())))
}

/// A user by name or number, and the image's two files, one after the other.
pub(super) fn passwd(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let mut parts = text.split("\n---\n");
    let mut next = || parts.next().unwrap_or_default();
    match fuzzing::user(next(), next(), next()) {
        Ok((user, group)) => {
            // The kernel takes the last number for "leave it as it is".
            assert!(user.max(group) <= 0x7fff_ffff, "{user}:{group}");
            Shape::of((user.min(2), group.min(2)))
        }
        Err(wrong) => Shape::of_message(&wrong),
    }
}

/// The credentials of a pull secret, after a line with the image's name.
pub(super) fn pull_secret(input: &[u8]) -> Shape {
    let Some((image, auths)) = text(input).and_then(|text| text.split_once('\n')) else {
        return Shape(0);
    };
    let Ok(auths) = serde_json::from_str::<Value>(auths) else {
        return Shape(1);
    };
    let found = credentials(&auths["auths"], image);
    let old = credentials(&auths, image);
    let all = auths["auths"].as_object().map(|all| all.len().min(8));
    let slashes = image.matches('/').count();
    Shape::of((2, found.min(4), old.min(4), all, slashes.min(4)))
}

static BESIDE: LazyLock<Scratch> = LazyLock::new(|| Scratch::new("layer"));
const WATCHED: &str = "nobody writes here";

/// A tar of lines: a letter that says what it is, its name, and what it leads to or holds. What is
/// no such text is a tar itself.
fn tar_of(input: &[u8]) -> Vec<u8> {
    let Some(text) = text(input).filter(|text| text.as_bytes().get(1) == Some(&b' ')) else {
        return input.to_vec();
    };
    let mut out = Vec::new();
    for line in text.lines().take(64) {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (kind, name, rest) = (next(), next(), next());
        let kind = match kind {
            "d" => EntryType::Directory,
            "l" => EntryType::Symlink,
            "h" => EntryType::Link,
            "p" => EntryType::Fifo,
            "c" => EntryType::Char,
            "b" => EntryType::Block,
            "L" => EntryType::GNULongName,
            "K" => EntryType::GNULongLink,
            "x" => EntryType::XHeader,
            _ => EntryType::Regular,
        };
        let leads = kind.is_symlink() || kind.is_hard_link();
        let content = if leads { "" } else { rest };
        let mut header = Header::new_gnu();
        let put = |field: &mut [u8], text: &str| {
            let end = field.len().min(text.len());
            field[..end].copy_from_slice(&text.as_bytes()[..end]);
        };
        put(&mut header.as_old_mut().name, name);
        if leads {
            put(&mut header.as_old_mut().linkname, rest);
        }
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Does any file below a directory hold what nobody may read?
fn tells(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return false;
        };
        if metadata.is_dir() {
            return tells(&path);
        }
        metadata.is_file() && fs::read(&path).is_ok_and(|text| text == WATCHED.as_bytes())
    })
}

/// Whatever a layer holds, nothing is written or read beside it. The second half goes into a layer
/// above.
pub(super) fn layer(input: &[u8]) -> Shape {
    let base = BESIDE.path();
    let sentinel = base.join("watched");
    let (below, into) = (base.join("below"), base.join("into"));
    let other = base.join("other");
    fs::create_dir_all(other.join("a")).expect("a directory");
    fs::write(&sentinel, WATCHED).expect("a file");
    for directory in [&below, &into] {
        fs::create_dir_all(directory).expect("a directory");
    }
    let at = input.windows(5).position(|window| window == b"\n---\n");
    let (first, second) = match at {
        Some(at) => (&input[..at], &input[at + 5..]),
        None => (&b""[..], input),
    };
    let lower = fuzzing::layer(&tar_of(first), &below, &[]);
    let upper = fuzzing::layer(&tar_of(second), &into, std::slice::from_ref(&below));
    let watched = fs::read_to_string(&sentinel);
    assert_eq!(
        watched.ok().as_deref(),
        Some(WATCHED),
        "nobody else's file is changed"
    );
    let mut names: Vec<_> = fs::read_dir(base)
        .expect("it is there")
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["below", "into", "other", "watched"],
        "nothing is made beside it"
    );
    let touched = fs::metadata(other.join("a")).and_then(|it| it.modified());
    let early = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    assert!(
        touched.is_ok_and(|time| time > early),
        "nobody else's time is set"
    );
    let own = input
        .windows(WATCHED.len())
        .any(|window| window == WATCHED.as_bytes());
    assert!(
        own || !tells(&below) && !tells(&into),
        "nothing is read beside it"
    );
    let count = |directory: &Path| fs::read_dir(directory).map_or(0, Iterator::count).min(6);
    let shape = |result: std::io::Result<u64>| match result {
        Ok(bytes) => (0, bytes.checked_ilog2().unwrap_or(0).into()),
        Err(error) => (1, Shape::of_message(&error.to_string()).0),
    };
    let shape = Shape::of((shape(lower), shape(upper), count(&below), count(&into)));
    for directory in [&below, &into] {
        // What an unprivileged user can't remove stays until the next layer.
        drop(fs::remove_dir_all(directory));
    }
    shape
}
