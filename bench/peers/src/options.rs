//! What the command is asked for.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cell::Cell;
use crate::peer::Peer;

/// Measures Bifrost, its peers and a floor side by side: three members each, one after the other, in rounds.
#[derive(Debug, Parser)]
#[command(name = "bench-peers", version, max_term_width = 120)]
pub(crate) struct Options {
    /// Whom to measure; all that are installed by default. Bars need bifrost, floor, nats-always, nats and redis
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values_t = Peer::ALL, hide_default_value = true)]
    pub(crate) peers: Vec<Peer>,
    /// What to measure: 1KiBx1, 128Bx256, 1KiBx256, 16KiBx256, read, tail
    #[arg(long, value_name = "CELL", value_delimiter = ',', default_values_t = Cell::ALL, hide_default_value = true)]
    pub(crate) cells: Vec<Cell>,
    /// Rounds: everybody does every cell in each
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) rounds: u32,
    /// Seconds that are measured of each cell
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Seconds that go before them
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(0..=60))]
    pub(crate) warm_up: u64,
    /// A canary above this, or above 300 and three times the best one of the run, has its cell repeated
    #[arg(long, value_name = "MICROSECONDS", default_value = "1000")]
    pub(crate) canary_limit: u64,
    /// How often a cell is repeated for its canary, at most
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) repeats: u32,
    /// The run ends after so many minutes, with what was measured until then
    #[arg(long, value_name = "MINUTES", default_value = "120", value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub(crate) limit: u64,
    /// Where scratch directories are made, on the disk that is to be measured
    #[arg(long, value_name = "DIR", env = "BENCH_PEERS_DIR")]
    pub(crate) directory: PathBuf,
    /// Where `install` put the peers
    #[arg(long, value_name = "DIR", env = "BENCH_PEERS_INSTALLED")]
    pub(crate) installed: PathBuf,
    /// The binary `bifrost`, in the release profile
    #[arg(long, value_name = "FILE", env = "BIFROST_BIN")]
    pub(crate) bifrost: PathBuf,
    /// Where the results go, as JSON
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    pub(crate) results: PathBuf,
    /// Where a chart of the results goes, as SVG; beside the JSON by default
    #[arg(long, value_name = "FILE")]
    pub(crate) chart: Option<PathBuf>,
}

impl Options {
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.limit * 60)
    }

    pub(crate) fn canary_limit(&self) -> Duration {
        Duration::from_micros(self.canary_limit)
    }
}
