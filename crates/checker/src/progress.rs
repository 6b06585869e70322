//! What only the end shows: everything acknowledged was read back, and nothing stayed stuck.

use bifrost_types::{LogId, Lsn};

use crate::breach::{EventNumber, Judge};
use crate::checker::Checker;
use crate::end::{Bound, End};
use crate::event::{Micros, ReaderId};
use crate::log::Log;
use crate::readers::Reader;
use crate::rule::Rule;

/// When enough of the cluster was well again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heal {
    pub(crate) at: Micros,
    pub(crate) event: EventNumber,
}

pub(crate) fn finish(checker: &mut Checker, end: &End) {
    checker.judge.end(end.at);
    check_trimmed_gaps(checker);
    if end.scanned {
        check_scanned(checker);
        check_told(checker);
    }
    if let Some((heal, within)) = checker.healed.zip(checker.due_within) {
        check_logs(checker, heal, within);
        check_readers(checker);
        check_calls(checker, heal);
    }
    for (rule, bounds) in [(Rule::IdleIsQuiet, &end.quiet), (Rule::WritersGoOn, &end.pauses)] {
        for Bound { what, found, max } in bounds {
            checker.judge.require(rule, found <= max, [], || format!("{what}: {found}, at most {max} is fine"));
        }
    }
}

/// What a reader skipped as trimmed must have been.
pub(crate) fn check_trimmed(judge: &mut Judge, log: &Log, id: ReaderId, until: Lsn, event: Option<EventNumber>) {
    let trimmed = log.trimmed();
    judge.require(Rule::TrimmedIsTrimmed, until.previous() <= trimmed, event, || {
        format!("reader {} is told that everything below {until} is trimmed, the trim point is {trimmed:?}", id.0)
    });
}

fn check_trimmed_gaps(checker: &mut Checker) {
    for (id, reader) in &checker.readers {
        let Some(log) = checker.logs.get(&reader.log).filter(|log| !log.every_write) else { continue };
        if let Some((until, event)) = reader.trimmed_end {
            check_trimmed(&mut checker.judge, log, *id, until, Some(event));
        }
    }
}

/// P1: a reader that began after the last acknowledgement passed everything that was acknowledged. What it was given at
/// each LSN was compared when it came.
fn check_scanned(checker: &mut Checker) {
    for (id, log) in &checker.logs {
        let Some(acknowledged) = log.acknowledged.filter(|_| log.deleted.is_none()) else { continue };
        let trimmed = log.trimmed();
        let covers = |reader: &Reader| {
            reader.log == *id
                && !reader.jumped
                && reader.opened > acknowledged.latest_event
                && (reader.from <= acknowledged.lowest || reader.from.previous() <= trimmed)
                && reader.next > acknowledged.highest
        };
        let read = Some(acknowledged.highest) <= trimmed || checker.readers.values().any(covers);
        let events = [acknowledged.highest_event, acknowledged.latest_event];
        checker.judge.require(Rule::AcknowledgedStays, read, events, || {
            let (count, highest) = (acknowledged.count, acknowledged.highest);
            format!("{count} records of log {id} were acknowledged, up to {highest}; no later reader passed them all")
        });
    }
}

/// What no disk can give any more was not passed over in silence.
fn check_told(checker: &mut Checker) {
    for (id, log) in checker.logs.iter().filter(|(_, log)| log.deleted.is_none()) {
        for (first, end) in log.lost().filter(|(_, end)| end.previous() > log.trimmed()) {
            let told = log.told_lost.iter().any(|(from, until)| *from <= end && first <= *until);
            checker.judge.require(Rule::LossIsTold, told, [], || {
                format!("[{first}, {end}) of log {id} is on no disk any more, and no reader was told")
            });
        }
    }
}

fn check_logs(checker: &mut Checker, heal: Heal, within: Micros) {
    let due = heal.at.saturating_add(within);
    for (id, log) in checker.logs.iter().filter(|(_, log)| log.deleted.is_none()) {
        let judge = &mut checker.judge;
        let in_time = |done: Option<Micros>| done.is_some_and(|at| at <= due);
        let late = |what: &str, done: Option<Micros>| match done {
            Some(at) => {
                format!("log {id} {what} {} µs after the heal, {within} were allowed", at.saturating_sub(heal.at))
            }
            None => format!("log {id} never {what} after the heal"),
        };
        if log.is_open() {
            let done = log.append_after_heal;
            judge.require(Rule::LogTakesAppends, in_time(done), [heal.event], || late("took an append", done));
        }
        let done = log.tail_after_heal;
        judge.require(Rule::LogHasATail, in_time(done), [heal.event], || late("told a linearizable tail", done));
        check_chain(judge, *id, log, checker.disks);
    }
}

fn check_chain(judge: &mut Judge, id: LogId, log: &Log, disks: bool) {
    let Some(known) = &log.known else { return };
    let pending = known.chain.pending.as_ref().map(|pending| pending.op);
    judge.require(Rule::NothingIsPending, pending.is_none(), [known.event], || {
        format!("operation {pending:?} is still pending on log {id}")
    });
    let open = known.chain.last().filter(|last| last.decided_tail().is_none());
    if let Some(loglet) = open.and_then(|last| log.loglets.get(&last.index())).filter(|_| disks) {
        let (sealed, events) = loglet.seals();
        judge.require(Rule::NoOrphanedSeal, !sealed, events, || {
            format!("{} is sealed by an f-majority, and has no successor", loglet.params.id)
        });
    }
}

fn check_readers(checker: &mut Checker) {
    for (id, reader) in checker.readers.iter().filter(|(_, reader)| !reader.closed) {
        let Some(log) = checker.logs.get(&reader.log).filter(|log| log.deleted.is_none()) else { continue };
        let Some(frontier) = log.frontier else { continue };
        let Reader { next, latest, .. } = *reader;
        checker.judge.require(Rule::ReadersArrive, next > frontier.last, [latest, frontier.event], || {
            format!("reader {} of log {} stands at {next}, {} is committed", id.0, reader.log, frontier.last)
        });
    }
}

fn check_calls(checker: &mut Checker, heal: Heal) {
    for (value, attempt) in checker.appends.without_outcome(heal.event) {
        checker.judge.require(Rule::OutcomesAreTrue, false, [attempt.invoked], || {
            format!("the append of {value} to log {} has no outcome", attempt.log)
        });
    }
    for (id, call) in checker.calls.iter().filter(|(_, call)| call.invoked > heal.event) {
        checker.judge.require(Rule::CallsEnd, call.ended, [call.invoked], || {
            format!("call {} on log {} never ended: {:?}", id.0, call.log, call.kind)
        });
    }
}
