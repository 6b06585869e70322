//! The service of a metadata member about its group.

use bifrost_types::NodeId;

use super::{DecodeError, at_most, id128, id128_bytes, non_zero, optional, required};
use crate::metadata_admin::{
    KnownMember, MEMBER_ADDRESS_BYTES_MAX, MEMBERS_MAX, MemberRole, MemberStatus, MetadataAdminError, MetadataMember,
    REPLACED_GROUPS_MAX,
};
use crate::pb;
use pb::metadata_admin_refusal::{self as r, Refusal};
use pb::metadata_change_response::{self as c, Outcome};
use pb::metadata_status_response::{Known, Role};

impl From<MetadataMember> for pb::MetadataMember {
    fn from(member: MetadataMember) -> Self {
        Self { node: member.node.get(), address: member.address }
    }
}

impl TryFrom<pb::MetadataMember> for MetadataMember {
    type Error = DecodeError;

    fn try_from(member: pb::MetadataMember) -> Result<Self, DecodeError> {
        if member.address.is_empty() {
            return Err(DecodeError::Missing { field: "MetadataMember.address" });
        }
        at_most("MetadataMember.address", member.address.len(), MEMBER_ADDRESS_BYTES_MAX)?;
        Ok(Self { node: non_zero("MetadataMember.node", member.node)?, address: member.address })
    }
}

impl From<MemberStatus> for pb::MetadataStatusResponse {
    fn from(status: MemberStatus) -> Self {
        let role = match status.role {
            MemberRole::Learner => Role::Learner,
            MemberRole::Follower => Role::Follower,
            MemberRole::Candidate => Role::Candidate,
            MemberRole::Leader => Role::Leader,
            MemberRole::Stopped => Role::Stopped,
        };
        let known = |known: KnownMember| Known { member: Some(known.member.into()), voter: known.voter };
        Self {
            cluster: id128_bytes(status.cluster.get()),
            node: status.node.get(),
            role: role.into(),
            term: status.term,
            leader: status.leader.map(NodeId::get),
            members: status.members.into_iter().map(known).collect(),
            last_log: status.last_log,
            applied: status.applied,
            group: status.group,
            replaced_groups: status.replaced_groups,
        }
    }
}

impl TryFrom<pb::MetadataStatusResponse> for MemberStatus {
    type Error = DecodeError;

    fn try_from(status: pb::MetadataStatusResponse) -> Result<Self, DecodeError> {
        let role = match Role::try_from(status.role) {
            Ok(Role::Learner) => MemberRole::Learner,
            Ok(Role::Follower) => MemberRole::Follower,
            Ok(Role::Candidate) => MemberRole::Candidate,
            Ok(Role::Leader) => MemberRole::Leader,
            Ok(Role::Stopped) => MemberRole::Stopped,
            Ok(Role::Unspecified) | Err(_) => {
                return Err(DecodeError::UnknownValue { field: "MetadataStatusResponse.role", value: status.role });
            }
        };
        at_most("MetadataStatusResponse.members", status.members.len(), MEMBERS_MAX)?;
        at_most("MetadataStatusResponse.replaced_groups", status.replaced_groups.len(), REPLACED_GROUPS_MAX)?;
        let known = |known: Known| {
            let member = required("MetadataStatusResponse.Known.member", known.member)?.try_into()?;
            Ok(KnownMember { member, voter: known.voter })
        };
        Ok(Self {
            cluster: id128("MetadataStatusResponse.cluster", &status.cluster)?,
            node: non_zero("MetadataStatusResponse.node", status.node)?,
            role,
            term: status.term,
            leader: optional("MetadataStatusResponse.leader", status.leader)?,
            members: status.members.into_iter().map(known).collect::<Result<_, DecodeError>>()?,
            last_log: status.last_log,
            applied: status.applied,
            group: status.group,
            replaced_groups: status.replaced_groups,
        })
    }
}

/// Which member to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddMember(pub(crate) MetadataMember);

impl From<AddMember> for pb::AddMetadataMemberRequest {
    fn from(AddMember(member): AddMember) -> Self {
        Self { member: Some(member.into()) }
    }
}

impl TryFrom<pb::AddMetadataMemberRequest> for AddMember {
    type Error = DecodeError;

    fn try_from(request: pb::AddMetadataMemberRequest) -> Result<Self, DecodeError> {
        Ok(Self(required("AddMetadataMemberRequest.member", request.member)?.try_into()?))
    }
}

/// Which member to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoveMember(pub(crate) NodeId);

impl From<RemoveMember> for pb::RemoveMetadataMemberRequest {
    fn from(RemoveMember(node): RemoveMember) -> Self {
        Self { node: node.get() }
    }
}

impl TryFrom<pb::RemoveMetadataMemberRequest> for RemoveMember {
    type Error = DecodeError;

    fn try_from(request: pb::RemoveMetadataMemberRequest) -> Result<Self, DecodeError> {
        Ok(Self(non_zero("RemoveMetadataMemberRequest.node", request.node)?))
    }
}

/// What a member decided about a change. That it could not be asked is no message of its.
pub(crate) type Changed = Result<(), MetadataAdminError>;

impl From<Changed> for pb::MetadataChangeResponse {
    fn from(changed: Changed) -> Self {
        let refusal = match changed {
            Ok(()) => return Self { outcome: Some(Outcome::Done(c::Done {})) },
            Err(MetadataAdminError::NotLeader { leader }) => {
                Refusal::NotLeader(r::NotLeader { leader: leader.map(Into::into) })
            }
            Err(MetadataAdminError::InProgress) => Refusal::InProgress(r::InProgress {}),
            Err(MetadataAdminError::LastVoter) => Refusal::LastVoter(r::LastVoter {}),
            Err(MetadataAdminError::NoMember) => Refusal::NoMember(r::NoMember {}),
            Err(MetadataAdminError::TooLarge) => Refusal::TooLarge(r::TooLarge {}),
            // A service that asks others does not know more than this.
            Err(MetadataAdminError::Unfinished | MetadataAdminError::Rpc(_)) => Refusal::Unfinished(r::Unfinished {}),
            Err(MetadataAdminError::Stopped) => Refusal::Stopped(r::Stopped {}),
            Err(MetadataAdminError::NoMajority { answering, needed }) => {
                Refusal::NoMajority(r::NoMajority { answering, needed })
            }
        };
        Self { outcome: Some(Outcome::Refused(pb::MetadataAdminRefusal { refusal: Some(refusal) })) }
    }
}

impl TryFrom<pb::MetadataChangeResponse> for Changed {
    type Error = DecodeError;

    fn try_from(response: pb::MetadataChangeResponse) -> Result<Self, DecodeError> {
        let refused = match required("MetadataChangeResponse.outcome", response.outcome)? {
            Outcome::Done(_) => return Ok(Ok(())),
            Outcome::Refused(refused) => required("MetadataAdminRefusal.refusal", refused.refusal)?,
        };
        Ok(Err(match refused {
            Refusal::NotLeader(not) => {
                MetadataAdminError::NotLeader { leader: not.leader.map(TryInto::try_into).transpose()? }
            }
            Refusal::InProgress(_) => MetadataAdminError::InProgress,
            Refusal::LastVoter(_) => MetadataAdminError::LastVoter,
            Refusal::NoMember(_) => MetadataAdminError::NoMember,
            Refusal::TooLarge(_) => MetadataAdminError::TooLarge,
            Refusal::Unfinished(_) => MetadataAdminError::Unfinished,
            Refusal::Stopped(_) => MetadataAdminError::Stopped,
            Refusal::NoMajority(r::NoMajority { answering, needed }) => {
                MetadataAdminError::NoMajority { answering, needed }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use bifrost_types::ClusterId;

    use super::super::every_message::round;
    use super::*;
    use crate::error::RpcError;

    fn member(node: u32) -> MetadataMember {
        let address = format!("127.0.0.1:{}", 2438 + node);
        MetadataMember { node: NodeId::try_from(node).expect("non-zero"), address }
    }

    #[test]
    fn every_status_and_outcome_survives_the_way() {
        let known = |node, voter| KnownMember { member: member(node), voter };
        for role in
            [MemberRole::Learner, MemberRole::Follower, MemberRole::Candidate, MemberRole::Leader, MemberRole::Stopped]
        {
            let status = MemberStatus {
                cluster: ClusterId::try_from(7).expect("non-zero"),
                node: member(2).node,
                role,
                term: 3,
                leader: Some(member(1).node),
                members: vec![known(1, true), known(2, false)],
                last_log: Some(9),
                applied: None,
                group: 5,
                replaced_groups: vec![0, 4],
            };
            round::<pb::MetadataStatusResponse, _>(&status);
        }
        round::<pb::AddMetadataMemberRequest, _>(&AddMember(member(3)));
        round::<pb::RemoveMetadataMemberRequest, _>(&RemoveMember(member(3).node));
        for changed in [
            Ok(()),
            Err(MetadataAdminError::NotLeader { leader: Some(member(1)) }),
            Err(MetadataAdminError::NotLeader { leader: None }),
            Err(MetadataAdminError::InProgress),
            Err(MetadataAdminError::LastVoter),
            Err(MetadataAdminError::NoMember),
            Err(MetadataAdminError::TooLarge),
            Err(MetadataAdminError::Unfinished),
            Err(MetadataAdminError::Stopped),
            Err(MetadataAdminError::NoMajority { answering: 1, needed: 2 }),
        ] {
            round::<pb::MetadataChangeResponse, Changed>(&changed);
        }
        let unknown = pb::MetadataChangeResponse::from(Err(MetadataAdminError::Rpc(RpcError::Unreachable)));
        assert_eq!(Changed::try_from(unknown), Ok(Err(MetadataAdminError::Unfinished)));
    }

    #[test]
    fn members_without_number_or_address_are_refused_and_so_are_too_many() {
        let add = |node, address: &str| {
            let member = pb::MetadataMember { node, address: address.to_owned() };
            AddMember::try_from(pb::AddMetadataMemberRequest { member: Some(member) })
        };
        assert_eq!(add(0, "a:1"), Err(DecodeError::Zero { field: "MetadataMember.node" }));
        assert_eq!(add(1, ""), Err(DecodeError::Missing { field: "MetadataMember.address" }));
        let long = "x".repeat(MEMBER_ADDRESS_BYTES_MAX + 1);
        assert!(matches!(add(1, &long), Err(DecodeError::TooLong { .. })));
        let members = (1..).take(MEMBERS_MAX + 1).map(|node| Known { member: Some(member(node).into()), voter: true });
        let status = pb::MetadataStatusResponse {
            cluster: id128_bytes(7),
            node: 1,
            role: Role::Leader.into(),
            term: 1,
            leader: None,
            members: members.collect(),
            last_log: None,
            applied: None,
            group: 0,
            replaced_groups: Vec::new(),
        };
        assert!(matches!(MemberStatus::try_from(status), Err(DecodeError::TooLong { .. })));
    }
}
