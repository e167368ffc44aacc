//! Which sandbox has which pod address. One small file per sandbox under the state directory is
//! the record; memory is an index of it.
//!
//! A lease file appears by rename, so it is whole or absent, and is removed once. Files are not
//! synced: a machine that lost power has no sandbox left that could hold an address, and a killed
//! process loses nothing. Released addresses are handed out again last, so that peers which still
//! remember the old owner have forgotten it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use parking_lot::Mutex;

/// Why an address can't be given or taken back.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// Every address of the pod CIDR is in use.
    #[error("no free address left in pod CIDR {0}")]
    Exhausted(Ipv4Net),
    /// The pod CIDR has no room for a gateway and a pod.
    #[error("pod CIDR {0} is too small")]
    TooSmall(Ipv4Net),
    /// A sandbox id that can't be a file name.
    #[error("sandbox id {0:?} is not usable as a file name")]
    BadId(String),
    /// A lease could not be read or written.
    #[error("address lease {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The addresses of one node's pod CIDR.
#[derive(Debug)]
pub struct Ipam {
    cidr: Ipv4Net,
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    leases: BTreeMap<String, Ipv4Addr>,
    used: HashSet<Ipv4Addr>,
    /// Addresses not handed out since the start, in the order to hand them out.
    fresh: Fresh,
    released: VecDeque<Ipv4Addr>,
}

/// Walks once around the usable addresses.
#[derive(Debug)]
struct Fresh {
    first: u32,
    count: u32,
    start: u32,
    taken: u32,
}

impl Fresh {
    fn next(&mut self) -> Option<Ipv4Addr> {
        if self.taken == self.count {
            return None;
        }
        let offset = (self.start + self.taken) % self.count;
        self.taken += 1;
        Some(Ipv4Addr::from_bits(self.first + offset))
    }

    /// Whether the address will still come up.
    fn holds(&self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.first);
        offset < self.count && (offset + self.count - self.start) % self.count >= self.taken
    }
}

impl Ipam {
    /// Reads the leases under `directory`, which is made when missing. The first address of
    /// `cidr` is the gateway; the network's and the broadcast address are never handed out.
    ///
    /// # Errors
    /// When the CIDR has no room, or the directory can't be read or written.
    pub fn open(cidr: Ipv4Net, directory: &Path) -> Result<Self, IpamError> {
        let cidr = cidr.trunc();
        if cidr.prefix_len() > 29 {
            return Err(IpamError::TooSmall(cidr));
        }
        let first = cidr.network().to_bits() + 2;
        let count = cidr.broadcast().to_bits() - first;
        fs::create_dir_all(directory).map_err(|source| io_error(directory, source))?;
        let mut leases = BTreeMap::new();
        let mut used = HashSet::new();
        let mut last = None;
        let entries = fs::read_dir(directory).map_err(|source| io_error(directory, source))?;
        for entry in entries {
            let path = entry.map_err(|source| io_error(directory, source))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.starts_with('.') {
                if name == LAST {
                    last = fs::read_to_string(&path)
                        .ok()
                        .and_then(|text| text.trim().parse().ok());
                } else {
                    // Left by a crash between writing and renaming: no lease yet.
                    fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
                }
                continue;
            }
            let text = fs::read_to_string(&path).map_err(|source| io_error(&path, source))?;
            let Ok(address) = text.trim().parse::<Ipv4Addr>() else {
                let source = io::Error::new(io::ErrorKind::InvalidData, "not an IPv4 address");
                return Err(io_error(&path, source));
            };
            if !used.insert(address) {
                tracing::warn!(%address, sandbox = name, "address is leased twice on disk");
            }
            leases.insert(name.to_owned(), address);
        }
        let start = last.map_or(0, |last: Ipv4Addr| {
            let offset = last.to_bits().wrapping_sub(first);
            if offset < count {
                (offset + 1) % count
            } else {
                0
            }
        });
        let fresh = Fresh {
            first,
            count,
            start,
            taken: 0,
        };
        let state = State {
            leases,
            used,
            fresh,
            released: VecDeque::new(),
        };
        Ok(Self {
            cidr,
            directory: directory.to_owned(),
            state: Mutex::new(state),
        })
    }

    /// The address of the bridge: pods' default route and, with the prefix, the pod network.
    pub fn gateway(&self) -> Ipv4Net {
        gateway(self.cidr)
    }

    /// The address of this sandbox: the one it has, or a new one.
    ///
    /// # Errors
    /// When none is free or the lease can't be written; then nothing is leased.
    pub fn lease(&self, sandbox: &str) -> Result<Ipv4Addr, IpamError> {
        if sandbox.is_empty() || sandbox.starts_with('.') || sandbox.contains(['/', '\0']) {
            return Err(IpamError::BadId(sandbox.to_owned()));
        }
        let mut state = self.state.lock();
        if let Some(address) = state.leases.get(sandbox) {
            return Ok(*address);
        }
        let address = loop {
            let next = state.fresh.next().or_else(|| state.released.pop_front());
            let address = next.ok_or(IpamError::Exhausted(self.cidr))?;
            if !state.used.contains(&address) {
                break address;
            }
        };
        let written = self
            .write(LAST, address)
            .and_then(|()| self.write(sandbox, address));
        if let Err(error) = written {
            state.released.push_front(address);
            return Err(error);
        }
        state.used.insert(address);
        state.leases.insert(sandbox.to_owned(), address);
        Ok(address)
    }

    /// Takes the address back. Succeeds when the sandbox has none; answers what it had.
    ///
    /// # Errors
    /// When the lease can't be removed; then it stays.
    pub fn release(&self, sandbox: &str) -> Result<Option<Ipv4Addr>, IpamError> {
        let mut state = self.state.lock();
        let Some(address) = state.leases.get(sandbox).copied() else {
            return Ok(None);
        };
        let path = self.directory.join(sandbox);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&path, error));
            }
            _ => {}
        }
        state.leases.remove(sandbox);
        if !state.leases.values().any(|other| *other == address) {
            state.used.remove(&address);
            if !state.fresh.holds(address) && self.cidr.contains(&address) {
                state.released.push_back(address);
            }
        }
        Ok(Some(address))
    }

    /// All leases: sandbox id and address.
    pub fn leases(&self) -> Vec<(String, Ipv4Addr)> {
        self.state
            .lock()
            .leases
            .iter()
            .map(|(id, address)| (id.clone(), *address))
            .collect()
    }

    fn write(&self, name: &str, address: Ipv4Addr) -> Result<(), IpamError> {
        let path = self.directory.join(name);
        let draft = self.directory.join(".draft");
        fs::write(&draft, format!("{address}\n"))
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(|source| io_error(&path, source))
    }
}

/// Remembers where the walk was, so that a restart does not reuse fresh releases first.
const LAST: &str = ".last";

/// The first address of a pod CIDR, with the prefix.
pub fn gateway(cidr: Ipv4Net) -> Ipv4Net {
    let address = Ipv4Addr::from_bits(cidr.network().to_bits() + 1);
    Ipv4Net::new(address, cidr.prefix_len()).expect("the prefix comes from a valid network")
}

fn io_error(path: &Path, source: io::Error) -> IpamError {
    IpamError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
