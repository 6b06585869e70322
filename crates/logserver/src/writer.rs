//! The driver of all copies: everything that waits becomes one group, one write, one fsync (L2).
//!
//! One loop: look at the disk → take what waits → step the copies → commit the group → publish and answer. While a commit
//! runs the queues fill, so groups grow with the load by themselves and a lone store waits for nobody.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bifrost_types::limits::{GROUP_BYTES, MESSAGE_BYTES_MAX};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletId, LogletOffset, OpId};
use bifrost_wire::log_server::{CopyError, CopyState, StoreReply};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::copy::{self, CopyCore, Decision, DurableState, RepairFacts, StoreFacts};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::published::{Published, Shown};
use crate::space::Demand;
use crate::store::{Change, Chunk, Group, LogStore, PlacedBatch, StoreError};

/// Commands of one group at most: bounds the time between two commits when they are tiny.
const GROUP_COMMANDS: usize = 8192;
/// Bytes read back at most to compare a request with what is stored. A request with more than that behind it does not
/// hold the same bytes.
const COMPARE_BYTES: usize = 2 * MESSAGE_BYTES_MAX;

/// The reply half of a store stream.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: u64,
    pub(crate) replies: mpsc::Sender<StoreReply>,
    /// Cancelled when the peer leaves its replies untaken.
    pub(crate) gone: CancellationToken,
}

/// Batches of a sequencer, decoded and verified, or why they cannot be stored.
#[derive(Debug)]
pub(crate) struct StoreCommand {
    pub(crate) peer: Arc<Peer>,
    pub(crate) loglet: LogletId,
    pub(crate) facts: StoreFacts,
    pub(crate) batches: Result<Vec<PlacedBatch>, CopyError>,
    /// Room in the queue, given back when the command is dropped.
    pub(crate) room: OwnedSemaphorePermit,
}

/// What else a copy can be told.
#[derive(Debug)]
pub(crate) enum Call {
    Seal {
        op: OpId,
    },
    Repair {
        facts: RepairFacts,
        batches: Vec<PlacedBatch>,
        room: OwnedSemaphorePermit,
    },
    Settle {
        op: OpId,
        decided_tail: LogletOffset,
    },
    Trim {
        trim_point: LogletOffset,
    },
    Attest {
        whole_tail: LogletOffset,
    },
    /// Somebody follows from now on: whoever sequences the loglet is to say how far it is committed.
    Follow,
}

/// A call and who waits for it.
#[derive(Debug)]
pub(crate) struct CallCommand {
    pub(crate) loglet: LogletId,
    pub(crate) call: Call,
    pub(crate) reply: oneshot::Sender<Result<CopyState, CopyError>>,
}

/// What waits in front of the writer. Calls go first: a seal must not wait behind the stores that it ends.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) calls: mpsc::Receiver<CallCommand>,
    pub(crate) stores: mpsc::Receiver<StoreCommand>,
    /// Rung once a while, so that an idle writer looks at the disk. The writer itself sets no timer: its thread may outlive
    /// the runtime.
    pub(crate) looks: Arc<Notify>,
}

enum Command {
    Call(CallCommand),
    Store(StoreCommand),
}

/// What an idle writer wakes up for.
enum Wake {
    Command(Command),
    /// Time for a look at the disk.
    Look,
    Stopped,
}

struct Loglet {
    core: CopyCore,
    published: Arc<watch::Sender<Shown>>,
    /// The stream that stored last.
    stored_by: Weak<Peer>,
}

/// Answers to one stream about one loglet, in order. Neighbouring successes are one answer: they are cumulative.
struct Answers {
    peer: Arc<Peer>,
    outcomes: Vec<Result<(), CopyError>>,
}

/// Who waits for a call, and whether it was refused.
struct Caller {
    loglet: LogletId,
    reply: oneshot::Sender<Result<CopyState, CopyError>>,
    outcome: Result<(), CopyError>,
}

/// Owns every copy of a server.
pub(crate) struct Writer<S> {
    store: Arc<S>,
    published: Arc<Published>,
    metrics: Metrics,
    /// `None` for a store that cannot run full.
    guard: Option<Guard>,
    loglets_max: usize,
    loglets: BTreeMap<LogletId, Loglet>,
    group: Group,
    /// Loglets that changed since the last commit, and whether their state goes into the group.
    touched: BTreeMap<LogletId, bool>,
    /// Drops of what is trimmed, for the group after the one that makes the trim point durable: a reader that misses a
    /// record because it was dropped must find the trim point published.
    drops: Vec<Change>,
    /// Drops that a full disk refused; they go into the next group that anybody causes, or the next look.
    postponed: Vec<Change>,
    /// Whether the last group was refused by a full disk: that is logged once, not with every try.
    refusing: bool,
    answers: BTreeMap<(u64, LogletId), Answers>,
    callers: Vec<Caller>,
}

impl<S: LogStore> Writer<S> {
    /// A writer that knows what the store knows.
    pub(crate) async fn recover(
        store: Arc<S>,
        published: Arc<Published>,
        metrics: Metrics,
        loglets_max: usize,
    ) -> Result<Self, StoreError> {
        let mut loglets = BTreeMap::new();
        let mut group = Group::default();
        for recovered in store.recover().await? {
            let core = CopyCore::recovered(recovered.state);
            let sender = published.sender(recovered.loglet);
            sender.send_replace(Shown::from(&core));
            loglets.insert(recovered.loglet, Loglet { core, published: sender, stored_by: Weak::new() });
            // A crash may have come between a trim and the drop of what it trimmed.
            if let Some(change) = recovered.state.trim_point.and_then(|point| drop_trimmed(recovered.loglet, point)) {
                group.push(change);
            }
        }
        metrics.loglets.set(loglets.len() as f64);
        published.promised.store(loglets.len() as u64, Ordering::Relaxed);
        let mut guard = store.space().map(|space| Guard::new(space, Arc::clone(&published), metrics.clone()));
        if let (Some(guard), Some(space)) = (&mut guard, store.space()) {
            guard.look(space);
        }
        Ok(Self {
            store,
            published,
            metrics,
            guard,
            loglets_max,
            loglets,
            group,
            touched: BTreeMap::new(),
            drops: Vec::new(),
            postponed: Vec::new(),
            refusing: false,
            answers: BTreeMap::new(),
            callers: Vec::new(),
        })
    }

    /// Runs until `stop` is cancelled and everything that was queued is answered, or until the store fails: then the
    /// queues are dropped, which closes every stream and call.
    pub(crate) async fn run(mut self, mut queues: Queues, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            if self.group.is_empty() {
                let wake = queues.wait(&stop).await;
                self.look();
                std::mem::take(&mut self.postponed).into_iter().for_each(|change| self.group.push(change));
                match wake {
                    Wake::Command(command) => self.step(command).await?,
                    Wake::Look => {}
                    Wake::Stopped => return Ok(()),
                }
            } else {
                self.look();
            }
            let mut commands = 1;
            while self.group.bytes() < GROUP_BYTES && commands < GROUP_COMMANDS {
                match queues.take() {
                    Some(command) => self.step(command).await?,
                    None => break,
                }
                commands += 1;
            }
            self.commit().await?;
        }
    }

    /// Before each group: how much may be let into it.
    fn look(&mut self) {
        if let (Some(guard), Some(space)) = (&mut self.guard, self.store.space()) {
            guard.look(space);
        }
    }

    /// Refuses batches that would reach into what is reserved for smaller writes.
    fn admit(&mut self, demand: Demand, batches: &[PlacedBatch]) -> Result<(), CopyError> {
        let bytes = batches.iter().map(|batch| batch.bytes().len() as u64).fold(0, u64::saturating_add);
        let admitted = bytes == 0 || self.guard.as_mut().is_none_or(|guard| guard.admit(demand, bytes));
        if admitted { Ok(()) } else { Err(CopyError::DiskFull) }
    }

    async fn step(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Store(command) => self.on_store(command).await,
            Command::Call(command) => self.on_call(command).await,
        }
    }

    async fn on_store(&mut self, command: StoreCommand) -> Result<(), StoreError> {
        let StoreCommand { peer, loglet, facts, batches, room } = command;
        let silent = batches.as_ref().is_ok_and(Vec::is_empty);
        // A sequencer must hear of a seal also from a full disk, so that is looked at first.
        let known = self.loglets.get(&loglet);
        let checked = known.map_or(Ok(()), |known| known.core.check_sequencer(facts.sequencer));
        let admitted = batches.and_then(|batches| {
            checked.and_then(|()| self.admit(Demand::Store, &batches))?;
            Ok(batches)
        });
        let outcome = match admitted {
            Ok(batches) => {
                self.place(loglet, batches, |core, batches, found| core.store(facts, batches, found)).await?
            }
            Err(error) => Err(error),
        };
        drop(room);
        if silent && outcome.is_ok() {
            return Ok(());
        }
        if outcome.is_ok()
            && let Some(known) = self.loglets.get_mut(&loglet)
        {
            known.stored_by = Arc::downgrade(&peer);
        }
        let key = (peer.id, loglet);
        let answers = self.answers.entry(key).or_insert_with(|| Answers { peer, outcomes: Vec::new() });
        if outcome.is_err() || answers.outcomes.last().is_none_or(Result::is_err) {
            answers.outcomes.push(outcome);
        }
        Ok(())
    }

    async fn on_call(&mut self, command: CallCommand) -> Result<(), StoreError> {
        let CallCommand { loglet, call, reply } = command;
        let outcome = match call {
            Call::Seal { op } => self.change(loglet, |core| Ok(core.seal(op))).map(drop),
            Call::Repair { facts, batches, room } => {
                let outcome = match self.admit(Demand::Repair, &batches) {
                    Ok(()) => {
                        self.place(loglet, batches, |core, batches, found| core.repair(facts, batches, found)).await?
                    }
                    Err(error) => Err(error),
                };
                drop(room);
                outcome
            }
            Call::Settle { op, decided_tail } => self.on_settle(loglet, op, decided_tail),
            Call::Attest { whole_tail } => self.change(loglet, |core| Ok(core.attest(whole_tail))).map(drop),
            Call::Trim { trim_point } => self.change(loglet, |core| core.trim(trim_point)).map(|change| {
                if change == copy::Change::Changed {
                    self.drops.extend(drop_trimmed(loglet, trim_point));
                }
            }),
            Call::Follow => {
                if let Some(peer) = self.loglets.get(&loglet).and_then(|known| known.stored_by.upgrade()) {
                    self.reply(&peer, StoreReply { loglet, outcome: None, followed: true });
                }
                Ok(())
            }
        };
        self.callers.push(Caller { loglet, reply, outcome });
        Ok(())
    }

    fn on_settle(&mut self, loglet: LogletId, op: OpId, decided_tail: LogletOffset) -> Result<(), CopyError> {
        match self.change(loglet, |core| core.settle(op, decided_tail)) {
            Ok(copy::Change::Changed) => {
                // S5: in the same group as the decided tail, so no crash can leave garbage behind a known end.
                self.group.push(Change::DropFrom { loglet, offset: decided_tail });
                Ok(())
            }
            Ok(copy::Change::Unchanged) => Ok(()),
            Err(error) => {
                let state = self.published.state(loglet);
                tracing::error!(%loglet, %op, %decided_tail, ?state, "a decided tail contradicts what is known here");
                self.metrics.contradictions.increment(1);
                Err(error)
            }
        }
    }

    /// Runs a decision that is not about batches.
    fn change(
        &mut self,
        loglet: LogletId,
        decide: impl FnOnce(&mut CopyCore) -> Result<copy::Change, CopyError>,
    ) -> Result<copy::Change, CopyError> {
        let change = self.decide(loglet, decide)?;
        if change == copy::Change::Changed {
            self.touched.insert(loglet, true);
        }
        Ok(change)
    }

    /// Runs a decision about batches and stages what it wants written.
    async fn place(
        &mut self,
        loglet: LogletId,
        batches: Vec<PlacedBatch>,
        decide: impl Fn(&mut CopyCore, &[PlacedBatch], Option<&Chunk>) -> Result<Decision, CopyError>,
    ) -> Result<Result<(), CopyError>, StoreError> {
        let mut decision = self.decide(loglet, |core| decide(core, &batches, None));
        if let Ok(Decision::Compare { from, until }) = decision {
            // What is staged cannot be read yet, so it becomes durable first. Rare: only what is sent twice, or
            // backfilled, comes here.
            self.commit().await?;
            let found = self.store.read(loglet, from, until, COMPARE_BYTES).await?;
            decision = self.decide(loglet, |core| decide(core, &batches, Some(&found)));
        }
        let wanted = match decision {
            Ok(Decision::WriteAll) => None,
            Ok(Decision::Write(indexes)) => Some(indexes),
            Ok(Decision::Nothing) => {
                // News of the committed tail is published, and becomes durable with the next write.
                self.touched.entry(loglet).or_insert(false);
                return Ok(Ok(()));
            }
            // A core that was told what is stored decides; this arm cannot be reached.
            Ok(Decision::Compare { from, .. }) => return Ok(Err(CopyError::Conflict { offset: from })),
            Err(error) => {
                if let CopyError::Conflict { offset } = error {
                    tracing::error!(%loglet, %offset, "other bytes are stored at this offset, the store is refused");
                }
                return Ok(Err(error));
            }
        };
        for (index, batch) in batches.into_iter().enumerate() {
            if wanted.as_ref().is_none_or(|indexes| indexes.binary_search(&index).is_ok()) {
                self.group.push(Change::Append { loglet, batch });
            }
        }
        self.touched.insert(loglet, true);
        Ok(Ok(()))
    }

    /// Steps one copy. A loglet that was not known comes to be only if that changed something.
    fn decide<T>(
        &mut self,
        loglet: LogletId,
        decide: impl FnOnce(&mut CopyCore) -> Result<T, CopyError>,
    ) -> Result<T, CopyError> {
        if let Some(known) = self.loglets.get_mut(&loglet) {
            let decided = decide(&mut known.core);
            #[cfg(test)]
            known.core.check();
            return decided;
        }
        let mut core = CopyCore::default();
        let decided = decide(&mut core)?;
        if core != CopyCore::default() {
            // L6: whoever names loglets that no chain knows uses up no more than this.
            if self.loglets.len() >= self.loglets_max {
                return Err(CopyError::TooManyLoglets);
            }
            self.metrics.loglets.increment(1.0);
            self.published.promised.fetch_add(1, Ordering::Relaxed);
            let published = self.published.sender(loglet);
            self.loglets.insert(loglet, Loglet { core, published, stored_by: Weak::new() });
        }
        Ok(decided)
    }

    /// Makes everything staged durable, publishes it and answers. A full disk is an answer; any other failure of the
    /// store is the end.
    async fn commit(&mut self) -> Result<(), StoreError> {
        for (loglet, _) in self.touched.iter().filter(|(_, written)| **written) {
            if let Some(known) = self.loglets.get(loglet) {
                let mut state = *known.core.staged();
                if plant::is(Plant::SealNotDurable) && state.decided_tail.is_none() {
                    state = DurableState { seal: None, ..state };
                }
                self.group.push(Change::Put { loglet: *loglet, state });
            }
        }
        let mut group = std::mem::take(&mut self.group);
        let acknowledged_first = plant::is(Plant::AcknowledgedBeforeFsync) && self.callers.is_empty();
        let late = acknowledged_first.then(|| std::mem::take(&mut group));
        let dropped: Vec<Change> = group.changes().iter().filter(|change| is_drop(change)).cloned().collect();
        let full = match self.write(group).await {
            Ok(()) => false,
            Err(StoreError::Full) => {
                // Nobody repeats the drop of what is trimmed. Garbage above a decided tail is dropped by whoever
                // repeats the settle.
                self.postponed.extend(dropped.iter().filter(|drop| matches!(drop, Change::DropBelow { .. })).cloned());
                true
            }
            Err(error) => {
                self.answer(|_| Err(CopyError::Stopping));
                return Err(error);
            }
        };
        let touched = std::mem::take(&mut self.touched);
        for (loglet, written) in &touched {
            let Some(known) = self.loglets.get_mut(loglet) else { continue };
            match (written, full) {
                (true, false) => known.core.on_durable(),
                (true, true) => known.core.on_refused(),
                (false, _) => {}
            }
            #[cfg(test)]
            known.core.check();
            let shown = Shown::from(&known.core);
            known.published.send_if_modified(|published| std::mem::replace(published, shown) != shown);
        }
        let drops = std::mem::take(&mut self.drops);
        if full && !self.refusing {
            tracing::warn!(loglets = touched.len(), "the file system is full, groups are refused");
        }
        self.refusing = full;
        if !full {
            drops.into_iter().for_each(|change| self.group.push(change));
            if let (false, Some(guard), Some(space)) = (dropped.is_empty(), &mut self.guard, self.store.space()) {
                guard.dropped(space);
            }
        }
        let published = Arc::clone(&self.published);
        self.answer(|loglet| {
            if full && touched.get(&loglet) == Some(&true) {
                Err(CopyError::DiskFull)
            } else {
                Ok(published.state(loglet))
            }
        });
        match late {
            Some(late) => self.write(late).await,
            None => Ok(()),
        }
    }

    async fn write(&self, group: Group) -> Result<(), StoreError> {
        if group.is_empty() {
            return Ok(());
        }
        self.metrics.group_bytes.record(group.bytes() as f64);
        self.metrics.group_batches.record(group.batches() as f64);
        let bytes = group.bytes() as u64;
        let started = Instant::now();
        let mut outcome = self.store.commit(group).await;
        if plant::is(Plant::FsyncRetried) && matches!(outcome, Err(StoreError::Failed { .. })) {
            outcome = self.store.commit(Group::default()).await;
        }
        self.metrics.commit_seconds.record(started.elapsed());
        if outcome.is_ok() {
            self.published.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        outcome
    }

    fn answer(&mut self, success: impl Fn(LogletId) -> Result<CopyState, CopyError>) {
        for Caller { loglet, reply, outcome } in std::mem::take(&mut self.callers) {
            let outcome = outcome.and_then(|()| success(loglet));
            let _ = outcome.inspect_err(|error| self.metrics.refused(*error));
            // A caller that went away has its answer in the state.
            let _ = reply.send(outcome);
        }
        for ((_, loglet), Answers { peer, outcomes }) in std::mem::take(&mut self.answers) {
            for outcome in outcomes {
                let outcome = outcome.and_then(|()| success(loglet));
                let _ = outcome.inspect_err(|error| self.metrics.refused(*error));
                let followed = self.loglets.get(&loglet).is_some_and(|known| known.published.receiver_count() > 0);
                self.reply(&peer, StoreReply { loglet, outcome: Some(outcome), followed });
            }
        }
    }

    /// Never waits: one peer that does not read must not stop the others.
    fn reply(&self, peer: &Peer, reply: StoreReply) {
        if !peer.gone.is_cancelled() && peer.replies.try_send(reply).is_err() {
            if !peer.replies.is_closed() {
                tracing::warn!(stream = peer.id, "a store stream takes no replies and is dropped");
                self.metrics.dropped_streams.increment(1);
            }
            peer.gone.cancel();
        }
    }
}

impl Queues {
    /// What waits, without waiting for it.
    fn take(&mut self) -> Option<Command> {
        self.calls.try_recv().map(Command::Call).or_else(|_| self.stores.try_recv().map(Command::Store)).ok()
    }

    /// The next command; after `stop` those that are queued, and then the end.
    async fn wait(&mut self, stop: &CancellationToken) -> Wake {
        let mut closed = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !closed => {
                    self.calls.close();
                    self.stores.close();
                    closed = true;
                }
                Some(command) = self.calls.recv() => return Wake::Command(Command::Call(command)),
                Some(command) = self.stores.recv() => return Wake::Command(Command::Store(command)),
                () = self.looks.notified(), if !closed => return Wake::Look,
                else => return Wake::Stopped,
            }
        }
    }
}

const fn is_drop(change: &Change) -> bool {
    matches!(change, Change::DropBelow { .. } | Change::DropFrom { .. })
}

fn drop_trimmed(loglet: LogletId, trim_point: LogletOffset) -> Option<Change> {
    trim_point.advance(1).ok().map(|offset| Change::DropBelow { loglet, offset })
}
