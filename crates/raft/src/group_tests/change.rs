//! Members come and go.

use super::*;
use crate::AdminError;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn a_group_is_begun_once() {
    let group = Group::of(&[1, 2, 3]).await;
    let again = group.members[&1].initialize(BTreeMap::from([(m(1), member(1))])).await;
    assert_eq!(again, Err(AdminError::Initialized));
    let mut other = Group { mesh: Mesh::new(), disks: BTreeMap::new(), members: BTreeMap::new() };
    other.start(5).await;
    let without = other.members[&5].initialize(BTreeMap::from([(m(6), member(6))])).await;
    assert_eq!(without, Err(AdminError::WithoutMe));
    assert_eq!(other.members[&5].get("k".into()).await, Err(MetadataError::Unavailable), "it waits for a group");
    other.end().await;
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_member_learns_and_then_votes() {
    let mut group = Group::of(&[1]).await;
    for n in 0..50 {
        group.put(&format!("k{n}"), "1").await;
    }
    for id in [2, 3] {
        group.start(id).await;
        group.members[&1].add_member(m(id), member(id), DEADLINE).await.unwrap();
        group.members[&1].add_member(m(id), member(id), DEADLINE).await.unwrap();
    }
    let status = group.until(3, |status| status.voters.len() == 1 && status.voters[0].len() == 3).await;
    assert_eq!(status.members.len(), 3);
    let agreed = group.agree(&[1, 2, 3]).await;
    assert!(agreed.get("k49").is_some());
    // Its vote counts: with the first one gone the two lead on.
    group.stop(1).await;
    group.put("without the first", "1").await;
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_reached_stays_a_learner_and_hinders_nobody() {
    let group = Group::of(&[1, 2, 3]).await;
    let added = group.members[&1].add_member(m(9), member(9), Duration::from_secs(3)).await;
    assert_eq!(added, Err(AdminError::DeadlinePassed));
    let status = group.until(1, |status| status.members.contains_key(&m(9))).await;
    assert!(!status.voters.iter().any(|voters| voters.contains(&m(9))), "who has nothing has no vote");
    group.put("k", "1").await;
    let elsewhere = group.members[&2].remove_member(m(9), DEADLINE).await;
    assert_eq!(elsewhere, Err(AdminError::NotLeader { leader: Some(m(1)) }));
    group.members[&1].remove_member(m(9), DEADLINE).await.unwrap();
    group.members[&1].remove_member(m(9), DEADLINE).await.unwrap();
    group.until(2, |status| !status.members.contains_key(&m(9))).await;
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_member_is_replaced() {
    let mut group = Group::of(&[1, 2, 3]).await;
    group.stop(3).await;
    group.put("k", "1").await;
    group.members[&1].remove_member(m(3), DEADLINE).await.unwrap();
    group.start(4).await;
    group.members[&1].add_member(m(4), member(4), DEADLINE).await.unwrap();
    group.stop(2).await;
    group.put("with the new one", "1").await;
    let agreed = group.agree(&[1, 4]).await;
    assert!(agreed.get("k").is_some());
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_removed_leaves_the_others_with_another_one() {
    let group = Group::of(&[1, 2, 3]).await;
    group.put("k", "1").await;
    group.members[&1].remove_member(m(1), DEADLINE).await.unwrap();
    let leader = group.leader_of(&[2, 3]).await;
    let member = &group.members[&leader];
    assert_eq!(member.get("k".into()).await.unwrap().unwrap().value, "1");
    assert!(matches!(member.txn(Txn::new().put("k", "2")).await, Ok(TxnOutcome::Committed(_))));
    let last = member.remove_member(m(5 - leader), DEADLINE).await;
    assert_eq!(last, Ok(()));
    assert_eq!(member.remove_member(m(leader), DEADLINE).await, Err(AdminError::LastVoter));
    group.end().await;
}
