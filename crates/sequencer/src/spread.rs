//! What each copy of the nodeset has, and what was sent to it.

use std::collections::VecDeque;

use bifrost_types::limits::COPY_WINDOW_BYTES;
use bifrost_types::{DiskId, LogletOffset, NodeIndex};

/// Where one copy stands with this sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// No connection. What it has stays on its disk.
    Down,
    /// Connected; `connection` tells one connection from the next, so that a late answer of an old one changes nothing
    /// about what the new one was sent.
    Up {
        /// Which connection.
        connection: u64,
    },
    /// It said that it is busy or full; nothing is sent before this time (milliseconds of the driver's clock).
    Paused {
        /// Which connection.
        connection: u64,
        /// When to try again.
        until_millis: u64,
    },
    /// It is not the disk of the nodeset, or holds what it should not: it takes no part any more (W2).
    Lost,
}

/// One copy. Pointer order: `stored_tail <= sent_tail <= next_offset` of the window.
#[derive(Debug, Clone)]
pub struct CopyLink {
    /// Its place in the nodeset.
    pub index: NodeIndex,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// The connection.
    pub link: Link,
    /// First offset that it did not report as durable. Holes lie below the committed tail only (L1).
    pub stored_tail: LogletOffset,
    /// First offset that was not sent on this connection.
    pub sent_tail: LogletOffset,
    /// The committed tail that it was told last on this connection.
    pub told_tail: LogletOffset,
    /// Whether somebody follows it, by its last word on this connection.
    followed: bool,
    /// News of the committed tail waits until then for a batch that takes it along.
    quiet_until: Option<u64>,
    /// Its last word was that its disk is full.
    pub full: bool,
    /// Ranges below the committed tail that it was not sent because the window no longer held them; to be backfilled.
    /// Ordered, disjoint, few: when there are too many the two closest are joined.
    missing: Vec<(LogletOffset, LogletOffset)>,
    /// What was sent on this connection and not answered: where each message ends, and its bytes. Ordered; what a
    /// server or the way to it holds of a loglet is bounded by this, not by the window (A4).
    unanswered: VecDeque<(LogletOffset, usize)>,
    unanswered_bytes: usize,
    /// What it had when it refused something, until it takes something again.
    refused_at: Option<LogletOffset>,
    pause_millis: u64,
}

/// Most ranges that are remembered as missing for one copy.
const MISSING_MAX: usize = 16;
/// How long news of the committed tail waits for a batch that takes it along to a copy that nobody follows. As short as a
/// writer's next append may take: whoever loses the sequencer before the copies know what was acknowledged has to repair
/// it, which needs a write quorum.
pub const NEWS_MILLIS: u64 = 1;
const PAUSE_MILLIS_FIRST: u64 = 10;
const PAUSE_MILLIS_MAX: u64 = 1_000;

impl CopyLink {
    /// A copy that has nothing and is not connected.
    pub const fn new(index: NodeIndex, disk: DiskId) -> Self {
        Self {
            index,
            disk,
            link: Link::Down,
            stored_tail: LogletOffset::FIRST,
            sent_tail: LogletOffset::FIRST,
            told_tail: LogletOffset::FIRST,
            followed: false,
            quiet_until: None,
            full: false,
            missing: Vec::new(),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            refused_at: None,
            pause_millis: PAUSE_MILLIS_FIRST,
        }
    }

    /// A connection was made. Everything that was not answered is sent again; the copy recognises its own bytes (L4).
    pub fn up(&mut self, connection: u64) {
        if self.link != Link::Lost {
            self.link = Link::Up { connection };
            self.full = false;
            self.rewind(self.stored_tail);
            self.told_tail = LogletOffset::FIRST;
            self.followed = false;
            self.quiet_until = None;
        }
    }

    /// That connection is gone.
    pub fn down(&mut self, connection: u64) {
        if self.is_current(connection) {
            self.link = Link::Down;
            self.full = false;
        }
    }

    /// Whether an answer belongs to the connection in use.
    pub fn is_current(&self, of: u64) -> bool {
        match self.link {
            Link::Up { connection } | Link::Paused { connection, .. } => connection == of,
            Link::Down | Link::Lost => false,
        }
    }

    /// Whether somebody follows it. News that waits does not wait any longer then.
    pub fn followed(&mut self, connection: u64, followed: bool) {
        if self.is_current(connection) {
            self.followed = followed;
            if followed {
                self.quiet_until = None;
            }
        }
    }

    /// The committed tail moved on from `before`. Unless somebody follows this copy, the news waits for a batch; what is
    /// waiting already is not put off again.
    pub fn committed(&mut self, now_millis: u64, before: LogletOffset) {
        if self.told_tail >= before && !self.followed {
            self.quiet_until = Some(now_millis.saturating_add(NEWS_MILLIS));
        }
    }

    /// It was sent the committed tail.
    pub fn told(&mut self, tail: LogletOffset) {
        self.told_tail = tail;
        self.quiet_until = None;
    }

    /// Whether it is to be told `tail` even by itself.
    pub fn wants_news(&self, tail: LogletOffset) -> bool {
        self.told_tail < tail && self.quiet_until.is_none()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn wake_at(&self) -> Option<u64> {
        match self.link {
            Link::Paused { until_millis, .. } => Some(until_millis),
            Link::Up { .. } => self.quiet_until,
            Link::Down | Link::Lost => None,
        }
    }

    /// Everything below `tail` that is above the holes is durable there.
    pub fn stored(&mut self, tail: LogletOffset) {
        self.full = false;
        self.stored_tail = self.stored_tail.max(tail);
        self.sent_tail = self.sent_tail.max(tail);
        self.pause_millis = PAUSE_MILLIS_FIRST;
        while let Some((end, bytes)) = self.unanswered.front().copied()
            && end <= self.stored_tail
        {
            self.unanswered_bytes -= bytes;
            self.unanswered.pop_front();
        }
    }

    /// A message with batches of this many bytes, which ends there, goes out.
    pub fn sent(&mut self, end: LogletOffset, bytes: usize) {
        self.sent_tail = end;
        self.unanswered.push_back((end, bytes));
        self.unanswered_bytes += bytes;
    }

    /// Whether it answered enough of what it was sent to be sent more.
    pub const fn has_room(&self) -> bool {
        self.unanswered_bytes < COPY_WINDOW_BYTES
    }

    /// Whether nothing is under way to it on this connection.
    pub fn has_answered_all(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Sends again from `to` on: what was sent and not answered came to nothing.
    pub fn rewind(&mut self, to: LogletOffset) {
        self.sent_tail = to;
        self.unanswered.clear();
        self.unanswered_bytes = 0;
    }

    /// It refused for want of room: wait, longer each time, then send again what was not answered.
    pub fn pause(&mut self, now_millis: u64) {
        self.refused();
        // Each request that was under way is refused on its own; together they are one pause.
        if let Link::Up { connection } = self.link {
            self.link = Link::Paused { connection, until_millis: now_millis.saturating_add(self.pause_millis) };
            self.pause_millis = (self.pause_millis * 2).min(PAUSE_MILLIS_MAX);
            self.rewind(self.stored_tail);
        }
    }

    /// Ends a pause whose time has come, and the wait of news.
    pub fn tick(&mut self, now_millis: u64) {
        self.quiet_until = self.quiet_until.filter(|until| *until > now_millis);
        if let Link::Paused { connection, until_millis } = self.link
            && until_millis <= now_millis
        {
            self.link = Link::Up { connection };
        }
    }

    /// Remembers that `[from, until)` was skipped.
    pub fn skip(&mut self, from: LogletOffset, until: LogletOffset) {
        self.missing.push((from, until));
        self.missing.sort_unstable();
        self.missing.dedup_by(|later, earlier| {
            let touches = later.0 <= earlier.1;
            if touches {
                earlier.1 = earlier.1.max(later.1);
            }
            touches
        });
        while self.missing.len() > MISSING_MAX {
            // Joining two ranges sends a stretch again that is there: same bytes, no harm (L4).
            let (_, end) = self.missing.remove(1);
            if let Some(first) = self.missing.first_mut() {
                first.1 = end;
            }
        }
    }

    /// It refused something, whenever that was.
    pub fn refused(&mut self) {
        self.refused_at.get_or_insert(self.stored_tail);
    }

    /// After a success on that connection: what was on its way behind something that was refused may have been taken, with
    /// a hole before it that lies below the committed tail (L1). Answers do not tell, so all of it is to be backfilled.
    pub fn doubt_refused(&mut self, connection: u64, committed_tail: LogletOffset) {
        let Some(from) = self.refused_at else { return };
        let until = self.stored_tail.min(committed_tail);
        if from < until {
            self.skip(from, until);
        }
        // An answer of an older connection says nothing about what was refused on this one.
        self.refused_at = (!self.is_current(connection)).then_some(self.stored_tail);
    }

    /// The first stretch that is missing there.
    pub fn first_missing(&self) -> Option<(LogletOffset, LogletOffset)> {
        self.missing.first().copied()
    }

    /// What decides its future. Times are left out, and so is the number of the connection: an answer is of this one or
    /// of an older one, and whoever knows what is under way knows which.
    #[cfg(feature = "test-util")]
    pub fn hash_view<H: std::hash::Hasher>(&self, hasher: &mut H) {
        use std::hash::Hash;
        match self.link {
            Link::Down => 0_u8.hash(hasher),
            Link::Up { .. } => 1_u8.hash(hasher),
            Link::Paused { .. } => 2_u8.hash(hasher),
            // It takes no part any more, except that a full disk is remembered.
            Link::Lost => return (3_u8, self.full).hash(hasher),
        }
        (self.stored_tail, self.sent_tail, self.told_tail, self.full, &self.missing, &self.unanswered).hash(hasher);
        (self.refused_at, self.followed, self.quiet_until.is_some()).hash(hasher);
    }

    /// `[from, until)` was backfilled, `from` being where the first missing stretch starts.
    pub fn backfilled(&mut self, until: LogletOffset) {
        while let Some(first) = self.missing.first_mut() {
            if first.1 > until {
                first.0 = first.0.max(until);
                break;
            }
            self.missing.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bifrost_types::{Location, Member, NodeId, Nodeset};

    use super::*;

    fn offset(value: u64) -> LogletOffset {
        LogletOffset::new(value).expect("non-zero")
    }

    fn copy() -> CopyLink {
        let disk = DiskId::try_from(1).expect("non-zero");
        let member = Member { node: NodeId::try_from(1).expect("non-zero"), disk, location: Location::default() };
        let nodeset = Nodeset::new(vec![member]).expect("one member");
        CopyLink::new(nodeset.indexes().next().expect("one member"), disk)
    }

    #[test]
    fn skipped_ranges_join_and_shrink() {
        let mut copy = copy();
        copy.skip(offset(10), offset(20));
        copy.skip(offset(1), offset(5));
        copy.skip(offset(5), offset(11));
        assert_eq!(copy.first_missing(), Some((offset(1), offset(20))));
        copy.backfilled(offset(8));
        assert_eq!(copy.first_missing(), Some((offset(8), offset(20))));
        copy.backfilled(offset(20));
        assert_eq!(copy.first_missing(), None);
    }

    #[test]
    fn too_many_ranges_become_fewer_larger_ones() {
        let mut copy = copy();
        for start in 0..40 {
            copy.skip(offset(start * 10 + 1), offset(start * 10 + 2));
        }
        assert!(copy.missing.len() <= MISSING_MAX);
        assert_eq!(copy.first_missing().map(|range| range.0), Some(offset(1)));
    }

    #[test]
    fn a_silent_copy_is_sent_no_more_until_it_answers_or_reconnects() {
        let mut copy = copy();
        copy.up(1);
        copy.sent(offset(10), COPY_WINDOW_BYTES - 1);
        assert!(copy.has_room(), "one message may go beyond the limit, or a large batch never went");
        copy.sent(offset(20), 2);
        assert!(!copy.has_room());
        copy.stored(offset(9));
        assert!(!copy.has_room(), "the first message is not answered in full");
        copy.stored(offset(10));
        assert!(copy.has_room());
        copy.sent(offset(30), COPY_WINDOW_BYTES);
        copy.up(2);
        assert!(copy.has_room());
        assert_eq!(copy.sent_tail, offset(10));
    }

    #[test]
    fn an_old_connection_cannot_take_the_new_one_down() {
        let mut copy = copy();
        copy.up(1);
        copy.up(2);
        copy.down(1);
        assert_eq!(copy.link, Link::Up { connection: 2 });
        assert!(!copy.is_current(1));
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut copy = copy();
        copy.up(1);
        copy.pause(0);
        copy.tick(PAUSE_MILLIS_FIRST - 1);
        assert!(matches!(copy.link, Link::Paused { .. }));
        copy.tick(PAUSE_MILLIS_FIRST);
        assert_eq!(copy.link, Link::Up { connection: 1 });
        copy.pause(100);
        assert_eq!(copy.link, Link::Paused { connection: 1, until_millis: 100 + 2 * PAUSE_MILLIS_FIRST });
    }
}
