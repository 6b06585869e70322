//! `Bifrost::explain` on a cluster of processes' worth of nodes, while parts of it are stopped.

use std::num::NonZeroU8;
use std::time::Duration;

use bifrost::explain::{Diagnosis, Explanation, QuorumKind, ReconfigurationStep};
use bifrost::{Bifrost, LogOptions, ReconfigureOptions, ReplicationProperty};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::LogletParams;
use bifrost_wire::grpc::ClientOptions;
use tokio::time::timeout;

use super::support::world::{World, op};

/// Only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(30);

async fn explain(client: &Bifrost, name: &str) -> Explanation {
    let explanation = timeout(PATIENCE, client.explain_named(name)).await.expect("it never waits for long");
    println!("{explanation}\n");
    explanation
}

fn params(client: &Bifrost, explanation: &Explanation) -> LogletParams {
    let _same_cluster = client;
    let chain = explanation.evidence.metadata.chain().expect("a chain");
    chain.last().expect("a segment").params.clone()
}

/// Metadata stays, nodes go one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_explained_while_its_servers_go_away_and_come_back() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = LocalClusterOptions { directory: Some(directory.path().to_owned()), ..Default::default() };
    let cluster = LocalCluster::start(options).await?;
    // Metadata in this process: it survives its nodes.
    let connect = std::sync::Arc::new(bifrost::connect::GrpcConnect { options: ClientOptions::default() });
    let client = Bifrost::from_parts(cluster.metadata(), connect, bifrost::Options::default()).await?;
    let two = ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0"));
    let log = client.create_log("orders", LogOptions { replication: Some(two), ..LogOptions::default() }).await?;

    assert!(matches!(explain(&client, "orders").await.diagnosis, Diagnosis::Idle { .. }));
    log.appender().append("one").await?;
    let healthy = explain(&client, "orders").await;
    let Diagnosis::Healthy { silent, .. } = &healthy.diagnosis else { panic!("{healthy}") };
    assert!(silent.is_empty());
    assert!(matches!(explain(&client, "nobody").await.diagnosis, Diagnosis::NoSuchLog));

    // Which places hold what: the sequencer stays longest.
    let sequencer = params(&client, &healthy).sequencer.node;
    let mut others = Vec::new();
    let mut at = None;
    for place in 0..cluster.size() {
        match cluster.node_id(place).await {
            Some(node) if node == sequencer => at = Some(place),
            _ => others.push(place),
        }
    }
    let at = at.expect("the sequencer is a node of this cluster");

    cluster.stop_node(others[0]).await;
    let one_away = explain(&client, "orders").await;
    let Diagnosis::Healthy { silent, .. } = &one_away.diagnosis else { panic!("{one_away}") };
    assert_eq!(silent.len(), 1);

    cluster.stop_node(others[1]).await;
    let two_away = explain(&client, "orders").await;
    let Diagnosis::NoWriteQuorum { lacks } = &two_away.diagnosis else { panic!("{two_away}") };
    assert_eq!((lacks.quorum, lacks.at_least, lacks.of.len()), (QuorumKind::Write, 1, 2));

    // An operator reconfigures all the same: it is announced, one server is sealed, and it waits.
    let moving = log.clone();
    let mut progress = log.progress();
    let blocked = tokio::spawn(async move { moving.reconfigure(ReconfigureOptions::default()).await });
    let seen = progress.wait_for(|progress| match progress {
        bifrost::reconfigure::Progress::Closing { close, .. } => close.blocked.is_some() && close.sealed.count() == 1,
        bifrost::reconfigure::Progress::Metadata => false,
    });
    drop(timeout(PATIENCE, seen).await??);
    let waiting = explain(&client, "orders").await;
    let Diagnosis::Reconfiguring { step, lacks, .. } = &waiting.diagnosis else { panic!("{waiting}") };
    assert_eq!(step, &ReconfigurationStep::Sealing { sealed: vec![sequencer] });
    let lacks = lacks.as_ref().expect("an f-majority is missing");
    assert_eq!((lacks.quorum, lacks.at_least, lacks.of.len()), (QuorumKind::FMajority, 1, 2));

    // Everything is gone but metadata.
    cluster.stop_node(at).await;
    let dark = explain(&client, "orders").await;
    let Diagnosis::Reconfiguring { step: ReconfigurationStep::Announced, lacks: Some(lacks), .. } = &dark.diagnosis
    else {
        panic!("{dark}")
    };
    assert_eq!(lacks.at_least, 2, "nobody answers, so nobody is known to be sealed");

    for place in 0..cluster.size() {
        cluster.start_node(place).await?;
    }
    timeout(PATIENCE, blocked).await???;
    log.appender().append("two").await?;
    assert!(matches!(explain(&client, "orders").await.diagnosis, Diagnosis::Healthy { .. }));

    // Metadata goes, and this client remembers what it saw.
    client.shutdown().await;
    let addresses = cluster.addresses().await;
    let client = Bifrost::connect(&addresses).await?;
    let kept = client.log("orders").await?;
    cluster.shutdown().await;
    let gone = timeout(PATIENCE, client.explain(kept.id())).await?;
    assert!(matches!(gone.diagnosis, Diagnosis::NoMetadata), "{gone}");
    assert!(gone.evidence.metadata.chain().is_some(), "the chain as it was seen last");
    client.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_seal_that_the_chain_does_not_know_is_told_as_an_orphan() {
    let world = World::in_memory(3).await;
    let log = world.create_log("orders", 0).await;
    let client = world.client().await;
    let handle = client.log_by_id(log).await.expect("it was made");
    handle.appender().append("one").await.expect("all is well");
    let params = handle.chain().segments[0].params.clone();
    world.seal(1, &params, op(66)).await;
    let orphan = explain(&client, "orders").await;
    let Diagnosis::OrphanedSeal { op: sealer, fenced: false, sealed, lacks: None } = &orphan.diagnosis else {
        panic!("{orphan}")
    };
    assert_eq!((*sealer, sealed.as_slice()), (op(66), [world.node(1)].as_slice()));
    world.seal(2, &params, op(66)).await;
    let fenced = explain(&client, "orders").await;
    assert!(matches!(fenced.diagnosis, Diagnosis::OrphanedSeal { fenced: true, .. }), "{fenced}");
    // Explaining changed nothing; reconfiguring, as it says, does.
    assert!(fenced.next().contains("`bifrost reconfigure orders`"));
    handle.reconfigure(ReconfigureOptions::default()).await.expect("all is well");
    assert!(matches!(explain(&client, "orders").await.diagnosis, Diagnosis::Idle { .. }));
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test]
async fn a_deleted_log_is_explained_until_its_space_is_given_back() {
    let world = World::in_memory(3).await;
    let log = world.create_log("orders", 0).await;
    let client = world.client().await;
    client.log_by_id(log).await.expect("it was made").appender().append("one").await.expect("all is well");
    world.network.darken(world.node(2));
    client.delete_log(log).await.expect("two are enough");
    assert!(matches!(explain(&client, "orders").await.diagnosis, Diagnosis::NoSuchLog));
    let deleted = client.explain(log).await;
    let Diagnosis::Deleted { owing, .. } = &deleted.diagnosis else { panic!("{deleted}") };
    assert!(owing.contains(&world.node(2)), "{deleted}");
    client.shutdown().await;
    world.network.light(world.node(2));
    world.shutdown().await;
}
