//! The tombstone of a deleted log as a metadata value.

use bifrost_types::Tombstone;
use bytes::Bytes;
use prost::Message as _;

use super::{DecodeError, VALUE_FORMAT_VERSION, id128, id128_bytes, non_zero};
use crate::pb;

/// The metadata value of a tombstone.
pub fn encode_tombstone(tombstone: &Tombstone) -> Bytes {
    pb::Tombstone::from(tombstone).encode_to_vec().into()
}

/// The tombstone of a metadata value. Its chain, if it has one, is of the same log, closed, and has nothing pending.
///
/// # Errors
/// [`DecodeError`] when the bytes are no tombstone, or one of another format version.
pub fn decode_tombstone(bytes: &[u8]) -> Result<Tombstone, DecodeError> {
    let value = pb::Tombstone::decode(bytes).map_err(|_| DecodeError::NotProtobuf { message: "Tombstone" })?;
    value.try_into()
}

impl From<&Tombstone> for pb::Tombstone {
    fn from(tombstone: &Tombstone) -> Self {
        Self {
            format_version: VALUE_FORMAT_VERSION,
            log: tombstone.log.get(),
            op: id128_bytes(tombstone.op.get()),
            opened_at_millis: tombstone.opened_at_millis,
            removed: tombstone.removed.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::Tombstone> for Tombstone {
    type Error = DecodeError;

    fn try_from(value: pb::Tombstone) -> Result<Self, DecodeError> {
        if value.format_version != VALUE_FORMAT_VERSION {
            let version = value.format_version;
            return Err(DecodeError::FormatVersion { field: "Tombstone.format_version", version });
        }
        let tombstone = Self {
            log: non_zero("Tombstone.log", value.log)?,
            op: id128("Tombstone.op", &value.op)?,
            opened_at_millis: value.opened_at_millis,
            removed: value.removed.map(TryInto::try_into).transpose()?,
        };
        if let Some(chain) = &tombstone.removed {
            let closed = chain.last().is_some_and(|last| last.decided_tail().is_some());
            if chain.log != tombstone.log || !closed || chain.pending.is_some() {
                return Err(DecodeError::Inconsistent { field: "Tombstone.removed" });
            }
        }
        Ok(tombstone)
    }
}
