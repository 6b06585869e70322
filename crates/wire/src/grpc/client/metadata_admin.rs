//! A metadata member's service about its group, behind a connection.

use std::time::Duration;

use bifrost_types::NodeId;
use futures_util::future::BoxFuture;
use tonic::transport::Channel;

use super::{Line, answer, line, request};
use crate::codec::metadata_admin::{AddMember, RemoveMember};
use crate::error::RpcError;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::metadata_admin::{MemberStatus, MetadataAdmin, MetadataAdminError, MetadataMember};
use crate::pb;
use pb::metadata_admin_service_client::MetadataAdminServiceClient;

/// Largest answer: a status with all its members.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Time for a change of the group. A new member takes the whole state over the network before it votes.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(25);

/// A [`MetadataAdmin`] behind gRPC. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct GrpcMetadataAdmin {
    client: MetadataAdminServiceClient<Line>,
    request_timeout: Duration,
}

impl GrpcMetadataAdmin {
    /// A client of the metadata member at `address` (`host:port`), connected by the first call. Must be called inside a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn connect_lazy(address: &str, options: &ClientOptions) -> Result<Self, InvalidAddress> {
        Ok(Self::over(connect_lazy(address, options)?, options))
    }

    /// A client over a given connection.
    pub fn over(channel: Channel, options: &ClientOptions) -> Self {
        let client =
            MetadataAdminServiceClient::new(line(channel, options)).max_decoding_message_size(ANSWER_BYTES_MAX);
        Self { client, request_timeout: options.request_timeout }
    }
}

impl MetadataAdmin for GrpcMetadataAdmin {
    fn status(&self) -> BoxFuture<'_, Result<MemberStatus, RpcError>> {
        let (deadline, mut client) = (self.request_timeout, self.client.clone());
        Box::pin(async move { answer(deadline, client.status(request(pb::MetadataStatusRequest {}, deadline))).await })
    }

    fn add_member(&self, member: MetadataMember) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let change = request(AddMember(member).into(), CHANGE_TIMEOUT);
            answer(CHANGE_TIMEOUT, client.add_member(change)).await?
        })
    }

    fn remove_member(&self, node: NodeId) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let change = request(RemoveMember(node).into(), CHANGE_TIMEOUT);
            answer(CHANGE_TIMEOUT, client.remove_member(change)).await?
        })
    }

    fn elect(&self) -> BoxFuture<'_, Result<(), MetadataAdminError>> {
        let (deadline, mut client) = (self.request_timeout, self.client.clone());
        Box::pin(
            async move { answer(deadline, client.elect(request(pb::ElectMetadataLeaderRequest {}, deadline))).await? },
        )
    }
}
