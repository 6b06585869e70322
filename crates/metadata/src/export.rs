//! All keys and values of one revision as bytes of a file: how metadata moves from one engine to another.
//!
//! ```text
//!  "bifrostM" │ version u32 │ cluster u128, or 0 │ revision u64 │ count u64
//!  count × ( key length u32 │ key │ revision u64 │ value length u32 │ value │ crc32c u32 of this record )
//!  crc32c u32 of everything before it
//! ```
//! Numbers are little-endian, keys ascend. Reading is total: a file that was cut off or changed is refused as a whole.
//!
//! A store is read page by page, and may change in between. What changed since the first page is then taken from a watch, up
//! to a revision that no page is above: all of it together is what the store was at that revision.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::ClusterId;
use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX};
use bifrost_wire::metadata::{Change, Changes, MetadataError, MetadataStore, Revision, Versioned};
use bytes::Bytes;
use thiserror::Error;
use tokio::time::timeout;

use crate::keyspace::{Keyspace, RestoreError};

/// The first bytes.
const MAGIC: &[u8; 8] = b"bifrostM";
const VERSION: u32 = 1;
/// Keys that are asked for at once.
const PAGE: usize = 1024;
/// Attempts to read all keys of one revision.
const ATTEMPTS: u32 = 20;
/// For the next news of a watch of which the revision of a page is still to come. In vain where others write to the same
/// store: etcd counts their changes and does not tell them.
const NEWS_DEADLINE: Duration = Duration::from_secs(2);

/// Keys and values of one revision of one store.
#[derive(Debug, Clone)]
pub struct Export {
    /// Whose they are; `None` if no node ever started over the store.
    pub cluster: Option<ClusterId>,
    /// They, and the revision.
    pub keyspace: Keyspace,
}

/// Why bytes are no export. Nothing of them was used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExportError {
    /// They do not begin as one.
    #[error("this is no file of `bifrost metadata export`")]
    NotAnExport,
    /// Written by another version.
    #[error("the export has version {version}, which this build does not know")]
    UnknownVersion {
        /// Its version.
        version: u32,
    },
    /// They end too early, go on after the end, or were changed.
    #[error("the export is cut off or damaged at byte {at}")]
    Damaged {
        /// Where that was seen.
        at: usize,
    },
    /// Every value can be read, but together they are no store.
    #[error("the export contradicts itself")]
    Contradiction(#[from] RestoreError),
}

/// Why a store was not read as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The store did not answer.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// It changed while it was read, each time, by more than its history holds.
    #[error("the metadata changed by more than its history holds while it was read, {ATTEMPTS} times in a row")]
    Changing,
}

impl Export {
    /// Reads everything that a store has, at one revision.
    ///
    /// # Errors
    /// [`ReadError`].
    ///
    /// # Cancel safety
    /// Safe: nothing is written.
    pub async fn read(store: &dyn MetadataStore, cluster: Option<ClusterId>) -> Result<Self, ReadError> {
        for _ in 0..ATTEMPTS {
            if let Some((revision, entries)) = read_once(store).await? {
                // The store gave these revisions itself; one that contradicts itself cannot be told from a changing one.
                let keyspace = Keyspace::restore(revision, entries).map_err(|_| ReadError::Changing)?;
                return Ok(Self { cluster, keyspace });
            }
        }
        Err(ReadError::Changing)
    }

    /// What tells this export from another one: the checksum at the end of its file.
    pub fn checksum(&self) -> u32 {
        let bytes = self.encode();
        // Over the checksum too it would be the same for every file.
        bytes.split_last_chunk::<4>().map_or(0, |(body, _)| bifrost_checksum::crc32c(body))
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.cluster.map_or(0, ClusterId::get).to_le_bytes());
        bytes.extend_from_slice(&self.keyspace.revision().to_le_bytes());
        bytes.extend_from_slice(&(self.keyspace.entries().len() as u64).to_le_bytes());
        for (key, versioned) in self.keyspace.entries() {
            let start = bytes.len();
            put(&mut bytes, key.as_bytes());
            bytes.extend_from_slice(&versioned.revision.to_le_bytes());
            put(&mut bytes, &versioned.value);
            let crc = bifrost_checksum::crc32c(bytes.get(start..).unwrap_or_default());
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        let crc = bifrost_checksum::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ExportError> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len()).ok() != Some(MAGIC.as_slice()) {
            return Err(ExportError::NotAnExport);
        }
        let version = u32::from_le_bytes(reader.array()?);
        if version != VERSION {
            return Err(ExportError::UnknownVersion { version });
        }
        let cluster = ClusterId::try_from(u128::from_le_bytes(reader.array()?)).ok();
        let revision = Revision::from_le_bytes(reader.array()?);
        let count = u64::from_le_bytes(reader.array()?);
        let mut entries: Vec<(String, Versioned)> = Vec::new();
        for _ in 0..count {
            let (key, versioned) = reader.record()?;
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(ExportError::Damaged { at: reader.at });
            }
            entries.push((key, versioned));
        }
        let whole = bytes.get(..reader.at).unwrap_or_default();
        let crc = u32::from_le_bytes(reader.array()?);
        if bifrost_checksum::crc32c(whole) != crc || reader.at != bytes.len() {
            return Err(ExportError::Damaged { at: reader.at });
        }
        Ok(Self { cluster, keyspace: Keyspace::restore(revision, entries)? })
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    // Keys and values are far below 4 GiB.
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(part);
}

/// All entries of one revision; `None` when the store cannot tell what changed meanwhile.
async fn read_once(
    store: &dyn MetadataStore,
) -> Result<Option<(Revision, BTreeMap<String, Versioned>)>, MetadataError> {
    let mut entries = BTreeMap::new();
    let mut first = None;
    loop {
        let after = entries.last_key_value().map(|(key, _): (&String, &Versioned)| key.clone());
        let page = store.list(String::new(), after, PAGE).await?;
        let first = *first.get_or_insert(page.revision);
        let more = page.more && !page.entries.is_empty();
        entries.extend(page.entries);
        if more {
            continue;
        }
        if first == page.revision {
            return Ok(Some((first, entries)));
        }
        let reached = roll_forward(store, &mut entries, first, page.revision).await?;
        return Ok(reached.map(|revision| (revision, entries)));
    }
}

/// Brings entries that were read between two revisions to the same one, not below the second; `None` when that cannot be
/// had of the store.
async fn roll_forward(
    store: &dyn MetadataStore,
    entries: &mut BTreeMap<String, Versioned>,
    first: Revision,
    last: Revision,
) -> Result<Option<Revision>, MetadataError> {
    let mut watch = match store.watch(String::new(), first).await {
        Err(MetadataError::Compacted { .. }) => return Ok(None),
        watch => watch?,
    };
    loop {
        let Changes { revision, changes } = match timeout(NEWS_DEADLINE, watch.recv()).await {
            Ok(Some(Ok(changes))) => changes,
            Ok(Some(Err(MetadataError::Compacted { .. })) | None) | Err(_) => return Ok(None),
            Ok(Some(Err(error))) => return Err(error),
        };
        changes.into_iter().for_each(|change| apply(entries, change));
        if revision >= last {
            return Ok(Some(revision));
        }
    }
}

/// What the page of a key knew already changes nothing.
fn apply(entries: &mut BTreeMap<String, Versioned>, change: Change) {
    let Change { key, revision, value } = change;
    if entries.get(&key).is_some_and(|known| known.revision >= revision) {
        return;
    }
    match value {
        Some(value) => entries.insert(key, Versioned { revision, value }),
        None => entries.remove(&key),
    };
}

/// A place in the bytes of a file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ExportError> {
        let damaged = ExportError::Damaged { at: self.at };
        let end = self.at.checked_add(count).ok_or(damaged.clone())?;
        let taken = self.bytes.get(self.at..end).ok_or(damaged)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ExportError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| ExportError::Damaged { at })
    }

    fn part(&mut self, max: usize) -> Result<&'a [u8], ExportError> {
        let at = self.at;
        let len = usize::try_from(u32::from_le_bytes(self.array()?)).ok().filter(|len| *len <= max);
        self.take(len.ok_or(ExportError::Damaged { at })?)
    }

    fn record(&mut self) -> Result<(String, Versioned), ExportError> {
        let start = self.at;
        let damaged = || ExportError::Damaged { at: start };
        let key = std::str::from_utf8(self.part(METADATA_KEY_BYTES_MAX)?).map_err(|_| damaged())?.to_owned();
        let revision = Revision::from_le_bytes(self.array()?);
        let value = Bytes::copy_from_slice(self.part(METADATA_VALUE_BYTES_MAX)?);
        let crc = bifrost_checksum::crc32c(self.bytes.get(start..self.at).unwrap_or_default());
        if key.is_empty() || u32::from_le_bytes(self.array()?) != crc {
            return Err(damaged());
        }
        Ok((key, Versioned { revision, value }))
    }
}

#[cfg(test)]
mod tests;
