//! One stream of records from one copy: where its next part starts, and its credit.

use bifrost_types::{LogletOffset, NodeIndex};

/// Names one stream of one reader; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// What a part of an answer says of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    /// A verified batch of that many encoded bytes.
    Batch,
    /// Nothing passes the filter.
    Filtered,
    /// Trimmed.
    Trimmed,
    /// The copy has nothing.
    Missing,
    /// What the copy has is damaged.
    Corrupt,
}

/// A part of an answer, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it starts; for a batch its record 0, which may lie before the wanted offset.
    pub(super) from: LogletOffset,
    /// Where the next part starts.
    pub(super) end: LogletOffset,
    /// What it says.
    pub(super) kind: PartKind,
    /// Bytes that it took of the credit.
    pub(super) bytes: u64,
}

/// A part that does not start where the last one ended, or covers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfOrder;

/// One stream of records. Pointer order: `outstanding <= budget`.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stream: StreamId,
    pub(super) node: NodeIndex,
    /// Where the next part starts.
    pub(super) next: LogletOffset,
    /// The readable tail that the copy was told.
    pub(super) told: LogletOffset,
    budget: u64,
    /// Credit that the copy holds. Negative after a batch larger than the rest of it.
    outstanding: i64,
}

impl Lane {
    pub(super) fn new(stream: StreamId, node: NodeIndex, from: LogletOffset, told: LogletOffset, budget: u64) -> Self {
        let outstanding = i64::try_from(budget).unwrap_or(i64::MAX);
        Self { stream, node, next: from, told, budget, outstanding }
    }

    /// Takes a part in; returns the offset that it newly covers from.
    pub(super) fn accept(&mut self, part: Part) -> Result<LogletOffset, OutOfOrder> {
        if part.from > self.next || part.end <= self.next {
            return Err(OutOfOrder);
        }
        let start = self.next;
        self.next = part.end;
        self.outstanding = self.outstanding.saturating_sub(i64::try_from(part.bytes).unwrap_or(i64::MAX));
        Ok(start)
    }

    /// Credit to give back now, or `None` until it is worth a message: a quarter of the budget, or all of it is used.
    /// The driver takes a part in only when its caller waits for one, so what was accepted was consumed.
    pub(super) fn owed(&mut self) -> Option<u64> {
        let budget = i64::try_from(self.budget).unwrap_or(i64::MAX);
        let owed = budget.saturating_sub(self.outstanding);
        if owed == 0 || (owed < budget / 4 && self.outstanding > 0) {
            return None;
        }
        self.outstanding = budget;
        u64::try_from(owed).ok()
    }
}
