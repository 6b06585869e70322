//! One opening of a disk: what a log server keeps its copies in.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bifrost_logserver::space::{BallastStep, Look, Marks};
use bifrost_logserver::store::{Cause, Chunk, Group, LogStore, Recovered, Space, StoreError};
use bifrost_types::{LogletId, LogletOffset};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::sleep;

use super::State;
use super::platter::group_bytes;
use super::records::Records;

/// One opening of a [`Disk`](super::Disk). After the next opening, a crash or a wipe every call fails.
pub struct SimStore {
    state: Arc<Mutex<State>>,
    life: u64,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore").field("life", &self.life).finish_non_exhaustive()
    }
}

impl SimStore {
    pub(super) const fn new(state: Arc<Mutex<State>>, life: u64) -> Self {
        Self { state, life }
    }

    /// The disk, as long as it is this life's.
    fn disk(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state.lock();
        if state.life == self.life { Ok(state) } else { Err(StoreError::Failed { cause: Cause::Abandoned }) }
    }

    /// Whether the disk is still this life's.
    pub fn is_alive(&self) -> bool {
        self.disk().is_ok()
    }

    async fn wait_to_read(&self) -> Result<(), StoreError> {
        let latency = {
            let mut state = self.disk()?;
            let most = state.latency.read_max;
            state.between(Duration::ZERO, most)
        };
        pause(latency).await;
        Ok(())
    }
}

async fn pause(latency: Duration) {
    if !latency.is_zero() {
        sleep(latency).await;
    }
}

impl LogStore for SimStore {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.wait_to_read().await?;
        self.disk()?.recover()
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        let (number, latency) = {
            let mut state = self.disk()?;
            if group.is_empty() {
                return Ok(());
            }
            // The engine knows by itself what has room.
            if state.records.is_none() && group_bytes(&group) > state.free_bytes() {
                return Err(StoreError::Full);
            }
            let number = state.next_group;
            state.next_group += 1;
            state.pending.push_back((number, group));
            state.pass();
            (number, state.fsync_latency())
        };
        pause(latency).await;
        self.disk()?.synced(number)
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.wait_to_read().await?;
        self.disk()?.read(loglet, from, until, max_bytes)
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }
}

impl Space for SimStore {
    fn marks(&self) -> Marks {
        self.state.lock().marks()
    }

    fn look(&self) -> io::Result<Look> {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.pass();
        }
        Ok(Look { free_bytes: state.free_bytes(), ballast: state.ballast })
    }

    fn move_ballast(&self, step: BallastStep) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        }
        match step {
            BallastStep::GiveUp => state.ballast = false,
            BallastStep::Make if state.ballast => {}
            BallastStep::Make if state.free_bytes() < state.marks().ballast_bytes => {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            BallastStep::Make => state.ballast = true,
        }
        state.share_room();
        Ok(())
    }

    /// On a platter what is dropped takes no room.
    fn reclaim(&self) {
        if let Ok(mut state) = self.disk() {
            state.records.iter_mut().for_each(Records::reclaim);
        }
    }
}
