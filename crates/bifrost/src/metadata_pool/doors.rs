//! Addresses of which any will do, and none of which is waited for alone: what is asked of one that stays silent is asked of
//! the next one too.
//!
//! A node that is paused or cut off takes requests and answers none, and a watch there brings nothing. So whoever is faster
//! than a silent door takes its place. The silent one is asked once more, for next to nothing; if it does not answer that
//! either, the watches that were begun there end: their watchers begin anew, where there are answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bifrost_wire::grpc::GrpcMetadata;
use bifrost_wire::metadata::{MetadataError, MetadataStore, WatchStream};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Target, Targets, moves_on};

/// How long a door may take to read something before the next one is asked too: far above a healthy answer.
const READ_PATIENCE: Duration = Duration::from_millis(200);
/// How long a door may take for a transaction before its outcome counts as unknown (M2), if there are others: longer than
/// the members need to elect somebody, in the middle of which its node may be.
const TXN_PATIENCE: Duration = Duration::from_millis(1500);
/// For the answer of a door that was too slow, before it is left.
const CHECK_DEADLINE: Duration = Duration::from_millis(400);
/// What such a door is asked for. Nobody needs to have put anything there.
const CHECK_KEY: &str = "door";
/// Revisions that wait for a watcher here, besides those in front of the connection.
const CHANGES_QUEUED: usize = 1;

type Ask<'a, T> = BoxFuture<'a, Result<T, MetadataError>>;

/// Reads from the first door that answers, and says which one that is.
///
/// # Errors
/// What the last one answered, if all failed.
pub(super) async fn read<T>(
    targets: &Mutex<Targets>,
    ask: impl for<'a> Fn(&'a GrpcMetadata) -> Ask<'a, T> + Send + Sync,
) -> Result<(Arc<Target>, T), MetadataError> {
    let doors = targets.lock().all_from_current();
    let ask_one = async |door: usize| match doors.get(door) {
        Some(target) => (door, ask(&target.metadata).await),
        None => (door, Err(MetadataError::Unavailable)),
    };
    let mut asked = FuturesUnordered::new();
    let mut failed = BTreeSet::new();
    let mut begun = 0;
    let mut error = MetadataError::Unavailable;
    let mut next_at = Instant::now();
    loop {
        if begun < doors.len() && next_at <= Instant::now() {
            asked.push(ask_one(begun));
            begun += 1;
            next_at = Instant::now() + READ_PATIENCE;
        }
        tokio::select! {
            biased;
            Some((door, answer)) = asked.next() => {
                let Some(target) = doors.get(door) else { continue };
                match answer {
                    Err(passing) if moves_on(passing) => {
                        targets.lock().pass(target);
                        error = passing;
                        failed.insert(door);
                        next_at = Instant::now();
                    }
                    answer => {
                        targets.lock().prefer(target);
                        let silent = |other: &usize| *other != door && !failed.contains(other);
                        (0..begun).filter(silent).filter_map(|silent| doors.get(silent)).for_each(check);
                        return answer.map(|answer| (Arc::clone(target), answer));
                    }
                }
            }
            () = sleep_until(next_at), if begun < doors.len() => {}
            else => return Err(error),
        }
    }
}

/// Carries a transaction out at one door. It goes to another one only if it was refused.
///
/// # Errors
/// What the last one answered; [`MetadataError::Unknown`] after one that stayed silent while there are others.
pub(super) async fn write<T>(
    targets: &Mutex<Targets>,
    ask: impl for<'a> Fn(&'a GrpcMetadata) -> Ask<'a, T> + Send + Sync,
) -> Result<T, MetadataError> {
    let doors = targets.lock().all_from_current();
    let mut result = Err(MetadataError::Unavailable);
    for door in &doors {
        let asking = ask(&door.metadata);
        result = if doors.len() == 1 {
            asking.await
        } else {
            timeout(TXN_PATIENCE, asking).await.unwrap_or_else(|_| {
                check(door);
                Err(MetadataError::Unknown)
            })
        };
        if result.as_ref().err().copied().is_some_and(moves_on) {
            targets.lock().pass(door);
        }
        if !matches!(result, Err(MetadataError::Unavailable)) {
            break;
        }
    }
    result
}

/// Leaves a door if it is silent still, in the background; one check at a time.
pub(super) fn check(door: &Arc<Target>) {
    let Ok(checking) = Arc::clone(&door.checking).try_acquire_owned() else { return };
    let door = Arc::clone(door);
    #[expect(clippy::disallowed_methods, reason = "the task holds nothing but one call and has a deadline")]
    tokio::spawn(async move {
        let _checking = checking;
        if timeout(CHECK_DEADLINE, door.metadata.get(CHECK_KEY.to_owned())).await.is_err() {
            tracing::debug!(address = door.address, "metadata is silent there, watches begin elsewhere");
            door.left.send_modify(|times| *times = times.wrapping_add(1));
        }
    });
}

/// What a watch at a door brings, until that door is left.
pub(super) fn until_left(door: Arc<Target>, mut changes: WatchStream) -> WatchStream {
    let (watcher, receiver) = mpsc::channel(CHANGES_QUEUED);
    let mut left = door.left.subscribe();
    #[expect(clippy::disallowed_methods, reason = "the task holds nothing but the watch and ends with it")]
    tokio::spawn(async move {
        // Keeps the sender of `left`.
        let _door = door;
        loop {
            let item = tokio::select! {
                biased;
                () = watcher.closed() => return,
                _ = left.changed() => return,
                item = changes.recv() => item,
            };
            let Some(item) = item else { return };
            if watcher.send(item).await.is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests;
