//! Takes a history event by event.

use crate::breach::{Breach, EventNumber, Judge, Summary, Tally};
use crate::end::End;
use crate::event::{Event, Micros};
use crate::rule::Rule;

/// Judges one history.
#[derive(Debug, Default)]
pub struct Checker {
    judge: Judge,
    events: EventNumber,
}

impl Checker {
    /// Nothing has happened yet. Rules about disks are checked from the first event of a disk on.
    pub fn new() -> Self {
        Self::default()
    }

    /// This history tells everything that becomes durable, so rules about disks are checked from its first event on.
    pub fn expect_disks(&mut self) {}

    /// More is damaged than the replication property tolerates: records may be lost, if readers are told so.
    pub fn allow_loss(&mut self) {}

    /// After [`Event::Healed`] every promise of progress is due within this time; [`finish`](Self::finish) judges it.
    pub fn expect_progress(&mut self, _within: Micros) {}

    /// Takes the next event. Amortised logarithmic in the number of records, and a few dozen bytes for each of them.
    pub fn observe(&mut self, at: Micros, _event: &Event) {
        self.judge.at = at;
        self.judge.now = self.events;
        self.events += 1;
    }

    /// Judges what can only be known at the end. Call it once, behind the last event.
    pub fn finish(&mut self, _end: &End) {}

    /// The first few breaches of each rule, in the order in which they were noticed.
    pub fn breaches(&self) -> &[Breach] {
        self.judge.told()
    }

    /// All breaches, those that are only counted included.
    pub const fn breach_count(&self) -> u64 {
        self.judge.count()
    }

    /// How often a rule was checked and broken.
    pub fn tally(&self, rule: Rule) -> Tally {
        self.judge.tally(rule)
    }

    /// Which rules were really exercised, and how often.
    pub fn summary(&self) -> Summary {
        self.judge.summary(self.events)
    }
}
