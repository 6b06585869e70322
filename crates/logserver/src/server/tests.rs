#![allow(clippy::unwrap_used, clippy::panic)]

mod machine;

use bifrost_types::LogletOffset;
use bifrost_wire::log_server::{
    CopyError, LogServer, ReadReply, RepairRequest, SealRequest, StateRequest, StoreReply, StoreRequest, TrimRequest,
};

use bytes::Bytes;

use super::*;
use crate::store::faulty::FaultyStore;
use crate::store::memory::MemoryStore;
use crate::testing::*;

fn tails(local: u64, committed: u64) -> CopyState {
    CopyState {
        local_tail: at(local),
        committed_tail: at(committed),
        sealed: None,
        decided_tail: None,
        trim_point: None,
    }
}

#[tokio::test]
async fn a_store_is_answered_with_the_tails_and_can_be_read_back() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let mut stream = server.open_store().await.unwrap();
    let reply = exchange(&mut stream, store_request(loglet(1, 0), 1, 1, &[2, 3])).await;
    assert_eq!(reply, Ok(tails(6, 1)));
    let reply = exchange(&mut stream, store_request(loglet(1, 0), 6, 6, &[1])).await;
    assert_eq!(reply, Ok(tails(7, 6)));
    assert_eq!(read_all(&server, read_request(loglet(1, 0), 1, Some(6))).await, vec![part(1, 2), part(3, 3)]);
}

#[tokio::test]
async fn an_unknown_loglet_is_empty_and_asking_does_not_create_it() {
    let server = start(Arc::new(MemoryStore::new())).await;
    assert_eq!(state(&server, loglet(9, 9)).await, tails(1, 1));
    let stream = server.read(read_request(loglet(9, 9), 1, None)).await.unwrap();
    drop(stream);
    assert!(trim(&server, loglet(9, 9), 4).await.is_err());
    server.shutdown().await;
    assert_eq!(server.server.published.len(), 0);
}

#[tokio::test]
async fn a_seal_creates_the_loglet_and_survives_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let server = start(Arc::clone(&store)).await;
    assert_eq!(seal(&server, loglet(1, 0), 5).await.unwrap().sealed, Some(op(5)));
    server.shutdown().await;
    let server = start(store).await;
    assert_eq!(state(&server, loglet(1, 0)).await.sealed, Some(op(5)));
    let mut stream = server.open_store().await.unwrap();
    let reply = exchange(&mut stream, store_request(loglet(1, 0), 1, 1, &[1])).await;
    assert_eq!(reply, Err(CopyError::Sealed { op: op(5) }));
}

#[tokio::test]
async fn every_call_that_names_another_disk_is_refused() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let disk = DiskId::try_from(0xbad).unwrap();
    let wrong = CopyError::WrongDisk { actual: crate::testing::disk() };
    let of = loglet(1, 0);
    let seal = SealRequest { loglet: of, disk, op: op(1) };
    assert_eq!(server.seal(seal).await, Err(wrong.into()));
    assert_eq!(server.state(StateRequest { loglet: of, disk }).await, Err(wrong.into()));
    assert_eq!(server.trim(TrimRequest { loglet: of, disk, trim_point: at(1) }).await, Err(wrong.into()));
    let settle = SettleRequest { loglet: of, disk, op: op(1), decided_tail: at(1) };
    assert_eq!(server.settle(settle).await, Err(wrong.into()));
    let repair =
        RepairRequest { loglet: of, disk, op: op(1), committed_tail: at(1), first_offset: at(1), batches: Vec::new() };
    assert_eq!(server.repair(repair).await, Err(wrong.into()));
    assert_eq!(server.read(ReadRequest { disk, ..read_request(of, 1, None) }).await.unwrap_err(), wrong.into());
    let mut stream = server.open_store().await.unwrap();
    let reply = exchange(&mut stream, StoreRequest { disk, ..store_request(of, 1, 1, &[1]) }).await;
    assert_eq!(reply, Err(wrong));
    assert_eq!(server.server.published.len(), 0, "nothing of it left a trace");
}

#[tokio::test]
async fn bytes_that_are_no_batch_are_refused_and_later_stores_go_on() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let mut stream = server.open_store().await.unwrap();
    let good = batch(1, 2);
    let mut bad = vec![Bytes::new(), Bytes::from_static(b"nonsense"), good.slice(..good.len() - 1)];
    for bit in 0..good.len() * 8 {
        let mut flipped = good.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        bad.push(flipped.into());
    }
    for bytes in bad {
        let request = StoreRequest { batches: vec![bytes], ..store_request(loglet(1, 0), 1, 1, &[]) };
        assert_eq!(exchange(&mut stream, request).await, Err(CopyError::BadBatch { offset: at(1) }));
    }
    let request = StoreRequest { first_offset: LogletOffset::MAX, ..store_request(loglet(1, 0), 1, 1, &[2]) };
    assert_eq!(exchange(&mut stream, request).await, Err(CopyError::OutOfRange));
    assert!(exchange(&mut stream, store_request(loglet(1, 0), 1, 1, &[2])).await.is_ok());
}

#[tokio::test]
async fn a_request_without_batches_raises_the_committed_tail_silently() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(loglet(1, 0), 1, 1, &[4])).await.unwrap();
    let mut read = server.read(read_request(loglet(1, 0), 1, None)).await.unwrap();
    assert_eq!(stream.replies.recv().await.unwrap().outcome, None, "the reader wants news, which is no answer");
    stream.requests.send(store_request(loglet(1, 0), 5, 5, &[])).await.unwrap();
    assert_eq!(next_part(&mut read).await, Some(part(1, 4)));
    let reply = exchange(&mut stream, store_request(loglet(1, 0), 5, 5, &[1])).await;
    assert_eq!(reply, Ok(tails(6, 5)), "the first reply is that of the store with a batch");
}

#[tokio::test]
async fn an_answer_says_whether_somebody_follows() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    let store = |committed, first, records: &'static [u64]| store_request(of, committed, first, records);
    stream.requests.send(store(1, 1, &[2])).await.unwrap();
    let alone = StoreReply { loglet: of, outcome: Some(Ok(tails(3, 1))), followed: false };
    assert_eq!(stream.replies.recv().await, Some(alone));

    let late = server.read(read_request(of, 1, None)).await.unwrap();
    let news_is_wanted = StoreReply { loglet: of, outcome: None, followed: true };
    assert_eq!(stream.replies.recv().await, Some(news_is_wanted), "it was not told the committed tail yet");

    stream.requests.send(store(3, 3, &[])).await.unwrap();
    stream.requests.send(store(3, 3, &[1])).await.unwrap();
    let followed = StoreReply { loglet: of, outcome: Some(Ok(tails(4, 3))), followed: true };
    assert_eq!(stream.replies.recv().await, Some(followed));

    drop(late);
    let (mut end, mut reply) = (4, followed);
    while reply.followed {
        // The task of the read sees that its reader is gone when it has a turn.
        tokio::task::yield_now().await;
        stream.requests.send(store(end, end, &[1])).await.unwrap();
        reply = stream.replies.recv().await.unwrap();
        end += 1;
    }
    stream.requests.send(store(end, end, &[])).await.unwrap();
    while state(&server, of).await.committed_tail.get() < end {
        tokio::task::yield_now().await;
    }
    let _in_time = server.read(read_request(of, 1, None)).await.unwrap();
    stream.requests.send(store(end, end, &[1])).await.unwrap();
    let followed = StoreReply { loglet: of, outcome: Some(Ok(tails(end + 1, end))), followed: true };
    assert_eq!(stream.replies.recv().await, Some(followed), "it had been told all there was, and asked for nothing");
}

#[tokio::test]
async fn a_seal_does_not_wait_behind_queued_stores() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let mut stream = server.open_store().await.unwrap();
    store.hold();
    stream.requests.send(store_request(loglet(1, 0), 1, 1, &[1])).await.unwrap();
    store.until_held().await;
    for offset in 2..20 {
        stream.requests.send(store_request(loglet(1, 0), 1, offset, &[1])).await.unwrap();
    }
    let sealing = seal(&server, loglet(1, 0), 1);
    tokio::pin!(sealing);
    // One poll queues the seal; it cannot be answered before the first group is durable.
    assert!(futures_util::poll!(&mut sealing).is_pending());
    store.release();
    let sealed = sealing.await.unwrap();
    assert_eq!(sealed.local_tail, at(2));
    assert!(said(stream.replies.recv().await.unwrap()).is_ok());
    assert_eq!(said(stream.replies.recv().await.unwrap()), Err(CopyError::Sealed { op: op(1) }));
}

#[tokio::test]
async fn a_stream_whose_peer_takes_no_replies_is_dropped_and_others_go_on() {
    let store = Arc::new(MemoryStore::new());
    let options = ServerOptions { stream_replies: 1, ..ServerOptions::new(node(1), disk()) };
    let server = LogServerHandle::start(store, options, WriterRuntime::Task).await.unwrap();
    let silent = server.open_store().await.unwrap();
    // The refusals of one loglet are one reply each: the second finds no room.
    for _ in 0..3 {
        let _ = silent.requests.send(store_request(loglet(1, 0), 1, 9, &[1])).await;
    }
    silent.requests.closed().await;
    let mut other = server.open_store().await.unwrap();
    assert!(exchange(&mut other, store_request(loglet(2, 0), 1, 1, &[1])).await.is_ok());
}

#[tokio::test]
async fn limits_of_streams_and_reads_are_answers() {
    let options = ServerOptions { streams: 1, reads: 1, ..ServerOptions::new(node(1), disk()) };
    let server = LogServerHandle::start(Arc::new(MemoryStore::new()), options, WriterRuntime::Thread).await.unwrap();
    let _stream = server.open_store().await.unwrap();
    assert_eq!(server.open_store().await.unwrap_err(), RpcError::Overloaded);
    let _read = server.read(read_request(loglet(1, 0), 1, None)).await.unwrap();
    let refused = server.read(read_request(loglet(1, 0), 1, None)).await.unwrap_err();
    assert_eq!(refused, CallError::Rpc(RpcError::Overloaded));
}

#[tokio::test]
async fn shutdown_closes_streams_reads_and_calls() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let mut stream = server.open_store().await.unwrap();
    let mut read = server.read(read_request(loglet(1, 0), 1, None)).await.unwrap();
    assert!(matches!(read.replies.recv().await, Some(Ok(ReadReply::Tail(_)))));
    server.shutdown().await;
    assert_eq!(stream.replies.recv().await, None);
    assert_eq!(read.replies.recv().await, Some(Err(RpcError::ShuttingDown.into())));
    assert_eq!(seal(&server, loglet(1, 0), 1).await, Err(RpcError::ShuttingDown.into()));
    assert_eq!(server.open_store().await.unwrap_err(), RpcError::ShuttingDown);
    server.shutdown().await;
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_server() {
    let store = Arc::new(MemoryStore::new());
    let server = start(Arc::clone(&store)).await;
    let mut stream = server.open_store().await.unwrap();
    drop(server);
    assert_eq!(stream.replies.recv().await, None);
}

#[test]
fn options_out_of_bounds_are_refused() {
    let options = ServerOptions::new(node(1), disk());
    assert_eq!(options.validate(), Ok(()));
    assert!(ServerOptions { queue_bytes: 1, ..options.clone() }.validate().is_err());
    assert!(ServerOptions { streams: 0, ..options }.validate().is_err());
}
