//! Fields of features that are off here: they may be sent, and are dropped once it is noted who wrote
//! them, as the reference does. Where it says nothing, whoever sent them is told here.

use std::fmt;

use serde_json::Value;

use super::{Schema, Ty};

impl Schema {
    /// Turns off what is behind feature gates other than these.
    pub(crate) fn close(&mut self, open: &[String]) {
        for definition in &mut self.types {
            for field in definition.fields.values_mut() {
                let closed = |gate: &str| !open.iter().any(|it| it == gate);
                field.off |= field.gate.as_deref().is_some_and(closed);
            }
        }
        self.hold();
    }

    /// Drops fields of features that are off, but for those that were there before, and says of each
    /// where it stood and what would keep it.
    pub fn drop_off(&self, ty: &Ty, value: &mut Value, old: Option<&Value>) -> Vec<String> {
        let mut dropped = Vec::new();
        self.drop_below(ty, value, old, None, &mut dropped);
        dropped
    }

    fn drop_below(
        &self,
        ty: &Ty,
        value: &mut Value,
        old: Option<&Value>,
        at: Option<&Step<'_>>,
        dropped: &mut Vec<String>,
    ) {
        match (ty, value) {
            (Ty::Struct(index), Value::Object(fields)) => {
                let definition = self.get(*index);
                let before = |name: &str| old.and_then(|old| old.get(name));
                for name in &definition.off {
                    if before(name).is_none() && fields.remove(&**name).is_some() {
                        let gate = definition
                            .fields
                            .get(name)
                            .and_then(|it| it.gate.as_deref());
                        let place = Step::to(at, Part::Name(name)).to_string();
                        dropped.push(told(&place, gate));
                    }
                }
                for (name, ty) in &definition.over_off {
                    if let Some(value) = fields.get_mut(&**name) {
                        let at = Step::to(at, Part::Name(name));
                        self.drop_below(ty, value, before(name), Some(&at), dropped);
                    }
                }
            }
            (Ty::List(item), Value::Array(items)) => {
                for (index, value) in items.iter_mut().enumerate() {
                    let old = old.and_then(|old| old.get(index));
                    let at = Step::to(at, Part::Index(index));
                    self.drop_below(item, value, old, Some(&at), dropped);
                }
            }
            (Ty::Map(item), Value::Object(entries)) => {
                for (key, value) in entries.iter_mut() {
                    let old = old.and_then(|old| old.get(key));
                    let at = Step::to(at, Part::Key(key));
                    self.drop_below(item, value, old, Some(&at), dropped);
                }
            }
            _ => {}
        }
    }
}

fn told(place: &str, gate: Option<&str>) -> String {
    match gate {
        Some(gate) => format!(
            "{place}: dropped, its feature gate {gate} is closed (--feature-gates {gate}=true opens it)"
        ),
        None => format!("{place}: dropped, its feature is off"),
    }
}

/// A place in an object, which is written out only when something is to be said of it.
struct Step<'a> {
    above: Option<&'a Step<'a>>,
    part: Part<'a>,
}

enum Part<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Step<'a> {
    fn to(above: Option<&'a Self>, part: Part<'a>) -> Self {
        Self { above, part }
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.part {
            Part::Name(name) if self.above.is_none() => f.write_str(name),
            Part::Name(name) => write!(f, ".{name}"),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Rows;

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    }

    /// The specs of a pod as it is read, and as it is kept, and what is said of the difference.
    fn read_and_kept(rows: &Rows, spec: Value, old: Option<Value>) -> ([Value; 2], Vec<String>) {
        let row = rows.by_kind("", "v1", "Pod").expect("a row").clone();
        let mut new = pod(spec);
        let found = rows.admit(&row, &mut new);
        assert_eq!((found.mismatch, found.unknown), (None, Vec::new()));
        let read = new["spec"].clone();
        let old = old.map(pod);
        let told = rows.drop_off(&row, &mut new, old.as_ref());
        ([read, new["spec"].take()], told)
    }

    #[test]
    fn fields_of_features_that_are_off_are_dropped_after_reading() {
        let rows = Rows::builtin();
        let spec = json!({"containers": [{"name": "a", "image": "a"}],
            "evictionResponders": [{"name": "x"}],
            "volumes": [{"name": "v", "emptyDir": {"mode": 511, "medium": "Memory"}}]});
        let ([read, kept], told) = read_and_kept(&rows, spec.clone(), None);
        let off = |place: &str| format!("{place}: dropped, its feature is off");
        let places = ["spec.evictionResponders", "spec.volumes[0].emptyDir.mode"];
        assert_eq!(told, places.map(off));
        assert_eq!(read["volumes"][0]["emptyDir"]["mode"], 511);
        assert_eq!(kept["volumes"][0]["emptyDir"], json!({"medium": "Memory"}));
        assert!(kept.get("evictionResponders").is_none());
        // What was there already stays.
        let ([read, kept], told) = read_and_kept(&rows, spec.clone(), Some(spec.clone()));
        assert_eq!((read, told), (kept, Vec::new()));
        // What they may not be is still said.
        let row = rows.by_kind("", "v1", "Pod").expect("a row").clone();
        let mut wrong = pod(spec);
        wrong["spec"]["volumes"][0]["emptyDir"]["mode"] = json!("x");
        assert!(rows.admit(&row, &mut wrong).mismatch.is_some());
    }

    #[test]
    fn a_gate_that_is_open_keeps_its_fields() {
        let spec = json!({"schedulingGroup": {"podGroupName": "g"}});
        let gate = crate::kinds::scheduling::GENERIC_WORKLOAD.to_owned();
        for (open, keeps) in [(vec![], false), (vec![gate], true)] {
            let rows = Rows::with_gates(&open);
            let ([read, kept], told) = read_and_kept(&rows, spec.clone(), None);
            assert!(read.get("schedulingGroup").is_some());
            assert_eq!(kept.get("schedulingGroup").is_some(), keeps, "{open:?}");
            let said = "spec.schedulingGroup: dropped, its feature gate GenericWorkload is closed \
                        (--feature-gates GenericWorkload=true opens it)";
            assert_eq!(told, if keeps { vec![] } else { vec![said.to_owned()] });
        }
    }
}
