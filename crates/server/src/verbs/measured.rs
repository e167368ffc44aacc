//! Kinds that are measured when somebody asks (`metrics.k8s.io`): the door asks the agents of the
//! nodes for their summaries, at once and each within a bound.
//!
//! Nothing is made up: a node that does not answer, and a pod of which any container has no figure
//! yet, are left out. `ComponentStatus` is of this sort too: the store is asked, and the loops of
//! this process have said whether they run.

use std::time::Duration;

use evenkeel_api::quantity::{Format, Quantity};
use evenkeel_api::{Status, object};
use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use super::read::{as_item, selection};
use super::show::{TableStyle, encode, metadata_only, show_value};
use super::{Request, streams};
use crate::http::{Answer, Shape};
use crate::object::Selection;

/// A node that takes longer has no figures.
const BOUND: Duration = Duration::from_secs(5);

pub(super) async fn get(request: Request<'_>) -> Result<Answer, Status> {
    let asked = Selection {
        namespace: request.namespace().to_owned(),
        ..selection(&request)?
    };
    let found = all(&request, &asked, Some(request.name())).await?;
    let Some(found) = found.into_iter().next() else {
        let name = match request.namespace() {
            "" => request.name().to_owned(),
            namespace => format!("{namespace}/{}", request.name()),
        };
        let resource = request.row.gvk.kind.to_lowercase();
        return Err(Status::not_found(&request.row.gvk.group, &resource, &name));
    };
    show_value(&request, StatusCode::OK, found)
}

pub(super) async fn list(request: Request<'_>) -> Result<Answer, Status> {
    let asked = selection(&request)?;
    let found = all(&request, &asked, None).await?;
    let row = &request.row;
    let list = |kind: &str, version: &str, items: Vec<Value>| json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items});
    let body = match request.media.shape {
        Shape::Table => TableStyle::new(&request)?.table(&found, json!({})),
        Shape::Metadata => list(
            "PartialObjectMetadataList",
            request.media.meta_version(),
            found
                .iter()
                .map(|value| metadata_only(value, request.media.meta_version()))
                .collect(),
        ),
        Shape::Object | Shape::Groups => {
            let items = found.into_iter().map(|value| as_item(row, value));
            list(&row.list_kind, &row.gvk.api_version(), items.collect())
        }
    };
    encode(&request, StatusCode::OK, &body)
}

/// The measured objects that are asked for.
async fn all(
    request: &Request<'_>,
    asked: &Selection,
    name: Option<&str>,
) -> Result<Vec<Value>, Status> {
    if request.row.gvk.kind == "ComponentStatus" {
        return Ok(components(request, asked, name).await);
    }
    let of_nodes = request.row.gvk.kind == "NodeMetrics";
    // What is measured is stored under its own kind, with the labels that selectors look at.
    let nodes = stored(request, "Node", "")?;
    let pods = if of_nodes {
        Vec::new()
    } else {
        stored(request, "Pod", request.namespace())?
    };
    let wanted = |subject: &Value| {
        let labels = asked
            .labels
            .matches_with(|key| object::at(subject, &["metadata", "labels", key])?.as_str());
        let fields = asked.fields.matches_with(|field| match field {
            "metadata.name" => object::name(subject),
            "metadata.namespace" => object::namespace(subject),
            _ => "",
        });
        labels && fields && name.is_none_or(|name| object::name(subject) == name)
    };
    let wanted_pods: Vec<&Value> = pods.iter().filter(|pod| wanted(pod)).collect();
    let runs_wanted = |node: &Value| {
        let node = object::name(node);
        let mut pods = wanted_pods.iter();
        pods.any(|pod| object::text(pod, &["spec", "nodeName"]) == node)
    };
    let asked_nodes: Vec<&Value> = nodes
        .iter()
        .filter(|node| {
            if of_nodes {
                wanted(node)
            } else {
                runs_wanted(node)
            }
        })
        .collect();
    let summaries = join_all(asked_nodes.iter().map(|node| summary(request, node))).await;
    let mut found = Vec::new();
    for (node, summary) in asked_nodes.iter().zip(&summaries) {
        let Some(summary) = summary else { continue };
        if of_nodes {
            found.extend(measured(
                node,
                &summary["node"],
                |usage| json!({"usage": usage}),
            ));
            continue;
        }
        for figures in object::list(summary, &["pods"]) {
            let uid = object::text(figures, &["podRef", "uid"]);
            let subject = wanted_pods
                .iter()
                .find(|pod| object::text(pod, &["metadata", "uid"]) == uid);
            found.extend(subject.and_then(|pod| of_pod(pod, figures)));
        }
    }
    for value in &mut found {
        let fields = object::fields(value);
        fields.insert("kind".to_owned(), request.row.gvk.kind.to_string().into());
        fields.insert(
            "apiVersion".to_owned(),
            request.row.gvk.api_version().into(),
        );
    }
    found.sort_by(|a, b| {
        (object::namespace(a), object::name(a)).cmp(&(object::namespace(b), object::name(b)))
    });
    Ok(found)
}

/// The parts of the control plane.
async fn components(request: &Request<'_>, asked: &Selection, name: Option<&str>) -> Vec<Value> {
    let condition = |status: &str, message: String, error: String| {
        let mut condition = json!({"type": "Healthy", "status": status});
        for (name, text) in [("message", message), ("error", error)] {
            if !text.is_empty() {
                condition[name] = text.into();
            }
        }
        condition
    };
    let door = request.door;
    let store = match door.registry.store.revision().await {
        Ok(_) => condition("True", "ok".to_owned(), String::new()),
        Err(error) => condition("False", String::new(), error.to_string()),
    };
    let parts = crate::describe::PARTS.iter().map(|part| {
        let told = if door.components().is_running(part) {
            condition("True", "ok".to_owned(), String::new())
        } else {
            let why = "it does not run in the server that was asked";
            condition("Unknown", String::new(), why.to_owned())
        };
        (*part, told)
    });
    parts
        .chain([("etcd-0", store)])
        .filter(|(part, _)| name.is_none_or(|name| name == *part))
        .filter(|(part, _)| {
            asked.labels.matches_with(|_| None)
                && asked.fields.matches_with(|field| match field {
                    "metadata.name" => *part,
                    _ => "",
                })
        })
        .map(|(part, told)| {
            json!({"kind": "ComponentStatus", "apiVersion": "v1",
                "metadata": {"name": part}, "conditions": [told]})
        })
        .collect()
}

fn stored(request: &Request<'_>, kind: &str, namespace: &str) -> Result<Vec<Value>, Status> {
    let row = request
        .door
        .rows()
        .by_kind("", "v1", kind)
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let objects = request.door.registry.cache(&row)?.list(namespace, None);
    Ok(objects.iter().map(|found| found.value()).collect())
}

async fn summary(request: &Request<'_>, node: &Value) -> Option<Value> {
    let name = object::name(node);
    let answer = streams::ask_agent(request.door, node, "/stats/summary");
    match tokio::time::timeout(BOUND, answer).await {
        Ok(Ok(body)) => serde_json::from_slice(&body)
            .inspect_err(|error| tracing::warn!(node = name, %error, "a summary makes no sense"))
            .ok(),
        Ok(Err(status)) => {
            tracing::warn!(node = name, %status, "no figures from a node");
            None
        }
        Err(_) => {
            tracing::warn!(node = name, "no figures from a node in time");
            None
        }
    }
}

/// Use of cpu and memory; `None` while either is not known.
fn usage(figures: &Value) -> Option<Value> {
    let cpu = object::integer(figures, &["cpu", "usageNanoCores"])?;
    let memory = object::integer(figures, &["memory", "workingSetBytes"])?;
    let cpu: Quantity = format!("{cpu}n").parse().ok()?;
    let memory = Quantity::from_units(memory, Format::BinarySi);
    Some(json!({"cpu": cpu.to_string(), "memory": memory.to_string()}))
}

fn of_pod(pod: &Value, figures: &Value) -> Option<Value> {
    let containers: Option<Vec<Value>> = object::list(figures, &["containers"])
        .iter()
        .map(|container| {
            let usage = usage(container)?;
            Some(json!({"name": object::text(container, &["name"]), "usage": usage}))
        })
        .collect();
    let containers = containers.filter(|containers| !containers.is_empty())?;
    // The time is that of the pod's first container; all are read in one sweep.
    let first = object::list(figures, &["containers"]).first()?;
    measured(pod, first, |_| json!({"containers": containers}))
}

/// A measured object about `subject`: its labels, when and over what time it was measured.
fn measured(
    subject: &Value,
    figures: &Value,
    content: impl FnOnce(Value) -> Value,
) -> Option<Value> {
    let usage = usage(figures)?;
    let time = object::text(figures, &["cpu", "time"]);
    let mut out = content(usage);
    let mut metadata = json!({"name": object::name(subject), "creationTimestamp": time});
    if !object::namespace(subject).is_empty() {
        metadata["namespace"] = object::namespace(subject).into();
    }
    if let Some(labels) = object::at(subject, &["metadata", "labels"]) {
        metadata["labels"] = labels.clone();
    }
    out["metadata"] = metadata;
    out["timestamp"] = time.into();
    // Agents that do not say over what time their rate is taken follow cAdvisor: ten seconds.
    let window = object::text(figures, &["cpu", "window"]);
    out["window"] = if window.is_empty() { "10s" } else { window }.into();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_with_a_container_without_figures_is_left_out() {
        let pod = json!({"metadata": {"name": "web", "namespace": "a", "labels": {"app": "web"}}});
        let cpu =
            json!({"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1_500_000, "window": "15s"});
        let whole = json!({"name": "main", "cpu": cpu, "memory": {"workingSetBytes": 4 << 20}});
        let found = of_pod(&pod, &json!({"containers": [whole]})).unwrap();
        assert_eq!(
            found,
            json!({
                "metadata": {"name": "web", "namespace": "a", "labels": {"app": "web"},
                             "creationTimestamp": "2026-01-01T00:00:00Z"},
                "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
                "containers": [{"name": "main", "usage": {"cpu": "1500u", "memory": "4Mi"}}],
            })
        );
        let half = json!({"name": "other", "cpu": {"time": "2026-01-01T00:00:00Z"}});
        assert!(of_pod(&pod, &json!({"containers": [whole, half]})).is_none());
        assert!(of_pod(&pod, &json!({"containers": []})).is_none());
    }
}
