//! Questions about the rest of the world, asked of the host's resolvers, with a small cache.
//!
//! The same question is asked once at a time, whoever wants to know. So a resolver that leads back
//! to us makes one question wait for itself and fail, instead of circling for ever.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

/// Wait for one answer of one server.
const TRY: Duration = Duration::from_secs(2);
/// Wait for an answer from any server; resolvers in pods give up after five seconds.
const TOTAL: Duration = Duration::from_millis(4500);
/// Rounds through the servers.
const ROUNDS: usize = 2;
/// Answers in the cache.
const CACHE: usize = 4096;
/// Longest stay in the cache, seconds.
const MAX_TTL: u32 = 30;
const PORT: u16 = 53;

/// Where the host's resolvers are written.
#[derive(Debug, Clone)]
pub enum Upstreams {
    /// `nameserver` lines of this file, read again when it changes; without our own addresses.
    File {
        /// Usually /etc/resolv.conf.
        path: PathBuf,
        /// Addresses that are ourselves.
        except: Vec<IpAddr>,
    },
    /// These servers.
    Fixed(Vec<SocketAddr>),
}

/// What another server said.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its response code.
    pub code: ResponseCode,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authorities: Vec<Record>,
}

type Question = (Name, RecordType);

#[derive(Debug)]
struct Cached {
    reply: Reply,
    at: Instant,
    until: Instant,
}

/// Asks other servers.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Upstreams,
    file: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    cache: Mutex<HashMap<Question, Cached>>,
    asking: Mutex<HashMap<Question, Arc<OnceCell<Option<Reply>>>>>,
}

impl Forwarder {
    /// A forwarder with an empty cache.
    pub fn new(upstreams: Upstreams) -> Self {
        Self {
            upstreams,
            file: Mutex::default(),
            cache: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// The answer, or `None` when no server gives one in time.
    pub async fn ask(&self, query: &Query) -> Option<Reply> {
        let question = (query.name().to_lowercase(), query.query_type());
        if let Some(reply) = self.cached(&question) {
            return Some(reply);
        }
        let asking = Arc::clone(self.asking.lock().entry(question.clone()).or_default());
        let work = asking.get_or_init(|| async {
            timeout(TOTAL, self.ask_servers(&question))
                .await
                .ok()
                .flatten()
        });
        // Who waits for another's question waits no longer than that one may take.
        let reply = timeout(TOTAL, work).await.ok().and_then(Clone::clone);
        let mut all = self.asking.lock();
        if all
            .get(&question)
            .is_some_and(|now| Arc::ptr_eq(now, &asking))
        {
            all.remove(&question);
        }
        drop(all);
        if let Some(reply) = &reply {
            self.keep(question, reply);
        }
        reply
    }

    fn cached(&self, question: &Question) -> Option<Reply> {
        let now = Instant::now();
        let cache = self.cache.lock();
        let found = cache.get(question).filter(|cached| cached.until > now)?;
        let age = u32::try_from((now - found.at).as_secs()).unwrap_or(u32::MAX);
        let mut reply = found.reply.clone();
        for record in reply.answers.iter_mut().chain(&mut reply.authorities) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(reply)
    }

    fn keep(&self, question: Question, reply: &Reply) {
        if !matches!(reply.code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return;
        }
        let records = reply.answers.iter().chain(&reply.authorities);
        // An empty section of both says nothing about how long it holds.
        let Some(ttl) = records.map(|record| record.ttl.min(MAX_TTL)).min() else {
            return;
        };
        if ttl == 0 {
            return;
        }
        let at = Instant::now();
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE {
            cache.retain(|_, cached| cached.until > at);
        }
        if cache.len() >= CACHE {
            // All of it is fresh: any entry is as good to lose as another.
            if let Some(any) = cache.keys().next().cloned() {
                cache.remove(&any);
            }
        }
        let until = at + Duration::from_secs(ttl.into());
        cache.insert(
            question,
            Cached {
                reply: reply.clone(),
                at,
                until,
            },
        );
    }

    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let (path, except) = match &self.upstreams {
            Upstreams::Fixed(servers) => return servers.clone(),
            Upstreams::File { path, except } => (path, except),
        };
        let changed = std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok();
        let mut file = self.file.lock();
        if file.0 != changed || changed.is_none() {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            *file = (changed, nameservers(&text, except));
        }
        file.1.clone()
    }

    async fn ask_servers(&self, question: &Question) -> Option<Reply> {
        let servers = self.servers();
        let mut last = None;
        for _ in 0..ROUNDS {
            for server in &servers {
                match timeout(TRY, ask_server(*server, question)).await {
                    Ok(Ok(reply)) if reply.code == ResponseCode::ServFail => last = Some(reply),
                    Ok(Ok(reply)) => return Some(reply),
                    Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS"),
                    Err(_) => tracing::debug!(%server, "upstream DNS did not answer"),
                }
            }
        }
        last
    }
}

/// The servers of a resolv.conf, at most three as in resolv.conf(5).
fn nameservers(text: &str, except: &[IpAddr]) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .filter(|address| !except.contains(address))
        .map(|address| SocketAddr::new(address, PORT))
        .take(3)
        .collect()
}

async fn ask_server(server: SocketAddr, (name, kind): &Question) -> io::Result<Reply> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), *kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    // A socket of its own: the random port is half of what guards against forged answers.
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = [0; 4096];
    let reply = loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(reply) if matches_question(&reply, &message) => break reply,
            // Not an answer to this question: forged, late or damaged.
            _ => {}
        }
    };
    let reply = if reply.metadata.truncation {
        by_stream(server, &message).await?
    } else {
        reply
    };
    Ok(Reply {
        code: reply.metadata.response_code,
        answers: reply.answers,
        authorities: reply.authorities,
    })
}

fn matches_question(reply: &Message, request: &Message) -> bool {
    reply.metadata.id == request.metadata.id
        && reply.queries.len() == 1
        && reply.queries[0].query_type() == request.queries[0].query_type()
        && reply.queries[0].name() == request.queries[0].name()
}

async fn by_stream(server: SocketAddr, message: &Message) -> io::Result<Message> {
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], &bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    let reply = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if matches_question(&reply, message) {
        Ok(reply)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not an answer to the question",
        ))
    }
}
