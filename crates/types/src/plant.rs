//! Bugs that are planted on purpose: they prove that the models, the simulator and the checker can see.
//!
//! A plant is a few lines at the place where the bug could really be:
//! ```text
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

            /// The one with this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|plant| plant.name() == name)
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
    /// A store that was on its way when its copy was sealed is taken and counted.
    StoreRacesSeal = "store-races-seal",
    /// Batches that are committed at the same time are acknowledged in each other's place.
    CommittedOutOfOrder = "committed-out-of-order",
    /// The committed tail is the highest local tail of a write quorum, not the lowest.
    CommittedAhead = "committed-ahead",
    /// Two answers of one server count as two copies.
    AnswerCountedTwice = "answer-counted-twice",
    /// What a writer found out about an earlier attempt counts for the present one.
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
    /// An old copy of a disk is served as the disk.
    OldCopyServed = "old-copy-served",
    /// Sequencers and copies look at the node of a sequencer and not at its generation.
    StaleGenerationAccepted = "stale-generation-accepted",
    /// A node that starts again goes on under the generation of its last life.
    GenerationNotRaised = "generation-not-raised",
    /// The index of an empty segment is given to its successor once more.
    LogletIdReused = "loglet-id-reused",
    /// A reader that has everything of a segment is not told that the segment was closed, and waits for ever.
    ReaderParksOnSeal = "reader-parks-on-seal",
    /// A step that ends early leaves its flag set, and the copy is never caught up.
    FlagNotCleared = "flag-not-cleared",
    /// What is not committed is trimmed when somebody asks for it.
    TrimAboveCommitted = "trim-above-committed",
    /// A failed fsync is tried again, and the second one's success is believed.
    FsyncRetried = "fsync-retried",
    /// The dead sequencer of an idle log is never replaced.
    DeadSequencerStays = "dead-sequencer-stays",
    /// Back-off never decays: who waits asks at full speed.
    BackOffNeverDecays = "back-off-never-decays",
    /// A write quorum counts nodes and ignores zones.
    ZonesIgnored = "zones-ignored",
    /// An appender maps offsets of a later segment to LSNs one too low.
    OffsetMappedWrongly = "offset-mapped-wrongly",
    /// A fenced sequencer answers for the linearizable tail without proof.
    FencedSequencerAnswers = "fenced-sequencer-answers",
    /// Only the newest outcome is recognised: an operation that is repeated later closes another segment.
    FinishedOpRunsAgain = "finished-op-runs-again",
    /// An append whose outcome is open is sent again into the next segment.
    OpenAppendSentAgain = "open-append-sent-again",
    /// An append that may have landed is told as not appended.
    UnknownToldAsNotAppended = "unknown-told-as-not-appended",
    /// A conflicting batch replaces what a copy has.
    ConflictOverwrites = "conflict-overwrites",
    /// A trim point that is lower than the known one replaces it.
    TrimGoesBack = "trim-goes-back",
    /// A copy takes what lies behind a hole.
    HoleTaken = "hole-taken",
    /// A group that a full disk refused counts as written.
    RefusedGroupCounts = "refused-group-counts",
    /// A copy gives readers what it has, committed or not.
    UncommittedIsRead = "uncommitted-is-read",
    /// A reader passes over what its copy does not have.
    HoleSkipped = "hole-skipped",
    /// A reader takes a record for lost because one copy of it is damaged.
    DamagedToldAsLost = "damaged-told-as-lost",
    /// What the older stream of a writer still carries gets offsets after the newer one was opened.
    OlderStreamNotFenced = "older-stream-not-fenced",
    /// A metadata member answers with a vote that is not on its disk.
    RaftVoteNotDurable = "raft-vote-not-durable",
    /// A metadata member answers for entries before they are on its disk.
    RaftAcknowledgedBeforeFsync = "raft-acknowledged-before-fsync",
    /// Entries that conflict with those of the leader stay on the disk behind what overwrites them.
    RaftSuffixKept = "raft-suffix-kept",
    /// A snapshot is installed, and the log that it stands for stays on the disk.
    RaftSnapshotLeavesLog = "raft-snapshot-leaves-log",
    /// A file with records is given back when some of what it has of each loglet is trimmed.
    NeededFileGivenBack = "needed-file-given-back",
    /// A sequencer that is asked for its last word gives it, and goes on.
    LastWordTooSoon = "last-word-too-soon",
}

/// Whether this process carries a bug. Constant `false` unless the build was made for plants.
#[cfg(not(bifrost_plant))]
#[inline(always)]
pub const fn is(_: Plant) -> bool {
    false
}

#[cfg(bifrost_plant)]
pub use active::{is, set, set_from_env};

// Without the cfg no plant can be in a program: what it guards is dead code to the compiler. This does not compile
// otherwise.
#[cfg(not(bifrost_plant))]
const _: () = {
    let mut index = 0;
    while index < Plant::ALL.len() {
        assert!(!is(Plant::ALL[index]), "a planted bug in the product");
        index += 1;
    }
};

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

    /// For tests: gives this process the bug that `BIFROST_PLANT` names, if it names one.
    ///
    /// # Panics
    /// When there is no plant of that name: a test would pass without the bug.
    pub fn set_from_env() {
        if let Ok(name) = std::env::var("BIFROST_PLANT") {
            assert!(Plant::named(&name).is_some_and(|plant| set(plant) || is(plant)), "no plant is called {name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Plant;

    #[test]
    fn each_plant_is_found_by_its_name_alone() {
        let names: BTreeSet<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        assert_eq!(names.len(), Plant::ALL.len());
        for plant in Plant::ALL {
            assert_eq!(Plant::named(plant.name()), Some(*plant));
            assert!(plant.what().trim().ends_with('.'), "one sentence: {:?}", plant.what());
        }
        assert_eq!(Plant::named("none-such"), None);
    }
}
