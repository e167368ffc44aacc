//! Validation of probes and lifecycle hooks.

use crate::field::{ErrorList, FieldError};
use crate::validation::{self, Cursor, text};

/// Checks a container's probes and lifecycle.
pub(super) fn all(container: &Cursor<'_>, grace: Option<i64>, out: &mut ErrorList) {
    if let Some(lifecycle) = container.get("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get(hook) {
                handler(
                    &hook,
                    &["exec", "httpGet", "tcpSocket", "sleep"],
                    grace,
                    out,
                );
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(found) = container.get(name) else {
            continue;
        };
        probe(&found, grace, out);
        if name == "readinessProbe" {
            if let Some(seconds) = found.integer("terminationGracePeriodSeconds") {
                out.push(FieldError::invalid(
                    &found.at("terminationGracePeriodSeconds"),
                    seconds,
                    "must not be set for readinessProbes",
                ));
            }
        } else if found.number("successThreshold") != 1 {
            out.push(FieldError::invalid(
                &found.at("successThreshold"),
                found.number("successThreshold"),
                "must be 1",
            ));
        }
    }
}

fn probe(at: &Cursor<'_>, grace: Option<i64>, out: &mut ErrorList) {
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], grace, out);
    for name in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        validation::nonnegative(at, name, out);
    }
    if let Some(seconds) = at
        .integer("terminationGracePeriodSeconds")
        .filter(|seconds| *seconds <= 0)
    {
        out.push(FieldError::invalid(
            &at.at("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
}

fn handler(at: &Cursor<'_>, kinds: &[&str], grace: Option<i64>, out: &mut ErrorList) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = at.get(kind) else {
            continue;
        };
        if found {
            out.push(FieldError::forbidden(
                &action.path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if action.list("command").is_empty() {
                    out.push(FieldError::required(&action.at("command"), ""));
                }
            }
            "httpGet" => http_get(&action, out),
            "sleep" => sleep(&action, grace, out),
            _ => validation::port_number_or_name(action.raw("port"), &action.at("port"), out),
        }
    }
    if !found {
        out.push(FieldError::required(
            &at.path,
            "must specify a handler type",
        ));
    }
}

fn http_get(action: &Cursor<'_>, out: &mut ErrorList) {
    validation::required(action, "path", out);
    validation::port_number_or_name(action.raw("port"), &action.at("port"), out);
    validation::one_of(action, "scheme", &["HTTP", "HTTPS"], out);
    for header in action.items("httpHeaders") {
        validation::named(
            text::header_name,
            header.text("name"),
            &action.at("httpHeaders"),
            out,
        );
    }
}

fn sleep(action: &Cursor<'_>, grace: Option<i64>, out: &mut ErrorList) {
    let seconds = action.number("seconds");
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        out.push(FieldError::invalid(
            &action.path,
            seconds,
            &format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
        ));
    }
}
