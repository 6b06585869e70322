//! What is shared by the handles of each log, for as long as there is one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bifrost_types::LogId;

/// With fewer entries than this nobody looks which of them are held still.
const SWEEP_AT_FIRST: usize = 64;

/// Values that somebody else holds, by log, and some that nobody holds any more: fewer than half of all, or a few.
/// To look at all of them each time that one is asked for would cost a process with many logs more than anything else.
#[derive(Debug)]
pub(crate) struct States<T> {
    known: BTreeMap<LogId, Weak<T>>,
    /// With this many entries, those that nobody holds are swept out.
    sweep_at: usize,
}

impl<T> States<T> {
    pub(crate) const fn new() -> Self {
        Self { known: BTreeMap::new(), sweep_at: SWEEP_AT_FIRST }
    }

    /// The value of a log, if somebody holds it.
    pub(crate) fn get(&self, log: LogId) -> Option<Arc<T>> {
        self.known.get(&log).and_then(Weak::upgrade)
    }

    /// Takes note of a value that somebody holds from now on.
    pub(crate) fn insert(&mut self, log: LogId, value: &Arc<T>) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, value| value.strong_count() > 0);
            self.sweep_at = SWEEP_AT_FIRST.max(self.known.len() * 2);
        }
        self.known.insert(log, Arc::downgrade(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(number: u64) -> LogId {
        LogId::try_from(number).expect("not 0")
    }

    #[test]
    fn what_is_held_is_found_and_what_is_not_does_not_pile_up() {
        let mut states = States::new();
        let held: Vec<_> = (1..=100).map(|number| (log(number), Arc::new(number))).collect();
        for (log, value) in &held {
            states.insert(*log, value);
        }
        for number in 101..=10_000 {
            states.insert(log(number), &Arc::new(number));
        }
        assert!(held.iter().all(|(log, value)| states.get(*log).as_deref() == Some(value)));
        assert_eq!(states.get(log(10_000)), None);
        assert!(states.known.len() <= 2 * held.len() + SWEEP_AT_FIRST, "{} entries", states.known.len());
    }

    #[test]
    fn all_are_looked_at_once_while_their_number_doubles() {
        let mut states = States::new();
        let mut swept = 0;
        let held: Vec<_> = (1..=10_000).map(|number| (log(number), Arc::new(number))).collect();
        for (log, value) in &held {
            let before = states.sweep_at;
            states.insert(*log, value);
            swept += usize::from(states.sweep_at != before);
        }
        assert_eq!(swept, 8, "at 64, 128, .. 8192");
    }
}
