//! Frames between the runtime and its helper processes: one type byte, a little-endian 32-bit
//! length, the payload. Control payloads are JSON, stream payloads raw bytes.
//!
//! Both ends are the same program, but not always the same version: a shim may be older than the
//! runtime that adopts it. Frame types are therefore never reused with another meaning, and JSON
//! payloads only grow optional fields.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Frame types. Lower case goes to the helper, upper case comes from it.
pub(crate) mod frame {
    /// The request of a one-shot helper, JSON.
    pub(crate) const REQUEST: u8 = b'r';
    /// This connection wants to know when the container starts and ends.
    pub(crate) const MONITOR: u8 = b'm';
    /// This connection attaches to the container's streams: [`super::Attach`].
    pub(crate) const ATTACH: u8 = b'a';
    /// Bytes for stdin.
    pub(crate) const STDIN: u8 = b'i';
    /// Stdin ends.
    pub(crate) const STDIN_CLOSE: u8 = b'c';
    /// Terminal size: width and height, each 16 bits little-endian.
    pub(crate) const RESIZE: u8 = b'w';
    /// A signal number, one byte, for the first process.
    pub(crate) const SIGNAL: u8 = b's';
    /// Open the log file again.
    pub(crate) const REOPEN_LOG: u8 = b'l';

    /// The program was executed: [`super::Started`].
    pub(crate) const STARTED: u8 = b'S';
    /// The request failed: [`super::Failure`].
    pub(crate) const FAILED: u8 = b'F';
    /// The request was carried out.
    pub(crate) const DONE: u8 = b'D';
    /// Bytes from stdout.
    pub(crate) const STDOUT: u8 = b'O';
    /// Bytes from stderr.
    pub(crate) const STDERR: u8 = b'E';
    /// The program ended: [`super::Exited`].
    pub(crate) const EXITED: u8 = b'X';
}

/// What an attaching connection wants.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// Will send stdin.
    pub(crate) stdin: bool,
    /// Wants stdout.
    pub(crate) stdout: bool,
    /// Wants stderr.
    pub(crate) stderr: bool,
}

/// The ids that a container's program runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Home directory by the image's /etc/passwd.
    pub(crate) home: String,
}

/// A started container, as kept in `started.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Started {
    /// First process, in the host's PID namespace.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat`, field 22), which together with
    /// the pid names a process for good.
    pub(crate) start_ticks: u64,
    /// The shim's pid.
    pub(crate) shim: i32,
    /// ns since the epoch.
    pub(crate) started_at: i64,
    /// Resolved ids, for exec.
    pub(crate) user: User,
}

/// Why a helper could not do what it was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Its kind.
    pub(crate) kind: FailureKind,
    /// For people.
    pub(crate) message: String,
}

/// Kinds of [`Failure`], mapped to `RuntimeError` variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// The program is missing or can't be executed.
    CannotRun,
    /// The configuration can't be carried out.
    Invalid,
    /// The system refused something.
    System,
}

impl Failure {
    /// The system refused `context`.
    pub(crate) fn system(context: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self {
            kind: FailureKind::System,
            message: format!("{context}: {error}"),
        }
    }

    /// The configuration is at fault.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Invalid,
            message: message.into(),
        }
    }

    /// The program is at fault.
    pub(crate) fn cannot_run(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::CannotRun,
            message: message.into(),
        }
    }
}

/// How a container ended, as kept in `exit.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// Exit code, 128 + signal when killed.
    pub(crate) code: i32,
    /// ns since the epoch.
    pub(crate) finished_at: i64,
    /// The kernel killed a process of it for memory.
    pub(crate) oom_killed: bool,
    /// Set when the program never ran: `StartError` or `ContainerCannotRun`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// A frame's bytes.
pub(crate) fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + payload.len());
    out.push(kind);
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(payload);
    out
}

/// A frame with a JSON payload.
pub(crate) fn encode_json<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
    let payload = serde_json::to_vec(value).expect("plain structs always have a JSON form");
    encode(kind, &payload)
}

/// The largest payload that is accepted; a request is at most a big environment.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;

/// Takes a whole frame off the front of `buffer`, if there is one: its type and the range of its
/// payload, and how many bytes it takes in all.
pub(crate) fn decode(buffer: &[u8]) -> io::Result<Option<(u8, std::ops::Range<usize>, usize)>> {
    let Some(head) = buffer.get(..5) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame is too long",
        ));
    }
    if buffer.len() < 5 + length {
        return Ok(None);
    }
    Ok(Some((head[0], 5..5 + length, 5 + length)))
}

/// Reads one frame from a blocking stream; `None` at its end.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 5];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame is too long",
        ));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Some((head[0], payload)))
}

/// Writes one frame to a blocking stream.
pub(crate) fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

/// Reads one frame from an asynchronous stream; `None` at its end.
pub(crate) async fn read_async(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
) -> io::Result<Option<(u8, Vec<u8>)>> {
    use tokio::io::AsyncReadExt as _;
    let mut head = [0; 5];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame is too long",
        ));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok(Some((head[0], payload)))
}
