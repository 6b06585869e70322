//! How many segments a chain has room for: what a segment costs is a promise (DESIGN §7, issue "nothing may grow faster than its
//! load").

use std::num::NonZeroU8;

use bifrost_types::limits::{METADATA_VALUE_BYTES_MAX, NODESET_MAX};
use bifrost_types::{
    Actor, Chain, CloseReason, DiskId, Generation, Location, LogId, LogletId, LogletOffset, LogletParams, Lsn, Member,
    NodeGeneration, NodeId, Nodeset, OpId, ReplicationProperty, Segment, SegmentIndex, SegmentState, Timings,
};
use prost::Message as _;

use super::super::{DecodeError, decode_chain, encode_chain};
use crate::pb;

const SEGMENTS: u32 = 10_000;

fn life(node: u32, generation: u32) -> NodeGeneration {
    let generation = Generation::try_from(generation).expect("not 0");
    NodeGeneration::new(NodeId::try_from(node).expect("not 0"), generation)
}

fn member(node: u32) -> Member {
    Member {
        node: life(node, 1).node,
        // As large as random ones.
        disk: DiskId::try_from(u128::MAX / u128::from(node)).expect("not 0"),
        location: Location { region: "eu-central-1".into(), zone: format!("eu-central-1{node}").into() },
    }
}

/// A chain of so many closed segments and an open one, each opened with what `open` says.
fn chain(segments: u32, open: impl Fn(u32) -> (Vec<u32>, NodeGeneration)) -> Chain {
    let log = LogId::try_from(7).expect("not 0");
    let mut base_lsn = Lsn::FIRST;
    let segment = |number: u32| {
        let (nodes, sequencer) = open(number);
        let nodeset = Nodeset::new(nodes.into_iter().map(member).collect()).expect("distinct nodes");
        let replication = ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0"));
        let id = LogletId::new(log, SegmentIndex::new(number));
        let tail = LogletOffset::new(1 + u64::from(number) * 7_919 % 3_000_000).expect("not 0");
        let state = match number == segments {
            true => SegmentState::Open,
            false => SegmentState::Sealed {
                tail,
                lost_from: None,
                op: OpId::try_from(u128::MAX / 3 + u128::from(number)).expect("not 0"),
                actor: if number.is_multiple_of(2) { Actor::Controller } else { Actor::Node(sequencer) },
                reason: if number.is_multiple_of(2) { CloseReason::SequencerGone } else { CloseReason::HandOver },
                timings: Timings { seal_micros: 3_400, repair_micros: 17_000, total_micros: 41_000 },
            },
        };
        let at = base_lsn;
        base_lsn = tail.to_lsn(base_lsn).expect("positions are left");
        Segment { base_lsn: at, params: LogletParams { id, nodeset, replication, sequencer }, state }
    };
    Chain {
        log,
        name: Some("orders".to_owned()),
        version: 1 + 2 * u64::from(segments),
        segments: (0..=segments).map(segment).collect(),
        next_segment: SegmentIndex::new(segments + 1),
        pending: None,
        finished: Vec::new(),
        trim_point: None,
    }
}

#[test]
fn ten_thousand_segments_on_nodesets_that_alternate_take_less_than_half_of_a_value() {
    // Five nodes of which each segment has three; each has another sequencer than the one before.
    let nodes = |number: u32| (0..3).map(|place| 1 + (number + place * (1 + number % 2)) % 5).collect();
    let chain = chain(SEGMENTS, |number| (nodes(number), life(1 + number % 5, 1 + number / 1000)));
    let bytes = encode_chain(&chain);
    let each = bytes.len() / chain.segments.len();
    assert!(each <= 44, "a segment takes {each} bytes");
    assert!(bytes.len() * 2 < METADATA_VALUE_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(decode_chain(&bytes), Ok(chain));
}

#[test]
fn ten_thousand_segments_of_which_no_two_are_opened_alike_fit_a_value() {
    // Thirty nodes, of which each segment has three others, and a sequencer in a life of its own.
    let nodes = |number: u32| vec![1 + number % 10, 11 + number / 10 % 10, 21 + number / 100 % 10];
    let chain = chain(SEGMENTS, |number| (nodes(number), life(1 + number % 30, 1 + number)));
    let bytes = encode_chain(&chain);
    assert!(bytes.len() < METADATA_VALUE_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(decode_chain(&bytes), Ok(chain));
}

#[test]
fn places_in_tables_do_not_make_much_of_few_bytes() {
    // As many members as a value has room for, all of them one with a long name: what is decoded shares it.
    let name = "x".repeat(METADATA_VALUE_BYTES_MAX / 4);
    let members: Vec<_> = (1..=NODESET_MAX as u32)
        .map(|node| {
            let location = (node == 1).then(|| pb::Location { region: name.clone(), zone: String::new() });
            pb::Member { location, ..pb::Member::from(&member(node)) }
        })
        .collect();
    let mut value = pb::Chain {
        format_version: super::super::VALUE_FORMAT_VERSION,
        log: 7,
        base_lsn: 1,
        members,
        nodesets: vec![pb::MemberList { members: (0..NODESET_MAX as u32).collect() }; 4_000],
        ..pb::Chain::default()
    };
    assert_eq!(decode_chain(&value.encode_to_vec()), Err(DecodeError::Missing { field: "Chain.closed" }));
    value.nodesets.push(pb::MemberList { members: vec![0; NODESET_MAX + 1] });
    let too_long = DecodeError::TooLong { field: "MemberList.members", actual: NODESET_MAX + 1, max: NODESET_MAX };
    assert_eq!(decode_chain(&value.encode_to_vec()), Err(too_long));
}
