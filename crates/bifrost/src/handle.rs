//! The entry point: one handle over three back ends.

use std::fmt;
#[cfg(feature = "rocksdb")]
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(feature = "rocksdb")]
use bifrost_metadata::LocalMetadata;
use bifrost_metadata::MemoryMetadata;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, LogId, NodeGeneration, NodeId, NodeRecord, OpId, Roles, Successor};
use bifrost_wire::grpc::ClientOptions;
use bifrost_wire::metadata::MetadataStore;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::catalog::{Catalog, CatalogError, Roster, StoredChain};
use crate::cluster::{Cluster, Rounds, fresh_op, random_id};
use crate::connect::{Connect, GrpcConnect, LocalConnect};
use crate::controller::{ControllerOptions, control};
use crate::create::Creator;
use crate::delete::sweeper::{SweeperOptions, sweep};
use crate::delete::{Deleter, Given, give_back};
use crate::directory::Directory;
use crate::drain::drain;
use crate::error::LogError;
use crate::explain::{self, Asked, Explanation, MetadataView};
use crate::follow::Follower;
use crate::liveness::Detector;
use crate::local_node::{LocalNode, NodeError, Storage};
use crate::log::Log;
use crate::log_state::LogState;
use crate::membership::Identity;
use crate::metadata_pool::{MetadataPool, WrongAddress};
use crate::options::{LogOptions, Options};
use crate::placement::{Leave, Situation, default_replication, place};
use crate::reconfigure::Progress;
use crate::states::States;

/// Attempts at making a log while metadata gives no answer.
const CREATE_ATTEMPTS: u32 = 10;
const CREATE_PAUSE: Duration = Duration::from_millis(50);

/// Why a `Bifrost` did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is not of the form `host:port`.
    #[error("{address:?} is not an address of the form host:port")]
    Address {
        /// The text.
        address: String,
    },
    /// The cluster cannot be reached, or has no readable metadata.
    #[error("the cluster's metadata cannot be read")]
    Catalog(#[from] CatalogError),
    /// The local metadata cannot be opened.
    #[cfg(feature = "rocksdb")]
    #[error("the local metadata cannot be opened")]
    Metadata(#[from] bifrost_metadata::OpenError),
    /// The node in this process did not start.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// What runs in this process for an embedded back end.
#[derive(Debug)]
struct Hosted {
    node: LocalNode,
    #[cfg(feature = "rocksdb")]
    metadata: Option<LocalMetadata>,
}

/// Logs: make them, find them. Cheap to clone; one per process and cluster is enough.
///
/// Needs a Tokio runtime with time and IO enabled. Call [`shutdown`](Self::shutdown) before the runtime ends.
#[derive(Clone)]
pub struct Bifrost {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    logs: Mutex<States<LogState>>,
    hosted: Option<Hosted>,
}

impl Bifrost {
    /// One copy in memory, in this process, gone with it: for tests of an embedder.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn in_memory() -> Result<Self, StartError> {
        let metadata = Arc::new(MemoryMetadata::new());
        let local = LocalConnect::default();
        let (cluster, node) = host(metadata, &local, Storage::Memory).await?;
        let hosted = Hosted {
            node,
            #[cfg(feature = "rocksdb")]
            metadata: None,
        };
        Ok(Self::assemble(cluster, Some(hosted)))
    }

    /// One copy in a directory, in this process, without a network: survives kill -9. The directory is made if it is not
    /// there, and serves one process at a time.
    ///
    /// Records are written by a thread of their own. With a worker thread less than there are cores, the runtime leaves it one:
    /// on two cores, a twentieth more appends per second with many in flight, and a tenth off the time of a lone one.
    ///
    /// # Errors
    /// [`StartError`], for example when another process has the directory open.
    #[cfg(feature = "rocksdb")]
    pub async fn embedded(directory: impl AsRef<Path>) -> Result<Self, StartError> {
        let directory = directory.as_ref();
        let metadata = LocalMetadata::open(directory.join("metadata")).await?;
        let storage = Storage::Disk {
            directory: directory.join("log-server"),
            options: bifrost_logserver::RocksOptions::default(),
        };
        let local = LocalConnect::default();
        match host(Arc::new(metadata.clone()), &local, storage).await {
            Ok((cluster, node)) => Ok(Self::assemble(cluster, Some(Hosted { node, metadata: Some(metadata) }))),
            Err(error) => {
                metadata.shutdown().await;
                Err(error)
            }
        }
    }

    /// A cluster, through any of these addresses (`host:port`) of nodes that serve metadata.
    ///
    /// # Errors
    /// [`StartError`] when none of them answers.
    pub async fn connect<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, StartError> {
        Self::connect_with(addresses, Options::default(), ClientOptions::default()).await
    }

    /// Like [`connect`](Self::connect), with options.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub async fn connect_with<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        options: Options,
        client: ClientOptions,
    ) -> Result<Self, StartError> {
        let addresses: Vec<A> = addresses.into_iter().collect();
        let mut client = client;
        if client.cluster.is_none() {
            // From here on no address leads to another cluster, whoever listens there then.
            client.cluster = Catalog::new(metadata_at(&addresses, &client)?).known_cluster_id().await?;
        }
        let metadata = metadata_at(&addresses, &client)?;
        Self::from_parts(metadata, Arc::new(GrpcConnect { options: client }), options).await
    }

    /// A cluster whose metadata and nodes are reached in ways of the caller's choosing: how a daemon, a test or a
    /// simulation assembles one.
    ///
    /// # Errors
    /// [`StartError::Catalog`] when metadata cannot be read.
    pub async fn from_parts(
        metadata: Arc<dyn MetadataStore>,
        connect: Arc<dyn Connect>,
        options: Options,
    ) -> Result<Self, StartError> {
        Ok(Self::assemble(Cluster::start(metadata, connect, options).await?, None))
    }

    fn assemble(cluster: Arc<Cluster>, hosted: Option<Hosted>) -> Self {
        let alone = hosted.is_some();
        let bifrost = Self { inner: Arc::new(Inner { cluster, logs: Mutex::new(States::new()), hosted }) };
        if alone {
            bifrost.start_controller(None, ControllerOptions::default());
        }
        bifrost
    }

    /// Uses the detector of the metadata member in this process: its controller moves what silent nodes had, and nothing
    /// is placed on them. Before [`start_controller`](Self::start_controller); the first one stays.
    pub fn use_detector(&self, detector: Detector) {
        let _first = self.inner.cluster.detector.set(detector);
    }

    /// Cares for the logs of the cluster that nobody touches, until the shutdown: see [`controller`](crate::controller).
    /// A daemon starts one, as `me`; an embedded back end has one.
    pub fn start_controller(&self, me: Option<NodeId>, options: ControllerOptions) {
        let Inner { cluster, .. } = &*self.inner;
        // It does not keep this handle alive.
        let inner = Arc::downgrade(&self.inner);
        let open = Arc::new(move |stored| inner.upgrade().map(|inner| Self { inner }.state(stored)));
        let controlling = control(cluster.clone(), open, me, options);
        let stop = cluster.stop.child_token();
        cluster.tasks.spawn(async move {
            let _stopped = stop.run_until_cancelled_owned(controlling).await;
        });
    }

    /// Moves the open segments that `me` numbers off disks that take no new ones, until the shutdown. A daemon starts it.
    pub fn start_drain(&self, me: NodeId) {
        let Inner { cluster, .. } = &*self.inner;
        // It does not keep this handle alive.
        let inner = Arc::downgrade(&self.inner);
        let open = Arc::new(move |stored| inner.upgrade().map(|inner| Self { inner }.state(stored)));
        let draining = drain(cluster.clone(), open, me);
        let stop = cluster.stop.child_token();
        cluster.tasks.spawn(async move {
            let _stopped = stop.run_until_cancelled_owned(draining).await;
        });
    }

    /// Makes a log. A name is 1 to 255 bytes of letters, digits, `-`, `_` and `.`, not a plain number.
    ///
    /// # Errors
    /// [`LogError::Catalog`] with [`CatalogError::NameTaken`] when there is one of that name,
    /// [`LogError::NoPlacement`] when no nodes can hold it.
    ///
    /// # Cancel safety
    /// The log is made or not; [`log`](Self::log) tells.
    pub async fn create_log(&self, name: &str, options: LogOptions) -> Result<Log, LogError> {
        self.create(Some(name), options).await
    }

    /// Makes a log without a name; it is known by its id.
    ///
    /// # Errors
    /// See [`create_log`](Self::create_log).
    ///
    /// # Cancel safety
    /// The log is made or not; its id is lost with the future.
    pub async fn create_unnamed_log(&self, options: LogOptions) -> Result<Log, LogError> {
        self.create(None, options).await
    }

    async fn create(&self, name: Option<&str>, options: LogOptions) -> Result<Log, LogError> {
        let cluster = &self.inner.cluster;
        let (mut first, mut roster) = self.place_first(&options).await?;
        let op = fresh_op();
        let mut attempt = 1;
        loop {
            match cluster.creator.create(&cluster.catalog, name, op, &first, roster).await {
                Err(CatalogError::NodesChanged) if attempt < CREATE_ATTEMPTS => {
                    attempt += 1;
                    (first, roster) = self.place_first(&options).await?;
                }
                // The same operation again finds what a lost reply hid (M2).
                Err(error) if error.is_passing() && attempt < CREATE_ATTEMPTS => {
                    attempt += 1;
                    sleep(CREATE_PAUSE).await;
                }
                stored => return Ok(self.hand_out(stored?)),
            }
        }
    }

    /// Chooses the first segment of a new log, and tells under which roster.
    async fn place_first(&self, options: &LogOptions) -> Result<(Successor, Roster), LogError> {
        let cluster = &self.inner.cluster;
        cluster.directory.refresh().await?;
        let nodes = cluster.directory.records();
        let replication = match options.replication.clone() {
            Some(replication) => replication,
            None => cluster.catalog.default_replication().await?.unwrap_or_else(|| default_replication(&nodes)),
        };
        let mut answers = Vec::clone(&*cluster.answering(replication.copies()).await);
        let preferred = options.preferred.or(cluster.options.preferred);
        answers.extend(cluster.answer_if_missing(preferred, &answers).await);
        let situation = Situation {
            nodes: &nodes,
            answers: &answers,
            present: None,
            leave: Leave::Stay,
            pin: None,
            preferred,
            // It has no number yet.
            seed: u64::try_from(random_id().get() >> 64).unwrap_or(0),
            nodeset_max: cluster.options.nodeset_max,
        };
        let first = place(situation, &replication).ok_or(LogError::NoPlacement)?;
        let roster = cluster.directory.admit(&first)?;
        Ok((first, roster))
    }

    /// Finds a log by its name.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is none.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn log(&self, name: &str) -> Result<Log, LogError> {
        let log = self.inner.cluster.catalog.log_id(name).await?.ok_or(CatalogError::UnknownLog)?;
        self.log_by_id(log).await
    }

    /// Finds a log by its id.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is none.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn log_by_id(&self, log: LogId) -> Result<Log, LogError> {
        Ok(self.hand_out(self.inner.cluster.catalog.chain(log).await?))
    }

    /// Finds a log by its name, or makes it.
    ///
    /// # Errors
    /// See [`create_log`](Self::create_log).
    ///
    /// # Cancel safety
    /// The log is made or not.
    pub async fn open_log(&self, name: &str, options: LogOptions) -> Result<Log, LogError> {
        match self.log(name).await {
            Err(LogError::Catalog(CatalogError::UnknownLog)) => {}
            found => return found,
        }
        match self.create_log(name, options).await {
            Err(LogError::Catalog(CatalogError::NameTaken { log })) => self.log_by_id(log).await,
            made => made,
        }
    }

    /// Deletes a log. It takes no more appends, and then chain and name go in one step: the name is free for another log,
    /// which has another id. Returns when the log is gone; its servers give the space back in the background.
    ///
    /// Waits while an f-majority of the nodeset cannot be reached, since until then somebody may still acknowledge an
    /// append; [`Log::progress`] of a handle of the log says for whom. What is begun cannot be taken back.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is none, [`LogError::Catalog`] when metadata cannot be read.
    ///
    /// # Cancel safety
    /// Safe. A deletion that was begun is finished by any node of the cluster.
    pub async fn delete_log(&self, log: LogId) -> Result<(), LogError> {
        self.delete_log_as(log, fresh_op()).await
    }

    /// Like [`delete_log`](Self::delete_log), under an operation of the caller's choosing: asking again with the same one
    /// after an interruption is success, as long as a server still has space to give back.
    ///
    /// # Errors
    /// See [`delete_log`](Self::delete_log).
    ///
    /// # Cancel safety
    /// Safe. A deletion that was begun is finished by any node of the cluster.
    pub async fn delete_log_as(&self, log: LogId, op: OpId) -> Result<(), LogError> {
        let cluster = &self.inner.cluster;
        let deleter = Deleter::new(log, cluster.catalog.clone(), cluster.peers());
        let deleted = match cluster.catalog.chain(log).await {
            Ok(stored) => {
                let state = self.state(stored);
                let deleted = deleter.drive(op, state.progress(), state.as_ref()).await?;
                state.deleted.cancel();
                deleted
            }
            // Perhaps this operation deleted it before.
            Err(CatalogError::UnknownLog) => {
                let (progress, _) = watch::channel(Progress::default());
                deleter.drive(op, &progress, &|_: &StoredChain| {}).await?
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(tombstone) = deleted {
            let (catalog, peers, stop) = (cluster.catalog.clone(), cluster.peers(), cluster.stop.child_token());
            cluster.tasks.spawn(async move {
                let given = Given::default();
                let giving = give_back(&catalog, peers.as_ref(), &tombstone, &given);
                if let Some(Err(error)) = stop.run_until_cancelled_owned(giving).await {
                    debug!(%log, %error, "the space of a deleted log is left to the sweepers");
                }
            });
        }
        Ok(())
    }

    /// What a log is doing or waits for, with the evidence. Works while the cluster is broken: nothing is waited for
    /// longer than a few seconds, and nothing is changed.
    ///
    /// # Cancel safety
    /// Safe: it only asks.
    pub async fn explain(&self, log: LogId) -> Explanation {
        self.explain_as(Asked::Id(log), log).await
    }

    /// Like [`explain`](Self::explain), for a name.
    ///
    /// # Cancel safety
    /// Safe: it only asks.
    pub async fn explain_named(&self, name: &str) -> Explanation {
        let asked = Asked::Name(name.to_owned());
        match explain::in_time(self.inner.cluster.catalog.log_id(name)).await {
            Ok(Some(log)) => self.explain_as(asked, log).await,
            Ok(None) | Err(CatalogError::InvalidName) => Explanation::without_evidence(asked, MetadataView::NoSuchLog),
            Err(error) => {
                let metadata = MetadataView::NoAnswer { error, tried: Vec::new(), last_seen: None };
                Explanation::without_evidence(asked, metadata)
            }
        }
    }

    async fn explain_as(&self, asked: Asked, log: LogId) -> Explanation {
        let known = self.inner.logs.lock().get(log);
        let last_seen = known.map(|state| state.chain().chain.clone());
        Explanation::of(asked, explain::gather(&self.inner.cluster, log, last_seen).await)
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.inner.cluster
    }

    /// The node records as last seen.
    pub fn nodes(&self) -> Vec<NodeRecord> {
        self.inner.cluster.directory.records()
    }

    /// The typed metadata, for tools.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.cluster.catalog
    }

    /// Ends all appenders, readers and, for an embedded back end, the node, and waits for them. Appends without an
    /// outcome end as not appended or unknown. The directory of an embedded back end is free afterwards.
    ///
    /// # Cancel safety
    /// Safe: the stop goes on; call again to wait for it.
    pub async fn shutdown(&self) {
        let cluster = &self.inner.cluster;
        cluster.stop.cancel();
        cluster.tasks.close();
        cluster.tasks.wait().await;
        if let Some(hosted) = &self.inner.hosted {
            hosted.node.shutdown().await;
            #[cfg(feature = "rocksdb")]
            if let Some(metadata) = &hosted.metadata {
                metadata.shutdown().await;
            }
        }
    }

    /// Whether a node other than `me` answers now and does not stop either.
    pub(crate) async fn others_stay(&self, me: NodeGeneration) -> bool {
        self.inner.cluster.others_stay(me).await
    }

    fn hand_out(&self, stored: StoredChain) -> Log {
        let state = self.state(stored);
        state.follow();
        Log::new(state)
    }

    /// The shared state of a log: one per process, however many handles. It is followed once there is a handle.
    pub(crate) fn state(&self, stored: StoredChain) -> Arc<LogState> {
        let mut logs = self.inner.logs.lock();
        let log = stored.chain.log;
        if let Some(state) = logs.get(log) {
            state.learn(stored);
            return state;
        }
        let state = LogState::new(self.inner.cluster.clone(), stored);
        logs.insert(log, &state);
        state
    }
}

impl fmt::Debug for Bifrost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bifrost").field("hosted", &self.inner.hosted).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cluster.stop.cancel();
    }
}

/// Metadata behind any of these addresses.
fn metadata_at<A: AsRef<str>>(addresses: &[A], client: &ClientOptions) -> Result<Arc<MetadataPool>, StartError> {
    let pool = MetadataPool::connect_lazy(addresses, client);
    Ok(Arc::new(pool.map_err(|WrongAddress { address }| StartError::Address { address })?))
}

/// Starts the only node of an embedded back end.
async fn host(
    metadata: Arc<dyn MetadataStore>,
    local: &LocalConnect,
    storage: Storage,
) -> Result<(Arc<Cluster>, LocalNode), StartError> {
    let catalog = Catalog::new(metadata.clone());
    let directory = Directory::new(catalog.clone(), Arc::new(local.clone()));
    let identity = Identity {
        name: "embedded".to_owned(),
        address: String::new(),
        location: Location::default(),
        roles: Roles::DATA,
    };
    let node = LocalNode::start(catalog, directory.clone(), &identity, storage, SegmentLimits::default()).await?;
    local.insert(node.id().node, node.services());
    directory.refresh().await?;
    let cluster = Cluster::start(metadata, Arc::new(local.clone()), Options::default()).await?;
    let (stop, catalog, directory) = (cluster.stop.child_token(), cluster.catalog.clone(), cluster.directory.clone());
    cluster.tasks.spawn(async move {
        let sweeping = sweep(catalog, directory, SweeperOptions::default());
        let _stopped = stop.run_until_cancelled_owned(sweeping).await;
    });
    Ok((cluster, node))
}

impl Cluster {
    pub(crate) async fn start(
        metadata: Arc<dyn MetadataStore>,
        connect: Arc<dyn Connect>,
        options: Options,
    ) -> Result<Arc<Self>, CatalogError> {
        let catalog = Catalog::new(metadata);
        let directory = Directory::new(catalog.clone(), connect);
        let revision = directory.refresh().await?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let follower = directory.clone();
        let token = stop.child_token();
        tasks.spawn(async move {
            let _stopped = token.run_until_cancelled_owned(follower.follow(Some(revision))).await;
        });
        let (creator, creating) = Creator::new(catalog.clone());
        let token = stop.child_token();
        tasks.spawn(async move {
            let _stopped = token.run_until_cancelled_owned(creating).await;
        });
        Ok(Arc::new(Self {
            catalog,
            creator,
            directory,
            options,
            rounds: Rounds::default(),
            follower: Follower::default(),
            tasks,
            stop,
            detector: OnceLock::new(),
        }))
    }
}
