//! Messages between metadata members: they get lost, arrive twice or late, and what they tell of votes is written down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bifrost_raft::codec::{decode_append_request, decode_install_request, decode_vote_reply, decode_vote_request};
use bifrost_raft::machine::SNAPSHOT_BYTES_MAX;
use bifrost_raft::peers::{Envelope, Rpc, decode_answer};
use bifrost_raft::types::Vote;
use bifrost_raft::{Member, MemberId, PeerError, Peers};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::Faults;
use super::call::{Failures, Repeat};
use crate::truth::Truth;

const FAILURES: Failures<PeerError> = Failures { refused: PeerError::Unreachable, lost: PeerError::DeadlinePassed };

/// The votes that members told others of. A vote is on the disk before anybody is told, so no life of a member goes behind
/// what an earlier one told. Clones share them.
#[derive(Debug, Clone)]
pub struct Votes {
    told: Arc<Mutex<BTreeMap<MemberId, Told>>>,
    truth: Truth,
}

/// A term and the candidate that has the vote in it; within a term the library orders candidates too.
type Ballot = (u64, MemberId);

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    life: u64,
    highest: Ballot,
    /// By the lives before this one.
    before: Ballot,
}

impl Votes {
    /// Nobody voted yet.
    pub fn new(truth: Truth) -> Self {
        Self { told: Arc::default(), truth }
    }

    /// Another life of a member begins.
    pub fn begins(&self, member: MemberId) {
        let mut told = self.told.lock();
        let told = told.entry(member).or_default();
        told.before = told.highest;
        told.life += 1;
    }

    fn life(&self, member: MemberId) -> u64 {
        self.told.lock().get(&member).map_or(0, |told| told.life)
    }

    /// A member tells of its vote. What its tasks still say of an older one of the same life is fine.
    pub fn tells(&self, member: MemberId, vote: Vote) {
        let vote = (vote.leader_id.term, vote.leader_id.node_id);
        let before = {
            let mut told = self.told.lock();
            let told = told.entry(member).or_default();
            told.highest = told.highest.max(vote);
            told.before
        };
        if vote < before {
            let ((term, of), (before, was_of)) = (vote, before);
            self.truth.breach(format!(
                "M1 the vote of {member} in term {term} is {of}'s, after an earlier life told of {was_of}'s in term {before}"
            ));
        }
    }
}

/// Does to the messages of one member what [`Faults`] say.
pub struct FaultyPeers {
    host: String,
    me: MemberId,
    inner: Arc<dyn Peers>,
    faults: Faults,
    votes: Votes,
}

impl fmt::Debug for FaultyPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyPeers").field("host", &self.host).finish_non_exhaustive()
    }
}

impl FaultyPeers {
    /// The messages of the member `me` on `host`. Members listen at addresses that begin with their hosts.
    pub fn new(host: &str, me: MemberId, inner: Arc<dyn Peers>, faults: Faults, votes: Votes) -> Self {
        Self { host: host.to_owned(), me, inner, faults, votes }
    }

    /// Writes down what a message tells, and says what it asks for.
    fn sends(&self, message: &[u8]) -> Option<Rpc> {
        let Envelope { rpc, body, .. } = Envelope::decode(message).ok()?;
        let vote = match rpc {
            Rpc::Append => decode_append_request(&body).ok()?.vote,
            Rpc::Vote => decode_vote_request(&body).ok()?.vote,
            Rpc::Install => decode_install_request(&body, SNAPSHOT_BYTES_MAX).ok()?.vote,
            Rpc::Canvass => return Some(rpc),
        };
        self.votes.tells(self.me, vote);
        Some(rpc)
    }

    /// Writes down what an answer tells, if the member still lives that was asked: then it is that one's.
    fn hears(&self, from: MemberId, life: u64, rpc: Option<Rpc>, answer: &[u8]) {
        if rpc == Some(Rpc::Vote)
            && life == self.votes.life(from)
            && let Some(reply) = decode_answer(answer).ok().and_then(|body| decode_vote_reply(&body).ok())
        {
            self.votes.tells(from, reply.vote);
        }
    }
}

impl Peers for FaultyPeers {
    fn call(
        &self,
        to: MemberId,
        member: &Member,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        let (inner, member) = (Arc::clone(&self.inner), member.clone());
        Box::pin(async move {
            let (rpc, life) = (self.sends(&message), self.votes.life(to));
            let there = member.address.split(':').next().unwrap_or_default();
            let route = self.faults.route(&self.host, there).uncounted();
            let execute = move |_| -> BoxFuture<'static, Result<Bytes, PeerError>> {
                let (inner, member, message) = (Arc::clone(&inner), member.clone(), message.clone());
                Box::pin(async move { inner.call(to, &member, message, deadline).await })
            };
            let answer = route.call("exchange", Repeat::Idempotent, FAILURES, execute).await?;
            self.hears(to, life, rpc, &answer);
            Ok(answer)
        })
    }
}
