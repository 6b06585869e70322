//! Sequencers whose segment was closed without them: whoever closes a segment asks its copies, and a sequencer hears of that
//! with its next store. One without appends hears of it here, from the chain.

use bifrost_sequencer::SequencerHost;
use bifrost_types::{Chain, LogId, Segment};
use bifrost_wire::metadata::Revision;
use tracing::debug;

use crate::catalog::{Catalog, CatalogError};
use crate::resume::Bookmark;

/// Ends them for ever; run it as a task.
///
/// # Cancel safety
/// Safe at every await.
pub(super) async fn end_left_behind(catalog: Catalog, sequencers: SequencerHost) {
    let mut bookmark = Bookmark::new("the chains of sequencers", None);
    loop {
        let ended = follow(&catalog, &sequencers, &mut bookmark.seen).await;
        bookmark.pause_after(ended).await;
    }
}

/// Returns when the watch ends; `seen` is where to resume.
async fn follow(
    catalog: &Catalog,
    sequencers: &SequencerHost,
    seen: &mut Option<Revision>,
) -> Result<(), CatalogError> {
    let at = match *seen {
        Some(at) => at,
        None => {
            let at = catalog.chains_revision().await?;
            // What changed before that is read, what changes after it is told.
            for loglet in sequencers.running() {
                match catalog.chain(loglet.log).await {
                    Ok(stored) => end(sequencers, loglet.log, Some(&stored.chain)),
                    Err(CatalogError::UnknownLog) => end(sequencers, loglet.log, None),
                    Err(error) if error.is_passing() => return Err(error),
                    Err(error) => debug!(%loglet, %error, "the chain of a sequencer cannot be read"),
                }
            }
            *seen.insert(at)
        }
    };
    let mut watch = catalog.watch_chains(at).await?;
    while let Some(changes) = watch.recv().await.transpose()? {
        for change in &changes.changes {
            // Most chains are no business of this node, and are not decoded.
            if Catalog::log_of(&change.key).is_some_and(|log| sequencers.runs(log))
                && let Some((log, stored)) = Catalog::chain_change(change)
            {
                end(sequencers, log, stored.as_ref().map(|stored| &stored.chain));
            }
        }
        *seen = Some(changes.revision);
    }
    Ok(())
}

fn end(sequencers: &SequencerHost, log: LogId, chain: Option<&Chain>) {
    match chain {
        Some(chain) => {
            let open = chain.last().filter(|last| last.decided_tail().is_none());
            sequencers.end_before(log, open.map_or(chain.next_segment, Segment::index));
        }
        None => sequencers.forget(log),
    }
}
