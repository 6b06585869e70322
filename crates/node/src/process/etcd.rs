//! A node whose cluster has its metadata in etcd. Its cluster is found there, and it has no metadata member.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bifrost::catalog::Catalog;
use bifrost_etcd::{EtcdMetadata, EtcdOptions, Guard};
use bifrost_types::ClusterId;

use super::METADATA;
use super::error::ProcessError;
use super::group::{LEADER_DEADLINE, until};
use super::state::DirectoryError;

/// Where a member's directory goes when the cluster moves into etcd: it must never lead its old group again.
const MEMBER_BEFORE: &str = "metadata.before-etcd";

/// The store of this cluster: of no other one.
pub(super) fn connect(options: &EtcdOptions, cluster: ClusterId) -> Result<EtcdMetadata, ProcessError> {
    let guard = Guard { key: Catalog::CLUSTER_KEY.to_owned(), cluster };
    let options = EtcdOptions { guard: Some(guard), ..options.clone() };
    EtcdMetadata::connect(options).map_err(ProcessError::Etcd)
}

/// The cluster under the prefix, if there is one.
pub(super) async fn find(options: &EtcdOptions) -> Result<Option<ClusterId>, ProcessError> {
    let catalog = open(options)?;
    let known = until(LEADER_DEADLINE, || catalog.known_cluster_id()).await?;
    known.ok_or_else(|| silent(options))
}

/// Makes this cluster under the prefix, and returns the one that is there then.
pub(super) async fn make(options: &EtcdOptions, cluster: ClusterId) -> Result<ClusterId, ProcessError> {
    let catalog = open(options)?;
    let made = until(LEADER_DEADLINE, || catalog.cluster_id(cluster)).await?;
    made.ok_or_else(|| silent(options))
}

/// Whatever cluster is under the prefix.
fn open(options: &EtcdOptions) -> Result<Catalog, ProcessError> {
    let open = EtcdMetadata::connect(EtcdOptions { guard: None, ..options.clone() });
    Ok(Catalog::new(Arc::new(open.map_err(ProcessError::Etcd)?)))
}

fn silent(options: &EtcdOptions) -> ProcessError {
    ProcessError::NoEtcd { endpoints: options.endpoints.clone(), waited: LEADER_DEADLINE }
}

/// Puts the directory of a metadata member out of the way, after `node.json` says that the cluster is in etcd.
pub(super) fn set_member_aside(directory: &Path) -> Result<(), DirectoryError> {
    let (from, to) = (directory.join(METADATA), directory.join(MEMBER_BEFORE));
    if !from.exists() {
        return Ok(());
    }
    let failed = |source| DirectoryError::Io { path: from.clone(), source };
    if to.exists() {
        // That of an earlier move: the cluster went back since, and its group is over.
        fs::remove_dir_all(&to).map_err(failed)?;
    }
    fs::rename(&from, &to).map_err(failed)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
