//! A node inside an embedder's own process.
//!
//! ```text
//!  embedder ─► Bifrost ─► sequencer ─► log server, here            calls within the process
//!                              ╰═════► log servers of other nodes  gRPC: the one round trip of an append
//! ```
//! It is the node that `bifrost server` runs, with the same directory, roles and states: processes that embed one and plain
//! servers form one cluster. The handle wants the logs that are made or appended from here sequenced here
//! ([`Options::preferred`]); then an append crosses the network once, from the sequencer to the other copies and back. A log
//! that was made elsewhere keeps its sequencer until its next reconfiguration; `Log::reconfigure` with this node as its
//! `sequencer` moves it at once.

use std::future::Future;

use bifrost::{Bifrost, Options, StartError};
use bifrost_types::{ClusterId, NodeRecord};
use thiserror::Error;

use crate::process::{Process, ProcessError, ProcessOptions};

/// Lets a [`Bifrost`] be made together with a node.
pub trait Join {
    /// Starts the node, which makes, joins or goes on in its cluster, and returns with it serving.
    ///
    /// # Errors
    /// [`JoinError`]; nothing runs then.
    ///
    /// # Cancel safety
    /// Safe: the steps that were taken are recognised at the next start.
    fn join(options: ProcessOptions) -> impl Future<Output = Result<Joined, JoinError>> + Send;
}

/// Why a node in this process did not start.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The node did not.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The handle did not: metadata went away.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A node of this process, and a handle on the logs through it.
#[derive(Debug)]
pub struct Joined {
    bifrost: Bifrost,
    process: Process,
}

impl Join for Bifrost {
    async fn join(options: ProcessOptions) -> Result<Joined, JoinError> {
        let process = Process::start(options).await?;
        match process.node().handle(Options::default()).await {
            Ok(bifrost) => Ok(Joined { bifrost, process }),
            Err(error) => {
                process.shutdown().await;
                Err(error.into())
            }
        }
    }
}

impl Joined {
    /// The logs. Clones of it end with [`shutdown`](Self::shutdown).
    pub const fn bifrost(&self) -> &Bifrost {
        &self.bifrost
    }

    /// The record of the node as of its start.
    pub const fn record(&self) -> &NodeRecord {
        self.process.record()
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.process.cluster()
    }

    /// Stops in good order: first the appenders and readers of the handle, which still have their sequencers then, and then
    /// the node. The directory is free afterwards.
    ///
    /// # Cancel safety
    /// Safe: the stop goes on; call again to wait for it.
    pub async fn shutdown(&self) {
        self.bifrost.shutdown().await;
        self.process.shutdown().await;
    }
}
