//! What a node says about itself, behind a connection.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tonic::transport::Channel;

use super::{Line, answer, line, request};
use crate::error::RpcError;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::node::{NodeService, NodeStatus};
use crate::pb;
use pb::node_service_client::NodeServiceClient;

/// Largest answer: a status with its longest text is far below.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// A [`NodeService`] behind gRPC. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct GrpcNode {
    client: NodeServiceClient<Line>,
    request_timeout: Duration,
}

impl GrpcNode {
    /// A client of the node at `address` (`host:port`), connected by the first call. Must be called inside a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn connect_lazy(address: &str, options: &ClientOptions) -> Result<Self, InvalidAddress> {
        Ok(Self::over(connect_lazy(address, options)?, options))
    }

    /// A client over a given connection.
    pub fn over(channel: Channel, options: &ClientOptions) -> Self {
        let client = NodeServiceClient::new(line(channel, options)).max_decoding_message_size(ANSWER_BYTES_MAX);
        Self { client, request_timeout: options.request_timeout }
    }
}

impl NodeService for GrpcNode {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        let (deadline, mut client) = (self.request_timeout, self.client.clone());
        Box::pin(async move { answer(deadline, client.status(request(pb::NodeStatusRequest {}, deadline))).await })
    }
}
