//! Figures from `custom.metrics.k8s.io` and `external.metrics.k8s.io`: APIs that other servers
//! serve through the door's aggregation.
//!
//! Nothing of theirs is kept: an API that appears is used at the next look, one that goes is named
//! in the condition.

use std::collections::BTreeMap;

use evenkeel_api::quantity::Quantity;
use evenkeel_client::{Client, errors};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::GroupVersionKind;
use kube::discovery::oneshot;
use serde::Deserialize;
use serde_json::Value;

use crate::sample::SampleError;

/// What a metric of one object is about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Namespace of the autoscaler.
    pub namespace: &'a str,
    /// Name of the metric.
    pub metric: &'a str,
    /// Which of its series.
    pub selector: Option<&'a LabelSelector>,
}

/// A source of figures that are not the pods' CPU and memory. Values are in thousandths.
pub trait OtherMetrics: Send + Sync + 'static {
    /// The metric's value of each pod that a selector finds.
    fn of_pods<'a>(
        &'a self,
        asked: Asked<'a>,
        pods: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, i64>, SampleError>>;

    /// The metric's value of one object.
    fn of_object<'a>(
        &'a self,
        asked: Asked<'a>,
        object: &'a CrossVersionObjectReference,
    ) -> BoxFuture<'a, Result<i64, SampleError>>;

    /// The values of all series of something outside the cluster.
    fn external<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<Vec<i64>, SampleError>>;
}

/// The APIs as the door serves them.
#[derive(Clone)]
pub struct ServedMetrics {
    client: Client,
}

impl std::fmt::Debug for ServedMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedMetrics").finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
#[serde(bound = "T: serde::de::DeserializeOwned")]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectValue {
    described_object: Described,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct ExternalValue {
    value: String,
}

fn milli(text: &str) -> Result<i64, SampleError> {
    let value: Result<Quantity, _> = text.parse();
    let value = value.map_err(|_| SampleError(format!("the value {text:?} is no quantity")))?;
    Ok(value.milli())
}

/// One part of a path or query, with everything but letters, digits and `-._~` escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A selector as it stands in a query.
#[must_use]
pub fn written(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return String::new();
    };
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={value}"));
    let terms = selector.match_expressions.iter().flatten().map(|term| {
        let key = &term.key;
        let values = term.values.clone().unwrap_or_default().join(",");
        match term.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    });
    labels.chain(terms).collect::<Vec<_>>().join(",")
}

/// A query with the parts that say something.
fn query(parts: &[(&str, &str)]) -> String {
    let parts = parts.iter().filter(|(_, value)| !value.is_empty());
    let parts: Vec<String> = parts
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("?{}", parts.join("&"))
    }
}

impl ServedMetrics {
    /// Reads as `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await;
        answer.map_err(|error| errors::message(&error))
    }

    /// The newest version of a group that this knows.
    async fn version(&self, group: &str, known: &[&'static str]) -> Result<&'static str, String> {
        let found: Value = self.get(&format!("/apis/{group}")).await.map_err(|error| {
            format!("{error}; does anything serve {group}? (kubectl get apiservices)")
        })?;
        let versions = found["versions"].as_array().cloned().unwrap_or_default();
        let served = |version: &&&str| versions.iter().any(|found| found["version"] == ***version);
        let version = known.iter().find(served).copied();
        version.ok_or_else(|| format!("{group} is served in no version of {}", known.join(", ")))
    }

    async fn custom(&self, path: String, query: String) -> Result<Vec<ObjectValue>, SampleError> {
        const GROUP: &str = "custom.metrics.k8s.io";
        let read = async {
            let version = self.version(GROUP, &["v1beta2", "v1beta1"]).await?;
            let path = format!("/apis/{GROUP}/{version}/{path}{query}");
            let list: List<ObjectValue> = self.get(&path).await?;
            Ok::<_, String>(list.items)
        };
        let items = read.await.map_err(|error| {
            SampleError(format!(
                "unable to fetch metrics from custom metrics API: {error}"
            ))
        })?;
        if items.is_empty() {
            let text = "no metrics returned from custom metrics API";
            return Err(SampleError(text.to_owned()));
        }
        Ok(items)
    }

    /// `deployments.apps`, as paths of custom metrics name a kind.
    async fn resource(&self, object: &CrossVersionObjectReference) -> Result<String, SampleError> {
        let version = object
            .api_version
            .clone()
            .unwrap_or_else(|| "v1".to_owned());
        let (group, version) = match version.split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), version),
        };
        let kind = GroupVersionKind::gvk(&group, &version, &object.kind);
        let found = oneshot::pinned_kind(&self.client, &kind).await;
        let (resource, _) = found.map_err(|error| {
            let error = errors::message(&error);
            SampleError(format!(
                "unable to fetch metrics from custom metrics API: {error}"
            ))
        })?;
        Ok(if group.is_empty() {
            resource.plural
        } else {
            format!("{}.{group}", resource.plural)
        })
    }
}

impl OtherMetrics for ServedMetrics {
    fn of_pods<'a>(
        &'a self,
        asked: Asked<'a>,
        pods: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, i64>, SampleError>> {
        async move {
            let (namespace, metric) = (escaped(asked.namespace), escaped(asked.metric));
            let path = format!("namespaces/{namespace}/pods/*/{metric}");
            let of_metric = written(asked.selector);
            let query = query(&[("labelSelector", pods), ("metricLabelSelector", &of_metric)]);
            let mut found = BTreeMap::new();
            for item in self.custom(path, query).await? {
                found.insert(item.described_object.name, milli(&item.value)?);
            }
            Ok(found)
        }
        .boxed()
    }

    fn of_object<'a>(
        &'a self,
        asked: Asked<'a>,
        object: &'a CrossVersionObjectReference,
    ) -> BoxFuture<'a, Result<i64, SampleError>> {
        async move {
            let (namespace, metric) = (escaped(asked.namespace), escaped(asked.metric));
            let version = object.api_version.as_deref().unwrap_or("v1");
            // A namespace is the autoscaler's own, whatever name was given.
            let path = if object.kind == "Namespace" && !version.contains('/') {
                format!("namespaces/{namespace}/metrics/{metric}")
            } else {
                let resource = self.resource(object).await?;
                let name = escaped(&object.name);
                format!("namespaces/{namespace}/{resource}/{name}/{metric}")
            };
            let of_metric = written(asked.selector);
            let items = self
                .custom(path, query(&[("metricLabelSelector", &of_metric)]))
                .await?;
            match &items[..] {
                [one] => milli(&one.value),
                more => Err(SampleError(format!(
                    "unable to fetch metrics from custom metrics API: the custom metrics API \
                     server returned {} results when we asked for exactly one",
                    more.len()
                ))),
            }
        }
        .boxed()
    }

    fn external<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<Vec<i64>, SampleError>> {
        const GROUP: &str = "external.metrics.k8s.io";
        async move {
            let (namespace, metric) = (escaped(asked.namespace), escaped(asked.metric));
            let query = query(&[("labelSelector", &written(asked.selector))]);
            let read = async {
                let version = self.version(GROUP, &["v1beta1"]).await?;
                let path =
                    format!("/apis/{GROUP}/{version}/namespaces/{namespace}/{metric}{query}");
                let list: List<ExternalValue> = self.get(&path).await?;
                Ok::<_, String>(list.items)
            };
            let items = read.await.map_err(|error| {
                SampleError(format!(
                    "unable to fetch metrics from external metrics API: {error}"
                ))
            })?;
            if items.is_empty() {
                let text = "no metrics returned from external metrics API";
                return Err(SampleError(text.to_owned()));
            }
            items.iter().map(|item| milli(&item.value)).collect()
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A door that serves these paths, and nothing else.
    fn serving(paths: &[(&str, Value)]) -> ServedMetrics {
        let paths: BTreeMap<String, Value> = paths
            .iter()
            .map(|(path, value)| ((*path).to_owned(), value.clone()))
            .collect();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().path_and_query().map(ToString::to_string);
            let (code, found) = match paths.get(&path.clone().unwrap_or_default()) {
                Some(found) => (200, found.clone()),
                None => (
                    404,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "NotFound", "code": 404, "metadata": {},
                    "message": format!("nothing at {}", path.unwrap_or_default())}),
                ),
            };
            let mut answer = http::Response::new(Body::from(found.to_string().into_bytes()));
            *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        ServedMetrics::new(Client::new(service, "default"))
    }

    fn group(version: &str) -> Value {
        json!({"kind": "APIGroup", "apiVersion": "v1", "versions": [{"version": version}]})
    }

    fn selector() -> LabelSelector {
        serde_json::from_value(json!({
            "matchLabels": {"verb": "GET"},
            "matchExpressions": [
                {"key": "code", "operator": "NotIn", "values": ["500", "503"]},
                {"key": "path", "operator": "Exists"}, {"key": "old", "operator": "DoesNotExist"},
            ],
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn paths_and_answers_are_those_of_the_metrics_apis() {
        let of = |name: &str, value: &str| {
            json!({"describedObject": {"kind": "Pod", "namespace": "a", "name": name},
                "metric": {"name": "hits"}, "timestamp": "2026-01-01T00:00:00Z", "value": value})
        };
        let query = "verb%3DGET%2Ccode%20notin%20%28500%2C503%29%2Cpath%2C%21old";
        let root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/a";
        let pods =
            format!("{root}/pods/*/hits?labelSelector=app%3Dweb&metricLabelSelector={query}");
        let ingress = format!("{root}/ingresses.networking.k8s.io/main/hits");
        let namespace_path = format!("{root}/metrics/hits");
        let outside =
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/a/queue?labelSelector=verb%3DGET";
        let served = serving(&[
            ("/apis/custom.metrics.k8s.io", group("v1beta2")),
            ("/apis/external.metrics.k8s.io", group("v1beta1")),
            (
                "/apis/networking.k8s.io/v1",
                json!({"kind": "APIResourceList",
                "groupVersion": "networking.k8s.io/v1", "resources": [{"name": "ingresses",
                "singularName": "ingress", "namespaced": true, "kind": "Ingress", "verbs": ["get"]}]}),
            ),
            (
                pods.as_str(),
                json!({"items": [of("p1", "250m"), of("p2", "2k")]}),
            ),
            (ingress.as_str(), json!({"items": [of("main", "1500")]})),
            (namespace_path.as_str(), json!({"items": [of("a", "7")]})),
            (
                outside,
                json!({"items": [{"metricName": "queue", "value": "30"}, {"value": "500m"}]}),
            ),
        ]);
        let selector = selector();
        let asked = Asked {
            namespace: "a",
            metric: "hits",
            selector: Some(&selector),
        };
        let found = served.of_pods(asked, "app=web").await.unwrap();
        assert_eq!(
            found,
            BTreeMap::from([("p1".to_owned(), 250), ("p2".to_owned(), 2_000_000)])
        );
        let object = |version: &str, kind: &str, name: &str| CrossVersionObjectReference {
            api_version: Some(version.to_owned()),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let bare = Asked {
            selector: None,
            ..asked
        };
        let main = object("networking.k8s.io/v1", "Ingress", "main");
        assert_eq!(served.of_object(bare, &main).await.unwrap(), 1_500_000);
        let namespace = object("v1", "Namespace", "another");
        assert_eq!(served.of_object(bare, &namespace).await.unwrap(), 7000);
        let only: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"verb": "GET"}})).unwrap();
        let queue = Asked {
            metric: "queue",
            selector: Some(&only),
            ..asked
        };
        assert_eq!(served.external(queue).await.unwrap(), [30_000, 500]);
    }

    #[tokio::test]
    async fn an_api_that_nobody_serves_is_named() {
        let served = serving(&[]);
        let asked = Asked {
            namespace: "a",
            metric: "queue",
            selector: None,
        };
        let error = served.external(asked).await.unwrap_err().to_string();
        assert!(
            error.starts_with("unable to fetch metrics from external metrics API: "),
            "{error}"
        );
        assert!(
            error.contains("does anything serve external.metrics.k8s.io?"),
            "{error}"
        );
        let served = serving(&[
            ("/apis/custom.metrics.k8s.io", group("v1beta1")),
            (
                "/apis/custom.metrics.k8s.io/v1beta1/namespaces/a/pods/*/queue",
                json!({"items": []}),
            ),
        ]);
        let error = served.of_pods(asked, "").await.unwrap_err().to_string();
        assert_eq!(error, "no metrics returned from custom metrics API");
    }
}
