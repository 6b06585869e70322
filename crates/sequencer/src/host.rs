//! All sequencers of one life of a node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifrost_loglet::peers::Peers;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogId, LogletId, LogletParams, NodeGeneration, NodeId, SegmentIndex};
use bifrost_wire::sequencer::{
    AppendOpen, AppendStream, EndRequest, SequencerCallError, SequencerError, SequencerTails, Sequencers,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{STREAM_REQUESTS, run_stream};
use crate::backfill::run_backfill;
use crate::core::{Core, SegmentLimits, StreamId};
use crate::driver::{Driver, DriverEnds, Handle, Input};
use crate::metrics::Metrics;
use crate::pipe::Pipe;

/// Answers of one stream that wait for its reader; each answers everything of one round.
const STREAM_REPLIES: usize = 4096;

/// Where a host learns what a loglet is. The node asks metadata; a sequencer itself knows none.
pub trait LogletSource: Send + Sync + fmt::Debug {
    /// The parameters of a loglet that is, or lately was, the open segment of its log. One that is closed by now does no
    /// harm: its copies are sealed, and a seal is never forgotten.
    ///
    /// # Errors
    /// [`SequencerError::NotOpen`] when the chain does not know it or it is closed, another one when nobody can say.
    fn open_loglet(&self, loglet: LogletId) -> BoxFuture<'_, Result<LogletParams, SequencerError>>;
}

/// What this life of the node knows of the newest loglet of a log that it sequenced.
#[derive(Debug, Clone)]
struct Slot {
    segment: SegmentIndex,
    handle: Handle,
    /// Ends its task.
    stop: CancellationToken,
}

impl Slot {
    /// Ends it for this reason, if it has not ended for another one. Its task does the rest.
    fn end(&self, why: SequencerError) {
        let _first = self.handle.ended.set(why);
        self.stop.cancel();
    }
}

/// All sequencers of one life of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SequencerHost {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: NodeGeneration,
    source: Arc<dyn LogletSource>,
    peers: Arc<dyn Peers>,
    limits: SegmentLimits,
    /// The newest loglet that was started, per log. A6: a loglet is started at most once in one life of a node, so a
    /// segment at or below this one is never started again; its offsets were in memory only.
    slots: Mutex<BTreeMap<LogId, Slot>>,
    pipes: Mutex<BTreeMap<NodeId, Pipe>>,
    streams: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Metrics,
}

impl SequencerHost {
    /// The sequencers of `me`. Tasks start with the first append.
    pub fn new(
        me: NodeGeneration,
        source: Arc<dyn LogletSource>,
        peers: Arc<dyn Peers>,
        limits: SegmentLimits,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                me,
                source,
                peers,
                limits,
                slots: Mutex::new(BTreeMap::new()),
                pipes: Mutex::new(BTreeMap::new()),
                streams: AtomicU64::new(1),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                metrics: Metrics::default(),
            }),
        }
    }

    /// The loglets that take appends here now.
    pub fn running(&self) -> Vec<LogletId> {
        let slots = self.inner.slots.lock();
        let running = slots.iter().filter(|(_, slot)| slot.handle.ended.get().is_none());
        running.map(|(log, slot)| LogletId::new(*log, slot.segment)).collect()
    }

    /// Whether a loglet of this log takes appends here now.
    pub fn runs(&self, log: LogId) -> bool {
        self.inner.slots.lock().get(&log).is_some_and(|slot| slot.handle.ended.get().is_none())
    }

    /// Bytes of batches that were given an offset here since the host was made.
    pub fn sequenced_bytes(&self) -> u64 {
        self.inner.metrics.sequenced_bytes.load(Ordering::Relaxed)
    }

    /// Ends the sequencer of a log if it runs a segment before `open`: those are closed, says the chain. Without appends it
    /// would never hear of the seal: it would keep its task and what it holds, and send slow copies what they get from each
    /// other already.
    pub fn end_before(&self, log: LogId, open: SegmentIndex) {
        // The slot stays: a segment runs once (A6).
        if let Some(slot) = self.inner.slots.lock().get(&log)
            && slot.segment < open
        {
            slot.end(SequencerError::NotOpen);
        }
    }

    /// Ends the sequencer of a log that is gone: no later segment takes its place, and nobody asks for this one again.
    pub fn forget(&self, log: LogId) {
        if let Some(slot) = self.inner.slots.lock().remove(&log) {
            slot.end(SequencerError::NotOpen);
        }
    }

    /// Ends every sequencer and waits for its tasks. Appends in flight are settled by whoever closes their loglet.
    ///
    /// # Cancel safety
    /// Safe: the stop goes on.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    async fn sequencer(&self, loglet: LogletId, wanted: NodeGeneration) -> Result<Handle, SequencerError> {
        let one_node = |other: NodeGeneration| plant::is(Plant::StaleGenerationAccepted) && other.node == self.me.node;
        if wanted != self.me && !one_node(wanted) {
            return Err(SequencerError::NotSequencer);
        }
        if self.stop.is_cancelled() {
            return Err(SequencerError::Stopping);
        }
        if let Some(known) = self.known(loglet) {
            return known;
        }
        let params = self.source.open_loglet(loglet).await?;
        if (params.sequencer != self.me && !one_node(params.sequencer)) || params.id != loglet {
            return Err(SequencerError::NotSequencer);
        }
        self.start(params).await
    }

    /// A started loglet, or the reason why it cannot be started (again).
    fn known(&self, loglet: LogletId) -> Option<Result<Handle, SequencerError>> {
        let slots = self.slots.lock();
        let slot = slots.get(&loglet.log)?;
        if slot.segment > loglet.segment {
            return Some(Err(SequencerError::NotOpen));
        }
        if slot.segment < loglet.segment {
            return None;
        }
        match slot.handle.ended.get() {
            Some(error) => Some(Err(*error)),
            None => Some(Ok(slot.handle.clone())),
        }
    }

    /// Ends a loglet and returns its last word.
    async fn end(&self, request: EndRequest) -> Result<SequencerTails, SequencerError> {
        let EndRequest { loglet, sequencer, op } = request;
        if sequencer != self.me {
            return Err(SequencerError::NotSequencer);
        }
        let slot = |loglet: LogletId| {
            let slots = self.slots.lock();
            slots.get(&loglet.log).filter(|slot| slot.segment == loglet.segment).cloned()
        };
        if slot(loglet).is_none() {
            // It has never run, and must never do so after this answer: a loglet is started once (A6).
            self.sequencer(loglet, sequencer).await?;
        }
        let slot = slot(loglet).ok_or(SequencerError::NotOpen)?;
        slot.end(SequencerError::Sealed { op });
        Ok(*slot.handle.last_word.wait().await)
    }

    async fn start(&self, params: LogletParams) -> Result<Handle, SequencerError> {
        let core = Core::new(params.clone(), self.limits).map_err(|_| SequencerError::NotOpen)?;
        let (driver, ends) = Driver::new(&params, core, self.metrics.clone());
        let DriverEnds { handle, pipe_events, backfills } = ends;
        let stop = self.stop.child_token();
        {
            let mut slots = self.slots.lock();
            // Somebody may have been faster while metadata was asked: the first one stays.
            if let Some(slot) = slots.get(&params.id.log)
                && slot.segment >= params.id.segment
            {
                return if slot.segment == params.id.segment {
                    Ok(slot.handle.clone())
                } else {
                    Err(SequencerError::NotOpen)
                };
            }
            let slot = Slot { segment: params.id.segment, handle: handle.clone(), stop: stop.clone() };
            if let Some(older) = slots.insert(params.id.log, slot) {
                older.end(SequencerError::NotOpen);
            }
        }
        self.tasks.spawn(driver.run(stop));
        let pipes: Vec<_> = params.nodeset.iter().map(|(index, member)| (index, self.pipe(member.node))).collect();
        let loglet = params.id;
        let backfill = run_backfill(params, self.peers.clone(), backfills, handle.inputs.clone(), self.metrics.clone());
        let stop = self.stop.child_token();
        self.tasks.spawn(async move {
            for (index, pipe) in pipes {
                pipe.register(loglet, index, pipe_events.clone()).await;
            }
            drop(pipe_events);
            let _stopped = stop.run_until_cancelled_owned(backfill).await;
        });
        Ok(handle)
    }

    fn pipe(&self, node: NodeId) -> Pipe {
        let mut pipes = self.pipes.lock();
        pipes
            .entry(node)
            .or_insert_with(|| {
                let (pipe, run) = Pipe::new(node, self.peers.clone(), self.stop.child_token());
                self.tasks.spawn(run);
                pipe
            })
            .clone()
    }

    async fn open(&self, open: AppendOpen) -> Result<AppendStream, SequencerCallError> {
        let handle = self.sequencer(open.loglet, open.sequencer).await?;
        let stream = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        let (requests, request_queue) = mpsc::channel(STREAM_REQUESTS);
        let (reply_sender, replies) = mpsc::channel(STREAM_REPLIES);
        let (opened, answer) = oneshot::channel();
        let input =
            Input::Open { stream, writer: open.writer, incarnation: open.incarnation, opened, replies: reply_sender };
        handle.inputs.send(input).await.map_err(|_| handle.ending())?;
        let opened = answer.await.map_err(|_| handle.ending())??;
        let run = run_stream(stream, open.writer, handle.admission.clone(), request_queue, handle.inputs.clone());
        let stop = self.stop.child_token();
        self.tasks.spawn(async move {
            let _stopped = stop.run_until_cancelled_owned(run).await;
        });
        Ok(AppendStream { opened, requests, replies: replies.into() })
    }
}

impl Sequencers for SequencerHost {
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        Box::pin(self.inner.open(open))
    }

    fn tails(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
    ) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(async move {
            let handle = self.inner.sequencer(loglet, sequencer).await?;
            let (answer, tails) = oneshot::channel();
            handle.inputs.send(Input::Tails { answer }).await.map_err(|_| handle.ending())?;
            Ok(tails.await.map_err(|_| handle.ending())?)
        })
    }

    fn end(&self, request: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(async move {
            if plant::is(Plant::LastWordTooSoon) {
                return self.tails(request.loglet, request.sequencer).await;
            }
            Ok(self.inner.end(request).await?)
        })
    }
}

#[cfg(test)]
mod tests;
