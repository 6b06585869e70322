//! Faults between a log server and everybody who calls it: lost replies, silence, flipped bits, cancelled callers.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bifrost_node::server::Interpose;
use bifrost_types::NodeId;
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{
    CallError, CopyState, LogServer, ReadReply, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest,
    StateRequest, StoreReply, StoreRequest, StoreStream, TrimRequest,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long a broken store stream goes on to execute requests whose replies are lost.
const BREAK_TIME: Duration = Duration::from_millis(5);
/// Messages between a fault and its log server: few, so that a silent server pushes back at once.
const QUEUE: usize = 4;

/// The seed of a run: from `BIFROST_SEED`, or fresh. Printed, so that a failed run names it.
pub fn seed_of(test: &str) -> u64 {
    let seed = std::env::var("BIFROST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("{test}: BIFROST_SEED={seed}");
    seed
}

/// Prints diagnostics if `RUST_LOG` asks for them.
pub fn trace_if_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _set_before = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
}

/// A generator of its own for each purpose, so that tasks do not disturb each other's randomness.
pub fn rng_of(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ purpose.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Polls a future at most `polls` times and drops it then: its caller is cancelled at that await.
pub async fn cancelled_after<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The faults of all nodes of a cluster.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    nodes: Mutex<BTreeMap<NodeId, Arc<NodeFaults>>>,
}

impl Faults {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { seed, nodes: Mutex::new(BTreeMap::new()) })
    }

    /// The faults of one node, across its lives.
    pub fn of(&self, node: NodeId) -> Arc<NodeFaults> {
        let mut nodes = self.nodes.lock();
        nodes.entry(node).or_insert_with(|| Arc::new(NodeFaults::new(self.seed, node))).clone()
    }
}

impl Interpose for Faults {
    fn log_server(&self, node: NodeId, inner: Arc<dyn LogServer>) -> Arc<dyn LogServer> {
        Arc::new(FaultyLogServer { inner, faults: self.of(node) })
    }
}

/// The faults of one node; all off at first. Chances are per mille.
#[derive(Debug)]
pub struct NodeFaults {
    rng: Mutex<StdRng>,
    /// Of unary calls: executed, and the reply lost.
    pub lost_calls: AtomicU32,
    /// Of replies on a store stream: it and those of the next moment are lost, then the stream breaks.
    pub broken_stores: AtomicU32,
    /// Of batches sent to readers: one bit is flipped on the way.
    pub flipped_reads: AtomicU32,
    /// Of batches sent to the server to be stored: one bit is flipped on the way.
    pub flipped_stores: AtomicU32,
    /// Nothing on store streams goes through in either direction.
    pub silent: watch::Sender<bool>,
    /// How many of the above happened.
    pub happened: AtomicU64,
}

impl NodeFaults {
    fn new(seed: u64, node: NodeId) -> Self {
        Self {
            rng: Mutex::new(rng_of(seed, 1_000 + u64::from(node.get()))),
            lost_calls: AtomicU32::new(0),
            broken_stores: AtomicU32::new(0),
            flipped_reads: AtomicU32::new(0),
            flipped_stores: AtomicU32::new(0),
            silent: watch::Sender::new(false),
            happened: AtomicU64::new(0),
        }
    }

    fn strikes(&self, chance: &AtomicU32) -> bool {
        let per_mille = chance.load(Ordering::Relaxed);
        let strikes = per_mille > 0 && self.rng.lock().random_range(0..1000) < per_mille;
        if strikes {
            self.happened.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }

    fn flipped(&self, bytes: &Bytes) -> Bytes {
        let mut damaged = bytes.to_vec();
        let bit = self.rng.lock().random_range(0..damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        damaged.into()
    }

    async fn until_heard(&self) {
        let mut silent = self.silent.subscribe();
        // The sender lives as long as `self`.
        let _never_closed = silent.wait_for(|silent| !silent).await;
    }

    async fn pass_stores(&self, mut from: mpsc::Receiver<StoreRequest>, to: mpsc::Sender<StoreRequest>) {
        while let Some(mut request) = from.recv().await {
            self.until_heard().await;
            for batch in &mut request.batches {
                if self.strikes(&self.flipped_stores) {
                    *batch = self.flipped(batch);
                }
            }
            if to.send(request).await.is_err() {
                return;
            }
        }
    }

    async fn pass_replies(&self, mut from: mpsc::Receiver<StoreReply>, to: mpsc::Sender<StoreReply>) {
        while let Some(reply) = from.recv().await {
            self.until_heard().await;
            if self.strikes(&self.broken_stores) {
                let lost = async { while from.recv().await.is_some() {} };
                let _broken = timeout(BREAK_TIME, lost).await;
                return;
            }
            if to.send(reply).await.is_err() {
                return;
            }
        }
    }

    async fn pass_parts(
        &self,
        mut from: mpsc::Receiver<Result<ReadReply, CallError>>,
        to: mpsc::Sender<Result<ReadReply, CallError>>,
    ) {
        while let Some(mut part) = from.recv().await {
            if let Ok(ReadReply::Batch { batch, .. }) = &mut part
                && self.strikes(&self.flipped_reads)
            {
                *batch = self.flipped(batch);
            }
            if to.send(part).await.is_err() {
                return;
            }
        }
    }
}

/// A log server with its node's faults in front.
#[derive(Debug)]
struct FaultyLogServer {
    inner: Arc<dyn LogServer>,
    faults: Arc<NodeFaults>,
}

impl FaultyLogServer {
    /// Executes the call, and perhaps loses the answer.
    fn call<'a>(
        &'a self,
        answer: BoxFuture<'a, Result<CopyState, CallError>>,
    ) -> BoxFuture<'a, Result<CopyState, CallError>> {
        Box::pin(async move {
            let answer = answer.await;
            if self.faults.strikes(&self.faults.lost_calls) { Err(RpcError::Unreachable.into()) } else { answer }
        })
    }
}

impl LogServer for FaultyLogServer {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async move {
            let inner = self.inner.open_store().await?;
            let (requests, from_caller) = mpsc::channel(QUEUE);
            let (to_caller, replies) = mpsc::channel(QUEUE);
            let faults = self.faults.clone();
            tokio::spawn(async move {
                let gone = to_caller.clone();
                // The first half that ends takes the whole stream with it, as a broken connection does.
                tokio::select! {
                    () = gone.closed() => {}
                    () = faults.pass_stores(from_caller, inner.requests) => {}
                    () = faults.pass_replies(inner.replies, to_caller) => {}
                }
            });
            Ok(StoreStream { requests, replies })
        })
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.call(self.inner.seal(request))
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.call(self.inner.state(request))
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.call(self.inner.repair(request))
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.call(self.inner.settle(request))
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.call(self.inner.trim(request))
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        Box::pin(async move {
            let ReadStream { grants, replies: parts } = self.inner.read(request).await?;
            let (to_caller, replies) = mpsc::channel(QUEUE);
            let faults = self.faults.clone();
            tokio::spawn(async move {
                let gone = to_caller.clone();
                tokio::select! {
                    () = gone.closed() => {}
                    () = faults.pass_parts(parts, to_caller) => {}
                }
            });
            Ok(ReadStream { grants, replies })
        })
    }
}
