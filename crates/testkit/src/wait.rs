//! Waiting for what the loops bring about: a test asks until it is so. No test says how long anything
//! takes; the one bound here is for what never comes.

use std::time::Duration;

use serde_json::Value;

use crate::request::Caller;

/// How long anything may take: a loaded machine, not the loops, needs it.
pub const BOUND: Duration = Duration::from_secs(60);

/// Asks until the answer is what is waited for, with a bound.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, asking)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

impl Caller {
    /// Gets a path until what is there is `good`, with a bound. What came last is told.
    pub async fn until(
        &self,
        path: &str,
        what: &str,
        mut good: impl FnMut(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let waiting = async {
            loop {
                last = self.get(path).await.body;
                if good(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(BOUND, waiting).await.is_err() {
            panic!("waited in vain: {what}\n{last:#}");
        }
        last
    }
}
