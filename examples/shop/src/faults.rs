//! Faults on demand, so that tests and people can see what the platform does about them:
//! `POST /fault/fail`, `/fault/hang`, `/fault/unready`, `/fault/heal`, `/fault/eat?mb=N`,
//! `/fault/exit?code=N`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::http::Reply;

/// What is wrong at the moment.
#[derive(Default)]
pub(crate) struct Faults {
    fail: AtomicBool,
    hang: AtomicBool,
    unready: AtomicBool,
    eaten: Mutex<Vec<Vec<u8>>>,
}

impl Faults {
    pub(crate) fn failing(&self) -> bool {
        self.fail.load(Ordering::Relaxed)
    }

    pub(crate) fn ready(&self) -> bool {
        !self.unready.load(Ordering::Relaxed)
    }

    /// Waits as long as the service has been told to hang.
    pub(crate) fn maybe_hang(&self) {
        while self.hang.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn set(&self, path: &str, query: &str) -> Reply {
        let number = |name: &str| {
            query
                .split('&')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .and_then(|text| text.parse::<usize>().ok())
        };
        match path.trim_start_matches("/fault/") {
            "fail" => self.fail.store(true, Ordering::Relaxed),
            "hang" => self.hang.store(true, Ordering::Relaxed),
            "unready" => self.unready.store(true, Ordering::Relaxed),
            "heal" => {
                for fault in [&self.fail, &self.hang, &self.unready] {
                    fault.store(false, Ordering::Relaxed);
                }
            }
            "eat" => self.eat(number("mb").unwrap_or(64)),
            "exit" => {
                println!("told to exit");
                std::process::exit(
                    number("code")
                        .and_then(|code| i32::try_from(code).ok())
                        .unwrap_or(1),
                );
            }
            other => return Reply::text(404, &format!("no fault {other}\n")),
        }
        println!("fault: {path}");
        Reply::text(200, "done\n")
    }

    /// Takes memory and touches every page of it, so that it counts.
    fn eat(&self, mebibytes: usize) {
        for _ in 0..mebibytes {
            if let Ok(mut eaten) = self.eaten.lock() {
                eaten.push(vec![1; 1 << 20]);
            }
        }
    }
}
