//! Finding out by reading which appends of a writer are in a segment (A7).

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use bifrost_loglet::read::{GapKind, Item, LogletReader, ReadError, ReadOptions, ReadRange};
use bifrost_types::{KeyFilter, LogletOffset, Segment, Sequence, WriterId};

use crate::log_state::LogState;

/// Bytes that a scan reads ahead: little, since many appenders may scan at once.
const SCAN_CREDIT_BYTES: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not 0");

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// First offsets of the wanted batches that are in the segment, by the sequence of their first record.
    pub(crate) offsets: BTreeMap<Sequence, LogletOffset>,
    /// Whether part of the range was trimmed or lost, so that a batch that was not found may have been there.
    pub(crate) gaps: bool,
}

/// Looks for batches of `writer` that begin with one of `wanted` in `[from, until)` of a segment, or up to its decided
/// tail if that is lower or `until` is `None`. Waits until that much may be read.
///
/// # Errors
/// [`ReadError`] when a promise was found broken.
///
/// # Cancel safety
/// Safe: it only reads.
pub(crate) async fn scan(
    state: &LogState,
    segment: &Segment,
    from: LogletOffset,
    until: Option<LogletOffset>,
    writer: WriterId,
    wanted: &[Sequence],
) -> Result<Found, ReadError> {
    let mut found = Found::default();
    if wanted.is_empty() || until.is_some_and(|until| until <= from) {
        return Ok(found);
    }
    let range = ReadRange { from, until, filter: KeyFilter::Any };
    let spread = u64::from(segment.index().get());
    let options = ReadOptions { credit_bytes: SCAN_CREDIT_BYTES, spread, ..ReadOptions::default() };
    let readable = state.readable(segment);
    let mut reader = LogletReader::open(segment.params.clone(), range, options, state.cluster.peers(), readable);
    while found.offsets.len() < wanted.len()
        && let Some(item) = reader.next().await
    {
        match item? {
            Item::Batch { first_offset, batch, .. } => {
                let header = batch.header();
                if header.writer == writer && wanted.binary_search(&header.first_sequence).is_ok() {
                    found.offsets.insert(header.first_sequence, first_offset);
                }
            }
            Item::Gap { kind: GapKind::Trimmed | GapKind::Lost, .. } => found.gaps = true,
            Item::Filtered { .. } | Item::CaughtUp { .. } => {}
        }
    }
    Ok(found)
}
