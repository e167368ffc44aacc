//! Fields that stand more than once in a mapping of YAML, told by their lines as the reference's
//! reader tells them.

use std::collections::HashSet;

use granit_parser::{Event, Parser};

use crate::json::MAX_ODD;

/// A collection that is open.
enum Level {
    List,
    Mapping {
        keys: HashSet<String>,
        /// The name whose value comes next, and whether it stood there before.
        name: Option<(String, bool)>,
    },
}

/// What is said of each field of the first document that stands there again.
pub(crate) fn repeated(text: &str) -> Vec<String> {
    let (mut open, mut said) = (Vec::<Level>::new(), Vec::new());
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let node = match event {
            Event::Scalar(text, ..) => Some((text.into_owned(), None)),
            Event::Alias(_) => Some((String::new(), None)),
            Event::SequenceStart(..) => Some((String::new(), Some(Level::List))),
            Event::MappingStart(..) => {
                let (keys, name) = (HashSet::new(), None);
                Some((String::new(), Some(Level::Mapping { keys, name })))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                None
            }
            Event::DocumentEnd => break,
            _ => None,
        };
        let Some((text, level)) = node else { continue };
        if let Some(Level::Mapping { keys, name }) = open.last_mut() {
            match name.take() {
                // A name that is a collection is nobody's twin.
                None => {
                    let again = level.is_none() && !keys.insert(text.clone());
                    *name = Some((text, again));
                }
                Some((name, true)) if said.len() < MAX_ODD => {
                    let line = span.start.line();
                    said.push(format!("line {line}: key {name:?} already set in map"));
                }
                Some(_) => {}
            }
        }
        open.extend(level);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::repeated;

    #[test]
    fn fields_that_stand_again_are_told_by_the_line_of_their_value() {
        let text = "\napiVersion: v1\nspec:\n  foo: a\n  foo: b\nlist:\n- {x: 1, x: 2}\n- x: 1\nspec:\n  \
                    foo: c\n? [a]\n: 1\n? [a]\n: 2\n---\nfoo: 1\nfoo: 2\n";
        assert_eq!(
            repeated(text),
            [
                "line 5: key \"foo\" already set in map",
                "line 7: key \"x\" already set in map",
                "line 10: key \"spec\" already set in map",
            ]
        );
        assert!(repeated("a: &a {b: 1}\nc: *a\nd: *a\n").is_empty());
        assert_eq!(repeated(&"a: 1\n".repeat(200)).len(), 100);
    }
}
