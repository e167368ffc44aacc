//! Granting a pod other resources, and knowing when it has them.

use std::sync::Arc;

use evenkeel_runtime::ContainerState;
use jiff::Timestamp;

use super::Worker;
use crate::events::Kind;
use crate::pod::memory::Op;
use crate::pod::model::PodModel;
use crate::pod::resize::{self, Pending, Progress};
use crate::spec::resources::pod_resources;

impl Worker {
    /// Judges what the pod asks for beyond what it was granted.
    pub(super) fn consider_resize(&mut self) {
        self.finish_resize();
        let over = self.memory.termination.is_some() || self.model.phase_is_final();
        let asked = resize::asked(&self.told);
        if over || resize::all_same(&asked, &self.granted) {
            self.memory.resize.pending = None;
            return;
        }
        let now = self.now();
        let generation = self.told.metadata.generation;
        let pending = self.memory.resize.pending.as_ref();
        let judged = pending.filter(|it| it.generation == generation);
        if judged.is_some_and(|it| it.again.is_none_or(|at| at > now)) {
            return;
        }
        // What starts or changes now has been given its figures; its end brings us back here.
        let under_way = |op: &Op| matches!(op, Op::Container(_) | Op::Sandbox | Op::Resize);
        if self.memory.busy.iter().any(under_way) {
            return;
        }
        let capacity = self.context.capacity();
        let (uid, ledger) = (self.model.uid(), &self.context.admitted);
        match ledger.resize(uid, &self.told, &capacity) {
            Ok(()) => self.grant(asked),
            Err((reason, message)) => {
                let told =
                    pending.is_some_and(|it| it.generation == generation && it.reason == reason);
                if !told {
                    let about = if reason == "Infeasible" {
                        "ResizeInfeasible"
                    } else {
                        "ResizeDeferred"
                    };
                    let what = format!("Pod resize {reason}");
                    let text = resize::told(&self.told, &what, &message);
                    let recorder = &self.context.recorder;
                    recorder.pod(&self.model, Kind::Warning, about, text);
                }
                self.memory.resize.pending = Some(Pending {
                    reason,
                    message,
                    generation,
                    again: (reason == "Deferred").then(|| now + resize::AGAIN),
                });
            }
        }
    }

    fn grant(&mut self, asked: resize::Allocation) {
        let observed = self.context.view.observed(self.model.uid());
        let resize = &mut self.memory.resize;
        for (name, old) in &self.granted {
            let changes = asked.get(name).is_some_and(|new| !resize::same(old, new));
            let latest = observed
                .latest(name)
                .filter(|status| changes && status.state == ContainerState::Running);
            if let Some(latest) = latest {
                let has = || (latest.id.clone(), old.clone());
                resize.stale.entry(name.clone()).or_insert_with(has);
            }
        }
        let earlier = resize.progress.take();
        let whole = match &earlier {
            Some(earlier) if !earlier.limits_set => earlier.whole.clone(),
            _ => self.granted.get(resize::WHOLE).cloned(),
        };
        let before = earlier.map_or_else(|| pod_resources(&self.model), |it| it.before);
        resize.pending = None;
        resize.progress = Some(Progress {
            generation: self.told.metadata.generation,
            before,
            whole,
            ..Progress::default()
        });
        self.granted = asked;
        self.model = Arc::new(PodModel::new(Arc::clone(&self.told)));
        let text = resize::told(&self.told, "Pod resize started", "");
        let recorder = &self.context.recorder;
        recorder.pod(&self.model, Kind::Normal, "ResizeStarted", text);
    }

    /// Notes what containers have what was granted, and when all have.
    fn finish_resize(&mut self) {
        let resize = &mut self.memory.resize;
        let Some(progress) = &resize.progress else {
            return;
        };
        let observed = self.context.view.observed(self.model.uid());
        resize.stale.retain(|name, (id, _)| {
            let latest = observed.latest(name);
            latest.is_some_and(|it| it.id == *id && it.state == ContainerState::Running)
        });
        if progress.limits_set && resize.stale.is_empty() {
            resize.progress = None;
            let text = resize::told(&self.model.pod, "Pod resize completed", "");
            let recorder = &self.context.recorder;
            recorder.pod(&self.model, Kind::Normal, "ResizeCompleted", text);
        }
    }

    pub(super) fn take_resize(
        &mut self,
        ids: &[String],
        result: Result<(), String>,
        now: Timestamp,
    ) {
        let resize = &mut self.memory.resize;
        let Some(progress) = &mut resize.progress else {
            return;
        };
        match result {
            Ok(()) => {
                progress.limits_set = true;
                progress.error = None;
                resize.stale.retain(|_, (id, _)| !ids.contains(id));
            }
            Err(why) => {
                let known = progress
                    .error
                    .as_ref()
                    .is_some_and(|(text, _)| *text == why);
                if !known {
                    let text = resize::told(&self.model.pod, "Pod resize error", &why);
                    let recorder = &self.context.recorder;
                    recorder.pod(&self.model, Kind::Warning, "ResizeError", text);
                }
                progress.error = Some((why, now + resize::RETRY));
            }
        }
    }
}
