//! A log server behind a connection.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;

use super::{Line, answer, deliver, failed, line, opened, request};
use crate::codec::DecodeError;
use crate::codec::read::ReadMessage;
use crate::error::RpcError;
use crate::grpc::coalesce::Coalesced;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::log_server::{
    CallError, CopyError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest,
    StateRequest, StoreReply, StoreStream, TrimRequest,
};
use crate::pb;
use pb::log_server_service_client::LogServerServiceClient;

/// Stores that wait for the connection. They are slices of batches that the sequencer's window holds and bounds anyway.
const STORES_QUEUED: usize = 1024;
/// Answers to stores that wait for the sequencer.
const STORE_REPLIES_QUEUED: usize = 1024;
/// Grants that wait for the connection.
const GRANTS_QUEUED: usize = 16;
/// Parts of a read that wait for the reader, whose credit bounds their bytes.
const READ_PARTS_QUEUED: usize = 64;

/// A [`LogServer`] behind gRPC. Cheap to clone; clones share the connections.
///
/// Reads have a connection of their own: a reader that does not take what it asked for fills the connection's window, and must
/// not hold up the answers to stores.
#[derive(Debug, Clone)]
pub struct GrpcLogServer {
    stores: LogServerServiceClient<Line>,
    reads: LogServerServiceClient<Line>,
    options: ClientOptions,
}

impl GrpcLogServer {
    /// A client of the log server at `address` (`host:port`) with two connections, established by their first calls. Must
    /// be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn connect_lazy(address: &str, options: ClientOptions) -> Result<Self, InvalidAddress> {
        let stores = connect_lazy(address, &options)?;
        let reads = connect_lazy(address, &options)?;
        Ok(Self::over(stores, reads, options))
    }

    /// A client over given connections, which may be the same one: `stores` carries stores and unary calls, `reads` reads.
    pub fn over(stores: Channel, reads: Channel, options: ClientOptions) -> Self {
        let client = |channel| {
            LogServerServiceClient::new(line(channel, &options))
                .max_decoding_message_size(options.message_bytes_max)
                .max_encoding_message_size(options.message_bytes_max)
        };
        Self { stores: client(stores), reads: client(reads), options }
    }
}

/// The five unary calls: send once, wait until the deadline.
macro_rules! unary {
    ($self:ident, $method:ident, $message:ty, $request:ident) => {{
        let deadline = $self.options.request_timeout;
        let mut client = $self.stores.clone();
        Box::pin(async move {
            let request = request(<$message>::from($request), deadline);
            let outcome: Result<CopyState, CopyError> = answer(deadline, client.$method(request)).await?;
            Ok(outcome?)
        })
    }};
}

impl LogServer for GrpcLogServer {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        let mut client = self.stores.clone();
        Box::pin(async move {
            let (requests, queued) = mpsc::channel(STORES_QUEUED);
            let sending = CancellationToken::new();
            let outbound = Coalesced::new(queued).take_until(sending.clone().cancelled_owned());
            let sending = sending.drop_guard();
            // Resolves with the response headers: the peer has the stream.
            let response = timeout(self.options.open_timeout, client.store(Request::new(outbound))).await;
            let inbound =
                response.map_err(|_| RpcError::DeadlinePassed)?.map_err(|status| failed(&status))?.into_inner();
            let (caller, replies) = mpsc::channel(STORE_REPLIES_QUEUED);
            deliver(inbound, caller, Vec::<StoreReply>::try_from, |_| None, sending);
            Ok(StoreStream { requests, replies })
        })
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, seal, pb::SealRequest, request)
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, state, pb::StateRequest, request)
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, repair, pb::RepairRequest, request)
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, settle, pb::SettleRequest, request)
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, trim, pb::TrimRequest, request)
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        let mut client = self.reads.clone();
        Box::pin(async move {
            let (grants, queued) = mpsc::channel(GRANTS_QUEUED);
            let sending = CancellationToken::new();
            let grants_sent = Coalesced::new(queued).take_until(sending.clone().cancelled_owned());
            let outbound = stream::iter([pb::ReadRequest::from(request)]).chain(grants_sent);
            let sending = sending.drop_guard();
            let opening = async {
                let response = client.read(Request::new(outbound)).await;
                let mut inbound = response.map_err(|status| failed(&status))?.into_inner();
                match opened(&mut inbound).await? {
                    ReadMessage::Opened => Ok(inbound),
                    ReadMessage::Refused(error) => Err(CallError::Copy(error)),
                    ReadMessage::Reply(_) => Err(CallError::Rpc(RpcError::Malformed)),
                }
            };
            let inbound = timeout(self.options.open_timeout, opening).await.map_err(|_| RpcError::DeadlinePassed)??;
            let (caller, replies) = mpsc::channel(READ_PARTS_QUEUED);
            deliver(
                inbound,
                caller,
                |response| match response.try_into()? {
                    ReadMessage::Reply(reply) => Ok([Ok(reply)]),
                    ReadMessage::Refused(error) => Ok([Err(CallError::Copy(error))]),
                    ReadMessage::Opened => Err(DecodeError::Unexpected { field: "ReadResponse.opened" }),
                },
                |error| Some(Err(CallError::Rpc(error))),
                sending,
            );
            Ok(ReadStream { grants, replies })
        })
    }
}
