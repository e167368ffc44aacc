//! Decides which nodes a volume is attached to and detached from: the reference's
//! `attachdetach` reconciler for one volume, without its memory.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// So long a node that is not ready may keep a volume that nobody there wants any more.
pub const MOST_WAIT: SignedDuration = SignedDuration::from_mins(6);
/// So long a driver may take before its silence is told, and told again.
pub const SILENCE: SignedDuration = SignedDuration::from_mins(2);

/// The volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// The persistent volume's name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// The driver's handle.
    pub handle: String,
    /// It may be attached to one node at a time.
    pub exclusive: bool,
    /// The driver wants it attached.
    pub attaches: bool,
}

/// A pod that uses the volume: namespace and name.
pub type PodName = (String, String);

/// A node that wants the volume, or has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub node: String,
    /// Pods there that want it; only of nodes that leave attaching to this loop.
    pub pods: Vec<PodName>,
    /// The attachment, if there is one.
    pub attachment: Option<Attachment>,
    /// There is such a node.
    pub exists: bool,
    /// It is ready.
    pub ready: bool,
    /// Somebody says that it is off (`node.kubernetes.io/out-of-service`).
    pub out_of_service: bool,
    /// It says that it uses the volume.
    pub in_use: bool,
    /// Its status says that the volume is attached.
    pub shown: bool,
    /// Since when nobody there wants the volume, as far as is remembered.
    pub unwanted_since: Option<Timestamp>,
}

/// An attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The driver has done it.
    pub attached: bool,
    /// The driver's last error.
    pub error: Option<String>,
    /// It is being detached.
    pub going: bool,
    /// When it was asked for.
    pub created: Option<Timestamp>,
}

/// Something to do about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for an attachment.
    Attach,
    /// Say in the node's status that the volume is there, and to the pods.
    Show,
    /// Say in the node's status that the volume is not to be used.
    Hide,
    /// Let it go: out of the node's status first; then, if the node still says that it does not
    /// use it, the attachment is deleted.
    Detach {
        /// Whatever the node says.
        forced: bool,
    },
    /// Tell the pods a warning, `FailedAttachVolume`.
    Tell(Vec<(PodName, String)>),
}

/// What to do, and when to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// By node.
    pub actions: Vec<(String, Action)>,
    /// Nodes whose volume nobody wants, and that have to do something first.
    pub unwanted: Vec<String>,
    /// Look again then, whatever happens.
    pub again: Option<Duration>,
}

impl Plan {
    fn look_in(&mut self, wait: SignedDuration) {
        let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO) + Duration::from_secs(1);
        self.again = Some(self.again.map_or(wait, |other| other.min(wait)));
    }
}

/// Decides.
#[must_use]
pub fn plan(volume: &Volume, places: &[Place], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let wanted = |place: &Place| volume.attaches && !place.pods.is_empty();
    // Detached first, so that what moves comes free.
    for place in places.iter().filter(|place| !wanted(place)) {
        detach(&mut plan, place, now);
    }
    for place in places.iter().filter(|place| wanted(place)) {
        attach(&mut plan, volume, place, places, now);
    }
    plan
}

fn detach(plan: &mut Plan, place: &Place, now: Timestamp) {
    let node = || place.node.clone();
    let Some(attachment) = &place.attachment else {
        // The last step of a detachment that was cut short.
        if place.shown && !place.in_use {
            plan.actions.push((node(), Action::Hide));
        }
        return;
    };
    if attachment.going {
        if place.shown {
            plan.actions.push((node(), Action::Hide));
        }
        return;
    }
    plan.unwanted.push(node());
    let waited = place
        .unwanted_since
        .map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    let long = waited >= MOST_WAIT;
    // Of a node that is gone nobody knows whether it has it mounted.
    let mounted = place.in_use || !place.exists;
    let forced = place.out_of_service || (long && !(place.exists && place.ready));
    if mounted && !forced {
        if !long {
            plan.look_in(MOST_WAIT - waited);
        }
        return;
    }
    plan.actions.push((node(), Action::Detach { forced }));
}

fn attach(plan: &mut Plan, volume: &Volume, place: &Place, places: &[Place], now: Timestamp) {
    let node = || place.node.clone();
    let name = &volume.name;
    let tell_all = |text: String| {
        let told = place.pods.iter().map(|pod| (pod.clone(), text.clone()));
        Action::Tell(told.collect())
    };
    let Some(attachment) = &place.attachment else {
        let others: Vec<&Place> = places
            .iter()
            .filter(|other| other.node != place.node && other.attachment.is_some())
            .collect();
        if volume.exclusive && !others.is_empty() {
            let told = place.pods.iter().map(|pod| {
                let text = format!(
                    "Waiting for detach for volume {name:?} {}",
                    already(pod, &others)
                );
                (pod.clone(), text)
            });
            plan.actions.push((node(), Action::Tell(told.collect())));
        } else {
            plan.actions.push((node(), Action::Attach));
            plan.look_in(SILENCE);
        }
        return;
    };
    if attachment.going {
        return;
    }
    if attachment.attached {
        if !place.shown {
            plan.actions.push((node(), Action::Show));
        }
        return;
    }
    if let Some(error) = &attachment.error {
        let text = format!("AttachVolume.Attach failed for volume {name:?} : {error}");
        plan.actions.push((node(), tell_all(text)));
        return;
    }
    let waited = attachment
        .created
        .map_or(SignedDuration::ZERO, |at| now.duration_since(at));
    if waited >= SILENCE {
        let text = format!(
            "AttachVolume.Attach failed for volume {name:?} : timed out waiting for \
             external-attacher of {} CSI driver to attach volume {}",
            volume.driver, volume.handle
        );
        plan.actions.push((node(), tell_all(text)));
        plan.look_in(SILENCE);
    } else {
        plan.look_in(SILENCE - waited);
    }
}

/// Who has the volume, as far as the pod's namespace may know.
fn already((namespace, _): &PodName, others: &[&Place]) -> String {
    let pods = || others.iter().flat_map(|place| &place.pods);
    let here: Vec<&str> = pods()
        .filter(|(other, _)| other == namespace)
        .map(|(_, name)| name.as_str())
        .collect();
    let elsewhere = pods().count() - here.len();
    match (here.is_empty(), elsewhere) {
        (true, 0) => {
            "Volume is already exclusively attached to one node, waiting on detach before \
                      it can be attached to another node"
                .to_owned()
        }
        (true, count) => {
            format!("Volume is already used by {count} pod(s) in different namespaces")
        }
        (false, 0) => format!("Volume is already used by pod(s) {}", here.join(", ")),
        (false, count) => format!(
            "Volume is already used by pod(s) {} and {count} pod(s) in different namespaces",
            here.join(", ")
        ),
    }
}
