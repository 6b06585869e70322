//! Finding out by reading which appends of a writer are in a segment (A7).

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use bifrost_loglet::read::{GapKind, Item, LogletReader, ReadError, ReadOptions, ReadRange};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{KeyFilter, LogletOffset, LogletParams, Segment, SegmentIndex, Sequence, WriterId};
use bifrost_wire::batch::BatchHeader;
use futures_util::stream::StreamExt;

use crate::declared_lost::words;
use crate::log_state::LogState;

/// Bytes that a scan reads ahead.
const SCAN_CREDIT_BYTES: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not 0");

/// How long a copy may be silent before another one is asked: a writer waits, the range is short, and a copy may be on the
/// very node that was lost.
const SCAN_PATIENCE: Duration = Duration::from_millis(20);

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Offsets of the wanted records that are in the segment, by their sequence numbers.
    pub(crate) offsets: BTreeMap<Sequence, LogletOffset>,
    /// Whether part of the range was trimmed or lost, so that a record that was not found may have been there.
    pub(crate) gaps: bool,
}

/// Where a batch is, and how many records it has.
#[derive(Debug, Clone, Copy)]
struct Place {
    first_offset: LogletOffset,
    records: NonZeroU32,
}

impl Place {
    /// The offset of record `index`, if the batch has so many.
    fn of_record(self, index: u64) -> Option<LogletOffset> {
        if index < u64::from(self.records.get()) { self.first_offset.advance(index).ok() } else { None }
    }
}

/// Where the batches at the end of a closed segment are, for all writers of this process: after a reconfiguration each
/// of them asks, and one read answers all. Its size is that of the window that was in flight.
#[derive(Debug)]
pub(crate) struct ClosedTail {
    segment: SegmentIndex,
    /// Everything from here to the decided tail is in `batches`.
    from: LogletOffset,
    /// By the sequence numbers of their first records.
    batches: BTreeMap<(WriterId, Sequence), Place>,
    gaps: bool,
}

impl ClosedTail {
    /// The offset of a record, wherever in its batch it is.
    fn offset_of(&self, writer: WriterId, sequence: Sequence) -> Option<LogletOffset> {
        let ((of, first), place) = self.batches.range(..=(writer, sequence)).next_back()?;
        if *of == writer { place.of_record(sequence.get() - first.get()) } else { None }
    }
}

/// Looks for the records of `writer` with the sequence numbers `wanted` from `from` on in a closed segment. What was read
/// for one writer serves the next. Call it from a task: others wait while it reads.
///
/// # Errors
/// [`ReadError`] when a promise was found broken.
///
/// # Cancel safety
/// Safe: it only reads.
pub(crate) async fn scan_closed(
    state: &LogState,
    segment: &Segment,
    decided: LogletOffset,
    from: LogletOffset,
    writer: WriterId,
    wanted: &[Sequence],
) -> Result<Found, ReadError> {
    let mut shared = state.closed_tail.lock().await;
    let is_other = |tail: &ClosedTail| tail.segment != segment.index() && !plant::is(Plant::EarlierAttemptCounted);
    let known = shared.take_if(|tail| is_other(tail) || from < tail.from);
    if shared.is_none() {
        let known = known.filter(|tail| tail.segment == segment.index());
        let until = known.as_ref().map_or(decided, |tail| tail.from);
        let (mut batches, mut gaps) = known.map_or_else(Default::default, |tail| (tail.batches, tail.gaps));
        gaps |= visit(state, segment, from, Some(until), |header, first_offset| {
            batches.insert((header.writer, header.first_sequence), Place { first_offset, records: header.records });
            true
        })
        .await?;
        *shared = Some(ClosedTail { segment: segment.index(), from, batches, gaps });
    }
    let tail = shared.as_ref();
    let find = |sequence: &Sequence| Some((*sequence, tail?.offset_of(writer, *sequence)?));
    Ok(Found { offsets: wanted.iter().filter_map(find).collect(), gaps: tail.is_some_and(|tail| tail.gaps) })
}

/// Looks for the records of `writer` with the sequence numbers `wanted`, ascending, in `[from, until)` of a segment, or up
/// to its decided tail if that is lower or `until` is `None`. Waits until that much may be read.
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
    let mut offsets = BTreeMap::new();
    let gaps = visit(state, segment, from, until, |header, first_offset| {
        if header.writer == writer {
            let place = Place { first_offset, records: header.records };
            let first = header.first_sequence;
            let from = wanted.partition_point(|sequence| *sequence < first);
            let there = |sequence: &Sequence| Some((*sequence, place.of_record(sequence.get() - first.get())?));
            offsets.extend(wanted[from..].iter().map_while(there));
        }
        offsets.len() < wanted.len()
    })
    .await?;
    Ok(Found { offsets, gaps })
}

/// Shows every batch of `[from, until)` until `visitor` says that it has seen enough; returns whether there were gaps.
async fn visit(
    state: &LogState,
    segment: &Segment,
    from: LogletOffset,
    until: Option<LogletOffset>,
    mut visitor: impl FnMut(BatchHeader, LogletOffset) -> bool,
) -> Result<bool, ReadError> {
    let mut gaps = false;
    if until.is_some_and(|until| until <= from) {
        return Ok(gaps);
    }
    let range = ReadRange { from, until, filter: KeyFilter::Any };
    let spread = u64::from(segment.index().get());
    let options =
        ReadOptions { credit_bytes: SCAN_CREDIT_BYTES, spread, patience: SCAN_PATIENCE, ..ReadOptions::default() };
    // At or after the revision that names the nodeset.
    let named_at = state.chain().revision;
    let (cluster, readable) = (&state.cluster, state.readable(segment));
    let LogletParams { nodeset, .. } = &segment.params;
    let mut reader = LogletReader::open(segment.params.clone(), range, options, cluster.peers(), readable.clone());
    let mut words = words(cluster.directory.clone(), nodeset.clone(), named_at, readable, reader.progress());
    loop {
        let item = tokio::select! {
            biased;
            item = reader.next() => item,
            Some(lost) = words.next() => {
                reader.declare_lost(lost);
                continue;
            }
        };
        let Some(item) = item else { break };
        match item? {
            Item::Batch { first_offset, batch, .. } => {
                if !visitor(batch.header(), first_offset) {
                    break;
                }
            }
            Item::Gap { kind: GapKind::Trimmed | GapKind::Lost, .. } => gaps = true,
            Item::Filtered { .. } | Item::CaughtUp { .. } => {}
        }
    }
    Ok(gaps)
}
