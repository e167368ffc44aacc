//! Drivers come and go: a socket in `plugins_registry` is a plugin that wants to be known, and
//! its end is the plugin's (kubelet's plugin watcher, `pluginregistration` v1). Drivers of storage
//! and of dynamic resources come the same way.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_grpc::{Channel, Target};
use http::HeaderMap;
use tracing::{info, warn};

use super::driver::Driver;
use super::{Csi, objects, proto};
use crate::context::Context;
use crate::server::logs::Watch;
use crate::volume::release::make_dir;

/// The service of plugins that register.
const SERVICE: &str = "/pluginregistration.Registration";
/// How long a plugin may take to say who it is.
const WITHIN: Duration = Duration::from_secs(10);
/// What could not be done is tried again so often, and the directory read in case that a change
/// of it was not told.
const AGAIN: Duration = Duration::from_secs(5);

/// A plugin's socket: which file it is, and the driver that registered over it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    file: (u64, u64),
    driver: Option<(Kind, String)>,
}

/// What a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `CSIPlugin`.
    Storage,
    /// `DRAPlugin`.
    Resources,
}

/// The sockets in a directory, by path. Names that begin with a dot are nobody's.
fn sockets(directory: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let visible = entries.filter(|it| !it.file_name().to_string_lossy().starts_with('.'));
    visible
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            let made = meta.ctime().unsigned_abs() ^ meta.ctime_nsec().unsigned_abs();
            meta.file_type()
                .is_socket()
                .then(|| (entry.path(), (meta.ino(), made)))
        })
        .collect()
}

/// Follows the directory until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let csi = &context.gatherer.csi;
    let directory = csi.root.join("plugins_registry");
    for made in [&directory, &csi.root.join("plugins")] {
        if let Err(error) = make_dir(made, 0o750) {
            warn!(error, "plugins can't register");
        }
    }
    let watch = Watch::new(&directory)
        .map_err(|error| warn!(%error, "plugins are looked for every few seconds"))
        .ok();
    let mut known: BTreeMap<PathBuf, Known> = BTreeMap::new();
    let mut tick = tokio::time::interval(AGAIN);
    let mut described = false;
    loop {
        let change = async {
            match &watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tick.tick() => {}
            changed = change => {
                if let Err(error) = changed {
                    warn!(%error, "the plugins' directory is not watched");
                    tick.tick().await;
                }
            }
        }
        if !described {
            // Before its node is registered there is nobody to own it.
            described = objects::ensure(&csi.client, &csi.node).await.is_ok();
        }
        csi.report_again().await;
        look(&context, &directory, &mut known).await;
    }
}

async fn look(context: &Context, directory: &Path, known: &mut BTreeMap<PathBuf, Known>) {
    let csi = &context.gatherer.csi;
    let found = sockets(directory);
    let gone: Vec<PathBuf> = known
        .iter()
        .filter(|(path, one)| found.get(*path) != Some(&one.file))
        .map(|(path, _)| path.clone())
        .collect();
    for path in gone {
        let Some(one) = known.remove(&path) else {
            continue;
        };
        // A plugin that came back in place of another takes its name over below.
        let Some((kind, driver)) = one.driver.filter(|_| !found.contains_key(&path)) else {
            continue;
        };
        info!(driver, "driver gone");
        if kind == Kind::Resources {
            context.dra.unregister(&driver);
            continue;
        }
        csi.drivers.lock().remove(&driver);
        if let Err(error) = objects::uninstall(&csi.client, &csi.node, &driver).await {
            warn!(driver, error, "the driver that is gone is still shown");
        }
    }
    for (path, file) in found {
        if known.get(&path).is_some_and(|one| one.file == file) {
            continue;
        }
        match register(context, &path).await {
            Ok((kind, name)) => {
                info!(driver = name, "driver registered");
                if kind == Kind::Storage {
                    csi.sweep(&name).await;
                }
                context.wakers.wake_all();
                let driver = Some((kind, name));
                known.insert(path, Known { file, driver });
            }
            Err(Refused::Now(why)) => {
                warn!(why, socket = %path.display(), "plugin not registered; tried again");
            }
            Err(Refused::ForGood(why)) => {
                warn!(why, socket = %path.display(), "plugin refused");
                known.insert(path, Known { file, driver: None });
            }
        }
    }
}

/// Why a plugin is not registered.
enum Refused {
    /// It is asked again.
    Now(String),
    /// It is not asked again before it makes another socket.
    ForGood(String),
}

async fn register(context: &Context, socket: &Path) -> Result<(Kind, String), Refused> {
    let csi = &context.gatherer.csi;
    let target = Target::Unix {
        path: socket.to_owned(),
    };
    let plugin = Channel::new(target, HeaderMap::new());
    let path = format!("{SERVICE}/GetInfo");
    let info: proto::PluginInfo = plugin
        .unary(&path, &proto::Empty {}, WITHIN)
        .await
        .map_err(|error| Refused::Now(error.rpc_text()))?;
    let (name, at) = (&info.name, socket.display());
    let endpoint = match info.endpoint.as_str() {
        "" => socket.to_string_lossy().into_owned(),
        endpoint => endpoint.to_owned(),
    };
    let invalid = |why: String| {
        Refused::ForGood(format!(
            "RegisterPlugin error -- plugin validation failed with err: {why}"
        ))
    };
    let accepted = match info.r#type.as_str() {
        "CSIPlugin" => match supported(name, &info.supported_versions) {
            Err(why) => Err(invalid(why)),
            Ok(()) => install(csi, name, &endpoint)
                .await
                .map(|()| Kind::Storage)
                .map_err(|why| {
                    Refused::Now(format!(
                        "RegisterPlugin error -- plugin registration failed with err: {why}"
                    ))
                }),
        },
        "DRAPlugin" => context
            .dra
            .register(name, &info.supported_versions, &endpoint)
            .map(|()| Kind::Resources)
            .map_err(invalid),
        other => Err(Refused::ForGood(format!(
            "RegisterPlugin error -- no handler registered for plugin type: {other} at socket {at}"
        ))),
    };
    let status = proto::RegistrationStatus {
        plugin_registered: accepted.is_ok(),
        error: match &accepted {
            Ok(_) => String::new(),
            Err(Refused::Now(why) | Refused::ForGood(why)) => why.clone(),
        },
    };
    let path = format!("{SERVICE}/NotifyRegistrationStatus");
    let told = plugin.unary::<proto::Empty>(&path, &status, WITHIN).await;
    let kind = accepted?;
    if let Err(error) = told {
        match kind {
            Kind::Storage => drop(csi.drivers.lock().remove(name)),
            Kind::Resources => context.dra.unregister(name),
        }
        return Err(Refused::Now(error.rpc_text()));
    }
    Ok((kind, info.name))
}

/// Any version 1.x will do: they are compatible with each other.
fn supported(name: &str, versions: &[String]) -> Result<(), String> {
    let first = |version: &String| {
        let version = version.strip_prefix('v').unwrap_or(version);
        version.split('.').next() == Some("1")
    };
    if versions.iter().any(first) {
        return Ok(());
    }
    Err(format!(
        "CSI driver {name:?}: none of the versions specified {versions:?} are supported"
    ))
}

async fn install(csi: &Csi, name: &str, endpoint: &str) -> Result<(), String> {
    let driver = Driver::connect(name, endpoint).await?;
    objects::install(&csi.client, &csi.node, &driver).await?;
    csi.drivers.lock().insert(name.to_owned(), driver);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_first_major_are_taken() {
        let text = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        for good in [&["1.0.0"][..], &["0.3.0", "1.9.0"], &["v1.2"]] {
            assert!(supported("d", &text(good)).is_ok(), "{good:?}");
        }
        for bad in [&[][..], &["0.3.0"], &["2.0.0"], &["10.0"]] {
            assert!(supported("d", &text(bad)).is_err(), "{bad:?}");
        }
    }
}
