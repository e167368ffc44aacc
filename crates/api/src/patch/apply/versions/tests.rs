//! Owners of several versions: the outcomes are those of the reference's merge.

use std::sync::{LazyLock, Mutex, MutexGuard};

use serde_json::json;

use crate::object;
use crate::patch::PatchError;
use crate::patch::apply::{
    ManagerRequest, Unconverted, Version, Versions, apply, put_managed, take_managed, track_update,
    track_whole,
};
use crate::row::Rows;
use crate::schema::{Schema, Ty};
use crate::structural::{Structural, merge_type};

use super::*;

const NAMES: [&str; 3] = ["v1", "v2", "v3"];

/// A kind whose versions call the same fields `…_v1`, `…_v2` and `…_v3`.
#[derive(Debug)]
struct Kind {
    types: Vec<(String, Schema, Ty)>,
    /// There are no others.
    there: Vec<&'static str>,
    /// To this one nothing can be converted.
    broken: Option<&'static str>,
    /// Objects are converted between two calls of the merge, not at once.
    asks: bool,
    asked: Mutex<Vec<(Value, String)>>,
    answered: Mutex<Vec<(Value, String)>>,
}

impl Kind {
    fn new(schema: impl Fn(&str) -> Value) -> Self {
        static ROWS: LazyLock<Rows> = LazyLock::new(Rows::builtin);
        let types = NAMES.map(|name| {
            let root = json!({"type": "object", "properties": schema(name)});
            let structural = Structural::read(&root).expect("a structural schema");
            let (schema, ty) = merge_type(&structural, ROWS.schema());
            (name.to_owned(), schema, ty)
        });
        Self {
            types: types.into(),
            there: NAMES.into(),
            broken: None,
            asks: false,
            asked: Mutex::default(),
            answered: Mutex::default(),
        }
    }

    fn plain() -> Self {
        Self::new(|version| {
            json!({
                "struct": {"type": "object", "properties": {
                    "name": {"type": "string"},
                    format!("scalar_{version}"): {"type": "string"},
                    format!("complex_{version}"): {"type": "object",
                        "properties": {"name": {"type": "string"}}},
                }},
                format!("list_{version}"): {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string"},
                        format!("values_{version}"): {"type": "array",
                            "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    }}},
            })
        })
    }

    fn ty(&self, version: &str) -> (&Schema, &Ty) {
        let mut types = self.types.iter();
        let found = types.find(|(name, ..)| name == version).expect("a version");
        (&found.1, &found.2)
    }

    /// Answers what was asked; was anything?
    fn answer(&self) -> bool {
        let asked = std::mem::take(&mut *locked(&self.asked));
        let any = !asked.is_empty();
        locked(&self.answered).extend(asked);
        any
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("nobody panicked with it")
}

fn renamed(value: &Value, from: &str, to: &str) -> Value {
    let name = |name: &str| match name.strip_suffix(&format!("_{from}")) {
        Some(stem) => format!("{stem}_{to}"),
        None => name.to_owned(),
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(field, value)| {
                let value = if field == "metadata" {
                    value.clone()
                } else {
                    renamed(value, from, to)
                };
                (name(field), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(|item| renamed(item, from, to)).collect(),
        other => other.clone(),
    }
}

impl Versions for Kind {
    fn version(&self, api_version: &str) -> Option<Version<'_>> {
        if !self.there.contains(&api_version) {
            return None;
        }
        let (schema, ty) = self.ty(api_version);
        Some(Version {
            schema,
            ty: ty.clone(),
            custom: Some(true),
        })
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted> {
        assert!(self.there.contains(&api_version), "{api_version} is gone");
        if self.asks {
            let wanted = (object.clone(), api_version.to_owned());
            if !locked(&self.answered).contains(&wanted) {
                locked(&self.asked).push(wanted);
                return Err(Unconverted::Pending);
            }
        }
        if self.broken == Some(api_version) {
            return Err(Unconverted::Failed("no idea".to_owned()));
        }
        let from = object::text(object, &["apiVersion"]);
        let mut out = renamed(object, from, api_version);
        out["apiVersion"] = api_version.into();
        Ok(out)
    }
}

/// The object and who has done what to it.
struct State {
    kind: Kind,
    live: Option<Value>,
    /// So many calls of merges had to wait.
    waits: usize,
}

impl State {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            live: None,
            waits: 0,
        }
    }

    fn request<'a>(&'a self, manager: &'a str, version: &'a str) -> ManagerRequest<'a> {
        ManagerRequest {
            manager,
            subresource: "",
            api_version: version,
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            custom: Some(true),
            versions: &self.kind,
        }
    }

    /// The live object as a request of a version has it.
    fn live_in(&self, version: &str) -> Option<Value> {
        self.live.as_ref().map(|live| {
            let from = object::text(live, &["apiVersion"]);
            let mut out = renamed(live, from, version);
            out["apiVersion"] = version.into();
            out
        })
    }

    fn object(version: &str, mut fields: Value) -> Value {
        fields["apiVersion"] = version.into();
        fields["kind"] = "Thing".into();
        fields["metadata"]["name"] = "it".into();
        fields
    }

    fn track(&mut self, manager: &str, version: &str, fields: Value) -> Result<(), Unconverted> {
        let live = self.live_in(version);
        let sent = Self::object(version, fields);
        let (mut new, mut waits) = (sent.clone(), 0);
        let request = self.request(manager, version);
        let (schema, ty) = self.kind.ty(version);
        let mut tracked;
        loop {
            tracked = track_update(schema, ty, live.as_ref(), &mut new, &request);
            if tracked != Err(Unconverted::Pending) {
                break;
            }
            assert_eq!(new, sent, "who has to wait is left alone");
            assert!(self.kind.answer(), "nothing is waited for");
            waits += 1;
        }
        if tracked.is_ok() {
            let mut whole = sent;
            let given = take_managed(&mut whole);
            track_whole(
                schema,
                ty,
                live.as_ref(),
                &mut whole,
                given.as_ref(),
                &request,
            )
            .expect("tracked");
            assert_eq!(new, whole);
        }
        self.waits += waits;
        self.live = Some(new);
        tracked
    }

    fn update(&mut self, manager: &str, version: &str, fields: Value) {
        self.track(manager, version, fields).expect("tracked");
    }

    fn try_apply(
        &mut self,
        manager: &str,
        version: &str,
        fields: Value,
        force: bool,
    ) -> Result<(), PatchError> {
        let live = self.live_in(version);
        let config = Self::object(version, fields);
        let mut waits = 0;
        let request = self.request(manager, version);
        let (schema, ty) = self.kind.ty(version);
        let applied = loop {
            match apply(schema, ty, live.as_ref(), &config, force, &request) {
                Err(PatchError::Pending) => assert!(self.kind.answer(), "nothing is waited for"),
                done => break done?,
            }
            waits += 1;
        };
        self.waits += waits;
        self.live = Some(applied);
        Ok(())
    }

    fn apply(&mut self, manager: &str, version: &str, fields: Value) {
        self.try_apply(manager, version, fields, false)
            .expect("no conflict");
    }

    /// The object without what every object has.
    fn seen_in(&self, version: &str) -> Value {
        let mut object = self.live_in(version).expect("there");
        for name in ["apiVersion", "kind", "metadata"] {
            object::fields(&mut object).remove(name);
        }
        object
    }

    /// Who owns what, in which version.
    fn owners(&self) -> Vec<(String, String, Value)> {
        let live = self.live.as_ref().expect("there");
        object::list(live, &["metadata", "managedFields"])
            .iter()
            .map(|entry| {
                let text = |name| object::text(entry, &[name]).to_owned();
                (
                    text("manager"),
                    text("apiVersion"),
                    entry["fieldsV1"].clone(),
                )
            })
            .collect()
    }
}

fn owner(manager: &str, version: &str, set: Value) -> (String, String, Value) {
    (manager.to_owned(), version.to_owned(), set)
}

/// Runs a case with every choice of three versions, converted at once and by asking.
fn with_versions(run: impl Fn(&mut State, [&'static str; 3])) {
    for one in NAMES {
        for two in NAMES {
            for three in NAMES {
                let mut waits = [0, 0];
                for (asks, waits) in [false, true].into_iter().zip(&mut waits) {
                    let kind = Kind {
                        asks,
                        ..Kind::plain()
                    };
                    let mut state = State::new(kind);
                    run(&mut state, [one, two, three]);
                    *waits = state.waits;
                }
                assert_eq!(waits[0], 0, "at once");
                // Where all have the version of the request nobody is asked.
                if one == two && two == three {
                    assert_eq!(waits[1], 0, "{one}");
                }
            }
        }
    }
}

#[test]
fn the_only_owner_takes_back_what_it_applied() {
    with_versions(|state, [v1, v2, v3]| {
        let scalar = json!({"struct": {"name": "a", format!("scalar_{v1}"): "a"}});
        state.apply("one", v1, scalar);
        state.apply("one", v2, json!({"struct": {"name": "a"}}));
        assert_eq!(state.seen_in(v3), json!({"struct": {"name": "a"}}));
        let set = json!({"f:struct": {"f:name": {}}});
        assert_eq!(state.owners(), [owner("one", v2, set)]);
    });
    with_versions(|state, [v1, v2, v3]| {
        let complex = json!({"struct": {"name": "a", format!("complex_{v1}"): {"name": "b"}}});
        state.apply("one", v1, complex);
        state.apply("one", v2, json!({"struct": {"name": "a"}}));
        assert_eq!(state.seen_in(v3), json!({"struct": {"name": "a"}}));
        let set = json!({"f:struct": {"f:name": {}}});
        assert_eq!(state.owners(), [owner("one", v2, set)]);
    });
}

#[test]
fn what_another_applier_has_in_its_version_stays() {
    with_versions(|state, [v1, v2, v3]| {
        let both = json!({"struct": {"name": "a", format!("scalar_{v1}"): "a"}});
        state.apply("one", v1, both);
        state.apply("two", v2, json!({"struct": {format!("scalar_{v2}"): "a"}}));
        state.apply("one", v3, json!({"struct": {"name": "a"}}));
        assert_eq!(
            state.seen_in(v3),
            json!({"struct": {"name": "a", format!("scalar_{v3}"): "a"}})
        );
        assert_eq!(
            state.owners(),
            [
                // It changed nothing, so it has no time, and comes first.
                owner(
                    "two",
                    v2,
                    json!({"f:struct": {format!("f:scalar_{v2}"): {}}})
                ),
                owner("one", v3, json!({"f:struct": {"f:name": {}}})),
            ]
        );
    });
    with_versions(|state, [v1, v2, v3]| {
        let both = json!({"struct": {"name": "a", format!("complex_{v1}"): {"name": "b"}}});
        state.apply("one", v1, both);
        let two = json!({"struct": {format!("complex_{v2}"): {"name": "b"}}});
        state.apply("two", v2, two);
        state.apply("one", v3, json!({"struct": {"name": "a"}}));
        assert_eq!(
            state.seen_in(v3),
            json!({"struct": {"name": "a", format!("complex_{v3}"): {"name": "b"}}})
        );
        let set = json!({"f:struct": {format!("f:complex_{v2}"): {"f:name": {}}}});
        assert_eq!(state.owners()[0], owner("two", v2, set));
    });
}

#[test]
fn what_somebody_has_updated_in_its_version_stays() {
    with_versions(|state, [v1, v2, v3]| {
        let both =
            |version: &str| json!({"struct": {"name": "a", format!("scalar_{version}"): "a"}});
        state.update("updater", v1, both(v1));
        state.apply("applier", v2, both(v2));
        state.apply("applier", v3, json!({"struct": {"name": "a"}}));
        assert_eq!(state.seen_in(v3), both(v3));
        let set = json!({"f:struct": {".": {}, "f:name": {}, format!("f:scalar_{v1}"): {}}});
        assert_eq!(
            state.owners(),
            [
                owner("applier", v3, json!({"f:struct": {"f:name": {}}})),
                owner("updater", v1, set),
            ]
        );
    });
}

#[test]
fn an_update_takes_what_the_owners_version_sees_change() {
    with_versions(|state, [v1, v2, v3]| {
        let scalar = |version: &str, value: &str| json!({"struct": {"name": "a", format!("scalar_{version}"): value}});
        state.apply("applier", v1, scalar(v1, "a"));
        state.update("updater", v2, scalar(v2, "b"));
        assert_eq!(state.seen_in(v3), scalar(v3, "b"));
        assert_eq!(
            state.owners(),
            [
                owner("applier", v1, json!({"f:struct": {"f:name": {}}})),
                owner(
                    "updater",
                    v2,
                    json!({"f:struct": {format!("f:scalar_{v2}"): {}}})
                ),
            ]
        );
        // What goes has no owner in any version.
        state.update("updater", v3, json!({"struct": {"name": "a"}}));
        let set = json!({"f:struct": {"f:name": {}}});
        assert_eq!(state.owners(), [owner("applier", v1, set)]);
    });
}

#[test]
fn conflicts_are_told_in_the_owners_version() {
    with_versions(|state, [v1, v2, v3]| {
        let scalar =
            |version: &str, value: &str| json!({"struct": {format!("scalar_{version}"): value}});
        state.apply("one", v1, scalar(v1, "a"));
        // The same value is shared.
        state.apply("two", v2, scalar(v2, "a"));
        assert_eq!(state.owners().len(), 2);
        let refused = state.try_apply("three", v3, scalar(v3, "b"), false);
        assert_eq!(
            refused.expect_err("conflicts").to_string(),
            format!(
                "Apply failed with 2 conflicts: conflicts with \"one\":\n- .struct.scalar_{v1}\n\
                 conflicts with \"two\":\n- .struct.scalar_{v2}"
            )
        );
        state
            .try_apply("three", v3, scalar(v3, "b"), true)
            .expect("forced");
        let set = json!({"f:struct": {format!("f:scalar_{v3}"): {}}});
        assert_eq!(state.owners(), [owner("three", v3, set)]);
    });
    // Who has updated is told with the version.
    let mut state = State::new(Kind::plain());
    state.update("one", "v1", json!({"struct": {"scalar_v1": "a"}}));
    let other = json!({"struct": {"scalar_v2": "b"}});
    let refused = state.try_apply("two", "v2", other, false);
    assert_eq!(
        refused.expect_err("conflicts").to_string(),
        "Apply failed with 1 conflict: conflict with \"one\" using v1: .struct.scalar_v1"
    );
}

#[test]
fn items_of_lists_stay_for_those_who_have_parts_of_them() {
    with_versions(|state, [v1, v2, v3]| {
        let list = |version: &str, items: Value| json!({ format!("list_{version}"): items });
        let values = |version: &str| format!("values_{version}");
        let first = list(v1, json!([{"name": "a"}, {"name": "b", values(v1): ["c"]}]));
        state.apply("one", v1, first);
        state.apply(
            "two",
            v2,
            list(v2, json!([{"name": "b", values(v2): ["d"]}])),
        );
        state.update(
            "controller",
            v2,
            list(
                v2,
                json!([{"name": "a"}, {"name": "b", values(v2): ["c", "d", "e"]}]),
            ),
        );
        state.apply("one", v3, list(v3, json!([{"name": "a"}])));
        assert_eq!(
            state.seen_in(v1),
            list(
                v1,
                json!([{"name": "a"}, {"name": "b", values(v1): ["d", "e"]}])
            )
        );
        let of = |version: &str, set: Value| json!({ format!("f:list_{version}"): set });
        assert_eq!(
            state.owners(),
            [
                owner(
                    "one",
                    v3,
                    of(v3, json!({"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}))
                ),
                owner(
                    "two",
                    v2,
                    of(
                        v2,
                        json!({"k:{\"name\":\"b\"}": {".": {}, "f:name": {},
                            format!("f:values_{v2}"): {"v:\"d\"": {}}}})
                    )
                ),
                owner(
                    "controller",
                    v2,
                    of(
                        v2,
                        json!({"k:{\"name\":\"b\"}": {format!("f:values_{v2}"): {"v:\"e\"": {}}}})
                    )
                ),
            ]
        );
    });
}

#[test]
fn one_managers_updates_in_two_versions_are_two_owners() {
    let mut state = State::new(Kind::plain());
    state.update("me", "v1", json!({"struct": {"name": "a"}}));
    state.update(
        "me",
        "v2",
        json!({"struct": {"name": "a", "scalar_v2": "b"}}),
    );
    assert_eq!(
        state.owners(),
        [
            owner("me", "v1", json!({"f:struct": {".": {}, "f:name": {}}})),
            owner("me", "v2", json!({"f:struct": {"f:scalar_v2": {}}})),
        ]
    );
    state.update(
        "me",
        "v2",
        json!({"struct": {"name": "c", "scalar_v2": "b"}}),
    );
    assert_eq!(
        state.owners(),
        [
            owner("me", "v1", json!({"f:struct": {}})),
            owner(
                "me",
                "v2",
                json!({"f:struct": {"f:name": {}, "f:scalar_v2": {}}})
            ),
        ]
    );
}

#[test]
fn owners_of_versions_that_are_gone_are_forgotten() {
    let mut state = State::new(Kind::plain());
    let scalar = |version: &str| json!({"struct": {"name": "a", format!("scalar_{version}"): "b"}});
    state.update("one", "v1", json!({"struct": {"name": "a"}}));
    state.update("two", "v2", scalar("v2"));
    state.kind.there = vec!["v2", "v3"];
    // Even by an update that changes nothing.
    state.update("three", "v3", scalar("v3"));
    let set = json!({"f:struct": {"f:scalar_v2": {}}});
    assert_eq!(state.owners(), [owner("two", "v2", set)]);

    // Nothing is pruned of what was applied in one, and it is no conflict.
    let mut state = State::new(Kind::plain());
    state.apply("one", "v1", scalar("v1"));
    state.apply("two", "v1", json!({"struct": {"name": "a"}}));
    state.kind.there = vec!["v2", "v3"];
    state.apply("one", "v2", json!({"struct": {"name": "c"}}));
    assert_eq!(
        state.seen_in("v2"),
        json!({"struct": {"name": "c", "scalar_v2": "b"}})
    );
    let set = json!({"f:struct": {"f:name": {}}});
    assert_eq!(state.owners(), [owner("one", "v2", set)]);

    // When nobody is left the object is still one whose owners are told.
    let mut state = State::new(Kind::plain());
    state.update("one", "v1", json!({"struct": {"name": "a"}}));
    state.kind.there = vec!["v2"];
    state.update("two", "v2", json!({"struct": {"name": "b"}}));
    let set = json!({"f:struct": {"f:name": {}}});
    assert_eq!(state.owners(), [owner("two", "v2", set)]);
}

#[test]
fn what_cannot_be_converted_leaves_owners_alone_and_ends_an_apply() {
    for asks in [false, true] {
        let mut state = State::new(Kind {
            asks,
            ..Kind::plain()
        });
        state.update("one", "v1", json!({"struct": {"name": "a"}}));
        state.apply("two", "v2", json!({"struct": {"scalar_v2": "a"}}));
        let (owners, waits) = (state.owners(), state.waits);
        locked(&state.kind.answered).clear();
        state.kind.broken = Some("v1");

        let refused = state.try_apply("two", "v2", json!({"struct": {}}), false);
        let refused = refused.expect_err("not converted");
        assert_eq!(refused, PatchError::Internal("no idea".to_owned()));
        assert_eq!(refused.status().code, 500);

        // An update goes on.
        let changed = json!({"struct": {"name": "b", "scalar_v2": "b"}});
        assert_eq!(
            state.track("three", "v2", changed.clone()),
            Err(Unconverted::Failed(
                "failed to convert old object: no idea".to_owned()
            ))
        );
        assert_eq!(state.owners(), owners);
        assert_eq!(state.seen_in("v2"), changed);

        // What changes nothing asks for nothing.
        let waits = waits + usize::from(asks);
        assert_eq!(state.waits, waits);
        state.update("three", "v2", changed);
        assert_eq!((state.waits, state.owners()), (waits, owners));
    }
}

#[test]
fn every_version_has_its_own_shape() {
    // In v2 the map is one value.
    let kind = Kind::new(|version| {
        json!({"map": {"type": "object", "additionalProperties": {"type": "string"},
            "x-kubernetes-map-type": if version == "v2" { "atomic" } else { "granular" }}})
    });
    let mut state = State::new(kind);
    state.apply("one", "v1", json!({"map": {"a": "1", "b": "1"}}));
    // Somebody wrote a part of it when v2 was granular: it is his as a whole now.
    let mut live = state.live_in("v2").expect("there");
    let list = live["metadata"]["managedFields"].as_array_mut();
    list.expect("a list")
        .push(json!({"manager": "old", "operation": "Update",
        "apiVersion": "v2", "fieldsType": "FieldsV1", "fieldsV1": {"f:map": {"f:b": {}}}}));
    state.live = Some(live);
    state.update("two", "v1", json!({"map": {"a": "1", "b": "1"}}));
    assert_eq!(
        state.owners(),
        [
            owner("one", "v1", json!({"f:map": {"f:a": {}, "f:b": {}}})),
            owner("old", "v2", json!({"f:map": {}})),
        ]
    );
    state.update("two", "v1", json!({"map": {"a": "2", "b": "1"}}));
    assert_eq!(
        state.owners(),
        [
            owner("one", "v1", json!({"f:map": {"f:b": {}}})),
            owner("two", "v1", json!({"f:map": {"f:a": {}}})),
        ]
    );
    // To change what somebody has in another version is a conflict; to leave it out is none.
    let refused = state.try_apply("three", "v2", json!({"map": {"a": "3"}}), false);
    assert_eq!(
        refused.expect_err("conflicts").to_string(),
        "Apply failed with 1 conflict: conflict with \"two\" using v1: .map.a"
    );
    state.apply("three", "v2", json!({"map": {"c": "1"}}));
    assert_eq!(state.seen_in("v1"), json!({"map": {"c": "1"}}));
    let set = json!({"f:map": {}});
    assert_eq!(state.owners(), [owner("three", "v2", set)]);
    // Who has all of it takes all of it away.
    state.apply("three", "v3", json!({}));
    assert_eq!(state.seen_in("v1"), json!({}));
}

#[test]
fn a_list_from_a_backup_is_taken_as_it_is() {
    let mut state = State::new(Kind::plain());
    state.update(
        "one",
        "v1",
        json!({"struct": {"name": "a", "scalar_v1": "a"}}),
    );
    state.update(
        "two",
        "v2",
        json!({"struct": {"name": "a", "scalar_v2": "b"}}),
    );
    let managed = Managed::decode(
        state
            .live
            .as_ref()
            .and_then(|live| object::at(live, &["metadata", "managedFields"])),
    )
    .expect("a list");
    let mut sent = json!({"struct": {"name": "a", "scalar_v3": "b"}});
    put_managed(&mut sent, &managed);
    let owners = state.owners();
    state.update("three", "v3", sent);
    assert_eq!(state.owners(), owners);
}
