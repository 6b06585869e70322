//! A node whose cluster has its metadata in etcd. Its cluster is found there, and it has no metadata member.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bifrost::catalog::Catalog;
use bifrost::fresh_op;
use bifrost_etcd::{EtcdMetadata, EtcdOptions, Guard};
use bifrost_types::ClusterId;

use super::error::ProcessError;
use super::group::{LEADER_DEADLINE, until};
use super::state::{Begun, DirectoryError, Engine, NodeState};
use super::{METADATA, ProcessOptions};

/// Where a member's directory goes when the cluster moves into etcd: it must never lead its old group again.
const MEMBER_BEFORE: &str = "metadata.before-etcd";

/// The store of this cluster: of no other one.
pub(super) fn connect(options: &EtcdOptions, cluster: ClusterId) -> Result<EtcdMetadata, ProcessError> {
    let guard = Guard { key: Catalog::CLUSTER_KEY.to_owned(), cluster };
    let options = EtcdOptions { guard: Some(guard), ..options.clone() };
    EtcdMetadata::connect(options).map_err(ProcessError::Etcd)
}

/// The cluster under the prefix, if there is one.
async fn find(options: &EtcdOptions) -> Result<(Catalog, Option<ClusterId>), ProcessError> {
    let open = EtcdMetadata::connect(EtcdOptions { guard: None, ..options.clone() });
    let catalog = Catalog::new(Arc::new(open.map_err(ProcessError::Etcd)?));
    let known = until(LEADER_DEADLINE, || catalog.known_cluster_id()).await?;
    let endpoints = options.endpoints.clone();
    let known = known.ok_or(ProcessError::NoEtcd { endpoints, waited: LEADER_DEADLINE })?;
    Ok((catalog, known))
}

/// An empty directory: makes a cluster under the prefix, or joins the one that is there.
pub(super) async fn begin(options: &ProcessOptions, etcd: &EtcdOptions) -> Result<NodeState, ProcessError> {
    if !options.join.is_empty() {
        return Err(ProcessError::JoinWithEtcd);
    }
    let prefix = etcd.prefix.clone();
    let (_, known) = find(etcd).await?;
    let (cluster, begun) = match (known, options.bootstrap) {
        (None, true) => (ClusterId::try_from(fresh_op().get()).map_err(|_| ProcessError::NoId)?, Begun::Bootstrap),
        (None, false) => return Err(ProcessError::NoClusterInEtcd { prefix }),
        (Some(cluster), true) => return Err(ProcessError::ClusterInEtcd { prefix, cluster }),
        (Some(cluster), false) => (cluster, Begun::Join),
    };
    let name = options.name.clone();
    Ok(NodeState { cluster, begun, name, node: None, engine: Engine::Etcd, member: None, metadata: Vec::new() })
}

/// A directory of a node that goes on. Its cluster must be the one under the prefix, unless this node was stopped before it
/// made it.
pub(super) async fn known(etcd: &EtcdOptions, state: NodeState) -> Result<NodeState, ProcessError> {
    let (_, known) = find(etcd).await?;
    let makes = state.begun == Begun::Bootstrap && state.engine == Engine::Etcd && state.node.is_none();
    match known {
        Some(found) if found != state.cluster => {
            return Err(ProcessError::OtherCluster { own: state.cluster, found });
        }
        None if !makes => return Err(ProcessError::NoClusterInEtcd { prefix: etcd.prefix.clone() }),
        Some(_) | None => {}
    }
    Ok(NodeState { engine: Engine::Etcd, member: None, metadata: Vec::new(), ..state })
}

/// Makes the cluster that this node's directory names, after that was written down.
pub(super) async fn ensure(etcd: &EtcdOptions, state: &NodeState) -> Result<(), ProcessError> {
    if state.begun != Begun::Bootstrap || state.node.is_some() {
        return Ok(());
    }
    let (catalog, _) = find(etcd).await?;
    let endpoints = etcd.endpoints.clone();
    let made = until(LEADER_DEADLINE, || catalog.cluster_id(state.cluster)).await?;
    match made.ok_or(ProcessError::NoEtcd { endpoints, waited: LEADER_DEADLINE })? {
        found if found == state.cluster => Ok(()),
        cluster => Err(ProcessError::ClusterInEtcd { prefix: etcd.prefix.clone(), cluster }),
    }
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
