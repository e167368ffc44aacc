//! What one method does on one path, in the form of Swagger 2.0.

use serde_json::{Map, Value, json};

use crate::row::GroupVersionKind;

use super::{GroupVersion, schemas};

pub(super) const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// `CoreV1`, `AppsV1`, `RbacAuthorizationV1`.
pub(super) fn id_prefix(of: &GroupVersion) -> String {
    format!("{}{}", group_prefix(&of.group), title(&of.version))
}

/// `Core`, `Apps`, `RbacAuthorization`.
pub(super) fn group_prefix(group: &str) -> String {
    let group = match group {
        "" => "core",
        group => group.trim_end_matches(".k8s.io"),
    };
    group.split(['.', '-']).map(title).collect()
}

/// What operations of a group are listed under: `core`, `rbacAuthorization`.
pub(super) fn tag(group: &str) -> String {
    let prefix = group_prefix(group);
    let mut letters = prefix.chars();
    let first = letters.next().into_iter().flat_map(char::to_lowercase);
    first.chain(letters.as_str().chars()).collect()
}

pub(super) fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// What one method does on one path.
#[derive(Default)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    pub(super) action: Option<&'static str>,
    pub(super) kind: Option<GroupVersionKind>,
    pub(super) parameters: Vec<Value>,
    pub(super) consumes: Vec<&'static str>,
    pub(super) produces: Vec<&'static str>,
    /// Status codes with the type of their body; `None` is plain text.
    pub(super) answers: Vec<(u16, Option<String>)>,
}

impl Operation {
    /// One of a group and version, answered as JSON or YAML.
    pub(super) fn of(of: &GroupVersion) -> Self {
        Self {
            tag: format!("{}_{}", tag(&of.group), of.version),
            produces: vec![JSON, YAML],
            ..Self::default()
        }
    }

    /// One that is answered in every form.
    pub(super) fn in_all_forms(answers: Vec<(u16, Option<String>)>) -> Self {
        let plain = Self {
            produces: vec![JSON, YAML],
            answers,
            ..Self::default()
        };
        plain.in_protobuf()
    }

    /// The same, answered as protobuf too.
    pub(super) fn in_protobuf(mut self) -> Self {
        self.produces.push(PROTOBUF);
        self
    }

    /// Says that the answer may be a stream of what happens.
    pub(super) fn streams(&mut self) {
        let protobuf = self.produces.contains(&PROTOBUF);
        self.produces.push("application/json;stream=watch");
        if protobuf {
            self.produces
                .push("application/vnd.kubernetes.protobuf;stream=watch");
        }
    }

    pub(super) fn build(self) -> Value {
        let mut responses: Map<String, Value> = self
            .answers
            .into_iter()
            .map(|(code, ty)| {
                let description = match code {
                    201 => "Created",
                    202 => "Accepted",
                    _ => "OK",
                };
                let schema = ty.map_or_else(
                    || json!({"type": "string"}),
                    |ty| json!({"$ref": format!("#/definitions/{ty}")}),
                );
                (
                    code.to_string(),
                    json!({"description": description, "schema": schema}),
                )
            })
            .collect();
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        let mut out = json!({
            "operationId": self.id, "tags": [self.tag], "description": self.description,
            "produces": self.produces, "schemes": ["https"], "responses": responses,
        });
        if !self.consumes.is_empty() {
            out["consumes"] = json!(self.consumes);
        }
        if !self.parameters.is_empty() {
            out["parameters"] = self.parameters.into();
        }
        if let Some(action) = self.action {
            out["x-kubernetes-action"] = action.into();
        }
        if let Some(kind) = &self.kind {
            out["x-kubernetes-group-version-kind"] = schemas::gvk(kind);
        }
        out
    }
}

/// The same type for several codes.
pub(super) fn answers(codes: &[u16], ty: &str) -> Vec<(u16, Option<String>)> {
    codes
        .iter()
        .map(|code| (*code, Some(ty.to_owned())))
        .collect()
}
