//! What is checked: the invariants, each with the id that documents and code cite.

use std::fmt;

macro_rules! rules {
    ($($rule:ident = $id:literal, $promise:expr, $what:literal;)+) => {
        /// One invariant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $what] $rule,)+
        }

        impl Rule {
            /// All of them, in the order of the documents.
            pub const ALL: &'static [Self] = &[$(Self::$rule,)+];

            /// The id that documents and code cite. A part behind a dot tells apart what one invariant says.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$rule => $id,)+
                }
            }

            /// What must hold, in one sentence.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$rule => $what,)+
                }
            }

            /// The promise to users that a breach breaks first, 1 to 6. `None` if only the history itself is at fault.
            pub const fn promise(self) -> Option<u8> {
                match self {
                    $(Self::$rule => $promise,)+
                }
            }
        }
    };
}

rules! {
    AcknowledgedStays = "P1", Some(1), "An acknowledged record is at its LSN for every later reader, unless it is trimmed.";
    AllSeeTheSame = "P2", Some(2), "Every reader sees the same value at one LSN.";
    RealTimeOrder = "P3", Some(3), "An append that starts after something was known to be committed has a higher LSN.";
    OutcomesAreTrue = "P4", Some(4), "Every append has one outcome, and what was not appended is nowhere.";
    LogTakesAppends = "P5.append", Some(5), "After the heal each open log takes an append within the bound.";
    LogHasATail = "P5.tail", Some(5), "After the heal each log answers with a linearizable tail within the bound.";
    ReadersArrive = "P5.reader", Some(5), "Every reader that was not closed reaches the tail.";
    NothingIsPending = "P5.pending", Some(5), "No reconfiguration is pending at the end.";
    NoOrphanedSeal = "P5.seal", Some(5), "No open segment is sealed on an f-majority at the end.";
    CallsEnd = "P5.calls", Some(5), "Every call that was invoked after the heal ends.";
    IdleIsQuiet = "P5.quiet", Some(5), "Retries decay, and an idle cluster is quiet.";
    WritersGoOn = "P6", Some(6), "Writers are acknowledged again within the allowed pause.";
    QuorumExists = "W1", Some(1), "The nodeset of every segment has a write quorum, so that f-majorities mean something.";
    OnlyNamedDisks = "W2", Some(1), "Copies are on the disks that the nodeset names, and what was lost never comes back.";
    NoHoles = "L1", Some(1), "A copy has no hole above what is on a write quorum.";
    CopiesKeepTheirWord = "L2", Some(1), "Pointers of a copy are in order, never go back, and speak of what is durable.";
    SealHolds = "L3", Some(1), "A seal never goes away, and behind it a disk takes only what another one has.";
    WrittenOnce = "L4", Some(1), "An offset on a disk never gets other bytes.";
    BoundOnce = "L5", Some(1), "A copy is bound to the sequencer of its loglet, for ever.";
    OffsetsGivenOnce = "A1", Some(1), "No two disks hold different bytes at one offset.";
    CommittedInOrder = "A2", Some(1), "What lies below an acknowledged record in its segment is on a write quorum too.";
    AcknowledgedIsDurable = "A3", Some(1), "An acknowledged record is durable on a write quorum at that moment.";
    LivesGrow = "A6", Some(1), "The generation of a node only grows, and each life serves once.";
    LandsOnce = "A7", Some(4), "One append lands at one LSN only.";
    AppenderOrder = "A7.order", Some(3), "Records of one appender lie in the order in which it sent them.";
    SealedByEnough = "S1", Some(1), "A segment is closed only when an f-majority has a durable seal.";
    DecidedCoversAcknowledged = "S2", Some(1), "No acknowledgement is at or above the decided tail.";
    DecidedIsDurable = "S3", Some(1), "Everything below a decided tail is on a write quorum when it is decided, if disks that nobody gave up can be one.";
    CommittedIsTrue = "S4", Some(2), "The committed tail of a copy covers only what the sequencer committed, or what was decided.";
    GarbageGoes = "S5", Some(2), "Nothing is stored at or above a decided tail that the disk knows.";
    OneDecision = "C1", Some(5), "One write closes a segment for ever, and the next one begins exactly there.";
    IdsAreFresh = "C2", Some(5), "Ids of loglets and logs are never used again.";
    VersionsCount = "C3", Some(5), "Each write of a chain is the next version, and a close names its announced operation.";
    OneOutcome = "C4", Some(5), "One operation has one outcome, whoever asks and whenever.";
    TrimOnlyRises = "TRIM", Some(1), "A trim point never goes back nor past what is committed, and is what callers are told.";
    ReadAllowed = "R1", Some(2), "A reader sees only what is below the decided tail, or committed in the open segment.";
    SomebodyAppended = "R2", Some(4), "What readers see was appended to this log by somebody.";
    NoJump = "R3", Some(2), "A reader goes on without a jump and is given nothing twice.";
    TrimmedIsTrimmed = "R3.trimmed", Some(2), "Only what somebody trimmed is skipped as trimmed.";
    LossIsAllowed = "R3.lost", Some(1), "Nothing is lost, unless more was damaged than the replication property tolerates.";
    LossIsTold = "R3.told", Some(1), "What is on no disk any more is told as lost to whoever comes to it.";
    TailIsProved = "R4", Some(3), "A linearizable tail is above all that was committed before the call, and below nothing else.";
    HistoryIsSound = "HISTORY", None, "The history itself makes sense: calls begin once and end, readers are opened.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_id_is_used_once() {
        let ids: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        assert_eq!(ids.len(), Rule::ALL.len());
        assert!(Rule::ALL.iter().all(|rule| rule.promise().is_none_or(|promise| (1..=6).contains(&promise))));
    }
}
