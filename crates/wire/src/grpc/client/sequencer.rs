//! The sequencers of a node behind a connection.

use bifrost_types::{LogletId, NodeGeneration};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;

use super::{Line, answer, answers, failed, line, opened, request};
use crate::codec::DecodeError;
use crate::codec::sequencer::AppendMessage;
use crate::error::RpcError;
use crate::grpc::coalesce::Coalesced;
use crate::grpc::connect::{InvalidAddress, connect_lazy};
use crate::grpc::limits::ClientOptions;
use crate::pb;
use crate::sequencer::{
    AppendOpen, AppendReplies, AppendReply, AppendStream, EndRequest, SequencerCallError, SequencerError,
    SequencerTails, Sequencers,
};
use pb::sequencer_service_client::SequencerServiceClient;

/// Append requests that wait for the connection. The appender bounds their bytes.
const APPENDS_QUEUED: usize = 256;

/// A node's [`Sequencers`] behind gRPC. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct GrpcSequencers {
    client: SequencerServiceClient<Line>,
    options: ClientOptions,
}

impl GrpcSequencers {
    /// A client of the sequencers at `address` (`host:port`), connected by the first call. Must be called inside a Tokio
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
        let client = SequencerServiceClient::new(line(channel, &options))
            .max_decoding_message_size(options.message_bytes_max)
            .max_encoding_message_size(options.message_bytes_max);
        Self { client, options }
    }
}

impl Sequencers for GrpcSequencers {
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let (requests, queued) = mpsc::channel(APPENDS_QUEUED);
            let sending = CancellationToken::new();
            let batches = Coalesced::new(queued).take_until(sending.clone().cancelled_owned());
            let outbound = stream::iter([pb::AppendRequest::from(open)]).chain(batches);
            let sending = sending.drop_guard();
            let opening = async {
                let response = client.append(Request::new(outbound)).await;
                let mut inbound = response.map_err(|status| failed(&status))?.into_inner();
                match opened(&mut inbound).await? {
                    AppendMessage::Opened(tails) => Ok((tails, inbound)),
                    AppendMessage::Reply(AppendReply::Closed(error)) => Err(SequencerCallError::Refused(error)),
                    AppendMessage::Reply(AppendReply::Committed { .. }) => {
                        Err(SequencerCallError::Rpc(RpcError::Malformed))
                    }
                }
            };
            let opening = timeout(self.options.open_timeout, opening).await;
            let (opened, inbound) = opening.map_err(|_| RpcError::DeadlinePassed)??;
            // An append waits for its answer: a task in between would make it wait for one more turn of the runtime.
            let replies = answers(inbound, sending, |response| match response.try_into()? {
                AppendMessage::Reply(reply) => Ok(reply),
                AppendMessage::Opened(_) => Err(DecodeError::Unexpected { field: "AppendResponse.opened" }),
            });
            Ok(AppendStream { opened, requests, replies: AppendReplies::of_connection(replies) })
        })
    }

    fn tails(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
    ) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        let deadline = self.options.request_timeout;
        let mut client = self.client.clone();
        Box::pin(async move {
            let request = request(pb::TailsRequest::from((loglet, sequencer)), deadline);
            let outcome: Result<SequencerTails, SequencerError> = answer(deadline, client.tails(request)).await?;
            Ok(outcome?)
        })
    }

    fn end(&self, end: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        let deadline = self.options.request_timeout;
        let mut client = self.client.clone();
        Box::pin(async move {
            let request = request(pb::EndRequest::from(end), deadline);
            let outcome: Result<SequencerTails, SequencerError> = answer(deadline, client.end(request)).await?;
            Ok(outcome?)
        })
    }
}
