//! The chain of a log as a metadata value, and its parts as they are told to whoever asks for a log. How segments are
//! written in a chain is in [`segments`].

mod segments;

use bifrost_types::limits::{CHAIN_FINISHED_MAX, LOG_NAME_BYTES_MAX, METADATA_VALUE_BYTES_MAX};
use bifrost_types::{
    Actor, Chain, CloseReason, Finished, LogId, LogletOffset, Lsn, Reconfiguration, Segment, SegmentIndex,
    SegmentState, Successor, Timings,
};
use bytes::Bytes;
use prost::Message as _;

use super::topology::{counts, members, nodeset, replication};
use super::{DecodeError, VALUE_FORMAT_VERSION, at_most, id128, id128_bytes, non_zero, optional, required};
use crate::pb;

/// The metadata value of a chain.
pub fn encode_chain(chain: &Chain) -> Bytes {
    pb::Chain::from(chain).encode_to_vec().into()
}

/// The chain of a metadata value. Its pointer order holds: segments are in order of index and contiguous in LSN, all but
/// the last are sealed, every index is below `next_segment`, every loglet is of the chain's log.
///
/// # Errors
/// [`DecodeError`] when the bytes are no chain, or one of another format version.
pub fn decode_chain(bytes: &[u8]) -> Result<Chain, DecodeError> {
    at_most("Chain", bytes.len(), METADATA_VALUE_BYTES_MAX)?;
    let value = pb::Chain::decode(bytes).map_err(|_| DecodeError::NotProtobuf { message: "Chain" })?;
    value.try_into()
}

impl From<&Actor> for pb::Actor {
    fn from(actor: &Actor) -> Self {
        use pb::actor as a;
        let actor = match actor {
            Actor::Operator => a::Actor::Operator(a::Operator {}),
            Actor::Appender => a::Actor::Appender(a::Appender {}),
            Actor::Controller => a::Actor::Controller(a::Controller {}),
            Actor::Node(node) => a::Actor::Node((*node).into()),
        };
        Self { actor: Some(actor) }
    }
}

impl TryFrom<pb::Actor> for Actor {
    type Error = DecodeError;

    fn try_from(actor: pb::Actor) -> Result<Self, DecodeError> {
        use pb::actor as a;
        Ok(match required("Actor.actor", actor.actor)? {
            a::Actor::Operator(_) => Self::Operator,
            a::Actor::Appender(_) => Self::Appender,
            a::Actor::Controller(_) => Self::Controller,
            a::Actor::Node(node) => Self::Node(node.try_into()?),
        })
    }
}

fn reason_value(reason: CloseReason) -> i32 {
    match reason {
        CloseReason::Requested => pb::CloseReason::Requested,
        CloseReason::SequencerGone => pb::CloseReason::SequencerGone,
        CloseReason::OrphanedSeal => pb::CloseReason::OrphanedSeal,
        CloseReason::Placement => pb::CloseReason::Placement,
        CloseReason::Full => pb::CloseReason::Full,
        CloseReason::HandOver => pb::CloseReason::HandOver,
        CloseReason::Deleted => pb::CloseReason::Deleted,
    }
    .into()
}

fn reason(field: &'static str, value: i32) -> Result<CloseReason, DecodeError> {
    match pb::CloseReason::try_from(value) {
        Ok(pb::CloseReason::Requested) => Ok(CloseReason::Requested),
        Ok(pb::CloseReason::SequencerGone) => Ok(CloseReason::SequencerGone),
        Ok(pb::CloseReason::OrphanedSeal) => Ok(CloseReason::OrphanedSeal),
        Ok(pb::CloseReason::Placement) => Ok(CloseReason::Placement),
        Ok(pb::CloseReason::Full) => Ok(CloseReason::Full),
        Ok(pb::CloseReason::HandOver) => Ok(CloseReason::HandOver),
        Ok(pb::CloseReason::Deleted) => Ok(CloseReason::Deleted),
        Ok(pb::CloseReason::Unspecified) | Err(_) => Err(DecodeError::UnknownValue { field, value }),
    }
}

impl From<Timings> for pb::Timings {
    fn from(timings: Timings) -> Self {
        let Timings { seal_micros, repair_micros, total_micros } = timings;
        Self { seal_micros, repair_micros, total_micros }
    }
}

impl From<pb::Timings> for Timings {
    fn from(timings: pb::Timings) -> Self {
        let pb::Timings { seal_micros, repair_micros, total_micros } = timings;
        Self { seal_micros, repair_micros, total_micros }
    }
}

impl From<&SegmentState> for pb::segment::State {
    fn from(state: &SegmentState) -> Self {
        match state {
            SegmentState::Open => Self::Open(pb::segment::Open {}),
            SegmentState::Sealed { tail, lost_from, op, actor, reason, timings } => Self::Sealed(pb::segment::Sealed {
                tail: tail.get(),
                lost_from: lost_from.map(LogletOffset::get),
                op: id128_bytes(op.get()),
                actor: Some(actor.into()),
                reason: reason_value(*reason),
                timings: Some((*timings).into()),
            }),
        }
    }
}

impl TryFrom<pb::segment::State> for SegmentState {
    type Error = DecodeError;

    fn try_from(state: pb::segment::State) -> Result<Self, DecodeError> {
        Ok(match state {
            pb::segment::State::Open(_) => Self::Open,
            pb::segment::State::Sealed(sealed) => Self::Sealed {
                tail: non_zero("Segment.Sealed.tail", sealed.tail)?,
                lost_from: optional("Segment.Sealed.lost_from", sealed.lost_from)?,
                op: id128("Segment.Sealed.op", &sealed.op)?,
                actor: required("Segment.Sealed.actor", sealed.actor)?.try_into()?,
                reason: reason("Segment.Sealed.reason", sealed.reason)?,
                timings: sealed.timings.map(Into::into).unwrap_or_default(),
            },
        })
    }
}

impl From<&Segment> for pb::Segment {
    fn from(segment: &Segment) -> Self {
        Self {
            base_lsn: segment.base_lsn.get(),
            params: Some((&segment.params).into()),
            state: Some((&segment.state).into()),
        }
    }
}

impl TryFrom<pb::Segment> for Segment {
    type Error = DecodeError;

    fn try_from(segment: pb::Segment) -> Result<Self, DecodeError> {
        Ok(Self {
            base_lsn: non_zero("Segment.base_lsn", segment.base_lsn)?,
            params: required("Segment.params", segment.params)?.try_into()?,
            state: required("Segment.state", segment.state)?.try_into()?,
        })
    }
}

impl From<&Successor> for pb::Successor {
    fn from(successor: &Successor) -> Self {
        Self {
            nodeset: members(&successor.nodeset),
            replication: counts(&successor.replication),
            sequencer: Some(successor.sequencer.into()),
        }
    }
}

impl TryFrom<pb::Successor> for Successor {
    type Error = DecodeError;

    fn try_from(successor: pb::Successor) -> Result<Self, DecodeError> {
        Ok(Self {
            nodeset: nodeset("Successor.nodeset", successor.nodeset)?,
            replication: replication("Successor.replication", successor.replication)?,
            sequencer: required("Successor.sequencer", successor.sequencer)?.try_into()?,
        })
    }
}

impl From<&Reconfiguration> for pb::Reconfiguration {
    fn from(pending: &Reconfiguration) -> Self {
        Self {
            op: id128_bytes(pending.op.get()),
            segment: pending.segment.get(),
            actor: Some((&pending.actor).into()),
            reason: reason_value(pending.reason),
            successor: pending.successor.as_ref().map(Into::into),
            attempt: pending.attempt,
            opened_at_millis: pending.opened_at_millis,
        }
    }
}

impl TryFrom<pb::Reconfiguration> for Reconfiguration {
    type Error = DecodeError;

    fn try_from(pending: pb::Reconfiguration) -> Result<Self, DecodeError> {
        Ok(Self {
            op: id128("Reconfiguration.op", &pending.op)?,
            segment: SegmentIndex::new(pending.segment),
            actor: required("Reconfiguration.actor", pending.actor)?.try_into()?,
            reason: reason("Reconfiguration.reason", pending.reason)?,
            successor: pending.successor.map(TryInto::try_into).transpose()?,
            attempt: pending.attempt,
            opened_at_millis: pending.opened_at_millis,
        })
    }
}

impl From<&Finished> for pb::FinishedReconfiguration {
    fn from(finished: &Finished) -> Self {
        Self {
            op: id128_bytes(finished.op.get()),
            segment: finished.segment.get(),
            tail: finished.tail.get(),
            successor: finished.successor.map(SegmentIndex::get),
        }
    }
}

impl TryFrom<pb::FinishedReconfiguration> for Finished {
    type Error = DecodeError;

    fn try_from(finished: pb::FinishedReconfiguration) -> Result<Self, DecodeError> {
        Ok(Self {
            op: id128("FinishedReconfiguration.op", &finished.op)?,
            segment: SegmentIndex::new(finished.segment),
            tail: non_zero("FinishedReconfiguration.tail", finished.tail)?,
            successor: finished.successor.map(SegmentIndex::new),
        })
    }
}

impl From<&Chain> for pb::Chain {
    fn from(chain: &Chain) -> Self {
        let mut value = Self {
            format_version: VALUE_FORMAT_VERSION,
            log: chain.log.get(),
            name: chain.name.clone(),
            version: chain.version,
            next_segment: chain.next_segment.get(),
            pending: chain.pending.as_ref().map(Into::into),
            finished: chain.finished.iter().map(Into::into).collect(),
            trim_point: chain.trim_point.map(Lsn::get),
            ..Self::default()
        };
        segments::write(&chain.segments, &mut value);
        value
    }
}

impl TryFrom<pb::Chain> for Chain {
    type Error = DecodeError;

    fn try_from(value: pb::Chain) -> Result<Self, DecodeError> {
        if value.format_version != VALUE_FORMAT_VERSION {
            return Err(DecodeError::FormatVersion { field: "Chain.format_version", version: value.format_version });
        }
        if let Some(name) = &value.name {
            at_most("Chain.name", name.len(), LOG_NAME_BYTES_MAX)?;
        }
        at_most("Chain.finished", value.finished.len(), CHAIN_FINISHED_MAX)?;
        let log = non_zero("Chain.log", value.log)?;
        let segments = segments::read(log, &value)?;
        let next_segment = SegmentIndex::new(value.next_segment);
        if segments.last().is_none_or(|last| last.index() >= next_segment) {
            return Err(DecodeError::Inconsistent { field: "Chain.next_segment" });
        }
        Ok(Self {
            log,
            name: value.name,
            version: value.version,
            segments,
            next_segment,
            pending: value.pending.map(TryInto::try_into).transpose()?,
            finished: value.finished.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            trim_point: optional("Chain.trim_point", value.trim_point)?,
        })
    }
}

/// The pointer order of segments: of this log, at least one, in order of index and contiguous in LSN, all but the last
/// sealed, none lost from beyond its end.
pub(super) fn check_segments(field: &'static str, log: LogId, segments: &[Segment]) -> Result<(), DecodeError> {
    let inconsistent = Err(DecodeError::Inconsistent { field });
    if segments.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    if segments.iter().any(|segment| segment.params.id.log != log) {
        return inconsistent;
    }
    for pair in segments.windows(2) {
        let [earlier, later] = pair else { continue };
        // C1: the base of a segment is exactly the decided tail of the one before.
        let Some(tail) = earlier.decided_tail() else { return inconsistent };
        if earlier.index() >= later.index() || tail.to_lsn(earlier.base_lsn) != Ok(later.base_lsn) {
            return inconsistent;
        }
    }
    if segments.iter().any(|segment| segment.held_tail() > segment.decided_tail()) {
        return inconsistent;
    }
    Ok(())
}
