//! Validation of pods and of the pod specs in templates, in the order of the reference's
//! `ValidatePodSpec`.

use std::collections::BTreeSet;

use super::containers::{self, Context};
use super::limits::{self, Of};
use super::{env, host, os, scheduling, security, volumes};
use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::validation::{self, Cursor, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

/// What is wrong with a pod, beyond its metadata.
pub(super) fn pod(object: &serde_json::Value, out: &mut ErrorList) {
    let root = Cursor::root(object);
    let meta = root.child("metadata");
    let spec = root.child("spec");
    annotations(&meta, &spec, out);
    self::spec(&spec, Some(meta.text("name")), out);
    if spec.text("serviceAccountName").is_empty() {
        for volume in spec.items("volumes") {
            for source in volume.child("projected").items("sources") {
                if source.has("serviceAccountToken") {
                    out.push(FieldError::forbidden(
                        &source.at("serviceAccountToken"),
                        "must not be specified when serviceAccountName is not set",
                    ));
                }
            }
        }
    }
    for container in spec.items("containers").chain(spec.items("initContainers")) {
        containers::trimmed_image(&container, out);
    }
    // A resource version tells an update; these hold for new pods only.
    if meta.text("resourceVersion").is_empty() {
        if !spec.list("ephemeralContainers").is_empty() {
            out.push(FieldError::forbidden(
                &spec.at("ephemeralContainers"),
                "cannot be set on create",
            ));
        }
        if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
            out.push(FieldError::forbidden(
                &spec.at("nodeName"),
                "cannot be set until all schedulingGates have been cleared",
            ));
        }
    }
}

/// What is wrong with a pod template.
pub fn template(at: &Cursor<'_>, out: &mut ErrorList) {
    let meta = at.child("metadata");
    let spec = at.child("spec");
    // The reference names labels and annotations without `metadata`.
    validation::labels(meta.raw("labels"), &at.at("labels"), out);
    validation::annotations(meta.raw("annotations"), &at.at("annotations"), out);
    self::spec(&spec, None, out);
    if !spec.list("ephemeralContainers").is_empty() {
        out.push(FieldError::forbidden(
            &spec.at("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

fn annotations(meta: &Cursor<'_>, spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = meta.child("annotations");
    if at.has(MIRROR) && spec.text("nodeName").is_empty() {
        out.push(FieldError::invalid(
            &at.path.key(MIRROR),
            at.text(MIRROR),
            "must set spec.nodeName if mirror pod annotation is set",
        ));
    }
    if at.has(DELETION_COST) {
        let cost = at.text(DELETION_COST);
        // Neither a plus sign nor leading zeros, as in the reference.
        let digits = cost.strip_prefix('-').unwrap_or(cost);
        let plain = digits == "0" || !digits.starts_with(['0', '+']);
        if cost.parse::<i32>().is_err() || !plain {
            out.push(FieldError::invalid(
                &at.path.key(DELETION_COST),
                cost,
                "must be a 32bit integer",
            ));
        }
    }
}

/// What is wrong with a pod spec. The pod's name is known outside of templates.
fn spec(spec: &Cursor<'_>, pod_name: Option<&str>, out: &mut ErrorList) {
    let grace = spec.integer("terminationGracePeriodSeconds");
    let volumes = volumes::validate(spec, pod_name, out);
    let claims: BTreeSet<&str> = spec
        .items("resourceClaims")
        .map(|claim| claim.text("name"))
        .filter(|name| !name.is_empty())
        .collect();
    resource_claims(spec, out);
    let context = Context {
        volumes: &volumes,
        claims: &claims,
        grace,
        restart_policy: spec.text("restartPolicy"),
        host_users: spec.flag("hostUsers").unwrap_or(true),
    };
    containers::regular(spec, &context, out);
    containers::init(spec, &context, out);
    containers::ephemeral(spec, &context, out);
    limits::pod_level(spec, &claims, out);
    host::network(spec, pod_name.is_some(), out);
    validation::required_one_of(spec, "restartPolicy", &RESTART_POLICIES, out);
    validation::required_one_of(spec, "dnsPolicy", &DNS_POLICIES, out);
    validation::labels(spec.raw("nodeSelector"), &spec.at("nodeSelector"), out);
    security::of_pod(spec, out);
    scheduling::affinity(spec, out);
    dns(spec, out);
    for gate in spec.items("readinessGates") {
        validation::qualified_name(gate.text("conditionType"), &gate.at("conditionType"), out);
    }
    scheduling_gates(spec, out);
    scheduling::spread(spec, out);
    host::processes(spec, out);
    host::users(spec, out);
    host::name(spec, out);
    named_fields(spec, out);
    scheduling::tolerations(spec, out);
    host_aliases(spec, out);
    optional_fields(spec, &claims, out);
    scheduling_group(spec, out);
    env::file_volumes(spec, out);
}

fn named_fields(spec: &Cursor<'_>, out: &mut ErrorList) {
    let rules: [(&str, names::NameRule); 4] = [
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ];
    for (name, rule) in rules {
        if name == "hostname" {
            deadline(spec, out);
        }
        let value = spec.text(name);
        if !value.is_empty() {
            validation::named(rule, value, &spec.at(name), out);
        }
    }
}

fn deadline(spec: &Cursor<'_>, out: &mut ErrorList) {
    let limit = i64::from(i32::MAX);
    if let Some(seconds) = spec
        .integer("activeDeadlineSeconds")
        .filter(|seconds| !(1..=limit).contains(seconds))
    {
        out.push(FieldError::invalid(
            &spec.at("activeDeadlineSeconds"),
            seconds,
            &text::inclusive_range(1, limit),
        ));
    }
}

fn optional_fields(spec: &Cursor<'_>, claims: &BTreeSet<&str>, out: &mut ErrorList) {
    for name in ["priorityClassName", "runtimeClassName"] {
        let set = match name {
            "runtimeClassName" => spec.has(name),
            _ => !spec.text(name).is_empty(),
        };
        if set {
            validation::dns_subdomain(spec.text(name), &spec.at(name), out);
        }
    }
    if spec.has("preemptionPolicy") {
        validation::required_one_of(
            spec,
            "preemptionPolicy",
            &["PreemptLowerPriority", "Never"],
            out,
        );
    }
    if let Some(overhead) = spec.get("overhead") {
        // The reference checks it as the limits of a container.
        let limits = serde_json::json!({"limits": overhead.value});
        let at = Cursor::new(&limits, overhead.path);
        limits::requirements(&at, Of::Container, claims, out);
    }
    if let Some(os) = spec.get("os") {
        match os.text("name") {
            "" => out.push(FieldError::required(&os.at("name"), "")),
            "linux" => os::linux(spec, out),
            "windows" => os::windows(spec, out),
            // The reference names the whole here.
            other => out.push(FieldError::not_supported(
                &os.path,
                other,
                &["linux", "windows"],
            )),
        }
    }
}

fn resource_claims(spec: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for claim in spec.items("resourceClaims") {
        let name = claim.text("name");
        if name.is_empty() {
            out.push(FieldError::required(&claim.at("name"), ""));
        } else if !seen.insert(name) {
            out.push(FieldError::duplicate(&claim.at("name"), name));
        } else {
            validation::dns_label(name, &claim.at("name"), out);
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let wrong = match sources.iter().filter(|name| claim.has(name)).count() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            2 => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            _ => "",
        };
        if !wrong.is_empty() {
            // The reference shows Go's names of the fields.
            let shown = format!(
                "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
                serde_json::Value::from(name),
                claim.raw(sources[0]),
                claim.raw(sources[1])
            );
            out.push(FieldError::invalid_shown(&claim.path, &shown, wrong));
        }
        for name in sources.into_iter().filter(|name| claim.has(name)) {
            validation::dns_subdomain(claim.text(name), &claim.at(name), out);
        }
    }
}

fn dns(spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = spec.child("dnsConfig");
    let servers = at.list("nameservers").len();
    if spec.text("dnsPolicy") == "None" {
        if at.value.is_null() {
            out.push(FieldError::required(
                &at.path,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
            return;
        }
        if servers == 0 {
            out.push(FieldError::required(
                &at.at("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ));
            return;
        }
    }
    let mut limit = |name: &str, exceeded: bool, detail: &str| {
        if exceeded {
            out.push(FieldError::invalid(
                &at.at(name),
                at.raw(name).clone(),
                detail,
            ));
        }
    };
    limit(
        "nameservers",
        servers > 3,
        "must not have more than 3 nameservers",
    );
    let searches: Vec<&str> = at.texts("searches").collect();
    limit(
        "searches",
        searches.len() > 32,
        "must not have more than 32 search paths",
    );
    limit(
        "searches",
        searches.join(" ").len() > 2048,
        "must not have more than 2048 characters (including spaces) in the search list",
    );
    for server in at.items("nameservers") {
        validation::legacy_ip(server.value.as_str().unwrap_or_default(), &server.path, out);
    }
    for search in at.items("searches") {
        let domain = search.value.as_str().unwrap_or_default();
        if domain != "." {
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            validation::named(text::subdomain_with_underscore, domain, &search.path, out);
        }
    }
    for option in at.items("options") {
        if option.text("name").is_empty() {
            out.push(FieldError::required(&option.path, "must not be empty"));
        }
    }
}

fn scheduling_gates(spec: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for gate in spec.items("schedulingGates") {
        validation::qualified_name(gate.text("name"), &gate.path, out);
        if !seen.insert(gate.text("name")) {
            out.push(FieldError::duplicate(&gate.path, gate.text("name")));
        }
    }
}

fn scheduling_group(spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(group) = spec.get("schedulingGroup") else {
        return;
    };
    let path = group.at("podGroupName");
    match group.get("podGroupName") {
        None => out.push(FieldError::invalid(
            &path,
            serde_json::Value::Null,
            "must specify one of: `podGroupName`",
        )),
        Some(_) => validation::dns_subdomain(group.text("podGroupName"), &path, out),
    }
}

fn host_aliases(spec: &Cursor<'_>, out: &mut ErrorList) {
    for alias in spec.items("hostAliases") {
        validation::legacy_ip(alias.text("ip"), &alias.at("ip"), out);
        for host in alias.items("hostnames") {
            validation::dns_subdomain(host.value.as_str().unwrap_or_default(), &host.path, out);
        }
    }
}
