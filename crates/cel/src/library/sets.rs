//! Lists as sets.

use super::{Library, Outcome};
use crate::ops;
use crate::value::{List, Value};

pub(crate) const LIBRARY: Library = Library {
    declarations: "
sets.contains list_sets_contains_list (list<A>,list<A>)->bool
sets.equivalent list_sets_equivalent_list (list<A>,list<A>)->bool
sets.intersects list_sets_intersects_list (list<A>,list<A>)->bool
",
    functions: &[
        ("sets.contains", |a| both(a, |a, b| within(b, a))),
        ("sets.equivalent", |a| {
            both(a, |a, b| within(a, b) && within(b, a))
        }),
        ("sets.intersects", |a| {
            both(a, |a, b| a.items.iter().any(|item| has(b, item)))
        }),
    ],
};

fn has(list: &List, item: &Value) -> bool {
    list.items.iter().any(|have| ops::equals(have, item))
}

fn within(a: &List, b: &List) -> bool {
    a.items.iter().all(|item| has(b, item))
}

fn both(args: &[Value], test: fn(&List, &List) -> bool) -> Outcome {
    let [Value::List(a), Value::List(b)] = args else {
        return None;
    };
    Some(Ok(Value::Bool(test(a, b))))
}
