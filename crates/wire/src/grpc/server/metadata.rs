//! The metadata store behind gRPC.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use super::stream::Life;
use super::unless_stopped;
use crate::codec::metadata::{Get, List, Watch, WatchMessage};
use crate::grpc::limits::ServerLimits;
use crate::grpc::status::malformed;
use crate::metadata::{MetadataError, MetadataStore, Txn};
use crate::pb;
use pb::metadata_service_server::{MetadataService, MetadataServiceServer, SERVICE_NAME};

/// Serves any [`MetadataStore`] over gRPC. Each watch is released when its client goes away, when the service ends it, or when
/// the shutdown token fires. An answer that is larger than a message (a conflict over many large values, a revision that
/// changed them) becomes [`MetadataError::TooLarge`].
#[derive(Debug)]
pub struct MetadataGrpc<T: ?Sized> {
    service: Arc<T>,
    message_bytes_max: usize,
    shutdown: CancellationToken,
}

impl<T: MetadataStore + ?Sized + 'static> MetadataGrpc<T> {
    /// The full name of the gRPC service, as health checks and reflection know it.
    pub const NAME: &'static str = SERVICE_NAME;

    /// An adapter that serves until `shutdown` fires; after that every request is refused.
    pub fn new(service: Arc<T>, limits: &ServerLimits, shutdown: CancellationToken) -> Self {
        Self { service, message_bytes_max: limits.message_bytes_max, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let bytes = self.message_bytes_max;
        let server = MetadataServiceServer::new(self);
        routes.add_service(server.max_decoding_message_size(bytes).max_encoding_message_size(bytes));
    }

    /// The message of an outcome, or of its refusal if it is larger than a message may be.
    fn fitting<O, M>(&self, outcome: Result<O, MetadataError>) -> M
    where
        M: Message + From<Result<O, MetadataError>>,
    {
        let message = M::from(outcome);
        if message.encoded_len() > self.message_bytes_max { M::from(Err(MetadataError::TooLarge)) } else { message }
    }
}

#[tonic::async_trait]
impl<T: MetadataStore + ?Sized + 'static> MetadataService for MetadataGrpc<T> {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let Get(key) = request.into_inner().try_into().map_err(malformed)?;
            Ok(self.fitting(self.service.get(key).await))
        })
        .await
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let List { prefix, after, limit } = request.into_inner().try_into().map_err(malformed)?;
            Ok(self.fitting(self.service.list(prefix, after, limit).await))
        })
        .await
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            let txn = Txn::try_from(request.into_inner()).map_err(malformed)?;
            Ok(self.fitting(self.service.txn(txn).await))
        })
        .await
    }

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let Watch { prefix, after } = request.into_inner().try_into().map_err(malformed)?;
            let life = Life::under(&self.shutdown);
            match self.service.watch(prefix, after).await {
                Ok(changes) => {
                    let bytes_max = self.message_bytes_max;
                    let items = ReceiverStream::new(changes).scan(false, move |refused, item| {
                        if *refused {
                            return std::future::ready(None);
                        }
                        let mut message = pb::WatchResponse::from(WatchMessage::Item(item));
                        if message.encoded_len() > bytes_max {
                            message = WatchMessage::Item(Err(MetadataError::TooLarge)).into();
                            *refused = true;
                        }
                        std::future::ready(Some(Ok(message)))
                    });
                    let replies = stream::iter([Ok(WatchMessage::Opened.into())]).chain(items);
                    Ok(life.replies(replies, None).boxed())
                }
                Err(error) => {
                    let refused = stream::iter([Ok(WatchMessage::Item(Err(error)).into())]);
                    Ok(life.replies(refused, None).boxed())
                }
            }
        })
        .await
    }
}
