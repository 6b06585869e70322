//! Every kind of breach is planted, and must be found by the promises that it breaks.
#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost::{AppendError, GapKind, LogRecord, NotAppended, ReadEvent};
use bifrost_types::{
    Actor, Chain, CloseReason, Finished, Generation, Keys, LogId, LogletOffset, LogletParams, NodeGeneration, NodeId,
    OpId, Reconfiguration, ReplicationProperty, Segment, SegmentIndex, SegmentState, Sequence, Timings, WriterId,
};
use bytes::Bytes;

use super::*;

fn lsn(value: u64) -> Lsn {
    Lsn::new(value).unwrap()
}

fn op(value: u128) -> OpId {
    OpId::try_from(value).unwrap()
}

fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).unwrap()
}

fn params(index: u32) -> LogletParams {
    let node = NodeGeneration::new(NodeId::try_from(1).unwrap(), Generation::FIRST);
    let member = bifrost_types::Member {
        node: node.node,
        disk: bifrost_types::DiskId::try_from(1).unwrap(),
        location: bifrost_types::Location::default(),
    };
    LogletParams {
        id: bifrost_types::LogletId::new(LogId::try_from(1).unwrap(), SegmentIndex::new(index)),
        nodeset: bifrost_types::Nodeset::new(vec![member]).unwrap(),
        replication: "{node: 1}".parse::<ReplicationProperty>().unwrap(),
        sequencer: node,
    }
}

/// `[1, 4)` in segment 0, the rest in the open segment 1.
fn chain() -> Chain {
    let sealed = SegmentState::Sealed {
        tail: offset(4),
        lost_from: None,
        op: op(5),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        timings: Timings::default(),
    };
    Chain {
        log: LogId::try_from(1).unwrap(),
        name: None,
        version: 3,
        segments: vec![
            Segment { base_lsn: lsn(1), params: params(0), state: sealed },
            Segment { base_lsn: lsn(4), params: params(1), state: SegmentState::Open },
        ],
        next_segment: SegmentIndex::new(2),
        pending: None,
        finished: vec![Finished {
            op: op(5),
            segment: SegmentIndex::FIRST,
            tail: offset(4),
            successor: Some(SegmentIndex::new(1)),
        }],
        trim_point: None,
    }
}

fn record(at: u64, payload: &Bytes) -> ReadEvent {
    ReadEvent::Record(LogRecord {
        lsn: lsn(at),
        keys: Keys::None,
        payload: payload.clone(),
        created_at_millis: 0,
        writer: WriterId::try_from(1).unwrap(),
        sequence: Sequence::FIRST,
    })
}

/// A run without fault: two appenders, six records at 1 to 6, one that was not appended; a breach is planted in it.
struct Run {
    ledger: Ledger,
    appenders: [AppenderLedger; 2],
    /// What is at 1, 2, ...
    log: Vec<Bytes>,
    not_appended: Bytes,
    chain: Chain,
    tail: u64,
}

impl Run {
    fn new() -> Self {
        let ledger = Ledger::new(7);
        let mut appenders = [ledger.appender(0), ledger.appender(1)];
        let mut log = Vec::new();
        for at in 1..=6_u64 {
            let appender = &mut appenders[usize::try_from(at % 2).unwrap()];
            let (number, payload) = appender.begin(100 + u32::try_from(at).unwrap());
            appender.ended(number, &Ok(lsn(at)));
            log.push(payload);
        }
        let (number, not_appended) = appenders[0].begin(64);
        appenders[0].ended(number, &Err(AppendError::NotAppended { cause: NotAppended::NoProgress }));
        Self { ledger, appenders, log, not_appended, chain: chain(), tail: 7 }
    }

    fn read(&self, name: &str, change: impl FnOnce(&mut Vec<ReadEvent>)) -> ReaderLedger {
        let mut events: Vec<_> = (1_u64..).zip(&self.log).map(|(at, payload)| record(at, payload)).collect();
        change(&mut events);
        let mut reader = self.ledger.reader(name, Lsn::FIRST);
        events.iter().for_each(|event| reader.observe(event));
        reader
    }

    /// Which promises were found broken.
    fn broken(self) -> Vec<usize> {
        self.broken_with(|_| {}, |_| {})
    }

    fn broken_with(
        mut self,
        reader: impl FnOnce(&mut Vec<ReadEvent>),
        scan: impl FnOnce(&mut Vec<ReadEvent>),
    ) -> Vec<usize> {
        let reader = self.read("reader", reader);
        let scan = self.read("final scan", scan);
        self.ledger.add_reader(reader);
        self.appenders.into_iter().for_each(|appender| self.ledger.add_appender(appender));
        let verdicts = self.ledger.verify(&self.chain, lsn(self.tail), &scan);
        let broken: Vec<_> =
            (1..).zip(&verdicts.promises).filter(|(_, verdict)| !verdict.holds()).map(|(number, _)| number).collect();
        assert_eq!(broken.is_empty(), verdicts.all_hold());
        broken
    }
}

#[test]
fn a_run_without_fault_keeps_every_promise() {
    assert_eq!(Run::new().broken(), [0_usize; 0]);
    let caught_up = |events: &mut Vec<ReadEvent>| events.push(ReadEvent::CaughtUp { tail: lsn(7) });
    assert_eq!(Run::new().broken_with(caught_up, |_| {}), [0_usize; 0]);
}

#[test]
fn a_lost_record_is_found() {
    let mut run = Run::new();
    run.log.pop();
    run.tail = 6;
    // The tail is below what was acknowledged, and no reader gets there.
    assert_eq!(run.broken(), [1, 3, 5]);
}

#[test]
fn a_record_somewhere_else_is_found() {
    let mut run = Run::new();
    // Both readers agree, and yet these are not where they were acknowledged.
    run.log.swap(0, 1);
    assert_eq!(run.broken(), [1, 3, 4]);
}

#[test]
fn a_changed_byte_is_found_whoever_reads_it() {
    let damage = |events: &mut Vec<ReadEvent>| {
        let ReadEvent::Record(record) = &mut events[2] else { panic!("a record") };
        let mut bytes = record.payload.to_vec();
        bytes[50] ^= 1;
        record.payload = bytes.into();
    };
    assert_eq!(Run::new().broken_with(damage, |_| {}), [1, 2, 4]);
    assert_eq!(Run::new().broken_with(|_| {}, damage), [1, 2, 4]);
}

#[test]
fn another_record_in_the_place_of_an_acknowledged_one_is_found() {
    let mut run = Run::new();
    run.log[5] = Identity { run: 99, appender: 0, number: 0, bytes: 106 }.payload();
    assert_eq!(run.broken(), [1]);
}

#[test]
fn a_gap_of_lost_records_is_found() {
    let lose =
        |events: &mut Vec<ReadEvent>| events[2] = ReadEvent::Gap { from: lsn(3), end: lsn(4), kind: GapKind::Lost };
    assert_eq!(Run::new().broken_with(lose, |_| {}), [1]);
}

#[test]
fn a_record_that_is_delivered_twice_is_found() {
    let again = |events: &mut Vec<ReadEvent>| events.insert(3, events[2].clone());
    assert_eq!(Run::new().broken_with(again, |_| {}), [2]);
    assert_eq!(Run::new().broken_with(|_| {}, again), [2]);
}

#[test]
fn a_record_that_is_passed_over_is_found() {
    let skip = |events: &mut Vec<ReadEvent>| drop(events.remove(2));
    assert_eq!(Run::new().broken_with(skip, |_| {}), [2]);
    // It is there: the other reader was given it.
    assert_eq!(Run::new().broken_with(|_| {}, skip), [2]);
    assert_eq!(Run::new().broken_with(skip, skip), [1, 2]);
}

#[test]
fn readers_that_saw_different_records_are_found() {
    let other = Identity { run: 99, appender: 0, number: 0, bytes: 103 }.payload();
    let differ = |events: &mut Vec<ReadEvent>| events[2] = record(3, &other);
    assert_eq!(Run::new().broken_with(differ, |_| {}), [1, 2]);
}

#[test]
fn a_gap_of_records_that_are_not_trimmed_is_found() {
    let trim =
        |events: &mut Vec<ReadEvent>| events[0] = ReadEvent::Gap { from: lsn(1), end: lsn(2), kind: GapKind::Trimmed };
    assert_eq!(Run::new().broken_with(trim, |_| {}), [2]);
    let mut trimmed = Run::new();
    trimmed.chain.trim_point = Some(lsn(1));
    assert_eq!(trimmed.broken_with(trim, trim), [0_usize; 0]);
}

#[test]
fn a_tail_that_a_reader_tells_too_early_is_found() {
    let early = |events: &mut Vec<ReadEvent>| events.insert(2, ReadEvent::CaughtUp { tail: lsn(5) });
    assert_eq!(Run::new().broken_with(early, |_| {}), [2]);
}

#[test]
fn an_append_that_started_later_and_has_the_smaller_lsn_is_found() {
    let mut run = Run::new();
    // Two appends, one after the other, acknowledged the other way round.
    for (appender, at) in [(0, 8), (1, 7)] {
        let (number, _) = run.appenders[appender].begin(50);
        run.appenders[appender].ended(number, &Ok(lsn(at)));
    }
    let payload = |run: &Run, appender: usize, number| run.appenders[appender].identity(number, 50).payload();
    let (one, two) = (payload(&run, 1, 3), payload(&run, 0, 4));
    run.log.extend([one, two]);
    run.tail = 9;
    assert_eq!(run.broken(), [3]);
}

#[test]
fn appends_in_flight_together_may_land_in_any_order() {
    let mut run = Run::new();
    let (zero, first) = run.appenders[0].begin(50);
    let (one, second) = run.appenders[1].begin(50);
    run.appenders[0].ended(zero, &Ok(lsn(8)));
    run.appenders[1].ended(one, &Ok(lsn(7)));
    run.log.extend([second, first]);
    run.tail = 9;
    assert_eq!(run.broken(), [0_usize; 0]);
}

#[test]
fn one_appenders_records_out_of_order_are_found() {
    let mut run = Run::new();
    let (one, first) = run.appenders[0].begin(50);
    let (two, second) = run.appenders[0].begin(50);
    run.appenders[0].ended(two, &Ok(lsn(7)));
    run.appenders[0].ended(one, &Ok(lsn(8)));
    run.log.extend([second, first]);
    run.tail = 9;
    assert_eq!(run.broken(), [3]);
}

#[test]
fn an_append_without_outcome_is_found() {
    let mut run = Run::new();
    let _pending = run.appenders[1].begin(50);
    assert_eq!(run.broken(), [4]);
}

#[test]
fn an_append_that_was_refused_and_landed_is_found() {
    let mut run = Run::new();
    run.log.push(run.not_appended.clone());
    run.tail = 8;
    assert_eq!(run.broken(), [4]);
}

#[test]
fn a_record_that_nobody_sent_is_found() {
    let mut run = Run::new();
    run.log.push(Identity { run: 7, appender: 5, number: 0, bytes: 50 }.payload());
    run.tail = 8;
    assert_eq!(run.broken(), [4]);
}

#[test]
fn a_record_that_landed_twice_is_found() {
    let mut run = Run::new();
    run.log.push(run.log[5].clone());
    run.tail = 8;
    // Its appender's order is broken too.
    assert_eq!(run.broken(), [3, 4]);
}

#[test]
fn an_unknown_append_may_land_once_or_never_but_not_twice() {
    for (times, broken) in [(0, vec![]), (1, vec![]), (2, vec![3, 4])] {
        let mut run = Run::new();
        let (number, payload) = run.appenders[1].begin(50);
        run.appenders[1].abandoned(number, 1);
        run.log.extend(vec![payload; times]);
        run.tail += u64::try_from(times).unwrap();
        assert_eq!(run.broken(), broken);
    }
}

#[test]
fn an_unknown_append_that_landed_too_early_is_found() {
    let mut run = Run::new();
    // Everything up to 8 was acknowledged before it started, and it is at 7.
    let (acknowledged, last) = run.appenders[0].begin(50);
    run.appenders[0].ended(acknowledged, &Ok(lsn(8)));
    let (unknown, payload) = run.appenders[1].begin(50);
    run.appenders[1].abandoned(unknown, 1);
    run.log.extend([payload, last]);
    run.tail = 9;
    assert_eq!(run.broken(), [3]);
}

#[test]
fn a_batch_lands_at_contiguous_positions() {
    let mut run = Run::new();
    let (first, one) = run.appenders[1].begin(50);
    let (_, two) = run.appenders[1].begin(60);
    run.appenders[1].ended_batch(first, 2, &Ok(lsn(7)));
    run.log.extend([one, two]);
    run.tail = 9;
    assert_eq!(run.broken(), [0_usize; 0]);
}

#[test]
fn a_reader_that_does_not_reach_the_tail_is_found() {
    let stop = |events: &mut Vec<ReadEvent>| drop(events.pop());
    assert_eq!(Run::new().broken_with(stop, |_| {}), [5]);
}

#[test]
fn a_reader_beyond_the_tail_is_found() {
    let beyond = |events: &mut Vec<ReadEvent>| {
        events.push(record(7, &Identity { run: 9, appender: 0, number: 0, bytes: 50 }.payload()));
    };
    assert_eq!(Run::new().broken_with(beyond, |_| {}), [2, 5]);
}

#[test]
fn a_reconfiguration_that_is_left_over_is_found() {
    let mut run = Run::new();
    run.chain.pending = Some(Reconfiguration {
        op: op(9),
        segment: SegmentIndex::new(1),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: None,
        attempt: 1,
        opened_at_millis: 0,
    });
    assert_eq!(run.broken(), [5]);
}

#[test]
fn a_chain_that_is_not_contiguous_is_found() {
    let breaks: [fn(&mut Chain); 5] = [
        |chain| chain.segments[1].base_lsn = lsn(5),
        |chain| chain.segments[1].params.id.segment = SegmentIndex::FIRST,
        |chain| chain.next_segment = SegmentIndex::new(1),
        |chain| chain.version = 2,
        |chain| chain.segments[1].state = chain.segments[0].state.clone(),
    ];
    for breaks in breaks {
        let mut run = Run::new();
        breaks(&mut run.chain);
        assert!(run.broken().contains(&5));
    }
}

#[test]
fn writers_that_stood_still_are_found() {
    let mut run = Run::new();
    run.ledger.set_pause_max(Duration::ZERO);
    assert_eq!(run.ledger.order.longest_pause(), Duration::ZERO, "a run of this test has no pause of its own");
    run.ledger.order.stand_still(Duration::from_millis(3));
    assert_eq!(run.broken(), [6]);

    let mut silent = Run::new();
    silent.appenders = [silent.ledger.appender(0), silent.ledger.appender(1)];
    silent.log.clear();
    silent.tail = 4;
    silent.chain.trim_point = Some(lsn(3));
    let trimmed =
        |events: &mut Vec<ReadEvent>| events.push(ReadEvent::Gap { from: lsn(1), end: lsn(4), kind: GapKind::Trimmed });
    assert_eq!(silent.broken_with(trimmed, trimmed), [5, 6]);
}
