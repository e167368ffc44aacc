//! Termination messages: what a container wrote for those who ask why it ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use evenkeel_runtime::ContainerStatus;

use super::model::PodModel;
use super::observed::Observed;
use super::plan::ended;
use crate::spec::container::MESSAGE_FILE;

/// Longest message of one container, bytes.
const MAX_MESSAGE: u64 = 4096;
/// What is taken from the log when the message is empty: bytes and lines.
const MAX_LOG: u64 = 2048;
const MAX_LOG_LINES: usize = 80;

/// Reads the messages of containers that ended and have not been read.
pub fn read_new(model: &PodModel, observed: &Observed, messages: &mut BTreeMap<String, String>) {
    for status in &observed.containers {
        if ended(status) && !messages.contains_key(&status.id) {
            messages.insert(status.id.clone(), read(model, status));
        }
    }
    if messages.len() > observed.containers.len() {
        messages.retain(|id, _| observed.containers.iter().any(|status| status.id == *id));
    }
}

fn read(model: &PodModel, status: &ContainerStatus) -> String {
    let mut text = String::new();
    if let Some(file) = status.annotations.get(MESSAGE_FILE) {
        text = head(Path::new(file), MAX_MESSAGE);
    }
    let fall_back = model.container(&status.name).is_some_and(|container| {
        container.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
    });
    if text.is_empty() && fall_back && status.exit_code != 0 {
        text = log_tail(&status.log_path);
    }
    text
}

fn head(path: &Path, most: u64) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The end of a log in the CRI format (`TIME STREAM TAG TEXT`), without the frame.
fn log_tail(path: &Path) -> String {
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        // The frame of each line is not counted: read more than is shown.
        file.seek(SeekFrom::Start(size.saturating_sub(4 * MAX_LOG)))?;
        let mut bytes = Vec::new();
        file.take(4 * MAX_LOG).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Ok(bytes) = tail() else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = Vec::new();
    let mut left = usize::try_from(MAX_LOG).unwrap_or(0);
    for line in text.lines().rev().take(MAX_LOG_LINES) {
        let mut frame = line.splitn(4, ' ').skip(2);
        let (Some(tag), Some(text)) = (frame.next(), frame.next()) else {
            continue;
        };
        // A partial line goes on in the next one, or the container ended without an end of line.
        let end = if tag == "P" { "" } else { "\n" };
        if text.len() + end.len() > left {
            break;
        }
        left -= text.len() + end.len();
        lines.push(format!("{text}{end}"));
    }
    lines.reverse();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let time = "2026-01-01T00:00:00.000000000Z";
        let log = format!("{time} stdout F one\n{time} stderr P tw\n{time} stderr P o\n");
        fs::write(&path, log).unwrap();
        assert_eq!(log_tail(&path), "one\ntwo");
        assert_eq!(log_tail(Path::new("/nowhere")), "");
    }
}
