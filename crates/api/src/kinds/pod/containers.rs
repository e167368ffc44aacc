//! Validation of containers, init containers and ephemeral containers.

use std::collections::BTreeSet;

use super::limits::{self, Of};
use super::volumes::{self, Volumes};
use super::{env, probes, security};
use crate::field::{ErrorList, FieldError};
use crate::validation::{self, Cursor, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const FORBIDDEN_FOR_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// What the checks of a container need to know of its pod.
pub(super) struct Context<'a> {
    pub(super) volumes: &'a Volumes<'a>,
    pub(super) claims: &'a BTreeSet<&'a str>,
    pub(super) grace: Option<i64>,
    pub(super) restart_policy: &'a str,
    pub(super) host_users: bool,
}

/// The containers of a pod of every sort, in the order in which the reference visits them.
pub(super) fn all<'a>(spec: &Cursor<'a>) -> impl Iterator<Item = Cursor<'a>> + use<'a> {
    let spec = spec.clone();
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| spec.items(list))
}

/// Checks `spec.containers`.
pub(super) fn regular(spec: &Cursor<'_>, context: &Context<'_>, out: &mut ErrorList) {
    if spec.list("containers").is_empty() {
        out.push(FieldError::required(&spec.at("containers"), ""));
        return;
    }
    let mut names = BTreeSet::new();
    for container in spec.items("containers") {
        common(&container, context, out);
        if !names.insert(container.text("name")) {
            out.push(FieldError::duplicate(
                &container.at("name"),
                container.text("name"),
            ));
        }
        probes::all(&container, context.grace, out);
        restarts(&container, out);
    }
    host_ports(spec.items("containers"), out);
}

/// Checks a container's own restart policy and its rules (KEP-5307).
fn restarts(container: &Cursor<'_>, out: &mut ErrorList) {
    const MAX_RULES: usize = 20;
    const MAX_CODES: usize = 255;
    if container.has("restartPolicy") {
        let allowed = ["Always", "Never", "OnFailure"];
        validation::one_of(container, "restartPolicy", &allowed, out);
    } else if !container.list("restartPolicyRules").is_empty() {
        out.push(FieldError::required(
            &container.at("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        ));
    }
    let count = container.list("restartPolicyRules").len();
    if count > MAX_RULES {
        let path = container.at("restartPolicyRules");
        out.push(FieldError::too_many(&path, count, MAX_RULES));
    }
    for rule in container.items("restartPolicyRules") {
        let actions = ["Restart", "RestartAllContainers"];
        let action = rule.text("action");
        if !actions.contains(&action) {
            out.push(FieldError::not_supported(
                &rule.at("action"),
                action,
                &actions,
            ));
        }
        let Some(codes) = rule.get("exitCodes") else {
            out.push(FieldError::required(
                &rule.at("exitCodes"),
                "must be specified",
            ));
            continue;
        };
        let operators = ["In", "NotIn"];
        let operator = codes.text("operator");
        if !operators.contains(&operator) {
            let path = codes.at("operator");
            out.push(FieldError::not_supported(&path, operator, &operators));
        }
        let count = codes.list("values").len();
        if count > MAX_CODES {
            out.push(FieldError::too_many(&codes.at("values"), count, MAX_CODES));
        }
    }
}

/// Checks `spec.initContainers`.
pub(super) fn init(spec: &Cursor<'_>, context: &Context<'_>, out: &mut ErrorList) {
    let mut names: BTreeSet<&str> = spec
        .items("containers")
        .map(|container| container.text("name"))
        .collect();
    for container in spec.items("initContainers") {
        common(&container, context, out);
        restarts(&container, out);
        let name = container.text("name");
        if names.contains(name) {
            out.push(FieldError::duplicate(&container.at("name"), name));
        } else if !name.is_empty() {
            names.insert(name);
        }
        // Init containers run one at a time, so only ports within one can collide.
        host_ports(std::iter::once(container.clone()), out);
        if container.text("restartPolicy") == "Always" {
            probes::all(&container, context.grace, out);
            continue;
        }
        for name in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if container.has(name) {
                out.push(FieldError::forbidden(&container.at(name), NOT_FOR_INIT));
            }
        }
        for policy in container.items("resizePolicy") {
            let restart = policy.text("restartPolicy");
            if restart == "RestartContainer" {
                out.push(FieldError::invalid(
                    &policy.at("restartPolicy"),
                    restart,
                    "must not be set to 'RestartContainer' for non-sidecar initContainers",
                ));
            }
        }
    }
}

/// Checks `spec.ephemeralContainers`.
pub(super) fn ephemeral(spec: &Cursor<'_>, context: &Context<'_>, out: &mut ErrorList) {
    let others: BTreeSet<&str> = spec
        .items("containers")
        .chain(spec.items("initContainers"))
        .map(|container| container.text("name"))
        .collect();
    let mut names = others.clone();
    for container in spec.items("ephemeralContainers") {
        common(&container, context, out);
        trimmed_image(&container, out);
        let name = container.text("name");
        if !names.insert(name) {
            out.push(FieldError::duplicate(&container.at("name"), name));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            out.push(FieldError::not_found(
                &container.at("targetContainerName"),
                target,
            ));
        }
        for name in FORBIDDEN_FOR_EPHEMERAL {
            let set = match container.raw(name) {
                serde_json::Value::Null => false,
                serde_json::Value::Object(fields) if name == "resources" => !fields.is_empty(),
                _ => true,
            };
            if set {
                out.push(FieldError::forbidden(
                    &container.at(name),
                    NOT_FOR_EPHEMERAL,
                ));
            }
        }
        for mount in container.items("volumeMounts") {
            for name in ["subPath", "subPathExpr"] {
                if !mount.text(name).is_empty() {
                    out.push(FieldError::forbidden(&mount.at(name), NOT_FOR_EPHEMERAL));
                }
            }
        }
    }
}

/// Pods, unlike templates, may not have blanks around an image.
pub(super) fn trimmed_image(container: &Cursor<'_>, out: &mut ErrorList) {
    let image = container.text("image");
    if image.trim() != image {
        out.push(FieldError::invalid(
            &container.at("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
}

fn common(container: &Cursor<'_>, context: &Context<'_>, out: &mut ErrorList) {
    let name = container.text("name");
    if name.is_empty() {
        out.push(FieldError::required(&container.at("name"), ""));
    } else {
        validation::dns_label(name, &container.at("name"), out);
    }
    validation::required(container, "image", out);
    validation::required_one_of(
        container,
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
        out,
    );
    ports(container, out);
    env::variables(container, out);
    env::sources(container, out);
    mounts(container, context.volumes, out);
    devices(container, context.volumes, out);
    validation::required_one_of(
        container,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        out,
    );
    limits::requirements(
        &container.child("resources"),
        Of::Container,
        context.claims,
        out,
    );
    resize_policy(container, context.restart_policy, out);
    security::of_container(container, context.host_users, out);
}

fn ports(container: &Cursor<'_>, out: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for port in container.items("ports") {
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = text::port_name(name);
            if !wrong.is_empty() {
                validation::named(text::port_name, name, &port.at("name"), out);
            } else if !names.insert(name) {
                out.push(FieldError::duplicate(&port.at("name"), name));
            }
        }
        if port.number("containerPort") == 0 {
            out.push(FieldError::required(&port.at("containerPort"), ""));
        } else {
            validation::port_number(port.number("containerPort"), &port.at("containerPort"), out);
        }
        if port.number("hostPort") != 0 {
            validation::port_number(port.number("hostPort"), &port.at("hostPort"), out);
        }
        validation::required_one_of(&port, "protocol", &PROTOCOLS, out);
    }
}

fn host_ports<'a>(containers: impl Iterator<Item = Cursor<'a>>, out: &mut ErrorList) {
    let mut taken = BTreeSet::new();
    for container in containers {
        for port in container.items("ports") {
            let number = port.number("hostPort");
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if taken.contains(&key) {
                out.push(FieldError::duplicate(&port.at("hostPort"), key));
            } else {
                taken.insert(key);
            }
        }
    }
}

fn mounts(container: &Cursor<'_>, volumes: &Volumes<'_>, out: &mut ErrorList) {
    let mut paths = BTreeSet::new();
    let list = container.at("volumeMounts");
    let devices: Vec<Cursor<'_>> = container.items("volumeDevices").collect();
    for mount in container.items("volumeMounts") {
        let (name, path) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            out.push(FieldError::required(&mount.at("name"), ""));
        }
        if !volumes.contains_key(name) {
            out.push(FieldError::not_found(&mount.at("name"), name));
        }
        if path.is_empty() {
            out.push(FieldError::required(&mount.at("mountPath"), ""));
        }
        let mut wrong = |field: &str, value: &str, detail: &str| {
            out.push(FieldError::invalid(&mount.at(field), value, detail));
        };
        if !paths.insert(path) {
            wrong("mountPath", path, "must be unique");
        }
        if devices.iter().any(|device| device.text("name") == name) {
            wrong("name", name, "must not already exist in volumeDevices");
        }
        if devices
            .iter()
            .any(|device| device.text("devicePath") == path)
        {
            wrong(
                "mountPath",
                path,
                "must not already exist as a path in volumeDevices",
            );
        }
        let (sub, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        // As in the reference, these two name the list and not the item.
        if !sub.is_empty() {
            volumes::descending_path(sub, &list.child("subPath"), out);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                out.push(FieldError::invalid(
                    &mount.at("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                ));
            }
            volumes::descending_path(expression, &list.child("subPathExpr"), out);
        }
        propagation(container, &mount, out);
    }
}

fn propagation(container: &Cursor<'_>, mount: &Cursor<'_>, out: &mut ErrorList) {
    let list = container.at("volumeMounts");
    let propagation = mount.text("mountPropagation");
    let modes = ["Bidirectional", "HostToContainer", "None"];
    if mount.has("mountPropagation") && !modes.contains(&propagation) {
        out.push(FieldError::not_supported(
            &list.child("mountPropagation"),
            propagation,
            &modes,
        ));
    }
    if propagation == "Bidirectional" && !container.child("securityContext").is_true("privileged") {
        out.push(FieldError::forbidden(
            &list.child("mountPropagation"),
            "Bidirectional mount propagation is available only to privileged containers",
        ));
    }
    let path = list.child("recursiveReadOnly");
    match mount.text("recursiveReadOnly") {
        "" if !mount.has("recursiveReadOnly") => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.is_true("readOnly") {
                out.push(FieldError::forbidden(
                    &path,
                    "may only be specified when readOnly is true",
                ));
            }
            if !matches!(propagation, "" | "None") {
                out.push(FieldError::forbidden(
                    &path,
                    "may only be specified when mountPropagation is None or not specified",
                ));
            }
        }
        other => out.push(FieldError::not_supported(
            &path,
            other,
            &["Disabled", "Enabled", "IfPossible"],
        )),
    }
}

fn devices(container: &Cursor<'_>, volumes: &Volumes<'_>, out: &mut ErrorList) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mounts: Vec<Cursor<'_>> = container.items("volumeMounts").collect();
    for device in container.items("volumeDevices") {
        let (name, path) = (device.text("name"), device.text("devicePath"));
        let mut wrong = |field: &str, value: &str, detail: &str| {
            out.push(FieldError::invalid(&device.at(field), value, detail));
        };
        if names.contains(name) {
            wrong("name", name, "must be unique");
        }
        if volumes
            .get(name)
            .is_some_and(|volume| !volume.has("persistentVolumeClaim") && !volume.has("ephemeral"))
        {
            wrong(
                "name",
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for \
                 block mode",
            );
        }
        if paths.contains(path) {
            wrong("devicePath", path, "must be unique");
        }
        if text::has_back_steps(path) {
            wrong("devicePath", path, "can not contain backsteps ('..')");
        } else {
            paths.insert(path);
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            wrong("name", name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == path) {
            wrong(
                "devicePath",
                path,
                "must not already exist as a path in volumeMounts",
            );
        }
        if name.is_empty() {
            out.push(FieldError::required(&device.at("name"), ""));
        } else {
            names.insert(name);
        }
        if !volumes.contains_key(name) {
            out.push(FieldError::not_found(&device.at("name"), name));
        }
        if path.is_empty() {
            out.push(FieldError::required(&device.at("devicePath"), ""));
        }
    }
}

fn resize_policy(container: &Cursor<'_>, restart_policy: &str, out: &mut ErrorList) {
    let list = container.at("resizePolicy");
    let mut seen = BTreeSet::new();
    for policy in container.items("resizePolicy") {
        let name = policy.text("resourceName");
        if !seen.insert(name) {
            out.push(FieldError::duplicate(&policy.path, name));
        }
        let restart = policy.text("restartPolicy");
        for (value, allowed) in [
            (name, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if value.is_empty() {
                out.push(FieldError::required(&list, ""));
            } else if !allowed.contains(&value) {
                out.push(FieldError::not_supported(&list, value, &allowed));
            }
        }
        if restart_policy == "Never" && restart != "NotRequired" {
            out.push(FieldError::invalid(
                &list,
                restart,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            ));
        }
    }
}
