//! Revisions of a pod template, kept as ControllerRevisions: what StatefulSets and DaemonSets roll
//! to and back to.
//!
//! The data of a revision is the strategic merge patch that brings the template back
//! (`{"spec":{"template":{"$patch":"replace",…}}}`), as the reference writes it, because kubectl's
//! `rollout undo` sends it to the door and `rollout history` reads it. Pure: nothing is written
//! here.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

/// The label that tells the pods and the revision of one template from those of another.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// Longest part of the owner's name in the name of a revision.
const NAME_LIMIT: usize = 223;

/// The patch that brings a template back.
#[must_use]
pub fn patch_of(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    // Structs that Go writes even when empty, so that kubectl, which compares bytes to say that
    // nothing would change, finds the same.
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = template.pointer_mut(&format!("/spec/{field}"));
        let containers = containers.and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.entry("resources").or_insert_with(|| json!({}));
            }
        }
    }
    if let Some(fields) = template.as_object_mut() {
        fields.entry("metadata").or_insert_with(|| json!({}));
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template a revision brings back; `None` where its data is something else.
#[must_use]
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revision brings back this template. Compared by meaning, so that a revision written by
/// another version, which spells defaults differently, does not roll everything.
#[must_use]
pub fn is_of(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        template.metadata = template
            .metadata
            .filter(|meta| *meta != ObjectMeta::default());
        if let Some(spec) = &mut template.spec {
            let init = spec.init_containers.iter_mut().flatten();
            for container in init.chain(&mut spec.containers) {
                let empty = container.resources.take();
                container.resources = empty.filter(|it| *it != Default::default());
            }
        }
        template
    };
    template_of(revision).is_some_and(|found| bare(&found) == bare(template))
}

/// FNV-1a over the data and the count of collisions, in letters that make no words.
#[must_use]
pub fn hash_of(data: &Value, collisions: Option<i32>) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = serde_json::to_vec(data).unwrap_or_default();
    if let Some(collisions) = collisions {
        text.extend(collisions.to_string().into_bytes());
    }
    let mut hash: u32 = 0x811c_9dc5;
    for byte in text {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit) % LETTERS.len()]);
    hash.to_string().bytes().map(letter).collect()
}

/// Who a revision is made for.
#[derive(Debug)]
pub struct Owner<'a> {
    /// Its metadata.
    pub meta: &'a ObjectMeta,
    /// The reference to it.
    pub reference: OwnerReference,
    /// Its template.
    pub template: &'a PodTemplateSpec,
    /// Names that were taken by other data so far.
    pub collisions: Option<i32>,
}

/// The revision of an owner's template under a number.
#[must_use]
pub fn new_revision(owner: &Owner<'_>, number: i64) -> ControllerRevision {
    let data = patch_of(owner.template);
    let hash = hash_of(&data, owner.collisions);
    let name = owner.meta.name.as_deref().unwrap_or_default();
    let mut cut = name.len().min(NAME_LIMIT);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    let template = owner.template.metadata.as_ref();
    let mut labels = template
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", &name[..cut])),
            namespace: owner.meta.namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta.annotations.clone(),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

/// Orders revisions: the newest last.
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_key(|revision| {
        let meta = &revision.metadata;
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (number(revision), created, meta.name.clone())
    });
}

/// The number of a revision.
#[must_use]
pub fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// The name of a revision.
#[must_use]
pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// A revision that is not there any more, known by name only.
#[must_use]
pub fn known_by_name(name: Option<&String>) -> Arc<ControllerRevision> {
    Arc::new(ControllerRevision {
        metadata: ObjectMeta {
            name: name.cloned(),
            ..ObjectMeta::default()
        },
        ..ControllerRevision::default()
    })
}

/// What has to be written so that the newest revision is the template's.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It is.
    Keep(Arc<ControllerRevision>),
    /// An older one is: it becomes the newest.
    Renumber(Box<ControllerRevision>),
    /// None is.
    Create(Box<ControllerRevision>),
}

/// Decides from the owner's revisions, [`sort`]ed.
#[must_use]
pub fn step(owner: &Owner<'_>, revisions: &[Arc<ControllerRevision>]) -> Step {
    let next = revisions.last().map_or(0, |last| number(last)) + 1;
    let same = revisions
        .iter()
        .rposition(|revision| is_of(revision, owner.template));
    match same {
        Some(at) if at + 1 == revisions.len() => Step::Keep(Arc::clone(&revisions[at])),
        Some(at) => {
            let mut revision = revisions[at].as_ref().clone();
            revision.revision = Some(next);
            Step::Renumber(Box::new(revision))
        }
        None => Step::Create(Box::new(new_revision(owner, next))),
    }
}

/// The revisions beyond `limit` that nobody uses, oldest first. A negative limit keeps all.
#[must_use]
pub fn beyond(
    revisions: &[Arc<ControllerRevision>],
    limit: i32,
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let Ok(limit) = usize::try_from(limit) else {
        return Vec::new();
    };
    let dead: Vec<_> = revisions
        .iter()
        .filter(|revision| !is_live(revision))
        .cloned()
        .collect();
    let excess = dead.len().saturating_sub(limit);
    dead.into_iter().take(excess).collect()
}

/// A label of an object.
#[must_use]
pub fn label<'a>(meta: &'a ObjectMeta, name: &str) -> &'a str {
    let labels: Option<&BTreeMap<String, String>> = meta.labels.as_ref();
    labels
        .and_then(|labels| labels.get(name))
        .map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": image}]},
        }))
        .unwrap()
    }

    fn step_for(image: &str, revisions: &[Arc<ControllerRevision>]) -> Step {
        let meta = ObjectMeta {
            name: Some("web".into()),
            ..ObjectMeta::default()
        };
        let template = template(image);
        let owner = Owner {
            meta: &meta,
            reference: OwnerReference::default(),
            template: &template,
            collisions: None,
        };
        step(&owner, revisions)
    }

    #[test]
    fn a_template_comes_back_from_its_patch() {
        let Step::Create(made) = step_for("x:1", &[]) else {
            panic!("nothing to keep");
        };
        assert_eq!(
            template_of(&made).unwrap().metadata,
            template("x:1").metadata
        );
        assert!(is_of(&made, &template("x:1")));
        assert!(!is_of(&made, &template("x:2")));
        assert_eq!(made.data.0["spec"]["template"]["$patch"], "replace");
        assert_eq!(made.revision, Some(1));
        assert!(name(&made).starts_with("web-"));
    }

    #[test]
    fn going_back_renumbers_and_never_makes_a_second_revision_of_one_template() {
        let mut revisions = Vec::new();
        for (image, wanted) in [("x:1", 1), ("x:2", 2), ("x:1", 3), ("x:1", 3), ("x:2", 4)] {
            match step_for(image, &revisions) {
                Step::Create(made) => revisions.push(Arc::new(*made)),
                Step::Renumber(new) => {
                    let at = revisions.iter().position(|it| name(it) == name(&new));
                    revisions[at.unwrap()] = Arc::new(*new);
                }
                Step::Keep(kept) => assert!(is_of(&kept, &template(image))),
            }
            sort(&mut revisions);
            assert_eq!(number(revisions.last().unwrap()), wanted);
            assert!(revisions.len() <= 2);
        }
    }

    #[test]
    fn only_unused_revisions_go_and_the_oldest_first() {
        let revisions: Vec<_> = (1..=5)
            .map(|number| {
                Arc::new(ControllerRevision {
                    metadata: ObjectMeta {
                        name: Some(format!("r{number}")),
                        ..ObjectMeta::default()
                    },
                    revision: Some(number),
                    ..ControllerRevision::default()
                })
            })
            .collect();
        let live = |revision: &ControllerRevision| [1, 5].contains(&number(revision));
        let gone = beyond(&revisions, 1, live);
        let names: Vec<_> = gone.iter().map(|revision| name(revision)).collect();
        assert_eq!(names, ["r2", "r3"]);
        assert!(beyond(&revisions, -1, live).is_empty());
    }
}
