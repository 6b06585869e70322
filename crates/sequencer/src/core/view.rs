//! What decides the future of a sequencer, for models that explore it exhaustively. Times are left out.

use std::hash::{Hash, Hasher};

use bifrost_types::NodeIndex;

use super::{Core, Phase};

impl<P> Core<P> {
    /// What it knows of one copy.
    pub fn hash_copy<H: Hasher>(&self, index: NodeIndex, hasher: &mut H) {
        if let Some(copy) = self.copies.get(index.get()) {
            copy.hash_view(hasher);
        }
    }

    /// Everything else that is not fixed.
    pub fn hash_rest<H: Hasher>(&self, hasher: &mut H) {
        (self.window.front(), self.window.committed_tail(), self.window.next_offset()).hash(hasher);
        for entry in self.window.from(self.window.front()) {
            (entry.first_offset, entry.end, &entry.batch).hash(hasher);
        }
        (self.phase == Phase::Running, self.streams.len()).hash(hasher);
    }
}
