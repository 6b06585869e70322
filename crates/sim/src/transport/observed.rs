//! The metadata service of one host: what it commits is the truth, and it may lose its leadership.
//!
//! Several hosts serve one keyspace, as the members of a Raft group do. Only one of them should lead at a time; which one
//! is the business of whoever drives the faults. A transaction takes a while to be committed and a while to be answered,
//! so that a change of leadership meets some of both kinds: they end as [`MetadataError::Unknown`] (M2).

use std::fmt;
use std::sync::Arc;

use bifrost_metadata::MemoryMetadata;
use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, sleep};

use super::spawn;
use crate::history::History;
use crate::truth::{Truth, writes_chain};

/// Changes that wait for a watcher.
const QUEUED: usize = 64;

/// One host's door to a keyspace. Clones are the same door.
#[derive(Clone)]
pub struct ObservedMetadata {
    keyspace: MemoryMetadata,
    truth: Truth,
    history: History,
    door: Arc<Door>,
}

struct Door {
    name: String,
    term: watch::Sender<Term>,
    /// The number of the write of a chain in which it loses its leadership, counted down.
    deposed_at: Mutex<Option<u32>>,
    draws: Mutex<Draws>,
}

struct Draws {
    rng: SmallRng,
    latency_max: Duration,
}

/// A time in which a host leads, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    number: u64,
    leads: bool,
}

impl fmt::Debug for ObservedMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = *self.door.term.borrow();
        f.debug_struct("ObservedMetadata").field("name", &self.door.name).field("term", &term).finish_non_exhaustive()
    }
}

impl ObservedMetadata {
    /// The door of the host `name`, which does not lead yet. Calls take no time until
    /// [`set_latency`](Self::set_latency).
    pub fn new(name: impl Into<String>, truth: Truth, history: History, seed: u64) -> Self {
        let draws = Draws { rng: SmallRng::seed_from_u64(seed), latency_max: Duration::ZERO };
        let term = watch::Sender::new(Term { number: 0, leads: false });
        let door = Door { name: name.into(), term, deposed_at: Mutex::new(None), draws: Mutex::new(draws) };
        Self { keyspace: truth.keyspace(), truth, history, door: Arc::new(door) }
    }

    /// From now on it serves.
    pub fn lead(&self) {
        self.change(true);
    }

    /// From now on it refuses. What is under way is committed or not, and not answered; watches end.
    pub fn step_down(&self) {
        self.change(false);
    }

    /// It steps down in the middle of a write of a chain, after so many others. `None`: no more.
    pub fn depose_at(&self, after: Option<u32>) {
        *self.door.deposed_at.lock() = after;
    }

    /// Whether it serves.
    pub fn leads(&self) -> bool {
        self.term().leads
    }

    /// The longest time until a call is carried out, and until it is answered after that.
    pub fn set_latency(&self, most: Duration) {
        self.door.draws.lock().latency_max = most;
    }

    fn change(&self, leads: bool) {
        let changed = self.door.term.send_if_modified(|term| {
            let changed = term.leads != leads;
            *term = Term { number: term.number + u64::from(changed), leads };
            changed
        });
        if changed {
            let what = if leads { "leads" } else { "steps down" };
            self.history.note(format!("metadata: {} {what}", self.door.name));
        }
    }

    /// Counts a write of a chain, and steps down if it is the one.
    fn count(&self, txn: &Txn) {
        if !writes_chain(txn) {
            return;
        }
        let mut deposed_at = self.door.deposed_at.lock();
        match *deposed_at {
            Some(0) => {
                *deposed_at = None;
                drop(deposed_at);
                self.step_down();
            }
            Some(left) => *deposed_at = Some(left - 1),
            None => {}
        }
    }

    fn term(&self) -> Term {
        *self.door.term.borrow()
    }

    fn enter(&self) -> Result<Term, MetadataError> {
        let term = self.term();
        if term.leads { Ok(term) } else { Err(MetadataError::Unavailable) }
    }

    /// Waits a while; says whether this is still the same term.
    async fn travel(&self, term: Term) -> bool {
        let latency = {
            let mut draws = self.door.draws.lock();
            let most = draws.latency_max;
            if most.is_zero() { most } else { draws.rng.random_range(Duration::ZERO..=most) }
        };
        if !latency.is_zero() {
            sleep(latency).await;
        }
        self.term() == term
    }

    /// A read, or refused: it changes nothing, so that is certain.
    async fn look<T>(&self, read: BoxFuture<'_, Result<T, MetadataError>>) -> Result<T, MetadataError> {
        let term = self.enter()?;
        if !self.travel(term).await {
            return Err(MetadataError::Unavailable);
        }
        let answer = read.await;
        if self.travel(term).await { answer } else { Err(MetadataError::Unavailable) }
    }
}

/// Waits until a term is over.
async fn ended(terms: &mut watch::Receiver<Term>, term: Term) {
    // If the door itself is gone, nobody serves either.
    let _now = terms.wait_for(|now| *now != term).await;
}

impl MetadataStore for ObservedMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(self.look(self.keyspace.get(key)))
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(self.look(self.keyspace.list(prefix, after, limit)))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            let term = self.enter()?;
            self.count(&txn);
            if !self.travel(term).await {
                // Its entry reached enough others, or not: the next leader commits it, or not.
                let reached = self.door.draws.lock().rng.random_bool(0.5);
                if reached {
                    let _nobody_hears = self.truth.commit(&txn);
                }
                return Err(MetadataError::Unknown);
            }
            let outcome = self.truth.commit(&txn);
            if self.travel(term).await { outcome } else { Err(MetadataError::Unknown) }
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            let term = self.enter()?;
            let mut back = self.look(self.keyspace.watch(prefix, after)).await?;
            let (caller, changes) = mpsc::channel(QUEUED);
            let mut terms = self.door.term.subscribe();
            spawn(async move {
                loop {
                    let item = tokio::select! {
                        biased;
                        () = caller.closed() => return,
                        () = ended(&mut terms, term) => return,
                        item = back.recv() => item,
                    };
                    let Some(item) = item else { return };
                    if caller.send(item).await.is_err() {
                        return;
                    }
                }
            });
            Ok(changes)
        })
    }
}
