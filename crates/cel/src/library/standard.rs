//! The language's own functions.

use std::cmp::Ordering;

use super::{Library, Outcome};
use crate::convert;
use crate::errors::EvalError;
use crate::ops;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    declarations: "
_?_:_ conditional (bool,A,A)->A
_&&_ logical_and (bool,bool)->bool
_||_ logical_or (bool,bool)->bool
!_ logical_not (bool)->bool
@not_strictly_false not_strictly_false (bool)->bool
_==_ equals (A,A)->bool
_!=_ not_equals (A,A)->bool
_+_ add_bytes (bytes,bytes)->bytes
_+_ add_double (double,double)->double
_+_ add_duration_duration (duration,duration)->duration
_+_ add_duration_timestamp (duration,timestamp)->timestamp
_+_ add_timestamp_duration (timestamp,duration)->timestamp
_+_ add_int64 (int,int)->int
_+_ add_list (list<A>,list<A>)->list<A>
_+_ add_string (string,string)->string
_+_ add_uint64 (uint,uint)->uint
_/_ divide_double (double,double)->double
_/_ divide_int64 (int,int)->int
_/_ divide_uint64 (uint,uint)->uint
_%_ modulo_int64 (int,int)->int
_%_ modulo_uint64 (uint,uint)->uint
_*_ multiply_double (double,double)->double
_*_ multiply_int64 (int,int)->int
_*_ multiply_uint64 (uint,uint)->uint
-_ negate_double (double)->double
-_ negate_int64 (int)->int
_-_ subtract_double (double,double)->double
_-_ subtract_duration_duration (duration,duration)->duration
_-_ subtract_int64 (int,int)->int
_-_ subtract_timestamp_duration (timestamp,duration)->timestamp
_-_ subtract_timestamp_timestamp (timestamp,timestamp)->duration
_-_ subtract_uint64 (uint,uint)->uint
_[_] index_list (list<A>,int)->A
_[_] index_map (map<A,B>,A)->B
@in in_list (A,list<A>)->bool
@in in_map (A,map<A,B>)->bool
size size_bytes (bytes)->int
size bytes_size bytes.()->int
size size_list (list<A>)->int
size list_size list<A>.()->int
size size_map (map<A,B>)->int
size map_size map<A,B>.()->int
size size_string (string)->int
size string_size string.()->int
type type (A)->type<A>
bool bool_to_bool (bool)->bool
bool string_to_bool (string)->bool
bytes bytes_to_bytes (bytes)->bytes
bytes string_to_bytes (string)->bytes
double double_to_double (double)->double
double int64_to_double (int)->double
double string_to_double (string)->double
double uint64_to_double (uint)->double
duration duration_to_duration (duration)->duration
duration string_to_duration (string)->duration
dyn to_dyn (A)->dyn
int int64_to_int64 (int)->int
int double_to_int64 (double)->int
int duration_to_int64 (duration)->int
int string_to_int64 (string)->int
int timestamp_to_int64 (timestamp)->int
int uint64_to_int64 (uint)->int
string string_to_string (string)->string
string bool_to_string (bool)->string
string bytes_to_string (bytes)->string
string double_to_string (double)->string
string duration_to_string (duration)->string
string int64_to_string (int)->string
string timestamp_to_string (timestamp)->string
string uint64_to_string (uint)->string
timestamp timestamp_to_timestamp (timestamp)->timestamp
timestamp int64_to_timestamp (int)->timestamp
timestamp string_to_timestamp (string)->timestamp
uint uint64_to_uint64 (uint)->uint
uint double_to_uint64 (double)->uint
uint int64_to_uint64 (int)->uint
uint string_to_uint64 (string)->uint
contains contains_string string.(string)->bool
endsWith ends_with_string string.(string)->bool
startsWith starts_with_string string.(string)->bool
matches matches (string,string)->bool
matches matches_string string.(string)->bool
getFullYear timestamp_to_year timestamp.()->int
getFullYear timestamp_to_year_with_tz timestamp.(string)->int
getMonth timestamp_to_month timestamp.()->int
getMonth timestamp_to_month_with_tz timestamp.(string)->int
getDayOfYear timestamp_to_day_of_year timestamp.()->int
getDayOfYear timestamp_to_day_of_year_with_tz timestamp.(string)->int
getDayOfMonth timestamp_to_day_of_month timestamp.()->int
getDayOfMonth timestamp_to_day_of_month_with_tz timestamp.(string)->int
getDate timestamp_to_day_of_month_1_based timestamp.()->int
getDate timestamp_to_day_of_month_1_based_with_tz timestamp.(string)->int
getDayOfWeek timestamp_to_day_of_week timestamp.()->int
getDayOfWeek timestamp_to_day_of_week_with_tz timestamp.(string)->int
getHours timestamp_to_hours timestamp.()->int
getHours timestamp_to_hours_with_tz timestamp.(string)->int
getHours duration_to_hours duration.()->int
getMinutes timestamp_to_minutes timestamp.()->int
getMinutes timestamp_to_minutes_with_tz timestamp.(string)->int
getMinutes duration_to_minutes duration.()->int
getSeconds timestamp_to_seconds timestamp.()->int
getSeconds timestamp_to_seconds_tz timestamp.(string)->int
getSeconds duration_to_seconds duration.()->int
getMilliseconds timestamp_to_milliseconds timestamp.()->int
getMilliseconds timestamp_to_milliseconds_with_tz timestamp.(string)->int
getMilliseconds duration_to_milliseconds duration.()->int
",
    functions: &[
        ("!_", not),
        ("_+_", |a| binary(a, ops::add)),
        ("_-_", |a| binary(a, ops::subtract)),
        ("_*_", |a| binary(a, ops::multiply)),
        ("_/_", |a| binary(a, ops::divide)),
        ("_%_", |a| binary(a, ops::modulo)),
        ("-_", |a| Some(ops::negate(a.first()?))),
        ("@in", |a| binary(a, ops::contains)),
        ("size", size),
        ("type", convert::to_type),
        ("bool", convert::to_bool),
        ("bytes", convert::to_bytes),
        ("double", convert::to_double),
        ("duration", convert::to_duration),
        ("dyn", |a| Some(Ok(a.first()?.clone()))),
        ("int", convert::to_int),
        ("string", convert::to_string),
        ("timestamp", convert::to_timestamp),
        ("uint", convert::to_uint),
        ("contains", |a| texts(a, |s, t| s.contains(t))),
        ("endsWith", |a| texts(a, |s, t| s.ends_with(t))),
        ("startsWith", |a| texts(a, |s, t| s.starts_with(t))),
        ("matches", super::regex::matches),
        ("getFullYear", |a| part(a, |c| c.year, |_| None)),
        ("getMonth", |a| part(a, |c| c.month - 1, |_| None)),
        ("getDayOfYear", |a| part(a, |c| c.yearday, |_| None)),
        ("getDayOfMonth", |a| part(a, |c| c.day - 1, |_| None)),
        ("getDate", |a| part(a, |c| c.day, |_| None)),
        ("getDayOfWeek", |a| part(a, |c| c.weekday, |_| None)),
        ("getHours", |a| {
            part(a, |c| c.hour, |n| Some(n / 3_600_000_000_000))
        }),
        ("getMinutes", |a| {
            part(a, |c| c.minute, |n| Some(n / 60_000_000_000))
        }),
        ("getSeconds", |a| {
            part(a, |c| c.second, |n| Some(n / 1_000_000_000))
        }),
        ("getMilliseconds", |a| {
            part(
                a,
                |c| i64::from(c.nanos / 1_000_000),
                |n| Some(n / 1_000_000 % 1000),
            )
        }),
    ],
};

fn binary(args: &[Value], op: fn(&Value, &Value) -> Result<Value, EvalError>) -> Outcome {
    let [a, b] = args else { return None };
    Some(op(a, b))
}

fn not(args: &[Value]) -> Outcome {
    match args {
        [Value::Bool(b)] => Some(Ok(Value::Bool(!b))),
        _ => Some(Err(ops::no_overload())),
    }
}

fn texts(args: &[Value], test: fn(&str, &str) -> bool) -> Outcome {
    let [Value::String(a), Value::String(b)] = args else {
        return None;
    };
    Some(Ok(Value::Bool(test(a, b))))
}

fn size(args: &[Value]) -> Outcome {
    match args {
        [v @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Some(Ok(Value::Int(i64::try_from(v.size()).unwrap_or(i64::MAX))))
        }
        _ => None,
    }
}

fn part(
    args: &[Value],
    of: fn(crate::time::Civil) -> i64,
    span: fn(i64) -> Option<i64>,
) -> Outcome {
    match args {
        [Value::Timestamp(t)] => Some(Ok(Value::Int(of(t.civil(0))))),
        [Value::Timestamp(t), Value::String(zone)] => Some(
            t.zone_offset(zone)
                .map(|o| Value::Int(of(t.civil(o))))
                .map_err(EvalError::new),
        ),
        [Value::Duration(d)] => span(d.0).map(|n| Ok(Value::Int(n))),
        _ => None,
    }
}

/// `<`, `<=`, `>`, `>=`: the signatures over every pair of ordered types.
pub(crate) fn orderings() -> Vec<String> {
    let mut lines = Vec::new();
    for (op, word) in [
        ("_<_", "less"),
        ("_<=_", "less_equals"),
        ("_>_", "greater"),
        ("_>=_", "greater_equals"),
    ] {
        let numbers = [("int64", "int"), ("uint64", "uint"), ("double", "double")];
        for same in ["bool", "string", "bytes", "timestamp", "duration"] {
            lines.push(format!("{op} {word}_{same} ({same},{same})->bool"));
        }
        for (a, ta) in numbers {
            for (b, tb) in numbers {
                let id = if a == b {
                    format!("{word}_{a}")
                } else {
                    format!("{word}_{a}_{b}")
                };
                lines.push(format!("{op} {id} ({ta},{tb})->bool"));
            }
        }
    }
    lines
}

/// The comparison behind one of the four operators.
pub(crate) fn ordering(op: &str) -> Option<super::Function> {
    fn test(args: &[Value], accept: fn(Ordering) -> bool) -> Outcome {
        let [a, b] = args else { return None };
        Some(ops::compare(a, b).map(|o| Value::Bool(accept(o))))
    }
    Some(match op {
        "_<_" => |a| test(a, Ordering::is_lt),
        "_<=_" => |a| test(a, Ordering::is_le),
        "_>_" => |a| test(a, Ordering::is_gt),
        "_>=_" => |a| test(a, Ordering::is_ge),
        _ => return None,
    })
}
