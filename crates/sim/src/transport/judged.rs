//! Metadata whose answers are judged (M1).

use std::collections::BTreeMap;
use std::sync::Arc;

use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::log_server::next;
use super::spawn;
use crate::truth::{Truth, WatchJudge};

/// Changes that wait on the way.
const QUEUED: usize = 64;

/// What one host asks of metadata, and is answered.
#[derive(Debug)]
pub struct Judged {
    who: String,
    inner: Arc<dyn MetadataStore>,
    truth: Truth,
    /// Whether it asks the servers themselves, and not somebody who asks them.
    direct: bool,
    /// How often each key was looked at in the replica, and what was there the last time.
    looks: Mutex<BTreeMap<String, (u64, Versioned)>>,
}

impl Judged {
    /// The answers of `inner` to the host `who`.
    pub fn new(who: &str, inner: Arc<dyn MetadataStore>, truth: Truth, direct: bool) -> Self {
        Self { who: who.to_owned(), inner, truth, direct, looks: Mutex::default() }
    }
}

impl MetadataStore for Judged {
    /// A replica in the process that is now as new as can be, now as old as its last look.
    fn seen(&self, key: &str) -> Option<Versioned> {
        let new = self.truth.keyspace().get(key.to_owned()).now_or_never()?.ok()??;
        let mut looks = self.looks.lock();
        let (number, last) = looks.entry(key.to_owned()).or_insert((0, new.clone()));
        *number += 1;
        let old = std::mem::replace(last, new.clone());
        Some(if number.is_multiple_of(2) { old } else { new })
    }

    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move {
            let floor = self.truth.floor();
            let found = self.inner.get(key.clone()).await?;
            self.truth.judge_get(&self.who, floor, &key, found.as_ref());
            Ok(found)
        })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move {
            let floor = self.truth.floor();
            let page = self.inner.list(prefix.clone(), after.clone(), limit).await?;
            self.truth.judge_page(&self.who, floor, (&prefix, after.as_deref()), &page);
            Ok(page)
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            let floor = self.truth.floor();
            if self.direct {
                self.truth.sent(&txn);
            }
            let outcome = self.inner.txn(txn.clone()).await?;
            self.truth.judge_txn(&self.who, floor, &txn, &outcome);
            Ok(outcome)
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            let mut back = self.inner.watch(prefix.clone(), after).await?;
            let mut judge = WatchJudge::new(self.truth.clone(), &self.who, prefix, after);
            let (caller, changes) = mpsc::channel(QUEUED);
            spawn(async move {
                while let Some(item) = next(back.recv(), &caller).await {
                    if let Ok(changes) = &item {
                        judge.judge(changes);
                    }
                    if caller.send(item).await.is_err() {
                        return;
                    }
                }
            });
            Ok(changes)
        })
    }
}
