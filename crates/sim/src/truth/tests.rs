use bifrost_wire::metadata::{Change, Changes, Page, Precondition, Versioned};

use super::*;

fn truth() -> Truth {
    let truth = Truth::new(History::new(|| 0));
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        truth.commit(&Txn::new().put(key, value)).expect("a transaction");
    }
    truth.commit(&Txn::new().delete("b")).expect("a transaction");
    truth
}

fn found(revision: Revision, value: &'static str) -> Option<Versioned> {
    Some(Versioned { revision, value: value.into() })
}

/// What is found when an answer comes after others were told of this revision.
fn told(revision: Revision, answer: impl Fn(&Truth, Floor)) -> Vec<String> {
    let truth = truth();
    if revision > 0 {
        truth.judge_txn("n1", truth.floor(), &Txn::new(), &TxnOutcome::Committed(revision));
    }
    answer(&truth, truth.floor());
    truth.breaches()
}

#[test]
fn a_read_shows_what_was_there_between_its_call_and_its_answer() {
    let reads = |revision, key: &'static str, found: Option<Versioned>| {
        told(revision, move |truth, floor| truth.judge_get("n2", floor, key, found.as_ref())).is_empty()
    };
    assert!(reads(3, "a", found(3, "2")), "the present");
    assert!(reads(2, "a", found(1, "1")), "the past, as long as nobody was told of the present");
    assert!(!reads(3, "a", found(1, "1")), "what was replaced before the call");
    assert!(!reads(0, "a", found(1, "2")), "a value of another revision");
    assert!(!reads(0, "a", found(9, "2")), "a revision that there is not");
    assert!(reads(4, "b", None) && reads(0, "b", None), "not there any more, and not yet");
    assert!(!reads(1, "a", None), "it was written before the call");
    assert!(!reads(4, "b", found(2, "1")), "it was removed");
    assert!(reads(4, "c", None), "never there");
}

#[test]
fn what_a_read_shows_is_told() {
    let truth = truth();
    let early = truth.floor();
    truth.judge_get("n1", early, "a", found(3, "2").as_ref());
    truth.judge_get("n2", early, "a", found(1, "1").as_ref());
    assert_eq!(truth.breaches(), [""; 0], "it began before");
    truth.judge_get("n2", truth.floor(), "a", found(1, "1").as_ref());
    assert_eq!(truth.breaches().len(), 1);
}

#[test]
fn a_page_shows_one_revision_whole() {
    let lists = |told_of, revision, entries: &[(&str, Option<Versioned>)], more| {
        let entries = entries.iter().filter_map(|(key, found)| Some(((*key).to_owned(), found.clone()?))).collect();
        let page = Page { revision, entries, more };
        told(told_of, move |truth, floor| truth.judge_page("n2", floor, ("", None), &page)).is_empty()
    };
    let (old, new, b) = (found(1, "1"), found(3, "2"), found(2, "1"));
    assert!(lists(4, 4, &[("a", new.clone())], false));
    assert!(lists(2, 2, &[("a", old.clone()), ("b", b.clone())], false));
    assert!(lists(2, 2, &[("a", old.clone())], true), "the rest follows");
    assert!(!lists(2, 2, &[("a", old.clone())], false), "b is missing");
    assert!(!lists(2, 3, &[("a", old), ("b", b.clone())], false), "two revisions");
    assert!(!lists(4, 3, &[("a", new.clone()), ("b", b)], false), "older than what was told");
    assert!(!lists(0, 5, &[("a", new)], false), "not yet");
}

#[test]
fn a_transaction_is_told_of_its_own_revision() {
    let writes = |told_of, txn: Txn, outcome: TxnOutcome| {
        told(told_of, move |truth, floor| truth.judge_txn("n2", floor, &txn, &outcome)).is_empty()
    };
    let put = || Txn::new().put("a", "2");
    assert!(writes(2, put(), TxnOutcome::Committed(3)));
    assert!(!writes(2, Txn::new().put("a", "3"), TxnOutcome::Committed(3)), "another one");
    assert!(!writes(2, put().put("b", "1"), TxnOutcome::Committed(3)), "half of it");
    assert!(!writes(3, put(), TxnOutcome::Committed(3)), "of the past");
    assert!(!writes(0, put(), TxnOutcome::Committed(5)), "never decided");
    assert!(writes(0, Txn::new().delete("b"), TxnOutcome::Committed(4)));
    let demanding = || Txn::new().expect("a", Precondition::Absent).put("a", "9");
    assert!(writes(3, demanding(), TxnOutcome::Conflict(vec![("a".to_owned(), found(3, "2"))])));
    assert!(!writes(3, demanding(), TxnOutcome::Conflict(vec![("a".to_owned(), found(1, "1"))])), "of the past");
}

/// A revision, and what it is said to have changed.
type Item<'a> = (Revision, &'a [(&'a str, Option<&'static str>)]);

#[test]
fn a_watch_leaves_out_nothing_and_repeats_nothing() {
    let watched = |after, items: &[Item<'_>]| {
        let truth = truth();
        let mut judge = WatchJudge::new(truth.clone(), "n1", "a".to_owned(), after);
        for (revision, changes) in items {
            let change = |(key, value): &(&str, Option<&'static str>)| Change {
                key: (*key).to_owned(),
                revision: *revision,
                value: value.map(Into::into),
            };
            judge.judge(&Changes { revision: *revision, changes: changes.iter().map(change).collect() });
        }
        truth.breaches().is_empty()
    };
    let (first, second): (&[_], &[_]) = (&[("a", Some("1"))], &[("a", Some("2"))]);
    assert!(watched(0, &[(1, first), (2, &[]), (3, second)]));
    assert!(watched(1, &[(3, second), (4, &[]), (4, &[])]));
    assert!(!watched(0, &[(3, second)]), "revision 1 is left out");
    assert!(!watched(0, &[(1, first), (4, &[])]), "revision 3 is");
    assert!(!watched(0, &[(1, first), (1, first)]), "repeated");
    assert!(!watched(0, &[(1, second)]), "another value");
    assert!(!watched(0, &[(1, first), (3, &[("a", None)])]), "a removal that did not happen");
    assert!(!watched(3, &[(5, &[])]), "ahead of the store");
}

mod members {
    use bifrost_metadata::Keyspace;
    use bifrost_raft::MemberId;
    use bifrost_raft::codec::{Reader, Writer};
    use bifrost_raft::types::{LogId, Vote};

    use super::*;
    use crate::transport::Votes;

    fn id(term: u64, index: u64) -> LogId {
        let mut writer = Writer::default();
        writer.u64(term);
        writer.member(MemberId::from(term));
        writer.u64(index);
        Reader::new("a log id", &writer.finish()).log_id().expect("what was written")
    }

    fn put(value: &'static str) -> [Txn; 1] {
        [Txn::new().put("a", value)]
    }

    /// `m1` has applied two entries of term 1 and one of term 3.
    fn applied() -> Truth {
        let truth = Truth::new(History::new(|| 0));
        truth.applies("m1", id(1, 0), &[]);
        truth.applies("m1", id(1, 1), &put("1"));
        truth.applies("m1", id(3, 2), &put("2"));
        truth
    }

    fn is_fine(act: impl Fn(&Truth)) -> bool {
        let truth = applied();
        act(&truth);
        truth.breaches().is_empty()
    }

    #[test]
    fn all_members_apply_the_same_entries() {
        assert!(is_fine(|truth| truth.applies("m2", id(1, 0), &[])));
        assert!(is_fine(|truth| truth.applies("m2", id(3, 2), &put("2"))), "it began with a snapshot");
        assert!(is_fine(|truth| truth.applies("m2", id(4, 3), &put("3"))), "it is the first");
        assert!(!is_fine(|truth| truth.applies("m2", id(2, 2), &put("2"))), "another one in its place");
        assert!(!is_fine(|truth| truth.applies("m2", id(4, 4), &put("3"))), "nobody applied the one before");
        assert_eq!(applied().last_entry(), Some(2));
    }

    #[test]
    fn a_snapshot_is_what_the_entries_amount_to() {
        let keyspace = |values: &[&'static str]| {
            let mut keyspace = Keyspace::new();
            for value in values {
                keyspace.apply(&Txn::new().put("a", *value));
            }
            keyspace
        };
        assert!(is_fine(|truth| truth.installs("m2", &keyspace(&["1", "2"]), Some(id(3, 2)))));
        assert!(is_fine(|truth| truth.installs("m2", &keyspace(&["1"]), Some(id(1, 1)))));
        assert!(!is_fine(|truth| truth.installs("m2", &keyspace(&["1"]), Some(id(3, 2)))), "it lacks the last one");
        assert!(!is_fine(|truth| truth.installs("m2", &keyspace(&["1", "9"]), Some(id(3, 2)))), "another value");
        assert!(!is_fine(|truth| truth.installs("m2", &keyspace(&["1", "2"]), Some(id(2, 2)))), "of another leader");
    }

    #[test]
    fn no_member_goes_behind_a_vote_that_it_told() {
        let me = MemberId::from(1);
        let lives = |lives: &[&[(u64, u64)]]| {
            let truth = applied();
            let told = Votes::new(truth.clone());
            for votes in lives {
                told.begins(me);
                for (term, candidate) in *votes {
                    told.tells(me, Vote::new(*term, MemberId::from(*candidate)));
                }
            }
            told.tells(MemberId::from(2), Vote::new(1, MemberId::from(2)));
            truth.breaches().is_empty()
        };
        assert!(lives(&[&[(1, 1), (2, 3)], &[(2, 3), (5, 1)]]));
        assert!(lives(&[&[(2, 3), (1, 1)]]), "one of its tasks is behind");
        assert!(!lives(&[&[(2, 1)], &[(1, 1)]]));
        assert!(!lives(&[&[(2, 3)], &[(2, 1)]]), "candidates of one term are ordered too");
        assert!(!lives(&[&[(2, 3), (1, 1)], &[], &[(1, 1)]]), "all lives before it count");
    }
}
