//! Why a node must not start, whatever is tried again.

use std::path::PathBuf;

use bifrost_types::{ClusterId, NodeId};
use thiserror::Error;

/// Why a node must not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// An empty directory, and neither a cluster to make nor one to join.
    #[error("{} is empty, and there is no cluster to make or to join", directory.display())]
    NoCluster {
        /// The directory.
        directory: PathBuf,
    },
    /// A cluster begins with its metadata.
    #[error("a node without the role `metadata` cannot make a cluster")]
    BootstrapWithoutMetadata,
    /// The directory is of a node that joined its cluster.
    #[error("the data directory belongs to cluster {cluster}, which this node joined")]
    BelongsToCluster {
        /// That cluster.
        cluster: ClusterId,
    },
    /// The directory is of a node of another name.
    #[error("the data directory belongs to the node `{found}`, not to `{wanted}`")]
    OtherName {
        /// Its name.
        found: String,
        /// The configured name.
        wanted: String,
    },
    /// The directory is of a node with another number than the one that metadata gives to this name.
    #[error("the data directory belongs to {known}, and the cluster knows a node of its name as {found}")]
    OtherNode {
        /// As the directory says.
        known: NodeId,
        /// As metadata says.
        found: NodeId,
    },
    /// Metadata is of another cluster than the directory.
    #[error("the data directory belongs to cluster {own}, and the metadata to cluster {found}")]
    OtherCluster {
        /// As the directory says.
        own: ClusterId,
        /// As metadata says.
        found: ClusterId,
    },
    /// A node of that name is alive somewhere else.
    #[error("a node `{name}` of this cluster is alive at {address}: it is {node}")]
    NameLives {
        /// The name.
        name: String,
        /// The node.
        node: NodeId,
        /// Where it answers.
        address: String,
    },
    /// A node of that name has its disk somewhere else.
    #[error("the cluster knows a node `{name}`, {node}, with a disk that is not in this data directory")]
    NameKnown {
        /// The name.
        name: String,
        /// The node.
        node: NodeId,
    },
    /// The group lost its majority and was recovered from another member.
    #[error("the metadata group of this member was recovered without it, as the member at {address} says")]
    MemberReplaced {
        /// Who says so.
        address: String,
        /// Where this member keeps its log.
        directory: PathBuf,
    },
    /// The member voted, and what it voted and acknowledged is not there any more.
    #[error("{} holds no log of a metadata member, and {node} is one", directory.display())]
    MemberLost {
        /// Its node.
        node: NodeId,
        /// Where its log should be.
        directory: PathBuf,
    },
    /// The directory has a metadata member, and the node has no such role.
    #[error("the data directory holds a member of the metadata group, and the node does not have the role `metadata`")]
    StillMember,
    /// A prefix without a cluster.
    #[error("there is no cluster in etcd under {prefix:?}")]
    NoClusterInEtcd {
        /// The prefix.
        prefix: String,
    },
    /// A prefix that is taken.
    #[error("there is a cluster in etcd under {prefix:?} already: {cluster}")]
    ClusterInEtcd {
        /// The prefix.
        prefix: String,
        /// The cluster.
        cluster: ClusterId,
    },
    /// `--join` names members of a group, and etcd has none.
    #[error("a node whose metadata is in etcd joins no metadata group")]
    JoinWithEtcd,
    /// The cluster has its metadata in etcd, and the node is configured for a metadata group.
    #[error("the metadata of this cluster is in etcd, and this node is configured for a metadata group")]
    IsInEtcd,
}
