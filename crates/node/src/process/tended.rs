//! The metadata member of a process, which comes back by itself after its disk failed.
//!
//! A member ends at the first error of its disk, because nobody knows what is on it then. Opening it anew reads what is
//! really there, as a start of the process would: so that is what happens here, after a pause that grows. A full disk is over
//! when there is room again. One that is broken fails again, and the pause bounds what that costs.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bifrost::metadata_pool::MetadataPool;
use bifrost_raft::Role;
use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::metadata_member::{MemberError, MemberOptions, MetadataMember};

/// Before the first attempt, and at most between two.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A member that ran so long begins with the first pause again.
const WELL: Duration = Duration::from_secs(120);

/// A handle to the member that runs now; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Tended {
    running: Arc<Mutex<Arc<MetadataMember>>>,
}

impl Tended {
    pub(super) fn new(member: MetadataMember) -> Self {
        Self { running: Arc::new(Mutex::new(Arc::new(member))) }
    }

    /// What nodes of this process have of metadata without asking anybody: what its member has applied.
    pub(super) fn near(self, store: Arc<dyn MetadataStore>) -> Near {
        Near { member: self, store }
    }

    /// The member that runs, or that ran last.
    pub(super) fn member(&self) -> Arc<MetadataMember> {
        Arc::clone(&self.running.lock())
    }

    /// Tells the pool of this process who leads as soon as the member knows, so that nobody here waits for a leader that is
    /// gone. Run it as a task; it ends when the member that runs now is gone: then the pool asks the others.
    ///
    /// # Cancel safety
    /// Safe: the pool finds out by itself, only later.
    pub(super) async fn tell_leader(self, pool: Arc<MetadataPool>) {
        let member = self.member();
        let mut status = member.raft().watch_status();
        let mut told = None;
        loop {
            let news = {
                let status = status.borrow_and_update();
                // Once for each lead: later the pool may know better than a member that is cut off.
                let lead = status.leader.map(|leader| (status.term, leader)).filter(|lead| told != Some(*lead));
                told = lead.or(told);
                lead.and_then(|(_, leader)| status.members.get(&leader).cloned())
            };
            if let Some(leader) = news {
                pool.led_at(&leader.address);
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Starts the member again whenever its disk ended it. Run it as a task; it ends when the member must not come back.
    ///
    /// # Cancel safety
    /// Safe: a member that is being started stops again.
    pub(super) async fn tend(self, listen: SocketAddr) {
        let mut pause = PAUSE_FIRST;
        loop {
            let begun = Instant::now();
            let member = self.member();
            let mut status = member.raft().watch_status();
            // A channel that is gone says the same.
            let _gone = status.wait_for(|status| status.role == Role::Stopped).await.is_err();
            if member.raft().was_replaced() {
                return error!("the metadata group was recovered without this member: the node goes on without one");
            }
            warn!("the disk of the metadata member failed, it is opened again");
            member.shutdown().await;
            if begun.elapsed() >= WELL {
                pause = PAUSE_FIRST;
            }
            let options = MemberOptions { returning: true, ..member.options().clone() };
            drop(member);
            let mut told = false;
            loop {
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
                match start(options.clone(), listen).await {
                    Ok(member) => {
                        *self.running.lock() = Arc::new(member);
                        info!("the metadata member runs again");
                        break;
                    }
                    Err(error) if told => tracing::debug!(%error, "the metadata member does not start yet"),
                    Err(error) => {
                        let cause: &dyn std::error::Error = &error;
                        warn!(error = cause, "the metadata member does not start yet, and is tried again");
                        told = true;
                    }
                }
            }
        }
    }
}

/// Metadata of a process with a member: asked for as everywhere, and looked at here.
#[derive(Debug)]
pub(super) struct Near {
    member: Tended,
    store: Arc<dyn MetadataStore>,
}

impl MetadataStore for Near {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        self.store.get(key)
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        self.store.list(prefix, after, limit)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        self.store.txn(txn)
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        self.store.watch(prefix, after)
    }

    fn seen(&self, key: &str) -> Option<Versioned> {
        self.member.member().raft().seen(key)
    }
}

async fn start(options: MemberOptions, listen: SocketAddr) -> Result<MetadataMember, MemberError> {
    let member = MetadataMember::start(options).await?;
    let served = TcpListener::bind(listen).map_err(MemberError::Thread).and_then(|listener| member.serve(listener));
    match served {
        Ok(()) => Ok(member),
        Err(error) => {
            member.shutdown().await;
            Err(error)
        }
    }
}
