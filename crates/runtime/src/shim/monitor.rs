//! The shim's life: copies a container's output to its log and to whoever is attached, carries
//! signals and terminal sizes in, and records the end.
//!
//! One loop over poll(2). What the container writes is read only while every attached client has
//! room, so a slow one slows the container instead of losing bytes, but a stuck one is dropped.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exec::exit_code;
use super::log::{Log, Stream};
use super::spec::ContainerSpec;
use super::start::{Running, SOCKET};
use crate::wire::{self, Attach, Exited, Failure, Started, frame};
use crate::{cgroup, clock, files, sys};

/// Bytes that may wait for one client before its container's output is held back.
const CLIENT_ROOM: usize = 64 << 10;
/// Bytes of stdin that may wait for the container.
const STDIN_ROOM: usize = 64 << 10;
/// How long a client may take nothing at all.
const STUCK_NS: i64 = 30_000_000_000;
/// How long output may still come after the end, from processes that hold the pipes.
const DRAIN_NS: i64 = 1_000_000_000;
/// How long clients may take to hear of the end.
const FAREWELL_NS: i64 = 2_000_000_000;

/// A connection of the runtime's.
struct Client {
    socket: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    attach: Option<Attach>,
    stalled_since: Option<i64>,
    closed: bool,
}

impl Client {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            attach: None,
            stalled_since: None,
            closed: false,
        })
    }

    fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.closed {
            match self.socket.write(&self.outgoing) {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.outgoing.drain(..count);
                    self.stalled_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let since = *self.stalled_since.get_or_insert_with(clock::monotonic_ns);
                    if clock::monotonic_ns() - since > STUCK_NS {
                        self.closed = true;
                    }
                    return;
                }
                Err(_) => self.closed = true,
            }
        }
        self.outgoing.shrink_to(4096);
    }
}

/// What became ready.
#[derive(Clone, Copy)]
enum Ready {
    Exit,
    Listener,
    Output(Stream),
    Stdin,
    Client(usize),
}

/// The shim of one running container.
pub(super) struct Monitor {
    spec: ContainerSpec,
    started: Started,
    pidfd: OwnedFd,
    listener: UnixListener,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    log: Log,
    clients: Vec<Client>,
    pending_stdin: Vec<u8>,
    stdin_ends: bool,
    code: Option<i32>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Takes over a running container; the connection that started it becomes the first client.
    pub(super) fn new(
        spec: ContainerSpec,
        running: Running,
        log: Log,
        listener: UnixListener,
        first: &UnixStream,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::system("set up the shim", error);
        listener.set_nonblocking(true).map_err(failed)?;
        let Running {
            started,
            pidfd,
            stdin,
            stdout,
            stderr,
            terminal,
        } = running;
        let mut stdin = stdin;
        if let Some(terminal) = &terminal {
            stdin = Some(terminal.try_clone().map_err(failed)?);
        }
        for end in [&stdin, &stdout, &stderr, &terminal].into_iter().flatten() {
            rustix::io::ioctl_fionbio(end, true).map_err(|error| failed(error.into()))?;
        }
        let clients = first.try_clone().and_then(Client::new).map_err(failed)?;
        Ok(Self {
            spec,
            started,
            pidfd,
            listener,
            stdin,
            stdout,
            stderr,
            terminal,
            log,
            clients: vec![clients],
            pending_stdin: Vec::new(),
            stdin_ends: false,
            code: None,
            buffer: vec![0; 16 << 10],
        })
    }

    /// Runs until the container has ended and its end is recorded.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let mut drained_by = i64::MAX;
        loop {
            let ready = self.wait(drained_by)?;
            for event in ready {
                match event {
                    Ready::Exit => {
                        self.code = Some(exit_code(self.started.pid)?);
                        drained_by = clock::monotonic_ns() + DRAIN_NS;
                        if !self.spec.namespaces.own_pid {
                            // Its first process does not take the others along in a shared
                            // PID namespace.
                            self.kill_rest();
                        }
                    }
                    Ready::Listener => self.accept(),
                    Ready::Output(stream) => self.copy_output(stream),
                    Ready::Stdin => self.write_stdin(),
                    Ready::Client(index) => self.serve(index),
                }
            }
            self.sweep();
            let drained = self.stdout.is_none() && self.stderr.is_none() && self.terminal.is_none();
            if self.code.is_some() && (drained || clock::monotonic_ns() >= drained_by) {
                return self.finish();
            }
        }
    }

    /// Blocks until something can be done, or until `deadline` (monotonic ns).
    fn wait(&self, deadline: i64) -> Result<Vec<Ready>, Failure> {
        let mut fds = Vec::with_capacity(8);
        let mut tokens = Vec::with_capacity(8);
        if self.code.is_none() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
            tokens.push(Ready::Exit);
        }
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        tokens.push(Ready::Listener);
        if self
            .clients
            .iter()
            .all(|client| client.outgoing.len() < CLIENT_ROOM)
        {
            let outputs = [
                (&self.stdout, Stream::Stdout),
                (&self.stderr, Stream::Stderr),
                (&self.terminal, Stream::Stdout),
            ];
            for (end, stream) in outputs {
                if let Some(end) = end {
                    fds.push(PollFd::new(end, PollFlags::IN));
                    tokens.push(Ready::Output(stream));
                }
            }
        }
        if let Some(stdin) = &self.stdin
            && !self.pending_stdin.is_empty()
        {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
            tokens.push(Ready::Stdin);
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.pending_stdin.len() < STDIN_ROOM {
                flags |= PollFlags::IN;
            }
            if !client.outgoing.is_empty() {
                flags |= PollFlags::OUT;
            }
            fds.push(PollFd::new(&client.socket, flags));
            tokens.push(Ready::Client(index));
        }
        let stalled = self
            .clients
            .iter()
            .any(|client| client.stalled_since.is_some());
        let deadline = if stalled {
            deadline.min(clock::monotonic_ns() + STUCK_NS / 10)
        } else {
            deadline
        };
        let timeout = (deadline != i64::MAX).then(|| {
            let left = (deadline - clock::monotonic_ns()).max(0);
            Timespec {
                tv_sec: left / 1_000_000_000,
                tv_nsec: left % 1_000_000_000,
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(Failure::system("wait", error)),
        }
        Ok(fds
            .iter()
            .zip(tokens)
            .filter(|(fd, token)| {
                !fd.revents().is_empty() || (stalled && matches!(token, Ready::Client(_)))
            })
            .map(|(_, token)| token)
            .collect())
    }

    fn accept(&mut self) {
        if let Ok((socket, _)) = self.listener.accept()
            && let Ok(mut client) = Client::new(socket)
        {
            client.send(&wire::encode_json(frame::STARTED, &self.started));
            self.clients.push(client);
        }
    }

    fn copy_output(&mut self, stream: Stream) {
        let end = match (&self.terminal, stream) {
            (Some(terminal), _) => terminal,
            (None, Stream::Stdout) => match &self.stdout {
                Some(end) => end,
                None => return,
            },
            (None, Stream::Stderr) => match &self.stderr {
                Some(end) => end,
                None => return,
            },
        };
        match rustix::io::read(end, &mut self.buffer) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // A terminal whose other side is closed everywhere answers EIO.
            Ok(0) | Err(_) => self.output_ended(stream),
            Ok(count) => {
                let bytes = &self.buffer[..count];
                self.log.take(stream, bytes);
                let kind = match stream {
                    Stream::Stdout => frame::STDOUT,
                    Stream::Stderr => frame::STDERR,
                };
                let mut encoded = None;
                for client in &mut self.clients {
                    let wants = client.attach.is_some_and(|attach| match stream {
                        Stream::Stdout => attach.stdout,
                        Stream::Stderr => attach.stderr,
                    });
                    if wants {
                        client.send(encoded.get_or_insert_with(|| wire::encode(kind, bytes)));
                    }
                }
            }
        }
    }

    fn output_ended(&mut self, stream: Stream) {
        self.log.end(stream);
        if self.terminal.is_some() {
            self.terminal = None;
            self.stdin = None;
        } else if stream == Stream::Stdout {
            self.stdout = None;
        } else {
            self.stderr = None;
        }
    }

    fn write_stdin(&mut self) {
        if let Some(stdin) = &self.stdin {
            match rustix::io::write(stdin, &self.pending_stdin) {
                Ok(count) => {
                    self.pending_stdin.drain(..count);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // The program closed its end.
                    self.pending_stdin.clear();
                    self.stdin = None;
                }
            }
        } else {
            self.pending_stdin.clear();
        }
        if self.stdin_ends && self.pending_stdin.is_empty() && self.terminal.is_none() {
            self.stdin = None;
        }
    }

    /// Reads what a client sent and writes what it is owed.
    fn serve(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.flush();
        match client.socket.read(&mut self.buffer) {
            Ok(0) => client.closed = true,
            Ok(count) => client.incoming.extend_from_slice(&self.buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => client.closed = true,
        }
        let incoming = std::mem::take(&mut client.incoming);
        let mut rest = incoming.as_slice();
        loop {
            match wire::decode(rest) {
                Ok(Some((kind, payload, length))) => {
                    self.command(index, kind, &rest[payload]);
                    rest = &rest[length..];
                }
                Ok(None) => break,
                Err(_) => {
                    self.clients[index].closed = true;
                    break;
                }
            }
        }
        self.clients[index].incoming = rest.to_vec();
    }

    fn command(&mut self, index: usize, kind: u8, payload: &[u8]) {
        let answer = match kind {
            frame::MONITOR => None,
            frame::ATTACH => {
                match serde_json::from_slice(payload) {
                    Ok(attach) => self.clients[index].attach = Some(attach),
                    Err(_) => self.clients[index].closed = true,
                }
                None
            }
            frame::STDIN => {
                if self.stdin.is_some() && !self.stdin_ends {
                    self.pending_stdin.extend_from_slice(payload);
                    self.write_stdin();
                }
                None
            }
            frame::STDIN_CLOSE => {
                self.client_stdin_ended();
                None
            }
            frame::RESIZE => {
                if let (Some(terminal), [w0, w1, h0, h1]) = (&self.terminal, payload) {
                    let width = u16::from_le_bytes([*w0, *w1]);
                    let height = u16::from_le_bytes([*h0, *h1]);
                    // A terminal that is going away needs no size.
                    sys::set_window_size(terminal.as_fd(), width, height).ok();
                }
                None
            }
            frame::SIGNAL => payload.first().map(|signal| {
                sys::pidfd_send_signal(self.pidfd.as_fd(), i32::from(*signal))
                    .map_err(|error| Failure::system(format!("send signal {signal}"), error))
            }),
            frame::REOPEN_LOG => Some(
                self.log
                    .reopen()
                    .map_err(|error| Failure::system("open the log again", error)),
            ),
            _ => Some(Err(Failure::invalid(format!(
                "unknown shim request {kind}"
            )))),
        };
        match answer {
            None => {}
            Some(Ok(())) => self.clients[index].send(&wire::encode(frame::DONE, &[])),
            Some(Err(failure)) => {
                self.clients[index].send(&wire::encode_json(frame::FAILED, &failure));
            }
        }
    }

    fn client_stdin_ended(&mut self) {
        if self.spec.stdin_once {
            self.stdin_ends = true;
            self.write_stdin();
        }
    }

    /// Forgets clients that are gone.
    fn sweep(&mut self) {
        let mut stdin_lost = false;
        self.clients.retain(|client| {
            if client.closed {
                stdin_lost |= client.attach.is_some_and(|attach| attach.stdin);
            }
            !client.closed
        });
        if stdin_lost {
            self.client_stdin_ended();
        }
    }

    fn kill_rest(&self) {
        if let Some(kill) = &self.spec.placement.kill {
            // Where the kernel lacks it, the runtime kills when it hears of the end.
            fs::write(kill, "1").ok();
        }
    }

    /// Records the end, tells everyone, and removes the socket.
    fn finish(mut self) -> Result<(), Failure> {
        self.log.end(Stream::Stdout);
        self.log.end(Stream::Stderr);
        let oom = self
            .spec
            .placement
            .oom
            .as_deref()
            .map_or(0, cgroup::oom_kills);
        let exited = Exited {
            code: self.code.unwrap_or(255),
            finished_at: clock::now_ns(),
            oom_killed: oom > 0,
            ..Exited::default()
        };
        let recorded = files::write_json(&PathBuf::from("exit.json"), &exited);
        let farewell = wire::encode_json(frame::EXITED, &exited);
        for client in &mut self.clients {
            client.send(&farewell);
        }
        let until = clock::monotonic_ns() + FAREWELL_NS;
        while clock::monotonic_ns() < until {
            self.clients
                .retain(|client| !client.closed && !client.outgoing.is_empty());
            if self.clients.is_empty() {
                break;
            }
            let mut fds: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .map(|client| PollFd::new(&client.socket, PollFlags::OUT))
                .collect();
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            if poll(&mut fds, Some(&timeout)).is_err() {
                break;
            }
            for client in &mut self.clients {
                client.flush();
            }
        }
        // A stale socket only costs the runtime a refused connection.
        fs::remove_file(Path::new(SOCKET)).ok();
        recorded.map_err(|error| Failure::system("write exit.json", error))
    }
}
