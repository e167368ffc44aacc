//! Base64 as Go's decoder takes it: line breaks are skipped, and the bits that no byte needs may be
//! anything.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The text as Go would write it again, where that is another one.
///
/// # Errors
/// The place that Go's decoder names for a text that is none.
pub(super) fn canonical(text: &str) -> Result<Option<String>, usize> {
    if let Some(at) = stops_at(text.as_bytes()) {
        return Err(at);
    }
    let breaks = |c: char| c == '\n' || c == '\r';
    let joined: String;
    let mut plain = text;
    if text.contains(breaks) {
        joined = text.replace(breaks, "");
        plain = &joined;
    }
    let bytes = LENIENT.decode(plain).map_err(|_| text.len())?;
    let written = LENIENT.encode(bytes);
    Ok((written != text).then_some(written))
}

/// Where Go's decoder gives up: `decodeQuantum` of `encoding/base64`, which names the beginning of
/// four characters that are not complete.
fn stops_at(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    let skip = |mut at: usize| {
        while matches!(text.get(at), Some(b'\n' | b'\r')) {
            at += 1;
        }
        at
    };
    loop {
        let mut known = 0;
        while known < 4 {
            at = skip(at);
            let Some(byte) = text.get(at) else {
                return (known > 0).then(|| at - known);
            };
            at += 1;
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => known += 1,
                b'=' if known >= 2 => {
                    if known == 2 {
                        at = skip(at);
                        match text.get(at) {
                            None => return Some(text.len()),
                            Some(b'=') => at += 1,
                            Some(_) => return Some(at - 1),
                        }
                    }
                    at = skip(at);
                    return (at < text.len()).then_some(at);
                }
                _ => return Some(at - 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    /// What Go 1.25 says of each.
    #[test]
    fn what_is_wrong_is_where_go_says() {
        for (text, at) in [
            ("x", 0),
            ("xx", 0),
            ("xxx", 0),
            ("xxxxx", 4),
            ("eA=", 3),
            ("eA==x", 4),
            ("e A=", 1),
            ("====", 0),
            ("=", 0),
            ("eA=A", 2),
            ("xx==yy", 4),
            ("!", 0),
            ("eAA", 0),
        ] {
            assert_eq!(canonical(text), Err(at), "{text}");
        }
        assert_eq!(canonical("eA=="), Ok(None));
        assert_eq!(canonical(""), Ok(None));
        assert_eq!(canonical("eAA="), Ok(None));
        assert_eq!(canonical("e\nA=\r="), Ok(Some("eA==".to_owned())));
        assert_eq!(canonical("eB=="), Ok(Some("eA==".to_owned())));
    }
}
