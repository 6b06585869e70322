//! Starts the process of a node: asks the order for the next step, takes it, and tells the order what it led to.

use std::net::SocketAddr;
use std::sync::Arc;

use bifrost::catalog::Catalog;
use bifrost::liveness::{Detector, Farewell, send_beats};
use bifrost::local_node::Storage;
use bifrost::membership::Identity;
use bifrost::metadata_pool::MetadataPool;
use bifrost::{Options as BifrostOptions, fresh_op};
use bifrost_etcd::EtcdMetadata;
use bifrost_raft::owner_at;
use bifrost_types::ClusterId;
use bifrost_wire::grpc::ClientOptions;
use bifrost_wire::metadata::MetadataStore;
use bifrost_wire::metadata_admin::MetadataMember as WireMember;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::error::ProcessError;
use super::lead::{self, ElectedLiveness};
use super::order::{MemberStart, Order, Outcome, Step, View, Wanted};
use super::state::{NodeDirectory, NodeState};
use super::tended::Tended;
use super::{LOG_SERVER, METADATA, Process, ProcessOptions, blocking, etcd, group, keep_addresses, save};
use crate::metadata_member::{MemberOptions, MetadataMember};
use crate::server::{Node, NodeOptions};

/// A start under way.
pub(super) struct Start {
    options: ProcessOptions,
    directory: Arc<NodeDirectory>,
    order: Order,
    /// Where others reach the node.
    address: String,
    /// Gone once the node serves there.
    listener: Option<TcpListener>,
    /// Gone once the member serves there.
    member_listener: Option<Bound>,
    /// Where that is, once it does.
    member_listens: Option<SocketAddr>,
    member: Option<Tended>,
    detector: Detector,
    store: Option<Store>,
    node: Option<Running>,
}

/// A listener that is bound, and where others reach it.
struct Bound {
    listener: TcpListener,
    address: String,
}

/// Where the metadata of the cluster is.
#[derive(Clone)]
enum Store {
    /// At the members of the metadata group.
    Group(Arc<MetadataPool>),
    /// In etcd.
    Etcd(Arc<EtcdMetadata>),
}

impl Store {
    fn shared(&self) -> Arc<dyn MetadataStore> {
        match self {
            Self::Group(pool) => Arc::clone(pool) as Arc<_>,
            Self::Etcd(etcd) => Arc::clone(etcd) as Arc<_>,
        }
    }
}

/// A node that serves, and says that it lives.
struct Running {
    node: Node,
    farewell: Farewell,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    async fn stop(self) {
        self.farewell.say().await;
        self.node.shutdown().await;
        self.stop.cancel();
    }
}

impl Start {
    /// Takes the directory and the ports.
    pub(super) async fn new(options: ProcessOptions) -> Result<Self, ProcessError> {
        options.check()?;
        let path = options.data_dir.clone();
        let (directory, state) = blocking(move || NodeDirectory::open(&path)).await?;
        let Bound { listener, address } = bind(&options.listen, options.advertise.as_deref()).await?;
        let member_listener = match &options.member {
            Some(member) => Some(bind(&member.listen, member.advertise.as_deref()).await?),
            None => None,
        };
        let make = match options.bootstrap {
            true => Some(ClusterId::try_from(fresh_op().get()).map_err(|_| ProcessError::NoId)?),
            false => None,
        };
        let wanted = Wanted {
            name: options.name.clone(),
            address: address.clone(),
            member: member_listener.as_ref().map(|bound| bound.address.clone()),
            make,
            join: !options.join.is_empty(),
            etcd: options.etcd.as_ref().map(|etcd| etcd.prefix.clone()),
            directory: options.data_dir.clone(),
        };
        Ok(Self {
            directory: Arc::new(directory),
            order: Order::new(wanted, state),
            address,
            listener: Some(listener),
            member_listener,
            member_listens: None,
            member: None,
            detector: Detector::new(options.failover.liveness.clone()),
            store: None,
            node: None,
            options,
        })
    }

    /// Takes all steps. When one fails, what runs by then is stopped.
    pub(super) async fn run(mut self) -> Result<Process, ProcessError> {
        let failed = loop {
            match self.order.next() {
                Ok(None) => break None,
                Ok(Some(step)) => match Box::pin(self.take(step)).await {
                    Ok(outcome) => self.order.learn(outcome),
                    Err(error) => break Some(error),
                },
                Err(refused) => break Some(refused.into()),
            }
        };
        if let Some(error) = failed {
            if let Some(running) = self.node {
                running.stop().await;
            }
            if let Some(tended) = self.member {
                tended.member().shutdown().await;
            }
            return Err(error);
        }
        Ok(self.finish())
    }

    async fn take(&mut self, step: Step) -> Result<Outcome, ProcessError> {
        debug!(?step, "the next step of the start");
        Ok(match step {
            Step::Write(state) => {
                save(&self.directory, &state).await?;
                Outcome::Written(state)
            }
            Step::LookThere { wait: true } => {
                Outcome::FoundThere(Some(group::find(&self.options.join, &self.options.client).await?))
            }
            Step::LookThere { wait: false } => {
                let own = self.state().cluster;
                Outcome::FoundThere(group::whose(&self.options.join, own, &self.options.client).await)
            }
            Step::LookInEtcd => Outcome::FoundInEtcd(etcd::find(self.etcd()).await?),
            Step::MakeClusterInEtcd => Outcome::FoundInEtcd(Some(etcd::make(self.etcd(), self.state().cluster).await?)),
            Step::SetMemberAside => {
                let path = self.directory.path().to_owned();
                blocking(move || etcd::set_member_aside(&path)).await?;
                Outcome::SetAside
            }
            Step::LookAtLog => {
                let directory = self.directory.path().join(METADATA);
                let owner = blocking(move || owner_at(&directory)).await;
                let owner = owner.map_err(|error| ProcessError::Member(error.into()))?;
                Outcome::FoundLog(owner.map(|owner| owner.lineage))
            }
            Step::AskGroup { decides } => {
                let cluster = self.state().cluster;
                let deadline = if decides { group::STATUS_DEADLINE } else { group::GLANCE_DEADLINE };
                let answers = group::ask(&self.other_members(), Some(cluster), &self.options.client, deadline).await;
                Outcome::GroupSays(View::new(answers.into_iter().filter(|(_, status)| status.cluster == cluster)))
            }
            Step::StartMember(start) => {
                self.member = Some(Tended::new(self.start_member(start).await?));
                Outcome::MemberStarted
            }
            Step::MakeGroup => {
                let tended = self.member.as_ref().expect("the order makes a group of a member that was started");
                group::make(&tended.member(), self.state().cluster, &self.identity()).await?;
                Outcome::GroupMade
            }
            Step::ServeMember => {
                self.serve_member()?;
                Outcome::MemberServes
            }
            Step::AwaitMetadata => {
                let catalog = Catalog::new(self.store()?.shared());
                Outcome::MetadataAnswers(group::ready(&catalog, &self.state().metadata).await?)
            }
            Step::LookUpName => {
                let catalog = Catalog::new(self.store()?.shared());
                let disk = self.directory.path().join(LOG_SERVER);
                Outcome::FoundName(group::namesake(&catalog, &self.state().name, disk).await?)
            }
            Step::CallNamesake { node, address } => {
                Outcome::NamesakeAnswers(group::answers(node, &address, &self.client()).await)
            }
            Step::StartNode => {
                let running = self.start_node().await?;
                let node = running.node.id().node;
                self.node = Some(running);
                Outcome::NodeServes(node)
            }
            Step::AddMember { node, address } => {
                if let Store::Group(pool) = self.store()? {
                    group::add(&pool, WireMember { node, address }).await?;
                }
                Outcome::MemberAdded
            }
        })
    }

    /// Everything runs: what goes on by itself from now on is begun.
    fn finish(self) -> Process {
        let state = self.state().clone();
        let Running { node, farewell, stop, tasks } = self.node.expect("the order is ready when the node serves");
        let member = self.member;
        if let Some(Store::Group(pool)) = self.store {
            if let Some(tended) = &member {
                let (telling, stopped) = (tended.clone().tell_leader(Arc::clone(&pool)), stop.clone());
                tasks.spawn(async move {
                    let _stopped = stopped.run_until_cancelled_owned(telling).await;
                });
            }
            let keeper = keep_addresses(pool, self.directory, state.clone());
            let stopped = stop.clone();
            tasks.spawn(async move {
                let _stopped = stopped.run_until_cancelled_owned(keeper).await;
            });
        }
        if let Some(tended) = &member
            && let Some(listen) = self.member_listens
        {
            let (tending, stopped) = (tended.clone().tend(listen), stop.clone());
            tasks.spawn(async move {
                let _stopped = stopped.run_until_cancelled_owned(tending).await;
            });
        }
        info!(cluster = %state.cluster, node = %node.id(), "the process of a node is ready");
        let hand_over = self.options.failover.hand_over;
        Process { cluster: state.cluster, node, member, hand_over, farewell, stop, tasks }
    }

    fn state(&self) -> &NodeState {
        self.order.state().expect("the order writes the state down before it asks for what needs it")
    }

    fn etcd(&self) -> &bifrost_etcd::EtcdOptions {
        self.options.etcd.as_ref().expect("the order looks in etcd when metadata is wanted there")
    }

    /// How to call whoever is of this cluster.
    fn client(&self) -> ClientOptions {
        ClientOptions { cluster: Some(self.state().cluster), ..self.options.client.clone() }
    }

    /// Where metadata may be: as last known, and where this start was told to join.
    fn metadata(&self) -> Vec<String> {
        let mut addresses = self.state().metadata.clone();
        let told = self.options.join.iter().filter(|join| !self.state().metadata.contains(join));
        addresses.extend(told.cloned());
        addresses
    }

    /// Where metadata is, but for the member here: nobody answers there yet.
    fn other_members(&self) -> Vec<String> {
        let own = self.state().member.as_ref().map(|member| &member.address);
        self.metadata().into_iter().filter(|address| Some(address) != own).collect()
    }

    fn store(&mut self) -> Result<Store, ProcessError> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let store = if self.options.etcd.is_some() {
            Store::Etcd(Arc::new(etcd::connect(self.etcd(), self.state().cluster)?))
        } else {
            let pool = MetadataPool::follow(self.metadata(), &self.client());
            Store::Group(Arc::new(pool.map_err(|error| ProcessError::WrongAddress { address: error.address })?))
        };
        self.store = Some(store.clone());
        Ok(store)
    }

    fn identity(&self) -> Identity {
        Identity {
            name: self.state().name.clone(),
            address: self.address.clone(),
            location: self.options.location.clone(),
            roles: self.options.roles,
        }
    }

    async fn start_member(&self, start: MemberStart) -> Result<MetadataMember, ProcessError> {
        let options = MemberOptions {
            cluster: self.state().cluster,
            node: start.node,
            address: start.address,
            directory: self.directory.path().join(METADATA),
            lineage: start.lineage,
            returning: start.returning,
            server: self.options.server.clone(),
            client: self.options.client.clone(),
            detector: self.detector.clone(),
        };
        MetadataMember::start(options).await.map_err(ProcessError::Member)
    }

    fn serve_member(&mut self) -> Result<(), ProcessError> {
        if let Some(tended) = &self.member
            && let Some(bound) = self.member_listener.take()
        {
            let failed = |source| ProcessError::Listen { address: bound.address.clone(), source };
            self.member_listens = Some(bound.listener.local_addr().map_err(failed)?);
            let listener = bound.listener.into_std().map_err(failed)?;
            tended.member().serve(listener).map_err(ProcessError::Member)?;
        }
        Ok(())
    }

    /// Starts the node, and has it say that it lives: logs may be placed there from now on.
    async fn start_node(&mut self) -> Result<Running, ProcessError> {
        let store = self.store()?;
        let options = self.node_options(&store);
        let listener = self.listener.take().expect("the order starts the node once");
        let node = Node::start(options, listener).await.map_err(ProcessError::Node)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let liveness = self.options.failover.liveness.clone();
        let farewell = match store {
            Store::Group(pool) => {
                let farewell = Farewell::default();
                let members = move || pool.addresses();
                let beats = send_beats(members, node.id(), liveness, self.client(), farewell.clone());
                let stopped = stop.clone();
                tasks.spawn(async move {
                    let _stopped = stopped.run_until_cancelled_owned(beats).await;
                });
                farewell
            }
            Store::Etcd(etcd) => {
                let (address, detector) = (self.address.clone(), self.detector.clone());
                let etcd = EtcdMetadata::clone(&etcd);
                let part = lead::Part { etcd, node: node.id(), address, detector, liveness, client: self.client() };
                lead::take_part(part, &tasks, &stop)
            }
        };
        Ok(Running { node, farewell, stop, tasks })
    }

    fn node_options(&self, store: &Store) -> NodeOptions {
        let over_etcd = matches!(store, Store::Etcd(_));
        // Beside a member, or where any node may be the one.
        let judges = over_etcd || self.options.member.is_some();
        NodeOptions {
            identity: self.identity(),
            storage: Storage::Disk {
                directory: self.directory.path().join(LOG_SERVER),
                options: self.options.rocks.clone(),
            },
            metadata: match &self.member {
                Some(tended) => Arc::new(tended.clone().near(store.shared())),
                None => store.shared(),
            },
            segments: self.options.segments,
            catch_up: self.options.catch_up.clone(),
            server: self.options.server.clone(),
            client: self.options.client.clone(),
            gateway: self.options.gateway.clone(),
            logs: BifrostOptions::default(),
            controller: self.options.failover.controller.clone(),
            detector: judges.then(|| self.detector.clone()),
            liveness: over_etcd.then(|| Arc::new(ElectedLiveness::new(self.detector.clone())) as Arc<_>),
            interpose: None,
        }
    }
}

async fn bind(listen: &str, advertise: Option<&str>) -> Result<Bound, ProcessError> {
    let failed = |source| ProcessError::Listen { address: listen.to_owned(), source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let address = match advertise {
        Some(advertise) => advertise.to_owned(),
        None if bound.ip().is_unspecified() => return Err(ProcessError::NoAdvertise { listen: listen.to_owned() }),
        None => bound.to_string(),
    };
    Ok(Bound { listener, address })
}
