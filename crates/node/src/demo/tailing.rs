//! The readers: each follows the log through a client of its own and notes what it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bifrost::{Log, Lsn, ReadError, ReadOptions, TailKind};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ledger::ReaderLedger;

/// A reader that is given nothing for this long, while the tail is ahead of it, is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reader hands in.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) ledger: ReaderLedger,
    pub(super) error: Option<ReadError>,
}

/// Reads until the tail that `until` says in the end, or until it is stuck.
pub(super) async fn tail(
    log: Log,
    mut ledger: ReaderLedger,
    mut until: watch::Receiver<Option<Lsn>>,
    at: Arc<AtomicU64>,
) -> Read {
    let mut reader = log.read(ReadOptions { from: ledger.from(), ..ReadOptions::default() });
    loop {
        let end = *until.borrow_and_update();
        if end.is_some_and(|end| ledger.next() >= end) {
            return Read { ledger, error: None };
        }
        let patience = async {
            match end {
                Some(_) => tokio::time::sleep(PATIENCE).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = reader.next() => match event {
                Some(Ok(event)) => {
                    ledger.observe(&event);
                    at.store(ledger.next().get(), Ordering::Relaxed);
                }
                Some(Err(error)) => return Read { ledger, error: Some(error) },
                None => return Read { ledger, error: None },
            },
            changed = until.changed(), if end.is_none() => {
                if changed.is_err() {
                    return Read { ledger, error: None };
                }
            }
            () = patience => return Read { ledger, error: None },
        }
    }
}

/// Reads everything below `tail` once.
pub(super) async fn scan(log: &Log, mut ledger: ReaderLedger, tail: Lsn) -> Read {
    let mut reader = log.read(ReadOptions { from: ledger.from(), until: Some(tail), ..ReadOptions::default() });
    loop {
        match timeout(PATIENCE, reader.next()).await {
            Ok(Some(Ok(event))) => ledger.observe(&event),
            Ok(Some(Err(error))) => return Read { ledger, error: Some(error) },
            Ok(None) | Err(_) => return Read { ledger, error: None },
        }
    }
}

/// The linearizable tail, or `None` if it cannot be had in time.
pub(super) async fn final_tail(log: &Log) -> Option<Lsn> {
    let tail = timeout(PATIENCE, log.find_tail(TailKind::Linearizable)).await.ok()?;
    tail.ok().map(|tail| tail.lsn)
}
