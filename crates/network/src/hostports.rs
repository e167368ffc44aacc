//! Which sandboxes publish which ports of the host. Kept in one small file per sandbox, because
//! the nftables table is built anew after a restart and the runtime does not attach again what it
//! finds running.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::service::{HostPort, Protocol};

/// A sandbox's address and its published ports.
pub(crate) type Published = (Ipv4Addr, Vec<HostPort>);

/// The records under one directory.
#[derive(Debug)]
pub(crate) struct HostPorts {
    directory: PathBuf,
}

impl HostPorts {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// All records; a damaged one is named in a warning and left out.
    pub(crate) fn load(&self) -> io::Result<BTreeMap<String, Published>> {
        let mut out = BTreeMap::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            match parse(&std::fs::read_to_string(&path)?) {
                Some(published) => {
                    out.insert(name.to_owned(), published);
                }
                None => tracing::warn!(path = %path.display(), "damaged host port record"),
            }
        }
        Ok(out)
    }

    pub(crate) fn save(&self, sandbox: &str, published: &Published) -> io::Result<()> {
        let mut text = format!("{}\n", published.0);
        for port in &published.1 {
            let ip = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let HostPort {
                protocol,
                host_port,
                container_port,
                ..
            } = port;
            text += &format!("{} {ip} {host_port} {container_port}\n", protocol.name());
        }
        let draft = self.directory.join(".draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, self.directory.join(sandbox))
    }

    pub(crate) fn remove(&self, sandbox: &str) -> io::Result<()> {
        match std::fs::remove_file(self.directory.join(sandbox)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn parse(text: &str) -> Option<Published> {
    let mut lines = text.lines();
    let address = lines.next()?.parse().ok()?;
    let mut ports = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        let protocol = Protocol::parse(&words.next()?.to_uppercase())?;
        let ip: Ipv4Addr = words.next()?.parse().ok()?;
        ports.push(HostPort {
            protocol,
            host_ip: (!ip.is_unspecified()).then_some(ip),
            host_port: words.next()?.parse().ok()?,
            container_port: words.next()?.parse().ok()?,
        });
    }
    Some((address, ports))
}
