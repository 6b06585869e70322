//! Where metadata is exported from and imported to, besides the cluster that runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifrost_etcd::EtcdMetadata;
use bifrost_metadata::LocalMetadata;
use bifrost_raft::StartError;
use bifrost_raft::engine::LogEngine;
use bifrost_raft::engine::rocks::RocksEngine;
use bifrost_raft::machine::offline::Offline;
use bifrost_types::ClusterId;
use bifrost_wire::metadata::MetadataStore;

use crate::cli::context::Context;
use crate::cli::error::{CliError, ErrorCode};
use crate::process::METADATA;
use crate::process::state::{DirectoryError, NodeDirectory, NodeState};

/// The store in etcd that is configured, of whatever cluster.
pub(super) fn etcd(context: &Context) -> Result<EtcdMetadata, CliError> {
    let connected = EtcdMetadata::connect(context.config().etcd());
    connected.map_err(|error| CliError::new(ErrorCode::Failed, "etcd cannot be used").because(&error))
}

/// A local store in a directory.
pub(super) async fn local(directory: &Path) -> Result<LocalMetadata, CliError> {
    let opened = LocalMetadata::open(directory).await;
    opened.map_err(|error| CliError::new(ErrorCode::Refused, error.to_string()).because(&error))
}

/// Whose metadata a store has.
pub(super) async fn cluster_of(
    context: &Context,
    store: Arc<dyn MetadataStore>,
) -> Result<Option<ClusterId>, CliError> {
    let catalog = bifrost::catalog::Catalog::new(store);
    let known = context.within("asking for the cluster", catalog.known_cluster_id()).await?;
    known.map_err(crate::cli::failures::look_catalog_error)
}

/// The data directory of a node that does not run; nobody else has it meanwhile.
pub(super) fn node_directory(path: &Path) -> Result<(NodeDirectory, NodeState), CliError> {
    NodeDirectory::open_known(path).map_err(|error| {
        let told = |code| CliError::new(code, error.to_string());
        match &error {
            DirectoryError::InUse { .. } => {
                told(ErrorCode::InUse).with_cause("its node runs").with_advice("stop it first")
            }
            DirectoryError::NoNode { .. } => {
                told(ErrorCode::Refused).with_advice("name the node.data_dir of a node that has been started")
            }
            DirectoryError::Io { .. } | DirectoryError::Foreign { .. } | DirectoryError::Damaged { .. } => {
                CliError::new(ErrorCode::Refused, "the data directory cannot be used").because(&error)
            }
        }
    })
}

/// Where the node in a directory keeps its metadata member's log.
pub(super) fn member_directory(node: &NodeDirectory) -> PathBuf {
    node.path().join(METADATA)
}

/// The log of the member in a directory, read as a whole.
pub(super) async fn offline(directory: &Path) -> Result<Offline, CliError> {
    let engine = RocksEngine::open_existing(directory).map_err(|error| unreadable(&error.into()))?;
    let engine: Arc<dyn LogEngine> = Arc::new(engine);
    Offline::open(engine).await.map_err(|error| unreadable(&error.into()))
}

/// The log of a member cannot be used.
pub(super) fn unreadable(error: &StartError) -> CliError {
    CliError::new(ErrorCode::Refused, "the log of the metadata member cannot be used").because(error)
}
