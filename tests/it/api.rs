//! What an embedder sees, on the smallest back end: outcomes, batches, barriers, filters, ranges, gaps.

use std::num::NonZeroU64;

use bifrost::{
    AppendError, Bifrost, GapKind, KeyFilter, Keys, Log, LogError, LogOptions, Lsn, NotAppended, ReadEvent,
    ReadOptions, ReconfigureOptions, Record, ReserveError, TailKind,
};
use futures_util::StreamExt;

async fn log() -> anyhow::Result<(Bifrost, Log)> {
    let bifrost = Bifrost::in_memory().await?;
    let log = bifrost.create_log("orders", LogOptions::default()).await?;
    Ok((bifrost, log))
}

fn lsn(value: u64) -> Lsn {
    Lsn::new(value).expect("non-zero")
}

/// Everything in `[from, until)` as `lsn:payload`, gaps as `[from,end)`.
async fn read(log: &Log, options: ReadOptions) -> anyhow::Result<Vec<String>> {
    let mut reader = log.read(options);
    let mut seen = Vec::new();
    while let Some(event) = reader.next().await {
        match event? {
            ReadEvent::Record(record) => {
                seen.push(format!("{}:{}", record.lsn, String::from_utf8_lossy(&record.payload)));
            }
            ReadEvent::Gap { from, end, kind: GapKind::Trimmed } => seen.push(format!("[{from},{end})")),
            ReadEvent::Gap { kind: GapKind::Lost, .. } => panic!("nothing was lost"),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    Ok(seen)
}

fn until(value: u64) -> ReadOptions {
    ReadOptions { until: Some(lsn(value)), ..ReadOptions::default() }
}

#[tokio::test]
async fn a_batch_is_contiguous_and_a_barrier_waits_for_everything_before_it() -> anyhow::Result<()> {
    let (bifrost, log) = log().await?;
    let appender = log.appender();
    let tickets: Vec<_> = {
        let mut tickets = Vec::new();
        for number in 0..50 {
            tickets.push(appender.reserve(8).await?.send(format!("{number}")));
        }
        tickets
    };
    appender.barrier().await?;
    // All of them are resolved now, so none of them waits.
    for ticket in tickets {
        assert!(futures_util::FutureExt::now_or_never(ticket).expect("resolved before the barrier").is_ok());
    }
    let first = appender.append_batch(vec![Record::new("a"), Record::new("b"), Record::new("")]).await?;
    let seen = read(&log, ReadOptions { from: first, ..until(first.get() + 3) }).await?;
    assert_eq!(seen, [format!("{first}:a"), format!("{}:b", first.get() + 1), format!("{}:", first.get() + 2)]);
    bifrost.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_appended_says_so_and_costs_the_next_append_nothing() -> anyhow::Result<()> {
    let (bifrost, log) = log().await?;
    let appender = log.appender();
    let too_much = appender.reserve(usize::MAX / 2).await;
    assert!(matches!(too_much, Err(ReserveError::TooLarge { .. })));
    let beyond = appender.reserve(1).await?.send("longer than that").await;
    let cause = NotAppended::BeyondReservation { reserved: 1, needed: 16 };
    assert_eq!(beyond, Err(AppendError::NotAppended { cause }));
    let large = appender.append(vec![0; bifrost_types::limits::RECORD_BYTES_MAX + 1]).await;
    assert!(matches!(large, Err(AppendError::NotAppended { cause: NotAppended::Encode(_) })), "{large:?}");
    let empty = appender.append_batch(Vec::new()).await;
    assert!(matches!(empty, Err(AppendError::NotAppended { cause: NotAppended::Encode(_) })), "{empty:?}");
    assert!(appender.barrier().await.is_err(), "the barrier tells the first failure");
    assert_eq!(appender.append("small").await?, Lsn::FIRST);
    appender.barrier().await?;
    bifrost.shutdown().await;
    assert!(matches!(appender.append("late").await, Err(AppendError::NotAppended { .. })));
    Ok(())
}

#[tokio::test]
async fn a_key_filter_passes_over_the_rest_across_segments() -> anyhow::Result<()> {
    let (bifrost, log) = log().await?;
    let appender = log.appender();
    for number in 0..30_u64 {
        let keys = if number % 3 == 0 { Keys::Single(number) } else { Keys::None };
        appender.append(Record::new(format!("{number}")).with_keys(keys)).await?;
        if number % 10 == 9 {
            log.reconfigure(ReconfigureOptions::default()).await?;
        }
    }
    let options = ReadOptions { filter: KeyFilter::Range(10, 20), ..until(31) };
    assert_eq!(read(&log, options).await?, ["13:12", "16:15", "19:18"]);
    let tiny = ReadOptions { credit_bytes: NonZeroU64::MIN, ..until(31) };
    assert_eq!(read(&log, tiny).await?.len(), 30, "the smallest credit still gets everything through");
    assert_eq!(read(&log, ReadOptions { from: lsn(9), ..until(12) }).await?, ["9:8", "10:9", "11:10"]);
    assert!(read(&log, ReadOptions { from: lsn(5), ..until(5) }).await?.is_empty());
    bifrost.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_trimmed_range_is_one_gap_and_a_closed_log_ends_its_readers_and_appenders() -> anyhow::Result<()> {
    let (bifrost, log) = log().await?;
    let appender = log.appender();
    for number in 1..=6 {
        appender.append(format!("{number}")).await?;
        if number == 3 {
            log.reconfigure(ReconfigureOptions::default()).await?;
        }
    }
    assert_eq!(log.trim(lsn(4)).await?, lsn(4));
    assert_eq!(log.trim(lsn(2)).await?, lsn(4), "a trim point never goes back");
    assert!(matches!(log.trim(lsn(7)).await, Err(LogError::BeyondTail { .. })));
    log.reconfigure(ReconfigureOptions { close: true, ..ReconfigureOptions::default() }).await?;
    assert_eq!(appender.append("late").await, Err(AppendError::Closed { log: log.id() }));
    assert_eq!(read(&log, ReadOptions::default()).await?, ["[1,5)", "5:5", "6:6"], "the reader ends by itself");
    assert_eq!(log.find_tail(TailKind::Linearizable).await?.lsn, lsn(7));
    bifrost.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn names_lead_to_logs_and_are_given_once() -> anyhow::Result<()> {
    let (bifrost, log) = log().await?;
    assert_eq!(bifrost.log("orders").await?.id(), log.id());
    assert_eq!(bifrost.open_log("orders", LogOptions::default()).await?.id(), log.id());
    assert!(bifrost.create_log("orders", LogOptions::default()).await.is_err());
    assert!(bifrost.log("nothing").await.is_err());
    for name in ["", "7", "../orders", "a b"] {
        assert!(bifrost.create_log(name, LogOptions::default()).await.is_err(), "{name:?}");
    }
    let unnamed = bifrost.create_unnamed_log(LogOptions::default()).await?;
    assert_ne!(unnamed.id(), log.id());
    assert_eq!(bifrost.log_by_id(unnamed.id()).await?.name(), None);
    let three = LogOptions { replication: Some("3".parse()?), ..LogOptions::default() };
    assert!(matches!(bifrost.create_log("wide", three).await, Err(LogError::NoPlacement)), "one node, three copies");
    bifrost.shutdown().await;
    Ok(())
}
