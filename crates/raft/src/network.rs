//! What openraft says to other members: it becomes bytes here, and the answer is checked here.

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

use crate::codec::{
    AppendReply, AppendRequest, InstallReply, InstallRequest, Sent, VoteReply, VoteRequest, decode_append_reply,
    decode_install_reply, decode_vote_reply, encode_append_request, encode_install_request, encode_vote_request,
};
use crate::peers::{Envelope, PeerError, Peers, Rpc, decode_answer};
use crate::types::{Member, MemberId, Types};

type Failed<E> = RPCError<MemberId, Member, RaftError<MemberId, E>>;

/// Makes a link to each member.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) cluster: ClusterId,
    pub(crate) me: MemberId,
    pub(crate) peers: Arc<dyn Peers>,
    /// How long a member that cannot be reached is left alone.
    pub(crate) pause: Duration,
}

/// The way to one member.
#[derive(Debug)]
pub(crate) struct Link {
    network: Network,
    to: MemberId,
    member: Member,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, to: MemberId, member: &Member) -> Link {
        Link { network: self.clone(), to, member: member.clone() }
    }
}

impl Link {
    async fn call(&self, rpc: Rpc, body: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, PeerError> {
        let Network { cluster, me, peers, .. } = &self.network;
        let message = Envelope { cluster: *cluster, from: *me, to: self.to, rpc, body }.encode();
        let answer = peers.call(self.to, &self.member, Bytes::from(message), deadline).await?;
        decode_answer(&answer)
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
        let body = encode_append_request(&request);
        drop(request);
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
