//! The objects of the fake and their history. Pure but for the uids it counts up.

use std::collections::BTreeMap;

use evenkeel_api::clock::rfc3339;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::text;

/// Collection, namespace, name.
pub(super) type Key = (String, String, String);

/// One change.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) collection: String,
    pub(super) namespace: String,
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
}

/// Why a request is refused: code, reason, message.
pub(super) type Refused = (u16, &'static str, String);

#[derive(Debug)]
pub(super) struct Objects {
    pub(super) revision: u64,
    pub(super) compacted: u64,
    pub(super) log: Vec<Entry>,
    objects: BTreeMap<Key, Value>,
    counter: u64,
}

pub(super) fn not_found(key: &Key) -> Refused {
    let plural = key.0.rsplit('/').next().unwrap_or_default();
    (404, "NotFound", format!("{plural} \"{}\" not found", key.2))
}

impl Objects {
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            log: Vec::new(),
            objects: BTreeMap::new(),
            counter: 0,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(super) fn collection<'a>(
        &'a self,
        collection: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        let from = (collection.to_owned(), namespace.to_owned(), String::new());
        self.objects
            .range(from..)
            .take_while(move |(key, _)| {
                key.0 == collection && (namespace.is_empty() || key.1 == namespace)
            })
            .map(|(_, value)| value)
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.log.clear();
    }

    fn commit(&mut self, key: Key, new: Option<Value>) -> Value {
        self.revision += 1;
        let old = self.objects.get(&key).cloned();
        let new = new.map(|mut value| {
            value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            value
        });
        match &new {
            Some(value) => {
                self.objects.insert(key.clone(), value.clone());
            }
            None => {
                self.objects.remove(&key);
            }
        }
        self.log.push(Entry {
            revision: self.revision,
            collection: key.0,
            namespace: key.1,
            old: old.clone(),
            new: new.clone(),
        });
        new.or(old).unwrap_or_default()
    }

    fn fill(&mut self, value: &mut Value, now: Timestamp) {
        self.counter += 1;
        let counter = self.counter;
        let meta = &mut value["metadata"];
        if text(meta, "/name").is_empty() {
            let prefix = text(meta, "/generateName").to_owned();
            meta["name"] = json!(format!("{prefix}{counter:05x}"));
        }
        if text(meta, "/uid").is_empty() {
            meta["uid"] = json!(format!("00000000-0000-4000-8000-{counter:012x}"));
        }
        if meta.get("creationTimestamp").is_none_or(Value::is_null) {
            meta["creationTimestamp"] = json!(rfc3339(now));
        }
        if meta.get("generation").is_none() {
            meta["generation"] = json!(1);
        }
    }

    /// Puts an object in whole.
    pub(super) fn put(&mut self, collection: &str, mut value: Value, now: Timestamp) -> Value {
        let key = key(collection, &value);
        if let Some(old) = self.objects.get(&key) {
            for field in ["uid", "creationTimestamp", "generation"] {
                if value["metadata"].get(field).is_none() {
                    value["metadata"][field] = old["metadata"][field].clone();
                }
            }
        }
        self.fill(&mut value, now);
        let key = self::key(collection, &value);
        self.commit(key, Some(value))
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if self.objects.contains_key(key) {
            self.commit(key.clone(), None);
        }
    }

    pub(super) fn create(
        &mut self,
        collection: &str,
        mut value: Value,
        now: Timestamp,
    ) -> Result<Value, Refused> {
        self.fill(&mut value, now);
        let key = key(collection, &value);
        if self.objects.contains_key(&key) {
            let plural = collection.rsplit('/').next().unwrap_or_default();
            let message = format!("{plural} \"{}\" already exists", key.2);
            return Err((409, "AlreadyExists", message));
        }
        if collection == "v1/namespaces" {
            value["spec"]["finalizers"] = json!(["kubernetes"]);
            value["status"] = json!({"phase": "Active"});
        }
        Ok(self.commit(key, Some(value)))
    }

    /// Replaces an object: all of it but `status`, or `status` alone.
    pub(super) fn update(
        &mut self,
        key: &Key,
        mut value: Value,
        status_only: bool,
    ) -> Result<Value, Refused> {
        let old = self.objects.get(key).ok_or_else(|| not_found(key))?.clone();
        let version = text(&value, "/metadata/resourceVersion");
        let uid = text(&value, "/metadata/uid");
        if (!version.is_empty() && version != text(&old, "/metadata/resourceVersion"))
            || (!uid.is_empty() && uid != text(&old, "/metadata/uid"))
        {
            let plural = key.0.rsplit('/').next().unwrap_or_default();
            let message = format!(
                "Operation cannot be fulfilled on {plural} \"{}\": the object has been modified; \
                 please apply your changes to the latest version and try again",
                key.2
            );
            return Err((409, "Conflict", message));
        }
        if status_only {
            // Of metadata annotations come with the status, as the built-in kinds have it.
            let status = value.get("status").cloned();
            let annotations = value.pointer("/metadata/annotations").cloned();
            value = old.clone();
            if let Some(status) = status {
                value["status"] = status;
            }
            if let Some(annotations) = annotations {
                value["metadata"]["annotations"] = annotations;
            }
        } else {
            match old.get("status") {
                Some(status) => value["status"] = status.clone(),
                None => {
                    if let Some(fields) = value.as_object_mut() {
                        fields.remove("status");
                    }
                }
            }
            for field in [
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "generation",
            ] {
                match old["metadata"].get(field) {
                    Some(kept) => value["metadata"][field] = kept.clone(),
                    None => {
                        if let Some(fields) = value["metadata"].as_object_mut() {
                            fields.remove(field);
                        }
                    }
                }
            }
            if old.get("spec") != value.get("spec") {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                value["metadata"]["generation"] = json!(generation);
            }
        }
        value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if value == old {
            return Ok(old);
        }
        if is_finished(&key.0, &value) {
            self.commit(key.clone(), Some(value));
            return Ok(self.commit(key.clone(), None));
        }
        Ok(self.commit(key.clone(), Some(value)))
    }

    /// Deletes as far as it may: an object with finalizers or a grace period is marked.
    pub(super) fn delete(
        &mut self,
        key: &Key,
        options: &Value,
        now: Timestamp,
    ) -> Result<(Value, bool), Refused> {
        let mut value = self.objects.get(key).ok_or_else(|| not_found(key))?.clone();
        for (field, path) in [
            ("uid", "/preconditions/uid"),
            ("resourceVersion", "/preconditions/resourceVersion"),
        ] {
            let wanted = text(options, path);
            let found = value["metadata"][field].as_str().unwrap_or_default();
            if !wanted.is_empty() && wanted != found {
                let message = format!(
                    "Precondition failed: {field} in precondition: {wanted}, in object meta: {found}"
                );
                return Err((409, "Conflict", message));
            }
        }
        let mut finalizers: Vec<String> =
            serde_json::from_value(value["metadata"]["finalizers"].clone()).unwrap_or_default();
        let wanted = match text(options, "/propagationPolicy") {
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            _ => None,
        };
        if let Some(wanted) = wanted
            && !finalizers.iter().any(|item| item == wanted)
        {
            finalizers.push(wanted.to_owned());
            value["metadata"]["finalizers"] = json!(finalizers);
        }
        let asked = options["gracePeriodSeconds"].as_i64();
        let default = value["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30);
        let on_node = key.0 == "v1/pods" && !text(&value, "/spec/nodeName").is_empty();
        let grace = if on_node { asked.unwrap_or(default) } else { 0 };
        let marked = !text(&value, "/metadata/deletionTimestamp").is_empty();
        if finalizers.is_empty() && grace == 0 && key.0 != "v1/namespaces" {
            return Ok((self.commit(key.clone(), None), true));
        }
        if !marked {
            value["metadata"]["deletionTimestamp"] =
                json!(rfc3339(now + SignedDuration::from_secs(grace)));
            value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            if key.0 == "v1/namespaces" {
                value["status"]["phase"] = json!("Terminating");
            }
        }
        if Some(&value) == self.objects.get(key) {
            return Ok((value, false));
        }
        Ok((self.commit(key.clone(), Some(value)), false))
    }

    /// `namespaces/finalize`: replaces `spec.finalizers`; the last one gone removes the namespace.
    pub(super) fn finalize(&mut self, key: &Key, asked: &Value) -> Result<Value, Refused> {
        let mut value = self.objects.get(key).ok_or_else(|| not_found(key))?.clone();
        value["spec"]["finalizers"] = asked["spec"]["finalizers"].clone();
        if is_finished(&key.0, &value) {
            return Ok(self.commit(key.clone(), None));
        }
        Ok(self.commit(key.clone(), Some(value)))
    }
}

fn is_finished(collection: &str, value: &Value) -> bool {
    let none = |path: &str| {
        let items = value.pointer(path).and_then(Value::as_array);
        items.is_none_or(Vec::is_empty)
    };
    let grace = value["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    !text(value, "/metadata/deletionTimestamp").is_empty()
        && none("/metadata/finalizers")
        && (collection != "v1/namespaces" || none("/spec/finalizers"))
        && grace == 0
}

pub(super) fn key(collection: &str, value: &Value) -> Key {
    (
        collection.to_owned(),
        text(value, "/metadata/namespace").to_owned(),
        text(value, "/metadata/name").to_owned(),
    )
}
