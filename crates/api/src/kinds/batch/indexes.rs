//! Sets of a job's indexes in their short form: `1,3-5,7`.

/// Reads one part, `3` or `3-5`, of indexes below `completions`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two \
             parts separated by '-'",
            crate::field::quoted(text)
        ));
    }
    let number = |part: &str| -> Result<i64, String> {
        let shown = crate::field::quoted(part);
        let value: i64 = part
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {shown}"))?;
        if value >= completions {
            return Err(format!("too large index: {shown}"));
        }
        Ok(value)
    };
    let first = number(parts[0])?;
    let Some(last) = parts.get(1) else {
        return Ok((first, first));
    };
    let last = number(last)?;
    if first >= last {
        return Err(format!(
            "non-increasing order, previous: {first}, current: {last}"
        ));
    }
    Ok((first, last))
}

/// Checks a set and answers how many indexes it has.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut before) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(before) = before.filter(|before| *before >= first) {
            return Err(format!(
                "non-increasing order, previous: {before}, current: {first}"
            ));
        }
        total += last - first + 1;
        before = Some(last);
    }
    Ok(total)
}

/// The first index that both sets have. Parts that can't be read are passed over: they are
/// reported elsewhere.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',')
            .filter_map(|part| interval(part, completions).ok())
            .collect()
    };
    let (completed, failed) = (read(completed), read(failed));
    let (mut left, mut right) = (0, 0);
    while let (Some(a), Some(b)) = (completed.get(left), failed.get(right)) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 {
            left += 1;
        } else {
            right += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{count, overlap};

    #[test]
    fn sets_of_indexes() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        for (text, wrong) in [
            ("5", "too large index: \"5\""),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("3-1", "non-increasing order, previous: 3, current: 1"),
            ("1,1", "non-increasing order, previous: 1, current: 1"),
        ] {
            assert_eq!(count(text, 5), Err(wrong.to_owned()), "{text}");
        }
        assert_eq!(overlap("0-2,4", "3,4", 9), Some(4));
        assert_eq!(overlap("0-2", "3", 9), None);
    }
}
