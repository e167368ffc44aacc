//! Kubernetes' functions on lists, and the insertion that comprehensions over maps use.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::ops;
use crate::time::Duration;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    declarations: "
isSorted list_int_is_sorted_bool list<int>.()->bool
isSorted list_uint_is_sorted_bool list<uint>.()->bool
isSorted list_double_is_sorted_bool list<double>.()->bool
isSorted list_bool_is_sorted_bool list<bool>.()->bool
isSorted list_duration_is_sorted_bool list<duration>.()->bool
isSorted list_timestamp_is_sorted_bool list<timestamp>.()->bool
isSorted list_string_is_sorted_bool list<string>.()->bool
isSorted list_bytes_is_sorted_bool list<bytes>.()->bool
sum list_int_sum_int list<int>.()->int
sum list_uint_sum_uint list<uint>.()->uint
sum list_double_sum_double list<double>.()->double
sum list_duration_sum_duration list<duration>.()->duration
max list_int_max_int list<int>.()->int
max list_uint_max_uint list<uint>.()->uint
max list_double_max_double list<double>.()->double
max list_bool_max_bool list<bool>.()->bool
max list_duration_max_duration list<duration>.()->duration
max list_timestamp_max_timestamp list<timestamp>.()->timestamp
max list_string_max_string list<string>.()->string
max list_bytes_max_bytes list<bytes>.()->bytes
min list_int_min_int list<int>.()->int
min list_uint_min_uint list<uint>.()->uint
min list_double_min_double list<double>.()->double
min list_bool_min_bool list<bool>.()->bool
min list_duration_min_duration list<duration>.()->duration
min list_timestamp_min_timestamp list<timestamp>.()->timestamp
min list_string_min_string list<string>.()->string
min list_bytes_min_bytes list<bytes>.()->bytes
indexOf list_a_index_of_int list<A>.(A)->int
lastIndexOf list_a_last_index_of_int list<A>.(A)->int
",
    // `indexOf` is shared with text and found there.
    functions: &[
        ("isSorted", is_sorted),
        ("sum", sum),
        ("max", |a| extreme(a, "max", Ordering::Less)),
        ("min", |a| extreme(a, "min", Ordering::Greater)),
    ],
};

pub(crate) const COMPREHENSIONS: Library = Library {
    declarations: "
cel.@mapInsert @mapInsert_map_key_value (map<A,B>,A,B)->map<A,B>
cel.@mapInsert @mapInsert_map_map (map<A,B>,map<A,B>)->map<A,B>
",
    functions: &[("cel.@mapInsert", insert)],
};

fn insert(args: &[Value]) -> Outcome {
    let [Value::Map(map), rest @ ..] = args else {
        return None;
    };
    let mut map = map.clone();
    let target = Arc::make_mut(&mut map);
    match rest {
        [key, value] => {
            target.insert(key.as_key()?, value.clone());
        }
        [Value::Map(more)] => target.extend(more.iter().map(|(k, v)| (k.clone(), v.clone()))),
        _ => return None,
    }
    Some(Ok(Value::Map(map)))
}

fn is_sorted(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else {
        return None;
    };
    for pair in list.items.windows(2) {
        match ops::compare(&pair[0], &pair[1]) {
            Ok(Ordering::Greater) => return Some(Ok(Value::Bool(false))),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(Value::Bool(true)))
}

fn sum(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else {
        return None;
    };
    let zero = match list.items.first() {
        Some(Value::Uint(_)) => Value::Uint(0),
        Some(Value::Double(_)) => Value::Double(0.0),
        Some(Value::Duration(_)) => Value::Duration(Duration(0)),
        _ => Value::Int(0),
    };
    Some(
        list.items
            .iter()
            .try_fold(zero, |sum, item| ops::add(&sum, item)),
    )
}

fn extreme(args: &[Value], name: &str, replace: Ordering) -> Outcome {
    let [Value::List(list)] = args else {
        return None;
    };
    let mut best: Option<&Value> = None;
    for item in &list.items {
        match best.map(|best| ops::compare(best, item)) {
            None => best = Some(item),
            Some(Ok(order)) if order == replace => best = Some(item),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(Err(error)),
        }
    }
    Some(
        best.cloned()
            .ok_or_else(|| EvalError::new(format!("{name} called on empty list"))),
    )
}

/// The place of an item, from the front or from the back.
pub(crate) fn position(items: &[Value], item: &Value, last: bool) -> Value {
    let mut places = items
        .iter()
        .enumerate()
        .filter(|(_, have)| ops::equals(have, item))
        .map(|(at, _)| at);
    let found = if last {
        places.next_back()
    } else {
        places.next()
    };
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}
