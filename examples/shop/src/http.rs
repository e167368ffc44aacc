//! Just enough HTTP/1.1: requests without bodies to speak of, keep-alive, replies with a length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// The longest line that is read, in bytes.
const LINE: u64 = 8192;
/// The largest body that is read (and ignored), in bytes.
const BODY: u64 = 1 << 20;

/// A request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    session: Option<String>,
}

impl Request {
    /// The session that the client names in the header `X-Session` or the query.
    pub(crate) fn session(&self) -> String {
        let in_query = self
            .query
            .split('&')
            .find_map(|part| part.strip_prefix("session="))
            .map(str::to_owned);
        let given = self
            .session
            .clone()
            .or(in_query)
            .unwrap_or_else(|| "anonymous".to_owned());
        given
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(64)
            .collect()
    }
}

/// A reply.
pub(crate) struct Reply {
    code: u16,
    content_type: &'static str,
    body: String,
}

impl Reply {
    pub(crate) fn text(code: u16, body: &str) -> Self {
        Self {
            code,
            content_type: "text/plain",
            body: body.to_owned(),
        }
    }

    pub(crate) fn json(code: u16, body: &str) -> Self {
        Self {
            code,
            content_type: "application/json",
            body: body.to_owned(),
        }
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LINE).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Serves a connection until the client ends it.
pub(crate) fn serve(stream: TcpStream, answer: impl Fn(&Request) -> Reply) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let first = line(&mut reader)?;
        let mut parts = first.split(' ');
        let (Some(method), Some(target)) = (parts.next().filter(|m| !m.is_empty()), parts.next())
        else {
            return Ok(());
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            session: None,
        };
        let (mut length, mut close) = (0, false);
        loop {
            let header = line(&mut reader)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                "x-session" => request.session = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        if length > BODY {
            return Ok(());
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        let reply = answer(&request);
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            reply.code,
            if reply.code < 400 { "OK" } else { "Error" },
            reply.content_type,
            reply.body.len()
        );
        writer.write_all(&[head.as_bytes(), reply.body.as_bytes()].concat())?;
        if close {
            return Ok(());
        }
    }
}
