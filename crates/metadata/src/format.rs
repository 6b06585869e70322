//! The bytes of the local store on disk, drawn in `docs/FORMAT.md` and pinned by `testdata/format`.

use bifrost_wire::metadata::{Revision, Versioned};
use bytes::Bytes;
use thiserror::Error;

/// Version of every value; another one is refused.
const VERSION: u8 = 1;
/// Key of the revision of the store.
pub const REVISION_KEY: &[u8] = b"r";
/// First byte of the key of an entry.
const ENTRY: u8 = b'k';
/// Bytes of the checksum at the end of every value.
const CRC_BYTES: usize = 4;

/// Why a stored value is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// A key of no known kind.
    #[error("unknown key {}", key.escape_ascii())]
    UnknownKey {
        /// The key in the database.
        key: Vec<u8>,
    },
    /// The checksum over key and value does not match, or the value is too short to have one.
    #[error("damaged value of key {}", key.escape_ascii())]
    Damaged {
        /// The key in the database.
        key: Vec<u8>,
    },
    /// Written by another version of this format.
    #[error("value of key {} has format version {version}", key.escape_ascii())]
    UnknownVersion {
        /// The key in the database.
        key: Vec<u8>,
        /// The version that it has.
        version: u8,
    },
}

/// One record of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The revision of the store.
    Revision(Revision),
    /// A key and its value.
    Entry(String, Versioned),
}

/// The database key of a key.
pub fn entry_key(key: &str) -> Vec<u8> {
    [&[ENTRY], key.as_bytes()].concat()
}

/// The database value of an entry.
pub fn entry_value(database_key: &[u8], revision: Revision, value: &[u8]) -> Vec<u8> {
    seal(database_key, revision, value)
}

/// The database value of the revision of the store.
pub fn revision_value(revision: Revision) -> Vec<u8> {
    seal(REVISION_KEY, revision, &[])
}

/// Reads one record.
///
/// # Errors
/// [`FormatError`] when the bytes are damaged, of another version, or not ours.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Record, FormatError> {
    let (revision, rest) = unseal(key, value)?;
    match key {
        REVISION_KEY if rest.is_empty() => Ok(Record::Revision(revision)),
        [ENTRY, name @ ..] => match std::str::from_utf8(name) {
            Ok(name) => Ok(Record::Entry(name.to_owned(), Versioned { revision, value: Bytes::copy_from_slice(rest) })),
            Err(_) => Err(FormatError::UnknownKey { key: key.to_vec() }),
        },
        _ => Err(FormatError::UnknownKey { key: key.to_vec() }),
    }
}

/// Bytes under a key with the version, a number and a checksum; the replicated store seals its values the same way.
pub fn seal(key: &[u8], number: u64, value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + 8 + value.len() + CRC_BYTES);
    sealed.push(VERSION);
    sealed.extend_from_slice(&number.to_le_bytes());
    sealed.extend_from_slice(value);
    let crc = checksum(key, &sealed);
    sealed.extend_from_slice(&crc.to_le_bytes());
    sealed
}

/// The number and the bytes that were [sealed](seal) under a key.
///
/// # Errors
/// [`FormatError::Damaged`] or [`FormatError::UnknownVersion`].
pub fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<(u64, &'a [u8]), FormatError> {
    let (version, number, rest) = open(key, sealed).ok_or_else(|| FormatError::Damaged { key: key.to_vec() })?;
    if version != VERSION {
        return Err(FormatError::UnknownVersion { key: key.to_vec(), version });
    }
    Ok((number, rest))
}

/// Version, number and the bytes that follow; `None` if they are damaged.
fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Option<(u8, Revision, &'a [u8])> {
    let (body, crc) = sealed.split_last_chunk::<CRC_BYTES>()?;
    if checksum(key, body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (version, body) = body.split_first()?;
    let (revision, rest) = body.split_first_chunk::<8>()?;
    Some((*version, u64::from_le_bytes(*revision), rest))
}

/// Covers the key too: a value under another key is damage.
fn checksum(key: &[u8], body: &[u8]) -> u32 {
    bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), body)
}

#[cfg(test)]
mod tests;
