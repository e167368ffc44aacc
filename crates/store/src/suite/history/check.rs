//! Whether a recorded history can be.

use std::collections::{BTreeMap, HashMap};

use super::{Asked, Entry, Figures, OBSERVER, Told};
use crate::model::Revision;

type State = BTreeMap<String, (String, Revision)>;

/// One call of a history.
struct Call<'a> {
    asked: &'a Asked,
    began: usize,
    told: Option<(&'a Told, usize)>,
}

/// What happened at one revision: key, value, creation and version of each event.
type Happened<'a> = Vec<(&'a str, Option<&'a str>, Revision, u64)>;

/// Checks a history. `contiguous` says that nobody else writes to the store, so that no revision
/// may be missing from what the observer saw.
///
/// # Errors
/// The first thing that can't be.
pub fn check(entries: &[Entry], contiguous: bool) -> Result<Figures, String> {
    let mut calls: BTreeMap<u64, Call<'_>> = BTreeMap::new();
    let mut truth: BTreeMap<Revision, Happened<'_>> = BTreeMap::new();
    let mut last = 0;
    for (at, entry) in entries.iter().enumerate() {
        match entry {
            Entry::Call(id, asked) => {
                let call = Call {
                    asked,
                    began: at,
                    told: None,
                };
                calls.insert(*id, call);
            }
            Entry::Return(id, told) => {
                let call = calls.get_mut(id).ok_or("an answer to no call")?;
                call.told = Some((told, at));
            }
            Entry::Event(OBSERVER, revision, key, value, created, version) => {
                if *revision < last {
                    return Err(format!("revision {revision} was told after {last}"));
                }
                if contiguous && last > 0 && *revision > last + 1 {
                    return Err(format!("revision {revision} was told after {last}: a gap"));
                }
                last = *revision;
                let event = (key.as_str(), value.as_deref(), *created, *version);
                truth.entry(*revision).or_default().push(event);
            }
            _ => {}
        }
    }
    let states = replay(&truth)?;
    let mut figures = attribute(&calls, &truth, &states)?;
    figures.revisions = truth.len();
    watches(entries, &truth)?;
    Ok(figures)
}

/// The state after each revision; what each event says about its key must fit.
fn replay(truth: &BTreeMap<Revision, Happened<'_>>) -> Result<BTreeMap<Revision, State>, String> {
    let mut state = State::new();
    let mut heads: HashMap<&str, (Revision, u64)> = HashMap::new();
    let mut states = BTreeMap::from([(0, State::new())]);
    for (revision, events) in truth {
        for (key, value, created, version) in events {
            match value {
                Some(value) => {
                    let head = heads.entry(key).or_insert((*revision, 0));
                    head.1 += 1;
                    if *head != (*created, *version) {
                        return Err(format!(
                            "{key} at {revision}: created at {created}, version {version}, and \
                             {head:?} by what was told before"
                        ));
                    }
                    state.insert((*key).to_owned(), ((*value).to_owned(), *revision));
                }
                None => {
                    if state.remove(*key).is_none() || heads.remove(key).is_none() {
                        return Err(format!("{key} was deleted at {revision} and was not there"));
                    }
                }
            }
        }
        states.insert(*revision, state.clone());
    }
    Ok(states)
}

/// Finds for every revision the call that made it, and checks answers and real time.
fn attribute(
    calls: &BTreeMap<u64, Call<'_>>,
    truth: &BTreeMap<Revision, Happened<'_>>,
    states: &BTreeMap<Revision, State>,
) -> Result<Figures, String> {
    let mut figures = Figures::default();
    let mut makers: BTreeMap<Revision, u64> = BTreeMap::new();
    let empty = State::new();
    let state_at = |revision: Revision| {
        states
            .range(..=revision)
            .next_back()
            .map_or(&empty, |(_, state)| state)
    };
    // Values are unique: a put says who made it.
    for (revision, events) in truth {
        let Some(value) = events.iter().find_map(|event| event.1) else {
            continue;
        };
        let id: Option<u64> = value.split('-').nth(1).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| format!("nobody wrote {value:?}"))?;
        let call = calls.get(&id).ok_or("a value of no call")?;
        if !effect(call.asked, events) {
            return Err(format!(
                "revision {revision} is not what {:?} does",
                call.asked
            ));
        }
        makers.insert(*revision, id);
    }
    for (id, call) in calls {
        let happened = makers.iter().filter(|(_, maker)| *maker == id);
        let happened: Vec<Revision> = happened.map(|(revision, _)| *revision).collect();
        match (call.asked, call.told.map(|(told, _)| told)) {
            (Asked::Read, Some(Told::State(revision, kvs))) => {
                figures.reads += 1;
                let state = state_at(*revision);
                let same = kvs.len() == state.len()
                    && kvs
                        .iter()
                        .all(|(key, value, at)| state.get(key) == Some(&(value.clone(), *at)));
                if !same {
                    return Err(format!(
                        "call {id} read another state than that of {revision}"
                    ));
                }
            }
            (Asked::Read, _) => {}
            (Asked::Delete(key), Some(Told::Done(true, revision))) => {
                figures.writes += 1;
                let events = truth.get(revision);
                if !events.is_some_and(|events| effect(call.asked, events)) {
                    return Err(format!("the deletion of {key} at {revision} is lost"));
                }
                if let Some(other) = makers.insert(*revision, *id) {
                    return Err(format!("calls {id} and {other} share revision {revision}"));
                }
            }
            (Asked::Delete(key), Some(Told::Done(false, revision))) => {
                if state_at(*revision).contains_key(key) {
                    return Err(format!(
                        "call {id} found no {key} at {revision}; it is there"
                    ));
                }
            }
            (_, Some(Told::Done(true, revision))) => {
                figures.writes += 1;
                if happened != [*revision] {
                    return Err(format!(
                        "call {id} was told {revision}, and happened at {happened:?}"
                    ));
                }
                if let Asked::Swap(key, expected, _) = call.asked {
                    let before = state_at(revision - 1).get(key).map_or(0, |(_, at)| *at);
                    if before != *expected {
                        return Err(format!(
                            "call {id} swapped {key} of {expected}, and it was of {before}"
                        ));
                    }
                }
            }
            (Asked::Swap(key, expected, _), Some(Told::Done(false, revision))) => {
                figures.lost_swaps += 1;
                let there = state_at(*revision).get(key).map_or(0, |(_, at)| *at);
                if there == *expected || !happened.is_empty() {
                    return Err(format!(
                        "call {id} was refused at {revision} without reason"
                    ));
                }
            }
            (_, Some(Told::Refused)) => {
                if !happened.is_empty() {
                    return Err(format!(
                        "call {id} was refused and happened at {happened:?}"
                    ));
                }
            }
            (_, None | Some(Told::Unknown)) => {
                figures.unknown += 1;
                figures.unknown_happened += happened.len();
                if happened.len() > 1 {
                    return Err(format!("call {id} happened twice: {happened:?}"));
                }
            }
            (asked, told) => return Err(format!("call {id}: {asked:?} was told {told:?}")),
        }
    }
    deletions(calls, truth, &makers)?;
    real_time(calls, &makers)?;
    Ok(figures)
}

/// Deletions that nobody was told of must have been asked for.
fn deletions(
    calls: &BTreeMap<u64, Call<'_>>,
    truth: &BTreeMap<Revision, Happened<'_>>,
    makers: &BTreeMap<Revision, u64>,
) -> Result<(), String> {
    let mut open: HashMap<&str, usize> = HashMap::new();
    for call in calls.values() {
        if let (Asked::Delete(key), None | Some((Told::Unknown, _))) = (call.asked, &call.told) {
            *open.entry(key.as_str()).or_default() += 1;
        }
    }
    for (revision, events) in truth.iter().filter(|(at, _)| !makers.contains_key(at)) {
        for (key, ..) in events {
            match open.get_mut(key).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => return Err(format!("nobody deleted {key} at {revision}")),
            }
        }
    }
    Ok(())
}

/// Whether what happened at a revision is what a call does.
fn effect(asked: &Asked, events: &[(&str, Option<&str>, Revision, u64)]) -> bool {
    let puts = |keys: &[&String], value: &String| {
        events.len() == keys.len()
            && keys
                .iter()
                .zip(events)
                .all(|(key, event)| event.0 == key.as_str() && event.1 == Some(value.as_str()))
    };
    match asked {
        Asked::Put(key, value) | Asked::Swap(key, _, value) => puts(&[key], value),
        Asked::Pair(one, two, value) => puts(&[one, two], value) || puts(&[two, one], value),
        Asked::Delete(key) => matches!(events, [(k, None, ..)] if k == key),
        Asked::Read => false,
    }
}

/// The order of revisions must fit the order of calls and answers.
fn real_time(
    calls: &BTreeMap<u64, Call<'_>>,
    makers: &BTreeMap<Revision, u64>,
) -> Result<(), String> {
    // The latest beginning of all that happened up to each revision.
    let mut latest = BTreeMap::new();
    let mut begun = 0;
    for (revision, id) in makers {
        begun = begun.max(calls[id].began);
        latest.insert(*revision, begun);
    }
    // Answers in the order of time, with the revision that each had reached.
    let mut answers: Vec<(usize, Revision)> = Vec::new();
    let mut timed: Vec<(&u64, &Call<'_>, Revision, bool)> = Vec::new();
    for (id, call) in calls {
        let Some((told, at)) = call.told else {
            continue;
        };
        let (revision, changed) = match told {
            Told::Done(changed, revision) => (*revision, *changed),
            Told::State(revision, _) => (*revision, false),
            _ => continue,
        };
        if let Some((_, begun)) = latest.range(..=revision).next_back()
            && *begun > at
        {
            return Err(format!(
                "call {id} saw revision {revision} before it was asked for"
            ));
        }
        answers.push((at, revision));
        timed.push((id, call, revision, changed));
    }
    answers.sort_unstable();
    let mut reached = 0;
    for answer in &mut answers {
        reached = reached.max(answer.1);
        answer.1 = reached;
    }
    for (id, call, revision, changed) in timed {
        let before = answers.partition_point(|(at, _)| *at < call.began);
        let Some((_, floor)) = before.checked_sub(1).map(|last| answers[last]) else {
            continue;
        };
        if revision < floor || (changed && revision == floor) {
            return Err(format!(
                "call {id} was answered with revision {revision} after {floor} was told"
            ));
        }
    }
    Ok(())
}

/// Every watch must have told the truth about its prefix, without a gap.
fn watches(entries: &[Entry], truth: &BTreeMap<Revision, Happened<'_>>) -> Result<(), String> {
    /// The prefix, where it began, and what it told.
    type Watched<'a> = (&'a str, Revision, Vec<(Revision, &'a str, Option<&'a str>)>);
    let mut told: BTreeMap<u64, Watched<'_>> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Watch(watch, prefix, from) if *watch != OBSERVER => {
                told.insert(*watch, (prefix, *from, Vec::new()));
            }
            Entry::Event(watch, revision, key, value, ..) if *watch != OBSERVER => {
                let (.., events) = told.get_mut(watch).ok_or("an event of no watch")?;
                events.push((*revision, key, value.as_deref()));
            }
            _ => {}
        }
    }
    let observed = truth.first_key_value().map_or(0, |(first, _)| *first);
    for (watch, (prefix, from, events)) in told {
        let expected = truth
            .range(from.max(observed)..)
            .flat_map(|(revision, events)| {
                let covered = events.iter().filter(|event| event.0.starts_with(prefix));
                covered.map(move |event| (*revision, event.0, event.1))
            });
        let events = events.iter().filter(|event| event.0 >= observed);
        for (told, happened) in events.zip(expected) {
            if *told != happened {
                return Err(format!(
                    "watch {watch} told {told:?} instead of {happened:?}"
                ));
            }
        }
    }
    Ok(())
}
