//! Files that are read at start, and profiles that a pod names.

use evenkeel_node::eviction::thresholds::Thresholds;
use evenkeel_node::spec::dns::parse_resolv_conf;
use evenkeel_server::{Outside, fuzzing};

use super::text;
use crate::Shape;

fn read(input: &[u8], reader: impl Fn(&str) -> Result<(), String>) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    // Some name other files, and no device is to be read.
    if text.contains("/dev") || text.contains("/proc") {
        return Shape(0);
    }
    match reader(text) {
        Ok(()) => Shape(1),
        Err(wrong) => {
            assert!(!wrong.is_empty(), "somebody has to mend it");
            Shape::of_message(&wrong)
        }
    }
}

pub(super) fn audit_policy(input: &[u8]) -> Shape {
    read(input, fuzzing::audit_policy)
}

/// The two readers of kubeconfigs, and the addresses in them.
pub(super) fn kubeconfig(input: &[u8]) -> Shape {
    let readers = [fuzzing::kubeconfig, fuzzing::audit_webhook, fuzzing::url];
    Shape::of(readers.map(|reader| read(input, reader)))
}

pub(super) fn authentication(input: &[u8]) -> Shape {
    read(input, |text| {
        let read = Outside::default().with_authentication(text, "https://us");
        read.map(drop).map_err(|error| error.to_string())
    })
}

pub(super) fn authorization(input: &[u8]) -> Shape {
    read(input, |text| {
        let read = Outside::default().with_authorization(text);
        read.map(drop).map_err(|error| error.to_string())
    })
}

pub(super) fn encryption(input: &[u8]) -> Shape {
    read(input, |text| fuzzing::encryption(text).map(drop))
}

pub(super) fn scheduler(input: &[u8]) -> Shape {
    read(input, |text| {
        let read = evenkeel_scheduler::config::read(text);
        read.map(drop).map_err(|error| error.to_string())
    })
}

pub(super) fn static_pod(input: &[u8]) -> Shape {
    read(input, |text| {
        let pod = evenkeel_node::fuzzing::static_pod(text)?;
        assert_eq!(pod["spec"]["nodeName"], "n", "it is this node's");
        assert!(
            pod["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.ends_with("-n"))
        );
        Ok(())
    })
}

/// Every jump of a filter leads to an instruction, and the last one answers: the kernel takes no
/// other.
pub(super) fn seccomp(input: &[u8]) -> Shape {
    let program = match evenkeel_runtime::fuzzing::seccomp(input) {
        Ok(program) => program,
        Err(wrong) => return Shape::of_message(&wrong),
    };
    let length = program.len() / 8;
    assert!(length > 0 && program.len().is_multiple_of(8));
    for (at, one) in program.chunks_exact(8).enumerate() {
        let left = length - at - 1;
        let wide = u32::from_le_bytes([one[4], one[5], one[6], one[7]]);
        let reach = match one[0] & 7 {
            5 if one[0] & 0xf0 == 0 => usize::try_from(wide).unwrap_or(usize::MAX),
            5 => usize::from(one[2].max(one[3])),
            6 => continue,
            _ => 0,
        };
        assert!(
            reach < left,
            "instruction {at} of {length} leads {reach} on"
        );
    }
    Shape::of((0, length.ilog2()))
}

/// `resolv.conf`, and the thresholds of evictions.
pub(super) fn host_files(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let resolv = parse_resolv_conf(text);
    let words = |list: &[String]| {
        list.iter()
            .all(|word| !word.is_empty() && !word.contains('\n'))
    };
    assert!(words(&resolv.servers) && words(&resolv.searches) && words(&resolv.options));
    let counts = (
        resolv.servers.len().min(4),
        resolv.searches.len().min(4),
        resolv.options.len().min(4),
    );
    match text.parse::<Thresholds>() {
        Ok(thresholds) => Shape::of((counts, thresholds.iter().count().min(9))),
        Err(error) => Shape::of((counts, Shape::of_message(&error.to_string()))),
    }
}
