//! Restate #2535 over real processes: a leader goes on with entries that nobody else has, another one is elected and
//! decides otherwise, and the first one returns with the longer log.

use std::time::Duration;

use anyhow::{Context, ensure};
use bifrost_wire::grpc::{ClientOptions, GrpcMetadata, GrpcMetadataAdmin};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Txn, TxnOutcome};
use bifrost_wire::metadata_admin::{MemberRole, MemberStatus, MetadataAdmin};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::support::server::Cluster;

/// Only a group that does not go on gets here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Transactions that only the old leader ever sees. Each of these has an entry of its own.
const ALONE: usize = 8;
const ALONE_BYTES: usize = 600 << 10;

fn admin(cluster: &Cluster, index: usize) -> anyhow::Result<GrpcMetadataAdmin> {
    Ok(GrpcMetadataAdmin::connect_lazy(&cluster.metadata_address(index), &ClientOptions::default())?)
}

fn store(cluster: &Cluster, index: usize) -> anyhow::Result<GrpcMetadata> {
    Ok(GrpcMetadata::connect_lazy(&cluster.metadata_address(index), ClientOptions::default())?)
}

/// Waits until a member says this of itself.
async fn until(admin: &GrpcMetadataAdmin, is: impl Fn(&MemberStatus) -> bool) -> anyhow::Result<MemberStatus> {
    let reached = async {
        loop {
            if let Ok(status) = admin.status().await
                && is(&status)
            {
                return status;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, reached).await.context("the member does not get there")
}

async fn put(store: &GrpcMetadata, key: &str) -> anyhow::Result<()> {
    let putting = async {
        loop {
            match store.txn(Txn::new().put(key, "1")).await {
                Ok(TxnOutcome::Committed(_)) => return Ok(()),
                Err(MetadataError::Unknown | MetadataError::Unavailable) => sleep(Duration::from_millis(20)).await,
                other => anyhow::bail!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, putting).await.context("nobody decides")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_returns_with_a_longer_log_than_its_successor_is_overwritten_and_lives() -> anyhow::Result<()> {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::of(3)).await?;
    let (old, others) = (0, [1, 2]);
    let leader = admin(&cluster, old)?;
    until(&leader, |status| status.role == MemberRole::Leader).await?;
    let before = leader.status().await?;
    others.iter().for_each(|index| cluster.kill(*index));
    // It leads on, for as long as it does not miss them, and what it is told goes into its log.
    let alone = store(&cluster, old)?;
    let told = (0..ALONE).map(|n| alone.txn(Txn::new().put(format!("alone/{n}"), vec![7; ALONE_BYTES])));
    let outcomes = join_all(told).await;
    let undecided = outcomes.iter().filter(|outcome| **outcome == Err(MetadataError::Unknown)).count();
    ensure!(undecided >= 3, "too few were proposed: {outcomes:?}");
    let longer = until(&leader, |status| status.last_log >= before.last_log.map(|last| last + 3)).await?;
    cluster.signal(old, "STOP");

    let mut cluster = tokio::task::spawn_blocking(move || {
        // Neither is ready before the other one is there: together they are the majority.
        let started = others.map(|index| cluster.spawn(index, |_| ()));
        for (index, server) in others.into_iter().zip(started) {
            cluster.ready(index, server);
        }
        cluster
    })
    .await?;
    let mut successor = None;
    for index in others {
        if until(&admin(&cluster, index)?, |status| status.leader.is_some()).await?.role == MemberRole::Leader {
            successor = Some(index);
        }
    }
    let successor = successor.context("somebody leads")?;
    put(&store(&cluster, successor)?, "decided").await?;
    let decided = admin(&cluster, successor)?.status().await?;
    ensure!(decided.term > longer.term, "another term");

    cluster.signal(old, "CONT");
    let applied = decided.applied;
    let back = until(&leader, |status| status.term >= decided.term && status.applied >= applied).await?;
    ensure!(back.role != MemberRole::Stopped);
    ensure!(cluster.runs(old), "it lives");
    // It is one of the majority now, and has the state of the others.
    let third = others.into_iter().find(|index| *index != successor).context("two others")?;
    cluster.kill(successor);
    let led = async {
        loop {
            for index in [old, third] {
                let member = store(&cluster, index)?;
                if let Ok(Some(value)) = member.get("decided".to_owned()).await {
                    let page = member.list("alone/".to_owned(), None, ALONE).await?;
                    return anyhow::Ok((value.value, page.entries.len()));
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (value, left) = timeout(PATIENCE, led).await.context("nobody leads")??;
    ensure!((value.as_ref(), left) == (&b"1"[..], 0), "what was never decided is gone");
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    Ok(())
}
