#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost_types::KeyFilter;
use bifrost_wire::log_server::{LogServer, ReadGrant, ReadRequest};

use super::*;
use crate::store::memory::MemoryStore;
use crate::testing::*;

fn state(local: u64, committed: u64) -> CopyState {
    CopyState { local_tail: at(local), committed_tail: at(committed), ..crate::copy::CopyCore::default().state() }
}

fn cursor(from: u64, until: Option<u64>) -> Cursor {
    let mut cursor = Cursor::new(&read_request(loglet(1, 0), from, until));
    assert_eq!(cursor.next(&state(1, 1)), Next::Send(ReadReply::Tail(state(1, 1))), "news of the tail come at once");
    cursor
}

fn chunk(parts: &[Stored], covered_until: u64) -> Chunk {
    Chunk { parts: parts.to_vec(), covered_until: at(covered_until) }
}

fn stored(first_offset: u64, records: u64) -> Stored {
    Stored::Batch(placed(first_offset, records))
}

fn parts(cursor: &mut Cursor, state: &CopyState, chunk: Chunk) -> Vec<ReadReply> {
    let Next::Read { until, .. } = cursor.next(state) else { panic!("nothing to read") };
    let mut out = Vec::new();
    cursor.on_chunk(state, until, chunk, &mut out);
    out
}

fn missing(from: u64, end: u64, corrupt: bool) -> ReadReply {
    ReadReply::Missing { from: at(from), end: at(end), corrupt }
}

#[test]
fn parts_are_contiguous_whatever_is_stored() {
    let mut cursor = cursor(2, None);
    let chunk = chunk(&[stored(1, 3), stored(6, 1), Stored::Damaged { first_offset: at(7), end: at(9) }], 12);
    let expected = vec![part(1, 3), missing(4, 6, false), part(6, 1), missing(7, 9, true), missing(9, 12, false)];
    assert_eq!(parts(&mut cursor, &state(12, 12), chunk), expected);
    assert_eq!(cursor.at, at(12));
}

#[test]
fn nothing_above_the_committed_tail_is_sent_and_the_decided_tail_overrules_it() {
    let mut cursor = cursor(1, None);
    // The committed tail cuts a batch, which no sequencer does: the batch waits until all of it may be read (R1).
    assert_eq!(parts(&mut cursor, &state(10, 3), chunk(&[stored(1, 1), stored(2, 3)], 3)), vec![part(1, 1)]);
    assert_eq!(cursor.next(&state(10, 3)), Next::Send(ReadReply::Tail(state(10, 3))));
    assert_eq!(cursor.next(&state(10, 3)), Next::Wait);
    assert_eq!(parts(&mut cursor, &state(10, 5), chunk(&[stored(2, 3)], 5)), vec![part(2, 3)]);
    cursor.on_grant(ReadGrant { credit_bytes: 0, readable_tail: at(100) });
    let decided = CopyState { decided_tail: Some(at(6)), sealed: Some(op(1)), ..state(6, 6) };
    assert_eq!(parts(&mut cursor, &decided, chunk(&[stored(5, 4)], 6)), vec![missing(5, 6, true)]);
}

#[test]
fn the_reader_may_know_more_and_then_hears_what_is_missing() {
    let mut cursor = cursor(1, None);
    cursor.on_grant(ReadGrant { credit_bytes: 0, readable_tail: at(8) });
    let found = chunk(&[stored(1, 4)], 8);
    assert_eq!(parts(&mut cursor, &state(5, 1), found), vec![part(1, 4), missing(5, 8, false)]);
}

#[test]
fn what_the_filter_excludes_is_one_part() {
    let request = ReadRequest { filter: KeyFilter::Key(6), ..read_request(loglet(1, 0), 1, None) };
    let mut cursor = Cursor::new(&request);
    cursor.next(&state(9, 9));
    assert_eq!(parts(&mut cursor, &state(9, 9), chunk(&[stored(1, 2)], 3)), vec![]);
    let out = parts(&mut cursor, &state(9, 9), chunk(&[stored(3, 2), stored(5, 2), stored(7, 2)], 9));
    assert_eq!(out[0], ReadReply::Filtered { from: at(1), end: at(5) });
    let ReadReply::Batch { batch, .. } = &out[1] else { panic!("{out:?}") };
    let batch = Batch::decode(batch.clone()).unwrap();
    assert_eq!(batch.records().map(|record| record.index).collect::<Vec<_>>(), vec![1]);
    let rest = ReadReply::Filtered { from: at(7), end: at(9) };
    assert_eq!(cursor.next(&state(9, 9)), Next::Send(rest), "sent when there is nothing more to add");
}

#[test]
fn a_trim_during_the_read_is_not_a_missing_record() {
    let mut cursor = cursor(1, None);
    assert!(matches!(cursor.next(&state(9, 9)), Next::Read { .. }));
    let trimmed = CopyState { trim_point: Some(at(4)), ..state(9, 9) };
    let mut out = Vec::new();
    cursor.on_chunk(&trimmed, at(9), chunk(&[stored(7, 2)], 9), &mut out);
    let expected = vec![ReadReply::Trimmed { from: at(1), end: at(5) }, missing(5, 7, false), part(7, 2)];
    assert_eq!(out, expected);
}

#[test]
fn a_rotten_record_behind_an_intact_frame_is_missing() {
    let good = placed(1, 2);
    for byte in 0..good.bytes().len() {
        let mut bytes = good.bytes().to_vec();
        bytes[byte] ^= 0x40;
        let rotten = Stored::Batch(PlacedBatch::new(good.first_offset, good.end, bytes.into()));
        let out = parts(&mut cursor(1, None), &state(3, 3), chunk(&[rotten], 3));
        assert_eq!(out, vec![missing(1, 3, true)], "byte {byte}");
    }
}

#[tokio::test]
async fn credit_bounds_what_is_sent_and_a_grant_goes_on() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 4, 1, &[1, 1, 1])).await.unwrap();
    let request = ReadRequest { credit_bytes: 1, ..read_request(of, 1, Some(4)) };
    let mut read = server.read(request).await.unwrap();
    assert!(matches!(read.replies.recv().await, Some(Ok(ReadReply::Tail(_)))));
    for first_offset in 1..4 {
        assert_eq!(next_part(&mut read).await, Some(part(first_offset, 1)));
        let _ = read.grants.send(ReadGrant { credit_bytes: 1, readable_tail: at(1) }).await;
    }
    assert_eq!(next_part(&mut read).await, None);
}

#[tokio::test]
async fn a_reader_that_follows_is_woken_by_the_committed_tail_and_told_the_end() {
    let server = start(Arc::new(MemoryStore::new())).await;
    let of = loglet(1, 0);
    let mut read = server.read(read_request(of, 1, None)).await.unwrap();
    assert_eq!(read.replies.recv().await.unwrap().unwrap(), ReadReply::Tail(state(1, 1)));
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 1, 1, &[2, 2])).await.unwrap();
    assert_eq!(read.replies.recv().await.unwrap().unwrap(), ReadReply::Tail(state(5, 1)));
    exchange(&mut stream, store_request(of, 5, 5, &[2])).await.unwrap();
    assert_eq!(next_part(&mut read).await, Some(part(1, 2)));
    assert_eq!(next_part(&mut read).await, Some(part(3, 2)));
    settle(&server, of, 5).await.unwrap();
    loop {
        match read.replies.recv().await.unwrap().unwrap() {
            ReadReply::Tail(CopyState { decided_tail: Some(decided), .. }) => break assert_eq!(decided, at(5)),
            ReadReply::Tail(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn rot_in_the_store_is_reported_and_the_read_goes_on() {
    let store = Arc::new(MemoryStore::new());
    let server = start(Arc::clone(&store)).await;
    let of = loglet(1, 0);
    let mut stream = server.open_store().await.unwrap();
    exchange(&mut stream, store_request(of, 6, 1, &[1, 1, 1, 1, 1])).await.unwrap();
    assert!(store.damage(of, at(2)));
    assert!(store.flip_bit(of, at(4), 60));
    let expected = vec![part(1, 1), missing(2, 3, true), part(3, 1), missing(4, 5, true), part(5, 1)];
    assert_eq!(read_all(&server, read_request(of, 1, Some(6))).await, expected);
}
