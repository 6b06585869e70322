//! What stands in front of all services of a listener: looks at the headers of each request, counts it, and watches what
//! it and its answer hold. Nothing of a request was decoded yet.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bifrost_types::ClusterId;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderValue};
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::service::Routes;
use tracing::debug;

use super::answers::CountedAnswer;
use super::cluster;
use super::connection::Peer;
use super::limits::ServerLimits;
use super::requests::{BoundedRequest, RequestRoom};
use super::status::status;
use crate::account::Ahead;
use crate::error::RpcError;
use crate::metrics::{Metrics, RefuseReason};

/// The services of a listener behind its limits. Cheap to clone; clones share the limits.
#[derive(Debug, Clone)]
pub(super) struct Front {
    routes: Routes,
    cluster: Option<ClusterId>,
    streams: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    message_bytes_max: u32,
    limits: Arc<ServerLimits>,
    metrics: Metrics,
}

impl Front {
    pub(super) fn new(routes: Routes, limits: &ServerLimits, cluster: Option<ClusterId>, metrics: Metrics) -> Self {
        Self {
            routes: routes.prepare(),
            cluster,
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            requests: Arc::new(Semaphore::new(limits.request_bytes_max)),
            message_bytes_max: u32::try_from(limits.message_bytes_max).unwrap_or(u32::MAX),
            limits: Arc::new(limits.clone()),
            metrics,
        }
    }

    fn answer(&mut self, request: Request<Body>) -> Result<BoxFuture<'static, Response<Body>>, Refusal> {
        if let Err(error) = cluster::check(request.headers(), self.cluster) {
            let (reason, status) = match error {
                RpcError::Malformed => (RefuseReason::Malformed, cluster::garbage()),
                _ => (RefuseReason::OtherCluster, status(error)),
            };
            self.metrics.refused(reason);
            debug!(message = status.message(), path = request.uri().path(), "a request was refused");
            return Err(Refusal::Request(status));
        }
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc")) {
            self.metrics.refused(RefuseReason::Malformed);
            return Err(Refusal::OtherContent);
        }
        // Only connections of this listener come here, and each says who it is.
        let peer =
            request.extensions().get::<Peer>().ok_or_else(|| Refusal::Request(status(RpcError::Unreachable)))?.clone();
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            self.metrics.refused(RefuseReason::TooMany);
            return Err(Refusal::Request(status(RpcError::Overloaded)));
        };
        let room = RequestRoom::new(
            peer.requests,
            Arc::clone(&self.requests),
            self.message_bytes_max,
            self.limits.message_timeout,
        );
        let account = peer.account;
        let ahead = Ahead::of(&account);
        let mut request = request.map(|body| BoundedRequest::new(body, room));
        request.extensions_mut().insert(ahead.clone());
        let answer = self.routes.call(request);
        Ok(Box::pin(async move {
            match answer.await {
                Ok(response) => response.map(|body| Body::new(CountedAnswer::new(body, account, ahead, place))),
                Err(never) => match never {},
            }
        }))
    }
}

/// Why a request does not come to a service.
enum Refusal {
    /// It is gRPC.
    Request(Status),
    /// It is not.
    OtherContent,
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::Request(status) => status.into_http(),
            Self::OtherContent => {
                let mut response = Status::invalid_argument("the content type is not application/grpc").into_http();
                *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                response
            }
        }
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<BoundedRequest<Body>>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.answer(request) {
            Ok(answer) => Box::pin(async { Ok(answer.await) }),
            Err(refusal) => Box::pin(std::future::ready(Ok(refusal.into_response()))),
        }
    }
}
