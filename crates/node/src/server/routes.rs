//! Paths to handlers.

use std::time::Duration;

use evenkeel_runtime::contract::ExecOutput;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use super::NodeServer;
use super::authorize::{self, Caller};
use super::backend::{BackendError, ContainerTarget, PodTarget, Result};
use super::logs::{self, LogOptions};
use super::query::{Query, segments};
use super::remote_command::Kind;
use super::respond::{self, Body};

/// A command of `/run` has to end within this time.
const RUN_WITHIN: Duration = Duration::from_secs(120);
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl NodeServer {
    /// Answers one request; `peer` is whom the client's certificate names. Upgrades go on in a task
    /// of the server after the 101.
    pub async fn handle<B>(&self, peer: Option<&Caller>, request: Request<B>) -> Response<Body>
    where
        B: Send,
    {
        let asked = (request.method(), request.uri().path(), request.headers());
        let allowed = authorize::check(&*self.judge, peer, asked).await;
        if let Err((status, message)) = allowed {
            return respond::text(status, message);
        }
        match self.route(request).await {
            Ok(response) => response,
            Err(error) => respond::refuse(&error),
        }
    }

    async fn route<B: Send>(&self, request: Request<B>) -> Result<Response<Body>> {
        let path = segments(request.uri().path());
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = *request.method() == Method::POST;
        match *parts {
            ["containerLogs", namespace, pod, container] if get => {
                let target = container_target(namespace, pod, None, container);
                self.container_logs(&target, &Query::of(request.uri()))
                    .await
            }
            ["exec", namespace, pod, container] if get || post => {
                let target = container_target(namespace, pod, None, container);
                self.remote_command(target, Kind::Exec, request).await
            }
            ["exec", namespace, pod, uid, container] if get || post => {
                let target = container_target(namespace, pod, Some(uid), container);
                self.remote_command(target, Kind::Exec, request).await
            }
            ["attach", namespace, pod, container] if get || post => {
                let target = container_target(namespace, pod, None, container);
                self.remote_command(target, Kind::Attach, request).await
            }
            ["attach", namespace, pod, uid, container] if get || post => {
                let target = container_target(namespace, pod, Some(uid), container);
                self.remote_command(target, Kind::Attach, request).await
            }
            ["portForward", namespace, pod] if get || post => {
                self.port_forward(pod_target(namespace, pod, None), request)
                    .await
            }
            ["portForward", namespace, pod, uid] if get || post => {
                self.port_forward(pod_target(namespace, pod, Some(uid)), request)
                    .await
            }
            ["run", namespace, pod, container] if post => {
                let target = container_target(namespace, pod, None, container);
                self.run_command(&target, &Query::of(request.uri())).await
            }
            ["run", namespace, pod, uid, container] if post => {
                let target = container_target(namespace, pod, Some(uid), container);
                self.run_command(&target, &Query::of(request.uri())).await
            }
            ["pods"] if get => Ok(respond::json(&json!({
                "kind": "PodList",
                "apiVersion": "v1",
                "metadata": {},
                "items": self.backend.pods().await?,
            }))),
            ["stats", "summary"] if get || post => {
                Ok(respond::json(&self.backend.stats_summary().await?))
            }
            ["metrics"] if get => Ok(metrics(self.backend.metrics().await?)),
            ["metrics", "resource"] if get => Ok(metrics(self.backend.metrics_resource().await?)),
            ["healthz"] if get => Ok(match self.backend.healthy().await {
                Ok(()) => {
                    respond::with_type(StatusCode::OK, "text/plain; charset=utf-8", "ok".into())
                }
                Err(reason) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, reason),
            }),
            ["configz"] if get => Ok(respond::json(
                &json!({"kubeletconfig": self.backend.config()}),
            )),
            ["logs", ..] => Err(BackendError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "logs endpoint is disabled.",
            )),
            ["metrics", kind @ ("cadvisor" | "probes")] => Err(BackendError::new(
                StatusCode::NOT_FOUND,
                format!("/metrics/{kind} is not served by this node"),
            )),
            [
                "containerLogs" | "pods" | "stats" | "metrics" | "healthz" | "configz",
                ..,
            ]
            | ["exec" | "attach", _, _, _]
            | ["exec" | "attach", _, _, _, _]
            | ["portForward", _, _]
            | ["portForward", _, _, _]
            | ["run", _, _, _]
            | ["run", _, _, _, _]
                if !get && !post =>
            {
                Err(BackendError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "405: Method Not Allowed",
                ))
            }
            ["run", ..] if get => Err(BackendError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "405: Method Not Allowed",
            )),
            [
                "checkpoint" | "runningpods" | "debug" | "cri" | "spec" | "flagz" | "statusz",
                ..,
            ] => Err(BackendError::new(
                StatusCode::NOT_FOUND,
                format!("/{} is not served by this node", parts[0]),
            )),
            _ => Err(BackendError::new(
                StatusCode::NOT_FOUND,
                "404 page not found",
            )),
        }
    }

    async fn container_logs(
        &self,
        target: &ContainerTarget,
        query: &Query,
    ) -> Result<Response<Body>> {
        let options = LogOptions::parse(query, self.backend.now())?;
        let source = self.backend.container_log(target, options.previous).await?;
        let ended = match source.writer {
            Some(id) if options.follow => {
                let shutdown = self.shutdown.clone();
                let ended = logs::container_ended(self.backend.runtime(), id);
                let ended = async move {
                    tokio::select! {
                        () = ended => {}
                        () = shutdown.cancelled() => {}
                    }
                };
                Some(Box::pin(ended) as futures::future::BoxFuture<'static, ()>)
            }
            _ => None,
        };
        let (out, pieces) = mpsc::channel(4);
        let path = source.path.clone();
        let work = logs::stream(source.path, options, ended, out)
            .await
            .map_err(|error| {
                BackendError::new(
                    StatusCode::BAD_REQUEST,
                    format!("failed to open log file {:?}: {error}", path.display()),
                )
            })?;
        self.sessions.spawn(work);
        Ok(respond::streamed(pieces))
    }

    async fn run_command(&self, target: &ContainerTarget, query: &Query) -> Result<Response<Body>> {
        let mut command = query.all("command");
        if command.is_empty() {
            let line = query.get("cmd").unwrap_or_default();
            command = line
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect();
        }
        if command.is_empty() {
            return Err(BackendError::new(
                StatusCode::BAD_REQUEST,
                "cmd is required",
            ));
        }
        let id = self.backend.running_container(target).await?;
        let ExecOutput {
            mut stdout,
            stderr,
            exit_code,
        } = self
            .backend
            .runtime()
            .exec_sync(&id, &command, RUN_WITHIN)
            .await?;
        stdout.extend_from_slice(&stderr);
        if exit_code != 0 {
            return Err(BackendError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "command '{}' exited with {exit_code}: {}",
                    command.join(" "),
                    String::from_utf8_lossy(&stdout)
                ),
            ));
        }
        Ok(respond::with_type(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            stdout.into(),
        ))
    }
}

fn metrics(text: String) -> Response<Body> {
    let mut response = respond::with_type(StatusCode::OK, METRICS_TYPE, text.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
    response
}

fn pod_target(namespace: &str, pod: &str, uid: Option<&str>) -> PodTarget {
    PodTarget {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
    }
}

fn container_target(
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    container: &str,
) -> ContainerTarget {
    ContainerTarget {
        pod: pod_target(namespace, pod, uid),
        container: container.to_owned(),
    }
}
