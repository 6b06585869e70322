//! A listener with limits.

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::limits::ServerLimits;

/// Why a server ended although nobody stopped it.
#[derive(Debug, Error)]
#[error("the gRPC server failed")]
pub struct ServeError(#[from] tonic::transport::Error);

/// A tonic server with these limits and nothing to serve yet. HTTP/2 only. `TCP_NODELAY` of accepted sockets is up to the
/// listener: [`serve`] sets it.
pub fn server_builder(limits: &ServerLimits) -> Server {
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
/// # Errors
/// [`ServeError`] when the server cannot go on.
///
/// # Cancel safety
/// Dropping the future closes the listener; open connections end by themselves.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    limits: &ServerLimits,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = server_builder(limits)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(limits.drain_timeout).await;
    };
    tokio::select! {
        biased;
        result = server => result.map_err(ServeError),
        () = drained => Ok(()),
    }
}
