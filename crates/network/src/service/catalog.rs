//! The services and slices that are wanted now, and which of them changed since they were last
//! carried out. Routing and DNS both read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::model::{Service, ServiceKey, Slice};

/// Services with their slices.
#[derive(Debug, Default)]
pub struct Catalog {
    services: HashMap<ServiceKey, Service>,
    /// By service, then by name of the slice. A service may come after its slices.
    slices: HashMap<ServiceKey, BTreeMap<String, Slice>>,
    /// Which service a slice belonged to, by namespace and name of the slice.
    slice_owner: HashMap<ServiceKey, ServiceKey>,
    dirty: BTreeSet<ServiceKey>,
}

impl Catalog {
    /// Puts a service in.
    pub fn set_service(&mut self, service: Service) {
        let key = service.key.clone();
        if self.services.get(&key) != Some(&service) {
            self.services.insert(key.clone(), service);
            self.dirty.insert(key);
        }
    }

    /// Takes a service out.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        if self.services.remove(key).is_some() {
            self.dirty.insert(key.clone());
        }
    }

    /// Puts a slice in, also when it moved to another service.
    pub fn set_slice(&mut self, slice: Slice) {
        let own = ServiceKey::new(&slice.service.namespace, &slice.name);
        let service = slice.service.clone();
        if let Some(before) = self.slice_owner.insert(own.clone(), service.clone())
            && before != service
        {
            self.take_slice(&before, &own.name);
        }
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&own.name) != Some(&slice) {
            slices.insert(own.name, slice);
            self.dirty.insert(service);
        }
    }

    /// Takes a slice out, by its own namespace and name.
    pub fn remove_slice(&mut self, own: &ServiceKey) {
        if let Some(service) = self.slice_owner.remove(own) {
            self.take_slice(&service, &own.name);
        }
    }

    fn take_slice(&mut self, service: &ServiceKey, name: &str) {
        let Some(slices) = self.slices.get_mut(service) else {
            return;
        };
        if slices.remove(name).is_some() {
            self.dirty.insert(service.clone());
        }
        if slices.is_empty() {
            self.slices.remove(service);
        }
    }

    /// Makes the services be exactly these.
    pub fn replace_services(&mut self, services: impl IntoIterator<Item = Service>) {
        let mut gone: BTreeSet<_> = self.services.keys().cloned().collect();
        for service in services {
            gone.remove(&service.key);
            self.set_service(service);
        }
        gone.iter().for_each(|key| self.remove_service(key));
    }

    /// Makes the slices be exactly these.
    pub fn replace_slices(&mut self, slices: impl IntoIterator<Item = Slice>) {
        let mut gone: BTreeSet<_> = self.slice_owner.keys().cloned().collect();
        for slice in slices {
            gone.remove(&ServiceKey::new(&slice.service.namespace, &slice.name));
            self.set_slice(slice);
        }
        gone.iter().for_each(|key| self.remove_slice(key));
    }

    /// A service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// A service's slices, in order of their names.
    pub fn slices(&self, key: &ServiceKey) -> Vec<&Slice> {
        self.slices
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values)
            .collect()
    }

    /// All services with slices are to be thought over.
    pub fn mark_all_dirty(&mut self) {
        self.dirty.extend(self.slices.keys().cloned());
    }

    /// What changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Puts changes back that could not be carried out.
    pub fn mark_dirty(&mut self, keys: impl IntoIterator<Item = ServiceKey>) {
        self.dirty.extend(keys);
    }
}
