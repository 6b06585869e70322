//! The programs of the cluster's hosts: metadata servers and nodes, as production starts them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost::Options as BifrostOptions;
use bifrost::catalog::{Catalog, CatalogError};
use bifrost::catch_up::CatchUpOptions;
use bifrost::connect::Connect;
use bifrost::controller::ControllerOptions;
use bifrost::liveness::{Farewell, LivenessOptions, send_beats};
use bifrost::local_node::{NodeError, Storage};
use bifrost::membership::Identity;
use bifrost::metadata_pool::MetadataPool;
use bifrost_checker::event::Event;
use bifrost_node::gateway::GatewayOptions;
use bifrost_node::server::{Interpose, Node, NodeOptions, ServerError};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, NodeGeneration, NodeId, NodeRecord, Roles, StorageState};
use bifrost_wire::grpc::{ClientOptions, MetadataGrpc, RoutesBuilder, ServerLimits, serve};
use bifrost_wire::log_server::LogServer;
use bifrost_wire::metadata::MetadataStore;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::disk::Disk;
use crate::history::History;
use crate::members::Members;
use crate::network::{PORT, SimDial, SimListener};
use crate::transport::{Faults, FaultyConnect, FaultyMetadata, Judged, ObservedMetadata};
use crate::truth::Truth;

/// Pause of whoever starts a program again after it failed.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What every host of a run knows.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The run.
    pub control: Control,
    /// What happens.
    pub history: History,
    /// What is wrong with calls.
    pub faults: Faults,
    /// When a segment is full, and what its sequencer keeps.
    pub segments: SegmentLimits,
    /// Where the metadata servers are, in the order in which they are asked.
    pub metadata: Vec<String>,
    /// Where the nodes are.
    pub nodes: Vec<String>,
    /// What metadata has, and what may be told of it.
    pub truth: Truth,
    /// The metadata servers by host if they are doors to one keyspace; one of them leads.
    pub leaders: BTreeMap<String, Arc<ObservedMetadata>>,
    /// The metadata servers if they are a group.
    pub members: Option<Members>,
    /// The disks by host. A host that lost its disk has another one.
    pub disks: Arc<Mutex<BTreeMap<String, DiskSlot>>>,
}

/// The disk of a host, and the name of the node that it belongs to.
#[derive(Debug, Clone)]
pub struct DiskSlot {
    /// The node's name.
    pub name: String,
    /// Its disk.
    pub disk: Disk,
    /// Its zone.
    pub zone: u8,
    /// The node whose disk was lost before this one took its place.
    pub replaces: Option<String>,
}

impl Ground {
    /// How everybody connects.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions { dial: Some(Arc::new(SimDial)), ..ClientOptions::default() }
    }

    /// `host:port` of hosts.
    pub fn addresses(hosts: &[String]) -> Vec<String> {
        hosts.iter().map(|host| format!("{host}:{PORT}")).collect()
    }

    /// The host of a node that goes by this name.
    fn host_of(name: &str) -> String {
        name.split('-').next().unwrap_or(name).to_owned()
    }

    /// How a host reaches nodes, with what is wrong about that.
    pub fn connect_from(&self, host: &str, inner: Arc<dyn Connect>) -> Arc<dyn Connect> {
        Arc::new(FaultyConnect::new(host, inner, self.faults.clone()).hosts(Self::host_of))
    }

    /// How a host reaches metadata, with what is wrong about that.
    ///
    /// # Panics
    /// Never: the addresses are made here.
    pub fn metadata_from(&self, host: &str, at: &[String]) -> Arc<dyn MetadataStore> {
        let direct = at == self.metadata;
        let (addresses, options) = (Self::addresses(at), self.client_options());
        let pool = match &self.members {
            Some(_) if direct => MetadataPool::follow(addresses, &options),
            Some(_) | None => MetadataPool::connect_lazy(addresses, &options),
        };
        let pool: Arc<dyn MetadataStore> = Arc::new(pool.expect("names of hosts are addresses"));
        let judged = Arc::new(Judged::new(host, pool, self.truth.clone(), direct));
        let to = at.first().map_or("", String::as_str);
        Arc::new(FaultyMetadata::new(host, to, judged, &self.faults))
    }
}

/// Serves metadata until the host dies.
pub async fn metadata_server(host: String, store: Arc<dyn MetadataStore>) -> turmoil::Result {
    let listener = SimListener::bind(&host).await?;
    let limits = ServerLimits::default();
    let stop = CancellationToken::new();
    let mut routes = RoutesBuilder::default();
    MetadataGrpc::new(store, &limits, stop.child_token()).add_to(&mut routes);
    serve(listener, routes.routes(), &limits, None, stop).await?;
    Ok(())
}

/// Runs a node, and starts it again when it could not start, as a supervisor does.
pub async fn node(host: String, ground: Ground) -> turmoil::Result {
    loop {
        let Some(slot) = ground.disks.lock().get(&host).cloned() else { std::future::pending().await };
        if let Some(lost) = &slot.replaces {
            declare_lost(&host, &ground, lost).await;
        }
        let listener = SimListener::bind(&host).await?;
        match Node::start(options(&host, &slot, &ground), listener).await {
            Ok(node) => {
                if let Some(disk) = node.record().disk {
                    ground.control.lives(&host, node.id(), disk);
                    ground.history.record(Event::NodeStarted { node: node.id(), disk });
                }
                // It lives until the host dies.
                signs_of_life(node.id(), &ground).await;
                drop(node);
            }
            Err(ServerError::Node(NodeError::Refused(refusal))) => {
                ground.history.note(format!("{} refuses to start: {refusal}", slot.name));
                std::future::pending::<()>().await;
            }
            Err(ServerError::Node(NodeError::Catalog(CatalogError::Conflict))) => {
                // Nobody else goes by this name here, so it met what it wrote itself.
                ground.control.fail(format!("M3 {} takes its own write for somebody else's", slot.name));
                sleep(RESTART_PAUSE).await;
            }
            Err(error) => {
                ground.history.note(format!("{} does not start: {error}", slot.name));
                sleep(RESTART_PAUSE).await;
            }
        }
    }
}

/// Tells the members of a group that a node lives, until its host dies. Without a group there is nobody to tell.
async fn signs_of_life(me: NodeGeneration, ground: &Ground) {
    if ground.members.is_none() {
        return std::future::pending().await;
    }
    let client = ground.client_options();
    let pool =
        MetadataPool::follow(Ground::addresses(&ground.metadata), &client).expect("names of hosts are addresses");
    send_beats(|| pool.addresses(), me, LivenessOptions::default(), client, Farewell::default()).await;
}

/// What an operator does before a new node takes the place of one whose disk is gone: without it both might get into one
/// nodeset, and go together.
async fn declare_lost(host: &str, ground: &Ground, name: &str) {
    let catalog = Catalog::new(ground.metadata_from(host, &ground.metadata));
    loop {
        match catalog.node_by_name(name).await {
            // The node itself may have written the state, which is no operator's word.
            Ok(Some((NodeRecord { storage: StorageState::DataLoss, declared_lost: true, .. }, _)) | None) => return,
            Ok(Some((record, revision))) => {
                let record = NodeRecord { storage: StorageState::DataLoss, declared_lost: true, ..record };
                // Whether it was written, the next look tells.
                let _unknown = catalog.change_storage(revision, &record).await;
            }
            Err(error) => ground.history.note(format!("{name} is not declared lost yet: {error}")),
        }
        sleep(RESTART_PAUSE).await;
    }
}

fn options(host: &str, slot: &DiskSlot, ground: &Ground) -> NodeOptions {
    let location = Location { region: "r".into(), zone: format!("z{}", slot.zone).into() };
    NodeOptions {
        identity: Identity { name: slot.name.clone(), address: String::new(), location, roles: Roles::DATA },
        storage: Storage::Given(Arc::new(slot.disk.clone())),
        metadata: ground.metadata_from(host, &ground.metadata),
        segments: ground.segments,
        catch_up: CatchUpOptions::default(),
        server: ServerLimits::default(),
        client: ground.client_options(),
        gateway: GatewayOptions::default(),
        logs: BifrostOptions::default(),
        controller: ControllerOptions::default(),
        detector: None,
        liveness: None,
        interpose: Some(Arc::new(Between { host: host.to_owned(), ground: ground.clone() })),
    }
}

/// Puts what is wrong with calls between a node and those whom it calls.
#[derive(Debug)]
struct Between {
    host: String,
    ground: Ground,
}

impl Interpose for Between {
    fn log_server(&self, _: NodeId, inner: Arc<dyn LogServer>) -> Arc<dyn LogServer> {
        inner
    }

    fn connect(&self, _: &Identity, inner: Arc<dyn Connect>) -> Arc<dyn Connect> {
        self.ground.connect_from(&self.host, inner)
    }
}
