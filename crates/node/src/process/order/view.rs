//! What the members at some addresses say of their group.

use bifrost_raft::{GroupId, Lineage};
use bifrost_types::NodeId;
use bifrost_wire::metadata_admin::MemberStatus;

/// What those answered who were asked. Nobody has to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct View {
    found: Vec<(String, MemberStatus)>,
}

impl View {
    /// Of answers, each with the address that it came from. A member that was never told of a group knows nothing of it.
    pub(in super::super) fn new(answers: impl IntoIterator<Item = (String, MemberStatus)>) -> Self {
        Self { found: answers.into_iter().filter(|(_, status)| !status.members.is_empty()).collect() }
    }

    pub(super) fn answers(&self) -> bool {
        !self.found.is_empty()
    }

    /// Where somebody is whose group goes on in place of this one.
    pub(super) fn replaces(&self, group: GroupId) -> Option<String> {
        let replaces = |(_, status): &&(String, MemberStatus)| status.replaced_groups.contains(&group.get());
        self.found.iter().find(replaces).map(|(address, _)| address.clone())
    }

    /// Whether the group is known, and this node is no member of it.
    pub(super) fn is_without(&self, node: NodeId) -> bool {
        self.newest().is_some_and(|status| status.members.iter().all(|known| known.member.node != node))
    }

    /// The group to join, if somebody knows it.
    pub(super) fn lineage(&self) -> Option<Lineage> {
        let status = self.newest()?;
        let before = status.replaced_groups.iter().copied().map(GroupId::from).collect();
        Some(Lineage { group: GroupId::from(status.group), before })
    }

    /// Who knows most of the group that replaces all others that are known of.
    fn newest(&self) -> Option<&MemberStatus> {
        let replaced = |group| self.found.iter().any(|(_, status)| status.replaced_groups.contains(&group));
        let of_the_last = self.found.iter().map(|(_, status)| status).filter(|status| !replaced(status.group));
        of_the_last.max_by_key(|status| (status.term, status.applied))
    }
}
