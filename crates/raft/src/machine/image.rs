//! The bytes of a snapshot: everything that the entries up to one of them amount to.
//!
//! ```text
//!  version u8 │ revision │ maybe last entry │ membership │ count u64 │ (key, revision, value) … │ crc32c
//! ```

use bifrost_metadata::keyspace::RestoreError;
use bifrost_metadata::{Keyspace, Versioned};
use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX};
use bytes::Bytes;
use thiserror::Error;

use crate::codec::{CodecError, Reader, Writer};
use crate::types::{LogId, StoredMembership};

/// Version of the whole; another one is refused.
const VERSION: u8 = 1;
/// Bytes of a snapshot at most.
pub const SNAPSHOT_BYTES_MAX: u64 = 512 << 20;

/// What a snapshot holds.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Keys and values.
    pub keyspace: Keyspace,
    /// The last entry that was applied.
    pub applied: Option<LogId>,
    /// The last membership that was applied.
    pub membership: StoredMembership,
}

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The checksum does not match.
    #[error("the snapshot is damaged")]
    Damaged,
    /// Written by another version.
    #[error("the snapshot has version {version}")]
    UnknownVersion {
        /// Its version.
        version: u8,
    },
    /// Its parts cannot be read.
    #[error("the snapshot cannot be read")]
    Codec(#[from] CodecError),
    /// Together its values are no keyspace.
    #[error("the snapshot contradicts itself")]
    Restore(#[from] RestoreError),
}

impl Image {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.tag(VERSION);
        writer.u64(self.keyspace.revision());
        writer.maybe(self.applied.as_ref(), Writer::log_id);
        writer.stored_membership(&self.membership);
        writer.u64(self.keyspace.entries().len() as u64);
        for (key, versioned) in self.keyspace.entries() {
            writer.bytes(key.as_bytes());
            writer.u64(versioned.revision);
            writer.bytes(&versioned.value);
        }
        let mut bytes = writer.finish();
        let crc = bifrost_checksum::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(ImageError::Damaged)?;
        if bifrost_checksum::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(ImageError::Damaged);
        }
        let mut reader = Reader::new("a snapshot", body);
        let version = reader.tag()?;
        if version != VERSION {
            return Err(ImageError::UnknownVersion { version });
        }
        let revision = reader.u64()?;
        let applied = reader.maybe(Reader::log_id)?;
        let membership = reader.stored_membership()?;
        let mut entries = Vec::new();
        for _ in 0..reader.u64()? {
            let key = reader.text(METADATA_KEY_BYTES_MAX)?;
            let revision = reader.u64()?;
            let value = Bytes::copy_from_slice(reader.bytes(METADATA_VALUE_BYTES_MAX)?);
            entries.push((key, Versioned { revision, value }));
        }
        reader.end()?;
        Ok(Self { keyspace: Keyspace::restore(revision, entries)?, applied, membership })
    }
}
