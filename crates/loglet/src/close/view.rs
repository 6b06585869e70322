//! What decides the future of a finder, for models that explore it exhaustively.
//!
//! Times are left out, and so is what is only told to people: two finders that hash alike take the same steps as long
//! as every back-off is over when the clock rings.

use std::hash::{Hash, Hasher};

use bifrost_types::NodeIndex;

use super::copy::Activity;
use super::{CloseLoglet, Why};

impl CloseLoglet {
    /// What it knows of one member, and what it does there; where it reads for it is told in the caller's words. One that
    /// `is_gone` gives nothing to anybody, so it does not matter whether it was tried as a source: that depends on names.
    pub fn hash_member<H: Hasher, S: Hash>(
        &self,
        index: NodeIndex,
        is_gone: bool,
        source: impl Fn(NodeIndex) -> S,
        hasher: &mut H,
    ) {
        let Some(copy) = self.copies.get(index.get()) else { return };
        match copy.activity {
            Activity::Unasked => 0_u8.hash(hasher),
            Activity::Sealing => 1_u8.hash(hasher),
            Activity::Idle => 2_u8.hash(hasher),
            Activity::Reading { source: from_whom, from } => (3_u8, source(from_whom), from).hash(hasher),
            Activity::Storing { bytes } => (4_u8, bytes).hash(hasher),
            Activity::Waiting { .. } => 5_u8.hash(hasher),
        }
        let denied = copy.denied.filter(|_| !is_gone);
        (copy.is_hopeful(), matches!(copy.why, Why::NoSource { .. }), denied).hash(hasher);
        (self.sealed_tails.get(index.get()), self.local_tails.get(index.get())).hash(hasher);
    }

    /// Everything else that is not fixed.
    pub fn hash_rest<H: Hasher>(&self, hasher: &mut H) {
        (self.op, self.committed_tail, self.decided_tail, self.retry_at.is_some(), self.finished).hash(hasher);
        (self.asked, self.lost, self.ended_tail).hash(hasher);
    }
}
