//! What readers were given: one after the other without a jump, and in each appender's order.

use std::collections::BTreeMap;

use bifrost_types::{LogId, Lsn};

use crate::appends::Attempt;
use crate::breach::{EventNumber, Judge};
use crate::event::{AppenderId, ReaderId};
use crate::rule::Rule;

/// One reader.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) log: LogId,
    pub(crate) from: Lsn,
    /// Everything from its start up to here was given or skipped.
    pub(crate) next: Lsn,
    pub(crate) opened: EventNumber,
    pub(crate) closed: bool,
    /// Whether it was ever given something else than what came next.
    pub(crate) jumped: bool,
    /// The event that brought it where it is.
    pub(crate) latest: EventNumber,
    /// The end of the last range that was skipped as trimmed, and when.
    pub(crate) trimmed_end: Option<(Lsn, EventNumber)>,
    /// The last record of each appender: its number, where, and when.
    last_of: BTreeMap<AppenderId, (u64, Lsn, EventNumber)>,
}

impl Reader {
    pub(crate) const fn new(log: LogId, from: Lsn, opened: EventNumber) -> Self {
        let last_of = BTreeMap::new();
        Self { log, from, next: from, opened, closed: false, jumped: false, latest: opened, trimmed_end: None, last_of }
    }

    /// Takes it from `from` to `until`.
    pub(crate) fn go_on(&mut self, judge: &mut Judge, id: ReaderId, from: Lsn, until: Lsn) {
        let next = self.next;
        // The last LSN that there is has none after it: its reader stays there.
        let goes_on = from == next && (from < until || from == Lsn::MAX);
        judge.require(Rule::NoJump, goes_on && !self.closed, [self.opened, self.latest], || {
            if self.closed {
                format!("reader {} was closed and is given [{from}, {until})", id.0)
            } else {
                format!("reader {} was at {next} and is given [{from}, {until})", id.0)
            }
        });
        self.jumped |= from != next;
        self.next = next.max(until);
        self.latest = judge.now();
    }

    /// Compares with what the same appender sent before.
    pub(crate) fn in_order(&mut self, judge: &mut Judge, lsn: Lsn, attempt: &Attempt) {
        let Attempt { appender, number, .. } = *attempt;
        let last = self.last_of.insert(appender, (number, lsn, judge.now()));
        if let Some((before, at, event)) = last {
            judge.require(Rule::AppenderOrder, before < number || at >= lsn, [event], || {
                format!("append {number} of appender {} is at {lsn}, behind its append {before} at {at}", appender.0)
            });
        }
    }
}
