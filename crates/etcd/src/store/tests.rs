//! The store over an etcd of its own: the contract of every store, and what is special about this one.

use std::sync::atomic::{AtomicUsize, Ordering};

use bifrost_metadata::conformance::conformance;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::testing::Etcd;

/// Only an etcd that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Handles to it, ready to be used.
trait Handles {
    async fn store(&self, prefix: &str) -> EtcdMetadata;
    async fn store_with(&self, options: EtcdOptions) -> EtcdMetadata;
}

impl Handles for Etcd {
    async fn store(&self, prefix: &str) -> EtcdMetadata {
        self.store_with(EtcdOptions { prefix: prefix.to_owned(), ..EtcdOptions::new(vec![self.endpoint().to_owned()]) })
            .await
    }

    async fn store_with(&self, options: EtcdOptions) -> EtcdMetadata {
        let store = EtcdMetadata::connect(options).unwrap();
        let answers = async { while store.list(String::new(), None, 1).await == Err(MetadataError::Unavailable) {} };
        timeout(PATIENCE, answers).await.expect("etcd answers");
        store
    }
}

/// Between a client and etcd: passes bytes, until it is told to keep the answers to itself.
struct Proxy {
    address: String,
    mute: watch::Sender<bool>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = AsyncListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mute, muted) = watch::channel(false);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&to).await else { continue };
                tokio::spawn(pass(client, server, muted.clone()));
            }
        });
        Self { address, mute }
    }
}

async fn pass(client: TcpStream, server: TcpStream, mut muted: watch::Receiver<bool>) {
    let (mut client_reads, mut client_writes) = split(client);
    let (mut server_reads, mut server_writes) = split(server);
    let there = copy(&mut client_reads, &mut server_writes);
    let back = async {
        let heard = tokio::select! {
            biased;
            _ = muted.wait_for(|muted| *muted) => false,
            _ = copy(&mut server_reads, &mut client_writes) => true,
        };
        // What comes from now on is lost, and then the connection is.
        while !heard && muted.wait_for(|muted| !muted).await.is_err() {}
        client_writes.shutdown().await
    };
    tokio::select! {
        biased;
        _ = there => {}
        _ = back => {}
    }
}

fn cluster(number: u128) -> ClusterId {
    ClusterId::try_from(number).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_passes_the_conformance_suite() {
    let etcd = Etcd::start();
    let stores = AtomicUsize::new(0);
    conformance(async || etcd.store(&format!("t{}/", stores.fetch_add(1, Ordering::SeqCst))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_on_the_way_is_unknown_and_the_caller_finds_its_write() {
    let etcd = Etcd::start();
    let direct = etcd.store("c/").await;
    let proxy = Proxy::start(etcd.endpoint().to_owned()).await;
    let options = EtcdOptions {
        prefix: "c/".to_owned(),
        request_timeout: Duration::from_secs(1),
        ..EtcdOptions::new(vec![proxy.address.clone()])
    };
    let store = etcd.store_with(options).await;
    let created = Txn::new().expect("op", Precondition::Absent).put("op", "1");
    proxy.mute.send_replace(true);
    assert_eq!(store.txn(created.clone()).await, Err(MetadataError::Unknown));
    let written = direct.get("op".into()).await.unwrap().expect("it was carried out");
    assert_eq!(store.get("op".into()).await, Err(MetadataError::Unavailable), "no answer arrives");
    proxy.mute.send_replace(false);
    let found = async {
        loop {
            match store.get("op".into()).await {
                Err(MetadataError::Unavailable) => {}
                other => return other,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, found).await.unwrap(), Ok(Some(written)), "reading again settles it");
    assert!(matches!(store.txn(created).await, Ok(TxnOutcome::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_of_another_cluster_is_refused_by_every_call() {
    let etcd = Etcd::start();
    let plain = etcd.store("c/").await;
    let guard = |number| Some(Guard { key: "cluster".to_owned(), cluster: cluster(number) });
    let options = |number| EtcdOptions {
        prefix: "c/".to_owned(),
        guard: guard(number),
        ..EtcdOptions::new(vec![etcd.endpoint().to_owned()])
    };
    plain.txn(Txn::new().put("cluster", cluster(7).to_string())).await.unwrap();
    let ours = etcd.store_with(options(7)).await;
    let revision = match ours.txn(Txn::new().expect("k", Precondition::Absent).put("k", "1")).await {
        Ok(TxnOutcome::Committed(revision)) => revision,
        other => panic!("{other:?}"),
    };
    let conflict = ours.txn(Txn::new().expect("k", Precondition::Revision(1)).put("k", "2")).await;
    let Ok(TxnOutcome::Conflict(present)) = conflict else { panic!("{conflict:?}") };
    assert_eq!(present[0].1.as_ref().map(|value| value.revision), Some(revision));
    let theirs = EtcdMetadata::connect(options(8)).unwrap();
    let refused = MetadataError::OtherCluster { client: cluster(8), server: cluster(7) };
    assert_eq!(theirs.get("k".into()).await, Err(refused));
    assert_eq!(theirs.list(String::new(), None, 1).await, Err(refused));
    assert_eq!(theirs.txn(Txn::new().put("k", "theirs")).await, Err(refused));
    assert_eq!(theirs.watch(String::new(), 0).await.err(), Some(refused));
    assert_eq!(ours.get("k".into()).await.unwrap().map(|value| value.value), Some("1".into()));
    plain.txn(Txn::new().delete("cluster")).await.unwrap();
    assert_eq!(ours.txn(Txn::new().put("k", "2")).await, Err(MetadataError::Unavailable), "nobody's prefix");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_compacted_history_is_told_so() {
    let etcd = Etcd::start();
    let store = etcd.store("c/").await;
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        match store.txn(Txn::new().put("k", value)).await {
            Ok(TxnOutcome::Committed(revision)) => revisions.push(revision),
            other => panic!("{other:?}"),
        }
    }
    etcd.compact(revisions[1]);
    let oldest = revisions[1];
    let ended = match store.watch(String::new(), revisions[0]).await {
        Ok(mut stream) => stream.recv().await.and_then(Result::err),
        Err(error) => Some(error),
    };
    assert_eq!(ended, Some(MetadataError::Compacted { oldest }));
    let mut resumed = store.watch(String::new(), oldest).await.unwrap();
    assert_eq!(resumed.recv().await.unwrap().unwrap().revision, revisions[2]);
    let future = store.watch(String::new(), revisions[2] + 10).await.err();
    assert_eq!(future, Some(MetadataError::Compacted { oldest: revisions[2] }), "another store's revision");
}
