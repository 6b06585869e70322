//! Each service through a real server on loopback. The test holds the service's halves of all streams.
#![allow(clippy::disallowed_methods)]

mod log_server;
mod logs;
mod metadata;
mod network;
mod node;
mod sequencer;

use std::future::Future;
use std::time::Duration;

use bifrost_types::{DiskId, Generation, LogId, LogletId, LogletOffset, NodeGeneration, NodeId, OpId, SegmentIndex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

/// Long enough for a busy machine: only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened long ago")
}

/// A server on a port of loopback.
struct Host {
    address: String,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Host {
    async fn start(offer: impl FnOnce(&mut RoutesBuilder, &ServerLimits, CancellationToken)) -> Self {
        Self::start_at(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), offer)
    }

    fn start_at(
        listener: impl Listener,
        offer: impl FnOnce(&mut RoutesBuilder, &ServerLimits, CancellationToken),
    ) -> Self {
        let limits = ServerLimits { drain_timeout: PATIENCE * 2, ..ServerLimits::default() };
        let shutdown = CancellationToken::new();
        let mut routes = RoutesBuilder::default();
        offer(&mut routes, &limits, shutdown.clone());
        let address = listener.local_addr().expect("bound").to_string();
        let (routes, token) = (routes.routes(), shutdown.clone());
        let server = tokio::spawn(async move { serve(listener, routes, &limits, None, token).await });
        Self { address, shutdown, server }
    }

    /// Fires the token; the server must end without its drain time running out.
    async fn stop(self) {
        self.shutdown.cancel();
        soon(self.server).await.expect("the server did not panic").expect("a stop is no failure");
    }
}

/// An address of loopback where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

fn offset(value: u64) -> LogletOffset {
    LogletOffset::new(value).expect("non-zero")
}

fn loglet() -> LogletId {
    LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::new(3))
}

fn disk() -> DiskId {
    DiskId::try_from(9).expect("non-zero")
}

fn op() -> OpId {
    OpId::try_from(5).expect("non-zero")
}

fn sequencer_node() -> NodeGeneration {
    NodeGeneration::new(NodeId::try_from(1).expect("non-zero"), Generation::FIRST)
}

#[test]
fn the_descriptors_name_all_services() {
    let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
    for service in ["LogServerService", "SequencerService", "MetadataService", "LogService", "NodeService"] {
        assert!(text.contains(service), "{service}");
    }
}
