//! Bugs that are planted on purpose: they prove that the models, the simulator and the checker can see.
//!
//! A plant is a few lines at the place where the bug could really be:
//! ```ignore
//! if plant::is(Plant::AcknowledgedBeforeFsync) { /* the bug */ }
//! ```
//! Without `--cfg bifrost_plant`, which only the simulator's own build sets, [`is`] is the constant `false`, and nothing of
//! a bug is in the program. With it a process carries at most one, chosen once at its start.

macro_rules! plants {
    ($($(#[doc = $doc:literal])+ $plant:ident = $name:literal,)+) => {
        /// A realistic bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Plant {
            $($(#[doc = $doc])+ $plant,)+
        }

        impl Plant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$plant,)+];

            /// Its name on the command line and in tables.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$plant => $name,)+
                }
            }

            /// What is wrong, in one sentence.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$plant => concat!($($doc),+),)+
                }
            }
        }
    };
}

plants! {
    /// A seal counts as complete with one server less than an f-majority.
    SealedByTooFew = "sealed-by-too-few",
    /// The candidate tail is the lowest local tail of the sealed copies.
    TailIsMinimum = "tail-is-minimum",
    /// A store is answered before its group is durable.
    AcknowledgedBeforeFsync = "acknowledged-before-fsync",
    /// A seal is answered and obeyed without being written to the disk.
    SealNotDurable = "seal-not-durable",
    /// A store that waits in the same group as a seal is taken behind it.
    StoreRacesSeal = "store-races-seal",
    /// A batch on a write quorum is committed although one before it is not.
    CommittedOutOfOrder = "committed-out-of-order",
    /// Two answers of one server count as two copies.
    AnswerCountedTwice = "answer-counted-twice",
    /// An answer that belongs to an earlier attempt counts for the present one.
    EarlierAttemptCounted = "earlier-attempt-counted",
    /// Repair stops one offset short of the candidate tail.
    RepairOffByOne = "repair-off-by-one",
    /// Repair raises the committed tail to its candidate: readers see what the decision may drop.
    RepairedTailVisible = "repaired-tail-visible",
    /// Nobody resumes what a cancelled sealer left between seal and extend.
    NobodyResumes = "nobody-resumes",
    /// After a lost reply to the deciding transaction another segment is opened.
    LostReplyOpensAnother = "lost-reply-opens-another",
    /// A storage state that is written again after a lost reply is taken for a conflict.
    RetriedStateIsConflict = "retried-state-is-conflict",
    /// A wiped disk answers for the old one, as empty.
    WipedDiskVotes = "wiped-disk-votes",
    /// A copy takes stores of a sequencer that it is not bound to.
    StaleGenerationAccepted = "stale-generation-accepted",
    /// A successor gets the index of the segment that it follows once more.
    LogletIdReused = "loglet-id-reused",
    /// A reader waits at the tail of a closed segment for ever.
    ReaderParksOnSeal = "reader-parks-on-seal",
    /// A step that ends early leaves its flag set, and the copy is never caught up.
    FlagNotCleared = "flag-not-cleared",
    /// A copy trims above the committed tail when it is asked to.
    TrimAboveCommitted = "trim-above-committed",
    /// A failed fsync is tried again, and the second one's success is believed.
    FsyncRetried = "fsync-retried",
    /// The dead sequencer of an idle log is never replaced.
    DeadSequencerStays = "dead-sequencer-stays",
    /// Back-off never decays: who waits asks at full speed.
    BackOffNeverDecays = "back-off-never-decays",
    /// A write quorum counts nodes and ignores zones.
    ZonesIgnored = "zones-ignored",
    /// Offsets of a later segment are mapped to LSNs one too low.
    OffsetMappedWrongly = "offset-mapped-wrongly",
    /// A fenced sequencer answers for the linearizable tail without proof.
    FencedSequencerAnswers = "fenced-sequencer-answers",
    /// The same operation, repeated after it finished, closes another segment.
    FinishedOpRunsAgain = "finished-op-runs-again",
    /// An append whose outcome is open is sent again into the next segment.
    OpenAppendSentAgain = "open-append-sent-again",
    /// An append that may have landed is told as not appended.
    UnknownToldAsNotAppended = "unknown-told-as-not-appended",
    /// A conflicting batch replaces what a copy has.
    ConflictOverwrites = "conflict-overwrites",
    /// A trim point that is lower than the known one replaces it.
    TrimGoesBack = "trim-goes-back",
}

/// Whether this process carries a bug. Constant `false` unless the build was made for plants.
#[cfg(not(bifrost_plant))]
#[inline(always)]
pub const fn is(_: Plant) -> bool {
    false
}

#[cfg(bifrost_plant)]
pub use active::{is, set};

#[cfg(bifrost_plant)]
mod active {
    use std::sync::OnceLock;

    use super::Plant;

    static ACTIVE: OnceLock<Plant> = OnceLock::new();

    /// Whether this process carries a bug.
    pub fn is(plant: Plant) -> bool {
        ACTIVE.get() == Some(&plant)
    }

    /// Gives this process a bug, for good. Returns whether it had none before.
    pub fn set(plant: Plant) -> bool {
        ACTIVE.set(plant).is_ok()
    }
}
