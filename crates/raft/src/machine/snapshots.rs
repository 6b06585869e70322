//! Snapshots on the disk: pieces under a number of their own, then one batch that makes them the current one, forgets the
//! old ones, and purges the log that an installed one stands for. A crash before that batch leaves the old snapshot and
//! the old log; after it, the new ones.

use std::sync::Arc;

use bifrost_types::plant::{self, Plant};
use bytes::Bytes;
use openraft::LogIdOptionExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::image::{Image, SNAPSHOT_BYTES_MAX};
use crate::codec::{CodecError, Reader, Writer};
use crate::disk::{self, Disk, DiskError, piece_key, piece_keys, snapshot_number};
use crate::engine::Batch;
use crate::log::{Shape, purge_into};
use crate::types::{LogId, SnapshotMeta};

/// Bytes of one piece.
const PIECE_BYTES: usize = 1 << 20;
/// Most pieces of one snapshot.
const PIECES_MAX: u64 = SNAPSHOT_BYTES_MAX.div_ceil(PIECE_BYTES as u64);

/// The current snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Current {
    number: u64,
    bytes: u64,
    meta: SnapshotMeta,
}

/// The snapshots of one member. One writer at a time.
#[derive(Debug)]
pub(super) struct Snapshots {
    disk: Disk,
    shape: Arc<Mutex<Shape>>,
    current: Option<Current>,
    next: u64,
    covered: watch::Sender<Option<LogId>>,
}

/// What the disk holds before the log is read.
#[derive(Debug)]
pub(crate) struct Found {
    current: Option<Current>,
    /// What the current snapshot holds.
    pub(crate) image: Option<Image>,
    /// Above the numbers of all pieces that are there, also of snapshots that were begun and not finished.
    next: u64,
}

impl Found {
    /// Reads and checks the current snapshot.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn read(disk: &Disk) -> Result<Self, DiskError> {
        let current = disk.read(disk::SNAPSHOT, "a snapshot record", read_current)?;
        let mut highest = None;
        let (mut start, end) = piece_keys(0..=u64::MAX);
        while let Some((key, _)) = disk.range(&start, &end, 0)?.pop() {
            let Some(number) = snapshot_number(&key) else { break };
            highest = Some(number);
            let Some(next) = number.checked_add(1) else { break };
            start = piece_key(next, 0);
        }
        let image = match &current {
            Some(current) => Some(image(disk, current)?),
            None => None,
        };
        let number = current.as_ref().map(|current| current.number);
        let next = highest.max(number).map_or(1, |number| number.saturating_add(1));
        Ok(Self { current, image, next })
    }

    /// What the current snapshot covers.
    pub(crate) fn covered(&self) -> Option<LogId> {
        self.current.as_ref().and_then(|current| current.meta.last_log_id)
    }
}

impl Snapshots {
    pub(super) fn new(
        disk: Disk,
        shape: Arc<Mutex<Shape>>,
        found: Found,
        covered: watch::Sender<Option<LogId>>,
    ) -> Self {
        shape.lock().snapshot_bytes = found.current.as_ref().map_or(0, |current| current.bytes);
        Self { disk, shape, current: found.current, next: found.next, covered }
    }

    /// The bytes of the current snapshot.
    pub(super) fn bytes(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, DiskError> {
        let Some(current) = &self.current else { return Ok(None) };
        Ok(Some((current.meta.clone(), pieces(&self.disk, current)?)))
    }

    /// Makes these bytes the current snapshot; with `purge` the log up to its end goes in the same batch.
    pub(super) async fn store(&mut self, meta: SnapshotMeta, bytes: &[u8], purge: bool) -> Result<(), DiskError> {
        self.store_with(Batch::new(), meta, bytes, purge).await
    }

    /// The same, in one batch with what is in `batch` already.
    pub(super) async fn store_with(
        &mut self,
        mut batch: Batch,
        meta: SnapshotMeta,
        bytes: &[u8],
        purge: bool,
    ) -> Result<(), DiskError> {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        for (piece, data) in (0_u32..).zip(bytes.chunks(PIECE_BYTES)) {
            // Not synced one by one: the last batch is, and all before it with it.
            let mut batch = Batch::lazy();
            disk::put(&mut batch, piece_key(number, piece), data);
            self.disk.write(batch).await?;
        }
        let current = Current { number, bytes: bytes.len() as u64, meta };
        let mut writer = Writer::default();
        writer.u64(current.number);
        writer.u64(current.bytes);
        writer.snapshot_meta(&current.meta);
        let (start, end) = piece_keys(0..=number.saturating_sub(1));
        batch.delete_range(start, end);
        disk::put(&mut batch, disk::SNAPSHOT.to_vec(), &writer.finish());
        let covered = current.meta.last_log_id;
        if let Some(upto) = covered
            && purge
            && !plant::is(Plant::RaftSnapshotLeavesLog)
        {
            // First, so that nobody who reads meanwhile takes what is gone for missing.
            self.shape.lock().hidden(upto);
            purge_into(&mut batch, upto);
        }
        self.disk.write(batch).await?;
        self.current = Some(current);
        {
            let mut shape = self.shape.lock();
            shape.snapshot_bytes = bytes.len() as u64;
            shape.covers(covered);
            if let Some(upto) = covered
                && purge
            {
                shape.purged(upto);
            }
        }
        self.covered.send_replace(covered);
        Ok(())
    }

    /// Whether the current snapshot covers everything up to there already.
    pub(super) fn covers(&self, upto: Option<LogId>) -> bool {
        self.current.as_ref().is_some_and(|current| current.meta.last_log_id.index() >= upto.index())
    }
}

fn read_current(reader: &mut Reader<'_>) -> Result<Current, CodecError> {
    let (number, bytes, meta) = (reader.u64()?, reader.u64()?, reader.snapshot_meta()?);
    if bytes > SNAPSHOT_BYTES_MAX {
        return Err(reader.inconsistent());
    }
    Ok(Current { number, bytes, meta })
}

fn pieces(disk: &Disk, current: &Current) -> Result<Vec<u8>, DiskError> {
    let mut bytes = Vec::with_capacity(usize::try_from(current.bytes).unwrap_or(0));
    for piece in 0..PIECES_MAX.min(u64::from(u32::MAX)) as u32 {
        if bytes.len() as u64 >= current.bytes {
            break;
        }
        let (key, end) = (piece_key(current.number, piece), piece_key(current.number, piece + 1));
        let found: Option<(Bytes, Bytes)> = disk.range(&key, &end, 0)?.pop();
        let (_, data) = found.ok_or_else(|| disk.fail(DiskError::BadSnapshot { number: current.number }))?;
        bytes.extend_from_slice(&data);
    }
    if bytes.len() as u64 != current.bytes {
        return Err(disk.fail(DiskError::BadSnapshot { number: current.number }));
    }
    Ok(bytes)
}

fn image(disk: &Disk, current: &Current) -> Result<Image, DiskError> {
    let bad = || disk.fail(DiskError::BadSnapshot { number: current.number });
    let image = Image::decode(&pieces(disk, current)?).map_err(|_| bad())?;
    if image.applied != current.meta.last_log_id || image.membership != current.meta.last_membership {
        return Err(bad());
    }
    Ok(image)
}
