//! What the tests of this crate share: short names for ids, batches, and a server to talk to.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bifrost_types::{
    DiskId, Generation, KeyFilter, Keys, LogId, LogletId, LogletOffset, NodeGeneration, NodeId, OpId, Record,
    SegmentIndex, Sequence, WriterId,
};
use bifrost_wire::batch;
use bifrost_wire::log_server::{
    CallError, CopyError, CopyState, LogServer, ReadReply, ReadRequest, ReadStream, SealRequest, SettleRequest,
    StateRequest, StoreReply, StoreRequest, StoreStream, TrimRequest,
};
use bytes::Bytes;

use crate::options::ServerOptions;
use crate::server::{LogServerHandle, WriterRuntime};
use crate::store::{LogStore, PlacedBatch};

pub(crate) fn at(offset: u64) -> LogletOffset {
    LogletOffset::new(offset).expect("non-zero")
}

pub(crate) fn loglet(log: u64, segment: u32) -> LogletId {
    LogletId::new(LogId::try_from(log).expect("non-zero"), SegmentIndex::new(segment))
}

pub(crate) fn op(value: u128) -> OpId {
    OpId::try_from(value).expect("non-zero")
}

pub(crate) fn disk() -> DiskId {
    DiskId::try_from(0xd15c).expect("non-zero")
}

pub(crate) fn node(value: u32) -> NodeId {
    NodeId::try_from(value).expect("non-zero")
}

pub(crate) fn sequencer(value: u32) -> NodeGeneration {
    NodeGeneration::new(node(value), Generation::FIRST)
}

/// A batch whose payloads and keys tell its offsets.
pub(crate) fn batch(first_offset: u64, records: u64) -> Bytes {
    batch_with(first_offset, records, "")
}

/// Another batch for the same offsets.
pub(crate) fn batch_with(first_offset: u64, records: u64, extra: &str) -> Bytes {
    let records: Vec<Record> = (first_offset..first_offset + records)
        .map(|offset| Record::new(format!("record {offset}{extra}")).with_keys(Keys::Single(offset)))
        .collect();
    let writer = WriterId::try_from(7).expect("non-zero");
    batch::encode(writer, Sequence::try_from(first_offset).expect("non-zero"), 1, &records).expect("small records")
}

pub(crate) fn placed(first_offset: u64, records: u64) -> PlacedBatch {
    placed_with(first_offset, records, "")
}

pub(crate) fn placed_with(first_offset: u64, records: u64, extra: &str) -> PlacedBatch {
    PlacedBatch::new(at(first_offset), at(first_offset + records), batch_with(first_offset, records, extra))
}

pub(crate) fn store_request(of: LogletId, committed_tail: u64, first_offset: u64, records: &[u64]) -> StoreRequest {
    let mut next = first_offset;
    let mut batches = Vec::new();
    for count in records {
        batches.push(batch(next, *count));
        next += count;
    }
    StoreRequest {
        loglet: of,
        disk: disk(),
        sequencer: sequencer(1),
        committed_tail: at(committed_tail),
        first_offset: at(first_offset),
        batches,
    }
}

pub(crate) fn read_request(of: LogletId, from: u64, until: Option<u64>) -> ReadRequest {
    ReadRequest {
        loglet: of,
        disk: disk(),
        from: at(from),
        until: until.map(at),
        filter: KeyFilter::Any,
        credit_bytes: 1 << 20,
        readable_tail: LogletOffset::FIRST,
    }
}

/// What in allocations the middle one of many costs: the first ones make room, and rows and queues grow now and then.
pub(crate) fn usual(mut work: impl FnMut(u64)) -> allocation_counter::AllocationInfo {
    let mut all: Vec<allocation_counter::AllocationInfo> =
        (0..33).map(|turn| allocation_counter::measure(|| work(turn))).collect();
    all.sort_by_key(|info| (info.count_total, info.bytes_total));
    all.swap_remove(all.len() / 2)
}

pub(crate) async fn start<S: LogStore>(store: Arc<S>) -> LogServerHandle {
    LogServerHandle::start(store, ServerOptions::new(node(1), disk()), WriterRuntime::Task).await.unwrap()
}

/// Sends one request and takes what is said of it.
pub(crate) async fn exchange(stream: &mut StoreStream, request: StoreRequest) -> Result<CopyState, CopyError> {
    stream.requests.send(request).await.unwrap();
    said(stream.replies.recv().await.unwrap())
}

/// What a reply says of a request.
pub(crate) fn said(reply: StoreReply) -> Result<CopyState, CopyError> {
    reply.outcome.expect("it answers a request")
}

pub(crate) async fn seal(server: &LogServerHandle, of: LogletId, by: u128) -> Result<CopyState, CallError> {
    server.seal(SealRequest { loglet: of, disk: disk(), op: op(by) }).await
}

pub(crate) async fn settle(server: &LogServerHandle, of: LogletId, decided: u64) -> Result<CopyState, CallError> {
    server.settle(SettleRequest { loglet: of, disk: disk(), op: op(1), decided_tail: at(decided) }).await
}

pub(crate) async fn trim(server: &LogServerHandle, of: LogletId, point: u64) -> Result<CopyState, CallError> {
    server.trim(TrimRequest { loglet: of, disk: disk(), trim_point: at(point) }).await
}

pub(crate) async fn state(server: &LogServerHandle, of: LogletId) -> CopyState {
    server.state(StateRequest { loglet: of, disk: disk() }).await.unwrap()
}

/// The next part that is not news of the tail.
pub(crate) async fn next_part(stream: &mut ReadStream) -> Option<ReadReply> {
    loop {
        match stream.replies.recv().await?.unwrap() {
            ReadReply::Tail(_) => {}
            part => return Some(part),
        }
    }
}

/// All parts of a read that ends.
pub(crate) async fn read_all(server: &LogServerHandle, request: ReadRequest) -> Vec<ReadReply> {
    let mut stream = server.read(request).await.unwrap();
    let mut parts = Vec::new();
    while let Some(part) = next_part(&mut stream).await {
        parts.push(part);
    }
    parts
}

/// The part that carries a whole stored batch.
pub(crate) fn part(first_offset: u64, records: u64) -> ReadReply {
    ReadReply::Batch {
        first_offset: at(first_offset),
        end: at(first_offset + records),
        batch: batch(first_offset, records),
    }
}

/// Compares hex dumps with a golden file; `UPDATE=1` rewrites it.
pub(crate) fn golden(name: &str, rows: &[(&str, &[u8])]) {
    let mut text = String::new();
    for (what, bytes) in rows {
        writeln!(text, "{what}").unwrap();
        for line in bytes.chunks(16) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "  {}", hex.join(" ")).unwrap();
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "the bytes on disk changed: {name}");
}
