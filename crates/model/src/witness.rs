//! What must have happened in some run of a scope, or its passing proves little.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

macro_rules! witnesses {
    ($($(#[doc = $doc:literal])+ $witness:ident,)+) => {
        /// Something that happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Witness {
            $($(#[doc = $doc])+ $witness,)+
        }

        impl Witness {
            /// In words.
            pub(crate) const fn words(self) -> &'static str {
                match self {
                    $(Self::$witness => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

witnesses! {
    /// a record was acknowledged
    Acknowledged,
    /// repair stored a record
    Repaired,
    /// the decision dropped a record that a copy had
    Dropped,
    /// the decision kept a record that was not acknowledged
    Kept,
    /// two finders had different candidates
    Disagreed,
    /// a finder heard the last word of the sequencer
    LastWord,
    /// a store came to a sealed copy
    StoreAfterSeal,
    /// a store and a seal were in one group
    StoreRacedSeal,
    /// a finder was superseded by a newer operation
    Superseded,
    /// a request named a disk that was lost
    WrongDisk,
    /// a crash took a group with it
    GroupLost,
    /// a store of a broken connection arrived
    LateStore,
    /// a batch of a broken stream of the writer arrived
    LateAppend,
    /// a request arrived that nobody waited for any more
    LateRequest,
    /// a copy had a hole below the committed tail
    Hole,
    /// a record was acknowledged after the decision
    AcknowledgedLate,
    /// a store of another sequencer was refused
    ForeignRefused,
    /// a trim was refused
    TrimRefused,
    /// a copy was trimmed
    Trimmed,
    /// a linearizable tail was proved
    Confirmed,
    /// somebody who asked for the tail learned that the loglet is fenced
    Fenced,
    /// a disk was full and a group refused
    Full,
    /// a store with other bytes was refused
    OtherBytesRefused,
    /// somebody else had changed the chain meanwhile
    Conflict,
    /// an actor died and began again
    ActorDied,
    /// an operation that was over was asked for again
    Repeated,
    /// the successor was replaced under the same operation
    Replaced,
    /// the tail was asked of a sequencer that was fenced without knowing it
    FencedAsked,
}

/// What was seen so far, in all runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<AtomicU32>);

impl Seen {
    pub(crate) fn note(&self, witness: Witness) {
        let bit = 1 << witness as u32;
        if self.0.load(Ordering::Relaxed) & bit == 0 {
            self.0.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The first of these that never happened.
    pub(crate) fn missing(&self, wanted: &[Witness]) -> Option<&'static str> {
        let seen = self.0.load(Ordering::Relaxed);
        wanted.iter().find(|witness| seen & (1 << **witness as u32) == 0).map(|witness| witness.words())
    }
}
