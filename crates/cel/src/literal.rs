//! String and bytes literals: quotes off, escapes read.

use crate::value::Value;

/// Reads a literal with its quotes and `r` prefix; the `b` is already off.
pub(crate) fn unescape(text: &str, bytes: bool) -> Result<Value, &'static str> {
    let raw = text.starts_with(['r', 'R']);
    let text = if raw { &text[1..] } else { text };
    let quotes = if text.len() >= 6 && (text.starts_with("'''") || text.starts_with("\"\"\"")) {
        3
    } else {
        1
    };
    let body = &text[quotes..text.len() - quotes];
    let body = body.replace("\r\n", "\n").replace('\r', "\n");
    let out = if raw {
        body.into_bytes()
    } else {
        escapes(&body, bytes)?
    };
    if bytes {
        return Ok(Value::Bytes(out.into()));
    }
    let string = String::from_utf8(out).map_err(|_| "invalid unicode code point")?;
    Ok(Value::from(string.as_str()))
}

fn escapes(body: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body.chars();
    let push = |out: &mut Vec<u8>, code: u32| -> Result<(), &'static str> {
        if bytes {
            out.push(u8::try_from(code).map_err(|_| "unable to unescape string")?);
            return Ok(());
        }
        let c = char::from_u32(code).ok_or("invalid unicode code point")?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    };
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest
            .next()
            .ok_or("unable to unescape string, found '\\' as last character")?;
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            '\'' => out.push(b'\''),
            '"' => out.push(b'"'),
            '`' => out.push(b'`'),
            '?' => out.push(b'?'),
            'x' | 'X' | 'u' | 'U' => {
                let digits = match escape {
                    'x' | 'X' => 2,
                    'u' => 4,
                    _ => 8,
                };
                if bytes && digits > 2 {
                    return Err("unable to unescape string");
                }
                let mut code = 0u32;
                for _ in 0..digits {
                    let digit = rest
                        .next()
                        .and_then(|c| c.to_digit(16))
                        .ok_or("unable to unescape string")?;
                    code = code.wrapping_shl(4) | digit;
                }
                push(&mut out, code)?;
            }
            '0'..='3' => {
                let mut code = escape.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let digit = rest
                        .next()
                        .and_then(|c| c.to_digit(8))
                        .ok_or("unable to unescape octal sequence in string")?;
                    code = code * 8 + digit;
                }
                push(&mut out, code)?;
            }
            _ => return Err("unable to unescape string"),
        }
    }
    Ok(out)
}
