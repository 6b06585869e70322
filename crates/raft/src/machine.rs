//! The state machine: the keyspace of the local store, driven by the entries of the log.
//!
//! ```text
//!  committed entries ─► apply ─► keyspace in memory, watchers told ─► outcomes to whoever proposed
//!                         └─ now and then a snapshot ─► disk; a restart begins there and applies the log again
//! ```
//!
//! Applying writes nothing: an entry is on the disk before it is committed. The same entries in the same order give the
//! same keyspace everywhere.

mod image;
pub mod offline;
mod snapshots;
mod witness;

use std::io::Cursor;
use std::sync::Arc;

use bifrost_metadata::Live;
use bifrost_metadata::keyspace::Staged;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::disk::{Disk, DiskError};
use crate::log::{LogStore, Shape};
use crate::types::{Command, Entry, LogId, MemberId, Outcomes, SnapshotMeta, StorageError, StoredMembership, Types};
pub use image::{Image, ImageError, SNAPSHOT_BYTES_MAX};
use snapshots::{Found, Snapshots};
pub use witness::Witness;

/// The state machine of one member.
#[derive(Debug)]
pub struct StateMachine {
    disk: Disk,
    live: Arc<Mutex<Live>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<tokio::sync::Mutex<Snapshots>>,
    shape: Arc<Mutex<Shape>>,
    grown: Arc<Notify>,
    /// See [`RaftOptions::snapshot_entries`](crate::options::RaftOptions::snapshot_entries).
    snapshot_entries: u64,
    /// Whether what is here before the first entry is worth a look: a snapshot of this disk.
    restored: bool,
    witness: Option<Arc<dyn Witness>>,
}

/// Opens log and state machine of one disk.
///
/// # Errors
/// [`DiskError`] when what is on the disk is not whole.
pub fn open(disk: &Disk, me: MemberId) -> Result<(LogStore, StateMachine), DiskError> {
    let mut found = Found::read(disk)?;
    let restored = found.image.is_some();
    let image = found.image.take().unwrap_or_default();
    let (covers, covered) = watch::channel(found.covered());
    let log = LogStore::open(disk.clone(), me, covered)?;
    let shape = log.shape();
    let snapshots = Snapshots::new(disk.clone(), Arc::clone(&shape), found, covers);
    let machine = StateMachine {
        disk: disk.clone(),
        live: Arc::new(Mutex::new(Live::new(image.keyspace))),
        applied: image.applied,
        membership: image.membership,
        snapshots: Arc::new(tokio::sync::Mutex::new(snapshots)),
        shape,
        grown: Arc::new(Notify::new()),
        snapshot_entries: u64::MAX,
        restored,
        witness: None,
    };
    Ok((log, machine))
}

impl StateMachine {
    /// What readers see.
    pub fn live(&self) -> Arc<Mutex<Live>> {
        Arc::clone(&self.live)
    }

    /// Told when the log has grown so far that a snapshot is due.
    pub fn grown(&self) -> Arc<Notify> {
        Arc::clone(&self.grown)
    }

    /// After so many entries a snapshot is due.
    pub(crate) fn snapshot_after(&mut self, entries: u64) {
        self.snapshot_entries = entries;
    }

    /// From here on somebody watches it. What was read from the disk is shown at once.
    pub(crate) fn watch_by(&mut self, witness: Arc<dyn Witness>) {
        if self.restored {
            witness.installs(self.live.lock().keyspace(), self.applied);
        }
        self.witness = Some(witness);
    }

    fn run(&self, command: &Command) -> Outcomes {
        let mut live = self.live.lock();
        let mut staged = Staged::default();
        let outcomes = command.txns.iter().map(|txn| live.stage(&mut staged, txn)).collect();
        live.commit(staged);
        Outcomes(outcomes)
    }

    fn apply_one(&mut self, entry: Entry) -> Result<Outcomes, DiskError> {
        if Some(entry.log_id) <= self.applied {
            return Err(self.disk.fail(DiskError::NotAscending { last: self.applied, next: entry.log_id }));
        }
        self.applied = Some(entry.log_id);
        if let Some(witness) = &self.witness {
            let txns = match &entry.payload {
                EntryPayload::Normal(command) => command.txns.as_slice(),
                EntryPayload::Blank | EntryPayload::Membership(_) => &[],
            };
            witness.applies(entry.log_id, txns);
        }
        Ok(match entry.payload {
            EntryPayload::Blank => Outcomes::default(),
            EntryPayload::Normal(command) => self.run(&command),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcomes::default()
            }
        })
    }

    async fn install(&mut self, meta: &SnapshotMeta, bytes: Vec<u8>) -> Result<(), DiskError> {
        // What came from a peer was read before it was given to Raft, so this is a check of our own memory.
        let image = Image::decode(&bytes).map_err(|_| self.disk.fail(DiskError::BadSnapshot { number: 0 }))?;
        self.snapshots.lock().await.store(meta.clone(), &bytes, true).await?;
        self.applied = image.applied;
        self.membership = image.membership;
        if let Some(witness) = &self.witness {
            witness.installs(&image.keyspace, image.applied);
        }
        // Watchers end: what they were told and what comes now need not meet. They list again.
        *self.live.lock() = Live::new(image.keyspace);
        Ok(())
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        for entry in entries {
            outcomes.push(self.apply_one(entry)?);
        }
        if self.shape.lock().is_snapshot_due(self.applied, self.snapshot_entries) {
            self.grown.notify_one();
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let keyspace = self.live.lock().keyspace().clone();
        let image = Image { keyspace, applied: self.applied, membership: self.membership.clone() };
        Builder { image, snapshots: Arc::clone(&self.snapshots) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        Ok(self.install(meta, snapshot.into_inner()).await?)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let current = self.snapshots.lock().await.bytes()?;
        Ok(current.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Makes a snapshot of one moment while entries are applied.
#[derive(Debug)]
pub struct Builder {
    image: Image,
    snapshots: Arc<tokio::sync::Mutex<Snapshots>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let mut snapshots = self.snapshots.lock().await;
        // One that was installed meanwhile, or made for the same moment, is as good.
        if snapshots.covers(self.image.applied)
            && let Some((meta, bytes)) = snapshots.bytes()?
        {
            return Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) });
        }
        let applied = self.image.applied;
        let name = applied.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        let meta =
            SnapshotMeta { last_log_id: applied, last_membership: self.image.membership.clone(), snapshot_id: name };
        let bytes = self.image.encode();
        snapshots.store(meta.clone(), &bytes, false).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
