//! Log servers with somebody in between: calls that are numbered and stopped at a step, servers that go dark, stores
//! that are held back, replies that get lost.
//!
//! ```text
//!  one actor ─► Tapped (Stepper or Losses: only this actor's calls) ─► Tapped (Network: everybody's calls) ─► server
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::sync::Arc;

use bifrost::connect::{Connect, NodeServices};
use bifrost_node::server::Interpose;
use bifrost_types::{LogletId, LogletOffset, NodeId, NodeRecord};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{
    CallError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest, StateRequest,
    StoreRequest, StoreStream, TrimRequest,
};
use bifrost_wire::node::{NodeService, NodeStatus};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};

const STREAM: usize = 64;

/// Which call of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    OpenStore,
    Seal,
    State,
    Repair,
    Settle,
    Trim,
    Read,
}

/// What a tap keeps between the send and the reply of one call.
#[derive(Debug, Default)]
pub struct Turn {
    _held: Option<OwnedMutexGuard<()>>,
}

/// Somebody between a caller and a log server.
pub trait Tap: Send + Sync + fmt::Debug {
    /// Before the call is carried out; an error in its place means that it never is.
    fn send(&self, node: NodeId, kind: CallKind) -> BoxFuture<'_, Result<Turn, RpcError>>;

    /// After it was carried out and before the caller hears of it; an error means that the reply is lost.
    fn reply(&self, node: NodeId, kind: CallKind, turn: Turn) -> BoxFuture<'_, Result<(), RpcError>>;

    /// Before one part of the answer to a read is delivered.
    fn part(&self, _node: NodeId) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// A store stream was opened; what the caller gets in its place.
    fn stores(&self, _node: NodeId, stream: StoreStream) -> StoreStream {
        stream
    }
}

/// A log server behind a tap.
#[derive(Debug)]
pub struct Tapped {
    pub node: NodeId,
    pub inner: Arc<dyn LogServer>,
    pub tap: Arc<dyn Tap>,
}

impl Tapped {
    async fn call<T>(&self, kind: CallKind, call: BoxFuture<'_, Result<T, CallError>>) -> Result<T, CallError> {
        let turn = self.tap.send(self.node, kind).await?;
        let answer = call.await;
        self.tap.reply(self.node, kind, turn).await?;
        answer
    }
}

impl LogServer for Tapped {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async {
            let turn = self.tap.send(self.node, CallKind::OpenStore).await?;
            let answer = self.inner.open_store().await;
            self.tap.reply(self.node, CallKind::OpenStore, turn).await?;
            answer.map(|stream| self.tap.stores(self.node, stream))
        })
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(self.call(CallKind::Seal, self.inner.seal(request)))
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(self.call(CallKind::State, self.inner.state(request)))
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(self.call(CallKind::Repair, self.inner.repair(request)))
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(self.call(CallKind::Settle, self.inner.settle(request)))
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(self.call(CallKind::Trim, self.inner.trim(request)))
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        Box::pin(async move {
            let ReadStream { grants, replies: mut parts } = self.call(CallKind::Read, self.inner.read(request)).await?;
            let (sender, replies) = mpsc::channel(1);
            let (node, tap) = (self.node, self.tap.clone());
            tokio::spawn(async move {
                let forward = async {
                    while let Some(part) = parts.recv().await {
                        tap.part(node).await;
                        if sender.send(part).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = sender.closed() => {}
                    () = forward => {}
                }
            });
            Ok(ReadStream { grants, replies })
        })
    }
}

/// Reaches the same nodes through a tap.
#[derive(Debug)]
pub struct TappedConnect {
    pub inner: Arc<dyn Connect>,
    pub tap: Arc<dyn Tap>,
}

impl Connect for TappedConnect {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        let services = self.inner.connect(node)?;
        let log_server = Tapped { node: node.id.node, inner: services.log_server, tap: self.tap.clone() };
        Some(NodeServices { log_server: Arc::new(log_server), ..services })
    }
}

#[derive(Debug, Clone, Default)]
struct Rules {
    dark: BTreeSet<NodeId>,
    held: BTreeSet<(NodeId, LogletId)>,
    muted: BTreeSet<LogletId>,
}

/// The network in front of all log servers: it can make a server go dark and hold back the stores of a loglet.
#[derive(Debug, Clone, Default)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rules: watch::Sender<Rules>,
    /// The highest local tail that each server answered to stores.
    stored: watch::Sender<BTreeMap<(NodeId, LogletId), LogletOffset>>,
}

impl Network {
    /// Calls to the server hang, and are carried out when it is lit again, if somebody still waits.
    pub fn darken(&self, node: NodeId) {
        self.inner.rules.send_if_modified(|rules| rules.dark.insert(node));
    }

    pub fn light(&self, node: NodeId) {
        self.inner.rules.send_if_modified(|rules| rules.dark.remove(&node));
    }

    pub fn is_dark(&self, node: NodeId) -> bool {
        self.inner.rules.borrow().dark.contains(&node)
    }

    /// Stores of the loglet to this server are kept on the way, in order, until they are released.
    pub fn hold(&self, node: NodeId, loglet: LogletId) {
        self.inner.rules.send_if_modified(|rules| rules.held.insert((node, loglet)));
    }

    /// Answers to stores of the loglet are kept on the way, and all that follow on the same stream, until they are
    /// released.
    pub fn mute(&self, loglet: LogletId) {
        self.inner.rules.send_if_modified(|rules| rules.muted.insert(loglet));
    }

    /// Lets go of everything that is kept on the way.
    pub fn release(&self) {
        self.inner.rules.send_modify(|rules| {
            rules.held.clear();
            rules.muted.clear();
        });
    }

    /// Waits until the server has answered stores of the loglet up to this local tail.
    pub async fn stored(&self, node: NodeId, loglet: LogletId, tail: LogletOffset) {
        let mut stored = self.inner.stored.subscribe();
        let there = |stored: &BTreeMap<_, _>| stored.get(&(node, loglet)).is_some_and(|at| *at >= tail);
        stored.wait_for(there).await.expect("the network lives as long as its handle");
    }

    async fn unmuted(&self, loglet: LogletId) {
        let mut rules = self.inner.rules.subscribe();
        rules.wait_for(|rules| !rules.muted.contains(&loglet)).await.expect("the network lives as long as its handle");
    }

    async fn lit(&self, node: NodeId) {
        let mut rules = self.inner.rules.subscribe();
        rules.wait_for(|rules| !rules.dark.contains(&node)).await.expect("the network lives as long as its handle");
    }
}

impl Interpose for Network {
    fn log_server(&self, node: NodeId, inner: Arc<dyn LogServer>) -> Arc<dyn LogServer> {
        Arc::new(Tapped { node, inner, tap: Arc::new(self.clone()) })
    }

    fn node(&self, node: NodeId, inner: Arc<dyn NodeService>) -> Arc<dyn NodeService> {
        Arc::new(Hidden { node, inner, network: self.clone() })
    }
}

/// What a node says about itself, while it is not dark.
#[derive(Debug)]
struct Hidden {
    node: NodeId,
    inner: Arc<dyn NodeService>,
    network: Network,
}

impl NodeService for Hidden {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        Box::pin(async move {
            self.network.lit(self.node).await;
            let status = self.inner.status().await;
            self.network.lit(self.node).await;
            status
        })
    }
}

impl Tap for Network {
    fn send(&self, node: NodeId, _kind: CallKind) -> BoxFuture<'_, Result<Turn, RpcError>> {
        Box::pin(async move {
            self.lit(node).await;
            Ok(Turn::default())
        })
    }

    fn reply(&self, node: NodeId, _kind: CallKind, _turn: Turn) -> BoxFuture<'_, Result<(), RpcError>> {
        Box::pin(async move {
            self.lit(node).await;
            Ok(())
        })
    }

    fn stores(&self, node: NodeId, stream: StoreStream) -> StoreStream {
        let StoreStream { requests, replies: mut answers } = stream;
        let (request_sender, request_queue) = mpsc::channel(STREAM);
        let (reply_sender, replies) = mpsc::channel(STREAM);
        tokio::spawn(forward_stores(node, self.inner.rules.subscribe(), request_queue, requests));
        let network = self.clone();
        tokio::spawn(async move {
            while let Some(answer) = answers.recv().await {
                network.lit(node).await;
                if let Some(Ok(state)) = answer.outcome {
                    network.inner.stored.send_modify(|stored| {
                        let known = stored.entry((node, answer.loglet)).or_insert(LogletOffset::FIRST);
                        *known = state.local_tail.max(*known);
                    });
                }
                network.unmuted(answer.loglet).await;
                if reply_sender.send(answer).await.is_err() {
                    return;
                }
            }
        });
        StoreStream { requests: request_sender, replies }
    }
}

/// Passes stores on as far as the rules allow; what is held keeps its order within its loglet.
async fn forward_stores(
    node: NodeId,
    mut rules: watch::Receiver<Rules>,
    mut queue: mpsc::Receiver<StoreRequest>,
    out: mpsc::Sender<StoreRequest>,
) {
    let mut parked: Vec<StoreRequest> = Vec::new();
    loop {
        let now = rules.borrow_and_update().clone();
        if !now.dark.contains(&node) {
            for request in std::mem::take(&mut parked) {
                if now.held.contains(&(node, request.loglet)) {
                    parked.push(request);
                } else if out.send(request).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            biased;
            request = queue.recv() => match request {
                Some(request) => parked.push(request),
                None => return,
            },
            changed = rules.changed() => if changed.is_err() { return },
            () = out.closed() => return,
        }
    }
}

/// Numbers every send and every reply of one actor, lets one call at a time be under way, and stops the actor at a step.
/// Calls to servers that are dark are not numbered: they never come to an end.
#[derive(Debug, Clone)]
pub struct Stepper {
    inner: Arc<Steps>,
}

#[derive(Debug)]
struct Steps {
    network: Network,
    cut: Option<usize>,
    taken: Mutex<Vec<String>>,
    /// Set when the actor was stopped; `true` once it may go on.
    stopped: watch::Sender<Option<bool>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Stepper {
    /// Stops its actor at this step, counted from 1, or never.
    pub fn new(network: Network, cut: Option<usize>) -> Self {
        let turn = Arc::default();
        Self {
            inner: Arc::new(Steps { network, cut, taken: Mutex::default(), stopped: watch::Sender::new(None), turn }),
        }
    }

    /// Waits until the actor was stopped.
    pub async fn reached(&self) {
        let mut stopped = self.inner.stopped.subscribe();
        stopped.wait_for(Option::is_some).await.expect("the stepper lives as long as its handle");
    }

    /// Lets a stopped actor go on.
    pub fn resume(&self) {
        self.inner.stopped.send_modify(|stopped| *stopped = stopped.map(|_| true));
    }

    /// The steps that were taken, in order; the last one may be where it was stopped.
    pub fn taken(&self) -> Vec<String> {
        self.inner.taken.lock().clone()
    }

    /// A turn: nothing else of this actor is under way meanwhile.
    pub async fn turn(&self) -> Turn {
        Turn { _held: Some(self.inner.turn.clone().lock_owned().await) }
    }

    /// Takes a step.
    pub async fn step(&self, what: String) {
        let stopped = *self.inner.stopped.borrow();
        match stopped {
            None => {
                let number = {
                    let mut taken = self.inner.taken.lock();
                    taken.push(what);
                    taken.len()
                };
                if self.inner.cut != Some(number) {
                    return;
                }
                self.inner.stopped.send_modify(|stopped| *stopped = Some(false));
            }
            Some(true) => return,
            // Whatever the actor does besides is stopped with it.
            Some(false) => {}
        }
        let mut stopped = self.inner.stopped.subscribe();
        stopped.wait_for(|stopped| *stopped == Some(true)).await.expect("the stepper lives as long as its handle");
    }
}

impl Tap for Stepper {
    fn send(&self, node: NodeId, kind: CallKind) -> BoxFuture<'_, Result<Turn, RpcError>> {
        Box::pin(async move {
            match kind {
                // The only call whose caller waits for everybody: no need to wait for its deadline.
                CallKind::Settle if self.inner.network.is_dark(node) => return Err(RpcError::Unreachable),
                _ if self.inner.network.is_dark(node) => pending::<()>().await,
                _ => {}
            }
            let turn = self.turn().await;
            self.step(format!("send {kind:?} to {node}")).await;
            Ok(turn)
        })
    }

    fn reply(&self, node: NodeId, kind: CallKind, turn: Turn) -> BoxFuture<'_, Result<(), RpcError>> {
        Box::pin(async move {
            self.step(format!("reply of {node} to {kind:?}")).await;
            drop(turn);
            Ok(())
        })
    }

    fn part(&self, node: NodeId) -> BoxFuture<'_, ()> {
        Box::pin(self.step(format!("records of {node}")))
    }
}

/// Loses replies of one actor's calls, after they were carried out.
#[derive(Debug, Default)]
pub struct Losses {
    left: Mutex<BTreeMap<(NodeId, CallKind), u32>>,
}

impl Losses {
    /// The next replies of this node to calls of this kind are lost.
    pub fn lose(&self, node: NodeId, kind: CallKind, replies: u32) {
        self.left.lock().insert((node, kind), replies);
    }

    /// Whether everything that was to be lost was, this node's replies aside.
    pub fn is_used_up_but(&self, node: NodeId) -> bool {
        self.left.lock().iter().all(|((from, _), left)| *left == 0 || *from == node)
    }
}

impl Tap for Losses {
    fn send(&self, _node: NodeId, _kind: CallKind) -> BoxFuture<'_, Result<Turn, RpcError>> {
        Box::pin(async { Ok(Turn::default()) })
    }

    fn reply(&self, node: NodeId, kind: CallKind, _turn: Turn) -> BoxFuture<'_, Result<(), RpcError>> {
        let lost = match self.left.lock().get_mut(&(node, kind)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        Box::pin(async move { if lost { Err(RpcError::DeadlinePassed) } else { Ok(()) } })
    }
}
