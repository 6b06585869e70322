use bifrost_types::KeyFilter;
use proptest::prelude::*;

use super::*;

fn writer() -> WriterId {
    WriterId::try_from(0x0123_4567_89ab_cdef_0011_2233_4455_6677).expect("non-zero")
}

fn sample() -> Vec<Record> {
    vec![
        Record::new("plain"),
        Record::new("").with_keys(Keys::Single(7)),
        Record::new("two keys").with_keys(Keys::Pair(7, 9)),
        Record::new("a range").with_keys(Keys::Range(10, 20)),
    ]
}

fn encoded() -> Bytes {
    encode(writer(), Sequence::FIRST, 1_700_000_000_000, &sample()).expect("within the limits")
}

#[test]
fn records_come_back_as_they_were_appended() {
    let batch = Batch::decode(encoded()).expect("just encoded");
    batch.verify().expect("nothing changed");
    let records: Vec<Record> =
        batch.records().map(|record| Record { payload: record.payload, keys: record.keys }).collect();
    assert_eq!(records, sample());
    let sequences: Vec<u64> = batch.records().map(|record| record.sequence.get()).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
}

#[test]
fn the_bytes_are_pinned() {
    let golden = include_str!("../../testdata/batch-v1.hex");
    let hex: String = encoded().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.trim(), "the batch format changed; that needs a new version byte");
}

#[test]
fn a_filter_leaves_records_out_and_changes_none() {
    let batch = Batch::decode(encoded()).expect("just encoded");
    assert_eq!(batch.filter(KeyFilter::Any), Filtered::All);
    assert_eq!(batch.filter(KeyFilter::Key(1)), Filtered::None);
    let filtered = batch.filter(KeyFilter::Key(7));
    assert!(matches!(filtered, Filtered::Some(_)), "two records match");
    let Filtered::Some(bytes) = filtered else { return };
    let part = Batch::decode(bytes).expect("a filter makes a batch");
    part.verify().expect("records are not changed");
    assert!(!part.is_complete());
    assert_eq!(part.header().records, batch.header().records);
    let indexes: Vec<u32> = part.records().map(|record| record.index).collect();
    assert_eq!(indexes, [1, 2]);
}

#[test]
fn limits_are_refused_before_anything_is_made() {
    let now = 0;
    assert_eq!(encode(writer(), Sequence::FIRST, now, &[]), Err(EncodeError::Empty));
    let large = Record::new(vec![0; RECORD_BYTES_MAX + 1]);
    assert!(matches!(encode(writer(), Sequence::FIRST, now, &[large]), Err(EncodeError::RecordTooLarge { .. })));
    let full = vec![Record::new(vec![0; RECORD_BYTES_MAX]); 2];
    assert!(matches!(encode(writer(), Sequence::FIRST, now, &full), Err(EncodeError::BatchTooLarge { .. })));
    let many = vec![Record::default(); BATCH_RECORDS_MAX as usize + 1];
    assert!(matches!(encode(writer(), Sequence::FIRST, now, &many), Err(EncodeError::TooManyRecords { .. })));
    let inverted = Record::new("x").with_keys(Keys::Range(2, 1));
    assert_eq!(encode(writer(), Sequence::FIRST, now, &[inverted]), Err(EncodeError::InvertedKeys));
    let last = Sequence::try_from(u64::MAX).expect("non-zero");
    assert_eq!(encode(writer(), last, now, &sample()), Err(EncodeError::OutOfSequence));
}

#[test]
fn the_header_is_written_at_the_end() {
    let mut builder = BatchBuilder::new(writer(), Sequence::FIRST, 7, &sample()).expect("within the limits");
    builder.push(8, &sample()).expect("within the limits");
    assert_eq!(builder.buffer[..BATCH_HEADER_BYTES], [0; BATCH_HEADER_BYTES]);
    assert_eq!((builder.records(), builder.bytes()), (8, encoded_bytes(&sample()) * 2 - BATCH_HEADER_BYTES));
    let batch = Batch::decode(builder.finish()).expect("just finished");
    batch.verify().expect("nothing changed");
    assert_eq!((batch.header().records.get(), batch.header().present), (8, 8));
    let created: Vec<u64> = batch.records().map(|record| record.created_at_millis).collect();
    assert_eq!(created, [7, 7, 7, 7, 8, 8, 8, 8], "each record keeps its own time");
}

#[test]
fn what_is_refused_leaves_the_batch_as_it_was() {
    let last = Sequence::try_from(u64::MAX - 5).expect("non-zero");
    let mut builder = BatchBuilder::new(writer(), last, 7, &sample()).expect("within the limits");
    let large = Record::new(vec![0; RECORD_BYTES_MAX]);
    let refused = [
        (vec![], EncodeError::Empty),
        (sample(), EncodeError::OutOfSequence),
        (vec![Record::default(); BATCH_RECORDS_MAX as usize], EncodeError::TooManyRecords { records: 65_540 }),
    ];
    for (records, error) in refused {
        assert_eq!(builder.push(7, &records), Err(error));
    }
    assert_eq!(builder.finish(), encode(writer(), last, 7, &sample()).expect("within the limits"));

    let mut builder = BatchBuilder::new(writer(), Sequence::FIRST, 7, &sample()).expect("within the limits");
    let inverted = Record::new("x").with_keys(Keys::Range(2, 1));
    assert_eq!(builder.push(7, &[Record::new("fine"), inverted]), Err(EncodeError::InvertedKeys));
    let over = Record::new(vec![0; RECORD_BYTES_MAX + 1]);
    assert_eq!(builder.push(7, &[over]), Err(EncodeError::RecordTooLarge { bytes: RECORD_BYTES_MAX + 1 }));
    let bytes = builder.bytes_with(&[large.clone(), large.clone()]);
    assert_eq!(builder.push(7, &[large.clone(), large]), Err(EncodeError::BatchTooLarge { bytes }));
    assert_eq!(builder.finish(), encoded_at(7));
}

fn encoded_at(created_at: u64) -> Bytes {
    encode(writer(), Sequence::FIRST, created_at, &sample()).expect("within the limits")
}

#[test]
fn a_batch_takes_the_memory_that_it_needs_and_grows_in_few_steps() {
    let small = [Record::new(vec![7; 100])];
    let mut builder = BatchBuilder::new(writer(), Sequence::FIRST, 7, &small).expect("within the limits");
    assert_eq!(builder.buffer.capacity(), encoded_bytes(&small), "a lone record takes no more than itself");
    let mut capacities = vec![builder.buffer.capacity()];
    while builder.bytes_with(&small) <= SHARED_BATCH_BYTES {
        builder.push(7, &small).expect("within the limits");
        capacities.push(builder.buffer.capacity());
    }
    capacities.dedup();
    assert_eq!(capacities, [172, 688, 2_752, 11_008, 44_032, SHARED_BATCH_BYTES]);
    let large = [Record::new(vec![7; 1 << 20])];
    builder.push(7, &large).expect("within the limits");
    assert_eq!(builder.buffer.capacity(), builder.bytes(), "beyond what appends share, no more than is needed");
}

fn keys() -> impl Strategy<Value = Keys> {
    prop_oneof![
        Just(Keys::None),
        any::<u64>().prop_map(Keys::Single),
        any::<(u64, u64)>().prop_map(|(one, two)| Keys::Pair(one, two)),
        any::<(u64, u64)>().prop_map(|(one, two)| Keys::Range(one.min(two), one.max(two))),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (prop::collection::vec(any::<u8>(), 0..64), keys())
        .prop_map(|(payload, keys)| Record::new(payload).with_keys(keys));
    prop::collection::vec(record, 1..8)
}

proptest! {
    #[test]
    fn any_records_round_trip(records in records(), sequence in 1..u64::MAX / 2, created_at: u64) {
        let sequence = Sequence::try_from(sequence).expect("non-zero");
        let bytes = encode(writer(), sequence, created_at, &records).expect("within the limits");
        prop_assert_eq!(bytes.len(), encoded_bytes(&records));
        let batch = Batch::decode(bytes).expect("just encoded");
        prop_assert_eq!(batch.verify(), Ok(()));
        let back: Vec<Record> = batch.records().map(|r| Record { payload: r.payload, keys: r.keys }).collect();
        prop_assert_eq!(back, records);
    }

    #[test]
    fn records_that_come_one_after_the_other_make_the_same_bytes(
        pushes in prop::collection::vec((records(), any::<bool>()), 1..8),
        sequence in 1..u64::MAX / 2,
    ) {
        let sequence = Sequence::try_from(sequence).expect("non-zero");
        let all: Vec<Record> = pushes.iter().flat_map(|(records, _)| records.clone()).collect();
        let (first, rest) = pushes.split_first().expect("at least one");
        let mut builder = BatchBuilder::new(writer(), sequence, 9, &first.0).expect("within the limits");
        for (records, with_refused) in rest {
            if *with_refused {
                let mut refused = records.clone();
                refused.push(Record::new("x").with_keys(Keys::Range(2, 1)));
                prop_assert_eq!(builder.push(9, &refused), Err(EncodeError::InvertedKeys));
            }
            let bytes = builder.bytes_with(records);
            builder.push(9, records).expect("within the limits");
            prop_assert_eq!(builder.bytes(), bytes);
        }
        prop_assert_eq!(builder.finish(), encode(writer(), sequence, 9, &all).expect("within the limits"));
    }

    #[test]
    fn one_changed_byte_is_always_noticed(records in records(), place: prop::sample::Index, change in 1..=u8::MAX) {
        let bytes = encode(writer(), Sequence::FIRST, 5, &records).expect("within the limits");
        let mut changed = bytes.to_vec();
        let place = place.index(changed.len());
        changed[place] ^= change;
        let noticed = Batch::decode(changed.into()).and_then(|batch| batch.verify());
        prop_assert!(noticed.is_err(), "a change of byte {} passed", place);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(batch) = Batch::decode(bytes.into()) {
            let _ = batch.verify();
            let _ = batch.records().count();
            let _ = batch.filter(KeyFilter::Key(1));
        }
    }

    #[test]
    fn a_cut_or_stretched_batch_is_refused(records in records(), cut: prop::sample::Index) {
        let bytes = encode(writer(), Sequence::FIRST, 5, &records).expect("within the limits");
        prop_assert!(Batch::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
        let mut longer = bytes.to_vec();
        longer.push(0);
        prop_assert!(Batch::decode(longer.into()).is_err());
    }
}
