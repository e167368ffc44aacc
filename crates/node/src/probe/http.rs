//! `httpGet`: passes with a status from 200 to 399; redirects to the same host are followed.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::Answer;
use super::dial::{DialError, Dialers, Stream};
use super::target::{HttpTarget, authority};

/// Redirects followed before the probe gives up.
const MAX_REDIRECTS: usize = 10;
/// Bytes of a body that are read.
const MAX_BODY: usize = 10 << 10;

/// A request that was answered.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    location: Option<String>,
    /// The beginning of the body.
    body: String,
}

impl Dialers {
    /// Makes one GET request.
    ///
    /// # Errors
    /// In Go's words.
    pub async fn get(&self, target: &HttpTarget) -> Result<HttpAnswer, String> {
        self.try_get(target).await.map_err(|error| error.text)
    }

    async fn try_get(&self, target: &HttpTarget) -> Result<HttpAnswer, DialError> {
        let framed = |text: String| DialError {
            text: format!("Get \"{}\": {text}", target.url()),
            refused: false,
        };
        let tcp = self
            .tcp(&target.host, target.port)
            .await
            .map_err(|error| DialError {
                text: format!("Get \"{}\": {}", target.url(), error.text),
                refused: error.refused,
            })?;
        let stream: Box<dyn Stream> = if target.https {
            self.tls(&target.host, tcp).await.map_err(framed)?
        } else {
            Box::new(tcp)
        };
        let (response, _guard) = send(stream, target).await.map_err(framed)?;
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Ok(HttpAnswer {
            status: response.status().as_u16(),
            location,
            body: beginning(response.into_body()).await,
        })
    }

    /// Probes.
    pub(super) async fn probe_http(&self, target: &HttpTarget) -> Answer {
        let mut target = target.clone();
        let first_host = target.host.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = match self.try_get(&target).await {
                Ok(answer) => answer,
                Err(error) if error.refused => return Answer::Refused(error.text),
                Err(error) => return Answer::Failed(error.text),
            };
            let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            let location = answer.location.filter(|_| moved);
            let next = location.and_then(|location| redirect(&target, &location));
            match (next, answer.status) {
                (Some(next), _) if next.host == first_host => target = next,
                (_, 200..300) => return Answer::Passed,
                (_, 300..400) => {
                    return Answer::Warned(format!(
                        "Probe terminated redirects, Response body: {}",
                        answer.body
                    ));
                }
                (_, status) => {
                    return Answer::Failed(format!("HTTP probe failed with statuscode: {status}"));
                }
            }
        }
        Answer::Failed(format!(
            "Get \"{}\": stopped after 10 redirects",
            target.url()
        ))
    }
}

/// The beginning of a body. It is read so that the program sees a request that ended well.
async fn beginning(mut body: Incoming) -> String {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() >= MAX_BODY {
            read.truncate(MAX_BODY);
            break;
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

type Guarded = (
    Response<Incoming>,
    AbortOnDropHandle<Result<(), hyper::Error>>,
);

async fn send(stream: Box<dyn Stream>, target: &HttpTarget) -> Result<Guarded, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::get(target.path.as_str());
    let has = |name: &str| {
        target
            .headers
            .iter()
            .any(|(have, _)| have.eq_ignore_ascii_case(name))
    };
    if !has("host") {
        request = request.header(header::HOST, authority(&target.host, target.port));
    }
    if !has("user-agent") {
        request = request.header(header::USER_AGENT, &target.user_agent);
    }
    if !has("accept") {
        request = request.header(header::ACCEPT, "*/*");
    }
    request = request.header(header::CONNECTION, "close");
    for (name, value) in target.headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection ends with the guard, at the latest when the probe's time is over.
    let guard = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| describe(&error))?;
    Ok((response, guard))
}

fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        "EOF".to_owned()
    } else {
        error.to_string()
    }
}

fn redirect(from: &HttpTarget, location: &str) -> Option<HttpTarget> {
    let mut next = from.clone();
    let (https, rest) = if let Some(rest) = location.strip_prefix("https://") {
        (true, rest)
    } else if let Some(rest) = location.strip_prefix("http://") {
        (false, rest)
    } else {
        if location.starts_with('/') {
            location.clone_into(&mut next.path);
        } else {
            let base = from.path.rsplit_once('/').map_or("", |(base, _)| base);
            next.path = format!("{base}/{location}");
        }
        return Some(next);
    };
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority: http::uri::Authority = place.parse().ok()?;
    next.https = https;
    next.host = authority.host().trim_matches(['[', ']']).to_owned();
    next.port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
    next.path = format!("/{path}");
    Some(next)
}
