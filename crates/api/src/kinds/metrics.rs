//! `metrics.k8s.io/v1beta1`: what nodes and pods use now, as `kubectl top` reads it.
//!
//! The types are not among the published ones of the API server, so their schemas are written
//! here. Nothing of these kinds is ever stored: the door asks the nodes' agents.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// What a node uses.
#[derive(Debug)]
pub struct NodeMetrics;

/// What a pod's containers use.
#[derive(Debug)]
pub struct PodMetrics;

/// What one container uses.
#[derive(Debug)]
pub struct ContainerMetrics;

impl Resource for NodeMetrics {
    const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
    const GROUP: &'static str = "metrics.k8s.io";
    const KIND: &'static str = "NodeMetrics";
    const VERSION: &'static str = "v1beta1";
    const URL_PATH_SEGMENT: &'static str = "nodes";
    type Scope = ClusterResourceScope;
}

impl Resource for PodMetrics {
    const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
    const GROUP: &'static str = "metrics.k8s.io";
    const KIND: &'static str = "PodMetrics";
    const VERSION: &'static str = "v1beta1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

fn described<T: JsonSchema>(generator: &mut SchemaGenerator, text: &str) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    schema.insert("description".to_owned(), text.into());
    schema
}

fn usage(generator: &mut SchemaGenerator) -> Value {
    let quantity = generator.subschema_for::<Quantity>();
    serde_json::json!({
        "description": "What is used of each resource, cpu and memory.",
        "type": "object",
        "additionalProperties": quantity,
    })
}

/// The schema of an object that was measured, with what it has beside the time.
fn measured(
    generator: &mut SchemaGenerator,
    description: &str,
    (field, content): (&str, Value),
) -> Schema {
    let metadata = described::<ObjectMeta>(generator, "Standard object's metadata.");
    let timestamp = described::<Time>(generator, "End of the time that was measured.");
    let mut schema = json_schema!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": {
                "description": "Version of the schema of this representation of an object.",
                "type": "string",
            },
            "kind": {
                "description": "The REST resource that this object represents.",
                "type": "string",
            },
            "metadata": metadata,
            "timestamp": timestamp,
            "window": {
                "description": "The time over which cpu is averaged.",
                "type": "string",
            },
        },
        "required": ["timestamp", "window", field],
    });
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(field.to_owned(), content);
    }
    schema
}

impl JsonSchema for NodeMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        let text = "NodeMetrics says what a node uses.";
        measured(generator, text, ("usage", usage))
    }
}

impl JsonSchema for PodMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let container = generator.subschema_for::<ContainerMetrics>();
        let containers = serde_json::json!({
            "description": "What each container uses.",
            "type": "array",
            "items": container,
        });
        let text = "PodMetrics says what the containers of a pod use.";
        measured(generator, text, ("containers", containers))
    }
}

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        json_schema!({
            "description": "ContainerMetrics says what a container uses.",
            "type": "object",
            "properties": {
                "name": {"description": "Its name.", "type": "string"},
                "usage": usage,
            },
            "required": ["name", "usage"],
        })
    }
}
