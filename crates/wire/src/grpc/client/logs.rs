//! The service of logs behind a connection.

use std::future::Future;

use bifrost_types::{AppendId, LogId, Lsn};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::{Line, answer, deliver, failed, line, not_understood, opened, request};
use crate::codec::DecodeError;
use crate::codec::logs::{FindTail, OfLog, TrimLog};
use crate::codec::records::{LogAppendMessage, LogAppendReply, ReadLogMessage};
use crate::error::RpcError;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::logs::{
    AppendOutcome, AppendRecords, CreateLog, ListLogs, LogAppends, LogDescription, LogEvents, LogPage, LogRef,
    LogRefusal, LogTail, Logs, LogsError, ReadLog, ResolvedAppend, TailKind,
};
use crate::pb;
use pb::log_service_client::LogServiceClient;

/// Batches that wait for the connection.
const APPENDS_QUEUED: usize = 16;
/// Outcomes that wait for the caller.
const REPLIES_QUEUED: usize = 256;

/// The [`Logs`] of a cluster, through one node behind gRPC. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct GrpcLogs {
    client: LogServiceClient<Line>,
    options: ClientOptions,
}

impl GrpcLogs {
    /// A client of the node at `address` (`host:port`), connected by the first call. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn connect_lazy(address: &str, options: ClientOptions) -> Result<Self, InvalidAddress> {
        let channel = connect_lazy(address, &options)?;
        Ok(Self::over(channel, options))
    }

    /// A client over a given connection.
    pub fn over(channel: Channel, options: ClientOptions) -> Self {
        let client = LogServiceClient::new(line(channel, &options))
            .max_decoding_message_size(options.message_bytes_max)
            .max_encoding_message_size(options.message_bytes_max);
        Self { client, options }
    }

    fn unary<'a, R, M, O, F>(
        &'a self,
        message: R,
        call: impl FnOnce(LogServiceClient<Line>, Request<R>) -> F + Send + 'a,
    ) -> BoxFuture<'a, Result<O, LogsError>>
    where
        R: Send + 'a,
        M: Send + 'a,
        O: Send + 'a,
        F: Future<Output = Result<Response<M>, Status>> + Send + 'a,
        Result<O, LogRefusal>: TryFrom<M, Error = DecodeError>,
    {
        let deadline = self.options.request_timeout;
        let client = self.client.clone();
        async move {
            let outcome: Result<O, LogRefusal> = answer(deadline, call(client, request(message, deadline))).await?;
            Ok(outcome?)
        }
        .boxed()
    }
}

impl Logs for GrpcLogs {
    fn create(&self, request: CreateLog) -> BoxFuture<'_, Result<LogDescription, LogsError>> {
        self.unary(request.into(), |mut client, request| async move { client.create_log(request).await })
    }

    fn get(&self, log: LogRef) -> BoxFuture<'_, Result<LogDescription, LogsError>> {
        self.unary(OfLog(log).into(), |mut client, request| async move { client.get_log(request).await })
    }

    fn list(&self, request: ListLogs) -> BoxFuture<'_, Result<LogPage, LogsError>> {
        self.unary(request.into(), |mut client, request| async move { client.list_logs(request).await })
    }

    fn delete(&self, log: LogRef) -> BoxFuture<'_, Result<LogId, LogsError>> {
        self.unary(OfLog(log).into(), |mut client, request| async move { client.delete_log(request).await })
    }

    fn append(&self, records: AppendRecords) -> BoxFuture<'_, Result<AppendOutcome, RpcError>> {
        let deadline = self.options.request_timeout;
        let mut client = self.client.clone();
        Box::pin(async move { answer(deadline, client.append(request(records.into(), deadline))).await })
    }

    fn open_append(&self, log: LogRef) -> BoxFuture<'_, Result<LogAppends, LogsError>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let (requests, queued) = mpsc::channel(APPENDS_QUEUED);
            let sending = CancellationToken::new();
            let batches = ReceiverStream::new(queued).take_until(sending.clone().cancelled_owned());
            let batches = batches.map(|records| LogAppendMessage::Append(records).into());
            let outbound = stream::iter([LogAppendMessage::Open(log).into()]).chain(batches);
            let sending = sending.drop_guard();
            let opening = async {
                let response = client.append_stream(Request::new(outbound)).await;
                let mut inbound = response.map_err(|status| failed(&status))?.into_inner();
                match opened(&mut inbound).await? {
                    LogAppendReply::Opened(log) => Ok((log, inbound)),
                    LogAppendReply::Refused(refusal) => Err(LogsError::Refused(refusal)),
                    LogAppendReply::Appended(_) => Err(LogsError::Rpc(RpcError::Malformed)),
                }
            };
            let opening = timeout(self.options.open_timeout, opening).await;
            let (log, inbound) = opening.map_err(|_| RpcError::DeadlinePassed)??;
            let (caller, replies) = mpsc::channel(REPLIES_QUEUED);
            deliver(
                inbound,
                caller,
                |response| match LogAppendReply::try_from(response)? {
                    LogAppendReply::Appended(outcome) => Ok([Ok(outcome)]),
                    LogAppendReply::Opened(_) | LogAppendReply::Refused(_) => {
                        Err(DecodeError::Unexpected { field: "AppendStreamResponse.message" })
                    }
                },
                |error| Some(Err(error)),
                sending,
            );
            Ok(LogAppends { log, requests, replies })
        })
    }

    fn read(&self, request: ReadLog) -> BoxFuture<'_, Result<LogEvents, LogsError>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let opening = timeout(self.options.open_timeout, client.read(Request::new(request.into()))).await;
            let opened = opening.map_err(|_| RpcError::DeadlinePassed)?;
            let inbound = opened.map_err(|status| failed(&status))?.into_inner();
            let events = inbound.map(|item| match item.map_err(|status| failed(&status))?.try_into() {
                Ok(ReadLogMessage::Event(event)) => Ok(event),
                Ok(ReadLogMessage::Refused(refusal)) => Err(LogsError::Refused(refusal)),
                Err(error) => Err(LogsError::Rpc(not_understood(error))),
            });
            Ok(events.boxed())
        })
    }

    fn find_tail(&self, log: LogRef, kind: TailKind) -> BoxFuture<'_, Result<LogTail, LogsError>> {
        let request = FindTail { log, kind }.into();
        self.unary(request, |mut client, request| async move { client.find_tail(request).await })
    }

    fn trim(&self, log: LogRef, up_to: Lsn) -> BoxFuture<'_, Result<Lsn, LogsError>> {
        let request = TrimLog { log, up_to }.into();
        self.unary(request, |mut client, request| async move { client.trim(request).await })
    }

    fn resolve(&self, append: AppendId) -> BoxFuture<'_, Result<ResolvedAppend, LogsError>> {
        self.unary(append.into(), |mut client, request| async move { client.resolve(request).await })
    }
}
