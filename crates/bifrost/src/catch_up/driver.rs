//! The driver of catching up: follows chains and nodes, and carries out one step at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_logserver::{Fullness, LogServerHandle};
use bifrost_types::{DiskId, NodeGeneration, NodeRecord, StorageState};
use bifrost_wire::codec::decode_node_record;
use bifrost_wire::metadata::{Change, Changes, Revision};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::CatchUpOptions;
use super::core::{Core, Event, Outcome, Step};
use super::metrics::Metrics;
use super::progress::{CatchUpError, CatchUpState, Progress};
use super::share::shares;
use super::step::Hands;
use crate::catalog::{Catalog, CatalogError};
use crate::directory::Directory;
use crate::resume::Bookmark;

/// Whose disk catches up, and what it takes.
#[derive(Debug, Clone)]
pub struct Place {
    /// The present life of the node.
    pub node: NodeGeneration,
    /// Its log server, with the disk.
    pub log_server: LogServerHandle,
    /// Who else there is.
    pub directory: Directory,
    /// What there is.
    pub catalog: Catalog,
}

/// How far a disk is with catching up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CatchUp {
    progress: watch::Receiver<Progress>,
}

impl CatchUp {
    /// What is known now.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Follows it.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// How far it is, and the future that catches up for ever; run that as a task.
    ///
    /// # Cancel safety
    /// Dropping the future stops in the middle of any step; whoever begins anew goes on from what is durable.
    pub fn new(place: Place, options: CatchUpOptions) -> (Self, impl Future<Output = ()> + Send) {
        let (show, progress) = watch::channel(Progress::default());
        (Self { progress }, run(place, options, show))
    }
}

/// Up to where changes were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    nodes: Revision,
    chains: Revision,
}

struct Driver {
    started: Instant,
    node: NodeGeneration,
    disk: DiskId,
    catalog: Catalog,
    hands: Hands,
    core: Core,
    /// The step under way; nothing else waits for it.
    step: Option<BoxFuture<'static, Event>>,
    room: watch::Receiver<Fullness>,
    show: watch::Sender<Progress>,
    last_byte_at: Option<Instant>,
    metrics: Metrics,
}

async fn run(place: Place, options: CatchUpOptions, show: watch::Sender<Progress>) {
    let Place { node, log_server, directory, catalog } = place;
    let mut driver = Driver {
        started: Instant::now(),
        node,
        disk: log_server.disk(),
        catalog,
        room: log_server.fullness(),
        hands: Hands {
            node: node.node,
            log_server,
            directory,
            chunk_bytes: options.chunk_bytes,
            deadline: options.step_deadline,
        },
        core: Core::new(options),
        step: None,
        show,
        last_byte_at: None,
        metrics: Metrics::new(),
    };
    driver.look_at_room();
    let mut bookmark = Bookmark::new("what a copy may miss", None);
    loop {
        let ended = driver.follow(&mut bookmark.seen).await;
        // What is known is worked on while metadata is away.
        let pause = bookmark.pause_after(ended);
        tokio::pin!(pause);
        while !driver.work_until(&mut pause).await {}
    }
}

impl Driver {
    /// Returns when a watch ends; `seen` is where to resume.
    async fn follow(&mut self, seen: &mut Option<Seen>) -> Result<(), CatalogError> {
        let mut at = match *seen {
            Some(at) => at,
            None => *seen.insert(self.list().await?),
        };
        let mut nodes = self.catalog.watch_nodes(at.nodes).await?;
        let mut chains = self.catalog.watch_chains(at.chains).await?;
        loop {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                changes = nodes.recv() => {
                    let Some(Changes { revision, changes }) = changes.transpose()? else { return Ok(()) };
                    changes.iter().for_each(|change| self.on_node(change));
                    at.nodes = revision;
                }
                changes = chains.recv() => {
                    let Some(Changes { revision, changes }) = changes.transpose()? else { return Ok(()) };
                    let events: Vec<Event> =
                        changes.iter().filter_map(|change| chain_event(change, self.node, self.disk)).collect();
                    events.into_iter().for_each(|event| self.take(event));
                    at.chains = revision;
                }
                Ok(()) = self.room.changed() => self.look_at_room(),
                event = ended(&mut self.step) => self.on_ended(event),
                () = until(wake) => self.take(Event::Woken),
            }
            *seen = Some(at);
        }
    }

    /// One event of this node alone; returns whether `pause` is over.
    async fn work_until(&mut self, pause: impl Future<Output = ()> + Unpin) -> bool {
        let wake = self.wake_at();
        tokio::select! {
            biased;
            () = pause => return true,
            Ok(()) = self.room.changed() => self.look_at_room(),
            event = ended(&mut self.step) => self.on_ended(event),
            () = until(wake) => self.take(Event::Woken),
        }
        false
    }

    /// Reads everything.
    async fn list(&mut self) -> Result<Seen, CatalogError> {
        let mut logs = BTreeMap::new();
        let (node, disk) = (self.node, self.disk);
        let chains = self.catalog.visit_chains(|stored| {
            logs.insert(stored.chain.log, (stored.revision, shares(&stored, node.node, disk)));
        });
        let chains = chains.await?;
        let (records, nodes) = self.catalog.nodes().await?;
        let own = records.iter().find(|record| record.id.node == node.node);
        let in_service = own.is_some_and(|record| self.is_in_service(record));
        self.take(Event::InService(in_service));
        self.take(Event::Listed { logs });
        Ok(Seen { nodes, chains })
    }

    fn is_in_service(&self, record: &NodeRecord) -> bool {
        // A later life of this node has the disk now.
        record.id == self.node && record.disk == Some(self.disk) && record.storage == StorageState::ReadWrite
    }

    fn on_node(&mut self, change: &Change) {
        if Catalog::node_of(&change.key) != Some(self.node.node) {
            return self.take(Event::PeersChanged);
        }
        let record = change.value.as_ref().and_then(|value| decode_node_record(value).ok());
        let in_service = record.is_some_and(|record| self.is_in_service(&record));
        self.take(Event::InService(in_service));
    }

    fn look_at_room(&mut self) {
        let fullness = *self.room.borrow_and_update();
        // Below the hard mark space is for repairs that somebody waits for, for seals and trims.
        self.take(Event::Room(matches!(fullness, Fullness::Ample | Fullness::Low)));
    }

    fn on_ended(&mut self, event: Event) {
        self.step = None;
        if let Event::Ended { loglet, outcome } = &event {
            match outcome {
                Outcome::Copied { lost: true, until, .. } => {
                    info!(%loglet, %until, "records of a closed segment are lost");
                }
                Outcome::Copied { bytes, .. } if *bytes > 0 => {
                    self.metrics.got(*bytes);
                    self.last_byte_at = Some(Instant::now());
                }
                Outcome::Failed(error) => self.report(error),
                Outcome::Copied { .. } | Outcome::Prepared { .. } | Outcome::Looked { .. } | Outcome::Attested => {}
            }
        }
        self.take(event);
    }

    /// It is tried again; who looks sees it in the progress.
    fn report(&self, error: &CatchUpError) {
        Metrics::failed(error);
        debug!(node = %self.node, error = error as &dyn std::error::Error, "catching up waits");
    }

    fn take(&mut self, event: Event) {
        let before = self.core.progress();
        if let Some(step) = self.core.step(self.started.elapsed(), event) {
            self.begin(step);
        }
        let progress = Progress { last_byte_at: self.last_byte_at, ..self.core.progress() };
        let records = progress.records_done.saturating_sub(before.records_done);
        self.metrics.records.increment(records);
        self.metrics.show(&progress);
        if before.state != progress.state && progress.state == CatchUpState::Idle {
            debug!(node = %self.node, "nothing is missing of closed segments");
        }
        self.show.send_if_modified(|shown| std::mem::replace(shown, progress) != progress);
    }

    fn begin(&mut self, step: Step) {
        let (hands, loglet) = (self.hands.clone(), step.share().params.id);
        self.step = Some(
            async move {
                let outcome = hands.carry_out(step).await;
                Event::Ended { loglet, outcome }
            }
            .boxed(),
        );
    }

    fn wake_at(&self) -> Option<Instant> {
        self.core.wake_at().map(|at| self.started + at.max(Duration::ZERO))
    }
}

fn chain_event(change: &Change, node: NodeGeneration, disk: DiskId) -> Option<Event> {
    let (log, stored) = Catalog::chain_change(change)?;
    Some(match stored {
        Some(stored) => Event::LogSeen { log, revision: stored.revision, shares: shares(&stored, node.node, disk) },
        None => Event::LogGone { log },
    })
}

async fn ended(step: &mut Option<BoxFuture<'static, Event>>) -> Event {
    match step {
        Some(step) => step.await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
