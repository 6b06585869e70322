//! A store that stalls, fails and crashes on demand: what a group that is not durable yet looks like to a test.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bifrost_types::{LogletId, LogletOffset};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::space::{BallastStep, Look, Marks, SpaceOptions};
use crate::store::memory::MemoryStore;
use crate::store::{Cause, Chunk, Group, LogStore, Recovered, Space, StoreError};

/// A [`MemoryStore`] behind a gate. A group that waits at the gate is written and not synced: a crash loses it.
#[derive(Debug)]
pub struct FaultyStore {
    disk: MemoryStore,
    gate: watch::Sender<Gate>,
    /// How many commits go well before one fails, and how.
    fault: Mutex<Option<(u64, StoreError)>>,
    commits: AtomicU64,
    /// What its disk says is free; a store without it has no disk.
    free_bytes: Mutex<Option<u64>>,
    ballast: AtomicBool,
    reclaims: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gate {
    open: bool,
    /// Grows with each crash; a commit of an earlier life fails.
    life: u64,
    /// How many commits wait.
    unsynced: u64,
}

impl Default for FaultyStore {
    fn default() -> Self {
        Self {
            disk: MemoryStore::new(),
            gate: watch::Sender::new(Gate { open: true, life: 0, unsynced: 0 }),
            fault: Mutex::new(None),
            commits: AtomicU64::new(0),
            free_bytes: Mutex::new(None),
            ballast: AtomicBool::new(false),
            reclaims: AtomicU64::new(0),
        }
    }
}

impl FaultyStore {
    /// An empty store with its gate open.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on commits wait before they become durable.
    pub fn hold(&self) {
        self.gate.send_modify(|gate| gate.open = false);
    }

    /// Lets those that wait and later ones go on.
    pub fn release(&self) {
        self.gate.send_modify(|gate| gate.open = true);
    }

    /// Waits until a commit waits at the gate.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until_held(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.gate.subscribe().wait_for(|gate| gate.unsynced > 0).await;
    }

    /// Loses what is not synced. What was committed stays; the gate opens for the next life.
    pub fn crash(&self) {
        self.gate.send_modify(|gate| {
            gate.life += 1;
            gate.open = true;
        });
    }

    /// After that many more commits, one ends with this error and without a trace.
    pub fn fail_after(&self, commits: u64, error: StoreError) {
        *self.fault.lock() = Some((commits, error));
    }

    /// After that many more commits, one fails as a broken disk does.
    pub fn break_after(&self, commits: u64) {
        self.fail_after(commits, StoreError::Failed { cause: Cause::Injected });
    }

    fn fault(&self) -> Result<(), StoreError> {
        let mut fault = self.fault.lock();
        match fault.take() {
            None => Ok(()),
            Some((0, error)) => Err(error),
            Some((commits, error)) => {
                *fault = Some((commits - 1, error));
                Ok(())
            }
        }
    }

    /// How many groups became durable.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Gives it a disk of 1 GiB with this much free; call it before a server starts on it. The reserve is 1 MiB, the
    /// ballast 64 KiB.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        *self.free_bytes.lock() = Some(free_bytes);
    }

    /// Whether it holds a ballast.
    pub fn has_ballast(&self) -> bool {
        self.ballast.load(Ordering::Relaxed)
    }

    /// How often dropped batches were to be given back.
    pub fn reclaims(&self) -> u64 {
        self.reclaims.load(Ordering::Relaxed)
    }

    /// What is durable.
    pub const fn disk(&self) -> &MemoryStore {
        &self.disk
    }
}

impl LogStore for FaultyStore {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.disk.recover().await
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        self.fault()?;
        let mut gate = self.gate.subscribe();
        let life = gate.borrow().life;
        self.gate.send_modify(|gate| gate.unsynced += 1);
        // The sender lives in `self`, so waiting cannot fail.
        let _ = gate.wait_for(|gate| gate.open || gate.life != life).await;
        self.gate.send_modify(|gate| gate.unsynced -= 1);
        if self.gate.borrow().life != life {
            return Err(StoreError::Failed { cause: Cause::Injected });
        }
        self.disk.commit(group).await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.disk.read(loglet, from, until, max_bytes).await
    }

    fn space(&self) -> Option<&dyn Space> {
        self.free_bytes.lock().is_some().then_some(self as &dyn Space)
    }
}

impl Space for FaultyStore {
    fn marks(&self) -> Marks {
        SpaceOptions { reserve_bytes: Some(1 << 20), ballast_bytes: Some(1 << 16) }.marks(1 << 30, 1 << 20)
    }

    fn look(&self) -> io::Result<Look> {
        Ok(Look { free_bytes: self.free_bytes.lock().unwrap_or(u64::MAX), ballast: self.has_ballast() })
    }

    fn move_ballast(&self, step: BallastStep) -> io::Result<()> {
        self.ballast.store(step == BallastStep::Make, Ordering::Relaxed);
        Ok(())
    }

    fn reclaim(&self) {
        self.reclaims.fetch_add(1, Ordering::Relaxed);
    }
}
