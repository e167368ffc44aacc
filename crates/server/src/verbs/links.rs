//! Links in proxied pages: what a page calls `/x` stands, seen through the proxy, behind the
//! proxy's own path.
//!
//! The rules are those of the reference (`k8s.io/apimachinery/pkg/util/proxy/transport.go`): only
//! pages (`text/html`) and redirects are touched, only paths from the root, and none that has the
//! proxy's path already. Everything else of a page stays as it is, byte for byte.

/// Which attributes of which elements are links.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// A link as it is reached through the proxy at `prefix` (without a slash at its end); `host` is
/// the backend's own name and port. `None` when it stays as it is.
pub(super) fn behind(link: &str, prefix: &str, host: &str) -> Option<String> {
    let authority = link
        .strip_prefix("http://")
        .or_else(|| link.strip_prefix("https://"))
        .or_else(|| link.strip_prefix("//"));
    let path = match authority {
        None => link,
        Some(rest) => {
            let (named, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if named != host {
                return None;
            }
            path
        }
    };
    (path.starts_with('/') && !path.starts_with(prefix)).then(|| format!("{prefix}{path}"))
}

/// The page with its links behind `prefix`.
pub(crate) fn rewrite(page: &[u8], prefix: &str, host: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut copied = 0;
    let mut at = 0;
    while let Some(open) = find(page, at, b'<') {
        at = open + 1;
        if page[at..].starts_with(b"!--") {
            at = page[at..]
                .windows(3)
                .position(|three| three == b"-->")
                .map_or(page.len(), |end| at + end + 3);
            continue;
        }
        let name_end = at
            + page[at..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric())
                .count();
        let element = String::from_utf8_lossy(&page[at..name_end]).to_ascii_lowercase();
        at = name_end;
        let known = LINKS.iter().find(|(name, _)| *name == element);
        while let Some(attribute) = attribute(page, &mut at) {
            let links = known.is_some_and(|(_, names)| {
                let mut names = names.iter();
                names.any(|name| attribute.name.eq_ignore_ascii_case(name.as_bytes()))
            });
            let value = &page[attribute.value.clone()];
            let Some(link) = std::str::from_utf8(value).ok().filter(|_| links) else {
                continue;
            };
            if let Some(moved) = behind(link, prefix, host) {
                out.extend_from_slice(&page[copied..attribute.value.start]);
                out.extend_from_slice(moved.as_bytes());
                copied = attribute.value.end;
            }
        }
        if matches!(element.as_str(), "script" | "style") {
            at = end_of(page, at, &element);
        }
    }
    out.extend_from_slice(&page[copied..]);
    out
}

struct Attribute<'p> {
    name: &'p [u8],
    value: std::ops::Range<usize>,
}

/// The next attribute of the element around `at`; `None` at its end, with `at` behind it.
fn attribute<'p>(page: &'p [u8], at: &mut usize) -> Option<Attribute<'p>> {
    let skip = |from: usize, while_: fn(&u8) -> bool| {
        from + page[from..].iter().take_while(|byte| while_(byte)).count()
    };
    let start = skip(*at, |byte| byte.is_ascii_whitespace() || *byte == b'/');
    let end = skip(start, |byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>' | b'/')
    });
    if start == end {
        // The end of the element, or something that is no attribute and is passed over.
        let ends = page.get(end).is_none_or(|byte| *byte == b'>');
        *at = (end + 1).min(page.len());
        return (!ends).then_some(Attribute {
            name: &[],
            value: end..end,
        });
    }
    let equals = skip(end, u8::is_ascii_whitespace);
    if page.get(equals) != Some(&b'=') {
        *at = end;
        return Some(Attribute {
            name: &page[start..end],
            value: end..end,
        });
    }
    let from = skip(equals + 1, u8::is_ascii_whitespace);
    let value = match page.get(from) {
        Some(quote @ (b'"' | b'\'')) => {
            let to = find(page, from + 1, *quote).unwrap_or(page.len());
            *at = (to + 1).min(page.len());
            from + 1..to
        }
        _ => {
            let to = skip(from, |byte| !byte.is_ascii_whitespace() && *byte != b'>');
            *at = to;
            from..to
        }
    };
    Some(Attribute {
        name: &page[start..end],
        value,
    })
}

/// Where an element ends whose text is not markup.
fn end_of(page: &[u8], from: usize, element: &str) -> usize {
    let end = format!("</{element}");
    page[from..]
        .windows(end.len())
        .position(|some| some.eq_ignore_ascii_case(end.as_bytes()))
        .map_or(page.len(), |found| from + found)
}

fn find(page: &[u8], from: usize, byte: u8) -> Option<usize> {
    page.get(from..)?
        .iter()
        .position(|other| *other == byte)
        .map(|found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/n/pods/p:80/proxy";

    fn rewritten(page: &str) -> String {
        String::from_utf8(rewrite(page.as_bytes(), PREFIX, "10.0.0.1:80")).unwrap()
    }

    #[test]
    fn links_from_the_root_go_through_the_proxy() {
        for (page, wanted) in [
            (r#"<a href="/x">t</a>"#, r#"<a href="P/x">t</a>"#),
            (r#"<A CLASS=b HREF='/x/'>"#, r#"<A CLASS=b HREF='P/x/'>"#),
            (r"<a href=/x>", r"<a href=P/x>"),
            (r#"<a href="x">"#, r#"<a href="x">"#),
            (r#"<a href="http://else/x">"#, r#"<a href="http://else/x">"#),
            (r#"<a href="http://10.0.0.1:80/x">"#, r#"<a href="P/x">"#),
            (r#"<a title="/x">"#, r#"<a title="/x">"#),
            (r#"<img/src="/i.png"/>"#, r#"<img/src="P/i.png"/>"#),
            (r#"<!-- <a href="/x"> -->"#, r#"<!-- <a href="/x"> -->"#),
            (
                r#"<script src="/a.js">"<a href='/x'>"</script><a href="/y">"#,
                r#"<script src="P/a.js">"<a href='/x'>"</script><a href="P/y">"#,
            ),
        ] {
            assert_eq!(
                rewritten(page),
                wanted.replace("P/", &format!("{PREFIX}/")),
                "{page}"
            );
        }
    }

    #[test]
    fn what_is_behind_the_proxy_already_stays() {
        let page = format!(r#"<a href="{PREFIX}/x">"#);
        assert_eq!(rewritten(&page), page);
    }

    #[test]
    fn no_page_is_too_broken() {
        for page in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href=\"",
            "<!--",
            "<script",
            "<a =/x>",
            "<a\u{e9}/=>",
        ] {
            assert_eq!(rewritten(page), page);
        }
    }
}
