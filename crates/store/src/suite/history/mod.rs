//! Records what concurrent clients asked and were told, and checks it afterwards.
//!
//! The store claims an order: its revisions. So the check needs no search. The observer's watch is
//! the truth of what happened; replaying it gives the state at each revision. Every answer must fit
//! the state at its revision, and the order of revisions must fit real time: what was answered
//! before a call began lies before it, and what was begun after an answer lies behind it. Together
//! that is linearizability. A call without an answer may have happened once, or not at all.

mod check;
mod record;
#[cfg(test)]
mod tests;

use crate::model::Revision;

pub use check::check;
pub use record::{Random, Recorder};

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Put one key.
    Put(String, String),
    /// Put two keys to one value in one transaction.
    Pair(String, String, String),
    /// Put a key if it was last changed at a revision; 0: if it is absent.
    Swap(String, Revision, String),
    /// Delete a key.
    Delete(String),
    /// Read all keys.
    Read,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A transaction was carried out: whether its conditions held, and the revision after it.
    Done(bool, Revision),
    /// The state: its revision, and keys with value and revision.
    State(Revision, Vec<(String, String, Revision)>),
    /// It was refused; nothing of it was kept.
    Refused,
    /// It failed and may have been carried out.
    Unknown,
}

/// One line of a history, in the order in which things happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A call began.
    Call(u64, Asked),
    /// A call was answered.
    Return(u64, Told),
    /// A watch was opened on a key prefix from a revision on.
    Watch(u64, String, Revision),
    /// A watch told one event: revision, key, value (`None`: deleted), creation, version.
    Event(u64, Revision, String, Option<String>, Revision, u64),
}

impl Entry {
    /// As one line, for who records in another process than the one that checks.
    #[must_use]
    pub fn to_line(&self) -> String {
        let parts: Vec<String> = match self {
            Self::Call(id, asked) => {
                let mut parts = vec!["C".to_owned(), id.to_string()];
                parts.extend(match asked {
                    Asked::Put(key, value) => vec!["P".to_owned(), key.clone(), value.clone()],
                    Asked::Pair(one, two, value) => {
                        vec!["2".to_owned(), one.clone(), two.clone(), value.clone()]
                    }
                    Asked::Swap(key, at, value) => {
                        vec!["S".to_owned(), key.clone(), at.to_string(), value.clone()]
                    }
                    Asked::Delete(key) => vec!["D".to_owned(), key.clone()],
                    Asked::Read => vec!["R".to_owned()],
                });
                parts
            }
            Self::Return(id, told) => {
                let mut parts = vec!["R".to_owned(), id.to_string()];
                match told {
                    Told::Done(held, revision) => {
                        let held = if *held { "T" } else { "F" };
                        parts.extend([held.to_owned(), revision.to_string()]);
                    }
                    Told::State(revision, kvs) => {
                        parts.extend(["S".to_owned(), revision.to_string()]);
                        for (key, value, at) in kvs {
                            parts.extend([key.clone(), value.clone(), at.to_string()]);
                        }
                    }
                    Told::Refused => parts.push("N".to_owned()),
                    Told::Unknown => parts.push("U".to_owned()),
                }
                parts
            }
            Self::Watch(watch, prefix, from) => vec![
                "W".to_owned(),
                watch.to_string(),
                prefix.clone(),
                from.to_string(),
            ],
            Self::Event(watch, revision, key, value, created, version) => vec![
                "E".to_owned(),
                watch.to_string(),
                revision.to_string(),
                key.clone(),
                created.to_string(),
                version.to_string(),
                if value.is_some() { "P" } else { "D" }.to_owned(),
                value.clone().unwrap_or_default(),
            ],
        };
        parts.join("\t")
    }

    /// Reads a line back; `None` for one that is not whole.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let parts: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| parts.get(at)?.parse::<u64>().ok();
        let text = |at: usize| parts.get(at).map(|part| (*part).to_owned());
        let id = number(1)?;
        Some(match (*parts.first()?, *parts.get(2)?) {
            ("C", "P") => Self::Call(id, Asked::Put(text(3)?, text(4)?)),
            ("C", "2") => Self::Call(id, Asked::Pair(text(3)?, text(4)?, text(5)?)),
            ("C", "S") => Self::Call(id, Asked::Swap(text(3)?, number(4)?, text(5)?)),
            ("C", "D") => Self::Call(id, Asked::Delete(text(3)?)),
            ("C", "R") => Self::Call(id, Asked::Read),
            ("R", held @ ("T" | "F")) => Self::Return(id, Told::Done(held == "T", number(3)?)),
            ("R", "S") => {
                let kvs = parts[4..].chunks(3).map(|kv| {
                    let [key, value, at] = kv else { return None };
                    Some(((*key).to_owned(), (*value).to_owned(), at.parse().ok()?))
                });
                Self::Return(id, Told::State(number(3)?, kvs.collect::<Option<_>>()?))
            }
            ("R", "N") => Self::Return(id, Told::Refused),
            ("R", "U") => Self::Return(id, Told::Unknown),
            ("W", prefix) => Self::Watch(id, prefix.to_owned(), number(3)?),
            ("E", _) => {
                let value = (*parts.get(6)? == "P").then(|| text(7)).flatten();
                Self::Event(id, number(2)?, text(3)?, value, number(4)?, number(5)?)
            }
            _ => return None,
        })
    }
}

/// What a history held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Writes that were acknowledged.
    pub writes: usize,
    /// Swaps whose condition did not hold.
    pub lost_swaps: usize,
    /// Reads.
    pub reads: usize,
    /// Calls without an answer, and how many of those had happened.
    pub unknown: usize,
    /// See above.
    pub unknown_happened: usize,
    /// Revisions that the observer saw.
    pub revisions: usize,
}

/// The watch whose events are the truth.
const OBSERVER: u64 = 0;
