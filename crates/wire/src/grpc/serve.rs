//! A listener with limits.
//!
//! ```text
//!  socket ─► accept ─► greeting ─► Connection ─► hyper ─► Front ─► services
//!            places    HTTP/2?     write stall            cluster id, open requests, large messages
//!  socket ◄──────────────────────────────────── hyper ◄── CountedAnswer ◄── services
//!                      ends it ◄── look: memory of answers
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bifrost_types::ClusterId;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::warn;

use super::accept::{ACCEPTED_QUEUED, Door};
use super::front::Front;
use super::limits::ServerLimits;
use super::network::Listener;
use crate::account::Answers;
use crate::metrics::{CloseReason, Metrics};

/// How often the metrics show what answers hold.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// Why a server ended although nobody stopped it.
#[derive(Debug, Error)]
#[error("the gRPC server failed")]
pub struct ServeError(#[from] tonic::transport::Error);

/// A tonic server with these limits and nothing to serve yet. HTTP/2 only.
fn server_builder(limits: &ServerLimits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.concurrent_streams_max)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(limits.frame_bytes_max)
        .http2_max_header_list_size(limits.header_list_bytes_max)
        .http2_max_pending_accept_reset_streams(Some(limits.pending_reset_streams_max))
        .http2_max_local_error_reset_streams(Some(limits.local_error_resets_max))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .timeout(limits.request_timeout)
}

/// Serves `routes` on exactly this listener until `shutdown` fires: then the listener is closed at once, and connections get
/// [`ServerLimits::drain_timeout`] to end. Give the same token (or a child of it) to the adapters behind the routes, so
/// that their streams end. A connection that is still open after the drain is left to its keepalive.
///
/// Requests that name another cluster than `cluster` are refused; without one, none are. The limits should have been
/// [validated](ServerLimits::validate).
///
/// # Errors
/// [`ServeError`] when the server cannot go on.
///
/// # Cancel safety
/// Dropping the future closes the listener; open connections end by themselves.
pub async fn serve(
    listener: impl Listener,
    routes: Routes,
    limits: &ServerLimits,
    cluster: Option<ClusterId>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let metrics = Metrics::new();
    let answers = Answers::new(limits.answer_bytes_max, limits.connections_max);
    let (accepted, connections) = mpsc::channel::<io::Result<_>>(ACCEPTED_QUEUED);
    // Also fires when this future is dropped: no peer is greeted that nobody would serve.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let door = Door {
        limits: Arc::new(limits.clone()),
        answers: Arc::clone(&answers),
        accepted,
        metrics: metrics.clone(),
        stop,
    };
    let server = server_builder(limits).serve_with_incoming_shutdown(
        Front::new(routes, limits, cluster, metrics.clone()),
        ReceiverStream::new(connections),
        shutdown.clone().cancelled_owned(),
    );
    let serving = async { tokio::join!(door.run(listener), server).1 };
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(limits.drain_timeout).await;
    };
    tokio::select! {
        biased;
        result = serving => result.map_err(ServeError),
        () = drained => Ok(()),
        () = watch(&answers, limits, &metrics) => Ok(()),
    }
}

/// Looks after the memory of answers for ever.
async fn watch(answers: &Answers, limits: &ServerLimits, metrics: &Metrics) {
    let every = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut shows, mut looks) = (every(SHOW_INTERVAL), every(limits.answer_stall_timeout));
    let mut shown = 0;
    loop {
        tokio::select! {
            biased;
            _ = shows.tick() => {
                let held = answers.held();
                // Several listeners of one process share the gauge.
                metrics.answer_bytes.increment(held as f64 - shown as f64);
                shown = held;
            }
            _ = looks.tick() => {
                for (address, bytes) in answers.look() {
                    metrics.closed(CloseReason::Memory);
                    warn!(%address, bytes, "a connection is closed: others wait for the memory of answers it does not take");
                }
            }
        }
    }
}
