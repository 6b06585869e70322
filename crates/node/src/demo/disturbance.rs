//! What happens to the cluster under load: a planned reconfiguration every second, and log servers that go and return.

use std::sync::Arc;
use std::time::Duration;

use bifrost::{Log, ReconfigureOptions, Reconfigured};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::ledger::Order;
use crate::local_cluster::LocalCluster;

const RECONFIGURE_EVERY: Duration = Duration::from_secs(1);
/// One restart for this many seconds of load.
const RESTART_SECONDS: u64 = 7;
const DOWN_MAX: Duration = Duration::from_secs(1);

/// What the operator did.
#[derive(Debug, Default)]
pub(super) struct Operated {
    /// Begin and end of each reconfiguration that was carried out, in microseconds of [`Order::now`].
    pub(super) done: Vec<(u64, u64)>,
    /// Those that another one came before.
    pub(super) superseded: u64,
    /// Those that ended with an error.
    pub(super) failed: Vec<String>,
}

/// Moves the sequencer to another node every second. What was begun when the load stops is carried through.
pub(super) async fn operate(log: Log, order: Order, stop: CancellationToken) -> Operated {
    let mut operated = Operated::default();
    let mut every = interval_at(Instant::now() + RECONFIGURE_EVERY / 2, RECONFIGURE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let from = order.now();
        match log.reconfigure(ReconfigureOptions::default()).await {
            Ok(Reconfigured::Done(_)) => operated.done.push((from, order.now())),
            Ok(Reconfigured::Superseded { .. }) => operated.superseded += 1,
            Err(error) => {
                warn!(%error, "a reconfiguration failed");
                operated.failed.push(anyhow::Error::from(error).root_cause().to_string());
            }
        }
    }
    operated
}

/// Which servers were restarted, in order, and what is down now; shared with the progress line.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    pub(super) down: Option<String>,
    pub(super) done: Vec<String>,
    pub(super) failed: Vec<String>,
}

/// Stops a log server and starts it again, evenly over the time of the load: first the one that has the sequencer, then
/// by turns. A server that was stopped is always started again.
pub(super) async fn restart_servers(
    cluster: Arc<LocalCluster>,
    log: Log,
    seconds: u64,
    seed: u64,
    restarts: Arc<Mutex<Restarts>>,
    stop: CancellationToken,
) {
    let rounds = (seconds / RESTART_SECONDS).max(1);
    let round = Duration::from_secs(seconds) / u32::try_from(rounds).unwrap_or(u32::MAX);
    let down_time = DOWN_MAX.min(round / 6);
    let mut turn = usize::try_from(seed % 16).unwrap_or(0);
    for number in 0..rounds {
        let before = if number == 0 { round / 2 } else { round.saturating_sub(down_time) };
        if stop.run_until_cancelled(sleep(before)).await.is_none() {
            return;
        }
        turn += 1;
        let index = match number % 2 {
            0 => sequencer_index(&cluster, &log).await.unwrap_or(turn % cluster.size()),
            _ => turn % cluster.size(),
        };
        let name = format!("n{}", index + 1);
        restarts.lock().down = Some(name.clone());
        cluster.stop_node(index).await;
        stop.run_until_cancelled(sleep(down_time)).await;
        let started = cluster.start_node(index).await;
        let mut restarts = restarts.lock();
        restarts.down = None;
        match started {
            Ok(()) => restarts.done.push(name),
            Err(error) => restarts.failed.push(format!("{name}: {error:#}")),
        }
    }
}

async fn sequencer_index(cluster: &LocalCluster, log: &Log) -> Option<usize> {
    let sequencer = log.chain().last()?.params.sequencer.node;
    for index in 0..cluster.size() {
        if cluster.node_id(index).await == Some(sequencer) {
            return Some(index);
        }
    }
    None
}
