#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost_wire::log_server::{CallError, LogServer, ReadReply, RepairRequest, StoreRequest};

use super::*;
use crate::store::Stored;
use crate::store::faulty::FaultyStore;
use crate::testing::*;

#[tokio::test]
async fn stores_of_many_streams_and_loglets_share_one_commit() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    store.hold();
    let mut first = server.open_store().await.unwrap();
    first.requests.send(store_request(loglet(1, 0), 1, 1, &[1])).await.unwrap();
    store.until_held().await;
    let mut streams = Vec::new();
    for log in 2..10 {
        let stream = server.open_store().await.unwrap();
        for offset in 1..=10 {
            stream.requests.send(store_request(loglet(log, 0), 1, offset, &[1])).await.unwrap();
        }
        streams.push((log, stream));
    }
    // Until each stream's task took everything; what it passes on it passes in the same turn.
    for (_, stream) in &streams {
        while stream.requests.capacity() < stream.requests.max_capacity() {
            tokio::task::yield_now().await;
        }
    }
    store.release();
    assert!(said(first.replies.recv().await.unwrap()).is_ok());
    for (log, stream) in &mut streams {
        let reply = stream.replies.recv().await.unwrap();
        assert_eq!((reply.loglet, said(reply).unwrap().local_tail), (loglet(*log, 0), at(11)));
        assert!(stream.replies.try_recv().is_err(), "one cumulative reply for ten stores");
    }
    assert_eq!(store.commits(), 2, "eighty stores of eight streams in one group");
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_in_a_crash() {
    let store = Arc::new(FaultyStore::new());
    let of = loglet(1, 0);
    let server = start(Arc::clone(&store)).await;
    let mut stream = server.open_store().await.unwrap();
    let reply = exchange(&mut stream, store_request(of, 1, 1, &[2, 2])).await;
    assert_eq!(reply.unwrap().local_tail, at(5));
    store.hold();
    stream.requests.send(store_request(of, 1, 5, &[1])).await.unwrap();
    store.until_held().await;
    assert!(stream.replies.try_recv().is_err(), "written and not synced is not answered (L2)");
    assert_eq!(state(&server, of).await.local_tail, at(5), "and not told");
    store.crash();
    server.stopped().await;
    assert_eq!(stream.replies.recv().await.map(said), Some(Err(CopyError::Stopping)));
    assert_eq!(stream.replies.recv().await, None);
    server.shutdown().await;

    let server = start(Arc::clone(&store)).await;
    assert_eq!(state(&server, of).await.local_tail, at(5));
    let mut stream = server.open_store().await.unwrap();
    let reply = exchange(&mut stream, store_request(of, 1, 5, &[3])).await;
    assert_eq!(reply.unwrap().local_tail, at(8));
}

#[tokio::test]
async fn a_failed_commit_stops_the_server_for_everybody() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let mut other = server.open_store().await.unwrap();
    store.break_after(0);
    assert_eq!(seal(&server, loglet(1, 0), 1).await, Err(CallError::Copy(CopyError::Stopping)));
    server.stopped().await;
    assert_eq!(other.replies.recv().await, None);
    assert!(seal(&server, loglet(1, 0), 1).await.is_err());
    assert_eq!(store.commits(), 0);
}

#[tokio::test]
async fn a_full_disk_is_an_answer_without_a_trace_and_needs_no_restart() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 1, 1, &[2])).await.unwrap();
    store.fail_after(0, StoreError::Full);
    let reply = exchange(&mut stream, store_request(of, 3, 3, &[2])).await;
    assert_eq!(reply, Err(CopyError::DiskFull));
    assert_eq!(state(&server, of).await.local_tail, at(3));
    store.fail_after(0, StoreError::Full);
    assert_eq!(seal(&server, of, 1).await, Err(CallError::Copy(CopyError::DiskFull)));
    let reply = exchange(&mut stream, store_request(of, 3, 3, &[2])).await;
    assert_eq!(reply.unwrap().local_tail, at(5));
}

#[tokio::test]
async fn a_repeated_store_in_flight_is_compared_with_what_was_staged() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    store.hold();
    stream.requests.send(store_request(loglet(2, 0), 1, 1, &[1])).await.unwrap();
    store.until_held().await;
    // All three wait and would be one group; the second and third meet the first.
    let other = StoreRequest { batches: vec![batch_with(1, 2, "!")], ..store_request(of, 1, 1, &[]) };
    for request in [store_request(of, 1, 1, &[2]), store_request(of, 1, 1, &[2, 1]), other] {
        stream.requests.send(request).await.unwrap();
    }
    store.release();
    let mut outcomes = Vec::new();
    while outcomes.last().is_none_or(Result::is_ok) {
        let reply = stream.replies.recv().await.unwrap();
        if reply.loglet == of {
            outcomes.push(said(reply).map(|state| state.local_tail));
        }
    }
    assert_eq!(outcomes.pop(), Some(Err(CopyError::Conflict { offset: at(1) })));
    assert_eq!(outcomes.pop(), Some(Ok(at(4))));
}

#[tokio::test]
async fn a_hole_is_durable_together_with_the_tail_that_justifies_it() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 50, 50, &[2])).await.unwrap();
    server.shutdown().await;
    let server = start(store).await;
    let state = state(&server, of).await;
    assert_eq!((state.local_tail, state.committed_tail), (at(52), at(50)));
}

#[tokio::test]
async fn a_settle_drops_what_lies_above_and_is_decided_once() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 1, 1, &[2, 2, 2])).await.unwrap();
    seal(&server, of, 1).await.unwrap();
    let settled = settle(&server, of, 5).await.unwrap();
    assert_eq!((settled.local_tail, settled.decided_tail), (at(5), Some(at(5))));
    assert_eq!(settle(&server, of, 5).await, Ok(settled));
    assert_eq!(settle(&server, of, 7).await, Err(CallError::Copy(CopyError::OutOfRange)));
    let chunk = store.disk().read(of, at(1), at(20), usize::MAX).await.unwrap();
    assert_eq!(chunk.parts, vec![Stored::Batch(placed(1, 2)), Stored::Batch(placed(3, 2))]);
}

#[tokio::test]
async fn trimmed_batches_are_dropped_after_the_trim_point_is_published() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 5, 1, &[2, 2, 2])).await.unwrap();
    assert_eq!(trim(&server, of, 3).await.unwrap().trim_point, Some(at(3)));
    assert_eq!(trim(&server, of, 2).await.unwrap().trim_point, Some(at(3)), "the point that holds");
    assert_eq!(trim(&server, of, 5).await, Err(CallError::Copy(CopyError::OutOfRange)));
    server.shutdown().await;
    let chunk = store.disk().read(of, at(1), at(20), usize::MAX).await.unwrap();
    assert_eq!(chunk.parts, vec![Stored::Batch(placed(3, 2)), Stored::Batch(placed(5, 2))]);
}

#[tokio::test]
async fn a_crash_between_trim_and_drop_is_made_good_at_the_start() {
    let store = Arc::new(FaultyStore::new());
    let of = loglet(1, 0);
    let server = start(Arc::clone(&store)).await;
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 5, 1, &[2, 2])).await.unwrap();
    // The group with the trim point goes well, the one with the drop does not.
    store.break_after(1);
    assert_eq!(trim(&server, of, 2).await.unwrap().trim_point, Some(at(2)));
    server.stopped().await;
    server.shutdown().await;
    let chunk = store.disk().read(of, at(1), at(20), usize::MAX).await.unwrap();
    assert_eq!(chunk.parts.len(), 2);
    let server = start(Arc::clone(&store)).await;
    server.shutdown().await;
    let chunk = store.disk().read(of, at(1), at(20), usize::MAX).await.unwrap();
    assert_eq!(chunk.parts, vec![Stored::Batch(placed(3, 2))]);
}

#[tokio::test]
async fn repair_makes_a_damaged_batch_readable_again() {
    let store = Arc::new(FaultyStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 5, 1, &[2, 2])).await.unwrap();
    seal(&server, of, 1).await.unwrap();
    assert!(store.disk().damage(of, at(1)));
    let damaged = ReadReply::Missing { from: at(1), end: at(3), corrupt: true };
    assert_eq!(read_all(&server, read_request(of, 1, Some(5))).await, vec![damaged, part(3, 2)]);
    let request = RepairRequest {
        loglet: of,
        disk: disk(),
        op: op(1),
        committed_tail: at(5),
        first_offset: at(1),
        batches: vec![batch(1, 2)],
    };
    assert_eq!(server.repair(request).await.unwrap().local_tail, at(5));
    assert_eq!(read_all(&server, read_request(of, 1, Some(5))).await, vec![part(1, 2), part(3, 2)]);
}

#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_disk_recovers_tails_seals_and_trim_points() {
    use crate::options::ServerOptions;
    use crate::server::{LogServerHandle, WriterRuntime};
    use crate::store::rocks::{RocksOptions, RocksStore};

    let directory = tempfile::TempDir::new().unwrap();
    let open = || async {
        let store = Arc::new(RocksStore::open(directory.path(), &RocksOptions::default()).unwrap());
        LogServerHandle::start(store, ServerOptions::new(node(1), disk()), WriterRuntime::Thread).await.unwrap()
    };
    let server = open().await;
    let mut stream = server.open_store().await.unwrap();
    for segment in 0..3 {
        exchange(&mut stream, store_request(loglet(1, segment), 4, 1, &[3, 3])).await.unwrap();
    }
    seal(&server, loglet(1, 1), 8).await.unwrap();
    trim(&server, loglet(1, 2), 3).await.unwrap();
    let mut before = Vec::new();
    for segment in 0..3 {
        before.push(state(&server, loglet(1, segment)).await);
    }
    // A clone of the handle is kept: shutdown must release the directory all the same.
    let kept = server.clone();
    server.shutdown().await;
    let server = open().await;
    for (segment, before) in (0..3).zip(before) {
        assert_eq!(state(&server, loglet(1, segment)).await, before);
    }
    assert_eq!(read_all(&server, read_request(loglet(1, 0), 1, Some(4))).await, vec![part(1, 3)]);
    let trimmed = ReadReply::Trimmed { from: at(1), end: at(4) };
    assert_eq!(read_all(&server, read_request(loglet(1, 2), 1, Some(4))).await, vec![trimmed]);
    server.shutdown().await;
    drop(kept);
}

mod full_disk {
    use bifrost_types::LogletId;
    use bifrost_wire::log_server::StoreStream;

    use super::*;
    use crate::guard::LOOK_INTERVAL;
    use crate::options::ServerOptions;
    use crate::server::{LogServerHandle, WriterRuntime};
    use crate::space::Fullness;

    const MIB: u64 = 1 << 20;

    async fn on_disk(free_bytes: u64) -> (Arc<FaultyStore>, LogServerHandle, StoreStream) {
        let store = Arc::new(FaultyStore::new());
        store.set_free_bytes(free_bytes);
        let server = start(Arc::clone(&store)).await;
        let stream = server.open_store().await.unwrap();
        (store, server, stream)
    }

    fn repair(of: LogletId, committed_tail: u64, first_offset: u64) -> RepairRequest {
        let batches = vec![batch(first_offset, 1)];
        RepairRequest {
            loglet: of,
            disk: disk(),
            op: op(1),
            committed_tail: at(committed_tail),
            first_offset: at(first_offset),
            batches,
        }
    }

    #[tokio::test]
    async fn stores_end_first_then_repairs_and_everything_else_goes_on() {
        let (store, server, mut stream) = on_disk(100 * MIB).await;
        let (open, closed) = (loglet(1, 0), loglet(2, 0));
        exchange(&mut stream, store_request(open, 1, 1, &[2, 2])).await.unwrap();
        exchange(&mut stream, store_request(closed, 1, 1, &[2])).await.unwrap();
        store.set_free_bytes(MIB - 1);
        let full = Err(CopyError::DiskFull);
        assert_eq!(exchange(&mut stream, store_request(open, 3, 5, &[1])).await, full);
        assert_eq!(*server.fullness().borrow(), Fullness::Full);
        seal(&server, closed, 1).await.unwrap();
        let sealed = Err(CopyError::Sealed { op: op(1) });
        assert_eq!(exchange(&mut stream, store_request(closed, 1, 3, &[1])).await, sealed, "told all the same");
        assert_eq!(server.repair(repair(closed, 1, 3)).await.unwrap().local_tail, at(4), "repairs go deeper");
        store.set_free_bytes(MIB / 2 - 1);
        assert_eq!(server.repair(repair(closed, 1, 4)).await, Err(CallError::Copy(CopyError::DiskFull)));
        store.set_free_bytes(0);
        assert_eq!(settle(&server, closed, 4).await.unwrap().decided_tail, Some(at(4)));
        // The refused store told a committed tail, which a trim needs: it is news, not a write.
        stream.requests.send(store_request(open, 3, 5, &[])).await.unwrap();
        let trimmed = loop {
            match trim(&server, open, 2).await {
                Err(CallError::Copy(CopyError::OutOfRange)) => tokio::task::yield_now().await,
                answered => break answered.unwrap(),
            }
        };
        assert_eq!(trimmed.trim_point, Some(at(2)));
        assert_eq!(seal(&server, loglet(9, 0), 1).await.unwrap().sealed, Some(op(1)));
        assert_eq!(exchange(&mut stream, store_request(open, 3, 5, &[1])).await, full);
        assert_eq!(read_all(&server, read_request(closed, 1, Some(3))).await, vec![part(1, 2)], "reads go on");
        assert!(store.reclaims() > 0, "what was trimmed and settled away is given back at once");
        store.set_free_bytes(100 * MIB);
        let stored = exchange(&mut stream, store_request(open, 3, 5, &[1])).await.unwrap();
        assert_eq!(stored.local_tail, at(6), "no restart");
        assert_eq!(*server.fullness().borrow(), Fullness::Ample);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ballast_is_given_up_before_the_last_byte_and_made_again() {
        let (store, server, mut stream) = on_disk(100 * MIB).await;
        assert!(store.has_ballast(), "made at the start");
        store.set_free_bytes(1000);
        seal(&server, loglet(1, 0), 1).await.unwrap();
        assert!(!store.has_ballast());
        store.set_free_bytes(100 * MIB);
        exchange(&mut stream, store_request(loglet(2, 0), 1, 1, &[1])).await.unwrap();
        // Tried again once a second, also while nobody wants anything.
        while !store.has_ballast() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_server_looks_by_itself() {
        let (store, server, _stream) = on_disk(100 * MIB).await;
        let mut fullness = server.fullness();
        store.set_free_bytes(MIB);
        assert_eq!(*fullness.wait_for(|fullness| *fullness != Fullness::Ample).await.unwrap(), Fullness::Low);
        store.set_free_bytes(100 * MIB);
        fullness.wait_for(|fullness| *fullness == Fullness::Ample).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_that_the_file_system_refused_is_made_good() {
        let (store, server, mut stream) = on_disk(100 * MIB).await;
        let of = loglet(1, 0);
        exchange(&mut stream, store_request(of, 5, 1, &[2, 2])).await.unwrap();
        // The group with the trim point goes well, the one with the drop does not.
        store.fail_after(1, StoreError::Full);
        assert_eq!(trim(&server, of, 2).await.unwrap().trim_point, Some(at(2)));
        while store.disk().read(of, at(1), at(20), usize::MAX).await.unwrap().parts.len() > 1 {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    #[tokio::test]
    async fn one_loglet_too_many_is_refused_and_known_ones_go_on() {
        let store = Arc::new(FaultyStore::new());
        let options = ServerOptions { loglets_max: 2, ..ServerOptions::new(node(1), disk()) };
        let server = LogServerHandle::start(Arc::clone(&store), options, WriterRuntime::Task).await.unwrap();
        let mut stream = server.open_store().await.unwrap();
        exchange(&mut stream, store_request(loglet(1, 0), 1, 1, &[1])).await.unwrap();
        seal(&server, loglet(2, 0), 1).await.unwrap();
        let refused = exchange(&mut stream, store_request(loglet(3, 0), 1, 1, &[1])).await;
        assert_eq!(refused, Err(CopyError::TooManyLoglets));
        assert_eq!(seal(&server, loglet(4, 0), 1).await, Err(CallError::Copy(CopyError::TooManyLoglets)));
        assert_eq!(settle(&server, loglet(5, 0), 1).await, Err(CallError::Copy(CopyError::TooManyLoglets)));
        assert_eq!(state(&server, loglet(3, 0)).await.local_tail, at(1), "it left nothing");
        exchange(&mut stream, store_request(loglet(1, 0), 1, 2, &[1])).await.unwrap();
        server.shutdown().await;
        // All that is there is kept, also under a lower limit.
        let options = ServerOptions { loglets_max: 1, ..ServerOptions::new(node(1), disk()) };
        let server = LogServerHandle::start(store, options, WriterRuntime::Task).await.unwrap();
        assert_eq!(state(&server, loglet(2, 0)).await.sealed, Some(op(1)));
        let mut stream = server.open_store().await.unwrap();
        exchange(&mut stream, store_request(loglet(1, 0), 1, 3, &[1])).await.unwrap();
    }
}
