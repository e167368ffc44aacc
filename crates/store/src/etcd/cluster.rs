//! The members of the cluster, and which of them is asked.
//!
//! One member is asked as long as it answers; when it does not, the next one is. A read is asked
//! again wherever it failed. A write is asked again only when it certainly was not carried out:
//! doing it twice would answer "somebody else was faster" to the one who was.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_grpc::{Channel, Code, GrpcError, Incoming, Outgoing, Target};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use tokio::time::Instant;

use super::proto;
use crate::error::StoreError;

/// How long one member may take to answer.
const ATTEMPT: Duration = Duration::from_secs(8);
/// How long all attempts together may take. A leader is elected well within.
const OVERALL: Duration = Duration::from_secs(20);
/// Between two rounds over all members.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// Whether a call may be made again when it is not known what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only reads, or doing it twice is as doing it once.
    Always,
    /// It writes.
    IfUndone,
}

/// The members.
#[derive(Debug)]
pub(super) struct Cluster {
    members: Vec<Channel>,
    /// The one that is asked.
    current: AtomicUsize,
    /// The cluster's identity, once it is known: an address can come to lead elsewhere.
    id: AtomicU64,
}

/// What the engine makes of an error.
pub(super) enum Verdict {
    /// The answer is final.
    Final(StoreError),
    /// Ask again; `done` says that it may have been carried out all the same.
    Again { done: bool },
}

impl Cluster {
    pub(super) fn new(targets: Vec<Target>) -> Self {
        let mut metadata = HeaderMap::new();
        // A member that has lost its leader says so, instead of being silent.
        metadata.insert("hasleader", HeaderValue::from_static("true"));
        Self {
            members: targets
                .into_iter()
                .map(|target| Channel::new(target, metadata.clone()))
                .collect(),
            current: AtomicUsize::new(0),
            id: AtomicU64::new(0),
        }
    }

    pub(super) fn names(&self) -> String {
        let names = self
            .members
            .iter()
            .map(|member| member.target().to_string());
        names.collect::<Vec<_>>().join(",")
    }

    fn member(&self) -> (usize, &Channel) {
        let at = self.current.load(Ordering::Relaxed) % self.members.len();
        (at, &self.members[at])
    }

    /// Asks the next member from now on, unless somebody has moved on already.
    fn move_on(&self, from: usize) {
        let next = (from + 1) % self.members.len();
        self.current
            .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed)
            .ok();
    }

    /// Refuses the answer of another cluster than the one that was opened.
    pub(super) fn recognize(&self, header: Option<&proto::Header>) -> Result<(), StoreError> {
        let found = header.map_or(0, |header| header.cluster_id);
        match self
            .id
            .compare_exchange(0, found, Ordering::Relaxed, Ordering::Relaxed)
        {
            Err(known) if known != found && found != 0 => Err(StoreError::Corrupt {
                path: self.names().into(),
                detail: format!(
                    "these addresses lead to cluster {found:x} now, and led to {known:x}"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Makes a call.
    pub(super) async fn call<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        repeat: Repeat,
    ) -> Result<A, StoreError> {
        let until = Instant::now() + OVERALL;
        let mut pause = PAUSE;
        let mut failures = 0;
        loop {
            let (at, member) = self.member();
            let error = match member.unary(path, message, ATTEMPT).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let done = match verdict(&error, &self.names()) {
                Verdict::Final(error) => return Err(error),
                Verdict::Again { done } => done,
            };
            tracing::debug!(member = %member.target(), error = error.chain(), path, "etcd");
            if matches!(error, GrpcError::Deadline { .. }) {
                // Whatever is wrong with it, a new connection may be better.
                member.disconnect().await;
            }
            self.move_on(at);
            if done && repeat == Repeat::IfUndone {
                return Err(StoreError::Unavailable {
                    detail: error.chain(),
                    uncertain: true,
                });
            }
            if Instant::now() >= until {
                return Err(StoreError::Unavailable {
                    detail: error.chain(),
                    uncertain: false,
                });
            }
            failures += 1;
            if failures % self.members.len() == 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }

    /// Opens a stream at the member that is asked now; when that fails, the next one is asked
    /// from then on.
    pub(super) async fn stream<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        first: &Q,
    ) -> Result<(usize, Outgoing<Q>, Incoming<A>), GrpcError> {
        let (at, member) = self.member();
        match member.stream(path, first, ATTEMPT).await {
            Ok((outgoing, incoming)) => Ok((at, outgoing, incoming)),
            Err(error) => {
                self.move_on(at);
                Err(error)
            }
        }
    }

    /// Notes that a stream at this member has failed.
    pub(super) fn failed(&self, member: usize) {
        self.move_on(member);
    }

    /// Calls every member, one after the other.
    pub(super) async fn each<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        within: Duration,
    ) -> Vec<(String, Result<A, GrpcError>)> {
        let mut answers = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let answer = member.unary(path, message, within).await;
            answers.push((member.target().to_string(), answer));
        }
        answers
    }
}

/// What an error of etcd means. Its words are those of `api/v3rpc/rpctypes/error.go`.
pub(super) fn verdict(error: &GrpcError, place: &str) -> Verdict {
    let GrpcError::Status { code, message } = error else {
        if let GrpcError::Protocol { target, detail } = error {
            return Verdict::Final(StoreError::Corrupt {
                path: target.into(),
                detail: format!("it does not answer as etcd: {detail}"),
            });
        }
        return Verdict::Again {
            done: !error.unsent(),
        };
    };
    let says = |words: &str| message.contains(words);
    let unavailable = |uncertain| {
        Verdict::Final(StoreError::Unavailable {
            detail: message.clone(),
            uncertain,
        })
    };
    match *code {
        Code::OUT_OF_RANGE if says("compacted") => Verdict::Final(StoreError::Compacted {
            requested: 0,
            compacted: 0,
        }),
        Code::OUT_OF_RANGE if says("future revision") => {
            Verdict::Final(StoreError::FutureRevision {
                requested: 0,
                current: 0,
            })
        }
        Code::INVALID_ARGUMENT if says("too large") => Verdict::Final(StoreError::TooLarge {
            what: "the request, beyond what etcd takes (--max-request-bytes),",
            size: 0,
            limit: 0,
        }),
        Code::INVALID_ARGUMENT if says("too many operations") => {
            Verdict::Final(StoreError::TooLarge {
                what: "the number of operations, beyond what etcd takes (--max-txn-ops),",
                size: 0,
                limit: 0,
            })
        }
        Code::INVALID_ARGUMENT if says("duplicate key") => Verdict::Final(StoreError::Invalid {
            reason: "a key is put twice",
        }),
        Code::INVALID_ARGUMENT if says("key is not provided") => {
            Verdict::Final(StoreError::Invalid {
                reason: "a key is empty",
            })
        }
        Code::RESOURCE_EXHAUSTED if says("database space exceeded") => {
            Verdict::Final(StoreError::Full { path: place.into() })
        }
        Code::RESOURCE_EXHAUSTED if says("message larger") => {
            Verdict::Final(StoreError::TooLarge {
                what: "the request, beyond what etcd takes (--max-request-bytes),",
                size: 0,
                limit: 0,
            })
        }
        // Refused before anything was done.
        Code::RESOURCE_EXHAUSTED if says("too many requests") => Verdict::Again { done: false },
        Code::UNAVAILABLE if says("no leader") => Verdict::Again { done: false },
        Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED => Verdict::Again { done: true },
        Code::DATA_LOSS => Verdict::Final(StoreError::Corrupt {
            path: place.into(),
            detail: message.clone(),
        }),
        Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => unavailable(false),
        // A member that stops cancels what it is doing (code 1), and says unknown (2) of what it
        // did not expect.
        Code(1 | 2) => Verdict::Again { done: true },
        _ => unavailable(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, message: &str) -> GrpcError {
        GrpcError::Status {
            code,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_write_is_repeated_only_when_it_was_not_done() {
        let again = |error: &GrpcError| match verdict(error, "etcd") {
            Verdict::Again { done } => Some(done),
            Verdict::Final(_) => None,
        };
        let refused = GrpcError::Connect {
            target: "etcd".to_owned(),
            source: std::sync::Arc::new(std::io::ErrorKind::ConnectionRefused.into()),
        };
        assert_eq!(again(&refused), Some(false));
        let deadline = GrpcError::Deadline {
            target: "etcd".to_owned(),
        };
        assert_eq!(again(&deadline), Some(true));
        let no_leader = status(Code::UNAVAILABLE, "etcdserver: no leader");
        assert_eq!(again(&no_leader), Some(false));
        let changed = status(Code::UNAVAILABLE, "etcdserver: leader changed");
        assert_eq!(again(&changed), Some(true));
        let full = status(
            Code::RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
        );
        assert!(matches!(
            verdict(&full, "etcd"),
            Verdict::Final(StoreError::Full { .. })
        ));
    }
}
