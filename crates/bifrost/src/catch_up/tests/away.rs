//! What catching up does while metadata cannot be reached, and while nobody has the records. It writes nothing there: that a
//! copy is whole is known to its own disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifrost_metadata::MemoryMetadata;
use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::*;

/// A store that can be out of reach: calls fail, and watches end.
#[derive(Debug, Clone)]
struct Away {
    inner: MemoryMetadata,
    there: watch::Sender<bool>,
    watches: TaskTracker,
    writes: Arc<AtomicU64>,
}

impl Away {
    fn new(inner: MemoryMetadata, there: bool) -> Self {
        let (there, _) = watch::channel(there);
        Self { inner, there, watches: TaskTracker::new(), writes: Arc::default() }
    }

    fn go(&self) {
        self.there.send_replace(false);
    }

    fn come_back(&self) {
        self.there.send_replace(true);
    }

    fn reach(&self) -> Result<(), MetadataError> {
        if *self.there.borrow() { Ok(()) } else { Err(MetadataError::Unavailable) }
    }
}

impl MetadataStore for Away {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async {
            self.reach()?;
            self.inner.get(key).await
        })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.list(prefix, after, limit).await
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            self.reach()?;
            self.inner.txn(txn).await
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            self.reach()?;
            let mut changes = self.inner.watch(prefix, after).await?;
            let (send, received) = mpsc::channel(1);
            let mut there = self.there.subscribe();
            self.watches.spawn(async move {
                loop {
                    let next = tokio::select! {
                        biased;
                        _ = there.wait_for(|there| !there) => return,
                        next = changes.recv() => next,
                    };
                    let Some(next) = next else { return };
                    if send.send(next).await.is_err() {
                        return;
                    }
                }
            });
            Ok(received)
        })
    }
}

/// The disk at place 2 catches up, with metadata that may be away.
fn catch_up_over(world: &World, metadata: &Away, bytes_per_second: u64) -> Running {
    world.catch_up_over(Catalog::new(Arc::new(metadata.clone())), 2, bytes_per_second)
}

/// It is remembered of a copy that it is whole only when it is.
async fn is_known_as_it_is(world: &World, log: LogId) {
    for (segment, until) in [(0, 51), (1, 31)] {
        let whole = world.nodes[2].log_server().unwrap().whole_tail(loglet(log, segment)).get();
        let has = world.has(2, loglet(log, segment), until).await;
        assert!(whole <= has + 1, "segment {segment} counts as whole up to {whole} and has {has} records");
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_away_at_the_beginning_is_waited_for() {
    let (world, client, log) = behind().await;
    let metadata = Away::new(world.metadata.clone(), false);
    let running = catch_up_over(&world, &metadata, 64 << 20);
    sleep(Duration::from_secs(300)).await;
    let waiting = running.catch_up.progress();
    assert_eq!((waiting.state, waiting.records_done), (CatchUpState::Unknown, 0));
    is_known_as_it_is(&world, log).await;
    // What the sequencers still had in their windows came by itself.
    let has = world.has(2, loglet(log, 0), 51).await + world.has(2, loglet(log, 1), 31).await;
    assert!(has < 80, "nothing is missing");
    metadata.come_back();
    assert_eq!(running.until_done().await.records_done, 80 - has);
    world.stop(0).await;
    read_all(&client, log, 90).await;
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_finished_and_attested_while_metadata_is_away_and_news_are_caught_up_with_afterwards() {
    let (world, client, log) = behind().await;
    let metadata = Away::new(world.metadata.clone(), true);
    let running = catch_up_over(&world, &metadata, 4 * KIB as u64);
    let begun = running.until("it does not begin", |progress| progress.records_done > 0).await;
    assert!(begun.records_left > 0);
    metadata.go();
    // The log goes on meanwhile: one more segment is closed of which nobody tells this disk.
    world.move_to(&client, log, 0).await;
    is_known_as_it_is(&world, log).await;
    let done = running.until_done().await;
    assert_eq!((done.records_done, done.records_left, done.last_error), (70, 0, None));
    is_known_as_it_is(&world, log).await;
    let whole = |segment| world.nodes[2].log_server().unwrap().whole_tail(loglet(log, segment)).get();
    assert_eq!((whole(0), whole(1), whole(2)), (51, 31, 1), "the third is not known to be closed");
    sleep(Duration::from_secs(300)).await;
    assert_eq!(running.catch_up.progress(), done, "nothing is done twice, and nothing is forgotten");
    metadata.come_back();
    let third = async {
        while whole(2) < 11 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, third).await.expect("it hears of the third segment");
    assert_eq!(world.has(2, loglet(log, 2), 11).await, 10);
    assert_eq!(metadata.writes.load(Ordering::SeqCst), 0, "what is whole is nobody else's business");
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_taken_out_of_service_while_metadata_is_away_stops_when_it_hears_of_it() {
    let (world, client, log) = behind().await;
    let node = world.nodes[2].id().node;
    let metadata = Away::new(world.metadata.clone(), true);
    let running = catch_up_over(&world, &metadata, KIB as u64);
    running.until("it does not begin", |progress| progress.records_done > 0).await;
    metadata.go();
    client.set_storage_state(node, StorageState::ReadOnly).await.unwrap();
    metadata.come_back();
    let stopped = running.until("it does not stop", |progress| progress.state == CatchUpState::OutOfService).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(running.catch_up.progress().records_left, stopped.records_left, "it goes on all the same");
    is_known_as_it_is(&world, log).await;
    client.set_storage_state(node, StorageState::ReadWrite).await.unwrap();
    running.until_done().await;
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_copied_before_the_sources_died_is_kept_and_not_fetched_again() {
    let (mut world, _client, log) = behind().await;
    let running = world.catch_up(2, 4 * KIB as u64);
    running.until("it does not begin", |progress| progress.records_done > 10).await;
    world.stop(0).await;
    world.stop(1).await;
    running.until("nobody misses the sources", |progress| progress.last_error.is_some()).await;
    let before = running.catch_up.progress();
    assert!(before.records_done > 10 && before.records_left > 0, "{before:?}");
    sleep(Duration::from_secs(300)).await;
    let waiting = running.catch_up.progress();
    let bytes = |progress: &Progress| (progress.records_done, progress.records_left, progress.bytes_done);
    assert_eq!(bytes(&waiting), bytes(&before), "it waits, and forgets nothing");
    is_known_as_it_is(&world, log).await;
    world.start(0).await;
    world.start(1).await;
    let done = running.until_done().await;
    assert_eq!(done.records_done, 70, "each record is fetched once");
    let rest = done.bytes_done - before.bytes_done;
    assert!(rest < (before.records_left + 1) * 2 * KIB as u64, "{rest} bytes for {} records", before.records_left);
    running.cancel().await;
}
