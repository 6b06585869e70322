//! Why the process of a node did not start. Each says what, and what it waited for if it waited.

use std::io;
use std::time::Duration;

use bifrost::catalog::CatalogError;
use bifrost_wire::metadata_admin::MetadataAdminError;
use thiserror::Error;

use super::order::Refused;
use super::state::DirectoryError;
use crate::metadata_member::MemberError;
use crate::server::ServerError;

/// Why the process of a node did not start.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It must not start.
    #[error(transparent)]
    Refused(#[from] Refused),
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
    /// No id could be made.
    #[error("no id could be made for the cluster")]
    NoId,
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
