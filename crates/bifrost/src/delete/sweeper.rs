//! Finishes deletions that somebody began and left. Each node runs one; they need not know of each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_types::LogId;
use bifrost_wire::metadata::Revision;
use futures_util::stream::{StreamExt, iter};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use super::{Deleter, Given, give_back};
use crate::catalog::{Catalog, CatalogError, StoredChain, StoredTombstone};
use crate::directory::Directory;
use crate::reconfigure::{Progress, ReconfigureError};

/// When a sweeper does what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweeperOptions {
    /// How long whoever deletes is left alone before the sweeper helps. Default 1 s: most deletions are over by then.
    pub grace: Duration,
    /// The longest pause between two attempts at what could not be finished; the pauses double from `grace`. Default
    /// 60 s: how late a server that comes back may be asked for its space.
    pub pause_max: Duration,
    /// How long one attempt at one log may take. Default 30 s. What was done stays done.
    pub attempt_deadline: Duration,
}

impl Default for SweeperOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            attempt_deadline: Duration::from_secs(30),
        }
    }
}

/// Logs that are worked on at once.
const AT_ONCE: usize = 4;

/// Finishes deletions for ever; run it as a task.
///
/// # Cancel safety
/// Safe at every await: the next sweeper goes on.
pub async fn sweep(catalog: Catalog, directory: Directory, options: SweeperOptions) {
    let mut pause = options.grace;
    // Up to where changes were seen: a log may go, and its tombstone too, between two rounds.
    let mut seen = None;
    let mut given = BTreeMap::new();
    loop {
        let left = match round(&catalog, &directory, &options, &mut given).await {
            Ok((left, revision)) => {
                seen.get_or_insert(revision);
                left
            }
            Err(error) => {
                debug!(%error, "tombstones cannot be read");
                1
            }
        };
        let until = (left > 0).then(|| Instant::now() + pause);
        if news(&catalog, &mut seen, until).await {
            pause = options.grace;
            sleep(options.grace).await;
        } else {
            pause = pause.saturating_mul(2).min(options.pause_max);
        }
    }
}

/// One attempt at every tombstone; returns how many are left, and the revision at which they were listed. `given` is what earlier
/// rounds were given back of those that are left.
async fn round(
    catalog: &Catalog,
    directory: &Directory,
    options: &SweeperOptions,
    given: &mut BTreeMap<LogId, Given>,
) -> Result<(usize, Revision), CatalogError> {
    let (tombstones, revision) = catalog.tombstones().await?;
    let left: BTreeMap<LogId, Given> = iter(tombstones)
        .map(|tombstone| {
            let log = tombstone.tombstone.log;
            let given = given.remove(&log).unwrap_or_default();
            async move {
                let finished =
                    match timeout(options.attempt_deadline, finish(catalog, directory, tombstone, &given)).await {
                        Ok(Ok(finished)) => finished,
                        Ok(Err(error)) => {
                            warn!(%log, %error, "a deletion cannot be finished now");
                            false
                        }
                        Err(_) => {
                            debug!(%log, "a deletion takes long");
                            false
                        }
                    };
                (!finished).then_some((log, given))
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    *given = left;
    Ok((given.len(), revision))
}

/// Does what is left to do about one tombstone; returns whether that is all.
async fn finish(
    catalog: &Catalog,
    directory: &Directory,
    tombstone: StoredTombstone,
    given: &Given,
) -> Result<bool, ReconfigureError> {
    let peers: Arc<dyn Peers> = Arc::new(directory.clone());
    let removed = if tombstone.tombstone.removed.is_some() {
        Some(tombstone)
    } else {
        let deleter = Deleter::new(tombstone.tombstone.log, catalog.clone(), peers.clone());
        let (progress, _) = watch::channel(Progress::default());
        deleter.drive(tombstone.tombstone.op, &progress, &|_: &StoredChain| {}).await?
    };
    let Some(removed) = removed else { return Ok(true) };
    Ok(give_back(catalog, peers.as_ref(), &removed, given).await?.by.is_empty())
}

/// Waits until somebody begins or advances a deletion, or until then; returns whether there is something new.
async fn news(catalog: &Catalog, seen: &mut Option<Revision>, until: Option<Instant>) -> bool {
    let Some(after) = *seen else {
        wait(until).await;
        return false;
    };
    let watching = async {
        if let Ok(mut watch) = catalog.watch_tombstones(after).await {
            while let Some(Ok(changes)) = watch.recv().await {
                *seen = Some(changes.revision);
                if changes.changes.iter().any(|change| change.value.is_some()) {
                    return Some(());
                }
            }
        }
        // The watch broke: what happened meanwhile is found by listing again.
        *seen = None;
        None
    };
    let watched = match until {
        Some(until) => timeout_at(until, watching).await.ok(),
        None => Some(watching.await),
    };
    match watched {
        Some(Some(())) => true,
        Some(None) => {
            sleep(WATCH_PAUSE).await;
            wait(until).await;
            false
        }
        None => false,
    }
}

/// Before a broken watch is begun again.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

async fn wait(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}
