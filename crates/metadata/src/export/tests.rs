#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost_wire::metadata::Txn;
use proptest::prelude::*;

use bifrost_wire::metadata::{Page, TxnOutcome, WatchStream};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::*;
use crate::MemoryMetadata;

fn export() -> Export {
    let mut keyspace = Keyspace::new();
    keyspace.apply(&Txn::new().put("cluster", "x").put("logs/1", vec![0; 3]));
    keyspace.apply(&Txn::new().put("logs/2", "").delete("cluster"));
    Export { cluster: ClusterId::try_from(7).ok(), keyspace }
}

fn same(one: &Export, other: &Export) -> bool {
    one.cluster == other.cluster
        && one.keyspace.revision() == other.keyspace.revision()
        && one.keyspace.entries().eq(other.keyspace.entries())
}

#[test]
fn the_file_has_its_golden_bytes() {
    let hex: String = export().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("{}/testdata/export.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{hex}\n")).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), hex, "the format changed: {path}");
}

#[test]
fn what_is_written_is_read_and_whatever_is_changed_is_refused() {
    let bytes = export().encode();
    assert!(same(&Export::decode(&bytes).unwrap(), &export()));
    for end in 0..bytes.len() {
        assert!(Export::decode(&bytes[..end]).is_err(), "cut off at {end}");
        let mut changed = bytes.clone();
        changed[end] ^= 1;
        assert!(Export::decode(&changed).is_err(), "changed at {end}");
    }
    assert!(Export::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "one byte more");
    assert_eq!(Export::decode(b"nonsense").err(), Some(ExportError::NotAnExport));
    let mut newer = bytes;
    newer[8] = 9;
    assert_eq!(Export::decode(&newer).err(), Some(ExportError::UnknownVersion { version: 9 }));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let framed = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat();
        for bytes in [bytes, framed] {
            let _refused = Export::decode(&bytes);
        }
    }
}

#[tokio::test]
async fn a_store_is_read_page_by_page_at_one_revision() {
    let store = MemoryMetadata::new();
    for key in 0..5 {
        store.txn(Txn::new().put(format!("k{key}"), vec![1; 600 << 10])).await.unwrap();
    }
    let read = Export::read(&store, None).await.unwrap();
    assert_eq!((read.keyspace.entries().len(), read.keyspace.revision()), (5, 5));
    assert!(same(&Export::decode(&read.encode()).unwrap(), &read));
}

/// A store that somebody writes to after each page, and all that it ever was.
#[derive(Debug)]
struct Busy {
    inner: MemoryMetadata,
    /// What is written after each page; the last one over and over.
    writes: Vec<Vec<(u8, bool)>>,
    /// So many other changes come after each page.
    flood: usize,
    pages: Mutex<usize>,
    history: Mutex<BTreeMap<Revision, BTreeMap<String, Versioned>>>,
}

impl Busy {
    async fn new(writes: Vec<Vec<(u8, bool)>>, flood: usize) -> Self {
        let busy =
            Self { inner: MemoryMetadata::new(), writes, flood, pages: Mutex::new(0), history: Mutex::default() };
        for key in 0..8 {
            busy.write(key, true).await;
        }
        busy
    }

    /// Three values fill a page.
    async fn write(&self, key: u8, there: bool) {
        let key = format!("k{key}");
        let txn = if there { Txn::new().put(key.clone(), vec![7; 400 << 10]) } else { Txn::new().delete(key.clone()) };
        let TxnOutcome::Committed(revision) = self.inner.txn(txn).await.unwrap() else { panic!("no precondition") };
        let value = self.inner.get(key.clone()).await.unwrap();
        let mut history = self.history.lock();
        let mut state = history.last_key_value().map(|(_, state)| state.clone()).unwrap_or_default();
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
        history.insert(revision, state);
    }
}

impl MetadataStore for Busy {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        self.inner.get(key)
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move {
            let page = self.inner.list(prefix, after, limit).await?;
            let writes = {
                let mut pages = self.pages.lock();
                *pages += 1;
                self.writes.get(*pages - 1).or(self.writes.last()).cloned().unwrap_or_default()
            };
            for (key, there) in writes {
                self.write(key, there).await;
            }
            for _ in 0..self.flood {
                self.inner.txn(Txn::new().put("flood", "")).await?;
            }
            Ok(page)
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        self.inner.txn(txn)
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        self.inner.watch(prefix, after)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_store_that_changes_after_each_page_is_read_as_it_was_at_one_revision(
        writes in prop::collection::vec(prop::collection::vec((0..12_u8, any::<bool>()), 0..5), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = Busy::new(writes, 0).await;
            let read = Export::read(&store, None).await.unwrap();
            let history = store.history.lock();
            let entries: BTreeMap<String, Versioned> =
                read.keyspace.entries().map(|(key, value)| (key.to_owned(), value.clone())).collect();
            assert_eq!(history.get(&read.keyspace.revision()), Some(&entries), "no state that the store ever had");
        });
    }
}

#[tokio::test]
async fn a_store_that_changes_by_more_than_its_history_holds_is_refused_after_bounded_attempts() {
    let store = Busy::new(Vec::new(), crate::keyspace::HISTORY_REVISIONS_MAX + 1).await;
    assert_eq!(Export::read(&store, None).await.err(), Some(ReadError::Changing));
    assert!(*store.pages.lock() >= ATTEMPTS as usize);
}
