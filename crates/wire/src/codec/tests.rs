//! Round trips of arbitrary domain values, and arbitrary bytes in the place of messages.

mod arbitrary;
mod golden;
mod logs;
mod size;

use proptest::prelude::*;
use prost::Message;

use super::every_message::{all_survive, round};
use super::metadata::{List, Watch};
use super::read::ReadMessage;
use super::*;
use crate::log_server::*;
use crate::logs::LogDescription;
use crate::metadata::*;
use crate::pb;
use crate::sequencer::*;
use bifrost_types::limits::METADATA_VALUE_BYTES_MAX;
use bifrost_types::*;

proptest! {
    #[test]
    fn store_messages_round_trip(
        requests in prop::collection::vec(arbitrary::store_request(), 0..5),
        replies in prop::collection::vec(arbitrary::store_reply(), 0..5),
    ) {
        round::<pb::StoreRequest, Vec<StoreRequest>>(&requests);
        round::<pb::StoreResponse, Vec<StoreReply>>(&replies);
    }

    #[test]
    fn control_messages_round_trip(
        seal in arbitrary::seal_request(),
        repair in arbitrary::repair_request(),
        settle in arbitrary::settle_request(),
        trim in arbitrary::trim_request(),
        outcome in arbitrary::copy_outcome(),
    ) {
        round::<pb::SealRequest, _>(&seal);
        round::<pb::StateRequest, _>(&StateRequest { loglet: seal.loglet, disk: seal.disk });
        round::<pb::RepairRequest, _>(&repair);
        round::<pb::SettleRequest, _>(&settle);
        round::<pb::TrimRequest, _>(&trim);
        round::<pb::SealResponse, _>(&outcome);
        round::<pb::StateResponse, _>(&outcome);
        round::<pb::RepairResponse, _>(&outcome);
        round::<pb::SettleResponse, _>(&outcome);
        round::<pb::TrimResponse, _>(&outcome);
    }

    #[test]
    fn read_messages_round_trip(
        open in arbitrary::read_request(),
        grant in arbitrary::read_grant(),
        message in arbitrary::read_message(),
    ) {
        round::<pb::ReadRequest, _>(&open);
        round::<pb::ReadRequest, _>(&grant);
        round::<pb::ReadResponse, _>(&message);
    }

    #[test]
    fn sequencer_messages_round_trip(
        open in arbitrary::append_open(),
        request in arbitrary::append_request(),
        message in arbitrary::append_message(),
        end in arbitrary::end_request(),
        outcome in arbitrary::tails_outcome(),
    ) {
        round::<pb::EndRequest, _>(&end);
        round::<pb::TailsRequest, _>(&(open.loglet, open.sequencer));
        round::<pb::AppendRequest, _>(&open);
        round::<pb::AppendRequest, _>(&request);
        round::<pb::AppendResponse, _>(&message);
        round::<pb::TailsResponse, _>(&outcome);
    }

    #[test]
    fn metadata_messages_round_trip(
        get in arbitrary::get_outcome(),
        list in arbitrary::list_outcome(),
        txn in arbitrary::txn(),
        txn_outcome in arbitrary::txn_outcome(),
        watch in arbitrary::watch_message(),
        prefix in ".{0,8}",
        number in any::<u32>(),
    ) {
        round::<pb::GetResponse, _>(&get);
        round::<pb::ListResponse, _>(&list);
        round::<pb::TxnRequest, _>(&txn);
        round::<pb::TxnResponse, _>(&txn_outcome);
        round::<pb::WatchResponse, _>(&watch);
        round::<pb::WatchRequest, _>(&Watch { prefix: prefix.clone(), after: number.into() });
        round::<pb::ListRequest, _>(&List { prefix: prefix.clone(), after: Some(prefix), limit: number as usize });
    }

    #[test]
    fn metadata_values_round_trip(
        chain in arbitrary::chain(),
        record in arbitrary::node_record(),
        tombstone in arbitrary::tombstone(),
    ) {
        prop_assert_eq!(decode_tombstone(&encode_tombstone(&tombstone)), Ok(tombstone));
        prop_assert_eq!(decode_chain(&encode_chain(&chain)), Ok(chain));
        prop_assert_eq!(decode_node_record(&encode_node_record(&record)), Ok(record));
    }

    #[test]
    fn random_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        all_survive(&bytes);
    }

    #[test]
    fn damaged_messages_are_decoded_or_refused(
        bytes in arbitrary::encoded(),
        keep in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        truncate in any::<bool>(),
    ) {
        let mut bytes = bytes;
        for (place, value) in damage {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        if truncate && !bytes.is_empty() {
            bytes.truncate(keep.index(bytes.len()));
        }
        all_survive(&bytes);
    }
}

fn store() -> pb::LogletStore {
    pb::LogletStore {
        loglet: Some(pb::LogletId { log: 7, segment: 3 }),
        disk: id128_bytes(9),
        sequencer: Some(pb::NodeGeneration { node: 1, generation: 2 }),
        committed_tail: 1,
        first_offset: 1,
        batches: Vec::new(),
    }
}

#[test]
fn what_is_missing_zero_or_too_long_is_refused_by_name() {
    assert!(StoreRequest::try_from(store()).is_ok());
    for (broken, error) in [
        (pb::LogletStore { loglet: None, ..store() }, DecodeError::Missing { field: "LogletStore.loglet" }),
        (
            pb::LogletStore { loglet: Some(pb::LogletId { log: 0, segment: 3 }), ..store() },
            DecodeError::Zero { field: "LogletId.log" },
        ),
        (
            pb::LogletStore { disk: Bytes::from_static(b"short"), ..store() },
            DecodeError::IdLength { field: "LogletStore.disk", bytes: 5 },
        ),
        (pb::LogletStore { disk: id128_bytes(0), ..store() }, DecodeError::Zero { field: "LogletStore.disk" }),
        (pb::LogletStore { first_offset: 0, ..store() }, DecodeError::Zero { field: "LogletStore.first_offset" }),
        (
            pb::LogletStore { batches: vec![Bytes::new(); WINDOW_BATCHES + 1], ..store() },
            DecodeError::TooLong { field: "LogletStore.batches", actual: WINDOW_BATCHES + 1, max: WINDOW_BATCHES },
        ),
        (
            pb::LogletStore { batches: vec![Bytes::from(vec![0; BATCH_BYTES_MAX + 1])], ..store() },
            DecodeError::TooLong { field: "LogletStore.batches", actual: BATCH_BYTES_MAX + 1, max: BATCH_BYTES_MAX },
        ),
    ] {
        assert_eq!(StoreRequest::try_from(broken), Err(error));
    }
    let open = pb::ReadRequest::from(ReadGrant { credit_bytes: 1, readable_tail: LogletOffset::FIRST });
    assert_eq!(ReadRequest::try_from(open), Err(DecodeError::Unexpected { field: "ReadRequest.grant" }));
    let empty = pb::AppendRequest::from(AppendRequest { batches: Vec::new() });
    assert_eq!(AppendRequest::try_from(empty), Err(DecodeError::Missing { field: "AppendBatches.batches" }));
}

#[test]
fn a_part_that_leads_backwards_is_refused() {
    let offset = |value| LogletOffset::new(value).expect("non-zero");
    let backwards = ReadReply::Filtered { from: offset(5), end: offset(4) };
    let message = pb::ReadResponse::from(ReadMessage::Reply(backwards));
    assert_eq!(ReadMessage::try_from(message), Err(DecodeError::Inconsistent { field: "ReadResponse.Range.end" }));
}

#[test]
fn a_transaction_that_names_a_key_twice_is_refused() {
    let txn = Txn::new().put("a", "1").delete("a");
    assert_eq!(Txn::try_from(pb::TxnRequest::from(txn)), Err(DecodeError::Inconsistent { field: "TxnRequest" }));
}

/// A log of two segments, the first sealed at offset 11, as thin clients are told of it.
fn two_segments() -> pb::LogDescription {
    let segment = |index, base_lsn, state| pb::Segment {
        base_lsn,
        params: Some(pb::LogletParams {
            id: Some(pb::LogletId { log: 7, segment: index }),
            nodeset: vec![pb::Member { node: 1, disk: id128_bytes(9), location: None }],
            replication: vec![pb::ReplicationCount { scope: pb::Scope::Node.into(), count: 1 }],
            sequencer: Some(pb::NodeGeneration { node: 1, generation: 2 }),
        }),
        state: Some(state),
    };
    let sealed = pb::segment::Sealed {
        tail: 11,
        lost_from: None,
        op: id128_bytes(5),
        actor: Some(pb::Actor { actor: Some(pb::actor::Actor::Operator(pb::actor::Operator {})) }),
        reason: pb::CloseReason::Requested.into(),
        timings: None,
    };
    pb::LogDescription {
        log: 7,
        name: None,
        version: 2,
        segments: vec![
            segment(0, 1, pb::segment::State::Sealed(sealed)),
            segment(1, 11, pb::segment::State::Open(pb::segment::Open {})),
        ],
        pending: None,
        trim_point: None,
    }
}

#[test]
fn a_description_whose_segments_do_not_join_is_refused() {
    assert!(LogDescription::try_from(two_segments()).is_ok());
    let inconsistent = Err(DecodeError::Inconsistent { field: "LogDescription.segments" });

    let mut gap = two_segments();
    gap.segments[1].base_lsn = 12;
    assert_eq!(LogDescription::try_from(gap), inconsistent);

    let mut two_open = two_segments();
    two_open.segments[0].state = Some(pb::segment::State::Open(pb::segment::Open {}));
    assert_eq!(LogDescription::try_from(two_open), inconsistent);

    let mut other_log = two_segments();
    other_log.log = 8;
    assert_eq!(LogDescription::try_from(other_log), inconsistent);

    let mut empty = two_segments();
    empty.segments.clear();
    assert_eq!(LogDescription::try_from(empty), Err(DecodeError::Missing { field: "LogDescription.segments" }));
}

/// A chain of two segments, the first of ten records, the other one open.
fn two_links() -> pb::Chain {
    pb::Chain {
        format_version: VALUE_FORMAT_VERSION,
        log: 7,
        version: 2,
        members: vec![pb::Member { node: 1, disk: id128_bytes(9), location: None }],
        nodesets: vec![pb::MemberList { members: vec![0] }],
        replications: vec![pb::ReplicationCounts {
            counts: vec![pb::ReplicationCount { scope: pb::Scope::Node.into(), count: 1 }],
        }],
        params: vec![pb::SegmentParams {
            nodeset: 0,
            replication: 0,
            sequencer: Some(pb::NodeGeneration { node: 1, generation: 2 }),
        }],
        closers: vec![pb::Closer {
            actor: Some(pb::Actor { actor: Some(pb::actor::Actor::Operator(pb::actor::Operator {})) }),
            reason: pb::CloseReason::Requested.into(),
        }],
        base_lsn: 1,
        closed: vec![pb::ClosedSegment { records: 10, op_low: 5, ..pb::ClosedSegment::default() }],
        open: Some(pb::OpenSegment { skipped: 0, params: 0 }),
        next_segment: 2,
        ..pb::Chain::default()
    }
}

#[test]
fn a_chain_that_names_what_is_not_there_or_runs_out_of_its_range_is_refused() {
    let chain = Chain::try_from(two_links()).expect("legal");
    assert_eq!(chain.segments.iter().map(|segment| segment.base_lsn.get()).collect::<Vec<_>>(), [1, 11]);
    let out_of_range = |field| DecodeError::OutOfRange { field };
    let inconsistent = |field| DecodeError::Inconsistent { field };
    type Damage = fn(&mut pb::Chain);
    let damages: [(Damage, DecodeError); 15] = [
        (|chain| chain.closed[0].params = 1, out_of_range("ClosedSegment.params")),
        (|chain| chain.closed[0].closer = u32::MAX, out_of_range("ClosedSegment.closer")),
        (|chain| chain.closed[0].records = u64::MAX, out_of_range("ClosedSegment.records")),
        (|chain| chain.closed[0].op_low = 0, DecodeError::Zero { field: "ClosedSegment.op" }),
        (|chain| chain.closed[0].lost_from = Some(12), inconsistent("ClosedSegment.lost_from")),
        (|chain| chain.closed[0].lost_from = Some(0), DecodeError::Zero { field: "ClosedSegment.lost_from" }),
        (|chain| chain.base_lsn = 0, DecodeError::Zero { field: "Chain.base_lsn" }),
        (|chain| chain.base_lsn = u64::MAX, out_of_range("ClosedSegment.records")),
        (|chain| chain.first_segment = u32::MAX, out_of_range("Chain.segments")),
        (|chain| chain.nodesets[0].members = vec![1], out_of_range("MemberList.members")),
        (|chain| chain.nodesets[0].members = vec![0, 0], inconsistent("MemberList.members")),
        (|chain| chain.params[0].nodeset = 7, out_of_range("SegmentParams.nodeset")),
        (|chain| chain.params[0].replication = 7, out_of_range("SegmentParams.replication")),
        (|chain| chain.next_segment = 1, inconsistent("Chain.next_segment")),
        (|chain| (chain.closed, chain.open) = (Vec::new(), None), DecodeError::Missing { field: "Chain.closed" }),
    ];
    for (number, (damage, refused)) in damages.into_iter().enumerate() {
        let mut value = two_links();
        damage(&mut value);
        assert_eq!(Chain::try_from(value), Err(refused), "damage {number}");
    }
}

#[test]
fn bytes_that_are_no_metadata_value_by_their_number_are_not_decoded_as_a_chain() {
    let bytes = vec![0; METADATA_VALUE_BYTES_MAX + 1];
    let too_long =
        DecodeError::TooLong { field: "Chain", actual: METADATA_VALUE_BYTES_MAX + 1, max: METADATA_VALUE_BYTES_MAX };
    assert_eq!(decode_chain(&bytes), Err(too_long));
}

#[test]
fn a_value_of_another_format_version_is_refused() {
    for version in [0, 2] {
        let chain = pb::Chain { format_version: version, ..two_links() };
        let refused = DecodeError::FormatVersion { field: "Chain.format_version", version };
        assert_eq!(decode_chain(&chain.encode_to_vec()), Err(refused));
    }
    for version in [0, 3] {
        let record = pb::NodeRecord { format_version: version, ..pb::NodeRecord::default() };
        let refused = DecodeError::FormatVersion { field: "NodeRecord.format_version", version };
        assert_eq!(decode_node_record(&record.encode_to_vec()), Err(refused));
    }
}

#[test]
fn a_decoded_batch_is_a_slice_of_the_frame() {
    let batch = Bytes::from(vec![7; 4096]);
    let frame = Bytes::from(pb::LogletStore { batches: vec![batch], ..store() }.encode_to_vec());
    let request = StoreRequest::try_from(pb::LogletStore::decode(frame.clone()).expect("own bytes")).expect("legal");
    let place = request.batches[0].as_ptr() as usize;
    let start = frame.as_ptr() as usize;
    assert!((start..start + frame.len()).contains(&place), "the payload was copied");
}
