//! COMPATIBILITY.md is generated from the rows: this test fails when it is not up to date, and
//! writes it with `EVENKEEL_UPDATE=1`.

use std::fmt::Write as _;
use std::path::Path;

use evenkeel_api::Rows;
use evenkeel_api::row::Storage;

const MARK: &str = "<!-- generated from the rows: EVENKEEL_UPDATE=1 cargo test -p evenkeel-api --test compatibility -->";

fn table() -> String {
    let mut out = String::from(
        "| kind | group/version | verbs | subresources | selectable fields beyond name and namespace |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for row in Rows::builtin().iter() {
        if row.storage == Storage::BodyOnly {
            continue;
        }
        let verbs = if row.verbs.len() == evenkeel_api::row::ALL_VERBS.len() {
            "all".to_owned()
        } else {
            row.verbs
                .iter()
                .map(|verb| verb.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let subresources: Vec<&str> = row.subresources.iter().map(|sub| sub.as_str()).collect();
        let fields: Vec<&str> = row
            .selectable
            .iter()
            .map(|field| field.path.as_ref())
            .collect();
        let gate = row.gate.map(|gate| format!(" (gate {gate})"));
        writeln!(
            out,
            "| {}{} | {} | {verbs} | {} | {} |",
            row.gvk.kind,
            gate.unwrap_or_default(),
            row.gvk.api_version(),
            subresources.join(", "),
            fields.join(", ")
        )
        .expect("into a string");
    }
    out
}

#[test]
fn the_page_says_what_the_rows_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../COMPATIBILITY.md");
    let page = std::fs::read_to_string(&path).expect("COMPATIBILITY.md is there");
    let (before, rest) = page.split_once(MARK).expect("the page has its mark");
    let after = rest
        .split_once("\n\n")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .map_or("", |(_, rest)| rest);
    let wanted = format!("{before}{MARK}\n\n{}\n{after}", table());
    if std::env::var_os("EVENKEEL_UPDATE").is_some() {
        std::fs::write(&path, wanted).expect("written");
        return;
    }
    assert!(
        page.contains(&table()),
        "COMPATIBILITY.md is not up to date; see its mark"
    );
}
