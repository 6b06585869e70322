//! Which copy is looked at and filled next: the core of catching up. No clock, no IO; times are since an arbitrary start.
//!
//! ```text
//!  share heard of ─► New ──prepared──► Looking ──looked to the end──► Behind ──nothing missing──► Filled ──attested──► whole
//!                     ▲                   ▲  └──too many holes at once──┘ │
//!                     └── a step in vain: again after a pause ◄───────────┘
//! ```
//! Segment gone, disk out of service, no room, nobody who has the records: each is left by news or by time, never by a
//! restart, and none of them is remembered anywhere but in this value.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bifrost_types::{LogId, LogletId, LogletOffset, SegmentIndex};
use bifrost_wire::log_server::{CallError, CopyError};
use bifrost_wire::metadata::Revision;

use super::CatchUpOptions;
use super::cases::{Case, Cases, Place, Stage, place, records_of};
use super::pace::Pace;
use super::progress::{CatchUpError, CatchUpState, Progress};
use super::share::Share;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Everything that there is, read anew.
    Listed {
        /// The shares of the disk, by log, and the revision of each chain.
        logs: BTreeMap<LogId, (Revision, Vec<Share>)>,
    },
    /// A chain was written.
    LogSeen {
        /// The log.
        log: LogId,
        /// The revision. News that is older than what is known changes nothing.
        revision: Revision,
        /// The shares of the disk.
        shares: Vec<Share>,
    },
    /// The log was deleted.
    LogGone {
        /// The log.
        log: LogId,
    },
    /// Whether the disk is read-write and this is its node's present life.
    InService(bool),
    /// Whether the disk takes stores.
    Room(bool),
    /// A node began a life or changed its state: it may have what was not to be had.
    PeersChanged,
    /// The step that was begun ended.
    Ended {
        /// Of which segment.
        loglet: LogletId,
        /// How.
        outcome: Outcome,
    },
    /// It is [`Core::wake_at`].
    Woken,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The copy knows where its segment ended.
    Prepared {
        /// Everything below it that is not trimmed is here.
        whole_tail: LogletOffset,
    },
    /// The copy was looked at.
    Looked {
        /// Up to here.
        until: LogletOffset,
        /// What is missing; ordered, disjoint.
        holes: Vec<(LogletOffset, LogletOffset)>,
        /// Bytes that were read.
        bytes: u64,
    },
    /// Records were got from others and are durable here, from the start of the hole.
    Copied {
        /// Up to here.
        until: LogletOffset,
        /// Bytes of their batches; 0 if nobody has them any more.
        bytes: u64,
        /// They are lost: every copy that was not declared lost denies them (R3).
        lost: bool,
    },
    /// It is remembered that nothing is missing.
    Attested,
    /// Nothing was done; whatever was is found by the next attempt.
    Failed(CatchUpError),
}

/// What is to be done; answered by [`Event::Ended`]. One at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell the own copy where the segment ended and what of it is trimmed.
    Prepare(Share),
    /// Look for holes of the own copy.
    Look {
        /// The segment.
        share: Share,
        /// Where to begin.
        from: LogletOffset,
    },
    /// Get some of a hole from others.
    Copy {
        /// The segment.
        share: Share,
        /// The hole.
        hole: (LogletOffset, LogletOffset),
    },
    /// Remember that nothing is missing.
    Attest(Share),
}

impl Step {
    /// Of which segment.
    pub const fn share(&self) -> &Share {
        match self {
            Self::Prepare(share) | Self::Look { share, .. } | Self::Copy { share, .. } | Self::Attest(share) => share,
        }
    }
}

/// The core. Kept: a share of the disk is a case or is settled, never both; the step under way may be of neither, when its
/// segment went meanwhile.
#[derive(Debug, Clone)]
pub struct Core {
    options: CatchUpOptions,
    logs: BTreeMap<LogId, Revision>,
    cases: Cases,
    /// Seen to be whole, or as whole as they will ever be.
    settled: BTreeSet<Place>,
    in_service: bool,
    room: bool,
    /// Nothing is stored before then: the disk said that it is full.
    not_before: Duration,
    running: Option<LogletId>,
    pace: Pace,
    /// Whether it was told of everything once.
    listed: bool,
    progress: Progress,
    looked_bytes: u64,
    looked_records: u64,
}

impl Core {
    /// Knows nothing yet.
    pub fn new(options: CatchUpOptions) -> Self {
        Self {
            pace: Pace::new(options.bytes_per_second),
            options,
            logs: BTreeMap::new(),
            cases: Cases::default(),
            settled: BTreeSet::new(),
            in_service: false,
            room: true,
            not_before: Duration::ZERO,
            running: None,
            listed: false,
            progress: Progress::default(),
            looked_bytes: 0,
            looked_records: 0,
        }
    }

    /// Takes note of an event; returns what is to be done now, if anything.
    pub fn step(&mut self, now: Duration, event: Event) -> Option<Step> {
        match event {
            Event::Listed { logs } => self.on_listed(now, logs),
            // What is new in it was closed a moment ago.
            Event::LogSeen { log, revision, shares } => {
                self.on_log_seen(now.saturating_add(self.options.quiet), log, revision, shares);
            }
            Event::LogGone { log } => self.forget(log),
            Event::InService(in_service) => self.in_service = in_service,
            Event::Room(room) => {
                self.room = room;
                self.not_before = if room { now } else { self.not_before };
            }
            Event::PeersChanged => {
                self.cases.change_all(|case| (case.failed, case.due) = (0, case.due.min(now)));
            }
            Event::Ended { loglet, outcome } => self.on_ended(now, loglet, outcome),
            Event::Woken => {}
        }
        self.start(now)
    }

    /// When to send [`Event::Woken`] if nothing else happens; `None` when only news changes anything.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.running.is_some() || !self.in_service {
            return None;
        }
        let stores = self.cases.first_store_due().filter(|_| self.room).map(|due| due.max(self.not_before));
        let due = self.cases.first_look_due().into_iter().chain(stores).min();
        due.map(|due| due.max(self.pace.ready_at()))
    }

    /// How far it is; times of bytes are the driver's.
    pub fn progress(&self) -> Progress {
        Progress {
            state: self.state(),
            segments_left: u64::try_from(self.cases.len()).unwrap_or(u64::MAX),
            bytes_left: self.bytes_left(),
            ..self.progress
        }
    }

    fn state(&self) -> CatchUpState {
        if let Some(loglet) = self.running {
            return match self.cases.get(place(loglet)) {
                Some(case) if case.stores() => CatchUpState::CatchingUp { loglet },
                _ => CatchUpState::Looking { loglet },
            };
        }
        if !self.listed {
            CatchUpState::Unknown
        } else if self.cases.is_empty() {
            CatchUpState::Idle
        } else if !self.in_service {
            CatchUpState::OutOfService
        } else if !self.room && !self.cases.any_looks() {
            CatchUpState::NoRoom
        } else {
            CatchUpState::Pausing
        }
    }

    fn bytes_left(&self) -> Option<u64> {
        let (bytes, records) = match self.progress.records_done {
            0 => (self.looked_bytes, self.looked_records),
            records => (self.progress.bytes_done, records),
        };
        if self.progress.records_left == 0 {
            return Some(0);
        }
        let estimate = u128::from(self.progress.records_left) * u128::from(bytes);
        Some(u64::try_from(estimate.checked_div(u128::from(records))?).unwrap_or(u64::MAX))
    }

    fn on_listed(&mut self, now: Duration, logs: BTreeMap<LogId, (Revision, Vec<Share>)>) {
        self.listed = true;
        let before: Vec<LogId> = self.logs.keys().filter(|log| !logs.contains_key(log)).copied().collect();
        for log in before {
            self.forget(log);
        }
        for (log, (revision, shares)) in logs {
            self.on_log_seen(now, log, revision, shares);
        }
    }

    fn on_log_seen(&mut self, due: Duration, log: LogId, revision: Revision, shares: Vec<Share>) {
        if self.logs.get(&log).is_some_and(|known| *known > revision) {
            return;
        }
        self.logs.insert(log, revision);
        let listed: BTreeSet<Place> = shares.iter().map(|share| place(share.params.id)).collect();
        self.drop_of(log, |at| !listed.contains(at));
        for share in shares {
            let at = place(share.params.id);
            if self.settled.contains(&at) {
                continue;
            }
            // What is trimmed is wanted no more: see `start`.
            if self.cases.change(at, |case| case.share = share.clone()).is_none() {
                let lossy = share.end < share.decided_tail;
                self.cases.insert(at, Case { share, stage: Stage::New, lossy, failed: 0, due });
            }
        }
    }

    fn forget(&mut self, log: LogId) {
        self.logs.remove(&log);
        self.drop_of(log, |_| true);
    }

    fn drop_of(&mut self, log: LogId, gone: impl Fn(&Place) -> bool) {
        let range = (log, Reverse(SegmentIndex::new(u32::MAX)))..=(log, Reverse(SegmentIndex::FIRST));
        let cases: Vec<Place> = self.cases.places(range.clone()).filter(|at| gone(at)).collect();
        for at in cases {
            if let Some(case) = self.cases.remove(at) {
                self.progress.records_left = self.progress.records_left.saturating_sub(case.missing());
            }
        }
        let settled: Vec<Place> = self.settled.range(range).copied().filter(|at| gone(at)).collect();
        for at in settled {
            self.settled.remove(&at);
        }
    }

    fn on_ended(&mut self, now: Duration, loglet: LogletId, outcome: Outcome) {
        if self.running.take() != Some(loglet) {
            return;
        }
        let at = place(loglet);
        match &outcome {
            Outcome::Looked { bytes, .. } | Outcome::Copied { bytes, .. } => self.pace.moved(now, *bytes),
            Outcome::Prepared { .. } | Outcome::Attested | Outcome::Failed(_) => {}
        }
        if self.cases.get(at).is_none() {
            return;
        }
        if !matches!(outcome, Outcome::Failed(_)) {
            self.cases.change(at, |case| (case.failed, case.due) = (0, now));
        }
        match outcome {
            Outcome::Prepared { whole_tail } => {
                let is_whole = self.cases.change(at, |case| {
                    let looked = whole_tail.max(case.share.from);
                    case.stage = Stage::Looking { looked, holes: VecDeque::new() };
                    looked >= case.share.end
                });
                if is_whole == Some(true) {
                    self.settle(at);
                }
            }
            Outcome::Looked { until, holes, bytes } => self.on_looked(at, until, holes, bytes),
            Outcome::Copied { until, bytes, lost } => self.on_copied(at, until, bytes, lost),
            Outcome::Attested => self.settle(at),
            Outcome::Failed(error) => self.on_failed(now, at, error),
        }
    }

    fn on_looked(&mut self, at: Place, until: LogletOffset, found: Vec<(LogletOffset, LogletOffset)>, bytes: u64) {
        let Some(Stage::Looking { looked, .. }) = self.cases.get(at).map(|case| &case.stage) else { return };
        let seen = until.distance_from(*looked).unwrap_or(0);
        let missing: u64 = found.iter().map(records_of).sum();
        self.looked_bytes = self.looked_bytes.saturating_add(bytes);
        self.looked_records = self.looked_records.saturating_add(seen.saturating_sub(missing));
        if self.progress.records_left == 0 && missing > 0 {
            // A new beginning: what was done before is over.
            (self.progress.records_done, self.progress.bytes_done) = (0, 0);
        }
        self.progress.records_left = self.progress.records_left.saturating_add(missing);
        self.cases.change(at, |case| case.looked(until, found));
    }

    fn on_copied(&mut self, at: Place, until: LogletOffset, bytes: u64, lost: bool) {
        let copied = self.cases.change(at, |case| {
            let before = case.missing();
            case.fill(until);
            case.lossy |= lost;
            let copied = before.saturating_sub(case.missing());
            case.go_on();
            copied
        });
        let Some(copied) = copied else { return };
        self.progress.records_left = self.progress.records_left.saturating_sub(copied);
        if bytes > 0 {
            self.progress.records_done = self.progress.records_done.saturating_add(copied);
            self.progress.bytes_done = self.progress.bytes_done.saturating_add(bytes);
            self.progress.last_error = None;
        }
    }

    fn on_failed(&mut self, now: Duration, at: Place, error: CatchUpError) {
        self.progress.last_error = Some(error);
        let (pause_min, pause_max) = (self.options.pause_min, self.options.pause_max);
        self.cases.change(at, |case| {
            case.failed = case.failed.saturating_add(1);
            let doubled = 2_u32.saturating_pow(case.failed.saturating_sub(1));
            case.due = now.saturating_add(pause_min.saturating_mul(doubled).min(pause_max));
        });
        match error {
            CatchUpError::Here { source: CallError::Copy(CopyError::DiskFull), .. } => {
                let not_before = now.saturating_add(pause_min);
                self.not_before = not_before;
                self.cases.change(at, |case| case.due = not_before);
            }
            // Another operation sealed the copy meanwhile, or it contradicts: tell it anew where the segment ended.
            CatchUpError::Here { .. } => {
                let missing = self.cases.change(at, |case| {
                    let missing = case.missing();
                    case.stage = Stage::New;
                    missing
                });
                self.progress.records_left = self.progress.records_left.saturating_sub(missing.unwrap_or(0));
            }
            CatchUpError::NoSource { .. }
            | CatchUpError::Read { .. }
            | CatchUpError::Unreadable { .. }
            | CatchUpError::DeadlinePassed { .. } => {}
        }
    }

    fn settle(&mut self, at: Place) {
        self.cases.remove(at);
        self.settled.insert(at);
    }

    /// Begins the next step, if one is due: looking comes before filling, so that it is soon known how much there is to do.
    fn start(&mut self, now: Duration) -> Option<Step> {
        if self.running.is_some() || !self.in_service || now < self.pace.ready_at() {
            return None;
        }
        loop {
            let stores = self.room && self.not_before <= now;
            let at = self.cases.next(now, stores)?;
            let (loglet, filled, step) = self.cases.change(at, |case| {
                let before = case.missing();
                case.fill(case.share.from);
                let filled = before - case.missing();
                (case.share.params.id, filled, case.next_step())
            })?;
            self.progress.records_left = self.progress.records_left.saturating_sub(filled);
            match step {
                Some(step) => {
                    self.running = Some(loglet);
                    return Some(step);
                }
                None => self.settle(at),
            }
        }
    }

    /// Checks what the struct promises.
    ///
    /// # Panics
    /// When it is broken.
    pub fn check(&self) {
        let missing: u64 = self.cases.iter().map(|(_, case)| case.missing()).sum();
        assert_eq!(self.progress.records_left, missing, "records are miscounted");
        self.cases.check();
        for (at, case) in self.cases.iter() {
            assert!(!self.settled.contains(at), "{at:?} is a case and settled");
            assert!(case.share.from < case.share.end, "{at:?} has nothing to hold");
        }
    }
}

#[cfg(test)]
mod tests;
