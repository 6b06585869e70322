//! Why the process of a node did not start. Each says what, and what it waited for if it waited.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bifrost::catalog::CatalogError;
use bifrost_types::{ClusterId, NodeId};
use bifrost_wire::metadata_admin::MetadataAdminError;
use thiserror::Error;

use super::state::DirectoryError;
use crate::metadata_member::MemberError;
use crate::server::ServerError;

/// Why the process of a node did not start.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It cannot listen where it should.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It listens everywhere, and nobody said where others reach it.
    #[error("{listen} is no address that others can call")]
    NoAdvertise {
        /// Where it listens.
        listen: String,
    },
    /// An empty directory, and neither a cluster to make nor one to join.
    #[error("{} is empty, and there is no cluster to make or to join", directory.display())]
    NoCluster {
        /// The directory.
        directory: PathBuf,
    },
    /// A cluster begins with its metadata.
    #[error("a node without the role `metadata` cannot make a cluster")]
    BootstrapWithoutMetadata,
    /// No id could be made.
    #[error("no id could be made for the cluster")]
    NoId,
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
    /// The role `metadata` and a place for its member go together.
    #[error("a node has the role `metadata` exactly if it is said where its metadata member listens")]
    MemberWithoutRole,
    /// A text is no address.
    #[error("`{address}` is not an address of the form HOST:PORT")]
    WrongAddress {
        /// The text.
        address: String,
    },
    /// Nobody answered where the cluster should be.
    #[error("no metadata member answered within {waited:?} at {}", addresses.join(", "))]
    NobodyToJoin {
        /// Where was asked.
        addresses: Vec<String>,
        /// How long.
        waited: Duration,
    },
    /// Somebody answered who has no metadata.
    #[error("{address} is a node, and not a metadata member")]
    NotAMember {
        /// Who was asked.
        address: String,
    },
    /// The options of etcd contradict themselves.
    #[error("etcd cannot be used")]
    Etcd(#[source] bifrost_etcd::InvalidEtcdOptions),
    /// etcd does not answer.
    #[error("etcd did not answer within {waited:?} at {}", endpoints.join(", "))]
    NoEtcd {
        /// Where was asked.
        endpoints: Vec<String>,
        /// How long was waited.
        waited: Duration,
    },
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
    /// No leader in time.
    #[error("metadata had no leader within {waited:?}; its members are at {}", addresses.join(", "))]
    NoLeader {
        /// Where the members are.
        addresses: Vec<String>,
        /// How long was waited.
        waited: Duration,
    },
    /// The new group did not begin.
    #[error("the metadata group of a new cluster did not begin")]
    Bootstrap(#[source] bifrost_raft::AdminError),
    /// This member was not added in time.
    #[error("this metadata member was not made a voter within {waited:?}")]
    NotAdded {
        /// How long was waited.
        waited: Duration,
        /// What the leader said last.
        #[source]
        source: MetadataAdminError,
    },
    /// Metadata refuses.
    #[error("metadata refused")]
    Catalog(#[from] CatalogError),
    /// The metadata member did not start.
    #[error("the metadata member did not start")]
    Member(#[source] MemberError),
    /// The node did not start.
    #[error("the node did not start")]
    Node(#[source] ServerError),
}
