//! The disk of a metadata member: what is written is in its cache until a sync is over, and a crash keeps a prefix of that.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bifrost_raft::engine::memory::MemoryEngine;
use bifrost_raft::engine::{Batch, Durability, EngineError, LogEngine, Op, Record};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::disk::DiskLatency;
use crate::history::History;

/// How the keys of pieces of snapshots begin.
const PIECE: u8 = b'd';
/// How the keys of entries begin; their index follows.
const ENTRY: u8 = b'e';

/// One disk; clones are the same. It outlives the members that use it.
#[derive(Clone)]
pub struct MemberDisk {
    name: String,
    history: History,
    memory: MemoryEngine,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: SmallRng,
    latency: DiskLatency,
    /// Grows with each opening and each crash; only the present life writes.
    life: u64,
    /// The next sync fails.
    fails: bool,
    /// A sync has failed in this life.
    failed: bool,
    ambush: Ambush,
    /// The last entry that was written in this life.
    last_entry: Option<u64>,
}

/// When the machine is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambush {
    /// Not.
    None,
    /// In the write that follows the first of a snapshot by so many.
    InSnapshot(u32),
    /// A snapshot is being written; so many writes are left.
    Left(u32),
    /// When entries that were there are overwritten, and the new ones are synced.
    Overwritten,
    /// Now.
    Struck,
}

impl fmt::Debug for MemberDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberDisk").field("name", &self.name).finish_non_exhaustive()
    }
}

impl MemberDisk {
    /// An empty disk. Everything random comes from `seed`.
    pub fn new(name: &str, seed: u64, history: History) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            latency: DiskLatency::default(),
            life: 0,
            fails: false,
            failed: false,
            ambush: Ambush::None,
            last_entry: None,
        };
        Self { name: name.to_owned(), history, memory: MemoryEngine::new(), state: Arc::new(Mutex::new(state)) }
    }

    /// Opens it for one life of a member.
    pub fn open(&self) -> MemberEngine {
        let mut state = self.state.lock();
        state.life += 1;
        MemberEngine { life: state.life, disk: self.clone() }
    }

    /// The machine dies: a random prefix of what was not synced is durable all the same.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        let unsynced = self.memory.unsynced();
        let kept = if unsynced == 0 { 0 } else { state.rng.random_range(0..=unsynced) };
        if unsynced > 0 {
            self.history.note(format!("disk of {}: crash: {kept} of {unsynced} unsynced writes are kept", self.name));
        }
        self.memory.crash(kept);
        state.life += 1;
        state.failed = false;
        state.last_entry = None;
    }

    /// How long its syncs take from now on.
    pub fn set_latency(&self, latency: DiskLatency) {
        self.state.lock().latency = latency;
    }

    /// The next sync fails, or no more.
    pub fn set_failing(&self, fails: bool) {
        self.state.lock().fails = fails;
    }

    /// Whether a sync failed in this life of its member.
    pub fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// When the machine is to die.
    pub fn ambush(&self, ambush: Ambush) {
        self.state.lock().ambush = ambush;
    }

    /// Whether it is to die now.
    pub fn struck(&self) -> bool {
        self.state.lock().ambush == Ambush::Struck
    }

    fn latency(&self) -> Duration {
        let mut state = self.state.lock();
        let DiskLatency { fsync_min, fsync_max, stall_percent, stall_max, .. } = state.latency;
        let stalls = stall_percent > 0 && state.rng.random_range(0..100) < stall_percent;
        let (least, most) = if stalls { (fsync_max, stall_max) } else { (fsync_min, fsync_max) };
        if least >= most { least } else { state.rng.random_range(least..=most) }
    }
}

/// One opening of a disk.
#[derive(Debug)]
pub struct MemberEngine {
    disk: MemberDisk,
    life: u64,
}

impl MemberEngine {
    fn check(&self) -> Result<(), EngineError> {
        let state = self.disk.state.lock();
        if state.failed {
            return Err(EngineError::Io(io::ErrorKind::Other.into()));
        }
        if state.life == self.life { Ok(()) } else { Err(EngineError::Closed) }
    }

    /// Whether the machine dies in this write.
    fn strikes(&self, batch: &Batch) -> bool {
        let snapshot = puts(batch).any(|key| key.first() == Some(&PIECE));
        let overwrites = self.overwrites(batch);
        let mut state = self.disk.state.lock();
        state.ambush = match state.ambush {
            Ambush::InSnapshot(0) if snapshot => Ambush::Struck,
            Ambush::InSnapshot(after) if snapshot => Ambush::Left(after - 1),
            Ambush::Left(0) => Ambush::Struck,
            Ambush::Left(left) => Ambush::Left(left - 1),
            Ambush::Overwritten if overwrites => Ambush::Struck,
            waits => waits,
        };
        state.ambush == Ambush::Struck
    }

    /// Whether a batch has entries with an index that others had.
    fn overwrites(&self, batch: &Batch) -> bool {
        let mut indexes = puts(batch).filter_map(entry_index);
        let Some(first) = indexes.next() else { return false };
        let mut state = self.disk.state.lock();
        let before = state.last_entry.replace(indexes.last().unwrap_or(first));
        let Some(before) = before.filter(|before| *before >= first) else { return false };
        self.disk.history.note(format!("disk of {}: the entries {first} to {before} are overwritten", self.disk.name));
        true
    }

    async fn sync(&self) -> Result<(), EngineError> {
        sleep(self.disk.latency()).await;
        self.check()?;
        {
            let mut state = self.disk.state.lock();
            if state.fails {
                state.fails = false;
                state.failed = true;
                self.disk.history.note(format!("disk of {}: a sync fails", self.disk.name));
            }
        }
        self.check()?;
        self.disk.memory.sync()
    }
}

fn puts(batch: &Batch) -> impl Iterator<Item = &[u8]> {
    batch.ops().iter().filter_map(|op| match op {
        Op::Put { key, .. } => Some(key.as_ref()),
        _ => None,
    })
}

fn entry_index(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(&[ENTRY])?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*index))
}

impl LogEngine for MemberEngine {
    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            self.check()?;
            let synced = batch.durability() == Durability::Synced;
            let overwrites = self.disk.state.lock().ambush == Ambush::Overwritten;
            let strikes = self.strikes(&batch);
            self.disk.memory.cache(batch)?;
            if strikes {
                if overwrites {
                    self.disk.memory.sync()?;
                }
                // Whoever drives the faults takes it down within a step.
                return std::future::pending().await;
            }
            if synced { self.sync().await } else { Ok(()) }
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.check()?;
        self.disk.memory.get(key)
    }

    fn range(&self, start: &[u8], end: &[u8], bytes_max: usize) -> Result<Vec<Record>, EngineError> {
        self.check()?;
        self.disk.memory.range(start, end, bytes_max)
    }
}
