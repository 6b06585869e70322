//! The contract of every metadata store, on threads of their own and the real clock.

use bifrost_metadata::conformance::conformance;
use bifrost_metadata::{Page, Revision, WatchStream};
use futures_util::future::BoxFuture;

use super::*;
use crate::engine::LogEngine;
use crate::mesh::Way;

/// A group, used through its leader. Nobody is elected anew while a test machine is slow.
#[derive(Debug)]
struct Led {
    mesh: Mesh,
    members: Vec<RaftMetadata>,
}

impl Drop for Led {
    fn drop(&mut self) {
        // The network holds the members and they hold the network.
        for id in 1..=self.members.len() as u64 {
            self.mesh.disconnect(m(id));
        }
    }
}

async fn led(disks: Vec<Arc<dyn LogEngine>>, heartbeat: Duration) -> Led {
    let mesh = Mesh::new();
    let mut members = Vec::new();
    for (id, disk) in (1..).zip(disks) {
        let patient = RaftOptions {
            heartbeat,
            turn: Duration::from_secs(20),
            lease: Duration::from_secs(30),
            request_timeout: Duration::from_secs(20),
            ..options(id)
        };
        let member = RaftMetadata::start(patient, disk, mesh.peers_of(m(id))).await.unwrap();
        mesh.connect(m(id), Arc::new(member.clone()));
        members.push(member);
    }
    let all = (1..=members.len() as u64).map(|id| (m(id), member(id))).collect();
    members[0].initialize(all).await.unwrap();
    let led = Led { mesh, members };
    let mut status = led.members[0].watch_status();
    timeout(PATIENCE, status.wait_for(Status::serves)).await.unwrap().unwrap();
    led
}

impl MetadataStore for Led {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        self.members[0].get(key)
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        self.members[0].list(prefix, after, limit)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        self.members[0].txn(txn)
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        self.members[0].watch(prefix, after)
    }
}

fn memory(members: usize) -> Vec<Arc<dyn LogEngine>> {
    (0..members).map(|_| Arc::new(MemoryEngine::new()) as Arc<dyn LogEngine>).collect()
}

#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_on_rocksdb_passes_the_conformance_suite() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::engine::rocks::RocksEngine;

    let root = tempfile::TempDir::new().unwrap();
    let stores = AtomicUsize::new(0);
    conformance(async || {
        let dir = root.path().join(stores.fetch_add(1, Ordering::SeqCst).to_string());
        led(vec![Arc::new(RocksEngine::open(&dir).unwrap())], Duration::from_millis(500)).await
    })
    .await;
}

#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_shut_down_has_let_go_of_its_directory() {
    use crate::StartError;

    let dir = tempfile::TempDir::new().unwrap();
    let mesh = Mesh::new();
    for round in 0..3 {
        let member = RaftMetadata::open(options(1), dir.path(), mesh.peers_of(m(1))).await.unwrap();
        if round == 0 {
            member.initialize(BTreeMap::from([(m(1), super::member(1))])).await.unwrap();
        }
        timeout(PATIENCE, member.watch_status().wait_for(Status::serves)).await.unwrap().unwrap();
        let before = member.get("k".into()).await.unwrap();
        assert_eq!(before.map(|before| before.revision), (round > 0).then_some(round));
        assert_eq!(member.txn(Txn::new().put("k", "1")).await, Ok(TxnOutcome::Committed(round + 1)));
        let second = RaftMetadata::open(options(1), dir.path(), mesh.peers_of(m(1))).await;
        assert!(matches!(second, Err(StartError::Open(_))), "one at a time");
        // The handle lives on; the directory is free all the same.
        member.shutdown().await;
        assert_eq!(member.get("k".into()).await, Err(MetadataError::Unavailable));
    }
    let other = RaftMetadata::open(options(2), dir.path(), mesh.peers_of(m(2))).await;
    assert!(matches!(other, Err(StartError::Disk(_))), "it is the log of another member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_pass_the_conformance_suite() {
    conformance(async || led(memory(3), Duration::from_millis(500)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_that_lose_messages_and_answers_pass_the_conformance_suite() {
    conformance(async || {
        let led = led(memory(3), Duration::from_millis(50)).await;
        for (from, to, lose_every) in [(1, 2, 5), (2, 1, 7), (1, 3, 50), (3, 1, 60)] {
            led.mesh.set(m(from), m(to), Way { lose_every, ..Way::default() });
        }
        led
    })
    .await;
}
