//! Log servers that keep tails in memory, with faults to order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bifrost_loglet::peers::Peers;
use bifrost_types::{LogletOffset, NodeId};
use bifrost_wire::RpcError;
use bifrost_wire::batch::Batch;
use bifrost_wire::log_server::{
    CallError, CopyError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest,
    StateRequest, StoreReply, StoreRequest, StoreStream, TrimRequest,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Default)]
struct Faults {
    down: bool,
    lose_replies: bool,
    refuse: Option<CopyError>,
}

#[derive(Debug)]
struct FakeServer {
    faults: watch::Sender<Faults>,
    tail: watch::Sender<u64>,
    streams: Mutex<CancellationToken>,
}

/// Servers `N1` to `Nn`.
#[derive(Debug, Clone)]
pub(super) struct FakeServers(Arc<BTreeMap<NodeId, Arc<FakeServer>>>);

impl FakeServers {
    pub(super) fn new(count: u32) -> Self {
        let server = |_| {
            Arc::new(FakeServer {
                faults: watch::Sender::default(),
                tail: watch::Sender::new(1),
                streams: Mutex::new(CancellationToken::new()),
            })
        };
        Self(Arc::new((1..=count).map(|node| (id(node), server(node))).collect()))
    }

    fn get(&self, node: u32) -> &FakeServer {
        self.0.get(&id(node)).expect("a known node")
    }

    /// A server that is down takes no connection, and loses those that it has.
    pub(super) fn set_down(&self, node: u32, down: bool) {
        self.get(node).faults.send_modify(|faults| faults.down = down);
        self.break_streams(node);
    }

    pub(super) fn lose_replies(&self, node: u32, lose_replies: bool) {
        self.get(node).faults.send_modify(|faults| faults.lose_replies = lose_replies);
    }

    pub(super) fn refuse(&self, node: u32, refuse: Option<CopyError>) {
        self.get(node).faults.send_modify(|faults| faults.refuse = refuse);
    }

    pub(super) fn break_streams(&self, node: u32) {
        std::mem::take(&mut *self.get(node).streams.lock()).cancel();
    }

    pub(super) async fn until_stored(&self, node: u32, tail: u64) {
        self.get(node).tail.subscribe().wait_for(|stored| *stored >= tail).await.expect("the sender lives here");
    }
}

impl Peers for FakeServers {
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>> {
        self.0.get(&node).map(|server| Arc::clone(server) as Arc<dyn LogServer>)
    }
}

fn id(node: u32) -> NodeId {
    NodeId::try_from(node).expect("non-zero")
}

impl FakeServer {
    fn store(&self, request: &StoreRequest) -> Result<CopyState, CopyError> {
        if let Some(error) = self.faults.borrow().refuse {
            return Err(error);
        }
        let first = request.first_offset.get();
        if first > (*self.tail.borrow()).max(request.committed_tail.get()) {
            let expected = LogletOffset::new(*self.tail.borrow()).expect("at least 1");
            return Err(CopyError::Hole { expected });
        }
        let records = request.batches.iter().map(|bytes| {
            let batch = Batch::decode(bytes.clone()).expect("the sequencer sends batches");
            u64::from(batch.header().records.get())
        });
        let end = first + records.sum::<u64>();
        self.tail.send_modify(|tail| *tail = end.max(*tail));
        Ok(CopyState {
            local_tail: LogletOffset::new(*self.tail.borrow()).expect("at least 1"),
            committed_tail: request.committed_tail,
            sealed: None,
            decided_tail: None,
            trim_point: None,
        })
    }
}

impl LogServer for FakeServer {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async move {
            if self.faults.borrow().down {
                return Err(RpcError::Unreachable);
            }
            let (requests, mut queue) = mpsc::channel::<StoreRequest>(4);
            let (answers, replies) = mpsc::channel(64);
            let broken = self.streams.lock().clone();
            let me = Self {
                faults: self.faults.clone(),
                tail: self.tail.clone(),
                streams: Mutex::new(CancellationToken::new()),
            };
            #[expect(clippy::disallowed_methods, reason = "ends with the stream")]
            tokio::spawn(broken.run_until_cancelled_owned(async move {
                while let Some(request) = queue.recv().await {
                    let outcome = me.store(&request);
                    let silent = request.batches.is_empty() && outcome.is_ok();
                    if silent || me.faults.borrow().lose_replies {
                        continue;
                    }
                    if answers
                        .send(StoreReply { loglet: request.loglet, outcome: Some(outcome), followed: true })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }));
            Ok(StoreStream { requests, replies })
        })
    }

    fn seal(&self, _: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        not_offered()
    }

    fn state(&self, _: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        not_offered()
    }

    fn repair(&self, _: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        not_offered()
    }

    fn settle(&self, _: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        not_offered()
    }

    fn trim(&self, _: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        not_offered()
    }

    fn read(&self, _: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        not_offered()
    }
}

fn not_offered<T: Send>() -> BoxFuture<'static, Result<T, CallError>> {
    Box::pin(async { Err(RpcError::NotOffered.into()) })
}
