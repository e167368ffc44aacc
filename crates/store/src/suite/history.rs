//! Records what concurrent clients asked and were told, and checks it afterwards.
//!
//! The store claims an order: its revisions. So the check needs no search. The observer's watch is
//! the truth of what happened; replaying it gives the state at each revision. Every answer must fit
//! the state at its revision, and the order of revisions must fit real time: what was answered
//! before a call began lies before it, and what was begun after an answer lies behind it. Together
//! that is linearizability. A call without an answer may have happened once, or not at all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::error::StoreError;
use crate::model::{Compare, EventKind, Op, OpResult, Range, Revision, Txn};
use crate::store::Store;

/// So many keys all clients share.
const KEYS: u64 = 6;

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

type Sink = Box<dyn Fn(&Entry) + Send + Sync>;

struct Inner {
    store: Arc<dyn Store>,
    entries: Mutex<Vec<Entry>>,
    /// Called under the lock: for who passes entries on to another process.
    sink: Option<Sink>,
    next: AtomicU64,
    acknowledged: AtomicU64,
    observed: AtomicU64,
}

/// Carries out random calls on a store and records them. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// A small generator of numbers: the same seed, the same calls.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

impl Recorder {
    /// Records what is done to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with(store, 1, None)
    }

    /// As [`Self::new`], numbering calls from `first` on, and handing every entry to `sink` as it
    /// happens.
    #[must_use]
    pub fn with(store: Arc<dyn Store>, first: u64, sink: Option<Sink>) -> Self {
        Self(Arc::new(Inner {
            store,
            entries: Mutex::default(),
            sink,
            next: AtomicU64::new(first.max(1)),
            acknowledged: AtomicU64::new(0),
            observed: AtomicU64::new(0),
        }))
    }

    /// What has been recorded.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.entries.lock().clone()
    }

    /// How many writes have been acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::SeqCst)
    }

    /// Up to which revision the observer has come.
    #[must_use]
    pub fn observed(&self) -> Revision {
        self.0.observed.load(Ordering::SeqCst)
    }

    fn note(&self, entry: Entry) {
        let mut entries = self.0.entries.lock();
        match &self.0.sink {
            Some(sink) => sink(&entry),
            None => entries.push(entry),
        }
    }

    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Starts the observer, from the revision `from` on; `None`: with the next one.
    #[must_use]
    pub fn observe(&self, from: Option<Revision>) -> JoinHandle<()> {
        let recorder = self.clone();
        let before = from.map_or(0, |from| from.saturating_sub(1));
        self.0.observed.fetch_max(before, Ordering::SeqCst);
        spawn(async move {
            recorder.follow(OBSERVER, "", from).await;
        })
    }

    /// Opens watches on a prefix again and again, each from a revision of the recent past, until
    /// told to stop.
    #[must_use]
    pub fn watch_some(&self, prefix: &str, stop: Arc<AtomicBool>) -> JoinHandle<()> {
        let (recorder, prefix) = (self.clone(), prefix.to_owned());
        spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let watch = recorder.number();
                let from = recorder.observed();
                let follow = recorder.follow(watch, &prefix, Some(from.max(1)));
                let brief = std::time::Duration::from_millis(300);
                if tokio::time::timeout(brief, follow).await.is_ok() {
                    // It ended at once: that revision is compacted by now.
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        })
    }

    async fn follow(&self, watch: u64, prefix: &str, from: Option<Revision>) {
        let from = match from {
            Some(from) => from,
            None => match self.0.store.revision().await {
                Ok(revision) => revision + 1,
                Err(_) => return,
            },
        };
        let Range { start, end, .. } = Range::prefix(prefix.to_owned());
        let Ok(mut stream) = self.0.store.watch(start, end, Some(from)).await else {
            return;
        };
        self.note(Entry::Watch(watch, prefix.to_owned(), from));
        while let Some(Ok(batch)) = stream.next().await {
            for event in &batch.events {
                let value = (event.kind == EventKind::Put).then(|| text(&event.kv.value));
                self.note(Entry::Event(
                    watch,
                    batch.revision,
                    text(&event.kv.key),
                    value,
                    event.kv.create_revision,
                    event.kv.version,
                ));
            }
            if watch == OBSERVER {
                self.0.observed.fetch_max(batch.revision, Ordering::SeqCst);
            }
        }
    }

    /// Makes random calls until told to stop.
    pub async fn client(&self, client: u64, seed: u64, stop: &AtomicBool) {
        let mut random = Random::new(seed);
        let mut seen: HashMap<String, Revision> = HashMap::new();
        while !stop.load(Ordering::SeqCst) {
            let id = self.number();
            let key = format!("k/{}", random.below(KEYS));
            let value = format!(
                "{client}-{id}-{}",
                "x".repeat(usize::try_from(random.below(600)).unwrap_or(0))
            );
            let asked = match random.below(20) {
                0..6 => Asked::Put(key, value),
                6..8 => Asked::Pair(key, format!("k/{}/twin", random.below(KEYS)), value),
                8..14 => {
                    let at = seen.get(&key).copied().unwrap_or(0);
                    Asked::Swap(key, at, value)
                }
                14..16 => Asked::Delete(key),
                _ => Asked::Read,
            };
            self.note(Entry::Call(id, asked.clone()));
            let told = self.ask(&asked).await;
            match &told {
                Told::Done(true, _) => {
                    self.0.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Told::State(_, kvs) => {
                    seen = kvs.iter().map(|(key, _, at)| (key.clone(), *at)).collect();
                }
                _ => {}
            }
            let failed = matches!(told, Told::Unknown | Told::Refused);
            self.note(Entry::Return(id, told));
            if failed {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    async fn ask(&self, asked: &Asked) -> Told {
        let bytes = |text: &String| Bytes::from(text.clone());
        let put = |key: &String, value: &String| Op::Put {
            key: bytes(key),
            value: bytes(value),
        };
        let (compare, success) = match asked {
            Asked::Put(key, value) => (None, vec![put(key, value)]),
            Asked::Pair(one, two, value) => (None, vec![put(one, value), put(two, value)]),
            Asked::Swap(key, revision, value) => {
                let compare = Compare::ModRevision {
                    key: bytes(key),
                    revision: *revision,
                };
                (Some(compare), vec![put(key, value)])
            }
            Asked::Delete(key) => (None, vec![Op::Delete { key: bytes(key) }]),
            Asked::Read => {
                return match self.0.store.range(Range::prefix("")).await {
                    Ok(read) => {
                        let kvs = read.kvs.iter();
                        let kvs = kvs.map(|kv| (text(&kv.key), text(&kv.value), kv.mod_revision));
                        Told::State(read.revision, kvs.collect())
                    }
                    Err(_) => Told::Refused,
                };
            }
        };
        let txn = Txn {
            compare: compare.into_iter().collect(),
            success,
            failure: Vec::new(),
        };
        match self.0.store.txn(txn).await {
            // A deletion of nothing makes no revision: it is a read of the key's absence.
            Ok(done)
                if done.succeeded
                    && done.results.iter().all(
                        |result| matches!(result, OpResult::Delete { prev } if prev.is_empty()),
                    ) =>
            {
                Told::Done(false, done.revision)
            }
            Ok(done) => Told::Done(done.succeeded, done.revision),
            Err(
                StoreError::Unavailable {
                    uncertain: false, ..
                }
                | StoreError::Full { .. }
                | StoreError::AlmostFull { .. },
            ) => Told::Refused,
            Err(_) => Told::Unknown,
        }
    }
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever started it ends it by its handle"
    )]
    tokio::spawn(work)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn put(id: u64, key: &str) -> Entry {
        Entry::Call(id, Asked::Put(key.to_owned(), format!("0-{id}-")))
    }

    fn done(id: u64, revision: Revision) -> Entry {
        Entry::Return(id, Told::Done(true, revision))
    }

    fn event(revision: Revision, key: &str, id: u64, created: Revision, version: u64) -> Entry {
        let value = Some(format!("0-{id}-"));
        Entry::Event(OBSERVER, revision, key.to_owned(), value, created, version)
    }

    #[test]
    fn a_sound_history_passes() {
        let entries = [
            put(1, "a"),
            put(2, "a"),
            done(2, 2),
            done(1, 3),
            put(3, "b"),
            event(2, "a", 2, 2, 1),
            event(3, "a", 1, 2, 2),
        ];
        let figures = check(&entries, true).expect("sound");
        assert_eq!((figures.writes, figures.unknown), (2, 1));
    }

    #[test]
    fn lines_are_read_back() {
        let entries = [
            Entry::Call(1, Asked::Put("k".to_owned(), "v".to_owned())),
            Entry::Call(
                2,
                Asked::Pair("k".to_owned(), "l".to_owned(), "v".to_owned()),
            ),
            Entry::Call(3, Asked::Swap("k".to_owned(), 7, "v".to_owned())),
            Entry::Call(4, Asked::Delete("k".to_owned())),
            Entry::Call(5, Asked::Read),
            done(1, 9),
            Entry::Return(2, Told::Unknown),
            Entry::Return(3, Told::Refused),
            Entry::Return(4, Told::State(3, Vec::new())),
            Entry::Return(5, Told::State(4, vec![("k".to_owned(), "v".to_owned(), 2)])),
            Entry::Watch(6, String::new(), 3),
            Entry::Event(6, 4, "k".to_owned(), None, 0, 0),
            event(5, "k", 1, 4, 2),
        ];
        for entry in entries {
            assert_eq!(Entry::from_line(&entry.to_line()), Some(entry));
        }
        assert_eq!(Entry::from_line("running 1 test"), None);
    }

    #[test]
    fn what_cannot_be_is_found() {
        let lost = [put(1, "a"), done(1, 2)];
        assert!(check(&lost, true).is_err(), "an acknowledged write is lost");
        let gap = [
            put(1, "a"),
            put(2, "b"),
            event(2, "a", 1, 2, 1),
            event(4, "b", 2, 4, 1),
        ];
        assert!(check(&gap, true).is_err(), "a revision was left out");
        let backwards = [
            put(1, "a"),
            done(1, 3),
            put(2, "b"),
            done(2, 2),
            event(2, "b", 2, 2, 1),
            event(3, "a", 1, 3, 1),
        ];
        assert!(check(&backwards, true).is_err(), "revisions against time");
        let state = Told::State(2, Vec::new());
        let stale = [
            put(1, "a"),
            done(1, 2),
            event(2, "a", 1, 2, 1),
            Entry::Call(2, Asked::Read),
            Entry::Return(2, state),
        ];
        assert!(check(&stale, true).is_err(), "a read without the write");
        let twice = [put(1, "a"), event(2, "a", 1, 2, 1), event(3, "a", 1, 2, 2)];
        assert!(check(&twice, true).is_err(), "a write that happened twice");
        let skipping = [
            put(1, "a"),
            put(2, "a"),
            event(2, "a", 1, 2, 1),
            event(3, "a", 2, 2, 2),
            Entry::Watch(7, "a".to_owned(), 2),
            Entry::Event(7, 3, "a".to_owned(), Some("0-2-".to_owned()), 2, 2),
        ];
        assert!(
            check(&skipping, true).is_err(),
            "a watch left something out"
        );
    }
}
