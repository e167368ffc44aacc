//! Tables of certificates: what was asked for, and what is trusted.

use serde_json::Value;

use super::STRING;
use crate::kinds::table::{age, column, human_duration, labels_text, or_none};
use crate::object::{integer, list, text};
use crate::row::{Cell, Column};

pub(in crate::kinds) fn signing_request() -> Vec<Column> {
    vec![
        age(),
        column(
            "SignerName",
            STRING,
            Cell::Of(|object| or_none(text(object, &["spec", "signerName"]))),
            "Who is to sign.",
        ),
        column(
            "Requestor",
            STRING,
            Cell::Of(|object| text(object, &["spec", "username"]).into()),
            "Who asks.",
        ),
        column(
            "RequestedDuration",
            STRING,
            Cell::Of(
                |object| match integer(object, &["spec", "expirationSeconds"]) {
                    Some(seconds) => human_duration(seconds).into(),
                    None => "<none>".into(),
                },
            ),
            "For how long.",
        ),
        column(
            "Condition",
            STRING,
            Cell::Of(signing_state),
            "What became of it.",
        ),
    ]
}

fn signing_state(request: &Value) -> Value {
    let has = |kind: &str| {
        list(request, &["status", "conditions"])
            .iter()
            .any(|condition| text(condition, &["type"]) == kind)
    };
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(request, &["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state.into()
}

pub(in crate::kinds) fn trust_bundle() -> Vec<Column> {
    vec![column(
        "SignerName",
        STRING,
        Cell::Of(|object| or_none(text(object, &["spec", "signerName"]))),
        "Whose bundle it is, if anybody's.",
    )]
}

pub(in crate::kinds) fn pod_certificate_request() -> Vec<Column> {
    vec![
        column(
            "PodName",
            STRING,
            Cell::Of(|object| text(object, &["spec", "podName"]).into()),
            "The pod that the certificate is for.",
        ),
        column(
            "ServiceAccountName",
            STRING,
            Cell::Of(|object| text(object, &["spec", "serviceAccountName"]).into()),
            "What the pod runs as.",
        ),
        column(
            "NodeName",
            STRING,
            Cell::Of(|object| text(object, &["spec", "nodeName"]).into()),
            "Where it runs.",
        ),
        column(
            "SignerName",
            STRING,
            Cell::Of(|object| text(object, &["spec", "signerName"]).into()),
            "Who is to sign.",
        ),
        column(
            "State",
            STRING,
            Cell::Of(|object| {
                let conditions = list(object, &["status", "conditions"]);
                let mut kinds = conditions.iter().map(|it| text(it, &["type"]));
                kinds
                    .rfind(|kind| ["Issued", "Denied", "Failed"].contains(kind))
                    .unwrap_or("Pending")
                    .into()
            }),
            "Is the request Pending, Issued, Denied, or Failed?",
        ),
        column(
            "UnverifiedUserAnnotations",
            STRING,
            Cell::Of(|object| labels_text(&object["spec"]["unverifiedUserAnnotations"])),
            "What the pod's author says to the signer.",
        ),
    ]
}
