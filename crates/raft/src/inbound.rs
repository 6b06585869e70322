//! Messages of other members. openraft believes a request and asserts what it believes; so what no correct member sends
//! ends here: what was meant for others, what contradicts itself, and what would undo committed entries.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bifrost_types::ClusterId;
use openraft::{LogIdOptionExt, Raft, Snapshot};
use tokio::sync::{Mutex, watch};

use crate::codec::{
    InstallReply, InstallRequest, decode_append_request, decode_canvass_request, decode_install_request,
    decode_vote_request, encode_append_reply, encode_canvass_reply, encode_install_reply, encode_vote_reply,
};
use crate::log::Shape;
use crate::machine::{Image, SNAPSHOT_BYTES_MAX};
use crate::member::{Heard, Status};
use crate::peers::{Envelope, Refusal, Rpc, encode_answer};
use crate::types::{Lineage, LogId, MemberId, Types, Vote};

/// Messages that are carried out at the same time; one more is refused. Each holds up to a message of memory.
const CALLS_MAX: usize = 16;

/// Answers what other members ask.
pub(crate) struct Inbound {
    cluster: ClusterId,
    lineage: Lineage,
    me: MemberId,
    raft: Raft<Types>,
    heard: Arc<Heard>,
    status: watch::Receiver<Status>,
    shape: Arc<parking_lot::Mutex<Shape>>,
    calls: AtomicUsize,
    /// The snapshot that is being received: its name, and the bytes that came so far.
    receiving: Mutex<Option<(String, Vec<u8>)>>,
}

struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inbound {
    pub(crate) fn new(
        cluster: ClusterId,
        lineage: Lineage,
        me: MemberId,
        raft: Raft<Types>,
        heard: Arc<Heard>,
        status: watch::Receiver<Status>,
        shape: Arc<parking_lot::Mutex<Shape>>,
    ) -> Self {
        let (calls, receiving) = (AtomicUsize::new(0), Mutex::new(None));
        Self { cluster, lineage, me, raft, heard, status, shape, calls, receiving }
    }

    /// Answers any bytes.
    pub(crate) async fn receive(&self, message: &[u8]) -> Vec<u8> {
        let answer = self.carry_out(message).await;
        if let Err(refusal) = &answer {
            tracing::debug!(%refusal, "a message of a metadata member is refused");
        }
        encode_answer(&answer)
    }

    async fn carry_out(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let call = Call(&self.calls);
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
            return Err(Refusal::Busy);
        }
        let envelope = Envelope::decode(message).map_err(|_| Refusal::Malformed)?;
        if envelope.cluster != self.cluster {
            return Err(Refusal::OtherCluster);
        }
        if envelope.group != self.lineage.group {
            let replaced = self.lineage.replaces(envelope.group);
            return Err(if replaced { Refusal::Replaced } else { Refusal::OtherGroup });
        }
        if envelope.to != self.me || envelope.from == self.me {
            return Err(Refusal::OtherMember);
        }
        let answer = match envelope.rpc {
            Rpc::Append => self.append(envelope.from, &envelope.body).await,
            Rpc::Vote => self.vote(envelope.from, &envelope.body).await,
            Rpc::Install => self.install(envelope.from, &envelope.body).await,
            Rpc::Canvass => self.canvass(&envelope.body),
        };
        drop(call);
        answer
    }

    /// The last entry that is committed, and the vote that was given last or follows from a leader that was heard.
    async fn known(&self) -> Result<(Option<LogId>, Vote), Refusal> {
        let known = self.raft.with_raft_state(|state| (state.committed, *state.vote_ref()));
        known.await.map_err(|_| Refusal::Stopped)
    }

    async fn append(&self, from: MemberId, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = decode_append_request(body).map_err(|_| Refusal::Malformed)?;
        let (committed, given) = self.known().await?;
        // One that was deposed and does not know it is no leader that is heard.
        let _under_way = (request.vote >= given).then(|| self.heard.begin());
        // Another entry in a place that is committed here: openraft would remove what is there.
        let undoes = |id: &LogId| Some(id.index) <= committed.index() && Some(*id) > committed;
        let ids = request.entries.iter().map(|entry| &entry.log_id);
        if request.vote.leader_id.node_id != from || request.prev_log_id.iter().chain(ids).any(undoes) {
            return Err(Refusal::Malformed);
        }
        let reply = self.raft.append_entries(request).await.map_err(|_| Refusal::Stopped)?;
        Ok(encode_append_reply(&reply))
    }

    async fn vote(&self, from: MemberId, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = decode_vote_request(body).map_err(|_| Refusal::Malformed)?;
        if request.vote.leader_id.node_id != from {
            return Err(Refusal::Malformed);
        }
        let reply = self.raft.vote(request).await.map_err(|_| Refusal::Stopped)?;
        if reply.vote_granted {
            self.heard.voted();
        }
        Ok(encode_vote_reply(&reply))
    }

    fn canvass(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let theirs = decode_canvass_request(body).map_err(|_| Refusal::Malformed)?;
        let mine = self.shape.lock().last;
        let would_vote = self.heard.would_vote(&self.status.borrow(), mine, theirs);
        Ok(encode_canvass_reply(would_vote))
    }

    async fn install(&self, from: MemberId, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = decode_install_request(body, SNAPSHOT_BYTES_MAX).map_err(|_| Refusal::Malformed)?;
        if request.vote.leader_id.node_id != from {
            return Err(Refusal::Malformed);
        }
        let (_, vote) = self.known().await?;
        if request.vote < vote {
            return Ok(encode_install_reply(&InstallReply::Vote(vote)));
        }
        let _under_way = self.heard.begin();
        let (sender, meta, done) = (request.vote, request.meta.clone(), request.done);
        let Some(bytes) = self.piece(request).await else {
            return Ok(encode_install_reply(&InstallReply::BeginAgain));
        };
        if !done {
            return Ok(encode_install_reply(&InstallReply::Vote(vote)));
        }
        // Read before Raft is told: afterwards a snapshot that is none would stop this member.
        let image = Image::decode(&bytes).map_err(|_| Refusal::Malformed)?;
        let (committed, _) = self.known().await?;
        let replaces = meta.last_log_id.index() <= committed.index() && meta.last_log_id > committed;
        if image.applied != meta.last_log_id || image.membership != meta.last_membership || replaces {
            return Err(Refusal::Malformed);
        }
        drop(image);
        let snapshot = Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) };
        let reply = self.raft.install_full_snapshot(sender, snapshot).await.map_err(|_| Refusal::Stopped)?;
        Ok(encode_install_reply(&InstallReply::Vote(reply.vote)))
    }

    /// Adds a piece; all bytes if it was the last one, none if others have to come. `None` if it does not continue what
    /// is there.
    async fn piece(&self, request: InstallRequest) -> Option<Vec<u8>> {
        let mut receiving = self.receiving.lock().await;
        let name = request.meta.snapshot_id;
        if request.offset == 0 {
            *receiving = Some((name.clone(), Vec::new()));
        }
        let (known, bytes) = receiving.as_mut()?;
        let offset = usize::try_from(request.offset).ok()?;
        // A piece whose answer was lost comes again.
        if *known != name || offset > bytes.len() {
            return None;
        }
        bytes.truncate(offset);
        bytes.extend_from_slice(&request.data);
        if request.done { receiving.take().map(|(_, bytes)| bytes) } else { Some(Vec::new()) }
    }
}
