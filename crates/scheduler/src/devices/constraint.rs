//! Constraints of a claim: what the attributes of its devices have to do with each other. Pure.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

use super::request::{Alternative, Wanted};

/// A constraint and the values of the devices chosen so far.
pub(super) struct Constraint<'c> {
    written: &'c DeviceConstraint,
    values: Vec<DeviceAttribute>,
}

/// The constraints of a claim, of which no device knows yet.
pub(super) fn constraints(wanted: &Wanted) -> Vec<Constraint<'_>> {
    let devices = wanted.devices();
    let written = devices.and_then(|devices| devices.constraints.as_ref());
    let read = |written| Constraint {
        written,
        values: Vec::new(),
    };
    written.into_iter().flatten().map(read).collect()
}

impl Constraint<'_> {
    /// Does it speak of the request?
    pub(super) fn is_about(&self, alternative: &Alternative) -> bool {
        let about = self.written.requests.as_deref().unwrap_or_default();
        about.is_empty()
            || about.contains(&alternative.request)
            || about.contains(&alternative.name)
    }

    /// Takes a device in, if it agrees with the others.
    pub(super) fn add(&mut self, driver: &str, device: &Device) -> bool {
        let (name, same) = match (
            &self.written.match_attribute,
            &self.written.distinct_attribute,
        ) {
            (Some(name), _) => (name, true),
            (None, Some(name)) => (name, false),
            (None, None) => return false,
        };
        let Some(value) = attribute(driver, device, name).filter(|value| is_single(value)) else {
            return false;
        };
        let known = self.values.contains(value);
        if !self.values.is_empty() && known != same {
            return false;
        }
        self.values.push(value.clone());
        true
    }

    /// Forgets the device that was taken in last.
    pub(super) fn give_back(&mut self) {
        self.values.pop();
    }
}

/// Lists are equal to nothing.
fn is_single(value: &DeviceAttribute) -> bool {
    value.string.is_some() || value.int.is_some() || value.bool.is_some() || value.version.is_some()
}

/// An attribute by its full name; a driver need not write its own domain.
fn attribute<'d>(driver: &str, device: &'d Device, name: &str) -> Option<&'d DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        (domain == driver).then(|| attributes.get(id))?
    })
}
