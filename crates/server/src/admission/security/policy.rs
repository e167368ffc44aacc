//! What a namespace asks of its pods: levels and versions from its labels.

use std::fmt;

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::object;
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// The release whose checks are meant; later ones than we know are as our newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// `v1.MINOR`
    Minor(u32),
    /// `latest`
    Latest,
}

impl Version {
    /// Only `latest` and `v1.MINOR` without leading zeros are versions.
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || !minor.starts_with('0');
        let digits = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        (plain && digits)
            .then(|| minor.parse().ok())
            .flatten()
            .map(Self::Minor)
    }
}

/// A level at a version: `restricted:latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.as_str();
        match self.version {
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
            Version::Latest => write!(f, "{level}:latest"),
        }
    }
}

/// What is refused, recorded and warned of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) audit: LevelVersion,
    pub(super) warn: LevelVersion,
}

impl Policy {
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|mode| mode.level == Level::Privileged)
    }
}

impl Default for Policy {
    /// Without labels nothing is asked.
    fn default() -> Self {
        let nothing = LevelVersion {
            level: Level::Privileged,
            version: Version::Latest,
        };
        Self {
            enforce: nothing,
            audit: nothing,
            warn: nothing,
        }
    }
}

/// The policy of a namespace, and what is wrong with its labels. There is always a policy: what
/// can't be read counts as the strictest where it refuses, and as nothing where it only tells.
pub(super) fn of_namespace(namespace: &Value) -> (Policy, Vec<FieldError>) {
    let mut policy = Policy::default();
    let mut errors = Vec::new();
    let mut wrong = |label: &str, value: &str, why: &str| {
        let path = Path::new("metadata")
            .child("labels")
            .key(&format!("{PREFIX}{label}"));
        errors.push(FieldError::invalid(&path, value, why));
    };
    let label = |name: &str| object::label(namespace, &format!("{PREFIX}{name}"));
    for (name, mode, fallback) in [
        ("enforce", &mut policy.enforce, Level::Restricted),
        ("audit", &mut policy.audit, Level::Privileged),
        ("warn", &mut policy.warn, Level::Privileged),
    ] {
        if let Some(text) = label(name) {
            mode.level = Level::parse(text).unwrap_or_else(|| {
                let why = "must be one of privileged, baseline, restricted";
                wrong(name, text, why);
                fallback
            });
        }
        let version = format!("{name}-version");
        if let Some(text) = label(&version) {
            mode.version = Version::parse(text).unwrap_or_else(|| {
                wrong(&version, text, "must be \"latest\" or \"v1.x\"");
                Version::Latest
            });
        }
    }
    // Whoever sets only what is refused is warned of the same, where warnings can still help.
    let enforced = label("enforce").and_then(Level::parse);
    if label("warn").is_none() && enforced.is_some_and(|level| level > policy.warn.level) {
        policy.warn.level = policy.enforce.level;
        if label("warn-version").is_none() {
            policy.warn.version = policy.enforce.version;
        }
    }
    (policy, errors)
}
