#![allow(clippy::unwrap_used, clippy::panic)]

mod model;
mod script;

use super::*;
use crate::testing::*;

const FACTS: fn(u64) -> StoreFacts = |committed| StoreFacts { sequencer: sequencer(1), committed_tail: at(committed) };

fn found(batches: &[PlacedBatch], covered_until: u64) -> Chunk {
    Chunk { parts: batches.iter().cloned().map(Stored::Batch).collect(), covered_until: at(covered_until) }
}

/// A durable copy with batches of two at 1, 3 and 5.
fn copy_of_six() -> CopyCore {
    let mut core = CopyCore::default();
    let batches = [placed(1, 2), placed(3, 2), placed(5, 2)];
    assert_eq!(core.store(FACTS(1), &batches, None), Ok(Decision::WriteAll));
    core.on_durable();
    core
}

#[test]
fn nothing_staged_is_shown_before_it_is_durable() {
    let mut core = CopyCore::default();
    core.store(FACTS(1), &[placed(1, 2)], None).unwrap();
    core.seal(op(1));
    assert_eq!(core.state(), CopyCore::default().state());
    core.on_durable();
    assert_eq!((core.state().local_tail, core.state().sealed), (at(3), Some(op(1))));
}

#[test]
fn a_full_disk_takes_back_everything_but_news_of_the_committed_tail() {
    let mut core = copy_of_six();
    core.store(FACTS(5), &[placed(7, 1)], None).unwrap();
    core.seal(op(1));
    core.on_refused();
    core.check();
    let state = core.state();
    assert_eq!((state.local_tail, state.committed_tail, state.sealed), (at(7), at(5), None));
    core.settle(op(1), at(6)).unwrap();
    core.on_refused();
    core.check();
    assert_eq!(core.state().decided_tail, None);
    assert_eq!(core.store(FACTS(5), &[placed(7, 1)], None), Ok(Decision::WriteAll));
}

#[test]
fn the_same_bytes_again_are_taken_and_other_bytes_are_a_conflict() {
    let mut core = copy_of_six();
    let batches = [placed(3, 2), placed(5, 2), placed(7, 1)];
    let compare = Decision::Compare { from: at(3), until: at(7) };
    assert_eq!(core.store(FACTS(1), &batches, None), Ok(compare));
    assert_eq!(core, copy_of_six(), "a question changes nothing");
    let same = found(&[placed(3, 2), placed(5, 2)], 7);
    let other = found(&[placed(3, 2), placed_with(5, 2, "!")], 7);
    let shifted = found(&[placed(3, 3)], 7);
    for (chunk, offset) in [(&other, 5), (&shifted, 3)] {
        let conflict = Err(CopyError::Conflict { offset: at(offset) });
        assert_eq!(core.store(FACTS(1), &batches, Some(chunk)), conflict);
        assert_eq!(core, copy_of_six());
    }
    assert_eq!(core.store(FACTS(1), &batches, Some(&same)), Ok(Decision::Write(vec![2])));
    assert_eq!(core.staged().local_tail, at(8));
}

#[test]
fn a_hole_is_filled_below_the_committed_tail_only() {
    let mut core = CopyCore::default();
    assert_eq!(core.store(FACTS(9), &[placed(9, 2)], None), Ok(Decision::WriteAll));
    assert_eq!(core.staged().committed_tail, at(9), "durable with the hole that it justifies");
    core.on_durable();
    let batches = [placed(3, 2)];
    assert_eq!(core.store(FACTS(9), &batches, None), Ok(Decision::Compare { from: at(3), until: at(5) }));
    assert_eq!(core.store(FACTS(9), &batches, Some(&found(&[], 5))), Ok(Decision::Write(vec![0])));
    // Above the committed tail everything must be here: the disk lost it, and nobody may write it again.
    let mut core = copy_of_six();
    let conflict = Err(CopyError::Conflict { offset: at(3) });
    assert_eq!(core.store(FACTS(1), &batches, Some(&found(&[], 5))), conflict);
}

#[test]
fn what_was_not_looked_at_is_not_taken_for_a_hole() {
    let mut core = copy_of_six();
    let conflict = Err(CopyError::Conflict { offset: at(3) });
    assert_eq!(core.store(FACTS(7), &[placed(3, 2)], Some(&found(&[], 4))), conflict);
}

#[test]
fn a_damaged_batch_is_healed_by_the_same_store() {
    let mut core = copy_of_six();
    let damage = Stored::Damaged { first_offset: at(3), end: at(7) };
    let chunk = Chunk { parts: vec![damage.clone()], covered_until: at(5) };
    assert_eq!(core.store(FACTS(1), &[placed(3, 2)], Some(&chunk)), Ok(Decision::Write(vec![0])));
    let chunk = Chunk { parts: vec![Stored::Batch(placed_with(3, 1, "!")), damage], covered_until: at(5) };
    let conflict = Err(CopyError::Conflict { offset: at(3) });
    assert_eq!(core.store(FACTS(1), &[placed(3, 2)], Some(&chunk)), conflict);
}

#[test]
fn what_is_trimmed_is_not_written_again() {
    let mut core = copy_of_six();
    core.store(FACTS(7), &[], None).unwrap();
    core.trim(at(4)).unwrap();
    core.on_durable();
    assert_eq!(core.store(FACTS(7), &[placed(1, 2), placed(3, 2)], None), Ok(Decision::Nothing));
    let batches = [placed(3, 2), placed(5, 2)];
    assert_eq!(core.store(FACTS(7), &batches, None), Ok(Decision::Compare { from: at(5), until: at(7) }));
    // A copy that is behind its own trim point catches up without writing what nobody may read.
    let mut core = CopyCore::default();
    core.store(FACTS(9), &[], None).unwrap();
    core.trim(at(4)).unwrap();
    assert_eq!(core.store(FACTS(9), &[placed(1, 2), placed(3, 2)], None), Ok(Decision::Write(vec![])));
    assert_eq!(core.staged().local_tail, at(5));
}
