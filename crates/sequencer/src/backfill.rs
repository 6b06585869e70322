//! Gives a copy what it missed of the open loglet: read from the other copies, stored on a stream of its own, one
//! bounded stretch at a time (A4). What it stores lies below the committed tail, so it may be out of order (L1).

use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_loglet::read::{Item, ReadOptions, read_range};
use bifrost_types::limits::STORE_MESSAGE_BYTES;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{KeyFilter, LogletOffset, LogletParams, NodeSet};
use bifrost_wire::log_server::StoreRequest;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::driver::{Backfill, Input};
use crate::metrics::Metrics;

/// How long one stretch may take before it is tried again from the start.
const STRETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after each stretch: with [`STORE_MESSAGE_BYTES`] it bounds the bandwidth to 100 MiB/s.
const STRETCH_PAUSE: Duration = Duration::from_millis(10);
/// Pause after a stretch that failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

/// Serves the wishes of one loglet until its driver is gone.
pub(crate) async fn run_backfill(
    params: LogletParams,
    peers: Arc<dyn Peers>,
    mut wishes: mpsc::Receiver<Backfill>,
    inputs: mpsc::Sender<Input>,
    metrics: Metrics,
) {
    while let Some(wish) = wishes.recv().await {
        // Most loglets never need it: what it takes is not part of what each of them has all the time.
        let copying = Box::pin(stretch(&params, &peers, wish, &metrics));
        let done = timeout(STRETCH_DEADLINE, copying).await.ok().flatten();
        let until = done.unwrap_or(wish.from);
        debug!(loglet = %params.id, copy = wish.index.get(), from = %wish.from, %until, "backfill");
        sleep(if done.is_some() { STRETCH_PAUSE } else { FAILURE_PAUSE }).await;
        if plant::is(Plant::FlagNotCleared) && done.is_none() {
            continue;
        }
        if inputs.send(Input::Backfilled { index: wish.index, until }).await.is_err() {
            return;
        }
    }
}

/// Copies the start of the missing range; returns where the stretch ends, or `None` if nothing was stored.
async fn stretch(
    params: &LogletParams,
    peers: &Arc<dyn Peers>,
    wish: Backfill,
    metrics: &Metrics,
) -> Option<LogletOffset> {
    let member = params.nodeset.member(wish.index)?;
    // The copy itself need not be asked for what it lacks.
    let options = ReadOptions { declared_lost: NodeSet::from_iter([wish.index]), ..ReadOptions::default() };
    let read = read_range(
        params.clone(),
        wish.from,
        wish.until,
        KeyFilter::Any,
        options,
        Arc::clone(peers),
        STORE_MESSAGE_BYTES,
    );
    let read = read.await.ok()?;
    let mut first_offset = None;
    let mut batches = Vec::new();
    for item in read.items {
        match item {
            Item::Batch { first_offset: at, batch, .. } => {
                first_offset.get_or_insert(at);
                batches.push(batch.into_bytes());
            }
            // Trimmed meanwhile: nobody needs it any more. A run ends where it is interrupted.
            Item::Gap { end, .. } if batches.is_empty() => return Some(end),
            Item::Gap { .. } => break,
            Item::Filtered { .. } | Item::CaughtUp { .. } => {}
        }
    }
    let bytes: usize = batches.iter().map(bytes::Bytes::len).sum();
    let request = StoreRequest {
        loglet: params.id,
        disk: member.disk,
        sequencer: params.sequencer,
        committed_tail: wish.committed_tail,
        first_offset: first_offset?,
        batches,
    };
    let server = peers.log_server(member.node)?;
    let mut stream = server.open_store().await.ok()?;
    stream.requests.send(request).await.ok()?;
    loop {
        // Before the answer it may be told that somebody follows.
        if let Some(outcome) = stream.replies.recv().await?.outcome {
            outcome.ok()?;
            break;
        }
    }
    metrics.backfilled_bytes.increment(u64::try_from(bytes).unwrap_or(u64::MAX));
    Some(read.end)
}
