//! How far copies and their sequencer came, by what they said, and what follows from it. Computed anew after each answer.
//!
//! - `committed_tail` `C`: the highest that any copy heard from the sequencer. Everything below it is on a write quorum
//!   and is nobody's worry here. Each report is true whenever it comes, so `C` may rise late.
//! - The *lowest safe tail*: the lowest `T` such that the copies whose local tail was at most `T` when they answered
//!   sealed are an f-majority. No offset `o >= T` was or will be acknowledged: that takes a write quorum that stored `o`
//!   before its seals, one of these copies would be among it (W1), and its local tail would be above `o` (S1, S2).
//!   More answers can only lower it. An answer with a higher local tail than `T` tells of offsets that can never be
//!   committed, which is why nobody is waited for once there is an f-majority.
//! - The *highest stored tail*: the highest `T` such that copies with everything in `[C, T)` are a write quorum. A copy
//!   has everything between its own committed tail, which is at most `C`, and its local tail (L1).
//!
//! Any tail between the two may be proposed.

#[cfg(feature = "test-util")]
use std::hash::{Hash, Hasher};

use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletOffset, NodeIndex, NodeSet};
use bifrost_wire::log_server::CopyState;

use crate::quorum::Quorum;

/// What is known of one loglet.
#[derive(Debug, Clone)]
pub(super) struct Tails {
    /// By index: the lowest local tail that the copy answered sealed with, before anybody repaired it if we were first.
    sealed: Vec<Option<LogletOffset>>,
    /// By index: the highest local tail that the sealed copy answered with.
    local: Vec<Option<LogletOffset>>,
    committed: LogletOffset,
    decided: Option<LogletOffset>,
    /// The sequencer's last word.
    ended: Option<LogletOffset>,
}

impl Tails {
    /// Nobody said anything yet.
    pub(super) fn new(copies: usize) -> Self {
        let nothing = vec![None; copies];
        Self { sealed: nothing.clone(), local: nothing, committed: LogletOffset::FIRST, decided: None, ended: None }
    }

    /// Takes in what a sealed copy says of itself; returns whether any of it is new.
    pub(super) fn learn(&mut self, index: NodeIndex, state: &CopyState) -> bool {
        let (Some(sealed), Some(local)) = (self.sealed.get_mut(index.get()), self.local.get_mut(index.get())) else {
            return false;
        };
        let known = (*sealed, *local, self.committed);
        // Every answer after the seal bounds what the sequencer stored there, so the lowest is the best bound. Nothing
        // but repair moves the local tail after the seal, and repair only raises it; answers may be out of order.
        *sealed = Some(sealed.map_or(state.local_tail, |tail| tail.min(state.local_tail)));
        *local = Some(local.map_or(state.local_tail, |tail| tail.max(state.local_tail)));
        self.committed = self.committed.max(state.committed_tail);
        self.decided = self.decided.or(state.decided_tail);
        known != (*sealed, *local, self.committed)
    }

    /// Takes in the sequencer's last word: how far it acknowledged, and nothing will be any more.
    pub(super) fn end(&mut self, last_word: LogletOffset) {
        let ended = *self.ended.get_or_insert(last_word);
        self.committed = self.committed.max(ended);
    }

    /// `C`.
    pub(super) const fn committed(&self) -> LogletOffset {
        self.committed
    }

    /// The decision, if a copy knows of it.
    pub(super) const fn decided(&self) -> Option<LogletOffset> {
        self.decided
    }

    /// The local tail of a copy that is sealed.
    pub(super) fn of(&self, index: NodeIndex) -> Option<LogletOffset> {
        self.local.get(index.get()).copied().flatten()
    }

    /// The highest local tail of a copy that is sealed.
    pub(super) fn highest(&self) -> Option<LogletOffset> {
        self.local.iter().flatten().max().copied()
    }

    /// `None` without an f-majority.
    pub(super) fn lowest_safe(&self, quorum: &Quorum) -> Option<LogletOffset> {
        let lowest_safe = quorum.lowest_safe(&self.sealed)?;
        if plant::is(Plant::TailIsMinimum) {
            return self.sealed.iter().flatten().min().copied();
        }
        // Never below what was acknowledged, whoever says so.
        Some(self.ended.map_or(lowest_safe, |ended| lowest_safe.min(ended.max(self.committed))))
    }

    /// The first offset without a write quorum.
    pub(super) fn highest_stored(&self, quorum: &Quorum) -> LogletOffset {
        quorum.best_committed(&self.local).unwrap_or(LogletOffset::FIRST)
    }

    /// Panics where what is known contradicts itself.
    #[cfg(debug_assertions)]
    pub(super) fn check(&self) {
        for (sealed, local) in self.sealed.iter().zip(&self.local) {
            debug_assert!(sealed <= local, "the sealed tail of a copy is at most its local tail");
        }
    }

    /// The copies among `members` that are sealed and whose local tail is as it should be.
    pub(super) fn which(&self, members: NodeSet, keep: impl Fn(LogletOffset) -> bool) -> NodeSet {
        members.iter().filter(|index| self.of(*index).is_some_and(&keep)).collect()
    }

    /// What is known of one copy, for models.
    #[cfg(feature = "test-util")]
    pub(super) fn hash_copy<H: Hasher>(&self, index: NodeIndex, hasher: &mut H) {
        (self.sealed.get(index.get()), self.local.get(index.get())).hash(hasher);
    }

    /// What is known besides, for models.
    #[cfg(feature = "test-util")]
    pub(super) fn hash_rest<H: Hasher>(&self, hasher: &mut H) {
        (self.committed, self.decided, self.ended).hash(hasher);
    }
}
