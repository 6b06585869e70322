#![allow(clippy::unwrap_used)]

use super::memory::MemoryEngine;
use super::*;

fn put(key: &'static str, value: &'static str, lazy: bool) -> Batch {
    let mut batch = if lazy { Batch::lazy() } else { Batch::new() };
    batch.put(key.as_bytes(), value.as_bytes());
    batch
}

fn keys(engine: &impl LogEngine) -> Vec<String> {
    let records = engine.range(b"", b"zz", usize::MAX).unwrap();
    records.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

/// What every engine does.
async fn contract(engine: &impl LogEngine) {
    let mut batch = Batch::new();
    for key in ["a1", "a2", "a3", "b1", "b2"] {
        batch.put(key.as_bytes(), key.as_bytes());
    }
    engine.write(batch).await.unwrap();
    assert_eq!(engine.get(b"a2").unwrap().unwrap(), "a2");
    assert_eq!(engine.get(b"a").unwrap(), None);
    assert_eq!(engine.range(b"a2", b"b2", usize::MAX).unwrap().len(), 3, "the end is not in the range");
    assert_eq!(engine.range(b"a1", b"b9", 3).unwrap().len(), 2, "ends with the record that reaches the limit");
    assert_eq!(engine.range(b"a1", b"b9", 0).unwrap().len(), 1, "one record at least");
    assert!(engine.range(b"b", b"a", usize::MAX).unwrap().is_empty(), "no range at all");
    let mut batch = Batch::new();
    batch.delete_range(b"a".as_slice(), b"b".as_slice());
    batch.put(b"a2".as_slice(), b"new".as_slice());
    batch.delete(b"b1".as_slice());
    batch.delete(b"none".as_slice());
    engine.write(batch).await.unwrap();
    assert_eq!(keys(engine), ["a2", "b2"], "the changes of a batch happen in their order");
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(&MemoryEngine::new()).await;
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn rocksdb_keeps_the_contract_and_what_was_written() {
    let dir = tempfile::TempDir::new().unwrap();
    let engine = rocks::RocksEngine::open(dir.path()).unwrap();
    contract(&engine).await;
    engine.write(put("c", "c", true)).await.unwrap();
    let second = rocks::RocksEngine::open(dir.path());
    assert!(matches!(second, Err(rocks::RocksOpenError::InUse { .. })), "one at a time");
    drop(engine);
    let engine = rocks::RocksEngine::open(dir.path()).unwrap();
    assert_eq!(keys(&engine), ["a2", "b2", "c"]);
}

#[tokio::test]
async fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    for kept in 0..=3 {
        let engine = MemoryEngine::new();
        engine.write(put("a", "", true)).await.unwrap();
        engine.write(put("b", "", false)).await.unwrap();
        assert_eq!(engine.unsynced(), 0, "a sync covers what came before it");
        for key in ["c", "d", "e"] {
            engine.write(put(key, "", true)).await.unwrap();
        }
        engine.crash(kept);
        assert_eq!(keys(&engine), ["a", "b", "c", "d", "e"][..2 + kept]);
    }
}

#[tokio::test]
async fn a_machine_that_stops_in_a_write_does_not_answer_it() {
    for kept in 0..=1 {
        let engine = MemoryEngine::new();
        engine.stop_after(1);
        engine.write(put("a", "", false)).await.unwrap();
        assert!(engine.write(put("b", "", false)).await.is_err());
        assert!(engine.get(b"a").is_err(), "nothing is answered any more");
        assert!(engine.write(put("c", "", false)).await.is_err());
        engine.crash(kept);
        assert_eq!(keys(&engine), ["a", "b"][..1 + kept]);
    }
}
