mod machine;

use bifrost_types::limits::RECORD_BYTES_MAX;
use bifrost_types::{KeyFilter, Keys};
use bifrost_wire::batch::{BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, encode};
use proptest::prelude::*;

use super::*;

/// An append that shares its batch with no other, as it is encoded.
const ALONE: usize = BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + SHARED_BATCH_BYTES;

fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).expect("non-zero")
}

fn sequence(value: u64) -> Sequence {
    Sequence::try_from(value).expect("non-zero")
}

fn writer() -> WriterId {
    WriterId::try_from(77_u128).expect("non-zero")
}

fn attempt(segment: u32) -> Attempt {
    Attempt { segment: SegmentIndex::new(segment), incarnation: 1, from: LogletOffset::FIRST }
}

fn inverted() -> Record {
    Record::new("x").with_keys(Keys::Range(2, 1))
}

/// A queue in its first attempt.
fn queue() -> Queue<u64> {
    let mut queue = Queue::new(writer());
    queue.begin(attempt(0));
    queue
}

/// An append of one small record.
fn push(queue: &mut Queue<u64>, ticket: u64) {
    push_batch(queue, ticket, 1);
}

fn push_batch(queue: &mut Queue<u64>, ticket: u64, records: usize) {
    let records = vec![Record::new(ticket.to_string()); records];
    queue.push(0, &records, ticket).expect("within the limits");
}

fn push_alone(queue: &mut Queue<u64>, ticket: u64) {
    queue.push(0, &[Record::new(vec![7; SHARED_BATCH_BYTES])], ticket).expect("within the limits");
}

/// An append of one record, with the sequence number `ticket`, that begins its batch.
fn committed(ticket: u64, batch_offset: u64) -> Resolution<u64> {
    committed_at(ticket, ticket, 1, batch_offset, 0)
}

fn committed_at(ticket: u64, first: u64, records: u32, batch_offset: u64, index: u64) -> Resolution<u64> {
    let records = NonZeroU32::new(records).expect("non-zero");
    Resolution::Committed { ticket, sequence: sequence(first), records, batch_offset: offset(batch_offset), index }
}

fn in_doubt(ticket: u64, first: u64, records: u32) -> Resolution<u64> {
    let records = NonZeroU32::new(records).expect("non-zero");
    Resolution::InDoubt { ticket, sequence: sequence(first), records, attempt: attempt(0) }
}

/// The sequence numbers of a batch's records.
fn sequences(batch: &Bytes) -> Vec<u64> {
    let batch = bifrost_wire::batch::Batch::decode(batch.clone()).expect("a batch");
    assert_eq!((batch.header().writer, batch.verify()), (writer(), Ok(())));
    assert_eq!(batch.filter(KeyFilter::Any), bifrost_wire::batch::Filtered::All);
    batch.records().map(|record| record.sequence.get()).collect()
}

fn taken(queue: &mut Queue<u64>) -> Vec<Vec<u64>> {
    queue.take_unsent(usize::MAX).iter().map(sequences).collect()
}

#[test]
fn a_lone_append_is_a_batch_of_its_own() {
    let mut queue = queue();
    queue.push(9, &[Record::new("lone")], 1).expect("within the limits");
    let bytes = encode(writer(), Sequence::FIRST, 9, &[Record::new("lone")]).expect("within the limits");
    assert_eq!(queue.take_unsent(1), [bytes]);
}

#[test]
fn appends_that_wait_share_a_batch_and_each_has_its_own_place_in_it() {
    let mut queue = queue();
    push(&mut queue, 1);
    push_batch(&mut queue, 2, 3);
    push(&mut queue, 3);
    assert_eq!(taken(&mut queue), [[1, 2, 3, 4, 5]]);
    let mut out = Vec::new();
    assert!(queue.committed(&[offset(70)], &mut out));
    assert_eq!(out, [committed_at(1, 1, 1, 70, 0), committed_at(2, 2, 3, 70, 1), committed_at(3, 5, 1, 70, 4)]);
    assert_eq!(queue.attempt().map(|attempt| attempt.from), Some(offset(75)));
    assert!(queue.is_empty());
}

#[test]
fn nothing_comes_into_a_batch_that_was_taken() {
    let mut queue = queue();
    push(&mut queue, 1);
    let first = queue.take_unsent(usize::MAX);
    push(&mut queue, 2);
    push(&mut queue, 3);
    assert_eq!(taken(&mut queue), [[2, 3]]);
    queue.lost();
    push(&mut queue, 4);
    queue.settle(&BTreeMap::new(), false, &mut Vec::new());
    queue.begin(attempt(1));
    push(&mut queue, 5);
    let again = queue.take_unsent(usize::MAX);
    assert_eq!(again.iter().map(sequences).collect::<Vec<_>>(), [vec![1], vec![2, 3], vec![4, 5]]);
    assert_eq!(again[0], first[0]);
}

#[test]
fn a_batch_is_not_closed_before_it_is_its_turn() {
    let mut queue = queue();
    push_alone(&mut queue, 1);
    push(&mut queue, 2);
    assert_eq!(queue.take_unsent(ALONE).len(), 1, "the second does not fit into the message");
    push(&mut queue, 3);
    assert!(queue.has_unsent());
    assert_eq!(taken(&mut queue), [[2, 3]]);
    assert!(!queue.has_unsent());
}

#[test]
fn a_barrier_ends_a_batch() {
    let mut queue = queue();
    push(&mut queue, 1);
    queue.push_barrier(99);
    push(&mut queue, 2);
    assert_eq!(taken(&mut queue), [[1], [2]]);
    let mut out = Vec::new();
    assert!(queue.committed(&[offset(1)], &mut out));
    assert_eq!(out, [committed(1, 1), Resolution::Passed(99)], "it does not wait for what came behind it");
}

#[test]
fn an_append_that_does_not_fit_begins_the_next_batch_and_is_never_split() {
    let mut queue = queue();
    let half = [Record::new(vec![7; SHARED_BATCH_BYTES / 4]), Record::new(vec![7; SHARED_BATCH_BYTES / 4])];
    for ticket in 1..=3 {
        push(&mut queue, 10 * ticket);
        queue.push(0, &half, 10 * ticket + 1).expect("within the limits");
    }
    assert_eq!(taken(&mut queue), [vec![1, 2, 3, 4], vec![5, 6, 7], vec![8, 9]]);

    let most = BATCH_RECORDS_MAX as usize;
    push(&mut queue, 40);
    push_batch(&mut queue, 41, most);
    push(&mut queue, 42);
    let counts: Vec<usize> = taken(&mut queue).iter().map(Vec::len).collect();
    assert_eq!(counts, [1, most, 1]);
}

#[test]
fn as_many_records_share_a_batch_as_fit() {
    let mut queue = queue();
    let record = [Record::new(vec![7; 100])];
    for ticket in 1..=1_000 {
        queue.push(0, &record, ticket).expect("within the limits");
    }
    let batches = queue.take_unsent(usize::MAX);
    let each = (SHARED_BATCH_BYTES - BATCH_HEADER_BYTES) / (RECORD_HEADER_BYTES + 100);
    let counts: Vec<usize> = batches.iter().map(|batch| sequences(batch).len()).collect();
    assert_eq!(counts, [each, 1_000 - each]);
    assert!(batches.iter().all(|batch| batch.len() <= SHARED_BATCH_BYTES));
}

#[test]
fn an_append_that_is_refused_leaves_the_batch_as_it_was() {
    let mut queue = queue();
    push(&mut queue, 1);
    let over = Record::new(vec![0; RECORD_BYTES_MAX + 1]);
    let many = vec![Record::default(); BATCH_RECORDS_MAX as usize + 1];
    let refused = [
        (vec![], EncodeError::Empty),
        (vec![Record::new("fine"), inverted()], EncodeError::InvertedKeys),
        (vec![over], EncodeError::RecordTooLarge { bytes: RECORD_BYTES_MAX + 1 }),
        (many, EncodeError::TooManyRecords { records: BATCH_RECORDS_MAX as usize + 1 }),
    ];
    for (records, error) in refused {
        assert_eq!(queue.push(0, &records, 50), Err(NotTaken { error, ticket: 50 }));
        queue.check();
    }
    push(&mut queue, 2);
    assert_eq!(taken(&mut queue), [[1, 2]], "without a hole between them");
    let mut out = Vec::new();
    assert!(queue.committed(&[offset(4)], &mut out));
    assert_eq!(out, [committed(1, 4), committed_at(2, 2, 1, 4, 1)]);
}

#[test]
fn what_has_no_sequence_number_left_fails_alone() {
    let mut queue = queue();
    queue.next_sequence = sequence(u64::MAX - 1);
    push(&mut queue, 1);
    let refused = NotTaken { error: EncodeError::OutOfSequence, ticket: 2 };
    assert_eq!(queue.push(0, &[Record::new("two")], 2), Err(refused));
    assert_eq!(taken(&mut queue), [[u64::MAX - 1]]);
}

#[test]
fn appends_leave_in_order_and_barriers_wait_for_those_before_them() {
    let mut queue = queue();
    push_alone(&mut queue, 1);
    queue.push_barrier(99);
    push_alone(&mut queue, 2);
    assert_eq!(queue.take_unsent(ALONE * 3 / 2).len(), 1);
    assert_eq!(queue.take_unsent(ALONE * 3 / 2).len(), 1);
    assert!(!queue.has_unsent());
    let mut out = Vec::new();
    assert!(queue.committed(&[offset(5)], &mut out));
    assert_eq!(out, [committed(1, 5), Resolution::Passed(99)]);
    assert!(queue.committed(&[offset(9)], &mut out));
    assert!(queue.is_empty());
    assert!(!queue.committed(&[offset(10)], &mut out), "more was acknowledged than sent");
}

#[test]
fn what_cannot_be_believed_resolves_nothing() {
    let mut queue = queue();
    push_batch(&mut queue, 1, 2);
    let mut out = Vec::new();
    assert!(!queue.committed(&[offset(1)], &mut out), "it was not sent");
    assert_eq!(taken(&mut queue), [[1, 2]]);
    assert!(!queue.committed(&[offset(u64::MAX - 1)], &mut out), "it would end beyond the last position");
    assert_eq!(out, []);
    queue.lost();
    assert_eq!(queue.unsettled_sequences(), [sequence(1)], "it is looked up");
}

#[test]
fn what_a_lost_stream_carried_is_settled_before_anything_is_sent_again() {
    let mut queue = queue();
    for ticket in 1..=4 {
        push_alone(&mut queue, ticket);
    }
    assert_eq!(queue.take_unsent(3 * ALONE).len(), 3);
    let mut out = Vec::new();
    queue.committed(&[offset(1)], &mut out);
    queue.lost();
    assert_eq!(queue.take_unsent(usize::MAX), Vec::<Bytes>::new());
    assert_eq!(queue.unsettled().map(|attempt| attempt.from), Some(offset(2)));
    out.clear();
    queue.settle(&BTreeMap::from([(sequence(2), offset(7))]), false, &mut out);
    assert_eq!(out, [committed(2, 7)]);
    queue.begin(attempt(1));
    assert_eq!(taken(&mut queue), [[3], [4]], "the third again, then the fourth");
}

#[test]
fn a_batch_that_is_settled_settles_all_its_appends() {
    let mut queue = queue();
    push(&mut queue, 1);
    push_batch(&mut queue, 2, 2);
    assert_eq!(taken(&mut queue), [[1, 2, 3]]);
    push(&mut queue, 3);
    push(&mut queue, 4);
    assert_eq!(taken(&mut queue), [[4, 5]]);
    queue.lost();
    assert_eq!(queue.unsettled_sequences(), [sequence(1), sequence(4)], "one for each batch");
    let mut out = Vec::new();
    queue.settle(&BTreeMap::from([(sequence(1), offset(30))]), false, &mut out);
    assert_eq!(out, [committed_at(1, 1, 1, 30, 0), committed_at(2, 2, 2, 30, 1)]);
    queue.begin(attempt(1));
    assert_eq!(taken(&mut queue), [[4, 5]], "as it was sent");
}

#[test]
fn a_gap_puts_only_what_was_sent_and_not_found_in_doubt() {
    let mut queue = queue();
    for ticket in 1..=4 {
        push_alone(&mut queue, ticket);
    }
    queue.push_barrier(99);
    assert_eq!(queue.take_unsent(3 * ALONE).len(), 3);
    queue.lost();
    let mut out = Vec::new();
    queue.settle(&BTreeMap::from([(sequence(2), offset(7))]), true, &mut out);
    assert_eq!(out, [in_doubt(1, 1, 1), committed(2, 7), in_doubt(3, 3, 1)]);
    queue.begin(attempt(1));
    assert_eq!(taken(&mut queue), [[4]], "the fourth was never sent");
    out.clear();
    assert!(queue.committed(&[offset(1)], &mut out));
    assert_eq!(out, [committed(4, 1), Resolution::Passed(99)]);
}

#[test]
fn each_append_of_a_batch_in_doubt_is_told_by_its_own_sequence_number() {
    let mut queue = queue();
    push_batch(&mut queue, 1, 2);
    push(&mut queue, 2);
    push_batch(&mut queue, 3, 3);
    assert_eq!(taken(&mut queue), [[1, 2, 3, 4, 5, 6]]);
    queue.lost();
    let mut out = Vec::new();
    queue.settle(&BTreeMap::new(), true, &mut out);
    assert_eq!(out, [in_doubt(1, 1, 2), in_doubt(2, 3, 1), in_doubt(3, 4, 3)]);
}

#[test]
fn only_what_was_sent_is_given_up_as_unknown() {
    let mut queue = queue();
    push_alone(&mut queue, 1);
    push_alone(&mut queue, 2);
    push(&mut queue, 3);
    push(&mut queue, 4);
    queue.take_unsent(ALONE);
    queue.lost();
    let mut given_up = Vec::new();
    queue.give_up(|each| match each {
        GivenUp::Append { ticket, sequence, attempt, .. } => given_up.push((ticket, sequence.get(), attempt.is_some())),
        GivenUp::Barrier(_) => {}
    });
    assert_eq!(given_up, [(1, 1, true), (2, 2, false), (3, 3, false), (4, 4, false)]);
    assert!(queue.is_empty());
    push(&mut queue, 5);
    queue.begin(attempt(1));
    assert_eq!(taken(&mut queue), [[5]], "in a batch with nothing that was given up");
}

proptest! {
    /// Random sends, acknowledgements, losses and settlements against a log that takes a prefix of what was sent.
    #[test]
    fn each_append_lands_exactly_once_and_in_order(steps in prop::collection::vec(0..6_u8, 1..200)) {
        let mut queue = queue();
        let mut log: Vec<u64> = Vec::new(); // sequence numbers in the order in which they landed
        let mut wire: VecDeque<Bytes> = VecDeque::new(); // sent, not landed yet
        let mut unanswered: VecDeque<u64> = VecDeque::new(); // offsets to acknowledge
        let mut next = 1;
        let mut resolved = Vec::new();
        for step in steps {
            let mut out = Vec::new();
            match step {
                0 | 1 => {
                    push(&mut queue, next);
                    next += 1;
                }
                2 => wire.extend(queue.take_unsent(25)),
                3 => if let Some(batch) = wire.pop_front() {
                    unanswered.push_back(log.len() as u64 + 1);
                    log.extend(sequences(&batch));
                },
                4 => if let Some(at) = unanswered.pop_front() {
                    prop_assert!(queue.committed(&[offset(at)], &mut out));
                },
                _ => {
                    queue.lost();
                    wire.clear();
                    unanswered.clear();
                    let wanted = queue.unsettled_sequences();
                    let place = |wanted: &Sequence| log.iter().position(|landed| *landed == wanted.get());
                    let found = wanted.iter().filter_map(|sequence| Some((*sequence, offset(place(sequence)? as u64 + 1))));
                    let found: BTreeMap<_, _> = found.collect();
                    queue.settle(&found, false, &mut out);
                    queue.begin(attempt(0));
                }
            }
            queue.check();
            for resolution in out {
                let Resolution::Committed { ticket, batch_offset, index, .. } = resolution else { continue };
                prop_assert_eq!(log[(batch_offset.get() - 1 + index) as usize], ticket);
                resolved.push(ticket);
            }
        }
        let in_order: Vec<u64> = (1..=log.len() as u64).collect();
        prop_assert_eq!(&log, &in_order, "landed once each, in order");
        prop_assert_eq!(&resolved[..], &in_order[..resolved.len()]);
    }

    /// Whatever subset of what was sent is found: its appends are told where they are, and the rest is in doubt or is sent
    /// again as it was, in order.
    #[test]
    fn any_subset_of_a_lost_stream_may_be_found(
        batches in prop::collection::vec((prop::collection::vec(1..4_usize, 1..5), any::<bool>()), 1..12),
        gaps: bool,
    ) {
        let mut queue = queue();
        let (mut ticket, mut sent, mut found) = (0, 0, BTreeMap::new());
        let (mut expected, mut again) = (Vec::new(), Vec::new());
        for (place, (appends, is_found)) in (1..).zip(&batches) {
            let batch_offset = 1_000 * place;
            let first = queue.next_sequence;
            for records in appends {
                ticket += 1;
                let at = queue.next_sequence.get();
                push_batch(&mut queue, ticket, *records);
                let count = u32::try_from(*records).expect("few");
                if *is_found {
                    expected.push(committed_at(ticket, at, count, batch_offset, at - first.get()));
                } else if gaps {
                    expected.push(in_doubt(ticket, at, count));
                }
            }
            let taken = queue.take_unsent(usize::MAX);
            if *is_found {
                found.insert(first, offset(batch_offset));
            } else if !gaps {
                again.extend(taken.clone());
            }
            sent += taken.len();
        }
        prop_assert_eq!(sent, batches.len());
        queue.lost();
        prop_assert_eq!(queue.unsettled_sequences().len(), batches.len());
        let mut out = Vec::new();
        queue.settle(&found, gaps, &mut out);
        queue.check();
        prop_assert_eq!(out, expected);
        queue.begin(attempt(1));
        prop_assert_eq!(queue.take_unsent(usize::MAX), again);
    }
}
