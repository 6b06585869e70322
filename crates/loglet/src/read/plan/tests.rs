#![allow(clippy::unwrap_used, clippy::panic)]

mod machine;

use std::num::NonZeroU8;

use bifrost_types::{
    DiskId, Generation, Location, LogId, LogletId, Member, NodeGeneration, NodeId, Nodeset, ReplicationProperty,
    SegmentIndex,
};

use super::*;

fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).unwrap()
}

fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// A plan of three copies with 100 bytes of credit, told that `[1, tail)` may be read.
struct Run {
    plan: ReadPlan,
    out: Vec<Effect>,
}

fn params() -> LogletParams {
    let node = |index: u32| NodeId::try_from(index).unwrap();
    let member = |index: u32| Member {
        node: node(index),
        disk: DiskId::try_from(u128::from(index)).unwrap(),
        location: Location::default(),
    };
    LogletParams {
        id: LogletId::new(LogId::try_from(1).unwrap(), SegmentIndex::FIRST),
        nodeset: Nodeset::new((1..=3).map(member).collect()).unwrap(),
        replication: ReplicationProperty::nodes(NonZeroU8::MIN),
        sequencer: NodeGeneration::new(node(1), Generation::FIRST),
    }
}

impl Run {
    fn new(tail: u64) -> Self {
        let options = ReadOptions { credit_bytes: NonZeroU64::new(100).unwrap(), ..ReadOptions::default() };
        let mut run = Self { plan: ReadPlan::new(params(), LogletOffset::FIRST, None, options), out: Vec::new() };
        run.step(0, Event::Readable(Readable { tail: offset(tail), ..Readable::UNKNOWN }));
        run
    }

    fn step(&mut self, at: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.plan.step(millis(at), event, &mut out);
        self.out.extend(out.iter().cloned());
        out
    }

    fn part(&mut self, at: u64, stream: u64, from: u64, end: u64, kind: PartKind) -> Vec<Effect> {
        let part = Part { from: offset(from), end: offset(end), kind, bytes: 10 };
        self.step(at, Event::Part { stream: StreamId(stream), part })
    }

    /// Streams opened so far as (stream, place of the node, from, watch).
    fn opened(&self) -> Vec<(u64, usize, u64, bool)> {
        let opened = |effect: &Effect| match effect {
            Effect::Open(open) => Some((open.stream.0, open.node.get(), open.from.get(), open.watch)),
            _ => None,
        };
        self.out.iter().filter_map(opened).collect()
    }
}

#[test]
fn a_hole_is_filled_while_the_primary_waits() {
    let mut run = Run::new(10);
    run.part(1, 1, 1, 7, PartKind::Missing);
    assert_eq!(run.opened(), [(1, 0, 1, false), (2, 1, 1, false)]);
    assert_eq!(run.plan.wanted(), Some(StreamId(2)));
    run.part(2, 2, 1, 4, PartKind::Batch);
    // The second copy lacks the rest; the third is asked only for that.
    run.part(3, 2, 4, 7, PartKind::Missing);
    assert_eq!(run.opened()[2..], [(3, 2, 4, false)]);
    run.part(4, 3, 4, 7, PartKind::Batch);
    assert_eq!(run.plan.wanted(), Some(StreamId(1)), "back to the primary, which stands at the end of the hole");
    run.part(5, 1, 7, 10, PartKind::Batch);
    assert_eq!(run.opened().len(), 3);
}

#[test]
fn credit_goes_back_in_quarters() {
    let mut run = Run::new(10);
    // The primary has 75 of the 100 bytes, the rest is for detours; each part takes 10.
    let is_grant = |effect: &Effect| matches!(effect, Effect::Grant { .. });
    assert!(!run.part(1, 1, 1, 2, PartKind::Batch).iter().any(is_grant));
    let granted = Effect::Grant { stream: StreamId(1), credit_bytes: 20, readable_tail: offset(10) };
    assert!(run.part(1, 1, 2, 3, PartKind::Batch).contains(&granted));
}

#[test]
fn patience_doubles_until_records_come() {
    let mut run = Run::new(10);
    let mut at = 0;
    let mut waits = Vec::new();
    while run.plan.changes < 5 {
        let wake = u64::try_from(run.plan.wake_at(millis(at)).unwrap().as_millis()).unwrap();
        let changes = run.plan.changes;
        let since = u64::try_from(run.plan.silent_since.as_millis()).unwrap();
        at = wake;
        run.step(at, Event::TimePassed);
        if run.plan.changes > changes {
            waits.push(at - since);
        }
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600]);
    let stream = run.plan.wanted().unwrap().0;
    run.part(at, stream, 1, 4, PartKind::Batch);
    assert_eq!(run.plan.changes, 0);
}

#[test]
fn watches_are_opened_after_the_first_silence_and_end_with_the_decision() {
    let mut run = Run::new(1);
    run.step(1, Event::Tail { stream: StreamId(1), tail: offset(1) });
    assert_eq!(run.opened().len(), 1);
    run.step(101, Event::TimePassed);
    assert_eq!(run.opened()[1..], [(2, 1, u64::MAX, true), (3, 2, u64::MAX, true)]);
    assert_eq!(run.plan.wake_at(millis(101)), None, "from now on only news counts");
    let decided = Readable { tail: offset(4), decided: Some(offset(4)), trim_point: None };
    let effects = run.step(200, Event::Readable(decided));
    assert!(effects.contains(&Effect::Close(StreamId(2))) && effects.contains(&Effect::Close(StreamId(3))));
    let told = Effect::Grant { stream: StreamId(1), credit_bytes: 0, readable_tail: offset(4) };
    assert!(effects.contains(&told), "the primary is told at once");
}

#[test]
fn a_part_out_of_order_ends_the_stream_and_nothing_else() {
    for (from, end) in [(3, 5), (1, 1)] {
        let mut run = Run::new(10);
        let effects = run.part(1, 1, from, end, PartKind::Batch);
        assert!(effects.contains(&Effect::Close(StreamId(1))), "{effects:?}");
        assert_eq!(run.opened()[1..], [(2, 1, 1, false)]);
    }
}

#[test]
fn damage_is_said_once_per_copy_and_range() {
    let mut run = Run::new(10);
    run.part(1, 1, 1, 4, PartKind::Corrupt);
    run.step(2, Event::Ended { stream: StreamId(2), passing: false });
    run.step(3, Event::Ended { stream: StreamId(3), passing: false });
    let at = run.plan.wake_at(millis(3)).unwrap();
    run.step(u64::try_from(at.as_millis()).unwrap(), Event::TimePassed);
    assert_eq!(run.opened()[3..], [(4, 0, 1, false)], "the damaged copy is asked again");
    run.part(100, 4, 1, 4, PartKind::Corrupt);
    assert_eq!(run.out.iter().filter(|effect| matches!(effect, Effect::Damaged { .. })).count(), 1);
}

#[test]
fn a_parting_word_of_a_closed_stream_is_ignored() {
    let mut run = Run::new(10);
    assert_eq!(run.part(1, 77, 1, 4, PartKind::Batch), []);
    assert_eq!(run.step(1, Event::Tail { stream: StreamId(77), tail: offset(99) }), []);
    assert_eq!(run.plan.limit(), offset(10));
}
