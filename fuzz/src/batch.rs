//! Batches, as a peer sends them.

use bifrost_types::KeyFilter;
use bifrost_wire::batch::{BATCH_HEADER_BYTES, Batch, Filtered};
use bytes::Bytes;

use crate::unhex;

/// Bytes of the header that its checksum covers.
const COVERED: usize = BATCH_HEADER_BYTES - 4;

pub(crate) fn run(input: &[u8]) {
    decode(Bytes::copy_from_slice(input));
    decode(with_checksum(input));
}

fn decode(bytes: Bytes) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    let records: Vec<_> = batch.records().collect();
    assert_eq!(u32::try_from(records.len()), Ok(batch.header().present), "as many records as the header says");
    let sound = batch.verify().is_ok();
    for filter in [KeyFilter::Any, KeyFilter::Key(7), KeyFilter::Range(8, 15), KeyFilter::Range(0, u64::MAX)] {
        let Filtered::Some(bytes) = batch.filter(filter) else { continue };
        let part = Batch::decode(bytes).expect("what a filter leaves is a batch");
        assert!(part.header().present < batch.header().present, "a filter that leaves all says so");
        assert!(!sound || part.verify().is_ok(), "a filter changes no record");
    }
}

/// The same with a header that passes its own check, so that a fuzzer gets to the records.
fn with_checksum(input: &[u8]) -> Bytes {
    let mut bytes = input.to_vec();
    if let Some((header, body)) = bytes.split_at_mut_checked(BATCH_HEADER_BYTES) {
        if let (Some(length), Ok(body)) = (header.get_mut(36..40), u32::try_from(body.len())) {
            length.copy_from_slice(&body.to_le_bytes());
        }
        let crc = header.get(..COVERED).map(bifrost_checksum::crc32c);
        if let (Some(place), Some(crc)) = (header.get_mut(COVERED..), crc) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }
    Bytes::from(bytes)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![unhex(include_str!("../../crates/wire/testdata/batch-v1.hex"))]
}
