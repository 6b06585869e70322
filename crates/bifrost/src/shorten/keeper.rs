//! Whose chain is shortened next, of the logs that nobody else shortens: a core beside that of the controller. No clock, no IO;
//! times are since an arbitrary start.
//!
//! It keeps nothing but the logs with spent segments, and asks nobody anything while there are none. News that is older than
//! what an attempt saw costs one more look at a chain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bifrost_types::LogId;

/// How long whoever trims is left alone. Most of it is over by then.
const GRACE: Duration = Duration::from_secs(1);
/// The pause after the first attempt that left something; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause: how late a server that answers again may be asked for its space.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Logs that are worked on at once: nobody waits for them.
const AT_ONCE: usize = 4;

/// What a keeper is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All logs with spent segments, read anew.
    Listed {
        /// Each with the time that others have before this keeper.
        logs: BTreeMap<LogId, Duration>,
    },
    /// A chain as it is now.
    Seen {
        /// The log.
        log: LogId,
        /// Whether it has spent segments; if so, the time that others have before this keeper.
        due: Option<Duration>,
    },
    /// A node began a life or changed its state: perhaps it was what was waited for.
    NodesChanged,
    /// An attempt ended, however. What it did is told as a chain that was seen.
    Ended {
        /// The log.
        log: LogId,
    },
    /// It is [`Keeper::wake_at`].
    Woken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        due: Duration,
    },
    /// An attempt is under way; `over` says that the chain was seen without spent segments since.
    Running {
        over: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    failed: u32,
    state: State,
}

/// The core. Kept: a log waits in `queue` exactly if its case says so; attempts under way `<=` [`AT_ONCE`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keeper {
    cases: BTreeMap<LogId, Case>,
    queue: BTreeSet<(Duration, LogId)>,
    running: usize,
}

impl Keeper {
    /// Takes note of an event; `out` gets the logs whose chains are to be shortened now.
    pub fn step(&mut self, now: Duration, event: Event, out: &mut Vec<LogId>) {
        match event {
            Event::Listed { logs } => {
                let known: Vec<LogId> = self.cases.keys().copied().collect();
                for log in known.into_iter().filter(|log| !logs.contains_key(log)) {
                    self.on_seen(now, log, None);
                }
                for (log, turn) in logs {
                    self.on_seen(now, log, Some(turn));
                }
            }
            Event::Seen { log, due } => self.on_seen(now, log, due),
            Event::NodesChanged => self.hurry(now),
            Event::Ended { log } => self.on_ended(now, log),
            Event::Woken => {}
        }
        while self.running < AT_ONCE
            && let Some(&(due, log)) = self.queue.first()
            && due <= now
        {
            self.queue.pop_first();
            if let Some(case) = self.cases.get_mut(&log) {
                case.state = State::Running { over: false };
                self.running += 1;
                out.push(log);
            }
        }
    }

    /// When to send [`Event::Woken`] if nothing else happens; `None` when only news changes anything.
    pub fn wake_at(&self) -> Option<Duration> {
        self.queue.first().filter(|_| self.running < AT_ONCE).map(|(due, _)| *due)
    }

    fn on_seen(&mut self, now: Duration, log: LogId, due: Option<Duration>) {
        match (self.cases.get_mut(&log), due) {
            (None, None) => {}
            (None, Some(turn)) => {
                let due = now.saturating_add(GRACE).saturating_add(turn);
                self.cases.insert(log, Case { failed: 0, state: State::Waiting { due } });
                self.queue.insert((due, log));
            }
            (Some(Case { state: State::Running { over }, .. }), due) => *over = due.is_none(),
            (Some(Case { state: State::Waiting { .. }, .. }), Some(_)) => {}
            (Some(Case { state: State::Waiting { due }, .. }), None) => {
                self.queue.remove(&(*due, log));
                self.cases.remove(&log);
            }
        }
    }

    fn on_ended(&mut self, now: Duration, log: LogId) {
        let Some(case) = self.cases.get_mut(&log) else { return };
        let State::Running { over } = case.state else { return };
        self.running -= 1;
        if over {
            self.cases.remove(&log);
            return;
        }
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(case.failed)).min(PAUSE_MAX);
        let due = now.saturating_add(pause);
        *case = Case { failed: case.failed.saturating_add(1), state: State::Waiting { due } };
        self.queue.insert((due, log));
    }

    fn hurry(&mut self, now: Duration) {
        let soon = now.saturating_add(GRACE);
        for (due, log) in std::mem::take(&mut self.queue) {
            let due = due.min(soon);
            self.queue.insert((due, log));
            self.cases.insert(log, Case { failed: 0, state: State::Waiting { due } });
        }
    }

    /// Checks what the struct promises.
    ///
    /// # Panics
    /// When it is broken.
    pub fn check(&self) {
        let running = self.cases.values().filter(|case| matches!(case.state, State::Running { .. })).count();
        assert_eq!(running, self.running);
        assert!(running <= AT_ONCE);
        assert_eq!(self.queue.len(), self.cases.len() - running);
        for (log, case) in &self.cases {
            if let State::Waiting { due } = case.state {
                assert!(self.queue.contains(&(due, *log)), "{log} waits for nothing");
            }
        }
    }
}

#[cfg(test)]
mod tests;
