//! What the handles of one log in this process share: the chain as last seen, how far its segments may be read, and the
//! one helper at a time that closes a segment. Where the next segment goes: `placing`.

mod placing;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bifrost_loglet::read::Readable;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{
    Actor, Chain, CloseReason, LogId, LogletId, LogletOffset, LogletParams, Lsn, NodeId, Reconfiguration, Segment,
    SegmentIndex, SegmentState, Successor,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::catalog::{CatalogError, Roster, StoredChain};
use crate::chain;
use crate::cluster::{Cluster, fresh_op};
use crate::follow::Following;
use crate::give_back::Given;
use crate::placement::{Leave, PlanError};
use crate::reconfigure::{Intent, Progress, ReconfigureError, Reconfigured, Reconfigurer, Surroundings};
use crate::settle::ClosedTail;
use crate::shorten::{ShortenError, Shortener};

/// How long whoever wants a segment closed waits for somebody else in this process who is at it.
const DRIVEN: Duration = Duration::from_millis(200);

/// How long servers are not told a decided tail: it costs each an fsync, and writers want those for the next segment. Nobody
/// needs it (S5); who is never told finds out when it catches up.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// One log in this process.
#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) log: LogId,
    pub(crate) cluster: Arc<Cluster>,
    chain: watch::Sender<Arc<StoredChain>>,
    loglets: Mutex<BTreeMap<SegmentIndex, Followed>>,
    /// Who holds it closes a segment on behalf of all appenders of this process. Held by tasks only, so that a future
    /// that nobody polls cannot stop the others.
    helper: AsyncMutex<()>,
    /// What the servers have given back already.
    given: Given,
    /// Who holds it shortens the chain on behalf of this process.
    shortening: AsyncMutex<()>,
    /// How many tasks and callers of this process drive a reconfiguration.
    driving: AtomicUsize,
    /// The end of the segment that was closed last, as far as writers of this process needed it.
    pub(crate) closed_tail: AsyncMutex<Option<ClosedTail>>,
    progress: watch::Sender<Progress>,
    /// Readers that were opened so far.
    readers: AtomicU64,
    /// The node that the log is best sequenced at, as its last appender here has it.
    preferred: Mutex<Option<NodeId>>,
    /// Cancelled when the log is known to be deleted.
    pub(crate) deleted: CancellationToken,
    /// Ends what follows the chain, if anything does.
    following: OnceLock<Following>,
}

impl LogState {
    /// The state of a log, which learns what is done through it, and nothing else before it is told to
    /// [follow](Self::follow).
    pub(crate) fn new(cluster: Arc<Cluster>, stored: StoredChain) -> Arc<Self> {
        Arc::new(Self {
            log: stored.chain.log,
            cluster,
            chain: watch::Sender::new(Arc::new(stored)),
            loglets: Mutex::new(BTreeMap::new()),
            helper: AsyncMutex::new(()),
            given: Given::default(),
            shortening: AsyncMutex::default(),
            driving: AtomicUsize::new(0),
            closed_tail: AsyncMutex::new(None),
            progress: watch::Sender::new(Progress::default()),
            readers: AtomicU64::new(0),
            preferred: Mutex::new(None),
            deleted: CancellationToken::new(),
            following: OnceLock::new(),
        })
    }

    /// Follows the chain from now on, until the last handle is gone. Whoever only closes a segment does without: its writes
    /// find out what it does not know, and a watch for each log of a node that died costs more than all the rest.
    pub(crate) fn follow(self: &Arc<Self>) {
        self.following.get_or_init(|| Following::begin(self));
    }

    /// The number of a new reader. Those of one process take turns among the copies, so that no server has them all.
    pub(crate) fn reader_number(&self) -> u64 {
        self.readers.fetch_add(1, Ordering::Relaxed)
    }

    /// The chain as last seen: perhaps old, never wrong about what is closed.
    pub(crate) fn chain(&self) -> Arc<StoredChain> {
        self.chain.borrow().clone()
    }

    /// The same, with changes.
    pub(crate) fn watch_chain(&self) -> watch::Receiver<Arc<StoredChain>> {
        self.chain.subscribe()
    }

    /// What a reconfiguration that this process drives is doing.
    pub(crate) fn progress(&self) -> &watch::Sender<Progress> {
        &self.progress
    }

    /// Takes note of a chain that was read or written; an older one than is known changes nothing (C3).
    pub(crate) fn learn(&self, stored: StoredChain) {
        let stored = Arc::new(stored);
        let newer = self.chain.send_if_modified(|known| {
            let newer = stored.chain.version > known.chain.version;
            if newer {
                *known = stored.clone();
            }
            newer
        });
        if newer {
            let mut loglets = self.loglets.lock();
            let last = stored.chain.last().map(Segment::index);
            loglets.retain(|index, followed| followed.readable.receiver_count() > 0 || last == Some(*index));
            for (index, Followed { base_lsn, readable }) in loglets.iter() {
                match stored.chain.segment(*index) {
                    Some(segment) => {
                        readable.send_if_modified(|known| raise(known, readable_by_chain(&stored.chain, segment)));
                    }
                    None if stored.chain.has_left(*index) => {
                        readable.send_if_modified(|known| leave(known, &stored.chain, *base_lsn));
                    }
                    None => {}
                }
            }
        }
    }

    /// Takes note that everything below `tail` of a segment is committed.
    pub(crate) fn learn_committed(&self, index: SegmentIndex, tail: LogletOffset) {
        let mut loglets = self.loglets.lock();
        let followed = match loglets.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let stored = self.chain();
                // Of one that has left everything is known: it is trimmed.
                let Some(segment) = stored.chain.segment(index) else { return };
                new.insert(Followed::new(segment.base_lsn, readable_by_chain(&stored.chain, segment)))
            }
        };
        followed.readable.send_if_modified(|known| raise(known, Readable { tail, ..*known }));
    }

    /// The highest committed tail of a segment that anybody in this process has heard of.
    pub(crate) fn committed(&self, index: SegmentIndex) -> LogletOffset {
        self.loglets.lock().get(&index).map_or(LogletOffset::FIRST, |followed| followed.readable.borrow().tail)
    }

    /// How far a segment may be read, kept up to date as long as the receiver lives (R1).
    pub(crate) fn readable(&self, segment: &Segment) -> watch::Receiver<Readable> {
        let stored = self.chain();
        let mut loglets = self.loglets.lock();
        let by_chain = stored.chain.segment(segment.index()).unwrap_or(segment);
        let mut known = readable_by_chain(&stored.chain, by_chain);
        if stored.chain.has_left(segment.index()) {
            leave(&mut known, &stored.chain, segment.base_lsn);
        }
        let followed = loglets.entry(segment.index()).or_insert_with(|| Followed::new(segment.base_lsn, known));
        followed.readable.send_if_modified(|old| raise(old, known));
        followed.readable.subscribe()
    }

    /// The highest tail that this process knows to be committed; a lower bound of the truth.
    pub(crate) fn known_tail(&self) -> Lsn {
        let stored = self.chain();
        let Some(last) = stored.chain.last() else { return Lsn::FIRST };
        let committed = match last.decided_tail() {
            Some(tail) => tail,
            None => {
                let loglets = self.loglets.lock();
                loglets.get(&last.index()).map_or(LogletOffset::FIRST, |followed| followed.readable.borrow().tail)
            }
        };
        committed.to_lsn(last.base_lsn).unwrap_or(last.base_lsn)
    }

    /// Reads the chain anew.
    pub(crate) async fn refresh(&self) -> Result<Arc<StoredChain>, CatalogError> {
        let stored = self.cluster.catalog.chain(self.log).await.map_err(|error| self.explain_absence(error))?;
        self.learn(stored.clone());
        Ok(Arc::new(stored))
    }

    /// A log that was there and is not was deleted: ids are not given twice (C2).
    pub(crate) fn explain_absence(&self, error: CatalogError) -> CatalogError {
        match error {
            CatalogError::UnknownLog => {
                self.deleted.cancel();
                CatalogError::Deleted { log: self.log }
            }
            error => error,
        }
    }

    /// Waits until a segment is closed, and closes it if nobody else in this process does. Returns with the closed
    /// segment in [`chain`](Self::chain). Call it from a task. `reason` and `actor` go into the chain if nobody has
    /// announced anything.
    ///
    /// # Errors
    /// [`ReconfigureError`] when this process tried and could not; somebody else may still do it.
    pub(crate) async fn close_segment(
        &self,
        loglet: LogletId,
        reason: CloseReason,
        actor: Actor,
    ) -> Result<(), ReconfigureError> {
        self.close_segment_known(loglet, reason, actor, Known::default()).await
    }

    /// Like [`close_segment`](Self::close_segment) for whoever read the chain a moment ago: it is not read again. If it is
    /// old by now, the first write finds out.
    ///
    /// # Errors
    /// See [`close_segment`](Self::close_segment).
    pub(crate) async fn close_segment_of(
        &self,
        stored: StoredChain,
        loglet: LogletId,
        reason: CloseReason,
        actor: Actor,
    ) -> Result<(), ReconfigureError> {
        let known = Known { chain: Some(Arc::new(stored)), successor: None };
        self.close_segment_known(loglet, reason, actor, known).await
    }

    /// Like [`close_segment`](Self::close_segment) for whoever chose what follows a moment ago, unless somebody else announced
    /// something.
    ///
    /// # Errors
    /// See [`close_segment`](Self::close_segment).
    async fn close_segment_for(
        &self,
        successor: Successor,
        loglet: LogletId,
        reason: CloseReason,
        actor: Actor,
    ) -> Result<(), ReconfigureError> {
        let known = Known { chain: None, successor: Some(successor) };
        self.close_segment_known(loglet, reason, actor, known).await
    }

    async fn close_segment_known(
        &self,
        loglet: LogletId,
        reason: CloseReason,
        actor: Actor,
        known: Known,
    ) -> Result<(), ReconfigureError> {
        tokio::select! {
            biased;
            () = self.until_closed(loglet.segment) => Ok(()),
            result = self.help(loglet, reason, actor, known) => result,
        }
    }

    /// Waits until [`chain`](Self::chain) says that a segment is closed.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub(crate) async fn until_closed(&self, index: SegmentIndex) {
        let mut chain = self.chain.subscribe();
        while !is_closed(&chain.borrow_and_update().chain, index) {
            if chain.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn help(
        &self,
        loglet: LogletId,
        reason: CloseReason,
        actor: Actor,
        mut known: Known,
    ) -> Result<(), ReconfigureError> {
        if self.driving.load(Ordering::Relaxed) > 0 {
            // Two of one process only make it slower. But it may be a future that nobody polls.
            sleep(DRIVEN).await;
        }
        let _helper = self.helper.lock().await;
        loop {
            match self.help_once(loglet, reason, actor.clone(), std::mem::take(&mut known)).await {
                // A node was taken out of service while it was chosen: choose again.
                Err(ReconfigureError::NotAdmitted(_)) => {}
                helped => return helped,
            }
        }
    }

    async fn help_once(
        &self,
        loglet: LogletId,
        reason: CloseReason,
        actor: Actor,
        known: Known,
    ) -> Result<(), ReconfigureError> {
        let stored = match known.chain {
            Some(known) => known,
            // The chain that the last helper saw may be older than what it or others did meanwhile.
            None => self.refresh().await?,
        };
        if is_closed(&stored.chain, loglet.segment) {
            return Ok(());
        }
        let Some(last) = stored.chain.last() else { return Ok(()) };
        if plant::is(Plant::NobodyResumes) && stored.chain.pending.is_some() {
            return std::future::pending().await;
        }
        debug!(%loglet, %reason, "helping to close a segment");
        let successor = match (&stored.chain.pending, known.successor) {
            // Joined as it is.
            (Some(pending), _) => pending.successor.clone(),
            (None, Some(successor)) => Some(successor),
            (None, None) => {
                // A sequencer that is gone, or about to be, is no choice; any other one is better than none.
                let gone = matches!(reason, CloseReason::SequencerGone | CloseReason::HandOver);
                Some(self.place(last, if gone { Leave::Gone } else { Leave::Stay }).await?)
            }
        };
        let intent = Intent { op: fresh_op(), segment: loglet.segment, actor, reason, successor };
        let read = StoredChain::clone(&stored);
        self.drive_from(self.reconfigurer().starting_from(read), &intent).await.map(drop)
    }

    /// Carries an intent out; tells the servers the decided tail in the background.
    ///
    /// # Cancel safety
    /// Safe at every await (C4).
    pub(crate) async fn drive(&self, intent: &Intent) -> Result<Reconfigured, ReconfigureError> {
        self.drive_from(self.reconfigurer(), intent).await
    }

    /// Shortens the chain, if nobody in this process is at it. Who owes is asked again by the controllers.
    ///
    /// # Errors
    /// [`ShortenError`] when metadata cannot be reached. What is spent stays in the chain.
    ///
    /// # Cancel safety
    /// Safe at every await: see [`Shortener::drive`].
    pub(crate) async fn shorten(&self) -> Result<(), ShortenError> {
        let Ok(_alone) = self.shortening.try_lock() else { return Ok(()) };
        let shortener = Shortener::new(self.log, self.cluster.catalog.clone(), self.cluster.peers());
        let shortened = shortener.drive(&|stored| self.seen(stored), &self.given).await;
        match shortened {
            Ok(_owed) => Ok(()),
            Err(ShortenError::Catalog(error)) => Err(self.explain_absence(error).into()),
            Err(error) => Err(error),
        }
    }

    fn reconfigurer(&self) -> Reconfigurer {
        Reconfigurer::new(self.log, self.cluster.catalog.clone(), self.cluster.peers())
    }

    async fn drive_from(&self, reconfigurer: Reconfigurer, intent: &Intent) -> Result<Reconfigured, ReconfigureError> {
        let _driving = Driving::begin(&self.driving);
        let peers = self.cluster.peers();
        let driven = reconfigurer.drive(intent, &self.progress, self).await;
        let (outcome, settle) = driven.map_err(|error| match error {
            ReconfigureError::Catalog(error) => self.explain_absence(error).into(),
            error => error,
        })?;
        if let Some(settle) = settle {
            let stop = self.cluster.stop.child_token();
            self.cluster.tasks.spawn(async move {
                let telling = async {
                    sleep(SETTLE_AFTER).await;
                    settle.tell(peers).await;
                };
                let _stopped = stop.run_until_cancelled_owned(telling).await;
            });
        }
        Ok(outcome)
    }

    /// What is about to be written anyway takes along what may leave.
    pub(crate) fn taking_along(&self, next: Chain) -> Chain {
        chain::taking_along(next, self.given.returned())
    }
}

/// What whoever wants a segment closed found out a moment ago, for one attempt. If it is old by now, the first write finds out.
#[derive(Debug, Default)]
struct Known {
    chain: Option<Arc<StoredChain>>,
    successor: Option<Successor>,
}

/// A reconfiguration that is driven.
struct Driving<'a>(&'a AtomicUsize);

impl<'a> Driving<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Surroundings for LogState {
    fn seen(&self, stored: &StoredChain) {
        // Most of what a driver looks at is what it wrote itself, and a long chain is two megabytes.
        if stored.chain.version > self.chain.borrow().chain.version {
            self.learn(stored.clone());
        }
    }

    fn replacement<'a>(
        &'a self,
        chain: &'a Chain,
        pending: &'a Reconfiguration,
        mine: bool,
    ) -> BoxFuture<'a, Result<Option<Successor>, ReconfigureError>> {
        Box::pin(async move {
            let (Some(successor), Some(last)) = (&pending.successor, chain.last()) else { return Ok(None) };
            let directory = &self.cluster.directory;
            if directory.admit(successor).is_err() {
                // Perhaps a node is only too new to be known here.
                self.nodes_changed().await;
            }
            let lives = directory.sequencers(successor.sequencer).is_some();
            // What another process chose may be old; what was chosen here answered a moment ago.
            let lives = lives && (mine || self.cluster.answers(successor.sequencer.node).await);
            if lives && directory.admit(successor).is_ok() {
                return Ok(None);
            }
            // The one that was to come is replaced, so it is the one to stay or to be gone.
            let params = LogletParams { sequencer: successor.sequencer, ..last.params.clone() };
            let leave = if lives { Leave::Stay } else { Leave::Gone };
            self.place(&Segment { params, ..last.clone() }, leave).await.map(Some)
        })
    }

    fn admit(&self, successor: &Successor) -> Option<Result<Roster, PlanError>> {
        Some(self.cluster.directory.admit(successor))
    }

    fn returned(&self) -> Option<SegmentIndex> {
        self.given.returned()
    }

    fn nodes_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Err(error) = self.cluster.directory.refresh().await {
                debug!(log = %self.log, %error, "the nodes cannot be looked up");
            }
        })
    }
}

/// Whether the log was closed because it is being deleted: nothing comes after it, and it will not be there for long.
pub(crate) fn is_being_deleted(chain: &Chain) -> bool {
    let last = chain.last().map(|last| &last.state);
    matches!(last, Some(SegmentState::Sealed { reason: CloseReason::Deleted, .. }))
}

/// Whether the chain has decided where a segment ends, or dropped it since.
pub(crate) fn is_closed(chain: &Chain, index: SegmentIndex) -> bool {
    match chain.segment(index) {
        Some(segment) => segment.decided_tail().is_some(),
        None => index < chain.next_segment,
    }
}

/// How far a segment may be read, for those who read it.
#[derive(Debug)]
struct Followed {
    base_lsn: Lsn,
    readable: watch::Sender<Readable>,
}

impl Followed {
    fn new(base_lsn: Lsn, readable: Readable) -> Self {
        Self { base_lsn, readable: watch::Sender::new(readable) }
    }
}

/// Of a segment that has left the chain all is trimmed. Whoever did not hear before where it was decided to end is told that
/// it ends where the trim point is: what lies between is not its own, and trimmed too.
fn leave(known: &mut Readable, chain: &Chain, base_lsn: Lsn) -> bool {
    let trimmed = chain.trim_point.and_then(|trim_point| LogletOffset::from_lsn(trim_point, base_lsn));
    let end = trimmed.map_or(LogletOffset::FIRST, |point| point.advance(1).unwrap_or(LogletOffset::MAX));
    let decided = known.decided.unwrap_or(end);
    raise(known, Readable { tail: decided, decided: Some(decided), trim_point: decided.previous() })
}

fn readable_by_chain(chain: &Chain, segment: &Segment) -> Readable {
    let decided = segment.decided_tail();
    // The trim point may lie in a later segment: then all of this one is trimmed, if it has anything.
    let trimmed = chain.trim_point.and_then(|trim_point| LogletOffset::from_lsn(trim_point, segment.base_lsn));
    let trim_point = match (trimmed, decided) {
        (Some(trimmed), Some(decided)) => decided.previous().map(|last| trimmed.min(last)),
        (trimmed, _) => trimmed,
    };
    let tail = trim_point.and_then(|point| point.advance(1).ok()).unwrap_or(LogletOffset::FIRST);
    Readable { tail: decided.unwrap_or(tail), decided, trim_point }
}

/// Raises what is known; says whether anything changed.
fn raise(known: &mut Readable, news: Readable) -> bool {
    let raised = Readable {
        tail: known.tail.max(news.tail),
        decided: known.decided.or(news.decided),
        trim_point: known.trim_point.max(news.trim_point),
    };
    // R1: once decided, that alone holds; a committed tail never was above it.
    let raised = Readable { tail: raised.decided.unwrap_or(raised.tail), ..raised };
    let mut changed = *known != raised;
    if plant::is(Plant::ReaderParksOnSeal) {
        changed = (known.tail, known.trim_point) != (raised.tail, raised.trim_point);
    }
    *known = raised;
    changed
}
