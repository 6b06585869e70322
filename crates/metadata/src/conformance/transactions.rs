//! Reads, lists and transactions.

use std::sync::Arc;

use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_TXN_ITEMS_MAX, METADATA_VALUE_BYTES_MAX};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Precondition, Txn, TxnOutcome};
use bytes::Bytes;

use super::{answered, committed, conflict, read};
use crate::lossy::{CallKind, Fault, LossyMetadata};

pub(super) async fn a_write_is_read_by_every_later_read(store: &impl MetadataStore) {
    assert_eq!(read(store, "k").await, None, "a new store is empty");
    for value in ["", "one", "two"] {
        let revision = committed(store, Txn::new().put("k", value)).await;
        let read = read(store, "k").await.expect("a written key has a value, also an empty one");
        assert_eq!((read.revision, read.value), (revision, Bytes::from(value)), "a read sees the last write");
    }
    committed(store, Txn::new().delete("k")).await;
    assert_eq!(read(store, "k").await, None, "a read sees the removal");
}

pub(super) async fn preconditions_decide_whether_anything_is_written(store: &impl MetadataStore) {
    let created = committed(store, Txn::new().expect("a", Precondition::Absent).put("a", "1")).await;
    conflict(store, Txn::new().expect("a", Precondition::Absent).put("a", "2")).await;
    conflict(store, Txn::new().expect("a", Precondition::Revision(created + 1)).put("a", "2")).await;
    conflict(store, Txn::new().expect("a", Precondition::Revision(0)).put("a", "2")).await;
    conflict(store, Txn::new().expect("b", Precondition::Revision(created)).put("b", "2")).await;
    // No value has revision 0, so an absent key cannot be mistaken for one (Restate #3265).
    conflict(store, Txn::new().expect("b", Precondition::Revision(0)).put("b", "2")).await;
    // One of many that does not hold is enough, and the demand may concern keys that are not written.
    let half = Txn::new().expect("a", Precondition::Revision(created)).expect("b", Precondition::Revision(1));
    conflict(store, half.put("c", "1").delete("a")).await;
    assert_eq!(read(store, "c").await, None, "a conflict writes nothing");
    assert_eq!(read(store, "a").await.map(|value| value.revision), Some(created), "a conflict removes nothing");
    let both = Txn::new().expect("a", Precondition::Revision(created)).expect("b", Precondition::Absent);
    let revision = committed(store, both.delete("a").put("b", "1").put("c", "2")).await;
    assert_eq!(read(store, "a").await, None);
    for key in ["b", "c"] {
        assert_eq!(read(store, key).await.map(|value| value.revision), Some(revision), "one revision writes all");
    }
}

pub(super) async fn a_conflict_returns_the_present_values(store: &impl MetadataStore) {
    let one = committed(store, Txn::new().put("x", "x1").put("z", "z1")).await;
    let demands = Txn::new()
        .expect("z", Precondition::Revision(one))
        .expect("y", Precondition::Absent)
        .expect("x", Precondition::Absent);
    let present = conflict(store, demands.put("w", "1")).await;
    let keys: Vec<&str> = present.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["z", "y", "x"], "every demanded key, in the order of the demands, and no other");
    let values: Vec<_> =
        present.into_iter().map(|(_, value)| value.map(|value| (value.revision, value.value))).collect();
    assert_eq!(values, [Some((one, Bytes::from("z1"))), None, Some((one, Bytes::from("x1")))]);
}

pub(super) async fn revisions_count_the_transactions_that_write(store: &impl MetadataStore) {
    let first = committed(store, Txn::new().put("a", "1")).await;
    assert!(first >= 1, "0 is before the first");
    assert_eq!(committed(store, Txn::new().put("b", "1").put("c", "1")).await, first + 1, "one for the transaction");
    assert_eq!(committed(store, Txn::new().put("a", "1")).await, first + 2, "the same bytes again are a write");
    conflict(store, Txn::new().expect("a", Precondition::Absent).put("a", "1")).await;
    let reading = Txn::new().expect("b", Precondition::Revision(first + 1));
    assert_eq!(committed(store, reading).await, first + 2, "without writes: the present revision");
    assert_eq!(committed(store, Txn::new()).await, first + 2, "an empty transaction commits");
    assert_eq!(committed(store, Txn::new().delete("a")).await, first + 3, "a removal is a write");
    let page = answered("list", store.list(String::new(), None, 10).await);
    assert_eq!(page.revision, first + 3, "a page tells the revision of the store");
}

pub(super) async fn a_recreated_key_never_repeats_a_revision(store: &impl MetadataStore) {
    let mut last = 0;
    for _ in 0..8 {
        let created = committed(store, Txn::new().expect("k", Precondition::Absent).put("k", "v")).await;
        assert!(created > last, "revision {created} follows {last}");
        let expected = Txn::new().expect("k", Precondition::Revision(created));
        let removed = committed(store, expected.delete("k")).await;
        assert!(removed > created, "revision {removed} follows {created}");
        conflict(store, Txn::new().expect("k", Precondition::Revision(created)).put("k", "late")).await;
        last = removed;
    }
}

pub(super) async fn limits_are_refused_and_nothing_is_done(store: &impl MetadataStore) {
    let before = committed(store, Txn::new().put("a", "1")).await;
    let long = "k".repeat(METADATA_KEY_BYTES_MAX + 1);
    let large = Bytes::from(vec![0; METADATA_VALUE_BYTES_MAX + 1]);
    let many = |keys: usize| (0..keys).fold(Txn::new(), |txn, key| txn.put(format!("many/{key}"), "1"));
    for (why, txn, error) in [
        ("empty key", Txn::new().put("a", "2").put("", "1"), MetadataError::Invalid),
        ("empty demanded key", Txn::new().put("a", "2").expect("", Precondition::Absent), MetadataError::Invalid),
        ("key written twice", Txn::new().put("a", "2").delete("a"), MetadataError::Invalid),
        (
            "key demanded twice",
            Txn::new().put("a", "2").expect("x", Precondition::Absent).expect("x", Precondition::Absent),
            MetadataError::Invalid,
        ),
        ("long key", Txn::new().put("a", "2").put(long.clone(), "1"), MetadataError::TooLarge),
        ("large value", Txn::new().put("a", "2").put("b", large), MetadataError::TooLarge),
        ("many items", many(METADATA_TXN_ITEMS_MAX + 1), MetadataError::TooLarge),
    ] {
        assert_eq!(store.txn(txn).await, Err(error), "{why}");
    }
    assert_eq!(store.get(String::new()).await, Err(MetadataError::Invalid));
    assert_eq!(store.get(long).await, Err(MetadataError::TooLarge));
    assert_eq!(committed(store, Txn::new()).await, before, "a refused transaction does nothing");
    // The limits themselves are allowed.
    let longest = "k".repeat(METADATA_KEY_BYTES_MAX);
    let largest = Bytes::from(vec![7; METADATA_VALUE_BYTES_MAX]);
    let revision = committed(store, Txn::new().put(longest.clone(), largest.clone())).await;
    let value = read(store, &longest).await.expect("written");
    assert_eq!((value.revision, value.value), (revision, largest));
    committed(store, many(METADATA_TXN_ITEMS_MAX)).await;
}

pub(super) async fn a_list_is_ordered_and_knows_its_prefix(store: &impl MetadataStore) {
    let highest = format!("a{}", char::MAX);
    let beyond = format!("a{}z", char::MAX);
    let keys = ["a", "a/", "a/1", "a/1/x", "a/\u{0}", "a0", "aa", "b", highest.as_str(), beyond.as_str(), "ä", "B"];
    for key in keys {
        committed(store, Txn::new().put(key, key.to_owned())).await;
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let list = async |prefix: &str, after: Option<&str>| -> Vec<String> {
        let page = answered("list", store.list(prefix.to_owned(), after.map(str::to_owned), 100).await);
        assert!(!page.more, "everything fits one page");
        for (key, value) in &page.entries {
            assert_eq!(value.value, Bytes::from(key.clone()), "a key comes with its own value");
        }
        page.entries.into_iter().map(|(key, _)| key).collect()
    };
    for prefix in ["", "a", "a/", "a/1", "a0", highest.as_str(), "ä", "c", "\u{10FFFF}"] {
        for after in
            [None, Some("a"), Some("a/"), Some("a/0"), Some("aa"), Some(highest.as_str()), Some("B"), Some("zz")]
        {
            let expected: Vec<&str> = sorted
                .iter()
                .copied()
                .filter(|key| key.starts_with(prefix) && after.is_none_or(|after| *key > after))
                .collect();
            assert_eq!(list(prefix, after).await, expected, "prefix {prefix:?} after {after:?}, in order of bytes");
        }
    }
}

pub(super) async fn a_list_is_paged_by_count_and_by_bytes(store: &impl MetadataStore) {
    for key in 0..10 {
        committed(store, Txn::new().put(format!("n/{key}"), "v")).await;
    }
    for (limit, pages) in [(1, 10), (3, 4), (5, 2), (10, 1), (usize::MAX, 1)] {
        assert_eq!(page_through(store, "n/", limit).await, pages, "10 keys, {limit} on a page");
    }
    let none = answered("list", store.list("n/".into(), None, 0).await);
    assert!(none.entries.is_empty() && none.more, "no room for any, but there are more");
    // 1 MiB of values fits a page, one byte more does not.
    let half = METADATA_VALUE_BYTES_MAX / 2;
    for (key, bytes) in [("h/1", half), ("h/2", half), ("h/3", 1), ("h/4", 2 * half), ("h/5", 1)] {
        committed(store, Txn::new().put(key, vec![1; bytes])).await;
    }
    let mut after = None;
    let mut seen = 0;
    loop {
        let page = answered("list", store.list("h/".into(), after, 100).await);
        let bytes: usize = page.entries.iter().map(|(_, value)| value.value.len()).sum();
        assert!(bytes <= 1 << 20, "a page of {bytes} bytes");
        seen += page.entries.len();
        after = page.entries.last().map(|(key, _)| key.clone());
        assert!(after.is_some(), "a page with more behind it is not empty");
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, 5, "paging by bytes skips and repeats nothing");
}

async fn page_through(store: &impl MetadataStore, prefix: &str, limit: usize) -> usize {
    let (mut pages, mut after, mut keys) = (0, None, Vec::new());
    loop {
        let page = answered("list", store.list(prefix.to_owned(), after, limit).await);
        assert!(page.entries.len() <= limit, "a page holds at most its limit");
        pages += 1;
        after = page.entries.last().map(|(key, _)| key.clone());
        keys.extend(page.entries.into_iter().map(|(key, _)| key));
        if !page.more {
            break;
        }
    }
    assert_eq!(keys, (0..10).map(|key| format!("n/{key}")).collect::<Vec<_>>(), "each key once, in order");
    pages
}

pub(super) async fn a_transaction_is_seen_whole_or_not_at_all<S: MetadataStore + 'static>(store: Arc<S>) {
    const ROUNDS: u32 = 100;
    committed(&*store, Txn::new().put("pair/1", "0").put("pair/2", "0")).await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for round in 1..=ROUNDS {
                let value = round.to_string();
                committed(&*store, Txn::new().put("pair/1", value.clone()).put("pair/2", value)).await;
            }
        }
    });
    let never = Txn::new().expect("pair/1", Precondition::Absent).expect("pair/2", Precondition::Absent);
    let mut newest = 0;
    while newest < ROUNDS {
        let page = answered("list", store.list("pair/".into(), None, 10).await);
        let listed: Vec<_> = page.entries.into_iter().map(|(_, value)| value).collect();
        let refused: Vec<_> =
            conflict(&*store, never.clone()).await.into_iter().filter_map(|(_, value)| value).collect();
        for pair in [listed, refused] {
            let [one, two] = pair.as_slice() else { unreachable!("both keys exist, but {pair:?}") };
            assert_eq!(one, two, "two keys of one transaction, read at one moment");
            let value: u32 = std::str::from_utf8(&one.value).ok().and_then(|text| text.parse().ok()).expect("a number");
            assert!(value >= newest, "a later read saw {value} after {newest}");
            newest = value;
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer ends well");
}

pub(super) async fn concurrent_counters_lose_nothing<S: MetadataStore + 'static>(store: Arc<S>) {
    const TASKS: u64 = 16;
    const INCREMENTS: u64 = 16;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..INCREMENTS {
                    increment(&*store).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task ends well");
    }
    let value = read(&*store, "counter").await.expect("written");
    assert_eq!(value.value, Bytes::copy_from_slice(&(TASKS * INCREMENTS).to_le_bytes()), "no increment is lost");
}

/// Adds one by compare-and-set, starting over from what the conflict returned.
async fn increment(store: &impl MetadataStore) {
    let mut present = read(store, "counter").await;
    loop {
        let (precondition, count) = match &present {
            None => (Precondition::Absent, 0),
            Some(versioned) => {
                let bytes = versioned.value.as_ref().try_into().expect("eight bytes");
                (Precondition::Revision(versioned.revision), u64::from_le_bytes(bytes))
            }
        };
        let txn = Txn::new().expect("counter", precondition).put("counter", (count + 1).to_le_bytes().to_vec());
        match answered("txn", store.txn(txn).await) {
            TxnOutcome::Committed(_) => return,
            TxnOutcome::Conflict(conflict) => present = conflict.into_iter().next().and_then(|(_, value)| value),
        }
    }
}

/// M2: with an id of its own in the value, a caller tells its own success from another's.
pub(super) async fn a_retry_after_a_lost_reply_happens_once(store: impl MetadataStore) {
    const OPERATIONS: u64 = 12;
    let script = |call: &crate::lossy::Call| match (call.kind, call.nth % 4) {
        (CallKind::Txn, 0) => Fault::LoseReply,
        (CallKind::Txn, 1) => Fault::FailBefore(MetadataError::Unknown),
        (CallKind::Txn, 2) => Fault::FailBefore(MetadataError::Unavailable),
        (CallKind::Txn | CallKind::Get | CallKind::List | CallKind::Watch, _) => Fault::None,
    };
    let lossy = LossyMetadata::new(store, Arc::new(script));
    for operation in 0..OPERATIONS {
        let id = format!("op {operation}");
        loop {
            let present = read(&lossy, "done").await;
            let done = present.as_ref().map(|value| value.value.clone()).unwrap_or_default();
            if done.ends_with(id.as_bytes()) {
                break;
            }
            let precondition =
                present.map_or(Precondition::Absent, |versioned| Precondition::Revision(versioned.revision));
            let value = [done.as_ref(), b";", id.as_bytes()].concat();
            match lossy.txn(Txn::new().expect("done", precondition).put("done", value)).await {
                Ok(TxnOutcome::Committed(_)) => break,
                Ok(TxnOutcome::Conflict(_)) | Err(MetadataError::Unknown | MetadataError::Unavailable) => {}
                Err(error) => unreachable!("not an answer of the script: {error}"),
            }
        }
    }
    let expected: String = (0..OPERATIONS).map(|operation| format!(";op {operation}")).collect();
    let done = read(&lossy, "done").await.expect("written").value;
    assert_eq!(done, Bytes::from(expected), "every operation happened once, in order");
}
