//! Defaults of pods and of the pod specs in templates, as `pkg/apis/core/v1/defaults.go`.
//!
//! A template gets only what the reference gives it: requests from limits, service links and host
//! ports are decided when the pod itself is made.

use serde_json::{Value, json};

use crate::object::{self, child, default_field, fields};
use crate::quantity::Quantity;

use super::image::pull_policy;

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
const DEFAULT_MODE: i64 = 0o644;

/// Sets the defaults of a pod.
pub(super) fn pod(object: &mut Value) {
    let spec = child(object, "spec");
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in list_mut(spec, list) {
            requests_from_limits(container);
        }
    }
    default_field(spec, "enableServiceLinks", true);
    // A template may say so, and is warned; a pod has the shortest time there is.
    if object::integer(spec, &["terminationGracePeriodSeconds"]).is_some_and(|period| period < 0) {
        fields(spec).insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    host_ports(spec);
    super::status::defaults(object);
}

/// Sets the defaults of a pod template (`metadata` and `spec`).
pub fn template(template: &mut Value) {
    child(template, "metadata");
    pod_spec(child(template, "spec"));
}

/// Sets the defaults that pods and templates share.
fn pod_spec(spec: &mut Value) {
    for volume in list_mut(spec, "volumes") {
        volume_defaults(volume);
    }
    for list in CONTAINER_LISTS {
        for container in list_mut(spec, list) {
            container_defaults(container);
        }
    }
    default_field(spec, "dnsPolicy", "ClusterFirst");
    default_field(spec, "restartPolicy", "Always");
    default_field(spec, "schedulerName", "default-scheduler");
    default_field(spec, "securityContext", json!({}));
    default_field(spec, "terminationGracePeriodSeconds", 30);
    round_up(spec, "overhead");
    // The older name of the service account is kept in step, whichever was given.
    let account = text_of(spec, "serviceAccountName")
        .or_else(|| text_of(spec, "serviceAccount"))
        .map(str::to_owned);
    if let Some(account) = account {
        let spec = fields(spec);
        spec.insert("serviceAccountName".to_owned(), account.clone().into());
        spec.insert("serviceAccount".to_owned(), account.into());
    }
}

fn text_of<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// The items of a list field; none when it is missing.
pub(super) fn list_mut<'a>(
    value: &'a mut Value,
    name: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn container_defaults(container: &mut Value) {
    let image = text_of(container, "image").unwrap_or_default();
    let pull_policy = pull_policy(image);
    default_field(container, "imagePullPolicy", pull_policy);
    default_field(container, "terminationMessagePath", "/dev/termination-log");
    default_field(container, "terminationMessagePolicy", "File");
    for port in list_mut(container, "ports") {
        default_field(port, "protocol", "TCP");
    }
    for env in list_mut(container, "env") {
        if let Some(from) = env.get_mut("valueFrom") {
            downward(from);
        }
    }
    let resources = child(container, "resources");
    round_up(resources, "limits");
    round_up(resources, "requests");
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) {
            probe_defaults(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        let action = container
            .get_mut("lifecycle")
            .and_then(|lifecycle| lifecycle.get_mut(hook))
            .and_then(|hook| hook.get_mut("httpGet"));
        if let Some(action) = action {
            http_get(action);
        }
    }
}

fn probe_defaults(probe: &mut Value) {
    for (name, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        // Zero means unset for these: they are not pointers in the reference.
        if probe.get(name).and_then(Value::as_i64).unwrap_or_default() == 0 {
            fields(probe).insert(name.to_owned(), value.into());
        }
    }
    if let Some(action) = probe.get_mut("httpGet") {
        http_get(action);
    }
    if let Some(action) = probe.get_mut("grpc") {
        default_field(action, "service", "");
    }
}

fn http_get(action: &mut Value) {
    for (name, value) in [("path", "/"), ("scheme", "HTTP")] {
        if text_of(action, name).is_none() {
            fields(action).insert(name.to_owned(), value.into());
        }
    }
}

fn downward(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef").filter(|f| f.is_object()) {
        default_field(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef").filter(|f| f.is_object()) {
        default_field(resource, "divisor", "0");
    }
}

fn volume_defaults(volume: &mut Value) {
    let sources = fields(volume);
    if !sources
        .iter()
        .any(|(name, value)| name != "name" && !value.is_null())
    {
        sources.insert("emptyDir".to_owned(), json!({}));
    }
    for (name, source) in sources.iter_mut().filter(|(_, value)| value.is_object()) {
        match name.as_str() {
            "secret" | "configMap" => default_field(source, "defaultMode", DEFAULT_MODE),
            "downwardAPI" => {
                default_field(source, "defaultMode", DEFAULT_MODE);
                list_mut(source, "items").for_each(downward);
            }
            "projected" => projected(source),
            "hostPath" => default_field(source, "type", ""),
            "image" => {
                let policy = pull_policy(text_of(source, "reference").unwrap_or_default());
                default_field(source, "pullPolicy", policy);
            }
            "ephemeral" => {
                if let Some(claim) = source
                    .get_mut("volumeClaimTemplate")
                    .and_then(|template| template.get_mut("spec"))
                {
                    default_field(claim, "volumeMode", "Filesystem");
                }
            }
            "iscsi" if text_of(source, "iscsiInterface").is_none() => {
                fields(source).insert("iscsiInterface".to_owned(), "default".into());
            }
            _ => {}
        }
    }
}

fn projected(source: &mut Value) {
    default_field(source, "defaultMode", DEFAULT_MODE);
    for projection in list_mut(source, "sources") {
        if let Some(token) = projection.get_mut("serviceAccountToken") {
            default_field(token, "expirationSeconds", 3600);
        }
        if let Some(downward_api) = projection.get_mut("downwardAPI") {
            list_mut(downward_api, "items").for_each(downward);
        }
    }
}

/// Quantities finer than a thousandth are rounded up to one.
pub(crate) fn round_up(value: &mut Value, name: &str) {
    let Some(list) = value.get_mut(name).and_then(Value::as_object_mut) else {
        return;
    };
    for quantity in list.values_mut() {
        let Some(text) = quantity.as_str().filter(|text| text.ends_with(['u', 'n'])) else {
            continue;
        };
        if let Ok(parsed) = text.parse::<Quantity>() {
            *quantity = Quantity::from_milli(parsed.milli()).to_string().into();
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else {
        return;
    };
    let Some(limits) = resources
        .get("limits")
        .and_then(Value::as_object)
        .filter(|limits| !limits.is_empty())
        .cloned()
    else {
        return;
    };
    let requests = fields(child(resources, "requests"));
    for (name, quantity) in limits {
        requests.entry(name).or_insert(quantity);
    }
}

fn host_ports(spec: &mut Value) {
    if spec.get("hostNetwork").and_then(Value::as_bool) != Some(true) {
        return;
    }
    for list in ["containers", "initContainers"] {
        for container in list_mut(spec, list) {
            for port in list_mut(container, "ports") {
                let unset = port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0;
                if let Some(number) = port.get("containerPort").filter(|_| unset).cloned() {
                    fields(port).insert("hostPort".to_owned(), number);
                }
            }
        }
    }
}
