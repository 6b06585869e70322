//! Members with their disks and listeners in one process, and a pool in front of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost::liveness::LivenessOptions;
use bifrost::metadata_pool::MetadataPool;
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
    address: String,
    _directory: TempDir,
}

impl Member {
    async fn start(number: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let running = MetadataMember::start(MemberOptions {
            cluster: cluster(),
            node: node(number),
            address: address.clone(),
            directory: directory.path().join("metadata"),
            server: ServerLimits::default(),
            client: ClientOptions::default(),
            detector: Detector::new(LivenessOptions::default()),
        });
        let running = running.await.unwrap();
        running.serve(listener).unwrap();
        Self { running, address, _directory: directory }
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
    let pool = MetadataPool::follow([&first.address], &options).unwrap();
    assert_eq!(pool.get("k".into()).await, Err(refused.into()));
    first.running.shutdown().await;
}
