//! The log server behind gRPC.

use std::future::Future;
use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{Life, opening};
use super::{ahead, unless_stopped};
use crate::codec::DecodeError;
use crate::codec::read::ReadMessage;
use crate::grpc::coalesce::Coalesced;
use crate::grpc::limits::ServerLimits;
use crate::grpc::status::{malformed, status};
use crate::log_server::{CallError, CopyError, CopyState, LogServer, ReadGrant, ReadReply, StoreRequest};
use crate::pb;
use pb::log_server_service_server::{LogServerService, LogServerServiceServer, SERVICE_NAME};

/// Serves any [`LogServer`] over gRPC. Cheap to clone. Each stream is released when its client goes away, when the service
/// closes its half, or when the shutdown token fires.
#[derive(Debug)]
pub struct LogServerGrpc<T: ?Sized> {
    service: Arc<T>,
    message_bytes_max: usize,
    shutdown: CancellationToken,
}

impl<T: LogServer + ?Sized + 'static> LogServerGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub fn new(service: Arc<T>, limits: &ServerLimits, shutdown: CancellationToken) -> Self {
        Self { service, message_bytes_max: limits.message_bytes_max, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let bytes = self.message_bytes_max;
        let server = LogServerServiceServer::new(self);
        routes.add_service(server.max_decoding_message_size(bytes).max_encoding_message_size(bytes));
    }

    /// Decodes, calls, encodes.
    async fn unary<R, D, F, A>(&self, request: Request<R>, call: impl FnOnce(D) -> F) -> Result<Response<A>, Status>
    where
        D: TryFrom<R, Error = DecodeError>,
        F: Future<Output = Result<CopyState, CallError>>,
        A: From<Result<CopyState, CopyError>>,
    {
        unless_stopped(&self.shutdown, async {
            let request = D::try_from(request.into_inner()).map_err(malformed)?;
            match call(request).await {
                Ok(state) => Ok(A::from(Ok(state))),
                Err(CallError::Copy(error)) => Ok(A::from(Err(error))),
                Err(CallError::Rpc(error)) => Err(status(error)),
            }
        })
        .await
    }
}

#[tonic::async_trait]
impl<T: LogServer + ?Sized + 'static> LogServerService for LogServerGrpc<T> {
    type StoreStream = BoxStream<'static, Result<pb::StoreResponse, Status>>;
    type ReadStream = BoxStream<'static, Result<pb::ReadResponse, Status>>;

    async fn store(
        &self,
        request: Request<Streaming<pb::StoreRequest>>,
    ) -> Result<Response<Self::StoreStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let stream = self.service.open_store().await.map_err(status)?;
            let life = Life::under(&self.shutdown);
            let failed = life.receive(request.into_inner(), stream.requests, Vec::<StoreRequest>::try_from);
            let replies = Coalesced::new(stream.replies).map(Ok);
            Ok(life.replies(replies, Some(failed)).boxed())
        })
        .await
    }

    async fn seal(&self, request: Request<pb::SealRequest>) -> Result<Response<pb::SealResponse>, Status> {
        self.unary(request, |request| self.service.seal(request)).await
    }

    async fn state(&self, request: Request<pb::StateRequest>) -> Result<Response<pb::StateResponse>, Status> {
        self.unary(request, |request| self.service.state(request)).await
    }

    async fn repair(&self, request: Request<pb::RepairRequest>) -> Result<Response<pb::RepairResponse>, Status> {
        self.unary(request, |request| self.service.repair(request)).await
    }

    async fn settle(&self, request: Request<pb::SettleRequest>) -> Result<Response<pb::SettleResponse>, Status> {
        self.unary(request, |request| self.service.settle(request)).await
    }

    async fn trim(&self, request: Request<pb::TrimRequest>) -> Result<Response<pb::TrimResponse>, Status> {
        self.unary(request, |request| self.service.trim(request)).await
    }

    async fn read(&self, request: Request<Streaming<pb::ReadRequest>>) -> Result<Response<Self::ReadStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let ahead = ahead(&request);
            let mut requests = request.into_inner();
            let open = opening(&mut requests).await?.try_into().map_err(malformed)?;
            let life = Life::under(&self.shutdown);
            match self.service.read_ahead(open, ahead.clone()).await {
                Ok(read) => {
                    let failed = life
                        .receive(requests, read.grants, |message| ReadGrant::try_from(message).map(|grant| [grant]));
                    let parts = ReceiverStream::new(read.replies).map(move |part| match part {
                        Ok(reply) => {
                            if let ReadReply::Batch { batch, .. } = &reply {
                                ahead.took(batch.len() as u64);
                            }
                            Ok(ReadMessage::Reply(reply).into())
                        }
                        Err(CallError::Copy(error)) => Ok(ReadMessage::Refused(error).into()),
                        Err(CallError::Rpc(error)) => Err(status(error)),
                    });
                    let replies = stream::iter([Ok(ReadMessage::Opened.into())]).chain(parts);
                    Ok(life.replies(replies, Some(failed)).boxed())
                }
                Err(CallError::Copy(error)) => {
                    let refused = stream::iter([Ok(ReadMessage::Refused(error).into())]);
                    Ok(life.replies(refused, None).boxed())
                }
                Err(CallError::Rpc(error)) => Err(status(error)),
            }
        })
        .await
    }
}
