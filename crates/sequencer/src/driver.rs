//! One task per loglet: select an input, step the core, run its effects, put on the pipes what there is room for.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use bifrost_types::{LogletId, LogletOffset, LogletParams, NodeIndex, WriterId};
use bifrost_wire::log_server::StoreRequest;
use bifrost_wire::sequencer::{AppendReply, SequencerError, SequencerTails};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{SetOnce, mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::admission::{Admission, Room};
use crate::core::{Core, Effect, Event, Phase, StreamId};
use crate::metrics::Metrics;
use crate::pipe::PipeEvent;

/// Inputs that wait for a loglet's task.
const INPUT_QUEUE: usize = 4096;
/// Inputs taken at once: what they lead to is sent together.
const INPUTS_PER_ROUND: usize = 512;
/// Of the room for them, what stays between two rounds.
const KEPT_ROOM: usize = 16;

/// What arrives at a loglet's task.
#[derive(Debug)]
pub(crate) enum Input {
    Open {
        stream: StreamId,
        writer: WriterId,
        incarnation: u64,
        opened: oneshot::Sender<Result<SequencerTails, SequencerError>>,
        replies: mpsc::Sender<AppendReply>,
    },
    Append {
        stream: StreamId,
        records: u32,
        batch: Bytes,
        room: Room,
    },
    CloseStream {
        stream: StreamId,
        error: SequencerError,
    },
    StreamEnded {
        stream: StreamId,
    },
    Tails {
        answer: oneshot::Sender<SequencerTails>,
    },
    Backfilled {
        index: NodeIndex,
        until: LogletOffset,
    },
}

/// A stretch that a copy lacks although it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backfill {
    pub(crate) index: NodeIndex,
    pub(crate) from: LogletOffset,
    pub(crate) until: LogletOffset,
    pub(crate) committed_tail: LogletOffset,
}

/// What the host and the streams hold of a running sequencer.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) admission: Admission,
    /// Set once it takes no more appends.
    pub(crate) ended: Arc<OnceLock<SequencerError>>,
    /// Set by its task at its end: nothing at or above this committed tail was or will be acknowledged.
    pub(crate) last_word: Arc<SetOnce<SequencerTails>>,
}

impl Handle {
    /// Why it takes nothing any more, for whoever finds its task gone, and for the task when it is to stop: of a seal, with
    /// the operation.
    pub(crate) fn ending(&self) -> SequencerError {
        self.ended.get().copied().unwrap_or(SequencerError::Stopping)
    }
}

struct OpenStream {
    opened: Option<oneshot::Sender<Result<SequencerTails, SequencerError>>>,
    replies: mpsc::Sender<AppendReply>,
    /// Acknowledgements of this round.
    committed: Vec<LogletOffset>,
    /// Batches taken and not acknowledged.
    in_flight: usize,
    /// Nothing follows; the stream goes when nothing is in flight.
    ended: bool,
}

/// Where a copy's requests go, and whether a wait for room is under way.
#[derive(Default)]
struct Outlet {
    requests: Option<mpsc::Sender<StoreRequest>>,
    waiting: bool,
    /// Room that was waited for. It is for the next request: given back, it would go to another loglet that waits, and that
    /// would give it back too.
    room: Option<OwnedPermit<StoreRequest>>,
}

/// A wait for room on the pipe of a copy; without room when the connection is gone.
type AwaitedRoom = BoxFuture<'static, (NodeIndex, Option<OwnedPermit<StoreRequest>>)>;

impl Outlet {
    /// A wait ended. One for an earlier connection changes nothing.
    fn on_room(&mut self, room: Option<OwnedPermit<StoreRequest>>) {
        let Some(requests) = &self.requests else { return };
        if let Some(room) = room.filter(|room| room.same_channel_as_sender(requests)) {
            self.waiting = false;
            self.room = Some(room);
        }
    }
}

/// The task of one loglet.
pub(crate) struct Driver {
    loglet: LogletId,
    core: Core<Room>,
    inputs: mpsc::Receiver<Input>,
    pipes: mpsc::Receiver<(NodeIndex, PipeEvent)>,
    /// Keeps `pipes` open while no pipe has registered yet.
    pipe_events: mpsc::Sender<(NodeIndex, PipeEvent)>,
    backfills: mpsc::Sender<Backfill>,
    backfill_asked: bool,
    handle: Handle,
    streams: BTreeMap<StreamId, OpenStream>,
    outlets: Vec<(NodeIndex, Outlet)>,
    effects: Vec<Effect>,
    started: Instant,
    metrics: Metrics,
}

/// The channel ends that the rest of the sequencer holds.
pub(crate) struct DriverEnds {
    pub(crate) handle: Handle,
    pub(crate) pipe_events: mpsc::Sender<(NodeIndex, PipeEvent)>,
    pub(crate) backfills: mpsc::Receiver<Backfill>,
}

impl Driver {
    pub(crate) fn new(params: &LogletParams, core: Core<Room>, metrics: Metrics) -> (Self, DriverEnds) {
        let (input_sender, inputs) = mpsc::channel(INPUT_QUEUE);
        let (pipe_events, pipes) = mpsc::channel(INPUT_QUEUE);
        let (backfill_sender, backfills) = mpsc::channel(1);
        let handle = Handle {
            inputs: input_sender,
            admission: Admission::new(),
            ended: Arc::new(OnceLock::new()),
            last_word: Arc::new(SetOnce::new()),
        };
        let driver = Self {
            loglet: params.id,
            core,
            inputs,
            pipes,
            pipe_events: pipe_events.clone(),
            backfills: backfill_sender,
            backfill_asked: false,
            handle: handle.clone(),
            streams: BTreeMap::new(),
            outlets: params.nodeset.indexes().map(|index| (index, Outlet::default())).collect(),
            effects: Vec::new(),
            started: Instant::now(),
            metrics,
        };
        (driver, DriverEnds { handle, pipe_events, backfills })
    }

    /// Runs until the loglet ends or `stop` fires. Either way every stream is told.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        info!(loglet = %self.loglet, "sequencer runs");
        self.metrics.loglets_running.increment(1.0);
        let mut rooms: FuturesUnordered<AwaitedRoom> = FuturesUnordered::new();
        let (mut inputs, mut pipes) = (Vec::new(), Vec::new());
        // One timer for all its life. It is put off with nearly each append, which costs nothing; a new one would have to be
        // put in front of whatever the runtime waits for, and wake it up.
        let mut tick = pin!(sleep_until(self.started));
        while self.core.phase() == Phase::Running {
            let wake = self.core.wake_at().map(|millis| self.started + Duration::from_millis(millis));
            if let Some(wake) = wake
                && wake != tick.deadline()
            {
                tick.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => self.step(Event::Stop { why: self.handle.ending() }),
                // Answers before new work: they free room and end waits.
                _ = self.pipes.recv_many(&mut pipes, INPUTS_PER_ROUND) => {}
                _ = self.inputs.recv_many(&mut inputs, INPUTS_PER_ROUND) => {}
                Some((index, room)) = rooms.next() => self.outlet(index, |outlet| outlet.on_room(room)),
                () = &mut tick, if wake.is_some() => self.step(Event::Tick),
            }
            for (index, event) in pipes.drain(..) {
                self.on_pipe(index, event);
            }
            for input in inputs.drain(..) {
                self.on_input(input);
            }
            self.run_effects();
            self.fill_pipes(&mut rooms);
            self.ask_for_backfill();
            // Most of many loglets are idle, and keep nothing of their busy days.
            inputs.shrink_to(KEPT_ROOM);
            pipes.shrink_to(KEPT_ROOM);
        }
        self.finish(inputs).await;
    }

    fn step(&mut self, event: Event<Room>) {
        let now_millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.core.step(now_millis, event, &mut self.effects);
    }

    fn outlet(&mut self, index: NodeIndex, change: impl FnOnce(&mut Outlet)) {
        if let Some((_, outlet)) = self.outlets.get_mut(index.get()) {
            change(outlet);
        }
    }

    fn on_pipe(&mut self, index: NodeIndex, event: PipeEvent) {
        match event {
            PipeEvent::Up { connection, requests } => {
                self.outlet(index, |outlet| *outlet = Outlet { requests: Some(requests), ..Outlet::default() });
                self.step(Event::CopyUp { index, connection });
            }
            PipeEvent::Down { connection } => {
                self.outlet(index, |outlet| *outlet = Outlet::default());
                self.step(Event::CopyDown { index, connection });
            }
            PipeEvent::Reply { connection, outcome, followed } => {
                self.step(Event::Followed { index, connection, followed });
                if let Some(outcome) = outcome {
                    self.step(Event::Stored { index, connection, outcome });
                }
            }
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Open { stream, writer, incarnation, opened, replies } => {
                let open =
                    OpenStream { opened: Some(opened), replies, committed: Vec::new(), in_flight: 0, ended: false };
                self.streams.insert(stream, open);
                self.step(Event::StreamOpened { stream, writer, incarnation });
            }
            Input::Append { stream, records, batch, room } => {
                self.metrics.committed_bytes.increment(batch.len() as u64);
                self.metrics.sequenced_bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
                if let Some(open) = self.streams.get_mut(&stream) {
                    open.in_flight += 1;
                }
                self.step(Event::Append { stream, records, batch, room });
            }
            Input::CloseStream { stream, error } => {
                // What it sent before is in order in front of the close.
                self.run_effects();
                self.close_stream(stream, error);
                self.step(Event::StreamEnded { stream });
            }
            Input::StreamEnded { stream } => {
                self.step(Event::StreamEnded { stream });
                if let Some(open) = self.streams.get_mut(&stream) {
                    open.ended = true;
                }
            }
            Input::Tails { answer } => {
                let _gone = answer.send(self.core.tails());
            }
            Input::Backfilled { index, until } => {
                self.backfill_asked = false;
                self.step(Event::Backfilled { index, until });
            }
        }
    }

    fn run_effects(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Opened { stream, tails } => {
                    if let Some(opened) = self.streams.get_mut(&stream).and_then(|open| open.opened.take()) {
                        let _gone = opened.send(Ok(tails));
                    }
                }
                Effect::Committed { stream, first_offset } => {
                    self.metrics.committed_batches.increment(1);
                    if let Some(open) = self.streams.get_mut(&stream) {
                        open.committed.push(first_offset);
                        open.in_flight = open.in_flight.saturating_sub(1);
                    }
                }
                Effect::Close { stream, error } => self.close_stream(stream, error),
                Effect::Alarm { index, error } => {
                    self.metrics.copy_alarms.increment(1);
                    error!(loglet = %self.loglet, copy = index.get(), %error, "a copy refuses what it is sent");
                }
            }
        }
        self.acknowledge();
    }

    /// Sends what was committed in this round, one message per stream. A stream that does not take its answers is
    /// ended: its writer settles by reading.
    fn acknowledge(&mut self) {
        let committed_tail = self.core.tails().committed_tail;
        self.streams.retain(|_, open| {
            let more = !(open.ended && open.in_flight == 0);
            if open.committed.is_empty() {
                return more;
            }
            let first_offsets = std::mem::take(&mut open.committed);
            open.replies.try_send(AppendReply::Committed { first_offsets, committed_tail }).is_ok() && more
        });
    }

    fn close_stream(&mut self, stream: StreamId, error: SequencerError) {
        if let Some(OpenStream { opened, replies, committed, .. }) = self.streams.remove(&stream) {
            if !committed.is_empty() {
                let committed_tail = self.core.tails().committed_tail;
                let _gone = replies.try_send(AppendReply::Committed { first_offsets: committed, committed_tail });
            }
            match opened {
                Some(opened) => drop(opened.send(Err(error))),
                // If there is no room the closed channel says the same, only less.
                None => drop(replies.try_send(AppendReply::Closed(error))),
            }
        }
    }

    fn fill_pipes(&mut self, rooms: &mut FuturesUnordered<AwaitedRoom>) {
        for (index, Outlet { requests, waiting, room }) in &mut self.outlets {
            let Some(requests) = requests else { continue };
            // Unless there is nothing to send any more: then it is for others who wait.
            if let Some(room) = room.take()
                && let Some(request) = self.core.next_store(*index)
            {
                self.metrics.store_messages.increment(1);
                room.send(request);
            }
            while !*waiting && self.core.wants_store(*index) {
                match requests.try_reserve() {
                    Ok(room) => {
                        let Some(request) = self.core.next_store(*index) else { break };
                        self.metrics.store_messages.increment(1);
                        room.send(request);
                    }
                    Err(TrySendError::Full(())) => {
                        *waiting = true;
                        let (index, requests) = (*index, requests.clone());
                        rooms.push(Box::pin(async move { (index, requests.reserve_owned().await.ok()) }));
                    }
                    // The pipe will say that the connection is down.
                    Err(TrySendError::Closed(())) => break,
                }
            }
        }
    }

    /// At most one stretch of one copy is backfilled at a time.
    fn ask_for_backfill(&mut self) {
        if self.backfill_asked {
            return;
        }
        let committed_tail = self.core.tails().committed_tail;
        let wanted = self.core.copies().iter().find_map(|copy| {
            let (from, until) = copy.first_missing()?;
            let connected = matches!(copy.link, crate::spread::Link::Up { .. });
            connected.then_some(Backfill { index: copy.index, from, until, committed_tail })
        });
        if let Some(wanted) = wanted {
            self.backfill_asked = self.backfills.try_send(wanted).is_ok();
        }
    }

    async fn finish(mut self, mut inputs: Vec<Input>) {
        let Phase::Ended(reason) = self.core.phase() else { return };
        info!(loglet = %self.loglet, %reason, "sequencer ended");
        self.metrics.loglets_running.decrement(1.0);
        let _first = self.handle.ended.set(reason);
        let _first = self.handle.last_word.set(self.core.tails());
        self.handle.admission.close();
        self.run_effects();
        drop(self.pipe_events);
        // Whoever was about to open a stream is told as well.
        self.inputs.close();
        while self.inputs.recv_many(&mut inputs, INPUTS_PER_ROUND).await > 0 {
            for input in inputs.drain(..) {
                if let Input::Open { opened, .. } = input {
                    let _gone = opened.send(Err(reason));
                }
            }
        }
    }
}
