//! One log: append, read, find the tail, trim, reconfigure.

use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_loglet::quorum::Quorum;
use bifrost_loglet::settle::trim_loglet;
use bifrost_loglet::tail::{OpenCheck, confirm_open};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{
    Actor, AppendId, Chain, CloseReason, LogId, LogletOffset, LogletParams, Lsn, NodeId, OpId, Reconfiguration,
    ReplicationProperty, Segment, SegmentIndex, Successor,
};
use bifrost_wire::sequencer::{AppendOpen, SequencerCallError, SequencerError, SequencerTails};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use crate::appender::Appender;
use crate::back_off::BackOff;
use crate::chain::{self, ChainError, raise_trim_point, to_leave};
use crate::cluster::fresh_op;
use crate::error::{LogError, ReadError, Resolved};
use crate::log_state::{LogState, is_closed};
use crate::options::{AppenderOptions, ReadOptions};
use crate::placement::{Leave, PlanError, Wish};
use crate::reader::Reader;
use crate::reconfigure::{Intent, Progress, ReconfigureError, Reconfigured};
use crate::settle::scan;
use crate::tail::{Doubt, TailUnknown, proved_tails};

/// How long servers have to drop what was trimmed; a server that misses it drops it with the next trim.
const TRIM_DEADLINE: Duration = Duration::from_secs(5);

/// How sure a tail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TailKind {
    /// The highest tail that this process has heard of: costs nothing, may be old, is never too high.
    Cached,
    /// At least every append that was acknowledged, to anybody, before the call began (R4).
    Linearizable,
}

/// A tail: the first LSN that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// First LSN not written.
    pub lsn: Lsn,
    /// How sure that is.
    pub kind: TailKind,
}

/// What a planned reconfiguration should change. The default moves the sequencer to another node and keeps everything
/// else as placement sees fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReconfigureOptions {
    /// The operation; give the same one again to resume or to learn its outcome (C4). Default: a fresh one.
    pub op: Option<OpId>,
    /// What comes after, in full; then the three that follow are not looked at. Default: chosen by placement.
    pub successor: Option<Successor>,
    /// The nodes that may hold the records of the next segment. Default: chosen by placement.
    pub nodes: Option<Vec<NodeId>>,
    /// The replication property from the next segment on. Default: as it is.
    pub replication: Option<ReplicationProperty>,
    /// The node whose present life numbers the appends of the next segment. Default: another node than now.
    pub sequencer: Option<NodeId>,
    /// Close the log for good: no segment comes after.
    pub close: bool,
}

/// What a reconfiguration would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The segment that it would close.
    pub closes: SegmentIndex,
    /// What would come after, or `None` if it would close the log for good.
    pub successor: Option<Successor>,
    /// What is pending already: it would be carried out in place of the plan.
    pub pending: Option<Reconfiguration>,
}

/// A log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    state: Arc<LogState>,
}

impl Log {
    pub(crate) const fn new(state: Arc<LogState>) -> Self {
        Self { state }
    }

    /// The log's id.
    pub fn id(&self) -> LogId {
        self.state.log
    }

    /// The log's name, if it has one.
    pub fn name(&self) -> Option<String> {
        self.state.chain().chain.name.clone()
    }

    /// The chain as this process has last seen it. Costs nothing; may be old.
    pub fn chain(&self) -> Chain {
        self.state.chain().chain.clone()
    }

    /// The chain, read linearizably.
    ///
    /// # Errors
    /// [`LogError::Catalog`] when metadata cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn describe(&self) -> Result<Chain, LogError> {
        Ok(self.state.refresh().await?.chain.clone())
    }

    /// What a reconfiguration that this process drives is doing, and whom it waits for.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.state.progress().subscribe()
    }

    /// An appender with default options.
    pub fn appender(&self) -> Appender {
        self.appender_with(AppenderOptions::default())
    }

    /// An appender.
    pub fn appender_with(&self, options: AppenderOptions) -> Appender {
        self.state.appended_from(options.preferred);
        Appender::start(self.state.clone(), options)
    }

    /// A reader.
    pub fn read(&self, options: ReadOptions) -> Reader {
        Reader::open(self.state.clone(), options)
    }

    /// The first LSN that is not written. See [`TailKind`] for what each kind costs and says.
    ///
    /// A linearizable tail waits while a write quorum cannot be reached. It closes the segment itself when its sequencer is
    /// gone, or when the write quorum is and a nodeset of others could take its place.
    ///
    /// # Errors
    /// [`LogError`] when metadata cannot be read or the segment not be closed.
    ///
    /// # Cancel safety
    /// Safe. A reconfiguration that it began is finished by whoever comes next.
    pub async fn find_tail(&self, kind: TailKind) -> Result<Tail, LogError> {
        match kind {
            TailKind::Cached => Ok(Tail { lsn: self.state.known_tail(), kind }),
            TailKind::Linearizable => {
                let lsn = self.while_there(self.linearizable_tail()).await?;
                Ok(Tail { lsn, kind })
            }
        }
    }

    /// Does something that may have to wait, but not for a log that is gone.
    async fn while_there<T, E: From<LogError>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::select! {
            biased;
            () = self.state.deleted.cancelled() => Err(LogError::Deleted { log: self.state.log }.into()),
            result = work => result,
        }
    }

    async fn linearizable_tail(&self) -> Result<Lsn, LogError> {
        let mut back_off = BackOff::new();
        let mut stored = self.state.chain();
        loop {
            let last = stored.chain.last().ok_or(ChainError::Damaged)?.clone();
            if let Some(tail) = last.decided_tail() {
                // Closed for good, or seen too early: the chain itself is the proof (R4).
                stored = self.state.refresh().await?;
                if stored.chain.last() == Some(&last) {
                    return Ok(tail.to_lsn(last.base_lsn).map_err(ChainError::from)?);
                }
                continue;
            }
            let unknown = match self.open_tail(&last).await {
                Ok(tail) => return Ok(tail),
                Err(unknown) => unknown,
            };
            stored = self.state.refresh().await?;
            let goes_on = is_closed(&stored.chain, last.index()) || self.clear_doubt(last, unknown).await?;
            if !goes_on {
                back_off.pause().await;
            }
            stored = self.state.chain();
        }
    }

    /// The tail of an open segment, from its sequencer and its copies. Both are asked after the call began: one for the tail,
    /// the others for the proof that it was still open (R4).
    async fn open_tail(&self, last: &Segment) -> Result<Lsn, TailUnknown> {
        let (tails, check) = tokio::join!(self.sequencer_tails(last), self.confirm(last));
        let tails = proved_tails(last.params.sequencer, tails, check?)?;
        self.state.learn_committed(last.index(), tails.committed_tail);
        Ok(tails.committed_tail.to_lsn(last.base_lsn).map_err(ChainError::from)?)
    }

    /// Does what can be done about a tail that is not known; whether that was anything.
    async fn clear_doubt(&self, last: Segment, unknown: TailUnknown) -> Result<bool, LogError> {
        match unknown {
            TailUnknown::Sealed { .. } => self.close(&last, CloseReason::OrphanedSeal).await.map(|()| true),
            TailUnknown::SequencerGone { .. } if plant::is(Plant::DeadSequencerStays) => Ok(false),
            TailUnknown::SequencerGone { .. } => self.close(&last, CloseReason::SequencerGone).await.map(|()| true),
            TailUnknown::NoWriteQuorum { .. } => {
                let state = self.state.clone();
                self.on_a_task(Box::pin(async move { state.leave_unwritable(&last, Actor::Appender).await })).await
            }
            TailUnknown::SequencerBusy { .. } => Ok(false),
            TailUnknown::Chain(error) => Err(error.into()),
        }
    }

    async fn confirm(&self, last: &Segment) -> Result<OpenCheck, ChainError> {
        let deadline = self.state.cluster.options.call_deadline;
        let peers = self.state.cluster.peers();
        confirm_open(&last.params, peers.as_ref(), deadline).await.map_err(|_| ChainError::Damaged)
    }

    async fn sequencer_tails(&self, last: &Segment) -> Result<SequencerTails, Doubt> {
        let LogletParams { id, sequencer, .. } = last.params;
        let sequencers = self.state.cluster.directory.sequencers(sequencer).ok_or(Doubt::Gone)?;
        match timeout(self.state.cluster.options.call_deadline, sequencers.tails(id, sequencer)).await {
            Ok(Ok(tails)) => Ok(tails),
            Ok(Err(SequencerCallError::Refused(SequencerError::Overloaded))) => Err(Doubt::Busy),
            Ok(Err(error)) => {
                debug!(loglet = %id, %sequencer, %error, "sequencer gives no tail");
                Err(Doubt::Gone)
            }
            Err(_) => Err(Doubt::Gone),
        }
    }

    /// The tail of the last segment without waiting for anything: a few seconds at most, and nothing is closed or moved
    /// for it. Linearizable if it is known.
    ///
    /// # Errors
    /// [`TailUnknown`] says why it is not known now.
    ///
    /// # Cancel safety
    /// Safe: it only asks.
    pub async fn peek_tail(&self) -> Result<Lsn, TailUnknown> {
        let stored = self.state.chain();
        let last = stored.chain.last().ok_or(ChainError::Damaged)?;
        match last.decided_tail() {
            Some(tail) => Ok(tail.to_lsn(last.base_lsn).map_err(ChainError::from)?),
            None => self.open_tail(last).await,
        }
    }

    async fn close(&self, segment: &Segment, reason: CloseReason) -> Result<(), LogError> {
        let (state, loglet) = (self.state.clone(), segment.params.id);
        self.on_a_task(Box::pin(async move { state.close_segment(loglet, reason, Actor::Appender).await })).await
    }

    /// Changes the chain on a task of its own, since a caller may stop polling.
    async fn on_a_task<T: Send + 'static>(
        &self,
        change: BoxFuture<'static, Result<T, ReconfigureError>>,
    ) -> Result<T, LogError> {
        let stop = self.state.cluster.stop.child_token();
        let changing = self.state.cluster.tasks.spawn(stop.run_until_cancelled_owned(change));
        match changing.await {
            Ok(Some(changed)) => Ok(changed?),
            Ok(None) | Err(_) => Err(LogError::ShutDown),
        }
    }

    /// Trims the log up to and including `up_to`; returns the trim point that now holds, which is at least that. Readers
    /// see a gap of kind trimmed from then on; space at the servers returns in the background.
    ///
    /// # Errors
    /// [`LogError::BeyondTail`] when that much is not written; [`LogError::Catalog`] when metadata gave no answer: trim
    /// again.
    ///
    /// # Cancel safety
    /// Safe: the trim point holds or does not; trimming again is no error.
    pub async fn trim(&self, up_to: Lsn) -> Result<Lsn, LogError> {
        self.while_there(self.trim_while_there(up_to)).await
    }

    async fn trim_while_there(&self, up_to: Lsn) -> Result<Lsn, LogError> {
        if self.state.known_tail() <= up_to {
            match self.linearizable_tail().await {
                Ok(tail) if tail <= up_to && !plant::is(Plant::TrimAboveCommitted) => {
                    return Err(LogError::BeyondTail { asked: up_to, tail });
                }
                // The tail is behind every LSN that there is.
                Ok(_) | Err(LogError::Chain(ChainError::Exhausted)) => {}
                Err(error) => return Err(error),
            }
        }
        loop {
            let stored = self.state.refresh().await?;
            let before = stored.chain.trim_point;
            let Some(next) = raise_trim_point(&stored.chain, up_to)? else { return Ok(before.unwrap_or(up_to)) };
            match self.state.cluster.catalog.replace(&stored, self.state.taking_along(next)).await {
                Ok(written) => {
                    self.tell_trimmed(&written.chain, before, up_to);
                    if !to_leave(&written.chain).is_empty() {
                        self.shorten();
                    }
                    self.state.learn(written);
                    return Ok(up_to);
                }
                Err(crate::catalog::CatalogError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes what is wholly trimmed off the chain, in the background; a controller finishes what is left.
    fn shorten(&self) {
        let state = self.state.clone();
        let stop = self.state.cluster.stop.child_token();
        self.state.cluster.tasks.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled_owned(state.shorten()).await {
                debug!(log = %state.log, %error, "trimmed segments are left to the controllers");
            }
        });
    }

    /// Tells the servers of segments that stay in the chain: there are few of which anything is trimmed.
    fn tell_trimmed(&self, chain: &Chain, before: Option<Lsn>, trim_point: Lsn) {
        for segment in chain.segments.iter().skip(to_leave(chain).len()) {
            let Some(mut point) = LogletOffset::from_lsn(trim_point, segment.base_lsn) else { continue };
            if let Some(decided) = segment.decided_tail() {
                let ended = decided.to_lsn(segment.base_lsn).ok();
                let trimmed_before = before.zip(ended).is_some_and(|(before, end)| end.previous() <= Some(before));
                let Some(last) = decided.previous().filter(|_| !trimmed_before) else { continue };
                point = point.min(last);
            }
            let params = segment.params.clone();
            let peers: Arc<dyn Peers> = self.state.cluster.peers();
            let stop = self.state.cluster.stop.child_token();
            self.state.cluster.tasks.spawn(async move {
                let telling = trim_loglet(&params, point, peers.as_ref(), TRIM_DEADLINE);
                let _stopped = stop.run_until_cancelled_owned(telling).await;
            });
        }
    }

    /// Closes the last segment and opens the next, elsewhere or otherwise; returns how that ended. Appenders and readers
    /// go on without noticing. Waits while an f-majority of the segment's nodeset cannot be reached;
    /// [`progress`](Self::progress) says for whom.
    ///
    /// # Errors
    /// [`LogError`] when the log is closed for good, cannot be placed, or metadata cannot be reached.
    ///
    /// # Cancel safety
    /// Safe at every await: appenders, readers of the tail, or another call finish what was begun (C4).
    pub async fn reconfigure(&self, options: ReconfigureOptions) -> Result<Reconfigured, LogError> {
        self.while_there(self.reconfigure_while_there(options)).await
    }

    async fn reconfigure_while_there(&self, options: ReconfigureOptions) -> Result<Reconfigured, LogError> {
        let op = options.op.unwrap_or_else(fresh_op);
        loop {
            match Box::pin(self.reconfigure_once(op, &options)).await {
                // A node was taken out of service while placement chose it: choose again. What was asked for by name is
                // refused.
                Err(LogError::Plan(
                    PlanError::UnknownNode { .. } | PlanError::NotWritable { .. } | PlanError::NoRole { .. },
                )) if options.successor.is_none() && options.nodes.is_none() && options.sequencer.is_none() => {}
                outcome => return outcome,
            }
        }
    }

    async fn reconfigure_once(&self, op: OpId, options: &ReconfigureOptions) -> Result<Reconfigured, LogError> {
        let stored = self.state.refresh().await?;
        let last = stored.chain.last().ok_or(ChainError::Damaged)?;
        let finished = chain::outcome(&stored.chain, op);
        if finished.is_none() && last.decided_tail().is_some() {
            return Err(ChainError::Closed.into());
        }
        // What the operation is about: the segment that it closed if it is over, else the last one.
        let segment = finished.as_ref().map_or(last.index(), |finished| finished.segment);
        // Nothing is opened any more, so nothing has to be placed to learn the outcome.
        let successor = if finished.is_some() { None } else { self.plan_successor(last, options).await? };
        let intent = Intent { op, segment, actor: Actor::Operator, reason: CloseReason::Requested, successor };
        Ok(self.state.drive(&intent).await?)
    }

    /// What [`reconfigure`](Self::reconfigure) would do now, without doing it.
    ///
    /// # Errors
    /// [`LogError`] when the log is closed for good, metadata cannot be read, or the wish cannot be met:
    /// [`LogError::Plan`] names the node or the domain that is in the way.
    ///
    /// # Cancel safety
    /// Safe: it only asks.
    pub async fn plan_reconfigure(&self, options: &ReconfigureOptions) -> Result<Plan, LogError> {
        let stored = self.state.refresh().await?;
        let last = stored.chain.last().ok_or(ChainError::Damaged)?;
        if last.decided_tail().is_some() {
            return Err(ChainError::Closed.into());
        }
        let successor = self.plan_successor(last, options).await?;
        Ok(Plan { closes: last.index(), successor, pending: stored.chain.pending.clone() })
    }

    async fn plan_successor(
        &self,
        last: &Segment,
        options: &ReconfigureOptions,
    ) -> Result<Option<Successor>, PlanError> {
        if options.close {
            return Ok(None);
        }
        if let Some(successor) = &options.successor {
            Quorum::new(&successor.nodeset, &successor.replication)?;
            return Ok(Some(successor.clone()));
        }
        let ReconfigureOptions { nodes, replication, sequencer, .. } = options.clone();
        let wish = Wish { nodes, replication, sequencer };
        self.state.plan(last, Leave::Rotate, &wish).await.map(Some)
    }

    /// What became of an append whose outcome was unknown. Waits until that can be said: until the segment of the
    /// attempt is closed, or its sequencer has promised to take nothing more of it.
    ///
    /// # Errors
    /// [`ResolveError`](LogError) when metadata cannot be reached or a promise was found broken.
    ///
    /// # Cancel safety
    /// Safe: asking again gives the same answer.
    pub async fn resolve(&self, append: AppendId) -> Result<Resolved, ResolveError> {
        self.while_there(self.resolve_while_there(append)).await
    }

    async fn resolve_while_there(&self, append: AppendId) -> Result<Resolved, ResolveError> {
        let mut back_off = BackOff::new();
        loop {
            let stored = self.state.refresh().await.map_err(LogError::from)?;
            let Some(segment) = stored.chain.segment(append.segment).cloned() else { return Ok(Resolved::Unknowable) };
            let Some(from) = LogletOffset::from_lsn(append.from, segment.base_lsn) else {
                return Ok(Resolved::Unknowable);
            };
            let until = match segment.decided_tail() {
                Some(decided) => Some(decided),
                None => self.fence(&segment, append).await,
            };
            if let Some(until) = until {
                let found = scan(&self.state, &segment, from, Some(until), append.writer, &[append.sequence]).await;
                let found = found.map_err(|cause| ReadError::Broken { log: self.state.log, cause })?;
                let offset = found.offsets.get(&append.sequence);
                // A fence in a segment that was closed meanwhile ends at the decided tail, which says the same.
                return Ok(match offset.map(|offset| offset.to_lsn(segment.base_lsn)) {
                    Some(Ok(lsn)) => Resolved::Committed(lsn),
                    Some(Err(_)) => Resolved::Unknowable,
                    None if found.gaps => Resolved::Unknowable,
                    None => Resolved::NotAppended,
                });
            }
            if let Err(error) = self.close(&segment, CloseReason::SequencerGone).await {
                debug!(log = %self.state.log, %error, "an append cannot be resolved yet");
                back_off.pause().await;
            }
        }
    }

    /// Makes the sequencer of an open segment take nothing more of an old stream; returns the first offset that the
    /// stream cannot have reached, or `None` if the sequencer does not answer.
    async fn fence(&self, segment: &Segment, append: AppendId) -> Option<LogletOffset> {
        let LogletParams { id, sequencer, .. } = segment.params;
        let sequencers = self.state.cluster.directory.sequencers(sequencer)?;
        let incarnation = append.incarnation.checked_add(1)?;
        let open = AppendOpen { loglet: id, sequencer, writer: append.writer, incarnation };
        let deadline = self.state.cluster.options.call_deadline;
        match timeout(deadline, sequencers.open_append(open)).await.ok()? {
            Ok(stream) => Some(stream.opened.next_offset),
            // A newer stream of the writer did it before.
            Err(SequencerCallError::Refused(SequencerError::Superseded)) => {
                let tails = timeout(deadline, sequencers.tails(id, sequencer)).await.ok()?.ok()?;
                Some(tails.next_offset)
            }
            Err(_) => None,
        }
    }
}

/// Why an outcome could not be found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The chain could not be read, or the segment not be closed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The segment could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<ReconfigureError> for ResolveError {
    fn from(error: ReconfigureError) -> Self {
        Self::Log(error.into())
    }
}
