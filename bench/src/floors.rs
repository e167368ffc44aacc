//! Physical floors: what the same machine does at best, measured in the same run.

#![allow(unsafe_code, reason = "clone with namespaces has no safe form")]

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use nix::sched::CloneFlags;
use nix::sys::wait::WaitPidFlag;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::Target;

/// Debian's static busybox: the smallest program that containers here run.
const STATIC: &str = evenkeel_runtime::testing::BUSYBOX;
const STACK: usize = 64 << 10;

/// Milliseconds of a write of 4 KiB with fdatasync, on the disk of `directory`: `append` makes
/// the file longer each time, which the filesystem writes down as well; otherwise the same place
/// is written over and over, as a log that is used again does.
pub(crate) fn sync(directory: &Path, append: bool, count: usize) -> anyhow::Result<Vec<f64>> {
    let path = directory.join(format!("sync-{}", std::process::id()));
    let file = fs::File::create(&path)?;
    let block = [7_u8; 4096];
    file.write_all_at(&block, 0)?;
    file.sync_all()?;
    let mut samples = Vec::with_capacity(count);
    for n in 0..count {
        let place = if append { 4096 * (n as u64 + 1) } else { 0 };
        let began = Instant::now();
        file.write_all_at(&block, place)?;
        file.sync_data()?;
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(&path)?;
    Ok(samples)
}

/// Milliseconds from clone with the namespaces of a container to the end of a static program.
pub(crate) fn clone_exec(count: usize) -> anyhow::Result<Vec<f64>> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    let program = CString::new(STATIC)?;
    let arguments = [CString::new("true")?];
    let environment: [CString; 0] = [];
    let mut stack = vec![0_u8; STACK];
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        let run = || {
            // Answers only when it fails.
            let failed = nix::unistd::execve(&program, &arguments, &environment);
            if failed.is_err() { 127 } else { 0 }
        };
        // SAFETY: the child has its own copy of the memory (no CLONE_VM) and a stack of its own,
        // and does nothing but execve, which takes no lock that another thread may hold.
        let child = unsafe {
            nix::sched::clone(Box::new(run), &mut stack, flags, Some(nix::libc::SIGCHLD))
        }
        .context("clone (it needs root)")?;
        let status = nix::sys::wait::waitpid(child, Some(WaitPidFlag::__WALL))?;
        samples.push(began.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(
            matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)),
            "{STATIC} (install busybox-static): {status:?}"
        );
    }
    Ok(samples)
}

/// A process that answers over TLS with what it was sent: the least that a server can do.
pub(crate) struct Echo {
    child: Child,
    pub(crate) target: Target,
}

impl Echo {
    /// Starts this program again as the echo server.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("echo")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let (address, ca) = line
            .trim()
            .split_once(' ')
            .context("the echo server said nothing")?;
        let ca = String::from_utf8(STANDARD.decode(ca)?)?;
        let target = Target::anonymous(address.parse()?, &ca)?;
        Ok(Self { child, target })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// The echo server: `GET /N` is answered with N bytes copied from memory, anything else with its
/// own body. Ends with its parent.
pub(crate) async fn echo() -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    println!(
        "{} {}",
        listener.local_addr()?,
        STANDARD.encode(made.cert.pem())
    );
    // The parent holds the other end of stdin.
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
    let memory: Arc<Vec<u8>> = Arc::new((0..=255).cycle().take(16 << 20).collect());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, memory) = (acceptor.clone(), Arc::clone(&memory));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let memory = Arc::clone(&memory);
                async move { Ok::<_, Infallible>(answer(request, &memory).await) }
            });
            // A client that goes away is how every connection here ends.
            drop(
                Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

async fn answer(request: Request<Incoming>, memory: &[u8]) -> Response<Full<Bytes>> {
    let wanted = request
        .uri()
        .path()
        .trim_start_matches('/')
        .parse::<usize>();
    let body = match wanted {
        Ok(length) => Bytes::from(memory[..length.min(memory.len())].to_vec()),
        Err(_) => request
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default(),
    };
    Response::new(Full::new(body))
}
