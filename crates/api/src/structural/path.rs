//! Paths into a schema, as `selectableFields` and rules write them.

use super::Structural;

/// The schema that a path like `.spec.color` points to, with the names on the way. `brackets`
/// says whether `['name']` is a way to write a name.
///
/// # Errors
/// Why the path is none, in the reference's words.
pub fn field_at<'s>(
    schema: &'s Structural,
    path: &str,
    brackets: bool,
) -> Result<(Vec<String>, &'s Structural), String> {
    let mut at = schema;
    let mut names = Vec::new();
    let mut tokens = tokens(path).into_iter();
    while let Some(token) = tokens.next() {
        let name = match token.as_str() {
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = tokens
                    .next()
                    .ok_or_else(|| "unexpected end of JSON path".to_owned())?;
                let name = quoted
                    .strip_prefix('\'')
                    .and_then(|text| text.strip_suffix('\''))
                    .filter(|_| quoted.len() >= 2)
                    .ok_or_else(|| format!("expected single quoted string but got {quoted}"))?
                    .replace("\\'", "'")
                    .replace("\\\\", "\\");
                match tokens.next().as_deref() {
                    Some("]") => {}
                    Some(other) => return Err(format!("expected ] but got {other}")),
                    None => return Err("unexpected end of JSON path".to_owned()),
                }
                name
            }
            "." => tokens
                .next()
                .ok_or_else(|| "unexpected end of JSON path".to_owned())?,
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let next = if at.properties.is_empty() {
            at.additional.schema()
        } else {
            at.property(&name)
        };
        at = next.ok_or_else(|| "does not refer to a valid field".to_owned())?;
        names.push(name);
    }
    Ok((names, at))
}

/// Delimiters by themselves, quoted names with their quotes, and what stands between.
fn tokens(path: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in path.chars() {
        if quoted {
            let escaped = word.ends_with('\\');
            word.push(c);
            if c == '\'' && !escaped {
                quoted = false;
                out.push(std::mem::take(&mut word));
            }
            continue;
        }
        match c {
            '.' | '[' | ']' => {
                if !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
                out.push(c.to_string());
            }
            '\'' if word.is_empty() => {
                quoted = true;
                word.push(c);
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}
