//! Takes a history event by event.

use std::collections::BTreeMap;

use bifrost_types::{DiskId, LogId, LogletId, Lsn, NodeId, OpId};

use crate::appends::{Appends, Observer};
use crate::breach::{Breach, EventNumber, Judge, Summary, Tally};
use crate::chain::{self, Source};
use crate::end::End;
use crate::event::{AppendOutcome, CallId, Event, Gap, Micros, ReaderId, ReconfigureOutcome, Value};
use crate::log::{Frontier, Log, Place, Witness};
use crate::loglet::Loglet;
use crate::nodes::Nodes;
use crate::operations::Operations;
use crate::progress::{self, Heal};
use crate::readers::Reader;
use crate::rule::Rule;

/// A call that was invoked, and is no append.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) log: LogId,
    pub(crate) invoked: EventNumber,
    pub(crate) kind: CallKind,
    pub(crate) ended: bool,
}

/// What a call asks for.
#[derive(Debug)]
pub(crate) enum CallKind {
    /// What was known to be committed when it began: the tail must lie above.
    Tail(Option<Frontier>),
    /// Up to where, and the highest trim point that anybody was told before it began.
    Trim(Lsn, Option<(Lsn, EventNumber)>),
    Reconfigure(OpId),
}

/// Judges one history.
#[derive(Debug, Default)]
pub struct Checker {
    pub(crate) judge: Judge,
    events: EventNumber,
    pub(crate) calls: BTreeMap<CallId, Call>,
    /// Appends are many: what else is known of them is found by their values.
    append_calls: BTreeMap<CallId, Value>,
    pub(crate) appends: Appends,
    pub(crate) logs: BTreeMap<LogId, Log>,
    pub(crate) readers: BTreeMap<ReaderId, Reader>,
    operations: Operations,
    nodes: Nodes,
    /// Whether the history tells what becomes durable.
    pub(crate) disks: bool,
    loss_allowed: bool,
    /// Within what time after the heal progress is due.
    pub(crate) due_within: Option<Micros>,
    pub(crate) healed: Option<Heal>,
}

impl Checker {
    /// Nothing has happened yet. Rules about disks are checked from the first event of a disk on.
    pub fn new() -> Self {
        Self::default()
    }

    /// This history tells everything that becomes durable, so rules about disks are checked from its first event on.
    pub const fn expect_disks(&mut self) {
        self.disks = true;
    }

    /// More is damaged than the replication property tolerates: records may be lost, if readers are told so, and only those
    /// of which no disk has a copy.
    pub const fn allow_loss(&mut self) {
        self.loss_allowed = true;
    }

    /// After [`Event::Healed`] every promise of progress is due within this time; [`finish`](Self::finish) judges it.
    pub const fn expect_progress(&mut self, within: Micros) {
        self.due_within = Some(within);
    }

    /// Takes the next event. Amortised logarithmic in the number of records, and some two hundred bytes for each of them.
    pub fn observe(&mut self, at: Micros, event: &Event) {
        let before = self.judge.begin(at, self.events);
        self.judge
            .require(Rule::HistoryIsSound, before <= at, [], || format!("the clock went back from {before} to {at}"));
        self.events = self.events.saturating_add(1);
        self.step(event);
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::AppendInvoked { call, appender, log, value } => {
                let known = self.logs.entry(*log).or_default();
                self.appends.invoked(&mut self.judge, *value, (*log, *appender), known);
                let before = self.append_calls.insert(*call, *value);
                self.fresh(*call, before.is_none() && !self.calls.contains_key(call));
            }
            Event::AppendEnded { call, outcome } => self.append_ended(*call, *outcome),
            Event::TailInvoked { call, log } => {
                let floor = self.logs.entry(*log).or_default().frontier;
                self.invoked(*call, *log, CallKind::Tail(floor));
            }
            Event::TailEnded { call, tail } => self.tail_ended(*call, *tail),
            Event::TrimInvoked { call, log, up_to } => {
                let known = self.logs.entry(*log).or_default();
                known.trim_wanted = known.trim_wanted.max(Some(*up_to));
                let told = known.trim_told;
                self.invoked(*call, *log, CallKind::Trim(*up_to, told));
            }
            Event::TrimEnded { call, trim_point } => self.trim_ended(*call, *trim_point),
            Event::ReconfigureInvoked { call, log, op } => self.invoked(*call, *log, CallKind::Reconfigure(*op)),
            Event::ReconfigureEnded { call, outcome } => self.reconfigure_ended(*call, outcome),
            Event::ReaderOpened { reader, log, from } => self.reader_opened(*reader, *log, *from),
            Event::Delivered { reader, lsn, value } => self.delivered(*reader, *lsn, *value),
            Event::Skipped { reader, from, until, gap } => self.skipped(*reader, (*from, *until), *gap),
            Event::CaughtUp { reader, tail } => self.caught_up(*reader, *tail),
            Event::ReaderClosed { reader } => {
                if let Some(known) = self.reader(*reader) {
                    known.closed = true;
                }
            }
            Event::ChainWritten { chain } => self.chain(chain, Source::Written),
            Event::ChainRead { chain } => self.chain(chain, Source::Read),
            Event::ChainDeleted { log } => self.chain_deleted(*log),
            Event::NodeWritten { record } => self.nodes.written(&mut self.judge, record),
            Event::NodeStarted { node, disk } => self.nodes.started(&mut self.judge, *node, *disk),
            Event::NodeStopped { node } => self.nodes.stopped(&self.judge, *node),
            Event::Stored { node, disk, loglet, first_offset, end, bytes } => {
                let place = (*node, *disk);
                if let Some((judge, known)) = self.copy(place, *loglet) {
                    known.stored(judge, place, (*first_offset, *end), *bytes);
                }
            }
            Event::CopyWritten { node, disk, loglet, facts } => {
                let place = (*node, *disk);
                if let Some((judge, known)) = self.copy(place, *loglet) {
                    known.copy_written(judge, place, facts);
                    if let Some(point) = facts.trim_point {
                        self.copy_trimmed(*loglet, point.get());
                    }
                }
            }
            Event::DiskLost { disk } => {
                self.nodes.lost(&self.judge, *disk);
                let loglets = self.logs.values_mut().flat_map(|log| log.loglets.values_mut());
                loglets.for_each(|loglet| loglet.disk_gone(*disk));
            }
            Event::BatchDamaged { disk, loglet, first_offset } => {
                let known = self.logs.get_mut(&loglet.log).and_then(|log| log.loglets.get_mut(&loglet.segment));
                if let Some(known) = known {
                    known.damaged(*disk, *first_offset);
                }
            }
            Event::Healed => self.healed = Some(Heal { at: self.judge.at(), event: self.judge.now() }),
        }
    }

    fn invoked(&mut self, id: CallId, log: LogId, kind: CallKind) {
        let call = Call { log, invoked: self.judge.now(), kind, ended: false };
        let before = self.calls.insert(id, call);
        self.fresh(id, before.is_none() && !self.append_calls.contains_key(&id));
    }

    fn fresh(&mut self, id: CallId, fresh: bool) {
        self.judge.require(Rule::HistoryIsSound, fresh, [], || format!("call {} is invoked a second time", id.0));
    }

    /// Ends a call of the wanted kind, once.
    fn ended(&mut self, id: CallId, wanted: &'static str, fits: impl Fn(&CallKind) -> bool) -> Option<&Call> {
        let found = self.calls.get_mut(&id).filter(|call| fits(&call.kind));
        let holds = found.as_ref().is_some_and(|call| !call.ended);
        let text = || format!("call {} ends as {wanted}, which it is not or was before", id.0);
        self.judge.require(Rule::HistoryIsSound, holds, found.as_ref().map(|call| call.invoked), text);
        let call = found.filter(|_| holds)?;
        call.ended = true;
        Some(call)
    }

    fn append_ended(&mut self, id: CallId, outcome: AppendOutcome) {
        let value = self.append_calls.get(&id).copied();
        self.judge
            .require(Rule::HistoryIsSound, value.is_some(), [], || format!("call {} is no append, and ends", id.0));
        let Some((value, attempt)) = value.and_then(|value| Some((value, self.appends.get(value)?))) else { return };
        let (log_id, invoked) = (attempt.log, attempt.invoked);
        let Some(lsn) = self.appends.ended(&mut self.judge, value, outcome) else { return };
        let log = self.logs.entry(log_id).or_default();
        self.appends.seen(&mut self.judge, (log_id, log), (lsn, value), Observer::Appender);
        log.acknowledge(lsn, self.judge.now());
        if self.healed.is_some_and(|heal| heal.event < invoked) {
            log.append_after_heal.get_or_insert(self.judge.at());
        }
        match log.place_of(lsn) {
            Place::Unknown => {}
            Place::Beyond => self.judge.require(Rule::DecidedCoversAcknowledged, false, [], || {
                format!("{lsn} is acknowledged, and log {log_id} was closed before it")
            }),
            Place::In(loglet, offset) => {
                self.judge.held(Rule::DecidedCoversAcknowledged);
                if self.disks {
                    let (id, event) = (loglet.params.id, loglet.latest_event());
                    let stored = loglet.is_on_write_quorum(offset);
                    self.judge.require(Rule::AcknowledgedIsDurable, stored, [event], || {
                        format!("{lsn} is acknowledged, and no write quorum of {id} has offset {offset}")
                    });
                    let committed = loglet.committed();
                    self.judge.require(Rule::CommittedInOrder, !stored || offset < committed, [event], || {
                        format!(
                            "{lsn} is acknowledged, offset {offset} of {id}; no write quorum has offset {committed}"
                        )
                    });
                }
            }
        }
    }

    fn tail_ended(&mut self, id: CallId, tail: Option<Lsn>) {
        let Some(call) = self.ended(id, "a tail", |kind| matches!(kind, CallKind::Tail(_))) else { return };
        let (CallKind::Tail(floor), Some(tail)) = (&call.kind, tail) else { return };
        let (log_id, invoked, floor) = (call.log, call.invoked, *floor);
        let above = floor.is_none_or(|floor| floor.last < tail);
        self.judge.require(
            Rule::TailIsProved,
            above,
            floor.map(|floor| floor.event).into_iter().chain([invoked]),
            || {
                let last = floor.map(|floor| floor.last);
                format!("the tail of log {log_id} is {tail}; {last:?} was known to be committed when it was asked for")
            },
        );
        let log = self.logs.entry(log_id).or_default();
        if self.healed.is_some_and(|heal| heal.event < invoked) {
            log.tail_after_heal.get_or_insert(self.judge.at());
        }
        let Some(last) = tail.previous() else { return };
        if let Some((holds, event)) = is_committed(log, last, self.disks) {
            self.judge.require(Rule::TailIsProved, holds, event, || {
                format!("the tail of log {log_id} is {tail}, and {last} is not committed")
            });
        }
        log.advance(last, self.judge.now(), Witness::Tail);
    }

    fn trim_ended(&mut self, id: CallId, trim_point: Option<Lsn>) {
        let Some(call) = self.ended(id, "a trim", |kind| matches!(kind, CallKind::Trim(..))) else { return };
        let (&CallKind::Trim(up_to, before), Some(point)) = (&call.kind, trim_point) else { return };
        let (log_id, invoked) = (call.log, call.invoked);
        let log = self.logs.entry(log_id).or_default();
        let least = before.map_or(up_to, |(told, _)| told.max(up_to));
        self.judge.require(Rule::TrimOnlyRises, least <= point, before.map(|(_, event)| event), || {
            format!("log {log_id} is trimmed up to {point} for whoever asked for {up_to}; it was up to {before:?}")
        });
        let wanted = Some(point) <= log.trimmed();
        self.judge.require(Rule::TrimOnlyRises, wanted, [invoked], || {
            format!("log {log_id} is trimmed up to {point}, says an answer, and it is up to {:?}", log.trimmed())
        });
        if log.trim_told.is_none_or(|(told, _)| told < point) {
            log.trim_told = Some((point, self.judge.now()));
        }
    }

    fn reconfigure_ended(&mut self, id: CallId, outcome: &ReconfigureOutcome) {
        let fits = |kind: &CallKind| matches!(kind, CallKind::Reconfigure(_));
        let Some(call) = self.ended(id, "a reconfiguration", fits) else { return };
        let CallKind::Reconfigure(op) = call.kind else { return };
        let log = call.log;
        self.operations.told(&mut self.judge, log, op, outcome);
    }

    fn reader_opened(&mut self, id: ReaderId, log: LogId, from: Lsn) {
        self.logs.entry(log).or_default();
        let before = self.readers.insert(id, Reader::new(log, from, self.judge.now())).map(|reader| reader.opened);
        self.judge.require(Rule::HistoryIsSound, before.is_none(), before, || format!("reader {} opens again", id.0));
    }

    fn reader(&mut self, id: ReaderId) -> Option<&mut Reader> {
        let found = self.readers.get_mut(&id);
        self.judge.require(Rule::HistoryIsSound, found.is_some(), [], || format!("reader {} was not opened", id.0));
        found
    }

    fn delivered(&mut self, id: ReaderId, lsn: Lsn, value: Value) {
        let Some(reader) = self.readers.get_mut(&id) else {
            self.reader(id);
            return;
        };
        let log_id = reader.log;
        let log = self.logs.entry(log_id).or_default();
        reader.go_on(&mut self.judge, id, lsn, lsn.advance(1).unwrap_or(lsn));
        self.appends.seen(&mut self.judge, (log_id, log), (lsn, value), Observer::Reader);
        if let Some(attempt) = self.appends.get(value) {
            reader.in_order(&mut self.judge, lsn, attempt);
        }
        if let Some((holds, event)) = is_committed(log, lsn, self.disks) {
            self.judge.require(Rule::ReadAllowed, holds, event, || {
                format!("reader {} is given {lsn} of log {log_id}, which is not committed", id.0)
            });
        }
        log.deliver(lsn, self.judge.now());
    }

    fn skipped(&mut self, id: ReaderId, (from, until): (Lsn, Lsn), gap: Gap) {
        let Some(reader) = self.readers.get_mut(&id) else {
            self.reader(id);
            return;
        };
        reader.go_on(&mut self.judge, id, from, until);
        let log = self.logs.entry(reader.log).or_default();
        match gap {
            Gap::Trimmed => {
                reader.trimmed_end = Some((until, self.judge.now()));
                // Without every write of the chain it is known at the end only.
                if log.every_write {
                    progress::check_trimmed(&mut self.judge, log, id, until, None);
                }
            }
            Gap::Lost => {
                // Without the events of disks nobody knows better than the reader.
                let reached = log.lost().fold(from, |at, (first, end)| if first <= at { at.max(end) } else { at });
                let known = !self.disks || until <= reached;
                self.judge.require(Rule::LossIsAllowed, self.loss_allowed && known, [], || {
                    format!("reader {} is told that [{from}, {until}) of log {} is lost", id.0, reader.log)
                });
                log.told_lost.insert((from, until));
            }
        }
    }

    fn caught_up(&mut self, id: ReaderId, tail: Lsn) {
        let Some(reader) = self.reader(id) else { return };
        let (next, latest) = (reader.next, reader.latest);
        self.judge.require(Rule::NoJump, next == tail, [latest], || {
            format!("reader {} is told that {tail} is the tail, and is at {next}", id.0)
        });
    }

    fn chain(&mut self, chain: &bifrost_types::Chain, source: Source) {
        let log = self.logs.entry(chain.log).or_default();
        let nodes = self.disks.then_some(&self.nodes);
        chain::observe(&mut self.judge, &mut self.operations, log, (chain, source), nodes);
    }

    fn chain_deleted(&mut self, id: LogId) {
        let log = self.logs.entry(id).or_default();
        let closed = log.known.is_some() && !log.is_open();
        let event = log.known.as_ref().map(|known| known.event);
        self.judge.require(Rule::OneDecision, closed, event, || format!("log {id} is deleted and was not closed"));
        log.deleted.get_or_insert(self.judge.now());
    }

    /// The loglet that changed on a disk, if any chain names it.
    fn copy(&mut self, (node, disk): (NodeId, DiskId), id: LogletId) -> Option<(&mut Judge, &mut Loglet)> {
        self.disks = true;
        self.nodes.alive(&mut self.judge, disk);
        self.nodes.owned(&mut self.judge, node, disk);
        let known = self.logs.get_mut(&id.log).and_then(|log| log.loglets.get_mut(&id.segment));
        self.judge.require(Rule::OnlyNamedDisks, known.is_some(), [], || {
            format!("{node} has a copy of {id}, which no chain names")
        });
        Some((&mut self.judge, known?))
    }

    /// A copy dropped records: the chain must have trimmed them.
    fn copy_trimmed(&mut self, id: LogletId, point: u64) {
        let Some(log) = self.logs.get(&id.log) else { return };
        let Some(loglet) = log.loglets.get(&id.segment) else { return };
        let base =
            log.chain().and_then(|chain| chain.segment(loglet.params.id.segment)).map(|segment| segment.base_lsn);
        let Some(lsn) = base.and_then(|base| base.advance(point.checked_sub(1)?).ok()) else { return };
        let event = log.known.as_ref().map(|known| known.event);
        self.judge.require(Rule::TrimOnlyRises, Some(lsn) <= log.trimmed(), event, || {
            format!("a copy of {id} is trimmed up to {lsn}, its log up to {:?}", log.trimmed())
        });
    }

    /// Judges what can only be known at the end. Call it once, behind the last event.
    pub fn finish(&mut self, end: &End) {
        progress::finish(self, end);
    }

    /// The first few breaches of each rule, in the order in which they were noticed.
    pub fn breaches(&self) -> &[Breach] {
        self.judge.told()
    }

    /// All breaches, those that are only counted included.
    pub const fn breach_count(&self) -> u64 {
        self.judge.count()
    }

    /// How often a rule was checked and broken.
    pub fn tally(&self, rule: Rule) -> Tally {
        self.judge.tally(rule)
    }

    /// Which rules were really exercised, and how often.
    pub fn summary(&self) -> Summary {
        self.judge.summary(self.events)
    }
}

/// Whether an LSN is committed, and the event that says how much is. `None` if that cannot be told: in an open segment
/// only the disks know.
fn is_committed(log: &Log, lsn: Lsn, disks: bool) -> Option<(bool, Option<EventNumber>)> {
    let chain_event = log.known.as_ref().map(|known| known.event);
    match log.place_of(lsn) {
        Place::Unknown => None,
        Place::Beyond => Some((false, chain_event)),
        Place::In(loglet, offset) if disks => Some((offset < loglet.committed(), Some(loglet.latest_event()))),
        Place::In(loglet, _) => loglet.decided_tail.map(|_| (true, chain_event)),
    }
}
