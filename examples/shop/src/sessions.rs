//! Sessions: in Redis when `SESSION_STORE` names one, otherwise in this process.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use crate::dns;

const PATIENCE: Duration = Duration::from_secs(2);

/// Where carts are kept: how many items each session has.
pub(crate) enum Sessions {
    /// `host:port` of a Redis, and a connection if one is open.
    Redis {
        place: String,
        connection: Mutex<Option<BufReader<TcpStream>>>,
    },
    /// This process.
    Here(Mutex<HashMap<String, u64>>),
}

impl Sessions {
    pub(crate) fn new(url: Option<&str>) -> Self {
        match url.map(|url| url.trim_start_matches("redis://").trim_end_matches('/')) {
            Some(place) if !place.is_empty() => Self::Redis {
                place: place.to_owned(),
                connection: Mutex::new(None),
            },
            _ => Self::Here(Mutex::default()),
        }
    }

    pub(crate) fn place(&self) -> &str {
        match self {
            Self::Redis { place, .. } => place,
            Self::Here(_) => "this process",
        }
    }

    /// Adds an item; answers how many there are.
    pub(crate) fn add(&self, session: &str) -> io::Result<u64> {
        match self {
            Self::Redis { .. } => self.ask(&["INCR", &key(session)]),
            Self::Here(carts) => {
                let mut carts = carts.lock().map_err(|_| poisoned())?;
                let items = carts.entry(session.to_owned()).or_default();
                *items += 1;
                Ok(*items)
            }
        }
    }

    /// How many items there are.
    pub(crate) fn items(&self, session: &str) -> io::Result<u64> {
        match self {
            Self::Redis { .. } => self.ask(&["GET", &key(session)]),
            Self::Here(carts) => Ok(carts
                .lock()
                .map_err(|_| poisoned())?
                .get(session)
                .copied()
                .unwrap_or(0)),
        }
    }

    /// Removes all items; answers how many there were.
    pub(crate) fn clear(&self, session: &str) -> io::Result<u64> {
        match self {
            Self::Redis { .. } => self.ask(&["GETDEL", &key(session)]),
            Self::Here(carts) => Ok(carts
                .lock()
                .map_err(|_| poisoned())?
                .remove(session)
                .unwrap_or(0)),
        }
    }

    /// Sends a command; a connection that has died is opened once more.
    fn ask(&self, command: &[&str]) -> io::Result<u64> {
        let Self::Redis { place, connection } = self else {
            return Ok(0);
        };
        let mut connection = connection.lock().map_err(|_| poisoned())?;
        if let Some(open) = connection.as_mut()
            && let Ok(answer) = exchange(open, command)
        {
            return Ok(answer);
        }
        let mut fresh = BufReader::new(connect(place)?);
        let answer = exchange(&mut fresh, command);
        *connection = answer.is_ok().then_some(fresh);
        answer
    }
}

fn key(session: &str) -> String {
    format!("cart:{session}")
}

fn poisoned() -> io::Error {
    io::Error::other("a request died while it held the sessions")
}

fn connect(place: &str) -> io::Result<TcpStream> {
    let (host, port) = place.split_once(':').unwrap_or((place, "6379"));
    let port = port.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&(dns::resolve(host)?, port).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One command and its reply in the Redis protocol (RESP 2).
fn exchange(stream: &mut BufReader<TcpStream>, command: &[&str]) -> io::Result<u64> {
    let mut request = format!("*{}\r\n", command.len());
    for part in command {
        request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
    }
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let (kind, rest) = line
        .trim_end()
        .split_at_checked(1)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    match kind {
        ":" => rest.parse().map_err(io::Error::other),
        "$" if rest == "-1" => Ok(0),
        "$" => {
            let mut value = String::new();
            stream.read_line(&mut value)?;
            value.trim_end().parse().map_err(io::Error::other)
        }
        _ => Err(io::Error::other(format!("redis says {}", line.trim_end()))),
    }
}
