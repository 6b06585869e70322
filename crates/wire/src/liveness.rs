//! The service of a metadata member that takes signs of life.

use std::fmt;

use bifrost_types::NodeGeneration;
use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::error::RpcError;
use crate::metadata_admin::MetadataMember;

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Whose.
    pub node: NodeGeneration,
    /// The last one: the node stops in good order.
    pub last: bool,
}

/// Why a sign of life was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BeatError {
    /// Another member leads, if one is known. Tell that one.
    #[error("this metadata member does not lead")]
    NotLeader {
        /// The one to tell.
        leader: Option<MetadataMember>,
    },
    /// The member gave no answer, or counts as many nodes as it may.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// What takes signs of life.
///
/// # Cancel safety
/// A beat that is dropped was taken or not; the next one says the same.
pub trait Liveness: Send + Sync + fmt::Debug {
    /// Takes note that this life of a node is there.
    fn beat(&self, beat: Beat) -> BoxFuture<'_, Result<(), BeatError>>;
}
