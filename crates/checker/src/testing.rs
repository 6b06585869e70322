//! Histories for tests, in few words.

use std::num::{NonZeroU32, NonZeroU64, NonZeroU128};

use bifrost_types::{
    Actor, Chain, CloseReason, DiskId, Finished, Generation, Location, LogId, LogletId, LogletOffset, LogletParams,
    Lsn, Member, NodeGeneration, NodeId, NodeRecord, Nodeset, OpId, Reconfiguration, Roles, Segment, SegmentIndex,
    SegmentState, StorageState, Timings,
};

use crate::event::{
    AppendOutcome, AppenderId, CallId, CopyFacts, Event, Gap, Micros, ReaderId, ReconfigureOutcome, Value,
};
use crate::{Checker, End, Rule};

pub(crate) fn log_id() -> LogId {
    LogId::new(NonZeroU64::MIN)
}

pub(crate) fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

pub(crate) fn offset(number: u64) -> LogletOffset {
    LogletOffset::new(number).expect("not 0")
}

pub(crate) fn op(number: u128) -> OpId {
    OpId::new(NonZeroU128::new(number).expect("not 0"))
}

pub(crate) fn node(number: u32) -> NodeId {
    NodeId::new(NonZeroU32::new(number).expect("not 0"))
}

pub(crate) fn disk(number: u32) -> DiskId {
    DiskId::new(NonZeroU128::new(u128::from(number)).expect("not 0"))
}

pub(crate) fn life(number: u32, generation: u32) -> NodeGeneration {
    NodeGeneration::new(node(number), Generation::new(NonZeroU32::new(generation).expect("not 0")))
}

pub(crate) fn loglet(segment: u32) -> LogletId {
    LogletId::new(log_id(), SegmentIndex::new(segment))
}

/// Nodes 1 to `nodes` with disks of the same number, in zones of region 0 or 1, by turns.
pub(crate) fn params(segment: u32, nodes: u32, property: &str) -> LogletParams {
    let member = |number: u32| Member {
        node: node(number),
        disk: disk(number),
        location: Location { region: format!("r{}", number / 4).into(), zone: format!("z{}", number % 2).into() },
    };
    LogletParams {
        id: loglet(segment),
        nodeset: Nodeset::new((1..=nodes).map(member).collect()).expect("a few nodes"),
        replication: property.parse().expect("a property"),
        sequencer: life(1, 1),
    }
}

/// A log as it is created.
pub(crate) fn created(nodes: u32, property: &str) -> Chain {
    let first = Segment { base_lsn: lsn(1), params: params(0, nodes, property), state: SegmentState::Open };
    let outcome =
        Finished { op: op(1), segment: SegmentIndex::FIRST, tail: offset(1), successor: Some(SegmentIndex::FIRST) };
    Chain {
        log: log_id(),
        name: None,
        version: 1,
        segments: vec![first],
        next_segment: SegmentIndex::new(1),
        pending: None,
        finished: vec![outcome],
        trim_point: None,
    }
}

/// T1.
pub(crate) fn announced(chain: &Chain, number: u128) -> Chain {
    let pending = Reconfiguration {
        op: op(number),
        segment: chain.segments.last().expect("never empty").index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: None,
        attempt: 1,
        opened_at_millis: 0,
    };
    Chain { version: chain.version + 1, pending: Some(pending), ..chain.clone() }
}

/// T2 without a successor.
pub(crate) fn closed(chain: &Chain, tail: u64) -> Chain {
    let mut next = chain.clone();
    let pending = next.pending.take().expect("announced");
    let last = next.segments.last_mut().expect("never empty");
    last.state = SegmentState::Sealed {
        tail: offset(tail),
        lost_from: None,
        op: pending.op,
        actor: pending.actor,
        reason: pending.reason,
        timings: Timings::default(),
    };
    next.finished.push(Finished { op: pending.op, segment: last.index(), tail: offset(tail), successor: None });
    next.version += 1;
    next
}

/// T2 with a successor like the segment before.
pub(crate) fn decided(chain: &Chain, tail: u64) -> Chain {
    let mut next = closed(chain, tail);
    let last = next.segments.last().expect("never empty");
    let index = next.next_segment;
    let params = LogletParams { id: loglet(index.get()), ..last.params.clone() };
    let base_lsn = lsn(last.base_lsn.get() + tail - 1);
    next.segments.push(Segment { base_lsn, params, state: SegmentState::Open });
    next.next_segment = SegmentIndex::new(index.get() + 1);
    next.finished.last_mut().expect("just pushed").successor = Some(index);
    next
}

pub(crate) fn trimmed(chain: &Chain, point: u64) -> Chain {
    Chain { version: chain.version + 1, trim_point: Some(lsn(point)), ..chain.clone() }
}

/// A copy with this local and this committed tail.
pub(crate) fn facts(local_tail: u64, committed_tail: u64) -> CopyFacts {
    CopyFacts {
        bound: Some(life(1, 1)),
        local_tail: offset(local_tail),
        committed_tail: offset(committed_tail),
        sealed: None,
        decided_tail: None,
        trim_point: None,
    }
}

pub(crate) fn sealed(facts: CopyFacts) -> CopyFacts {
    CopyFacts { sealed: Some(op(2)), ..facts }
}

pub(crate) fn record(number: u32, generation: u32) -> NodeRecord {
    NodeRecord {
        id: life(number, generation),
        name: String::new(),
        address: String::new(),
        location: Location::default(),
        disk: Some(disk(number)),
        storage: StorageState::ReadWrite,
        declared_lost: false,
        roles: Roles::DATA,
    }
}

/// A history as it grows, and its checker.
pub(crate) struct Play {
    pub(crate) checker: Checker,
    at: Micros,
    calls: u64,
}

impl Play {
    pub(crate) fn new() -> Self {
        Self { checker: Checker::new(), at: 0, calls: 0 }
    }

    /// An event, a microsecond after the one before.
    pub(crate) fn see(&mut self, event: &Event) {
        self.at += 1;
        self.checker.observe(self.at, event);
    }

    pub(crate) fn wait(&mut self, micros: Micros) {
        self.at += micros;
    }

    pub(crate) fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    /// By an appender of its own.
    pub(crate) fn invoke(&mut self, value: u64) -> CallId {
        self.invoke_by(value + 1000, value)
    }

    pub(crate) fn invoke_by(&mut self, appender: u64, value: u64) -> CallId {
        let call = self.call();
        let appender = AppenderId(appender);
        self.see(&Event::AppendInvoked { call, appender, log: log_id(), value: Value(value) });
        call
    }

    pub(crate) fn end(&mut self, call: CallId, outcome: AppendOutcome) {
        self.see(&Event::AppendEnded { call, outcome });
    }

    pub(crate) fn acknowledge(&mut self, call: CallId, at: u64) {
        self.end(call, AppendOutcome::Committed(lsn(at)));
    }

    pub(crate) fn append(&mut self, value: u64, at: u64) {
        let call = self.invoke(value);
        self.acknowledge(call, at);
    }

    /// Appends that nobody hears of again.
    pub(crate) fn forget(&mut self, values: impl IntoIterator<Item = u64>) {
        for value in values {
            let call = self.invoke(value);
            self.end(call, AppendOutcome::Unknown);
        }
    }

    pub(crate) fn tail(&mut self, tail: u64) {
        let call = self.ask_for_tail();
        self.see(&Event::TailEnded { call, tail: Some(lsn(tail)) });
    }

    pub(crate) fn ask_for_tail(&mut self) -> CallId {
        let call = self.call();
        self.see(&Event::TailInvoked { call, log: log_id() });
        call
    }

    pub(crate) fn ask_to_trim(&mut self, up_to: u64) -> CallId {
        let call = self.call();
        self.see(&Event::TrimInvoked { call, log: log_id(), up_to: lsn(up_to) });
        call
    }

    pub(crate) fn trim_ended(&mut self, call: CallId, point: u64) {
        self.see(&Event::TrimEnded { call, trim_point: Some(lsn(point)) });
    }

    pub(crate) fn reconfigure(&mut self, number: u128, outcome: ReconfigureOutcome) {
        let call = self.call();
        self.see(&Event::ReconfigureInvoked { call, log: log_id(), op: op(number) });
        self.see(&Event::ReconfigureEnded { call, outcome });
    }

    pub(crate) fn open(&mut self, reader: u64, from: u64) {
        self.see(&Event::ReaderOpened { reader: ReaderId(reader), log: log_id(), from: lsn(from) });
    }

    pub(crate) fn give(&mut self, reader: u64, at: u64, value: u64) {
        self.see(&Event::Delivered { reader: ReaderId(reader), lsn: lsn(at), value: Value(value) });
    }

    pub(crate) fn skip(&mut self, reader: u64, from: u64, until: u64, gap: Gap) {
        self.see(&Event::Skipped { reader: ReaderId(reader), from: lsn(from), until: lsn(until), gap });
    }

    pub(crate) fn caught_up(&mut self, reader: u64, tail: u64) {
        self.see(&Event::CaughtUp { reader: ReaderId(reader), tail: lsn(tail) });
    }

    /// A reader that begins at 1 and is given these.
    pub(crate) fn read(&mut self, reader: u64, values: impl IntoIterator<Item = u64>) {
        self.open(reader, 1);
        for (at, value) in (1..).zip(values) {
            self.give(reader, at, value);
        }
    }

    /// The store takes this chain.
    pub(crate) fn chain(&mut self, chain: &Chain) {
        self.see(&Event::ChainWritten { chain: chain.clone() });
    }

    /// Somebody reads this chain.
    pub(crate) fn chain_read(&mut self, chain: &Chain) {
        self.see(&Event::ChainRead { chain: chain.clone() });
    }

    /// `[first, end)` of the first loglet becomes durable on disks.
    pub(crate) fn store(&mut self, disks: impl IntoIterator<Item = u32>, first: u64, end: u64, bytes: u64) {
        for number in disks {
            self.store_of(loglet(0), (number, number), (first, end), bytes);
        }
    }

    pub(crate) fn store_of(&mut self, loglet: LogletId, of: (u32, u32), range: (u64, u64), bytes: u64) {
        let (first_offset, end) = (offset(range.0), offset(range.1));
        let (node, disk, bytes) = (node(of.0), disk(of.1), Value(bytes));
        self.see(&Event::Stored { node, disk, loglet, first_offset, end, bytes });
    }

    /// The state of the first loglet becomes durable on disks.
    pub(crate) fn copy(&mut self, disks: impl IntoIterator<Item = u32>, facts: CopyFacts) {
        for number in disks {
            self.see(&Event::CopyWritten { node: node(number), disk: disk(number), loglet: loglet(0), facts });
        }
    }

    /// The heal, and what is due after it.
    pub(crate) fn heal(&mut self, within: Micros) {
        self.checker.expect_progress(within);
        self.see(&Event::Healed);
    }

    pub(crate) fn finish(&mut self, end: End) {
        self.checker.finish(&End { at: self.at, ..end });
    }

    /// The rules that were found broken.
    pub(crate) fn broken(&self) -> Vec<Rule> {
        Rule::ALL.iter().copied().filter(|rule| self.checker.tally(*rule).broken > 0).collect()
    }
}
