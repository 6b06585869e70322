//! The metadata values, byte for byte: what an older build wrote must be read by a newer one.

use std::num::NonZeroU8;

use bifrost_types::{
    Actor, Chain, CloseReason, DiskId, Finished, Generation, Location, LogId, LogletId, LogletOffset, LogletParams,
    Lsn, Member, NodeGeneration, NodeId, NodeRecord, Nodeset, OpId, Reconfiguration, ReplicationProperty, Roles, Scope,
    Segment, SegmentIndex, SegmentState, StorageState, Successor, Timings, Tombstone,
};

use super::super::{
    decode_chain, decode_node_record, decode_tombstone, encode_chain, encode_node_record, encode_tombstone,
};

fn log() -> LogId {
    LogId::try_from(7).expect("non-zero")
}

fn life(node: u32) -> NodeGeneration {
    NodeGeneration::new(NodeId::try_from(node).expect("non-zero"), Generation::FIRST)
}

fn op(value: u128) -> OpId {
    OpId::try_from(value).expect("non-zero")
}

fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).expect("non-zero")
}

fn location(zone: &str) -> Location {
    Location { region: "eu".into(), zone: zone.into() }
}

fn nodeset() -> Nodeset {
    let member = |node: u32| Member {
        node: life(node).node,
        disk: DiskId::try_from(0x1000 + u128::from(node)).expect("non-zero"),
        location: location(if node == 1 { "a" } else { "b" }),
    };
    Nodeset::new(vec![member(1), member(2)]).expect("two nodes")
}

fn replication() -> ReplicationProperty {
    let count = |count| NonZeroU8::new(count).expect("non-zero");
    ReplicationProperty::new([(Scope::Node, count(2)), (Scope::Zone, count(2))]).expect("two zones, two nodes")
}

fn segment(index: u32, base_lsn: u64, state: SegmentState) -> Segment {
    let id = LogletId::new(log(), SegmentIndex::new(index));
    let params = LogletParams { id, nodeset: nodeset(), replication: replication(), sequencer: life(1) };
    Segment { base_lsn: Lsn::new(base_lsn).expect("non-zero"), params, state }
}

/// One of everything that a chain can hold.
fn chain() -> Chain {
    let timings = Timings { seal_micros: 300, repair_micros: 20, total_micros: 900 };
    let sealed = |number, tail, lost_from| SegmentState::Sealed {
        tail: offset(tail),
        lost_from,
        op: op(number),
        actor: Actor::Node(life(2)),
        reason: CloseReason::HandOver,
        timings,
    };
    let high = 7 << 64;
    Chain {
        log: log(),
        name: Some("orders".to_owned()),
        version: 14,
        segments: vec![
            segment(4, 90, sealed(high | 1, 11, Some(offset(7)))),
            segment(5, 100, sealed(high | 4, 1, None)),
            segment(7, 100, SegmentState::Open),
        ],
        next_segment: SegmentIndex::new(8),
        pending: Some(Reconfiguration {
            op: op(2),
            segment: SegmentIndex::new(7),
            actor: Actor::Operator,
            reason: CloseReason::Requested,
            successor: Some(Successor { nodeset: nodeset(), replication: replication(), sequencer: life(2) }),
            attempt: 1,
            opened_at_millis: 1_700_000_000_000,
        }),
        finished: vec![Finished {
            op: op(high | 4),
            segment: SegmentIndex::new(5),
            tail: offset(1),
            successor: Some(SegmentIndex::new(7)),
        }],
        trim_point: Lsn::new(89),
    }
}

fn node_record() -> NodeRecord {
    NodeRecord {
        id: life(3),
        name: "n3".to_owned(),
        address: "127.0.0.1:7003".to_owned(),
        location: location("a"),
        disk: DiskId::try_from(0x1003).ok(),
        storage: StorageState::ReadWrite,
        declared_lost: false,
        roles: Roles::DATA,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.trim().chars().collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex")).collect()
}

#[test]
fn the_chain_value_is_pinned() {
    let golden = include_str!("../../../testdata/chain-v1.hex");
    assert_eq!(decode_chain(&unhex(golden)), Ok(chain()), "an old value cannot be read any more");
    assert_eq!(hex(&encode_chain(&chain())), golden.trim(), "the value changed; readers of the old build must cope");
}

#[test]
fn the_node_value_is_pinned() {
    // The record of a build without roles: every node had the same two.
    let old = include_str!("../../../testdata/node-v1.hex");
    assert_eq!(decode_node_record(&unhex(old)), Ok(node_record()), "an old value cannot be read any more");
    let golden = include_str!("../../../testdata/node-v2.hex");
    assert_eq!(decode_node_record(&unhex(golden)), Ok(node_record()), "an old value cannot be read any more");
    assert_eq!(hex(&encode_node_record(&node_record())), golden.trim(), "the value changed");
}

/// Of a log whose chain was removed.
fn tombstone() -> Tombstone {
    let mut chain = Chain { pending: None, finished: Vec::new(), ..chain() };
    chain.segments.pop();
    Tombstone { log: log(), op: op(3), opened_at_millis: 1_700_000_000_000, removed: Some(chain) }
}

#[test]
fn the_tombstone_value_is_pinned() {
    let golden = include_str!("../../../testdata/tombstone-v1.hex");
    assert_eq!(decode_tombstone(&unhex(golden)), Ok(tombstone()), "an old value cannot be read any more");
    assert_eq!(hex(&encode_tombstone(&tombstone())), golden.trim(), "the value changed");
}
