//! The phase of a pod, from the states of its containers: kubelet's `getPhase`. Pure.

use k8s_openapi::api::core::v1::ContainerStatus;

use crate::pod::model::{PodModel, Role};

#[derive(Default)]
struct Tally {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
    /// Of those that stopped: will be started again.
    again: usize,
}

/// The phase, but for what the agent knows of the pod's end.
pub(super) fn phase(
    model: &PodModel,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    terminal: bool,
    initialized: bool,
) -> &'static str {
    let mut pending_init = 0;
    let mut failed_init = 0;
    let mut failed_for_good = false;
    let mut pending_sidecars = 0;
    let mut tally = Tally::default();
    for (container, status) in model.with_role(&[Role::Init, Role::Sidecar]).zip(init) {
        let state = status.state.clone().unwrap_or_default();
        let last_end = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let mut failure = |exit_code: i32| {
            failed_init += 1;
            failed_for_good |= !container.restarts_after(exit_code, model.restart);
        };
        if container.role == Role::Sidecar {
            if state.running.is_some() {
                tally.running += 1;
                pending_sidecars += usize::from(status.started != Some(true));
            } else if state.waiting.is_some() && last_end.is_none() {
                pending_sidecars += 1;
                tally.waiting += 1;
            }
        } else if let Some(end) = &state.terminated {
            if end.exit_code != 0 {
                failure(end.exit_code);
            }
        } else if state.waiting.is_some()
            && let Some(end) = last_end
        {
            if end.exit_code == 0 {
                pending_init += 1;
            } else {
                failure(end.exit_code);
            }
        } else {
            pending_init += 1;
        }
    }
    for (container, status) in model.with_role(&[Role::App]).zip(apps) {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            tally.running += 1;
        } else if let Some(end) = &state.terminated {
            tally.stopped += 1;
            tally.succeeded += usize::from(end.exit_code == 0);
            let again = container.restarts_after(end.exit_code, model.restart);
            tally.again += usize::from(again);
        } else if state.waiting.is_some() {
            let ran = status
                .last_state
                .as_ref()
                .is_some_and(|last| last.terminated.is_some());
            if ran {
                tally.stopped += 1;
                tally.again += 1;
            } else {
                tally.waiting += 1;
            }
        } else {
            tally.unknown += 1;
        }
    }
    if failed_for_good {
        return "Failed";
    }
    let sidecars_pending = pending_sidecars > 0 && !initialized;
    if pending_init > 0 || failed_init > 0 || sidecars_pending || tally.waiting > 0 {
        return "Pending";
    }
    if tally.unknown > 0 {
        return "Pending";
    }
    if tally.stopped > 0 && (tally.running == 0 || terminal) {
        if tally.again > 0 && !terminal {
            return "Running";
        }
        return if tally.stopped == tally.succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if tally.running > 0 {
        "Running"
    } else {
        "Pending"
    }
}
