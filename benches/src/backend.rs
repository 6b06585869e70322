//! What is measured on: storage and servers of one cell.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use bifrost::{Bifrost, Log, LogOptions};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use tempfile::TempDir;

/// The two back ends that keep what they acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `Bifrost::embedded`: one copy, no network.
    Embedded,
    /// Three servers on loopback, each record on two of them before it is acknowledged, a client over gRPC. All in this
    /// process and on one disk: the three fsyncs of a record compete, which they do not on three machines.
    ThreeServers,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::ThreeServers];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::ThreeServers => "three_servers",
        })
    }
}

/// A back end that runs, with one empty log, on a directory of its own.
#[derive(Debug)]
pub struct Stage {
    /// The log.
    pub log: Log,
    bifrost: Bifrost,
    cluster: Option<LocalCluster>,
    directory: TempDir,
}

impl Stage {
    /// Starts it under `parent`, which should be on a real disk: on tmpfs an fsync does nothing.
    ///
    /// # Errors
    /// When the directory cannot be made or something does not start.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what was started to the end of the process.
    pub async fn start(backend: Backend, parent: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("bifrost-bench-").tempdir_in(parent)?;
        let cluster = match backend {
            Backend::Embedded => None,
            Backend::ThreeServers => {
                let directory = Some(directory.path().to_owned());
                Some(LocalCluster::start(LocalClusterOptions { directory, ..Default::default() }).await?)
            }
        };
        let bifrost = match &cluster {
            Some(cluster) => cluster.connect().await?,
            None => Bifrost::embedded(directory.path()).await?,
        };
        let log = bifrost.create_log("bench", LogOptions::default()).await.context("no log")?;
        Ok(Self { log, bifrost, cluster, directory })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops it and removes its files.
    ///
    /// # Errors
    /// When the files cannot be removed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves some of it running until the process ends.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { log, bifrost, cluster, directory } = self;
        drop(log);
        bifrost.shutdown().await;
        if let Some(cluster) = cluster {
            cluster.shutdown().await;
        }
        Ok(directory.close()?)
    }
}
