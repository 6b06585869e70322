//! Signs of life at a metadata member: they count while it leads.

use bifrost::liveness::Detector;
use bifrost::liveness::core::{Lead, TooManyNodes};
use bifrost_raft::{MemberId, RaftMetadata, Role, Status};
use bifrost_wire::RpcError;
use bifrost_wire::liveness::{Beat, BeatError, Liveness};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::admin::{node, wire_member};

/// The service, over the member of this process.
#[derive(Debug)]
pub(super) struct MemberLiveness {
    raft: RaftMetadata,
    detector: Detector,
}

impl MemberLiveness {
    pub(super) const fn new(raft: RaftMetadata, detector: Detector) -> Self {
        Self { raft, detector }
    }
}

impl Liveness for MemberLiveness {
    fn beat(&self, beat: Beat) -> BoxFuture<'_, Result<(), BeatError>> {
        Box::pin(async move {
            let status = self.raft.status();
            self.detector.lead(lead(&status));
            if status.role != Role::Leader {
                let leader = self.raft.leader().and_then(|(id, member)| wire_member(id, &member));
                return Err(BeatError::NotLeader { leader });
            }
            self.detector.beat(beat).map_err(|TooManyNodes| BeatError::Rpc(RpcError::Overloaded))
        })
    }
}

fn lead(status: &Status) -> Option<Lead> {
    let missed = |(member, heard): (MemberId, Instant)| Some((node(member)?, heard.elapsed()));
    match status.role {
        Role::Leader => Some(Lead { term: status.term, missed: status.missed.and_then(missed) }),
        Role::Learner | Role::Follower | Role::Candidate | Role::Stopped => None,
    }
}

/// Tells the detector of the lead and of the time, until the member is gone; run it as a task.
pub(super) async fn detect(raft: RaftMetadata, detector: Detector) {
    detector.follow(raft.watch_status(), lead).await;
}
