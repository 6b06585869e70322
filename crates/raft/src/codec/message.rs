//! What members say to each other. What openraft takes for granted of a request is checked when it is read: entries
//! follow each other and what they are said to follow, and only a leader sends them.

use openraft::LogIdOptionExt;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest as RaftVoteRequest, VoteResponse,
};

use super::entry::{read_entry, write_entry};
use super::{CodecError, REQUEST_ENTRIES_MAX, Reader, Writer};
use crate::types::{LogId, MemberId, Types};

/// Entries to append, or a sign of life.
pub type AppendRequest = AppendEntriesRequest<Types>;
/// What became of them.
pub type AppendReply = AppendEntriesResponse<MemberId>;
/// A candidate asks for a vote.
pub type VoteRequest = RaftVoteRequest<MemberId>;
/// Whether it got it.
pub type VoteReply = VoteResponse<MemberId>;
/// A piece of a snapshot.
pub type InstallRequest = InstallSnapshotRequest<Types>;

/// What became of a piece of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallReply {
    /// Taken, or refused because the vote is higher than the sender's.
    Vote(crate::types::Vote),
    /// It does not continue what is there: begin again.
    BeginAgain,
}

/// Bytes of a piece of a snapshot at most.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

const SUCCESS: u8 = 0;
const PARTIAL: u8 = 1;
const CONFLICT: u8 = 2;
const HIGHER_VOTE: u8 = 3;

/// The bytes of a request to append.
pub fn encode_append_request(request: &AppendRequest) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.vote(&request.vote);
    writer.maybe(request.prev_log_id.as_ref(), Writer::log_id);
    writer.maybe(request.leader_commit.as_ref(), Writer::log_id);
    writer.count(request.entries.len());
    request.entries.iter().for_each(|entry| write_entry(&mut writer, entry));
    writer.finish()
}

/// Reads a request to append.
///
/// # Errors
/// [`CodecError`].
pub fn decode_append_request(bytes: &[u8]) -> Result<AppendRequest, CodecError> {
    let mut reader = Reader::new("a request to append", bytes);
    let vote = reader.vote()?;
    let prev_log_id = reader.maybe(Reader::log_id)?;
    let leader_commit = reader.maybe(Reader::log_id)?;
    let mut entries = Vec::new();
    let mut last: Option<LogId> = prev_log_id;
    for _ in 0..reader.count(REQUEST_ENTRIES_MAX)? {
        let entry = read_entry(&mut reader)?;
        if entry.log_id.index != last.next_index() || last > Some(entry.log_id) {
            return Err(reader.inconsistent());
        }
        last = Some(entry.log_id);
        entries.push(entry);
    }
    if !vote.committed || last.is_some_and(|last| last.leader_id > vote.leader_id) {
        return Err(reader.inconsistent());
    }
    reader.end()?;
    Ok(AppendRequest { vote, prev_log_id, entries, leader_commit })
}

/// The bytes of the answer to a request to append.
pub fn encode_append_reply(reply: &AppendReply) -> Vec<u8> {
    let mut writer = Writer::default();
    match reply {
        AppendEntriesResponse::Success => writer.tag(SUCCESS),
        AppendEntriesResponse::PartialSuccess(last) => {
            writer.tag(PARTIAL);
            writer.maybe(last.as_ref(), Writer::log_id);
        }
        AppendEntriesResponse::Conflict => writer.tag(CONFLICT),
        AppendEntriesResponse::HigherVote(vote) => {
            writer.tag(HIGHER_VOTE);
            writer.vote(vote);
        }
    }
    writer.finish()
}

/// Reads the answer to a request.
///
/// # Errors
/// [`CodecError`], also for an answer that the request cannot have: openraft would believe it.
pub fn decode_append_reply(bytes: &[u8], request: &Sent) -> Result<AppendReply, CodecError> {
    let mut reader = Reader::new("an answer to a request to append", bytes);
    let reply = match reader.tag()? {
        SUCCESS => AppendReply::Success,
        PARTIAL => {
            let last = reader.maybe(Reader::log_id)?;
            if last < request.prev || last > request.last {
                return Err(reader.inconsistent());
            }
            AppendReply::PartialSuccess(last)
        }
        CONFLICT if request.prev.is_none() => return Err(reader.inconsistent()),
        CONFLICT => AppendReply::Conflict,
        HIGHER_VOTE => {
            let vote = reader.vote()?;
            if !matches!(vote.partial_cmp(&request.vote), Some(std::cmp::Ordering::Greater)) {
                return Err(reader.inconsistent());
            }
            AppendReply::HigherVote(vote)
        }
        tag => return reader.unknown(tag),
    };
    reader.end()?;
    Ok(reply)
}

/// What an answer is read against: who asked, and which entries were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The vote of the leader.
    pub vote: crate::types::Vote,
    /// The entry before the first one.
    pub prev: Option<LogId>,
    /// The last entry, or the one before the first if none was sent.
    pub last: Option<LogId>,
}

impl From<&AppendRequest> for Sent {
    fn from(request: &AppendRequest) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id);
        Self { vote: request.vote, prev: request.prev_log_id, last: last.or(request.prev_log_id) }
    }
}

/// The bytes of a request for a vote.
pub fn encode_vote_request(request: &VoteRequest) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.vote(&request.vote);
    writer.maybe(request.last_log_id.as_ref(), Writer::log_id);
    writer.finish()
}

/// Reads a request for a vote. Only a candidate asks, and it is not elected yet.
///
/// # Errors
/// [`CodecError`].
pub fn decode_vote_request(bytes: &[u8]) -> Result<VoteRequest, CodecError> {
    let mut reader = Reader::new("a request for a vote", bytes);
    let request = VoteRequest::new(reader.vote()?, reader.maybe(Reader::log_id)?);
    if request.vote.committed {
        return Err(reader.inconsistent());
    }
    reader.end()?;
    Ok(request)
}

/// The bytes of the answer to a request for a vote.
pub fn encode_vote_reply(reply: &VoteReply) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.vote(&reply.vote);
    writer.bool(reply.vote_granted);
    writer.maybe(reply.last_log_id.as_ref(), Writer::log_id);
    writer.finish()
}

/// Reads the answer to a request for a vote.
///
/// # Errors
/// [`CodecError`].
pub fn decode_vote_reply(bytes: &[u8]) -> Result<VoteReply, CodecError> {
    let mut reader = Reader::new("an answer to a request for a vote", bytes);
    let (vote, granted) = (reader.vote()?, reader.bool()?);
    let last = reader.maybe(Reader::log_id)?;
    reader.end()?;
    Ok(VoteReply::new(vote, last, granted))
}

/// The bytes of a question whether a member would vote for one whose log ends there.
pub fn encode_canvass_request(last: Option<LogId>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.maybe(last.as_ref(), Writer::log_id);
    writer.finish()
}

/// Reads a question whether a member would vote.
///
/// # Errors
/// [`CodecError`].
pub fn decode_canvass_request(bytes: &[u8]) -> Result<Option<LogId>, CodecError> {
    let mut reader = Reader::new("a canvass", bytes);
    let last = reader.maybe(Reader::log_id)?;
    reader.end()?;
    Ok(last)
}

/// The bytes of the answer to it.
pub fn encode_canvass_reply(would_vote: bool) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.bool(would_vote);
    writer.finish()
}

/// Reads the answer to it.
///
/// # Errors
/// [`CodecError`].
pub fn decode_canvass_reply(bytes: &[u8]) -> Result<bool, CodecError> {
    let mut reader = Reader::new("an answer to a canvass", bytes);
    let would_vote = reader.bool()?;
    reader.end()?;
    Ok(would_vote)
}

/// The bytes of a piece of a snapshot.
pub fn encode_install_request(request: &InstallRequest) -> Vec<u8> {
    let mut writer = Writer::with_capacity(request.data.len() + 256);
    writer.vote(&request.vote);
    writer.snapshot_meta(&request.meta);
    writer.u64(request.offset);
    writer.bytes(&request.data);
    writer.bool(request.done);
    writer.finish()
}

/// Reads a piece of a snapshot of at most `bytes_max` bytes. Only a leader sends one, and it covers something.
///
/// # Errors
/// [`CodecError`].
pub fn decode_install_request(bytes: &[u8], bytes_max: u64) -> Result<InstallRequest, CodecError> {
    let mut reader = Reader::new("a piece of a snapshot", bytes);
    let (vote, meta, offset) = (reader.vote()?, reader.snapshot_meta()?, reader.u64()?);
    let data = reader.bytes(CHUNK_BYTES_MAX)?.to_vec();
    let done = reader.bool()?;
    let covers = meta.last_log_id.is_some_and(|last| last.leader_id <= vote.leader_id);
    let membership = meta.last_membership.log_id();
    let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= bytes_max);
    if !vote.committed || !covers || !fits || *membership > meta.last_log_id {
        return Err(reader.inconsistent());
    }
    reader.end()?;
    Ok(InstallRequest { vote, meta, offset, data, done })
}

/// The bytes of the answer to a piece of a snapshot.
pub fn encode_install_reply(reply: &InstallReply) -> Vec<u8> {
    let mut writer = Writer::default();
    match reply {
        InstallReply::Vote(vote) => {
            writer.tag(0);
            writer.vote(vote);
        }
        InstallReply::BeginAgain => writer.tag(1),
    }
    writer.finish()
}

/// Reads the answer to a piece of a snapshot.
///
/// # Errors
/// [`CodecError`].
pub fn decode_install_reply(bytes: &[u8]) -> Result<InstallReply, CodecError> {
    let mut reader = Reader::new("an answer to a piece of a snapshot", bytes);
    let reply = match reader.tag()? {
        0 => InstallReply::Vote(reader.vote()?),
        1 => InstallReply::BeginAgain,
        tag => return reader.unknown(tag),
    };
    reader.end()?;
    Ok(reply)
}

/// The answer as openraft wants it.
impl From<InstallSnapshotResponse<MemberId>> for InstallReply {
    fn from(reply: InstallSnapshotResponse<MemberId>) -> Self {
        Self::Vote(reply.vote)
    }
}
