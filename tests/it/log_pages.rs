//! Lists of logs whose chains are so long that a page of the store ends at its bytes and not at its logs.

use std::num::NonZeroUsize;
use std::time::Duration;

use bifrost::{Bifrost, LogId, LogOptions, OpId, chain};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{Actor, Chain, CloseReason, LogletId, LogletOffset, Reconfiguration, Successor, Timings};
use bifrost_wire::grpc::{ClientOptions, GrpcLogs};
use bifrost_wire::logs::{ListLogs, Logs};
use tokio::time::timeout;

use super::support::tool::{command, objects, run};

/// Only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Together with [`SEGMENTS`] more than a page of a store, and fewer logs than `bifrost log list` asks for at once.
const LOGS: u64 = 60;
const SEGMENTS: u32 = 1600;

/// The chain after so many reconfigurations without a record.
fn long(mut chain: Chain) -> Chain {
    for number in 1..SEGMENTS {
        let last = chain.last().expect("a segment").clone();
        let op = OpId::try_from(u128::from(number) << 64 | u128::from(chain.log.get())).expect("not 0");
        let wanted = Reconfiguration {
            op,
            segment: last.index(),
            actor: Actor::Operator,
            reason: CloseReason::Requested,
            successor: Some(Successor {
                nodeset: last.params.nodeset,
                replication: last.params.replication,
                sequencer: last.params.sequencer,
            }),
            attempt: 1,
            opened_at_millis: 0,
        };
        let Ok(chain::Announce::Write(announced)) = chain::announce(&chain, &wanted) else { panic!("it is open") };
        let decided = chain::decide(&announced, op, LogletOffset::FIRST.into(), Timings::default());
        let Ok(chain::Decide::Write(decided)) = decided else { panic!("it is announced") };
        chain = decided;
    }
    chain
}

/// The same chain as that of another log.
fn of_log(template: &Chain, log: &Chain) -> Chain {
    let mut chain = Chain { log: log.log, name: log.name.clone(), version: log.version + 1, ..template.clone() };
    for segment in &mut chain.segments {
        segment.params.id = LogletId::new(log.log, segment.index());
    }
    chain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_log_is_listed_once_though_pages_end_at_their_bytes() -> anyhow::Result<()> {
    let cluster = LocalCluster::start(LocalClusterOptions { nodes: 1, ..Default::default() }).await?;
    let addresses = cluster.addresses().await;
    let bifrost = Bifrost::connect(&addresses).await?;
    let mut made: Vec<LogId> = Vec::new();
    let mut template: Option<Chain> = None;
    for number in 0..LOGS {
        let name = format!("x{number:0>254}");
        let log = timeout(PATIENCE, bifrost.create_log(&name, LogOptions::default())).await??;
        let stored = bifrost.catalog().chain(log.id()).await?;
        let next = of_log(template.get_or_insert_with(|| long(stored.chain.clone())), &stored.chain);
        timeout(PATIENCE, bifrost.catalog().replace(&stored, next)).await??;
        made.push(log.id());
    }
    let first = bifrost.catalog().logs(None, 100).await?;
    assert!(first.len() < made.len(), "all {} logs are on the first page", made.len());

    let client = GrpcLogs::connect_lazy(&addresses[0], ClientOptions::default())?;
    for page_size in [1, 7, 50, 256] {
        let page_size = NonZeroUsize::new(page_size).expect("not 0");
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = timeout(PATIENCE, client.list(ListLogs { after, page_size })).await??;
            assert!(
                page.logs.len() <= page_size.get() && (page.next_after.is_none() || page.logs.len() == page_size.get())
            );
            listed.extend(page.logs.into_iter().map(|summary| summary.log));
            after = page.next_after;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, made, "in pages of {page_size}");
    }

    let told = tokio::task::spawn_blocking(move || {
        let tool = |arguments: &[&str]| run(command(arguments).env("BIFROST_ADDRESS", addresses.join(",")), b"").ok();
        (tool(&["log", "list", "--output", "json"]), tool(&["log", "list"]))
    });
    let (json, text) = told.await?;
    let listed: Vec<u64> = objects(&json).iter().map(|log| log["log"].as_u64().expect("a number")).collect();
    assert_eq!(listed, made.iter().map(|log| log.get()).collect::<Vec<u64>>());
    for number in 0..LOGS {
        assert_eq!(text.matches(&format!("x{number:0>254}")).count(), 1, "log {number} in\n{text}");
    }
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
