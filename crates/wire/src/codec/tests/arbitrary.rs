//! Arbitrary legal domain values.

use std::num::NonZeroU8;

use bifrost_types::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::codec::metadata::WatchMessage;
use crate::codec::read::ReadMessage;
use crate::codec::sequencer::AppendMessage;
use crate::codec::{encode_chain, encode_node_record, encode_tombstone};
use crate::log_server::*;
use crate::metadata::*;
use crate::pb;
use crate::sequencer::*;

fn non_zero<T: TryFrom<u64> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (1..=u64::MAX).prop_map(|value| T::try_from(value).ok().expect("non-zero"))
}

fn id32<T: TryFrom<u32> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (1..=u32::MAX).prop_map(|value| T::try_from(value).ok().expect("non-zero"))
}

fn id128<T: TryFrom<u128> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (1..=u128::MAX).prop_map(|value| T::try_from(value).ok().expect("non-zero"))
}

fn offset() -> impl Strategy<Value = LogletOffset> {
    non_zero()
}

fn range() -> impl Strategy<Value = (LogletOffset, LogletOffset)> {
    (offset(), offset()).prop_map(|(one, two)| (one.min(two), one.max(two)))
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn loglet() -> impl Strategy<Value = LogletId> {
    (non_zero(), any::<u32>()).prop_map(|(log, segment)| LogletId::new(log, SegmentIndex::new(segment)))
}

fn node() -> impl Strategy<Value = NodeGeneration> {
    (id32(), id32()).prop_map(|(node, generation)| NodeGeneration::new(node, generation))
}

pub(super) fn store_request() -> impl Strategy<Value = StoreRequest> {
    (loglet(), id128(), node(), offset(), offset(), vec(bytes(), 0..4)).prop_map(
        |(loglet, disk, sequencer, committed_tail, first_offset, batches)| StoreRequest {
            loglet,
            disk,
            sequencer,
            committed_tail,
            first_offset,
            batches,
        },
    )
}

fn copy_state() -> impl Strategy<Value = CopyState> {
    (offset(), offset(), option::of(id128()), option::of(offset()), option::of(offset())).prop_map(
        |(local_tail, committed_tail, sealed, decided_tail, trim_point)| CopyState {
            local_tail,
            committed_tail,
            sealed,
            decided_tail,
            trim_point,
        },
    )
}

fn copy_error() -> impl Strategy<Value = CopyError> {
    prop_oneof![
        id128().prop_map(|actual| CopyError::WrongDisk { actual }),
        id128().prop_map(|op| CopyError::Sealed { op }),
        Just(CopyError::NotSealed),
        node().prop_map(|bound| CopyError::OtherSequencer { bound }),
        offset().prop_map(|expected| CopyError::Hole { expected }),
        offset().prop_map(|offset| CopyError::Conflict { offset }),
        offset().prop_map(|offset| CopyError::BadBatch { offset }),
        Just(CopyError::OutOfRange),
        Just(CopyError::DiskFull),
        Just(CopyError::Overloaded),
        Just(CopyError::Stopping),
        Just(CopyError::TooManyLoglets),
    ]
}

pub(super) fn copy_outcome() -> impl Strategy<Value = Result<CopyState, CopyError>> {
    prop_oneof![copy_state().prop_map(Ok), copy_error().prop_map(Err)]
}

pub(super) fn store_reply() -> impl Strategy<Value = StoreReply> {
    (loglet(), option::of(copy_outcome()), any::<bool>()).prop_map(|(loglet, outcome, followed)| StoreReply {
        loglet,
        followed: followed || outcome.is_none(),
        outcome,
    })
}

pub(super) fn seal_request() -> impl Strategy<Value = SealRequest> {
    (loglet(), id128(), id128()).prop_map(|(loglet, disk, op)| SealRequest { loglet, disk, op })
}

pub(super) fn repair_request() -> impl Strategy<Value = RepairRequest> {
    (loglet(), id128(), id128(), offset(), offset(), vec(bytes(), 0..4)).prop_map(
        |(loglet, disk, op, committed_tail, first_offset, batches)| RepairRequest {
            loglet,
            disk,
            op,
            committed_tail,
            first_offset,
            batches,
        },
    )
}

pub(super) fn settle_request() -> impl Strategy<Value = SettleRequest> {
    (loglet(), id128(), id128(), offset()).prop_map(|(loglet, disk, op, decided_tail)| SettleRequest {
        loglet,
        disk,
        op,
        decided_tail,
    })
}

pub(super) fn trim_request() -> impl Strategy<Value = TrimRequest> {
    (loglet(), id128(), offset()).prop_map(|(loglet, disk, trim_point)| TrimRequest { loglet, disk, trim_point })
}

fn filter() -> impl Strategy<Value = KeyFilter> {
    prop_oneof![
        Just(KeyFilter::Any),
        any::<u64>().prop_map(KeyFilter::Key),
        any::<(u64, u64)>().prop_map(|(first, last)| KeyFilter::Range(first, last)),
    ]
}

pub(super) fn read_request() -> impl Strategy<Value = ReadRequest> {
    (loglet(), id128(), offset(), option::of(offset()), filter(), any::<u64>(), offset()).prop_map(
        |(loglet, disk, from, until, filter, credit_bytes, readable_tail)| ReadRequest {
            loglet,
            disk,
            from,
            until,
            filter,
            credit_bytes,
            readable_tail,
        },
    )
}

pub(super) fn read_grant() -> impl Strategy<Value = ReadGrant> {
    (any::<u64>(), offset()).prop_map(|(credit_bytes, readable_tail)| ReadGrant { credit_bytes, readable_tail })
}

pub(super) fn read_message() -> impl Strategy<Value = ReadMessage> {
    let reply = prop_oneof![
        (range(), bytes()).prop_map(|((first_offset, end), batch)| ReadReply::Batch { first_offset, end, batch }),
        range().prop_map(|(from, end)| ReadReply::Filtered { from, end }),
        range().prop_map(|(from, end)| ReadReply::Trimmed { from, end }),
        (range(), any::<bool>()).prop_map(|((from, end), corrupt)| ReadReply::Missing { from, end, corrupt }),
        copy_state().prop_map(ReadReply::Tail),
    ];
    prop_oneof![
        Just(ReadMessage::Opened),
        copy_error().prop_map(ReadMessage::Refused),
        reply.prop_map(ReadMessage::Reply)
    ]
}

pub(super) fn append_open() -> impl Strategy<Value = AppendOpen> {
    (loglet(), node(), id128(), any::<u64>()).prop_map(|(loglet, sequencer, writer, incarnation)| AppendOpen {
        loglet,
        sequencer,
        writer,
        incarnation,
    })
}

pub(super) fn end_request() -> impl Strategy<Value = EndRequest> {
    (loglet(), node(), id128()).prop_map(|(loglet, sequencer, op)| EndRequest { loglet, sequencer, op })
}

pub(super) fn append_request() -> impl Strategy<Value = AppendRequest> {
    vec(bytes(), 1..4).prop_map(|batches| AppendRequest { batches })
}

fn sequencer_error() -> impl Strategy<Value = SequencerError> {
    prop_oneof![
        id128().prop_map(|op| SequencerError::Sealed { op }),
        Just(SequencerError::NotSequencer),
        Just(SequencerError::NotOpen),
        Just(SequencerError::Full),
        Just(SequencerError::Superseded),
        Just(SequencerError::BadBatch),
        Just(SequencerError::Overloaded),
        Just(SequencerError::Stopping),
        Just(SequencerError::DiskFull),
    ]
}

fn tails() -> impl Strategy<Value = SequencerTails> {
    (offset(), offset()).prop_map(|(committed_tail, next_offset)| SequencerTails { committed_tail, next_offset })
}

pub(super) fn append_message() -> impl Strategy<Value = AppendMessage> {
    let committed = (vec(offset(), 0..5), offset())
        .prop_map(|(first_offsets, committed_tail)| AppendReply::Committed { first_offsets, committed_tail });
    prop_oneof![
        tails().prop_map(AppendMessage::Opened),
        committed.prop_map(AppendMessage::Reply),
        sequencer_error().prop_map(|error| AppendMessage::Reply(AppendReply::Closed(error))),
    ]
}

pub(super) fn tails_outcome() -> impl Strategy<Value = Result<SequencerTails, SequencerError>> {
    prop_oneof![tails().prop_map(Ok), sequencer_error().prop_map(Err)]
}

fn key() -> impl Strategy<Value = String> {
    ".{1,8}"
}

fn versioned() -> impl Strategy<Value = Versioned> {
    (1..=u64::MAX, bytes()).prop_map(|(revision, value)| Versioned { revision, value })
}

fn metadata_error() -> impl Strategy<Value = MetadataError> {
    prop_oneof![
        Just(MetadataError::Unknown),
        Just(MetadataError::Unavailable),
        Just(MetadataError::TooLarge),
        Just(MetadataError::Invalid),
        any::<u64>().prop_map(|oldest| MetadataError::Compacted { oldest }),
    ]
}

pub(super) fn get_outcome() -> impl Strategy<Value = Result<Option<Versioned>, MetadataError>> {
    prop_oneof![option::of(versioned()).prop_map(Ok), metadata_error().prop_map(Err)]
}

pub(super) fn list_outcome() -> impl Strategy<Value = Result<Page, MetadataError>> {
    let page = (any::<u64>(), vec((key(), versioned()), 0..4), any::<bool>())
        .prop_map(|(revision, entries, more)| Page { revision, entries, more });
    prop_oneof![page.prop_map(Ok), metadata_error().prop_map(Err)]
}

pub(super) fn txn() -> impl Strategy<Value = Txn> {
    let precondition = prop_oneof![Just(Precondition::Absent), (1..=u64::MAX).prop_map(Precondition::Revision)];
    let write = prop_oneof![bytes().prop_map(Write::Put), Just(Write::Delete)];
    // A key may be named once in each list: the place in the list makes it unique.
    let unique = |index: usize, key: String| format!("{index}{key}");
    (vec((key(), precondition), 0..4), vec((key(), write), 0..4)).prop_map(move |(preconditions, writes)| Txn {
        preconditions: preconditions.into_iter().enumerate().map(|(i, (key, p))| (unique(i, key), p)).collect(),
        writes: writes.into_iter().enumerate().map(|(i, (key, w))| (unique(i, key), w)).collect(),
    })
}

pub(super) fn txn_outcome() -> impl Strategy<Value = Result<TxnOutcome, MetadataError>> {
    prop_oneof![
        any::<u64>().prop_map(|revision| Ok(TxnOutcome::Committed(revision))),
        vec((key(), option::of(versioned())), 0..4).prop_map(|present| Ok(TxnOutcome::Conflict(present))),
        metadata_error().prop_map(Err),
    ]
}

pub(super) fn watch_message() -> impl Strategy<Value = WatchMessage> {
    let change =
        (key(), 1..=u64::MAX, option::of(bytes())).prop_map(|(key, revision, value)| Change { key, revision, value });
    let changes = (any::<u64>(), vec(change, 0..4)).prop_map(|(revision, changes)| Changes { revision, changes });
    prop_oneof![
        Just(WatchMessage::Opened),
        changes.prop_map(|changes| WatchMessage::Item(Ok(changes))),
        metadata_error().prop_map(|error| WatchMessage::Item(Err(error))),
    ]
}

fn location() -> impl Strategy<Value = Location> {
    (".{0,6}", ".{0,6}").prop_map(|(region, zone)| Location { region: region.into(), zone: zone.into() })
}

fn nodeset() -> impl Strategy<Value = Nodeset> {
    prop::collection::btree_map(id32::<NodeId>(), (id128(), location()), 1..5).prop_map(|members| {
        let members = members.into_iter().map(|(node, (disk, location))| Member { node, disk, location }).collect();
        Nodeset::new(members).expect("one to four nodes, each once")
    })
}

fn replication() -> impl Strategy<Value = ReplicationProperty> {
    (1..=128_u8, 1..=128_u8, 1..=128_u8, any::<bool>(), any::<bool>()).prop_map(|(a, b, c, zone, region)| {
        let mut counts = [a, b, c];
        counts.sort_unstable();
        let [small, middle, large] = counts.map(|count| NonZeroU8::new(count).expect("at least 1"));
        let mut property = vec![(Scope::Node, large)];
        property.extend(zone.then_some((Scope::Zone, middle)));
        property.extend(region.then_some((Scope::Region, small)));
        ReplicationProperty::new(property).expect("larger scopes ask for less")
    })
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![Just(Actor::Operator), Just(Actor::Appender), Just(Actor::Controller), node().prop_map(Actor::Node),]
}

fn reason() -> impl Strategy<Value = CloseReason> {
    prop::sample::select(vec![
        CloseReason::Requested,
        CloseReason::SequencerGone,
        CloseReason::OrphanedSeal,
        CloseReason::Placement,
        CloseReason::Full,
        CloseReason::HandOver,
        CloseReason::Deleted,
    ])
}

fn timings() -> impl Strategy<Value = Timings> {
    any::<(u64, u64, u64)>().prop_map(|(seal_micros, repair_micros, total_micros)| Timings {
        seal_micros,
        repair_micros,
        total_micros,
    })
}

fn pending() -> impl Strategy<Value = Reconfiguration> {
    let successor = (nodeset(), replication(), node()).prop_map(|(nodeset, replication, sequencer)| Successor {
        nodeset,
        replication,
        sequencer,
    });
    (id128(), any::<u32>(), actor(), reason(), option::of(successor), any::<u32>(), any::<u64>()).prop_map(
        |(op, segment, actor, reason, successor, attempt, opened_at_millis)| Reconfiguration {
            op,
            segment: SegmentIndex::new(segment),
            actor,
            reason,
            successor,
            attempt,
            opened_at_millis,
        },
    )
}

fn finished() -> impl Strategy<Value = Finished> {
    (id128(), any::<u32>(), offset(), option::of(any::<u32>())).prop_map(|(op, segment, tail, successor)| Finished {
        op,
        segment: SegmentIndex::new(segment),
        tail,
        successor: successor.map(SegmentIndex::new),
    })
}

type SegmentParts =
    ((Nodeset, ReplicationProperty, NodeGeneration), (u64, Option<u64>, OpId, Actor, CloseReason, Timings));

fn segment_parts() -> impl Strategy<Value = SegmentParts> {
    let sealed = (1..1_000_000_u64, prop::option::of(any::<u64>()), id128(), actor(), reason(), timings());
    ((nodeset(), replication(), node()), sealed)
}

/// Contiguous segments, of which some share what they were opened with; the first ones may have left, and the last one is
/// open or not.
fn segments(log: LogId, parts: Vec<SegmentParts>, (first, share, open): (u32, usize, bool)) -> Vec<Segment> {
    let count = parts.len();
    let mut base_lsn = Lsn::new(1 + u64::from(first)).expect("at least 1");
    let mut segments = Vec::new();
    let shared: Vec<_> = parts.iter().map(|(params, _)| params.clone()).collect();
    for (number, (_, (tail, lost_from, op, actor, reason, timings))) in parts.into_iter().enumerate() {
        let (nodeset, replication, sequencer) = shared[number % share].clone();
        let tail = LogletOffset::new(tail).expect("at least 1");
        let id = LogletId::new(log, SegmentIndex::new(first + number as u32 * 2));
        let state = if open && number + 1 == count {
            SegmentState::Open
        } else {
            let lost_from = lost_from.and_then(|from| LogletOffset::new(1 + from % tail.get()));
            SegmentState::Sealed { tail, lost_from, op, actor, reason, timings }
        };
        segments.push(Segment { base_lsn, params: LogletParams { id, nodeset, replication, sequencer }, state });
        base_lsn = tail.to_lsn(base_lsn).expect("small numbers");
    }
    segments
}

pub(super) fn chain() -> impl Strategy<Value = Chain> {
    (
        (non_zero::<LogId>(), option::of(".{0,20}"), any::<u64>(), option::of(non_zero::<Lsn>())),
        vec(segment_parts(), 1..8).prop_flat_map(|parts| {
            let shape = (prop_oneof![Just(0), any::<u16>().prop_map(u32::from)], 1..=parts.len(), any::<bool>());
            (Just(parts), shape)
        }),
        (option::of(pending()), vec(finished(), 0..3)),
    )
        .prop_map(|((log, name, version, trim_point), (parts, shape), (pending, finished))| Chain {
            log,
            name,
            version,
            segments: segments(log, parts, shape),
            next_segment: SegmentIndex::new(shape.0 + 16),
            pending,
            finished,
            trim_point,
        })
}

pub(super) fn tombstone() -> impl Strategy<Value = Tombstone> {
    (chain(), id128(), any::<u64>(), any::<bool>()).prop_map(|(chain, op, opened_at_millis, closing)| {
        let log = chain.log;
        let closed = chain.last().is_some_and(|last| last.decided_tail().is_some());
        let removed = (closed && !closing).then_some(Chain { pending: None, ..chain });
        Tombstone { log, op, opened_at_millis, removed }
    })
}

pub(super) fn node_record() -> impl Strategy<Value = NodeRecord> {
    let storage = prop::sample::select(vec![
        StorageState::Provisioning,
        StorageState::ReadWrite,
        StorageState::ReadOnly,
        StorageState::DataLoss,
        StorageState::Retired,
    ]);
    let roles =
        prop::sample::subsequence(Role::ALL.to_vec(), 1..=3).prop_map(|roles| Roles::new(roles).expect("at least one"));
    (node(), ".{0,8}", ".{0,8}", location(), option::of(id128()), storage, any::<bool>(), roles).prop_map(
        |(id, name, address, location, disk, storage, declared, roles)| NodeRecord {
            id,
            name,
            address,
            location,
            disk,
            storage,
            declared_lost: declared && storage == StorageState::DataLoss,
            roles,
        },
    )
}

/// The encoding of some legal message.
pub(super) fn encoded() -> impl Strategy<Value = Vec<u8>> {
    fn bytes<M: prost::Message>(message: M) -> Vec<u8> {
        message.encode_to_vec()
    }
    prop_oneof![
        vec(store_request(), 1..3).prop_map(|value| bytes(pb::StoreRequest::from(value))),
        vec(store_reply(), 1..3).prop_map(|value| bytes(pb::StoreResponse::from(value))),
        repair_request().prop_map(|value| bytes(pb::RepairRequest::from(value))),
        read_request().prop_map(|value| bytes(pb::ReadRequest::from(value))),
        read_message().prop_map(|value| bytes(pb::ReadResponse::from(value))),
        append_open().prop_map(|value| bytes(pb::AppendRequest::from(value))),
        append_message().prop_map(|value| bytes(pb::AppendResponse::from(value))),
        list_outcome().prop_map(|value| bytes(pb::ListResponse::from(value))),
        txn().prop_map(|value| bytes(pb::TxnRequest::from(value))),
        txn_outcome().prop_map(|value| bytes(pb::TxnResponse::from(value))),
        watch_message().prop_map(|value| bytes(pb::WatchResponse::from(value))),
        chain().prop_map(|value| encode_chain(&value).to_vec()),
        node_record().prop_map(|value| encode_node_record(&value).to_vec()),
        tombstone().prop_map(|value| encode_tombstone(&value).to_vec()),
    ]
}
