//! The service of logs behind gRPC.

use std::future::Future;
use std::sync::Arc;

use bifrost_types::AppendId;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{Life, opening};
use super::unless_stopped;
use crate::codec::DecodeError;
use crate::codec::logs::{FindTail, OfLog, TrimLog};
use crate::codec::records::{LogAppendMessage, LogAppendReply, ReadLogMessage};
use crate::grpc::limits::ServerLimits;
use crate::grpc::status::{malformed, status};
use crate::logs::{AppendRecords, CreateLog, ListLogs, LogRefusal, Logs, LogsError, ReadLog};
use crate::pb;
use pb::log_service_server::{LogService, LogServiceServer, SERVICE_NAME};

/// Serves any [`Logs`] over gRPC. Each stream is released when its client goes away, when the service closes its half, or
/// when the shutdown token fires.
#[derive(Debug)]
pub struct LogsGrpc<T: ?Sized> {
    service: Arc<T>,
    message_bytes_max: usize,
    shutdown: CancellationToken,
}

impl<T: Logs + ?Sized + 'static> LogsGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub fn new(service: Arc<T>, limits: &ServerLimits, shutdown: CancellationToken) -> Self {
        Self { service, message_bytes_max: limits.message_bytes_max, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let bytes = self.message_bytes_max;
        let server = LogServiceServer::new(self);
        routes.add_service(server.max_decoding_message_size(bytes).max_encoding_message_size(bytes));
    }

    /// Decodes, calls, encodes.
    async fn unary<R, D, F, O, A>(&self, request: Request<R>, call: impl FnOnce(D) -> F) -> Result<Response<A>, Status>
    where
        D: TryFrom<R, Error = DecodeError>,
        F: Future<Output = Result<O, LogsError>>,
        A: From<Result<O, LogRefusal>>,
    {
        unless_stopped(&self.shutdown, async {
            let request = D::try_from(request.into_inner()).map_err(malformed)?;
            match call(request).await {
                Ok(answer) => Ok(A::from(Ok(answer))),
                Err(LogsError::Refused(refusal)) => Ok(A::from(Err(refusal))),
                Err(LogsError::Rpc(error)) => Err(status(error)),
            }
        })
        .await
    }
}

#[tonic::async_trait]
impl<T: Logs + ?Sized + 'static> LogService for LogsGrpc<T> {
    type AppendStreamStream = BoxStream<'static, Result<pb::AppendStreamResponse, Status>>;
    type ReadStream = BoxStream<'static, Result<pb::ReadLogResponse, Status>>;

    async fn create_log(
        &self,
        request: Request<pb::CreateLogRequest>,
    ) -> Result<Response<pb::CreateLogResponse>, Status> {
        self.unary(request, |request: CreateLog| self.service.create(request)).await
    }

    async fn get_log(&self, request: Request<pb::GetLogRequest>) -> Result<Response<pb::GetLogResponse>, Status> {
        self.unary(request, |OfLog(log)| self.service.get(log)).await
    }

    async fn list_logs(&self, request: Request<pb::ListLogsRequest>) -> Result<Response<pb::ListLogsResponse>, Status> {
        self.unary(request, |request: ListLogs| self.service.list(request)).await
    }

    async fn delete_log(
        &self,
        request: Request<pb::DeleteLogRequest>,
    ) -> Result<Response<pb::DeleteLogResponse>, Status> {
        self.unary(request, |OfLog(log)| self.service.delete(log)).await
    }

    async fn append(
        &self,
        request: Request<pb::AppendRecordsRequest>,
    ) -> Result<Response<pb::AppendRecordsResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let request = AppendRecords::try_from(request.into_inner()).map_err(malformed)?;
            self.service.append(request).await.map(Into::into).map_err(status)
        })
        .await
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let mut requests = request.into_inner();
            let open = LogAppendMessage::try_from(opening(&mut requests).await?);
            let log = open.and_then(LogAppendMessage::opening).map_err(malformed)?;
            let life = Life::under(&self.shutdown);
            match self.service.open_append(log).await {
                Ok(appends) => {
                    let failed = life.receive(requests, appends.requests, |message| {
                        LogAppendMessage::try_from(message)?.append().map(|records| [records])
                    });
                    let opened = stream::iter([Ok(LogAppendReply::Opened(appends.log).into())]);
                    let replies = ReceiverStream::new(appends.replies).map(|reply| match reply {
                        Ok(outcome) => Ok(LogAppendReply::Appended(outcome).into()),
                        Err(error) => Err(status(error)),
                    });
                    Ok(life.replies(opened.chain(replies), Some(failed)).boxed())
                }
                Err(LogsError::Refused(refusal)) => {
                    let refused = stream::iter([Ok(LogAppendReply::Refused(refusal).into())]);
                    Ok(life.replies(refused, None).boxed())
                }
                Err(LogsError::Rpc(error)) => Err(status(error)),
            }
        })
        .await
    }

    async fn read(&self, request: Request<pb::ReadLogRequest>) -> Result<Response<Self::ReadStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let request = ReadLog::try_from(request.into_inner()).map_err(malformed)?;
            let life = Life::under(&self.shutdown);
            match self.service.read(request).await {
                Ok(events) => {
                    let events = events.map(|event| match event {
                        Ok(event) => Ok(ReadLogMessage::Event(event).into()),
                        Err(LogsError::Refused(refusal)) => Ok(ReadLogMessage::Refused(refusal).into()),
                        Err(LogsError::Rpc(error)) => Err(status(error)),
                    });
                    Ok(life.replies(events, None).boxed())
                }
                Err(LogsError::Refused(refusal)) => {
                    let refused = stream::iter([Ok(ReadLogMessage::Refused(refusal).into())]);
                    Ok(life.replies(refused, None).boxed())
                }
                Err(LogsError::Rpc(error)) => Err(status(error)),
            }
        })
        .await
    }

    async fn find_tail(&self, request: Request<pb::FindTailRequest>) -> Result<Response<pb::FindTailResponse>, Status> {
        self.unary(request, |FindTail { log, kind }| self.service.find_tail(log, kind)).await
    }

    async fn trim(&self, request: Request<pb::TrimLogRequest>) -> Result<Response<pb::TrimLogResponse>, Status> {
        self.unary(request, |TrimLog { log, up_to }| self.service.trim(log, up_to)).await
    }

    async fn resolve(&self, request: Request<pb::ResolveRequest>) -> Result<Response<pb::ResolveResponse>, Status> {
        self.unary(request, |append: AppendId| self.service.resolve(append)).await
    }
}
