//! What is between the members of a cluster: every connection from one to another goes through
//! here, and can be cut.
//!
//! Members name one address for each of them, so a connection does not say who makes it. The kernel
//! does: the socket at its other end belongs to a process.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Connections between the members of one cluster.
pub(crate) struct Links {
    address: Ipv4Addr,
    first: u16,
    /// Process ids of members.
    members: Mutex<Vec<u32>>,
    /// Pairs that can't reach each other, both ways round.
    parted: Mutex<HashSet<(usize, usize)>>,
    open: Mutex<Vec<(usize, usize, TcpStream)>>,
    closed: AtomicBool,
}

impl Links {
    /// Listens on `first` and the ports behind it, one for each member, and passes on to those from
    /// `behind` on.
    pub(crate) fn open(address: Ipv4Addr, first: u16, behind: u16, members: usize) -> Arc<Self> {
        let links = Arc::new(Self {
            address,
            first,
            members: Mutex::new(vec![0; members]),
            parted: Mutex::default(),
            open: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        for member in 0..members {
            let number = u16::try_from(member).unwrap();
            let listener = TcpListener::bind((address, first + number)).unwrap();
            let links = Arc::clone(&links);
            std::thread::spawn(move || {
                while let Ok((stream, from)) = listener.accept() {
                    if links.closed.load(Ordering::SeqCst) {
                        return;
                    }
                    let links = Arc::clone(&links);
                    let to = (address, behind + number);
                    std::thread::spawn(move || links.join(stream, from, member, to));
                }
            });
        }
        links
    }

    /// Says which process a member is.
    pub(crate) fn is_member(&self, member: usize, process: u32) {
        self.members.lock().unwrap()[member] = process;
    }

    pub(crate) fn part(&self, one: usize, other: usize) {
        let pairs = [(one, other), (other, one)];
        self.parted.lock().unwrap().extend(pairs);
        self.open.lock().unwrap().retain(|(from, to, stream)| {
            let cut = pairs.contains(&(*from, *to));
            if cut {
                stream.shutdown(Shutdown::Both).ok();
            }
            !cut
        });
    }

    pub(crate) fn heal(&self) {
        self.parted.lock().unwrap().clear();
    }

    /// Ends the threads that listen.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for number in 0..self.members.lock().unwrap().len() {
            let port = self.first + u16::try_from(number).unwrap();
            drop(TcpStream::connect((self.address, port)));
        }
    }

    fn join(&self, near: TcpStream, from: SocketAddr, to: usize, address: (Ipv4Addr, u16)) {
        let Some(member) = self.whose(from) else {
            return;
        };
        let Ok(far) = TcpStream::connect(address) else {
            return;
        };
        {
            // Under this lock nobody parts them in between.
            let parted = self.parted.lock().unwrap();
            if parted.contains(&(member, to)) {
                return;
            }
            let mut open = self.open.lock().unwrap();
            open.push((member, to, near.try_clone().unwrap()));
            open.push((member, to, far.try_clone().unwrap()));
        }
        let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let there = std::thread::spawn(move || pass(near, far));
        pass(far_again, near_again);
        there.join().unwrap();
    }

    /// Which member has the socket with this address.
    fn whose(&self, from: SocketAddr) -> Option<usize> {
        let SocketAddr::V4(from) = from else {
            return None;
        };
        let ip = u32::from_le_bytes(from.ip().octets());
        let local = format!("{ip:08X}:{:04X}", from.port());
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let inode = table.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            (fields.next()? == local).then(|| fields.nth(7).map(str::to_owned))?
        })?;
        let socket = format!("socket:[{inode}]");
        let members = self.members.lock().unwrap().clone();
        members.iter().position(|process| {
            let files = std::fs::read_dir(format!("/proc/{process}/fd"));
            files.into_iter().flatten().flatten().any(|file| {
                std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*socket)
            })
        })
    }
}

/// Passes bytes on until one side ends; then the other ends too.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
