//! Conversion by webhook: `ConversionReview`, what is asked and what an answer is held to.
//!
//! Pure: who carries the review is the door's business. Errors are in the reference's words, but
//! for their head (`conversion webhook for GROUP/VERSION, Kind=KIND`), which the door puts before
//! them.

use serde_json::{Map, Value, json};

use crate::field::{ErrorList, FieldError, Path};
use crate::object::{self, list, text};
use crate::{names, validation};

/// The versions of reviews that are spoken.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// How the versions of a definition are converted when a webhook does it.
#[derive(Debug)]
pub struct Conversion {
    /// Where the webhook is: a `clientConfig`.
    pub client_config: Value,
    /// The version of reviews that both sides speak.
    review: Option<&'static str>,
}

impl Conversion {
    /// Reads it from a definition; `None` for those whose versions differ by name alone.
    #[must_use]
    pub fn read(definition: &Value) -> Option<Self> {
        let conversion = object::at(definition, &["spec", "conversion"])?;
        if text(conversion, &["strategy"]) != "Webhook" {
            return None;
        }
        let review = list(conversion, &["webhook", "conversionReviewVersions"])
            .iter()
            .filter_map(Value::as_str)
            .find_map(|wanted| REVIEWS.into_iter().find(|known| *known == wanted));
        Some(Self {
            client_config: object::at(conversion, &["webhook", "clientConfig"])
                .cloned()
                .unwrap_or_default(),
            review,
        })
    }

    /// What the webhook is asked.
    ///
    /// # Errors
    /// It speaks no version of reviews that is known.
    pub fn review(&self, uid: &str, desired: &str, objects: &[Value]) -> Result<Value, String> {
        let review = self
            .review
            .ok_or("no supported conversion review versions")?;
        Ok(json!({
            "apiVersion": format!("apiextensions.k8s.io/{review}"),
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": desired, "objects": objects},
        }))
    }

    /// The objects of an answer.
    ///
    /// # Errors
    /// Why it is no answer, or why the webhook could not convert.
    pub fn answer(&self, uid: &str, mut review: Value) -> Result<Vec<Value>, String> {
        if self.review == Some("v1") {
            let (api_version, kind) = (
                text(&review, &["apiVersion"]).to_owned(),
                text(&review, &["kind"]).to_owned(),
            );
            if api_version != "apiextensions.k8s.io/v1" || kind != "ConversionReview" {
                let slash = if api_version.contains('/') { "" } else { "/" };
                return Err(format!(
                    "expected webhook response of apiextensions.k8s.io/v1, \
                     Kind=ConversionReview, got {slash}{api_version}, Kind={kind}"
                ));
            }
        }
        let Some(response) = review.get_mut("response").filter(|it| it.is_object()) else {
            return Err("no response provided".to_owned());
        };
        let found = text(response, &["uid"]);
        if self.review == Some("v1") && found != uid {
            return Err(format!("expected response.uid=\"{uid}\", got \"{found}\""));
        }
        let status = text(response, &["result", "status"]);
        if status != "Success" {
            let message = text(response, &["result", "message"]);
            return Err(if message.is_empty() {
                format!("response.result.status was '{status}', not 'Success'")
            } else {
                message.to_owned()
            });
        }
        Ok(
            match response.get_mut("convertedObjects").map(Value::take) {
                Some(Value::Array(objects)) => objects,
                _ => Vec::new(),
            },
        )
    }
}

/// Checks one object that came back, and gives it the metadata of what was sent: only labels and
/// annotations are the webhook's. `index` is its place, and `many` whether it was one of several.
///
/// # Errors
/// What is wrong, to be put behind `returned`.
pub fn settle(
    sent: &Value,
    converted: &mut Value,
    desired: &str,
    (index, many): (usize, bool),
) -> Result<(), String> {
    let object = if many { "converted object" } else { "object" };
    let place = format!("invalid {object} at index {index}");
    if !converted.is_object() {
        return Err(format!("{place}: Object 'Kind' is missing"));
    }
    let found = text(converted, &["apiVersion"]);
    if found != desired {
        return Err(format!(
            "{place}: invalid groupVersion (expected {desired}, received {found})"
        ));
    }
    let (wanted, found) = (text(sent, &["kind"]), text(converted, &["kind"]));
    if wanted != found {
        return Err(format!(
            "{place}: invalid kind (expected {wanted}, received {found})"
        ));
    }
    for (what, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let path = ["metadata", field];
        let (wanted, found) = (text(sent, &path), text(converted, &path));
        if wanted != found {
            let place = if many { &place } else { "invalid object" };
            return Err(format!(
                "{place}: must have the same {what}: {wanted} != {found}"
            ));
        }
    }
    restore(sent, converted).map_err(|why| {
        if many {
            format!("invalid metadata in object at index {index}: {why}")
        } else {
            format!("invalid metadata: {why}")
        }
    })
}

fn restore(sent: &Value, converted: &mut Value) -> Result<(), String> {
    let Some(given) = converted.get("metadata") else {
        return Err("missing metadata in converted object".to_owned());
    };
    let Value::Object(given) = given.clone() else {
        return Err(format!(
            "invalid metadata of type {} in converted object",
            go_type(given)
        ));
    };
    let mut metadata = match sent.get("metadata") {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    for field in ["labels", "annotations"] {
        let before = metadata.remove(field);
        let Some(now) = given.get(field).filter(|it| !it.is_null()) else {
            continue;
        };
        let Value::Object(pairs) = now else {
            return Err(format!(
                "invalid metadata.{field} of type {} in converted object",
                go_type(now)
            ));
        };
        for (key, value) in pairs {
            if !value.is_string() {
                return Err(format!(
                    "metadata.{field}[{key}] must be a string, but is {} in converted object",
                    go_type(value)
                ));
            }
        }
        if before.as_ref() != Some(now) {
            let errors = check(field, now);
            if !errors.is_empty() {
                let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
                return Err(if let [one] = told.as_slice() {
                    one.clone()
                } else {
                    format!("[{}]", told.join(", "))
                });
            }
        }
        metadata.insert(field.to_owned(), now.clone());
    }
    object::fields(converted).insert("metadata".to_owned(), Value::Object(metadata));
    Ok(())
}

fn check(field: &str, pairs: &Value) -> ErrorList {
    let path = Path::new("metadata");
    let mut out = ErrorList::new();
    if field == "labels" {
        validation::labels(pairs, &path.child("labels"), &mut out);
    } else {
        // The reference's path has no plural here.
        validation::annotations(pairs, &path.child("annotation"), &mut out);
    }
    out
}

/// What Go calls the type of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What is wrong with the list of review versions of a definition.
pub(super) fn validate_reviews(versions: &[Value], known: bool, path: &Path) -> ErrorList {
    let mut out = ErrorList::new();
    if versions.is_empty() {
        out.push(FieldError::required(path, ""));
        return out;
    }
    let mut seen = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or_default();
        let at = path.index(index);
        if seen.contains(&version) {
            out.push(FieldError::invalid(&at, version, "duplicate version"));
            continue;
        }
        seen.push(version);
        for wrong in names::dns1035_label(version) {
            out.push(FieldError::invalid(&at, version, &wrong));
        }
    }
    if known && !seen.iter().any(|version| REVIEWS.contains(version)) {
        let wrong = format!("must include at least one of {}", REVIEWS.join(", "));
        out.push(FieldError::invalid(path, versions.to_vec(), &wrong));
    }
    out
}
