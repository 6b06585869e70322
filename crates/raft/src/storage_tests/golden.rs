//! The bytes on the disk, drawn in `docs/FORMAT.md`: one file for each kind of key, lines of `key value` in hex.

use std::collections::{BTreeMap, BTreeSet};

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};

use bifrost_metadata::Precondition;

use super::*;
use crate::engine::LogEngine;
use crate::types::{GroupId, Member, Membership, Vote};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden(name: &str, records: &[(bytes::Bytes, bytes::Bytes)]) {
    let path = format!("{}/testdata/format/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text: String = records.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the format changed: {path}");
}

#[tokio::test]
async fn the_disk_has_its_golden_bytes() {
    let engine = MemoryEngine::new();
    let cluster = ClusterId::try_from(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10).unwrap();
    Disk::new(Arc::new(engine.clone())).identify(owner(cluster, ME)).await.unwrap();
    let (mut log, mut machine) = open(&engine).unwrap();
    log.save_vote(&Vote::new_committed(7, MemberId::from(2))).await.unwrap();
    let members = BTreeMap::from([
        (MemberId::from(1), Member { address: "one:1".to_owned() }),
        (MemberId::from(2), Member { address: "two:2".to_owned() }),
    ]);
    let voters = vec![BTreeSet::from([MemberId::from(1)]), BTreeSet::from([MemberId::from(1), MemberId::from(2)])];
    let membership = EntryPayload::Membership(Membership::new(voters, members));
    let txns = vec![
        Txn::new()
            .expect("a", Precondition::Absent)
            .expect("b", Precondition::Revision(3))
            .put("c", "value")
            .delete("d"),
        Txn::new().put("ä", "1"),
    ];
    let entries = vec![
        Entry { log_id: id(1, 0), payload: membership },
        blank(2, 1),
        Entry { log_id: id(2, 2), payload: EntryPayload::Normal(Command { txns }) },
        write(7, 3, "k"),
    ];
    assert!(append(&mut log, entries.clone()).await);
    log.save_committed(Some(id(2, 2))).await.unwrap();
    machine.apply(entries[..3].to_vec()).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let lineage = Lineage::default().followed_by(GroupId::from(5)).followed_by(GroupId::from(6));
    let other = MemoryEngine::new();
    Disk::new(Arc::new(other.clone())).identify(Owner { lineage, ..owner(cluster, ME) }).await.unwrap();
    golden("lineage", &other.range(b"g", b"h", usize::MAX).unwrap());
    let kinds = [
        ("entry", "e", "f"),
        ("identity", "i", "j"),
        ("vote", "v", "w"),
        ("committed", "c", "d"),
        ("snapshot", "s", "t"),
        ("piece", "d", "e"),
    ];
    for (name, start, end) in kinds {
        golden(name, &engine.range(start.as_bytes(), end.as_bytes(), usize::MAX).unwrap());
    }
    log.purge(id(2, 1)).await.unwrap();
    golden("purged", &engine.range(b"p", b"q", usize::MAX).unwrap());
    assert_eq!(ids(&mut log).await, [id(2, 2), id(7, 3)]);
    let (mut log, mut machine) = open(&engine).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[2..], "and they are read back");
    assert_eq!(machine.applied_state().await.unwrap().0, Some(id(2, 2)));
}
