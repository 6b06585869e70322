#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bifrost_metadata::MemoryMetadata;
use bifrost_wire::metadata::{MetadataStore, Page, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use super::*;
use crate::test_world::{PATIENCE, World};
use crate::{Bifrost, Log, ReconfigureOptions, fresh_op};

/// Metadata that counts what it is asked.
#[derive(Debug, Clone)]
struct Counted {
    inner: MemoryMetadata,
    reads: Arc<AtomicUsize>,
    watches: Arc<AtomicUsize>,
}

impl Counted {
    fn new(inner: MemoryMetadata) -> Self {
        Self { inner, reads: Arc::default(), watches: Arc::default() }
    }
}

impl MetadataStore for Counted {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key)
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.list(prefix, after, limit)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        self.inner.txn(txn)
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        self.inner.watch(prefix, after)
    }
}

async fn logs(world: &World, count: usize) -> Vec<LogId> {
    let mut made = Vec::new();
    for _ in 0..count {
        made.push(world.catalog().create_log(None, fresh_op(), &world.successor(0)).await.unwrap().chain.log);
    }
    made
}

/// As many changes as metadata remembers, and more.
async fn make_noise(metadata: &MemoryMetadata) {
    for _ in 0..5000 {
        metadata.txn(Txn::new().put("noise", "x")).await.unwrap();
    }
}

async fn close(client: &Bifrost, log: LogId) {
    let log = client.log_by_id(log).await.unwrap();
    log.reconfigure(ReconfigureOptions { close: true, ..ReconfigureOptions::default() }).await.unwrap();
}

/// Waits until a handle knows, without asking, that its log is closed.
async fn until_closed(log: &Log) {
    let heard = async {
        while log.chain().last().unwrap().decided_tail().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, heard).await.expect("it hears of it");
}

#[tokio::test(start_paused = true)]
async fn a_chain_older_than_what_metadata_remembers_is_watched_and_not_asked_for_again_and_again() {
    let world = World::new().await;
    let made = logs(&world, 1).await;
    make_noise(&world.metadata).await;
    let metadata = Counted::new(world.metadata.clone());
    let client = world.client_over(Arc::new(metadata.clone())).await;
    let log = client.log_by_id(made[0]).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let (reads, watches) = (metadata.reads.load(Ordering::Relaxed), metadata.watches.load(Ordering::Relaxed));
    sleep(Duration::from_secs(300)).await;
    assert_eq!(metadata.reads.load(Ordering::Relaxed), reads, "nobody asks while nothing happens");
    assert_eq!(metadata.watches.load(Ordering::Relaxed), watches);
    close(&world.client().await, made[0]).await;
    until_closed(&log).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_with_many_logs_has_few_watches_and_hears_of_every_change() {
    let world = World::new().await;
    let made = logs(&world, 3 * OWN_WATCHES_MAX).await;
    make_noise(&world.metadata).await;
    let metadata = Counted::new(world.metadata.clone());
    let client = world.client_over(Arc::new(metadata.clone())).await;
    let mut handles = Vec::new();
    for log in &made {
        handles.push(client.log_by_id(*log).await.unwrap());
    }
    sleep(Duration::from_secs(5)).await;
    let watches = metadata.watches.load(Ordering::Relaxed);
    // Those of old chains begin twice; and there is one of the nodes and one of all chains.
    assert!(watches <= 2 * OWN_WATCHES_MAX + 4, "{watches} watches");
    let reads = metadata.reads.load(Ordering::Relaxed);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(metadata.reads.load(Ordering::Relaxed), reads, "nobody asks while nothing happens");
    let other = world.client().await;
    for place in [0, OWN_WATCHES_MAX, made.len() - 1] {
        close(&other, made[place]).await;
        until_closed(&handles[place]).await;
    }
    // A handle that comes late is told too, and one that is gone leaves nothing behind.
    drop(handles);
    assert!(client.cluster().follower.is_idle());
    assert_eq!(client.cluster().follower.own.load(Ordering::Acquire), 0);
    let mut handles = Vec::new();
    for log in &made[1..] {
        handles.push(client.log_by_id(*log).await.unwrap());
    }
    let place = OWN_WATCHES_MAX + 3;
    close(&other, made[place]).await;
    until_closed(&handles[place - 1]).await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_handle_joins_the_watch_of_all_is_not_missed() {
    let world = World::new().await;
    let made = logs(&world, OWN_WATCHES_MAX + 20).await;
    let (client, other) = (world.client().await, world.client().await);
    let mut handles = Vec::new();
    for (place, log) in made.iter().enumerate() {
        let opening = client.log_by_id(*log);
        let (handle, ()) = match place {
            // At the same time: whichever comes first.
            place if place > OWN_WATCHES_MAX => tokio::join!(opening, close(&other, *log)),
            _ => (opening.await, ()),
        };
        handles.push(handle.unwrap());
    }
    for handle in &handles[OWN_WATCHES_MAX + 1..] {
        until_closed(handle).await;
    }
}
