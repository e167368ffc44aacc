//! What `ComponentStatus` tells: which parts of the control plane run.
//!
//! The kind is from a time when each part was a program with a port to ask. Here the parts are
//! loops of a process: whoever runs one says so for as long as it does. With several servers, those
//! that do not lead say that they do not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The parts that there are, beside the store.
pub(crate) const PARTS: [&str; 2] = ["controller-manager", "scheduler"];

/// The parts that run in this process, and how often.
#[derive(Debug, Default, Clone)]
pub struct Components(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// A part that runs until this is dropped.
#[derive(Debug)]
pub struct Runs {
    name: &'static str,
    components: Components,
}

impl Components {
    /// Says that a part runs as long as the answer is kept.
    #[must_use]
    pub fn runs(&self, name: &'static str) -> Runs {
        *self.0.lock().entry(name).or_default() += 1;
        Runs {
            name,
            components: self.clone(),
        }
    }

    /// Does a part run in this process?
    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|times| *times > 0)
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        if let Some(times) = self.components.0.lock().get_mut(self.name) {
            *times = times.saturating_sub(1);
        }
    }
}
