//! The metadata store over gRPC.

use std::sync::Arc;

use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::*;
use crate::metadata::*;

pub(super) type Watcher = (String, Revision, mpsc::Sender<Result<Changes, MetadataError>>);

/// Gives fixed answers, or refuses everything; hands watches to the test.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) refusal: Option<MetadataError>,
    pub(super) watchers: mpsc::Sender<Watcher>,
}

impl Fake {
    fn answer<T: Send + 'static>(&self, value: T) -> BoxFuture<'_, Result<T, MetadataError>> {
        Box::pin(std::future::ready(self.refusal.map_or(Ok(value), Err)))
    }
}

pub(super) fn value(revision: Revision) -> Versioned {
    Versioned { revision, value: Bytes::from_static(b"value") }
}

fn page() -> Page {
    Page { revision: 7, entries: vec![("a".into(), value(3)), ("b".into(), value(7))], more: true }
}

fn changes(revision: Revision) -> Changes {
    let set = Change { key: "a".into(), revision, value: Some(Bytes::new()) };
    let removed = Change { key: "b".into(), revision, value: None };
    Changes { revision, changes: vec![set, removed] }
}

impl MetadataStore for Fake {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        self.answer((key == "a").then(|| value(3)))
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        assert_eq!((prefix.as_str(), after.as_deref(), limit), ("p", Some("q"), 10));
        self.answer(page())
    }

    /// Commits what demands nothing; anything else conflicts with many large values.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        if txn.preconditions.is_empty() {
            return self.answer(TxnOutcome::Committed(8));
        }
        let large = Versioned { revision: 1, value: Bytes::from(vec![7; METADATA_VALUE_BYTES_MAX]) };
        let present = txn.preconditions.into_iter().map(|(key, _)| (key, Some(large.clone())));
        self.answer(TxnOutcome::Conflict(present.collect()))
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        let (changes, stream) = mpsc::channel(4);
        self.watchers.try_send((prefix, after, changes)).expect("room for a few watches");
        self.answer(stream)
    }
}

async fn cluster(refusal: Option<MetadataError>) -> (Host, GrpcMetadata, mpsc::Receiver<Watcher>) {
    let (watches, watchers) = mpsc::channel(4);
    let fake: Arc<dyn MetadataStore> = Arc::new(Fake { refusal, watchers: watches });
    let host = Host::start(|routes, limits, token| MetadataGrpc::new(fake, limits, token).add_to(routes)).await;
    let client = GrpcMetadata::connect_lazy(&host.address, ClientOptions::default()).expect("an address");
    (host, client, watchers)
}

#[tokio::test]
async fn calls_answer_and_refuse() {
    let (host, client, _watchers) = cluster(None).await;
    assert_eq!(soon(client.get("a".into())).await, Ok(Some(value(3))));
    assert_eq!(soon(client.get("z".into())).await, Ok(None));
    assert_eq!(soon(client.list("p".into(), Some("q".into()), 10)).await, Ok(page()));
    assert_eq!(soon(client.txn(Txn::new().put("a", "1"))).await, Ok(TxnOutcome::Committed(8)));
    host.stop().await;

    let refusal = MetadataError::Unavailable;
    let (host, client, _watchers) = cluster(Some(refusal)).await;
    assert_eq!(soon(client.get("a".into())).await, Err(refusal));
    assert_eq!(soon(client.list("p".into(), Some("q".into()), 10)).await, Err(refusal));
    assert_eq!(soon(client.txn(Txn::new())).await, Err(refusal));
    assert_eq!(soon(client.watch("p".into(), 1)).await.map(drop), Err(refusal));
    host.stop().await;
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_before_and_after_the_way() {
    let (host, client, _watchers) = cluster(None).await;
    assert_eq!(soon(client.get(String::new())).await, Err(MetadataError::Invalid));
    let long = "k".repeat(METADATA_KEY_BYTES_MAX + 1);
    assert_eq!(soon(client.get(long.clone())).await, Err(MetadataError::TooLarge));
    assert_eq!(soon(client.watch(long, 1)).await.map(drop), Err(MetadataError::TooLarge));

    // Each value is legal, all of them are no message: in the request, and in the answer.
    let large = Bytes::from(vec![7; METADATA_VALUE_BYTES_MAX]);
    let puts = (0..20).fold(Txn::new(), |txn, key| txn.put(key.to_string(), large.clone()));
    assert_eq!(soon(client.txn(puts)).await, Err(MetadataError::TooLarge));
    let demand = |keys: u32| (0..keys).fold(Txn::new(), |txn, key| txn.expect(key.to_string(), Precondition::Absent));
    assert_eq!(soon(client.txn(demand(20))).await, Err(MetadataError::TooLarge));
    match soon(client.txn(demand(2))).await {
        Ok(TxnOutcome::Conflict(present)) => assert_eq!(present.len(), 2),
        other => unreachable!("two values fit: {other:?}"),
    }
    host.stop().await;
}

#[tokio::test]
async fn a_store_that_is_not_there_leaves_the_outcome_unknown() {
    let client = GrpcMetadata::connect_lazy(&nobody().await, ClientOptions::default()).expect("an address");
    assert_eq!(soon(client.txn(Txn::new().put("a", "1"))).await, Err(MetadataError::Unknown));
    assert_eq!(soon(client.watch("p".into(), 1)).await.map(drop), Err(MetadataError::Unknown));
}

#[tokio::test]
async fn a_watch_delivers_changes_and_its_last_error() {
    let (host, client, mut watchers) = cluster(None).await;
    let mut watch = soon(client.watch("p".into(), 4)).await.expect("established");
    let (prefix, after, sender) = soon(watchers.recv()).await.expect("the service has the watch");
    assert_eq!((prefix.as_str(), after), ("p", 4));
    let last = Err(MetadataError::Compacted { oldest: 9 });
    for item in [Ok(changes(5)), Ok(Changes { revision: 6, changes: Vec::new() }), last.clone()] {
        sender.send(item.clone()).await.expect("the client listens");
        assert_eq!(soon(watch.recv()).await, Some(item));
    }
    drop(sender);
    assert_eq!(soon(watch.recv()).await, None);
    host.stop().await;
}

#[tokio::test]
async fn a_dropped_watch_releases_the_service_and_a_stop_the_client() {
    let (host, client, mut watchers) = cluster(None).await;
    let dropped = soon(client.watch("p".into(), 4)).await.expect("established");
    let (_, _, sender) = soon(watchers.recv()).await.expect("the service has the watch");
    drop(dropped);
    soon(sender.closed()).await;

    let mut stopped = soon(client.watch("p".into(), 4)).await.expect("established");
    let (_, _, sender) = soon(watchers.recv()).await.expect("the service has the watch");
    host.stop().await;
    assert_eq!(soon(stopped.recv()).await, None);
    soon(sender.closed()).await;
}
