//! Which logs are kept open. A core: time comes in, what is to be closed goes out.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use bifrost_types::LogId;
use tokio::time::Instant;

/// What is kept open, by log: at most `max`, each with the names that it was asked for by.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    max: NonZeroUsize,
    entries: BTreeMap<LogId, Entry<T>>,
    names: BTreeMap<String, LogId>,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    used_at: Instant,
}

impl<T: Clone> Shelf<T> {
    pub(super) const fn new(max: NonZeroUsize) -> Self {
        Self { max, entries: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// What is kept for a log.
    pub(super) fn by_id(&mut self, log: LogId, now: Instant) -> Option<T> {
        let entry = self.entries.get_mut(&log)?;
        entry.used_at = now;
        Some(entry.item.clone())
    }

    /// What is kept for the log that had this name when it was put here.
    pub(super) fn by_name(&mut self, name: &str, now: Instant) -> Option<T> {
        let log = *self.names.get(name)?;
        self.by_id(log, now)
    }

    /// Keeps something for a log, unless there is something already; returns what is kept. The name is that of the log now,
    /// whatever it was. If it is one too many, the one that was not used for the longest time goes.
    pub(super) fn put(&mut self, log: LogId, name: Option<String>, item: T, now: Instant) -> T {
        let entry = self.entries.entry(log).or_insert(Entry { item, used_at: now });
        entry.used_at = now;
        let item = entry.item.clone();
        if let Some(name) = name {
            self.names.insert(name, log);
        }
        if self.entries.len() > self.max.get() {
            let others = self.entries.iter().filter(|(other, _)| **other != log);
            let oldest = others.min_by_key(|(_, entry)| entry.used_at).map(|(log, _)| *log);
            if let Some(oldest) = oldest {
                self.remove(oldest);
            }
        }
        item
    }

    /// Keeps nothing for a log any more.
    pub(super) fn remove(&mut self, log: LogId) {
        self.entries.remove(&log);
        self.names.retain(|_, named| *named != log);
    }

    /// Takes out what was not used for this long.
    pub(super) fn take_idle(&mut self, now: Instant, idle_after: Duration) -> Vec<T> {
        let idle = |entry: &Entry<T>| now.saturating_duration_since(entry.used_at) >= idle_after;
        let logs: Vec<LogId> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(log, _)| *log).collect();
        let entries: Vec<T> = logs.iter().filter_map(|log| self.entries.remove(log)).map(|entry| entry.item).collect();
        self.names.retain(|_, named| self.entries.contains_key(named));
        entries
    }

    /// Keeps nothing any more.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.names.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(id: u64) -> LogId {
        LogId::try_from(id).expect("not 0")
    }

    fn shelf(max: usize) -> Shelf<u64> {
        Shelf::new(NonZeroUsize::new(max).expect("not 0"))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn what_was_not_used_for_the_longest_time_makes_room() {
        let now = Instant::now();
        let mut shelf = shelf(2);
        assert_eq!(shelf.put(log(1), Some("one".to_owned()), 10, now), 10);
        assert_eq!(shelf.put(log(2), None, 20, now + SECOND), 20);
        assert_eq!(shelf.by_name("one", now + 2 * SECOND), Some(10));
        shelf.put(log(3), None, 30, now + 3 * SECOND);
        assert_eq!(shelf.by_id(log(2), now), None, "it was used last before the others");
        assert_eq!((shelf.by_id(log(1), now), shelf.by_id(log(3), now)), (Some(10), Some(30)));
    }

    #[tokio::test]
    async fn what_is_kept_stays_and_a_name_moves_with_its_log() {
        let now = Instant::now();
        let mut shelf = shelf(4);
        shelf.put(log(1), Some("orders".to_owned()), 10, now);
        assert_eq!(shelf.put(log(1), None, 11, now), 10, "two that open at once share the first");
        // The log was deleted, and its name was given to another one.
        shelf.put(log(2), Some("orders".to_owned()), 20, now);
        assert_eq!(shelf.by_name("orders", now), Some(20));
        shelf.remove(log(1));
        assert_eq!(shelf.by_name("orders", now), Some(20));
        shelf.remove(log(2));
        assert_eq!(shelf.by_name("orders", now), None);
    }

    #[tokio::test]
    async fn the_unused_is_taken_out_with_its_names() {
        let now = Instant::now();
        let mut shelf = shelf(4);
        shelf.put(log(1), Some("one".to_owned()), 10, now);
        shelf.put(log(2), Some("two".to_owned()), 20, now + SECOND);
        assert_eq!(shelf.take_idle(now + SECOND, SECOND), [10]);
        assert_eq!((shelf.by_name("one", now), shelf.by_name("two", now)), (None, Some(20)));
        shelf.clear();
        assert_eq!(shelf.by_id(log(2), now), None);
    }
}
