//! What was found, and how often each rule was put to the test.

use std::fmt;

use crate::event::Micros;
use crate::rule::Rule;

/// Breaches of one rule that are told in full; the others are counted.
const TOLD_PER_RULE_MAX: u64 = 5;

/// The place of an event in the history, from 0: the n-th call of [`Checker::observe`](crate::Checker::observe).
pub type EventNumber = u64;

/// One rule did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which one.
    pub rule: Rule,
    /// When it was noticed.
    pub at: Micros,
    /// What happened, in one sentence.
    pub text: String,
    /// The events that matter, ascending.
    pub events: Vec<EventNumber>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, text, events } = self;
        write!(f, "{rule} at {}.{:06}: {text} (events {events:?})", at / 1_000_000, at % 1_000_000)
    }
}

/// How often one rule was put to the test, and how often it did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Times that it was checked.
    pub checked: u64,
    /// Times that it did not hold.
    pub broken: u64,
}

/// Which rules were really exercised, and how often. A rule that never was is visible here: nobody checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many events there were.
    pub events: u64,
    /// One tally for each rule, in the order of [`Rule::ALL`].
    pub rules: Vec<(Rule, Tally)>,
}

impl Summary {
    /// The rules that were never put to the test.
    pub fn never_checked(&self) -> impl Iterator<Item = Rule> {
        self.rules.iter().filter(|(_, tally)| tally.checked == 0).map(|(rule, _)| *rule)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} events", self.events)?;
        for (rule, Tally { checked, broken }) in self.rules.iter().filter(|(_, tally)| tally.checked > 0) {
            let mark = if *broken == 0 { "ok" } else { "BROKEN" };
            writeln!(f, "{:<10} {mark:<6} {checked:>9} times, {broken} breaches: {}", rule.id(), rule.what())?;
        }
        let never: Vec<&str> = self.never_checked().map(Rule::id).collect();
        if never.is_empty() { Ok(()) } else { writeln!(f, "never checked: {}", never.join(", ")) }
    }
}

/// Takes note of each time that a rule is put to the test.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    at: Micros,
    now: EventNumber,
    /// Whether the history is over: no event is the present one.
    ended: bool,
    /// In the order of [`Rule::ALL`]; it grows when a rule is met.
    tallies: Vec<Tally>,
    told: Vec<Breach>,
    count: u64,
}

impl Judge {
    /// The next event. Returns when the one before it happened.
    pub(crate) const fn begin(&mut self, at: Micros, number: EventNumber) -> Micros {
        self.now = number;
        std::mem::replace(&mut self.at, at)
    }

    /// The history is over.
    pub(crate) const fn end(&mut self, at: Micros) {
        self.at = at;
        self.ended = true;
    }

    /// The number of the present event.
    pub(crate) const fn now(&self) -> EventNumber {
        self.now
    }

    /// When the present event happened.
    pub(crate) const fn at(&self) -> Micros {
        self.at
    }

    /// Puts a rule to the test. `events` are those that led here; the present one is added.
    pub(crate) fn require(
        &mut self,
        rule: Rule,
        holds: bool,
        events: impl IntoIterator<Item = EventNumber>,
        text: impl FnOnce() -> String,
    ) {
        let place = rule as usize;
        if self.tallies.len() <= place {
            self.tallies.resize(Rule::ALL.len(), Tally::default());
        }
        let Some(tally) = self.tallies.get_mut(place) else { return };
        tally.checked = tally.checked.saturating_add(1);
        if holds {
            return;
        }
        tally.broken = tally.broken.saturating_add(1);
        let tell = tally.broken <= TOLD_PER_RULE_MAX;
        self.count = self.count.saturating_add(1);
        if tell {
            let present = (!self.ended).then_some(self.now);
            let mut events: Vec<EventNumber> = events.into_iter().chain(present).collect();
            events.sort_unstable();
            events.dedup();
            self.told.push(Breach { rule, at: self.at, text: text(), events });
        }
    }

    /// A rule was put to the test, and held.
    pub(crate) fn held(&mut self, rule: Rule) {
        self.require(rule, true, [], String::new);
    }

    pub(crate) fn told(&self) -> &[Breach] {
        &self.told
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn tally(&self, rule: Rule) -> Tally {
        self.tallies.get(rule as usize).copied().unwrap_or_default()
    }

    pub(crate) fn summary(&self, events: u64) -> Summary {
        Summary { events, rules: Rule::ALL.iter().map(|rule| (*rule, self.tally(*rule))).collect() }
    }
}
