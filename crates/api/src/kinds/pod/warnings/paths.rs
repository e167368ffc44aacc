//! Files of one volume that would stand in each other's way: at the same path, or one where the other
//! needs a directory.

use std::fmt;

use crate::field::quoted;
use crate::validation::Cursor;

/// A file, and whose it is where a volume has several sources.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File<'a> {
    path: &'a str,
    source: String,
}

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.path))?;
        if self.source.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.source)
    }
}

impl File<'_> {
    fn is_in_the_way_of(&self, other: &Self) -> bool {
        let is_within = |a: &str, b: &str| {
            a.strip_prefix(b)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !self.path.is_empty()
            && !other.path.is_empty()
            && (is_within(self.path, other.path) || is_within(other.path, self.path))
    }
}

/// Warns of every two files of a volume that can't both be there.
pub(super) fn overlaps(spec: &Cursor<'_>, out: &mut Vec<String>) {
    for volume in spec.items("volumes") {
        let name = quoted(volume.text("name"));
        for (field, of, named) in [
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("downwardAPI", "DownwardAPI", ""),
        ] {
            let Some(source) = volume.get(field) else {
                continue;
            };
            let shown = shown(of, named, &source);
            told(&name, &shown, items(&source, ""), out);
        }
        let mut files = Vec::new();
        for source in volume.child("projected").items("sources") {
            if source.value.as_object().is_none_or(|it| it.is_empty()) {
                out.push(format!("volume {name} (Projected) has no sources provided"));
            }
            files.extend(projected(&source));
        }
        told(&name, "Projected", files, out);
    }
}

/// `Secret "a"`, or what has no name.
fn shown(of: &str, named: &str, source: &Cursor<'_>) -> String {
    if named.is_empty() {
        return of.to_owned();
    }
    format!("{of} {}", quoted(source.text(named)))
}

fn items<'a>(source: &Cursor<'a>, of: &str) -> Vec<File<'a>> {
    let files = source.items("items");
    files.map(|item| file(item.text("path"), of)).collect()
}

fn file<'a>(path: &'a str, of: &str) -> File<'a> {
    File {
        path: path.trim_end_matches('/'),
        source: of.to_owned(),
    }
}

/// The files of one source of a projected volume: of the first that it names.
fn projected<'a>(source: &Cursor<'a>) -> Vec<File<'a>> {
    for (field, of, named) in [
        ("configMap", "ConfigMap", "name"),
        ("secret", "Secret", "name"),
        ("downwardAPI", "DownwardAPI", ""),
    ] {
        if let Some(source) = source.get(field).filter(|it| it.has("items")) {
            return items(&source, &shown(of, named, &source));
        }
    }
    if let Some(token) = source.get("serviceAccountToken") {
        return vec![file(token.text("path"), "ServiceAccountToken")];
    }
    if let Some(bundle) = source.get("clusterTrustBundle") {
        let named = if bundle.has("name") {
            "name"
        } else {
            "signerName"
        };
        let of = shown("ClusterTrustBundle", named, &bundle);
        return vec![file(bundle.text("path"), &of)];
    }
    let Some(certificate) = source.get("podCertificate") else {
        return Vec::new();
    };
    let files = [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ];
    let files = files.map(|(field, of)| file(certificate.text(field), of));
    files.into_iter().filter(|it| !it.path.is_empty()).collect()
}

fn told(volume: &str, source: &str, files: Vec<File<'_>>, out: &mut Vec<String>) {
    for (index, file) in files.iter().enumerate() {
        let before = &files[..index];
        for other in before.iter().filter(|it| it.is_in_the_way_of(file)) {
            out.push(format!(
                "volume {volume} ({source}): overlapping paths: {file} with {other}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(volumes: Value) -> Vec<String> {
        let mut out = Vec::new();
        overlaps(&Cursor::root(&json!({"volumes": volumes})), &mut out);
        out
    }

    fn at(paths: &[&str]) -> Value {
        let items = paths.iter().map(|path| json!({"key": "k", "path": path}));
        Value::Array(items.collect())
    }

    #[test]
    fn files_in_the_way_of_each_other_are_named() {
        let apart = at(&["a", "ab", "b/a", ""]);
        assert_eq!(
            of(json!([{"name": "v", "secret": {"items": apart}}])).len(),
            0
        );
        let told = of(json!([
            {"name": "v", "configMap": {"name": "c", "items": at(&["a", "a/b/", "a"])}},
            {"name": "w", "secret": {"secretName": "s", "items": at(&["x/y", "x"])}},
            {"name": "d", "downwardAPI": {"items": at(&["l", "l"])}},
        ]));
        assert_eq!(
            told,
            [
                "volume \"v\" (ConfigMap \"c\"): overlapping paths: \"a/b\" with \"a\"",
                "volume \"v\" (ConfigMap \"c\"): overlapping paths: \"a\" with \"a\"",
                "volume \"v\" (ConfigMap \"c\"): overlapping paths: \"a\" with \"a/b\"",
                "volume \"w\" (Secret \"s\"): overlapping paths: \"x\" with \"x/y\"",
                "volume \"d\" (DownwardAPI): overlapping paths: \"l\" with \"l\"",
            ]
        );
    }

    #[test]
    fn sources_of_a_projected_volume_share_its_paths() {
        let told = of(json!([{"name": "p", "projected": {"sources": [
            {},
            {"configMap": {"name": "c", "items": at(&["token"])}},
            {"serviceAccountToken": {"path": "token"}},
            {"clusterTrustBundle": {"signerName": "e.x/y", "path": "token/ca"}},
            {"podCertificate": {"keyPath": "key", "credentialBundlePath": "key"}},
        ]}}]));
        let overlap = "volume \"p\" (Projected): overlapping paths:";
        let rest = [
            "\"token\" (ServiceAccountToken) with \"token\" (ConfigMap \"c\")",
            "\"token/ca\" (ClusterTrustBundle \"e.x/y\") with \"token\" (ConfigMap \"c\")",
            "\"token/ca\" (ClusterTrustBundle \"e.x/y\") with \"token\" (ServiceAccountToken)",
            "\"key\" (PodCertificate credential bundle) with \"key\" (PodCertificate key)",
        ];
        let mut wanted = vec!["volume \"p\" (Projected) has no sources provided".to_owned()];
        wanted.extend(rest.map(|rest| format!("{overlap} {rest}")));
        assert_eq!(told, wanted);
    }
}
