//! Image references: parsing and the full form that everything is stored under.
//!
//! The grammar is that of the distribution project's `reference` package; the familiar short
//! forms mean Docker Hub, as every Kubernetes runtime has it.

use crate::contract::RuntimeError;

/// A reference in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry host, with port where given: `docker.io`.
    pub registry: String,
    /// Path in it: `library/nginx`.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:…`; wins over the tag when fetching.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses a familiar or full reference.
    ///
    /// # Errors
    /// `Pull` with reason `InvalidImageName`, as kubelet shows it.
    pub fn parse(text: &str) -> Result<Self, RuntimeError> {
        Self::try_parse(text).ok_or_else(|| RuntimeError::Pull {
            reason: "InvalidImageName",
            message: format!(
                "Failed to apply default image tag {text:?}: couldn't parse image name {text:?}: \
                 invalid reference format"
            ),
        })
    }

    fn try_parse(text: &str) -> Option<Self> {
        if is_identifier(text) {
            return None;
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return None;
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return None;
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.chars().any(|c| c.is_ascii_uppercase()) =>
            {
                (first.to_owned(), path.to_owned())
            }
            _ => ("docker.io".to_owned(), name.to_owned()),
        };
        let registry = if registry == "index.docker.io" {
            "docker.io".into()
        } else {
            registry
        };
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if !is_host(&registry) || !is_repository(&repository) {
            return None;
        }
        let tag = if tag.is_none() && digest.is_none() {
            Some("latest".into())
        } else {
            tag
        };
        Some(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// `docker.io/library/nginx`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The full form with its tag, when it has one.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        self.tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", self.name()))
    }

    /// The full form with a digest.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// `sha256:` and 64 lower-case hex digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_identifier)
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A domain name or an IPv6 address in brackets, and a port where there is one.
fn is_host(host: &str) -> bool {
    let inside = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (good, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let mut bytes = address.bytes();
                let good = bytes.all(|b| b.is_ascii_hexdigit() || b == b':');
                (good && !address.is_empty(), port)
            }
            None => return false,
        },
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            let good = name.split('.').all(|part| {
                !part.is_empty() && inside(part) && !part.starts_with('-') && !part.ends_with('-')
            });
            (good, port)
        }
    };
    let numbered = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    good && (port.is_empty() || port.strip_prefix(':').is_some_and(numbered))
}

/// Components of lower-case letters and digits, with one separator between: a dot, one or two
/// underscores, or any number of hyphens.
fn is_repository(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separates = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    path.len() <= 255
        && path.split('/').all(|part| {
            part.starts_with(plain)
                && part.ends_with(plain)
                && part
                    .split(plain)
                    .filter(|run| !run.is_empty())
                    .all(separates)
        })
}

/// 64 hexadecimal digits, which tools use for images without a name.
fn is_identifier(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::Reference;

    fn full(text: &str) -> String {
        Reference::parse(text)
            .map(|r| r.to_string())
            .unwrap_or_else(|_| "invalid".to_owned())
    }

    #[test]
    fn familiar_names_become_full_ones() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, wanted) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.24", "docker.io/library/nginx:1.24"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/team/app:v1", "localhost:5000/team/app:v1"),
            ("ghcr.io/a/b/c:x_y-1.2", "ghcr.io/a/b/c:x_y-1.2"),
            (
                "[fd00::1]:5000/a__b/c---d",
                "[fd00::1]:5000/a__b/c---d:latest",
            ),
        ] {
            assert_eq!(full(given), wanted);
        }
        assert_eq!(
            full(&format!("nginx@{digest}")),
            format!("docker.io/library/nginx@{digest}")
        );
        assert_eq!(
            full(&format!("nginx:1@{digest}")),
            format!("docker.io/library/nginx:1@{digest}")
        );
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        for text in [
            "",
            "UPPER",
            "a b",
            "nginx:",
            "nginx:ta g",
            "-x",
            "a//b",
            "x@sha256:12",
            "/x",
            "host:port/x",
            "a..b/x",
            "host:/x",
            "[::1/x",
            "a.-b/x",
            "a._b",
            "a___b",
        ] {
            assert_eq!(full(text), "invalid", "{text:?}");
        }
        assert_eq!(full(&"a1".repeat(32)), "invalid");
    }
}
