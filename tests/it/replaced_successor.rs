//! T1': the node that was to sequence the next segment dies between the announcement and the decision.

use bifrost::chain::{Announce, announce};
use bifrost::{LogOptions, ReconfigureOptions, Reconfigured, fresh_op};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{Actor, CloseReason, Reconfiguration, Successor};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_whose_node_died_is_replaced_under_the_same_operation() -> anyhow::Result<()> {
    let cluster = LocalCluster::start(LocalClusterOptions::default()).await?;
    let bifrost = cluster.connect().await?;
    let log = bifrost.create_log("orders", LogOptions::default()).await?;
    let appender = log.appender();
    let first = appender.append("before").await?;

    // An operator announces, and dies with the node that it chose.
    let stored = bifrost.catalog().chain(log.id()).await?;
    let last = stored.chain.last().expect("a chain is not empty");
    let doomed = bifrost.nodes().into_iter().rev().find(|node| node.id != last.params.sequencer).expect("three nodes");
    let op = fresh_op();
    let wanted = Reconfiguration {
        op,
        segment: last.index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: Some(Successor {
            nodeset: last.params.nodeset.clone(),
            replication: last.params.replication.clone(),
            sequencer: doomed.id,
        }),
        attempt: 1,
        opened_at_millis: 0,
    };
    let Announce::Write(announced) = announce(&stored.chain, &wanted)? else { panic!("nothing was pending") };
    bifrost.catalog().replace(&stored, announced).await?;
    for index in 0..cluster.size() {
        if cluster.node_id(index).await == Some(doomed.id.node) {
            cluster.stop_node(index).await;
        }
    }

    // Another operator joins, finds the node dead, and finishes the same operation with another one.
    let outcome = log.reconfigure(ReconfigureOptions::default()).await?;
    let Reconfigured::Superseded { by, open } = outcome else { panic!("the announced operation goes first") };
    assert_eq!(by.op, op);
    let open = open.expect("a segment was opened");
    assert_ne!(open.sequencer, doomed.id, "the dead node sequences nothing");
    let chain = log.describe().await?;
    assert_eq!(chain.segments.len(), 2, "closed once, opened once");
    assert_eq!(chain.version, 4, "announced, replaced, decided");
    assert!(appender.append("after").await? > first);
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
