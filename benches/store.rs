//! What one group commit costs, in one thread: `cargo bench -p bifrost-benches --bench store`. The ways differ in where the
//! bytes go; each returns when they are on the disk.
//!
//! | way | |
//! |---|---|
//! | `growing_file` | one write at the end of a file, and an fdatasync: the least that an ordinary log costs |
//! | `journal` | the journal alone: files that were written before, past the page cache, with a checksum |
//! | `rocksdb` | a write batch with RocksDB's own log, synced: what a log server does |
//! | `journaled_rocksdb` | a write batch behind a journal: what a metadata member does |
#![allow(missing_docs, reason = "a binary")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bifrost_benches::work;
use bifrost_journal::rocks::JournaledDb;
use bifrost_journal::{Journal, JournalOptions, Position, RealDirectory};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

/// Records of a group, and bytes of each.
const GROUPS: [(usize, usize); 4] = [(1, 1024), (256, 128), (256, 1024), (64, 16 << 10)];
/// A log server stores batches, not records.
const BATCH_BYTES: usize = 64 << 10;
const FILE_BYTES: u64 = 64 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (records, bytes) in GROUPS {
        // Beside the executable: on the disk of the target directory, which is a real one.
        let executable = std::env::current_exe().expect("this binary");
        let below = executable.parent().expect("it lies in a directory");
        let scratch = tempfile::Builder::new().prefix("store-bench").tempdir_in(below).expect("a directory");
        let mut group = criterion.benchmark_group(format!("commit_{records}x{bytes}"));
        group.throughput(Throughput::Elements(records as u64));
        group.sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
        let payload = work::payload(records * bytes);
        growing_file(&mut group, scratch.path(), &payload);
        journal(&mut group, scratch.path(), &payload);
        plain(&mut group, scratch.path(), &payload);
        journaled(&mut group, scratch.path(), &payload);
    }
    criterion.final_summary();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn growing_file(group: &mut Group<'_>, below: &Path, payload: &[u8]) {
    let mut file = File::create(below.join("growing")).expect("a file");
    group.bench_function(BenchmarkId::from_parameter("growing_file"), |bencher| {
        bencher.iter(|| file.write_all(payload).and_then(|()| file.sync_data()).expect("a disk"));
    });
}

fn journal(group: &mut Group<'_>, below: &Path, payload: &[u8]) {
    let path = below.join("journal");
    let directory = RealDirectory::open(&path).expect("a directory");
    let opened = Journal::open(directory, &path, options(), Box::new(|| 1), Position::default(), &mut |_| Ok(()));
    let mut journal = opened.expect("it is new");
    group.bench_function(BenchmarkId::from_parameter("journal"), |bencher| {
        bencher.iter(|| {
            let appended = journal.append(|blocks| blocks.put(payload)).expect("a disk");
            // Nobody needs what is older, so that files are used again.
            journal.release(appended.sequence - 1);
        });
    });
}

fn plain(group: &mut Group<'_>, below: &Path, payload: &[u8]) {
    let db = DB::open(&database(), below.join("rocksdb")).expect("it is new");
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let mut key = 0;
    group.bench_function(BenchmarkId::from_parameter("rocksdb"), |bencher| {
        bencher.iter(|| db.write_opt(batch(&mut key, payload), &synced).expect("a disk"));
    });
}

fn journaled(group: &mut Group<'_>, below: &Path, payload: &[u8]) {
    let opened = JournaledDb::open(&database(), &below.join("journaled"), Vec::new(), options(), Box::new(|| 1));
    let db = opened.expect("it is new");
    let mut key = 0;
    group.bench_function(BenchmarkId::from_parameter("journaled_rocksdb"), |bencher| {
        bencher.iter(|| db.write(batch(&mut key, payload)).expect("a disk"));
    });
}

fn options() -> JournalOptions {
    JournalOptions { file_bytes: FILE_BYTES, ..JournalOptions::default() }
}

/// As a log server sets it: payloads move to blob files at a flush.
fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(FILE_BYTES as usize);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(512);
    options.set_bytes_per_sync(1 << 20);
    options
}

fn batch(key: &mut u64, payload: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for part in payload.chunks(BATCH_BYTES) {
        batch.put(key.to_be_bytes(), part);
        *key += 1;
    }
    batch
}
