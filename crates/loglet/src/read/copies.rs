//! The copies of a loglet as one reader sees them: which to ask first, which failed, which deny the next offset.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::{LogletOffset, LogletParams, NodeIndex, NodeSet};

use super::item::{Blocked, MissingDisk};
use super::lane::StreamId;
use super::options::{ReadOptions, doubled};

/// One copy.
#[derive(Debug)]
struct Copy {
    /// Failures since it last helped.
    failures: u32,
    /// Not to be asked before.
    retry_at: Duration,
    /// It has nothing from the reader's position up to here.
    denied_until: Option<LogletOffset>,
    /// Damage was reported up to here.
    reported_until: Option<LogletOffset>,
    /// The highest committed tail that it told.
    tail: LogletOffset,
    /// The stream that waits for its news.
    watch: Option<StreamId>,
}

/// All members that may be asked, and why not to ask some of them now.
#[derive(Debug)]
pub(super) struct Copies {
    params: LogletParams,
    copies: BTreeMap<NodeIndex, Copy>,
    /// All copies that are not declared lost, in order of preference.
    order: Vec<NodeIndex>,
    retry_min: Duration,
    retry_max: Duration,
}

impl Copies {
    pub(super) fn new(params: LogletParams, options: &ReadOptions) -> Self {
        let mut order: Vec<NodeIndex> = params.nodeset.indexes().collect();
        let start = options.spread % u64::try_from(order.len().max(1)).unwrap_or(1);
        order.rotate_left(usize::try_from(start).unwrap_or(0));
        let preferred = options.preferred.and_then(|node| params.nodeset.index_of(node));
        order.sort_by_key(|index| Some(*index) != preferred);
        order.retain(|index| !options.declared_lost.contains(*index));
        let fresh = |index: &NodeIndex| {
            let copy = Copy {
                failures: 0,
                retry_at: Duration::ZERO,
                denied_until: None,
                reported_until: None,
                tail: LogletOffset::FIRST,
                watch: None,
            };
            (*index, copy)
        };
        let copies = order.iter().map(fresh).collect();
        Self { params, copies, order, retry_min: options.retry_min, retry_max: options.retry_max }
    }

    /// Copies that may be asked now, best first: those known to be as far as `limit`, then by preference.
    pub(super) fn usable(&self, now: Duration, limit: LogletOffset) -> impl Iterator<Item = NodeIndex> + '_ {
        let usable = move |node: &NodeIndex| self.copies.get(node).is_some_and(|copy| copy.retry_at <= now);
        let far = move |node: &NodeIndex| self.copies.get(node).is_some_and(|copy| copy.tail >= limit);
        let ahead = self.order.iter().copied().filter(usable).filter(far);
        ahead.chain(self.order.iter().copied().filter(usable).filter(move |node| !far(node)))
    }

    /// Those of [`usable`](Self::usable) that do not deny `position`.
    pub(super) fn candidates(
        &self,
        now: Duration,
        position: LogletOffset,
        limit: LogletOffset,
    ) -> impl Iterator<Item = NodeIndex> + '_ {
        self.usable(now, limit).filter(move |node| !self.denies(*node, position))
    }

    fn denies(&self, node: NodeIndex, position: LogletOffset) -> bool {
        self.copies.get(&node).and_then(|copy| copy.denied_until).is_some_and(|end| end > position)
    }

    /// Remembers that a copy has nothing up to `end`.
    pub(super) fn deny(&mut self, node: NodeIndex, end: LogletOffset) {
        if let Some(copy) = self.copies.get_mut(&node) {
            copy.denied_until = copy.denied_until.max(Some(end));
        }
    }

    /// Asks everybody again: a copy may have been repaired.
    pub(super) fn forget_denials(&mut self) {
        for copy in self.copies.values_mut() {
            copy.denied_until = None;
        }
    }

    /// Where the first denial ends, if every copy that was not declared lost denies `position` (R3). `None` inside:
    /// all of them were declared lost.
    ///
    /// R3 asks for an f-majority of denials and that the missing disks were declared lost. A disk that is not missing
    /// can be asked, so this waits for the answer of all of them.
    pub(super) fn all_deny(&self, position: LogletOffset) -> Option<Option<LogletOffset>> {
        if self.order.iter().any(|node| !self.denies(*node, position)) {
            return None;
        }
        Some(self.copies.values().filter_map(|copy| copy.denied_until).min())
    }

    /// Asks these members no more: an operator has declared their disks lost. Returns their watches.
    pub(super) fn declare_lost(&mut self, lost: NodeSet) -> Vec<StreamId> {
        self.order.retain(|node| !lost.contains(*node));
        lost.iter().filter_map(|node| self.copies.remove(&node)?.watch).collect()
    }

    /// Whether damage in `[from, end)` of a copy was not reported before.
    pub(super) fn is_new_damage(&mut self, node: NodeIndex, from: LogletOffset, end: LogletOffset) -> bool {
        let Some(copy) = self.copies.get_mut(&node) else { return false };
        let new = copy.reported_until.is_none_or(|until| until <= from);
        copy.reported_until = copy.reported_until.max(Some(end));
        new
    }

    /// A copy failed. It is asked again after a pause, the longest one if the failure is not of the passing kind.
    pub(super) fn failed(&mut self, node: NodeIndex, now: Duration, passing: bool) {
        if let Some(copy) = self.copies.get_mut(&node) {
            let pause = doubled(self.retry_min, copy.failures, self.retry_max);
            copy.retry_at = now.saturating_add(if passing { pause } else { self.retry_max });
            copy.failures = copy.failures.saturating_add(1);
        }
    }

    /// A copy helped.
    pub(super) fn helped(&mut self, node: NodeIndex) {
        if let Some(copy) = self.copies.get_mut(&node) {
            copy.failures = 0;
        }
    }

    /// A copy told its committed tail.
    pub(super) fn told(&mut self, node: NodeIndex, tail: LogletOffset) {
        if let Some(copy) = self.copies.get_mut(&node) {
            copy.tail = copy.tail.max(tail);
        }
    }

    /// When the next copy that failed may be asked again.
    pub(super) fn next_retry(&self, now: Duration) -> Option<Duration> {
        self.copies.values().map(|copy| copy.retry_at).filter(|at| *at > now).min()
    }

    pub(super) fn watch_of(&self, node: NodeIndex) -> Option<StreamId> {
        self.copies.get(&node).and_then(|copy| copy.watch)
    }

    pub(super) fn set_watch(&mut self, node: NodeIndex, watch: Option<StreamId>) {
        if let Some(copy) = self.copies.get_mut(&node) {
            copy.watch = watch;
        }
    }

    /// The copy that a stream waits for news of.
    pub(super) fn watched_by(&self, stream: StreamId) -> Option<NodeIndex> {
        self.copies.iter().find(|(_, copy)| copy.watch == Some(stream)).map(|(node, _)| *node)
    }

    /// How many copies are watched.
    pub(super) fn watches(&self) -> usize {
        self.copies.values().filter(|copy| copy.watch.is_some()).count()
    }

    /// All copies that are not declared lost, in order of preference.
    pub(super) fn all(&self) -> Vec<NodeIndex> {
        self.order.clone()
    }

    /// Says on whom `[from, end)` waits.
    pub(super) fn blocked(&self, from: LogletOffset, end: LogletOffset) -> Blocked {
        let (mut missing, mut denied) = (Vec::new(), Vec::new());
        for (index, member) in self.params.nodeset.iter() {
            if self.denies(index, from) {
                denied.push(member.node);
            } else if self.copies.contains_key(&index) {
                missing.push(MissingDisk { node: member.node, disk: member.disk });
            }
        }
        Blocked { from, end, missing, denied }
    }
}
