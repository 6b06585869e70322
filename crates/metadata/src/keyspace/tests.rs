#![allow(clippy::unwrap_used)]

mod machine;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn committed(keyspace: &mut Keyspace, txn: &Txn) -> Revision {
    match keyspace.apply(txn).0 {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict(present) => unreachable!("{present:?}"),
    }
}

#[test]
fn apply_tells_what_to_persist() {
    let mut keyspace = Keyspace::new();
    let (outcome, changes) = keyspace.apply(&Txn::new().put("a", "1").delete("never there"));
    assert_eq!(outcome, TxnOutcome::Committed(1));
    let put = Change { key: "a".into(), revision: 1, value: Some("1".into()) };
    assert_eq!(changes, Some(Changes { revision: 1, changes: vec![put] }));
    let (outcome, changes) = keyspace.apply(&Txn::new().delete("never there"));
    assert_eq!((outcome, changes), (TxnOutcome::Committed(2), Some(Changes { revision: 2, changes: Vec::new() })));
    let (outcome, changes) = keyspace.apply(&Txn::new());
    assert_eq!((outcome, changes), (TxnOutcome::Committed(2), None));
    let (outcome, changes) = keyspace.apply(&Txn::new().expect("a", Precondition::Absent).delete("a"));
    assert!(matches!(outcome, TxnOutcome::Conflict(_)));
    assert_eq!(changes, None);
}

#[test]
fn history_forgets_by_count_and_by_bytes() {
    let mut keyspace = Keyspace::new();
    for _ in 0..HISTORY_REVISIONS_MAX + 10 {
        committed(&mut keyspace, &Txn::new().put("a", "1"));
    }
    assert_eq!(keyspace.oldest(), 10);
    assert!(matches!(keyspace.changes_after(9, "").err(), Some(MetadataError::Compacted { oldest: 10 })));
    assert_eq!(keyspace.changes_after(10, "").unwrap().count(), HISTORY_REVISIONS_MAX);
    let revision = keyspace.revision();
    assert!(keyspace.changes_after(revision + 1, "").is_err(), "this store never was there");
    let large = Bytes::from(vec![0; METADATA_VALUE_BYTES_MAX]);
    for key in 0..40 {
        committed(&mut keyspace, &Txn::new().put(format!("large/{key}"), large.clone()));
    }
    let bytes: usize = keyspace
        .changes_after(keyspace.oldest(), "")
        .unwrap()
        .flat_map(|changes| changes.changes)
        .map(|change| change.value.unwrap().len())
        .sum();
    assert!(bytes <= HISTORY_BYTES_MAX && bytes > HISTORY_BYTES_MAX / 2, "{bytes} bytes of history");
}

#[test]
fn a_transaction_over_its_bytes_is_refused() {
    let value = Bytes::from(vec![0; METADATA_VALUE_BYTES_MAX]);
    let txn = |keys: usize| (0..keys).fold(Txn::new(), |txn, key| txn.put(format!("{key}"), value.clone()));
    assert_eq!(validate(&txn(15)), Ok(()));
    assert_eq!(validate(&txn(16)), Err(MetadataError::TooLarge));
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let entry = |revision| ("a".to_owned(), Versioned { revision, value: Bytes::new() });
    assert!(Keyspace::restore(5, [entry(5)]).is_ok());
    for revision in [0, 6] {
        let refused = RestoreError::EntryRevision { key: "a".into(), revision, store: 5 };
        assert_eq!(Keyspace::restore(5, [entry(revision)]).err(), Some(refused));
    }
    let refused = RestoreError::RevisionOutOfRange { revision: u64::MAX };
    assert_eq!(Keyspace::restore(u64::MAX, []).err(), Some(refused));
}

/// Few keys and revisions, so that transactions meet.
fn txns() -> impl Strategy<Value = Vec<Txn>> {
    let key = "[abc]";
    let demand = prop_oneof![Just(Precondition::Absent), (0..8_u64).prop_map(Precondition::Revision)];
    let write = prop_oneof![Just(Write::Delete), (0..9_u8).prop_map(|byte| Write::Put(Bytes::from(vec![byte])))];
    let preconditions = prop::collection::vec((key, demand), 0..2);
    let writes = prop::collection::vec((key, write), 0..4);
    let txn = (preconditions, writes).prop_map(|(preconditions, writes)| Txn { preconditions, writes });
    prop::collection::vec(txn, 0..24)
}

proptest! {
    /// A group decided at once, one by one, and after a restore between any two: the same outcomes, the same state.
    #[test]
    fn grouping_and_restoring_change_nothing(txns in txns(), cut in 0..24_usize) {
        let mut single = Keyspace::new();
        let one_by_one: Vec<_> = txns.iter().map(|txn| single.apply(txn).0).collect();

        let (before, after) = txns.split_at(cut.min(txns.len()));
        let mut grouped = Keyspace::new();
        let mut outcomes = Vec::new();
        for group in [before, after] {
            let mut staged = Staged::default();
            outcomes.extend(group.iter().map(|txn| grouped.stage(&mut staged, txn)));
            grouped.commit(staged);
            let entries = grouped.entries().map(|(key, versioned)| (key.to_owned(), versioned.clone()));
            grouped = Keyspace::restore(grouped.revision(), entries).unwrap();
        }
        prop_assert_eq!(outcomes, one_by_one);
        prop_assert_eq!(grouped.revision(), single.revision());
        prop_assert!(grouped.entries().eq(single.entries()));
    }

    /// Whoever has the state of some revision and the changes after it has the state of today.
    #[test]
    fn changes_lead_from_any_revision_to_the_present(txns in txns(), cut in 0..24_usize) {
        let mut keyspace = Keyspace::new();
        let mut replica = BTreeMap::new();
        let mut since = 0;
        for (index, txn) in txns.iter().enumerate() {
            if index == cut {
                replica = keyspace.entries().map(|(key, versioned)| (key.to_owned(), versioned.clone())).collect();
                since = keyspace.revision();
            }
            keyspace.apply(txn);
        }
        for changes in keyspace.changes_after(since, "").unwrap() {
            for change in changes.changes {
                prop_assert_eq!(change.revision, changes.revision);
                match change.value {
                    Some(value) => replica.insert(change.key, Versioned { revision: change.revision, value }),
                    None => replica.remove(&change.key),
                };
            }
        }
        prop_assert!(keyspace.entries().eq(replica.iter().map(|(key, versioned)| (key.as_str(), versioned))));
    }
}
