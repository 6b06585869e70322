//! The history that panicked another system's store (Restate #2535): a leader without a majority appends what is never
//! committed, another one is elected, and the old one comes back with the longer log.

use openraft::storage::RaftLogStorage;

use super::*;

async fn minority_leader(engine: &MemoryEngine) -> LogStore {
    let (mut log, _) = open(engine).unwrap();
    assert!(append(&mut log, (0..=3).map(|index| blank(1, index)).collect()).await);
    log.save_committed(Some(id(1, 3))).await.unwrap();
    assert!(append(&mut log, (4..=9).map(|index| write(1, index, "lost")).collect()).await);
    log
}

#[tokio::test]
async fn a_longer_uncommitted_suffix_is_overwritten() {
    let engine = MemoryEngine::new();
    let mut log = minority_leader(&engine).await;
    log.truncate(id(1, 4)).await.unwrap();
    assert_eq!(last(&mut log).await, Some(id(1, 3)));
    assert!(append(&mut log, vec![blank(2, 4), write(2, 5, "kept")]).await);
    let expected = [id(1, 0), id(1, 1), id(1, 2), id(1, 3), id(2, 4), id(2, 5)];
    assert_eq!(ids(&mut log).await, expected);
    engine.crash(0);
    let (mut log, _) = open(&engine).unwrap();
    assert_eq!(ids(&mut log).await, expected, "nothing of the old suffix is left");
}

#[tokio::test]
async fn whoever_still_sends_for_a_leader_that_lost_its_place_finds_nothing_and_stops_nobody() {
    let engine = MemoryEngine::new();
    let mut log = minority_leader(&engine).await;
    let mut sender = log.get_log_reader().await;
    assert_eq!(sender.limited_get_log_entries(6, 10).await.unwrap().len(), 4);
    // Overwritten by the next leader, with fewer entries.
    log.truncate(id(1, 4)).await.unwrap();
    assert!(append(&mut log, vec![blank(2, 4)]).await);
    assert!(sender.limited_get_log_entries(6, 10).await.unwrap().is_empty());
    // Only a snapshot stands for it.
    log.purge(id(1, 2)).await.unwrap();
    assert!(sender.limited_get_log_entries(1, 5).await.unwrap().is_empty());
    assert_eq!(sender.limited_get_log_entries(3, 5).await.unwrap().len(), 2, "the member goes on");
}

#[tokio::test]
async fn an_entry_over_another_one_stops_the_member_and_changes_nothing() {
    let engine = MemoryEngine::new();
    let mut log = minority_leader(&engine).await;
    assert!(!append(&mut log, vec![blank(2, 4)]).await, "the conflict was not removed first");
    assert!(log.get_log_reader().await.try_get_log_entries(..).await.is_err(), "the member stops");
    let (mut log, _) = open(&engine).unwrap();
    assert_eq!(ids(&mut log).await.len(), 10);
}

#[tokio::test]
async fn what_is_committed_is_never_removed() {
    for first in [id(1, 0), id(1, 3)] {
        let engine = MemoryEngine::new();
        let mut log = minority_leader(&engine).await;
        assert!(log.truncate(first).await.is_err());
        assert!(!append(&mut log, vec![blank(1, 10)]).await, "the member stops");
        let (mut log, _) = open(&engine).unwrap();
        assert_eq!(ids(&mut log).await.len(), 10);
    }
}

#[tokio::test]
async fn a_member_that_starts_again_leads_nobody_until_it_is_elected() {
    use crate::types::Vote;
    let engine = MemoryEngine::new();
    let (mut log, _) = open(&engine).unwrap();
    log.save_vote(&Vote::new_committed(4, MemberId::from(ME))).await.unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(4, MemberId::from(ME))));
    log.save_vote(&Vote::new_committed(5, MemberId::from(2))).await.unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(5, MemberId::from(2))));
}

#[tokio::test]
async fn a_disk_serves_one_member_of_one_cluster() {
    let (one, two) = (ClusterId::try_from(1 << 100).unwrap(), ClusterId::try_from(2).unwrap());
    let engine = Arc::new(MemoryEngine::new());
    let disk = || Disk::new(engine.clone());
    disk().identify(owner(one, ME)).await.unwrap();
    disk().identify(owner(one, ME)).await.unwrap();
    for (cluster, member) in [(two, ME), (one, 2)] {
        let refused = disk().identify(owner(cluster, member)).await;
        assert!(matches!(refused, Err(DiskError::OtherMember { cluster, member })
            if cluster == one && member == MemberId::from(ME)));
    }
}
