//! The core by itself: nothing is forgotten, nothing is done twice at once, and who has to wait waits.

use proptest::prelude::*;

use super::*;

fn log(number: u64) -> LogId {
    LogId::try_from(number).expect("not 0")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn step(keeper: &mut Keeper, now: Duration, event: Event) -> Vec<LogId> {
    let mut out = Vec::new();
    keeper.step(now, event, &mut out);
    keeper.check();
    out
}

fn seen(number: u64, spent: bool) -> Event {
    Event::Seen { log: log(number), due: spent.then_some(Duration::ZERO) }
}

#[test]
fn whoever_trims_has_a_second_and_then_the_keeper_shortens() {
    let mut keeper = Keeper::default();
    assert_eq!(step(&mut keeper, secs(10), seen(1, true)), []);
    assert_eq!(keeper.wake_at(), Some(secs(11)));
    assert_eq!(step(&mut keeper, secs(11), Event::Woken), [log(1)]);
    assert_eq!(keeper.wake_at(), None);
    assert_eq!(step(&mut keeper, secs(12), seen(1, false)), []);
    assert_eq!(step(&mut keeper, secs(12), Event::Ended { log: log(1) }), []);
    assert_eq!(keeper, Keeper::default(), "nothing is kept of a log that is in order");
}

#[test]
fn what_others_did_meanwhile_is_not_done_again() {
    let mut keeper = Keeper::default();
    step(&mut keeper, secs(10), seen(1, true));
    step(&mut keeper, secs(10), seen(1, false));
    assert_eq!(keeper.wake_at(), None);
    step(&mut keeper, secs(20), Event::Listed { logs: BTreeMap::from([(log(1), secs(2)), (log(2), secs(0))]) });
    assert_eq!(keeper.wake_at(), Some(secs(21)));
    step(&mut keeper, secs(20), Event::Listed { logs: BTreeMap::from([(log(1), secs(2))]) });
    assert_eq!(keeper.wake_at(), Some(secs(23)), "the others have their turn first");
}

#[test]
fn whoever_waits_for_a_server_asks_less_and_less_often_until_a_node_begins_a_life() {
    let mut keeper = Keeper::default();
    step(&mut keeper, secs(0), seen(1, true));
    let mut now = secs(1);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(step(&mut keeper, now, Event::Woken), [log(1)]);
        step(&mut keeper, now, Event::Ended { log: log(1) });
        assert_eq!(keeper.wake_at(), Some(now + secs(pause)));
        now += secs(pause);
    }
    now -= secs(59);
    step(&mut keeper, now, Event::NodesChanged);
    assert_eq!(keeper.wake_at(), Some(now + secs(1)));
}

#[test]
fn a_chain_that_was_trimmed_again_during_an_attempt_is_looked_at_again() {
    let mut keeper = Keeper::default();
    step(&mut keeper, secs(0), seen(1, true));
    assert_eq!(step(&mut keeper, secs(1), Event::Woken), [log(1)]);
    step(&mut keeper, secs(1), seen(1, false));
    step(&mut keeper, secs(1), seen(1, true));
    step(&mut keeper, secs(1), Event::Ended { log: log(1) });
    assert_eq!(keeper.wake_at(), Some(secs(2)));
}

fn event() -> impl Strategy<Value = Event> {
    let log = (1..8_u64).prop_map(log);
    prop_oneof![
        4 => (log.clone(), prop::option::of((0..3_u64).prop_map(secs))).prop_map(|(log, due)| Event::Seen { log, due }),
        1 => prop::collection::btree_map(log.clone(), (0..3_u64).prop_map(secs), 0..5)
            .prop_map(|logs| Event::Listed { logs }),
        1 => Just(Event::NodesChanged),
        4 => log.prop_map(|log| Event::Ended { log }),
        4 => Just(Event::Woken),
    ]
}

proptest! {
    #[test]
    fn every_log_with_spent_segments_has_a_turn(schedule in prop::collection::vec((0..3_u64, event()), 1..200)) {
        let (mut keeper, mut now) = (Keeper::default(), Duration::ZERO);
        let mut running = BTreeSet::new();
        let mut spent = BTreeSet::new();
        for (passed, event) in schedule {
            now += secs(passed);
            match &event {
                Event::Seen { log, due: Some(_) } => drop(spent.insert(*log)),
                Event::Seen { log, due: None } => drop(spent.remove(log)),
                Event::Listed { logs } => spent = logs.keys().copied().collect(),
                Event::Ended { log } => drop(running.remove(log)),
                Event::NodesChanged | Event::Woken => {}
            }
            for log in step(&mut keeper, now, event) {
                prop_assert!(running.insert(log), "{log} is shortened twice at once");
            }
            prop_assert!(running.len() <= AT_ONCE);
        }
        // From now on every attempt succeeds.
        for _ in 0..100 {
            for log in std::mem::take(&mut running) {
                spent.remove(&log);
                running.extend(step(&mut keeper, now, Event::Seen { log, due: None }));
                running.extend(step(&mut keeper, now, Event::Ended { log }));
            }
            now += PAUSE_MAX;
            running.extend(step(&mut keeper, now, Event::Woken));
        }
        prop_assert_eq!(spent, BTreeSet::new());
        prop_assert_eq!(keeper, Keeper::default());
    }
}
