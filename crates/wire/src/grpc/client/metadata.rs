//! The metadata store behind a connection.

use bifrost_types::limits::METADATA_KEY_BYTES_MAX;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;

use super::{Line, answer, deliver, failed, line, opened, request};
use crate::codec::DecodeError;
use crate::codec::metadata::{Get, List, Watch, WatchMessage};
use crate::error::RpcError;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::metadata::{
    MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream, validate_key,
};
use crate::pb;
use pb::metadata_service_client::MetadataServiceClient;

/// Revisions that wait for the watcher.
const CHANGES_QUEUED: usize = 64;

/// A [`MetadataStore`] behind gRPC. Cheap to clone; clones share the connection. Limits are checked before anything is sent;
/// a transaction that is larger than one message is [`MetadataError::TooLarge`].
#[derive(Debug, Clone)]
pub struct GrpcMetadata {
    client: MetadataServiceClient<Line>,
    options: ClientOptions,
}

impl GrpcMetadata {
    /// A client of the metadata store at `address` (`host:port`), connected by the first call. Must be called inside a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn connect_lazy(address: &str, options: ClientOptions) -> Result<Self, InvalidAddress> {
        let channel = connect_lazy(address, &options)?;
        Ok(Self::over(channel, options))
    }

    /// A client over a given connection.
    pub fn over(channel: Channel, options: ClientOptions) -> Self {
        let client = MetadataServiceClient::new(line(channel, &options))
            .max_decoding_message_size(options.message_bytes_max)
            .max_encoding_message_size(options.message_bytes_max);
        Self { client, options }
    }
}

fn check_prefix(prefix: &str) -> Result<(), MetadataError> {
    if prefix.len() > METADATA_KEY_BYTES_MAX { Err(MetadataError::TooLarge) } else { Ok(()) }
}

impl MetadataStore for GrpcMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        let deadline = self.options.request_timeout;
        let mut client = self.client.clone();
        Box::pin(async move {
            validate_key(&key)?;
            answer(deadline, client.get(request(Get(key).into(), deadline))).await?
        })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        let deadline = self.options.request_timeout;
        let mut client = self.client.clone();
        Box::pin(async move {
            check_prefix(&prefix)?;
            after.as_deref().map_or(Ok(()), check_prefix)?;
            answer(deadline, client.list(request(List { prefix, after, limit }.into(), deadline))).await?
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        let deadline = self.options.request_timeout;
        let mut client = self.client.clone();
        Box::pin(async move {
            txn.validate()?;
            let message = pb::TxnRequest::from(txn);
            if message.encoded_len() > self.options.message_bytes_max {
                return Err(MetadataError::TooLarge);
            }
            answer(deadline, client.txn(request(message, deadline))).await?
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            check_prefix(&prefix)?;
            let opening = async {
                let response = client.watch(Request::new(Watch { prefix, after }.into())).await;
                let mut inbound = response.map_err(|status| failed(&status))?.into_inner();
                match opened(&mut inbound).await? {
                    WatchMessage::Opened => Ok(inbound),
                    WatchMessage::Item(Err(error)) => Err(error),
                    WatchMessage::Item(Ok(_)) => Err(RpcError::Malformed.into()),
                }
            };
            let inbound = timeout(self.options.open_timeout, opening).await.map_err(|_| RpcError::DeadlinePassed)??;
            let (caller, changes) = mpsc::channel(CHANGES_QUEUED);
            deliver(
                inbound,
                caller,
                |response| match response.try_into()? {
                    WatchMessage::Item(item) => Ok([item]),
                    WatchMessage::Opened => Err(DecodeError::Unexpected { field: "WatchResponse.opened" }),
                },
                |_| None,
                // Nothing is sent after the opening.
                CancellationToken::new().drop_guard(),
            );
            Ok(changes)
        })
    }
}
