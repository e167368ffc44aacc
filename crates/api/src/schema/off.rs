//! Fields of features that are off here: they may be sent, and are dropped without a word once it is
//! noted who wrote them, as the reference does.

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

    /// Drops fields of features that are off, but for those that were there before.
    pub fn drop_off(&self, ty: &Ty, value: &mut Value, old: Option<&Value>) {
        match (ty, value) {
            (Ty::Struct(index), Value::Object(fields)) => {
                let definition = self.get(*index);
                let before = |name: &str| old.and_then(|old| old.get(name));
                for name in &definition.off {
                    if before(name).is_none() {
                        fields.remove(&**name);
                    }
                }
                for (name, ty) in &definition.over_off {
                    if let Some(value) = fields.get_mut(&**name) {
                        self.drop_off(ty, value, before(name));
                    }
                }
            }
            (Ty::List(item), Value::Array(items)) => {
                for (index, value) in items.iter_mut().enumerate() {
                    self.drop_off(item, value, old.and_then(|old| old.get(index)));
                }
            }
            (Ty::Map(item), Value::Object(entries)) => {
                for (key, value) in entries.iter_mut() {
                    self.drop_off(item, value, old.and_then(|old| old.get(key)));
                }
            }
            _ => {}
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

    /// The specs of a pod as it is read, and as it is kept.
    fn read_and_kept(rows: &Rows, spec: Value, old: Option<Value>) -> [Value; 2] {
        let row = rows.by_kind("", "v1", "Pod").expect("a row").clone();
        let mut new = pod(spec);
        let found = rows.admit(&row, &mut new);
        assert_eq!((found.mismatch, found.unknown), (None, Vec::new()));
        let read = new["spec"].clone();
        let old = old.map(pod);
        rows.drop_off(&row, &mut new, old.as_ref());
        [read, new["spec"].take()]
    }

    #[test]
    fn fields_of_features_that_are_off_are_dropped_after_reading() {
        let rows = Rows::builtin();
        let spec = json!({"containers": [{"name": "a", "image": "a"}],
            "evictionResponders": [{"name": "x"}],
            "volumes": [{"name": "v", "emptyDir": {"mode": 511, "medium": "Memory"}}]});
        let [read, kept] = read_and_kept(&rows, spec.clone(), None);
        assert_eq!(read["volumes"][0]["emptyDir"]["mode"], 511);
        assert_eq!(kept["volumes"][0]["emptyDir"], json!({"medium": "Memory"}));
        assert!(kept.get("evictionResponders").is_none());
        // What was there already stays.
        let [read, kept] = read_and_kept(&rows, spec.clone(), Some(spec.clone()));
        assert_eq!(read, kept);
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
            let [read, kept] = read_and_kept(&rows, spec.clone(), None);
            assert!(read.get("schedulingGroup").is_some());
            assert_eq!(kept.get("schedulingGroup").is_some(), keeps, "{open:?}");
        }
    }
}
