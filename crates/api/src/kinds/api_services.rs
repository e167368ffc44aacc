//! APIServices: which server serves a version of a group, and in which order discovery tells it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table::{age, column, name};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object::{self, default_field, fields, list, text};
use crate::row::{Cell, Column, Strategy};
use crate::validation::Cursor;

/// The group of APIServices.
pub const GROUP: &str = "apiregistration.k8s.io";
/// The label of those that are made for what this server has itself.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What APIServices do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApiServices;

/// Does another server stand behind it?
#[must_use]
pub fn is_remote(service: &Value) -> bool {
    object::at(service, &["spec", "service"]).is_some_and(Value::is_object)
}

/// Is it available?
#[must_use]
pub fn is_available(service: &Value) -> bool {
    available(service).is_some_and(|condition| text(condition, &["status"]) == "True")
}

fn available(service: &Value) -> Option<&Value> {
    list(service, &["status", "conditions"])
        .iter()
        .find(|condition| text(condition, &["type"]) == "Available")
}

/// Sets the condition `Available`; its time changes with its status alone. `now` is an RFC 3339
/// time. Answers whether anything changed.
pub fn set_available(
    service: &mut Value,
    status: &str,
    reason: &str,
    message: &str,
    now: &str,
) -> bool {
    let before = available(service).cloned().unwrap_or_default();
    let since = if text(&before, &["status"]) == status {
        text(&before, &["lastTransitionTime"]).to_owned()
    } else {
        now.to_owned()
    };
    let after = json!({
        "type": "Available", "status": status, "lastTransitionTime": since,
        "reason": reason, "message": message,
    });
    if after == before {
        return false;
    }
    let conditions = fields(object::child(service, "status"))
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if let Value::Array(all) = conditions {
        match all.iter_mut().find(|it| it["type"] == "Available") {
            Some(found) => *found = after,
            None => all.push(after),
        }
    } else {
        *conditions = json!([after]);
    }
    true
}

/// The condition of what this server serves itself.
pub fn set_local(service: &mut Value, now: &str) -> bool {
    let message = "Local APIServices are always available";
    set_available(service, "True", "Local", message, now)
}

impl Strategy for ApiServices {
    fn defaults(&self, object: &mut Value) {
        if let Some(service) = object
            .pointer_mut("/spec/service")
            .filter(|service| service.is_object())
        {
            default_field(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
        if !is_remote(object) {
            // The object's own time is that of its creation, which is now.
            let now = text(object, &["metadata", "creationTimestamp"]).to_owned();
            set_local(object, &now);
        }
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        for name in ["labels", "annotations", "finalizers"] {
            let kept = object::at(old, &["metadata", name]).cloned();
            object::set_or_remove(object::metadata(new), name, kept);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let spec = root.child("spec");
        let (group, version) = (spec.text("group"), spec.text("version"));
        let wanted = format!("{version}.{group}");
        // The prefix of a name is held to the same, so that there is none.
        for field in ["name", "generateName"] {
            let name = text(object, &["metadata", field]);
            let good = name == wanted || field == "generateName" && name.is_empty();
            if !good && names::path_segment(name).is_empty() {
                let wrong = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
                let at = Path::new("metadata").child(field);
                out.push(FieldError::invalid(&at, name, &wrong));
            }
        }
        if group.is_empty() && version != "v1" {
            out.push(FieldError::required(
                &spec.at("group"),
                "only v1 may have an empty group and it better be legacy kube",
            ));
        }
        if !group.is_empty() {
            for wrong in names::dns1123_subdomain(group) {
                out.push(FieldError::invalid(&spec.at("group"), group, &wrong));
            }
        }
        for wrong in names::dns1035_label(version) {
            out.push(FieldError::invalid(&spec.at("version"), version, &wrong));
        }
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
            let given = spec.number(field);
            if given <= 0 || given > most {
                let wrong = format!("must be positive and less than {most}");
                out.push(FieldError::invalid(&spec.at(field), given, &wrong));
            }
        }
        let bundle = spec.text("caBundle");
        let insecure = spec.is_true("insecureSkipTLSVerify");
        let Some(service) = spec.get("service").filter(|it| it.value.is_object()) else {
            if !bundle.is_empty() {
                let shown = format!("{} bytes", decoded_length(bundle));
                let wrong = "local APIServices may not have a caBundle";
                out.push(FieldError::invalid(&spec.at("caBundle"), shown, wrong));
            }
            if insecure {
                let wrong = "local APIServices may not have insecureSkipTLSVerify";
                let at = spec.at("insecureSkipTLSVerify");
                out.push(FieldError::invalid(&at, true, wrong));
            }
            return out;
        };
        for field in ["namespace", "name"] {
            if service.text(field).is_empty() {
                out.push(FieldError::required(&service.at(field), ""));
            }
        }
        let port = service.number("port");
        if !(1..=65_535).contains(&port) {
            let wrong = "port is not valid: must be between 1 and 65535, inclusive";
            out.push(FieldError::invalid(&service.at("port"), port, wrong));
        }
        if insecure && !bundle.is_empty() {
            let wrong = "may not be true if caBundle is present";
            let at = spec.at("insecureSkipTLSVerify");
            out.push(FieldError::invalid(&at, true, wrong));
        }
        out
    }

    fn validate_status(&self, new: &Value, _: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let conditions = Cursor::root(new).child("status");
        for condition in conditions.items("conditions") {
            let status = condition.text("status");
            let known = ["True", "False", "Unknown"];
            if !known.contains(&status) {
                let at = condition.at("status");
                out.push(FieldError::not_supported(&at, status, &known));
            }
        }
        out
    }
}

/// Bytes that a base64 text stands for.
fn decoded_length(base64: &str) -> usize {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(base64);
    decoded.map_or(0, |bytes| bytes.len())
}

/// The columns of APIServices.
#[must_use]
pub fn columns() -> Vec<Column> {
    vec![
        name(),
        column(
            "Service",
            "string",
            Cell::Of(|object| {
                if !is_remote(object) {
                    return "Local".into();
                }
                let part = |name: &str| text(object, &["spec", "service", name]);
                format!("{}/{}", part("namespace"), part("name")).into()
            }),
            "The reference to the service that hosts this API endpoint.",
        ),
        column(
            "Available",
            "string",
            Cell::Of(|object| {
                let Some(condition) = available(object) else {
                    return "Unknown".into();
                };
                let (status, reason) = (text(condition, &["status"]), text(condition, &["reason"]));
                if status == "True" || reason.is_empty() {
                    status.into()
                } else {
                    format!("{status} ({reason})").into()
                }
            }),
            "Whether this service is available.",
        ),
        age(),
    ]
}

/// The place of a built-in version in discovery: of its group, and in it.
#[must_use]
pub fn priority(group: &str, version: &str) -> Option<(i64, i64)> {
    let of_group = match group {
        "" => return (version == "v1").then_some((18_000, 1)),
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" | "resource.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        "storagemigration.k8s.io" => 15_800,
        // As whoever adds a metrics server registers it.
        "metrics.k8s.io" => return Some((100, 100)),
        _ => return None,
    };
    let of_version = match (group, version) {
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", "v1") => 21,
        (_, "v1") => 15,
        _ => 9,
    };
    Some((of_group, of_version))
}

/// The place of versions of custom kinds.
pub const CUSTOM_PRIORITY: (i64, i64) = (1_000, 100);

/// The APIService of something that this server serves itself. `managed` is how long it is looked
/// after: `onstart` or `true`.
#[must_use]
pub fn local(group: &str, version: &str, priority: (i64, i64), managed: &str) -> Value {
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": priority.0,
        "versionPriority": priority.1,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: managed}},
        "spec": spec,
    })
}

/// What is there to reach a service by, before it is asked: the status, reason and message of the
/// condition when that decides already. `service` is the Service, `slices` are its EndpointSlices.
#[must_use]
pub fn reachable(
    api_service: &Value,
    service: Option<&Value>,
    slices: &[Value],
) -> Option<(&'static str, &'static str, String)> {
    let part = |name: &str| text(api_service, &["spec", "service", name]);
    let (name, namespace) = (part("name"), part("namespace"));
    let place = format!("service/{name} in {namespace:?}");
    let no = |reason, message: String| Some(("False", reason, message));
    let Some(service) = service else {
        return no("ServiceNotFound", format!("{place} is not present"));
    };
    if !matches!(text(service, &["spec", "type"]), "" | "ClusterIP") {
        return None;
    }
    let wanted = object::integer(api_service, &["spec", "service", "port"]).unwrap_or(443);
    let port = list(service, &["spec", "ports"])
        .iter()
        .find(|port| object::integer(port, &["port"]) == Some(wanted));
    let Some(port) = port else {
        return no(
            "ServicePortError",
            format!("{place} is not listening on port {wanted}"),
        );
    };
    let port_name = text(port, &["name"]);
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for {place}");
        return no("EndpointsNotFound", message);
    }
    let has_endpoint = |slice: &Value| {
        let ready = |endpoint: &Value| {
            let ready = object::at(endpoint, &["conditions", "ready"]);
            ready.and_then(Value::as_bool).unwrap_or(true)
        };
        let named = |port: &Value| text(port, &["name"]) == port_name && port.get("port").is_some();
        list(slice, &["endpoints"]).iter().any(ready) && list(slice, &["ports"]).iter().any(named)
    };
    if slices.iter().any(has_endpoint) {
        return None;
    }
    no(
        "MissingEndpoints",
        format!("endpointslices for {place} have no addresses with port name {port_name:?}"),
    )
}

/// `now` as conditions write it.
#[must_use]
pub fn time(now: Timestamp) -> String {
    crate::clock::rfc3339(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Value {
        json!({"metadata": {"name": "v1.a.b"}, "spec": {"group": "a.b", "version": "v1",
            "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"namespace": "n", "name": "s", "port": 443}}})
    }

    #[test]
    fn what_is_missing_is_named() {
        let api = remote();
        let reason = |service: Option<&Value>, slices: &[Value]| {
            reachable(&api, service, slices).map(|(_, reason, message)| (reason, message))
        };
        let said = reason(None, &[]).unwrap();
        assert_eq!(said.1, "service/s in \"n\" is not present");
        let other = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        assert_eq!(reason(Some(&other), &[]).unwrap().0, "ServicePortError");
        let service = json!({"spec": {"ports": [{"port": 443, "name": "https"}]}});
        let said = reason(Some(&service), &[]).unwrap();
        assert_eq!(said.0, "EndpointsNotFound");
        let slice = |ready: bool, name: &str| {
            json!({"ports": [{"name": name, "port": 8443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
        };
        for slices in [[slice(false, "https")], [slice(true, "other")]] {
            let said = reason(Some(&service), &slices).unwrap();
            assert_eq!(said.0, "MissingEndpoints");
            assert_eq!(
                said.1,
                "endpointslices for service/s in \"n\" have no addresses with port name \"https\""
            );
        }
        assert_eq!(reason(Some(&service), &[slice(true, "https")]), None);
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut service = remote();
        assert!(set_available(&mut service, "False", "A", "a", "t1"));
        assert!(set_available(&mut service, "False", "B", "b", "t2"));
        assert_eq!(
            service["status"]["conditions"][0]["lastTransitionTime"],
            "t1"
        );
        assert!(!set_available(&mut service, "False", "B", "b", "t3"));
        assert!(set_available(&mut service, "True", "Passed", "c", "t4"));
        assert_eq!(
            service["status"]["conditions"][0]["lastTransitionTime"],
            "t4"
        );
        assert_eq!(service["status"]["conditions"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn objects_are_held_to_the_references_rules() {
        let wrong = |object: &Value| -> Vec<String> {
            ApiServices
                .validate(object)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert!(wrong(&remote()).is_empty());
        let mut named = remote();
        named["metadata"]["name"] = "x".into();
        assert_eq!(
            wrong(&named),
            [
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\""
            ]
        );
        let mut local = remote();
        local["spec"].as_object_mut().unwrap().remove("service");
        local["spec"]["insecureSkipTLSVerify"] = true.into();
        local["spec"]["versionPriority"] = 0.into();
        assert_eq!(
            wrong(&local),
            [
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have \
                 insecureSkipTLSVerify",
            ]
        );
    }
}
