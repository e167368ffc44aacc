//! Counters of auditing under the reference's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::event::Level;
use crate::metrics::head;

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    events: AtomicU64,
    levels: [AtomicU64; Level::ALL.len()],
    rejected: AtomicU64,
    failed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn level(&self, level: Level) {
        let place = Level::ALL.iter().position(|one| *one == level);
        self.levels[place.unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Events that did not get where they should be.
    pub(super) fn failed(&self, plugin: &'static str, events: usize) {
        *self.failed.lock().entry(plugin).or_default() += events as u64;
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String can't fail.
        let mut line = |text: std::fmt::Arguments<'_>, named: Option<(&str, &str)>| {
            if let Some((name, help)) = named {
                head(&mut out, name, "counter", help);
            }
            writeln!(out, "{text}").unwrap_or_default();
        };
        let events = self.events.load(Ordering::Relaxed);
        let name = "apiserver_audit_event_total";
        let help = "Counter of audit events generated and sent to the audit backend.";
        line(format_args!("{name} {events}"), Some((name, help)));
        let name = "apiserver_audit_level_total";
        let help = "Counter of policy levels for audit events (1 per request).";
        let mut named = Some((name, help));
        for (level, count) in Level::ALL.iter().zip(&self.levels) {
            let count = count.load(Ordering::Relaxed);
            let level = level.as_str();
            line(
                format_args!("{name}{{level=\"{level}\"}} {count}"),
                named.take(),
            );
        }
        let name = "apiserver_audit_error_total";
        let help = "Counter of audit events that failed to be audited properly. Plugin identifies \
                    the plugin affected by the error.";
        let mut named = Some((name, help));
        for (plugin, count) in self.failed.lock().iter() {
            line(
                format_args!("{name}{{plugin=\"{plugin}\"}} {count}"),
                named.take(),
            );
        }
        let rejected = self.rejected.load(Ordering::Relaxed);
        let name = "apiserver_audit_requests_rejected_total";
        let help = "Counter of apiserver requests rejected due to an error in audit logging \
                    backend.";
        line(format_args!("{name} {rejected}"), Some((name, help)));
        out
    }
}
