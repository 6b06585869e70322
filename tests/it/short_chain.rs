//! A log on a disk that is moved and trimmed a thousand times: its chain stays short, and it reads right, across a restart.

use anyhow::ensure;
use bifrost::catalog::Catalog;
use bifrost::{Bifrost, Chain, GapKind, LogId, LogOptions, Lsn, ReadEvent, ReadOptions, ReconfigureOptions};
use futures_util::StreamExt;

const ROUNDS: u64 = 1_000;

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

async fn until(catalog: &Catalog, log: LogId, is_so: impl Fn(&Chain) -> bool) -> anyhow::Result<Chain> {
    let mut stored = catalog.chain(log).await?;
    let mut watch = catalog.watch_chain(log, stored.revision).await?;
    while !is_so(&stored.chain) {
        ensure!(watch.recv().await.is_some_and(|changes| changes.is_ok()), "the watch ended");
        stored = catalog.chain(log).await?;
    }
    Ok(stored.chain)
}

#[tokio::test]
async fn a_log_that_is_moved_and_trimmed_a_thousand_times_keeps_a_short_chain_across_a_restart() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let bifrost = Bifrost::embedded(directory.path()).await?;
    let log = bifrost.create_log("orders", LogOptions::default()).await?;
    let appender = log.appender();
    let mut longest = 0;
    for round in 1..=ROUNDS {
        let at = appender.append(format!("record {round}")).await?;
        assert_eq!(at, lsn(round));
        log.reconfigure(ReconfigureOptions::default()).await?;
        assert_eq!(log.trim(at).await?, at);
        longest = longest.max(log.describe().await?.segments.len());
    }
    println!("at most {longest} segments at once");
    assert!(longest <= 16, "there were {longest} segments at once");
    let chain = until(bifrost.catalog(), log.id(), |chain| chain.segments.len() == 2).await?;
    assert_eq!(u64::from(chain.next_segment.get()), ROUNDS + 1);
    bifrost.shutdown().await;

    let bifrost = Bifrost::embedded(directory.path()).await?;
    let log = bifrost.log("orders").await?;
    assert_eq!(log.appender().append("after the restart").await?, lsn(ROUNDS + 1));
    let mut reader = log.read(ReadOptions { until: Some(lsn(ROUNDS + 2)), ..ReadOptions::default() });
    let mut seen = Vec::new();
    while let Some(event) = reader.next().await {
        match event? {
            ReadEvent::Gap { from, end, kind } => {
                assert_eq!((from, end, kind), (Lsn::FIRST, lsn(ROUNDS + 1), GapKind::Trimmed));
            }
            ReadEvent::Record(record) => seen.push((record.lsn, record.payload)),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    assert_eq!(seen, [(lsn(ROUNDS + 1), "after the restart".into())]);
    let moved = until(bifrost.catalog(), log.id(), |chain| chain.segments.len() == 2).await?;
    assert_eq!(u64::from(moved.next_segment.get()), ROUNDS + 2, "the life before had the last one");
    bifrost.shutdown().await;
    Ok(())
}
