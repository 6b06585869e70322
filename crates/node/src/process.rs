//! One node as a process of its own: what `bifrost server` runs. It makes or joins a cluster, takes part in its metadata if
//! it has that role, and goes on where its last life was interrupted.
//!
//! ```text
//!  NodeDirectory (lock, node.json) ─► cluster ─► member: Raft, listener ─► pool ─► Node: log server, sequencers, listener
//!                                                        └── a new one: after the node has its number ◄──┘
//! ```
//! Each step is written as desired state before it is taken ([`NodeState`]); taking one again is success. Nobody waits for
//! ever: each wait has a deadline, and its error says what was waited for.
//!
//! With metadata in etcd there is no member and no pool: the store is etcd's.
//!
//! Reading order: [`state`] (what survives), this file, `group` (what is asked of the metadata group), `tended` (a member that comes
//! back), `etcd`, [`error`].

pub mod error;
mod etcd;
mod group;
pub mod state;
mod tended;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifrost::catalog::Catalog;
use bifrost::catch_up::CatchUpOptions;
use bifrost::liveness::{Detector, Farewell, send_beats};
use bifrost::local_node::Storage;
use bifrost::membership::Identity;
use bifrost::metadata_pool::MetadataPool;
use bifrost::{HandOverOptions, Options as BifrostOptions, fresh_op};
use bifrost_etcd::{EtcdMetadata, EtcdOptions};
use bifrost_logserver::RocksOptions;
use bifrost_raft::{Lineage, owner_at};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{ClusterId, Location, NodeId, NodeRecord, Roles};
use bifrost_wire::grpc::{ClientOptions, ServerLimits};
use bifrost_wire::metadata::MetadataStore;
use bifrost_wire::metadata_admin::MetadataMember as WireMember;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::failover::FailoverOptions;
use crate::gateway::GatewayOptions;
use crate::metadata_member::{MemberOptions, MetadataMember};
use crate::server::{Node, NodeOptions};

pub use self::error::ProcessError;
use self::state::{Begun, Engine, MemberState, NodeDirectory, NodeState};
use self::tended::Tended;

/// How often the members of the metadata group are looked up although nothing failed.
const REFRESH: Duration = Duration::from_secs(30);
/// Of the data directory.
const LOG_SERVER: &str = "log-server";
pub(crate) const METADATA: &str = "metadata";

/// What a process is told at its start.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The name of the node: the same one again is the same node.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What it does.
    pub roles: Roles,
    /// Where its metadata member is: exactly if it has that role, and metadata is not in etcd.
    pub member: Option<MemberAddresses>,
    /// Where etcd keeps the metadata, if it does.
    pub etcd: Option<EtcdOptions>,
    /// Metadata members of the cluster to join.
    pub join: Vec<String>,
    /// Make a cluster.
    pub bootstrap: bool,
    /// Settings of RocksDB of the log server.
    pub rocks: RocksOptions,
    /// When a segment counts as full.
    pub segments: SegmentLimits,
    /// How its disk gets what it misses.
    pub catch_up: CatchUpOptions,
    /// Limits of both listeners.
    pub server: ServerLimits,
    /// Options of connections to other nodes.
    pub client: ClientOptions,
    /// Limits of the door for thin clients.
    pub gateway: GatewayOptions,
    /// What it does so that logs go on without it, and without others.
    pub failover: FailoverOptions,
}

impl ProcessOptions {
    /// A node that keeps copies and numbers appends, listens at `listen` (`host:port`; port 0 for any that is free) and has
    /// its data in `data_dir`. Everything else has its default; say where its cluster is with `join`.
    pub fn new(name: impl Into<String>, listen: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            location: Location::default(),
            listen: listen.into(),
            advertise: None,
            data_dir: data_dir.into(),
            roles: Roles::DATA,
            member: None,
            etcd: None,
            join: Vec::new(),
            bootstrap: false,
            rocks: RocksOptions::default(),
            segments: SegmentLimits::default(),
            server: ServerLimits::default(),
            client: ClientOptions::default(),
            gateway: GatewayOptions::default(),
            failover: FailoverOptions::default(),
            catch_up: CatchUpOptions::default(),
        }
    }
}

/// Where a metadata member listens.
#[derive(Debug, Clone)]
pub struct MemberAddresses {
    /// `host:port`.
    pub listen: String,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
}

/// A running process of a node.
#[derive(Debug)]
pub struct Process {
    cluster: ClusterId,
    node: Node,
    member: Option<Tended>,
    hand_over: HandOverOptions,
    farewell: Farewell,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A listener that is bound, and where others reach it.
struct Bound {
    listener: TcpListener,
    address: String,
}

/// Where the metadata of the cluster is.
enum Store {
    /// At the members of the metadata group.
    Group(Arc<MetadataPool>),
    /// In etcd.
    Etcd(Arc<EtcdMetadata>),
}

impl Store {
    fn shared(&self) -> Arc<dyn MetadataStore> {
        match self {
            Self::Group(pool) => Arc::clone(pool) as Arc<_>,
            Self::Etcd(etcd) => Arc::clone(etcd) as Arc<_>,
        }
    }
}

/// A start under way.
struct Start {
    options: ProcessOptions,
    directory: Arc<NodeDirectory>,
    state: NodeState,
    /// Gone once the member serves there.
    member_listener: Option<Bound>,
    /// Where that is, once it does.
    member_listens: Option<SocketAddr>,
    member: Option<MetadataMember>,
    detector: Detector,
}

impl Process {
    /// Goes through all steps from an empty directory, or from wherever the last life ended, to a node that serves.
    ///
    /// # Errors
    /// [`ProcessError`]; nothing runs then.
    ///
    /// # Cancel safety
    /// Safe: the steps that were taken are recognised at the next start.
    pub async fn start(options: ProcessOptions) -> Result<Self, ProcessError> {
        let path = options.data_dir.clone();
        let (directory, found) = blocking(move || NodeDirectory::open(&path)).await?;
        let listener = bind(&options.listen, options.advertise.as_deref()).await?;
        let member_listener = match &options.member {
            Some(member) => Some(bind(&member.listen, member.advertise.as_deref()).await?),
            None => None,
        };
        if options.etcd.is_none() && options.roles.has(bifrost_types::Role::Metadata) != options.member.is_some() {
            return Err(ProcessError::MemberWithoutRole);
        }
        let own = member_listener.as_ref().map(|bound| bound.address.as_str());
        let state = match found {
            Some(state) => known(&options, state, own).await?,
            None => begin(&options, own).await?,
        };
        let directory = Arc::new(directory);
        let detector = Detector::new(options.failover.liveness.clone());
        let mut start =
            Start { options, directory, state, member_listener, member_listens: None, member: None, detector };
        start.save().await?;
        if start.state.engine == Engine::Etcd {
            let path = start.directory.path().to_owned();
            blocking(move || etcd::set_member_aside(&path)).await?;
        }
        match start.run(listener).await {
            Ok(process) => Ok(process),
            Err(error) => {
                if let Some(member) = &start.member {
                    member.shutdown().await;
                }
                Err(error)
            }
        }
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The record of the node as of its start.
    pub const fn record(&self) -> &NodeRecord {
        self.node.record()
    }

    /// The node.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Where its metadata member is reached, if it has one.
    pub fn member_address(&self) -> Option<String> {
        self.member.as_ref().map(|tended| tended.member().member().1.address)
    }

    /// Stops in good order. First its sequencers go to other nodes, and it says farewell to the detector; then the node
    /// stops, which needs metadata for that; last its metadata member, which gives up the lead if it has it.
    ///
    /// # Cancel safety
    /// Safe: call again to go on.
    pub async fn shutdown(&self) {
        self.node.hand_over(&self.hand_over).await;
        self.farewell.say().await;
        self.node.shutdown().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(tended) = &self.member {
            tended.member().shutdown().await;
        }
    }
}

/// A directory of a node that goes on: whether it is this one.
async fn known(options: &ProcessOptions, mut state: NodeState, own: Option<&str>) -> Result<NodeState, ProcessError> {
    if state.node.is_none() {
        // It never became a node: its name may have been refused.
        state.name.clone_from(&options.name);
    }
    if state.name != options.name {
        return Err(ProcessError::OtherName { found: state.name, wanted: options.name.clone() });
    }
    if options.bootstrap && state.begun == Begun::Join {
        return Err(ProcessError::BelongsToCluster { cluster: state.cluster });
    }
    if let Some(etcd) = &options.etcd {
        return etcd::known(etcd, state).await;
    }
    if state.engine == Engine::Etcd {
        return back_from_etcd(options, state).await;
    }
    match (&state.member, own) {
        (Some(_), None) => return Err(ProcessError::StillMember),
        (Some(member), Some(own)) if member.address != own => {
            // The others are told once metadata answers.
            let known = member.address.clone();
            state
                .metadata
                .iter_mut()
                .filter(|address| **address == known)
                .for_each(|address| *address = own.to_owned());
            state.member = Some(MemberState { address: own.to_owned(), moved: true, ..member.clone() });
        }
        _ => {}
    }
    if let Some(found) = group::other_cluster(&options.join, state.cluster, &options.client).await {
        return Err(ProcessError::OtherCluster { own: state.cluster, found });
    }
    Ok(state)
}

/// The cluster had its metadata in etcd when this node ran last. It follows into a metadata group if it is told where that is.
async fn back_from_etcd(options: &ProcessOptions, state: NodeState) -> Result<NodeState, ProcessError> {
    if options.join.is_empty() {
        return Err(ProcessError::IsInEtcd);
    }
    let (found, metadata) = group::find(&options.join, &options.client).await?;
    if found != state.cluster {
        return Err(ProcessError::OtherCluster { own: state.cluster, found });
    }
    Ok(NodeState { engine: Engine::Raft, member: None, metadata, ..state })
}

/// An empty directory: makes a cluster, or finds the one to join.
async fn begin(options: &ProcessOptions, own: Option<&str>) -> Result<NodeState, ProcessError> {
    let name = options.name.clone();
    if let Some(etcd) = &options.etcd {
        return etcd::begin(options, etcd).await;
    }
    if options.bootstrap {
        let address = own.ok_or(ProcessError::BootstrapWithoutMetadata)?.to_owned();
        return Ok(NodeState {
            cluster: ClusterId::try_from(fresh_op().get()).map_err(|_| ProcessError::NoId)?,
            begun: Begun::Bootstrap,
            name,
            node: Some(FIRST),
            engine: Engine::Raft,
            member: Some(MemberState { address: address.clone(), voter: false, moved: false }),
            metadata: vec![address],
        });
    }
    if options.join.is_empty() {
        return Err(ProcessError::NoCluster { directory: options.data_dir.clone() });
    }
    let (cluster, metadata) = group::find(&options.join, &options.client).await?;
    Ok(NodeState { cluster, begun: Begun::Join, name, node: None, engine: Engine::Raft, member: None, metadata })
}

/// Whoever makes a cluster is its first node.
const FIRST: NodeId = NodeId::new(std::num::NonZeroU32::MIN);

impl Start {
    async fn save(&self) -> Result<(), ProcessError> {
        save(&self.directory, &self.state).await
    }

    async fn run(&mut self, listener: Bound) -> Result<Process, ProcessError> {
        let client = ClientOptions { cluster: Some(self.state.cluster), ..self.options.client.clone() };
        // A member that the group knows must be there before metadata is asked for: without it there may be no majority.
        if let Some(state) = self.state.member.clone()
            && let Some(node) = self.state.node
        {
            self.return_member(node, &state).await?;
            if self.state.begun == Begun::Bootstrap && !state.voter {
                if let Some(member) = &self.member {
                    let identity = self.identity(&listener.address);
                    group::bootstrap(member, self.state.cluster, &identity).await?;
                }
                self.voter(&state.address).await?;
            }
            self.serve_member().await?;
        }
        let store = self.store(&client).await?;
        let catalog = Catalog::new(store.shared());
        group::ready(&catalog, self.state.cluster, &self.state.metadata).await?;
        if self.state.node.is_none() {
            let disk = self.directory.path().join(LOG_SERVER);
            group::check_name(&catalog, &self.state.name, disk, &client).await?;
        }
        let node = Node::start(self.node_options(&store, &listener.address), listener.listener).await;
        let node = node.map_err(ProcessError::Node)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let farewell = match &store {
            Store::Group(_) => Farewell::default(),
            // Beside etcd there is no detector.
            Store::Etcd(_) => Farewell::to_nobody(),
        };
        // Logs may be placed here from now on.
        if let Store::Group(pool) = &store {
            let liveness = self.options.failover.liveness.clone();
            let beats = send_beats(Arc::clone(pool), node.id(), liveness, client, farewell.clone());
            let stopped = stop.clone();
            tasks.spawn(async move {
                let _stopped = stopped.run_until_cancelled_owned(beats).await;
            });
        }
        match self.join_group(&node, &store).await {
            Ok(()) => {}
            Err(error) => {
                farewell.say().await;
                node.shutdown().await;
                stop.cancel();
                return Err(error);
            }
        }
        if let Store::Group(pool) = store {
            let keeper = keep_addresses(pool, Arc::clone(&self.directory), self.state.clone());
            let stopped = stop.clone();
            tasks.spawn(async move {
                let _stopped = stopped.run_until_cancelled_owned(keeper).await;
            });
        }
        let member = self.member.take().map(Tended::new);
        if let Some(tended) = &member
            && let Some(listen) = self.member_listens
        {
            let (tending, stopped) = (tended.clone().tend(listen), stop.clone());
            tasks.spawn(async move {
                let _stopped = stopped.run_until_cancelled_owned(tending).await;
            });
        }
        info!(cluster = %self.state.cluster, node = %node.id(), "the process of a node is ready");
        let hand_over = self.options.failover.hand_over.clone();
        Ok(Process { cluster: self.state.cluster, node, member, hand_over, farewell, stop, tasks })
    }

    /// Takes the node's number down, and makes its member a voter if it is none.
    async fn join_group(&mut self, node: &Node, store: &Store) -> Result<(), ProcessError> {
        let id = node.id().node;
        match self.state.node {
            Some(known) if known != id => return Err(ProcessError::OtherNode { known, found: id }),
            Some(_) => {}
            None => {
                self.state.node = Some(id);
                self.save().await?;
            }
        }
        let Store::Group(pool) = store else { return Ok(()) };
        let address = match (&self.state.member, &self.member_listener) {
            (Some(member), _) if member.voter && !member.moved => return Ok(()),
            (Some(member), _) => member.address.clone(),
            (None, Some(bound)) => bound.address.clone(),
            (None, None) => return Ok(()),
        };
        if self.state.member.is_none() {
            self.state.member = Some(MemberState { address: address.clone(), voter: false, moved: false });
            self.save().await?;
        }
        if self.member.is_none() {
            let lineage = self.group().await.lineage().unwrap_or_default();
            self.start_member(id, &address, lineage, false).await?;
            self.serve_member().await?;
        }
        group::add(pool, WireMember { node: id, address: address.clone() }).await?;
        self.voter(&address).await
    }

    async fn voter(&mut self, address: &str) -> Result<(), ProcessError> {
        self.state.member = Some(MemberState { address: address.to_owned(), voter: true, moved: false });
        self.save().await
    }

    /// Starts a member that may have run before, unless its group has gone on without it.
    async fn return_member(&mut self, node: NodeId, state: &MemberState) -> Result<(), ProcessError> {
        let directory = self.directory.path().join(METADATA);
        let read = directory.clone();
        let owner = blocking(move || owner_at(&read)).await;
        let owner = owner.map_err(|error| ProcessError::Member(error.into()))?;
        if self.state.begun == Begun::Bootstrap && !state.voter && owner.is_none() {
            return self.start_member(node, &state.address, Lineage::default(), false).await;
        }
        let group = self.group().await;
        match owner {
            Some(owner) => {
                if let Some(address) = group.replaces(owner.lineage.group) {
                    return Err(ProcessError::MemberReplaced { address, directory });
                }
                self.start_member(node, &state.address, owner.lineage, true).await
            }
            None if group.is_without(node) || !(state.voter || group.answers()) => {
                // It begins anew, when metadata has answered.
                self.state.member = None;
                self.save().await
            }
            None => Err(ProcessError::MemberLost { node, directory }),
        }
    }

    /// What those who may know say of the group.
    async fn group(&self) -> group::View {
        group::View::of(&self.metadata(), self.state.cluster, &self.options.client).await
    }

    async fn start_member(
        &mut self,
        node: NodeId,
        address: &str,
        lineage: Lineage,
        returning: bool,
    ) -> Result<(), ProcessError> {
        let options = MemberOptions {
            cluster: self.state.cluster,
            node,
            address: address.to_owned(),
            directory: self.directory.path().join(METADATA),
            lineage,
            returning,
            server: self.options.server.clone(),
            client: self.options.client.clone(),
            detector: self.detector.clone(),
        };
        self.member = Some(MetadataMember::start(options).await.map_err(ProcessError::Member)?);
        Ok(())
    }

    async fn serve_member(&mut self) -> Result<(), ProcessError> {
        if let Some(member) = &self.member
            && let Some(bound) = self.member_listener.take()
        {
            let failed = |source| ProcessError::Listen { address: bound.address.clone(), source };
            self.member_listens = Some(bound.listener.local_addr().map_err(failed)?);
            let listener = bound.listener.into_std().map_err(failed)?;
            member.serve(listener).map_err(ProcessError::Member)?;
        }
        Ok(())
    }

    /// Where the metadata is. A cluster in etcd is made here if this node is to make it.
    async fn store(&self, client: &ClientOptions) -> Result<Store, ProcessError> {
        if let Some(etcd) = &self.options.etcd {
            etcd::ensure(etcd, &self.state).await?;
            return Ok(Store::Etcd(Arc::new(etcd::connect(etcd, self.state.cluster)?)));
        }
        let pool = MetadataPool::follow(self.metadata(), client);
        let pool = pool.map_err(|error| ProcessError::WrongAddress { address: error.address })?;
        Ok(Store::Group(Arc::new(pool)))
    }

    fn identity(&self, address: &str) -> Identity {
        let location = self.options.location.clone();
        Identity { name: self.state.name.clone(), address: address.to_owned(), location, roles: self.options.roles }
    }

    /// Where metadata may be: as last known, and where this start was told to join.
    fn metadata(&self) -> Vec<String> {
        let mut addresses = self.state.metadata.clone();
        addresses.extend(self.options.join.iter().filter(|join| !self.state.metadata.contains(join)).cloned());
        addresses
    }

    fn node_options(&self, store: &Store, address: &str) -> NodeOptions {
        NodeOptions {
            identity: self.identity(address),
            storage: Storage::Disk {
                directory: self.directory.path().join(LOG_SERVER),
                options: self.options.rocks.clone(),
            },
            metadata: store.shared(),
            segments: self.options.segments,
            catch_up: self.options.catch_up.clone(),
            server: self.options.server.clone(),
            client: self.options.client.clone(),
            gateway: self.options.gateway.clone(),
            logs: BifrostOptions::default(),
            controller: self.options.failover.controller.clone(),
            detector: self.options.member.as_ref().map(|_| self.detector.clone()),
            interpose: None,
        }
    }
}

/// Looks the members up now and then, and writes down where they are.
async fn keep_addresses(pool: Arc<MetadataPool>, directory: Arc<NodeDirectory>, mut state: NodeState) {
    let Some(mut addresses) = pool.watch_addresses() else { return };
    // What was learned during the start is not written down yet.
    addresses.mark_changed();
    let mut looks = interval(REFRESH);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            changed = addresses.changed() => {
                if changed.is_err() {
                    return;
                }
                state.metadata = addresses.borrow_and_update().clone();
                if let Err(error) = save(&directory, &state).await {
                    warn!(%error, "where metadata is cannot be written down");
                }
            }
            _ = looks.tick() => pool.refresh().await,
        }
    }
}

async fn save(directory: &Arc<NodeDirectory>, state: &NodeState) -> Result<(), ProcessError> {
    let (directory, state) = (Arc::clone(directory), state.clone());
    Ok(blocking(move || directory.write(&state)).await?)
}

async fn bind(listen: &str, advertise: Option<&str>) -> Result<Bound, ProcessError> {
    let failed = |source| ProcessError::Listen { address: listen.to_owned(), source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let address = match advertise {
        Some(advertise) => advertise.to_owned(),
        None if bound.ip().is_unspecified() => return Err(ProcessError::NoAdvertise { listen: listen.to_owned() }),
        None => bound.to_string(),
    };
    Ok(Bound { listener, address })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
