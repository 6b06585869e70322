//! Protobuf both ways: every message of a service and every metadata value that Bifrost writes.
//!
//! ```text
//!  bytes ──prost──► pb message ──TryFrom──► domain type      checks every field, never panics (L6)
//!  bytes ◄──prost── pb message ◄───From──── domain type      cannot fail
//! ```
//!
//! Reading order: [`DecodeError`] and the field helpers here; `ids`, `topology`; then one file per concept: `copy`,
//! `store`, `control` (seal, state, repair, settle, trim), `read`, `sequencer`, `metadata`, `metadata_admin`, `liveness`, `node_status`, `chain`, `tombstone`,
//! `node`; and for clients in any language `logs` and `records`.
//!
//! Payloads are `Bytes` on both sides. A decoded batch is a slice of the frame that it came in: whoever keeps a small
//! one for long should copy it.

mod chain;
mod control;
mod copy;
#[cfg(any(test, feature = "test-util"))]
pub mod every_message;
mod ids;
pub(crate) mod liveness;
pub(crate) mod logs;
pub(crate) mod metadata;
pub(crate) mod metadata_admin;
mod node;
mod node_status;
pub(crate) mod read;
pub(crate) mod records;
pub(crate) mod sequencer;
mod store;
mod tombstone;
mod topology;

#[cfg(test)]
mod tests;

use bifrost_types::limits::{BATCH_BYTES_MAX, WINDOW_BATCHES};
use bytes::Bytes;
use thiserror::Error;

pub use chain::{decode_chain, encode_chain};
pub use node::{decode_node_record, encode_node_record};
pub use tombstone::{decode_tombstone, encode_tombstone};

/// Most stores of one store message, and most answers of one answer to them.
pub const MESSAGE_ITEMS_MAX: usize = WINDOW_BATCHES;

/// The format version that metadata values are written with, and the only one that is read, but for node records
/// and for chains with a segment whose end is lost, which have 2.
pub const VALUE_FORMAT_VERSION: u32 = 1;

/// Why bytes are not the message that they should be. `field` is the path of the protobuf field, as in
/// `LogletStore.disk`. Nothing of the message was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not protobuf at all, or of other field types.
    #[error("not a protobuf {message}")]
    NotProtobuf {
        /// The wanted message.
        message: &'static str,
    },
    /// A field that must be set is not: a sub-message, a oneof, or a list that needs an element.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field is set that must not be there at this point of a stream.
    #[error("{field} is out of place")]
    Unexpected {
        /// The field.
        field: &'static str,
    },
    /// An id, a position or a count is zero.
    #[error("{field} is zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A 128-bit id does not have 16 bytes.
    #[error("{field} has {bytes} bytes instead of 16")]
    IdLength {
        /// The field.
        field: &'static str,
        /// How many it has.
        bytes: usize,
    },
    /// A text that is no id of its kind.
    #[error("{field} is not an id of its form")]
    NotAnId {
        /// The field.
        field: &'static str,
    },
    /// An enum value that this version does not know, or the unspecified one.
    #[error("{field} has the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value.
        value: i32,
    },
    /// A list, a text or a byte string is longer than its limit.
    #[error("{field} has {actual} elements or bytes, more than {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// How many there are.
        actual: usize,
        /// How many may be there.
        max: usize,
    },
    /// A number is above its range.
    #[error("{field} is out of range")]
    OutOfRange {
        /// The field.
        field: &'static str,
    },
    /// Fields that are legal by themselves contradict each other.
    #[error("{field} contradicts another field")]
    Inconsistent {
        /// The field.
        field: &'static str,
    },
    /// A metadata value of a format that this version cannot write back without loss.
    #[error("{field} is {version}, which this version does not read")]
    FormatVersion {
        /// The field.
        field: &'static str,
        /// The version that it has.
        version: u32,
    },
}

/// A sub-message or oneof that must be set.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

/// An id or a position that must not be zero.
fn non_zero<T, R>(field: &'static str, value: R) -> Result<T, DecodeError>
where
    T: TryFrom<R>,
{
    T::try_from(value).map_err(|_| DecodeError::Zero { field })
}

/// An optional position: unset is `None`, zero is an error.
fn optional<T, R>(field: &'static str, value: Option<R>) -> Result<Option<T>, DecodeError>
where
    T: TryFrom<R>,
{
    value.map(|value| non_zero(field, value)).transpose()
}

/// A 128-bit id of exactly 16 bytes, big-endian.
fn id128<T>(field: &'static str, value: &[u8]) -> Result<T, DecodeError>
where
    T: TryFrom<u128>,
{
    let bytes = <[u8; 16]>::try_from(value).map_err(|_| DecodeError::IdLength { field, bytes: value.len() })?;
    non_zero(field, u128::from_be_bytes(bytes))
}

/// The bytes of a 128-bit id.
fn id128_bytes(value: u128) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// A list or byte string within its limit.
fn at_most(field: &'static str, actual: usize, max: usize) -> Result<(), DecodeError> {
    if actual > max { Err(DecodeError::TooLong { field, actual, max }) } else { Ok(()) }
}

/// Encoded batches within their limits. What is in them is checked where they are used: by their checksums.
fn batches(field: &'static str, batches: Vec<Bytes>) -> Result<Vec<Bytes>, DecodeError> {
    at_most(field, batches.len(), WINDOW_BATCHES)?;
    for batch in &batches {
        at_most(field, batch.len(), BATCH_BYTES_MAX)?;
    }
    Ok(batches)
}
