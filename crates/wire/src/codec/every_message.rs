//! Every message that a peer can send and every metadata value, as decoders that take any bytes: what property tests and
//! fuzz targets call (L6).
//!
//! A new message gets a line in [`EVERY_MESSAGE`], and with it a fuzz target.

use std::fmt::Debug;

use bifrost_types::{AppendId, LogId, LogletId, Lsn, NodeGeneration};
use prost::Message;

use super::liveness::Taken;
use super::logs::{FindTail, OfLog, TrimLog};
use super::metadata::{Get, List, Watch, WatchMessage};
use super::metadata_admin::{AddMember, Changed, RemoveMember};
use super::read::ReadMessage;
use super::records::{LogAppendMessage, LogAppendReply, ReadLogMessage};
use super::sequencer::AppendMessage;
use super::{
    DecodeError, decode_chain, decode_node_record, decode_tombstone, encode_chain, encode_node_record, encode_tombstone,
};
use crate::liveness::Beat;
use crate::log_server::*;
use crate::logs::{
    AppendOutcome, AppendRecords, CreateLog, ListLogs, LogDescription, LogPage, LogRefusal, LogTail, ReadLog,
    ResolvedAppend,
};
use crate::metadata::*;
use crate::metadata_admin::MemberStatus;
use crate::node::NodeStatus;
use crate::pb;
use crate::sequencer::*;

/// Decodes bytes as one message. Panics only if what was decoded does not survive another round trip.
pub type Survives = fn(&[u8]);

/// The name of each message with its decoder. The order is the order of fuzz inputs: new messages go to the end.
pub const EVERY_MESSAGE: &[(&str, Survives)] = &[
    ("StoreRequest", survives::<pb::StoreRequest, Vec<StoreRequest>>),
    ("StoreResponse", survives::<pb::StoreResponse, Vec<StoreReply>>),
    ("SealRequest", survives::<pb::SealRequest, SealRequest>),
    ("StateRequest", survives::<pb::StateRequest, StateRequest>),
    ("RepairRequest", survives::<pb::RepairRequest, RepairRequest>),
    ("SettleRequest", survives::<pb::SettleRequest, SettleRequest>),
    ("TrimRequest", survives::<pb::TrimRequest, TrimRequest>),
    ("SealResponse", survives::<pb::SealResponse, Result<CopyState, CopyError>>),
    ("ReadRequest.open", survives::<pb::ReadRequest, ReadRequest>),
    ("ReadRequest.grant", survives::<pb::ReadRequest, ReadGrant>),
    ("ReadResponse", survives::<pb::ReadResponse, ReadMessage>),
    ("AppendRequest.open", survives::<pb::AppendRequest, AppendOpen>),
    ("AppendRequest.batches", survives::<pb::AppendRequest, AppendRequest>),
    ("AppendResponse", survives::<pb::AppendResponse, AppendMessage>),
    ("TailsRequest", survives::<pb::TailsRequest, (LogletId, NodeGeneration)>),
    ("EndRequest", survives::<pb::EndRequest, EndRequest>),
    ("TailsResponse", survives::<pb::TailsResponse, Result<SequencerTails, SequencerError>>),
    ("GetRequest", survives::<pb::GetRequest, Get>),
    ("GetResponse", survives::<pb::GetResponse, Result<Option<Versioned>, MetadataError>>),
    ("ListRequest", survives::<pb::ListRequest, List>),
    ("ListResponse", survives::<pb::ListResponse, Result<Page, MetadataError>>),
    ("TxnRequest", survives::<pb::TxnRequest, Txn>),
    ("TxnResponse", survives::<pb::TxnResponse, Result<TxnOutcome, MetadataError>>),
    ("WatchRequest", survives::<pb::WatchRequest, Watch>),
    ("WatchResponse", survives::<pb::WatchResponse, WatchMessage>),
    ("Chain", chain_survives),
    ("NodeRecord", node_record_survives),
    ("Tombstone", tombstone_survives),
    ("CreateLogRequest", survives::<pb::CreateLogRequest, CreateLog>),
    ("CreateLogResponse", survives::<pb::CreateLogResponse, Result<LogDescription, LogRefusal>>),
    ("GetLogRequest", survives::<pb::GetLogRequest, OfLog>),
    ("GetLogResponse", survives::<pb::GetLogResponse, Result<LogDescription, LogRefusal>>),
    ("ListLogsRequest", survives::<pb::ListLogsRequest, ListLogs>),
    ("ListLogsResponse", survives::<pb::ListLogsResponse, Result<LogPage, LogRefusal>>),
    ("DeleteLogRequest", survives::<pb::DeleteLogRequest, OfLog>),
    ("DeleteLogResponse", survives::<pb::DeleteLogResponse, Result<LogId, LogRefusal>>),
    ("AppendRecordsRequest", survives::<pb::AppendRecordsRequest, AppendRecords>),
    ("AppendRecordsResponse", survives::<pb::AppendRecordsResponse, AppendOutcome>),
    ("AppendStreamRequest", survives::<pb::AppendStreamRequest, LogAppendMessage>),
    ("AppendStreamResponse", survives::<pb::AppendStreamResponse, LogAppendReply>),
    ("ReadLogRequest", survives::<pb::ReadLogRequest, ReadLog>),
    ("ReadLogResponse", survives::<pb::ReadLogResponse, ReadLogMessage>),
    ("FindTailRequest", survives::<pb::FindTailRequest, FindTail>),
    ("FindTailResponse", survives::<pb::FindTailResponse, Result<LogTail, LogRefusal>>),
    ("TrimLogRequest", survives::<pb::TrimLogRequest, TrimLog>),
    ("TrimLogResponse", survives::<pb::TrimLogResponse, Result<Lsn, LogRefusal>>),
    ("ResolveRequest", survives::<pb::ResolveRequest, AppendId>),
    ("ResolveResponse", survives::<pb::ResolveResponse, Result<ResolvedAppend, LogRefusal>>),
    ("MetadataStatusResponse", survives::<pb::MetadataStatusResponse, MemberStatus>),
    ("AddMetadataMemberRequest", survives::<pb::AddMetadataMemberRequest, AddMember>),
    ("RemoveMetadataMemberRequest", survives::<pb::RemoveMetadataMemberRequest, RemoveMember>),
    ("MetadataChangeResponse", survives::<pb::MetadataChangeResponse, Changed>),
    ("NodeStatusResponse", survives::<pb::NodeStatusResponse, NodeStatus>),
    ("BeatRequest", survives::<pb::BeatRequest, Beat>),
    ("BeatResponse", survives::<pb::BeatResponse, Taken>),
];

/// Decodes bytes as every message in turn.
pub fn all_survive(bytes: &[u8]) {
    for (_, survives) in EVERY_MESSAGE {
        survives(bytes);
    }
}

/// Domain value → message → bytes → message → domain value.
pub(super) fn round<M, D>(value: &D)
where
    M: Message + Default + From<D>,
    D: TryFrom<M, Error = DecodeError> + Clone + PartialEq + Debug,
{
    let bytes = M::from(value.clone()).encode_to_vec();
    let message = M::decode(bytes.as_slice()).expect("what was encoded here decodes");
    assert_eq!(D::try_from(message).as_ref(), Ok(value));
}

/// Whatever the bytes are, they are decoded or refused; what is decoded survives another round trip.
fn survives<M, D>(bytes: &[u8])
where
    M: Message + Default + From<D>,
    D: TryFrom<M, Error = DecodeError> + Clone + PartialEq + Debug,
{
    if let Ok(message) = M::decode(bytes)
        && let Ok(value) = D::try_from(message)
    {
        round::<M, D>(&value);
    }
}

fn chain_survives(bytes: &[u8]) {
    if let Ok(chain) = decode_chain(bytes) {
        assert_eq!(decode_chain(&encode_chain(&chain)), Ok(chain));
    }
}

fn node_record_survives(bytes: &[u8]) {
    if let Ok(record) = decode_node_record(bytes) {
        assert_eq!(decode_node_record(&encode_node_record(&record)), Ok(record));
    }
}

fn tombstone_survives(bytes: &[u8]) {
    if let Ok(tombstone) = decode_tombstone(bytes) {
        assert_eq!(decode_tombstone(&encode_tombstone(&tombstone)), Ok(tombstone));
    }
}
