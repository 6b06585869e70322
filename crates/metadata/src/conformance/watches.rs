//! Watches: exactly once, in order, without a gap, or an end that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use bifrost_wire::metadata::{Changes, MetadataError, MetadataStore, Revision, Txn, WatchStream};
use bytes::Bytes;
use futures_util::future::join_all;

use super::{answered, committed, read};

pub(super) async fn a_watch_tells_the_present_and_then_every_change(store: &impl MetadataStore) {
    let start = committed(store, Txn::new().put("w/0", "0").put("v", "0")).await;
    let mut stream = answered("watch", store.watch("w/".into(), start).await);
    let one = committed(store, Txn::new().put("w/1", "1")).await;
    committed(store, Txn::new().put("v", "1").put("w", "1").put("w0", "1")).await;
    let two = committed(store, Txn::new().delete("w/1").put("w/2", "2")).await;
    assert_eq!(flat(next_changes(&mut stream).await), [(one, "w/1".into(), Some("1".into()))]);
    let expected = [(two, "w/1".into(), None), (two, "w/2".into(), Some("2".into()))];
    assert_eq!(flat(next_changes(&mut stream).await), expected, "only keys under the prefix");
}

pub(super) async fn a_watch_is_told_all_changes_of_a_revision_together(store: &impl MetadataStore) {
    let start = committed(store, Txn::new().put("a", "0")).await;
    let mut live = answered("watch", store.watch(String::new(), start).await);
    let revision = committed(store, Txn::new().put("b", "1").put("c", "1").delete("a")).await;
    let mut resumed = answered("watch", store.watch(String::new(), start).await);
    for stream in [&mut live, &mut resumed] {
        let mut changes = next_changes(stream).await;
        changes.changes.sort_by(|one, two| one.key.cmp(&two.key));
        let expected: Vec<(Revision, String, Option<Bytes>)> = vec![
            (revision, "a".into(), None),
            (revision, "b".into(), Some("1".into())),
            (revision, "c".into(), Some("1".into())),
        ];
        assert_eq!(flat(changes), expected, "an empty prefix watches every key");
    }
}

pub(super) async fn a_watch_resumes_from_every_retained_revision<S: MetadataStore + 'static>(store: Arc<S>) {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 24;
    let start = committed(&*store, Txn::new().put("other", "0")).await;
    let early = answered("watch", store.watch("k/".into(), start).await);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for write in 0..WRITES {
                    let txn = Txn::new().put(format!("k/{writer}"), write.to_string()).put("other", "1");
                    revisions.push(committed(&*store, txn).await);
                }
                revisions
            })
        })
        .collect();
    // Subscribes while they write: what history gives and what is pushed must meet without a gap or an overlap.
    let racing = answered("watch", store.watch("k/".into(), start).await);
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.extend(writer.await.expect("a writer ends well"));
    }
    revisions.sort_unstable();
    for mut stream in [early, racing] {
        assert_eq!(delivered(&mut stream, revisions.len()).await, revisions, "every revision once, in order");
    }
    for (index, after) in revisions.iter().enumerate() {
        let rest = revisions.get(index + 1..).unwrap_or_default();
        let mut stream = answered("watch", store.watch("k/".into(), *after).await);
        assert_eq!(delivered(&mut stream, rest.len()).await, rest, "resumed after {after}");
    }
}

pub(super) async fn a_slow_watch_misses_nothing_or_is_told(store: &impl MetadataStore) {
    const GROUPS: usize = 50;
    const GROUP: usize = 100;
    let start = committed(store, Txn::new().put("s/start", "0")).await;
    let mut stream = answered("watch", store.watch("s/".into(), start).await);
    let mut written = Vec::new();
    for _ in 0..GROUPS {
        // Together, so that a store with an fsync behind it may group them.
        written.extend(join_all((0..GROUP).map(|_| committed(store, Txn::new().put("s/k", "1")))).await);
    }
    written.sort_unstable();
    let mut expected = written.iter();
    let mut seen = start;
    while seen < *written.last().expect("not empty") {
        match stream.recv().await {
            Some(Ok(changes)) => {
                for change in changes.changes {
                    assert_eq!(Some(&change.revision), expected.next(), "no revision is skipped");
                }
                seen = seen.max(changes.revision);
            }
            Some(Err(MetadataError::Compacted { oldest })) => {
                assert!(oldest > start, "history is gone, so it began after this watch");
                assert_eq!(stream.recv().await, None, "it is the last item");
                let again = store.watch("s/".into(), start).await;
                assert!(ends_compacted(again).await, "what is gone cannot be resumed from");
                break;
            }
            Some(Err(error)) => unreachable!("a watch does not end with {error}"),
            None => {
                // The connection is gone: resume.
                stream = match store.watch("s/".into(), seen).await {
                    Ok(resumed) => resumed,
                    Err(MetadataError::Compacted { .. }) => break,
                    Err(error) => unreachable!("a watch is not refused with {error}"),
                };
            }
        }
    }
    // List and watch from there, as the error says.
    let page = answered("list", store.list("s/".into(), None, 10).await);
    let mut stream = answered("watch", store.watch("s/".into(), page.revision).await);
    let revision = committed(store, Txn::new().put("s/k", "end")).await;
    assert_eq!(delivered(&mut stream, 1).await, [revision]);
}

async fn ends_compacted(watch: Result<WatchStream, MetadataError>) -> bool {
    match watch {
        Ok(mut stream) => loop {
            match stream.recv().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return matches!(error, MetadataError::Compacted { .. }),
                None => return false,
            }
        },
        Err(error) => matches!(error, MetadataError::Compacted { .. }),
    }
}

pub(super) async fn a_dropped_watch_hinders_nobody(store: &impl MetadataStore) {
    let start = committed(store, Txn::new().put("d", "0")).await;
    let mut kept = answered("watch", store.watch("d".into(), start).await);
    for _ in 0..32 {
        drop(answered("watch", store.watch("d".into(), start).await));
        committed(store, Txn::new().put("d", "1")).await;
    }
    assert_eq!(delivered(&mut kept, 32).await.len(), 32);
    assert!(read(store, "d").await.is_some());
}

/// The next item that has changes; empty ones tell the revision only.
async fn next_changes(stream: &mut WatchStream) -> Changes {
    loop {
        match stream.recv().await {
            Some(Ok(changes)) if changes.changes.is_empty() => {}
            Some(Ok(changes)) => return changes,
            Some(Err(error)) => unreachable!("the watch ended with {error}"),
            None => unreachable!("the watch ended"),
        }
    }
}

/// Revisions of the next `count` items with changes. Checks their order, also against items that have none.
async fn delivered(stream: &mut WatchStream, count: usize) -> Vec<Revision> {
    let mut revisions = Vec::new();
    let mut told = 0;
    while revisions.len() < count {
        let changes = next_changes(stream).await;
        assert!(changes.revision > told, "revision {} was told after {told}", changes.revision);
        told = changes.revision;
        let keys: BTreeMap<_, _> = changes.changes.iter().map(|change| (&change.key, &change.value)).collect();
        assert_eq!(keys.len(), changes.changes.len(), "a key changes once in a revision");
        assert!(changes.changes.iter().all(|change| change.revision == changes.revision));
        revisions.push(changes.revision);
    }
    revisions
}

fn flat(changes: Changes) -> Vec<(Revision, String, Option<Bytes>)> {
    changes.changes.into_iter().map(|change| (change.revision, change.key, change.value)).collect()
}
