//! One log on three real log servers over loopback: the shortest way through everything.

use bifrost::{LogOptions, ReadEvent, ReadOptions, ReconfigureOptions, TailKind};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use futures_util::StreamExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_take_appends_across_reconfigurations_and_a_restart() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = LocalClusterOptions { directory: Some(directory.path().to_owned()), ..Default::default() };
    let cluster = LocalCluster::start(options).await?;
    let bifrost = cluster.connect().await?;
    let log = bifrost.open_log("smoke", LogOptions::default()).await?;
    let appender = log.appender();
    let mut lsns = Vec::new();
    for round in 0..4_u32 {
        let mut tickets = Vec::new();
        for record in 0..50_u32 {
            let payload = format!("{round}/{record}");
            tickets.push(appender.reserve(payload.len()).await?.send(payload));
        }
        match round {
            0 => drop(log.reconfigure(ReconfigureOptions::default()).await?),
            1 => cluster.stop_node(1).await,
            2 => cluster.start_node(1).await?,
            _ => {}
        }
        for ticket in tickets {
            lsns.push(ticket.await?);
        }
    }
    assert!(lsns.is_sorted_by(|one, two| one < two));
    let tail = log.find_tail(TailKind::Linearizable).await?.lsn;
    assert_eq!(tail.get(), 201);
    let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    let mut seen = Vec::new();
    while let Some(event) = reader.next().await {
        if let ReadEvent::Record(record) = event? {
            seen.push((record.lsn, String::from_utf8_lossy(&record.payload).into_owned()));
        }
    }
    let expected: Vec<_> =
        lsns.iter().zip(0_u32..).map(|(lsn, place)| (*lsn, format!("{}/{}", place / 50, place % 50))).collect();
    assert_eq!(seen, expected);
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
