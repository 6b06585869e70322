//! What a member tells of its group, and does to it.

use std::time::Duration;

use bifrost_raft::{AdminError, Member, MemberId, RaftMetadata, Role};
use bifrost_types::{ClusterId, NodeId};
use bifrost_wire::RpcError;
use bifrost_wire::metadata_admin::{
    KnownMember, MemberRole, MemberStatus, MetadataAdmin, MetadataAdminError, MetadataMember,
};
use futures_util::future::BoxFuture;

/// For a change of the group, a new member's learning included. Less than a client waits, so that it is told.
const CHANGE_DEADLINE: Duration = Duration::from_secs(20);

/// The service, over the member of this process.
#[derive(Debug)]
pub(super) struct MemberAdmin {
    cluster: ClusterId,
    node: NodeId,
    raft: RaftMetadata,
}

impl MemberAdmin {
    pub(super) const fn new(cluster: ClusterId, node: NodeId, raft: RaftMetadata) -> Self {
        Self { cluster, node, raft }
    }

    fn refused(&self, error: AdminError) -> MetadataAdminError {
        match error {
            AdminError::NotLeader { .. } => {
                let leader = self.raft.leader();
                MetadataAdminError::NotLeader { leader: leader.and_then(|(id, member)| wire_member(id, &member)) }
            }
            AdminError::InProgress => MetadataAdminError::InProgress,
            AdminError::LastVoter => MetadataAdminError::LastVoter,
            AdminError::NoMember { .. } => MetadataAdminError::NoMember,
            AdminError::TooLarge => MetadataAdminError::TooLarge,
            AdminError::DeadlinePassed => MetadataAdminError::Unfinished,
            // The other two are refusals of `initialize`, which nobody can ask for from outside.
            AdminError::Stopped | AdminError::Initialized | AdminError::WithoutMe => MetadataAdminError::Stopped,
        }
    }
}

/// A member as the wire has it; `None` for a number that no node has.
pub(super) fn wire_member(id: MemberId, member: &Member) -> Option<MetadataMember> {
    Some(MetadataMember { node: node(id)?, address: member.address.clone() })
}

/// The node of a member.
fn node(id: MemberId) -> Option<NodeId> {
    NodeId::try_from(u32::try_from(id.get()).ok()?).ok()
}

impl MetadataAdmin for MemberAdmin {
    fn status(&self) -> BoxFuture<'_, Result<MemberStatus, RpcError>> {
        let status = self.raft.status();
        let role = match status.role {
            Role::Learner => MemberRole::Learner,
            Role::Follower => MemberRole::Follower,
            Role::Candidate => MemberRole::Candidate,
            Role::Leader => MemberRole::Leader,
            Role::Stopped => MemberRole::Stopped,
        };
        let known = |(id, member): (&MemberId, &Member)| {
            let voter = status.voters.iter().any(|voters| voters.contains(id));
            Some(KnownMember { member: wire_member(*id, member)?, voter })
        };
        let status = MemberStatus {
            cluster: self.cluster,
            node: self.node,
            role,
            term: status.term,
            leader: status.leader.and_then(node),
            members: status.members.iter().filter_map(known).collect(),
            last_log: status.last_log,
            applied: status.applied,
        };
        Box::pin(std::future::ready(Ok(status)))
    }

    fn add_member(&self, member: MetadataMember) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        Box::pin(async move {
            let id = MemberId::from(member.node);
            let added = self.raft.add_member(id, Member { address: member.address }, CHANGE_DEADLINE).await;
            added.map_err(|error| self.refused(error))
        })
    }

    fn remove_member(&self, node: NodeId) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        Box::pin(async move {
            let removed = self.raft.remove_member(MemberId::from(node), CHANGE_DEADLINE).await;
            removed.map_err(|error| self.refused(error))
        })
    }

    fn elect(&self) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        Box::pin(async move { self.raft.elect().await.map_err(|error| self.refused(error)) })
    }
}
