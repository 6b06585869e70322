//! What the run and the programs on its hosts tell each other, outside of the simulated network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifrost_checker::event::{AppenderId, CallId, ReaderId};
use bifrost_types::{DiskId, LogId, Lsn, NodeGeneration, OpId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nodes start, logs are made.
    Boot,
    /// Clients work, and things go wrong.
    Work,
    /// Nobody begins anything, and metadata is away: whoever waits must do so quietly.
    Dark,
    /// Nothing goes wrong any more. What was begun ends, readers go on.
    Heal,
    /// Everybody stops.
    Over,
}

/// Shared by all hosts of a run; clones are the same.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stage: watch::Sender<Stage>,
    logs: watch::Sender<Vec<LogId>>,
    final_tails: watch::Sender<BTreeMap<LogId, Lsn>>,
    next_call: AtomicU64,
    next_reader: AtomicU64,
    next_appender: AtomicU64,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    ops: Vec<(LogId, OpId)>,
    lives: BTreeMap<String, (NodeGeneration, DiskId)>,
    /// What must still end after the heal, by what it is.
    open: BTreeMap<String, u32>,
    failures: Vec<String>,
    probed: bool,
}

impl Default for Control {
    fn default() -> Self {
        let shared = Shared {
            stage: watch::Sender::new(Stage::Boot),
            logs: watch::Sender::new(Vec::new()),
            final_tails: watch::Sender::new(BTreeMap::new()),
            next_call: AtomicU64::new(1),
            next_reader: AtomicU64::new(1),
            next_appender: AtomicU64::new(1),
            facts: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Control {
    /// How far the run is.
    pub fn stage(&self) -> Stage {
        *self.shared.stage.borrow()
    }

    /// The run goes on to this stage.
    pub fn enter(&self, stage: Stage) {
        self.shared.stage.send_replace(stage);
    }

    /// Waits for this stage or a later one.
    pub async fn reached(&self, stage: Stage) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.stage.subscribe().wait_for(|now| *now >= stage).await;
    }

    /// The logs are there.
    pub fn set_logs(&self, logs: Vec<LogId>) {
        self.shared.logs.send_replace(logs);
    }

    /// The logs, once there are any.
    pub async fn logs(&self) -> Vec<LogId> {
        let mut logs = self.shared.logs.subscribe();
        logs.wait_for(|logs| !logs.is_empty()).await.map(|logs| logs.clone()).unwrap_or_default()
    }

    /// Whether the logs were made.
    pub fn has_logs(&self) -> bool {
        !self.shared.logs.borrow().is_empty()
    }

    /// Every reader must get this far.
    pub fn set_final_tail(&self, log: LogId, tail: Lsn) {
        self.shared.final_tails.send_modify(|tails| {
            tails.insert(log, tail);
        });
    }

    /// How far every reader of a log must get, once that is known.
    pub async fn final_tail(&self, log: LogId) -> Lsn {
        let mut tails = self.shared.final_tails.subscribe();
        let tail = tails.wait_for(|tails| tails.contains_key(&log)).await;
        tail.ok().and_then(|tails| tails.get(&log).copied()).unwrap_or(Lsn::FIRST)
    }

    /// A number for a call.
    pub fn call(&self) -> CallId {
        CallId(self.shared.next_call.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for an appender.
    pub fn appender(&self) -> AppenderId {
        AppenderId(self.shared.next_appender.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a reader.
    pub fn reader(&self) -> ReaderId {
        ReaderId(self.shared.next_reader.fetch_add(1, Ordering::Relaxed))
    }

    /// An operation was begun by somebody.
    pub fn began(&self, log: LogId, op: OpId) {
        self.shared.facts.lock().ops.push((log, op));
    }

    /// The newest operations, for whoever wants to repeat one.
    pub fn operations(&self, log: LogId) -> Vec<OpId> {
        let facts = self.shared.facts.lock();
        facts.ops.iter().rev().filter(|(of, _)| *of == log).map(|(_, op)| *op).take(4).collect()
    }

    /// A node serves on this host.
    pub fn lives(&self, host: &str, node: NodeGeneration, disk: DiskId) {
        self.shared.facts.lock().lives.insert(host.to_owned(), (node, disk));
    }

    /// Nothing serves on this host any more; returns what did.
    pub fn died(&self, host: &str) -> Option<(NodeGeneration, DiskId)> {
        self.shared.facts.lock().lives.remove(host)
    }

    /// The nodes that serve, by their hosts.
    pub fn alive(&self) -> BTreeMap<String, (NodeGeneration, DiskId)> {
        self.shared.facts.lock().lives.clone()
    }

    /// Something began on a host that must end after the heal, unless the host does. Ends when what is returned is dropped.
    pub fn begin(&self, host: &str, what: &str) -> OpenWork {
        let key = format!("{host} {what}");
        *self.shared.facts.lock().open.entry(key.clone()).or_default() += 1;
        OpenWork { control: self.clone(), key }
    }

    /// What has not ended.
    pub fn open_work(&self) -> Vec<String> {
        let facts = self.shared.facts.lock();
        facts.open.iter().filter(|(_, count)| **count > 0).map(|(what, count)| format!("{what} ×{count}")).collect()
    }

    /// How many works of this kind have not ended.
    pub fn open_of(&self, kind: &str) -> u32 {
        let facts = self.shared.facts.lock();
        facts.open.iter().filter(|(what, _)| what.ends_with(kind)).map(|(_, count)| count).sum()
    }

    /// A promise was found broken by the one to whom it was given.
    pub fn fail(&self, what: impl Into<String>) {
        self.shared.facts.lock().failures.push(what.into());
    }

    /// The probes after the heal are over.
    pub fn set_probed(&self) {
        self.shared.facts.lock().probed = true;
    }

    /// Whether they are.
    pub fn probed(&self) -> bool {
        self.shared.facts.lock().probed
    }

    /// What was found broken.
    pub fn failures(&self) -> Vec<String> {
        self.shared.facts.lock().failures.clone()
    }
}

/// See [`Control::begin`].
#[derive(Debug)]
pub struct OpenWork {
    control: Control,
    key: String,
}

impl Drop for OpenWork {
    fn drop(&mut self) {
        if let Some(count) = self.control.shared.facts.lock().open.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
    }
}
