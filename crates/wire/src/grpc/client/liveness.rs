//! A metadata member's service for signs of life, behind a connection.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Line, answer, line, request};
use crate::codec::liveness::Taken;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::liveness::{Beat, BeatError, Liveness};
use crate::pb;
use pb::liveness_service_client::LivenessServiceClient;

/// Largest answer: where another member listens.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// A [`Liveness`] behind gRPC. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct GrpcLiveness {
    client: LivenessServiceClient<Line>,
    request_timeout: Duration,
}

impl GrpcLiveness {
    /// A client of the metadata member at `address` (`host:port`), connected by the first beat. Must be called inside a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn connect_lazy(address: &str, options: &ClientOptions) -> Result<Self, InvalidAddress> {
        let line = line(connect_lazy(address, options)?, options);
        let client = LivenessServiceClient::new(line).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { client, request_timeout: options.request_timeout })
    }
}

impl Liveness for GrpcLiveness {
    fn beat(&self, beat: Beat) -> BoxFuture<'_, Result<(), BeatError>> {
        let (deadline, mut client) = (self.request_timeout, self.client.clone());
        Box::pin(async move {
            let taken: Taken = answer(deadline, client.beat(request(beat.into(), deadline))).await?;
            taken.outcome()
        })
    }
}
