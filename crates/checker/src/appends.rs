//! What clients appended, and where it was seen: acknowledged values against delivered ones, once, in order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bifrost_types::{LogId, Lsn};

use crate::breach::{EventNumber, Judge};
use crate::event::{AppendOutcome, AppenderId, Value};
use crate::log::{Frontier, Log, Witness};
use crate::rule::Rule;

/// One append of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) log: LogId,
    pub(crate) appender: AppenderId,
    /// Its place among the appends of its appender.
    pub(crate) number: u64,
    pub(crate) invoked: EventNumber,
    /// What was known to be committed when it was invoked: it must lie above.
    floor: Option<Frontier>,
    outcome: Option<(AppendOutcome, EventNumber)>,
    /// Where it was seen first.
    seen: Option<(Lsn, EventNumber)>,
}

/// Who says that a value is at an LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observer {
    Appender,
    Reader,
}

/// All appends of a history.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    attempts: BTreeMap<Value, Attempt>,
    numbers: BTreeMap<AppenderId, u64>,
}

impl Appends {
    pub(crate) fn get(&self, value: Value) -> Option<&Attempt> {
        self.attempts.get(&value)
    }

    pub(crate) fn invoked(&mut self, judge: &mut Judge, value: Value, of: (LogId, AppenderId), log: &Log) {
        let (id, appender) = of;
        let number = self.numbers.entry(appender).or_default();
        let attempt = Attempt {
            log: id,
            appender,
            number: *number,
            invoked: judge.now(),
            floor: log.frontier,
            outcome: None,
            seen: None,
        };
        *number = number.saturating_add(1);
        match self.attempts.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(attempt);
            }
            Entry::Occupied(entry) => {
                let before = entry.get().invoked;
                judge.require(Rule::HistoryIsSound, false, [before], || format!("{value} is appended a second time"));
            }
        }
    }

    /// An append ended. Returns whether it was acknowledged just now.
    pub(crate) fn ended(&mut self, judge: &mut Judge, value: Value, outcome: AppendOutcome) -> Option<Lsn> {
        let attempt = self.attempts.get_mut(&value)?;
        let before = attempt.outcome.replace((outcome, judge.now()));
        if let Some((known, event)) = before {
            let holds = known == AppendOutcome::Unknown || known == outcome;
            judge.require(Rule::OutcomesAreTrue, holds, [event], || {
                format!("the append of {value} ended as {known:?} and then as {outcome:?}")
            });
        }
        match outcome {
            AppendOutcome::Committed(lsn) => {
                judge.held(Rule::OutcomesAreTrue);
                Some(lsn)
            }
            AppendOutcome::NotAppended => {
                let seen = attempt.seen;
                judge.require(Rule::OutcomesAreTrue, seen.is_none(), seen.map(|(_, event)| event), || {
                    format!("{value} was not appended, says its appender, and was seen in the log")
                });
                None
            }
            AppendOutcome::Unknown => None,
        }
    }

    /// A value is at an LSN, says `observer`.
    pub(crate) fn seen(
        &mut self,
        judge: &mut Judge,
        (id, log): (LogId, &mut Log),
        (lsn, value): (Lsn, Value),
        observer: Observer,
    ) {
        let now = judge.now();
        compare(judge, log, (lsn, value), observer);
        let attempt = self.attempts.get_mut(&value).filter(|attempt| attempt.log == id);
        let Some(attempt) = attempt else {
            judge.require(Rule::SomebodyAppended, false, [], || {
                format!("{value} is at {lsn} of log {id}, and nobody appended it there")
            });
            return;
        };
        judge.held(Rule::SomebodyAppended);
        match attempt.seen {
            Some((first, event)) => judge.require(Rule::LandsOnce, first == lsn, [attempt.invoked, event], || {
                format!("{value} is at {lsn} and at {first}")
            }),
            None => {
                judge.held(Rule::LandsOnce);
                attempt.seen = Some((lsn, now));
            }
        }
        if let Some((AppendOutcome::NotAppended, event)) = attempt.outcome {
            judge.require(Rule::OutcomesAreTrue, false, [attempt.invoked, event], || {
                format!("{value} was not appended, says its appender, and is at {lsn}")
            });
        }
        if let Some(Frontier { last, event, witness }) = attempt.floor {
            let (rule, how) = match witness {
                Witness::Acknowledged => (Rule::RealTimeOrder, "was acknowledged"),
                Witness::Delivered => (Rule::RealTimeOrder, "was read"),
                Witness::Tail => (Rule::TailIsProved, "was below a linearizable tail"),
                Witness::Decided => (Rule::RealTimeOrder, "was the end of a closed segment"),
            };
            judge.require(rule, last < lsn, [event, attempt.invoked], || {
                format!("{value} is at {lsn}, and was appended after {last} {how}")
            });
        }
    }

    /// Appends that were invoked behind `after` and have no outcome.
    pub(crate) fn without_outcome(&self, after: EventNumber) -> impl Iterator<Item = (Value, &Attempt)> {
        let open =
            self.attempts.iter().filter(move |(_, attempt)| attempt.outcome.is_none() && attempt.invoked > after);
        open.map(|(value, attempt)| (*value, attempt))
    }
}

/// One value at one LSN, over all observers.
fn compare(judge: &mut Judge, log: &mut Log, (lsn, value): (Lsn, Value), observer: Observer) {
    let now = judge.now();
    let slot = log.slots.entry(lsn).or_default();
    let mut same = |rule: Rule, before: Option<(Value, EventNumber)>| {
        if let Some((known, event)) = before {
            judge.require(rule, known == value, [event], || format!("{value} is at {lsn}, where {known} was"));
        }
    };
    same(Rule::AcknowledgedStays, slot.acknowledged);
    match observer {
        Observer::Appender => {
            same(Rule::AcknowledgedStays, slot.delivered);
            slot.acknowledged.get_or_insert((value, now));
        }
        Observer::Reader => {
            same(Rule::AllSeeTheSame, slot.delivered);
            slot.delivered.get_or_insert((value, now));
        }
    }
}
