//! Running programs in containers, and attaching to the container's own streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::container::Container;
use super::streams::{PipeWriter, Terminal, pipe_reader};
use super::{Inner, build, watch, zygote};
use crate::contract::{
    ContainerConfig, ExecOutput, ExecRequest, Reader, Result, RuntimeError, StreamSession,
    TerminalSize, Writer,
};
use crate::files::Context as _;
use crate::shim::op;
use crate::shim::spec::{ExecSpec, Process};
use crate::wire::{self, Attach, Exited, frame};

/// The most that `exec_sync` keeps of a stream, bytes.
const MAX_OUTPUT: usize = 16 << 20;

/// How long output may still come after the program's end.
const DRAIN: Duration = Duration::from_secs(2);

/// The program with the container's own surroundings.
fn process(inner: &Inner, container: &Container, command: &[String], tty: bool) -> Result<Process> {
    if command.is_empty() {
        return Err(RuntimeError::Invalid("exec needs a command".to_owned()));
    }
    let record = &container.record;
    let image = inner
        .images
        .store()
        .resolve(&record.image_id)?
        .ok_or_else(|| RuntimeError::NotFound {
            kind: "image",
            id: record.image_id.clone(),
        })?;
    let hostname = {
        let sandbox = inner.sandbox(&record.sandbox_id)?;
        let sandbox = sandbox.record.lock();
        if sandbox.config.host_network {
            String::new()
        } else {
            sandbox.config.hostname.clone()
        }
    };
    let config = ContainerConfig {
        command: command.to_vec(),
        args: Vec::new(),
        tty,
        ..record.config.clone()
    };
    let mut process = build::process(inner, &config, &image, &hostname)?;
    if tty && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    Ok(process)
}

fn spec(
    inner: &Inner,
    container: &Container,
    command: &[String],
    tty: bool,
    stdio: [bool; 3],
) -> Result<ExecSpec> {
    let record = &container.record;
    Ok(ExecSpec {
        container: container.running()?,
        process: process(inner, container, command, tty)?,
        placement: inner
            .cgroups
            .placement(&inner.container_group(&record.pod_uid, &record.id)),
        stdio,
    })
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe".to_owned())
}

/// Runs a program with open streams; returns once it was executed.
pub(super) async fn exec(
    inner: &Arc<Inner>,
    id: &str,
    request: &ExecRequest,
) -> Result<StreamSession> {
    let container = inner.container(id)?;
    if request.tty {
        let spec = spec(inner, &container, &request.command, true, [false; 3])?;
        return exec_terminal(inner, &spec, request).await;
    }
    let stdio = [request.stdin, request.stdout, request.stderr];
    let spec = spec(inner, &container, &request.command, false, stdio)?;
    let set_up = || "set up a stream".to_owned();
    let mut theirs: Vec<OwnedFd> = Vec::with_capacity(3);
    let mut stdin: Option<Writer> = None;
    if request.stdin {
        let (read, write) = pipe()?;
        theirs.push(read);
        stdin = Some(Box::new(PipeWriter::new(write).context(set_up)?));
    }
    let mut output = |wanted: bool| -> Result<Option<Reader>> {
        if !wanted {
            return Ok(None);
        }
        let (read, write) = pipe()?;
        theirs.push(write);
        Ok(Some(Box::new(pipe_reader(read).context(set_up)?)))
    };
    let stdout = output(request.stdout)?;
    let stderr = output(request.stderr)?;
    let borrowed: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
    let mut stream = inner.zygote.send(op::EXEC, &spec, &borrowed).await?;
    drop(theirs);
    zygote::answer(&mut stream).await?;
    // Without a terminal sizes have nowhere to go.
    let (resize, _) = mpsc::channel::<TerminalSize>(1);
    Ok(StreamSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit: Box::pin(exit_of(stream)),
    })
}

async fn exec_terminal(
    inner: &Arc<Inner>,
    spec: &ExecSpec,
    request: &ExecRequest,
) -> Result<StreamSession> {
    let mut stream = inner.zygote.send(op::EXEC, spec, &[]).await?;
    let fd = terminal_of(&mut stream).await?;
    zygote::answer(&mut stream).await?;
    let terminal = Terminal::new(fd).context(|| "set up a terminal".to_owned())?;
    let (resize, sizes) = mpsc::channel(4);
    terminal.follow_sizes(sizes);
    Ok(StreamSession {
        stdin: request.stdin.then(|| Box::new(terminal.clone()) as Writer),
        stdout: Some(Box::new(terminal)),
        stderr: None,
        resize,
        exit: Box::pin(exit_of(stream)),
    })
}

/// Receives the terminal that comes with the helper's first frame.
async fn terminal_of(stream: &mut UnixStream) -> Result<OwnedFd> {
    let context = || "receive the terminal".to_owned();
    let mut buffer = [0; 5];
    let (count, mut fds) = loop {
        stream.readable().await.context(context)?;
        let received = stream.try_io(tokio::io::Interest::READABLE, || {
            crate::sys::recv_fds(stream.as_fd(), &mut buffer)
        });
        match received {
            Ok(received) => break received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context(context),
        }
    };
    if let Some(fd) = fds.pop() {
        return Ok(fd);
    }
    // No descriptor: this is the head of a failure.
    if count == 5 && buffer[0] == frame::FAILED {
        let length = u32::from_le_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        let mut body = vec![0; length.min(wire::MAX_PAYLOAD)];
        stream.read_exact(&mut body).await.context(context)?;
        return Err(zygote::failure(&body));
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context(context)
}

/// The exit code that the helper reports. Dropping this closes the connection, and the helper
/// kills the program.
async fn exit_of(mut stream: UnixStream) -> Result<i32> {
    let (_, body) = zygote::answer(&mut stream).await?;
    Ok(zygote::body::<Exited>(&body)?.code)
}

/// Reads a stream to its end, keeping what fits.
async fn collect(reader: Option<Reader>, kept: &mut Vec<u8>) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; 32 << 10];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let room = MAX_OUTPUT - kept.len();
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        }
    }
}

/// Runs a program to its end.
pub(super) async fn exec_sync(
    inner: &Arc<Inner>,
    id: &str,
    command: &[String],
    timeout: Duration,
) -> Result<ExecOutput> {
    let request = ExecRequest {
        command: command.to_vec(),
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    };
    let run = async {
        let mut session = exec(inner, id, &request).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit_code = {
            let mut output = std::pin::pin!(futures::future::join(
                collect(session.stdout, &mut stdout),
                collect(session.stderr, &mut stderr),
            ));
            tokio::select! {
                code = &mut session.exit => {
                    // What it left running in the background may hold the pipes for ever.
                    tokio::time::timeout(DRAIN, output).await.ok();
                    code?
                }
                _ = &mut output => session.exit.await?,
            }
        };
        Ok(ExecOutput {
            stdout,
            stderr,
            exit_code,
        })
    };
    if timeout.is_zero() {
        return run.await;
    }
    match tokio::time::timeout(timeout, run).await {
        Ok(result) => result,
        // Dropping the session has killed the program.
        Err(_) => Err(RuntimeError::Timeout(format!("command {command:?}"))),
    }
}

/// Connects to a container's own streams.
pub(super) async fn attach(
    inner: &Arc<Inner>,
    id: &str,
    request: &ExecRequest,
) -> Result<StreamSession> {
    let container = inner.container(id)?;
    container.running()?;
    let context = || format!("attach to container {id}");
    let connection = watch::connect(&inner.container_dir(id)).context(context)?;
    connection.set_nonblocking(true).context(context)?;
    let mut stream = UnixStream::from_std(connection).context(context)?;
    let tty = container.record.config.tty;
    let wish = Attach {
        stdin: request.stdin && container.record.config.stdin,
        stdout: request.stdout,
        stderr: request.stderr && !tty,
    };
    stream
        .write_all(&wire::encode_json(frame::ATTACH, &wish))
        .await
        .context(context)?;
    let (from_shim, to_shim) = stream.into_split();
    let (resize, sizes) = mpsc::channel(4);
    let (stdin, input) = if wish.stdin {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        (Some(Box::new(ours) as Writer), Some(theirs))
    } else {
        (None, None)
    };
    let output = |wanted: bool| {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        if wanted {
            (Some(Box::new(ours) as Reader), Some(theirs))
        } else {
            (None, None)
        }
    };
    let (stdout, out) = output(wish.stdout);
    let (stderr, err) = output(wish.stderr);
    let (ended, end) = oneshot::channel();
    tokio::spawn(carry_out(from_shim, out, err, ended));
    let carry_in = tokio::spawn(carry_in(to_shim, input, sizes));
    let detach = AbortOnDrop(carry_in);
    let exit = Box::pin(async move {
        let _detach = detach;
        end.await
            .map_err(|_| RuntimeError::Invalid("the container's streams closed".to_owned()))
    });
    Ok(StreamSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    })
}

/// Detaches when the session is dropped.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Pipe = Option<tokio::io::DuplexStream>;

/// Frames from the shim to the session's readers.
async fn carry_out(
    mut from_shim: tokio::net::unix::OwnedReadHalf,
    mut out: Pipe,
    mut err: Pipe,
    ended: oneshot::Sender<i32>,
) {
    while let Ok(Some((kind, body))) = wire::read_async(&mut from_shim).await {
        let pipe = match kind {
            frame::STDOUT => &mut out,
            frame::STDERR => &mut err,
            frame::EXITED => {
                let code = zygote::body::<Exited>(&body).map_or(255, |exited| exited.code);
                // The session may be gone.
                ended.send(code).ok();
                return;
            }
            _ => continue,
        };
        if let Some(writer) = pipe
            && writer.write_all(&body).await.is_err()
        {
            // Nobody reads this stream any more.
            *pipe = None;
        }
    }
}

/// The session's stdin and terminal sizes to the shim.
async fn carry_in(
    mut to_shim: tokio::net::unix::OwnedWriteHalf,
    mut input: Pipe,
    mut sizes: mpsc::Receiver<TerminalSize>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let frame = tokio::select! {
            count = read_some(&mut input, &mut buffer) => match count {
                Some(count) => wire::encode(frame::STDIN, &buffer[..count]),
                None => {
                    input = None;
                    wire::encode(frame::STDIN_CLOSE, &[])
                }
            },
            Some(size) = sizes.recv() => {
                let mut body = size.width.to_le_bytes().to_vec();
                body.extend(size.height.to_le_bytes());
                wire::encode(frame::RESIZE, &body)
            }
        };
        if to_shim.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Bytes of stdin; `None` at its end, never without one.
async fn read_some(input: &mut Pipe, buffer: &mut [u8]) -> Option<usize> {
    let Some(reader) = input else {
        return std::future::pending().await;
    };
    match read(reader, buffer).await {
        Ok(0) | Err(_) => None,
        Ok(count) => Some(count),
    }
}

async fn read(reader: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    reader.read(buffer).await
}
