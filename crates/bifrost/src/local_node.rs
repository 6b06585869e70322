//! A node inside this process: a log server on its disk, and sequencers. The embedded back ends run one; the daemon runs
//! one behind a gRPC listener.

mod absent;
#[cfg(feature = "rocksdb")]
mod directory_disk;
mod disk;
mod left_behind;
mod status;
#[cfg(test)]
mod tests;

#[cfg(feature = "rocksdb")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifrost_logserver::{LogServerHandle, Marker, MarkerError, ServerOptions, StartError, StoreError};
#[cfg(feature = "rocksdb")]
use bifrost_logserver::{OpenError, RocksOptions};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_sequencer::{LogletSource, SequencerHost};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{Chain, ClusterId, DiskId, LogletId, LogletParams, NodeGeneration, NodeRecord, Role, StorageState};
use bifrost_wire::log_server::LogServer;
use bifrost_wire::metadata::{MetadataError, Revision};
use bifrost_wire::sequencer::{SequencerError, Sequencers};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::catalog::{Catalog, CatalogError};
use crate::cluster::{random_id, serves};
use crate::connect::NodeServices;
use crate::directory::Directory;
use crate::membership::{Boot, BootStep, Identity, Refusal};

use self::absent::Absent;
#[cfg(feature = "rocksdb")]
use self::directory_disk::DirectoryDisk;
use self::disk::MemoryDisk;
pub use self::disk::{Disk, OpenStore};
use self::left_behind::end_left_behind;
pub use self::status::LocalStatus;

/// Where a node keeps its copies.
#[derive(Debug, Clone)]
pub enum Storage {
    /// In memory: gone with the process.
    Memory,
    /// In this directory, on RocksDB, with an fsync before each answer.
    #[cfg(feature = "rocksdb")]
    Disk {
        /// The directory; made if it is not there.
        directory: PathBuf,
        /// Settings of RocksDB.
        options: RocksOptions,
    },
    /// On a disk of the caller's making: how a simulation brings its own.
    Given(Arc<dyn Disk>),
}

impl Storage {
    fn into_disk(self) -> Arc<dyn Disk> {
        match self {
            Self::Memory => Arc::new(MemoryDisk::default()),
            #[cfg(feature = "rocksdb")]
            Self::Disk { directory, options } => Arc::new(DirectoryDisk { directory, options }),
            Self::Given(disk) => disk,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// Its record could not be read or written.
    #[error("the node's record cannot be read or written")]
    Catalog(#[from] CatalogError),
    /// It must not serve the disk that it found.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The marker of the disk cannot be read or written.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The store cannot be opened.
    #[cfg(feature = "rocksdb")]
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store of a given disk cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[source] StoreError),
    /// The log server cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// How long another process of the same name has to answer. The answer only decides what the refusal says.
const SERVED_DEADLINE: Duration = Duration::from_secs(1);

/// A node of this process.
#[derive(Debug)]
pub struct LocalNode {
    record: NodeRecord,
    /// `None` without that role.
    log_server: Option<LogServerHandle>,
    sequencers: SequencerHost,
    status: LocalStatus,
    /// Ends `tasks`.
    stop: CancellationToken,
    /// What ends sequencers that their chain left behind, with that role.
    tasks: TaskTracker,
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LocalNode {
    /// Takes possession of the storage, begins the node's next life and starts its services. A listener at the address
    /// of `identity` should be bound already, and serve once this returns.
    ///
    /// # Errors
    /// [`NodeError`]; nothing runs then, and the storage is free again.
    ///
    /// # Cancel safety
    /// Safe: the steps that were taken are recognised at the next start.
    pub async fn start(
        catalog: Catalog,
        directory: Directory,
        identity: &Identity,
        storage: Storage,
        limits: SegmentLimits,
    ) -> Result<Self, NodeError> {
        let cluster = catalog.cluster_id(ClusterId::new(random_id())).await?;
        let disk = identity.roles.has(Role::LogServer).then(|| storage.into_disk());
        let boot = Boot::new(cluster, identity.clone(), DiskId::new(random_id()));
        let (record, store) = claim(&catalog, &directory, boot, disk.as_deref()).await?;
        let log_server = match store {
            Some(store) => Some(store.serve(server_options(&record)?).await?),
            None => None,
        };
        let source = Arc::new(CatalogSource { catalog: catalog.clone() });
        let sequencers = SequencerHost::new(record.id, source, Arc::new(directory), limits);
        let status = LocalStatus::new(&record, log_server.clone(), sequencers.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        if record.roles.has(Role::Sequencer) {
            let (stop, ending) = (stop.clone(), end_left_behind(catalog, sequencers.clone()));
            tasks.spawn(async move {
                let _stopped = stop.run_until_cancelled_owned(ending).await;
            });
        }
        info!(node = %record.id, name = record.name, address = record.address, "node runs");
        Ok(Self { record, log_server, sequencers, status, stop, tasks })
    }

    /// This life of the node.
    pub fn id(&self) -> NodeGeneration {
        self.record.id
    }

    /// Its record as of its start.
    pub const fn record(&self) -> &NodeRecord {
        &self.record
    }

    /// Its services, for callers in this process and for the adapters of a listener.
    pub fn services(&self) -> NodeServices {
        let log_server: Arc<dyn LogServer> = match &self.log_server {
            Some(log_server) => Arc::new(log_server.clone()),
            None => Arc::new(Absent),
        };
        let sequencers: Arc<dyn Sequencers> =
            if self.record.roles.has(Role::Sequencer) { Arc::new(self.sequencers.clone()) } else { Arc::new(Absent) };
        NodeServices { log_server, sequencers, node: Arc::new(self.status.clone()) }
    }

    /// What it says about itself, and where others of this process add to it.
    pub const fn status(&self) -> &LocalStatus {
        &self.status
    }

    /// Its log server, if it has that role.
    pub const fn log_server(&self) -> Option<&LogServerHandle> {
        self.log_server.as_ref()
    }

    /// Its sequencers.
    pub const fn sequencers(&self) -> &SequencerHost {
        &self.sequencers
    }

    /// Stops everything and frees the storage: the same process may start the node again.
    ///
    /// # Cancel safety
    /// Safe: the stop goes on; call again to wait for it.
    pub async fn shutdown(&self) {
        self.status.stop();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.sequencers.shutdown().await;
        if let Some(log_server) = &self.log_server {
            log_server.shutdown().await;
        }
    }
}

fn server_options(record: &NodeRecord) -> Result<ServerOptions, Refusal> {
    let disk = record.disk.ok_or(Refusal::OutOfService { state: record.storage })?;
    Ok(ServerOptions::new(record.id.node, disk))
}

/// Walks the table until a life was begun and the disk may be served; `disk` exactly if the node is to have one.
/// Interrupted anywhere, the next start goes on. A conflict or a lost reply is settled by reading: what is there then is
/// looked at anew by the table (M2, M3).
async fn claim(
    catalog: &Catalog,
    directory: &Directory,
    mut boot: Boot,
    disk: Option<&dyn Disk>,
) -> Result<(NodeRecord, Option<OpenStore>), NodeError> {
    if let Some(disk) = disk {
        disk.check().await?;
    }
    let name = boot.identity().name.clone();
    let mut store = None;
    let mut marker = marker_of(disk).await?;
    let mut seen = catalog.node_by_name(&name).await?;
    loop {
        let step = boot.next(seen.as_ref().map(|(record, _)| record), marker);
        match (step, disk) {
            (BootStep::AskWhoServes(node, disk), _) => {
                directory.refresh().await?;
                boot.heard(timeout(SERVED_DEADLINE, serves(directory, node, disk)).await.unwrap_or(false));
            }
            (BootStep::OpenDisk, disk) => {
                if let Some(disk) = disk {
                    store = Some(disk.open().await?);
                }
                boot.opened();
                marker = marker_of(disk).await?;
                seen = catalog.node_by_name(&name).await?;
            }
            (BootStep::WriteMarker(next), disk) => {
                if let Some(disk) = disk {
                    disk.write_marker(next).await?;
                }
                marker = marker_of(disk).await?;
            }
            (BootStep::Reserve, _) => seen = settle(catalog, &name, make_first(catalog, boot.identity()).await).await?,
            (BootStep::WriteRecord(next), _) => {
                let Some((record, revision)) = &seen else { return Err(CatalogError::Conflict.into()) };
                let mut written = write_record(catalog, record, *revision, &next).await;
                if plant::is(Plant::RetriedStateIsConflict)
                    && record.storage != next.storage
                    && written == Err(CatalogError::Metadata(MetadataError::Unknown))
                {
                    written = Ok(write_record(catalog, record, *revision, &next).await?);
                }
                seen = settle(catalog, &name, written.map(|revision| (next, revision))).await?;
            }
            (BootStep::Serve, _) => {
                let (record, _) = seen.ok_or(CatalogError::Conflict)?;
                return Ok((record, store));
            }
            (BootStep::Superseded, _) => return Err(CatalogError::Conflict.into()),
            (BootStep::Refuse(refusal), _) => return Err(refusal.into()),
        }
    }
}

async fn marker_of(disk: Option<&dyn Disk>) -> Result<Option<Marker>, MarkerError> {
    match disk {
        Some(disk) => disk.read_marker().await,
        None => Ok(None),
    }
}

/// What is there after a write: what was written, or, when somebody was faster or the reply was lost, what is read.
async fn settle(
    catalog: &Catalog,
    name: &str,
    written: Result<(NodeRecord, Revision), CatalogError>,
) -> Result<Option<(NodeRecord, Revision)>, CatalogError> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(CatalogError::Conflict | CatalogError::Metadata(MetadataError::Unknown)) => {
            catalog.node_by_name(name).await
        }
        Err(error) => Err(error),
    }
}

async fn write_record(
    catalog: &Catalog,
    record: &NodeRecord,
    revision: Revision,
    next: &NodeRecord,
) -> Result<Revision, CatalogError> {
    match next.storage {
        // A disk that was in service leaves the roster with it.
        StorageState::DataLoss | StorageState::Retired if record.storage != next.storage => {
            catalog.change_storage(revision, next).await
        }
        _ => catalog.replace_node(revision, next).await,
    }
}

/// The record of this name and its revision; made if there is none, for the node's first life and without a disk.
///
/// # Errors
/// [`CatalogError`] when metadata cannot be read or written. The record is there then, or not: call again.
///
/// # Cancel safety
/// Safe: a record that was made is found by the next call.
pub async fn reserve(catalog: &Catalog, identity: &Identity) -> Result<(NodeRecord, Revision), CatalogError> {
    match catalog.node_by_name(&identity.name).await? {
        Some(found) => Ok(found),
        None => make_first(catalog, identity).await,
    }
}

async fn make_first(catalog: &Catalog, identity: &Identity) -> Result<(NodeRecord, Revision), CatalogError> {
    catalog.create_node(&identity.name, |node| identity.first_record(node)).await
}

/// Tells sequencers what a loglet is, from the chain.
#[derive(Debug)]
struct CatalogSource {
    catalog: Catalog,
}

impl LogletSource for CatalogSource {
    fn open_loglet(&self, loglet: LogletId) -> BoxFuture<'_, Result<LogletParams, SequencerError>> {
        Box::pin(async move {
            // What a loglet is never changes. That it was closed meanwhile its copies know, and they keep their seals for ever.
            let seen = self.catalog.chain_seen(loglet.log);
            if let Some(params) = seen.and_then(|stored| open_params(&stored.chain, loglet)) {
                return Ok(params);
            }
            let began = Instant::now();
            let stored = match self.catalog.chain(loglet.log).await {
                Ok(stored) => stored,
                Err(error) if error.is_passing() => return Err(SequencerError::Overloaded),
                Err(_) => return Err(SequencerError::NotOpen),
            };
            debug!(%loglet, took = ?began.elapsed(), "chain read to begin a segment");
            open_params(&stored.chain, loglet).ok_or(SequencerError::NotOpen)
        })
    }
}

/// The parameters of a loglet that is the open segment of this chain.
fn open_params(chain: &Chain, loglet: LogletId) -> Option<LogletParams> {
    let open = chain.last().filter(|last| last.params.id == loglet && last.decided_tail().is_none())?;
    Some(open.params.clone())
}
