//! The nouns of this crate, and which of them stand for the placeholders of the Raft library.

use std::fmt;
use std::io::Cursor;

use bifrost_metadata::{Txn, TxnOutcome};
use bifrost_types::NodeId;

/// A metadata server that takes part in Raft. It has the number of its node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberId(u64);

impl MemberId {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for MemberId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<NodeId> for MemberId {
    fn from(node: NodeId) -> Self {
        Self(u64::from(node.get()))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "N{}", self.0)
    }
}

/// What the others need to know of a member. It is part of the replicated membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Where it listens.
    pub address: String,
}

/// What one log entry asks for: transactions that are decided one after the other. Many callers share an entry, because
/// an entry costs an fsync at each member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// In the order in which they are decided.
    pub txns: Vec<Txn>,
}

/// What became of the transactions of an entry, in their order. Empty for entries of Raft itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcomes(pub Vec<TxnOutcome>);

openraft::declare_raft_types!(
    /// The types that this crate gives to the Raft library.
    pub Types:
        D = Command,
        R = Outcomes,
        NodeId = MemberId,
        Node = Member,
        SnapshotData = Cursor<Vec<u8>>,
);

/// Which entry: the leader that proposed it, and its place in the log.
pub type LogId = openraft::LogId<MemberId>;
/// A term and the candidate that the vote is for.
pub type Vote = openraft::Vote<MemberId>;
/// A log entry.
pub type Entry = openraft::Entry<Types>;
/// Who votes and who learns.
pub type Membership = openraft::Membership<MemberId, Member>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::StoredMembership<MemberId, Member>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<MemberId, Member>;
/// What the Raft library is told when a disk fails.
pub type StorageError = openraft::StorageError<MemberId>;
