//! In which order things happened, and when appends were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shorter pauses between two acknowledgements are not kept.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Most pauses that are kept; the longest is known beyond it too.
const PAUSES_MAX: usize = 1 << 16;

/// The order of starts and acknowledgements over all appenders of a run, and the pauses between acknowledgements. Cheap to
/// clone; clones share it.
#[derive(Debug, Clone)]
pub struct Order {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    next: AtomicU32,
    /// Microseconds since `began` of the latest acknowledgement; 0 before the first.
    last_ack: AtomicU64,
    pauses: Mutex<Vec<Pause>>,
    longest: AtomicU64,
}

/// A time without an acknowledged append, in microseconds since the run began. Half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// The acknowledgement before it.
    pub from: u64,
    /// The acknowledgement after it.
    pub until: u64,
}

impl Pause {
    /// How long it was.
    pub const fn length(self) -> Duration {
        Duration::from_micros(self.until.saturating_sub(self.from))
    }
}

impl Order {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        let shared = Shared {
            began: Instant::now(),
            next: AtomicU32::new(1),
            last_ack: AtomicU64::new(0),
            pauses: Mutex::new(Vec::new()),
            longest: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The next place in the order: a place that was taken before this call began is smaller. A run has at most 2^32.
    pub(crate) fn stamp(&self) -> u32 {
        self.shared.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes note of an acknowledgement.
    pub(crate) fn acknowledged(&self) {
        self.ended_pause(self.now());
    }

    /// Ends the last pause when the appenders are told to stop, so that writers who were stuck until then are seen.
    pub fn stop(&self) {
        self.ended_pause(self.now());
    }

    fn ended_pause(&self, now: u64) {
        let from = self.shared.last_ack.fetch_max(now, Ordering::Relaxed);
        let pause = Pause { from, until: now };
        // What came before the first acknowledgement is the start, not a pause.
        if from == 0 || pause.length() < PAUSE_MIN {
            return;
        }
        self.shared.longest.fetch_max(now - from, Ordering::Relaxed);
        let mut pauses = self.shared.pauses.lock();
        if pauses.len() < PAUSES_MAX {
            pauses.push(pause);
        }
    }

    /// As if nothing had been acknowledged for this long.
    #[cfg(test)]
    pub(crate) fn stand_still(&self, length: Duration) {
        let last = self.shared.last_ack.load(Ordering::Relaxed).max(1);
        self.shared.last_ack.store(last, Ordering::Relaxed);
        self.ended_pause(last + u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
    }

    /// The longest time without an acknowledged append; zero if none was longer than 2 ms.
    pub fn longest_pause(&self) -> Duration {
        Duration::from_micros(self.shared.longest.load(Ordering::Relaxed))
    }

    /// The longest pause that has a moment in common with `[from, until)`, in microseconds since the run began.
    pub fn longest_pause_around(&self, from: u64, until: u64) -> Duration {
        let pauses = self.shared.pauses.lock();
        let around = pauses.iter().filter(|pause| pause.from < until && from < pause.until);
        around.map(|pause| pause.length()).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_found_by_the_interval_that_it_touches() {
        let order = Order::new();
        for at in [10, 1_000, 51_000, 52_000, 152_000] {
            order.ended_pause(at);
        }
        assert_eq!(order.longest_pause(), Duration::from_millis(100));
        assert_eq!(order.longest_pause_around(20_000, 20_001), Duration::from_millis(50));
        assert_eq!(order.longest_pause_around(51_000, 52_000), Duration::ZERO);
        assert_eq!(order.longest_pause_around(0, 60_000), Duration::from_millis(100));
    }
}
