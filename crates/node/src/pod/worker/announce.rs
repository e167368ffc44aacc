//! Events about waits: each back-off is told of once.

use super::Worker;
use crate::events::Kind;
use crate::pod::memory::ImageState;
use crate::pod::observed::Observed;
use crate::pod::plan::Plan;

impl Worker {
    /// Tells once of each wait that a back-off brings.
    pub(super) fn announce(&mut self, observed: &Observed, plan: &Plan) {
        for (name, waiting) in &plan.waiting {
            let Some(container) = self.model.container(name) else {
                continue;
            };
            let (mark, kind, text) = match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let id = observed.latest(name).map(|status| status.id.clone());
                    let text = format!(
                        "Back-off restarting failed container {name} in pod {}",
                        self.model.full_name()
                    );
                    (id.unwrap_or_default(), Kind::Warning, text)
                }
                "ImagePullBackOff" => {
                    let known = self.memory.containers.get(name).map(|known| &known.image);
                    let (at, image) = match known {
                        Some(ImageState::Failed { at, image, .. }) => (at.to_string(), &**image),
                        _ => Default::default(),
                    };
                    (
                        at,
                        Kind::Normal,
                        format!("Back-off pulling image \"{image}\""),
                    )
                }
                _ => continue,
            };
            if self.announced.get(name) == Some(&mark) {
                continue;
            }
            self.announced.insert(name.clone(), mark);
            let recorder = &self.context.recorder;
            recorder.container(&self.model, container, kind, "BackOff", text);
            if waiting.reason == "ImagePullBackOff" {
                let text = "Error: ImagePullBackOff";
                recorder.container(&self.model, container, Kind::Warning, "Failed", text);
            }
        }
    }
}
