//! The service of a metadata member about its group: who is in it, who leads, and how it changes.

use std::fmt;

use bifrost_types::{ClusterId, NodeId};
use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::error::RpcError;

/// Most members of one group.
pub const MEMBERS_MAX: usize = 64;
/// Longest address of a member, in bytes.
pub const MEMBER_ADDRESS_BYTES_MAX: usize = 512;

/// Most groups that a status names as replaced.
pub const REPLACED_GROUPS_MAX: usize = 64;

/// A metadata member and where it listens. It has the number of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataMember {
    /// Its node.
    pub node: NodeId,
    /// `host:port`, 1 to [`MEMBER_ADDRESS_BYTES_MAX`] bytes.
    pub address: String,
}

/// A member of the group as another one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMember {
    /// Who and where.
    pub member: MetadataMember,
    /// Whether its vote counts; a learner's does not.
    pub voter: bool,
}

/// What a member is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// It has the log and no vote, or was never told of a group.
    Learner,
    /// It follows, or waits for a leader.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads, as far as it knows.
    Leader,
    /// It has stopped; its disk may have failed.
    Stopped,
}

/// A look at one member. All but what is applied is what this member believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub node: NodeId,
    /// What it is.
    pub role: MemberRole,
    /// Grows with each election.
    pub term: u64,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// All members, at most [`MEMBERS_MAX`].
    pub members: Vec<KnownMember>,
    /// The index of the last entry of its log.
    pub last_log: Option<u64>,
    /// The index of the last entry that was applied.
    pub applied: Option<u64>,
    /// The group that it belongs to: 0 for the one with which the cluster began, another one since a recovery.
    pub group: u64,
    /// Groups that this one goes on in place of, at most [`REPLACED_GROUPS_MAX`].
    pub replaced_groups: Vec<u64>,
}

impl MemberStatus {
    /// Where the leader listens, if that is known.
    pub fn leader_member(&self) -> Option<&MetadataMember> {
        let leader = self.leader?;
        self.members.iter().map(|known| &known.member).find(|member| member.node == leader)
    }

    /// Whether the vote of this node counts.
    pub fn votes(&self, node: NodeId) -> bool {
        self.members.iter().any(|known| known.voter && known.member.node == node)
    }
}

/// Why the group was not changed. Nothing was done unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataAdminError {
    /// Another member leads, if one is known. Ask that one.
    #[error("this metadata member does not lead")]
    NotLeader {
        /// The one to ask.
        leader: Option<MetadataMember>,
    },
    /// Another change is not finished. Try again.
    #[error("another change of the metadata group is not finished")]
    InProgress,
    /// The group would have no voter.
    #[error("the last voter of the metadata group cannot be removed")]
    LastVoter,
    /// There is no such member.
    #[error("there is no such metadata member")]
    NoMember,
    /// Too many members, or an address that is too long.
    #[error("the metadata group takes {MEMBERS_MAX} members with addresses of up to {MEMBER_ADDRESS_BYTES_MAX} bytes")]
    TooLarge,
    /// No outcome in time: the change may be made, or half made. Doing it again goes on.
    #[error("the change of the metadata group did not end in time")]
    Unfinished,
    /// The member has stopped.
    #[error("the metadata member has stopped")]
    Stopped,
    /// Too few of the voters that would be left answer: the group could not decide anything any more.
    #[error("{answering} of the voters that would be left answer, and {needed} must")]
    NoMajority {
        /// How many answer.
        answering: u32,
        /// How many must.
        needed: u32,
    },
    /// The member gave no answer. Doing it again is safe.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// What a metadata member does for whoever runs the cluster.
///
/// # Cancel safety
/// A change that is dropped goes on, or never begins. Doing it again is safe.
pub trait MetadataAdmin: Send + Sync + fmt::Debug {
    /// What this member knows.
    fn status(&self) -> BoxFuture<'_, Result<MemberStatus, RpcError>>;

    /// Adds a member: it learns until it has what the others have, then it votes.
    fn add_member(&self, member: MetadataMember) -> BoxFuture<'_, Result<(), MetadataAdminError>>;

    /// Removes a member, also one that is dead.
    fn remove_member(&self, node: NodeId) -> BoxFuture<'_, Result<(), MetadataAdminError>>;

    /// Makes this member ask for votes now.
    fn elect(&self) -> BoxFuture<'_, Result<(), MetadataAdminError>>;
}
