//! How the handles of this process hear of changes of their chains.
//!
//! A process with a few logs has a watch of each chain, and hears of nothing else. One with many has one watch of all chains
//! beyond those: a watch is a stream at the metadata server, and a connection has only so many of them.
//!
//! ```text
//!  the first 64 logs ─► a watch and a task each
//!  all others ────────► one watch of all chains, one task; what it says of logs that nobody here follows is passed over
//! ```
//! A watch begins where the chain was read, as the store says, and not at the revision of the chain: that may be older than
//! what the store remembers of changes, and such a watch would never begin.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bifrost_types::LogId;
use bifrost_wire::metadata::{MetadataError, Revision};
use futures_util::stream::{StreamExt, iter};
use parking_lot::Mutex;
use tokio_util::sync::DropGuard;
use tracing::debug;

use crate::back_off::BackOff;
use crate::catalog::{Catalog, CatalogError, StoredChain, decode_chain_value};
use crate::cluster::Cluster;
use crate::log_state::LogState;
use crate::resume::Bookmark;

/// Logs that have a watch of their own.
const OWN_WATCHES_MAX: usize = 64;
/// Chains that are read at once when the watch of all began anew.
const READS_AT_ONCE: usize = 16;

/// What follows chains in this process.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    own: AtomicUsize,
    others: Mutex<Others>,
}

/// The logs without a watch of their own.
#[derive(Debug, Default)]
struct Others {
    logs: BTreeMap<LogId, (u64, Weak<LogState>)>,
    next_ticket: u64,
    /// Whether there is a task.
    followed: bool,
    /// Changes up to here have been told to the logs that were there.
    heard: Revision,
}

/// Ends what follows a log when it is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    cluster: Arc<Cluster>,
    how: How,
}

#[derive(Debug)]
enum How {
    Own(#[expect(dead_code, reason = "it stops the task when it is dropped")] DropGuard),
    Together { log: LogId, ticket: u64 },
}

impl Drop for Following {
    fn drop(&mut self) {
        let follower = &self.cluster.follower;
        match &self.how {
            How::Own(_) => drop(follower.own.fetch_sub(1, Ordering::AcqRel)),
            How::Together { log, ticket } => {
                let mut others = follower.others.lock();
                // Another handle of the log may have come meanwhile.
                if others.logs.get(log).is_some_and(|(known, _)| known == ticket) {
                    others.logs.remove(log);
                }
            }
        }
    }
}

impl Following {
    /// Follows the chain of a log from now on.
    pub(crate) fn begin(state: &Arc<LogState>) -> Self {
        let cluster = state.cluster.clone();
        let own = &cluster.follower.own;
        let has_own =
            own.fetch_update(Ordering::AcqRel, Ordering::Acquire, |own| (own < OWN_WATCHES_MAX).then_some(own + 1));
        let how = if has_own.is_ok() { own_watch(state) } else { together(state) };
        Self { cluster, how }
    }
}

fn own_watch(state: &Arc<LogState>) -> How {
    let stop = state.cluster.stop.child_token();
    let following = follow(Arc::downgrade(state), state.cluster.catalog.clone(), state.log);
    let guard = stop.clone().drop_guard();
    state.cluster.tasks.spawn(async move {
        let _stopped = stop.run_until_cancelled_owned(following).await;
    });
    How::Own(guard)
}

fn together(state: &Arc<LogState>) -> How {
    let cluster = &state.cluster;
    let (ticket, begin, late) = {
        let mut others = cluster.follower.others.lock();
        let ticket = others.next_ticket;
        others.next_ticket += 1;
        others.logs.insert(state.log, (ticket, Arc::downgrade(state)));
        // The chain was read at its revision or later. What was told since then, this log was not told.
        let late = others.heard > state.chain().revision;
        (ticket, !std::mem::replace(&mut others.followed, true), late)
    };
    if begin {
        let (stop, following) = (cluster.stop.child_token(), follow_others(cluster.clone()));
        cluster.tasks.spawn(async move {
            let _stopped = stop.run_until_cancelled_owned(following).await;
        });
    }
    if late {
        let (stop, reading) = (cluster.stop.child_token(), read_once(Arc::downgrade(state)));
        cluster.tasks.spawn(async move {
            let _stopped = stop.run_until_cancelled_owned(reading).await;
        });
    }
    How::Together { log: state.log, ticket }
}

/// Follows one chain until its state, or the log, is gone. Holds the state only for moments.
async fn follow(state: Weak<LogState>, catalog: Catalog, log: LogId) {
    let mut back_off = BackOff::new();
    let revision = |state: Arc<LogState>| (!state.deleted.is_cancelled()).then(|| state.chain().revision);
    let mut seen = 0;
    while let Some(before) = state.upgrade().and_then(revision) {
        seen = before.max(seen);
        if let Err(error) = follow_once(&state, &catalog, log, &mut seen).await {
            debug!(%log, %error, "the chain is not followed");
        }
        if state.upgrade().is_some_and(|state| state.chain().revision > before) {
            back_off.reset();
        }
        back_off.pause().await;
    }
}

/// Returns when the watch ends; `seen` is where to resume.
async fn follow_once(
    state: &Weak<LogState>,
    catalog: &Catalog,
    log: LogId,
    seen: &mut Revision,
) -> Result<(), CatalogError> {
    let learn = |stored: &StoredChain| state.upgrade().into_iter().for_each(|state| state.learn(stored.clone()));
    let lost = |error| state.upgrade().map_or(error, |state| state.explain_absence(error));
    match catalog.watch_chain(log, *seen).await {
        Ok(mut watch) => {
            while let Some(changes) = watch.recv().await {
                let changes = match changes {
                    Ok(changes) => changes,
                    Err(MetadataError::Compacted { .. }) => break,
                    Err(error) => return Err(error.into()),
                };
                for change in changes.changes {
                    match change.value {
                        Some(value) => {
                            learn(&StoredChain { chain: decode_chain_value(&value)?, revision: change.revision });
                        }
                        None => return Err(lost(CatalogError::UnknownLog)),
                    }
                }
                *seen = changes.revision;
            }
        }
        Err(CatalogError::Metadata(MetadataError::Compacted { .. })) => {}
        Err(error) => return Err(error),
    }
    // What happened after the stream broke, or while there was none, is read at once and not with the next change.
    let (stored, at) = catalog.chain_at(log).await.map_err(lost)?;
    learn(&stored);
    *seen = at;
    Ok(())
}

/// Reads a chain that may have changed before anybody was told of it.
async fn read_once(state: Weak<LogState>) {
    let mut back_off = BackOff::new();
    while let Some(state) = state.upgrade() {
        match state.refresh().await {
            Err(CatalogError::Metadata(error)) => debug!(log = %state.log, %error, "a chain is not read"),
            Ok(_) | Err(_) => return,
        }
        drop(state);
        back_off.pause().await;
    }
}

/// Follows all chains until nobody needs it.
async fn follow_others(cluster: Arc<Cluster>) {
    let mut bookmark = Bookmark::new("the chains of open logs", None);
    while cluster.follower.is_needed() {
        let ended = follow_others_once(&cluster, &mut bookmark.seen).await;
        bookmark.pause_after(ended).await;
    }
}

/// Returns when the watch ends, or when nobody needs it any more; `seen` is where to resume.
async fn follow_others_once(cluster: &Arc<Cluster>, seen: &mut Option<Revision>) -> Result<(), CatalogError> {
    let follower = &cluster.follower;
    let at = match *seen {
        Some(at) => at,
        None => {
            let at = cluster.catalog.chains_revision().await?;
            // What changed before that and is not known here is read, and what changes after it is told.
            let states = follower.hear_from(at);
            let read = |state: Weak<LogState>| async move {
                match state.upgrade() {
                    Some(state) => state.refresh().await.map(drop),
                    None => Ok(()),
                }
            };
            let mut reading = iter(states).map(read).buffer_unordered(READS_AT_ONCE);
            while let Some(read) = reading.next().await {
                // One that is deleted or damaged says so to its own handles.
                if let Err(error @ CatalogError::Metadata(_)) = read {
                    return Err(error);
                }
            }
            *seen.insert(at)
        }
    };
    let mut watch = cluster.catalog.watch_chains(at).await?;
    while let Some(changes) = watch.recv().await {
        let changes = changes?;
        let told =
            follower.hear(changes.revision, changes.changes.iter().filter_map(|change| Catalog::log_of(&change.key)));
        for change in &changes.changes {
            let Some(state) = Catalog::log_of(&change.key).and_then(|log| told.get(&log)) else { continue };
            match Catalog::chain_change(change) {
                Some((_, Some(stored))) => state.learn(stored),
                Some((_, None)) => drop(state.explain_absence(CatalogError::UnknownLog)),
                None => {}
            }
        }
        *seen = Some(changes.revision);
        if follower.is_idle() {
            return Ok(());
        }
    }
    Ok(())
}

impl Follower {
    /// Whether the watch of all chains has somebody to tell. If not, whoever comes next begins it anew.
    fn is_needed(&self) -> bool {
        let mut others = self.others.lock();
        others.followed = !others.logs.is_empty();
        others.followed
    }

    fn is_idle(&self) -> bool {
        self.others.lock().logs.is_empty()
    }

    /// Changes after this revision will be told to whoever comes from now on; those who are there.
    fn hear_from(&self, revision: Revision) -> Vec<Weak<LogState>> {
        let mut others = self.others.lock();
        others.heard = revision;
        others.logs.values().map(|(_, state)| state.clone()).collect()
    }

    /// Changes up to this revision are told to whoever is there now; those of them that are asked for.
    fn hear(&self, revision: Revision, logs: impl Iterator<Item = LogId>) -> BTreeMap<LogId, Arc<LogState>> {
        let mut others = self.others.lock();
        others.heard = revision;
        logs.filter_map(|log| Some((log, others.logs.get(&log)?.1.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests;
