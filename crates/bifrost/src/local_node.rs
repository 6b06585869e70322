//! A node inside this process: a log server on its disk, and sequencers. The embedded back ends run one; the daemon runs
//! one behind a gRPC listener.

mod absent;
#[cfg(feature = "rocksdb")]
mod directory_disk;
mod disk;
mod status;
#[cfg(test)]
mod tests;

#[cfg(feature = "rocksdb")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifrost_logserver::{LogServerHandle, MarkerError, ServerOptions, StartError, StoreError};
#[cfg(feature = "rocksdb")]
use bifrost_logserver::{OpenError, RocksOptions};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_sequencer::{LogletSource, SequencerHost};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{ClusterId, DiskId, LogletId, LogletParams, NodeGeneration, NodeRecord, Role, StorageState};
use bifrost_wire::log_server::LogServer;
use bifrost_wire::metadata::{MetadataError, Revision};
use bifrost_wire::sequencer::{SequencerError, Sequencers};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::time::timeout;
use tracing::info;

use crate::catalog::{Catalog, CatalogError};
use crate::cluster::{random_id, serves};
use crate::connect::NodeServices;
use crate::directory::Directory;
use crate::membership::{
    BootStep, DisklessStep, Identity, Refusal, before_boot, boot_step, boot_step_without_disk, next_life,
};

use self::absent::Absent;
#[cfg(feature = "rocksdb")]
use self::directory_disk::DirectoryDisk;
use self::disk::MemoryDisk;
pub use self::disk::{Disk, OpenStore};
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
        let (record, log_server) = if identity.roles.has(Role::LogServer) {
            let disk = storage.into_disk();
            // Whatever is refused is refused before the disk is touched: opening a store writes to it.
            check(&catalog, &directory, identity, cluster, disk.as_ref()).await?;
            // The disk is locked before the record is touched, so that a second process on the same disk fails without
            // disturbing the first.
            let store = disk.open().await?;
            let record = claim(&catalog, identity, cluster, disk.as_ref()).await?;
            let log_server = store.serve(server_options(&record)?).await?;
            (record, Some(log_server))
        } else {
            (claim_without_disk(&catalog, identity).await?, None)
        };
        let source = Arc::new(CatalogSource { catalog });
        let sequencers = SequencerHost::new(record.id, source, Arc::new(directory), limits);
        let status = LocalStatus::new(&record, log_server.clone(), sequencers.clone());
        info!(node = %record.id, name = record.name, address = record.address, "node runs");
        Ok(Self { record, log_server, sequencers, status })
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

/// Refuses a disk that is not this node's, without a trace on it.
async fn check(
    catalog: &Catalog,
    directory: &Directory,
    identity: &Identity,
    cluster: ClusterId,
    disk: &dyn Disk,
) -> Result<(), NodeError> {
    disk.check().await?;
    let marker = disk.read_marker().await?;
    let known = catalog.node_by_name(&identity.name).await?;
    let record = known.as_ref().map(|(record, _)| record);
    match (before_boot(record, marker, cluster), known) {
        (Some(BootStep::Refuse(refusal)), _) => Err(refusal.into()),
        (Some(BootStep::LoseDisk(lost)), Some((mut record, mut revision))) => {
            // Whoever listened at our own address is gone, because we do. At another one the disk may well be in service,
            // or only stopped: to mark it would take a healthy copy away.
            if !record.address.is_empty() && record.address != identity.address {
                directory.refresh().await?;
                let node = record.id.node;
                let served = timeout(SERVED_DEADLINE, serves(directory, node, lost)).await.unwrap_or(false);
                return Err(match served {
                    true => Refusal::NameInUse { node, disk: lost }.into(),
                    false => Refusal::DiskElsewhere { node, disk: lost }.into(),
                });
            }
            desire(catalog, &mut record, &mut revision, StorageState::DataLoss, lost).await?;
            Err(Refusal::DiskLost { lost }.into())
        }
        _ => Ok(()),
    }
}

/// Walks the table until a life was begun and the disk may be served. Interrupted anywhere, the next start goes on.
async fn claim(
    catalog: &Catalog,
    identity: &Identity,
    cluster: ClusterId,
    disk: &dyn Disk,
) -> Result<NodeRecord, NodeError> {
    let known = catalog.node_by_name(&identity.name).await?;
    let known = known.as_ref().map(|(record, _)| record);
    let mut marker = disk.read_marker().await?;
    let life = next_life(known, marker).ok_or(CatalogError::Exhausted)?;
    let (mut record, mut revision) = reserve(catalog, identity).await?;
    let fresh = DiskId::new(random_id());
    loop {
        if record.id.generation >= life && record.address != identity.address || record.id.generation > life {
            // Another process lives under this name by now. Our own write is recognised by our address (M2).
            return Err(CatalogError::Conflict.into());
        }
        match boot_step(&record, marker, cluster, fresh, life) {
            BootStep::WriteMarker(next) => {
                disk.write_marker(next).await?;
                marker = disk.read_marker().await?;
            }
            BootStep::BeginLife(begun) => {
                let next = identity.record_of_life(&record, begun);
                (record, revision) = match catalog.replace_node(revision, &next).await {
                    Ok(revision) => (next, revision),
                    // Somebody changed the record, or our own write came twice: look again.
                    Err(CatalogError::Conflict) => reserve(catalog, identity).await?,
                    Err(error) => return Err(error.into()),
                };
            }
            BootStep::Desire(state, disk) => desire(catalog, &mut record, &mut revision, state, disk).await?,
            BootStep::Serve(_) => return Ok(record),
            BootStep::LoseDisk(lost) => {
                desire(catalog, &mut record, &mut revision, StorageState::DataLoss, lost).await?;
                return Err(Refusal::DiskLost { lost }.into());
            }
            BootStep::Refuse(refusal) => return Err(refusal.into()),
        }
    }
}

/// Begins the next life of a node that has no disk.
async fn claim_without_disk(catalog: &Catalog, identity: &Identity) -> Result<NodeRecord, NodeError> {
    let known = catalog.node_by_name(&identity.name).await?;
    let life = next_life(known.as_ref().map(|(record, _)| record), None).ok_or(CatalogError::Exhausted)?;
    loop {
        let (record, revision) = reserve(catalog, identity).await?;
        match boot_step_without_disk(&record, life, &identity.address) {
            DisklessStep::Serve => return Ok(record),
            DisklessStep::BeginLife => {
                match catalog.replace_node(revision, &identity.record_of_life(&record, life)).await {
                    // Written, or perhaps written, or somebody was faster: look again.
                    Ok(_) | Err(CatalogError::Conflict | CatalogError::Metadata(MetadataError::Unknown)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // Another process lives under this name by now.
            DisklessStep::Superseded => return Err(CatalogError::Conflict.into()),
            DisklessStep::Refuse(refusal) => return Err(refusal.into()),
        }
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
    loop {
        if let Some(found) = catalog.node_by_name(&identity.name).await? {
            return Ok(found);
        }
        match catalog.create_node(&identity.name, |node| identity.first_record(node)).await {
            // Somebody else made one: look again.
            Err(CatalogError::Conflict) => {}
            made => return made,
        }
    }
}

/// Makes the record say "this state with this disk" (M3). A conflict or a lost reply is settled by reading: what is there
/// then is looked at anew by the table.
async fn desire(
    catalog: &Catalog,
    record: &mut NodeRecord,
    revision: &mut Revision,
    state: StorageState,
    disk: DiskId,
) -> Result<(), CatalogError> {
    let next = NodeRecord { storage: state, disk: Some(disk), ..record.clone() };
    // A disk that was in service leaves the roster with it.
    let written = match state {
        StorageState::DataLoss | StorageState::Retired => catalog.change_storage(*revision, &next).await,
        StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => {
            catalog.replace_node(*revision, &next).await
        }
    };
    match written {
        Ok(written) => {
            *record = next;
            *revision = written;
            Ok(())
        }
        Err(CatalogError::Metadata(MetadataError::Unknown)) if plant::is(Plant::RetriedStateIsConflict) => {
            *revision = catalog.replace_node(*revision, &next).await?;
            *record = next;
            Ok(())
        }
        Err(CatalogError::Conflict | CatalogError::Metadata(MetadataError::Unknown)) => {
            let found = catalog.node_by_name(&record.name).await?.ok_or(CatalogError::Conflict)?;
            if found.0.id != record.id {
                // Another process lives under this name by now.
                return Err(CatalogError::Conflict);
            }
            (*record, *revision) = found;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Tells sequencers what a loglet is, from the chain.
#[derive(Debug)]
struct CatalogSource {
    catalog: Catalog,
}

impl LogletSource for CatalogSource {
    fn open_loglet(&self, loglet: LogletId) -> BoxFuture<'_, Result<LogletParams, SequencerError>> {
        Box::pin(async move {
            let stored = match self.catalog.chain(loglet.log).await {
                Ok(stored) => stored,
                Err(error) if error.is_passing() => return Err(SequencerError::Overloaded),
                Err(_) => return Err(SequencerError::NotOpen),
            };
            match stored.chain.last() {
                Some(last) if last.params.id == loglet && last.decided_tail().is_none() => Ok(last.params.clone()),
                _ => Err(SequencerError::NotOpen),
            }
        })
    }
}
