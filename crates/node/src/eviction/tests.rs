//! The pure halves: what is over its limit, and who goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::disk;
use super::pressure::{Candidate, Pressure, Signals, message, ranked};
use super::storage::{DiskUse, limited, verdict};
use super::thresholds::{DEFAULT, Signal, Thresholds};
use crate::pod::model::PodModel;

fn model(name: &str, spec: Value) -> PodModel {
    let pod = json!({ "metadata": { "name": name, "uid": name }, "spec": spec });
    PodModel::new(Arc::new(serde_json::from_value(pod).unwrap()))
}

fn used(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> DiskUse {
    let map = |list: &[(&str, u64)]| list.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
    DiskUse {
        volumes: map(volumes),
        containers: map(containers),
    }
}

#[test]
fn a_pod_over_a_limit_of_its_own_goes_in_kubelets_words() {
    let limits = |text: &str| json!({ "limits": { "ephemeral-storage": text } });
    let pod = model(
        "p",
        json!({
            "containers": [
                { "name": "a", "resources": limits("1Mi") },
                { "name": "b", "resources": limits("2Mi") },
            ],
            "volumes": [
                { "name": "scratch", "emptyDir": { "sizeLimit": "4Ki" } },
                { "name": "ram", "emptyDir": { "sizeLimit": "4Ki", "medium": "Memory" } },
            ],
        }),
    );
    assert!(limited(&pod));
    assert_eq!(
        verdict(&pod, &used(&[("scratch", 4096)], &[("a", 1 << 20)])),
        None
    );
    assert_eq!(
        verdict(&pod, &used(&[("scratch", 4097)], &[])).unwrap(),
        "Usage of EmptyDir volume \"scratch\" exceeds the limit \"4Ki\". "
    );
    assert_eq!(
        verdict(&pod, &used(&[], &[("a", (1 << 20) + 1)])).unwrap(),
        "Container a exceeded its local ephemeral storage limit \"1Mi\". "
    );
    assert_eq!(
        verdict(
            &pod,
            &used(&[("scratch", 1)], &[("a", 1 << 20), ("b", 2 << 20)])
        )
        .unwrap(),
        "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. "
    );
    assert!(!limited(&model(
        "q",
        json!({ "containers": [{ "name": "a" }] })
    )));
}

#[test]
fn thresholds_are_read_as_kubelet_writes_them() {
    let ours: Thresholds = DEFAULT.parse().unwrap();
    assert_eq!(ours.iter().count(), 4);
    let kubelets =
        "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%";
    let all: Thresholds = kubelets.parse().unwrap();
    assert!("".parse::<Thresholds>().unwrap().is_empty());
    for wrong in [
        "memory.available",
        "memory.available<x",
        "nodefs.available<101%",
        "pid.available<5",
    ] {
        assert!(wrong.parse::<Thresholds>().is_err(), "{wrong}");
    }
    let signals = Signals {
        memory: Some((99 << 20, 1 << 30)),
        disk: Some((12, 100)),
        inodes: Some((6, 100)),
    };
    let met: Vec<Signal> = all
        .iter()
        .filter(|t| t.is_met(&signals))
        .map(|t| t.signal)
        .collect();
    assert_eq!(met, [Signal::MemoryAvailable, Signal::ImageFsAvailable]);
}

#[test]
fn a_condition_outlives_its_signal_for_five_minutes() {
    let all: Thresholds = "memory.available<100Mi".parse().unwrap();
    let at = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap();
    let mut pressure = Pressure::default();
    let low = Signals {
        memory: Some((1, 2)),
        ..Signals::default()
    };
    assert_eq!(pressure.observe(&all, &low, at(0)).len(), 1);
    let high = Signals {
        memory: Some((1 << 30, 1 << 31)),
        ..Signals::default()
    };
    assert!(pressure.observe(&all, &high, at(10)).is_empty());
    assert!(pressure.memory(at(299)) && !pressure.disk(at(299)));
    assert!(!pressure.memory(at(300)));
}

#[test]
fn who_is_above_the_request_goes_before_who_is_not() {
    let pod = |name: &str, priority: i32, request: &str, used: u64| {
        let model = model(
            name,
            json!({ "priority": priority, "containers": [
                { "name": "c", "resources": { "requests": { "memory": request } } } ] }),
        );
        Candidate::new(&model, BTreeMap::from([("c".to_owned(), used)]), 0, false)
    };
    let order = ranked(
        Signal::MemoryAvailable,
        vec![
            pod("below", 0, "1Gi", 1 << 29),
            pod("important", 100, "1Mi", 1 << 30),
            pod("little", 0, "1Mi", 3 << 20),
            pod("much", 0, "1Mi", 1 << 28),
        ],
    );
    let names: Vec<&str> = order.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(names, ["much", "little", "important", "below"]);
    let threshold: Thresholds = "memory.available<100Mi".parse().unwrap();
    let signals = Signals {
        memory: Some((50 << 20, 1 << 30)),
        ..Signals::default()
    };
    assert_eq!(
        message(threshold.iter().next().unwrap(), &signals, &order[0]),
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
         Container c was using 256Mi, request is 1Mi, has larger consumption of memory. "
    );
}

#[test]
fn a_file_with_two_names_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let empty = disk::usage(dir.path());
    std::fs::write(dir.path().join("a"), vec![1; 64 << 10]).unwrap();
    std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let full = disk::usage(dir.path()) - empty;
    assert!((64 << 10..128 << 10).contains(&full), "{full}");
    assert_eq!(disk::usage(&dir.path().join("missing")), 0);
}
