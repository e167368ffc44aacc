//! The table of facts that the published schemas lack.
//!
//! One line for a type or field, tab-separated: the name (without `io.k8s.api.`), then facts:
//! `atomic`, `granular`, `list=map:KEYS|set|atomic`, `patch=merge[,retainKeys][:KEY]|replace`,
//! `default=JSON`, `enum=A|B` (of a list or map: of what it holds), `off` (of a feature that is off),
//! `off=GATE` (of one behind a gate), `schemaorbool` (a schema or a boolean), `always` (written even
//! when empty), `ptr` (an
//! explicit zero is kept). They restate the markers
//! and tags of the Kubernetes 1.37 API types.

use std::collections::HashMap;

use super::{Field, ListType, Schema};

const TABLE: &str = include_str!("facts.tsv");

/// Joins the facts to the types that are there. Facts of absent types are skipped.
pub(super) fn join(schema: &mut Schema) {
    let index: HashMap<String, usize> = schema
        .types
        .iter()
        .enumerate()
        .filter_map(|(index, definition)| Some((short(&definition.name)?, index)))
        .collect();
    for line in TABLE.lines() {
        let mut parts = line.split('\t');
        let Some(name) = parts.next() else { continue };
        if let Some(found) = index.get(name) {
            schema.types[*found].atomic |= parts.any(|fact| fact == "atomic");
            continue;
        }
        let Some((owner, field)) = name.rsplit_once('.') else {
            continue;
        };
        let Some(found) = index.get(owner) else {
            continue;
        };
        if let Some(field) = schema.types[*found].fields.get_mut(field) {
            parts.for_each(|fact| set(field, fact));
        }
    }
}

fn short(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("io.k8s.api.") {
        return Some(rest.to_owned());
    }
    name.strip_prefix("io.k8s.apimachinery.pkg.apis.")
        .or_else(|| name.strip_prefix("io.k8s.apiextensions-apiserver.pkg.apis."))
        .or_else(|| name.strip_prefix("io.k8s.kube-aggregator.pkg.apis."))
        .map(str::to_owned)
}

fn set(field: &mut Field, fact: &str) {
    match fact.split_once('=') {
        None if fact == "atomic" => field.atomic = Some(true),
        None if fact == "granular" => field.atomic = Some(false),
        None if fact == "off" => field.off = true,
        None if fact == "schemaorbool" => field.schema_or_bool = true,
        None if fact == "always" => field.always = true,
        None if fact == "ptr" => field.pointer = true,
        Some(("off", gate)) => field.gate = Some(gate.into()),
        Some(("list", "set")) => field.list = ListType::Set,
        Some(("list", keys)) => {
            if let Some(keys) = keys.strip_prefix("map:") {
                field.list = ListType::Map(keys.split(',').map(Into::into).collect());
            }
        }
        Some(("patch", how)) => {
            let (strategies, key) = how
                .split_once(':')
                .map_or((how, None), |(s, k)| (s, Some(k)));
            field.patch.merge = strategies.split(',').any(|strategy| strategy == "merge");
            field.patch.retain_keys = strategies
                .split(',')
                .any(|strategy| strategy == "retainKeys");
            field.patch.replace = strategies == "replace";
            field.patch.key = key.map(Into::into);
        }
        Some(("enum", values)) => field.values = values.split('|').map(Into::into).collect(),
        Some(("default", value)) => field.default = serde_json::from_str(value).ok(),
        _ => {}
    }
}
