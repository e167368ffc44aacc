//! Patches, each of a document and what is to become of it.

use evenkeel_api::patch::apply::{ManagerRequest, OneVersion, apply, track_update};
use evenkeel_api::patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};

use super::{failed, good, two, type_of};
use crate::Shape;

pub(super) fn json(input: &[u8]) -> Shape {
    let Some((document, patch)) = two(input) else {
        return Shape(0);
    };
    match json_patch(&document, &patch) {
        Ok(new) => good(&new),
        Err(error) => failed(&error),
    }
}

pub(super) fn merge(input: &[u8]) -> Shape {
    let Some((document, patch)) = two(input) else {
        return Shape(0);
    };
    match merge_patch(&document, &patch) {
        Ok(new) => {
            let again = merge_patch(&new, &patch).expect("a merge patch applies twice");
            assert_eq!(again, new, "the second time does nothing");
            good(&new)
        }
        Err(error) => failed(&error),
    }
}

pub(super) fn strategic(input: &[u8]) -> Shape {
    let Some((document, patch)) = two(input) else {
        return Shape(0);
    };
    let (schema, ty) = type_of(&document);
    match strategic_merge_patch(schema, &ty, &document, &patch) {
        Ok(new) => good(&new),
        Err(error) => failed(&error),
    }
}

/// One owner applies the first document, another the second, and the first again.
pub(super) fn server_side(input: &[u8]) -> Shape {
    let Some((first, second)) = two(input) else {
        return Shape(0);
    };
    let (schema, ty) = type_of(&first);
    let by = |manager| ManagerRequest {
        manager,
        subresource: "",
        api_version: "v1",
        now: jiff::Timestamp::UNIX_EPOCH,
        custom: None,
        versions: &OneVersion,
    };
    let made = match apply(schema, &ty, None, &first, false, &by("one")) {
        Ok(made) => made,
        Err(error) => return failed(&error),
    };
    let again = apply(schema, &ty, Some(&made), &first, false, &by("one"));
    // Who owns nothing is not recorded, so that what he applied counts as written by somebody before
    // him, as in the reference.
    let recorded = made.pointer("/metadata/managedFields").is_some();
    assert!(
        !recorded || again.as_ref().ok() == Some(&made),
        "what was applied applies again and changes nothing: {made} became {again:?}"
    );
    let mut updated = second.clone();
    let tracked = track_update(schema, &ty, Some(&made), &mut updated, &by("three"));
    assert_eq!(tracked, Ok(()), "nothing is to be converted");
    match apply(schema, &ty, Some(&made), &second, false, &by("two")) {
        Ok(both) => {
            let forced = apply(schema, &ty, Some(&both), &first, true, &by("one"));
            good(&forced.unwrap_or(both))
        }
        Err(error) => {
            let forced = apply(schema, &ty, Some(&made), &second, true, &by("two"));
            assert!(
                !matches!(forced, Err(PatchError::Conflict(_))),
                "force wins"
            );
            failed(&error)
        }
    }
}
