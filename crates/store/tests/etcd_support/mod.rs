//! Real etcd for tests: one member or several, on a loopback address that nobody else has, stopped
//! and removed also when a test fails.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses a part; a test that cannot go on fails"
)]

mod links;

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const CLIENT: u16 = 23_790;
const PEER: u16 = 23_800;
/// Where members find each other when what is between them can be cut.
const BETWEEN: u16 = 23_810;
/// Members start within this, on a machine that does other things as well.
const BOUND: Duration = Duration::from_secs(90);

/// The binary, or `None` where there is none.
pub fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("EVENKEEL_ETCD").map(PathBuf::from);
    let usual = ["/usr/bin/etcd", "/usr/local/bin/etcd"].map(PathBuf::from);
    named.into_iter().chain(usual).find(|path| path.exists())
}

/// Says that a test can't run; where etcd must be there it fails instead.
pub fn skipped() {
    assert!(
        std::env::var_os("EVENKEEL_NEEDS_ETCD").is_none(),
        "no etcd found"
    );
    eprintln!("skipped: no etcd found; scripts/packages.sh installs it");
}

/// An address of the loopback network that belongs to this process and cluster alone.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(100);
    let [.., high, low] = std::process::id().to_be_bytes();
    // Pids go beyond 16 bits on some machines; their higher bits choose another block.
    let [_, block, ..] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, number.wrapping_add(block.wrapping_mul(10)), high, low)
}

/// Certificates for TLS.
pub struct Certificates {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A cluster of etcd.
pub struct Etcd {
    address: Ipv4Addr,
    members: Vec<Option<Child>>,
    tls: bool,
    links: Option<Arc<links::Links>>,
    dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            // One that is stopped does not die of SIGKILL before it goes on; it does on Linux.
            child.kill().ok();
            child.wait().ok();
        }
        if let Some(links) = &self.links {
            links.close();
        }
    }
}

impl Etcd {
    /// Starts `members`; `None` where there is no etcd.
    pub fn start(members: usize) -> Option<Self> {
        Self::start_with(members, false)
    }

    /// As [`Self::start`], with TLS in which both sides show certificates.
    pub fn start_with(members: usize, tls: bool) -> Option<Self> {
        binary()?;
        Some(Self::start_at(address(), members, tls, None))
    }

    /// As [`Self::start`]; members can be cut off from each other.
    pub fn start_partible(members: usize) -> Option<Self> {
        binary()?;
        let address = address();
        let links = links::Links::open(address, BETWEEN, PEER, members);
        Some(Self::start_at(address, members, false, Some(links)))
    }

    fn start_at(
        address: Ipv4Addr,
        members: usize,
        tls: bool,
        links: Option<Arc<links::Links>>,
    ) -> Self {
        let mut etcd = Self {
            address,
            members: Vec::new(),
            tls,
            links,
            dir: tempfile::tempdir().unwrap(),
        };
        if tls {
            etcd.certify();
        }
        for member in 0..members {
            etcd.members.push(None);
            etcd.start_member_of(member, members);
        }
        for member in 0..members {
            etcd.wait_for(member);
        }
        etcd
    }

    /// Cuts what is between two members, both ways. Clients reach them as before.
    pub fn part(&self, one: usize, other: usize) {
        self.links.as_ref().unwrap().part(one, other);
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.links.as_ref().unwrap().heal();
    }

    fn url(&self, base: u16, member: usize) -> String {
        let scheme = if self.tls && base == CLIENT {
            "https"
        } else {
            "http"
        };
        let port = base + u16::try_from(member).unwrap();
        format!("{scheme}://{}:{port}", self.address)
    }

    /// Addresses for clients.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len())
            .map(|member| self.url(CLIENT, member))
            .collect()
    }

    pub fn certificates(&self) -> Certificates {
        let file = |name: &str| self.dir.path().join(name);
        Certificates {
            ca: file("ca.pem"),
            cert: file("leaf.pem"),
            key: file("leaf.key"),
        }
    }

    fn certify(&self) {
        let files = self.certificates();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec![self.address.to_string()]).unwrap();
        leaf.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        std::fs::write(files.ca, ca_cert.pem()).unwrap();
        std::fs::write(files.cert, leaf.pem()).unwrap();
        std::fs::write(files.key, key.serialize_pem()).unwrap();
    }

    /// Starts a member that was killed.
    pub fn start_member(&mut self, member: usize) {
        self.start_member_of(member, self.members.len());
    }

    fn start_member_of(&mut self, member: usize, of: usize) {
        let told = if self.links.is_some() { BETWEEN } else { PEER };
        let peers: Vec<String> = (0..of)
            .map(|peer| format!("m{peer}={}", self.url(told, peer)))
            .collect();
        let (client, peer) = (self.url(CLIENT, member), self.url(PEER, member));
        let found_at = self.url(told, member);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("m{member}.log")))
            .unwrap();
        let mut command = Command::new(binary().unwrap());
        command
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.dir.path().join(format!("m{member}")))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &found_at,
            ])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--initial-cluster-token", &self.address.to_string()])
            .args(["--heartbeat-interval", "150", "--election-timeout", "1500"])
            .args(["--max-request-bytes", "4194304", "--log-level", "error"]);
        if self.tls {
            let files = self.certificates();
            command
                .args(["--client-cert-auth", "--cert-file"])
                .arg(files.cert)
                .arg("--key-file")
                .arg(files.key)
                .arg("--trusted-ca-file")
                .arg(files.ca);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        if let Some(links) = &self.links {
            links.is_member(member, child.id());
        }
        self.members[member] = Some(child);
    }

    /// Waits until a member accepts connections.
    pub fn wait_for(&mut self, member: usize) {
        let port = CLIENT + u16::try_from(member).unwrap();
        let until = Instant::now() + BOUND;
        while TcpStream::connect((self.address, port)).is_err() {
            let ended = self.members[member].as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(self.dir.path().join(format!("m{member}.log")));
            assert!(ended.is_none(), "etcd ended: {:?}", log());
            assert!(Instant::now() < until, "etcd does not listen: {:?}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets a member hang, as one that is cut off: its connections stay, and it says nothing.
    pub fn freeze(&self, member: usize, frozen: bool) {
        let pid = self.members[member].as_ref().unwrap().id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        // The shell's own `kill`: a bare Debian has no command of that name.
        let status = Command::new("sh")
            .args(["-c", "kill \"$0\" \"$1\"", signal, &pid.to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Which member leads, by asking each with `etcdctl`.
    pub fn leader(&self) -> Option<usize> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(["--command-timeout=3s", "endpoint", "status", "-w", "simple"])
            .output()
            .ok()?;
        // ENDPOINT, ID, VERSION, SIZE, IS LEADER, …
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text
            .lines()
            .find(|line| line.split(", ").nth(4) == Some("true"))?;
        let endpoint = line.split(", ").next()?;
        self.endpoints().iter().position(|known| known == endpoint)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
