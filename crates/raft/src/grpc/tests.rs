#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost_metadata::{MetadataStore, Txn, TxnOutcome};
use bifrost_types::ClusterId;
use bifrost_wire::grpc::serve;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::*;
use crate::engine::memory::MemoryEngine;
use crate::peers::{Envelope, Rpc, decode_answer};
use crate::types::GroupId;
use crate::{RaftMetadata, RaftOptions, Status};

const PATIENCE: Duration = Duration::from_secs(60);

struct Served {
    member: RaftMetadata,
    address: String,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// A member behind a listener of its own.
async fn served(id: u64) -> Served {
    let options = RaftOptions {
        heartbeat: Duration::from_millis(250),
        turn: Duration::from_secs(2),
        lease: Duration::from_secs(3),
        request_timeout: Duration::from_secs(30),
        ..RaftOptions::new(ClusterId::try_from(5).unwrap(), MemberId::from(id))
    };
    let peers = Arc::new(GrpcPeers::new(ClientOptions::default()));
    let member = RaftMetadata::start(options, Arc::new(MemoryEngine::new()), peers).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (limits, shutdown, tasks) = (ServerLimits::default(), CancellationToken::new(), TaskTracker::new());
    let mut routes = RoutesBuilder::default();
    PeersGrpc::new(Arc::new(member.clone()), &limits, shutdown.clone()).add_to(&mut routes);
    let stop = shutdown.clone();
    tasks.spawn(async move { serve(listener, routes.routes(), &limits, None, stop).await.unwrap() });
    Served { member, address, shutdown, tasks }
}

impl Served {
    async fn stop(self) {
        self.shutdown.cancel();
        self.member.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn until(&self, is: impl FnMut(&Status) -> bool) {
        let mut status = self.member.watch_status();
        timeout(PATIENCE, status.wait_for(is)).await.unwrap_or_else(|_| panic!("{:?}", self.member.status())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_over_grpc_elect_commit_and_go_on_without_their_leader() {
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(served(id).await);
    }
    let addresses =
        (1..).zip(&members).map(|(id, served)| (MemberId::from(id), Member { address: served.address.clone() }));
    members[0].member.initialize(addresses.collect()).await.unwrap();
    members[0].until(Status::serves).await;
    let large = (0..14).fold(Txn::new(), |txn, key| txn.put(format!("large/{key}"), vec![key; 1 << 20]));
    for txn in [Txn::new().put("k", "1"), large] {
        let written = members[0].member.txn(txn).await;
        assert!(matches!(written, Ok(TxnOutcome::Committed(_))), "{written:?}");
    }
    members.remove(0).stop().await;
    let serves = members.iter().map(|served| Box::pin(served.until(Status::serves)));
    let (_, leader, _) = futures_util::future::select_all(serves).await;
    let leader = &members[leader].member;
    assert_eq!(leader.get("k".into()).await.unwrap().unwrap().value, "1");
    let page = leader.list("large/".into(), None, 100).await.unwrap();
    assert!(page.more || page.entries.len() == 14, "all of it is there");
    assert!(matches!(leader.txn(Txn::new().put("k", "2")).await, Ok(TxnOutcome::Committed(_))));
    for served in members {
        served.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_another_member_or_of_no_sense_is_answered() {
    let served = served(1).await;
    let peers = GrpcPeers::new(ClientOptions::default());
    let say = async |message: Vec<u8>| {
        let member = Member { address: served.address.clone() };
        let answer = peers.call(MemberId::from(1), &member, Bytes::from(message), PATIENCE).await.unwrap();
        decode_answer(&answer)
    };
    let cluster = ClusterId::try_from(5).unwrap();
    let message = |cluster, to| {
        let (from, to) = (MemberId::from(2), MemberId::from(to));
        Envelope { cluster, group: GroupId::FIRST, from, to, rpc: Rpc::Vote, body: Vec::new() }.encode()
    };
    assert_eq!(say(b"nonsense".to_vec()).await, Err(Refusal::Malformed.into()));
    assert_eq!(say(message(cluster, 3)).await, Err(Refusal::OtherMember.into()));
    assert_eq!(say(message(ClusterId::try_from(6).unwrap(), 1)).await, Err(Refusal::OtherCluster.into()));
    assert_eq!(say(message(cluster, 1)).await, Err(Refusal::Malformed.into()));
    let nobody = Member { address: "no address".to_owned() };
    let unreachable = peers.call(MemberId::from(1), &nobody, Bytes::new(), PATIENCE).await;
    assert_eq!(unreachable, Err(PeerError::Unreachable));
    served.stop().await;
}
