//! What is accepted in a pod spec and yet probably a mistake.

use crate::field::quoted;
use crate::validation::Cursor;

/// Warnings about a pod spec, worded as the reference words them.
#[must_use]
pub fn of_spec(spec: &Cursor<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for list in ["containers", "initContainers"] {
        for container in spec.items(list) {
            hidden_variables(&container, &mut out);
            repeated_ports(&container, &mut out);
        }
    }
    if spec.number("terminationGracePeriodSeconds") < 0 {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1.",
            spec.at("terminationGracePeriodSeconds")
        ));
    }
    out
}

/// A variable that is defined twice: the later definition counts.
fn hidden_variables(container: &Cursor<'_>, out: &mut Vec<String>) {
    let variables: Vec<Cursor<'_>> = container.items("env").collect();
    for (index, variable) in variables.iter().enumerate() {
        let name = variable.text("name");
        if variables[..index]
            .iter()
            .any(|earlier| earlier.text("name") == name)
        {
            out.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                variable.path,
                quoted(name)
            ));
        }
    }
}

fn repeated_ports(container: &Cursor<'_>, out: &mut Vec<String>) {
    let ports: Vec<Cursor<'_>> = container.items("ports").collect();
    let key = |port: &Cursor<'_>| {
        ["containerPort", "protocol", "hostPort", "hostIP"].map(|name| port.raw(name).clone())
    };
    for (index, port) in ports.iter().enumerate() {
        if let Some(earlier) = ports[..index]
            .iter()
            .find(|earlier| key(earlier) == key(port))
        {
            out.push(format!(
                "{}: duplicate port definition with {}",
                port.path, earlier.path
            ));
        }
    }
}
