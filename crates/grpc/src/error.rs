//! What a call can fail with.

use std::sync::Arc;

/// A gRPC status code, as <https://grpc.github.io/grpc/core/md_doc_statuscodes.html> numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The name, as Go writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "OK",
            1 => "Canceled",
            3 => "InvalidArgument",
            4 => "DeadlineExceeded",
            5 => "NotFound",
            6 => "AlreadyExists",
            7 => "PermissionDenied",
            8 => "ResourceExhausted",
            9 => "FailedPrecondition",
            10 => "Aborted",
            11 => "OutOfRange",
            12 => "Unimplemented",
            13 => "Internal",
            14 => "Unavailable",
            15 => "DataLoss",
            16 => "Unauthenticated",
            _ => "Unknown",
        }
    }

    /// A call like this one is under way.
    pub const ABORTED: Self = Self(10);
    /// Something went wrong inside.
    pub const INTERNAL: Self = Self(13);
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The time was over.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// What was asked for is not there.
    pub const NOT_FOUND: Self = Self(5);
    /// The caller has no right to it.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A quota or a limit is used up.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The system is not in the state that the request needs.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// Past the end of something.
    pub const OUT_OF_RANGE: Self = Self(11);
    /// The server does not know the method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The server can't serve at the moment.
    pub const UNAVAILABLE: Self = Self(14);
    /// Data is lost or damaged.
    pub const DATA_LOSS: Self = Self(15);
    /// The caller is not known.
    pub const UNAUTHENTICATED: Self = Self(16);
}

/// Why a call failed. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// No connection could be made: the server has not seen the request.
    #[error("can't connect to {target}")]
    Connect {
        /// The server.
        target: String,
        /// What went wrong.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The connection was gone before the request was sent.
    #[error("the connection to {target} was closed")]
    Closed {
        /// The server.
        target: String,
    },
    /// The connection broke; the server may have acted on the request.
    #[error("the connection to {target} broke")]
    Broken {
        /// The server.
        target: String,
        /// What went wrong.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// No answer came in time; the server may have acted on the request.
    #[error("{target} did not answer in time")]
    Deadline {
        /// The server.
        target: String,
    },
    /// The server answered with an error.
    #[error("{message}")]
    Status {
        /// Its code.
        code: Code,
        /// Its words.
        message: String,
    },
    /// The answer is not gRPC.
    #[error("{target} does not speak gRPC: {detail}")]
    Protocol {
        /// The server.
        target: String,
        /// What was found.
        detail: String,
    },
}

impl GrpcError {
    /// Whether the server has certainly not seen the request.
    #[must_use]
    pub fn unsent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Closed { .. })
    }

    /// The error as Go's gRPC library says it, which is how events show it.
    #[must_use]
    pub fn rpc_text(&self) -> String {
        let (code, text) = match self {
            Self::Status { code, message } => (*code, message.clone()),
            Self::Deadline { .. } => (
                Code::DEADLINE_EXCEEDED,
                "context deadline exceeded".to_owned(),
            ),
            _ => (Code::UNAVAILABLE, self.chain()),
        };
        format!("rpc error: code = {} desc = {text}", code.name())
    }

    /// The error with its causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
