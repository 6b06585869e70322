//! The segments that a disk is not known to have as a whole, and which of them is next: whatever their number, the next one
//! is found without a look at the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use bifrost_types::{LogId, LogletId, LogletOffset, SegmentIndex};

use super::core::Step;
use super::share::Share;

/// Holes that are remembered of one segment; with more, those are filled before it is looked at further.
pub(super) const HOLES_MAX: usize = 1024;

/// How far a copy is known. Holes lie below `looked`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    New,
    Looking { looked: LogletOffset, holes: VecDeque<(LogletOffset, LogletOffset)> },
    Behind { looked: LogletOffset, holes: VecDeque<(LogletOffset, LogletOffset)> },
    Filled,
}

/// A segment that is not known to be whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) share: Share,
    pub(super) stage: Stage,
    /// Some records are lost: the copy will never be whole.
    pub(super) lossy: bool,
    pub(super) failed: u32,
    pub(super) due: Duration,
}

/// The newest segment of a log first.
pub(super) type Place = (LogId, Reverse<SegmentIndex>);

pub(super) const fn place(loglet: LogletId) -> Place {
    (loglet.log, Reverse(loglet.segment))
}

/// Cases in the order in which they come. Each is in one set of one line.
#[derive(Debug, Clone, Default)]
struct Line {
    /// Those whose time has come.
    ready: BTreeSet<Place>,
    waiting: BTreeSet<(Duration, Place)>,
}

impl Line {
    fn remove(&mut self, at: Place, due: Duration) {
        if !self.waiting.remove(&(due, at)) {
            self.ready.remove(&at);
        }
    }

    fn first(&mut self, now: Duration) -> Option<Place> {
        while let Some((due, at)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, at));
            self.ready.insert(at);
        }
        self.ready.first().copied()
    }

    /// Not later than this, one is due; none is in an empty line.
    fn first_due(&self) -> Option<Duration> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        if self.ready.is_empty() { waiting } else { Some(Duration::ZERO) }
    }
}

/// All cases.
#[derive(Debug, Clone, Default)]
pub(super) struct Cases {
    all: BTreeMap<Place, Case>,
    /// Those whose next step writes nothing.
    look: Line,
    /// Those whose next step writes records.
    store: Line,
}

impl Cases {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, at: Place) -> Option<&Case> {
        self.all.get(&at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Case)> {
        self.all.iter()
    }

    pub(super) fn places(&self, range: RangeInclusive<Place>) -> impl Iterator<Item = Place> {
        self.all.range(range).map(|(at, _)| *at)
    }

    pub(super) fn insert(&mut self, at: Place, case: Case) {
        self.remove(at);
        self.line(case.stores()).waiting.insert((case.due, at));
        self.all.insert(at, case);
    }

    pub(super) fn remove(&mut self, at: Place) -> Option<Case> {
        let case = self.all.remove(&at)?;
        self.line(case.stores()).remove(at, case.due);
        Some(case)
    }

    /// Changes a case, if it is one.
    pub(super) fn change<T>(&mut self, at: Place, change: impl FnOnce(&mut Case) -> T) -> Option<T> {
        let case = self.all.get_mut(&at)?;
        let before = (case.stores(), case.due);
        let changed = change(case);
        let after = (case.stores(), case.due);
        if before != after {
            self.line(before.0).remove(at, before.1);
            self.line(after.0).waiting.insert((after.1, at));
        }
        Some(changed)
    }

    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Case)) {
        let places: Vec<Place> = self.all.keys().copied().collect();
        for at in places {
            self.change(at, &mut change);
        }
    }

    /// The first one that is due; one that writes only if none looks, and if it may.
    pub(super) fn next(&mut self, now: Duration, stores: bool) -> Option<Place> {
        self.look.first(now).or_else(|| self.store.first(now).filter(|_| stores))
    }

    /// When one that looks is due.
    pub(super) fn first_look_due(&self) -> Option<Duration> {
        self.look.first_due()
    }

    /// When one that writes is due.
    pub(super) fn first_store_due(&self) -> Option<Duration> {
        self.store.first_due()
    }

    /// Whether there is one whose next step writes nothing.
    pub(super) fn any_looks(&self) -> bool {
        self.look.first_due().is_some()
    }

    fn line(&mut self, stores: bool) -> &mut Line {
        if stores { &mut self.store } else { &mut self.look }
    }

    /// Checks what the structs promise.
    ///
    /// # Panics
    /// When it is broken.
    pub(super) fn check(&self) {
        for (line, stores) in [(&self.look, false), (&self.store, true)] {
            let waiting = line.waiting.iter().map(|(_, at)| at);
            let of_line: BTreeSet<Place> = line.ready.iter().chain(waiting).copied().collect();
            let wanted = self.all.iter().filter(|(_, case)| case.stores() == stores).map(|(at, _)| *at);
            assert_eq!(of_line, wanted.collect(), "a case is in another line than its own");
            assert_eq!(of_line.len(), line.ready.len() + line.waiting.len(), "a case is in a line twice");
            let is_as_said = |(due, at): &(Duration, Place)| self.all.get(at).is_some_and(|case| case.due == *due);
            assert!(line.waiting.iter().all(is_as_said), "a case waits for another time than its own");
        }
    }
}

impl Case {
    /// Whether its next step writes records.
    pub(super) const fn stores(&self) -> bool {
        matches!(self.stage, Stage::Behind { .. })
    }

    pub(super) fn missing(&self) -> u64 {
        match &self.stage {
            Stage::New | Stage::Filled => 0,
            Stage::Looking { holes, .. } | Stage::Behind { holes, .. } => holes.iter().map(records_of).sum(),
        }
    }

    /// Nothing below `until` is missing any more.
    pub(super) fn fill(&mut self, until: LogletOffset) {
        let (Stage::Looking { holes, .. } | Stage::Behind { holes, .. }) = &mut self.stage else { return };
        while let Some(first) = holes.front_mut() {
            if first.1 > until {
                first.0 = first.0.max(until);
                return;
            }
            holes.pop_front();
        }
    }

    /// It was looked at up to here, and these holes were found.
    pub(super) fn looked(&mut self, until: LogletOffset, found: Vec<(LogletOffset, LogletOffset)>) {
        let Stage::Looking { looked, holes } = &mut self.stage else { return };
        holes.extend(found);
        *looked = until.max(*looked);
        if *looked >= self.share.end || holes.len() >= HOLES_MAX {
            self.stage = Stage::Behind { looked: *looked, holes: std::mem::take(holes) };
            self.go_on();
        }
    }

    /// Without holes there is more to look at, or nothing.
    pub(super) fn go_on(&mut self) {
        if let Stage::Behind { looked, holes } = &self.stage
            && holes.is_empty()
        {
            self.stage = if *looked < self.share.end {
                Stage::Looking { looked: *looked, holes: VecDeque::new() }
            } else {
                Stage::Filled
            };
        }
    }

    /// `None` when there is nothing to do about it any more.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        self.go_on();
        let share = self.share.clone();
        Some(match &self.stage {
            Stage::New => Step::Prepare(share),
            Stage::Looking { looked, .. } => Step::Look { from: (*looked).max(share.from), share },
            Stage::Behind { holes, .. } => Step::Copy { hole: *holes.front()?, share },
            Stage::Filled if self.lossy => return None,
            Stage::Filled => Step::Attest(share),
        })
    }
}

pub(super) fn records_of(range: &(LogletOffset, LogletOffset)) -> u64 {
    range.1.distance_from(range.0).unwrap_or(0)
}
