//! Flipped bits on the disks of log servers and on the wire: readers get every record from another copy, the damage is
//! reported, nothing panics and nothing damaged is delivered (L6, R2).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use bifrost::local_node::NodeError;
use bifrost::{Appender, Bifrost, Log, LogOptions, Lsn, ReadEvent, ReadOptions, TailKind};
use bifrost_logserver::{Engine, OpenError, RocksOptions};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterError, LocalClusterOptions};
use bifrost_node::server::ServerError;
use bifrost_types::limits::SHARED_BATCH_BYTES;
use bytes::Bytes;
use futures_util::StreamExt;
use rand::RngExt;
use tokio::time::timeout;

use crate::copies::contents;
use crate::counters::Counters;
use crate::faults::{Faults, rng_of, seed_of};
use crate::support::files::copy;

/// Begins every payload; what follows up to the next slash is the number of the record.
const PATTERN: &[u8] = b"bifrost-corruption/";
const PAYLOAD_BYTES: usize = 2000;
const NUMBER_DIGITS: usize = 8;
/// No batch has so many of these records: two that are so far apart are in different ones.
const APART: usize = SHARED_BATCH_BYTES / PAYLOAD_BYTES + 1;
/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn payload(number: usize) -> Bytes {
    let mut payload = PATTERN.to_vec();
    payload.extend(format!("{number:0NUMBER_DIGITS$}").into_bytes());
    payload.resize(PAYLOAD_BYTES, b'a' + u8::try_from(number % 26).unwrap());
    payload.into()
}

/// Appends records `[from, to)` and waits for all of them.
async fn append(appender: &Appender, from: usize, to: usize) -> anyhow::Result<Vec<Lsn>> {
    let mut tickets = Vec::new();
    for number in from..to {
        tickets.push(appender.reserve(PAYLOAD_BYTES).await?.send(payload(number)));
    }
    let acknowledged = futures_util::future::try_join_all(tickets);
    Ok(timeout(PATIENCE, acknowledged).await.context("appends hang")??)
}

/// Reads the whole log and requires exactly the first `records` records, in order.
async fn require_all(log: &Log, records: usize) -> anyhow::Result<()> {
    let tail = timeout(PATIENCE, log.find_tail(TailKind::Linearizable)).await.context("no tail")??.lsn;
    anyhow::ensure!(tail.get() == records as u64 + 1, "the tail is {tail} after {records} records");
    let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    let mut number = 0;
    while let Some(event) = timeout(PATIENCE, reader.next()).await.with_context(|| format!("stuck at {number}"))? {
        match event? {
            ReadEvent::Record(record) => {
                anyhow::ensure!(record.lsn.get() == number as u64 + 1, "LSN {} for record {number}", record.lsn);
                anyhow::ensure!(record.payload == payload(number), "record {number} was delivered damaged");
                anyhow::ensure!(record.sequence.get() == number as u64 + 1, "record {number} is another one");
                number += 1;
            }
            ReadEvent::Gap { from, end, kind } => anyhow::bail!("a gap of kind {kind:?} in [{from}, {end})"),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    anyhow::ensure!(number == records, "only {number} of {records} records");
    Ok(())
}

/// Waits until one of ten records is in a file that ends so.
async fn until_written(files: &Path, ending: &str, first: usize) -> anyhow::Result<()> {
    let begins: Vec<Bytes> =
        (first..first + 10).map(|number| payload(number).slice(..PATTERN.len() + NUMBER_DIGITS)).collect();
    loop {
        for entry in std::fs::read_dir(files)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == ending) {
                // One that went meanwhile is not the one that is written.
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(begins[0].len()).any(|found| begins.iter().any(|begin| found == begin)) {
                    return Ok(());
                }
            }
        }
        // Nobody tells of a file: it is looked at again.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Flips one bit in each payload that `chosen` wants, in all files of a store that end so. Returns the numbers of the
/// records that were damaged.
fn damage(
    store: &Path,
    ending: &str,
    random: &mut impl rand::Rng,
    chosen: impl Fn(usize) -> bool,
) -> anyhow::Result<BTreeSet<usize>> {
    let mut damaged = BTreeSet::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != ending) {
            continue;
        }
        let mut bytes = std::fs::read(&path)?;
        let starts: Vec<usize> =
            (0..bytes.len().saturating_sub(PAYLOAD_BYTES)).filter(|at| bytes[*at..].starts_with(PATTERN)).collect();
        for start in starts {
            let digits = start + PATTERN.len();
            // The WAL cuts records at the borders of its blocks: such a payload is left alone.
            let number = std::str::from_utf8(&bytes[digits..digits + NUMBER_DIGITS]).ok();
            if let Some(number) = number.and_then(|number| number.parse().ok())
                && chosen(number)
            {
                let at = random.random_range(digits + NUMBER_DIGITS..start + PAYLOAD_BYTES);
                bytes[at] ^= 1 << random.random_range(0..8);
                damaged.insert(number);
            }
        }
        std::fs::write(&path, bytes)?;
    }
    Ok(damaged)
}

async fn start(options: LocalClusterOptions) -> anyhow::Result<(LocalCluster, Bifrost, Log)> {
    let cluster = LocalCluster::start(options).await?;
    let bifrost = cluster.connect().await?;
    let log = bifrost.open_log("damaged", LogOptions::default()).await?;
    Ok((cluster, bifrost, log))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_around_damage_on_every_disk() -> anyhow::Result<()> {
    for engine in [Engine::Files, Engine::RocksDb] {
        damage_on_every_disk(engine).await?;
    }
    Ok(())
}

async fn damage_on_every_disk(engine: Engine) -> anyhow::Result<()> {
    const RECORDS: usize = 2000;
    let mut random = rng_of(seed_of("corruption"), 1);
    let counters = Counters::default();
    let _installed = counters.install();
    let directory = tempfile::tempdir()?;
    let directory = Some(directory.path().to_owned());
    let rocks = RocksOptions { engine, ..RocksOptions::default() };
    let (cluster, bifrost, log) =
        start(LocalClusterOptions { directory, rocks, ..LocalClusterOptions::default() }).await?;
    append(&log.appender(), 0, RECORDS).await?;
    let first = log.chain().segments.first().context("a log has a segment")?.params.clone();

    // Each batch is damaged on one disk at most: the disks take turns.
    let mut damaged = Vec::new();
    for index in 0..cluster.size() {
        let store = cluster.directory_of(index).context("on disk")?;
        let (files, ending) = match engine {
            Engine::Files => (store.join("records"), "journal"),
            Engine::RocksDb => (store.join("db"), "blob"),
        };
        // What a store finds when it opens, it moves to blob files, or notes in its index; damage before that is for another
        // test.
        cluster.stop_node(index).await;
        cluster.start_node(index).await?;
        cluster.stop_node(index).await;
        let chosen = |number: usize| number.is_multiple_of(APART) && number / APART % cluster.size() == index;
        damaged.push(damage(&files, ending, &mut random, chosen)?);
        cluster.start_node(index).await?;
    }
    let counts: Vec<usize> = damaged.iter().map(BTreeSet::len).collect();
    assert!(counts.iter().all(|count| *count > RECORDS / 200), "too few payloads in {engine:?}: {counts:?}");

    require_all(&log, RECORDS).await?;
    assert!(counters.get("bifrost_logserver_corrupt_batches_total") > 0, "the damage was not reported");
    assert!(counters.get("bifrost_loglet_read_corrupt_ranges_total") > 0, "the reader did not report it");

    // Each log server still serves the batches that are intact, and names nothing else as damaged.
    let chain = log.describe().await?;
    let closed = chain.segments.first().context("a log has a segment")?;
    assert_eq!(closed.params, first, "all records are in the first segment");
    let tail = closed.decided_tail().context("its sequencer was restarted")?;
    for (index, address) in cluster.addresses().await.iter().enumerate() {
        let node = cluster.node_id(index).await.context("it runs")?;
        let copy = contents(address, node, &first, tail).await?;
        let corrupt: BTreeSet<usize> = copy.corrupt.iter().map(|offset| *offset as usize - 1).collect();
        // What a sequencer sends again, or a repair, may have healed some of it meanwhile.
        let is_near = |number: &usize| {
            let in_one_batch = (number + 1).saturating_sub(APART)..number + APART;
            damaged[index].range(in_one_batch).next().is_some()
        };
        assert!(corrupt.iter().all(is_near), "{engine:?}: node {index} calls intact records damaged: {corrupt:?}");
        for (offset, stored) in copy.records {
            assert_eq!(stored, payload(offset as usize - 1), "node {index} sent a damaged record");
        }
    }
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_wal_is_damaged_refuses_to_open_and_the_others_go_on() -> anyhow::Result<()> {
    let mut random = rng_of(seed_of("corruption of the WAL"), 2);
    for engine in [Engine::Files, Engine::RocksDb] {
        damaged_wal(engine, &mut random).await?;
    }
    Ok(())
}

async fn damaged_wal(engine: Engine, random: &mut impl rand::Rng) -> anyhow::Result<()> {
    // All in the first file, whose groups are in no row before the next one begins.
    const RECORDS: usize = 50;
    let directory = tempfile::tempdir()?;
    let directory = Some(directory.path().to_owned());
    let rocks = RocksOptions { engine, ..RocksOptions::default() };
    let (cluster, bifrost, log) =
        start(LocalClusterOptions { directory, rocks, ..LocalClusterOptions::default() }).await?;
    let appender = log.appender();
    // In many groups, so that the damage is not in the last one that this server has: that would be one that was never
    // finished.
    let store = cluster.directory_of(0).context("on disk")?;
    let (files, ending) = match engine {
        Engine::Files => ("records", "journal"),
        Engine::RocksDb => ("db", "log"),
    };
    for first in (0..RECORDS).step_by(10) {
        append(&appender, first, first + 10).await?;
        // Two others may have acknowledged them.
        timeout(PATIENCE, until_written(&store.join(files), ending, first)).await.context("it takes nothing")??;
    }
    // As a kill leaves it: whoever stops in good order moves everything out of the WAL.
    let killed = store.with_extension("killed");
    copy(&store, &killed);
    cluster.stop_node(0).await;
    std::fs::remove_dir_all(&store)?;
    std::fs::rename(&killed, &store)?;
    let damaged = damage(&store.join(files), ending, random, |number| number / 10 == RECORDS / 20)?;
    assert!(!damaged.is_empty(), "the payloads were not in the WAL");
    let refused = cluster.start_node(0).await.expect_err("acknowledged records would silently be gone");
    assert!(
        matches!(
            &refused,
            LocalClusterError::Node { source: ServerError::Node(NodeError::Open(OpenError::Damaged { .. })), .. }
        ),
        "{engine:?}: not a typed refusal: {refused:?}"
    );
    append(&appender, RECORDS, 2 * RECORDS).await?;
    require_all(&log, 2 * RECORDS).await?;
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_flipped_on_the_wire_are_neither_stored_nor_delivered() -> anyhow::Result<()> {
    const RECORDS: usize = 600;
    let seed = seed_of("corruption on the wire");
    let counters = Counters::default();
    let _installed = counters.install();
    let faults = Faults::new(seed);
    let interpose = Some(faults.clone() as _);
    let (cluster, bifrost, log) = start(LocalClusterOptions { interpose, ..LocalClusterOptions::default() }).await?;
    let appender = log.appender();

    // Of everything that is sent to readers of the node which they ask first.
    let first = faults.of(cluster.node_id(0).await.context("it runs")?);
    first.flipped_reads.store(700, Ordering::Relaxed);
    append(&appender, 0, RECORDS).await?;
    require_all(&log, RECORDS).await?;
    assert!(first.happened.load(Ordering::Relaxed) > 0, "nothing was flipped");
    assert!(counters.get("bifrost_loglet_read_corrupt_ranges_total") > 0, "the damage was not reported");

    // Of everything that is sent to one node to be stored: it refuses, and the others are a write quorum.
    let sequencer = log.chain().last().context("a log has a segment")?.params.sequencer.node;
    let mut other = None;
    for index in 0..cluster.size() {
        other = cluster.node_id(index).await.filter(|node| *node != sequencer).or(other);
    }
    let other = faults.of(other.context("three nodes")?);
    other.flipped_stores.store(100, Ordering::Relaxed);
    // A write quorum does without that node, so it may be late to refuse.
    let mut records = RECORDS;
    let refused = async {
        while counters.get("bifrost_sequencer_copy_alarms_total") == 0 {
            append(&appender, records, records + 100).await?;
            records += 100;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, refused).await.context("the refusal was not reported")??;
    assert!(other.happened.load(Ordering::Relaxed) > 0, "nothing was flipped");
    append(&appender, records, records + 100).await?;
    require_all(&log, records + 100).await?;
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
