//! A node dies that numbers the appends of many logs, nearly all of them idle.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::metadata_pool::MetadataPool;
use bifrost::{Bifrost, fresh_op};
use bifrost_types::{LogId, Member, NodeId, Nodeset, ReplicationProperty, Successor};
use bifrost_wire::grpc::ClientOptions;
use bifrost_wire::metadata::MetadataError;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};

use crate::support::cluster::{Cluster, PATIENCE};

/// Calls under way at once.
const AT_ONCE: usize = 32;
/// Logs that are made at once. They take their ids one after the other, so more would only be in each other's way.
const MADE_AT_ONCE: usize = 2;

/// How long it took.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// From the kill until each log had another sequencer in its chain, without anybody touching them.
    pub idle: Duration,
    /// From then until each had taken an append of a fresh client.
    pub appended: Duration,
}

/// Makes so many logs with their sequencers on one node that does not lead metadata, kills it, and waits until all take
/// appends again.
pub async fn sequencer_of_many_dies(cluster: &mut Cluster, logs: usize) -> Moved {
    let pool = MetadataPool::connect_lazy(cluster.addresses(), &ClientOptions::default()).expect("addresses");
    let catalog = Catalog::new(Arc::new(pool));
    let victim = (cluster.leader().await + 1) % cluster.size();
    let making = Instant::now();
    let ids = make(&catalog, cluster.id(victim), logs).await;
    let made = making.elapsed();
    append_to_all(&cluster.connect().await.expect("it answers"), &ids).await;
    println!("chaos: {logs} logs were made in {made:.1?}, and had a record each after {:.1?}", making.elapsed());
    let begun = Instant::now();
    cluster.kill(victim);
    let gone = cluster.id(victim);
    loop {
        let left = with_sequencer(&catalog, gone).await;
        if left == Some(0) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?} logs of {logs} still have the dead sequencer");
        // A look is a list of all chains: it must not be what the cluster works on.
        sleep(Duration::from_millis(100)).await;
    }
    let idle = begun.elapsed();
    let fresh = cluster.connect().await.expect("it answers");
    let appending = Instant::now();
    append_to_all(&fresh, &ids).await;
    let appended = appending.elapsed();
    cluster.start(victim);
    check(&fresh, &ids).await;
    Moved { idle, appended }
}

/// All on every node, with two copies.
async fn make(catalog: &Catalog, sequencer: NodeId, logs: usize) -> Vec<LogId> {
    let (records, _) = catalog.nodes().await.expect("metadata answers");
    let members = records.iter().map(|record| Member {
        node: record.id.node,
        disk: record.disk.expect("it serves"),
        location: record.location.clone(),
    });
    let first = Successor {
        nodeset: Nodeset::new(members.collect()).expect("three nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0")),
        sequencer: records.iter().find(|record| record.id.node == sequencer).expect("a node").id,
    };
    let first = &first;
    let one = |number| async move {
        let (name, op) = (format!("idle-{number}"), fresh_op());
        loop {
            match catalog.create_log(Some(&name), op, first).await {
                Ok(made) => return made.chain.log,
                // Under so many writers an answer may be late. The same operation again finds what it made.
                Err(CatalogError::Metadata(MetadataError::Unknown)) => {}
                Err(error) => panic!("log {name} is not made: {error}"),
            }
        }
    };
    stream::iter(0..logs).map(one).buffer_unordered(MADE_AT_ONCE).collect().await
}

/// How many logs a node numbers, if metadata answers.
async fn with_sequencer(catalog: &Catalog, node: NodeId) -> Option<usize> {
    let mut count = 0;
    let mut after = None;
    loop {
        let page = catalog.logs(after, 500).await.ok()?;
        let Some(last) = page.last() else { return Some(count) };
        after = Some(last.chain.log);
        let of_node = |chain: &bifrost::Chain| chain.last().is_some_and(|last| last.params.sequencer.node == node);
        count += page.iter().filter(|stored| of_node(&stored.chain)).count();
    }
}

async fn append_to_all(client: &Bifrost, logs: &[LogId]) {
    let one = |log: &LogId| {
        let log = *log;
        async move {
            let appending = async {
                let handle = client.log_by_id(log).await.expect("metadata answers");
                handle.appender().append(Bytes::from_static(b"one")).await
            };
            let Ok(outcome) = timeout(PATIENCE, appending).await else {
                panic!("log {log} takes no append: {:?}", client.explain(log).await)
            };
            outcome.expect("a log that takes appends");
        }
    };
    stream::iter(logs).map(one).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// Nothing was lost, and nothing is there twice.
async fn check(client: &Bifrost, logs: &[LogId]) {
    let one = |log: &LogId| {
        let log = *log;
        async move {
            let handle = client.log_by_id(log).await.expect("metadata answers");
            let tail = timeout(PATIENCE, handle.find_tail(bifrost::TailKind::Linearizable)).await.expect("in time");
            assert_eq!(tail.expect("a tail").lsn.get(), 3, "log {log} has two records");
        }
    };
    stream::iter(logs).map(one).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}
