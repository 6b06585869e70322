//! Long random schedules against a map that is simple enough to believe.

use std::collections::BTreeMap;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Apply(Txn),
    Group(Vec<Txn>),
    Restore,
    List { prefix: &'static str, after: Option<&'static str>, limit: usize },
    Changes { back: u64, prefix: &'static str },
}

const KEYS: [&str; 6] = ["a", "a/1", "a/2", "ab", "b", "b/1"];

fn action() -> impl Strategy<Value = Action> {
    let key = || prop::sample::select(&KEYS[..]);
    let prefix = || prop::sample::select(&["", "a", "a/", "b", "c"][..]);
    let demand = prop_oneof![2 => Just(None), 3 => (0..9_u64).prop_map(Some)];
    let write = prop_oneof![Just(Write::Delete), (0..9_u8).prop_map(|byte| Write::Put(Bytes::from(vec![byte])))];
    let preconditions = prop::collection::vec((key(), demand), 0..2);
    let writes = prop::collection::vec((key(), write), 0..4);
    let txn = move || {
        (preconditions.clone(), writes.clone()).prop_map(|(preconditions, writes)| Txn {
            preconditions: preconditions
                .into_iter()
                .map(|(key, back)| (key.to_owned(), back.map_or(Precondition::Absent, Precondition::Revision)))
                .collect(),
            writes: writes.into_iter().map(|(key, write)| (key.to_owned(), write)).collect(),
        })
    };
    prop_oneof![
        8 => txn().prop_map(Action::Apply),
        4 => prop::collection::vec(txn(), 0..5).prop_map(Action::Group),
        1 => Just(Action::Restore),
        3 => (prefix(), prop::option::of(key()), 0..5_usize)
            .prop_map(|(prefix, after, limit)| Action::List { prefix, after, limit }),
        3 => (0..20_u64, prefix()).prop_map(|(back, prefix)| Action::Changes { back, prefix }),
    ]
}

/// What a reader who saw everything knows.
#[derive(Default)]
struct Reference {
    values: BTreeMap<String, Versioned>,
    revision: Revision,
    history: Vec<Changes>,
    oldest: Revision,
}

impl Reference {
    /// Aims most demands at the present revision, so that they hold.
    fn aim(&self, txn: &Txn) -> Txn {
        let aimed = txn.preconditions.iter().map(|(key, precondition)| {
            let precondition = match (precondition, self.values.get(key)) {
                (Precondition::Revision(0..=6), Some(known)) => Precondition::Revision(known.revision),
                (other, _) => *other,
            };
            (key.clone(), precondition)
        });
        Txn { preconditions: aimed.collect(), writes: txn.writes.clone() }
    }

    fn apply(&mut self, txn: &Txn) -> TxnOutcome {
        let present = |key: &String| self.values.get(key).cloned();
        let holds = txn.preconditions.iter().all(|(key, precondition)| match precondition {
            Precondition::Absent => present(key).is_none(),
            Precondition::Revision(revision) => present(key).is_some_and(|known| known.revision == *revision),
        });
        if !holds {
            return TxnOutcome::Conflict(
                txn.preconditions.iter().map(|(key, _)| (key.clone(), present(key))).collect(),
            );
        }
        if txn.writes.is_empty() {
            return TxnOutcome::Committed(self.revision);
        }
        self.revision += 1;
        let revision = self.revision;
        let mut changes = Vec::new();
        for (key, write) in &txn.writes {
            let value = match write {
                Write::Put(value) => Some(value.clone()),
                Write::Delete if self.values.contains_key(key) => None,
                Write::Delete => continue,
            };
            match value.clone() {
                Some(value) => self.values.insert(key.clone(), Versioned { revision, value }),
                None => self.values.remove(key),
            };
            changes.push(Change { key: key.clone(), revision, value });
        }
        self.history.push(Changes { revision, changes });
        TxnOutcome::Committed(revision)
    }

    fn compare(&self, keyspace: &Keyspace, action: &Action) {
        assert_eq!(keyspace.revision(), self.revision);
        assert!(keyspace.entries().eq(self.values.iter().map(|(key, value)| (key.as_str(), value))));
        match action {
            Action::List { prefix, after, limit } => {
                let page = keyspace.list(prefix, *after, *limit);
                let after = |key: &&String| after.is_none_or(|after| key.as_str() > after);
                let all: Vec<&String> =
                    self.values.keys().filter(|key| key.starts_with(*prefix)).filter(after).collect();
                let listed: Vec<&String> = page.entries.iter().map(|(key, _)| key).collect();
                assert_eq!(listed[..], all[..all.len().min(*limit)]);
                assert_eq!((page.more, page.revision), (all.len() > *limit, self.revision));
            }
            Action::Changes { back, prefix } => {
                let after = self.revision.saturating_sub(*back);
                let told = keyspace.changes_after(after, prefix).map(Iterator::collect::<Vec<_>>);
                if after < self.oldest {
                    assert_eq!(told, Err(MetadataError::Compacted { oldest: self.oldest }));
                    return;
                }
                let wanted = self.history.iter().filter(|changes| changes.revision > after).filter_map(|changes| {
                    let under = changes.changes.iter().filter(|change| change.key.starts_with(*prefix));
                    let changes = Changes { revision: changes.revision, changes: under.cloned().collect() };
                    (!changes.changes.is_empty()).then_some(changes)
                });
                assert_eq!(told, Ok(wanted.collect()));
            }
            Action::Apply(_) | Action::Group(_) | Action::Restore => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_keyspace_is_a_map_with_a_history(actions in prop::collection::vec(action(), 1..300)) {
        let mut keyspace = Keyspace::new();
        let mut reference = Reference::default();
        for action in &actions {
            match action {
                Action::Apply(txn) => {
                    let txn = reference.aim(txn);
                    assert_eq!(keyspace.apply(&txn).0, reference.apply(&txn));
                }
                Action::Group(txns) => {
                    let mut staged = Staged::default();
                    for txn in txns {
                        let txn = reference.aim(txn);
                        assert_eq!(keyspace.stage(&mut staged, &txn), reference.apply(&txn));
                    }
                    keyspace.commit(staged);
                }
                Action::Restore => {
                    let entries = keyspace.entries().map(|(key, value)| (key.to_owned(), value.clone()));
                    keyspace = Keyspace::restore(keyspace.revision(), entries).unwrap();
                    reference.oldest = reference.revision;
                }
                Action::List { .. } | Action::Changes { .. } => {}
            }
            keyspace.check();
            reference.compare(&keyspace, action);
        }
    }
}
