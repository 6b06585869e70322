//! Members with their disks and listeners in one process, and a pool in front of them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use bifrost::liveness::{Farewell, LivenessOptions, send_beats};
use bifrost::metadata_pool::MetadataPool;
use bifrost_types::{Generation, NodeGeneration};
use bifrost_wire::grpc::GrpcLiveness;
use bifrost_wire::liveness::{Beat, BeatError};
use bifrost_wire::metadata::{MetadataError, Txn, TxnOutcome};
use bifrost_wire::metadata_admin::{MetadataAdminError, MetadataMember as WireMember};
use tempfile::TempDir;

use super::*;

/// Only a test that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> ClusterId {
    ClusterId::try_from(7).unwrap()
}

fn node(number: u32) -> NodeId {
    NodeId::try_from(number).unwrap()
}

struct Member {
    running: MetadataMember,
    detector: Detector,
    address: String,
    _directory: TempDir,
}

impl Member {
    async fn start(number: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let detector = Detector::new(LivenessOptions::default());
        let running = MetadataMember::start(MemberOptions {
            cluster: cluster(),
            node: node(number),
            address: address.clone(),
            directory: directory.path().join("metadata"),
            lineage: Lineage::default(),
            returning: false,
            server: ServerLimits::default(),
            client: ClientOptions::default(),
            detector: detector.clone(),
        });
        let running = running.await.unwrap();
        running.serve(listener).unwrap();
        Self { running, detector, address, _directory: directory }
    }

    /// Begins a group.
    async fn first() -> Self {
        let first = Self::start(1).await;
        let (id, member) = first.running.member();
        first.running.raft().initialize([(id, member)].into()).await.unwrap();
        let mut status = first.running.raft().watch_status();
        timeout(PATIENCE, status.wait_for(|status| status.role == Role::Leader)).await.unwrap().unwrap();
        first
    }

    fn as_added(&self) -> WireMember {
        WireMember { node: self.running.options.node, address: self.address.clone() }
    }
}

fn pool(addresses: &[&str]) -> MetadataPool {
    let options = ClientOptions { cluster: Some(cluster()), ..ClientOptions::default() };
    MetadataPool::follow(addresses, &options).unwrap()
}

fn life(number: u32) -> NodeGeneration {
    NodeGeneration::new(node(number), Generation::FIRST)
}

fn beat(number: u32) -> Beat {
    Beat { node: life(number), last: false }
}

async fn put(pool: &MetadataPool, key: &str) {
    // A reply may be lost with the leader that it came from (M2): this test's transactions may be repeated.
    let putting = async {
        loop {
            match pool.txn(Txn::new().put(key, "1")).await {
                Ok(TxnOutcome::Committed(_)) => return,
                Err(MetadataError::Unknown | MetadataError::Unavailable) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, putting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_knows_one_member_finds_the_others_and_outlives_the_first() {
    let first = Member::first().await;
    let pool = pool(&[&first.address]);
    put(&pool, "alone").await;
    let mut others = Vec::new();
    for number in [2, 3] {
        let other = Member::start(number).await;
        let member = other.as_added();
        pool.change(|admin| admin.add_member(member.clone())).await.unwrap();
        pool.change(|admin| admin.add_member(member.clone())).await.expect("a second time is the same");
        others.push(other);
    }
    pool.refresh().await;
    assert_eq!(pool.addresses().len(), 3);
    first.running.shutdown().await;
    assert!(pool.get("alone".into()).await.unwrap().is_some(), "the others lead on");
    put(&pool, "without the first").await;
    pool.change(|admin| admin.remove_member(node(1))).await.unwrap();
    pool.refresh().await;
    let left: Vec<_> = others.iter().map(|other| other.address.clone()).collect();
    assert_eq!(pool.addresses(), left, "who left is not asked any more");
    for other in others {
        other.running.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_lead_says_who_does() {
    let first = Member::first().await;
    let second = Member::start(2).await;
    let options = ClientOptions { cluster: Some(cluster()), ..ClientOptions::default() };
    let admin = GrpcMetadataAdmin::connect_lazy(&second.address, &options).unwrap();
    let nobody = admin.remove_member(node(9)).await;
    assert_eq!(nobody, Err(MetadataAdminError::NotLeader { leader: None }), "it was never told of a group");
    pool(&[&first.address]).change(|admin| admin.add_member(second.as_added())).await.unwrap();
    let mut status = second.running.raft().watch_status();
    timeout(PATIENCE, status.wait_for(|status| status.voters.len() == 1 && status.voters[0].len() == 2))
        .await
        .unwrap()
        .unwrap();
    let leader = Some(first.as_added());
    assert_eq!(admin.remove_member(node(9)).await, Err(MetadataAdminError::NotLeader { leader }));
    let told = admin.status().await.unwrap();
    assert_eq!((told.cluster, told.node, told.leader), (cluster(), node(2), Some(node(1))));
    assert!(told.votes(node(1)) && told.votes(node(2)) && !told.votes(node(3)));
    let through_the_second = pool(&[&second.address]);
    assert_eq!(through_the_second.get("k".into()).await, Ok(None), "it goes where the hint says");
    first.running.shutdown().await;
    second.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused_by_every_service() {
    let first = Member::first().await;
    let theirs = ClusterId::try_from(8).unwrap();
    let options = ClientOptions { cluster: Some(theirs), ..ClientOptions::default() };
    let refused = bifrost_wire::RpcError::OtherCluster { client: theirs, server: cluster() };
    let admin = GrpcMetadataAdmin::connect_lazy(&first.address, &options).unwrap();
    assert_eq!(admin.status().await, Err(refused));
    let liveness = GrpcLiveness::connect_lazy(&first.address, &options).unwrap();
    assert_eq!(liveness.beat(beat(1)).await, Err(refused.into()));
    let pool = MetadataPool::follow([&first.address], &options).unwrap();
    assert_eq!(pool.get("k".into()).await, Err(refused.into()));
    first.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_find_the_member_that_leads_and_who_falls_silent_or_says_farewell_is_named_there() {
    let first = Member::first().await;
    let second = Member::start(2).await;
    let options = ClientOptions { cluster: Some(cluster()), ..ClientOptions::default() };
    pool(&[&first.address]).change(|admin| admin.add_member(second.as_added())).await.unwrap();
    let mut status = second.running.raft().watch_status();
    timeout(PATIENCE, status.wait_for(|status| status.leader.is_some())).await.unwrap().unwrap();
    let follower = GrpcLiveness::connect_lazy(&second.address, &options).unwrap();
    let leader = Some(first.as_added());
    assert_eq!(follower.beat(beat(1)).await, Err(BeatError::NotLeader { leader }));
    assert!(!second.detector.leads());

    first
        .detector
        .know([(node(1), Generation::FIRST), (node(2), Generation::FIRST), (node(3), Generation::FIRST)].into());
    // They know the follower only.
    let farewell = Farewell::default();
    let known = std::sync::Arc::new(pool(&[&second.address]));
    let beating = |number, farewell: &Farewell| {
        let (pool, client, farewell) = (known.clone(), options.clone(), farewell.clone());
        tokio::spawn(send_beats(move || pool.addresses(), life(number), LivenessOptions::default(), client, farewell))
    };
    let stays = beating(1, &Farewell::default());
    let stops = beating(2, &farewell);
    let mut verdict = first.detector.verdict();
    let found = verdict.wait_for(|verdict| verdict.is_silent(life(3)));
    timeout(PATIENCE, found).await.expect("it was never heard").unwrap();
    farewell.say().await;
    stops.await.unwrap();
    let found = verdict.wait_for(|verdict| verdict.is_silent(life(2)));
    timeout(PATIENCE, found).await.expect("it said so").unwrap();
    let back = verdict.wait_for(|verdict| !verdict.is_silent(life(1)));
    timeout(PATIENCE, back).await.expect("it is heard").unwrap();
    stays.abort();
    let found = verdict.wait_for(|verdict| verdict.is_silent(life(1)));
    timeout(PATIENCE, found).await.expect("it fell silent").unwrap();
    first.running.shutdown().await;
    assert!(!first.detector.leads(), "who stopped does not lead");
    second.running.shutdown().await;
}
