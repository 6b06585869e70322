//! The service of every node about itself: what it does, how full its disk is, how much it has to do.

use std::fmt;
use std::time::Duration;

use bifrost_types::{DiskId, NodeGeneration, Roles};
use futures_util::future::BoxFuture;

use crate::error::RpcError;

/// Longest text of an error in a status, in bytes.
pub const STATUS_ERROR_BYTES_MAX: usize = 512;

/// How full a disk is; later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Fullness {
    /// Everything goes.
    #[default]
    Ample,
    /// Everything goes, and new loglets should go elsewhere.
    Low,
    /// Stores are refused.
    Full,
    /// Repairs are refused too.
    Scarce,
    /// Even the reserve is gone; seals, settles and trims live on the ballast.
    Exhausted,
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Full => "full",
            Self::Scarce => "scarce",
            Self::Exhausted => "exhausted",
        })
    }
}

/// Space of a file system, in bytes. `hard_mark_bytes <= soft_mark_bytes`, `total_bytes > 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What it holds in all.
    pub total_bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
    /// Free bytes below which new loglets should go elsewhere.
    pub soft_mark_bytes: u64,
    /// Free bytes below which stores are refused.
    pub hard_mark_bytes: u64,
}

/// The disk of a node whose log server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStatus {
    /// Which one.
    pub disk: DiskId,
    /// How full it is.
    pub fullness: Fullness,
    /// In numbers; `None` for a store without a disk, and before the first look.
    pub space: Option<DiskSpace>,
}

/// What a node has to do. Counters begin with its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeLoad {
    /// Loglets whose appends it numbers now.
    pub open_sequencers: u64,
    /// Loglets that its log server has a promise about.
    pub loglets: u64,
    /// Bytes of batches that its sequencers gave an offset.
    pub sequenced_bytes: u64,
    /// Bytes of batches that its log server made durable.
    pub stored_bytes: u64,
}

/// How far a node is in getting what its copies of closed segments lack. `bytes_done <= bytes_to_do`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatchUpProgress {
    /// Bytes that were found to be missing, those that came meanwhile included.
    pub bytes_to_do: u64,
    /// Bytes of them that are durable here now.
    pub bytes_done: u64,
    /// Segments that still lack something.
    pub segments_left: u64,
    /// Time since the last byte came; `None` before the first one.
    pub since_last_byte: Option<Duration>,
    /// Why it does not go on, at most [`STATUS_ERROR_BYTES_MAX`] bytes; `None` while all is well.
    pub last_error: Option<String>,
}

/// A look at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node and its present life.
    pub id: NodeGeneration,
    /// What it does.
    pub roles: Roles,
    /// Its disk; `None` while no log server runs.
    pub disk: Option<DiskStatus>,
    /// What it has to do.
    pub load: NodeLoad,
    /// Time since this life began, in whole milliseconds.
    pub uptime: Duration,
    /// Whether it is about to stop, so that nothing new should be given to it.
    pub leaving: bool,
    /// What its disk lacks of closed segments; `None` when nobody looked yet.
    pub catch_up: Option<CatchUpProgress>,
}

/// What every node does for whoever wants to know how it is.
pub trait NodeService: Send + Sync + fmt::Debug {
    /// How the node is now. It asks nobody and writes nothing.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>>;
}
