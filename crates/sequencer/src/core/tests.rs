mod machine;

use std::num::NonZeroU8;

use bifrost_types::{
    DiskId, Generation, Location, LogId, LogletId, Member, NodeGeneration, NodeId, Nodeset, OpId, ReplicationProperty,
    SegmentIndex,
};
use proptest::prelude::*;

use super::*;
use crate::spread::NEWS_MILLIS;

fn params(members: u32, copies: u8) -> LogletParams {
    let member = |node: u32| Member {
        node: NodeId::try_from(node).expect("non-zero"),
        disk: DiskId::try_from(u128::from(node)).expect("non-zero"),
        location: Location::default(),
    };
    let me = NodeId::try_from(1).expect("non-zero");
    LogletParams {
        id: LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::FIRST),
        nodeset: Nodeset::new((1..=members).map(member).collect()).expect("distinct nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(copies).expect("non-zero")),
        sequencer: NodeGeneration::new(me, Generation::FIRST),
    }
}

fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).expect("non-zero")
}

fn writer(value: u128) -> WriterId {
    WriterId::try_from(value).expect("non-zero")
}

fn op() -> OpId {
    OpId::try_from(9).expect("non-zero")
}

fn state(local_tail: u64) -> CopyState {
    CopyState {
        local_tail: offset(local_tail),
        committed_tail: LogletOffset::FIRST,
        sealed: None,
        decided_tail: None,
        trim_point: None,
    }
}

/// No limits but this one.
fn retaining(retained_bytes_max: usize) -> SegmentLimits {
    SegmentLimits { retained_bytes_max, ..SegmentLimits::default() }
}

/// A core with its effects, on three copies of which two make a write quorum.
struct Rig {
    core: Core<()>,
    indexes: Vec<NodeIndex>,
}

impl Rig {
    fn new(limits: SegmentLimits) -> Self {
        let params = params(3, 2);
        let indexes = params.nodeset.indexes().collect();
        let mut rig = Self { core: Core::new(params, limits).expect("two of three"), indexes };
        for copy in 0..3 {
            let index = rig.indexes[copy];
            rig.step(Event::CopyUp { index, connection: 1 });
            rig.step(Event::Followed { index, connection: 1, followed: true });
        }
        rig.step(Event::StreamOpened { stream: StreamId(1), writer: writer(1), incarnation: 1 });
        rig
    }

    fn healthy() -> Self {
        Self::new(retaining(1 << 20))
    }

    fn step(&mut self, event: Event<()>) -> Vec<Effect> {
        self.step_at(0, event)
    }

    fn step_at(&mut self, now_millis: u64, event: Event<()>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.step(now_millis, event, &mut effects);
        self.core.check();
        effects
    }

    fn append(&mut self, records: u32) -> Vec<Effect> {
        let batch = Bytes::from_static(b"0123456789");
        self.step(Event::Append { stream: StreamId(1), records, batch, room: () })
    }

    fn stored(&mut self, copy: usize, tail: u64) -> Vec<Effect> {
        let index = self.indexes[copy];
        self.step(Event::Stored { index, connection: 1, outcome: Ok(state(tail)) })
    }

    fn refused(&mut self, copy: usize, error: CopyError) -> Vec<Effect> {
        let index = self.indexes[copy];
        self.step(Event::Stored { index, connection: 1, outcome: Err(error) })
    }

    fn sent(&mut self, copy: usize) -> Option<(u64, usize, u64)> {
        let request = self.core.next_store(self.indexes[copy])?;
        self.core.check();
        Some((request.first_offset.get(), request.batches.len(), request.committed_tail.get()))
    }
}

fn committed(first_offset: u64) -> Effect {
    Effect::Committed { stream: StreamId(1), first_offset: offset(first_offset) }
}

#[test]
fn an_append_is_acknowledged_once_a_write_quorum_has_it() {
    let mut rig = Rig::healthy();
    assert!(rig.append(2).is_empty());
    assert_eq!(rig.sent(0), Some((1, 1, 1)));
    assert!(rig.stored(0, 3).is_empty(), "one copy of two is not enough");
    assert_eq!(rig.stored(2, 3), [committed(1)]);
    assert!(rig.stored(1, 3).is_empty(), "acknowledged once");
}

#[test]
fn one_copy_that_answers_twice_is_one_copy() {
    let mut rig = Rig::healthy();
    rig.append(1);
    assert!(rig.stored(0, 2).is_empty());
    assert!(rig.stored(0, 2).is_empty());
    assert_eq!(rig.core.tails().committed_tail, LogletOffset::FIRST);
}

#[test]
fn the_committed_tail_moves_over_whole_batches_in_order() {
    let mut rig = Rig::healthy();
    for _ in 0..3 {
        rig.append(2);
    }
    rig.stored(0, 7);
    assert_eq!(rig.stored(1, 5), [committed(1), committed(3)]);
    assert_eq!(rig.core.tails().committed_tail, offset(5));
    assert_eq!(rig.stored(2, 7), [committed(5)]);
}

#[test]
fn many_batches_travel_in_one_message_and_news_of_the_tail_travels_alone() {
    let mut rig = Rig::healthy();
    for _ in 0..3 {
        rig.append(1);
    }
    assert_eq!(rig.sent(0), Some((1, 3, 1)));
    assert_eq!(rig.sent(0), None, "nothing is sent twice");
    rig.stored(0, 4);
    rig.stored(1, 4);
    assert_eq!(rig.sent(0), Some((4, 0, 4)), "readers at that server learn the committed tail");
    assert_eq!(rig.sent(2), Some((1, 3, 4)), "the late copy gets both at once");
}

#[test]
fn news_of_the_tail_waits_for_the_answer_to_what_is_under_way() {
    let mut rig = Rig::healthy();
    rig.append(1);
    rig.sent(0);
    rig.append(1);
    rig.sent(0);
    rig.stored(1, 2);
    assert_eq!(rig.stored(0, 2), [committed(1)]);
    assert_eq!(rig.sent(0), None, "the second batch is under way: its answer, or a third batch, comes soon");
    rig.stored(0, 3);
    assert_eq!(rig.sent(0), Some((3, 0, 2)), "told although the second batch is on no write quorum");
    rig.append(1);
    rig.stored(1, 3);
    assert_eq!(rig.sent(0), Some((3, 1, 3)), "news rides on batches");
}

#[test]
fn news_of_the_tail_waits_for_a_batch_where_nobody_follows() {
    let mut rig = Rig::healthy();
    let followed = |rig: &mut Rig, connection, followed| {
        rig.step(Event::Followed { index: rig.indexes[0], connection, followed });
    };
    followed(&mut rig, 1, false);
    rig.append(1);
    rig.sent(0);
    rig.stored(0, 2);
    rig.stored(1, 2);
    assert_eq!(rig.sent(0), None, "the next append is likely to take it along");
    assert_eq!(rig.sent(1), Some((2, 0, 2)), "somebody follows that one");
    followed(&mut rig, 7, true);
    assert_eq!(rig.sent(0), None, "that was said on another connection");
    rig.step_at(NEWS_MILLIS - 1, Event::Tick);
    assert_eq!(rig.sent(0), None);
    assert_eq!(rig.core.wake_at(), Some(NEWS_MILLIS));
    rig.step_at(NEWS_MILLIS, Event::Tick);
    assert_eq!(rig.sent(0), Some((2, 0, 2)), "there was no next append");
    assert_eq!(rig.core.wake_at(), None);

    rig.append(1);
    rig.sent(0);
    rig.stored(0, 3);
    rig.stored(1, 3);
    assert_eq!(rig.sent(0), None);
    followed(&mut rig, 1, true);
    assert_eq!(rig.sent(0), Some((3, 0, 3)), "whoever begins to follow waits for nothing");
}

#[test]
fn news_that_waits_is_not_put_off_by_more_of_it() {
    let mut rig = Rig::healthy();
    rig.step(Event::Followed { index: rig.indexes[0], connection: 1, followed: false });
    rig.append(1);
    rig.sent(0);
    rig.append(1);
    rig.sent(0);
    rig.stored(0, 3);
    rig.stored(1, 2);
    let due = rig.core.wake_at().expect("news waits");
    rig.step_at(due - 1, Event::Stored { index: rig.indexes[1], connection: 1, outcome: Ok(state(3)) });
    assert_eq!(rig.core.wake_at(), Some(due));
    rig.step_at(due, Event::Tick);
    assert_eq!(rig.sent(0), Some((3, 0, 3)));
}

#[test]
fn a_copy_that_reconnects_gets_everything_it_did_not_answer() {
    let mut rig = Rig::healthy();
    rig.append(1);
    rig.append(1);
    rig.sent(0);
    rig.stored(0, 2);
    let index = rig.indexes[0];
    rig.step(Event::CopyDown { index, connection: 1 });
    assert_eq!(rig.sent(0), None);
    rig.step(Event::CopyUp { index, connection: 2 });
    assert_eq!(rig.sent(0), Some((2, 1, 1)));
}

#[test]
fn a_copy_left_behind_costs_bounded_memory_and_is_backfilled() {
    let mut rig = Rig::new(retaining(25));
    for round in 0..10_u64 {
        rig.append(1);
        rig.stored(0, round + 2);
        rig.stored(1, round + 2);
    }
    assert_eq!(rig.sent(2), Some((9, 2, 11)), "two batches of ten bytes were kept");
    let behind = &rig.core.copies()[2];
    assert_eq!(behind.first_missing(), Some((offset(1), offset(9))));
    let index = rig.indexes[2];
    rig.step(Event::Backfilled { index, until: offset(9) });
    assert_eq!(rig.core.copies()[2].first_missing(), None);
}

#[test]
fn the_first_sealed_answer_ends_the_sequencer() {
    let mut rig = Rig::healthy();
    rig.append(1);
    let closed = SequencerError::Sealed { op: op() };
    assert_eq!(rig.refused(1, CopyError::Sealed { op: op() }), [Effect::Close { stream: StreamId(1), error: closed }]);
    assert_eq!(rig.core.phase(), Phase::Ended(closed));
    assert!(rig.stored(0, 2).is_empty());
    assert!(rig.stored(2, 2).is_empty(), "what was in flight is settled by the decided tail, not acknowledged late");
    let opened = rig.step(Event::StreamOpened { stream: StreamId(2), writer: writer(2), incarnation: 1 });
    assert_eq!(opened, [Effect::Close { stream: StreamId(2), error: closed }]);
}

#[test]
fn another_sequencer_bound_to_the_copy_fences_this_one() {
    let mut rig = Rig::healthy();
    let bound = NodeGeneration::new(NodeId::try_from(2).expect("non-zero"), Generation::FIRST);
    rig.refused(0, CopyError::OtherSequencer { bound });
    assert_eq!(rig.core.phase(), Phase::Ended(SequencerError::NotSequencer));
}

#[test]
fn another_disk_at_the_same_address_never_counts() {
    let mut rig = Rig::healthy();
    rig.append(1);
    rig.stored(0, 2);
    let actual = DiskId::try_from(99).expect("non-zero");
    let effects = rig.refused(0, CopyError::WrongDisk { actual });
    assert!(matches!(effects.as_slice(), [Effect::Alarm { .. }]));
    assert!(rig.stored(1, 2).is_empty(), "what the lost disk had confirmed does not count any more");
    assert_eq!(rig.stored(2, 2), [committed(1)]);
}

#[test]
fn a_full_or_busy_copy_is_left_alone_for_a_while() {
    let mut rig = Rig::healthy();
    rig.append(1);
    rig.sent(0);
    rig.refused(0, CopyError::Overloaded);
    rig.refused(0, CopyError::Hole { expected: offset(1) });
    assert_eq!(rig.sent(0), None);
    let wake = rig.core.wake_at().expect("a pause has an end");
    rig.step_at(wake, Event::Tick);
    assert_eq!(rig.sent(0), Some((1, 1, 1)));
}

#[test]
fn nothing_gets_an_offset_while_no_write_quorum_has_room() {
    let mut rig = Rig::healthy();
    rig.append(1);
    for copy in 0..3 {
        let _sent = rig.sent(copy);
    }
    rig.refused(0, CopyError::DiskFull);
    assert!(rig.append(1).is_empty(), "two of three still have room");
    rig.refused(1, CopyError::DiskFull);
    let closed = [Effect::Close { stream: StreamId(1), error: SequencerError::DiskFull }];
    assert_eq!(rig.append(1), closed);
    assert_eq!(rig.core.tails().next_offset, offset(3), "the refused append got none");
    let opened = rig.step(Event::StreamOpened { stream: StreamId(2), writer: writer(1), incarnation: 2 });
    assert!(matches!(opened.as_slice(), [Effect::Opened { .. }]), "the tails are told: the writer can settle");
    let wake = rig.core.wake_at().expect("a pause has an end");
    rig.step_at(wake, Event::Tick);
    assert_eq!(rig.sent(0), Some((1, 2, 1)), "what has an offset is tried again");
    assert!(rig.stored(0, 3).is_empty());
    rig.stored(2, 3);
    assert_eq!(rig.core.tails().committed_tail, offset(3));
    let batch = Bytes::from_static(b"0123456789");
    let append = Event::Append { stream: StreamId(2), records: 1, batch, room: () };
    assert!(rig.step(append).is_empty(), "appends go on as soon as one more copy has room");
    assert_eq!(rig.core.tails().next_offset, offset(4));
}

#[test]
fn a_full_copy_that_goes_away_is_asked_again_when_it_comes_back() {
    let mut rig = Rig::healthy();
    rig.append(1);
    for copy in 0..3 {
        let _sent = rig.sent(copy);
    }
    rig.refused(0, CopyError::DiskFull);
    rig.refused(1, CopyError::DiskFull);
    rig.step(Event::CopyDown { index: rig.indexes[0], connection: 1 });
    assert!(rig.append(1).is_empty(), "nobody knows whether it is still full");
}

#[test]
fn a_newer_stream_of_a_writer_silences_the_older_one() {
    let mut rig = Rig::healthy();
    rig.append(1);
    let effects = rig.step(Event::StreamOpened { stream: StreamId(2), writer: writer(1), incarnation: 2 });
    let tails = SequencerTails { committed_tail: offset(1), next_offset: offset(2) };
    assert_eq!(
        effects,
        [
            Effect::Close { stream: StreamId(1), error: SequencerError::Superseded },
            Effect::Opened { stream: StreamId(2), tails },
        ]
    );
    assert!(rig.append(1).is_empty());
    assert_eq!(rig.core.tails(), tails, "a late append of the older stream gets no offset");
    let late = rig.step(Event::StreamOpened { stream: StreamId(3), writer: writer(1), incarnation: 1 });
    assert_eq!(late, [Effect::Close { stream: StreamId(3), error: SequencerError::Superseded }]);
}

#[test]
fn a_full_segment_takes_no_more_but_commits_what_it_has() {
    let mut rig = Rig::new(SegmentLimits { offsets_max: 2, bytes_max: 1 << 20, retained_bytes_max: 1 << 20 });
    rig.append(2);
    assert_eq!(rig.append(1), [Effect::Close { stream: StreamId(1), error: SequencerError::Full }]);
    rig.stored(0, 3);
    assert_eq!(rig.stored(1, 3), [committed(1)]);
}

#[test]
fn a_batch_that_is_larger_than_a_segment_gets_one_for_itself() {
    let mut rig = Rig::new(SegmentLimits { offsets_max: 2, bytes_max: 1, retained_bytes_max: 1 << 20 });
    assert_eq!(rig.append(5), []);
    assert_eq!(rig.append(1), [Effect::Close { stream: StreamId(1), error: SequencerError::Full }]);
    rig.stored(0, 6);
    assert_eq!(rig.stored(1, 6), [committed(1)]);
}

#[test]
fn a_copy_that_forgot_what_it_had_answered_is_left_out() {
    let mut rig = Rig::healthy();
    rig.append(1);
    rig.stored(0, 2);
    let effects = rig.refused(0, CopyError::Hole { expected: offset(1) });
    assert!(matches!(effects.as_slice(), [Effect::Alarm { .. }]));
    assert_eq!(rig.core.copies()[0].link, Link::Lost);
}

#[test]
fn a_batch_damaged_on_its_way_is_reported_and_sent_again() {
    let mut rig = Rig::healthy();
    rig.append(1);
    rig.sent(0);
    let effects = rig.refused(0, CopyError::BadBatch { offset: offset(1) });
    assert!(matches!(effects.as_slice(), [Effect::Alarm { .. }]));
    let wake = rig.core.wake_at().expect("a pause has an end");
    rig.step_at(wake, Event::Tick);
    assert_eq!(rig.sent(0), Some((1, 1, 1)));
}

#[test]
fn what_was_refused_is_backfilled_if_what_followed_was_taken() {
    let mut rig = Rig::new(retaining(10));
    rig.append(1);
    assert_eq!(rig.sent(2), Some((1, 1, 1)));
    rig.append(1);
    rig.stored(0, 3);
    rig.stored(1, 3);
    assert_eq!(rig.sent(2), Some((2, 1, 3)), "with news that lets it lie behind a hole");
    rig.refused(2, CopyError::DiskFull);
    rig.stored(2, 3);
    assert_eq!(rig.core.copies()[2].first_missing(), Some((offset(1), offset(3))));
}

#[derive(Debug, Clone)]
enum Step {
    Append(u32),
    Deliver(usize),
    Answer(usize),
    Break(usize),
    Connect(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_u32).prop_map(Step::Append),
        4 => (0..4_usize).prop_map(Step::Deliver),
        4 => (0..4_usize).prop_map(Step::Answer),
        1 => (0..4_usize).prop_map(Step::Break),
        2 => (0..4_usize).prop_map(Step::Connect),
    ];
    prop::collection::vec(step, 0..200)
}

/// A copy as the log server keeps it: what is durable, and answers that are on their way.
#[derive(Default)]
struct Server {
    connection: Option<u64>,
    tail: u64,
    answers: Vec<(u64, u64)>,
    has: std::collections::BTreeSet<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A1–A3 and A5 on random schedules: four copies, three make a write quorum, connections break, answers are lost.
    #[test]
    fn what_is_acknowledged_is_on_a_write_quorum(steps in steps(), retained in 0..60_usize) {
        let params = params(4, 3);
        let indexes: Vec<NodeIndex> = params.nodeset.indexes().collect();
        let mut core: Core<()> = Core::new(params, retaining(retained)).expect("three of four");
        let mut effects = Vec::new();
        core.step(0, Event::StreamOpened { stream: StreamId(1), writer: writer(1), incarnation: 1 }, &mut effects);
        let mut servers: Vec<Server> = (0..4).map(|_| Server { tail: 1, ..Server::default() }).collect();
        let mut connections = 0;
        let mut next = 1;
        let mut in_flight = std::collections::VecDeque::new();
        for step in steps {
            effects.clear();
            match step {
                Step::Append(records) => {
                    let batch = Bytes::from(vec![0; 10]);
                    in_flight.push_back(next..next + u64::from(records));
                    next += u64::from(records);
                    core.step(0, Event::Append { stream: StreamId(1), records, batch, room: () }, &mut effects);
                }
                Step::Deliver(copy) => {
                    let server = &mut servers[copy];
                    if let Some(connection) = server.connection
                        && let Some(request) = core.next_store(indexes[copy])
                        && !request.batches.is_empty()
                    {
                        let first = request.first_offset.get();
                        prop_assert!(first <= server.tail.max(request.committed_tail.get()), "L1: a hole");
                        let end = core.copies()[copy].sent_tail.get();
                        server.has.extend(first..end);
                        server.tail = server.tail.max(end);
                        server.answers.push((connection, server.tail));
                    }
                }
                Step::Answer(copy) => {
                    if let Some((connection, tail)) = servers[copy].answers.pop() {
                        let outcome = Ok(state(tail));
                        core.step(0, Event::Stored { index: indexes[copy], connection, outcome }, &mut effects);
                    }
                }
                Step::Break(copy) => {
                    if let Some(connection) = servers[copy].connection.take() {
                        servers[copy].answers.clear();
                        core.step(0, Event::CopyDown { index: indexes[copy], connection }, &mut effects);
                    }
                }
                Step::Connect(copy) => {
                    if servers[copy].connection.is_none() {
                        connections += 1;
                        servers[copy].connection = Some(connections);
                        core.step(0, Event::CopyUp { index: indexes[copy], connection: connections }, &mut effects);
                    }
                }
            }
            core.check();
            for effect in &effects {
                if let Effect::Committed { first_offset, .. } = effect {
                    let batch = in_flight.pop_front().expect("only what was appended is acknowledged");
                    prop_assert_eq!(first_offset.get(), batch.start, "acknowledged in order");
                    let has = |server: &&Server| batch.clone().all(|offset| server.has.contains(&offset));
                    let holders = servers.iter().filter(has).count();
                    prop_assert!(holders >= 3, "acknowledged on {} copies", holders);
                }
            }
        }
    }
}
