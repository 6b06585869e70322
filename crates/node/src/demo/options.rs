//! What the demo is asked for, and why it may not run.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::local_cluster::LocalClusterError;

/// What `bifrost demo` does.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct DemoOptions {
    /// How long to write, in seconds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// How many appenders write at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub appenders: u32,
    /// Appends that each appender keeps in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub in_flight: u16,
    /// Mean payload of a record; payloads are spread from half of it to one and a half of it
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(40..=4_194_304))]
    pub record_bytes: u32,
    /// Keep the data here; a second run continues on it [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Seed of payload sizes and of the order of restarts [default: drawn]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print one JSON object to stdout instead of the table
    #[arg(long)]
    pub json: bool,
    /// No progress line
    #[arg(long, short)]
    pub quiet: bool,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            seconds: 15,
            appenders: 64,
            in_flight: 4,
            record_bytes: 1024,
            data_dir: None,
            seed: None,
            json: false,
            quiet: false,
        }
    }
}

/// Why the demo could not run to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The directory cannot be used.
    #[error("cannot use the directory {}; choose a writable one with --data-dir", directory.display())]
    Directory {
        /// Which one.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is too full for what was asked.
    #[error(
        "{} has {} MiB free and the demo wants {} MiB; choose another disk with --data-dir, or fewer --seconds",
        directory.display(), free >> 20, needed >> 20
    )]
    Space {
        /// Where.
        directory: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are wanted.
        needed: u64,
    },
    /// Somebody else runs on the directory.
    #[error("{} is in use by another process; end that one, or choose another --data-dir", directory.display())]
    InUse {
        /// Which one.
        directory: PathBuf,
    },
    /// The three nodes did not start.
    #[error("the cluster on {} did not start; a fresh --data-dir starts from nothing", directory.display())]
    Cluster {
        /// On which directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: Box<LocalClusterError>,
    },
    /// Its own cluster cannot be reached or gives no log.
    #[error("the cluster does not answer its own client; RUST_LOG=info tells more")]
    Client(#[source] anyhow::Error),
    /// The run was told to stop.
    #[error("interrupted")]
    Interrupted,
}
