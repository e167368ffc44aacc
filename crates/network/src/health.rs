//! `healthCheckNodePort`: whether this node has a ready endpoint of a service, for load balancers
//! outside that ask. Answers are those of kube-proxy: 200 or 503 and a few lines of JSON.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::service::ServiceKey;

/// Who is asked about at a port, and how many endpoints it has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) service: ServiceKey,
    pub(crate) endpoints: usize,
}

/// By port.
pub(crate) type Ports = BTreeMap<u16, Health>;

/// A question is asked within this time, and its answer taken.
const BOUND: Duration = Duration::from_secs(5);
/// Before a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Bytes of a question at most.
const QUESTION: usize = 8 * 1024;

/// Answers at the ports that are wanted.
#[derive(Debug)]
pub(crate) struct HealthChecks {
    wanted: watch::Sender<Ports>,
}

fn answer(health: &Health) -> String {
    let Health { service, endpoints } = health;
    let state = if *endpoints > 0 {
        "200 OK"
    } else {
        "503 Service Unavailable"
    };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\
         \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": true\n}}",
        service.namespace, service.name
    );
    format!(
        "HTTP/1.1 {state}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {endpoints}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn respond(mut stream: TcpStream, health: Option<Health>) {
    let exchange = async {
        let mut question = Vec::new();
        let mut buffer = [0; 1024];
        // Nothing of the question matters but its end.
        while !question.windows(4).any(|end| end == b"\r\n\r\n") && question.len() < QUESTION {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                length => question.extend_from_slice(&buffer[..length]),
            }
        }
        if let Some(health) = health {
            stream.write_all(answer(&health).as_bytes()).await?;
        }
        stream.shutdown().await
    };
    // A client that goes away, or takes its time, is no concern of the node's.
    if let Ok(Err(error)) = tokio::time::timeout(BOUND, exchange).await {
        tracing::debug!(%error, "a health check was not answered");
    }
}

/// Serves one port until dropped. What is answered is looked up when somebody asks.
async fn serve(port: u16, wanted: watch::Receiver<Ports>) {
    let listener = loop {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(port, %error, "the health check port can't be served; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let health = wanted.borrow().get(&port).cloned();
                    running.spawn(respond(stream, health));
                }
                Err(error) => {
                    tracing::debug!(port, %error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
}

impl HealthChecks {
    pub(crate) fn new() -> Self {
        Self {
            wanted: watch::Sender::new(Ports::new()),
        }
    }

    /// Answers at these ports from now on, and at no others.
    pub(crate) fn set(&self, wanted: Ports) {
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            if differs {
                *current = wanted;
            }
            differs
        });
    }

    /// Answers for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut changed = self.wanted.subscribe();
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut serving: BTreeMap<u16, tokio::task::AbortHandle> = BTreeMap::new();
        loop {
            let wanted: Vec<u16> = changed.borrow_and_update().keys().copied().collect();
            serving.retain(|port, task| {
                let stays = wanted.contains(port);
                if !stays {
                    task.abort();
                }
                stays
            });
            for port in wanted {
                serving
                    .entry(port)
                    .or_insert_with(|| tasks.spawn(serve(port, changed.clone())));
            }
            loop {
                tokio::select! {
                    ended = changed.changed() => {
                        if ended.is_err() {
                            return;
                        }
                        break;
                    }
                    // Aborted ones are let go of.
                    Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_kube_proxy() {
        let health = |endpoints| Health {
            service: ServiceKey::new("default", "web"),
            endpoints,
        };
        let text = answer(&health(2));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        let body = text.split("\r\n\r\n").nth(1).unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let expected = serde_json::json!({
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!(body, expected);
        assert!(answer(&health(0)).starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    }

    #[tokio::test]
    async fn ports_come_and_go() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let checks = HealthChecks::new();
        let asked = async {
            let ask = || async {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
                stream
                    .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                    .await
                    .ok()?;
                let mut text = String::new();
                stream.read_to_string(&mut text).await.ok()?;
                text.get(9..12).map(str::to_owned)
            };
            let until = |wanted: Option<&'static str>| async move {
                while ask().await.as_deref() != wanted {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let service = ServiceKey::new("default", "web");
            checks.set(Ports::from([(
                port,
                Health {
                    service: service.clone(),
                    endpoints: 1,
                },
            )]));
            until(Some("200")).await;
            checks.set(Ports::from([(
                port,
                Health {
                    service,
                    endpoints: 0,
                },
            )]));
            until(Some("503")).await;
            checks.set(Ports::new());
            until(None).await;
        };
        tokio::select! {
            () = checks.run() => panic!("it ended"),
            done = tokio::time::timeout(Duration::from_secs(30), asked) => done.unwrap(),
        }
    }
}
