//! One node: a log server, sequencers, a door to metadata and one for thin clients, behind one gRPC listener.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::catch_up::{CatchUp, CatchUpOptions, Place};
use bifrost::connect::{Connect, GrpcConnect, LocalConnect, NodeServices};
use bifrost::controller::ControllerOptions;
use bifrost::delete::sweeper::{SweeperOptions, sweep};
use bifrost::directory::Directory;
use bifrost::liveness::Detector;
use bifrost::local_node::{LocalNode, NodeError, Storage};
use bifrost::membership::Identity;
use bifrost::{Bifrost, HandOverOptions, HandedOver, Options as BifrostOptions, StartError};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{NodeGeneration, NodeId, NodeRecord, Role, Roles};
use bifrost_wire::grpc::{
    ClientOptions, HealthGrpc, Listener, LivenessGrpc, LogServerGrpc, LogsGrpc, MetadataGrpc, NodeGrpc,
    ReflectionError, RoutesBuilder, SequencersGrpc, ServerLimits, add_reflection, serve,
};
use bifrost_wire::liveness::Liveness;
use bifrost_wire::log_server::LogServer;
use bifrost_wire::logs::Logs;
use bifrost_wire::metadata::MetadataStore;
use bifrost_wire::node::NodeService;
use bifrost_wire::sequencer::Sequencers;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::gateway::{Gateway, GatewayOptions};

/// Stands between a node and everybody whom it answers or calls: how tests lose replies, delay and refuse.
pub trait Interpose: Send + Sync + fmt::Debug {
    /// What callers get in place of this node's log server.
    fn log_server(&self, node: NodeId, inner: Arc<dyn LogServer>) -> Arc<dyn LogServer>;

    /// What callers get in place of what this node says about itself.
    fn node(&self, node: NodeId, inner: Arc<dyn NodeService>) -> Arc<dyn NodeService> {
        let _ = node;
        inner
    }

    /// How the node of this identity reaches all others. By default as it would: through the network.
    fn connect(&self, node: &Identity, inner: Arc<dyn Connect>) -> Arc<dyn Connect> {
        let _ = node;
        inner
    }
}

/// What health checks may ask for by name.
fn services_of(roles: Roles) -> Vec<&'static str> {
    let (keeps, numbers) = (roles.has(Role::LogServer), roles.has(Role::Sequencer));
    let all = [
        (keeps, LogServerGrpc::<dyn LogServer>::NAME),
        (numbers, SequencersGrpc::<dyn Sequencers>::NAME),
        (true, MetadataGrpc::<dyn MetadataStore>::NAME),
        (keeps || numbers, LogsGrpc::<dyn Logs>::NAME),
        (true, NodeGrpc::<dyn NodeService>::NAME),
    ];
    all.into_iter().filter_map(|(offered, name)| offered.then_some(name)).collect()
}

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its name and where it stands; without an address, that of the listener.
    pub identity: Identity,
    /// Where it keeps its copies.
    pub storage: Storage,
    /// The cluster's metadata; served to clients at the same listener.
    pub metadata: Arc<dyn MetadataStore>,
    /// When its sequencers count a segment as full.
    pub segments: SegmentLimits,
    /// How its disk gets what it misses.
    pub catch_up: CatchUpOptions,
    /// Limits of the listener.
    pub server: ServerLimits,
    /// Options of connections to other nodes.
    pub client: ClientOptions,
    /// Limits of the door for thin clients.
    pub gateway: GatewayOptions,
    /// What its handle of the logs does, which thin clients share.
    pub logs: BifrostOptions,
    /// When its controller does what.
    pub controller: ControllerOptions,
    /// The detector of this process, if it has one.
    pub detector: Option<Detector>,
    /// What takes signs of life at the same listener; `None` where metadata members take them.
    pub liveness: Option<Arc<dyn Liveness>>,
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
    /// The door for thin clients did not open.
    #[error("the service of logs did not start")]
    Gateway(#[source] StartError),
    /// The protocol cannot be described to tools.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    local: LocalNode,
    /// The handle that the door for thin clients has, too.
    bifrost: Bifrost,
    metadata: Arc<dyn MetadataStore>,
    connect: SelfConnect,
    /// Health tells that the node stops, and the door for thin clients takes nothing more. When that is closed, `stop` fires.
    stopping: CancellationToken,
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
    pub async fn start(options: NodeOptions, listener: impl Listener) -> Result<Self, ServerError> {
        let mut identity = options.identity;
        if identity.address.is_empty() {
            identity.address = listener.local_addr().map_err(ServerError::Listener)?.to_string();
        }
        let catalog = Catalog::new(options.metadata.clone());
        let cluster = catalog.ensure_cluster_id().await?;
        let client = ClientOptions { cluster: Some(cluster), ..options.client };
        let mut remote: Arc<dyn Connect> = Arc::new(GrpcConnect { options: client });
        if let Some(interpose) = &options.interpose {
            remote = interpose.connect(&identity, remote);
        }
        let connect = SelfConnect { local: LocalConnect::default(), remote };
        let directory = Directory::new(catalog.clone(), Arc::new(connect.clone()));
        let local =
            LocalNode::start(catalog.clone(), directory.clone(), &identity, options.storage, options.segments).await?;
        let mut services = local.services();
        if let Some(interpose) = &options.interpose {
            services.log_server = interpose.log_server(local.id().node, services.log_server);
            services.node = interpose.node(local.id().node, services.node);
        }
        // A node calls itself without the network.
        connect.local.insert(local.id().node, services.clone());
        let (stopping, stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let revision = match directory.refresh().await {
            Ok(revision) => revision,
            Err(error) => {
                local.shutdown().await;
                return Err(error.into());
            }
        };
        let sweeper = stop.child_token();
        let sweeping = sweep(catalog.clone(), directory.clone(), SweeperOptions::default());
        tasks.spawn(async move {
            let _stopped = sweeper.run_until_cancelled_owned(sweeping).await;
        });
        if let Some(log_server) = local.log_server().cloned() {
            let place = Place { node: local.id(), log_server, directory: directory.clone(), catalog };
            let (catch_up, catching_up) = CatchUp::new(place, options.catch_up);
            local.status().tell_catch_up(catch_up);
            let catcher = stop.child_token();
            tasks.spawn(async move {
                let _stopped = catcher.run_until_cancelled_owned(catching_up).await;
            });
        }
        let follow = stop.child_token();
        tasks.spawn(async move {
            let _stopped = follow.run_until_cancelled_owned(directory.follow(Some(revision))).await;
        });
        let limits = options.server;
        let opened = async {
            let mut routes = RoutesBuilder::default();
            add_reflection(&mut routes, &limits)?;
            let parts = Bifrost::from_parts(options.metadata.clone(), Arc::new(connect.clone()), options.logs);
            let bifrost = parts.await.map_err(ServerError::Gateway)?;
            if let Some(detector) = options.detector {
                bifrost.use_detector(detector);
            }
            bifrost.start_controller(Some(local.id().node), options.controller);
            bifrost.start_drain(local.id().node);
            Ok((routes, Gateway::start(bifrost.clone(), options.gateway), bifrost))
        };
        let (mut routes, gateway, bifrost) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                stop.cancel();
                local.shutdown().await;
                return Err(error);
            }
        };
        let roles = local.record().roles;
        if roles.has(Role::LogServer) {
            LogServerGrpc::new(services.log_server, &limits, stop.child_token()).add_to(&mut routes);
        }
        if roles.has(Role::Sequencer) {
            SequencersGrpc::new(services.sequencers, &limits, stop.child_token()).add_to(&mut routes);
        }
        NodeGrpc::new(services.node, stop.child_token()).add_to(&mut routes);
        MetadataGrpc::new(options.metadata.clone(), &limits, stop.child_token()).add_to(&mut routes);
        // A node for metadata alone is kept free of the load of clients.
        if roles.has(Role::LogServer) || roles.has(Role::Sequencer) {
            LogsGrpc::new(Arc::new(gateway.clone()), &limits, stop.child_token()).add_to(&mut routes);
        }
        if let Some(liveness) = options.liveness {
            LivenessGrpc::new(liveness, stop.child_token()).add_to(&mut routes);
        }
        HealthGrpc::new(services_of(roles), stopping.clone(), stop.child_token()).add_to(&mut routes);
        let (asked, closed) = (stopping.clone(), stop.clone());
        tasks.spawn(async move {
            asked.cancelled_owned().await;
            gateway.shutdown().await;
            closed.cancel();
        });
        let shutdown = stop.clone();
        let node = local.id();
        tasks.spawn(async move {
            if let Err(error) = serve(listener, routes.routes(), &limits, Some(cluster), shutdown).await {
                error!(%node, %error, "the listener failed");
            }
        });
        Ok(Self { local, bifrost, metadata: options.metadata, connect, stopping, stop, tasks })
    }

    /// Hands its sequencers over to other nodes, before a planned stop. From now on it tells whoever asks that it stops.
    ///
    /// # Cancel safety
    /// Safe: what was handed over stays so.
    pub async fn hand_over(&self, options: &HandOverOptions) -> HandedOver {
        self.local.status().leave();
        self.bifrost.hand_over(self.id(), options).await
    }

    /// This life of the node.
    pub fn id(&self) -> NodeGeneration {
        self.local.id()
    }

    /// Its record as of its start.
    pub const fn record(&self) -> &NodeRecord {
        self.local.record()
    }

    /// A handle on the logs of the cluster for callers in this process: it reaches this node by calls, all others through
    /// the network, and wants the logs that are appended from here sequenced here. Shut it down before the node.
    ///
    /// # Errors
    /// [`StartError::Catalog`] when metadata cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing runs before it returns.
    pub async fn handle(&self, options: BifrostOptions) -> Result<Bifrost, StartError> {
        let here = self.record().roles.has(Role::Sequencer).then(|| self.id().node);
        let options = BifrostOptions { preferred: options.preferred.or(here), ..options };
        Bifrost::from_parts(Arc::clone(&self.metadata), Arc::new(self.connect.clone()), options).await
    }

    /// Tells by its health that it stops, lets the appends of thin clients end, closes the listener, stops the services
    /// and frees the storage.
    ///
    /// # Cancel safety
    /// Safe: the stop goes on; call again to wait for it.
    pub async fn shutdown(&self) {
        self.local.status().leave();
        self.stopping.cancel();
        self.stop.cancelled().await;
        self.local.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Itself in the process, everybody else through the network.
#[derive(Debug, Clone)]
struct SelfConnect {
    local: LocalConnect,
    remote: Arc<dyn Connect>,
}

impl Connect for SelfConnect {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        self.local.connect(node).or_else(|| self.remote.connect(node))
    }
}
