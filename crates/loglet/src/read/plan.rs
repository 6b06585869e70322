//! The core of a reader: which copy serves what, and how far. No IO, no clock, no bytes; it works on ranges.
//!
//! ```text
//!  primary   ═════════════▶ one copy pushes everything            [position .. limit)
//!  detour       ═══▶        a hole of the primary, from another   [position .. hole end)   the primary waits meanwhile
//!  watches   ─ ─ ─ ─ ─ ─ ─▶ the others tell their committed tail, once the primary was silent for a while
//! ```

use std::num::NonZeroU64;
use std::time::Duration;

use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletOffset, LogletParams, NodeIndex, NodeSet};

use super::copies::Copies;
use super::item::{GapKind, ReadError, ReadProgress, Readable};
use super::lane::{Lane, Part, PartKind, StreamId};
use super::options::{ReadOptions, doubled};

/// Most members that are watched for news of the tail: any f-majority meets every write quorum, but two live copies of
/// a committed record are enough to hear of it, and a reader of a large nodeset must not load all of it.
const WATCHES_MAX: usize = 7;
/// Patience is doubled at most so many times.
const PATIENCE_DOUBLINGS_MAX: u32 = 8;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The owner says how far may be read.
    Readable(Readable),
    /// A copy sent a part.
    Part { stream: StreamId, part: Part },
    /// A copy told how far may be read: its committed tail, or the decided tail that it was told.
    Tail { stream: StreamId, tail: LogletOffset },
    /// A stream ended or never began; `passing` if asking again soon can help.
    Ended { stream: StreamId, passing: bool },
    /// An operator declared the disks of these members lost. For ever: nobody takes such a word back.
    DeclaredLost(NodeSet),
    /// The time of [`ReadPlan::wake_at`] came, and no stream that is wanted had anything.
    TimePassed,
}

/// A stream to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) stream: StreamId,
    pub(super) node: NodeIndex,
    pub(super) from: LogletOffset,
    pub(super) until: Option<LogletOffset>,
    /// Only news of the tail is wanted, no records.
    pub(super) watch: bool,
    pub(super) credit_bytes: u64,
    pub(super) readable_tail: LogletOffset,
}

/// Something for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// `[from, end)` of the batch of the event at hand. At most one per event.
    Batch {
        from: LogletOffset,
        end: LogletOffset,
    },
    Filtered {
        from: LogletOffset,
        end: LogletOffset,
    },
    Gap {
        from: LogletOffset,
        end: LogletOffset,
        kind: GapKind,
    },
    CaughtUp {
        tail: LogletOffset,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Open(Open),
    Close(StreamId),
    Grant {
        stream: StreamId,
        credit_bytes: u64,
        readable_tail: LogletOffset,
    },
    Deliver(Delivery),
    /// A copy is damaged; said once per copy and range.
    Damaged {
        node: NodeIndex,
        from: LogletOffset,
        end: LogletOffset,
    },
    /// A copy was left because it was silent about something readable.
    Lagging {
        node: NodeIndex,
    },
    Progress(ReadProgress),
    Fail(ReadError),
    /// Everything was delivered.
    End,
}

/// Decides for one reader.
///
/// Pointer order: `position <= limit` once anything was delivered, where `limit` is the decided tail if it is known and
/// the highest committed tail that anybody told if not (R1), and never beyond `until`. A detour exists only while the
/// primary stands beyond `position`.
#[derive(Debug)]
pub(super) struct ReadPlan {
    options: ReadOptions,
    copies: Copies,
    /// First offset that was not delivered.
    position: LogletOffset,
    /// End of what was delivered as records.
    delivered: Option<LogletOffset>,
    until: Option<LogletOffset>,
    decided: Option<LogletOffset>,
    /// Highest committed tail known. Each part that a copy sends ends at or below what that copy knows to be committed.
    readable: LogletOffset,
    /// Highest tail that was told other than by sending records.
    announced: LogletOffset,
    trim_point: Option<LogletOffset>,
    primary: Option<Lane>,
    detour: Option<Lane>,
    streams: u64,
    /// Whether a copy confirmed the tail since the reader was opened.
    heard: bool,
    /// Whether anything was delivered or announced since `CaughtUp` was said.
    behind: bool,
    watching: bool,
    /// When the stream that is pulled began to owe an answer.
    silent_since: Duration,
    /// Changes of copy since something was delivered.
    changes: u32,
    /// Rounds in which every usable copy denied the position.
    denied_rounds: u32,
    /// When all are asked again.
    ask_again_at: Option<Duration>,
    progress: ReadProgress,
    ended: bool,
}

impl ReadPlan {
    /// A plan for `[from, until)`. Does nothing before the first [`Event::Readable`].
    pub(super) fn new(
        params: LogletParams,
        from: LogletOffset,
        until: Option<LogletOffset>,
        options: ReadOptions,
    ) -> Self {
        Self {
            options,
            copies: Copies::new(params, &options),
            position: from,
            delivered: None,
            until,
            decided: None,
            readable: LogletOffset::FIRST,
            announced: LogletOffset::FIRST,
            trim_point: None,
            primary: None,
            detour: None,
            streams: 0,
            heard: false,
            behind: true,
            watching: false,
            silent_since: Duration::ZERO,
            changes: 0,
            denied_rounds: 0,
            ask_again_at: None,
            progress: ReadProgress::Flowing,
            ended: false,
        }
    }

    /// Takes one event in. `now` is the time since the reader was opened and never goes back.
    pub(super) fn step(&mut self, now: Duration, event: Event, out: &mut Vec<Effect>) {
        if self.ended {
            return;
        }
        let was_flowing = self.progress == ReadProgress::Flowing;
        match event {
            Event::Readable(readable) => self.on_readable(now, readable, out),
            Event::Part { stream, part } => self.on_part(now, stream, part, out),
            Event::Tail { stream, tail } => self.on_tail(now, stream, tail),
            Event::Ended { stream, passing } => self.on_ended(now, stream, passing),
            Event::DeclaredLost(lost) => self.on_declared_lost(lost, out),
            Event::TimePassed => self.on_time_passed(now, out),
        }
        if !self.ended {
            self.drive(now, out);
        }
        if !was_flowing && self.progress == ReadProgress::Flowing {
            out.push(Effect::Progress(ReadProgress::Flowing));
        }
        #[cfg(test)]
        self.check();
    }

    /// The stream to pull parts from, or `None` to wait for news. The others, but for [watches](Self::is_watch), wait:
    /// their parts come after a hole that is filled first.
    pub(super) fn wanted(&self) -> Option<StreamId> {
        match (&self.detour, &self.primary) {
            (Some(detour), _) => Some(detour.stream),
            (None, Some(primary)) if primary.next <= self.position => Some(primary.stream),
            (None, _) => None,
        }
    }

    /// Whether a stream only tells the tail.
    pub(super) fn is_watch(&self, stream: StreamId) -> bool {
        self.copies.watched_by(stream).is_some()
    }

    /// When to send [`Event::TimePassed`].
    pub(super) fn wake_at(&self, now: Duration) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let retry = if self.wants_more_copies() { self.copies.next_retry(now) } else { None };
        [retry, self.ask_again_at, self.silence_ends()].into_iter().flatten().min()
    }

    /// First offset that may not be delivered (R1).
    fn limit(&self) -> LogletOffset {
        let limit = self.decided.unwrap_or(self.readable);
        self.until.map_or(limit, |until| limit.min(until))
    }

    /// Where the reader ends, once that is known.
    fn end(&self) -> Option<LogletOffset> {
        match (self.decided, self.until) {
            (Some(decided), Some(until)) => Some(decided.min(until)),
            (decided, until) => decided.or(until),
        }
    }

    /// End of the readable range that the primary denied, if it stands beyond one.
    fn hole_end(&self) -> Option<LogletOffset> {
        let end = self.primary.as_ref()?.next.min(self.limit());
        (end > self.position).then_some(end)
    }

    fn on_readable(&mut self, now: Duration, readable: Readable, out: &mut Vec<Effect>) {
        self.announce(now, readable.tail);
        self.trim_point = self.trim_point.max(readable.trim_point);
        let Some(decided) = readable.decided else { return };
        if let Some(first) = self.decided
            && first != decided
        {
            return self.fail(ReadError::DecidedTwice { first, second: decided }, out);
        }
        if let Some(end) = self.delivered
            && end > decided
        {
            return self.fail(ReadError::BeyondDecided { end, decided }, out);
        }
        let idle = self.limit() <= self.position;
        self.decided = Some(decided);
        if idle {
            self.silent_since = now;
        }
    }

    fn on_tail(&mut self, now: Duration, stream: StreamId, tail: LogletOffset) {
        let of_primary = self.primary.as_ref().filter(|primary| primary.stream == stream).map(|primary| primary.node);
        let Some(node) = of_primary.or_else(|| self.copies.watched_by(stream)) else { return };
        self.copies.told(node, tail);
        self.heard = true;
        self.announce(now, tail);
        if self.limit() <= self.position {
            // Nothing is owed, and a copy answers: whatever blocked the reader is over.
            self.copies.helped(node);
            if of_primary.is_some() {
                self.progress = ReadProgress::Flowing;
            }
        }
    }

    fn on_part(&mut self, now: Duration, stream: StreamId, part: Part, out: &mut Vec<Effect>) {
        if self.is_watch(stream) {
            // Not asked for, but news: a copy covers only what it knows to be committed.
            return self.on_tail(now, stream, part.end);
        }
        let lanes = [&mut self.detour, &mut self.primary];
        let Some(lane) = lanes.into_iter().flatten().find(|lane| lane.stream == stream) else { return };
        let node = lane.node;
        let Ok(start) = lane.accept(part) else {
            // The peer does not speak the protocol; nothing that follows can be placed.
            out.push(Effect::Close(stream));
            return self.on_ended(now, stream, false);
        };
        self.copies.told(node, part.end);
        self.raise(now, part.end);
        let from = start.max(self.position);
        let end = self.end().map_or(part.end, |end| end.min(part.end));
        if end <= from {
            return;
        }
        match part.kind {
            PartKind::Batch => self.deliver(now, node, Delivery::Batch { from, end }, end, out),
            PartKind::Filtered => self.deliver(now, node, Delivery::Filtered { from, end }, end, out),
            PartKind::Trimmed => {
                self.deliver(now, node, Delivery::Gap { from, end, kind: GapKind::Trimmed }, end, out);
            }
            PartKind::Missing if plant::is(Plant::HoleSkipped) => self.advance(now, end),
            PartKind::Corrupt if plant::is(Plant::DamagedToldAsLost) => {
                self.deliver(now, node, Delivery::Gap { from, end, kind: GapKind::Lost }, end, out);
            }
            PartKind::Missing => self.on_denial(now, stream, node, end, out),
            PartKind::Corrupt => {
                if self.copies.is_new_damage(node, from, end) {
                    out.push(Effect::Damaged { node, from, end });
                }
                self.on_denial(now, stream, node, end, out);
            }
        }
    }

    fn deliver(
        &mut self,
        now: Duration,
        node: NodeIndex,
        delivery: Delivery,
        end: LogletOffset,
        out: &mut Vec<Effect>,
    ) {
        self.copies.helped(node);
        if !matches!(delivery, Delivery::Gap { .. }) {
            self.delivered = Some(end);
        }
        self.advance(now, end);
        out.push(Effect::Deliver(delivery));
    }

    fn advance(&mut self, now: Duration, position: LogletOffset) {
        self.position = position;
        self.behind = true;
        self.silent_since = now;
        self.changes = 0;
        self.denied_rounds = 0;
        self.ask_again_at = None;
        self.progress = ReadProgress::Flowing;
    }

    fn on_denial(
        &mut self,
        now: Duration,
        stream: StreamId,
        node: NodeIndex,
        end: LogletOffset,
        out: &mut Vec<Effect>,
    ) {
        self.copies.deny(node, end);
        self.silent_since = now;
        if self.detour.as_ref().is_some_and(|detour| detour.stream == stream) {
            self.close_detour(out);
        }
    }

    fn on_ended(&mut self, now: Duration, stream: StreamId, passing: bool) {
        if let Some(node) = self.copies.watched_by(stream) {
            self.copies.set_watch(node, None);
            return self.copies.failed(node, now, passing);
        }
        for lane in [&mut self.detour, &mut self.primary] {
            if let Some(ended) = lane.take_if(|lane| lane.stream == stream) {
                self.copies.failed(ended.node, now, passing);
            }
        }
    }

    /// What follows is what follows when their streams end: somebody else is asked, or, if all others deny, the range is
    /// lost (R3).
    fn on_declared_lost(&mut self, lost: NodeSet, out: &mut Vec<Effect>) {
        for lane in [&mut self.detour, &mut self.primary] {
            let ended = lane.take_if(|lane| lost.contains(lane.node));
            out.extend(ended.map(|lane| Effect::Close(lane.stream)));
        }
        out.extend(self.copies.declare_lost(lost).into_iter().map(Effect::Close));
    }

    fn on_time_passed(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.ask_again_at.is_some_and(|at| at <= now) {
            self.ask_again_at = None;
            self.copies.forget_denials();
        }
        if self.silence_ends().is_some_and(|at| at <= now) {
            self.on_silence(now, out);
        }
    }

    /// When the patience with the stream that is pulled is over.
    fn silence_ends(&self) -> Option<Duration> {
        self.wanted()?;
        let owes_records = self.limit() > self.position;
        let owes_news = !self.watching && self.decided.is_none();
        if !owes_records && !owes_news {
            return None;
        }
        let doublings = self.changes.min(PATIENCE_DOUBLINGS_MAX);
        self.silent_since.checked_add(doubled(self.options.patience, doublings, Duration::MAX))
    }

    /// The stream that is pulled gave nothing for too long: it may be cut off, or lag behind.
    fn on_silence(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let (position, limit) = (self.position, self.limit());
        self.silent_since = now;
        // Who is slow to give records is slow to give news of them, too.
        self.watching = true;
        if limit <= position {
            return;
        }
        self.changes = self.changes.saturating_add(1);
        let lane = if self.detour.is_some() { &mut self.detour } else { &mut self.primary };
        let Some(silent) = lane else { return };
        let node = silent.node;
        if self.copies.candidates(now, position, limit).any(|other| other != node) {
            out.push(Effect::Close(silent.stream));
            out.push(Effect::Lagging { node });
            *lane = None;
            self.copies.failed(node, now, true);
        } else {
            // Nobody else to ask. It may just not know yet how far may be read; if it does, it answers with a denial.
            if silent.told < limit {
                silent.told = limit;
                out.push(Effect::Grant { stream: silent.stream, credit_bytes: 0, readable_tail: limit });
            }
            self.block(position, limit, out);
        }
    }

    /// News of the tail other than by records.
    fn announce(&mut self, now: Duration, tail: LogletOffset) {
        self.announced = self.announced.max(tail);
        self.behind |= self.announced > self.position;
        self.raise(now, tail);
    }

    fn raise(&mut self, now: Duration, tail: LogletOffset) {
        let idle = self.limit() <= self.position;
        self.readable = self.readable.max(tail);
        if idle {
            self.silent_since = now;
        }
    }

    fn fail(&mut self, error: ReadError, out: &mut Vec<Effect>) {
        self.close_all(out);
        self.ended = true;
        out.push(Effect::Fail(error));
    }

    /// Brings streams in line with what is known.
    fn drive(&mut self, now: Duration, out: &mut Vec<Effect>) {
        loop {
            self.skip_trimmed(now, out);
            if self.end().is_some_and(|end| end <= self.position) {
                self.close_all(out);
                self.ended = true;
                out.push(Effect::End);
                return;
            }
            if self.hole_end().is_none() {
                self.close_detour(out);
            }
            let lost_some = match (&self.primary, self.hole_end()) {
                (None, _) => self.open_primary(now, out),
                (Some(_), Some(hole_end)) if self.detour.is_none() => self.open_detour(now, hole_end, out),
                (Some(_), _) => false,
            };
            if !lost_some {
                break;
            }
        }
        self.keep_watches(now, out);
        self.grant(out);
        self.say_caught_up(out);
    }

    fn skip_trimmed(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(beyond) = self.trim_point.and_then(|point| point.advance(1).ok()) else { return };
        let end = self.end().map_or(beyond, |end| end.min(beyond));
        if end > self.position {
            // What was trimmed was committed before.
            self.raise(now, end);
            let from = self.position;
            self.advance(now, end);
            out.push(Effect::Deliver(Delivery::Gap { from, end, kind: GapKind::Trimmed }));
        }
    }

    /// Returns whether a lost range was given up and there may be more to do.
    fn open_primary(&mut self, now: Duration, out: &mut Vec<Effect>) -> bool {
        // A detour only fills a hole of a primary.
        self.close_detour(out);
        let (position, limit) = (self.position, self.limit());
        if limit > position && self.give_up_lost(now, limit, out) {
            return true;
        }
        let willing = self.copies.candidates(now, position, limit).next();
        // One that denied the position still has what comes after, and a detour will look for the rest.
        let Some(node) = willing.or_else(|| self.copies.usable(now, limit).next()) else {
            self.block(position, limit.max(position), out);
            return false;
        };
        if let Some(watch) = self.copies.watch_of(node) {
            self.copies.set_watch(node, None);
            out.push(Effect::Close(watch));
        }
        let budget = self.options.credit_bytes.get().saturating_sub(self.detour_budget()).max(1);
        let lane = Lane::new(self.next_stream(), node, position, limit, budget);
        out.push(Effect::Open(open(&lane, self.end(), budget)));
        self.primary = Some(lane);
        self.silent_since = now;
        false
    }

    /// Returns whether a lost range was given up and there may be more to do.
    fn open_detour(&mut self, now: Duration, hole_end: LogletOffset, out: &mut Vec<Effect>) -> bool {
        let (position, limit) = (self.position, self.limit());
        let Some(node) = self.copies.candidates(now, position, limit).next() else {
            if self.give_up_lost(now, hole_end, out) {
                return true;
            }
            self.block(position, hole_end, out);
            if self.ask_again_at.is_none() {
                let pause = doubled(self.options.retry_min, self.denied_rounds, self.options.retry_max);
                self.ask_again_at = now.checked_add(pause);
                self.denied_rounds = self.denied_rounds.saturating_add(1);
            }
            return false;
        };
        self.ask_again_at = None;
        let budget = self.detour_budget();
        let lane = Lane::new(self.next_stream(), node, position, limit, budget);
        out.push(Effect::Open(open(&lane, Some(hole_end), budget)));
        self.detour = Some(lane);
        self.silent_since = now;
        false
    }

    /// R3. Delivers `Lost` for as much of `[position, end)` as is proved to be.
    fn give_up_lost(&mut self, now: Duration, end: LogletOffset, out: &mut Vec<Effect>) -> bool {
        let Some(denied_until) = self.copies.all_deny(self.position) else { return false };
        let end = denied_until.map_or(end, |until| until.min(end));
        if end <= self.position {
            return false;
        }
        let from = self.position;
        self.advance(now, end);
        out.push(Effect::Deliver(Delivery::Gap { from, end, kind: GapKind::Lost }));
        true
    }

    /// A share of the credit is kept for detours, or a hole would wait for credit that the paused primary holds.
    fn detour_budget(&self) -> u64 {
        const SHARE: NonZeroU64 = NonZeroU64::new(4).expect("4 is not 0");
        (self.options.credit_bytes.get() / SHARE).max(1)
    }

    fn keep_watches(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let wanted = self.watching && self.decided.is_none();
        for node in self.copies.all() {
            match (self.copies.watch_of(node), wanted) {
                (Some(stream), false) => {
                    self.copies.set_watch(node, None);
                    out.push(Effect::Close(stream));
                }
                (None, true) if self.may_watch(node, now) => {
                    let stream = self.next_stream();
                    self.copies.set_watch(node, Some(stream));
                    out.push(Effect::Open(Open {
                        stream,
                        node,
                        // Beyond all records: a copy tells its tail only while it has nothing to send.
                        from: LogletOffset::MAX,
                        until: None,
                        watch: true,
                        credit_bytes: 0,
                        readable_tail: LogletOffset::FIRST,
                    }));
                }
                (Some(_), true) | (None, _) => {}
            }
        }
    }

    fn may_watch(&self, node: NodeIndex, now: Duration) -> bool {
        let is_primary = self.primary.as_ref().is_some_and(|primary| primary.node == node);
        let is_usable = self.copies.usable(now, self.limit()).any(|usable| usable == node);
        !is_primary && is_usable && self.copies.watches() < WATCHES_MAX
    }

    /// Whether a copy that may be asked again would be.
    fn wants_more_copies(&self) -> bool {
        let in_need = self.wanted().is_none() || self.limit() > self.position;
        in_need || (self.watching && self.decided.is_none() && self.copies.watches() < WATCHES_MAX)
    }

    fn grant(&mut self, out: &mut Vec<Effect>) {
        let wanted = self.wanted();
        for lane in [&mut self.detour, &mut self.primary].into_iter().flatten() {
            // The primary that waits has no use for more credit.
            let credit = if Some(lane.stream) == wanted { lane.owed() } else { None };
            // After the decision nothing is in flight any more: who lacks something below the decided tail may say so.
            let news = self.decided.filter(|decided| *decided > lane.told);
            if credit.is_some() || news.is_some() {
                lane.told = lane.told.max(news.unwrap_or(lane.told));
                let (stream, readable_tail) = (lane.stream, lane.told);
                out.push(Effect::Grant { stream, credit_bytes: credit.unwrap_or(0), readable_tail });
            }
        }
    }

    fn say_caught_up(&mut self, out: &mut Vec<Effect>) {
        let tail = self.readable;
        // Records alone prove no end: while they flow, more may be on the way.
        let confirmed = self.heard && self.announced >= tail;
        if self.behind && confirmed && self.decided.is_none() && self.position >= tail {
            self.behind = false;
            out.push(Effect::Deliver(Delivery::CaughtUp { tail }));
        }
    }

    fn block(&mut self, from: LogletOffset, end: LogletOffset, out: &mut Vec<Effect>) {
        let blocked = ReadProgress::Blocked(self.copies.blocked(from, end));
        if self.progress != blocked {
            self.progress = blocked.clone();
            out.push(Effect::Progress(blocked));
        }
    }

    fn close_detour(&mut self, out: &mut Vec<Effect>) {
        if let Some(detour) = self.detour.take() {
            out.push(Effect::Close(detour.stream));
        }
    }

    fn close_all(&mut self, out: &mut Vec<Effect>) {
        self.close_detour(out);
        if let Some(primary) = self.primary.take() {
            out.push(Effect::Close(primary.stream));
        }
        for node in self.copies.all() {
            if let Some(watch) = self.copies.watch_of(node) {
                self.copies.set_watch(node, None);
                out.push(Effect::Close(watch));
            }
        }
    }

    fn next_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    /// The pointer order.
    #[cfg(test)]
    fn check(&self) {
        assert!(self.delivered.is_none_or(|end| end <= self.limit().max(self.position)));
        assert!(self.decided.is_none_or(|decided| self.delivered.is_none_or(|end| end <= decided)));
        assert!(self.detour.is_none() || self.hole_end().is_some(), "a detour fills a hole");
        assert!(self.detour.as_ref().is_none_or(|detour| detour.next <= self.position), "a detour leaves no hole");
        assert!(self.ended || self.primary.is_some() || self.progress != ReadProgress::Flowing, "stuck in silence");
    }
}

fn open(lane: &Lane, until: Option<LogletOffset>, credit_bytes: u64) -> Open {
    Open {
        stream: lane.stream,
        node: lane.node,
        from: lane.next,
        until,
        watch: false,
        credit_bytes,
        readable_tail: lane.told,
    }
}

#[cfg(test)]
mod tests;
