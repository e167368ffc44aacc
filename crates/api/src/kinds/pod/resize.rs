//! `pods/resize`: processor time and memory of a pod that runs (KEP-1287, and KEP-5419 for the pod
//! as a whole).

use serde_json::{Map, Value};

use super::compute_qos;
use super::validate;
use crate::field::{ErrorList, FieldError, Path};
use crate::object::{self, fields};
use crate::validation::Cursor;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LISTS: [&str; 2] = ["containers", "initContainers"];
/// What can be changed.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Keeps everything but resources and resize policies as it was. Containers that are not the same
/// are left as they came, for the validation to say so.
pub fn prepare(new: &mut Value, old: &Value) {
    let count = |object: &Value, list| object::list(object, &["spec", list]).len();
    if LISTS
        .iter()
        .any(|list| count(new, list) != count(old, list))
    {
        return;
    }
    let mut spec = object::at(old, &["spec"]).cloned().unwrap_or_default();
    for list in LISTS {
        let sent = object::list(new, &["spec", list]);
        let kept = object::list(old, &["spec", list]);
        let name = |container: &Value| object::text(container, &["name"]).to_owned();
        let same = sent.iter().map(name).eq(kept.iter().map(name));
        if !same {
            fields(&mut spec).insert(list.to_owned(), sent.into());
            continue;
        }
        for (container, sent) in object::list_mut(&mut spec, list).zip(sent) {
            for name in ["resources", "resizePolicy"] {
                object::set_or_remove(fields(container), name, sent.get(name).cloned());
            }
        }
    }
    // A client that does not know of resources of the whole pod does not take them away.
    if let Some(whole) = object::at(new, &["spec", "resources"]).cloned() {
        fields(&mut spec).insert("resources".to_owned(), whole);
    }
    super::level::defaults(&mut spec);
    fields(new).insert("spec".to_owned(), spec);
    object::keep_status(new, old);
    object::keep_metadata_of_status(new, old);
}

/// What is wrong with a resize.
#[must_use]
pub fn validate(new: &Value, old: &Value) -> ErrorList {
    let mut out = ErrorList::new();
    validate::pod(new, &mut out);
    // Go writes the path of nothing so.
    let whole = Path::new("[]");
    if object::annotation(old, MIRROR).is_some() {
        return vec![FieldError::forbidden(
            &whole,
            "static pods cannot be resized",
        )];
    }
    let (at, before) = (
        Cursor::root(new).child("spec"),
        Cursor::root(old).child("spec"),
    );
    if before.child("os").text("name") == "windows" {
        return vec![FieldError::forbidden(
            &whole,
            "windows pods cannot be resized",
        )];
    }
    let class = match object::text(old, &["status", "qosClass"]) {
        "" => compute_qos(old).to_owned(),
        known => known.to_owned(),
    };
    if compute_qos(new) != class {
        let why = "Pod QOS Class may not change as a result of resizing";
        let shown = object::text(new, &["status", "qosClass"]);
        out.push(FieldError::invalid(&at.path, shown, why));
    }
    if !is_supported(old) {
        let why = "Pod running on node without support for resize";
        out.push(FieldError::forbidden(&at.path, why));
    }
    of_the_whole(&at, &before, &mut out);
    let before_order = out.len();
    order(&at, &before, &mut out);
    if out.len() > before_order {
        return out;
    }
    removals(&at, &before, &mut out);
    for list in LISTS {
        others(list, &at, &before, &mut out);
    }
    out
}

/// Whether the node reports what running containers have: then it can change it.
fn is_supported(pod: &Value) -> bool {
    object::list(pod, &["status", "containerStatuses"])
        .iter()
        .find(|status| object::at(status, &["state", "running"]).is_some())
        .is_none_or(|status| status.get("resources").is_some())
}

fn amounts<'v>(resources: Option<&'v Value>, kind: &str) -> Option<&'v Map<String, Value>> {
    resources?.get(kind)?.as_object()
}

fn is_removed(new: Option<&Value>, old: Option<&Value>, kind: &str) -> bool {
    let new = amounts(new, kind);
    amounts(old, kind)
        .into_iter()
        .flatten()
        .any(|(name, _)| new.is_none_or(|new| !new.contains_key(name)))
}

/// Resources with the amounts that can be changed as they were before.
fn masked(new: Option<&Value>, old: Option<&Value>) -> Value {
    let mut out = new.cloned().unwrap_or_else(|| Map::new().into());
    for kind in ["limits", "requests"] {
        let mut list = amounts(new, kind).cloned().unwrap_or_default();
        for name in RESIZABLE {
            list.remove(name);
            if let Some(was) = amounts(old, kind).and_then(|old| old.get(name)) {
                list.insert(name.to_owned(), was.clone());
            }
        }
        let list = (!list.is_empty()).then(|| list.into());
        object::set_or_remove(fields(&mut out), kind, list);
    }
    out
}

fn of_the_whole(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    let (new, old) = (at.value.get("resources"), before.value.get("resources"));
    let path = at.at("resources");
    let says = |resources: Option<&Value>| {
        ["limits", "requests"]
            .iter()
            .any(|kind| amounts(resources, kind).is_some_and(|list| !list.is_empty()))
    };
    if !says(new) && !says(old) {
        return;
    }
    for kind in ["requests", "limits"] {
        if is_removed(new, old, kind) {
            let why = format!("pod-level resource {kind} cannot be removed");
            out.push(FieldError::forbidden(&path.child(kind), &why));
        }
    }
    if masked(new, old) != masked(old, old) {
        let why = "only cpu and memory resources are mutable at pod-level";
        out.push(FieldError::forbidden(&at.path, why));
    }
}

fn order(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    for list in LISTS {
        let (new, old) = (at.list(list), before.list(list));
        if new.len() != old.len() {
            let why = format!("{list} may not be added or removed on resize");
            out.push(FieldError::forbidden(&at.at(list), &why));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if object::text(new, &["name"]) != object::text(old, &["name"]) {
                let path = at.at(list).index(index).child("name");
                let why = format!("{list} may not be renamed or reordered on resize");
                out.push(FieldError::forbidden(&path, &why));
            }
        }
    }
}

fn removals(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    for list in ["initContainers", "containers"] {
        for (index, (new, old)) in at.list(list).iter().zip(before.list(list)).enumerate() {
            for kind in ["requests", "limits"] {
                if is_removed(new.get("resources"), old.get("resources"), kind) {
                    let path = at.at(list).index(index).child("resources").child(kind);
                    let why = format!("resource {kind} cannot be removed");
                    out.push(FieldError::forbidden(&path, &why));
                }
            }
        }
    }
}

/// Everything else must be as it was.
fn others(list: &str, at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    for (index, (new, old)) in at.list(list).iter().zip(before.list(list)).enumerate() {
        if new == old {
            continue;
        }
        let mut rest = new.clone();
        let resources = masked(new.get("resources"), old.get("resources"));
        fields(&mut rest).insert("resources".to_owned(), resources);
        let mut was = old.clone();
        let resources = masked(old.get("resources"), old.get("resources"));
        fields(&mut was).insert("resources".to_owned(), resources);
        let path = at.at(list).index(index);
        let init = list == "initContainers";
        if rest != was {
            out.push(if init {
                let why =
                    "only cpu and memory resources for init or sidecar containers are mutable";
                FieldError::forbidden(&path, why)
            } else {
                FieldError::forbidden(&at.path, "only cpu and memory resources are mutable")
            });
        }
        let restarts = object::list(new, &["resizePolicy"])
            .iter()
            .any(|policy| object::text(policy, &["restartPolicy"]) == "RestartContainer");
        if init && restarts && object::text(new, &["restartPolicy"]) != "Always" {
            let why = "non-sidecar init containers with a resize policy of RestartContainer cannot \
                       be resized";
            out.push(FieldError::forbidden(&path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
                    "terminationMessagePolicy": "File", "terminationMessagePath": "/dev/log",
                    "resources": resources}]},
            "status": {"qosClass": "Burstable"},
        })
    }

    fn told(new: &Value, old: &Value) -> Vec<String> {
        let mut new = new.clone();
        prepare(&mut new, old);
        validate(&new, old)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn time_and_memory_may_change_and_nothing_else() {
        let old =
            pod(&json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1"}}));
        let more = json!({"requests": {"cpu": "200m", "memory": "2Gi"}, "limits": {"cpu": "2"}});
        assert_eq!(told(&pod(&more), &old), [""; 0]);

        let mut other = pod(&more);
        other["spec"]["containers"][0]["image"] = "j".into();
        other["spec"]["nodeName"] = "n".into();
        other["metadata"]["labels"] = json!({"a": "b"});
        let mut prepared = other.clone();
        prepare(&mut prepared, &old);
        assert_eq!(prepared, pod(&more), "the rest is dropped");

        let disk = json!({"requests": {"cpu": "100m", "memory": "1Gi", "ephemeral-storage": "1Gi"},
            "limits": {"cpu": "1"}});
        assert_eq!(
            told(&pod(&disk), &old),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        let less = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}});
        assert_eq!(
            told(&pod(&less), &old),
            [
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
            ]
        );
        let all = json!({"requests": {"cpu": "1", "memory": "1Gi"},
            "limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(
            told(&pod(&all), &old),
            [
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"
            ]
        );
    }

    #[test]
    fn who_can_not_be_resized() {
        let resources = json!({"requests": {"cpu": "100m"}});
        let more = pod(&json!({"requests": {"cpu": "200m"}}));
        let mut old = pod(&resources);
        old["status"]["containerStatuses"] = json!([{"name": "c", "state": {"running": {}}}]);
        assert_eq!(
            told(&more, &old),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
        let mut mirror = pod(&resources);
        mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
        assert_eq!(
            told(&more, &mirror),
            ["[]: Forbidden: static pods cannot be resized"]
        );
        let mut renamed = more.clone();
        renamed["spec"]["containers"][0]["name"] = "d".into();
        assert_eq!(
            told(&renamed, &pod(&resources)),
            [
                "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"
            ]
        );
    }
}
