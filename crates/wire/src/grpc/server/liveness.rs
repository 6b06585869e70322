//! A metadata member's service for signs of life behind gRPC.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use super::unless_stopped;
use crate::codec::liveness::Taken;
use crate::grpc::status::{malformed, status};
use crate::liveness::Liveness;
use crate::pb;
use pb::liveness_service_server::{LivenessService, LivenessServiceServer, SERVICE_NAME};

/// Largest request. A beat has some twenty bytes.
const REQUEST_BYTES_MAX: usize = 1 << 10;

/// Serves any [`Liveness`] over gRPC.
#[derive(Debug)]
pub struct LivenessGrpc<T: ?Sized> {
    service: Arc<T>,
    shutdown: CancellationToken,
}

impl<T: Liveness + ?Sized + 'static> LivenessGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub const fn new(service: Arc<T>, shutdown: CancellationToken) -> Self {
        Self { service, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let server = LivenessServiceServer::new(self);
        routes.add_service(server.max_decoding_message_size(REQUEST_BYTES_MAX));
    }
}

#[tonic::async_trait]
impl<T: Liveness + ?Sized + 'static> LivenessService for LivenessGrpc<T> {
    async fn beat(&self, request: Request<pb::BeatRequest>) -> Result<Response<pb::BeatResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let beat = request.into_inner().try_into().map_err(malformed)?;
            Taken::of(self.service.beat(beat).await).map(Into::into).map_err(status)
        })
        .await
    }
}
