//! What a member tells of its group, and does to it.

use std::collections::BTreeSet;
use std::time::Duration;

use bifrost_raft::{AdminError, Member, MemberId, RaftMetadata};
use bifrost_types::{ClusterId, NodeId};
use bifrost_wire::RpcError;
use bifrost_wire::grpc::{ClientOptions, GrpcMetadataAdmin};
use bifrost_wire::metadata_admin::{KnownMember, MemberStatus, MetadataAdmin, MetadataAdminError, MetadataMember};
use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;

/// For a change of the group, a new member's learning included. Less than a client waits, so that it is told.
const CHANGE_DEADLINE: Duration = Duration::from_secs(20);

/// For another voter to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// The service, over the member of this process.
#[derive(Debug)]
pub(super) struct MemberAdmin {
    cluster: ClusterId,
    node: NodeId,
    raft: RaftMetadata,
    /// For connections to other members.
    client: ClientOptions,
}

impl MemberAdmin {
    pub(super) const fn new(cluster: ClusterId, node: NodeId, raft: RaftMetadata, client: ClientOptions) -> Self {
        Self { cluster, node, raft, client }
    }

    /// Whether the voters that are left without this one can decide: a majority of them answers now.
    async fn keeps_majority(&self, leaving: MemberId) -> Result<(), MetadataAdminError> {
        let status = self.raft.status();
        let left: BTreeSet<MemberId> = status.voters.iter().flatten().copied().filter(|id| *id != leaving).collect();
        if status.leader != Some(status.member) || left.is_empty() {
            // Who leads decides, and says so.
            return Ok(());
        }
        let asked = left.iter().map(|id| async {
            let Some(member) = status.members.get(id) else { return false };
            *id == status.member || self.answers(*id, member).await
        });
        let answering = join_all(asked).await.into_iter().filter(|answers| *answers).count();
        let needed = left.len() / 2 + 1;
        if answering >= needed {
            return Ok(());
        }
        let count = |members: usize| u32::try_from(members).unwrap_or(u32::MAX);
        Err(MetadataAdminError::NoMajority { answering: count(answering), needed: count(needed) })
    }

    async fn answers(&self, id: MemberId, member: &Member) -> bool {
        let Ok(admin) = GrpcMetadataAdmin::connect_lazy(&member.address, &self.client) else { return false };
        let status = timeout(ANSWER_DEADLINE, admin.status()).await;
        status.is_ok_and(|status| status.is_ok_and(|status| node(id) == Some(status.node)))
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
pub(super) fn node(id: MemberId) -> Option<NodeId> {
    NodeId::try_from(u32::try_from(id.get()).ok()?).ok()
}

impl MetadataAdmin for MemberAdmin {
    fn status(&self) -> BoxFuture<'_, Result<MemberStatus, RpcError>> {
        let (status, lineage) = (self.raft.status(), self.raft.lineage());
        let known = |(id, member): (&MemberId, &Member)| {
            let voter = status.voters.iter().any(|voters| voters.contains(id));
            Some(KnownMember { member: wire_member(*id, member)?, voter })
        };
        let status = MemberStatus {
            cluster: self.cluster,
            node: self.node,
            role: status.role,
            term: status.term,
            leader: status.leader.and_then(node),
            members: status.members.iter().filter_map(known).collect(),
            last_log: status.last_log,
            applied: status.applied,
            group: lineage.group.get(),
            replaced_groups: lineage.before.iter().map(|group| group.get()).collect(),
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
            self.keeps_majority(MemberId::from(node)).await?;
            let removed = self.raft.remove_member(MemberId::from(node), CHANGE_DEADLINE).await;
            removed.map_err(|error| self.refused(error))
        })
    }

    fn elect(&self) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        Box::pin(async move { self.raft.elect().await.map_err(|error| self.refused(error)) })
    }
}
