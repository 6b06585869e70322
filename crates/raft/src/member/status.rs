//! What a member knows about the group and itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{LogIdOptionExt, RaftMetrics, ServerState};
use tokio::time::Instant;

use crate::types::{Member, MemberId};

/// What a member is at the moment, here and on the wire.
pub use bifrost_wire::metadata_admin::MemberRole as Role;

/// A look at one member. Everything but what is applied is what this member believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The member.
    pub member: MemberId,
    /// What it is.
    pub role: Role,
    /// Who leads.
    pub leader: Option<MemberId>,
    /// The term.
    pub term: u64,
    /// The index of the last entry of its log.
    pub last_log: Option<u64>,
    /// The index of the last entry that was applied.
    pub applied: Option<u64>,
    /// The index of the last entry that its snapshot covers.
    pub snapshot: Option<u64>,
    /// The index of the last entry that is gone from its log.
    pub purged: Option<u64>,
    /// Members whose votes count; two groups of them while they change.
    pub voters: Vec<BTreeSet<MemberId>>,
    /// All members, learners too.
    pub members: BTreeMap<MemberId, Member>,
    /// Of a leader: the last entry that each member is known to have.
    pub replicated: BTreeMap<MemberId, Option<u64>>,
    /// Of a leader that asked for votes because it heard nothing of the one before: that one, and when it was heard last.
    pub missed: Option<(MemberId, Instant)>,
    /// Of a leader: whether a majority has answered lately.
    pub(crate) has_majority: bool,
}

impl Status {
    pub(crate) fn of(metrics: &RaftMetrics<MemberId, Member>, patience: Duration) -> Self {
        let membership = metrics.membership_config.membership();
        let role = match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        };
        let silent = metrics.millis_since_quorum_ack.map(Duration::from_millis);
        let replicated = metrics.replication.iter().flatten();
        Self {
            member: metrics.id,
            role,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.index(),
            snapshot: metrics.snapshot.index(),
            purged: metrics.purged.index(),
            voters: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            replicated: replicated.map(|(id, matched)| (*id, matched.index())).collect(),
            missed: None,
            has_majority: silent.is_none_or(|silent| silent <= patience),
        }
    }

    /// Whether transactions are worth proposing: this member leads, and it is not alone.
    pub(crate) fn serves(&self) -> bool {
        self.role == Role::Leader && self.leader == Some(self.member) && self.has_majority
    }
}
