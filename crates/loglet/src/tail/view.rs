//! What decides the future of a check, for models that explore it exhaustively.

use std::hash::{Hash, Hasher};

use bifrost_types::NodeIndex;

use super::{Answer, ConfirmOpen};
use crate::close::Why;

impl ConfirmOpen {
    /// What it heard of one member.
    pub fn hash_member<H: Hasher>(&self, index: NodeIndex, hasher: &mut H) {
        let heard = match self.answers.get(index.get()) {
            None | Some(Answer::None(Why::NoAnswer)) => 0_u8,
            Some(Answer::None(Why::Failed(_) | Why::NoSource { .. })) => 1,
            Some(Answer::Open) => 2,
            Some(Answer::Sealed) => 3,
        };
        heard.hash(hasher);
    }

    /// Everything else that is not fixed.
    pub fn hash_rest<H: Hasher>(&self, hasher: &mut H) {
        (self.committed_tail, self.sealed_by).hash(hasher);
    }
}
