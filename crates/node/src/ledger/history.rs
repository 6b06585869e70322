//! Turns what was noted into a history, in the order in which it happened, and has the checker judge it.
//!
//! Starts and acknowledgements have their places in [`Order`](super::Order). What readers were given has none: it counts as
//! seen at the end, which only makes less of what came first.

use std::collections::{BTreeMap, BTreeSet};

use bifrost::{Chain, GapKind, Lsn};
use bifrost_checker::event::{AppendOutcome, AppenderId, CallId, Event, Gap, Micros, ReaderId, Value};
use bifrost_checker::{Bound, Checker, End, Rule, Tally};

use super::appends::{Attempt, Outcome};
use super::payload::Identity;
use super::reads::{Piece, ReaderLedger};
use super::{Ledger, Until};

/// The call that asked for the tail. Those of appends are identities.
const TAIL: CallId = CallId(u64::MAX);

/// What the checker found.
pub(super) struct Judged {
    checker: Checker,
    /// How often rules had been checked before the final scan.
    before_scan: BTreeMap<Rule, Tally>,
    /// How often they had been when it was over.
    after_scan: BTreeMap<Rule, Tally>,
    /// What values are called, of those that breaches name.
    names: BTreeMap<u64, String>,
}

impl Judged {
    /// How often a rule held.
    pub(super) fn held(&self, rule: Rule) -> u64 {
        held(self.checker.tally(rule))
    }

    /// How often it held in the final scan.
    pub(super) fn held_in_scan(&self, rule: Rule) -> u64 {
        let of = |tallies: &BTreeMap<Rule, Tally>| tallies.get(&rule).copied().map_or(0, held);
        of(&self.after_scan).saturating_sub(of(&self.before_scan))
    }

    /// How often the rules of a promise did not hold.
    pub(super) fn broken(&self, promise: u8) -> u64 {
        let rules = Rule::ALL.iter().filter(|rule| promise_of(**rule) == promise);
        rules.map(|rule| self.checker.tally(*rule).broken).sum()
    }

    /// The first few of those, as sentences.
    pub(super) fn sentences(&self, promise: u8) -> impl Iterator<Item = String> {
        let breaches = self.checker.breaches().iter().filter(move |breach| promise_of(breach.rule) == promise);
        breaches.map(|breach| format!("{} ({})", with_names(&breach.text, &self.names), breach.rule))
    }
}

fn held(tally: Tally) -> u64 {
    tally.checked.saturating_sub(tally.broken)
}

/// Notes that contradict themselves speak of appends.
fn promise_of(rule: Rule) -> u8 {
    rule.promise().unwrap_or(4)
}

/// Feeds a checker.
struct Feed {
    checker: Checker,
    at: Micros,
    /// Bytes that were not what their header says, so far.
    damaged: u64,
}

impl Feed {
    fn see(&mut self, event: &Event) {
        self.at += 1;
        self.checker.observe(self.at, event);
    }

    fn tallies(&self) -> BTreeMap<Rule, Tally> {
        Rule::ALL.iter().map(|rule| (*rule, self.checker.tally(*rule))).collect()
    }

    fn invoke(&mut self, chain: &Chain, identity: Identity) {
        let value = identity.value();
        let appender = AppenderId(u64::from(identity.run) << 32 | u64::from(identity.appender));
        self.see(&Event::AppendInvoked { call: CallId(value.0), appender, log: chain.log, value });
    }

    fn end(&mut self, identity: Identity, outcome: AppendOutcome) {
        self.see(&Event::AppendEnded { call: CallId(identity.value().0), outcome });
    }

    /// What a reader was given. `tail` is where it should be, unless it was stopped on purpose.
    fn read(&mut self, log: bifrost::LogId, number: usize, ledger: &ReaderLedger, tail: Option<Lsn>) {
        let reader = ReaderId(u64::try_from(number).unwrap_or(u64::MAX));
        self.see(&Event::ReaderOpened { reader, log, from: ledger.from() });
        for piece in ledger.pieces() {
            match *piece {
                Piece::Gap { from, end, kind } => {
                    let gap = match kind {
                        GapKind::Trimmed => Gap::Trimmed,
                        GapKind::Lost => Gap::Lost,
                    };
                    self.see(&Event::Skipped { reader, from, until: end, gap });
                }
                Piece::CaughtUp(tail) => self.see(&Event::CaughtUp { reader, tail }),
                Piece::Records(ref stretch) => {
                    for (lsn, identity) in stretch.all() {
                        let value = self.value(identity);
                        self.see(&Event::Delivered { reader, lsn, value });
                    }
                }
            }
        }
        match tail {
            // Whoever is below is stuck, which the checker sees by itself.
            Some(tail) if ledger.next() < tail => {}
            Some(tail) => self.see(&Event::CaughtUp { reader, tail }),
            None => self.see(&Event::ReaderClosed { reader }),
        }
    }

    /// Damaged bytes are the same as no others.
    fn value(&mut self, identity: Option<Identity>) -> Value {
        identity.map_or_else(
            || {
                self.damaged += 1;
                Value(u64::MAX - self.damaged)
            },
            Identity::value,
        )
    }
}

/// Judges a run. `pauses` is what promise 6 is judged by.
pub(super) fn judge(ledger: &Ledger, chain: &Chain, tail: Lsn, scan: &ReaderLedger, pauses: Vec<Bound>) -> Judged {
    let mut feed = Feed { checker: Checker::new(), at: 0, damaged: 0 };
    // Everything ended before the run was judged, so all that was begun is due.
    feed.checker.expect_progress(Micros::MAX);
    feed.see(&Event::Healed);
    // Who appended records of other runs is not known any more, only that they were there first.
    let foreign = |reader: &ReaderLedger| -> BTreeSet<Identity> {
        reader.all().filter_map(|(_, identity)| identity.filter(|identity| identity.run != ledger.run)).collect()
    };
    for identity in ledger.all_readers(scan).flat_map(foreign).collect::<BTreeSet<_>>() {
        feed.invoke(chain, identity);
        feed.end(identity, AppendOutcome::Unknown);
    }
    appends(&mut feed, ledger, chain);
    feed.see(&Event::ChainRead { chain: chain.clone() });
    feed.see(&Event::TailInvoked { call: TAIL, log: chain.log });
    feed.see(&Event::TailEnded { call: TAIL, tail: Some(tail) });
    for (number, (reader, until)) in ledger.readers.iter().enumerate() {
        feed.read(chain.log, number, reader, (*until == Until::Tail).then_some(tail));
    }
    let before_scan = feed.tallies();
    feed.read(chain.log, usize::MAX, scan, Some(tail));
    let after_scan = feed.tallies();
    feed.checker.finish(&End { at: feed.at, scanned: true, quiet: Vec::new(), pauses });
    let names = names(&feed.checker, ledger, scan);
    Judged { checker: feed.checker, before_scan, after_scan, names }
}

/// Starts and acknowledgements in their order; then the outcomes that say that nothing happened.
fn appends(feed: &mut Feed, ledger: &Ledger, chain: &Chain) {
    let mut order: Vec<(u32, bool, Identity, Outcome)> = Vec::new();
    let mut unplaced = Vec::new();
    for (identity, attempt) in ledger.attempts() {
        let Attempt { outcome, started, acknowledged, .. } = *attempt;
        order.push((started, false, identity, outcome));
        match outcome {
            Outcome::Committed(_) => order.push((acknowledged, true, identity, outcome)),
            Outcome::NotAppended => unplaced.push((identity, AppendOutcome::NotAppended)),
            Outcome::Unknown => unplaced.push((identity, AppendOutcome::Unknown)),
            Outcome::Pending => {}
        }
    }
    order.sort_unstable_by_key(|(place, ended, identity, _)| (*place, *ended, *identity));
    for (_, ended, identity, outcome) in order {
        match outcome {
            Outcome::Committed(lsn) if ended => feed.end(identity, AppendOutcome::Committed(lsn)),
            _ => feed.invoke(chain, identity),
        }
    }
    for (identity, outcome) in unplaced {
        feed.end(identity, outcome);
    }
}

/// Names for the values that breaches speak of.
fn names(checker: &Checker, ledger: &Ledger, scan: &ReaderLedger) -> BTreeMap<u64, String> {
    let wanted: BTreeSet<u64> = checker.breaches().iter().flat_map(|breach| values_in(&breach.text)).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let read = ledger.all_readers(scan).flat_map(ReaderLedger::all).filter_map(|(_, identity)| identity);
    let all = ledger.attempts().map(|(identity, _)| identity).chain(read);
    let named = all.filter(|identity| wanted.contains(&identity.value().0));
    named.map(|identity| (identity.value().0, identity.to_string())).collect()
}

/// The words with which the checker names a value.
const VALUE: &str = "value ";

fn values_in(text: &str) -> impl Iterator<Item = u64> {
    text.split(VALUE).skip(1).filter_map(|part| u64::from_str_radix(digits(part).0, 16).ok())
}

fn digits(part: &str) -> (&str, &str) {
    part.split_at(part.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(part.len()))
}

fn with_names(text: &str, names: &BTreeMap<u64, String>) -> String {
    let mut parts = text.split(VALUE);
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (value, rest) = digits(part);
        let name = u64::from_str_radix(value, 16).ok().and_then(|value| names.get(&value));
        named.push_str(name.map_or("damaged bytes", String::as_str));
        named.push_str(rest);
    }
    named
}
