//! Tables as `kubectl get` prints them: columns, cells and ages.
//!
//! The texts follow `pkg/printers/internalversion/printers.go`. Ages are computed here, from the
//! time that is handed in, because clients print the cells as they come.

use jiff::Timestamp;
use serde_json::Value;

use crate::object;
use crate::row::{Cell, Column, ResourceDef};

/// How `kubectl` prints a span of time, from seconds: `45s`, `5m30s`, `2d3h`, `3y12d`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let with_rest = |whole: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}{unit}{rest}{rest_unit}")
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => with_rest(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => with_rest(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => with_rest(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => with_rest(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The span from an RFC 3339 time until now; `<unknown>` when there is none.
#[must_use]
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human_duration(whole_seconds(then, now)),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Go truncates toward zero, and so do ages.
fn whole_seconds(then: Timestamp, now: Timestamp) -> i64 {
    let nanoseconds = now.as_nanosecond() - then.as_nanosecond();
    i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX)
}

/// The columns of a row, the name first unless a column of the row is the name already (events
/// print theirs last). A row without columns has the name and the age.
#[must_use]
pub fn table_columns(row: &ResourceDef) -> Vec<Column> {
    let mut all = Vec::with_capacity(row.columns.len() + 2);
    if !row.columns.iter().any(|column| column.format == "name") {
        all.push(name());
    }
    all.extend(row.columns.iter().cloned());
    if row.columns.is_empty() {
        all.push(age());
    }
    all
}

/// The cells of an object, one for each of [`table_columns`].
#[must_use]
pub fn table_cells(row: &ResourceDef, object: &Value, now: Timestamp) -> Vec<Value> {
    // The columns of a view are those of the stored kind.
    let stored = row.view.as_ref().map(|view| {
        let mut stored = object.clone();
        (view.to_stored)(&mut stored);
        stored
    });
    let object = stored.as_ref().unwrap_or(object);
    let cell = |column: &Column| match &column.cell {
        Cell::Of(cell) => cell(object),
        Cell::At(cell) => cell(object, now),
        Cell::Path(path) => {
            let found = path.as_ref().map(|path| path.find(object));
            found
                .and_then(|found| found.first().map(|value| shown(&column.kind, value, now)))
                .unwrap_or_default()
        }
    };
    let mut cells = Vec::with_capacity(row.columns.len() + 2);
    if !row.columns.iter().any(|column| column.format == "name") {
        cells.push(object::name(object).into());
    }
    cells.extend(row.columns.iter().map(cell));
    if row.columns.is_empty() {
        cells.push(cell(&age()));
    }
    cells
}

/// A value found by a path, as its column's kind shows it; null when it is of another kind.
fn shown(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => {
            let whole = number.as_f64().map(f64::trunc);
            number
                .as_i64()
                .map(Value::from)
                .or_else(|| whole.map(Value::from))
                .unwrap_or_default()
        }
        ("number", Value::Number(number)) => number.clone().into(),
        ("boolean", Value::Bool(value)) => (*value).into(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => since(text, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// A column that is always shown.
pub(crate) fn column(
    name: &'static str,
    kind: &'static str,
    cell: Cell,
    description: &'static str,
) -> Column {
    Column {
        name: name.into(),
        kind: kind.into(),
        format: "".into(),
        description: description.into(),
        priority: 0,
        cell,
    }
}

/// A column that `-o wide` shows.
pub(crate) fn wide(
    name: &'static str,
    kind: &'static str,
    cell: Cell,
    description: &'static str,
) -> Column {
    Column {
        priority: 1,
        ..column(name, kind, cell, description)
    }
}

/// The name.
pub(crate) fn name() -> Column {
    Column {
        format: "name".into(),
        ..column(
            "Name",
            "string",
            Cell::Of(|object| object::name(object).into()),
            "Name must be unique within a namespace. Is required when creating resources, although \
             some resources may allow a client to request the generation of an appropriate name \
             automatically.",
        )
    }
}

/// The age.
pub(super) fn age() -> Column {
    column(
        "Age",
        "string",
        Cell::At(|object, now| {
            since(
                object::text(object, &["metadata", "creationTimestamp"]),
                now,
            )
            .into()
        }),
        "The time since the server created this object, in UTC.",
    )
}

/// `text`, or `<none>`.
pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels_text(labels: &Value) -> Value {
    let parts: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&parts.join(","))
}

/// A structured selector in query form, or `<none>`.
pub(super) fn selector_text(selector: &Value) -> Value {
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in object::at(selector, &["matchLabels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        parts.push((
            key.clone(),
            format!("{key}={}", value.as_str().unwrap_or_default()),
        ));
    }
    for expression in object::list(selector, &["matchExpressions"]) {
        let key = object::text(expression, &["key"]);
        let mut values: Vec<&str> = object::list(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match object::text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    or_none(&parts.join(","))
}

/// At most `max` items, then how many there are more.
pub(super) fn shortened(items: &[String], max: usize) -> String {
    if items.len() > max {
        format!("{} + {} more...", items[..max].join(","), items.len() - max)
    } else {
        items.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn spans_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (59, "59s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600 + 1800, "9h"),
            (47 * 3600, "47h"),
            (51 * 3600, "2d3h"),
            (72 * 3600, "3d"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (731 * 86400, "2y1d"),
            (3650 * 86400, "10y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
