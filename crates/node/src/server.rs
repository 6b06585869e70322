//! One node: a log server, sequencers and a door to metadata, behind one gRPC listener.

use std::fmt;
use std::sync::Arc;

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::connect::{Connect, GrpcConnect, LocalConnect, NodeServices};
use bifrost::delete::sweeper::{SweeperOptions, sweep};
use bifrost::directory::Directory;
use bifrost::local_node::{LocalNode, NodeError, Storage};
use bifrost::membership::Identity;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{NodeGeneration, NodeId, NodeRecord};
use bifrost_wire::grpc::{
    ClientOptions, LogServerGrpc, MetadataGrpc, RoutesBuilder, SequencersGrpc, ServerLimits, serve,
};
use bifrost_wire::log_server::LogServer;
use bifrost_wire::metadata::MetadataStore;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// Stands between a log server and everybody who calls it: how tests lose replies, delay and refuse.
pub trait Interpose: Send + Sync + fmt::Debug {
    /// What callers get in place of this node's log server.
    fn log_server(&self, node: NodeId, inner: Arc<dyn LogServer>) -> Arc<dyn LogServer>;
}

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its name and where it stands; the address is taken from the listener.
    pub identity: Identity,
    /// Where it keeps its copies.
    pub storage: Storage,
    /// The cluster's metadata; served to clients at the same listener.
    pub metadata: Arc<dyn MetadataStore>,
    /// When its sequencers count a segment as full.
    pub segments: SegmentLimits,
    /// Limits of the listener.
    pub server: ServerLimits,
    /// Options of connections to other nodes.
    pub client: ClientOptions,
    /// For tests.
    pub interpose: Option<Arc<dyn Interpose>>,
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The listener has no address.
    #[error("the listener has no address")]
    Listener(#[source] std::io::Error),
    /// Its services did not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The other nodes cannot be looked up.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    local: LocalNode,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Starts the services and serves them at `listener`.
    ///
    /// # Errors
    /// [`ServerError`]; nothing runs then.
    ///
    /// # Cancel safety
    /// Safe: the steps that were taken are recognised at the next start.
    pub async fn start(options: NodeOptions, listener: TcpListener) -> Result<Self, ServerError> {
        let address = listener.local_addr().map_err(ServerError::Listener)?.to_string();
        let identity = Identity { address, ..options.identity };
        let catalog = Catalog::new(options.metadata.clone());
        let connect = SelfConnect::new(options.client.clone());
        let directory = Directory::new(catalog.clone(), Arc::new(connect.clone()));
        let local =
            LocalNode::start(catalog.clone(), directory.clone(), &identity, options.storage, options.segments).await?;
        let mut services = local.services();
        if let Some(interpose) = &options.interpose {
            services.log_server = interpose.log_server(local.id().node, services.log_server);
        }
        // A node calls itself without the network.
        connect.local.insert(local.id().node, services.clone());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let revision = match directory.refresh().await {
            Ok(revision) => revision,
            Err(error) => {
                local.shutdown().await;
                return Err(error.into());
            }
        };
        let sweeper = stop.child_token();
        let sweeping = sweep(catalog, directory.clone(), SweeperOptions::default());
        tasks.spawn(async move {
            let _stopped = sweeper.run_until_cancelled_owned(sweeping).await;
        });
        let follow = stop.child_token();
        tasks.spawn(async move {
            let _stopped = follow.run_until_cancelled_owned(directory.follow(Some(revision))).await;
        });
        let mut routes = RoutesBuilder::default();
        let limits = options.server;
        LogServerGrpc::new(services.log_server, &limits, stop.child_token()).add_to(&mut routes);
        SequencersGrpc::new(services.sequencers, &limits, stop.child_token()).add_to(&mut routes);
        MetadataGrpc::new(options.metadata, &limits, stop.child_token()).add_to(&mut routes);
        let shutdown = stop.clone();
        let node = local.id();
        tasks.spawn(async move {
            if let Err(error) = serve(listener, routes.routes(), &limits, shutdown).await {
                error!(%node, %error, "the listener failed");
            }
        });
        Ok(Self { local, stop, tasks })
    }

    /// This life of the node.
    pub fn id(&self) -> NodeGeneration {
        self.local.id()
    }

    /// Its record as of its start.
    pub const fn record(&self) -> &NodeRecord {
        self.local.record()
    }

    /// Closes the listener, stops the services and frees the storage.
    ///
    /// # Cancel safety
    /// Safe: the stop goes on; call again to wait for it.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.local.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Itself in the process, everybody else through the network.
#[derive(Debug, Clone)]
struct SelfConnect {
    local: LocalConnect,
    remote: GrpcConnect,
}

impl SelfConnect {
    fn new(options: ClientOptions) -> Self {
        Self { local: LocalConnect::default(), remote: GrpcConnect { options } }
    }
}

impl Connect for SelfConnect {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        self.local.connect(node).or_else(|| self.remote.connect(node))
    }
}
