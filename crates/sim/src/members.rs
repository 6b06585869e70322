//! The metadata group: production's members on hosts of their own, each with its disk.
//!
//! ```text
//!  host m1: listener ─► MetadataMember ─► RaftMetadata ─► MemberEngine ─► MemberDisk (what is not synced)
//!                                           │   └─ what it applies ─► Truth
//!                                           └─ FaultyPeers ═══ other members
//! ```

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bifrost::catalog::Catalog;
use bifrost::connect::GrpcConnect;
use bifrost::controller::ControllerOptions;
use bifrost::liveness::{Detector, LivenessOptions};
use bifrost::{Bifrost, Options};
use bifrost_metadata::Keyspace;
use bifrost_node::metadata_member::{MemberOptions, MetadataMember};
use bifrost_raft::machine::Witness;
use bifrost_raft::types::LogId;
use bifrost_raft::{GrpcPeers, Lineage, Member, MemberId, RaftMetadata, RaftOptions, Role, StartError, Status};
use bifrost_types::{ClusterId, NodeId};
use bifrost_wire::grpc::{ClientOptions, ServerLimits};
use bifrost_wire::metadata::Txn;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

pub use self::disk::{Ambush, MemberDisk, MemberEngine};
use crate::history::History;
use crate::network::{PORT, SimListener};
use crate::node::Ground;
use crate::plan::{Group, Plan};
use crate::transport::{FaultyPeers, Votes};
use crate::truth::Truth;

/// For another member to be added to the group.
const ADD_WITHIN: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// The members of a run; clones share them.
#[derive(Clone)]
pub struct Members {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    group: Group,
    hosts: Vec<String>,
    disks: BTreeMap<String, MemberDisk>,
    history: History,
    truth: Truth,
    votes: Votes,
    /// What each running member says of itself.
    lives: Mutex<BTreeMap<String, watch::Receiver<Status>>>,
    complete: AtomicBool,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("hosts", &self.shared.hosts).finish_non_exhaustive()
    }
}

impl Members {
    /// The members of a plan, if its metadata is a group. Their disks are empty.
    pub fn of(plan: &Plan, truth: &Truth, history: &History) -> Option<Self> {
        let group = plan.cluster.group.clone()?;
        let hosts = plan.metadata_hosts();
        let disks = (0..).zip(&hosts).map(|(place, host)| {
            (host.clone(), MemberDisk::new(host, plan.seed.wrapping_add(500 + place), history.clone()))
        });
        let shared = Shared {
            // Not zero.
            cluster: ClusterId::try_from(u128::from(plan.seed) + 1).ok()?,
            group,
            disks: disks.collect(),
            hosts,
            history: history.clone(),
            truth: truth.clone(),
            votes: Votes::new(truth.clone()),
            lives: Mutex::default(),
            complete: AtomicBool::new(false),
        };
        Some(Self { shared: Arc::new(shared) })
    }

    /// Where they are.
    pub fn hosts(&self) -> &[String] {
        &self.shared.hosts
    }

    /// The disk of a member.
    pub fn disk(&self, host: &str) -> Option<&MemberDisk> {
        self.shared.disks.get(host)
    }

    /// Whether all members vote.
    pub fn are_complete(&self) -> bool {
        self.shared.complete.load(Ordering::Relaxed)
    }

    /// The host of the member that leads in the latest term, by its own words.
    pub fn leader(&self) -> Option<String> {
        let lives = self.shared.lives.lock();
        let leaders = lives.iter().filter_map(|(host, status)| {
            let status = status.borrow();
            (status.role == Role::Leader).then(|| (status.term, host.clone()))
        });
        leaders.max().map(|(_, host)| host)
    }

    /// Nothing runs on this host any more.
    pub fn died(&self, host: &str) {
        self.shared.lives.lock().remove(host);
    }

    /// The living members that have not applied all that anybody has, or have stopped.
    pub fn behind(&self) -> BTreeSet<String> {
        let last = self.shared.truth.last_entry();
        let lives = self.shared.lives.lock();
        let behind = lives.iter().filter(|(_, status)| {
            let status = status.borrow();
            status.applied < last || status.role == Role::Stopped
        });
        behind.map(|(host, _)| host.clone()).collect()
    }

    fn id(&self, host: &str) -> Option<NodeId> {
        let place = self.shared.hosts.iter().position(|known| known == host)?;
        NodeId::try_from(u32::try_from(place).ok()?.checked_add(1)?).ok()
    }

    fn address(host: &str) -> String {
        format!("{host}:{PORT}")
    }

    async fn start(
        &self,
        host: &str,
        node: NodeId,
        engine: MemberEngine,
        ground: &Ground,
    ) -> Result<RaftMetadata, StartError> {
        let Shared { cluster, group, truth, votes, .. } = &*self.shared;
        let me = MemberId::from(node);
        votes.begins(me);
        let options = RaftOptions {
            snapshot_entries: group.snapshot_entries,
            kept_entries: group.kept_entries,
            request_entries: group.request_entries,
            returning: self.are_complete(),
            ..RaftOptions::new(*cluster, me)
        };
        let peers = Arc::new(GrpcPeers::new(ground.client_options()));
        let peers = FaultyPeers::new(host, me, peers, ground.faults.clone(), votes.clone());
        let watcher = Watcher { host: host.to_owned(), truth: truth.clone() };
        RaftMetadata::start_watched(options, Arc::new(engine), Arc::new(peers), Some(Arc::new(watcher))).await
    }

    /// Makes the group of a new cluster with this one member, unless there is one. Says whether it did.
    async fn begin(&self, raft: &RaftMetadata, id: MemberId, host: &str) -> bool {
        if raft.initialize([(id, Member { address: Self::address(host) })].into()).await.is_err() {
            return false;
        }
        let catalog = Catalog::new(Arc::new(raft.clone()));
        while catalog.cluster_id(self.shared.cluster).await.is_err() {
            sleep(PAUSE).await;
        }
        true
    }

    /// Adds the others.
    async fn complete(&self, raft: &RaftMetadata) {
        for host in self.shared.hosts.iter().skip(1) {
            let Some(node) = self.id(host) else { continue };
            let member = Member { address: Self::address(host) };
            while raft.add_member(MemberId::from(node), member.clone(), ADD_WITHIN).await.is_err() {
                sleep(PAUSE).await;
            }
        }
        self.shared.complete.store(true, Ordering::Relaxed);
    }

    /// Moves what silent nodes had while the member on this host leads, until the host dies.
    async fn control(&self, host: &str, detector: Detector, ground: &Ground) {
        let metadata = ground.metadata_from(host, &ground.metadata);
        let options = ClientOptions { cluster: Some(self.shared.cluster), ..ground.client_options() };
        let connect = ground.connect_from(host, Arc::new(GrpcConnect { options }));
        let bifrost = loop {
            match Bifrost::from_parts(metadata.clone(), connect.clone(), Options::default()).await {
                Ok(bifrost) => break bifrost,
                Err(_) => sleep(PAUSE).await,
            }
        };
        bifrost.use_detector(detector);
        bifrost.start_controller(None, ControllerOptions::default());
        std::future::pending().await
    }

    /// Tells what becomes of a member, until it stops.
    async fn follow(&self, host: &str, raft: &RaftMetadata) {
        let mut status = raft.watch_status();
        let mut term = None;
        loop {
            let now = status.borrow_and_update().clone();
            if now.role == Role::Leader && term != Some(now.term) {
                term = Some(now.term);
                self.shared.history.note(format!("metadata: {host} leads in term {}", now.term));
            }
            if now.role == Role::Stopped || status.changed().await.is_err() {
                break;
            }
        }
        self.stopped(host, "stops by itself");
    }

    /// A member is not there: its disk failed, or that is a finding.
    fn stopped(&self, host: &str, what: &str) {
        if self.disk(host).is_some_and(MemberDisk::has_failed) {
            self.shared.history.note(format!("metadata: {host} {what}: its disk failed"));
        } else {
            self.shared.truth.breach(format!("P5 the metadata member {host} {what}"));
        }
    }
}

/// Shows the truth what one member applies.
#[derive(Debug)]
struct Watcher {
    host: String,
    truth: Truth,
}

impl Witness for Watcher {
    fn applies(&self, id: LogId, txns: &[Txn]) {
        self.truth.applies(&self.host, id, txns);
    }

    fn installs(&self, keyspace: &Keyspace, applied: Option<LogId>) {
        self.truth.installs(&self.host, keyspace, applied);
    }
}

/// Runs a member until its host dies. The first one makes the group when there is none.
pub async fn member(host: String, members: Members, ground: Ground) -> turmoil::Result {
    let listener = SimListener::bind(&host).await?;
    let (Some(node), Some(disk)) = (members.id(&host), members.disk(&host)) else { return Ok(()) };
    let raft = match members.start(&host, node, disk.open(), &ground).await {
        Ok(raft) => raft,
        Err(error) => {
            let mut what = format!("does not start: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                what.push_str(&format!(": {error}"));
                cause = error.source();
            }
            members.stopped(&host, &what);
            return std::future::pending().await;
        }
    };
    members.shared.lives.lock().insert(host.clone(), raft.watch_status());
    let first = members.hosts().first() == Some(&host);
    let begun = first && members.begin(&raft, MemberId::from(node), &host).await;
    let detector = Detector::new(LivenessOptions::default());
    let options = MemberOptions {
        cluster: members.shared.cluster,
        node,
        address: Members::address(&host),
        directory: PathBuf::new(),
        lineage: Lineage::default(),
        returning: false,
        server: ServerLimits::default(),
        client: ground.client_options(),
        detector: detector.clone(),
    };
    let served = MetadataMember::over(options, raft.clone());
    let growing = async {
        if begun {
            members.complete(&raft).await;
        }
    };
    let (served, (), (), ()) = tokio::join!(
        served.serve_here(listener),
        growing,
        members.control(&host, detector, &ground),
        members.follow(&host, &raft)
    );
    served?;
    Ok(())
}
