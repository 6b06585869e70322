//! A metadata member's service about its group behind gRPC.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use super::unless_stopped;
use crate::codec::metadata_admin::{AddMember, RemoveMember};
use crate::grpc::status::{malformed, status};
use crate::metadata_admin::{MEMBER_ADDRESS_BYTES_MAX, MetadataAdmin, MetadataAdminError};
use crate::pb;
use pb::metadata_admin_service_server::{MetadataAdminService, MetadataAdminServiceServer, SERVICE_NAME};

/// Largest request: a member and its frame.
const REQUEST_BYTES_MAX: usize = 4 << 10;
const _: () = assert!(MEMBER_ADDRESS_BYTES_MAX < REQUEST_BYTES_MAX / 2);

/// Serves any [`MetadataAdmin`] over gRPC.
#[derive(Debug)]
pub struct MetadataAdminGrpc<T: ?Sized> {
    service: Arc<T>,
    shutdown: CancellationToken,
}

impl<T: MetadataAdmin + ?Sized + 'static> MetadataAdminGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub const fn new(service: Arc<T>, shutdown: CancellationToken) -> Self {
        Self { service, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let server = MetadataAdminServiceServer::new(self);
        routes.add_service(server.max_decoding_message_size(REQUEST_BYTES_MAX));
    }
}

fn changed(outcome: Result<(), MetadataAdminError>) -> Result<pb::MetadataChangeResponse, Status> {
    match outcome {
        Err(MetadataAdminError::Rpc(error)) => Err(status(error)),
        outcome => Ok(outcome.into()),
    }
}

#[tonic::async_trait]
impl<T: MetadataAdmin + ?Sized + 'static> MetadataAdminService for MetadataAdminGrpc<T> {
    async fn status(
        &self,
        _: Request<pb::MetadataStatusRequest>,
    ) -> Result<Response<pb::MetadataStatusResponse>, Status> {
        unless_stopped(&self.shutdown, async { self.service.status().await.map(Into::into).map_err(status) }).await
    }

    async fn add_member(
        &self,
        request: Request<pb::AddMetadataMemberRequest>,
    ) -> Result<Response<pb::MetadataChangeResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let AddMember(member) = request.into_inner().try_into().map_err(malformed)?;
            changed(self.service.add_member(member).await)
        })
        .await
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMetadataMemberRequest>,
    ) -> Result<Response<pb::MetadataChangeResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let RemoveMember(node) = request.into_inner().try_into().map_err(malformed)?;
            changed(self.service.remove_member(node).await)
        })
        .await
    }

    async fn elect(
        &self,
        _: Request<pb::ElectMetadataLeaderRequest>,
    ) -> Result<Response<pb::MetadataChangeResponse>, Status> {
        unless_stopped(&self.shutdown, async { changed(self.service.elect().await) }).await
    }
}
