//! The judgement: one verdict for each promise of the log, from what the checker found by its rules.

use std::collections::BTreeMap;
use std::fmt;

use bifrost::{Chain, Lsn};
use bifrost_checker::{Bound, Rule};

use super::Ledger;
use super::appends::{Attempt, Outcome};
use super::findings::Findings;
use super::history::{self, Judged};
use super::payload::Identity;
use super::reads::ReaderLedger;

/// Whether one promise held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The promise, in short.
    pub promise: &'static str,
    /// What was checked, with counts.
    pub checked: String,
    /// What broke it.
    pub breaches: Findings,
}

impl Verdict {
    /// Whether nothing was found.
    pub const fn holds(&self) -> bool {
        self.breaches.count() == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { promise, checked, breaches } = self;
        match breaches.count() {
            0 => write!(f, "{promise}: {checked}"),
            1 => write!(f, "{promise}: {checked}. 1 BREACH: {breaches}"),
            count => write!(f, "{promise}: {checked}. {count} BREACHES: {breaches}"),
        }
    }
}

/// The verdicts, in the order of the promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdicts {
    /// One for each promise.
    pub promises: [Verdict; 6],
}

impl Verdicts {
    /// Whether every promise held.
    pub fn all_hold(&self) -> bool {
        self.promises.iter().all(Verdict::holds)
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verdict, number) in self.promises.iter().zip(1..) {
            let mark = if verdict.holds() { "ok" } else { "BROKEN" };
            writeln!(f, "{number}. {mark} {verdict}")?;
        }
        Ok(())
    }
}

impl Ledger {
    /// Judges the run, after all appenders ended and their ledgers were handed in. `chain` and `tail` were read
    /// linearizably after that; `scan` was read by a fresh reader up to `tail`, from where the oldest reader began, or
    /// from before the first append of the run.
    pub fn verify(&self, chain: &Chain, tail: Lsn, scan: &ReaderLedger) -> Verdicts {
        let judged = history::judge(self, chain, tail, scan, self.pauses());
        let promise = |number: u8, promise: &'static str, checked: String| {
            let breaches = Findings::new(judged.broken(number), judged.sentences(number));
            Verdict { promise, checked, breaches }
        };
        Verdicts {
            promises: [
                promise(
                    1,
                    "An acknowledged record is never lost and never changes",
                    self.told_stays(&judged, chain, scan),
                ),
                promise(2, "What one reader has seen, every reader sees", self.told_same(&judged)),
                promise(3, "One order", self.told_order(scan)),
                promise(4, "No silent outcome", self.told_outcomes(scan)),
                promise(5, "Nothing stays stuck", told_chain(chain, tail)),
                promise(6, "Writers go on", self.told_pauses()),
            ],
        }
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = (Identity, &Attempt)> {
        self.appenders.values().flat_map(|appender| {
            let numbered = (0_u32..).zip(&appender.attempts);
            numbered.map(|(number, attempt)| (appender.identity(number, attempt.bytes), attempt))
        })
    }

    pub(super) fn all_readers<'a>(&'a self, scan: &'a ReaderLedger) -> impl Iterator<Item = &'a ReaderLedger> {
        self.readers.iter().map(|(reader, _)| reader).chain([scan])
    }

    fn attempt(&self, identity: Identity) -> Option<&Attempt> {
        let appender = self.appenders.get(&identity.appender)?;
        appender.attempts.get(usize::try_from(identity.number).ok()?)
    }

    fn committed(&self) -> impl Iterator<Item = Lsn> {
        self.attempts().filter_map(|(_, attempt)| match attempt.outcome {
            Outcome::Committed(lsn) => Some(lsn),
            Outcome::Pending | Outcome::NotAppended | Outcome::Unknown => None,
        })
    }

    /// What promise 6 is judged by.
    fn pauses(&self) -> Vec<Bound> {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let longest = self.order.longest_pause();
        let silent = u64::from(self.committed().next().is_none());
        vec![
            Bound {
                what: "microseconds without an acknowledged append",
                found: micros(longest),
                max: micros(self.pause_max),
            },
            Bound { what: "runs without any acknowledged append", found: silent, max: 0 },
        ]
    }

    fn told_stays(&self, judged: &Judged, chain: &Chain, scan: &ReaderLedger) -> String {
        let read = judged.held_in_scan(Rule::AcknowledgedStays);
        let mut told = format!("{read} acknowledged records were read where they were acknowledged, byte for byte");
        let trimmed = self.committed().filter(|lsn| Some(*lsn) <= chain.trim_point).count();
        if trimmed > 0 {
            told += &format!(", {trimmed} are trimmed");
        }
        let (old, missing) = self.earlier_runs(scan);
        if old > 0 {
            // An appender numbers without holes; only what it was told not to be appended may be missing.
            let missing = if missing == 0 { "none".to_owned() } else { missing.to_string() };
            told += &format!(", {old} records of earlier runs have their bytes, {missing} missing between them");
        }
        told
    }

    /// How many records of other runs there are, and how many are missing before the last of each appender.
    fn earlier_runs(&self, scan: &ReaderLedger) -> (u64, u64) {
        let mut next_of: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let (mut records, mut missing) = (0, 0);
        for identity in scan.all().filter_map(|(_, seen)| seen).filter(|seen| seen.run != self.run) {
            let number = u64::from(identity.number);
            let before = next_of.insert((identity.run, identity.appender), number + 1);
            // Where the log was trimmed, the first that is left is any number.
            let expected = before.unwrap_or(if scan.from() == Lsn::FIRST { 0 } else { number });
            missing += number.saturating_sub(expected);
            records += 1;
        }
        (records, missing)
    }

    fn told_same(&self, judged: &Judged) -> String {
        let (readers, compared) = (self.readers.len(), judged.held(Rule::AllSeeTheSame));
        format!("{readers} readers and the final scan saw the same {compared} times, nothing came twice")
    }

    fn mine<'a>(&self, scan: &'a ReaderLedger) -> impl Iterator<Item = Identity> + use<'a> {
        let run = self.run;
        scan.all().filter_map(move |(_, seen)| seen.filter(|seen| seen.run == run))
    }

    fn told_order(&self, scan: &ReaderLedger) -> String {
        let ordered = self.mine(scan).count();
        format!("{ordered} records lie after everything that was acknowledged before they started")
    }

    fn told_outcomes(&self, scan: &ReaderLedger) -> String {
        let (mut committed, mut not_appended, mut unknown) = (0_u64, 0_u64, 0_u64);
        for (_, attempt) in self.attempts() {
            match attempt.outcome {
                Outcome::Pending => {}
                Outcome::Committed(_) => committed += 1,
                Outcome::NotAppended => not_appended += 1,
                Outcome::Unknown => unknown += 1,
            }
        }
        let is_unknown = |attempt: &Attempt| attempt.outcome == Outcome::Unknown;
        let landed = self.mine(scan).filter(|identity| self.attempt(*identity).is_some_and(is_unknown)).count();
        format!(
            "{committed} committed once, {not_appended} not appended and nowhere, {unknown} unknown of which {landed} \
             landed once"
        )
    }

    fn told_pauses(&self) -> String {
        let longest = self.order.longest_pause();
        let planned = self.pauses.len();
        let mut told = format!("the longest time without an acknowledged append was {longest:.1?}");
        if planned > 0 {
            let around = self.pauses.iter().max().copied().unwrap_or_default();
            let slowest = self.reconfigurations.iter().max().copied().unwrap_or_default();
            told += &format!(
                "; around {planned} planned reconfigurations {around:.1?} at most, the slowest of them took {slowest:.1?}"
            );
        }
        told
    }
}

fn told_chain(chain: &Chain, tail: Lsn) -> String {
    let (segments, version) = (chain.segments.len(), chain.version);
    format!(
        "{segments} segments in a contiguous chain (version {version}), the last one open, nothing pending, all readers at \
         the tail {tail}"
    )
}
