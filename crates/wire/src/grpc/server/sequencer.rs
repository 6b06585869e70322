//! The sequencers of a node behind gRPC.

use std::sync::Arc;

use bifrost_types::{LogletId, NodeGeneration};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{Life, opening};
use super::unless_stopped;
use crate::codec::sequencer::AppendMessage;
use crate::grpc::coalesce::Coalesced;
use crate::grpc::limits::ServerLimits;
use crate::grpc::status::{malformed, status};
use crate::pb;
use crate::sequencer::{AppendReply, AppendRequest, EndRequest, SequencerCallError, SequencerTails, Sequencers};
use pb::sequencer_service_server::{SERVICE_NAME, SequencerService, SequencerServiceServer};

/// Serves any [`Sequencers`] over gRPC. Each stream is released when its client goes away, when the service closes its half,
/// or when the shutdown token fires.
#[derive(Debug)]
pub struct SequencersGrpc<T: ?Sized> {
    service: Arc<T>,
    message_bytes_max: usize,
    shutdown: CancellationToken,
}

impl<T: Sequencers + ?Sized + 'static> SequencersGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub fn new(service: Arc<T>, limits: &ServerLimits, shutdown: CancellationToken) -> Self {
        Self { service, message_bytes_max: limits.message_bytes_max, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let bytes = self.message_bytes_max;
        let server = SequencerServiceServer::new(self);
        routes.add_service(server.max_decoding_message_size(bytes).max_encoding_message_size(bytes));
    }
}

#[tonic::async_trait]
impl<T: Sequencers + ?Sized + 'static> SequencerService for SequencersGrpc<T> {
    type AppendStream = BoxStream<'static, Result<pb::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let mut requests = request.into_inner();
            let open = opening(&mut requests).await?.try_into().map_err(malformed)?;
            let life = Life::under(&self.shutdown);
            match self.service.open_append(open).await {
                Ok(append) => {
                    let failed = life.receive(requests, append.requests, |message| {
                        AppendRequest::try_from(message).map(|request| [request])
                    });
                    let opened = stream::iter([AppendMessage::Opened(append.opened).into()]);
                    let replies = opened.chain(Coalesced::new(append.replies)).map(Ok);
                    Ok(life.replies(replies, Some(failed)).boxed())
                }
                Err(SequencerCallError::Refused(error)) => {
                    let closed = AppendMessage::Reply(AppendReply::Closed(error));
                    Ok(life.replies(stream::iter([Ok(closed.into())]), None).boxed())
                }
                Err(SequencerCallError::Rpc(error)) => Err(status(error)),
            }
        })
        .await
    }

    async fn tails(&self, request: Request<pb::TailsRequest>) -> Result<Response<pb::TailsResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let (loglet, sequencer) =
                <(LogletId, NodeGeneration)>::try_from(request.into_inner()).map_err(malformed)?;
            tails_response(self.service.tails(loglet, sequencer).await)
        })
        .await
    }

    async fn end(&self, request: Request<pb::EndRequest>) -> Result<Response<pb::TailsResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let end = EndRequest::try_from(request.into_inner()).map_err(malformed)?;
            tails_response(self.service.end(end).await)
        })
        .await
    }
}

fn tails_response(outcome: Result<SequencerTails, SequencerCallError>) -> Result<pb::TailsResponse, Status> {
    match outcome {
        Ok(tails) => Ok(Ok(tails).into()),
        Err(SequencerCallError::Refused(error)) => Ok(Err(error).into()),
        Err(SequencerCallError::Rpc(error)) => Err(status(error)),
    }
}
