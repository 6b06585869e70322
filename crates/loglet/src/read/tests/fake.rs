//! Log servers with switches for every fault that a reader must live with.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bifrost_types::{
    DiskId, Generation, Keys, Location, LogId, LogletId, LogletOffset, LogletParams, Member, NodeGeneration, NodeId,
    Nodeset, Record, ReplicationProperty, SegmentIndex, Sequence, WriterId,
};
use bifrost_wire::RpcError;
use bifrost_wire::batch::{Batch, Filtered, encode};
use bifrost_wire::log_server::{
    CallError, CopyError, CopyState, LogServer, ReadGrant, ReadReply, ReadRequest, ReadStream, RepairRequest,
    SealRequest, SettleRequest, StateRequest, StoreStream, TrimRequest,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::peers::Peers;

pub(super) fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).expect("an offset")
}

fn disk(node: u32) -> DiskId {
    DiskId::try_from(u128::from(node)).expect("non-zero")
}

/// A batch at `first` with `count` records; the record at offset `o` has key `o` and a payload of 100 bytes.
pub(super) fn batch_at(first: u64, count: u64) -> Bytes {
    let record = |at: u64| Record::new(vec![at as u8; 100]).with_keys(Keys::Single(at));
    let records: Vec<Record> = (first..first + count).map(record).collect();
    let writer = WriterId::try_from(7).expect("non-zero");
    encode(writer, Sequence::try_from(first).expect("non-zero"), 1, &records).expect("a batch")
}

/// One copy, and what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    /// By first offset.
    pub(super) batches: BTreeMap<u64, Bytes>,
    pub(super) committed: LogletOffset,
    pub(super) trim_point: Option<LogletOffset>,
    /// First offsets of batches whose bytes rotted.
    pub(super) rotten: BTreeSet<u64>,
    /// Refuses calls and breaks streams.
    pub(super) down: bool,
    /// Takes calls and never answers with anything.
    pub(super) mute: bool,
    /// Breaks the stream after so many parts, once.
    pub(super) break_after: Option<u32>,
    /// Sends all it has, whatever may be read.
    pub(super) overshoots: bool,
    pub(super) disk: DiskId,
}

#[derive(Debug)]
pub(super) struct FakeServer {
    copy: watch::Sender<Copy>,
    /// Reads in progress.
    pub(super) reads: Arc<AtomicUsize>,
    /// Reads ever begun with credit.
    pub(super) opened: AtomicUsize,
    /// Bytes of batches sent.
    pub(super) sent: Arc<AtomicUsize>,
}

impl FakeServer {
    pub(super) fn change(&self, change: impl FnOnce(&mut Copy)) {
        self.copy.send_modify(change);
    }
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) params: LogletParams,
    pub(super) servers: Vec<Arc<FakeServer>>,
}

impl Cluster {
    /// `nodes` copies with these batches (first, count) each; all committed.
    pub(super) fn new(nodes: u32, batches: &[(u64, u64)]) -> Arc<Self> {
        let node = |node: u32| NodeId::try_from(node).expect("non-zero");
        let member = |index| Member { node: node(index), disk: disk(index), location: Location::default() };
        let params = LogletParams {
            id: LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::FIRST),
            nodeset: Nodeset::new((1..=nodes).map(member).collect()).expect("a nodeset"),
            replication: ReplicationProperty::nodes(NonZeroU8::MIN),
            sequencer: NodeGeneration::new(node(1), Generation::FIRST),
        };
        let end = batches.iter().map(|(first, count)| first + count).max().unwrap_or(1);
        let copy = |index| Copy {
            batches: batches.iter().map(|(first, count)| (*first, batch_at(*first, *count))).collect(),
            committed: offset(end),
            trim_point: None,
            rotten: BTreeSet::new(),
            down: false,
            mute: false,
            break_after: None,
            overshoots: false,
            disk: disk(index),
        };
        let server = |index| {
            Arc::new(FakeServer {
                copy: watch::Sender::new(copy(index)),
                reads: Arc::default(),
                opened: AtomicUsize::new(0),
                sent: Arc::default(),
            })
        };
        Arc::new(Self { params, servers: (1..=nodes).map(server).collect() })
    }

    /// Changes the copy of node `N<node>`.
    pub(super) fn change(&self, node: usize, change: impl FnOnce(&mut Copy)) {
        self.servers[node - 1].change(change);
    }

    pub(super) fn reads(&self) -> usize {
        self.servers.iter().map(|server| server.reads.load(Ordering::SeqCst)).sum()
    }
}

impl Peers for Cluster {
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>> {
        let server = self.servers.get(usize::try_from(node.get()).ok()?.checked_sub(1)?)?;
        Some(Arc::<FakeServer>::clone(server))
    }
}

/// Counts a read while it lives.
struct Reading(Arc<AtomicUsize>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The next part that a copy sends from `next`, or `None` if there is nothing to send now.
fn part(
    copy: &Copy,
    request: &ReadRequest,
    next: LogletOffset,
    readable: LogletOffset,
    credit: i64,
) -> Option<ReadReply> {
    let stored_end = copy.batches.iter().map(|(first, bytes)| first + records(bytes)).max().unwrap_or(1);
    let known = if copy.overshoots { offset(stored_end) } else { copy.committed.max(readable) };
    let limit = request.until.map_or(known, |until| known.min(until));
    if next >= limit {
        return None;
    }
    if let Some(point) = copy.trim_point
        && point >= next
    {
        return Some(ReadReply::Trimmed { from: next, end: offset(point.get() + 1).min(limit) });
    }
    let found = copy.batches.range(..=next.get()).next_back();
    let Some((first, bytes)) = found.filter(|(first, bytes)| *first + records(bytes) > next.get()) else {
        let following = copy.batches.range(next.get()..).next().map_or(limit, |(first, _)| offset(*first));
        return Some(ReadReply::Missing { from: next, end: following.min(limit), corrupt: false });
    };
    let (first_offset, end) = (offset(*first), offset(first + records(bytes)));
    let batch = Batch::decode(bytes.clone()).expect("a batch");
    let bytes = match batch.filter(request.filter) {
        Filtered::None => return Some(ReadReply::Filtered { from: next, end }),
        Filtered::All => bytes.clone(),
        Filtered::Some(bytes) => bytes,
    };
    if credit <= 0 {
        return None;
    }
    let mut bytes = bytes.to_vec();
    if copy.rotten.contains(first) {
        *bytes.last_mut().expect("not empty") ^= 1;
    }
    Some(ReadReply::Batch { first_offset, end, batch: Bytes::from(bytes) })
}

fn records(bytes: &Bytes) -> u64 {
    u64::from(Batch::decode(bytes.clone()).expect("a batch").header().records.get())
}

struct Pump {
    request: ReadRequest,
    copy: watch::Receiver<Copy>,
    grants: mpsc::Receiver<ReadGrant>,
    replies: mpsc::Sender<Result<ReadReply, CallError>>,
    sent: Arc<AtomicUsize>,
    _reading: Reading,
}

impl Pump {
    async fn run(mut self) {
        let mut next = self.request.from;
        let mut credit = i64::try_from(self.request.credit_bytes).expect("small");
        let mut readable = self.request.readable_tail;
        let mut told = None;
        let mut parts = 0_u32;
        loop {
            let copy = self.copy.borrow_and_update().clone();
            if copy.down {
                return;
            }
            if !copy.mute {
                if told.is_none() {
                    told = Some(copy.committed);
                    let _ = self.replies.send(Ok(ReadReply::Tail(state(&copy)))).await;
                }
                if let Some(part) = part(&copy, &self.request, next, readable, credit) {
                    parts += 1;
                    if copy.break_after.is_some_and(|after| parts > after) {
                        return;
                    }
                    next = match &part {
                        ReadReply::Batch { end, batch, .. } => {
                            credit -= i64::try_from(batch.len()).expect("small");
                            self.sent.fetch_add(batch.len(), Ordering::SeqCst);
                            *end
                        }
                        ReadReply::Filtered { end, .. }
                        | ReadReply::Trimmed { end, .. }
                        | ReadReply::Missing { end, .. } => *end,
                        ReadReply::Tail(_) => next,
                    };
                    if self.replies.send(Ok(part)).await.is_err() {
                        return;
                    }
                    continue;
                }
                if self.request.until.is_some_and(|until| next >= until) {
                    return;
                }
                // News only while there is nothing to send, not even for want of credit.
                if next >= copy.committed.max(readable) && told != Some(copy.committed) {
                    told = Some(copy.committed);
                    let _ = self.replies.send(Ok(ReadReply::Tail(state(&copy)))).await;
                }
            }
            tokio::select! {
                biased;
                () = self.replies.closed() => return,
                grant = self.grants.recv() => {
                    let Some(grant) = grant else { return };
                    credit += i64::try_from(grant.credit_bytes).expect("small");
                    readable = readable.max(grant.readable_tail);
                }
                changed = self.copy.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn state(copy: &Copy) -> CopyState {
    CopyState {
        local_tail: copy.committed,
        committed_tail: copy.committed,
        sealed: None,
        decided_tail: None,
        trim_point: copy.trim_point,
    }
}

impl LogServer for FakeServer {
    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        Box::pin(async move {
            let copy = self.copy.borrow().clone();
            if copy.down {
                return Err(RpcError::Unreachable.into());
            }
            if copy.disk != request.disk {
                return Err(CopyError::WrongDisk { actual: copy.disk }.into());
            }
            if request.credit_bytes > 0 {
                self.opened.fetch_add(1, Ordering::SeqCst);
            }
            self.reads.fetch_add(1, Ordering::SeqCst);
            let (grants, granted) = mpsc::channel(2);
            let (replies, replied) = mpsc::channel(4);
            let pump = Pump {
                request,
                copy: self.copy.subscribe(),
                grants: granted,
                replies,
                sent: Arc::clone(&self.sent),
                _reading: Reading(Arc::clone(&self.reads)),
            };
            tokio::spawn(pump.run());
            Ok(ReadStream { grants, replies: replied })
        })
    }

    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async { Err(RpcError::NotOffered) })
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
}

fn not_offered<'a>() -> BoxFuture<'a, Result<CopyState, CallError>> {
    Box::pin(async { Err(RpcError::NotOffered.into()) })
}
