//! The disk as log store and state machine see it: sealed values under named keys, and an end for good at the first error.
//!
//! | key | value |
//! |---|---|
//! | `i` | identity: cluster and member |
//! | `g` | lineage: the group, and those that it replaces; without it, the first one |
//! | `v` | the vote |
//! | `c` | the last entry that is known to be committed; a hint, written without a sync |
//! | `p` | the last purged entry |
//! | `s` | which snapshot is current, and what it covers |
//! | `d` + number + piece | a piece of a snapshot, numbers big-endian |
//! | `e` + index | a log entry, index big-endian |
//!
//! Values have the seal of the local store (`bifrost_metadata::format`): version, number, bytes, checksum over key and all.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bifrost_metadata::format::{self, FormatError};
use bifrost_types::ClusterId;
use bytes::Bytes;
use openraft::{AnyError, StorageIOError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::codec::{CodecError, Reader, Writer};
use crate::engine::{Batch, EngineError, LogEngine};
use crate::types::{Lineage, LogId, MemberId, StorageError};

const IDENTITY: &[u8] = b"i";
const LINEAGE: &[u8] = b"g";
pub(crate) const VOTE: &[u8] = b"v";
pub(crate) const COMMITTED: &[u8] = b"c";
pub(crate) const PURGED: &[u8] = b"p";
pub(crate) const SNAPSHOT: &[u8] = b"s";
const PIECE: u8 = b'd';
const ENTRY: u8 = b'e';

/// A handle to the disk of one member; clones share it.
#[derive(Debug, Clone)]
pub struct Disk {
    engine: Arc<dyn LogEngine>,
    /// Cancelled at the first error.
    stopped: CancellationToken,
}

/// Why a disk is not used any more. The member stops for good: after a failed sync nobody knows what is on the disk,
/// and an entry that cannot be read cannot be told from one that is not there.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The engine failed.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
    /// A stored value is damaged or of another version.
    #[error("a stored value is not ours")]
    Format(#[from] FormatError),
    /// A stored value is whole, and is not what its key says.
    #[error("the value under key {} cannot be read", key.escape_ascii())]
    Codec {
        /// The key.
        key: Vec<u8>,
        /// What is wrong.
        #[source]
        source: CodecError,
    },
    /// The log has a hole, or an entry is not the one of its place.
    #[error("the log goes on with {found:?} where {expected} is expected")]
    Hole {
        /// The index that is missing.
        expected: u64,
        /// What is there.
        found: Option<LogId>,
    },
    /// Entries that do not follow what is there.
    #[error("{next} cannot follow {last:?}")]
    NotAscending {
        /// The last entry.
        last: Option<LogId>,
        /// What should follow.
        next: LogId,
    },
    /// Somebody wants to remove an entry that is committed. It may have been acknowledged.
    #[error("{first} would be removed, but everything up to {committed} is committed")]
    CommittedRemoved {
        /// The first entry to remove.
        first: LogId,
        /// The last one that is committed.
        committed: LogId,
    },
    /// The log begins after what the snapshot covers.
    #[error("the log begins after {purged}, but the snapshot ends with {covered:?}")]
    NotCovered {
        /// The last purged entry.
        purged: LogId,
        /// The last entry of the snapshot.
        covered: Option<LogId>,
    },
    /// Pieces of the current snapshot are missing, or together they are none.
    #[error("snapshot {number} is not whole")]
    BadSnapshot {
        /// Its number.
        number: u64,
    },
    /// The directory belongs to another member or another cluster.
    #[error("this is the log of {member} of cluster {cluster}")]
    OtherMember {
        /// The cluster on the disk.
        cluster: ClusterId,
        /// The member on the disk.
        member: MemberId,
    },
    /// There is no log of a member here, and one is expected: its votes and entries are lost.
    #[error("there is no log of a metadata member here, and this one has had one")]
    Lost,
    /// There are records, and they are none of a member.
    #[error("what is here is not the log of a metadata member")]
    Foreign,
    /// An earlier error ended the use of the disk.
    #[error("the disk failed before")]
    Stopped,
}

impl DiskError {
    /// Whether what is stored is not what was stored.
    pub(crate) const fn is_damage(&self) -> bool {
        match self {
            Self::Format(_)
            | Self::Codec { .. }
            | Self::Hole { .. }
            | Self::NotCovered { .. }
            | Self::BadSnapshot { .. }
            | Self::Lost => true,
            Self::Engine(_)
            | Self::NotAscending { .. }
            | Self::CommittedRemoved { .. }
            | Self::OtherMember { .. }
            | Self::Foreign
            | Self::Stopped => false,
        }
    }
}

impl From<DiskError> for StorageError {
    fn from(error: DiskError) -> Self {
        StorageIOError::write(AnyError::new(&error)).into()
    }
}

impl Disk {
    /// A disk that nobody uses yet.
    pub fn new(engine: Arc<dyn LogEngine>) -> Self {
        Self { engine, stopped: CancellationToken::new() }
    }

    /// Cancelled at the first error: whoever runs the member ends it.
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Ends the use of the disk.
    pub fn fail(&self, error: DiskError) -> DiskError {
        if !self.stopped.is_cancelled() {
            let cause: &dyn std::error::Error = &error;
            tracing::error!(error = cause, "the metadata member stops: its disk failed");
            self.stopped.cancel();
        }
        error
    }

    fn check(&self) -> Result<(), DiskError> {
        if self.stopped.is_cancelled() { Err(DiskError::Stopped) } else { Ok(()) }
    }

    /// Writes a batch; see [`LogEngine::write`].
    ///
    /// # Errors
    /// [`DiskError`], and every later call fails too.
    ///
    /// # Cancel safety
    /// A write that is dropped happens whole or not at all.
    pub async fn write(&self, batch: Batch) -> Result<(), DiskError> {
        self.check()?;
        self.engine.write(batch).await.map_err(|error| self.fail(error.into()))
    }

    /// Reads what is under a key.
    ///
    /// # Errors
    /// [`DiskError`], and every later call fails too.
    pub fn read<T>(
        &self,
        key: &[u8],
        what: &'static str,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>,
    ) -> Result<Option<T>, DiskError> {
        self.check()?;
        let sealed = self.engine.get(key).map_err(|error| self.fail(error.into()))?;
        let Some(sealed) = sealed else { return Ok(None) };
        let (_, bytes) = format::unseal(key, &sealed).map_err(|error| self.fail(error.into()))?;
        self.decode(key, bytes, what, decode).map(Some)
    }

    /// Reads whole bytes as one value.
    pub(crate) fn decode<T>(
        &self,
        key: &[u8],
        bytes: &[u8],
        what: &'static str,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>,
    ) -> Result<T, DiskError> {
        let mut reader = Reader::new(what, bytes);
        let value = decode(&mut reader).and_then(|value| reader.end().map(|()| value));
        value.map_err(|source| self.fail(DiskError::Codec { key: key.to_vec(), source }))
    }

    /// Records of a range, opened; see [`LogEngine::range`].
    ///
    /// # Errors
    /// [`DiskError`], and every later call fails too.
    pub fn range(&self, start: &[u8], end: &[u8], bytes_max: usize) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
        self.check()?;
        let records = self.engine.range(start, end, bytes_max).map_err(|error| self.fail(error.into()))?;
        let open = |(key, sealed): (Bytes, Bytes)| {
            let (_, bytes) = format::unseal(&key, &sealed).map_err(|error| self.fail(error.into()))?;
            let bytes = sealed.slice_ref(bytes);
            Ok((key, bytes))
        };
        records.into_iter().map(open).collect()
    }

    /// Whose disk it is; `None` for an empty one.
    ///
    /// # Errors
    /// [`DiskError::Foreign`], or that the disk fails.
    pub fn owner(&self) -> Result<Option<Owner>, DiskError> {
        let read = |reader: &mut Reader<'_>| {
            let cluster = u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?);
            let cluster = ClusterId::try_from(cluster).map_err(|_| reader.inconsistent())?;
            Ok((cluster, reader.member()?))
        };
        let Some((cluster, member)) = self.read(IDENTITY, "an identity", read)? else {
            self.check()?;
            let anything = self.engine.range(&[], &[u8::MAX], 0).map_err(|error| self.fail(error.into()))?;
            return if anything.is_empty() { Ok(None) } else { Err(self.fail(DiskError::Foreign)) };
        };
        let lineage = self.read(LINEAGE, "a lineage", |reader| reader.lineage())?.unwrap_or_default();
        Ok(Some(Owner { cluster, member, lineage }))
    }

    /// Binds an empty disk to a member, or checks that it belongs to it. The lineage is that of the disk; of `wanted` if
    /// the disk is empty.
    ///
    /// # Errors
    /// [`DiskError::OtherMember`], or that the disk fails.
    ///
    /// # Cancel safety
    /// Safe to repeat.
    pub async fn identify(&self, wanted: Owner) -> Result<Lineage, DiskError> {
        match self.owner()? {
            Some(found) if (found.cluster, found.member) == (wanted.cluster, wanted.member) => Ok(found.lineage),
            Some(Owner { cluster, member, .. }) => Err(self.fail(DiskError::OtherMember { cluster, member })),
            None => {
                let mut batch = Batch::new();
                wanted.write(&mut batch);
                self.write(batch).await?;
                Ok(wanted.lineage)
            }
        }
    }
}

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// The group that it belongs to.
    pub lineage: Lineage,
}

impl Owner {
    /// Puts it into a batch. The first group of a cluster has no record of its own.
    pub(crate) fn write(&self, batch: &mut Batch) {
        let mut writer = Writer::default();
        writer.u64((self.cluster.get() >> 64) as u64);
        writer.u64(self.cluster.get() as u64);
        writer.member(self.member);
        put(batch, IDENTITY.to_vec(), &writer.finish());
        if self.lineage != Lineage::default() {
            let mut writer = Writer::default();
            writer.lineage(&self.lineage);
            put(batch, LINEAGE.to_vec(), &writer.finish());
        }
    }
}

/// Seals a value into a batch.
pub(crate) fn put(batch: &mut Batch, key: Vec<u8>, value: &[u8]) {
    let sealed = format::seal(&key, 0, value);
    batch.put(key, sealed);
}

/// The key of an entry.
pub(crate) fn entry_key(index: u64) -> Vec<u8> {
    [&[ENTRY], index.to_be_bytes().as_slice()].concat()
}

/// Every key of an entry lies in it.
pub(crate) fn entry_keys() -> (Vec<u8>, Vec<u8>) {
    (vec![ENTRY], vec![ENTRY + 1])
}

/// The key of a piece of a snapshot.
pub(crate) fn piece_key(number: u64, piece: u32) -> Vec<u8> {
    [&[PIECE], number.to_be_bytes().as_slice(), piece.to_be_bytes().as_slice()].concat()
}

/// The pieces of snapshots with these numbers.
pub(crate) fn piece_keys(numbers: RangeInclusive<u64>) -> (Vec<u8>, Vec<u8>) {
    let after = numbers.end().checked_add(1).map_or(vec![PIECE + 1], |end| piece_key(end, 0));
    (piece_key(*numbers.start(), 0), after)
}

/// The number of the snapshot that a piece belongs to.
pub(crate) fn snapshot_number(key: &[u8]) -> Option<u64> {
    let (number, _) = key.strip_prefix(&[PIECE])?.split_first_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}
