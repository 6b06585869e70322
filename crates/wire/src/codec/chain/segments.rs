//! The segments of a chain in its value: each names what it shares with others by its place in a table, and begins where the
//! one before it ends. About 35 bytes each, wherever they are.

use std::collections::BTreeMap;

use bifrost_types::limits::NODESET_MAX;
use bifrost_types::{
    Actor, CloseReason, LogId, LogletId, LogletOffset, LogletParams, Lsn, Member, NodeGeneration, Nodeset, OpId,
    ReplicationProperty, Segment, SegmentIndex, SegmentState, Timings,
};

use super::super::topology::{counts, nodeset_of, replication};
use super::super::{DecodeError, at_most, non_zero, optional, required};
use super::{reason, reason_value};
use crate::pb;

/// Values that are written once, in the order of their first use.
struct Table<T> {
    places: BTreeMap<T, u32>,
    rows: Vec<T>,
}

impl<T: Ord + Copy> Table<T> {
    const fn new() -> Self {
        Self { places: BTreeMap::new(), rows: Vec::new() }
    }

    /// The place of a value.
    fn place(&mut self, value: T) -> u32 {
        *self.places.entry(value).or_insert_with(|| {
            self.rows.push(value);
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

/// Writes segments, which are in order and contiguous, into the value of their chain.
pub(super) fn write(segments: &[Segment], value: &mut pb::Chain) {
    let mut nodesets = Table::<&Nodeset>::new();
    let mut replications = Table::<&ReplicationProperty>::new();
    let mut params = Table::<(u32, u32, NodeGeneration)>::new();
    let mut closers = Table::<(&Actor, CloseReason)>::new();
    let Some(first) = segments.first() else { return };
    value.first_segment = first.index().get();
    value.base_lsn = first.base_lsn.get();
    let mut expected = value.first_segment;
    for segment in segments {
        let LogletParams { id, nodeset, replication, sequencer } = &segment.params;
        let skipped = id.segment.get().saturating_sub(expected);
        expected = id.segment.get().saturating_add(1);
        let params = params.place((nodesets.place(nodeset), replications.place(replication), *sequencer));
        match &segment.state {
            SegmentState::Open => value.open = Some(pb::OpenSegment { skipped, params }),
            SegmentState::Sealed { tail, lost_from, op, actor, reason, timings } => {
                let Timings { seal_micros, repair_micros, total_micros } = *timings;
                value.closed.push(pb::ClosedSegment {
                    skipped,
                    params,
                    records: tail.get() - 1,
                    op_high: (op.get() >> 64) as u64,
                    op_low: op.get() as u64,
                    closer: closers.place((actor, *reason)),
                    seal_micros,
                    repair_micros,
                    total_micros,
                    lost_from: lost_from.map(LogletOffset::get),
                });
            }
        }
    }
    let mut members = Table::<&Member>::new();
    for nodeset in nodesets.rows {
        let places = nodeset.members().iter().map(|member| members.place(member)).collect();
        value.nodesets.push(pb::MemberList { members: places });
    }
    value.members = members.rows.into_iter().map(Into::into).collect();
    value.replications =
        replications.rows.into_iter().map(|one| pb::ReplicationCounts { counts: counts(one) }).collect();
    value.params = params
        .rows
        .into_iter()
        .map(|(nodeset, replication, sequencer)| pb::SegmentParams {
            nodeset,
            replication,
            sequencer: Some(sequencer.into()),
        })
        .collect();
    value.closers = closers
        .rows
        .into_iter()
        .map(|(actor, reason)| pb::Closer { actor: Some(actor.into()), reason: reason_value(reason) })
        .collect();
}

/// What segments are opened with, read from the tables: their clones share it.
type Params = (Nodeset, ReplicationProperty, NodeGeneration);

/// Reads the segments of a chain. They are in order and contiguous because nothing else can be written; at least one.
///
/// Memory is bounded by the bytes of the value: a place in a table costs a byte at least, and no more than a member or a
/// segment of fixed size.
pub(super) fn read(log: LogId, value: &pb::Chain) -> Result<Vec<Segment>, DecodeError> {
    let params = read_params(value)?;
    let closers = value.closers.iter().map(read_closer).collect::<Result<Vec<_>, _>>()?;
    let mut segments = Vec::with_capacity(value.closed.len().saturating_add(1));
    let mut next = Next { index: Some(value.first_segment), base_lsn: non_zero("Chain.base_lsn", value.base_lsn)? };
    for closed in &value.closed {
        let field = "ClosedSegment.records";
        let tail = closed.records.checked_add(1).and_then(LogletOffset::new);
        let tail = tail.ok_or(DecodeError::OutOfRange { field })?;
        let lost_from: Option<LogletOffset> = optional("ClosedSegment.lost_from", closed.lost_from)?;
        if lost_from > Some(tail) {
            return Err(DecodeError::Inconsistent { field: "ClosedSegment.lost_from" });
        }
        let (actor, reason) = row("ClosedSegment.closer", &closers, closed.closer)?.clone();
        let state = SegmentState::Sealed {
            tail,
            lost_from,
            op: read_op(closed)?,
            actor,
            reason,
            timings: Timings {
                seal_micros: closed.seal_micros,
                repair_micros: closed.repair_micros,
                total_micros: closed.total_micros,
            },
        };
        let params = row("ClosedSegment.params", &params, closed.params)?;
        segments.push(next.segment(log, closed.skipped, params, state)?);
        // C1: the base of a segment is exactly the decided tail of the one before.
        next.base_lsn = tail.to_lsn(next.base_lsn).map_err(|_| DecodeError::OutOfRange { field })?;
    }
    if let Some(open) = &value.open {
        let params = row("OpenSegment.params", &params, open.params)?;
        segments.push(next.segment(log, open.skipped, params, SegmentState::Open)?);
    }
    if segments.is_empty() { Err(DecodeError::Missing { field: "Chain.closed" }) } else { Ok(segments) }
}

/// Where the next segment begins.
struct Next {
    /// The least index that it may have, if there is one.
    index: Option<u32>,
    base_lsn: Lsn,
}

impl Next {
    fn segment(
        &mut self,
        log: LogId,
        skipped: u32,
        (nodeset, replication, sequencer): &Params,
        state: SegmentState,
    ) -> Result<Segment, DecodeError> {
        let index = self.index.and_then(|least| least.checked_add(skipped));
        let index = index.ok_or(DecodeError::OutOfRange { field: "Chain.segments" })?;
        self.index = index.checked_add(1);
        let params = LogletParams {
            id: LogletId::new(log, SegmentIndex::new(index)),
            nodeset: nodeset.clone(),
            replication: replication.clone(),
            sequencer: *sequencer,
        };
        Ok(Segment { base_lsn: self.base_lsn, params, state })
    }
}

fn read_params(value: &pb::Chain) -> Result<Vec<Params>, DecodeError> {
    let members = value.members.iter().map(|member| member.clone().try_into());
    let members: Vec<Member> = members.collect::<Result<_, _>>()?;
    let nodesets = value.nodesets.iter().map(|list| {
        at_most("MemberList.members", list.members.len(), NODESET_MAX)?;
        let named = list.members.iter().map(|place| row("MemberList.members", &members, *place).cloned());
        nodeset_of("MemberList.members", named.collect::<Result<_, _>>()?)
    });
    let nodesets: Vec<Nodeset> = nodesets.collect::<Result<_, _>>()?;
    let replications = value.replications.iter().map(|one| replication("Chain.replications", one.counts.clone()));
    let replications: Vec<ReplicationProperty> = replications.collect::<Result<_, _>>()?;
    let params = value.params.iter().map(|one| {
        Ok((
            row("SegmentParams.nodeset", &nodesets, one.nodeset)?.clone(),
            row("SegmentParams.replication", &replications, one.replication)?.clone(),
            required("SegmentParams.sequencer", one.sequencer)?.try_into()?,
        ))
    });
    params.collect()
}

fn read_closer(closer: &pb::Closer) -> Result<(Actor, CloseReason), DecodeError> {
    let actor = required("Closer.actor", closer.actor)?.try_into()?;
    Ok((actor, reason("Closer.reason", closer.reason)?))
}

fn read_op(closed: &pb::ClosedSegment) -> Result<OpId, DecodeError> {
    non_zero("ClosedSegment.op", u128::from(closed.op_high) << 64 | u128::from(closed.op_low))
}

/// The row of a table that a place names.
fn row<'a, T>(field: &'static str, table: &'a [T], place: u32) -> Result<&'a T, DecodeError> {
    let row = usize::try_from(place).ok().and_then(|place| table.get(place));
    row.ok_or(DecodeError::OutOfRange { field })
}
