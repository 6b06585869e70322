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
        self.tails.hash_copy(index, hasher);
    }

    /// Everything else that is not fixed.
    pub fn hash_rest<H: Hasher>(&self, hasher: &mut H) {
        (self.op, self.retry_at.is_some(), self.finished, self.asked, self.lost).hash(hasher);
        self.tails.hash_rest(hasher);
    }
}
