//! `bifrost bench`: what a cluster does for its clients, on logs that it makes and deletes again.
//!
//! ```text
//!  arguments ─► ground: logs ─► append | read | tail | failover ─► report
//!                                  └─ writers: a closed loop each
//! ```
//!
//! All writers and readers are in this process. It competes with servers on the same machine, and one process is not enough to
//! find the limits of many machines.

mod append;
mod failover;
mod ground;
mod read;
mod report;
mod tail;
mod writers;

use std::num::NonZeroU32;
use std::time::Duration;

use bifrost::ReplicationProperty;
use clap::Subcommand;
use tokio::time::Instant;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::values::{parse_duration, parse_size};

pub(crate) const HELP: &str = "\
The logs are called bench-..., and are deleted at the end, unless --keep is given. Latencies are percentiles of every \
operation (HDR histograms, three digits). With --output json, one object with everything; times in microseconds.";

/// Most records of a writer that may wait for their outcomes.
const IN_FLIGHT_MAX: u32 = 65_536;

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Append for a while, each writer with some appends in flight: records per second and latencies
    Append(append::AppendArgs),
    /// Write logs, then read them from their start: records per second
    Read(read::ReadArgs),
    /// Append one record at a time and wait until a reader delivers it: latencies of both
    Tail(tail::TailArgs),
    /// Append for a while and note how long nothing was acknowledged, while you or --reconfigure-every disturb it
    Failover(failover::FailoverArgs),
}

/// Which logs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogsArgs {
    /// Logs that take part, at the same time
    #[arg(long, value_name = "N", default_value = "1")]
    logs: NonZeroU32,
    /// Bytes of a record's payload, such as 128, 1KiB or 1MiB
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = parse_size)]
    size: usize,
    /// How many copies, and in which domains: `2`, or `{zone: 2, node: 3}` [default: the cluster's]
    #[arg(long, value_name = "PROPERTY")]
    replication: Option<ReplicationProperty>,
    /// Do not delete the logs at the end
    #[arg(long)]
    keep: bool,
}

/// Who writes to them.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WritersArgs {
    /// Writers of each log
    #[arg(long, value_name = "N", default_value = "1")]
    writers: NonZeroU32,
    /// Appends of each writer that wait for their outcome, at most 65536
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u32,
    #[command(flatten)]
    time: TimeArgs,
}

/// For how long.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct TimeArgs {
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long is written before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warm_up: Duration,
}

impl TimeArgs {
    /// The time that counts, if writing begins now.
    fn period(self) -> Period {
        let from = Instant::now() + self.warm_up;
        Period { from, until: from + self.duration }
    }
}

/// The time that counts.
#[derive(Debug, Clone, Copy)]
struct Period {
    from: Instant,
    until: Instant,
}

pub(crate) async fn run(context: &Context, args: BenchArgs) -> Result<Exit, CliError> {
    match args.what {
        What::Append(args) => append::run(context, args).await,
        What::Read(args) => read::run(context, args).await,
        What::Tail(args) => tail::run(context, args).await,
        What::Failover(args) => failover::run(context, args).await,
    }
}
