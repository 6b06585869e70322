//! Closing one loglet, up to but not including the transaction that decides its tail: seal, find tail, repair.
//!
//! ```text
//!            Seal ──► every member at once
//!  sealed answers ──► lowest safe tail ≤ highest stored tail ? ──yes──► Done { candidate tail }
//!                                      │ no                                    ▲
//!                                      └──► Read from a copy, Repair another ──┘     one chunk at a time per copy
//! ```
//!
//! What the sealed answers say of the tail is computed anew after each of them, by `tails`: the *committed tail* `C`, below
//! which nobody has to look, the *lowest safe tail*, from which on nothing was or will be acknowledged, and the *highest
//! stored tail*, below which a write quorum has everything from `C` on.
//!
//! Any tail between the last two may be proposed. When the highest stored tail is not below the lowest safe one, it is
//! proposed as it is: the usual case, without a copy made. Otherwise repair raises it, and only as far as it must:
//! records above are provably not acknowledged. Since the lowest safe tail may fall while repair goes on, a copy that
//! alone held the end and died after it was sealed does not block for ever: the others may agree on less.
//!
//! Repair tells a copy `C`, never the candidate (S4): a candidate is a proposal, and a reader must not see what the
//! decision may drop.
//!
//! # When a disk is silent and the sequencer is not
//!
//! A silent copy may have had everything, so the others have to agree on the highest of what it might have helped to
//! acknowledge, and without it there may be no write quorum to copy that to. But acknowledgements come from one place. If the
//! sequencer ends for good and says how far it came, no offset at or above that was or will be acknowledged: its *last word* is
//! a safe tail, and a committed one. Whoever is blocked for want of copies asks for it. That it can still be asked is luck,
//! and nothing waits for it alone.
//!
//! # When disks are lost for good
//!
//! What waits for a disk that an operator declared lost would wait for ever. Whoever is blocked asks which ones were, and
//! calls *left* all the others.
//!
//! - No write quorum can be made of what is left: the lowest safe tail is proposed with the copies that there are. It is
//!   as safe as ever; catching up spreads what is left as far as it goes.
//! - No f-majority can be made of it: nobody can say what was acknowledged. Once everybody who is left is sealed, the end of
//!   the segment's range is proposed, so that no offset that might have been acknowledged, or read, is ever given to
//!   another record. What is above the highest local tail that is left is lost, and the decision says so
//!   ([`Closed::lost_from`]).

mod copy;
mod driver;
mod report;
mod tails;
#[cfg(feature = "test-util")]
mod view;

use std::time::Duration;

use bifrost_types::limits::SEGMENT_OFFSETS_MAX;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletOffset, LogletParams, NodeIndex, NodeSet, OpId};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{CallError, CopyError, CopyState};
use bytes::Bytes;

use self::copy::{Activity, SeenCopy};
pub use self::driver::{CloseOptions, close_loglet};
pub use self::report::{Blocked, CloseError, CloseProgress, Closed, MissingDisk, Wanted, Why};
use self::tails::Tails;
use crate::peers::MemberError;
use crate::quorum::{Missing, Quorum, QuorumError};

/// Copies that are repaired at the same time at most; each holds one chunk in memory.
const REPAIRS_MAX: usize = 8;

/// First offset that no sequencer ever gives.
const END_OF_RANGE: LogletOffset = match LogletOffset::new(SEGMENT_OFFSETS_MAX + 1) {
    Some(end) => end,
    None => LogletOffset::MAX,
};

/// Consecutive encoded batches that a source gave. Not empty: `first_offset <= from < end` of the read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first record of the first batch.
    pub first_offset: LogletOffset,
    /// First offset after the last batch.
    pub end: LogletOffset,
    /// The batches.
    pub batches: Vec<Bytes>,
}

/// Why a source gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFailure {
    /// The call failed.
    Member(MemberError),
    /// It has not, or not intact, what lies between the start of the read and here.
    Absent {
        /// First offset that it may have again.
        end: LogletOffset,
    },
}

/// What happened. Events may be late, lost with their call, or come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The beginning; later, the time of the last [`Effect::RetryAt`] has come.
    RetryDue,
    /// A seal was answered.
    Sealed {
        /// By this member.
        index: NodeIndex,
        /// Its state, after the seal.
        state: CopyState,
    },
    /// A seal was not answered, or refused.
    SealFailed {
        /// By this member.
        index: NodeIndex,
        /// Why.
        error: MemberError,
    },
    /// A source gave records.
    Read {
        /// For this member.
        target: NodeIndex,
        /// The source.
        source: NodeIndex,
        /// Where the read began.
        from: LogletOffset,
        /// What was read.
        chunk: Chunk,
    },
    /// A source gave nothing.
    ReadFailed {
        /// For this member.
        target: NodeIndex,
        /// The source.
        source: NodeIndex,
        /// Where the read began.
        from: LogletOffset,
        /// Why.
        failure: ReadFailure,
    },
    /// A repair store was answered.
    Repaired {
        /// By this member.
        target: NodeIndex,
        /// Its state, after the store.
        state: CopyState,
    },
    /// A repair store was not answered, or refused.
    RepairFailed {
        /// By this member.
        target: NodeIndex,
        /// Why.
        error: MemberError,
    },
    /// The answer to [`Effect::AskWhoIsLost`]; `None` if nobody could say.
    DeclaredLost(Option<NodeSet>),
    /// The answer to [`Effect::EndSequencer`]: the committed tail with which it ended; `None` if it did not say.
    SequencerEnded(Option<LogletOffset>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Seal this member; answer with [`Event::Sealed`] or [`Event::SealFailed`].
    Seal {
        /// The member.
        index: NodeIndex,
    },
    /// Read some batches from `from` on, none at or above `until`; answer with [`Event::Read`] or
    /// [`Event::ReadFailed`].
    Read {
        /// For whom.
        target: NodeIndex,
        /// From whom.
        source: NodeIndex,
        /// First wanted offset.
        from: LogletOffset,
        /// First unwanted offset.
        until: LogletOffset,
    },
    /// Store copies; answer with [`Event::Repaired`] or [`Event::RepairFailed`].
    Repair {
        /// The member.
        target: NodeIndex,
        /// Goes with the store (L1, S4).
        committed_tail: LogletOffset,
        /// What to store.
        chunk: Chunk,
    },
    /// Step again with [`Event::RetryDue`] at this time; replaces any earlier one.
    RetryAt {
        /// On the clock of [`CloseLoglet::step`].
        at: Duration,
    },
    /// It waits for disks; told once per change.
    Blocked(Blocked),
    /// Find out which disks an operator declared lost; answer with [`Event::DeclaredLost`]. Asked once each time the
    /// clock rings while it is blocked.
    AskWhoIsLost,
    /// End the loglet's sequencer for good, whatever it has in flight, and find out how far it came; answer with
    /// [`Event::SequencerEnded`]. Asked once each time the clock rings while copies are missing.
    EndSequencer,
    /// Ready for the deciding transaction. Last effect.
    Done(Closed),
    /// It cannot go on. Last effect.
    Failed(CloseError),
}

/// The core of one finder. Any number of them may work on a loglet at the same time, with one operation or several,
/// and each may be dropped and begun again at any step: all it does is idempotent.
#[derive(Debug, Clone)]
pub struct CloseLoglet {
    op: OpId,
    quorum: Quorum,
    copies: Vec<SeenCopy>,
    tails: Tails,
    /// Members that an operator gave up, by the last answer.
    lost: NodeSet,
    /// Somebody was asked who is lost since the clock last rang.
    asked: bool,
    began_at: Option<Duration>,
    sealed_at: Option<Duration>,
    moved_at: Duration,
    retry_at: Option<Duration>,
    repaired_bytes: u64,
    blocked: Option<Blocked>,
    finished: bool,
}

impl CloseLoglet {
    /// A finder that has not begun: the first event is [`Event::RetryDue`].
    ///
    /// # Errors
    /// [`QuorumError`] when the nodeset cannot meet the replication property.
    pub fn new(params: &LogletParams, op: OpId) -> Result<Self, QuorumError> {
        let quorum = Quorum::new(&params.nodeset, &params.replication)?;
        let copies: Vec<SeenCopy> = params.nodeset.members().iter().cloned().map(SeenCopy::new).collect();
        Ok(Self {
            op,
            quorum,
            tails: Tails::new(copies.len()),
            copies,
            lost: NodeSet::EMPTY,
            asked: false,
            began_at: None,
            sealed_at: None,
            moved_at: Duration::ZERO,
            retry_at: None,
            repaired_bytes: 0,
            blocked: None,
            finished: false,
        })
    }

    /// Takes an event at time `now` of a monotone clock of the caller's choice, and adds what is to be done to `out`.
    /// Once [`Effect::Done`] or [`Effect::Failed`] was given, nothing follows.
    pub fn step(&mut self, now: Duration, event: Event, out: &mut Vec<Effect>) {
        if self.finished {
            return;
        }
        self.began_at.get_or_insert(now);
        let failed = match event {
            Event::RetryDue => {
                (self.retry_at, self.asked) = (None, false);
                None
            }
            Event::Sealed { index, state } => {
                self.on_sealed(now, index, &state);
                None
            }
            Event::SealFailed { index, error } => {
                self.on_seal_failed(now, index, error);
                None
            }
            Event::Read { target, source, from, chunk } => {
                self.on_read(target, source, from, chunk, out);
                None
            }
            Event::ReadFailed { target, source, from, failure } => {
                self.on_read_failed(target, source, from, failure);
                None
            }
            Event::Repaired { target, state } => {
                self.on_repaired(now, target, &state);
                None
            }
            Event::RepairFailed { target, error } => self.on_repair_failed(now, target, error),
            Event::DeclaredLost(lost) => {
                self.lost = lost.unwrap_or(self.lost);
                None
            }
            Event::SequencerEnded(tail) => {
                if let Some(tail) = tail {
                    self.tails.end(tail);
                }
                None
            }
        };
        match failed {
            Some(error) => self.fail(error, out),
            None => self.advance(now, out),
        }
        #[cfg(debug_assertions)]
        self.check();
    }

    /// How far it is.
    pub fn progress(&self) -> CloseProgress {
        let candidate_tail = self.lowest_safe_tail();
        let stored = self.highest_stored_tail().max(self.tails.committed());
        CloseProgress {
            sealed: self.sealed(),
            committed_tail: (!self.sealed().is_empty()).then_some(self.tails.committed()),
            candidate_tail,
            records_left: candidate_tail.and_then(|tail| tail.distance_from(stored)).unwrap_or(0),
            repaired_bytes: self.repaired_bytes,
            moved_at: self.moved_at,
            blocked: self.blocked.clone(),
        }
    }

    fn on_sealed(&mut self, now: Duration, index: NodeIndex, state: &CopyState) {
        if state.sealed.is_none() {
            // Whoever answers a seal without being sealed proves nothing.
            return self.on_seal_failed(now, index, CallError::Rpc(RpcError::Malformed).into());
        }
        let first = !self.sealed().contains(index);
        self.learn(now, index, state);
        let Some(copy) = self.copies.get_mut(index.get()) else { return };
        match copy.activity {
            Activity::Unasked | Activity::Sealing | Activity::Idle | Activity::Waiting { .. } => {
                copy.activity = Activity::Idle;
            }
            Activity::Reading { .. } | Activity::Storing { .. } => {}
        }
        if first {
            copy.succeed();
            // A new source: whoever waits for one tries again at once.
            for other in &mut self.copies {
                if let (Why::NoSource { .. }, Activity::Waiting { .. }) = (other.why, other.activity) {
                    other.activity = Activity::Idle;
                }
            }
        }
    }

    fn on_seal_failed(&mut self, now: Duration, index: NodeIndex, error: MemberError) {
        if let Some(copy) = self.copies.get_mut(index.get())
            && copy.activity == Activity::Sealing
        {
            copy.fail(now, Why::Failed(error));
        }
    }

    fn on_read(
        &mut self,
        target: NodeIndex,
        source: NodeIndex,
        from: LogletOffset,
        chunk: Chunk,
        out: &mut Vec<Effect>,
    ) {
        if from < chunk.first_offset || chunk.end <= from || chunk.batches.is_empty() {
            let failure = ReadFailure::Member(CallError::Rpc(RpcError::Malformed).into());
            return self.on_read_failed(target, source, from, failure);
        }
        let Some(copy) = self.copies.get_mut(target.get()) else { return };
        if copy.activity != (Activity::Reading { source, from }) {
            return;
        }
        copy.activity = Activity::Storing { bytes: chunk.batches.iter().map(|batch| batch.len() as u64).sum() };
        out.push(Effect::Repair { target, committed_tail: self.tails.committed(), chunk });
    }

    fn on_read_failed(&mut self, target: NodeIndex, source: NodeIndex, from: LogletOffset, failure: ReadFailure) {
        let Some(copy) = self.copies.get_mut(target.get()) else { return };
        if copy.activity != (Activity::Reading { source, from }) {
            return;
        }
        copy.activity = Activity::Idle;
        let end = match failure {
            ReadFailure::Member(_) => LogletOffset::MAX,
            ReadFailure::Absent { end } => end,
        };
        if let Some(copy) = self.copies.get_mut(source.get()) {
            // At least `from` itself, or the same read would be tried for ever.
            copy.denied = Some((from, from.advance(1).map_or(end, |next| end.max(next))));
        }
    }

    fn on_repaired(&mut self, now: Duration, target: NodeIndex, state: &CopyState) {
        self.learn(now, target, state);
        let Some(copy) = self.copies.get_mut(target.get()) else { return };
        if let Activity::Storing { bytes } = copy.activity {
            self.repaired_bytes = self.repaired_bytes.saturating_add(bytes);
            copy.activity = Activity::Idle;
            copy.succeed();
        }
    }

    fn on_repair_failed(&mut self, now: Duration, target: NodeIndex, error: MemberError) -> Option<CloseError> {
        let copy = self.copies.get_mut(target.get())?;
        let Activity::Storing { .. } = copy.activity else { return None };
        match error {
            MemberError::Call(CallError::Copy(CopyError::NotSealed | CopyError::Sealed { .. })) => {
                // It answered our seal, so it forgot nothing: a newer operation has taken over. Sealing again from here
                // could make two operations take the loglet from each other for ever; the chain knows which one counts.
                Some(CloseError::Superseded { op: self.op, node: copy.member.node })
            }
            MemberError::AddressUnknown | MemberError::Call(_) => {
                copy.fail(now, Why::Failed(error));
                None
            }
        }
    }

    /// Takes in what a sealed copy says of itself.
    fn learn(&mut self, now: Duration, index: NodeIndex, state: &CopyState) {
        if self.tails.learn(index, state) {
            self.moved_at = now;
        }
    }

    fn advance(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if let Some(decided) = self.tails.decided() {
            // The transaction that decided was preceded by S3, so there is nothing left to copy either.
            return self.finish(now, decided, None, out);
        }
        let lowest_safe = self.lowest_safe_tail();
        if let Some(lowest_safe) = lowest_safe {
            self.sealed_at.get_or_insert(now);
            let stored = self.highest_stored_tail();
            let short = plant::is(Plant::RepairOffByOne) && stored.advance(1) == Ok(lowest_safe);
            if lowest_safe <= stored.max(self.tails.committed()) || short {
                return self.finish(now, lowest_safe.max(stored), None, out);
            }
        }
        self.seal(now, out);
        let blocked = match lowest_safe {
            None => self.why_not_sealed(),
            Some(lowest_safe) => {
                self.repair(now, lowest_safe, out);
                self.why_not_stored(lowest_safe)
            }
        };
        if blocked.is_some()
            && let Some((candidate_tail, lost_from)) = self.best_of_what_is_left(lowest_safe)
        {
            return self.finish(now, candidate_tail, lost_from, out);
        }
        if blocked != self.blocked {
            self.blocked = blocked;
            out.extend(self.blocked.clone().map(Effect::Blocked));
        }
        if self.blocked.is_some() && !self.asked {
            self.asked = true;
            out.push(Effect::AskWhoIsLost);
            if lowest_safe.is_some() {
                out.push(Effect::EndSequencer);
            }
        }
        self.set_timer(out);
    }

    /// The candidate when the disks that are not declared lost can never be enough, and from where on it covers nothing
    /// that they hold. `None` while they can, or while one of them must be heard first.
    fn best_of_what_is_left(&self, lowest_safe: Option<LogletOffset>) -> Option<(LogletOffset, Option<LogletOffset>)> {
        let left = self.quorum.complement(self.lost);
        if let Some(lowest_safe) = lowest_safe {
            let holders = self.with_local_tail(|tail| tail >= lowest_safe);
            let missing = self.quorum.missing_for_write_quorum(holders, left)?;
            return (!missing.within_reach).then(|| (lowest_safe.max(self.highest_stored_tail()), None));
        }
        // Without an f-majority: once everybody who is left is among the sealed, nobody else will ever be.
        let sealed = self.sealed();
        let heard = left.iter().all(|index| sealed.contains(index));
        let lost_from = self.tails.highest().unwrap_or(LogletOffset::FIRST);
        heard.then_some((END_OF_RANGE, Some(lost_from)))
    }

    fn finish(
        &mut self,
        now: Duration,
        candidate_tail: LogletOffset,
        lost_from: Option<LogletOffset>,
        out: &mut Vec<Effect>,
    ) {
        if candidate_tail < self.tails.committed() {
            let error = CloseError::CommittedBeyondSealed {
                committed_tail: self.tails.committed(),
                sealed_tail: candidate_tail,
            };
            return self.fail(error, out);
        }
        let began_at = self.began_at.unwrap_or(now);
        let sealed_at = self.sealed_at.unwrap_or(now);
        self.finished = true;
        self.blocked = None;
        out.push(Effect::Done(Closed {
            candidate_tail,
            lost_from,
            committed_tail: self.tails.committed(),
            decided_tail: self.tails.decided(),
            sealed: self.sealed(),
            seal_time: sealed_at.saturating_sub(began_at),
            repair_time: now.saturating_sub(sealed_at),
            repaired_bytes: self.repaired_bytes,
        }));
    }

    fn fail(&mut self, error: CloseError, out: &mut Vec<Effect>) {
        self.finished = true;
        out.push(Effect::Failed(error));
    }

    /// Asks everybody who was not asked yet or whose back-off is over. Goes on during repair: each further answer may
    /// lower the safe tail, raise the stored one, or be a source.
    fn seal(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let mut retried = false;
        for (copy, index) in self.copies.iter_mut().zip(self.quorum.all().iter()) {
            match copy.activity {
                Activity::Waiting { until } if until <= now => retried = true,
                Activity::Unasked => {}
                Activity::Waiting { .. }
                | Activity::Sealing
                | Activity::Idle
                | Activity::Reading { .. }
                | Activity::Storing { .. } => continue,
            }
            copy.activity = Activity::Sealing;
            out.push(Effect::Seal { index });
        }
        if retried {
            for copy in &mut self.copies {
                copy.denied = None;
            }
        }
    }

    /// Gives every sealed copy that ends too early and that would help the next chunk, if somebody has it.
    fn repair(&mut self, now: Duration, lowest_safe: LogletOffset, out: &mut Vec<Effect>) {
        let holders = self.with_local_tail(|tail| tail >= lowest_safe);
        for target in self.with_local_tail(|tail| tail < lowest_safe).iter() {
            let busy = self.copies.iter().filter(|copy| copy.is_busy() && copy.activity != Activity::Sealing).count();
            if busy >= REPAIRS_MAX {
                return;
            }
            if !self.quorum.advances(holders, target) {
                continue;
            }
            let Some(from) = self.tails.of(target) else { continue };
            let from = from.max(self.tails.committed());
            let source = self.source_for(target, from, lowest_safe);
            let Some(copy) = self.copies.get_mut(target.get()) else { continue };
            if copy.activity != Activity::Idle {
                continue;
            }
            match source {
                Some((source, until)) => {
                    copy.activity = Activity::Reading { source, from };
                    out.push(Effect::Read { target, source, from, until });
                }
                None => copy.fail(now, Why::NoSource { offset: from }),
            }
        }
    }

    /// The copy that reaches furthest from `from`, and how far it should be read.
    fn source_for(
        &self,
        target: NodeIndex,
        from: LogletOffset,
        lowest_safe: LogletOffset,
    ) -> Option<(NodeIndex, LogletOffset)> {
        let mut best: Option<(NodeIndex, LogletOffset)> = None;
        for (index, copy) in self.quorum.all().iter().zip(&self.copies) {
            let Some(until) = self.tails.of(index).map(|tail| tail.min(lowest_safe)) else { continue };
            let better = best.is_none_or(|(_, best)| best < until);
            if index != target && from < until && !copy.denies(from) && better {
                best = Some((index, until));
            }
        }
        best
    }

    fn why_not_sealed(&self) -> Option<Blocked> {
        let sealed = self.sealed();
        let hopeful = self.which(SeenCopy::is_hopeful);
        if self.quorum.missing_for_f_majority(sealed, hopeful)?.within_reach {
            return None;
        }
        let left = self.quorum.complement(self.lost);
        if !self.lost.is_empty() && !self.quorum.missing_for_f_majority(sealed, left)?.within_reach {
            let of: NodeSet = left.iter().filter(|index| !sealed.contains(*index)).collect();
            return Some(
                self.blocked_on(Wanted::EveryoneLeft, Missing { at_least: of.count(), of, within_reach: false }),
            );
        }
        let missing = self.quorum.missing_for_f_majority(sealed, self.quorum.all())?;
        Some(self.blocked_on(Wanted::Seals, missing))
    }

    fn why_not_stored(&self, lowest_safe: LogletOffset) -> Option<Blocked> {
        let holders = self.with_local_tail(|tail| tail >= lowest_safe);
        let hopeful = self.which(SeenCopy::is_hopeful);
        if self.quorum.missing_for_write_quorum(holders, hopeful)?.within_reach {
            return None;
        }
        let missing = self.quorum.missing_for_write_quorum(holders, self.quorum.all())?;
        Some(self.blocked_on(Wanted::Copies { candidate_tail: lowest_safe }, missing))
    }

    fn blocked_on(&self, wanted: Wanted, missing: Missing) -> Blocked {
        let disks = self.copies.iter().zip(self.quorum.all().iter()).filter(|(_, index)| missing.of.contains(*index));
        Blocked {
            wanted,
            at_least: missing.at_least,
            missing: disks
                .map(|(copy, _)| MissingDisk { node: copy.member.node, disk: copy.member.disk, why: copy.why })
                .collect(),
        }
    }

    fn set_timer(&mut self, out: &mut Vec<Effect>) {
        let earliest = self
            .copies
            .iter()
            .filter_map(|copy| match copy.activity {
                Activity::Waiting { until } => Some(until),
                _ => None,
            })
            .min();
        if let Some(at) = earliest
            && self.retry_at != Some(at)
        {
            self.retry_at = Some(at);
            out.push(Effect::RetryAt { at });
        }
    }

    fn lowest_safe_tail(&self) -> Option<LogletOffset> {
        self.tails.lowest_safe(&self.quorum)
    }

    fn highest_stored_tail(&self) -> LogletOffset {
        self.tails.highest_stored(&self.quorum)
    }

    fn sealed(&self) -> NodeSet {
        self.with_local_tail(|_| true)
    }

    fn with_local_tail(&self, keep: impl Fn(LogletOffset) -> bool) -> NodeSet {
        self.tails.which(self.quorum.all(), keep)
    }

    fn which(&self, keep: impl Fn(&SeenCopy) -> bool) -> NodeSet {
        self.quorum.all().iter().zip(&self.copies).filter(|(_, copy)| keep(copy)).map(|(index, _)| index).collect()
    }

    /// A finder that is not finished waits for an answer or for the clock, or it would be stuck.
    #[cfg(debug_assertions)]
    fn check(&self) {
        let waits = self.retry_at.is_some() || self.copies.iter().any(SeenCopy::is_busy);
        debug_assert!(self.finished || waits, "a finder waits for nothing");
        self.tails.check();
    }
}

#[cfg(test)]
mod tests;
