//! What can go wrong between two processes, whatever was asked.

use bifrost_types::ClusterId;
use thiserror::Error;

/// The request may or may not have been carried out, unless the variant says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RpcError {
    /// No connection, or it broke: the outcome is unknown.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// No answer in time: the outcome is unknown.
    #[error("the peer did not answer in time")]
    DeadlinePassed,
    /// The peer is at a limit and did nothing; try again later.
    #[error("the peer is overloaded")]
    Overloaded,
    /// The peer is stopping and did nothing.
    #[error("the peer is shutting down")]
    ShuttingDown,
    /// The peer belongs to another cluster and did nothing: its address was given to somebody else.
    #[error("the peer belongs to cluster {server}, the request was meant for cluster {client}")]
    OtherCluster {
        /// The cluster of this process.
        client: ClusterId,
        /// The cluster of the peer.
        server: ClusterId,
    },
    /// One side sent what the other cannot understand; nothing was done.
    #[error("the peer and this process do not understand each other")]
    Malformed,
    /// The peer does not offer this service; nothing was done.
    #[error("the peer does not offer this service")]
    NotOffered,
}

impl RpcError {
    /// Whether the request may have been carried out although no answer came.
    pub const fn may_have_happened(self) -> bool {
        match self {
            Self::Unreachable | Self::DeadlinePassed => true,
            Self::Overloaded | Self::ShuttingDown | Self::OtherCluster { .. } | Self::Malformed | Self::NotOffered => {
                false
            }
        }
    }
}
