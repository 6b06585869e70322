//! What one group commit costs, in one thread: `cargo bench -p bifrost-benches --bench store`. The ways differ in where the
//! bytes go; each returns when they are on the disk.
//!
//! | way | |
//! |---|---|
//! | `growing_file` | one write at the end of a file, and an fdatasync: the least that an ordinary log costs |
//! | `journal` | the journal alone: files that were written before, past the page cache, with a checksum |
//! | `growing_journal` | the same with nothing released: each of its files is new, and filled with zeros meanwhile |
//! | `files` | what a log server does: files that were written before, and an index in RocksDB |
//! | `rocksdb` | what it does with the other engine: a write batch with RocksDB's own log, synced |
//! | `journaled_rocksdb` | a write batch behind a journal: what a metadata member does |
#![allow(missing_docs, reason = "a binary")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bifrost_benches::work;
use bifrost_journal::rocks::JournaledDb;
use bifrost_journal::{Journal, JournalOptions, Position, RealDirectory};
use bifrost_logserver::store::{Change, Group, LogStore, PlacedBatch};
use bifrost_logserver::{Engine, RocksOptions, RocksStore};
use bifrost_types::{LogletId, LogletOffset};
use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use futures_util::FutureExt;
use rocksdb::{Options, WriteBatch};

/// Records of a group, and bytes of each.
const GROUPS: [(usize, usize); 5] = [(1, 1024), (256, 128), (120, 1024), (256, 1024), (64, 16 << 10)];
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
        let mut measured = criterion.benchmark_group(format!("commit_{records}x{bytes}"));
        measured.throughput(Throughput::Elements(records as u64));
        measured.sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
        let payload = work::payload(records * bytes);
        growing_file(&mut measured, scratch.path(), &payload);
        journal(&mut measured, scratch.path(), &payload, true);
        journal(&mut measured, scratch.path(), &payload, false);
        log_server(&mut measured, scratch.path(), Engine::Files, &payload, bytes);
        log_server(&mut measured, scratch.path(), Engine::RocksDb, &payload, bytes);
        journaled(&mut measured, scratch.path(), &payload);
    }
    criterion.final_summary();
}

type Measured<'a> = BenchmarkGroup<'a, WallTime>;

fn growing_file(measured: &mut Measured<'_>, below: &Path, payload: &[u8]) {
    let mut file = File::create(below.join("growing")).expect("a file");
    measured.bench_function(BenchmarkId::from_parameter("growing_file"), |bencher| {
        bencher.iter(|| file.write_all(payload).and_then(|()| file.sync_data()).expect("a disk"));
    });
}

fn journal(measured: &mut Measured<'_>, below: &Path, payload: &[u8], releases: bool) {
    let name = if releases { "journal" } else { "growing_journal" };
    let path = below.join(name);
    let directory = RealDirectory::open(&path).expect("a directory");
    let opened = Journal::open(directory, &path, options(), Box::new(|| 1), Position::default(), &mut |_| Ok(()));
    let mut journal = opened.expect("it is new");
    measured.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter(|| {
            let appended = journal.append(|blocks| blocks.put(payload)).expect("a disk");
            if releases {
                // Nobody needs what is older, so that files are used again.
                journal.release(appended.sequence - 1);
            }
        });
    });
}

fn log_server(measured: &mut Measured<'_>, below: &Path, engine: Engine, payload: &Bytes, record_bytes: usize) {
    let options = RocksOptions { engine, ..RocksOptions::default() };
    let name = match engine {
        Engine::Files => "files",
        Engine::RocksDb => "rocksdb",
    };
    let store = RocksStore::open(&below.join(name), &options).expect("it is new");
    let loglet: LogletId = "1_0".parse().expect("a loglet");
    let mut next = LogletOffset::FIRST;
    measured.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter(|| {
            let mut group = Group::default();
            for at in (0..payload.len()).step_by(BATCH_BYTES) {
                let bytes = payload.slice(at..payload.len().min(at + BATCH_BYTES));
                let end = next.advance((bytes.len() / record_bytes) as u64).expect("in range");
                let batch = PlacedBatch::new(std::mem::replace(&mut next, end), end, bytes);
                group.push(Change::Append { loglet, batch });
            }
            store.commit(group).now_or_never().expect("it waits for the disk only").expect("a disk");
        });
    });
}

fn journaled(measured: &mut Measured<'_>, below: &Path, payload: &[u8]) {
    let opened = JournaledDb::open(&database(), &below.join("journaled"), Vec::new(), options(), Box::new(|| 1));
    let db = opened.expect("it is new");
    let mut key = 0;
    measured.bench_function(BenchmarkId::from_parameter("journaled_rocksdb"), |bencher| {
        bencher.iter(|| db.write(batch(&mut key, payload)).expect("a disk"));
    });
}

fn options() -> JournalOptions {
    JournalOptions { file_bytes: FILE_BYTES, ..JournalOptions::default() }
}

/// Payloads move to blob files at a flush.
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
