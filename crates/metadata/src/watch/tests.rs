#![allow(clippy::unwrap_used)]

use bifrost_wire::metadata::Txn;
use bytes::Bytes;

use super::*;
use crate::keyspace::Staged;
use crate::live::Live;

fn put(live: &mut Live, key: &str, bytes: usize) {
    let mut staged = Staged::default();
    live.stage(&mut staged, &Txn::new().put(key, Bytes::from(vec![0; bytes])));
    live.commit(staged);
}

#[test]
fn a_watch_that_was_never_read_keeps_all_of_history_and_then_ends() {
    let mut live = Live::default();
    let mut stream = live.watch("a".into(), 0).unwrap();
    for _ in 0..HISTORY_REVISIONS_MAX {
        put(&mut live, "a", 1);
    }
    let mut full = live.watch("a".into(), 0).unwrap();
    // Two more: the first pushes revision 1 out of history, the second revision 2.
    put(&mut live, "a", 1);
    put(&mut live, "a", 1);
    let oldest = 1;
    assert_eq!(stream.try_recv().unwrap().unwrap().changes, [], "where the watch began");
    for revision in 1..=HISTORY_REVISIONS_MAX as u64 {
        assert_eq!(stream.try_recv().unwrap().unwrap().revision, revision);
    }
    assert_eq!(stream.try_recv().unwrap(), Err(MetadataError::Compacted { oldest }));
    assert_eq!(stream.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    assert_eq!(full.try_recv().unwrap().unwrap().revision, 1, "a resumed watch holds the whole history");
}

#[test]
fn a_slow_watch_of_large_values_ends_when_history_is_full_of_bytes() {
    let mut live = Live::default();
    let mut stream = live.watch("a".into(), 0).unwrap();
    let mut writes = 0;
    while !stream.is_closed() && stream.len() == writes + 1 {
        put(&mut live, "a", 1 << 20);
        writes += 1;
    }
    assert!(writes < 40, "32 MiB of history, hence of undelivered values");
    while let Ok(Ok(_)) = stream.try_recv() {}
    assert_eq!(stream.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
}

#[test]
fn a_watch_that_is_read_never_ends() {
    let mut live = Live::default();
    let mut stream = live.watch(String::new(), 0).unwrap();
    stream.try_recv().unwrap().unwrap();
    for revision in 1..=3 * HISTORY_REVISIONS_MAX as u64 {
        put(&mut live, "a", 1);
        assert_eq!(stream.try_recv().unwrap().unwrap().revision, revision);
    }
}

#[test]
fn a_watch_without_news_is_told_the_revision_in_time_to_resume() {
    let mut live = Live::default();
    let mut stream = live.watch("quiet".into(), 0).unwrap();
    let mut told = 0;
    for _ in 0..3 * HISTORY_REVISIONS_MAX {
        put(&mut live, "loud", 1);
        while let Ok(item) = stream.try_recv() {
            let changes = item.unwrap();
            assert_eq!(changes.changes, []);
            told = changes.revision;
        }
        live.watch("quiet".into(), told).unwrap();
    }
}

#[test]
fn a_dropped_watch_frees_its_place() {
    let keyspace = Keyspace::new();
    let mut watchers = Watchers::default();
    let commit = |revision, key: &str| Changes {
        revision,
        changes: vec![bifrost_wire::metadata::Change { key: key.to_owned(), revision, value: None }],
    };
    for _ in 0..3 {
        drop(watchers.subscribe(&keyspace, "a".into(), 0).unwrap());
    }
    assert_eq!(watchers.count, 1, "a new watch removes the dropped ones of its prefix");
    watchers.publish(&[commit(1, "ab")], 0);
    assert_eq!(watchers.count, 0, "a commit that they would have been told of does too");
    drop(watchers.subscribe(&keyspace, "a".into(), 0).unwrap());
    watchers.publish(&[commit(2, "b")], 0);
    assert_eq!(watchers.count, 1, "one that they would not have been told of does not look at them");
    watchers.publish(&[commit(SWEEP_REVISIONS + 1, "b")], 0);
    assert_eq!(watchers.count, 0, "all are looked at now and then");
    for number in 0..10_000 {
        drop(watchers.subscribe(&keyspace, number.to_string(), 0).unwrap());
    }
    assert!(watchers.count <= SWEEP_AT_FIRST, "those that were dropped do not pile up");
}

#[test]
fn a_commit_is_told_to_whoever_watches_what_it_begins_with_and_costs_the_others_nothing() {
    let mut live = Live::default();
    let mut of_key: Vec<_> = (0..1000).map(|number| live.watch(format!("logs/{number:03}"), 0).unwrap()).collect();
    let mut of_all = live.watch("logs/".into(), 0).unwrap();
    let mut of_everything = live.watch(String::new(), 0).unwrap();
    for stream in of_key.iter_mut().chain([&mut of_all, &mut of_everything]) {
        stream.try_recv().unwrap().unwrap();
    }
    let mut staged = Staged::default();
    live.stage(&mut staged, &Txn::new().put("logs/007", "x").put("logs/0070", "y").put("other", "z"));
    live.commit(staged);
    let told = |stream: &mut WatchStream| {
        let changes = stream.try_recv().unwrap().unwrap();
        assert!(stream.try_recv().is_err(), "a revision is told once");
        changes.changes.into_iter().map(|change| change.key).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut of_key[7]), ["logs/007", "logs/0070"]);
    assert_eq!(told(&mut of_all), ["logs/007", "logs/0070"]);
    assert_eq!(told(&mut of_everything), ["logs/007", "logs/0070", "other"]);
    let news = of_key.iter_mut().filter_map(|stream| stream.try_recv().ok());
    assert_eq!(news.count(), 0, "nobody else was told anything");
}
