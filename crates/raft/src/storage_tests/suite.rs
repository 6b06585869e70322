//! openraft's own suite. It never opens a store again; [`super::crash`] does.

use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};

use crate::disk::Disk;
use crate::engine::memory::MemoryEngine;
use crate::log::LogStore;
use crate::machine::{self, StateMachine};
use crate::types::{MemberId, StorageError, Types};

struct OnMemory;

impl StoreBuilder<Types, LogStore, StateMachine> for OnMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError> {
        let disk = Disk::new(Arc::new(MemoryEngine::new()));
        let (log, machine) = machine::open(&disk, MemberId::from(9))?;
        Ok(((), log, machine))
    }
}

#[test]
fn the_suite_of_openraft_passes_on_memory() {
    Suite::test_all(OnMemory).unwrap();
}

#[cfg(feature = "rocksdb")]
mod on_rocksdb {
    use tempfile::TempDir;

    use super::*;
    use crate::engine::rocks::RocksEngine;

    struct OnRocks;

    impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for OnRocks {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
            let dir = TempDir::new().unwrap();
            let disk = Disk::new(Arc::new(RocksEngine::open(dir.path()).unwrap()));
            let (log, machine) = machine::open(&disk, MemberId::from(9))?;
            Ok((dir, log, machine))
        }
    }

    #[test]
    fn the_suite_of_openraft_passes_on_rocksdb() {
        Suite::test_all(OnRocks).unwrap();
    }
}
