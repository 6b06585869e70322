//! The index of files in RocksDB, without a log of its own: what was not flushed is in the files.

use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, FlushOptions, ReadOptions, WriteBatch};

use super::STATES;
use super::database::refused;
use super::options::RocksOptions;
use super::scan::is_damage;
use crate::store::StoreError;
use crate::store::files::index::{Index, Table, Writes};
use crate::store::scan::{RowError, Rows};

impl Table {
    const fn family(self) -> &'static str {
        match self {
            Self::Batches => "places",
            Self::States => STATES,
            Self::Spans => "spans",
            Self::Files => "files",
            Self::Position => "position",
        }
    }
}

/// An open database.
#[derive(Debug)]
pub(super) struct RocksIndex(DB);

impl RocksIndex {
    /// Opens it, or makes an empty one. Blocks.
    pub(super) fn open(options: &RocksOptions, path: &std::path::Path) -> Result<Self, rocksdb::Error> {
        let mut database = options.database();
        // What a flush leaves must be one moment of all families.
        database.set_atomic_flush(true);
        let families = Table::ALL.map(|table| {
            let family = match table {
                Table::Batches => options.places(),
                Table::States | Table::Spans | Table::Files | Table::Position => options.states(),
            };
            ColumnFamilyDescriptor::new(table.family(), family)
        });
        let default = ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options.states());
        DB::open_cf_descriptors(&database, path, families.into_iter().chain([default])).map(Self)
    }

    pub(super) const fn db(&self) -> &DB {
        &self.0
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.0.cf_handle(table.family()).expect("open creates every family and nothing drops one")
    }

    fn families(&self) -> [&ColumnFamily; Table::ALL.len()] {
        Table::ALL.map(|table| self.family(table))
    }
}

/// Changes and the families that they are for.
pub(super) struct RocksWrites<'a> {
    batch: WriteBatch,
    families: [&'a ColumnFamily; Table::ALL.len()],
}

impl Writes for RocksWrites<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let family = self.families[table as usize];
        self.batch.put_cf(family, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        let family = self.families[table as usize];
        self.batch.delete_cf(family, key);
    }

    fn delete_range(&mut self, table: Table, from: &[u8], until: &[u8]) {
        let family = self.families[table as usize];
        self.batch.delete_range_cf(family, from, until);
    }
}

impl Index for RocksIndex {
    type Writes<'a> = RocksWrites<'a>;
    type Rows<'a> = RocksRows<'a>;

    fn writes(&self, bytes: usize) -> RocksWrites<'_> {
        RocksWrites { batch: WriteBatch::with_capacity_bytes(bytes), families: self.families() }
    }

    fn write(&self, writes: RocksWrites<'_>) -> Result<(), StoreError> {
        self.0.write_without_wal(writes.batch).map_err(refused)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush_cfs_opt(&self.families(), &FlushOptions::default()).map_err(refused)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get_cf(self.family(table), key).map_err(refused)
    }

    fn rows(&self, table: Table, from: &[u8], until: &[u8]) -> RocksRows<'_> {
        rows(&self.0, self.family(table), from, until)
    }
}

/// The rows of a family in `[from, until)`, as of now.
pub(super) fn rows<'a>(db: &'a DB, family: &ColumnFamily, from: &[u8], until: &[u8]) -> RocksRows<'a> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(until);
    RocksRows(db.raw_iterator_cf_opt(family, options))
}

/// Rows of a family.
pub(super) struct RocksRows<'a>(DBRawIterator<'a>);

impl Rows for RocksRows<'_> {
    fn seek(&mut self, key: &[u8]) {
        self.0.seek(key);
    }

    fn seek_for_prev(&mut self, key: &[u8]) {
        self.0.seek_for_prev(key);
    }

    fn next(&mut self) {
        self.0.next();
    }

    fn item(&self) -> Option<(&[u8], &[u8])> {
        self.0.item()
    }

    fn status(&self) -> Result<(), RowError> {
        self.0.status().map_err(|error| match error {
            error if is_damage(&error) => RowError::Damaged,
            error => RowError::Failed(StoreError::Failed { cause: error.into() }),
        })
    }
}
