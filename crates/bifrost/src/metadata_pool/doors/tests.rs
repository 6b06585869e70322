//! Two doors to one store, of which one falls silent. The clock is paused, and the network is made of pipes.

#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicBool, Ordering};

use bifrost_metadata::MemoryMetadata;
use bifrost_wire::grpc::pipes::Pipes;
use bifrost_wire::grpc::{ClientOptions, MetadataGrpc, RoutesBuilder, ServerLimits, serve};
use bifrost_wire::metadata::{Change, Changes, Page, Revision, Txn, TxnOutcome, Versioned};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::metadata_pool::MetadataPool;

const ADDRESSES: [&str; 2] = ["127.0.0.1:1", "127.0.0.1:2"];

/// Answers nothing while it is silent, and keeps its watches to itself.
#[derive(Debug, Clone)]
struct Hushed {
    store: MemoryMetadata,
    silent: Arc<AtomicBool>,
}

impl Hushed {
    async fn unless_silent(&self) {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl MetadataStore for Hushed {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move {
            self.unless_silent().await;
            self.store.get(key).await
        })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move {
            self.unless_silent().await;
            self.store.list(prefix, after, limit).await
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            self.unless_silent().await;
            self.store.txn(txn).await
        })
    }

    /// Brings what happens before the door falls silent.
    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            self.unless_silent().await;
            let mut changes = self.store.watch(prefix, after).await?;
            let (sender, receiver) = mpsc::channel(1);
            let this = self.clone();
            tokio::spawn(async move {
                while let Some(item) = changes.recv().await {
                    this.unless_silent().await;
                    if sender.send(item).await.is_err() {
                        return;
                    }
                }
            });
            Ok(receiver)
        })
    }
}

/// A pool over two doors, and what makes the first one silent.
fn two_doors() -> (MetadataPool, Arc<AtomicBool>) {
    let (pipes, store, silent) = (Pipes::default(), MemoryMetadata::new(), Arc::new(AtomicBool::new(false)));
    for (address, silent) in ADDRESSES.into_iter().zip([Arc::clone(&silent), Arc::default()]) {
        let listener = pipes.listen(address.parse().expect("an address"));
        let (limits, stop) = (ServerLimits::default(), CancellationToken::new());
        let door = Arc::new(Hushed { store: store.clone(), silent });
        let mut routes = RoutesBuilder::default();
        MetadataGrpc::new(door, &limits, stop.clone()).add_to(&mut routes);
        tokio::spawn(async move { serve(listener, routes.routes(), &limits, None, stop).await });
    }
    let options = ClientOptions { dial: Some(Arc::new(pipes)), ..ClientOptions::default() };
    (MetadataPool::connect_lazy(ADDRESSES, &options).expect("addresses"), silent)
}

async fn put(pool: &MetadataPool, value: &'static str) -> Result<TxnOutcome, MetadataError> {
    pool.txn(Txn::new().put("k", value)).await
}

/// The next change that a watch brings; `None` when it ends. It also says how far it is when nothing changed.
async fn next_change(watch: &mut WatchStream) -> Option<Change> {
    loop {
        let Changes { changes, .. } = watch.recv().await?.expect("it is kept");
        if let Some(change) = changes.into_iter().next() {
            return Some(change);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_at_a_silent_door_is_answered_by_the_next_one_and_the_next_read_goes_there() {
    let (pool, silent) = two_doors();
    put(&pool, "1").await.expect("both answer");
    silent.store(true, Ordering::Relaxed);
    let asked = Instant::now();
    let read = pool.get("k".to_owned()).await.expect("the other answers").expect("it was put");
    assert_eq!(read.value, "1");
    assert!(asked.elapsed() <= READ_PATIENCE * 2, "{:?}", asked.elapsed());
    let asked = Instant::now();
    assert_eq!(pool.list("k".to_owned(), None, 9).await.expect("the other answers").entries.len(), 1);
    assert!(asked.elapsed() < READ_PATIENCE, "nobody asks at the silent door: {:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_at_a_silent_door_is_unknown_and_the_next_one_goes_elsewhere() {
    let (pool, silent) = two_doors();
    silent.store(true, Ordering::Relaxed);
    let asked = Instant::now();
    assert_eq!(put(&pool, "1").await, Err(MetadataError::Unknown), "it may have been carried out (M2)");
    assert!(asked.elapsed() <= TXN_PATIENCE * 2, "{:?}", asked.elapsed());
    assert!(matches!(put(&pool, "2").await, Ok(TxnOutcome::Committed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_watch_at_a_door_that_fell_silent_ends_soon_after_somebody_noticed() {
    let (pool, silent) = two_doors();
    let mut watch = pool.watch("k".to_owned(), 0).await.expect("both answer");
    put(&pool, "1").await.expect("both answer");
    let Change { revision, .. } = next_change(&mut watch).await.expect("it was put");
    silent.store(true, Ordering::Relaxed);
    pool.get("k".to_owned()).await.expect("the other answers");
    let noticed = Instant::now();
    put(&pool, "2").await.expect("the other answers");
    assert_eq!(next_change(&mut watch).await, None, "what its door knows never comes");
    assert!(noticed.elapsed() <= CHECK_DEADLINE * 2, "{:?}", noticed.elapsed());
    let mut watch = pool.watch("k".to_owned(), revision).await.expect("the other answers");
    let change = next_change(&mut watch).await.expect("the other answers");
    assert_eq!(change.value.as_deref(), Some("2".as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_door_that_was_only_slow_keeps_its_watches() {
    let (pool, silent) = two_doors();
    let mut watch = pool.watch("k".to_owned(), 0).await.expect("both answer");
    silent.store(true, Ordering::Relaxed);
    pool.get("k".to_owned()).await.expect("the other answers");
    silent.store(false, Ordering::Relaxed);
    tokio::time::sleep(CHECK_DEADLINE * 2).await;
    put(&pool, "1").await.expect("both answer");
    assert!(next_change(&mut watch).await.is_some());
}
