//! What openraft says to other members: it becomes bytes here, and the answer is checked here.
//!
//! openraft gives up a request after one heartbeat and says it again. A large entry may need longer than that on its way,
//! and then would never arrive. So a large request goes on when it is given up; whoever repeats it waits for that one, and
//! meanwhile the member is told that its leader lives.

use std::sync::Arc;
use std::time::Duration;

use bifrost_types::ClusterId;
use bytes::Bytes;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::InstallSnapshotResponse;
use openraft::{RaftNetwork, RaftNetworkFactory, SnapshotSegmentId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codec::{
    AppendReply, AppendRequest, InstallReply, InstallRequest, Sent, VoteReply, VoteRequest, decode_append_reply,
    decode_canvass_reply, decode_install_reply, decode_vote_reply, encode_append_request, encode_canvass_request,
    encode_install_request, encode_vote_request,
};
use crate::peers::{Envelope, PeerError, Peers, Refusal, Rpc, decode_answer};
use crate::types::{GroupId, LogId, Member, MemberId, Types};

type Failed<E> = RPCError<MemberId, Member, RaftError<MemberId, E>>;

/// Makes a link to each member.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) me: MemberId,
    pub(crate) peers: Arc<dyn Peers>,
    /// How long a member that cannot be reached is left alone.
    pub(crate) pause: Duration,
    /// Told when somebody says that this member's group was recovered without it.
    pub(crate) replaced: CancellationToken,
    /// Ends large requests with the member.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// The way to one member.
#[derive(Debug)]
pub(crate) struct Link {
    network: Network,
    to: MemberId,
    member: Member,
    /// A large request that was not answered when openraft gave it up.
    transfer: Option<Transfer>,
}

/// A large request on its way.
#[derive(Debug)]
struct Transfer {
    sent: Sent,
    answer: oneshot::Receiver<Result<Vec<u8>, PeerError>>,
}

/// Requests from this size on are large.
const LARGE_BYTES: usize = 256 << 10;
/// What a link carries in a second at least; a large request gets its time by it.
const LINK_BYTES_PER_SECOND: u64 = 4 << 20;

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, to: MemberId, member: &Member) -> Link {
        Link { network: self.clone(), to, member: member.clone(), transfer: None }
    }
}

impl Network {
    /// Whether a member would vote for this one, whose log ends at `last`.
    ///
    /// # Errors
    /// [`PeerError`], which is no yes.
    pub(crate) async fn would_vote(
        &self,
        to: MemberId,
        member: &Member,
        last: Option<LogId>,
        deadline: Duration,
    ) -> Result<bool, PeerError> {
        let link = Link { network: self.clone(), to, member: member.clone(), transfer: None };
        let answer = link.call(Rpc::Canvass, encode_canvass_request(last), deadline).await?;
        Ok(decode_canvass_reply(&answer)?)
    }
}

impl Link {
    async fn call(&self, rpc: Rpc, body: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, PeerError> {
        let Network { cluster, group, me, peers, replaced, .. } = &self.network;
        let message = Envelope { cluster: *cluster, group: *group, from: *me, to: self.to, rpc, body }.encode();
        let answer = peers.call(self.to, &self.member, Bytes::from(message), deadline).await?;
        let answer = decode_answer(&answer);
        if matches!(answer, Err(PeerError::Refused(Refusal::Replaced))) && !replaced.is_cancelled() {
            tracing::error!(%group, by = ?self.to, "the metadata member stops: its group was recovered without it");
            replaced.cancel();
        }
        answer
    }

    /// Sends a large request in the background. It is answered to whoever waits last.
    fn transfer(&self, sent: Sent, body: Vec<u8>, deadline: Duration) -> Transfer {
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let deadline =
            deadline.saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / LINK_BYTES_PER_SECOND));
        let link = Self { network: self.network.clone(), to: self.to, member: self.member.clone(), transfer: None };
        let (reply, answer) = oneshot::channel();
        let stop = self.network.stop.clone();
        self.network.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                answer = link.call(Rpc::Append, body, deadline) => drop(reply.send(answer)),
            }
        });
        Transfer { sent, answer }
    }

    /// Waits for the request that is on its way. Dropped while it waits, that request stays where it is.
    async fn transferred(&mut self, wanted: &Sent) -> Result<AppendReply, PeerError> {
        let Some(transfer) = &mut self.transfer else { return Err(PeerError::Unreachable) };
        let answer = (&mut transfer.answer).await.unwrap_or(Err(PeerError::Unreachable));
        let sent = transfer.sent;
        self.transfer = None;
        let reply = decode_append_reply(&answer?, &sent)?;
        // Less than is wanted now may have been on its way.
        Ok(if reply.is_success() && sent.last != wanted.last { AppendReply::PartialSuccess(sent.last) } else { reply })
    }
}

/// What openraft does about it: it waits before it tries a member again that cannot be reached or refuses.
fn failed<E: std::error::Error>(error: PeerError) -> Failed<E> {
    match &error {
        PeerError::Unreachable | PeerError::Refused(_) => RPCError::Unreachable(Unreachable::new(&error)),
        PeerError::DeadlinePassed | PeerError::Malformed(_) => RPCError::Network(NetworkError::new(&error)),
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendReply, Failed<openraft::error::Infallible>> {
        let sent = Sent::from(&request);
        let repeats = |transfer: &Transfer| {
            transfer.sent.vote == sent.vote && transfer.sent.prev == sent.prev && transfer.sent.last <= sent.last
        };
        if sent.last != sent.prev {
            if self.transfer.as_ref().is_some_and(repeats) {
                let sign = AppendRequest { entries: Vec::new(), ..request };
                let known = Sent::from(&sign);
                let answer = self.call(Rpc::Append, encode_append_request(&sign), option.hard_ttl() / 2).await;
                // Only that somebody else leads is news: everything else the large request will tell.
                let answer = answer.and_then(|answer| Ok(decode_append_reply(&answer, &known)?));
                return match answer {
                    Ok(AppendReply::HigherVote(vote)) => Ok(AppendReply::HigherVote(vote)),
                    Ok(_) | Err(_) => self.transferred(&sent).await.map_err(failed),
                };
            }
            self.transfer = None;
        }
        let body = encode_append_request(&request);
        drop(request);
        if body.len() >= LARGE_BYTES {
            self.transfer = Some(self.transfer(sent, body, option.hard_ttl()));
            return self.transferred(&sent).await.map_err(failed);
        }
        let answer = self.call(Rpc::Append, body, option.hard_ttl()).await.map_err(failed)?;
        decode_append_reply(&answer, &sent).map_err(|error| failed(error.into()))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallRequest,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<MemberId>, Failed<InstallSnapshotError>> {
        let body = encode_install_request(&request);
        let answer = self.call(Rpc::Install, body, option.hard_ttl()).await.map_err(failed)?;
        match decode_install_reply(&answer).map_err(|error| failed(error.into()))? {
            InstallReply::Vote(vote) => Ok(InstallSnapshotResponse { vote }),
            InstallReply::BeginAgain => {
                let segment = |offset| SnapshotSegmentId { id: request.meta.snapshot_id.clone(), offset };
                let mismatch = SnapshotMismatch { expect: segment(0), got: segment(request.offset) };
                let again = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.to, again)))
            }
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteReply, Failed<openraft::error::Infallible>> {
        let answer = self.call(Rpc::Vote, encode_vote_request(&request), option.hard_ttl()).await.map_err(failed)?;
        decode_vote_reply(&answer).map_err(|error| failed(error.into()))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.pause))
    }
}
