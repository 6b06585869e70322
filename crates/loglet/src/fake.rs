//! A log server in memory that obeys the contract, with faults to order. For driver tests only.

#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use bifrost_types::{
    DiskId, Generation, Location, LogId, LogletId, LogletOffset, LogletParams, Member, NodeGeneration, NodeId, NodeSet,
    Nodeset, OpId, ReplicationProperty, SegmentIndex,
};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{
    CallError, CopyError, CopyState, LogServer, ReadReply, ReadRequest, ReadStream, RepairRequest, SealRequest,
    SettleRequest, StateRequest, StoreStream, TrimRequest,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::peers::Peers;

/// How a fake behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Takes requests and never answers.
    Silent,
    /// Does what it is asked, and the answer is lost.
    LostReplies,
    /// Refuses connections.
    Down,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    disk: DiskId,
    copy: CopyState,
    /// One record per batch, one byte per record.
    records: BTreeMap<u64, Bytes>,
    calls: usize,
}

/// One copy of one loglet.
#[derive(Debug)]
pub(crate) struct MemoryFake(Mutex<State>);

impl MemoryFake {
    fn new(disk: DiskId, local: u64, committed: u64) -> Self {
        let copy = CopyState {
            local_tail: offset(local),
            committed_tail: offset(committed),
            sealed: None,
            decided_tail: None,
            trim_point: None,
        };
        let records = (1..local).map(|at| (at, Bytes::from(vec![at as u8]))).collect();
        Self(Mutex::new(State { fault: Fault::None, disk, copy, records, calls: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    pub(crate) fn set_disk(&self, disk: u128) {
        self.lock().disk = DiskId::try_from(disk).expect("non-zero");
    }

    pub(crate) fn lose(&self, at: u64) {
        self.lock().records.remove(&at);
    }

    pub(crate) fn copy(&self) -> CopyState {
        self.lock().copy
    }

    pub(crate) fn records(&self) -> Vec<u64> {
        self.lock().records.keys().copied().collect()
    }

    pub(crate) fn calls(&self) -> usize {
        self.lock().calls
    }

    fn answer<T: Send + 'static>(
        &self,
        disk: DiskId,
        act: impl FnOnce(&mut State) -> Result<T, CopyError>,
    ) -> BoxFuture<'_, Result<T, CallError>> {
        let mut state = self.lock();
        state.calls += 1;
        let fault = state.fault;
        let result = match fault {
            Fault::Silent => return Box::pin(pending()),
            Fault::Down => Err(RpcError::Unreachable.into()),
            Fault::None | Fault::LostReplies if state.disk != disk => {
                Err(CopyError::WrongDisk { actual: state.disk }.into())
            }
            Fault::None | Fault::LostReplies => act(&mut state).map_err(CallError::from),
        };
        let result = if fault == Fault::LostReplies { Err(RpcError::DeadlinePassed.into()) } else { result };
        Box::pin(async move { result })
    }
}

impl LogServer for MemoryFake {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async { Err(RpcError::NotOffered) })
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request.disk, |state| {
            state.copy.sealed = Some(request.op);
            Ok(state.copy)
        })
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request.disk, |state| Ok(state.copy))
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request.disk, |state| {
            if state.copy.sealed != Some(request.op) {
                return Err(CopyError::NotSealed);
            }
            state.copy.committed_tail = state.copy.committed_tail.max(request.committed_tail);
            let expected = state.copy.local_tail.max(state.copy.committed_tail);
            if request.first_offset > expected {
                return Err(CopyError::Hole { expected });
            }
            for (at, batch) in (request.first_offset.get()..).zip(request.batches) {
                state.records.insert(at, batch);
                state.copy.local_tail = state.copy.local_tail.max(offset(at + 1));
            }
            Ok(state.copy)
        })
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request.disk, |state| {
            state.copy.decided_tail = Some(request.decided_tail);
            state.copy.sealed.get_or_insert(request.op);
            Ok(state.copy)
        })
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request.disk, |state| {
            state.copy.trim_point = state.copy.trim_point.max(Some(request.trim_point));
            Ok(state.copy)
        })
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        self.answer(request.disk, |state| {
            let until = request.until.unwrap_or(state.copy.local_tail);
            let (sender, replies) = mpsc::channel(1024);
            let (grants, _) = mpsc::channel(1);
            for at in request.from.get()..until.get() {
                let (from, end) = (offset(at), offset(at + 1));
                let reply = match state.records.get(&at) {
                    Some(batch) => ReadReply::Batch { first_offset: from, end, batch: batch.clone() },
                    None => ReadReply::Missing { from, end, corrupt: false },
                };
                sender.try_send(Ok(reply)).expect("tests read fewer records than the channel holds");
            }
            Ok(ReadStream { grants, replies })
        })
    }
}

/// Servers by node.
#[derive(Debug, Default)]
pub(crate) struct FakePeers {
    servers: BTreeMap<NodeId, Arc<MemoryFake>>,
    lost: Mutex<NodeSet>,
}

impl FakePeers {
    pub(crate) fn server(&self, number: u32) -> &MemoryFake {
        &self.servers[&node(number)]
    }

    /// An operator gives the disks of these members up.
    pub(crate) fn declare_lost(&self, lost: NodeSet) {
        *self.lost.lock().expect("no test panics while it holds the lock") = lost;
    }
}

impl Peers for FakePeers {
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>> {
        self.servers.get(&node).cloned().map(|server| server as Arc<dyn LogServer>)
    }

    fn who_is_lost(&self, _: &Nodeset) -> BoxFuture<'static, Option<NodeSet>> {
        let lost = *self.lost.lock().expect("no test panics while it holds the lock");
        Box::pin(async move { Some(lost) })
    }
}

/// Nodes 1, 2, ... with these local and committed tails.
pub(crate) fn cluster(tails: &[(u64, u64)], replication: &str) -> (LogletParams, FakePeers) {
    let places: Vec<String> = (1..=tails.len()).map(|number| number.to_string()).collect();
    let params = params(&places, replication);
    let servers = params.nodeset.members().iter().zip(tails);
    let peers = servers
        .map(|(member, &(local, committed))| (member.node, Arc::new(MemoryFake::new(member.disk, local, committed))));
    (params.clone(), FakePeers { servers: peers.collect(), lost: Mutex::default() })
}

/// A loglet on nodes given as `1` or `1:zone` or `1:region.zone`; disk ids equal node ids.
pub(crate) fn params(places: &[String], replication: &str) -> LogletParams {
    let members = places.iter().map(|place| {
        let (number, place) = place.split_once(':').unwrap_or((place, ""));
        let (region, zone) = place.split_once('.').unwrap_or(("", place));
        let number: u32 = number.parse().expect("a node number");
        Member {
            node: node(number),
            disk: DiskId::try_from(u128::from(number)).expect("non-zero"),
            location: Location { region: region.into(), zone: zone.into() },
        }
    });
    LogletParams {
        id: LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::FIRST),
        nodeset: Nodeset::new(members.collect()).expect("distinct nodes"),
        replication: replication.parse::<ReplicationProperty>().expect("a replication property"),
        sequencer: NodeGeneration::new(node(1), Generation::FIRST),
    }
}

pub(crate) fn node(number: u32) -> NodeId {
    NodeId::try_from(number).expect("non-zero")
}

pub(crate) fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).expect("non-zero")
}

pub(crate) fn op(value: u128) -> OpId {
    OpId::try_from(value).expect("non-zero")
}
