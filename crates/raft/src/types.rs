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

/// Names one life of a cluster's metadata group. A group that lost its majority for good goes on as another one: what is
/// left of the old one must not be counted in it, nor go on beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GroupId(u64);

impl GroupId {
    /// The group with which a cluster begins.
    pub const FIRST: Self = Self(0);

    /// The number; 0 for the first group.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for GroupId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Most groups that a lineage remembers.
pub const LINEAGE_MAX: usize = 64;

/// The group of a member, and those that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// The group.
    pub group: GroupId,
    /// Those before it, the oldest first; at most [`LINEAGE_MAX`].
    pub before: Vec<GroupId>,
}

impl Lineage {
    /// The same, gone on as another group.
    #[must_use]
    pub fn followed_by(&self, group: GroupId) -> Self {
        let mut before = self.before.clone();
        before.push(self.group);
        before.drain(..before.len().saturating_sub(LINEAGE_MAX));
        Self { group, before }
    }

    /// Whether this group goes on in place of that one.
    pub fn replaces(&self, group: GroupId) -> bool {
        self.before.contains(&group)
    }
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
