#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;

const SMALL: JournalOptions =
    JournalOptions { file_bytes: 64 << 10, prepares_ahead: true, keeps_files: false, reused_bytes: 0 };

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options
}

fn open(directory: &Path) -> JournaledDb {
    try_open(directory).unwrap()
}

fn try_open(directory: &Path) -> Result<JournaledDb, DbOpenError> {
    let more = vec![ColumnFamilyDescriptor::new("more", Options::default())];
    JournaledDb::open(&options(), directory, more, SMALL, Box::new(|| 7))
}

fn put(db: &JournaledDb, key: u32, value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    batch.put(key.to_be_bytes(), value);
    batch.put_cf(db.db().cf_handle("more").unwrap(), key.to_be_bytes(), value);
    batch
}

/// What kill -9 leaves: the files as they are.
fn copy(from: &Path) -> io::Result<TempDir> {
    let to = TempDir::new()?;
    copy_into(from, to.path())?;
    Ok(to)
}

fn copy_into(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            fs::create_dir(&target)?;
            copy_into(&source, &target)?;
        } else if entry.file_name() != "LOCK" {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}

fn has(db: &JournaledDb, keys: impl IntoIterator<Item = u32>, value: &[u8]) {
    let more = db.db().cf_handle("more").unwrap();
    for key in keys {
        assert_eq!(db.db().get(key.to_be_bytes()).unwrap().as_deref(), Some(value), "{key}");
        assert_eq!(db.db().get_cf(more, key.to_be_bytes()).unwrap().as_deref(), Some(value), "{key}");
    }
}

#[test]
fn what_was_written_is_there_after_a_kill_and_the_journal_stays_small() {
    let directory = TempDir::new().unwrap();
    let db = open(directory.path());
    let value = [7; 3000];
    for key in 0..300 {
        db.write(put(&db, key, &value)).unwrap();
        if key % 25 == 0 {
            // Files that change while they are copied may not open; what opens has everything.
            let killed = (0..100).find_map(|_| {
                let copy = copy(directory.path()).ok()?;
                try_open(copy.path()).ok().map(|db| (db, copy))
            });
            let (killed, _copy) = killed.expect("one of a hundred copies is whole");
            has(&killed, 0..=key, &value);
        }
    }
    // Flushes take their time; what they made free goes with the groups after them.
    let mut keys = 300..2000;
    while fs::read_dir(directory.path().join(DIRECTORY)).unwrap().count() > 10 {
        db.write(put(&db, keys.next().expect("files are given back"), &value)).unwrap();
    }
    drop(db);
    has(&open(directory.path()), 0..keys.start, &value);
}

#[test]
fn a_lazy_batch_is_visible_at_once_and_durable_with_the_next() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions { prepares_ahead: false, ..SMALL };
    let open = |directory: &Path| {
        let more = vec![ColumnFamilyDescriptor::new("more", Options::default())];
        JournaledDb::open(&super::tests::options(), directory, more, options, Box::new(|| 7)).unwrap()
    };
    let db = open(directory.path());
    db.write(put(&db, 1, b"durable")).unwrap();
    db.write_lazily(put(&db, 2, b"lazy")).unwrap();
    has(&db, [2], b"lazy");
    let killed = copy(directory.path()).unwrap();
    let killed = open(killed.path());
    has(&killed, [1], b"durable");
    assert_eq!(killed.db().get(2_u32.to_be_bytes()).unwrap(), None);
    db.write(put(&db, 3, b"durable")).unwrap();
    let killed = copy(directory.path()).unwrap();
    let killed = open(killed.path());
    has(&killed, [1, 3], b"durable");
    has(&killed, [2], b"lazy");
    db.write_lazily(put(&db, 4, b"lazy")).unwrap();
    drop(db);
    has(&open(directory.path()), [2, 4], b"lazy");
}

#[test]
fn a_database_that_had_no_journal_goes_on_with_one_and_never_without() {
    let directory = TempDir::new().unwrap();
    let options = options();
    let before = DB::open(&options, directory.path()).unwrap();
    before.put(1_u32.to_be_bytes(), b"before").unwrap();
    drop(before);
    let db = open(directory.path());
    assert_eq!(db.db().get(1_u32.to_be_bytes()).unwrap().as_deref(), Some(b"before".as_slice()));
    db.write(put(&db, 2, b"after")).unwrap();
    drop(db);
    let refused = DB::open(&options, directory.path());
    assert!(refused.is_err_and(|error| error.as_ref().contains("Column families not opened")));
    has(&open(directory.path()), [2], b"after");
    fs::remove_dir_all(directory.path().join(DIRECTORY)).unwrap();
    let refused = try_open(directory.path());
    let damage = crate::Damage::Ends { known: 1, last: None };
    assert!(matches!(refused, Err(DbOpenError::Journal(OpenError::Damaged { damage: found, .. })) if found == damage));
}
