//! The judgement: one verdict for each promise of the log, in time linear in the number of records.

use std::collections::BTreeMap;
use std::fmt;

use bifrost::{Chain, Lsn};
use bifrost_types::{SegmentIndex, SegmentState};

use super::appends::{Attempt, Outcome};
use super::findings::Findings;
use super::payload::Identity;
use super::reads::ReaderLedger;
use super::{Ledger, Until};

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
        let end = End { chain, tail, scan };
        Verdicts {
            promises: [
                self.acknowledged_is_there(&end),
                self.all_see_the_same(&end),
                self.one_order(&end),
                self.every_append_has_an_outcome(&end),
                self.nothing_is_stuck(&end),
                self.writers_went_on(),
            ],
        }
    }

    fn attempts(&self) -> impl Iterator<Item = (Identity, &Attempt)> {
        self.appenders.values().flat_map(|appender| {
            let numbered = (0_u32..).zip(&appender.attempts);
            numbered.map(|(number, attempt)| (appender.identity(number, attempt.bytes), attempt))
        })
    }

    fn attempt(&self, identity: Identity) -> Option<&Attempt> {
        let appender = self.appenders.get(&identity.appender)?;
        appender.attempts.get(usize::try_from(identity.number).ok()?)
    }

    fn all_readers<'a>(&'a self, end: &End<'a>) -> impl Iterator<Item = &'a ReaderLedger> {
        self.readers.iter().map(|(reader, _)| reader).chain([end.scan])
    }

    /// Promise 1.
    fn acknowledged_is_there(&self, end: &End<'_>) -> Verdict {
        let mut breaches = Findings::default();
        let (mut read, mut trimmed) = (0_u64, 0_u64);
        for (wanted, attempt) in self.attempts() {
            let Outcome::Committed(lsn) = attempt.outcome else { continue };
            match end.scan.at(lsn) {
                Some(Some(found)) if found == wanted => read += 1,
                None if end.is_trimmed(lsn) => trimmed += 1,
                found => breaches.add(|| match found {
                    None => format!("{lsn} was acknowledged for {} and is not in the log", told(wanted)),
                    Some(None) => format!("{lsn} was acknowledged for {} and has damaged bytes", told(wanted)),
                    Some(Some(other)) => {
                        format!("{lsn} was acknowledged for {} and holds {}", told(wanted), told(other))
                    }
                }),
            }
        }
        for reader in self.all_readers(end) {
            breaches.extend(&reader.damaged);
            breaches.extend(&reader.lost);
        }
        let (old, missing) = self.earlier_runs(end.scan);
        let mut checked = format!("{read} acknowledged records were read where they were acknowledged, byte for byte");
        if trimmed > 0 {
            checked += &format!(", {trimmed} are trimmed");
        }
        if old > 0 {
            // An appender numbers without holes; only what it was told not to be appended may be missing.
            let missing = if missing == 0 { "none".to_owned() } else { missing.to_string() };
            checked += &format!(", {old} records of earlier runs have their bytes, {missing} missing between them");
        }
        Verdict { promise: "An acknowledged record is never lost and never changes", checked, breaches }
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

    /// Promise 2.
    fn all_see_the_same(&self, end: &End<'_>) -> Verdict {
        let mut breaches = Findings::default();
        let mut compared = 0_u64;
        for reader in self.all_readers(end) {
            breaches.extend(&reader.out_of_order);
            if let Some(trimmed_end) = reader.trimmed_end() {
                let trimmed = trimmed_end.previous().is_none_or(|last| end.is_trimmed(last));
                breaches.require(trimmed, || {
                    format!("{} was told that everything below {trimmed_end} is trimmed, it is not", reader.name())
                });
            }
        }
        for (reader, _) in &self.readers {
            for (lsn, seen) in reader.all() {
                match end.scan.at(lsn) {
                    Some(scanned) if scanned == seen => compared += 1,
                    None if lsn < end.scan.from() || end.is_trimmed(lsn) => {}
                    other => breaches.add(|| {
                        let (name, scan) = (reader.name(), end.scan.name());
                        let [seen, other] =
                            [Some(seen), other].map(|seen| seen.map_or("nothing".to_owned(), told_seen));
                        format!("at {lsn} {name} saw {seen}, {scan} saw {other}")
                    }),
                }
            }
        }
        let readers = self.readers.len();
        let checked = format!("{readers} readers and the final scan saw the same {compared} times, nothing came twice");
        Verdict { promise: "What one reader has seen, every reader sees", checked, breaches }
    }

    /// Promise 3.
    fn one_order(&self, end: &End<'_>) -> Verdict {
        let mut breaches = Findings::default();
        // before[s]: the highest LSN that was acknowledged at a place of the order up to s.
        let mut before = vec![0_u64; usize::try_from(self.order.end()).unwrap_or(usize::MAX)];
        for (_, attempt) in self.attempts() {
            if let Outcome::Committed(lsn) = attempt.outcome
                && let Some(highest) = before.get_mut(place(attempt.acknowledged))
            {
                *highest = lsn.get().max(*highest);
            }
        }
        let mut highest = 0;
        for acknowledged in &mut before {
            highest = highest.max(*acknowledged);
            *acknowledged = highest;
        }
        let mut last_of: BTreeMap<(u32, u32), (u32, Lsn)> = BTreeMap::new();
        let mut ordered = 0_u64;
        // What landed counts, acknowledged or not.
        for (lsn, identity) in end.scan.all().filter_map(|(lsn, seen)| Some((lsn, seen?))) {
            if identity.run == self.run
                && let Some(attempt) = self.attempt(identity)
            {
                let floor = before.get(place(attempt.started)).copied().unwrap_or(0);
                breaches.require(floor < lsn.get(), || {
                    format!("{} started after {floor} was acknowledged and is at {lsn}", told(identity))
                });
                ordered += 1;
            }
            let last = last_of.insert((identity.run, identity.appender), (identity.number, lsn));
            if let Some((number, at)) = last {
                breaches.require(number < identity.number, || {
                    format!("{} is at {lsn}, its appender's record {number} was before it at {at}", told(identity))
                });
            }
        }
        // Those that are gone count by what was acknowledged.
        for (identity, attempt) in self.attempts() {
            if let Outcome::Committed(lsn) = attempt.outcome {
                let floor = before.get(place(attempt.started)).copied().unwrap_or(0);
                breaches.require(floor < lsn.get(), || {
                    format!("{} started after {floor} was acknowledged, and was acknowledged at {lsn}", told(identity))
                });
            }
        }
        let checked = format!("{ordered} records lie after everything that was acknowledged before they started");
        Verdict { promise: "One order", checked, breaches }
    }

    /// Promise 4.
    fn every_append_has_an_outcome(&self, end: &End<'_>) -> Verdict {
        let mut breaches = Findings::default();
        let (mut committed, mut not_appended, mut unknown, mut landed_unknown) = (0_u64, 0_u64, 0_u64, 0_u64);
        for (identity, attempt) in self.attempts() {
            match attempt.outcome {
                Outcome::Pending => breaches.add(|| format!("{} has no outcome", told(identity))),
                Outcome::Committed(_) => committed += 1,
                Outcome::NotAppended => not_appended += 1,
                Outcome::Unknown => unknown += 1,
            }
        }
        let mut landed: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
        let mine = end.scan.all().filter_map(|(lsn, seen)| Some((lsn, seen.filter(|seen| seen.run == self.run)?)));
        for (lsn, identity) in mine {
            let Some(attempt) = self.attempt(identity) else {
                breaches.add(|| format!("{} is at {lsn} and was never sent", told(identity)));
                continue;
            };
            match attempt.outcome {
                Outcome::NotAppended => breaches.add(|| format!("{} was not appended and is at {lsn}", told(identity))),
                Outcome::Unknown => landed_unknown += 1,
                Outcome::Committed(_) | Outcome::Pending => {}
            }
            let landed = landed.entry(identity.appender).or_default();
            let number = place(identity.number);
            if landed.len() <= number {
                landed.resize(number + 1, false);
            }
            if let Some(landed) = landed.get_mut(number) {
                breaches.require(!*landed, || format!("{} is in the log again at {lsn}", told(identity)));
                *landed = true;
            }
        }
        let checked = format!(
            "{committed} committed once, {not_appended} not appended and nowhere, {unknown} unknown of which \
             {landed_unknown} landed once"
        );
        Verdict { promise: "No silent outcome", checked, breaches }
    }

    /// Promise 5.
    fn nothing_is_stuck(&self, end: &End<'_>) -> Verdict {
        let End { chain, tail, .. } = *end;
        let mut breaches = Findings::default();
        if let Some(pending) = &chain.pending {
            breaches.add(|| format!("reconfiguration {} of segment {} is pending", pending.op, pending.segment));
        }
        match chain.last() {
            Some(last) => breaches
                .require(last.decided_tail().is_none(), || format!("the last segment {} is closed", last.index())),
            None => breaches.add(|| "the chain has no segment".to_owned()),
        }
        check_chain(chain, tail, &mut breaches);
        let must_reach = self.readers.iter().filter(|(_, until)| *until == Until::Tail).map(|(reader, _)| reader);
        for reader in must_reach.chain([end.scan]) {
            breaches.require(reader.next() >= tail, || {
                format!("{} stopped at {}, the tail is {tail}", reader.name(), reader.next())
            });
            breaches.require(reader.next() <= tail, || {
                format!("{} read up to {}, beyond the tail {tail}", reader.name(), reader.next())
            });
        }
        let (segments, version) = (chain.segments.len(), chain.version);
        let checked = format!(
            "{segments} segments in a contiguous chain (version {version}), the last one open, nothing pending, all \
             readers at the tail {tail}"
        );
        Verdict { promise: "Nothing stays stuck", checked, breaches }
    }

    /// Promise 6.
    fn writers_went_on(&self) -> Verdict {
        let mut breaches = Findings::default();
        let (longest, max) = (self.order.longest_pause(), self.pause_max);
        breaches.require(longest <= max, || format!("no append was acknowledged for {longest:.1?}, over {max:.1?}"));
        let acknowledged = self.attempts().any(|(_, attempt)| attempt.acknowledged > 0);
        breaches.require(acknowledged, || "no append was acknowledged at all".to_owned());
        let planned = self.pauses.len();
        let around = self.pauses.iter().max().copied().unwrap_or_default();
        let slowest = self.reconfigurations.iter().max().copied().unwrap_or_default();
        let mut checked = format!("the longest time without an acknowledged append was {longest:.1?}");
        if planned > 0 {
            checked += &format!(
                "; around {planned} planned reconfigurations {around:.1?} at most, the slowest of them took {slowest:.1?}"
            );
        }
        Verdict { promise: "Writers go on", checked, breaches }
    }
}

/// How the log looks at the end.
#[derive(Clone, Copy)]
struct End<'a> {
    chain: &'a Chain,
    tail: Lsn,
    scan: &'a ReaderLedger,
}

impl End<'_> {
    fn is_trimmed(&self, lsn: Lsn) -> bool {
        Some(lsn) <= self.chain.trim_point
    }
}

/// C1–C3, from the outside.
fn check_chain(chain: &Chain, tail: Lsn, breaches: &mut Findings) {
    let mut expected_base = None;
    let mut previous: Option<SegmentIndex> = None;
    let mut closers = BTreeMap::new();
    for segment in &chain.segments {
        let (index, base) = (segment.index(), segment.base_lsn);
        if let Some(expected) = expected_base.take() {
            breaches.require(base == expected, || {
                format!("segment {index} begins at {base}, the one before it ends at {expected}")
            });
        }
        breaches.require(previous < Some(index) && index < chain.next_segment, || {
            format!("segment index {index} is out of order")
        });
        previous = Some(index);
        if let SegmentState::Sealed { tail, op, .. } = segment.state {
            match tail.to_lsn(base) {
                Ok(end) => expected_base = Some(end),
                Err(error) => breaches.add(|| error.to_string()),
            }
            if let Some(other) = closers.insert(op, index) {
                breaches.add(|| format!("operation {op} closed segment {index} and segment {other}"));
            }
        }
    }
    // A close is at least two versions: announced, decided.
    let versions = 2 * u64::try_from(closers.len()).unwrap_or(u64::MAX / 2);
    breaches.require(chain.version > versions, || {
        format!("version {} is too low for {} closed segments", chain.version, closers.len())
    });
    if let Some(last) = chain.last() {
        breaches.require(last.base_lsn <= tail, || format!("the last segment begins beyond the tail {tail}"));
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn told(identity: Identity) -> String {
    let Identity { run, appender, number, bytes } = identity;
    format!("record {number} of appender {appender} ({bytes} bytes, run {run:08x})")
}

fn told_seen(seen: Option<Identity>) -> String {
    seen.map_or_else(|| "damaged bytes".to_owned(), told)
}
