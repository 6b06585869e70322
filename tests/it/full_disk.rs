//! Real file systems that run full, by our own records or by somebody else's: appends end with a typed error, everything
//! else goes on, and so do appends once there is room. Nothing acknowledged is lost, and nobody restarts anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bifrost::{
    Advice, AppendError, Appender, AppenderOptions, Bifrost, Log, LogOptions, Lsn, NotAppended, ReadEvent, ReadOptions,
    ReconfigureOptions, TailKind,
};
use bifrost_logserver::store::conformance;
use bifrost_logserver::{Engine, RocksOptions, RocksStore, SpaceOptions};
use bifrost_metadata::{LocalMetadata, MetadataError, MetadataStore, Txn, TxnOutcome};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::AppendId;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::support::small_disk::{SmallDisk, ran_as_root};
use crate::support::tool;

const MIB: u64 = 1 << 20;
const RECORD_BYTES: usize = 128 << 10;
/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long appends may go without progress here before they are given up.
const GIVE_UP_AFTER: Duration = Duration::from_millis(500);

/// As small as a store gets: its reserve is 6 MiB.
fn small() -> RocksOptions {
    RocksOptions {
        write_buffer_bytes: 1 << 20,
        file_bytes: 1 << 20,
        block_cache_bytes: 1 << 20,
        space: SpaceOptions { reserve_bytes: Some(6 * MIB), ballast_bytes: Some(2 * MIB) },
        ..RocksOptions::default()
    }
}

async fn cluster(directory: &Path) -> anyhow::Result<LocalCluster> {
    let directory = Some(directory.to_owned());
    let options = LocalClusterOptions { directory, rocks: small(), ..LocalClusterOptions::default() };
    Ok(LocalCluster::start(options).await?)
}

/// A log with what was acknowledged.
struct Ledger {
    log: Log,
    /// Waits for as long as it takes.
    patient: Appender,
    /// Gives up soon.
    hasty: Appender,
    next: u64,
    acknowledged: BTreeMap<Lsn, Bytes>,
    unknown: Vec<(AppendId, Bytes)>,
}

impl Ledger {
    fn new(log: Log) -> Self {
        let options = AppenderOptions { give_up_after: GIVE_UP_AFTER, ..AppenderOptions::default() };
        let (patient, hasty) = (log.appender(), log.appender_with(options));
        Self { log, patient, hasty, next: 0, acknowledged: BTreeMap::new(), unknown: Vec::new() }
    }

    async fn append(&mut self) -> Result<(), AppendError> {
        let appender = self.patient.clone();
        self.append_by(&appender).await
    }

    async fn try_append(&mut self) -> Result<(), AppendError> {
        let appender = self.hasty.clone();
        self.append_by(&appender).await
    }

    async fn append_by(&mut self, appender: &Appender) -> Result<(), AppendError> {
        self.next += 1;
        let mut payload = vec![self.next as u8; RECORD_BYTES];
        payload[..8].copy_from_slice(&self.next.to_le_bytes());
        let payload = Bytes::from(payload);
        match appender.append(payload.clone()).await {
            Ok(lsn) => {
                assert_eq!(self.acknowledged.insert(lsn, payload), None, "LSN {lsn} twice");
                Ok(())
            }
            Err(error) => {
                if let AppendError::Unknown { id } = error {
                    self.unknown.push((id, payload));
                }
                Err(error)
            }
        }
    }

    /// Appends until an append ends with the error that says that the disks are full. What had an offset when they ran
    /// full is unknown until there is room.
    async fn until_full(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            anyhow::ensure!(began.elapsed() < PATIENCE, "the disk does not run full");
            match self.try_append().await {
                Ok(()) => {}
                // A flush or a trim gave a little back, and it was used up at once.
                Err(AppendError::Unknown { .. }) => {}
                Err(error) => {
                    assert_eq!(error, AppendError::NotAppended { cause: NotAppended::DiskFull });
                    assert_eq!(error.advice(), Advice::Retry);
                    return Ok(());
                }
            }
        }
    }

    /// Appends once; that goes well as soon as there is room.
    async fn until_room(&mut self) -> anyhow::Result<()> {
        timeout(PATIENCE, self.append()).await.context("appends do not go on")??;
        Ok(())
    }

    /// Reads everything below the end and checks it against what was acknowledged, from `from` on.
    async fn check(&self, from: Lsn, until: Lsn) -> anyhow::Result<()> {
        let options = ReadOptions { from, until: Some(until), ..ReadOptions::default() };
        let mut reader = self.log.read(options);
        let mut found = BTreeMap::new();
        while let Some(event) = timeout(PATIENCE, reader.next()).await.context("a reader hangs")? {
            match event? {
                ReadEvent::Record(record) => drop(found.insert(record.lsn, record.payload)),
                ReadEvent::Gap { from, end, kind } => anyhow::bail!("a gap of kind {kind:?} in [{from}, {end})"),
                ReadEvent::CaughtUp { .. } => {}
            }
        }
        for (lsn, payload) in self.acknowledged.range(from..until) {
            assert!(found.get(lsn) == Some(payload), "promise 1: LSN {lsn} is gone or something else");
        }
        for (lsn, payload) in &found {
            let known = self.acknowledged.get(lsn) == Some(payload);
            assert!(known || self.unknown.iter().any(|(_, sent)| sent == payload), "LSN {lsn} was never sent");
        }
        Ok(())
    }

    /// One past the last acknowledged record.
    fn end(&self) -> anyhow::Result<Lsn> {
        let (last, _) = self.acknowledged.last_key_value().context("nothing was acknowledged")?;
        last.advance(1).context("far from the last LSN")
    }
}

async fn finish(bifrost: Bifrost, cluster: LocalCluster) {
    bifrost.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_fills_the_disk_is_read_sealed_and_trimmed_and_goes_on() -> anyhow::Result<()> {
    if ran_as_root() {
        return Ok(());
    }
    let disk = SmallDisk::mount(64);
    let cluster = cluster(&disk.path().join("cluster")).await?;
    let bifrost = cluster.connect().await?;
    let mut ledger = Ledger::new(bifrost.create_log("orders", LogOptions::default()).await?);
    ledger.until_full().await?;
    assert!(disk.free() > MIB, "stores end while there is room for seals and metadata: {} bytes", disk.free());
    let end = ledger.end()?;
    ledger.check(Lsn::FIRST, end).await?;
    // Metadata is on the same disk.
    timeout(PATIENCE, bifrost.create_log("another", LogOptions::default())).await??;
    let before = ledger.log.chain().last().context("a segment")?.index();
    timeout(PATIENCE, ledger.log.reconfigure(ReconfigureOptions::default())).await??;
    assert!(ledger.log.describe().await?.last().context("a segment")?.index() > before);
    // The decided tail settled what was unknown.
    for (id, payload) in std::mem::take(&mut ledger.unknown) {
        if let bifrost::Resolved::Committed(lsn) = timeout(PATIENCE, ledger.log.resolve(id)).await?? {
            ledger.acknowledged.insert(lsn, payload);
        }
    }
    let end = ledger.end()?;
    ledger.check(Lsn::FIRST, end).await?;
    // Most of it is let go, and that is room again.
    let kept = *ledger.acknowledged.keys().rev().nth(4).context("a few records")?;
    let trimmed = kept.previous().context("not the first")?;
    assert_eq!(timeout(PATIENCE, ledger.log.trim(trimmed)).await??, trimmed);
    ledger.until_room().await?;
    for _ in 0..20 {
        ledger.append().await?;
    }
    let tail = ledger.log.find_tail(TailKind::Linearizable).await?.lsn;
    ledger.check(kept, tail).await?;
    finish(bifrost, cluster).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_takes_the_last_byte_and_gives_it_back() -> anyhow::Result<()> {
    if ran_as_root() {
        return Ok(());
    }
    let disk = SmallDisk::mount(64);
    let cluster = cluster(&disk.path().join("cluster")).await?;
    let bifrost = cluster.connect().await?;
    let mut ledger = Ledger::new(bifrost.create_log("orders", LogOptions::default()).await?);
    for _ in 0..20 {
        ledger.append().await?;
    }
    for round in 0..2 {
        disk.fill(0);
        ledger.until_full().await?;
        let end = ledger.end()?;
        ledger.check(Lsn::FIRST, end).await?;
        // The ballast of the log servers is what the small writes live on now.
        let sealed = timeout(PATIENCE, ledger.log.reconfigure(ReconfigureOptions::default())).await?;
        sealed.with_context(|| format!("round {round}"))?;
        disk.clear();
        ledger.until_room().await?;
        for _ in 0..10 {
            ledger.append().await?;
        }
    }
    let tail = ledger.log.find_tail(TailKind::Linearizable).await?.lsn;
    ledger.check(Lsn::FIRST, tail).await?;
    // What is on the disk says the same.
    finish(bifrost, cluster).await;
    let cluster = self::cluster(&disk.path().join("cluster")).await?;
    let bifrost = cluster.connect().await?;
    ledger.log = bifrost.log("orders").await?;
    let kept = ledger.log.find_tail(TailKind::Linearizable).await?.lsn;
    assert!(kept >= tail, "the tail went back from {tail} to {kept}");
    ledger.check(Lsn::FIRST, tail).await?;
    finish(bifrost, cluster).await;
    Ok(())
}

/// Asks `bifrost nodes` until one says that its disk takes no records, in both forms; its name, and what it says.
fn until_told(addresses: &[String]) -> (String, String) {
    let address = addresses.join(",");
    let began = Instant::now();
    loop {
        let table = tool::run(&mut tool::command(["nodes", "--address", &address]), b"").ok();
        let objects =
            tool::run(&mut tool::command(["nodes", "--address", &address, "--output", "json"]), b"").objects();
        for object in objects {
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let (name, fullness) = (text("name"), text("fullness"));
            let shown = table.lines().find(|line| line.contains(&format!(" {name} "))).unwrap_or_default();
            let no_records = ["full", "scarce", "exhausted"];
            if no_records.contains(&fullness.as_str())
                && no_records.iter().any(|how| shown.contains(&format!("read-write, disk {how}")))
            {
                return (name, fullness);
            }
        }
        assert!(began.elapsed() < PATIENCE, "nobody says that a disk is full:\n{table}");
    }
}

/// Three nodes; the disk of the first one is small, the others are elsewhere.
async fn first_of_three_on_a_small_disk() -> anyhow::Result<(SmallDisk, tempfile::TempDir, LocalCluster, Bifrost)> {
    let disk = SmallDisk::mount(32);
    let elsewhere = tempfile::tempdir()?;
    std::os::unix::fs::symlink(disk.path().join("n1"), elsewhere.path().join("n1"))?;
    std::fs::create_dir(disk.path().join("n1"))?;
    let cluster = cluster(elsewhere.path()).await?;
    let bifrost = cluster.connect().await?;
    Ok((disk, elsewhere, cluster, bifrost))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk_of_three_stops_nobody() -> anyhow::Result<()> {
    if ran_as_root() {
        return Ok(());
    }
    let (disk, _elsewhere, cluster, bifrost) = first_of_three_on_a_small_disk().await?;
    let mut ledger = Ledger::new(bifrost.create_log("orders", LogOptions::default()).await?);
    disk.fill(0);
    for _ in 0..50 {
        ledger.append().await?;
    }
    let addresses = cluster.addresses().await;
    let (node, fullness) = spawn_blocking(move || until_told(&addresses)).await?;
    assert_eq!(node, "n1", "its disk is {fullness}");
    disk.clear();
    for _ in 0..10 {
        ledger.append().await?;
    }
    let tail = ledger.log.find_tail(TailKind::Linearizable).await?.lsn;
    ledger.check(Lsn::FIRST, tail).await?;
    finish(bifrost, cluster).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_write_quorum_has_no_room_moves_to_a_disk_that_has() -> anyhow::Result<()> {
    if ran_as_root() {
        return Ok(());
    }
    let (disk, _elsewhere, cluster, bifrost) = first_of_three_on_a_small_disk().await?;
    let mut ledger = Ledger::new(bifrost.create_log("orders", LogOptions::default()).await?);
    let nodes = bifrost.nodes();
    let named = |names: &[&str]| -> Vec<_> {
        nodes.iter().filter(|node| names.contains(&node.name.as_str())).map(|node| node.id.node).collect()
    };
    let full = named(&["n1"])[0];
    let two = named(&["n1", "n2"]);
    let narrow = ReconfigureOptions { nodes: Some(two), ..ReconfigureOptions::default() };
    timeout(PATIENCE, ledger.log.reconfigure(narrow)).await??;
    ledger.append().await?;
    disk.fill(0);
    // Nobody makes room, and nobody asks for anything but appends.
    for _ in 0..50 {
        timeout(PATIENCE, ledger.append()).await.context("appends wait for the full disk")??;
    }
    let chain = ledger.log.describe().await?;
    let last = chain.last().context("it has segments")?;
    // The full one may have a place beside them, if it answered too late: it is not needed.
    let with_room = last.params.nodeset.members().iter().filter(|member| member.node != full).count();
    assert_eq!(with_room, 2, "the two disks with room: {last:?}");
    assert_eq!(chain.segments.len(), 3, "made, narrowed, moved once: {chain:?}");
    let tail = ledger.log.find_tail(TailKind::Linearizable).await?.lsn;
    ledger.check(Lsn::FIRST, tail).await?;
    finish(bifrost, cluster).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_meets_the_end_of_the_disk_goes_on_when_there_is_room() {
    if ran_as_root() {
        return;
    }
    for engine in [Engine::Files, Engine::RocksDb] {
        let disk = SmallDisk::mount(48);
        let store = RocksStore::open(&disk.path().join("store"), &RocksOptions { engine, ..small() }).unwrap();
        timeout(PATIENCE, conformance::run_full(&store, || disk.fill(0), || disk.clear())).await.expect("it hangs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_on_a_full_disk_is_unavailable_and_nothing_is_lost() {
    if ran_as_root() {
        return;
    }
    let disk = SmallDisk::mount(24);
    let metadata = LocalMetadata::open(disk.path().join("metadata")).await.unwrap();
    let mut written = 0_u64;
    for round in 0..2_u64 {
        for leave in [0, 1 << 18] {
            disk.fill(leave);
            let refused = metadata.txn(Txn::new().put("key", vec![round as u8; 1 << 18])).await;
            assert!(matches!(refused, Err(MetadataError::Unavailable | MetadataError::Unknown)), "{refused:?}");
            disk.clear();
            let began = Instant::now();
            loop {
                written += 1;
                match metadata.txn(Txn::new().put(format!("k{written}"), written.to_string())).await {
                    Ok(TxnOutcome::Committed(_)) => break,
                    Ok(TxnOutcome::Conflict(_)) => unreachable!("no preconditions"),
                    Err(MetadataError::Unavailable) => written -= 1,
                    Err(error) => panic!("{error:?}"),
                }
                assert!(began.elapsed() < PATIENCE, "it does not notice that there is room");
            }
            for key in 1..=written {
                let found = metadata.get(format!("k{key}")).await.unwrap().map(|found| found.value);
                assert_eq!(found, Some(key.to_string().into()));
            }
        }
    }
    metadata.shutdown().await;
}

#[test]
fn a_demo_on_a_disk_that_is_too_small_says_so() {
    if ran_as_root() {
        return;
    }
    let disk = SmallDisk::mount(16);
    let mut command = tool::command(["demo", "--seconds", "1", "--data-dir"]);
    let ended = tool::run(command.arg(disk.path()), b"");
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("MiB free") && ended.stderr.contains("--data-dir"), "{ended:?}");
}
