//! Situations by hand: three servers of which two hold each record, so two sealed ones are an f-majority.
#![allow(clippy::panic)]

use std::num::NonZeroU8;

use bifrost_loglet::peers::MemberError;
use bifrost_types::{
    Actor, CloseReason, DiskId, Generation, Location, LogId, Member, NodeGeneration, NodeRecord, ReplicationProperty,
    Roles, SegmentIndex, StorageState, Successor, Timings, Tombstone,
};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::CopyError;
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::sequencer::SequencerTails;

use super::*;
use crate::catalog::CatalogError;
use crate::chain;
use crate::explain::{Asked, Explanation};

const OP: u128 = 9;

fn op() -> OpId {
    OpId::try_from(OP).expect("not 0")
}

fn node(id: u32) -> NodeId {
    NodeId::try_from(id).expect("not 0")
}

fn disk(id: u32) -> DiskId {
    DiskId::try_from(u128::from(id)).expect("not 0")
}

fn offset(number: u64) -> LogletOffset {
    LogletOffset::new(number).expect("not 0")
}

fn life(id: u32) -> NodeGeneration {
    NodeGeneration::new(node(id), Generation::FIRST)
}

fn successor() -> Successor {
    let member = |id| Member { node: node(id), disk: disk(id), location: Location::default() };
    Successor {
        nodeset: Nodeset::new((1..=3).map(member).collect()).expect("three nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0")),
        sequencer: life(1),
    }
}

fn open() -> Chain {
    chain::create(
        LogId::try_from(7).expect("not 0"),
        Some("orders".to_owned()),
        OpId::try_from(1).expect("not 0"),
        successor(),
    )
}

fn pending(for_good: bool) -> Chain {
    let pending = Reconfiguration {
        op: op(),
        segment: SegmentIndex::FIRST,
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: (!for_good).then(successor),
        attempt: 1,
        opened_at_millis: 1_000,
    };
    Chain { pending: Some(pending), ..open() }
}

fn closed() -> Chain {
    let mut chain = open();
    chain.segments[0].state = SegmentState::Sealed {
        tail: offset(5),
        lost_from: None,
        op: op(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        timings: Timings::default(),
    };
    chain
}

fn deletion(removed: Option<Chain>) -> Tombstone {
    Tombstone { log: LogId::try_from(7).expect("not 0"), op: op(), opened_at_millis: 1_000, removed }
}

/// `o5` is open with local tail 5, `s5` sealed with it, `d5` settled there and trimmed; the committed tail is 3 in all.
/// `x` cannot be reached, `t` timed out, `w` has another disk, `?` is not known.
fn answer(text: &str) -> Result<CopyState, MemberError> {
    let (kind, tail) = text.split_at(1);
    let state = || {
        let tail = offset(tail.parse().expect("a tail"));
        let committed_tail = offset(3).min(tail);
        CopyState { local_tail: tail, committed_tail, sealed: None, decided_tail: None, trim_point: None }
    };
    match kind {
        "o" => Ok(state()),
        "s" => Ok(CopyState { sealed: Some(op()), ..state() }),
        "d" => {
            let state = state();
            let (decided_tail, trim_point) = (Some(state.local_tail), state.local_tail.previous());
            Ok(CopyState { sealed: Some(op()), committed_tail: state.local_tail, decided_tail, trim_point, ..state })
        }
        "x" => Err(RpcError::Unreachable.into()),
        "t" => Err(RpcError::DeadlinePassed.into()),
        "w" => Err(MemberError::Call(CopyError::WrongDisk { actual: disk(99) }.into())),
        "?" => Err(MemberError::AddressUnknown),
        _ => panic!("no answer {text}"),
    }
}

fn running(next: u64) -> SequencerView {
    SequencerView::Answered(SequencerTails { committed_tail: offset(next.min(3)), next_offset: offset(next) })
}

/// Nodes that were asked and have no known address are not in the records.
fn evidence(metadata: MetadataView, answers: &str, sequencer: Option<SequencerView>) -> Evidence {
    let members: Vec<MemberView> = answers
        .split_whitespace()
        .zip(1..)
        .map(|(text, id)| MemberView { node: node(id), disk: disk(id), answer: answer(text) })
        .collect();
    let known = |member: &&MemberView| member.answer != Err(MemberError::AddressUnknown);
    let record = |member: &MemberView| NodeRecord {
        id: NodeGeneration::new(member.node, Generation::FIRST),
        name: format!("n{}", member.node.get()),
        address: format!("10.0.0.{}:2437", member.node.get()),
        location: Location::default(),
        disk: Some(member.disk),
        storage: StorageState::ReadWrite,
        declared_lost: false,
        roles: Roles::DATA,
    };
    let nodes = members.iter().filter(known).map(record).collect();
    Evidence { taken_at_millis: 13_000, metadata, nodes, members, sequencer, successor: Vec::new(), pin: None }
}

fn explain(metadata: MetadataView, answers: &str, sequencer: Option<SequencerView>) -> Explanation {
    Explanation::of(Asked::Name("orders".to_owned()), evidence(metadata, answers, sequencer))
}

/// The sentence and the next command, for each situation.
#[test]
fn every_situation_has_one_sentence_and_a_next_command() {
    use MetadataView as M;
    let gone = Some(SequencerView::LaterLife { now: life(1) });
    let no_answer =
        |error| M::NoAnswer { error, tried: vec![("10.0.0.1:1".into(), "refused".into())], last_seen: None };
    let deleting = |chain| M::Deleting { chain, tombstone: deletion(None) };
    let cases: Vec<(Explanation, &str, &str)> = vec![
        (
            explain(M::Chain(open()), "o5 o5 o5", Some(running(5))),
            "log `orders` takes appends; its tail is 3.",
            "`bifrost tail orders`",
        ),
        (
            explain(M::Chain(open()), "o5 x o5", Some(running(5))),
            "log `orders` takes appends; its tail is 3, although N2 gave no answer.",
            "start N2 (`n2`, 10.0.0.2:2437)",
        ),
        (
            explain(M::Chain(open()), "o1 o1 o1", Some(running(1))),
            "log `orders` takes appends, and nothing was appended to its last segment yet; its tail is 1.",
            "`bifrost append orders`",
        ),
        (
            explain(M::Chain(open()), "x o5 o5", gone),
            "log `orders` has lost its sequencer N1:1: the next append moves the log to another one.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(open()), "x t o5", Some(SequencerView::Failed(RpcError::Unreachable.into()))),
            "log `orders` has lost its sequencer N1:1: closing the segment waits for 1 of N1, N2 (for an f-majority).",
            "start N1 (`n1`, 10.0.0.1:2437) or N2 (`n2`, 10.0.0.2:2437), then `bifrost explain orders`",
        ),
        (
            explain(M::Chain(open()), "o5 w ?", Some(running(5))),
            "log `orders` cannot acknowledge appends: it waits for 1 of N2, N3 (removed) (for a write quorum).",
            "start N2 (`n2`, 10.0.0.2:2437) or N3 (removed)",
        ),
        (
            explain(M::Chain(open()), "s5 o5 o5", Some(running(5))),
            "log `orders` was sealed on N1 by operation 00000000000000000000000009, of which its chain knows nothing: \
             appends may fail, and the next append finishes it.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(open()), "s5 s5 o5", Some(running(5))),
            "log `orders` was sealed on N1, N2 by operation 00000000000000000000000009, of which its chain knows \
             nothing: nothing can be acknowledged, and the next append finishes it.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(open()), "s5 x t", Some(running(5))),
            "log `orders` was sealed on N1 by operation 00000000000000000000000009, of which its chain knows nothing: \
             appends may fail, and closing it waits for 1 of N2, N3 (for an f-majority).",
            "start N2",
        ),
        (
            explain(M::Chain(pending(false)), "o5 o5 o5", Some(running(5))),
            "log `orders` is being reconfigured (requested, by operator): the operation is announced and lacks \
             nothing: whoever drives it, or comes next, can finish it.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(pending(false)), "s5 o5 o5", None),
            "log `orders` is being reconfigured (requested, by operator): the operation has sealed N1 and lacks \
             nothing: whoever drives it, or comes next, can finish it.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(pending(false)), "s5 x t", None),
            "log `orders` is being reconfigured (requested, by operator): the operation has sealed N1 and waits for \
             1 of N2, N3 (for an f-majority).",
            "start N2",
        ),
        (
            // Only N1 has [5, 8), and N2 can take it.
            explain(M::Chain(pending(false)), "s8 s5 x", None),
            "log `orders` is being reconfigured (requested, by operator): the operation is sealed, has to copy \
             offsets 3 to 8 and lacks nothing: whoever drives it, or comes next, can finish it.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(pending(false)), "s5 s5 x", None),
            "log `orders` is being reconfigured (requested, by operator): the operation is sealed and stored, has to \
             be decided and lacks nothing: whoever drives it, or comes next, can finish it.",
            "`bifrost reconfigure orders`",
        ),
        (
            explain(M::Chain(pending(true)), "s5 x t", None),
            "log `orders` is being closed for good (requested, by operator): the operation has sealed N1 and waits \
             for 1 of N2, N3 (for an f-majority).",
            "start N2",
        ),
        (
            explain(M::Chain(closed()), "s5 s5 x", None),
            "log `orders` was closed for good (requested, by operator); it ends before 5 and can be read.",
            "`bifrost read orders`",
        ),
        (
            explain(deleting(open()), "o5 x x", None),
            "log `orders` is being deleted: closing it waits for 1 of N2, N3 (for an f-majority).",
            "start N2",
        ),
        (
            explain(deleting(closed()), "d5 d5 x", None),
            "log `orders` is being deleted: nothing stands in the way: whoever deletes it, or any node, finishes that.",
            "`bifrost log delete orders --yes`",
        ),
        (
            explain(M::Removed(deletion(Some(closed()))), "d5 d5 x", None),
            "log `orders` was deleted; its space is still to be given back by N3.",
            "start N3",
        ),
        (explain(M::NoSuchLog, "", None), "there is no log `orders`.", "`bifrost log list`"),
        (
            explain(no_answer(CatalogError::Metadata(MetadataError::Unavailable)), "", None),
            "the cluster's metadata does not answer, so nothing can be said about log `orders`.",
            "--address",
        ),
    ];
    for (explanation, sentence, next) in cases {
        assert_eq!(explanation.sentence(), sentence);
        assert!(explanation.next().contains(next), "{sentence}\n{}", explanation.next());
        assert!(explanation.to_string().starts_with(sentence));
    }
}

#[test]
fn repair_that_lacks_a_write_quorum_names_the_disks() {
    // Four servers, three copies: two sealed ones meet every write quorum, and three must hold what is kept.
    let mut chain = pending(false);
    let member = |id| Member { node: node(id), disk: disk(id), location: Location::default() };
    let params = &mut chain.segments[0].params;
    params.nodeset = Nodeset::new((1..=4).map(member).collect()).expect("four nodes");
    params.replication = ReplicationProperty::nodes(NonZeroU8::new(3).expect("not 0"));
    let explanation = explain(MetadataView::Chain(chain), "s8 s8 x t", None);
    let Diagnosis::Reconfiguring { step, lacks, .. } = &explanation.diagnosis else { panic!("{explanation}") };
    assert_eq!(step, &ReconfigurationStep::Repairing { from: offset(3), until: offset(8) });
    let of = vec![node(3), node(4)];
    assert_eq!(lacks, &Some(Lack { quorum: QuorumKind::Write, at_least: 1, of }));
}

#[test]
fn the_evidence_names_every_server_and_why_it_is_silent() {
    let explanation = explain(MetadataView::Chain(pending(false)), "s5 w ?", Some(running(5)));
    let text = explanation.to_string();
    for part in [
        "segment",
        "7_0 (open), the last of 1; replication {node: 2}",
        "operation 00000000000000000000000009 by operator (requested), announced 12 s ago, attempt 1, next sequencer N1:1",
        "runs: committed tail 3, next offset 5",
        "sealed by 00000000000000000000000009, has offsets below 5",
        "has another disk now (00000000000000000000000033)",
        "N3 (removed)  has no known address",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn an_unreachable_metadata_names_the_addresses_that_were_tried() {
    let metadata = MetadataView::NoAnswer {
        error: CatalogError::Metadata(MetadataError::Unavailable),
        tried: vec![("10.0.0.1:2437".to_owned(), "connection refused".to_owned())],
        last_seen: None,
    };
    let text = Explanation::without_evidence(Asked::Name("orders".to_owned()), metadata).to_string();
    assert!(text.contains("10.0.0.1:2437  connection refused"), "{text}");
}
