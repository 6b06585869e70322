//! The two services that tools of any origin expect: health (`grpc.health.v1`) and reflection (v1 and v1alpha).

use bifrost_types::limits::LOG_NAME_BYTES_MAX;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer, SERVICE_NAME};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::server::Builder;

use super::stream::Life;
use super::unless_stopped;
use crate::grpc::FILE_DESCRIPTOR_SET;
use crate::grpc::limits::ServerLimits;

/// Largest request of either service, in bytes: a name and its frame. Reflection sends the request back with its answer.
const REQUEST_BYTES_MAX: usize = 4 << 10;

const _: () = assert!(LOG_NAME_BYTES_MAX < REQUEST_BYTES_MAX, "names are far below");

/// Health of a server: all of its services serve, until it begins to stop.
#[derive(Debug)]
pub struct HealthGrpc {
    services: Vec<&'static str>,
    stopping: CancellationToken,
    shutdown: CancellationToken,
}

impl HealthGrpc {
    /// The full name of the gRPC service.
    pub const NAME: &'static str = SERVICE_NAME;

    /// Tells of these services, and of the server as a whole (the empty name), that they serve until `stopping` fires, and
    /// that they do not from then on. Requests are answered until `shutdown` fires.
    pub fn new(services: Vec<&'static str>, stopping: CancellationToken, shutdown: CancellationToken) -> Self {
        Self { services, stopping, shutdown }
    }

    /// Adds the service to what a listener offers.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let server = HealthServer::new(self);
        routes.add_service(server.max_decoding_message_size(REQUEST_BYTES_MAX));
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || service == Self::NAME || self.services.contains(&service)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthGrpc {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        unless_stopped(&self.shutdown, async {
            if !self.knows(&request.get_ref().service) {
                return Err(Status::not_found("there is no such service here"));
            }
            let stopping = self.stopping.is_cancelled();
            Ok(answer(if stopping { ServingStatus::NotServing } else { ServingStatus::Serving }))
        })
        .await
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unless_stopped(&self.shutdown, async {
            let life = Life::under(&self.shutdown);
            let stopping = self.stopping.clone();
            // The protocol of health checks wants a stream for an unknown service too: it might appear. Here none does.
            let first = match self.knows(&request.get_ref().service) {
                true if stopping.is_cancelled() => ServingStatus::NotServing,
                true => ServingStatus::Serving,
                false => ServingStatus::ServiceUnknown,
            };
            let change = stream::once(Box::pin(async move {
                if first != ServingStatus::Serving {
                    std::future::pending::<()>().await;
                }
                stopping.cancelled().await;
                Ok(answer(ServingStatus::NotServing))
            }));
            // Not the end of the stream: that would say that the watch is over, and clients would begin another one.
            let statuses = stream::iter([Ok(answer(first))]).chain(change).chain(stream::pending());
            Ok(life.replies(statuses, None).boxed())
        })
        .await
    }
}

/// The descriptors that this crate was built with are not what reflection can serve.
#[derive(Debug, Error)]
#[error("the descriptors of the protocol cannot be served by reflection")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

/// Adds reflection to what a listener offers: the descriptors of package `bifrost.v1`, of health and of reflection itself,
/// under the name that tools use today and the one that older ones use.
///
/// # Errors
/// [`ReflectionError`], which a test excludes.
pub fn add_reflection(routes: &mut RoutesBuilder, limits: &ServerLimits) -> Result<(), ReflectionError> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let bytes = limits.message_bytes_max;
    let v1 = builder().build_v1()?;
    routes.add_service(v1.max_decoding_message_size(REQUEST_BYTES_MAX).max_encoding_message_size(bytes));
    let v1alpha = builder().build_v1alpha()?;
    routes.add_service(v1alpha.max_decoding_message_size(REQUEST_BYTES_MAX).max_encoding_message_size(bytes));
    Ok(())
}
