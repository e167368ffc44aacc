//! Validation of environment variables and of references to the pod's own fields.

use super::{containers, volumes};
use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::validation::{self, Cursor, text};

/// Fields that an environment variable can take.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a file can take.
pub(super) const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Fields of a pod that have a name in this version, but stand in neither list.
const KNOWN_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Checks `env` of a container.
pub(super) fn variables(container: &Cursor<'_>, out: &mut ErrorList) {
    for variable in container.items("env") {
        let name = variable.text("name");
        if name.is_empty() {
            out.push(FieldError::required(&variable.at("name"), ""));
        } else {
            validation::named(text::env_name, name, &variable.at("name"), out);
        }
        if let Some(from) = variable.get("valueFrom") {
            value_from(&variable, &from, out);
        }
    }
}

fn value_from(variable: &Cursor<'_>, from: &Cursor<'_>, out: &mut ErrorList) {
    let mut sources = 0;
    if let Some(field) = from.get("fieldRef") {
        sources += 1;
        field_ref(&field, &ENV_FIELDS, out);
    }
    if let Some(resource) = from.get("resourceFieldRef") {
        sources += 1;
        resource_ref(&resource, false, out);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(key) = from.get(name) {
            sources += 1;
            key_ref(&key, out);
        }
    }
    if let Some(file) = from.get("fileKeyRef") {
        sources += 1;
        file_ref(&file, out);
    }
    let wrong = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
         `fileKeyRef`"
    } else if !variable.text("value").is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    out.push(FieldError::invalid(&from.path, "", wrong));
}

fn file_ref(at: &Cursor<'_>, out: &mut ErrorList) {
    for name in ["key", "volumeName", "path"] {
        let value = at.text(name);
        match name {
            _ if value.is_empty() => validation::required(at, name, out),
            "key" => validation::named(text::env_name, value, &at.at(name), out),
            "volumeName" => validation::dns_label(value, &at.at(name), out),
            _ => volumes::no_back_steps(value, &at.at(name), out),
        }
    }
}

/// Checks that files with variables stand in volumes that containers can write to and that end with
/// the pod.
pub(super) fn file_volumes(spec: &Cursor<'_>, out: &mut ErrorList) {
    for variable in containers::all(spec).flat_map(|container| container.items("env")) {
        let Some(file) = variable.child("valueFrom").get("fileKeyRef") else {
            continue;
        };
        let name = file.text("volumeName");
        let volume = spec
            .items("volumes")
            .filter(|volume| volume.text("name") == name)
            .last();
        match volume {
            None => out.push(FieldError::not_found(&file.at("volumeName"), name)),
            Some(volume) if !volume.has("emptyDir") => out.push(FieldError::invalid(
                &file.at("volumeName"),
                name,
                "referenced volume must be of type emptyDir",
            )),
            Some(_) => {}
        }
    }
}

fn key_ref(at: &Cursor<'_>, out: &mut ErrorList) {
    validation::named(
        names::dns1123_subdomain,
        at.text("name"),
        &at.at("name"),
        out,
    );
    if at.text("key").is_empty() {
        out.push(FieldError::required(&at.at("key"), ""));
    } else {
        validation::named(text::config_key, at.text("key"), &at.at("key"), out);
    }
}

/// Splits `metadata.labels['key']` into the path and the key.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    let inner = path.strip_suffix("']")?;
    let (path, key) = inner.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// Checks a reference to a field of the pod.
pub(super) fn field_ref(at: &Cursor<'_>, allowed: &[&str], out: &mut ErrorList) {
    for name in ["apiVersion", "fieldPath"] {
        if at.text(name).is_empty() {
            out.push(FieldError::required(&at.at(name), ""));
            return;
        }
    }
    let path = match at.text("fieldPath") {
        // What old clients call it.
        "spec.host" => "spec.nodeName",
        path => path,
    };
    let unknown = |detail: String| FieldError::invalid(&at.at("fieldPath"), path, &detail);
    if at.text("apiVersion") != "v1" {
        out.push(unknown(format!(
            "error converting fieldPath: unsupported pod version: {}",
            at.text("apiVersion")
        )));
        return;
    }
    if let Some((map, key)) = subscripted(path) {
        match map {
            "metadata.annotations" => {
                validation::qualified_name(&key.to_lowercase(), &at.path, out);
            }
            "metadata.labels" => validation::qualified_name(key, &at.path, out),
            _ => out.push(unknown(format!(
                "error converting fieldPath: field label does not support subscript: {path}"
            ))),
        }
    } else if allowed.contains(&path) {
    } else if ENV_FIELDS.contains(&path)
        || VOLUME_FIELDS.contains(&path)
        || KNOWN_FIELDS.contains(&path)
    {
        out.push(FieldError::not_supported(
            &at.at("fieldPath"),
            path,
            allowed,
        ));
    } else {
        out.push(unknown(format!(
            "error converting fieldPath: field label not supported: {path}"
        )));
    }
}

/// Checks a reference to a container's resources.
pub(super) fn resource_ref(at: &Cursor<'_>, in_volume: bool, out: &mut ErrorList) {
    let resource = at.text("resource");
    let huge =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && at.text("containerName").is_empty() {
        out.push(FieldError::required(&at.at("containerName"), ""));
    } else if resource.is_empty() {
        out.push(FieldError::required(&at.at("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        out.push(FieldError::not_supported(
            &at.at("resource"),
            resource,
            &RESOURCES,
        ));
    }
    let divisor = at.text("divisor");
    if matches!(divisor, "" | "0") {
        return;
    }
    let (allowed, of): (&[&str], &str) = match resource {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (&DIVISORS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (&DIVISORS, "local ephemeral storage")
        }
        _ if huge => (&DIVISORS, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor) {
        let values = if of == "cpu" {
            "1m and 1".to_owned()
        } else {
            DIVISORS.join(", ")
        };
        out.push(FieldError::invalid(
            &at.at("divisor"),
            resource,
            &format!("only divisor's values {values} are supported with the {of} resource"),
        ));
    }
}

/// Checks `envFrom` of a container.
pub(super) fn sources(container: &Cursor<'_>, out: &mut ErrorList) {
    for source in container.items("envFrom") {
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            validation::named(text::env_name, prefix, &source.at("prefix"), out);
        }
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let Some(reference) = source.get(name) else {
                continue;
            };
            count += 1;
            if reference.text("name").is_empty() {
                out.push(FieldError::required(&reference.at("name"), ""));
            } else {
                validation::named(
                    names::dns1123_subdomain,
                    reference.text("name"),
                    &reference.at("name"),
                    out,
                );
            }
        }
        let wrong = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        // The reference names the list, not the item.
        out.push(FieldError::invalid(&container.at("envFrom"), "", wrong));
    }
}
