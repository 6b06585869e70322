//! A copy that is silent under load: appends go on at write quorum, the sequencer holds a bounded part of what the copy
//! lacks, and when it is back it gets everything, within the open segment (A4).

use std::time::Duration;

use anyhow::Context;
use bifrost::{LogOptions, TailKind};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::LogletOffset;
use bifrost_types::limits::{COPY_WINDOW_BYTES, RETAINED_BYTES, WINDOW_BYTES};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::copies::contents;
use crate::counters::Counters;
use crate::faults::{Faults, trace_if_asked};

const PAYLOAD_BYTES: usize = 64 << 10;
/// What a sequencer may hold for a copy that is away.
const HELD_BYTES: usize = RETAINED_BYTES + WINDOW_BYTES + COPY_WINDOW_BYTES;
const RECORDS: usize = (HELD_BYTES + (8 << 20)) / PAYLOAD_BYTES;
/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

fn payload(number: usize) -> Bytes {
    let mut payload = (number as u64).to_be_bytes().to_vec();
    payload.resize(PAYLOAD_BYTES, number as u8);
    payload.into()
}

/// How the copy is lost, and comes back.
#[derive(Debug, Clone, Copy)]
enum Absence {
    /// Its process lives, and nothing gets through.
    Silent,
    /// Its process is stopped, and started on its disk.
    Stopped,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_copy_costs_bounded_memory_and_catches_up() -> anyhow::Result<()> {
    a_copy_that_was_away_catches_up(Absence::Silent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_copy_catches_up_with_the_open_segment() -> anyhow::Result<()> {
    a_copy_that_was_away_catches_up(Absence::Stopped).await
}

async fn a_copy_that_was_away_catches_up(absence: Absence) -> anyhow::Result<()> {
    trace_if_asked();
    let counters = Counters::default();
    let _installed = counters.install();
    let faults = Faults::new(0);
    let directory = tempfile::tempdir()?;
    let directory = Some(directory.path().to_owned());
    let interpose = Some(faults.clone() as _);
    let cluster = LocalCluster::start(LocalClusterOptions { directory, interpose, ..Default::default() }).await?;
    let bifrost = cluster.connect().await?;
    let log = bifrost.open_log("slow", LogOptions::default()).await?;
    let appender = log.appender();
    appender.append(payload(0)).await?;
    let params = log.chain().last().context("a log has a segment")?.params.clone();
    let mut away = None;
    for index in 0..cluster.size() {
        let node = cluster.node_id(index).await.context("it runs")?;
        if node != params.sequencer.node {
            away = Some((index, node));
        }
    }
    let (index, node) = away.context("three nodes")?;
    let silent = &faults.of(node).silent;

    match absence {
        Absence::Silent => drop(silent.send_replace(true)),
        Absence::Stopped => cluster.stop_node(index).await,
    }
    let mut tickets = Vec::new();
    for number in 1..RECORDS {
        tickets.push(appender.reserve(PAYLOAD_BYTES).await?.send(payload(number)));
    }
    let acknowledged = futures_util::future::try_join_all(tickets);
    timeout(PATIENCE, acknowledged).await.context("appends wait for the copy that is away")??;
    match absence {
        Absence::Silent => drop(silent.send_replace(false)),
        Absence::Stopped => cluster.start_node(index).await?,
    }

    // Appends go on while it catches up.
    appender.append(payload(RECORDS)).await?;
    let until = LogletOffset::new(RECORDS as u64 + 2).context("not 0")?;
    let deadline = Instant::now() + PATIENCE;
    let copy = loop {
        let address = cluster.addresses().await[index].clone();
        let copy = contents(&address, node, &params, until).await?;
        if copy.missing.is_empty() {
            break copy;
        }
        let (lacks, first) = (copy.missing.len(), copy.missing.first());
        let backfilled = counters.get("bifrost_sequencer_backfilled_bytes_total");
        anyhow::ensure!(
            Instant::now() < deadline,
            "lacks {lacks}, first {first:?}, after {backfilled} backfilled bytes"
        );
        sleep(POLL).await;
    };
    let expected: Vec<_> = (0..=RECORDS).map(|number| (number as u64 + 1, payload(number))).collect();
    assert!(copy.records == expected, "the copy has other records than were appended");
    assert_eq!(copy.corrupt, Vec::<u64>::new());
    // What had to be read back from the other copies was not held in memory.
    let backfilled = counters.get("bifrost_sequencer_backfilled_bytes_total");
    assert!(backfilled >= (RECORDS * PAYLOAD_BYTES - HELD_BYTES) as u64, "only {backfilled} bytes were not held");
    assert_eq!(counters.get("bifrost_sequencer_copy_alarms_total"), 0);
    assert_eq!(log.describe().await?.segments.len(), 1, "all of this is one segment");
    assert_eq!(log.find_tail(TailKind::Linearizable).await?.lsn.get(), until.get());
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
