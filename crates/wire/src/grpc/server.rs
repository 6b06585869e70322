//! Server adapters: a tonic service over any implementation of a service's trait.

mod liveness;
mod log_server;
mod logs;
mod metadata;
mod metadata_admin;
mod node;
mod sequencer;
mod standard;
mod stream;

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::status::{status, stopped};
use crate::account::Ahead;
use crate::error::RpcError;

pub use liveness::LivenessGrpc;
pub use log_server::LogServerGrpc;
pub use logs::LogsGrpc;
pub use metadata::MetadataGrpc;
pub use metadata_admin::MetadataAdminGrpc;
pub use node::NodeGrpc;
pub use sequencer::SequencersGrpc;
pub use standard::{HealthGrpc, ReflectionError, add_reflection};

/// How a service that works ahead of the peer of this request counts what it holds.
fn ahead<M>(request: &Request<M>) -> Ahead {
    request.extensions().get::<Ahead>().cloned().unwrap_or_else(Ahead::uncounted)
}

/// Carries out one request, or the opening of one stream, unless the server is stopping.
///
/// A request that comes after the token fired is refused before anything is done; one that is under way is dropped, and
/// its outcome is unknown to the caller: waiting for it could hold up a stop for ever.
async fn unless_stopped<T>(
    shutdown: &CancellationToken,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    if shutdown.is_cancelled() {
        return Err(status(RpcError::ShuttingDown));
    }
    let outcome = shutdown.run_until_cancelled(request).await;
    outcome.unwrap_or_else(|| Err(stopped())).map(Response::new)
}
