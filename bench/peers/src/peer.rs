//! Who is measured, and what stands behind each acknowledgement.
//!
//! A peer is started anew in each round, on empty directories, and stopped before the next one: an idle cluster takes
//! time too.

mod bifrost;
mod etcd;
mod floor;
mod nats;
mod pool;
mod rabbitmq;
mod redis;
mod restate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::cell::{Cell, Outcome};
use crate::closed_loop::Load;
use crate::members::{Members, Tools};

/// How long a cluster may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// Somebody that appends are acknowledged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Floor,
    FloorGrowing,
    Bifrost,
    NatsAlways,
    Nats,
    Redis,
    RabbitMq,
    Etcd,
    Restate,
}

impl Peer {
    pub(crate) const ALL: [Self; 9] = [
        Self::Floor,
        Self::FloorGrowing,
        Self::Bifrost,
        Self::NatsAlways,
        Self::Nats,
        Self::Redis,
        Self::RabbitMq,
        Self::Etcd,
        Self::Restate,
    ];

    /// Its name in flags and results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorGrowing => "floor-growing",
            Self::Bifrost => "bifrost",
            Self::NatsAlways => "nats-always",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
            Self::Etcd => "etcd",
            Self::Restate => "restate",
        }
    }

    /// Its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Floor => "floor, preallocated O_DIRECT file",
            Self::FloorGrowing => "floor, growing file",
            Self::Bifrost => "Bifrost",
            Self::NatsAlways => "NATS R3, sync_interval: always",
            Self::Nats => "NATS R3, default",
            Self::Redis => "Redis, appendfsync always, WAIT 1",
            Self::RabbitMq => "RabbitMQ, quorum queue",
            Self::Etcd => "etcd",
            Self::Restate => "Restate",
        }
    }

    /// What an acknowledged append is.
    pub(crate) fn acknowledgement(self) -> &'static str {
        match self {
            Self::Floor => {
                "on the disks of the leader and one follower of two; no fencing, recovery, checksums or reads"
            }
            Self::FloorGrowing => "the same, in an ordinary file that gets longer",
            Self::Bifrost => "on two disks of three, in a segment that no deposed sequencer can write to",
            Self::NatsAlways => "on the disks of two of three members of the stream's Raft group",
            Self::Nats => {
                "in the page cache of two of three members of the stream's Raft group; fsync within two minutes"
            }
            Self::Redis => "on the disks of the master and one replica of two; no fencing: a failover may lose it",
            Self::RabbitMq => "confirmed: on the disks of two of three members of the queue's Raft group",
            Self::Etcd => "on the disks of two of three members of the Raft group, and applied to the key space",
            Self::Restate => {
                "on two disks of three in the log of a partition (202 of its HTTP ingress); its processor takes part"
            }
        }
    }

    /// Whether an acknowledgement waits for a disk.
    pub(crate) fn syncs(self) -> bool {
        self != Self::Nats
    }

    /// Whether it is one of those that Bifrost is compared with, and not a floor.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorGrowing)
    }

    /// Whether it can be made to do this.
    pub(crate) fn does(self, cell: Cell) -> bool {
        match cell {
            Cell::Append { .. } => true,
            Cell::CatchUp | Cell::Tail => matches!(self, Self::Bifrost | Self::NatsAlways | Self::Nats),
        }
    }

    /// The version that is installed, or why it cannot be started.
    pub(crate) async fn version(self, ground: &Ground, tools: &Tools) -> Result<String> {
        match self {
            Self::Floor | Self::FloorGrowing => floor::version(ground, tools).await,
            Self::Bifrost => bifrost::version(ground, tools).await,
            Self::NatsAlways | Self::Nats => nats::version(ground, tools).await,
            Self::Redis => redis::version(tools).await,
            Self::RabbitMq => rabbitmq::version().await,
            Self::Etcd => etcd::version(tools).await,
            Self::Restate => restate::version(ground, tools).await,
        }
    }

    /// Starts three members; all processes are in `members`, also when it fails.
    pub(crate) async fn start(self, ground: &Ground, members: &mut Members) -> Result<Box<dyn Cluster>> {
        Ok(match self {
            Self::Floor => Box::new(floor::start(ground, members, "direct").await?),
            Self::FloorGrowing => Box::new(floor::start(ground, members, "growing").await?),
            Self::Bifrost => Box::new(bifrost::start(ground, members).await?),
            Self::NatsAlways => Box::new(nats::start(ground, members, "sync_interval: always").await?),
            Self::Nats => Box::new(nats::start(ground, members, "").await?),
            Self::Redis => Box::new(redis::start(ground, members).await?),
            Self::RabbitMq => Box::new(rabbitmq::start(ground, members).await?),
            Self::Etcd => Box::new(etcd::start(ground, members).await?),
            Self::Restate => Box::new(restate::start(ground, members).await?),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|peer| peer.name() == text) {
            Some(peer) => Ok(peer),
            None => bail!("there is no peer {text}: {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

/// Where members find what they need.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// Where `install` put what no system package brings.
    pub(crate) installed: PathBuf,
    /// The binary of Bifrost.
    pub(crate) bifrost: PathBuf,
    /// Empty, on the disk that is measured.
    pub(crate) directory: PathBuf,
}

impl Ground {
    /// The same for a cluster of its own.
    pub(crate) fn below(&self, directory: &str) -> Self {
        Self { directory: self.directory.join(directory), ..self.clone() }
    }

    /// Makes the directory of a member.
    fn member(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

/// Whether `install` has put this there.
fn installed(binary: &Path) -> Result<()> {
    if !binary.exists() {
        bail!("there is no {}: `bench/peers/install` says why", binary.display());
    }
    Ok(())
}

/// Three members that are ready. Each cell makes a log of its own.
pub(crate) trait Cluster: Send + Sync {
    /// Appends to a new log.
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>>;

    /// Writes a log, then reads it from its start.
    fn catch_up<'a>(&'a self, _: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async { bail!("there is no reader for it here") })
    }

    /// Appends one at a time, and waits until a reader has it.
    fn tail<'a>(&'a self, _: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async { bail!("there is no reader for it here") })
    }

    /// Ends the clients, before the members stop.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Tries until it works, or a member has ended, or the time is over.
async fn until_ready<T, F, Fut>(members: &mut Members, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + READY;
    loop {
        members.check()?;
        let error = match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Ok(ready)) => return Ok(ready),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer"),
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("the cluster is not ready within {READY:?}{}", members.logs())));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
