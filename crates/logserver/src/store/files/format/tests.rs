#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::copy::DurableState;
use crate::store::format::encode_state;
use crate::testing::*;

struct Out(Vec<u8>);

impl Sink for Out {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn put_summed(&mut self, bytes: &[u8], sum: Sum) {
        assert_eq!(sum, Sum::of(bytes));
        self.put(bytes);
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// One of each kind, with its batch.
fn entries() -> Vec<(Entry, Option<PlacedBatch>)> {
    let batch = placed(10, 2);
    let place = Place::new(loglet(7, 3), &batch).unwrap();
    let key = loglet_key(loglet(7, 3));
    let state = DurableState { local_tail: at(12), ..DurableState::EMPTY };
    vec![
        (Entry::Batch(place), Some(batch)),
        (Entry::State { key, value: encode_state(&key, &state) }, None),
        (Entry::DropBelow { loglet: loglet(7, 3), offset: at(4) }, None),
        (Entry::DropFrom { loglet: loglet(7, 3), offset: at(12) }, None),
    ]
}

fn encoded(entries: &mut [(Entry, Option<PlacedBatch>)]) -> Vec<u8> {
    let mut out = Out(Vec::new());
    entries.iter_mut().for_each(|(entry, batch)| entry.encode(batch.as_ref(), &mut out));
    out.0
}

#[test]
fn the_bytes_of_a_group_and_of_rows_are_pinned() {
    let mut entries = entries();
    let group = encoded(&mut entries);
    let spot = Spot { file: 5, at: 4096 };
    entries.iter_mut().for_each(|(entry, _)| entry.settle(spot));
    let mut decoded = Vec::new();
    decode_group(&group, spot, |entry, bytes| {
        let batch = match &entry {
            Entry::Batch(place) => place.batch(Bytes::copy_from_slice(bytes)),
            _ => None,
        };
        decoded.push((entry, batch));
        Ok(())
    })
    .unwrap();
    assert_eq!(decoded, entries);
    let Some((Entry::Batch(place), Some(batch))) = entries.into_iter().next() else { unreachable!("it is the first") };
    assert_eq!(Place::decode(&place.key(), &place.value()), Ok(place));
    let span = Span { first: at(10), end: at(12), bytes: batch.bytes().len() as u64 };
    assert_eq!(Span::decode(&span.value()), Ok(span));
    let span_key = Span::key(loglet(7, 3), 5);
    assert_eq!(Span::file(&span_key), Ok(5));
    let need = Need { spans: 1, bytes: 2, written: 3 };
    assert_eq!(Need::decode(&5_u64.to_be_bytes(), &need.value()), Ok((5, need)));
    let indexed = Indexed { group: 8, booked: 7, end: Spot { file: 5, at: 4096 } };
    assert_eq!(Indexed::decode(&indexed.value()), Ok(indexed));
    golden(
        "files.golden",
        &[
            ("group", &group),
            ("row of the batch", &place.value()),
            ("key of the span", &span_key),
            ("span", &span.value()),
            ("file", &need.value()),
            ("position", &indexed.value()),
        ],
    );
}

#[test]
fn a_group_that_ends_early_is_refused() {
    let group = encoded(&mut entries());
    let mut whole = Vec::new();
    for length in 0..group.len() {
        let found = decode_group(&group[..length], Spot { file: 1, at: 0 }, |_, _| Ok(()));
        if found.is_ok() {
            whole.push(length);
        }
    }
    assert_eq!(whole.len(), 4, "between two changes it cannot be told: {whole:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0..6_u8) {
        let tagged: Vec<u8> = std::iter::once(tag).chain(bytes.iter().copied()).collect();
        let _refused = decode_group(&tagged, Spot { file: u64::MAX, at: u64::MAX }, |_, _| Ok(()));
        let _refused = Place::decode(&batch_key(loglet(1, 0), at(1)), &bytes);
        let _refused = Span::decode(&bytes);
        let _refused = Span::file(&bytes);
        let _refused = Need::decode(&bytes, &bytes);
        let _refused = Indexed::decode(&bytes);
    }

    #[test]
    fn a_batch_with_a_flipped_bit_or_in_another_place_is_none(bit in 0..100_usize, offset in 1..100_u64) {
        let batch = placed(10, 2);
        let place = Place::new(loglet(7, 3), &batch).unwrap();
        let mut flipped = batch.bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(place.batch(flipped.into()), None);
        let elsewhere = Place { first_offset: at(offset), ..place };
        prop_assert_eq!(elsewhere.batch(batch.bytes().clone()).is_some(), offset == 10);
        let shorter = Place { records: NonZeroU32::MIN, ..place };
        prop_assert_eq!(shorter.batch(batch.bytes().clone()), None);
    }
}
