//! The core alone: what the next step is, whatever metadata says. Over servers with faults and interruptions the whole is
//! tested in `tests/it/delete_log.rs`.
#![allow(clippy::panic)]

use std::num::NonZeroU8;

use bifrost_types::{
    DiskId, Generation, Location, LogletOffset, Member, NodeGeneration, NodeId, Nodeset, ReplicationProperty,
    Successor, Timings,
};

use super::*;
use crate::chain::{self, Decide};

const MINE: u128 = 10;
const OTHER: u128 = 20;

fn op(number: u128) -> OpId {
    OpId::try_from(number).expect("not 0")
}

fn log() -> LogId {
    LogId::try_from(7).expect("not 0")
}

fn successor() -> Successor {
    let node = NodeId::try_from(1).expect("not 0");
    let disk = DiskId::try_from(1).expect("not 0");
    let member = Member { node, disk, location: Location::default() };
    Successor {
        nodeset: Nodeset::new(vec![member]).expect("one node"),
        replication: ReplicationProperty::nodes(NonZeroU8::MIN),
        sequencer: NodeGeneration::new(node, Generation::FIRST),
    }
}

fn created() -> Chain {
    chain::create(log(), Some("orders".to_owned()), op(1), successor())
}

/// The chain after an intent was carried out on it.
fn carried_out(chain: &Chain, intent: &Intent) -> Chain {
    let Ok(crate::reconfigure::Step::Write(announced)) = intent.next_step(chain, None, 0) else {
        panic!("not announced")
    };
    let Ok(Decide::Write(decided)) =
        chain::decide(&announced, intent.op, LogletOffset::FIRST.into(), Timings::default())
    else {
        panic!("not decided")
    };
    decided
}

fn step(number: u128, chain: Option<&Chain>, tombstone: Option<&Tombstone>) -> Result<DeleteStep, ChainError> {
    next_step(log(), op(number), chain, tombstone, 77)
}

#[test]
fn an_undisturbed_deletion_announces_closes_and_removes() {
    let chain = created();
    let Ok(DeleteStep::Announce(closing)) = step(MINE, Some(&chain), None) else { panic!("not announced") };
    assert_eq!((closing.op, closing.opened_at_millis, &closing.removed), (op(MINE), 77, &None));
    let Ok(DeleteStep::Close(intent)) = step(MINE, Some(&chain), Some(&closing)) else { panic!("not closed") };
    assert_eq!((intent.op, intent.reason, &intent.successor), (op(MINE), CloseReason::Deleted, &None));
    let closed = carried_out(&chain, &intent);
    let Ok(DeleteStep::Remove(removed)) = step(MINE, Some(&closed), Some(&closing)) else { panic!("not removed") };
    let left = removed.removed.as_ref().expect("the final chain");
    assert_eq!((&left.segments, left.finished.len()), (&closed.segments, 0));
    assert_eq!(step(MINE, None, Some(&removed)), Ok(DeleteStep::Removed));
    assert_eq!(step(MINE, None, None), Ok(DeleteStep::Gone));
}

#[test]
fn a_log_that_is_closed_already_is_not_closed_again() {
    let closer = Intent {
        op: op(OTHER),
        segment: created().segments[0].index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: None,
    };
    let closed = carried_out(&created(), &closer);
    let Ok(DeleteStep::Announce(closing)) = step(MINE, Some(&closed), None) else { panic!("not announced") };
    assert!(matches!(step(MINE, Some(&closed), Some(&closing)), Ok(DeleteStep::Remove(_))));
}

#[test]
fn a_segment_that_was_opened_meanwhile_is_closed_under_the_same_operation() {
    let chain = created();
    let Ok(DeleteStep::Announce(closing)) = step(MINE, Some(&chain), None) else { panic!("not announced") };
    let mover = Intent {
        op: op(OTHER),
        segment: chain.segments[0].index(),
        actor: Actor::Appender,
        reason: CloseReason::SequencerGone,
        successor: Some(successor()),
    };
    let moved = carried_out(&chain, &mover);
    let Ok(DeleteStep::Close(intent)) = step(MINE, Some(&moved), Some(&closing)) else { panic!("not closed") };
    assert_eq!(intent.segment, moved.segments[1].index());
    assert!(matches!(step(MINE, Some(&carried_out(&moved, &intent)), Some(&closing)), Ok(DeleteStep::Remove(_))));
}

#[test]
fn whoever_comes_second_goes_on_with_the_deletion_that_is_there() {
    let chain = created();
    let Ok(DeleteStep::Announce(closing)) = step(OTHER, Some(&chain), None) else { panic!("not announced") };
    let Ok(DeleteStep::Close(intent)) = step(MINE, Some(&chain), Some(&closing)) else { panic!("not joined") };
    assert_eq!(intent.op, op(OTHER));
}

#[test]
fn a_chain_that_was_read_before_it_was_removed_is_not_believed() {
    let chain = created();
    let removed = Tombstone { log: log(), op: op(OTHER), opened_at_millis: 0, removed: Some(chain.clone()) };
    assert_eq!(step(MINE, Some(&chain), Some(&removed)), Ok(DeleteStep::Removed));
}

#[test]
fn a_closing_tombstone_without_a_chain_is_damage_not_success() {
    let closing = Tombstone { log: log(), op: op(MINE), opened_at_millis: 0, removed: None };
    assert_eq!(step(MINE, None, Some(&closing)), Err(ChainError::Damaged));
}
