//! Exec and attach, once the client's streams are open: joins them to the program's, and says how
//! it ended.
//!
//! Nothing here knows WebSocket or SPDY. Standard output and error are drained before the status
//! is sent, so that no output is lost at exit; closing the client's stdin closes the program's.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use evenkeel_runtime::contract::{
    ExecRequest, Reader, Result as RuntimeResult, StreamSession, TerminalSize, Writer,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backend::BackendError;
use super::channel::{GoneError, Inbound, Outbound, copy_out};
use super::query::Query;

/// After the program's exit, output that pauses this long counts as ended even when a process
/// left in the background holds the pipe open.
const QUIET_AFTER_EXIT: Duration = Duration::from_secs(2);

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Attach,
}

/// Reads which streams a request wants; `Err` in kubelet's words.
pub(super) fn streams_wanted(query: &Query, kind: Kind) -> Result<ExecRequest, BackendError> {
    let request = ExecRequest {
        command: query.all("command"),
        tty: query.flag(&["tty"]),
        stdin: query.flag(&["stdin", "input"]),
        stdout: query.flag(&["stdout", "output"]),
        // With a terminal there is one output.
        stderr: query.flag(&["stderr", "error"]) && !query.flag(&["tty"]),
    };
    let bad = |message| Err(BackendError::new(http::StatusCode::BAD_REQUEST, message));
    if !request.stdin && !request.stdout && !request.stderr {
        return bad("you must specify at least 1 of stdin, stdout, stderr");
    }
    if kind == Kind::Exec && request.command.iter().all(String::is_empty) {
        return bad("you must specify at least one command for the container");
    }
    Ok(request)
}

/// The client's ends.
#[derive(Debug)]
pub(super) struct ClientStreams {
    pub(super) stdin: Option<Inbound>,
    pub(super) stdout: Option<Outbound>,
    pub(super) stderr: Option<Outbound>,
    pub(super) error: Outbound,
    pub(super) resize: Option<Inbound>,
    /// A Status as JSON on the error stream (v4 and later), else text, and only for failures.
    pub(super) structured_status: bool,
    /// Our unused side of streams that only the client writes; finished at the end.
    pub(super) unused: Vec<Outbound>,
}

/// Runs the session to its end. Dropping the future ends the program.
pub(super) async fn run(
    client: ClientStreams,
    session: RuntimeResult<StreamSession>,
    kind: Kind,
    command: &[String],
) {
    let ClientStreams {
        stdin,
        stdout,
        stderr,
        error,
        resize,
        structured_status,
        unused,
    } = client;
    let result = match session {
        Err(error) => Err(error),
        Ok(session) => join(session, stdin, resize, stdout.as_ref(), stderr.as_ref()).await,
    };
    let status = match (result, kind) {
        (Ok(0), _) | (Ok(_), Kind::Attach) => success(),
        (Ok(code), Kind::Exec) => exited(command, code),
        (Err(error), Kind::Exec) => internal(&format!(
            "error executing command in container: {}",
            BackendError::from(error).message
        )),
        (Err(error), Kind::Attach) => internal(&format!(
            "error attaching to container: {}",
            BackendError::from(error).message
        )),
    };
    let told = async {
        for stream in [stdout, stderr].into_iter().flatten() {
            stream.finish().await?;
        }
        if structured_status {
            error.send(status.to_string().into()).await?;
        } else if status["status"] != "Success" {
            let message = status["message"].as_str().unwrap_or_default();
            error
                .send(Bytes::copy_from_slice(message.as_bytes()))
                .await?;
        }
        error.finish().await?;
        for stream in unused {
            stream.finish().await?;
        }
        Ok::<(), GoneError>(())
    };
    if told.await.is_err() {
        tracing::debug!("the client went before it was told how the command ended");
    }
}

async fn join(
    session: StreamSession,
    stdin: Option<Inbound>,
    resize: Option<Inbound>,
    stdout: Option<&Outbound>,
    stderr: Option<&Outbound>,
) -> RuntimeResult<i32> {
    let exited = CancellationToken::new();
    let ends = async {
        let code = session.exit.await;
        exited.cancel();
        code
    };
    let outputs = async {
        tokio::join!(
            output(session.stdout, stdout, &exited),
            output(session.stderr, stderr, &exited)
        )
    };
    let inputs = async {
        tokio::join!(input(stdin, session.stdin), sizes(resize, session.resize));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        (code, _) = async { tokio::join!(ends, outputs) } => code,
        () = inputs => unreachable_inputs(),
    }
}

/// `inputs` never completes; this gives the branch its type.
fn unreachable_inputs() -> RuntimeResult<i32> {
    Ok(0)
}

async fn output(from: Option<Reader>, to: Option<&Outbound>, exited: &CancellationToken) {
    if let (Some(from), Some(to)) = (from, to)
        && copy_out(from, to, exited, QUIET_AFTER_EXIT).await.is_err()
    {
        tracing::debug!("the client went while the command wrote");
    }
}

async fn input(from: Option<Inbound>, to: Option<Writer>) {
    let Some(mut to) = to else { return };
    if let Some(mut from) = from {
        while let Some(piece) = from.next().await {
            let written = async {
                to.write_all(&piece).await?;
                to.flush().await
            };
            if let Err(error) = written.await {
                tracing::debug!(%error, "the command reads no more input");
                return;
            }
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "the command's input was closed already");
    }
}

#[derive(serde::Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

pub(super) async fn sizes(from: Option<Inbound>, to: mpsc::Sender<TerminalSize>) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::new();
    while let Some(piece) = from.next().await {
        buffer.extend_from_slice(&piece);
        let mut values = serde_json::Deserializer::from_slice(&buffer).into_iter::<Size>();
        let mut last = None;
        let mut broken = false;
        for value in values.by_ref() {
            match value {
                Ok(size) => {
                    last = Some(TerminalSize {
                        width: size.width,
                        height: size.height,
                    })
                }
                // After an error the iterator does not end by itself.
                Err(error) => {
                    broken = !error.is_eof();
                    break;
                }
            }
        }
        let read = values.byte_offset();
        buffer.advance(read.min(buffer.len()));
        if broken || buffer.len() > 4096 {
            tracing::debug!("terminal sizes can't be read; no more are followed");
            return;
        }
        if let Some(size) = last
            && to.send(size).await.is_err()
        {
            return;
        }
    }
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn exited(command: &[String], code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!(
            "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
            command.join(" ")
        ),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn internal(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}
