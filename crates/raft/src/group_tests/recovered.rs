//! A group that lost its majority goes on from one member, and what is left of the old one ends.

use super::*;
use crate::AdminError;
use crate::disk::DiskError;
use crate::machine::offline::{Offline, create};
use crate::types::{GroupId, Lineage};

impl Group {
    /// Recovers the group from this member, which does not run.
    async fn recover(&self, id: u64, fresh: u64) -> Lineage {
        let mut offline = Offline::open(Arc::new(self.disks[&id].clone())).await.unwrap();
        let before = offline.survey();
        offline.recover(member(id), GroupId::from(fresh)).await.unwrap();
        let mut again = Offline::open(Arc::new(self.disks[&id].clone())).await.unwrap().survey();
        assert_eq!((again.voters.len(), again.members.len()), (1, 1), "{again:?}");
        assert!(again.keyspace.entries().eq(before.keyspace.entries()), "nothing that was there is gone");
        assert_eq!(again.keyspace.revision(), before.keyspace.revision());
        assert_eq!(again.accepted_only(), 0);
        std::mem::take(&mut again.owner.lineage)
    }

    /// Starts a member with an empty disk that is to join this group.
    async fn start_new(&mut self, id: u64, lineage: Lineage) {
        let options = RaftOptions { lineage, ..options(id) };
        let disk = self.disks.entry(id).or_default().clone();
        let member = RaftMetadata::start_here(options, Arc::new(disk), self.mesh.peers_of(m(id))).await.unwrap();
        self.mesh.connect(m(id), Arc::new(member.clone()));
        self.members.insert(id, member);
    }
}

#[tokio::test(start_paused = true)]
async fn one_member_that_is_left_goes_on_with_everything_it_has_and_others_join_it() {
    let mut group = Group::of(&[1, 2, 3]).await;
    for n in 0..20 {
        group.put(&format!("k{n}"), "old").await;
    }
    let all = group.agree(&[1, 2, 3]).await;
    for id in [1, 2, 3] {
        group.stop(id).await;
    }
    let lineage = group.recover(3, 77).await;
    assert_eq!(lineage, Lineage { group: GroupId::from(77), before: vec![GroupId::FIRST] });
    for id in [1, 2] {
        group.disks.remove(&id);
    }
    group.start(3).await;
    assert_eq!(group.leader_of(&[3]).await, 3);
    assert!(group.agree(&[3]).await.entries().eq(all.entries()));
    group.put("after", "new").await;
    for id in [4, 5] {
        group.start_new(id, lineage.clone()).await;
        group.members[&3].add_member(m(id), member(id), PATIENCE).await.unwrap();
    }
    group.stop(3).await;
    assert_eq!(group.get("after").await.unwrap().value, "new", "the new members go on without it");
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_majority_that_returns_is_stopped_and_joins_only_what_it_was_started_for() {
    let mut group = Group::of(&[1, 2, 3]).await;
    group.agree(&[1, 2, 3]).await;
    for id in [1, 2, 3] {
        group.stop(id).await;
    }
    let lineage = group.recover(1, 77).await;
    group.start(1).await;
    group.leader_of(&[1]).await;
    group.put("after", "new").await;
    for id in [2, 3] {
        group.start(id).await;
    }
    for id in [2, 3] {
        let status = group.until(id, |status| status.role == Role::Stopped).await;
        assert_eq!(status.leader, None);
        let late = group.members[&id].txn(Txn::new().put("split", "brain")).await;
        assert_eq!(late, Err(MetadataError::Unavailable));
    }
    assert_eq!(group.get("after").await.unwrap().value, "new");
    assert_eq!(group.get("split").await, None);
    // An empty member that was started for the old group is not counted in the new one, added or not.
    group.start(4).await;
    let added = group.members[&1].add_member(m(4), member(4), Duration::from_secs(5)).await;
    assert_eq!(added, Err(AdminError::DeadlinePassed));
    group.members[&1].remove_member(m(4), PATIENCE).await.unwrap();
    group.start_new(5, lineage).await;
    group.members[&1].add_member(m(5), member(5), PATIENCE).await.unwrap();
    group.members.remove(&2);
    group.members.remove(&3);
    group.agree(&[1, 5]).await;
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_survey_counts_what_is_only_accepted_and_keeps_it() {
    let mut group = Group::of(&[1, 2, 3]).await;
    group.agree(&[1, 2, 3]).await;
    group.isolate(1, true);
    let alone = group.members[&1].clone();
    let unknown = timeout(PATIENCE, alone.txn(Txn::new().put("alone", "1"))).await.unwrap();
    assert_eq!(unknown, Err(MetadataError::Unknown));
    for id in [1, 2, 3] {
        group.stop(id).await;
    }
    let survey = Offline::open(Arc::new(group.disks[&1].clone())).await.unwrap().survey();
    assert!(survey.accepted_only() >= 1, "{survey:?}");
    assert!(survey.keyspace.get("alone").is_some(), "it may have been acknowledged");
    assert_eq!(survey.members.len(), 3);
    let empty = Offline::open(Arc::new(MemoryEngine::new())).await;
    assert!(matches!(empty, Err(DiskError::Lost)));
}

#[tokio::test(start_paused = true)]
async fn a_group_begins_from_the_values_of_another_store_at_their_revisions() {
    let mut keyspace = Keyspace::new();
    for value in ["1", "2", "3"] {
        keyspace.apply(&Txn::new().put("k", value).put(format!("k{value}"), value));
    }
    let mut group = Group { mesh: Mesh::new(), disks: BTreeMap::new(), members: BTreeMap::new() };
    let disk = group.disks.entry(1).or_default().clone();
    let cluster = options(1).cluster;
    let begin = || create(Arc::new(disk.clone()), cluster, m(1), member(1), GroupId::from(5), keyspace.clone());
    begin().await.unwrap();
    assert!(matches!(begin().await, Err(DiskError::Foreign)), "only on an empty disk");
    group.start(1).await;
    assert_eq!(group.get("k").await.map(|value| value.revision), Some(3));
    assert!(group.agree(&[1]).await.entries().eq(keyspace.entries()));
    group.put("more", "1").await;
    assert_eq!(group.get("more").await.map(|value| value.revision), Some(4), "revisions go on");
    group.start_new(2, Lineage { group: GroupId::from(5), before: Vec::new() }).await;
    group.members[&1].add_member(m(2), member(2), PATIENCE).await.unwrap();
    group.agree(&[1, 2]).await;
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_log_is_gone_does_not_start_as_if_it_had_never_voted() {
    let options = RaftOptions { returning: true, ..options(1) };
    let mesh = Mesh::new();
    let started = RaftMetadata::start_here(options, Arc::new(MemoryEngine::new()), mesh.peers_of(m(1))).await;
    assert!(matches!(started, Err(crate::StartError::Disk(DiskError::Lost))));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_moved_is_reached_at_its_new_address() {
    let mut group = Group::of(&[1, 2, 3]).await;
    let moved = Member { address: "elsewhere:1".to_owned() };
    group.members[&1].add_member(m(2), moved.clone(), PATIENCE).await.unwrap();
    for id in [1, 2, 3] {
        group.until(id, |status| status.members.get(&m(2)) == Some(&moved)).await;
    }
    group.stop(3).await;
    group.put("without the third", "1").await;
    group.agree(&[1, 2]).await;
    group.end().await;
}
