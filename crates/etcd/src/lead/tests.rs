//! Leads over an etcd of their own: taken, followed, handed on, lost.
#![allow(clippy::unwrap_used)]

use bifrost_metadata::{MetadataStore, Txn};

use super::*;
use crate::options::EtcdOptions;
use crate::testing::Etcd;

/// Only an etcd that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(30);

fn store(etcd: &Etcd) -> EtcdMetadata {
    EtcdMetadata::connect(EtcdOptions::new(vec![etcd.endpoint().to_owned()])).unwrap()
}

/// One who stands.
struct Candidate {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Candidate {
    fn stand(etcd: &Etcd, name: &str) -> Self {
        let (told, standing) = watch::channel(Standing::default());
        let stop = CancellationToken::new();
        let standing_for = stand(store(etcd), name.to_owned(), told, stop.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        let task = tokio::spawn(standing_for);
        Self { standing, stop, task }
    }

    async fn until(&mut self, is_so: impl FnMut(&Standing) -> bool) -> Standing {
        let waited = timeout(PATIENCE, self.standing.wait_for(is_so)).await;
        waited.expect("in time").expect("it stands").clone()
    }

    async fn leads(&mut self) -> Revision {
        self.until(|standing| standing.mine).await.lead.unwrap().term
    }

    async fn follows(&mut self, holder: &str) -> Revision {
        let follows = |standing: &Standing| standing.lead.as_ref().is_some_and(|lead| lead.holder == holder);
        let standing = self.until(follows).await;
        assert!(!standing.mine);
        standing.lead.unwrap().term
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it ends").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_the_others_know_it_and_the_next_one_leads_when_it_stops() {
    let etcd = Etcd::start();
    let mut first = Candidate::stand(&etcd, "a");
    let term = first.leads().await;
    let mut second = Candidate::stand(&etcd, "b");
    assert_eq!(second.follows("a").await, term);
    first.stop().await;
    let (_, after) = look(&store(&etcd)).await.unwrap();
    assert_ne!(after.map(|lead| lead.term), Some(term), "nobody waits for its lease to run out");
    assert!(second.leads().await > term, "a later lead has a higher term");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_is_followed_when_its_lease_is_over_and_one_that_lives_keeps_it() {
    let etcd = Etcd::start();
    let mut first = Candidate::stand(&etcd, "a");
    let term = first.leads().await;
    let mut second = Candidate::stand(&etcd, "b");
    assert_eq!(second.follows("a").await, term);
    let several = seconds(3 * LEASE_SECONDS);
    let other = second.standing.wait_for(|standing| standing.lead.as_ref().is_none_or(|lead| lead.term != term));
    assert!(timeout(several, other).await.is_err(), "the lease is kept beyond its time");
    // Dropped between two awaits, as by a kill: nothing is ended.
    first.task.abort();
    assert!(second.leads().await > term);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_lease_is_ended_leads_no_more_and_stands_again() {
    let etcd = Etcd::start();
    let mut only = Candidate::stand(&etcd, "a");
    let term = only.leads().await;
    etcd.revoke_leases();
    only.until(|standing| !standing.mine).await;
    assert!(only.leads().await > term);
    only.stop().await;
    let (_, after) = look(&store(&etcd)).await.unwrap();
    assert_eq!(after, None, "who stops leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_no_metadata() {
    let etcd = Etcd::start();
    let mut only = Candidate::stand(&etcd, "a");
    only.leads().await;
    let store = store(&etcd);
    let page = store.list(String::new(), None, 10).await.unwrap();
    assert_eq!(page.entries, [], "an export has nothing of it");
    assert_eq!(store.get(KEY.to_owned()).await, Err(MetadataError::Invalid));
    assert_eq!(store.txn(Txn::new().delete(KEY)).await, Err(MetadataError::Invalid));
    let mut watch = store.watch(String::new(), page.revision).await.unwrap();
    only.stop().await;
    store.txn(Txn::new().put("k", "1")).await.unwrap();
    let Changes { changes, .. } = timeout(PATIENCE, watch.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["k"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lead_that_is_older_than_what_etcd_remembers_is_followed_by_one_watch() {
    let etcd = Etcd::start();
    let mut only = Candidate::stand(&etcd, "a");
    let term = only.leads().await;
    let store = store(&etcd);
    for _ in 0..3 {
        store.txn(Txn::new().put("k", "1")).await.unwrap();
    }
    let (seen, lead) = look(&store).await.unwrap();
    assert!(seen > term && lead.is_some_and(|lead| lead.term == term));
    etcd.compact(seen);
    assert!(matches!(until_gone(&store, term).await, Err(MetadataError::Compacted { .. })), "so it must not be asked");
    let (gone, ()) = tokio::join!(until_gone(&store, seen), only.stop());
    assert_eq!(gone, Ok(()));
}
