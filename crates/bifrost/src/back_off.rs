//! Waiting before another attempt, longer each time.

use std::time::Duration;

use bifrost_types::plant::{self, Plant};
use tokio::time::sleep;

/// The first pause: about what a healthy peer needs for a few answers.
const FIRST: Duration = Duration::from_millis(5);
/// The longest pause: how late the end of a fault may be noticed.
const MAX: Duration = Duration::from_secs(1);

/// Pauses that double from 5 ms to 1 s until something went well.
#[derive(Debug)]
pub(crate) struct BackOff {
    next: Duration,
}

impl BackOff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// Something went well: the next pause is short again.
    pub(crate) const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Waits.
    pub(crate) async fn pause(&mut self) {
        let pause = self.next;
        self.next = if plant::is(Plant::BackOffNeverDecays) { pause } else { (pause * 2).min(MAX) };
        sleep(pause).await;
    }
}
