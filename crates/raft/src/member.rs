//! One member: Raft with its disk, its state machine, the messages of others, and those who ask for something.
//!
//! ```text
//!  txn ──► room, queue ─► proposer ─► openraft ─► log store ─► disk
//!  get, list, watch ─► reads ───────────┤  ▲  └─► network ─► peers
//!                        │              │  └───── inbound ◄─ peers
//!                        └─► keyspace ◄─┴─ state machine
//! ```

mod election;
mod proposer;
mod reads;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bifrost_metadata::keyspace::{TXN_BYTES_MAX, txn_bytes, validate};
use bifrost_metadata::{Live, MetadataError, Txn, TxnOutcome, Versioned, Write};
use bifrost_turns::take_short_turns;
use bifrost_types::limits::{MESSAGE_BYTES_MAX, METADATA_TXN_ITEMS_MAX};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::error::{ChangeMembershipError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{ChangeMembers, Config, ConfigError, Raft, RaftMetrics, SnapshotPolicy};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codec::{ADDRESS_BYTES_MAX, CHUNK_BYTES_MAX, MEMBERS_MAX};
use crate::disk::{Disk, DiskError, Owner};
use crate::inbound::Inbound;
use crate::log::Shape;
use crate::machine::{self, Witness};
use crate::network::Network;
use crate::options::{InvalidOptions, RaftOptions, millis};
use crate::peers::Peers;
use crate::types::{Lineage, Member, MemberId, Types};
pub(crate) use election::Heard;
use election::{Election, Next};
use proposer::{Proposal, Proposer};
use reads::{READS_MAX, Reads, Waiter};
pub use status::{Role, Status};

/// Transactions that wait in front of the proposer; one more is refused.
const QUEUE: usize = 4096;
/// Bytes of keys and values that wait or are undecided.
const QUEUE_BYTES: u32 = 64 << 20;
/// What a message has besides keys and values of one transaction: some 20 bytes for each item, ids, counts.
const ENTRY_OVERHEAD_BYTES: usize = METADATA_TXN_ITEMS_MAX * 32 + 4096;
/// Bytes of the entries that stay in the log though a snapshot covers them.
const KEPT_BYTES: u64 = 4 << 20;

const _: () = {
    assert!(TXN_BYTES_MAX < QUEUE_BYTES as usize, "an empty queue takes the largest transaction");
    assert!(TXN_BYTES_MAX + ENTRY_OVERHEAD_BYTES <= MESSAGE_BYTES_MAX, "a message takes the largest transaction");
};

/// Why a member does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its times contradict each other.
    #[error("the options of the metadata member are not valid")]
    Options(#[from] InvalidOptions),
    /// openraft refuses the times.
    #[error("openraft refuses its configuration")]
    Config(#[source] Box<ConfigError>),
    /// What is on the disk is not whole, or not this member's.
    #[error("the log of the metadata member cannot be used; keep it for a look")]
    Disk(#[from] DiskError),
    /// openraft does not begin with what is on the disk.
    #[error("openraft does not start")]
    Raft(#[source] Box<Fatal<MemberId>>),
    /// The database does not open.
    #[cfg(feature = "rocksdb")]
    #[error("the database of the metadata member does not open")]
    Open(#[from] crate::engine::rocks::RocksOpenError),
    /// No thread or no runtime for it.
    #[error("there is no thread for the metadata member")]
    Thread(#[from] std::io::Error),
}

impl StartError {
    /// Whether what was acknowledged is missing or cannot be read: another attempt fails as well, and the votes of the
    /// member are not to be counted any more.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_damage(),
            #[cfg(feature = "rocksdb")]
            Self::Open(error) => error.is_damage(),
            Self::Options(_) | Self::Config(_) | Self::Raft(_) | Self::Thread(_) => false,
        }
    }
}

/// Why the group was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    /// Another member leads, if one is known. Ask that one.
    #[error("this metadata member does not lead, {leader:?} does")]
    NotLeader {
        /// Who leads.
        leader: Option<MemberId>,
    },
    /// Another change is not finished. Try again.
    #[error("another change of the metadata group is not finished")]
    InProgress,
    /// The group would have no voter.
    #[error("the last voter of the metadata group cannot be removed")]
    LastVoter,
    /// There is no such member.
    #[error("{member:?} is not a member of the metadata group")]
    NoMember {
        /// The member.
        member: MemberId,
    },
    /// Too many members, or an address that is too long.
    #[error("the metadata group takes {MEMBERS_MAX} members with addresses of up to {ADDRESS_BYTES_MAX} bytes")]
    TooLarge,
    /// The log is not empty: this member is part of a group.
    #[error("this metadata member belongs to a group already")]
    Initialized,
    /// The first members of a group do not contain the one that was asked.
    #[error("the metadata group must contain the member that begins it")]
    WithoutMe,
    /// No outcome in time: the change may be made, or half made. Look at the status.
    #[error("the change of the metadata group did not end in time")]
    DeadlinePassed,
    /// The member has stopped.
    #[error("the metadata member has stopped")]
    Stopped,
}

/// A running member. It lives as long as [`run`](Self::run).
pub(crate) struct RunningMember {
    options: RaftOptions,
    raft: Raft<Types>,
    live: Arc<Mutex<Live>>,
    pub(crate) inbound: Inbound,
    heard: Arc<Heard>,
    network: Network,
    proposals: mpsc::Sender<Proposal>,
    room: Arc<Semaphore>,
    reads: mpsc::Sender<Waiter>,
    publish: watch::Sender<Status>,
    pub(crate) status: watch::Receiver<Status>,
    shape: Arc<Mutex<Shape>>,
    grown: Arc<Notify>,
    /// Cancelled when the disk failed. The disk itself belongs to openraft's tasks, and goes with them.
    failed: CancellationToken,
    /// Cancelled when the group was recovered without this member.
    pub(crate) replaced: CancellationToken,
    pub(crate) lineage: Lineage,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl RunningMember {
    /// Starts a member on the runtime that polls this.
    pub(crate) async fn start(
        options: RaftOptions,
        disk: Disk,
        peers: Arc<dyn Peers>,
        witness: Option<Arc<dyn Witness>>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        options.validate()?;
        let config = Arc::new(config(&options).validate().map_err(|error| StartError::Config(Box::new(error)))?);
        if options.returning && disk.owner()?.is_none() {
            return Err(StartError::Disk(disk.fail(DiskError::Lost)));
        }
        let lineage = options.lineage.clone();
        let owner = Owner { cluster: options.cluster, member: options.member, lineage };
        let lineage = disk.identify(owner).await?;
        let (log, mut machine) = machine::open(&disk, options.member)?;
        machine.snapshot_after(options.snapshot_entries);
        if let Some(witness) = witness {
            machine.watch_by(witness);
        }
        let (shape, live, grown, failed) = (log.shape(), machine.live(), machine.grown(), disk.stopped());
        drop(disk);
        let tasks = TaskTracker::new();
        let replaced = CancellationToken::new();
        let network = Network {
            cluster: options.cluster,
            group: lineage.group,
            replaced: replaced.clone(),
            me: options.member,
            peers,
            pause: options.heartbeat,
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let raft = Raft::new(options.member, config, network.clone(), log, machine)
            .await
            .map_err(|error| StartError::Raft(Box::new(error)))?;
        let (publish, status) = watch::channel(status_of(&raft.metrics().borrow(), &options));
        let (proposals, queue) = mpsc::channel(QUEUE);
        let (reads, waiting) = mpsc::channel(READS_MAX);
        let proposer = Proposer {
            raft: raft.clone(),
            queue,
            held: None,
            status: status.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(proposer.run());
        let readers = Reads {
            raft: raft.clone(),
            queue: waiting,
            status: status.clone(),
            pause: options.heartbeat,
            deadline: options.request_timeout,
            stop: stop.clone(),
        };
        tasks.spawn(readers.run());
        let heard = Arc::new(Heard::new(options.lease));
        let (cluster, me) = (options.cluster, options.member);
        let inbound = {
            let (heard, shape) = (Arc::clone(&heard), Arc::clone(&shape));
            Inbound::new(cluster, lineage.clone(), me, raft.clone(), heard, status.clone(), shape)
        };
        let room = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
        Ok(Arc::new(Self {
            options,
            raft,
            live,
            inbound,
            heard,
            network,
            proposals,
            room,
            reads,
            publish,
            status,
            shape,
            grown,
            failed,
            replaced,
            lineage,
            stop,
            tasks,
        }))
    }

    /// Drives what openraft leaves to its user, until the member is stopped or its disk fails. Then it ends Raft.
    pub(crate) async fn run(&self) {
        let mut metrics = self.raft.metrics();
        let mut purged_for = None;
        let RaftOptions { heartbeat, turn, lease, .. } = self.options;
        let mut election = Election::new(lease, heartbeat, turn);
        let mut canvass: Option<BoxFuture<'_, bool>> = None;
        let mut missed = None;
        loop {
            let next = election.next(self.heard.now(), &self.status.borrow(), self.heard.signs());
            let look_at = match next {
                Next::Nothing => None,
                Next::LookAt(time) => Some(self.heard.at(time)),
                Next::Canvass => {
                    canvass = Some(Box::pin(self.canvass()));
                    None
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = self.failed.cancelled() => break,
                () = self.replaced.cancelled() => break,
                changed = metrics.changed() => {
                    let now = metrics.borrow_and_update().clone();
                    let over = changed.is_err() || now.running_state.is_err();
                    if now.snapshot != purged_for {
                        purged_for = now.snapshot;
                        self.purge(&now).await;
                    }
                    let mut status = status_of(&now, &self.options);
                    match status.role {
                        Role::Leader => status.missed = missed,
                        Role::Candidate => {}
                        Role::Follower | Role::Learner | Role::Stopped => missed = None,
                    }
                    self.publish.send_if_modified(|old| {
                        let differs = *old != status;
                        *old = status;
                        differs
                    });
                    if over {
                        break;
                    }
                }
                () = self.grown.notified() => {
                    // A member that has stopped is seen above.
                    let _stopped = self.raft.trigger().snapshot().await;
                }
                would_win = answered(&mut canvass) => {
                    canvass = None;
                    let (now, signs) = (self.heard.now(), self.heard.signs());
                    let leader = self.status.borrow().leader;
                    if election.canvassed(now, &self.status.borrow(), signs, would_win) {
                        missed = leader.map(|leader| (leader, self.heard.at(signs.last())));
                        tracing::info!(member = %self.options.member.get(), "nothing is heard of the leader, asking for votes");
                        // A member that has stopped is seen above.
                        let _stopped = self.elect().await;
                    }
                }
                () = until(look_at) => {}
            }
        }
        drop(canvass);
        self.stop.cancel();
        let _joined = self.raft.shutdown().await;
        self.publish.send_modify(|status| {
            status.role = Role::Stopped;
            status.leader = None;
        });
        self.tasks.close();
        self.tasks.wait().await;
        // Watchers learn that it is over: nothing is applied any more.
        *self.live.lock() = Live::default();
    }

    /// Whether a majority would vote for this member now, in each of the groups of voters that count.
    async fn canvass(&self) -> bool {
        let (me, voters, members) = {
            let status = self.status.borrow();
            (status.member, status.voters.clone(), status.members.clone())
        };
        let last = self.shape.lock().last;
        let others: BTreeSet<_> = voters.iter().flatten().copied().filter(|voter| *voter != me).collect();
        let ask = |voter: MemberId| {
            let member = members.get(&voter);
            async move {
                let asked = self.network.would_vote(voter, member?, last, self.options.turn).await;
                asked.is_ok_and(|would_vote| would_vote).then_some(voter)
            }
        };
        let mut asked: FuturesUnordered<_> = others.into_iter().map(ask).collect();
        let mut won = BTreeSet::from([me]);
        let is_majority =
            |voters: &BTreeSet<MemberId>, won: &BTreeSet<MemberId>| voters.intersection(won).count() > voters.len() / 2;
        loop {
            if voters.iter().all(|voters| is_majority(voters, &won)) {
                return true;
            }
            match asked.next().await {
                Some(would_vote) => won.extend(would_vote),
                None => return false,
            }
        }
    }

    /// Keeps the log short behind a snapshot, in entries and bytes; openraft counts entries only.
    async fn purge(&self, metrics: &RaftMetrics<MemberId, Member>) {
        let Some(covered) = metrics.snapshot else { return };
        let upto = self.shape.lock().purge_point(covered, KEPT_BYTES, self.options.kept_entries);
        if upto > 0 {
            let _stopped = self.raft.trigger().purge_log(upto).await;
        }
    }

    /// Commits a transaction, if this member leads.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<TxnOutcome, MetadataError> {
        validate(&txn)?;
        if !self.status.borrow().serves() {
            return Err(MetadataError::Unavailable);
        }
        let puts = txn.writes.iter().any(|(_, write)| matches!(write, Write::Put(_)));
        if puts && self.shape.lock().state_bytes_max() > self.options.state_bytes_max {
            tracing::warn!(
                limit = self.options.state_bytes_max,
                "the metadata group is full, a transaction is refused"
            );
            // What was removed since the last snapshot is counted still.
            self.grown.notify_one();
            return Err(MetadataError::Unavailable);
        }
        let bytes = u32::try_from(txn_bytes(&txn)).map_err(|_| MetadataError::TooLarge)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| MetadataError::Unavailable)?;
        let (reply, outcome) = oneshot::channel();
        self.proposals.try_send(Proposal { txn, reply, room }).map_err(|_| MetadataError::Unavailable)?;
        match timeout(self.options.request_timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(MetadataError::Unknown),
        }
    }

    /// Waits until what is applied here is at least as new as this call, if this member leads.
    pub(crate) async fn linearizable(&self) -> Result<(), MetadataError> {
        if !self.status.borrow().serves() {
            return Err(MetadataError::Unavailable);
        }
        let (reply, round) = oneshot::channel();
        self.reads.try_send(reply).map_err(|_| MetadataError::Unavailable)?;
        timeout(self.options.request_timeout, round)
            .await
            .map_err(|_| MetadataError::Unavailable)?
            .unwrap_or(Err(MetadataError::Unavailable))
    }

    /// What is applied. Read after [`linearizable`](Self::linearizable).
    pub(crate) fn read<T>(&self, read: impl FnOnce(&mut Live) -> Result<T, MetadataError>) -> Result<T, MetadataError> {
        if self.stop.is_cancelled() {
            return Err(MetadataError::Unavailable);
        }
        read(&mut self.live.lock())
    }

    /// What is applied of a key, here and now, if this member leads or has heard its leader lately. One that has not may have
    /// been left behind for good, by a group that was recovered without it.
    pub(crate) fn seen(&self, key: &str) -> Option<Versioned> {
        let is_led = self.status.borrow().serves() || self.heard.holds();
        let seen = || self.live.lock().get(key).ok().flatten();
        if is_led && !self.stop.is_cancelled() { seen() } else { None }
    }

    /// Begins a group of these members.
    pub(crate) async fn initialize(&self, members: BTreeMap<MemberId, Member>) -> Result<(), AdminError> {
        check(members.len(), members.values())?;
        self.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => AdminError::Initialized,
            RaftError::APIError(InitializeError::NotInMembers(_)) => AdminError::WithoutMe,
            RaftError::Fatal(_) => AdminError::Stopped,
        })
    }

    /// Adds a member: it learns until it has what the others have, then it votes. Doing it again goes on where it was.
    pub(crate) async fn add(&self, id: MemberId, member: Member, deadline: Duration) -> Result<(), AdminError> {
        let (known, voters) = {
            let status = self.status.borrow();
            (status.members.len(), status.voters.clone())
        };
        check(known + 1, [&member])?;
        if let [voters] = voters.as_slice()
            && voters.contains(&id)
        {
            return self.readdress(id, member, deadline).await;
        }
        let steps = async {
            self.raft.add_learner(id, member, false).await.map_err(refused)?;
            let mut status = self.status.clone();
            let target = status.borrow().last_log;
            let caught_up = |status: &Status| {
                status.leader != Some(status.member) || status.replicated.get(&id).is_some_and(|last| *last >= target)
            };
            let leader = status.wait_for(caught_up).await.map_err(|_| AdminError::Stopped)?.leader;
            if leader != Some(self.options.member) {
                return Err(AdminError::NotLeader { leader });
            }
            let voters = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            self.raft.change_membership(voters, true).await.map(drop).map_err(refused)
        };
        timeout(deadline, steps).await.unwrap_or(Err(AdminError::DeadlinePassed))
    }

    /// Tells the others where a member is now. That a message reaches the wrong one is no danger: it says whom it is for.
    async fn readdress(&self, id: MemberId, member: Member, deadline: Duration) -> Result<(), AdminError> {
        if self.status.borrow().members.get(&id) == Some(&member) {
            return Ok(());
        }
        let change = self.raft.change_membership(ChangeMembers::SetNodes(BTreeMap::from([(id, member)])), true);
        match timeout(deadline, change).await {
            Ok(changed) => changed.map(drop).map_err(refused),
            Err(_) => Err(AdminError::DeadlinePassed),
        }
    }

    /// Removes a member, voter or not. Removing one that is not there is success.
    pub(crate) async fn remove(&self, id: MemberId, deadline: Duration) -> Result<(), AdminError> {
        let (leads, leader, known, votes) = {
            let status = self.status.borrow();
            let votes = status.voters.iter().any(|voters| voters.contains(&id));
            (status.leader == Some(status.member), status.leader, status.members.contains_key(&id), votes)
        };
        if !leads {
            return Err(AdminError::NotLeader { leader });
        }
        if !known {
            return Ok(());
        }
        let id = BTreeSet::from([id]);
        let change = if votes { ChangeMembers::RemoveVoters(id) } else { ChangeMembers::RemoveNodes(id) };
        let change = self.raft.change_membership(change, false);
        match timeout(deadline, change).await {
            Ok(changed) => changed.map(drop).map_err(refused),
            Err(_) => Err(AdminError::DeadlinePassed),
        }
    }

    /// Asks for votes now.
    pub(crate) async fn elect(&self) -> Result<(), AdminError> {
        self.raft.trigger().elect().await.map_err(|_| AdminError::Stopped)
    }

    /// Makes a snapshot now.
    pub(crate) async fn snapshot(&self) -> Result<(), AdminError> {
        self.raft.trigger().snapshot().await.map_err(|_| AdminError::Stopped)
    }
}

/// Short turns for a thread of a member: elections wait for it, and every change of metadata.
pub(crate) fn short_turns() {
    if let Err(error) = take_short_turns() {
        tracing::debug!(%error, "a thread of the metadata member has turns of the usual length");
    }
}

/// What a canvass said; never, if there is none.
async fn answered(canvass: &mut Option<BoxFuture<'_, bool>>) -> bool {
    match canvass {
        Some(canvass) => canvass.await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn status_of(metrics: &RaftMetrics<MemberId, Member>, options: &RaftOptions) -> Status {
    Status::of(metrics, options.lease * 2)
}

fn check<'a>(members: usize, new: impl IntoIterator<Item = &'a Member>) -> Result<(), AdminError> {
    let fits = members <= MEMBERS_MAX && new.into_iter().all(|member| member.address.len() <= ADDRESS_BYTES_MAX);
    if fits { Ok(()) } else { Err(AdminError::TooLarge) }
}

fn refused(error: RaftError<MemberId, ClientWriteError<MemberId, Member>>) -> AdminError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            AdminError::NotLeader { leader: forward.leader_id }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => AdminError::InProgress,
            ChangeMembershipError::EmptyMembership(_) => AdminError::LastVoter,
            ChangeMembershipError::LearnerNotFound(error) => AdminError::NoMember { member: error.node_id },
        },
        RaftError::Fatal(_) => AdminError::Stopped,
    }
}

fn config(options: &RaftOptions) -> Config {
    Config {
        cluster_name: options.cluster.to_string(),
        heartbeat_interval: millis(options.heartbeat),
        election_timeout_min: millis(options.turn),
        election_timeout_max: millis(options.lease),
        install_snapshot_timeout: millis(options.snapshot_timeout),
        max_payload_entries: options.request_entries,
        snapshot_max_chunk_size: CHUNK_BYTES_MAX as u64,
        // So is when a snapshot is made, by bytes too.
        snapshot_policy: SnapshotPolicy::Never,
        // Who asks for votes, and when, is decided here.
        enable_elect: false,
        // What goes is decided here, by bytes too.
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    }
}
