//! What crossing a process boundary costs in allocations. They are counted, not timed: a copy of payloads or an allocation
//! for each record shows here on the day it comes. A bound that has to grow wants a reason.

use allocation_counter::{AllocationInfo, measure};
use bifrost_types::{
    DiskId, Generation, LogId, LogletId, LogletOffset, NodeGeneration, NodeId, Record, SegmentIndex, Sequence, WriterId,
};
use bytes::Bytes;
use prost::Message;

use crate::batch::{self, Batch, BatchBuilder};
use crate::log_server::StoreRequest;
use crate::pb;

const PAYLOAD: usize = 1024;

fn records(count: usize) -> Vec<Record> {
    (0..count).map(|_| Record::new(vec![7; PAYLOAD])).collect()
}

fn encoded(count: usize) -> Bytes {
    let writer = WriterId::try_from(1).expect("non-zero");
    batch::encode(writer, Sequence::FIRST, 1, &records(count)).expect("small records")
}

/// What it takes, and what comes of it: that is dropped outside.
fn counted<T>(work: impl FnOnce() -> T) -> (AllocationInfo, T) {
    let mut made = None;
    let info = measure(|| made = Some(work()));
    (info, made.expect("it ran"))
}

fn store(batches: Vec<Bytes>) -> StoreRequest {
    StoreRequest {
        loglet: LogletId::new(LogId::try_from(1).expect("non-zero"), SegmentIndex::new(0)),
        disk: DiskId::try_from(1).expect("non-zero"),
        sequencer: NodeGeneration::new(NodeId::try_from(1).expect("non-zero"), Generation::FIRST),
        committed_tail: LogletOffset::FIRST,
        first_offset: LogletOffset::FIRST,
        batches,
    }
}

#[test]
fn a_batch_is_one_allocation_however_many_records_it_has() {
    for count in [1, 64] {
        let records = records(count);
        let writer = WriterId::try_from(1).expect("non-zero");
        let (info, bytes) = counted(|| batch::encode(writer, Sequence::FIRST, 1, &records).expect("small records"));
        assert_eq!((info.count_total, info.bytes_total), (1, bytes.len() as u64));
    }
}

#[test]
fn appends_that_share_a_batch_copy_what_came_before_them_few_times() {
    let records = records(48);
    let writer = WriterId::try_from(1).expect("non-zero");
    let (info, bytes) = counted(|| {
        let mut records = records.chunks(1);
        let first = records.next().expect("many");
        let mut builder = BatchBuilder::new(writer, Sequence::FIRST, 1, first).expect("small records");
        records.for_each(|more| builder.push(1, more).expect("small records"));
        builder.finish()
    });
    assert!(info.count_total <= 5, "{info:?}");
    assert!(info.bytes_total < 3 * bytes.len() as u64, "{info:?}");
}

#[test]
fn reading_a_batch_allocates_nothing() {
    let bytes = encoded(64);
    let kept = bytes.clone();
    let (info, batch) = counted(|| {
        let batch = Batch::decode(bytes).expect("well-formed");
        batch.verify().expect("intact");
        assert_eq!(batch.records().count(), 64);
        batch
    });
    assert_eq!(batch.into_bytes(), kept);
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn a_store_crosses_a_connection_without_a_copy_of_its_batches_at_the_receiver() {
    for (batches, records) in [(1, 1), (1, 60), (8, 60)] {
        let request = store((0..batches).map(|_| encoded(records)).collect());
        let payload = request.batches.iter().map(|batch| batch.len() as u64).sum::<u64>();

        let message = request.clone();
        let (sent, wire) = counted(|| pb::StoreRequest::from(vec![message]).encode_to_vec());
        assert!(sent.count_total <= 5, "{sent:?}");
        assert!(sent.bytes_total <= payload + 1024, "the only copy is that into the connection: {sent:?}");

        let wire = Bytes::from(wire);
        let (taken, stores) = counted(|| {
            let message = pb::StoreRequest::decode(wire).expect("just encoded");
            Vec::<StoreRequest>::try_from(message).expect("valid")
        });
        assert_eq!(stores, [request]);
        assert!(taken.count_total <= 5, "{taken:?}");
        assert!(taken.bytes_total <= 1280, "a payload was copied: {taken:?}");
    }
}
