//! Devices of the Container Device Interface (CDI): a name such as `vendor.com/class=one` stands for
//! device nodes, mounts and variables, which files of the vendor spell out
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).
//!
//! The files are read when a container starts: vendors rewrite them as devices come and go. What a
//! file asks for and this node's runtime does not do is refused by name, as a container that starts
//! with half of its device fails in ways that nobody understands.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Where vendors put their files; what a later directory says holds against an earlier one.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What devices come to, as the runtime is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Container path, host path, read only.
    pub mounts: Vec<(String, String, bool)>,
    /// Container path, host path, permissions.
    pub devices: Vec<(String, String, String)>,
    /// Groups besides those of the pod.
    pub groups: BTreeSet<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Wanted,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Wanted,
}

/// `containerEdits`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    additional_gids: Vec<i64>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    r#type: String,
}

/// A name taken apart: `vendor.com/class` and `device`.
fn parse(name: &str) -> Option<(&str, &str)> {
    let (kind, device) = name.split_once('=')?;
    let (vendor, class) = kind.split_once('/')?;
    let good = !vendor.is_empty() && !class.is_empty() && !device.is_empty();
    good.then_some((kind, device))
}

fn is_spec(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    matches!(extension, Some("json" | "yaml" | "yml"))
}

fn read(path: &Path) -> Result<Spec, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    // JSON is YAML.
    serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The files of one directory.
fn specs(directory: &Path) -> Vec<(PathBuf, Result<Spec, String>)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| is_spec(path))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let spec = read(&path);
            (path, spec)
        })
        .collect()
}

/// What devices of these names come to.
///
/// # Errors
/// The names that nobody knows, and what is asked for and not done here.
pub fn resolve(names: &[String]) -> Result<Edits, String> {
    resolve_in(&DIRECTORIES.map(PathBuf::from), names)
}

/// As [`resolve`], from these directories.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_in(directories: &[PathBuf], names: &[String]) -> Result<Edits, String> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let all: Vec<_> = directories.iter().map(|it| specs(it)).collect();
    let mut unknown = Vec::new();
    let mut used: BTreeSet<PathBuf> = BTreeSet::new();
    let mut given = BTreeSet::new();
    for name in names {
        if !given.insert(name) {
            continue;
        }
        let Some((kind, device)) = parse(name) else {
            return Err(format!(
                "CDI device {name:?} is not of the form VENDOR/CLASS=DEVICE"
            ));
        };
        match find(&all, kind, device)? {
            None => unknown.push(name.as_str()),
            Some((path, spec, device)) => {
                let failed = |why: String| format!("CDI device {name}: {why}");
                if used.insert(path.clone()) {
                    edits.add(&spec.container_edits).map_err(failed)?;
                }
                edits.add(&device.container_edits).map_err(failed)?;
            }
        }
    }
    if unknown.is_empty() {
        return Ok(edits);
    }
    // Whoever looks for a device that a broken file should have is told about the file.
    let broken = all
        .iter()
        .flatten()
        .filter_map(|(_, spec)| spec.as_ref().err());
    let broken: Vec<String> = broken.map(|why| format!("; {why}")).collect();
    Err(format!(
        "unresolvable CDI devices {}{}",
        unknown.join(", "),
        broken.concat()
    ))
}

type Found<'a> = (&'a PathBuf, &'a Spec, &'a Device);

/// The last directory that has it says what it is; two files of one directory may not.
fn find<'a>(
    all: &'a [Vec<(PathBuf, Result<Spec, String>)>],
    kind: &str,
    wanted: &str,
) -> Result<Option<Found<'a>>, String> {
    for directory in all.iter().rev() {
        let mut found: Vec<Found<'a>> = Vec::new();
        for (path, spec) in directory {
            let Ok(spec) = spec else { continue };
            if spec.kind == kind {
                let devices = spec.devices.iter().filter(|device| device.name == wanted);
                found.extend(devices.map(|device| (path, spec, device)));
            }
        }
        match found.as_slice() {
            [] => {}
            [one] => return Ok(Some(*one)),
            [one, other, ..] => {
                return Err(format!(
                    "CDI device {kind}={wanted} is in conflict: {} and {} both have it",
                    one.0.display(),
                    other.0.display()
                ));
            }
        }
    }
    Ok(None)
}

impl Edits {
    fn add(&mut self, wanted: &Wanted) -> Result<(), String> {
        let asked = |value: &Value| match value {
            Value::Null => false,
            Value::Array(all) => !all.is_empty(),
            Value::Object(all) => !all.is_empty(),
            _ => true,
        };
        if let Some((name, _)) = wanted.others.iter().find(|(_, value)| asked(value)) {
            return Err(format!("{name} are not supported by this node"));
        }
        for variable in &wanted.env {
            let Some((name, value)) = variable.split_once('=') else {
                return Err(format!("env {variable:?} is not of the form NAME=VALUE"));
            };
            self.env.insert(name.to_owned(), value.to_owned());
        }
        for node in &wanted.device_nodes {
            self.devices.push(device(node)?);
        }
        for one in &wanted.mounts {
            self.mounts.push(mount(one)?);
        }
        self.groups.extend(&wanted.additional_gids);
        Ok(())
    }
}

fn device(node: &Node) -> Result<(String, String, String), String> {
    let host = if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    if node.path.is_empty() {
        return Err("a device node has no path".to_owned());
    }
    let permissions = match node.permissions.as_str() {
        "" => "rwm",
        given if given.chars().all(|it| "rwm".contains(it)) => given,
        given => return Err(format!("permissions {given:?} of {host} are not known")),
    };
    // The container gets the node as it is on the host.
    let found = std::fs::metadata(host).map_err(|error| format!("device node {host}: {error}"))?;
    let differs = |wanted: Option<u32>, is: u32| wanted.is_some_and(|wanted| wanted != is);
    let mode = node.file_mode.map(|mode| mode & 0o7777);
    for (what, differs) in [
        ("fileMode", differs(mode, found.mode() & 0o7777)),
        ("uid", differs(node.uid, found.uid())),
        ("gid", differs(node.gid, found.gid())),
    ] {
        if differs {
            return Err(format!(
                "{what} of device node {host} other than the host's own is not supported by this \
                 node"
            ));
        }
    }
    Ok((node.path.clone(), host.clone(), permissions.to_owned()))
}

fn mount(one: &Mount) -> Result<(String, String, bool), String> {
    let at = &one.container_path;
    if at.is_empty() || one.host_path.is_empty() {
        return Err("a mount has no hostPath or no containerPath".to_owned());
    }
    if !matches!(one.r#type.as_str(), "" | "none" | "bind") {
        return Err(format!(
            "mounts of type {} ({at}) are not supported by this node",
            one.r#type
        ));
    }
    let mut read_only = false;
    for option in &one.options {
        match option.as_str() {
            "ro" => read_only = true,
            // Bound from the host, it keeps what that has; nothing of it is a device or a program
            // that runs as another user, unless the vendor put it there.
            "rw" | "bind" | "rbind" | "private" | "rprivate" | "nosuid" | "nodev" => {}
            other => {
                return Err(format!(
                    "option {other} of the mount at {at} is not supported by this node"
                ));
            }
        }
    }
    Ok((at.clone(), one.host_path.clone(), read_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(directory).expect("a directory");
        std::fs::write(directory.join(name), text).expect("a file");
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn a_device_is_what_its_vendors_files_say() {
        let home = tempfile::tempdir().expect("a directory");
        let (etc, run) = (home.path().join("etc"), home.path().join("run"));
        write(
            &etc,
            "card.yaml",
            "cdiVersion: 0.6.0
kind: vendor.com/card
containerEdits:
  env: [ALL=yes]
devices:
- name: one
  containerEdits:
    env: [CARD=one]
    additionalGids: [44]
    deviceNodes:
    - path: /dev/card0
      hostPath: /dev/null
      permissions: rw
- name: two
  containerEdits:
    env: [CARD=old]
",
        );
        write(
            &run,
            "card.json",
            r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/card", "devices": [
                {"name": "two", "containerEdits": {"env": ["CARD=two"], "mounts": [
                    {"hostPath": "/lib/card", "containerPath": "/opt/card",
                     "options": ["ro", "rbind", "nosuid"]}]}}]}"#,
        );
        let both = [etc, run];
        let edits = resolve_in(&both, &names(&["vendor.com/card=one"])).expect("it is known");
        assert_eq!(edits.env["ALL"], "yes");
        assert_eq!(edits.env["CARD"], "one");
        assert_eq!(edits.groups, [44].into());
        let node = ("/dev/card0".into(), "/dev/null".into(), "rw".into());
        assert_eq!(edits.devices, [node]);
        // What was written later holds.
        let edits = resolve_in(&both, &names(&["vendor.com/card=two"])).expect("it is known");
        assert_eq!(edits.env["CARD"], "two");
        assert_eq!(
            edits.mounts,
            [("/opt/card".into(), "/lib/card".into(), true)]
        );
        // Twice is once.
        let twice = names(&["vendor.com/card=two", "vendor.com/card=two"]);
        assert_eq!(resolve_in(&both, &twice).expect("it is known"), edits);
    }

    #[test]
    fn what_is_not_known_or_not_done_is_refused_by_name() {
        let home = tempfile::tempdir().expect("a directory");
        let at = home.path().to_path_buf();
        let of = |name: &str, edits: &str| {
            let text = format!(
                "{{\"kind\": \"v.com/{name}\", \"devices\": [{{\"name\": \"a\", \
                 \"containerEdits\": {edits}}}]}}"
            );
            write(&at, &format!("{name}.json"), &text);
        };
        of(
            "hook",
            r#"{"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}"#,
        );
        of(
            "gone",
            r#"{"deviceNodes": [{"path": "/dev/is-not-there"}]}"#,
        );
        of(
            "mode",
            r#"{"deviceNodes": [{"path": "/dev/null", "uid": 7}]}"#,
        );
        of(
            "kind",
            r#"{"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "tmpfs"}]}"#,
        );
        of("empty", r#"{"hooks": [], "env": ["A=b"]}"#);
        write(&at, "broken.json", "{");
        let all = [at.clone()];
        let why = |name: &str| resolve_in(&all, &names(&[name])).expect_err(name);
        for (name, words) in [
            (
                "v.com/hook=a",
                "CDI device v.com/hook=a: hooks are not supported",
            ),
            ("v.com/gone=a", "/dev/is-not-there"),
            ("v.com/mode=a", "uid of device node /dev/null"),
            ("v.com/kind=a", "mounts of type tmpfs (/b)"),
            ("v.com/none=a", "unresolvable CDI devices v.com/none=a; "),
            ("none", "is not of the form"),
        ] {
            assert!(why(name).contains(words), "{}", why(name));
        }
        let edits = resolve_in(&all, &names(&["v.com/empty=a"])).expect("nothing is asked for");
        assert_eq!(edits.env["A"], "b");
        of("copy", "{}");
        std::fs::copy(at.join("copy.json"), at.join("copy2.json")).expect("a file");
        assert!(why("v.com/copy=a").contains("both have it"));
    }
}
