//! What is fed, and what is expected of it beyond not to panic.

mod codecs;
mod door;
mod files;
mod images;
mod kinds;
mod node;
mod patches;
mod requests;
mod texts;
mod wires;

pub(crate) use door::close;

use std::sync::LazyLock;

use evenkeel_api::patch::PatchError;
use evenkeel_api::schema::{Schema, Ty};
use evenkeel_api::{Rows, json, object, protobuf};
use serde_json::Value;

use crate::Shape;

/// Something that reads what strangers send.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory of seeds.
    pub name: &'static str,
    /// Reads one input.
    pub run: fn(&[u8]) -> Shape,
    /// An input costs so many times what those of most targets do: a run by numbers takes fewer.
    pub cost: usize,
}

const fn target(name: &'static str, run: fn(&[u8]) -> Shape) -> Target {
    slow(name, run, 1)
}

const fn slow(name: &'static str, run: fn(&[u8]) -> Shape, cost: usize) -> Target {
    Target { name, run, cost }
}

/// Everything that is fed.
pub const TARGETS: &[Target] = &[
    // Objects as they are written, and what the door makes of them.
    target("json", codecs::json),
    target("yaml", codecs::yaml),
    target("protobuf", codecs::protobuf),
    target("cbor", codecs::cbor),
    target("admit", kinds::admit),
    slow("kinds", kinds::kinds, 4),
    slow("custom", kinds::custom, 10),
    target("patch-json", patches::json),
    target("patch-merge", patches::merge),
    target("patch-strategic", patches::strategic),
    target("patch-apply", patches::server_side),
    // Small languages.
    target("labels", texts::labels),
    target("label-spec", texts::label_spec),
    target("fields", texts::fields),
    target("names", texts::names),
    target("quantity", texts::quantity),
    target("jsonpath", texts::jsonpath),
    target("cron", texts::cron),
    target("cel", texts::cel),
    // Requests.
    target("accept", requests::accept),
    target("query", requests::query),
    target("continue", requests::continue_token),
    target("web-token", requests::web_token),
    target("web-key", requests::web_key),
    target("page", requests::page),
    target("certificate-request", requests::certificate_request),
    slow("door", door::door, 10),
    // Files that are read at start.
    target("audit-policy", files::audit_policy),
    target("kubeconfig", files::kubeconfig),
    target("authentication", files::authentication),
    target("authorization", files::authorization),
    target("encryption", files::encryption),
    target("scheduler", files::scheduler),
    target("static-pod", files::static_pod),
    target("seccomp", files::seccomp),
    target("host-files", files::host_files),
    // What a node reads of its clients, of containers and of the wire.
    slow("websocket", node::websocket, 2),
    slow("spdy", node::spdy, 2),
    target("terminal-sizes", node::terminal_sizes),
    slow("log", node::log, 4),
    target("dns", wires::dns),
    target("link", wires::link),
    target("grpc", wires::grpc),
    target("frame", wires::frame),
    // Images and registries.
    target("image-reference", images::reference),
    target("manifest", images::manifest),
    target("passwd", images::passwd),
    target("pull-secret", images::pull_secret),
    slow("layer", images::layer, 40),
];

static ROWS: LazyLock<Rows> = LazyLock::new(Rows::builtin);

/// Stands between the two documents of an input that has two.
const BETWEEN: &[u8] = b"\n---\n";

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn two(input: &[u8]) -> Option<(Value, Value)> {
    let at = input
        .windows(BETWEEN.len())
        .position(|window| window == BETWEEN)?;
    let first = json::parse(&input[..at]).ok()?.value;
    let second = json::parse(&input[at + BETWEEN.len()..]).ok()?.value;
    Some((first, second))
}

/// The names of fields and the types of values, some levels deep.
fn outline(value: &Value, depth: u8) -> u64 {
    match value {
        Value::Null => 1,
        Value::Bool(_) => 2,
        Value::Number(number) => 3 + u64::from(number.is_f64()),
        Value::String(text) => 5 + u64::from(text.is_empty()),
        Value::Array(items) if depth == 0 => 7 + u64::from(items.is_empty()),
        Value::Object(fields) if depth == 0 => 9 + u64::from(fields.is_empty()),
        Value::Array(items) => {
            let all: std::collections::BTreeSet<u64> =
                items.iter().map(|item| outline(item, depth - 1)).collect();
            Shape::of((11, all)).0
        }
        Value::Object(fields) => {
            let all: Vec<(&String, u64)> = fields
                .iter()
                .take(8)
                .map(|(name, field)| (name, outline(field, depth - 1)))
                .collect();
            Shape::of((12, all)).0
        }
    }
}

fn good(value: &Value) -> Shape {
    Shape::of((0, outline(value, 3)))
}

fn failed(error: &PatchError) -> Shape {
    // The answer must be one that can be given.
    assert!(error.status().code >= 400);
    Shape::of_message(&error.to_string())
}

/// The type of an object by what it says of itself; pods otherwise.
fn type_of(value: &Value) -> (&'static Schema, Ty) {
    let schema = ROWS.schema();
    let kind = protobuf::kind_type(
        schema,
        object::text(value, &["apiVersion"]),
        object::text(value, &["kind"]),
    );
    let pod = || schema.named("io.k8s.api.core.v1.Pod").unwrap_or(Ty::Any);
    (schema, kind.unwrap_or_else(pod))
}
