//! Members die, are cut off, lose what they did not sync, and come back.

use super::*;
use crate::mesh::Way;

#[tokio::test(start_paused = true)]
async fn one_member_serves_alone_and_again_after_a_crash() {
    let mut group = Group::of(&[1]).await;
    for round in 0..3 {
        group.put("k", &round.to_string()).await;
        let before = group.members[&1].applied();
        group.stop(1).await;
        group.disks[&1].crash(round);
        group.start(1).await;
        assert_eq!(group.get("k").await.unwrap().value, round.to_string());
        assert!(group.members[&1].applied().entries().eq(before.entries()));
    }
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_dies_the_others_go_on_and_it_follows_when_it_returns() {
    let mut group = Group::of(&[1, 2, 3]).await;
    group.put("before", "1").await;
    assert_eq!(group.members[&2].get("before".into()).await, Err(MetadataError::Unavailable), "it does not lead");
    assert_eq!(group.members[&2].txn(Txn::new().put("x", "1")).await, Err(MetadataError::Unavailable));
    assert_eq!(group.members[&2].leader(), Some((m(1), member(1))), "but it knows who does");
    let died = tokio::time::Instant::now();
    group.stop(1).await;
    group.disks[&1].crash(0);
    let leader = group.leader_of(&[2, 3]).await;
    let RaftOptions { heartbeat, lease, .. } = options(1);
    assert!(died.elapsed() <= lease + heartbeat * 2, "the first one asks a heartbeat after the lease");
    let (missed, heard) = group.members[&leader].status().missed.expect("it took the lead from a silent one");
    assert!(missed == m(1) && heard <= died, "{missed:?} was heard {:?} after it died", heard - died);
    assert_eq!(group.members[&leader].get("before".into()).await.unwrap().unwrap().value, "1", "nothing is lost");
    group.put("after", "1").await;
    group.start(1).await;
    let agreed = group.agree(&[1, 2, 3]).await;
    assert!(agreed.get("after").is_some());
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_without_a_majority_appended_is_overwritten() {
    let group = Group::of(&[1, 2, 3]).await;
    group.put("k", "kept").await;
    group.isolate(1, true);
    // It does not know yet. It promises nothing, and its log grows longer than theirs.
    let lost = (0..20).map(|n| group.members[&1].txn(Txn::new().put("k", format!("lost {n}"))));
    let outcomes = futures_util::future::join_all(lost).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Err(MetadataError::Unknown)), "{outcomes:?}");
    assert_eq!(group.members[&1].get("k".into()).await, Err(MetadataError::Unavailable), "a read asks the others");
    let refused = group.members[&1].txn(Txn::new().put("k", "late")).await;
    assert_eq!(refused, Err(MetadataError::Unavailable), "by now it knows that it is alone");
    let leader = group.leader_of(&[2, 3]).await;
    for n in 0..3 {
        let written = group.members[&leader].txn(Txn::new().put("k", format!("new {n}"))).await.unwrap();
        assert!(matches!(written, TxnOutcome::Committed(_)));
    }
    group.isolate(1, false);
    let agreed = group.agree(&[1, 2, 3]).await;
    assert_eq!(agreed.get("k").unwrap().value, "new 2");
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_cut_off_raises_no_term_and_deposes_nobody_when_it_is_back() {
    let group = Group::of(&[1, 2, 3]).await;
    let before = group.members[&1].status().term;
    for cut in [2, 3] {
        group.isolate(cut, true);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(group.members[&cut].status().term, before, "nobody would vote for it");
        group.put(&format!("without {cut}"), "1").await;
        group.isolate(cut, false);
        let agreed = group.agree(&[1, 2, 3]).await;
        assert!(agreed.get(&format!("without {cut}")).is_some());
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    // One that hears nobody and is heard by all would depose its leader again and again.
    for other in [1, 3] {
        group.mesh.set(m(other), m(2), Way { cut: true, ..Way::default() });
    }
    for n in 0..20 {
        group.put(&format!("half {n}"), "1").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for member in group.members.values() {
        let status = member.status();
        assert_eq!((status.term, status.leader), (before, Some(m(1))), "{status:?}");
    }
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_sees_what_it_applied_as_long_as_it_is_led() {
    let group = Group::of(&[1, 2, 3]).await;
    let seen = |member: u64, key: &str| group.members[&member].seen(key).map(|found| found.value);
    group.put("k", "old").await;
    group.agree(&[1, 2, 3]).await;
    for member in 1..=3 {
        assert_eq!(seen(member, "k"), Some("old".into()));
        assert_eq!(seen(member, "none"), None);
    }
    group.isolate(3, true);
    group.put("k", "new").await;
    assert_eq!(seen(3, "k"), Some("old".into()), "nobody was asked");
    tokio::time::sleep(options(3).lease).await;
    assert_eq!(seen(3, "k"), None, "the others may be another group by now");
    assert_eq!(seen(2, "k"), Some("new".into()));
    group.isolate(3, false);
    group.agree(&[1, 2, 3]).await;
    assert_eq!(seen(3, "k"), Some("new".into()));
    group.members[&2].shutdown().await;
    assert_eq!(seen(2, "k"), None);
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_crashes_in_any_write_comes_back_with_all_that_it_answered() {
    for stop in 0..12 {
        for kept in 0..2 {
            let mut group = Group::of(&[1, 2, 3]).await;
            group.disks[&3].stop_after(stop);
            for n in 0..8 {
                group.put(&format!("k{n}"), "1").await;
            }
            group.until(3, |status| status.role == Role::Stopped).await;
            assert_eq!(group.members[&3].get("k1".into()).await, Err(MetadataError::Unavailable));
            group.stop(3).await;
            group.disks[&3].crash(kept);
            group.start(3).await;
            // The other follower leaves: every commit needs the one that came back.
            group.stop(2).await;
            group.put("last", "1").await;
            let agreed = group.agree(&[1, 3]).await;
            assert!((0..8).all(|n| agreed.get(&format!("k{n}")).is_some()), "stop {stop}, kept {kept}");
            group.end().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_members_lose_power_and_nothing_that_was_acknowledged_is_lost() {
    let mut group = Group::of(&[1, 2, 3]).await;
    for round in 0..4 {
        for n in 0..5 {
            group.put(&format!("k{round}.{n}"), "1").await;
        }
        for id in 1..=3 {
            group.disks[&id].stop();
        }
        for id in 1..=3 {
            group.stop(id).await;
            group.disks[&id].crash(round);
            group.start(id).await;
        }
        let agreed = group.agree(&[1, 2, 3]).await;
        for (round, n) in (0..=round).flat_map(|round| (0..5).map(move |n| (round, n))) {
            assert!(agreed.get(&format!("k{round}.{n}")).is_some(), "k{round}.{n}");
        }
    }
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn messages_and_answers_are_lost_and_every_transaction_happens_once_at_most() {
    let group = Group::of(&[1, 2, 3]).await;
    for from in 1..=3 {
        for to in 1..=3 {
            let lose_every = 2 + (from * 3 + to) % 4;
            group.mesh.set(m(from), m(to), Way { lose_every, delay: Duration::from_millis(from), ..Way::default() });
        }
    }
    let (mut told, mut open) = (0_u64, 0_u64);
    for n in 0..60 {
        for member in group.members.values() {
            match member.txn(Txn::new().put(format!("n/{n}"), "1").put("other", "1")).await {
                Ok(TxnOutcome::Committed(_)) => told += 1,
                Ok(TxnOutcome::Conflict(_)) => panic!("no preconditions"),
                Err(MetadataError::Unknown) => open += 1,
                Err(MetadataError::Unavailable) => continue,
                Err(error) => panic!("{error}"),
            }
            break;
        }
    }
    for (from, to) in (1..=3).flat_map(|from| (1..=3).map(move |to| (from, to))) {
        group.mesh.set(m(from), m(to), Way::default());
    }
    let agreed = group.agree(&[1, 2, 3]).await;
    // One revision for `first`, and one for each that happened.
    let happened = agreed.revision() - 1;
    assert!(told > 0 && (told..=told + open).contains(&happened), "{happened} happened, {told} told, {open} open");
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut group = Group::of(&[1, 2, 3]).await;
    group.stop(3).await;
    for n in 0..40 {
        group.put(&format!("large/{}", n % 8), &"x".repeat(600 << 10)).await;
    }
    group.put("small", "1").await;
    for id in [1, 2] {
        group.members[&id].snapshot().await.unwrap();
        let status = group.until(id, |status| status.purged > Some(10)).await;
        assert!(status.purged < status.snapshot, "what is recent stays in the log");
    }
    let watched = group.members[&1].watch(String::new(), 0).await;
    assert!(watched.is_ok(), "a snapshot takes nothing from the history of its maker");
    group.start(3).await;
    let mut watch = {
        group.until(3, |status| status.role == Role::Follower).await;
        group.agree(&[1, 2, 3]).await;
        assert!(group.members[&3].status().snapshot > Some(10), "it came as a snapshot");
        watched.unwrap()
    };
    assert!(watch.recv().await.unwrap().is_ok());
    // From the snapshot on, through a crash.
    group.put("later", "1").await;
    group.agree(&[1, 2, 3]).await;
    group.stop(3).await;
    group.disks[&3].crash(0);
    group.start(3).await;
    let agreed = group.agree(&[1, 2, 3]).await;
    assert!(agreed.get("later").is_some() && agreed.get("small").is_some());
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_bounded_by_bytes_without_being_asked() {
    let group = Group::of(&[1, 2]).await;
    for n in 0..60 {
        group.put(&format!("large/{}", n % 4), &"x".repeat(900 << 10)).await;
    }
    for id in [1, 2] {
        let status = group.until(id, |status| status.purged > Some(20)).await;
        assert!(status.purged <= status.snapshot);
    }
    group.agree(&[1, 2]).await;
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_takes_longer_than_any_heartbeat_arrives_and_nobody_else_is_elected() {
    let group = Group::of(&[1, 2, 3]).await;
    let term = group.members[&1].status().term;
    for from in 1..=3 {
        for to in 1..=3 {
            group.mesh.set(m(from), m(to), Way { bytes_per_second: 8 << 20, ..Way::default() });
        }
    }
    let large = (0..12).fold(Txn::new(), |txn, key| txn.put(format!("large/{key}"), vec![key; 1 << 20]));
    let written = group.members[&1].txn(large).await;
    assert!(matches!(written, Ok(TxnOutcome::Committed(_))), "{written:?}");
    group.put("small", "1").await;
    let agreed = group.agree(&[1, 2, 3]).await;
    assert_eq!(agreed.entries().filter(|(key, _)| key.starts_with("large/")).count(), 12);
    assert_eq!(group.members[&1].status().term, term, "the others heard of their leader all the time");
    group.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_group_takes_removals_and_goes_on_when_there_is_room() {
    let mesh = Mesh::new();
    let small = RaftOptions { state_bytes_max: 8 << 20, ..options(1) };
    let engine = Arc::new(MemoryEngine::new());
    let member = RaftMetadata::start_here(small, engine, mesh.peers_of(m(1))).await.unwrap();
    member.initialize(BTreeMap::from([(m(1), super::member(1))])).await.unwrap();
    timeout(PATIENCE, member.watch_status().wait_for(Status::serves)).await.unwrap().unwrap();
    let put = |key: u64| member.txn(Txn::new().put(format!("k{key}"), vec![1; 1 << 20]));
    let mut taken = 0;
    while put(taken).await.is_ok() {
        taken += 1;
    }
    assert!((7..=9).contains(&taken), "{taken} values of 1 MiB in 8 MiB");
    assert_eq!(put(taken).await, Err(MetadataError::Unavailable));
    assert!(member.get("k0".into()).await.unwrap().is_some(), "reads go on");
    for key in 0..taken {
        assert!(matches!(member.txn(Txn::new().delete(format!("k{key}"))).await, Ok(TxnOutcome::Committed(_))));
    }
    let mut tries = 0;
    while put(0).await.is_err() {
        tries += 1;
        assert!(tries < 100, "there is room");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    member.shutdown().await;
}
