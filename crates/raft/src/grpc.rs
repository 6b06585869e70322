//! Messages of members over gRPC: one unary method, whose messages are the bytes of [`peers`](crate::peers).
//!
//! ```text
//!  GrpcPeers ─► POST /bifrost.v1.MetadataPeerService/Exchange ─► PeersGrpc ─► Receive
//! ```
//!
//! It is spoken between members of one version only, so it is no protobuf and has no descriptor. What it is meant for,
//! cluster and members, is checked in each message.

mod raw;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bifrost_wire::grpc::{Channel, ClientOptions, RoutesBuilder, ServerLimits, connect_lazy};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};

use crate::peers::{PeerError, Peers, Receive, Refusal, encode_answer};
use crate::types::{Member, MemberId};
use raw::RawCodec;

/// The one method.
const EXCHANGE: &str = "/bifrost.v1.MetadataPeerService/Exchange";

/// Serves a member's end of the network, until the shutdown token fires.
#[derive(Debug)]
pub struct PeersGrpc<T: ?Sized> {
    service: Arc<T>,
    message_bytes_max: usize,
    shutdown: CancellationToken,
}

impl<T: ?Sized> Clone for PeersGrpc<T> {
    fn clone(&self) -> Self {
        let (service, shutdown) = (Arc::clone(&self.service), self.shutdown.clone());
        Self { service, message_bytes_max: self.message_bytes_max, shutdown }
    }
}

impl<T: ?Sized> NamedService for PeersGrpc<T> {
    const NAME: &'static str = "bifrost.v1.MetadataPeerService";
}

impl<T: Receive + ?Sized> PeersGrpc<T> {
    /// An adapter that serves until `shutdown` fires; after that every message is refused.
    pub fn new(service: Arc<T>, limits: &ServerLimits, shutdown: CancellationToken) -> Self {
        Self { service, message_bytes_max: limits.message_bytes_max, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        routes.add_service(self);
    }
}

/// The method, as tonic's server calls it.
struct Exchange<T: ?Sized>(PeersGrpc<T>);

impl<T: Receive + ?Sized> Service<Request<Bytes>> for Exchange<T> {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let PeersGrpc { service, shutdown, .. } = self.0.clone();
        Box::pin(async move {
            let answer = shutdown.run_until_cancelled(service.receive(request.into_inner())).await;
            Ok(Response::new(answer.unwrap_or_else(|| Bytes::from(encode_answer(&Err(Refusal::Stopped))))))
        })
    }
}

impl<T: Receive + ?Sized> Service<http::Request<Body>> for PeersGrpc<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (this, bytes) = (self.clone(), Some(self.message_bytes_max));
        Box::pin(async move {
            if request.uri().path() != EXCHANGE {
                return Ok(Status::new(Code::Unimplemented, "no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(RawCodec).apply_max_message_size_config(bytes, bytes);
            Ok(grpc.unary(Exchange(this), request).await)
        })
    }
}

/// Reaches other members over gRPC, one connection to each, made by the first message.
#[derive(Debug)]
pub struct GrpcPeers {
    options: ClientOptions,
    /// The address of each member and the connection to it. Members are few, and those that left are forgotten with the
    /// process.
    channels: Mutex<BTreeMap<MemberId, (String, Channel)>>,
}

impl GrpcPeers {
    /// A network over connections with these options.
    pub fn new(options: ClientOptions) -> Self {
        Self { options, channels: Mutex::new(BTreeMap::new()) }
    }

    /// The connection to a member; another one when its address changed.
    fn channel(&self, to: MemberId, address: &str) -> Result<Channel, PeerError> {
        let mut channels = self.channels.lock();
        if let Some((known, channel)) = channels.get(&to)
            && known == address
        {
            return Ok(channel.clone());
        }
        let channel = connect_lazy(address, &self.options).map_err(|_| PeerError::Unreachable)?;
        channels.insert(to, (address.to_owned(), channel.clone()));
        Ok(channel)
    }
}

impl Peers for GrpcPeers {
    fn call(
        &self,
        to: MemberId,
        member: &Member,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        let channel = self.channel(to, &member.address);
        let bytes = self.options.message_bytes_max;
        Box::pin(async move {
            let mut client =
                tonic::client::Grpc::new(channel?).max_decoding_message_size(bytes).max_encoding_message_size(bytes);
            let mut request = Request::new(message);
            request.set_timeout(deadline);
            let exchange = async {
                client.ready().await.map_err(|_| PeerError::Unreachable)?;
                let answer = client.unary(request, PathAndQuery::from_static(EXCHANGE), RawCodec).await;
                answer.map(Response::into_inner).map_err(|status| failed(&status))
            };
            timeout(deadline, exchange).await.unwrap_or(Err(PeerError::DeadlinePassed))
        })
    }
}

fn failed(status: &Status) -> PeerError {
    tracing::debug!(code = ?status.code(), message = status.message(), "a message to a metadata member failed");
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => PeerError::DeadlinePassed,
        Code::OutOfRange => PeerError::Refused(Refusal::Malformed),
        _ => PeerError::Unreachable,
    }
}

#[cfg(test)]
mod tests;
