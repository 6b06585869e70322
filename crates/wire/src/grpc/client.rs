//! Clients: each service's trait over a connection to one peer.

mod liveness;
mod log_server;
mod logs;
mod metadata;
mod metadata_admin;
mod node;
mod sequencer;

use std::future::Future;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::NameCluster;
use super::limits::ClientOptions;
use super::status::rpc_error;
use crate::codec::DecodeError;
use crate::error::RpcError;

pub use liveness::GrpcLiveness;
pub use log_server::GrpcLogServer;
pub use logs::GrpcLogs;
pub use metadata::GrpcMetadata;
pub use metadata_admin::GrpcMetadataAdmin;
pub use node::GrpcNode;
pub use sequencer::GrpcSequencers;

/// A connection that names the client's cluster with each request.
type Line = InterceptedService<Channel, NameCluster>;

fn line(channel: Channel, options: &ClientOptions) -> Line {
    InterceptedService::new(channel, NameCluster::new(options.cluster))
}

/// A unary request that tells the server how long its answer is of use.
fn request<M>(message: M, deadline: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Waits for an answer until the deadline, connecting included, and decodes it.
async fn answer<M, A>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<M>, Status>>,
) -> Result<A, RpcError>
where
    A: TryFrom<M, Error = DecodeError>,
{
    match timeout(deadline, call).await {
        Ok(Ok(response)) => A::try_from(response.into_inner()).map_err(not_understood),
        Ok(Err(status)) => Err(failed(&status)),
        Err(_) => Err(RpcError::DeadlinePassed),
    }
}

/// The first message of a response stream.
async fn opened<M, A>(replies: &mut Streaming<M>) -> Result<A, RpcError>
where
    A: TryFrom<M, Error = DecodeError>,
{
    match replies.message().await {
        Ok(Some(message)) => A::try_from(message).map_err(not_understood),
        Ok(None) => Err(RpcError::Unreachable),
        Err(status) => Err(failed(&status)),
    }
}

/// An answer that cannot be understood says nothing about what the peer did: the outcome is unknown.
fn not_understood(error: DecodeError) -> RpcError {
    tracing::warn!(%error, "a peer answered with what cannot be understood");
    RpcError::Unreachable
}

fn failed(status: &Status) -> RpcError {
    let error = rpc_error(status);
    tracing::debug!(code = ?status.code(), message = status.message(), %error, "a request failed");
    error
}

/// What the peer answers, in order, until the stream ends or an answer cannot be understood. Dropping it cancels the RPC:
/// HTTP/2 keeps one while either of its halves is used, so `sending` ends the requests too.
fn answers<M, T>(
    replies: Streaming<M>,
    sending: DropGuard,
    decode: fn(M) -> Result<T, DecodeError>,
) -> impl Stream<Item = T>
where
    M: 'static,
{
    stream::unfold((replies, sending), move |(mut replies, sending)| async move {
        let message = replies.message().await.map_err(|status| failed(&status)).ok()??;
        let item = decode(message).map_err(not_understood).ok()?;
        Some((item, (replies, sending)))
    })
}

/// Moves what the peer answers to the caller, in order, until the stream ends, the caller drops its half, or an answer cannot
/// be understood. `broken` makes the last item of a stream that did not end in good order, for streams that have one.
///
/// The task holds nothing but the RPC and ends with it. `sending` ends the requests too: HTTP/2 keeps an RPC while either of
/// its halves is used, so only both of them being gone cancels it at the peer.
fn deliver<M, T, I>(
    mut replies: Streaming<M>,
    caller: mpsc::Sender<T>,
    decode: fn(M) -> Result<I, DecodeError>,
    broken: fn(RpcError) -> Option<T>,
    sending: DropGuard,
) where
    M: Send + 'static,
    T: Send + 'static,
    I: IntoIterator<Item = T, IntoIter: Send> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the task owns nothing but the RPC and ends with it")]
    tokio::spawn(async move {
        let _sending = sending;
        let error = loop {
            let message = tokio::select! {
                biased;
                () = caller.closed() => return,
                message = replies.message() => message,
            };
            let items = match message {
                Ok(Some(message)) => decode(message).map_err(not_understood),
                Ok(None) => return,
                Err(status) => Err(failed(&status)),
            };
            match items {
                Ok(items) => {
                    for item in items {
                        if caller.send(item).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => break error,
            }
        };
        if let Some(last) = broken(error) {
            // Nobody to tell if the caller went away meanwhile.
            let _ = caller.send(last).await;
        }
    });
}
