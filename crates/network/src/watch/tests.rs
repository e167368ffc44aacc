//! The watch against an API that answers from a script.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;

use kube::client::Body;
use serde_json::json;

use super::*;

fn answer(request: &http::Request<Body>) -> String {
    let watching = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let meta = |name: &str| {
        json!({"namespace": "default", "name": name, "resourceVersion": "1",
               "labels": {"kubernetes.io/service-name": "web"}})
    };
    let web = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"),
                     "spec": {"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                       "metadata": meta("web-1"), "addressType": "IPv4", "endpoints": []});
    let (kind, version, item) = match request.uri().path() {
        "/api/v1/services" => ("ServiceList", "v1", web),
        "/apis/discovery.k8s.io/v1/endpointslices" => {
            ("EndpointSliceList", "discovery.k8s.io/v1", slice)
        }
        "/api/v1/nodes" => {
            let query = request.uri().query().unwrap_or_default();
            assert!(
                query.contains("fieldSelector=metadata.name%3Dnode-1"),
                "{query}"
            );
            let labels = json!({"topology.kubernetes.io/zone": "zone-a"});
            let meta = json!({"name": "node-1", "resourceVersion": "1", "labels": labels});
            (
                "NodeList",
                "v1",
                json!({"apiVersion": "v1", "kind": "Node", "metadata": meta}),
            )
        }
        other => panic!("asked for {other}"),
    };
    if watching {
        return json!({"type": "DELETED", "object": item}).to_string() + "\n";
    }
    json!({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"},
           "items": [item]})
    .to_string()
}

#[tokio::test]
async fn lists_come_whole_and_changes_one_by_one() {
    let api = tower::service_fn(|request: http::Request<Body>| async move {
        Ok::<_, Infallible>(http::Response::new(Body::from(
            answer(&request).into_bytes(),
        )))
    });
    let mut changes = pin!(kubernetes(Client::new(api, "default"), "node-1"));
    let wanted: [fn(&Change) -> bool; 6] = [
        |change| matches!(change, Change::Services(all) if all[0].key.name == "web"),
        |change| matches!(change, Change::Slices(all) if all[0].name == "web-1"),
        |change| matches!(change, Change::Zone(Some(zone)) if zone == "zone-a"),
        |change| matches!(change, Change::ServiceGone(key) if key.name == "web"),
        |change| matches!(change, Change::SliceGone(key) if key.name == "web-1"),
        |change| matches!(change, Change::Zone(None)),
    ];
    let mut seen = [false; 6];
    let all = async {
        while seen.contains(&false) {
            let change = changes.next().await.unwrap();
            for (seen, is) in seen.iter_mut().zip(wanted) {
                *seen |= is(&change);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .unwrap();
}
