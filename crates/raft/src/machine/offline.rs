//! The log of a member that does not run: what is in it, and how a group begins anew from it.
//!
//! ```text
//!  survey:   snapshot, then every entry behind it ─► keyspace, and what of it is known to be committed
//!  recover:  the same as one snapshot of a group of this one member, under another name ┐ one batch: a crash leaves the
//!  create:   a keyspace from elsewhere as that snapshot, on an empty disk               ┘ old group or the new one
//! ```
//!
//! Every entry counts, also one that only this member is known to have: it may have been acknowledged, and a transaction
//! that was not may still appear (M2). What was acknowledged by others alone is lost; nobody here can know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bifrost_metadata::Keyspace;
use bifrost_types::ClusterId;
use openraft::{CommittedLeaderId, LogIdOptionExt};

use super::{Image, StateMachine, open};
use crate::codec::Writer;
use crate::disk::{self, Disk, DiskError, Owner};
use crate::engine::{Batch, LogEngine};
use crate::log::LogStore;
use crate::types::{GroupId, Lineage, LogId, Member, MemberId, Membership, SnapshotMeta, StoredMembership, Vote};

/// Bytes of entries that are read at a time.
const READ_BYTES: usize = 4 << 20;

/// What the log of one member amounts to.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Whose log it is.
    pub owner: Owner,
    /// All members, as of the last entry.
    pub members: BTreeMap<MemberId, Member>,
    /// Those whose votes count; two groups of them if a change was not finished.
    pub voters: Vec<BTreeSet<MemberId>>,
    /// The term of the last vote.
    pub term: u64,
    /// The last entry; `None` if the member was never told of a group.
    pub last: Option<LogId>,
    /// The last entry that this member knows to be committed.
    pub committed: Option<LogId>,
    /// Keys and values after all entries.
    pub keyspace: Keyspace,
}

impl Survey {
    /// Entries that are here and not known to be committed.
    pub fn accepted_only(&self) -> u64 {
        self.last.next_index().saturating_sub(self.committed.next_index())
    }
}

/// A disk that no member uses.
#[derive(Debug)]
pub struct Offline {
    owner: Owner,
    vote: Option<Vote>,
    machine: StateMachine,
    last: Option<LogId>,
    committed: Option<LogId>,
}

impl Offline {
    /// Reads and checks the whole log of a disk.
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::Lost`] when it is empty.
    ///
    /// # Cancel safety
    /// Safe: nothing is written.
    pub async fn open(engine: Arc<dyn LogEngine>) -> Result<Self, DiskError> {
        let disk = Disk::new(engine);
        let owner = disk.owner()?.ok_or(DiskError::Lost)?;
        let vote = disk.read(disk::VOTE, "a vote", |reader| reader.vote())?;
        let (log, mut machine) = open(&disk, owner.member)?;
        let (last, committed) = {
            let shape = log.shape();
            let shape = shape.lock();
            (shape.last, shape.committed.max(shape.covered))
        };
        machine.replay(&log, last)?;
        Ok(Self { owner, vote, machine, last, committed })
    }

    /// What is in it.
    pub fn survey(&self) -> Survey {
        let membership = self.machine.membership.membership();
        Survey {
            owner: self.owner.clone(),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            voters: membership.get_joint_config().clone(),
            term: self.vote.map_or(0, |vote| vote.leader_id.term),
            last: self.last,
            committed: self.committed.min(self.last),
            keyspace: self.machine.live.lock().keyspace().clone(),
        }
    }

    /// Goes on as a group of this one member, reached at `me`: with everything that is here, and as the group `fresh`.
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::Lost`] when there is no entry to go on from. The old group is there then, or the new one.
    ///
    /// # Cancel safety
    /// Safe: it happens whole or not at all.
    pub async fn recover(&mut self, me: Member, fresh: GroupId) -> Result<(), DiskError> {
        let last = self.last.ok_or(DiskError::Lost)?;
        let lineage = self.owner.lineage.followed_by(fresh);
        let owner = Owner { lineage, ..self.owner.clone() };
        let term = self.vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term);
        let keyspace = self.machine.live.lock().keyspace().clone();
        self.machine.begin(&owner, me, last, term, keyspace).await?;
        self.owner = owner;
        Ok(())
    }
}

/// Whose log is in a directory; `None` if there is no database in it. It must not be in use.
///
/// # Errors
/// [`StartError`]; nothing was changed.
#[cfg(feature = "rocksdb")]
pub fn owner_at(dir: &std::path::Path) -> Result<Option<Owner>, crate::StartError> {
    use crate::engine::rocks::{RocksEngine, RocksOpenError};
    match RocksEngine::open_existing(dir) {
        Ok(engine) => Ok(Disk::new(Arc::new(engine)).owner()?),
        Err(RocksOpenError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Begins the group of a cluster with one member and these keys and values, on an empty disk.
///
/// # Errors
/// [`DiskError::Foreign`] when the disk is not empty, or that it fails. It is empty then, or the group has begun.
///
/// # Cancel safety
/// Safe: it happens whole or not at all.
pub async fn create(
    engine: Arc<dyn LogEngine>,
    cluster: ClusterId,
    member: MemberId,
    me: Member,
    group: GroupId,
    keyspace: Keyspace,
) -> Result<(), DiskError> {
    let disk = Disk::new(engine);
    if disk.owner()?.is_some() {
        return Err(DiskError::Foreign);
    }
    let (_, machine) = open(&disk, member)?;
    let owner = Owner { cluster, member, lineage: Lineage { group, before: Vec::new() } };
    let first = LogId::new(CommittedLeaderId::new(1, member), 1);
    machine.begin(&owner, me, first, 1, keyspace).await
}

impl StateMachine {
    /// Applies what is in the log behind the snapshot, committed or not.
    fn replay(&mut self, log: &LogStore, last: Option<LogId>) -> Result<(), DiskError> {
        while self.applied < last {
            let next = self.applied.next_index();
            let entries = log.entries(next, last.next_index(), READ_BYTES)?;
            if entries.first().is_none_or(|entry| entry.log_id.index != next) {
                return Err(self.disk.fail(DiskError::Hole { expected: next, found: None }));
            }
            for entry in entries {
                self.apply_one(entry)?;
            }
        }
        Ok(())
    }

    /// Makes a group of one member that begins with these keys and values as its snapshot.
    async fn begin(
        &self,
        owner: &Owner,
        me: Member,
        last: LogId,
        term: u64,
        keyspace: Keyspace,
    ) -> Result<(), DiskError> {
        let voters = vec![BTreeSet::from([owner.member])];
        let membership = Membership::new(voters, BTreeMap::from([(owner.member, me)]));
        let membership = StoredMembership::new(Some(last), membership);
        let image = Image { keyspace, applied: Some(last), membership: membership.clone() };
        let snapshot_id = format!("{last} of {}", owner.lineage.group);
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership, snapshot_id };
        let mut batch = Batch::new();
        owner.write(&mut batch);
        let mut writer = Writer::default();
        writer.vote(&Vote::new(term + 1, owner.member));
        disk::put(&mut batch, disk::VOTE.to_vec(), &writer.finish());
        self.snapshots.lock().await.store_with(batch, meta, &image.encode(), true).await
    }
}
