//! The network between members: one message and its answer, as bytes, and who carries them.

use std::fmt;
use std::time::Duration;

use bifrost_types::ClusterId;
use bifrost_types::limits::MESSAGE_BYTES_MAX;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::codec::{CodecError, Reader, Writer};
use crate::types::{GroupId, Member, MemberId};

/// Version of every message; another one is refused.
const VERSION: u8 = 2;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rpc {
    /// Append entries.
    Append,
    /// Vote for a candidate.
    Vote,
    /// Take a piece of a snapshot.
    Install,
    /// Say whether you would vote for a candidate.
    Canvass,
}

/// One message from a member to another. Whom it is meant for is part of it: an address may have been given to
/// somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The cluster of the sender.
    pub cluster: ClusterId,
    /// The group of the sender.
    pub group: GroupId,
    /// The sender.
    pub from: MemberId,
    /// Whom it is meant for.
    pub to: MemberId,
    /// What it asks for.
    pub rpc: Rpc,
    /// The request.
    pub body: Vec<u8>,
}

/// Why a member did not do what a message asks for. It did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The bytes are no message, or one that no correct member sends.
    #[error("the message is malformed")]
    Malformed,
    /// The message was meant for another cluster.
    #[error("the message was meant for another cluster")]
    OtherCluster,
    /// The sender belongs to another group of the same cluster.
    #[error("the sender belongs to another metadata group of this cluster")]
    OtherGroup,
    /// The group of the sender lost its majority and was recovered without the sender: its time is over.
    #[error("the metadata group of the sender was recovered without it")]
    Replaced,
    /// The message was meant for another member.
    #[error("the message was meant for another member")]
    OtherMember,
    /// It has too many messages to answer.
    #[error("the member has too much to do")]
    Busy,
    /// It stops or has stopped.
    #[error("the member has stopped")]
    Stopped,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PeerError {
    /// No connection. The message may have been carried out.
    #[error("the member cannot be reached")]
    Unreachable,
    /// No answer in time. The message may have been carried out.
    #[error("the member did not answer in time")]
    DeadlinePassed,
    /// The member refused.
    #[error("the member refused")]
    Refused(#[from] Refusal),
    /// The answer cannot be read.
    #[error("the answer is malformed")]
    Malformed(#[from] CodecError),
}

/// Carries messages to other members.
///
/// # Cancel safety
/// A call that is dropped may have been carried out.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Brings an encoded [`Envelope`] to a member and returns what its [`receive`](crate::Receive::receive) answered.
    fn call(
        &self,
        to: MemberId,
        member: &Member,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>>;
}

/// The other end of [`Peers`].
pub trait Receive: fmt::Debug + Send + Sync + 'static {
    /// Carries a message out and returns the encoded answer. Any bytes are answered.
    fn receive(&self, message: Bytes) -> BoxFuture<'_, Bytes>;
}

impl Envelope {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(self.body.len() + 64);
        writer.tag(VERSION);
        writer.u64((self.cluster.get() >> 64) as u64);
        writer.u64(self.cluster.get() as u64);
        writer.u64(self.group.get());
        writer.member(self.from);
        writer.member(self.to);
        writer.tag(match self.rpc {
            Rpc::Append => 0,
            Rpc::Vote => 1,
            Rpc::Install => 2,
            Rpc::Canvass => 3,
        });
        writer.bytes(&self.body);
        writer.finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new("a message", bytes);
        let version = reader.tag()?;
        if version != VERSION {
            return reader.unknown(version);
        }
        let cluster = u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?);
        let cluster = ClusterId::try_from(cluster).map_err(|_| reader.inconsistent())?;
        let group = GroupId::from(reader.u64()?);
        let (from, to) = (reader.member()?, reader.member()?);
        let rpc = match reader.tag()? {
            0 => Rpc::Append,
            1 => Rpc::Vote,
            2 => Rpc::Install,
            3 => Rpc::Canvass,
            tag => return reader.unknown(tag),
        };
        let body = reader.bytes(MESSAGE_BYTES_MAX)?.to_vec();
        reader.end()?;
        Ok(Self { cluster, group, from, to, rpc, body })
    }
}

/// The bytes of an answer.
pub fn encode_answer(answer: &Result<Vec<u8>, Refusal>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.tag(VERSION);
    match answer {
        Ok(body) => {
            writer.tag(0);
            writer.bytes(body);
        }
        Err(refusal) => writer.tag(match refusal {
            Refusal::Malformed => 1,
            Refusal::OtherCluster => 2,
            Refusal::OtherMember => 3,
            Refusal::Busy => 4,
            Refusal::Stopped => 5,
            Refusal::OtherGroup => 6,
            Refusal::Replaced => 7,
        }),
    }
    writer.finish()
}

/// Reads an answer.
///
/// # Errors
/// [`PeerError::Refused`] or [`PeerError::Malformed`].
pub fn decode_answer(bytes: &[u8]) -> Result<Vec<u8>, PeerError> {
    let mut reader = Reader::new("an answer", bytes);
    let version = reader.tag()?;
    if version != VERSION {
        return Ok(reader.unknown(version)?);
    }
    let answer = match reader.tag()? {
        0 => Ok(reader.bytes(MESSAGE_BYTES_MAX)?.to_vec()),
        1 => Err(Refusal::Malformed.into()),
        2 => Err(Refusal::OtherCluster.into()),
        3 => Err(Refusal::OtherMember.into()),
        4 => Err(Refusal::Busy.into()),
        5 => Err(Refusal::Stopped.into()),
        6 => Err(Refusal::OtherGroup.into()),
        7 => Err(Refusal::Replaced.into()),
        tag => return Ok(reader.unknown(tag)?),
    };
    reader.end()?;
    answer
}
