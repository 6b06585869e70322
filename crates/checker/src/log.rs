//! What is known of one log.

use std::collections::{BTreeMap, BTreeSet};

use bifrost_types::{Chain, LogletOffset, Lsn, SegmentIndex};

use crate::breach::EventNumber;
use crate::event::{Micros, Value};
use crate::loglet::Loglet;

/// What is at one LSN.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// What an appender was told to be there, and when.
    pub(crate) acknowledged: Option<(Value, EventNumber)>,
    /// What a reader was given first, and when.
    pub(crate) delivered: Option<(Value, EventNumber)>,
}

/// How somebody came to know that something is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    Acknowledged,
    Delivered,
    Tail,
    /// It lies before the last segment of the chain.
    Decided,
}

/// Everything up to an LSN was known to be committed since an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frontier {
    pub(crate) last: Lsn,
    pub(crate) event: EventNumber,
    pub(crate) witness: Witness,
}

/// The LSNs that were acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) lowest: Lsn,
    pub(crate) highest: Lsn,
    /// The event of the highest one.
    pub(crate) highest_event: EventNumber,
    /// The event of the latest one.
    pub(crate) latest_event: EventNumber,
    pub(crate) count: u64,
}

/// The chain as it was written or read last.
#[derive(Debug)]
pub(crate) struct KnownChain {
    pub(crate) chain: Chain,
    pub(crate) event: EventNumber,
}

/// Where an LSN lies.
pub(crate) enum Place<'a> {
    /// No chain was seen.
    Unknown,
    /// Beyond the end of a log that was closed for good.
    Beyond,
    /// In a segment.
    In(&'a Loglet, LogletOffset),
}

/// One log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) slots: BTreeMap<Lsn, Slot>,
    pub(crate) frontier: Option<Frontier>,
    pub(crate) acknowledged: Option<Acknowledged>,
    /// The highest LSN that a reader was given, and when.
    pub(crate) delivered: Option<(Lsn, EventNumber)>,
    pub(crate) known: Option<KnownChain>,
    /// Whether each write of the chain is told.
    pub(crate) every_write: bool,
    pub(crate) loglets: BTreeMap<SegmentIndex, Loglet>,
    pub(crate) deleted: Option<EventNumber>,
    /// What readers were told is lost.
    pub(crate) told_lost: BTreeSet<(Lsn, Lsn)>,
    /// The highest LSN that anybody wanted trimmed.
    pub(crate) trim_wanted: Option<Lsn>,
    /// The highest trim point that a caller was told, and when.
    pub(crate) trim_told: Option<(Lsn, EventNumber)>,
    /// The first append that was invoked and acknowledged after the heal.
    pub(crate) append_after_heal: Option<Micros>,
    /// The first linearizable tail that was asked for and answered after the heal.
    pub(crate) tail_after_heal: Option<Micros>,
}

impl Log {
    /// Everything up to `last` is committed, says this event.
    pub(crate) fn advance(&mut self, last: Lsn, event: EventNumber, witness: Witness) {
        if self.frontier.is_none_or(|frontier| frontier.last < last) {
            self.frontier = Some(Frontier { last, event, witness });
        }
    }

    pub(crate) fn acknowledge(&mut self, lsn: Lsn, event: EventNumber) {
        let known = self.acknowledged.get_or_insert(Acknowledged {
            lowest: lsn,
            highest: lsn,
            highest_event: event,
            latest_event: event,
            count: 0,
        });
        known.lowest = known.lowest.min(lsn);
        if known.highest < lsn {
            known.highest = lsn;
            known.highest_event = event;
        }
        known.latest_event = event;
        known.count = known.count.saturating_add(1);
        self.advance(lsn, event, Witness::Acknowledged);
    }

    pub(crate) fn deliver(&mut self, lsn: Lsn, event: EventNumber) {
        if self.delivered.is_none_or(|(highest, _)| highest < lsn) {
            self.delivered = Some((lsn, event));
        }
        self.advance(lsn, event, Witness::Delivered);
    }

    pub(crate) fn chain(&self) -> Option<&Chain> {
        self.known.as_ref().map(|known| &known.chain)
    }

    /// Whether the log takes appends, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        let closed = |chain: &Chain| chain.last().is_none_or(|last| last.decided_tail().is_some());
        self.deleted.is_none() && !self.chain().is_some_and(closed)
    }

    /// Last LSN that may be missing because it was trimmed.
    pub(crate) fn trimmed(&self) -> Option<Lsn> {
        let by_chain = self.chain().and_then(|chain| chain.trim_point);
        match (self.deleted, self.every_write) {
            (Some(_), _) => Some(Lsn::MAX),
            (None, true) => by_chain,
            (None, false) => by_chain.max(self.trim_wanted),
        }
    }

    /// What cannot be read from any disk and was committed, from first to last LSN.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (Lsn, Lsn)> + '_ {
        let segments = self.chain().into_iter().flat_map(|chain| &chain.segments);
        segments.flat_map(|segment| {
            let lost = self.loglets.get(&segment.index()).into_iter().flat_map(Loglet::lost);
            lost.filter_map(|(first, end)| {
                Some((first.to_lsn(segment.base_lsn).ok()?, end.to_lsn(segment.base_lsn).ok()?))
            })
        })
    }

    pub(crate) fn place_of(&self, lsn: Lsn) -> Place<'_> {
        let Some(chain) = self.chain() else { return Place::Unknown };
        // The last of equal bases: those before it are empty.
        let Some(segment) = chain.segments.iter().rev().find(|segment| segment.base_lsn <= lsn) else {
            return Place::Unknown;
        };
        let Some(offset) = LogletOffset::from_lsn(lsn, segment.base_lsn) else { return Place::Unknown };
        if segment.decided_tail().is_some_and(|tail| tail <= offset) {
            return Place::Beyond;
        }
        self.loglets.get(&segment.index()).map_or(Place::Unknown, |loglet| Place::In(loglet, offset))
    }
}
