#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use bifrost_types::limits::BATCH_RECORDS_MAX;
use tempfile::TempDir;

use super::*;
use crate::copy::DurableState;
use crate::store::conformance::{self, Lives};
use crate::store::scan::distance_after;
use crate::testing::*;

const ENGINES: [Engine; 2] = [Engine::Files, Engine::RocksDb];

fn with(engine: Engine) -> RocksOptions {
    RocksOptions { engine, ..RocksOptions::default() }
}

struct Directory(TempDir, Engine);

impl Lives for Directory {
    type Store = RocksStore;

    async fn open(&mut self) -> RocksStore {
        RocksStore::open(self.0.path(), &with(self.1)).unwrap()
    }

    async fn close(&mut self, store: RocksStore) {
        drop(store);
    }
}

fn appends(count: u64) -> Group {
    let mut group = Group::default();
    for first_offset in 1..=count {
        group.push(Change::Append { loglet: loglet(1, 0), batch: placed(first_offset, 1) });
    }
    group
}

#[tokio::test]
async fn the_contract_holds() {
    for engine in ENGINES {
        conformance::run(&mut Directory(TempDir::new().unwrap(), engine)).await;
    }
}

#[tokio::test]
async fn a_directory_goes_on_with_the_engine_that_it_began_with() {
    for engine in ENGINES {
        let directory = TempDir::new().unwrap();
        for (life, wanted) in [engine, Engine::Files, Engine::RocksDb].into_iter().enumerate() {
            let store = RocksStore::open(directory.path(), &with(wanted)).unwrap();
            let files = store.shared.with_open(|database| Ok(database.files().is_some())).unwrap();
            assert_eq!(files, engine == Engine::Files, "life {life}");
            store.commit(appends(3)).await.unwrap();
            let chunk = store.read(loglet(1, 0), at(1), at(4), usize::MAX).await.unwrap();
            assert_eq!(chunk.parts, [1, 2, 3].map(|first| Stored::Batch(placed(first, 1))));
        }
    }
}

#[tokio::test]
async fn files_with_records_may_be_on_another_disk() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), directory.path().join(RECORDS)).unwrap();
    for _ in 0..2 {
        let store = RocksStore::open(directory.path(), &RocksOptions::default()).unwrap();
        store.commit(appends(3)).await.unwrap();
        assert_eq!(store.read(loglet(1, 0), at(1), at(4), usize::MAX).await.unwrap().parts.len(), 3);
    }
    assert!(!files(elsewhere.path(), ".journal").is_empty());
}

#[tokio::test]
async fn a_directory_in_use_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let store = RocksStore::open(directory.path(), &RocksOptions::default()).unwrap();
    match RocksStore::open(directory.path(), &RocksOptions::default()).unwrap_err() {
        OpenError::InUse { directory: named } => assert_eq!(named, directory.path()),
        other => panic!("{other:?}"),
    }
    drop(store);
    RocksStore::open(directory.path(), &RocksOptions::default()).unwrap();
}

#[test]
fn options_out_of_bounds_are_refused() {
    let options = RocksOptions { write_buffer_bytes: 0, ..RocksOptions::default() };
    assert_eq!(options.validate().unwrap_err().option, "write_buffer_bytes");
    assert!(matches!(RocksStore::open(Path::new("/nowhere"), &options), Err(OpenError::Options(_))));
}

/// Puts a value as it is, past the format.
fn put(store: &RocksStore, name: &str, key: &[u8], value: &[u8]) {
    store.shared.with(|db| Ok(db.put_cf(family(db, name), key, value))).unwrap().unwrap();
}

/// A value of a batch as it is.
fn raw(store: &RocksStore, key: &[u8]) -> Vec<u8> {
    store.shared.with(|db| Ok(db.get_cf(family(db, BATCHES), key).unwrap().unwrap())).unwrap()
}

#[tokio::test]
async fn a_flipped_bit_in_a_value_is_damage_and_the_rest_is_read() {
    let directory = TempDir::new().unwrap();
    let store = RocksStore::open(directory.path(), &with(Engine::RocksDb)).unwrap();
    store.commit(appends(5)).await.unwrap();
    let key = format::batch_key(loglet(1, 0), at(3));
    let value = raw(&store, &key);
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(&store, BATCHES, &key, &flipped);
        let chunk = store.read(loglet(1, 0), at(1), at(6), usize::MAX).await.unwrap();
        let expected = vec![
            Stored::Batch(placed(1, 1)),
            Stored::Batch(placed(2, 1)),
            Stored::Damaged { first_offset: at(3), end: at(4) },
            Stored::Batch(placed(4, 1)),
            Stored::Batch(placed(5, 1)),
        ];
        assert_eq!(chunk, Chunk { parts: expected, covered_until: at(6) }, "bit {bit}");
        let inside = store.read(loglet(1, 0), at(3), at(4), usize::MAX).await.unwrap();
        assert_eq!(inside.parts, vec![Stored::Damaged { first_offset: at(3), end: at(4) }]);
    }
}

#[tokio::test]
async fn a_value_under_another_key_is_damage() {
    let directory = TempDir::new().unwrap();
    let store = RocksStore::open(directory.path(), &with(Engine::RocksDb)).unwrap();
    store.commit(appends(1)).await.unwrap();
    let value = raw(&store, &format::batch_key(loglet(1, 0), at(1)));
    put(&store, BATCHES, &format::batch_key(loglet(2, 0), at(7)), &value);
    let chunk = store.read(loglet(2, 0), at(1), at(9), usize::MAX).await.unwrap();
    assert_eq!(chunk.parts, vec![Stored::Damaged { first_offset: at(7), end: at(9) }]);
}

#[tokio::test]
async fn a_damaged_state_is_refused_when_the_store_is_opened() {
    let directory = TempDir::new().unwrap();
    let store = RocksStore::open(directory.path(), &RocksOptions::default()).unwrap();
    let key = format::loglet_key(loglet(1, 0));
    let value = format::encode_state(&key, &DurableState::EMPTY);
    for bit in 0..value.len() * 8 {
        let mut flipped = value;
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(&store, STATES, &key, &flipped);
        assert!(matches!(store.recover().await, Err(StoreError::Corrupt { .. })), "bit {bit}");
    }
}

/// What is in memory goes to files.
fn flush(store: &RocksStore) {
    let flushed = store.shared.with_open(|database| match database.files() {
        Some((files, _)) => files.checkpoint(),
        None => {
            let db = database.db();
            db.flush_cf(family(db, BATCHES)).map_err(database::refused)
        }
    });
    flushed.unwrap();
}

/// Every file of a directory whose name ends so.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
}

#[tokio::test]
async fn rotten_files_are_damage_or_a_typed_refusal_and_never_a_panic() {
    let records = 400_u64;
    let batches = || (0..records).map(|index| placed_with(1 + index, 1, &"x".repeat(600)));
    let (db, records_of) = (DIRECTORY, RECORDS);
    let rotten = [
        (Engine::RocksDb, db, ".blob"),
        (Engine::RocksDb, db, ".sst"),
        (Engine::Files, db, ".sst"),
        (Engine::Files, records_of, "1.journal"),
    ];
    for (engine, below, suffix) in rotten {
        for step in 0..12_usize {
            let directory = TempDir::new().unwrap();
            let store = RocksStore::open(directory.path(), &with(engine)).unwrap();
            let mut group = Group::default();
            batches().for_each(|batch| group.push(Change::Append { loglet: loglet(1, 0), batch }));
            store.commit(group).await.unwrap();
            flush(&store);
            drop(store);
            for path in files(&directory.path().join(below), suffix) {
                let mut bytes = fs::read(&path).unwrap();
                let place = bytes.len() * step / 12;
                bytes[place] ^= 0x10;
                fs::write(&path, bytes).unwrap();
            }
            let store = match RocksStore::open(directory.path(), &with(engine)) {
                Ok(store) => store,
                Err(OpenError::Damaged { .. } | OpenError::Failed { .. }) => continue,
                Err(other) => panic!("{other:?}"),
            };
            check_damage(&store, records, batches().map(Stored::Batch).collect()).await;
        }
    }
}

/// Whatever is delivered is right, and whatever is not is said to be damaged.
async fn check_damage(store: &RocksStore, records: u64, written: Vec<Stored>) {
    let end = at(1 + records);
    let mut from = at(1);
    while from < end {
        let chunk = store.read(loglet(1, 0), from, end, 1 << 16).await.unwrap();
        let mut covered = from;
        for part in chunk.parts {
            assert!(part.first_offset() <= covered, "a silent hole before {part:?}");
            if matches!(part, Stored::Batch(_)) {
                assert!(written.contains(&part), "not what was written: {part:?}");
            }
            covered = covered.max(part.end());
        }
        assert!(covered >= chunk.covered_until, "a silent hole before {:?}", chunk.covered_until);
        assert!(chunk.covered_until > from, "no progress at {from}");
        from = chunk.covered_until;
    }
}

#[tokio::test]
async fn damage_behind_a_torn_tail_of_the_wal_is_refused() {
    for engine in ENGINES {
        let directory = TempDir::new().unwrap();
        let records = directory.path().join("records/0000000001.journal");
        let store = RocksStore::open(directory.path(), &with(engine)).unwrap();
        store.commit(appends(20)).await.unwrap();
        // The first group of a file wants a checkpoint, which is over when the store is closed, and no later one does.
        drop(store);
        let store = RocksStore::open(directory.path(), &with(engine)).unwrap();
        let before = fs::read(&records).unwrap_or_default();
        store.commit(appends(20)).await.unwrap();
        let after = fs::read(&records).unwrap_or_default();
        for _ in 0..2 {
            store.commit(appends(20)).await.unwrap();
        }
        // As a crash leaves it: nothing but the WAL.
        let copy = TempDir::new().unwrap();
        for below in ["db", "records"] {
            let [from, to] = [directory.path(), copy.path()].map(|root| root.join(below));
            fs::create_dir_all(&to).unwrap();
            let Ok(entries) = fs::read_dir(&from) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                if !path.ends_with("LOCK") {
                    fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        let (log, at) = match engine {
            Engine::Files => {
                let second = before.iter().zip(&after).position(|(before, after)| before != after).unwrap();
                (copy.path().join("records/0000000001.journal"), second + 100)
            }
            Engine::RocksDb => (files(&copy.path().join(DIRECTORY), ".log").pop().unwrap(), 100),
        };
        let mut bytes = fs::read(&log).unwrap();
        bytes[at] ^= 1;
        fs::write(&log, bytes).unwrap();
        match RocksStore::open(copy.path(), &with(engine)) {
            Err(OpenError::Damaged { .. }) => {}
            other => panic!("{engine:?}: acknowledged groups behind the damage were dropped silently: {other:?}"),
        }
    }
}

#[test]
fn the_claim_of_unreadable_ranges_is_bounded() {
    assert_eq!(distance_after(LogletOffset::MAX, BATCH_RECORDS_MAX.into()), LogletOffset::MAX);
}

mod directory {
    use super::*;

    /// Names and contents of everything in a directory.
    fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(contents(&path));
            } else {
                found.push((path.clone(), fs::read(path).unwrap()));
            }
        }
        found.sort();
        found
    }

    fn refused(directory: &Path) -> OpenError {
        RocksStore::open(directory, &RocksOptions::default()).unwrap_err()
    }

    #[test]
    fn a_file_is_no_directory() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(refused(&path), OpenError::NotADirectory { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn foreign_files_are_refused_and_left_alone() {
        let root = TempDir::new().unwrap();
        fs::write(root.path().join("thesis.txt"), "mine").unwrap();
        let before = contents(root.path());
        match refused(root.path()) {
            OpenError::Foreign { entry, .. } => assert_eq!(entry, Path::new("thesis.txt")),
            other => panic!("{other:?}"),
        }
        assert_eq!(contents(root.path()), before);
    }

    #[test]
    fn what_a_file_system_or_an_owner_puts_beside_the_store_is_no_matter() {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        drop(RocksStore::open(root.path(), &RocksOptions::default()).unwrap());
        fs::write(root.path().join("README"), "the disk of rack 7").unwrap();
        RocksStore::open(root.path(), &RocksOptions::default()).unwrap();
    }

    #[test]
    fn a_store_that_was_removed_under_its_marker_is_not_served_as_empty() {
        let root = TempDir::new().unwrap();
        fs::write(root.path().join(crate::Marker::FILE), "whatever").unwrap();
        let before = contents(root.path());
        assert!(matches!(refused(root.path()), OpenError::StoreMissing { .. }));
        assert_eq!(contents(root.path()), before);
    }

    #[tokio::test]
    async fn a_state_of_a_newer_build_is_told_from_damage() {
        let root = TempDir::new().unwrap();
        let store = RocksStore::open(root.path(), &RocksOptions::default()).unwrap();
        let key = format::loglet_key(loglet(1, 0));
        let mut value = format::encode_state(&key, &DurableState::EMPTY).to_vec();
        let body = value.len() - 4;
        value[0] += 1;
        let newer = value[0];
        let crc = bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(&key), &value[..body]);
        value[body..].copy_from_slice(&crc.to_le_bytes());
        put(&store, STATES, &key, &value);
        assert!(matches!(store.recover().await, Err(StoreError::NewerFormat { found }) if found == newer));
    }
}
