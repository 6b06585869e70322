//! The driver of a controller: lists what there is, follows it, and carries attempts out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost_types::{Actor, Chain, CloseReason, LogId, NodeId};
use bifrost_wire::codec::decode_node_record;
use bifrost_wire::metadata::{Change, Changes, Revision};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::ControllerOptions;
use super::core::{Core, Effect, Event, LogView, NodeView, Trouble};
use super::metrics::Metrics;
use crate::catalog::{Catalog, CatalogError, StoredChain};
use crate::cluster::Cluster;
use crate::give_back::Given;
use crate::liveness::Detector;
use crate::liveness::core::Verdict;
use crate::log_state::LogState;
use crate::reconfigure::ReconfigureError;
use crate::resume::Bookmark;
use crate::shorten::keeper::{self, Keeper};
use crate::shorten::{ShortenError, Shortener, is_due};

/// Gives the shared state of a log, or `None` when whoever shares it is gone.
pub(crate) type OpenLog = Arc<dyn Fn(StoredChain) -> Option<Arc<LogState>> + Send + Sync>;

/// Cares for logs for ever; run it as a task.
///
/// # Cancel safety
/// Safe at every await: attempts end with the cluster's stop, and another controller goes on (C4).
pub(crate) async fn control(cluster: Arc<Cluster>, open: OpenLog, me: Option<NodeId>, options: ControllerOptions) {
    let detector = cluster.detector.get().cloned();
    let mut controller = Controller {
        started: Instant::now(),
        attempt_deadline: options.attempt_deadline,
        core: Core::new(me, options),
        cluster,
        open,
        verdict: detector.as_ref().map(|detector| {
            let mut verdict = detector.verdict();
            // Its member may lead already.
            verdict.mark_changed();
            verdict
        }),
        detector,
        metrics: Metrics::default(),
        attempts: FuturesUnordered::new(),
        keeper: Keeper::default(),
        given: BTreeMap::new(),
        shortenings: FuturesUnordered::new(),
    };
    let mut bookmark = Bookmark::new("what a controller cares for", None);
    loop {
        let ended = controller.follow(&mut bookmark.seen).await;
        bookmark.pause_after(ended).await;
    }
}

/// Up to where changes were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    nodes: Revision,
    chains: Revision,
}

struct Controller {
    started: Instant,
    attempt_deadline: Duration,
    core: Core,
    cluster: Arc<Cluster>,
    open: OpenLog,
    detector: Option<Detector>,
    verdict: Option<watch::Receiver<Verdict>>,
    metrics: Metrics,
    /// Each waits for a task of its own: nothing in this process waits for an attempt that is not polled.
    attempts: FuturesUnordered<BoxFuture<'static, (LogId, Saw)>>,
    /// Whose chain is to be shortened.
    keeper: Keeper,
    /// What was given back of those that an attempt left something of.
    given: BTreeMap<LogId, Arc<Given>>,
    /// The same for those that are.
    shortenings: FuturesUnordered<BoxFuture<'static, LogId>>,
}

impl Controller {
    /// Returns when a watch ends; `seen` is where to resume.
    async fn follow(&mut self, seen: &mut Option<Seen>) -> Result<(), CatalogError> {
        let catalog = self.cluster.catalog.clone();
        let mut at = match *seen {
            Some(at) => at,
            None => {
                let (listed, spent, at) = list(&catalog).await?;
                self.step(listed);
                let logs: BTreeMap<_, _> = spent.into_iter().map(|log| (log, self.core.turn(log))).collect();
                self.given.retain(|log, _| logs.contains_key(log));
                self.keep(keeper::Event::Listed { logs });
                *seen.insert(at)
            }
        };
        let mut nodes = catalog.watch_nodes(at.nodes).await?;
        let mut chains = catalog.watch_chains(at.chains).await?;
        loop {
            let (due, keeper_due) = (self.core.wake_at(), self.keeper.wake_at());
            tokio::select! {
                biased;
                Some((log, saw)) = self.attempts.next() => self.on_attempted(log, saw),
                // What came of it is news of the chain, and comes as that: it is never older than what was heard before.
                Some(log) = self.shortenings.next() => self.keep(keeper::Event::Ended { log }),
                verdict = judged(self.verdict.as_mut()) => self.step(Event::Judged { verdict }),
                changes = nodes.recv() => {
                    let Some(Changes { revision, changes }) = changes.transpose()? else { return Ok(()) };
                    changes.iter().filter_map(node_event).for_each(|event| self.step(event));
                    self.keep(keeper::Event::NodesChanged);
                    at.nodes = revision;
                }
                changes = chains.recv() => {
                    let Some(Changes { revision, changes }) = changes.transpose()? else { return Ok(()) };
                    changes.iter().for_each(|change| self.on_chain(change));
                    at.chains = revision;
                }
                () = until(due.map(|due| self.started + due)) => self.step(Event::Woken),
                () = until(keeper_due.map(|due| self.started + due)) => self.keep(keeper::Event::Woken),
            }
            *seen = Some(at);
        }
    }

    fn step(&mut self, event: Event) {
        if let Event::Judged { verdict } = &event {
            self.metrics.silent_nodes.set(verdict.silent.len() as f64);
        }
        let of_nodes = matches!(event, Event::Listed { .. } | Event::NodeSeen { .. } | Event::NodeGone { .. });
        let mut effects = Vec::new();
        self.core.step(self.started.elapsed(), event, &mut effects);
        if let Some(detector) = self.detector.as_ref().filter(|_| of_nodes) {
            detector.know(self.core.lives());
        }
        let (in_trouble, under_way) = self.core.in_trouble();
        self.metrics.logs_in_trouble.set(in_trouble as f64);
        self.metrics.attempts_under_way.set(under_way as f64);
        for Effect::Attempt { log, trouble } in effects {
            self.begin(log, trouble);
        }
    }

    fn on_chain(&mut self, change: &Change) {
        let Some((log, stored)) = Catalog::chain_change(change) else { return };
        self.see(log, stored.as_ref().is_some_and(|stored| is_due(&stored.chain)));
        self.step(match stored {
            Some(stored) => Event::LogSeen { log, revision: stored.revision, view: LogView::of(&stored.chain) },
            None => Event::LogGone { log },
        });
    }

    fn see(&mut self, log: LogId, is_due: bool) {
        let due = is_due.then(|| self.core.turn(log));
        if due.is_none() {
            self.given.remove(&log);
        }
        self.keep(keeper::Event::Seen { log, due });
    }

    fn keep(&mut self, event: keeper::Event) {
        let mut logs = Vec::new();
        self.keeper.step(self.started.elapsed(), event, &mut logs);
        for log in logs {
            self.begin_shortening(log);
        }
    }

    fn begin_shortening(&mut self, log: LogId) {
        let (cluster, stop) = (self.cluster.clone(), self.cluster.stop.child_token());
        let deadline = self.attempt_deadline;
        let given = self.given.entry(log).or_default().clone();
        let task = self.cluster.tasks.spawn(async move {
            let shortening = timeout(deadline, shorten(&cluster, log, &given));
            if let Some(Ok(Err(error))) = stop.run_until_cancelled_owned(shortening).await {
                debug!(%log, %error, "a chain cannot be shortened now");
            }
        });
        self.shortenings.push(
            async move {
                let _ended = task.await;
                log
            }
            .boxed(),
        );
    }

    fn begin(&mut self, log: LogId, trouble: Trouble) {
        let (cluster, open) = (self.cluster.clone(), self.open.clone());
        let (stop, deadline) = (self.cluster.stop.child_token(), self.attempt_deadline);
        let metrics = self.metrics.clone();
        let task = self.cluster.tasks.spawn(async move {
            let attempting = timeout(deadline, Box::pin(attempt(&cluster, &open, log, trouble)));
            match stop.run_until_cancelled_owned(attempting).await {
                Some(Ok(Ok(saw))) => {
                    metrics.helped.increment(1);
                    saw
                }
                Some(Ok(Err(error))) => {
                    metrics.failed.increment(1);
                    report(log, &error);
                    Saw::Nothing
                }
                Some(Err(_)) => {
                    metrics.late.increment(1);
                    debug!(%log, "an attempt at a log in trouble takes long");
                    Saw::Nothing
                }
                None => Saw::Nothing,
            }
        });
        self.attempts.push(async move { (log, task.await.unwrap_or(Saw::Nothing)) }.boxed());
    }

    fn on_attempted(&mut self, log: LogId, saw: Saw) {
        match saw {
            Saw::Log { revision, view } => self.step(Event::LogSeen { log, revision, view }),
            Saw::Gone => self.step(Event::LogGone { log }),
            Saw::Nothing => {}
        }
        self.step(Event::AttemptEnded { log });
    }
}

/// What an attempt saw last of its log.
#[derive(Debug)]
enum Saw {
    Log { revision: Revision, view: Option<LogView> },
    Gone,
    Nothing,
}

impl Saw {
    fn of(stored: &StoredChain) -> Self {
        Self::Log { revision: stored.revision, view: LogView::of(&stored.chain) }
    }
}

/// Reads everything. Chains first: a sequencer that a chain names is among the nodes that are read after it, or gone.
/// Returns the logs whose chains are to be shortened, too.
async fn list(catalog: &Catalog) -> Result<(Event, Vec<LogId>, Seen), CatalogError> {
    let (mut logs, mut spent) = (BTreeMap::new(), Vec::new());
    let visit = |stored: StoredChain| {
        spent.extend(is_due(&stored.chain).then_some(stored.chain.log));
        if let Some(view) = LogView::of(&stored.chain) {
            logs.insert(stored.chain.log, (stored.revision, view));
        }
    };
    let chains = catalog.visit_chains(visit).await?;
    let (records, nodes) = catalog.nodes().await?;
    let views = records.iter().map(|record| (record.id.node, NodeView::from(record)));
    Ok((Event::Listed { nodes: views.collect(), logs }, spent, Seen { nodes, chains }))
}

fn node_event(change: &Change) -> Option<Event> {
    match change.value.as_ref().map(|value| decode_node_record(value)) {
        Some(Ok(record)) => Some(Event::NodeSeen { node: record.id.node, view: NodeView::from(&record) }),
        Some(Err(error)) => {
            warn!(key = change.key, %error, "a node record cannot be read");
            None
        }
        None => Catalog::node_of(&change.key).map(|node| Event::NodeGone { node }),
    }
}

async fn shorten(cluster: &Cluster, log: LogId, given: &Given) -> Result<(), ShortenError> {
    let shortener = Shortener::new(log, cluster.catalog.clone(), cluster.peers());
    match shortener.drive(&|_: &StoredChain| {}, given).await {
        Ok(_) | Err(ShortenError::Catalog(CatalogError::UnknownLog)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One attempt. It begins with a look at metadata itself, since watches may be late and others may have helped.
async fn attempt(cluster: &Cluster, open: &OpenLog, log: LogId, trouble: Trouble) -> Result<Saw, ReconfigureError> {
    let stored = match cluster.catalog.chain(log).await {
        Err(CatalogError::UnknownLog) => return Ok(Saw::Gone),
        stored => stored?,
    };
    let (Some(last), true) = (stored.chain.last(), trouble_of(cluster, &stored.chain).await? == Some(trouble)) else {
        return Ok(Saw::of(&stored));
    };
    let loglet = last.params.id;
    let reason = stored.chain.pending.as_ref().map_or(CloseReason::SequencerGone, |pending| pending.reason);
    let Some(state) = open(stored.clone()) else { return Ok(Saw::Nothing) };
    info!(%log, ?trouble, "a controller closes a segment");
    state.close_segment_of(stored, loglet, reason, Actor::Controller).await?;
    Ok(Saw::of(&state.chain()))
}

/// What is wrong with a log now. A pending operation is visible in the chain; for anything else the nodes are read after
/// it.
async fn trouble_of(cluster: &Cluster, chain: &Chain) -> Result<Option<Trouble>, CatalogError> {
    let Some(view) = LogView::of(chain) else { return Ok(None) };
    let node = match view.pending {
        Some(_) => None,
        // One reading for all attempts of the moment.
        None => {
            cluster.directory.refresh().await?;
            cluster.directory.record(view.sequencer.node)
        }
    };
    let verdict = cluster.detector.get().map(|detector| detector.verdict().borrow().clone()).unwrap_or_default();
    Ok(view.trouble_by(node.as_ref().map(NodeView::from), &verdict))
}

/// The next verdict of the detector, if there is one.
async fn judged(verdict: Option<&mut watch::Receiver<Verdict>>) -> Verdict {
    let Some(verdict) = verdict else { return std::future::pending().await };
    match verdict.changed().await {
        Ok(()) => verdict.borrow_and_update().clone(),
        // A detector lives as long as the cluster that has it.
        Err(_) => std::future::pending().await,
    }
}

/// What passes by itself is no news; the next attempt comes after a pause.
fn report(log: LogId, error: &ReconfigureError) {
    match error {
        ReconfigureError::NoPlacement | ReconfigureError::NotAdmitted(_) => {
            debug!(%log, %error, "a log in trouble cannot be helped now")
        }
        ReconfigureError::Catalog(error) if error.is_passing() => {
            debug!(%log, %error, "a log in trouble cannot be helped now");
        }
        ReconfigureError::Catalog(_) | ReconfigureError::Chain(_) | ReconfigureError::Close(_) => {
            warn!(%log, %error, "a log in trouble cannot be helped");
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
