//! From a contract's container to the helper's specification: images, paths, rights resolved.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Inner;
use super::records::ContainerRecord;
use super::sandbox::Sandbox;
use crate::contract::{
    ContainerConfig, ImageMount, Propagation, Result, RuntimeError, Seccomp, Security,
};
use crate::files::{self, Context as _};
use crate::image::Resolved;
use crate::shim::spec::{Bind, ContainerSpec, Device, Layers, Namespaces, Process, Root, UserSpec};
use crate::{caps, cgroup, seccomp};

/// The command to run: the pod's words over the image's.
fn command(config: &ContainerConfig, image: &Resolved) -> Result<Vec<String>> {
    let mut args = config.command.clone();
    if args.is_empty() {
        args.clone_from(&image.config.entrypoint);
    }
    if config.args.is_empty() {
        // The image's CMD belongs to its ENTRYPOINT, not to a command of the pod's.
        if config.command.is_empty() {
            args.extend(image.config.cmd.iter().cloned());
        }
    } else {
        args.extend(config.args.iter().cloned());
    }
    if args.is_empty() {
        return Err(RuntimeError::CannotRun("no command specified".to_owned()));
    }
    Ok(args)
}

/// Later values win over earlier ones of the same name.
fn environment(config: &ContainerConfig, image: &Resolved, hostname: &str) -> Vec<String> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match out.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => out.push((name.to_owned(), value.to_owned())),
    };
    if config.tty {
        set("TERM", "xterm");
    }
    set("HOSTNAME", hostname);
    for entry in &image.config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value);
    }
    for (name, value) in &config.env {
        set(name, value);
    }
    out.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// A signal's number by the words that STOPSIGNAL allows.
pub(super) fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        // 34: the C library keeps 32 and 33 for itself.
        return match rest {
            "" => Some(34),
            more => more
                .strip_prefix('+')?
                .parse()
                .ok()
                .map(|n: i32| 34 + n)
                .filter(|n| *n <= 64),
        };
    }
    if let Some(rest) = name.strip_prefix("SIGRTMAX") {
        return match rest {
            "" => Some(64),
            less => less
                .strip_prefix('-')?
                .parse()
                .ok()
                .map(|n: i32| 64 - n)
                .filter(|n| *n >= 34),
        };
    }
    name.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}

fn id(value: i64, what: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| RuntimeError::Invalid(format!("{what} {value} is no id")))
}

/// Capabilities as bits.
fn capabilities(security: &Security) -> Result<u64> {
    if security.privileged {
        return Ok(caps::ALL);
    }
    caps::resolve(&security.add_capabilities, &security.drop_capabilities)
        .map_err(|name| RuntimeError::Invalid(format!("unknown capability {name:?}")))
}

/// Writes the compiled filter where helpers find it; containers with the same one share it.
fn filter(inner: &Inner, security: &Security, capabilities: u64) -> Result<Option<PathBuf>> {
    let program = match &security.seccomp {
        _ if security.privileged => return Ok(None),
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => {
            let path = inner
                .root
                .join(format!("seccomp/default-{capabilities:x}.bpf"));
            if path.exists() {
                return Ok(Some(path));
            }
            (path, seccomp::runtime_default(capabilities))
        }
        Seccomp::Localhost(profile) => {
            let program = seccomp::localhost(profile)?;
            let digest = crate::image::config::digest(&program);
            let name = digest.trim_start_matches("sha256:");
            (inner.root.join(format!("seccomp/{name}.bpf")), program)
        }
    };
    let (path, program) = program;
    files::write_atomic(&path, &program).context(|| format!("write {}", path.display()))?;
    Ok(Some(path))
}

/// The program of a container or of an exec in it.
pub(super) fn process(
    inner: &Inner,
    config: &ContainerConfig,
    image: &Resolved,
    hostname: &str,
) -> Result<Process> {
    let capabilities = capabilities(&config.security)?;
    let cwd = [
        config.working_dir.as_str(),
        image.config.working_dir.as_str(),
        "/",
    ]
    .into_iter()
    .find(|dir| !dir.is_empty())
    .unwrap_or("/");
    Ok(Process {
        args: command(config, image)?,
        env: environment(config, image, hostname),
        cwd: if cwd.starts_with('/') {
            cwd.to_owned()
        } else {
            format!("/{cwd}")
        },
        capabilities,
        no_new_privs: config.security.no_new_privs,
        seccomp: filter(inner, &config.security, capabilities)?,
        oom_score_adj: config.resources.oom_score_adj,
        tty: config.tty,
    })
}

fn user(config: &ContainerConfig, image: &Resolved) -> Result<UserSpec> {
    let security = &config.security;
    Ok(UserSpec {
        image: image.config.user.clone(),
        uid: security
            .run_as_user
            .map(|uid| id(uid, "runAsUser"))
            .transpose()?,
        gid: security
            .run_as_group
            .map(|gid| id(gid, "runAsGroup"))
            .transpose()?,
        groups: security
            .supplemental_groups
            .iter()
            .map(|gid| id(*gid, "supplementalGroups"))
            .collect::<Result<_>>()?,
        strict_groups: security.strict_groups,
        non_root: security.run_as_non_root,
    })
}

/// A device of the host as it is to appear inside.
fn device(host: &Path, inside: &Path) -> Result<Option<Device>> {
    let metadata = fs::metadata(host).context(|| format!("look at device {}", host.display()))?;
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Ok(None);
    }
    Ok(Some(Device {
        path: inside.to_path_buf(),
        block: kind.is_block_device(),
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}

/// Every device below the host's /dev, for privileged containers.
fn host_devices() -> Result<Vec<Device>> {
    let mut out = Vec::new();
    let mut todo = vec![PathBuf::from("/dev")];
    while let Some(dir) = todo.pop() {
        for name in files::entries(&dir).context(|| format!("list {}", dir.display()))? {
            let path = dir.join(&name);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                // Each container has its own of these.
                if !matches!(name.as_str(), "pts" | "shm" | "mqueue" | "fd") {
                    todo.push(path);
                }
            } else if !metadata.is_symlink()
                && !matches!(name.as_str(), "console" | "tty" | "ptmx")
                && let Some(device) = device(&path, &path)?
            {
                out.push(device);
            }
        }
    }
    Ok(out)
}

/// Device nodes and the rules of the device cgroup; no rules mean that all is allowed.
pub(super) fn devices(
    config: &ContainerConfig,
) -> Result<(Vec<Device>, Option<Vec<cgroup::DeviceRule>>)> {
    let mut nodes = Vec::new();
    let mut rules = cgroup::default_rules();
    for (host, inside, access) in &config.devices {
        let node = device(host, inside)?
            .ok_or_else(|| RuntimeError::Invalid(format!("{} is not a device", host.display())))?;
        rules.push(cgroup::DeviceRule {
            kind: if node.block { 'b' } else { 'c' },
            major: Some(node.major),
            minor: Some(node.minor),
            access: if access.is_empty() {
                "rwm".to_owned()
            } else {
                access.clone()
            },
        });
        nodes.push(node);
    }
    if config.security.privileged {
        nodes.extend(host_devices()?);
        return Ok((nodes, None));
    }
    Ok((nodes, Some(rules)))
}

/// Mounts in the order they are made: shallow before deep.
fn binds(inner: &Inner, record: &ContainerRecord) -> Result<Vec<Bind>> {
    let dir = inner.sandbox_dir(&record.sandbox_id);
    let mounts = &record.config.mounts;
    let mut out = Vec::with_capacity(mounts.len() + 2);
    for (file, target) in [
        ("resolv.conf", "/etc/resolv.conf"),
        ("hostname", "/etc/hostname"),
    ] {
        if !mounts
            .iter()
            .any(|mount| mount.container_path == Path::new(target))
        {
            out.push(Bind {
                source: dir.join(file),
                layers: None,
                target: PathBuf::from(target),
                readonly: false,
                propagation: Propagation::None,
            });
        }
    }
    for mount in mounts {
        if !mount.container_path.is_absolute() {
            return Err(RuntimeError::Invalid(format!(
                "mount path {} is not absolute",
                mount.container_path.display()
            )));
        }
        if mount.propagation == Propagation::Bidirectional && mount.image.is_none() {
            require_shared(&mount.host_path)?;
        }
        let layers = mount.image.as_ref().map(|it| layers(inner, &record.id, it));
        let layers = layers.transpose()?;
        out.push(Bind {
            source: match &layers {
                Some(_) => PathBuf::new(),
                None => mount.host_path.clone(),
            },
            layers,
            target: mount.container_path.clone(),
            readonly: mount.readonly,
            propagation: mount.propagation,
        });
    }
    out.sort_by_key(|bind| bind.target.components().count());
    Ok(out)
}

/// Where the files of an image lie.
fn layers(inner: &Inner, id: &str, wanted: &ImageMount) -> Result<Layers> {
    let store = inner.images.store();
    let image = store
        .resolve(&wanted.image)?
        .ok_or_else(|| RuntimeError::NotFound {
            kind: "image",
            id: wanted.image.clone(),
        })?;
    Ok(Layers {
        dir: store.layers_dir(),
        lower: image.lower,
        sub_path: PathBuf::from(&wanted.sub_path),
        at: inner.container_dir(id).join("rootfs"),
    })
}

/// What is mounted inside shows on the host only if the host's mount is shared.
fn require_shared(path: &Path) -> Result<()> {
    let real = fs::canonicalize(path).context(|| format!("look at {}", path.display()))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .context(|| "read /proc/self/mountinfo".to_owned())?;
    let holder = mounts
        .lines()
        .filter_map(|line| {
            let (before, _) = line.split_once(" - ")?;
            let fields: Vec<&str> = before.split(' ').collect();
            let point = PathBuf::from(*fields.get(4)?);
            let shared = fields
                .iter()
                .skip(6)
                .any(|field| field.starts_with("shared:"));
            real.starts_with(&point).then_some((point, shared))
        })
        // The last of the deepest is the one on top.
        .max_by_key(|(point, _)| point.components().count());
    match holder {
        Some((_, true)) => Ok(()),
        Some((point, false)) => Err(RuntimeError::Invalid(format!(
            "path {:?} is mounted on {:?} but it is not a shared mount",
            path.display().to_string(),
            point.display().to_string()
        ))),
        None => Ok(()),
    }
}

/// The PID namespace of a running container.
fn pid_namespace(inner: &Inner, target: &str) -> Result<PathBuf> {
    let pid = inner.container(target)?.status().pid;
    let pid = pid.ok_or_else(|| {
        RuntimeError::Invalid(format!(
            "container {target}, whose processes are to be seen, does not run"
        ))
    })?;
    Ok(PathBuf::from(format!("/proc/{pid}/ns/pid")))
}

/// Everything that the shim needs to start a container.
pub(super) fn spec(
    inner: &Inner,
    sandbox: &Sandbox,
    record: &ContainerRecord,
    image: &Resolved,
    nodes: Vec<Device>,
) -> Result<ContainerSpec> {
    let pod = sandbox.record.lock().config.clone();
    let config = &record.config;
    let dir = inner.container_dir(&record.id);
    let pins = inner.sandbox_dir(&record.sandbox_id).join("ns");
    let shared_pid = pod.share_process_namespace && !pod.host_pid;
    let pid = match &config.pid_of {
        Some(target) if !pod.host_pid && !shared_pid => Some(pid_namespace(inner, target)?),
        _ => shared_pid.then(|| pins.join("pid")),
    };
    let hostname = if pod.host_network {
        String::new()
    } else {
        pod.hostname.clone()
    };
    Ok(ContainerSpec {
        id: record.id.clone(),
        process: process(inner, config, image, &hostname)?,
        user: user(config, image)?,
        root: Root {
            layers: inner.images.store().layers_dir(),
            lower: if image.lower.is_empty() {
                // An image without layers still needs a lower directory.
                vec![dir.join("rootfs").display().to_string()]
            } else {
                image.lower.clone()
            },
            upper: dir.join("upper"),
            work: dir.join("work"),
            target: dir.join("rootfs"),
            readonly: config.security.readonly_rootfs,
        },
        namespaces: Namespaces {
            net: (!pod.host_network).then(|| pins.join("net")),
            ipc: (!pod.host_ipc).then(|| pins.join("ipc")),
            uts: (!pod.host_network).then(|| pins.join("uts")),
            own_pid: !pod.host_pid && pid.is_none(),
            pid,
        },
        binds: binds(inner, record)?,
        devices: nodes,
        placement: inner
            .cgroups
            .placement(&inner.container_group(&record.pod_uid, &record.id)),
        privileged: config.security.privileged,
        unmasked: config.security.unmasked_proc,
        shm: if pod.host_ipc {
            PathBuf::from("/dev/shm")
        } else {
            inner.sandbox_dir(&record.sandbox_id).join("shm")
        },
        log: Some(record.log_path.clone()),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::ImageConfig;

    fn image(entrypoint: &[&str], cmd: &[&str]) -> Resolved {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        Resolved {
            id: String::new(),
            config: ImageConfig {
                entrypoint: words(entrypoint),
                cmd: words(cmd),
                env: vec!["A=1".into(), "B=2".into()],
                ..ImageConfig::default()
            },
            lower: Vec::new(),
        }
    }

    #[test]
    fn command_and_args_replace_what_the_image_says() {
        let image = image(&["/entry"], &["cmd"]);
        let with = |command: &[&str], args: &[&str]| ContainerConfig {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            ..ContainerConfig::default()
        };
        let run = |config: ContainerConfig| command(&config, &image).expect("a command").join(" ");
        assert_eq!(run(with(&[], &[])), "/entry cmd");
        assert_eq!(run(with(&[], &["x"])), "/entry x");
        assert_eq!(run(with(&["/own"], &[])), "/own");
        assert_eq!(run(with(&["/own"], &["x"])), "/own x");
        assert!(command(&ContainerConfig::default(), &self::image(&[], &[])).is_err());
    }

    #[test]
    fn the_pods_environment_wins() {
        let config = ContainerConfig {
            env: vec![("B".into(), "3".into()), ("C".into(), "x=y".into())],
            ..ContainerConfig::default()
        };
        assert_eq!(
            environment(&config, &image(&[], &[]), "web-0"),
            ["HOSTNAME=web-0", "A=1", "B=3", "C=x=y"]
        );
    }

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGWAT", None),
            ("0", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
