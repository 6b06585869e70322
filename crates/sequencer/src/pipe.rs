//! The ordered stream from this node to one log server, shared by all loglets that this node sequences (A4).
//!
//! A pipe owns its connection: it connects, tells every registered loglet, routes answers by loglet id, and connects
//! again with back-off when the stream breaks. Loglets put requests on the connection themselves, so nothing is queued
//! here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_types::{LogletId, NodeId, NodeIndex};
use bifrost_wire::log_server::{CopyError, CopyState, StoreReply, StoreRequest, StoreStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const BACK_OFF_FIRST: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// Loglets that may wait to be registered.
const REGISTER_QUEUE: usize = 256;
const SWEEP_AT_FIRST: usize = 64;

/// What a pipe tells a loglet.
#[derive(Debug)]
pub enum PipeEvent {
    /// Connected; requests go here until the connection breaks.
    Up {
        /// Which connection; grows by one with each.
        connection: u64,
        /// The connection.
        requests: mpsc::Sender<StoreRequest>,
    },
    /// That connection broke: what was not answered on it is unknown.
    Down {
        /// Which connection.
        connection: u64,
    },
    /// The log server answered.
    Reply {
        /// On which connection.
        connection: u64,
        /// What it said of what it was sent, if it was about that.
        outcome: Option<Result<CopyState, CopyError>>,
        /// Whether somebody follows the copy.
        followed: bool,
    },
}

/// Where a loglet hears of its copies: the place in its nodeset, and the event.
pub type PipeEvents = mpsc::Sender<(NodeIndex, PipeEvent)>;

#[derive(Debug)]
struct Registration {
    loglet: LogletId,
    index: NodeIndex,
    events: PipeEvents,
}

/// Handle of the pipe to one log server.
#[derive(Debug, Clone)]
pub struct Pipe {
    register: mpsc::Sender<Registration>,
}

impl Pipe {
    /// Makes the pipe to `node`; the returned future runs it until `stop` fires.
    pub fn new(node: NodeId, peers: Arc<dyn Peers>, stop: CancellationToken) -> (Self, impl Future<Output = ()>) {
        let (register, registrations) = mpsc::channel(REGISTER_QUEUE);
        let runner = Runner {
            node,
            peers,
            registrations,
            loglets: BTreeMap::new(),
            sweep_at: SWEEP_AT_FIRST,
            connection: 0,
            requests: None,
            back_off: BACK_OFF_FIRST,
        };
        let run = async move {
            let _ended = stop.run_until_cancelled_owned(runner.run()).await;
        };
        (Self { register }, run)
    }

    /// Tells a loglet of this log server from now on, first of a connection that stands. Ends when `events` is closed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the loglet registered or not.
    pub async fn register(&self, loglet: LogletId, index: NodeIndex, events: PipeEvents) {
        // A pipe that is gone belongs to a host that stops; the loglet is told by its own token.
        let _stopping = self.register.send(Registration { loglet, index, events }).await;
    }
}

#[derive(Debug)]
struct Runner {
    node: NodeId,
    peers: Arc<dyn Peers>,
    registrations: mpsc::Receiver<Registration>,
    loglets: BTreeMap<LogletId, (NodeIndex, PipeEvents)>,
    /// With this many registrations, those of loglets that ended are swept out.
    sweep_at: usize,
    connection: u64,
    requests: Option<mpsc::Sender<StoreRequest>>,
    back_off: Duration,
}

impl Runner {
    async fn run(mut self) {
        loop {
            // Nobody needs the log server yet: do not connect.
            if self.loglets.is_empty() {
                let Some(registration) = self.registrations.recv().await else { return };
                self.add(registration).await;
            }
            if let Some(stream) = self.connect().await {
                self.serve(stream).await;
            }
            self.wait_to_reconnect().await;
        }
    }

    async fn connect(&self) -> Option<StoreStream> {
        let log_server = self.peers.log_server(self.node)?;
        match timeout(CONNECT_DEADLINE, log_server.open_store()).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!(node = %self.node, %error, "no store stream");
                None
            }
            Err(_) => {
                debug!(node = %self.node, "no store stream in time");
                None
            }
        }
    }

    async fn serve(&mut self, stream: StoreStream) {
        let StoreStream { requests, mut replies } = stream;
        self.connection += 1;
        let connection = self.connection;
        self.requests = Some(requests.clone());
        self.tell_all(|| PipeEvent::Up { connection, requests: requests.clone() }).await;
        loop {
            tokio::select! {
                biased;
                registration = self.registrations.recv() => match registration {
                    Some(registration) => self.add(registration).await,
                    None => break,
                },
                reply = replies.recv() => match reply {
                    Some(reply) => self.route(connection, reply).await,
                    None => break,
                },
            }
            // An answer proves the connection good; the next break starts with a short wait again.
            self.back_off = BACK_OFF_FIRST;
        }
        debug!(node = %self.node, connection, "store stream ended");
        self.requests = None;
        self.tell_all(|| PipeEvent::Down { connection }).await;
    }

    async fn route(&mut self, connection: u64, reply: StoreReply) {
        let StoreReply { loglet, outcome, followed } = reply;
        if let Some((index, events)) = self.loglets.get(&loglet)
            && events.send((*index, PipeEvent::Reply { connection, outcome, followed })).await.is_err()
        {
            self.loglets.remove(&loglet);
        }
    }

    async fn add(&mut self, registration: Registration) {
        let Registration { loglet, index, events } = registration;
        if let Some(requests) = &self.requests {
            let up = PipeEvent::Up { connection: self.connection, requests: requests.clone() };
            if events.send((index, up)).await.is_err() {
                return;
            }
        }
        if self.loglets.len() >= self.sweep_at {
            self.loglets.retain(|_, (_, events)| !events.is_closed());
            self.sweep_at = SWEEP_AT_FIRST.max(self.loglets.len() * 2);
        }
        self.loglets.insert(loglet, (index, events));
    }

    async fn tell_all(&mut self, event: impl Fn() -> PipeEvent) {
        let mut gone = Vec::new();
        for (loglet, (index, events)) in &self.loglets {
            if events.send((*index, event())).await.is_err() {
                gone.push(*loglet);
            }
        }
        for loglet in gone {
            self.loglets.remove(&loglet);
        }
    }

    /// Waits before the next attempt, longer each time. Registrations are taken meanwhile.
    async fn wait_to_reconnect(&mut self) {
        let pause = sleep(self.back_off);
        tokio::pin!(pause);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        loop {
            tokio::select! {
                biased;
                () = &mut pause => return,
                Some(registration) = self.registrations.recv() => self.add(registration).await,
            }
        }
    }
}
