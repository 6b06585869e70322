//! Nobody touches the logs: what is left half-way is finished all the same, by the nodes themselves.

use std::time::Duration;

use anyhow::Context;
use bifrost::catalog::Catalog;
use bifrost::chain::{Announce, announce};
use bifrost::{Bifrost, Chain, LogId, LogOptions, Lsn, ReadEvent, ReadOptions};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{Actor, CloseReason, Reconfiguration, SegmentState, Successor};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::support::world::op;

/// Graces, turns and a busy machine; only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Watches metadata until the chain is like this. Does not touch the log.
async fn until(catalog: &Catalog, log: LogId, is_so: impl Fn(&Chain) -> bool) -> anyhow::Result<Chain> {
    let mut stored = catalog.chain(log).await?;
    let mut watch = catalog.watch_chain(log, stored.revision).await?;
    let waiting = async {
        while !is_so(&stored.chain) {
            watch.recv().await.context("the watch ended")??;
            stored = catalog.chain(log).await?;
        }
        Ok(stored.chain)
    };
    timeout(PATIENCE, waiting).await.context("nobody did anything")?
}

/// Announces an operation, as an actor does that dies then.
async fn announce_and_die(catalog: &Catalog, log: LogId) -> anyhow::Result<()> {
    let stored = catalog.chain(log).await?;
    let last = stored.chain.last().context("a chain is not empty")?;
    let wanted = Reconfiguration {
        op: op(66),
        segment: last.index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: Some(Successor {
            nodeset: last.params.nodeset.clone(),
            replication: last.params.replication.clone(),
            sequencer: last.params.sequencer,
        }),
        attempt: 1,
        opened_at_millis: 0,
    };
    let Announce::Write(announced) = announce(&stored.chain, &wanted)? else { anyhow::bail!("something was pending") };
    catalog.replace(&stored, announced).await?;
    Ok(())
}

/// The first record of a log.
async fn first_record(bifrost: &Bifrost, log: LogId) -> anyhow::Result<bytes::Bytes> {
    let mut reader = bifrost.log_by_id(log).await?.read(ReadOptions { from: Lsn::FIRST, ..ReadOptions::default() });
    loop {
        match reader.next().await.context("the log goes on")?? {
            ReadEvent::Record(record) => return Ok(record.payload),
            ReadEvent::CaughtUp { .. } => {}
            gap @ ReadEvent::Gap { .. } => anyhow::bail!("nothing was trimmed or lost: {gap:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_logs_of_a_node_that_restarts_and_of_an_actor_that_died_are_cared_for() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = LocalClusterOptions { directory: Some(directory.path().to_owned()), ..Default::default() };
    let cluster = LocalCluster::start(options).await?;
    let catalog = Catalog::new(cluster.metadata());
    let client = cluster.connect().await?;
    let idle = client.create_log("idle", LogOptions::default()).await?.id();
    let pending = client.create_log("pending", LogOptions::default()).await?.id();
    for log in [idle, pending] {
        client.log_by_id(log).await?.appender().append("kept").await?;
    }
    client.shutdown().await;

    announce_and_die(&catalog, pending).await?;
    let sequencer = catalog.chain(idle).await?.chain.segments[0].params.sequencer;
    for place in 0..cluster.size() {
        if cluster.node_id(place).await == Some(sequencer.node) {
            cluster.stop_node(place).await;
            cluster.start_node(place).await?;
        }
    }
    let moved = until(&catalog, idle, |chain| chain.segments.len() == 2).await?;
    let SegmentState::Sealed { actor, reason, .. } = &moved.segments[0].state else { panic!("{moved:?}") };
    assert_eq!((actor, *reason), (&Actor::Controller, CloseReason::SequencerGone));
    assert_ne!(moved.segments[1].params.sequencer, sequencer);
    let finished = until(&catalog, pending, |chain| chain.outcome(op(66)).is_some()).await?;
    assert_eq!((finished.segments.len(), finished.pending), (2, None));

    let client = cluster.connect().await?;
    for log in [idle, pending] {
        assert_eq!(first_record(&client, log).await?, "kept");
    }
    client.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
