//! What a node says about itself, behind gRPC.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use super::unless_stopped;
use crate::grpc::status::status;
use crate::node::NodeService as Service;
use crate::pb;
use pb::node_service_server::{NodeService, NodeServiceServer, SERVICE_NAME};

/// Largest request: there is nothing in one.
const REQUEST_BYTES_MAX: usize = 1 << 10;

/// Serves any [`NodeService`](Service) over gRPC.
#[derive(Debug)]
pub struct NodeGrpc<T: ?Sized> {
    service: Arc<T>,
    shutdown: CancellationToken,
}

impl<T: Service + ?Sized + 'static> NodeGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub const fn new(service: Arc<T>, shutdown: CancellationToken) -> Self {
        Self { service, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        routes.add_service(NodeServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX));
    }
}

#[tonic::async_trait]
impl<T: Service + ?Sized + 'static> NodeService for NodeGrpc<T> {
    async fn status(&self, _: Request<pb::NodeStatusRequest>) -> Result<Response<pb::NodeStatusResponse>, Status> {
        unless_stopped(&self.shutdown, async { self.service.status().await.map(Into::into).map_err(status) }).await
    }
}
