//! A member of the metadata group: its disk, its part in Raft, and a listener of its own on a runtime of its own, so that no
//! load of data can starve an election.
//!
//! ```text
//!  members, nodes ═══► listener: Exchange (Raft), MetadataService, MetadataAdminService, LivenessService, health, reflection
//!                                   └──────────────┴──► RaftMetadata ─► RocksDB in the member's directory
//! ```

mod admin;
mod liveness;
#[cfg(all(test, feature = "cli"))]
mod tests;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifrost::liveness::Detector;
#[cfg(feature = "rocksdb")]
use bifrost_raft::GrpcPeers;
use bifrost_raft::{Lineage, Member, MemberId, PeersGrpc, RaftMetadata, RaftOptions, Role, StartError};
use bifrost_types::{ClusterId, NodeId};
use bifrost_wire::grpc::{
    ClientOptions, GrpcMetadataAdmin, HealthGrpc, Listener, LivenessGrpc, MetadataAdminGrpc, MetadataGrpc,
    ReflectionError, Routes, RoutesBuilder, ServeError, ServerLimits, add_reflection, serve,
};
use bifrost_wire::liveness::Liveness;
use bifrost_wire::metadata::MetadataStore;
use bifrost_wire::metadata_admin::MetadataAdmin;
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use self::admin::MemberAdmin;
use self::liveness::{MemberLiveness, detect};

/// Threads of the member's listener; Raft has its own.
const LISTENER_THREADS: usize = 2;
/// For a connection to another member, and for what is sent on it to be acknowledged: a link that is healed is to be used at
/// once, since the next member that is lost may be the one that a majority needed.
#[cfg(feature = "rocksdb")]
const PEER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long what the listener left running may go on.
const GRACE: Duration = Duration::from_secs(2);
/// For the request to another member to take over.
const ELECT_DEADLINE: Duration = Duration::from_secs(1);

/// What health checks may ask for by name.
const SERVICES: [&str; 3] = [
    MetadataGrpc::<dyn MetadataStore>::NAME,
    MetadataAdminGrpc::<dyn MetadataAdmin>::NAME,
    LivenessGrpc::<dyn Liveness>::NAME,
];

/// What a member is made of.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// The cluster; everybody else is refused.
    pub cluster: ClusterId,
    /// Its node, whose number it has.
    pub node: NodeId,
    /// Where the others reach it, `host:port`.
    pub address: String,
    /// Where it keeps its log.
    pub directory: PathBuf,
    /// The group that it is about to join, if its directory is empty. Otherwise the directory says which.
    pub lineage: Lineage,
    /// It has had a log: without one its votes are lost, and it does not start.
    pub returning: bool,
    /// Limits of its listener.
    pub server: ServerLimits,
    /// Options of its connections to other members.
    pub client: ClientOptions,
    /// What hears the signs of life of all nodes while it leads.
    pub detector: Detector,
}

/// Why a member did not start.
#[derive(Debug, Error)]
pub enum MemberError {
    /// Its log cannot be opened, or it does not take part in Raft.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The protocol cannot be described to tools.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    /// Its listener failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// There is no thread or no runtime for the listener.
    #[error("the listener of the metadata member has no thread")]
    Thread(#[source] io::Error),
}

/// A running member. It stops when this is dropped; [`shutdown`](Self::shutdown) tells when.
#[derive(Debug)]
pub struct MetadataMember {
    options: MemberOptions,
    raft: RaftMetadata,
    /// Health tells that it stops.
    stopping: CancellationToken,
    stop: CancellationToken,
    /// Fires when the listener is gone, if there was one.
    served: parking_lot::Mutex<Option<CancellationToken>>,
}

impl MetadataMember {
    /// Opens its log, made if there is none, and takes part in Raft. Nobody reaches it before [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`MemberError`]; nothing runs then.
    ///
    /// # Cancel safety
    /// Safe: what was started stops again.
    #[cfg(feature = "rocksdb")]
    pub async fn start(options: MemberOptions) -> Result<Self, MemberError> {
        let directory = options.directory.clone();
        let client = options.client.clone();
        let (connect_timeout, tcp_user_timeout) =
            (client.connect_timeout.min(PEER_TIMEOUT), client.tcp_user_timeout.min(PEER_TIMEOUT));
        let client = ClientOptions { cluster: None, connect_timeout, tcp_user_timeout, ..client };
        let peers = Arc::new(GrpcPeers::new(client));
        let raft = RaftOptions {
            lineage: options.lineage.clone(),
            returning: options.returning,
            ..RaftOptions::new(options.cluster, MemberId::from(options.node))
        };
        let raft = RaftMetadata::open(raft, directory, peers).await?;
        info!(node = %options.node, address = options.address, "metadata member runs");
        Ok(Self::over(options, raft))
    }

    /// What is served of a member that takes part in Raft already, whatever its disk is. `directory` is not looked at.
    pub fn over(options: MemberOptions, raft: RaftMetadata) -> Self {
        let (stopping, stop) = (CancellationToken::new(), CancellationToken::new());
        Self { options, raft, stopping, stop, served: parking_lot::Mutex::new(None) }
    }

    /// Serves as [`serve`](Self::serve) does, on the runtime of the caller: for the simulator, which owns the clock.
    ///
    /// # Errors
    /// [`MemberError`] when it cannot go on.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener; open connections end by themselves.
    pub async fn serve_here(&self, listener: impl Listener) -> Result<(), MemberError> {
        let (limits, cluster) = (&self.options.server, self.options.cluster);
        let detecting = detect(self.raft.clone(), self.options.detector.clone());
        let serving = serve(listener, self.routes()?, limits, Some(cluster), self.stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            biased;
            served = &mut serving => return Ok(served?),
            () = detecting => {}
        }
        Ok(serving.await?)
    }

    /// Serves the group and everybody who asks for metadata at this listener, on threads of its own.
    ///
    /// # Errors
    /// [`MemberError`]; nothing is served then.
    pub fn serve(&self, listener: TcpListener) -> Result<(), MemberError> {
        let routes = self.routes()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(LISTENER_THREADS)
            .thread_name("bifrost-member")
            .enable_all()
            .build()
            .map_err(MemberError::Thread)?;
        let (limits, cluster, stop) = (self.options.server.clone(), self.options.cluster, self.stop.clone());
        let detecting = detect(self.raft.clone(), self.options.detector.clone());
        let served = CancellationToken::new();
        let gone = served.clone().drop_guard();
        let run = move || {
            let _gone = gone;
            runtime.block_on(async move {
                let listener =
                    listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
                let listener = match listener {
                    Ok(listener) => listener,
                    Err(error) => return error!(%error, "the metadata member has no listener"),
                };
                let serving = async {
                    if let Err(error) = serve(listener, routes, &limits, Some(cluster), stop).await {
                        error!(%error, "the listener of the metadata member failed");
                    }
                };
                tokio::pin!(serving);
                tokio::select! {
                    biased;
                    () = &mut serving => return,
                    () = detecting => {}
                }
                serving.await;
            });
            runtime.shutdown_timeout(GRACE);
        };
        std::thread::Builder::new().name("bifrost-member-main".to_owned()).spawn(run).map_err(MemberError::Thread)?;
        *self.served.lock() = Some(served);
        Ok(())
    }

    fn routes(&self) -> Result<Routes, MemberError> {
        let limits = &self.options.server;
        let mut routes = RoutesBuilder::default();
        add_reflection(&mut routes, limits)?;
        let raft = Arc::new(self.raft.clone());
        PeersGrpc::new(Arc::clone(&raft), limits, self.stop.child_token()).add_to(&mut routes);
        MetadataGrpc::new(raft, limits, self.stop.child_token()).add_to(&mut routes);
        let client = ClientOptions { cluster: Some(self.options.cluster), ..self.options.client.clone() };
        let admin = MemberAdmin::new(self.options.cluster, self.options.node, self.raft.clone(), client);
        MetadataAdminGrpc::new(Arc::new(admin), self.stop.child_token()).add_to(&mut routes);
        let liveness = MemberLiveness::new(self.raft.clone(), self.options.detector.clone());
        LivenessGrpc::new(Arc::new(liveness), self.stop.child_token()).add_to(&mut routes);
        HealthGrpc::new(SERVICES.to_vec(), self.stopping.clone(), self.stop.child_token()).add_to(&mut routes);
        Ok(routes.routes())
    }

    /// What it was started with.
    pub const fn options(&self) -> &MemberOptions {
        &self.options
    }

    /// Its part in Raft.
    pub const fn raft(&self) -> &RaftMetadata {
        &self.raft
    }

    /// Who and where it is, for the others.
    pub fn member(&self) -> (MemberId, Member) {
        (MemberId::from(self.options.node), Member { address: self.options.address.clone() })
    }

    /// Stops: gives up the lead if it has it, leaves Raft, closes the listener and the disk.
    ///
    /// # Cancel safety
    /// Safe: call again to go on.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        let heir = self.heir();
        self.raft.shutdown().await;
        if let Some((node, heir)) = heir {
            self.hand_over(node, &heir).await;
        }
        self.stop.cancel();
        let served = self.served.lock().clone();
        if let Some(served) = served {
            served.cancelled().await;
        }
    }

    /// If this member leads: the other voter that has most of the log.
    fn heir(&self) -> Option<(MemberId, Member)> {
        let status = self.raft.status();
        if status.role != Role::Leader {
            return None;
        }
        let voters = status.voters.iter().flatten().filter(|voter| **voter != status.member);
        let heir = *voters.max_by_key(|voter| status.replicated.get(voter).copied().flatten())?;
        Some((heir, status.members.get(&heir)?.clone()))
    }

    /// Makes another member ask for votes before it misses the leader by itself. The library knows no other way: members
    /// refuse their votes until the last sign of life is `lease` old, so asking earlier would only cost a term.
    async fn hand_over(&self, node: MemberId, heir: &Member) {
        let lease = RaftOptions::new(self.options.cluster, node).lease;
        sleep(lease).await;
        let options = ClientOptions { cluster: Some(self.options.cluster), ..self.options.client.clone() };
        let Ok(admin) = GrpcMetadataAdmin::connect_lazy(&heir.address, &options) else { return };
        match timeout(ELECT_DEADLINE, admin.elect()).await {
            Ok(Ok(())) => info!(%node, "the lead of metadata was given up"),
            Ok(Err(error)) => debug!(%node, %error, "nobody took over the lead of metadata"),
            Err(_) => debug!(%node, "nobody took over the lead of metadata in time"),
        }
    }
}

impl Drop for MetadataMember {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
