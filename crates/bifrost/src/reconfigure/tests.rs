//! The core alone: what the next step is, whatever the chain says. Over servers with faults and interruptions the whole
//! is tested in `tests/it/interrupted_reconfiguration.rs`.
#![allow(clippy::panic)]

use std::num::NonZeroU8;

use bifrost_types::{
    DiskId, Generation, Location, Lsn, Member, NodeGeneration, NodeId, Nodeset, ReplicationProperty, SegmentState,
};

use super::*;

const MINE: u128 = 10;
const OTHER: u128 = 20;

fn op(number: u128) -> OpId {
    OpId::try_from(number).expect("not 0")
}

fn offset(number: u64) -> LogletOffset {
    LogletOffset::new(number).expect("not 0")
}

fn successor(sequencer: u32) -> Successor {
    let node = |id: u32| NodeId::try_from(id).expect("not 0");
    let disk = DiskId::try_from(1).expect("not 0");
    let member = |id: u32| Member { node: node(id), disk, location: Location::default() };
    Successor {
        nodeset: Nodeset::new((1..=3).map(member).collect()).expect("three nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0")),
        sequencer: NodeGeneration::new(node(sequencer), Generation::FIRST),
    }
}

fn created() -> Chain {
    chain::create(LogId::try_from(7).expect("not 0"), None, op(1), successor(1))
}

fn intent(number: u128, successor: Option<Successor>) -> Intent {
    Intent {
        op: op(number),
        segment: SegmentIndex::FIRST,
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor,
    }
}

fn candidate(number: u128, tail: u64) -> Option<Candidate> {
    Some(Candidate { op: op(number), end: offset(tail).into(), timings: Timings::default() })
}

fn written(step: Result<Step, ChainError>) -> Chain {
    match step {
        Ok(Step::Write(next) | Step::Decide { decided: next, .. }) => next,
        other => panic!("nothing to write: {other:?}"),
    }
}

/// The chain after an actor came to the end of its intent, undisturbed.
fn carried_out(intent: &Intent, tail: u64) -> Chain {
    let announced = written(intent.next_step(&created(), None, 0));
    written(intent.next_step(&announced, candidate(intent.op.get(), tail), 0))
}

#[test]
fn an_undisturbed_intent_announces_closes_decides_and_tells() {
    let mine = intent(MINE, Some(successor(2)));
    let announced = written(mine.next_step(&created(), None, 77));
    let pending = announced.pending.as_ref().expect("announced");
    assert_eq!((pending.op, pending.opened_at_millis, pending.attempt), (op(MINE), 77, 1));
    let params = created().segments[0].params.clone();
    assert_eq!(mine.next_step(&announced, None, 0), Ok(Step::Close { op: op(MINE), params: params.clone() }));
    let decided = written(mine.next_step(&announced, candidate(MINE, 5), 0));
    assert_eq!(decided.segments[1].base_lsn, Lsn::new(5).expect("not 0"));
    let finished = decided.finished.last().expect("decided").clone();
    let outcome = Reconfigured::Done(finished);
    assert_eq!(mine.next_step(&decided, None, 0), Ok(Step::Tell { params: Some(params), outcome }));
}

#[test]
fn a_lost_reply_is_the_same_as_looking_again() {
    let mine = intent(MINE, Some(successor(2)));
    let announced = written(mine.next_step(&created(), None, 0));
    // T1: whether its reply came or not, the chain says that it is pending.
    assert!(matches!(mine.next_step(&announced, None, 99), Ok(Step::Close { op: pending, .. }) if pending == op(MINE)));
    let decided = written(mine.next_step(&announced, candidate(MINE, 5), 0));
    // T2: with or without the candidate, by whoever asks, the outcome is the one that was written.
    for seen in [None, candidate(MINE, 5), candidate(MINE, 6)] {
        let Ok(Step::Tell { outcome: Reconfigured::Done(finished), .. }) = mine.next_step(&decided, seen, 0) else {
            panic!("not recognised")
        };
        assert_eq!(finished.tail, offset(5));
    }
}

#[test]
fn another_operation_that_is_pending_is_driven_first_and_mine_is_superseded() {
    let theirs = intent(OTHER, Some(successor(3)));
    let announced = written(theirs.next_step(&created(), None, 0));
    let mine = intent(MINE, Some(successor(2)));
    let Ok(Step::Close { op: joined, .. }) = mine.next_step(&announced, None, 0) else { panic!("not joined") };
    assert_eq!(joined, op(OTHER));
    let decided = written(mine.next_step(&announced, candidate(OTHER, 5), 0));
    let open = decided.segments[1].params.clone();
    assert_eq!(open.sequencer, successor(3).sequencer, "with their successor, not mine");
    let by = decided.finished.last().expect("decided").clone();
    assert_eq!(by.op, op(OTHER));
    let outcome = Reconfigured::Superseded { by: by.clone(), open: Some(open) };
    assert_eq!(outcome.finished(), &by);
    let params = Some(created().segments[0].params.clone());
    assert_eq!(mine.next_step(&decided, candidate(OTHER, 5), 0), Ok(Step::Tell { params, outcome }));
}

#[test]
fn a_candidate_counts_only_for_the_operation_that_it_was_found_for() {
    let theirs = intent(OTHER, Some(successor(3)));
    let announced = written(theirs.next_step(&created(), None, 0));
    let mine = intent(MINE, Some(successor(2)));
    let step = mine.next_step(&announced, candidate(MINE, 5), 0);
    assert!(matches!(step, Ok(Step::Close { op: joined, .. }) if joined == op(OTHER)), "{step:?}");
}

#[test]
fn a_replaced_successor_keeps_the_work_that_was_done() {
    let mine = intent(MINE, Some(successor(2)));
    let announced = written(mine.next_step(&created(), None, 0));
    let replaced =
        chain::replace_successor(&announced, op(MINE), successor(3)).expect("few attempts").expect("pending");
    let decided = written(mine.next_step(&replaced, candidate(MINE, 5), 0));
    assert_eq!(decided.segments[1].params.sequencer, successor(3).sequencer);
}

#[test]
fn whoever_races_with_a_closing_for_good_is_told_that_nothing_is_open() {
    let closed = carried_out(&intent(OTHER, None), 5);
    let Ok(Step::Tell { outcome, .. }) = intent(MINE, Some(successor(2))).next_step(&closed, None, 0) else {
        panic!("not told")
    };
    let by = closed.finished.last().expect("decided").clone();
    assert_eq!((by.op, by.successor), (op(OTHER), None));
    assert_eq!(outcome, Reconfigured::Superseded { by, open: None });
    let later = Intent { segment: SegmentIndex::new(1), ..intent(MINE, None) };
    assert_eq!(later.next_step(&closed, None, 0), Err(ChainError::Closed));
}

#[test]
fn every_interleaving_of_two_actors_ends_with_one_winner() {
    // Each actor looks and then acts on what it saw; all orders of their looks and acts are tried.
    for numbers in [[MINE, MINE], [MINE, OTHER]] {
        for schedule in 0..1_u32 << 16 {
            let intents = numbers.map(|number| intent(number, Some(successor(2))));
            let mut stored = created();
            let mut seen = [created(), created()];
            let mut candidates = [None, None];
            let mut looks = [true, true];
            let mut outcomes = [None, None];
            let mut turn = 0;
            while outcomes.iter().any(Option::is_none) {
                let actor = usize::from(turn < 16 && schedule >> turn & 1 == 1 || outcomes[0].is_some());
                let actor = if outcomes[actor].is_some() { 1 - actor } else { actor };
                turn += 1;
                if std::mem::replace(&mut looks[actor], false) {
                    seen[actor] = stored.clone();
                    continue;
                }
                looks[actor] = true;
                match intents[actor].next_step(&seen[actor], candidates[actor], 0) {
                    Ok(Step::Write(next) | Step::Decide { decided: next, .. }) => {
                        if seen[actor].version == stored.version {
                            stored = next;
                        }
                    }
                    // Two finders may well find different candidates (S4).
                    Ok(Step::Close { op, .. }) => candidates[actor] = candidate(op.get(), 5 + actor as u64),
                    Ok(Step::Tell { outcome, .. }) => outcomes[actor] = Some(outcome),
                    Err(error) => panic!("{error}"),
                }
            }
            chain::validate(&stored).expect("a chain");
            assert_eq!((stored.segments.len(), stored.version), (2, 3), "{schedule:016b}");
            let SegmentState::Sealed { op: winner, .. } = stored.segments[0].state else { panic!("not closed") };
            for (number, outcome) in numbers.iter().zip(outcomes.into_iter().flatten()) {
                assert_eq!(Some(outcome.finished()), stored.finished.last(), "{schedule:016b}");
                assert_eq!(matches!(outcome, Reconfigured::Done(_)), winner == op(*number), "{schedule:016b}");
            }
        }
    }
}
