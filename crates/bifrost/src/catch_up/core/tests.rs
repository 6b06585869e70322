#![allow(clippy::unwrap_used, clippy::panic)]

mod machine;

use std::num::{NonZeroU8, NonZeroU64};

use bifrost_types::{
    DiskId, Generation, Location, LogletParams, Member, NodeGeneration, NodeId, Nodeset, OpId, ReplicationProperty,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(offset: u64) -> LogletOffset {
    LogletOffset::new(offset).unwrap()
}

fn log(number: u64) -> LogId {
    LogId::try_from(number).unwrap()
}

fn loglet(of: u64, segment: u32) -> LogletId {
    LogletId::new(log(of), SegmentIndex::new(segment))
}

/// Offsets from 1 up to a tail.
fn share(of: u64, segment: u32, decided_tail: u64) -> Share {
    let node = |id: u32| NodeId::try_from(id).unwrap();
    let member = |id: u32| Member {
        node: node(id),
        disk: DiskId::try_from(u128::from(id)).unwrap(),
        location: Location::default(),
    };
    let params = LogletParams {
        id: loglet(of, segment),
        nodeset: Nodeset::new((1..=3).map(member).collect()).unwrap(),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).unwrap()),
        sequencer: NodeGeneration::new(node(1), Generation::FIRST),
    };
    let (op, end) = (OpId::try_from(9).unwrap(), at(decided_tail));
    Share { params, named_at: 1, op, from: at(1), end, decided_tail: end }
}

fn options() -> CatchUpOptions {
    CatchUpOptions { bytes_per_second: NonZeroU64::new(1_000_000).unwrap(), ..CatchUpOptions::default() }
}

/// A core in service that knows these shares, all of log 1; and its first step.
fn knows(shares: Vec<Share>) -> (Core, Option<Step>) {
    let mut core = Core::new(options());
    assert_eq!(core.step(Duration::ZERO, Event::InService(true)), None);
    let logs = BTreeMap::from([(log(1), (1, shares))]);
    let step = core.step(Duration::ZERO, Event::Listed { logs });
    core.check();
    (core, step)
}

fn end(core: &mut Core, now: Duration, loglet: LogletId, outcome: Outcome) -> Option<Step> {
    let step = core.step(now, Event::Ended { loglet, outcome });
    core.check();
    step
}

fn looked(until: u64, holes: &[(u64, u64)]) -> Outcome {
    let holes = holes.iter().map(|(from, end)| (at(*from), at(*end))).collect();
    Outcome::Looked { until: at(until), holes, bytes: 10 }
}

fn copied(until: u64) -> Outcome {
    Outcome::Copied { until: at(until), bytes: 10, lost: false }
}

const fn prepared(whole_tail: LogletOffset) -> Outcome {
    Outcome::Prepared { whole_tail }
}

/// One segment of offsets below 101, of which those from 11 to 60 are missing, as far as the first copy.
fn behind() -> (Core, Share) {
    let share = share(1, 0, 101);
    let (mut core, step) = knows(vec![share.clone()]);
    let id = share.params.id;
    assert_eq!(step, Some(Step::Prepare(share.clone())));
    let step = end(&mut core, Duration::ZERO, id, prepared(at(1)));
    assert_eq!(step, Some(Step::Look { share: share.clone(), from: at(1) }));
    let step = end(&mut core, Duration::ZERO, id, looked(101, &[(11, 61)]));
    assert_eq!(step, Some(Step::Copy { share: share.clone(), hole: (at(11), at(61)) }));
    (core, share)
}

#[test]
fn a_copy_is_looked_at_filled_and_remembered_as_whole() {
    let (mut core, share) = behind();
    let id = share.params.id;
    assert_eq!(core.progress().state, CatchUpState::CatchingUp { loglet: id });
    assert_eq!((core.progress().records_left, core.progress().percent()), (50, 0));
    let step = end(&mut core, Duration::ZERO, id, copied(31));
    assert_eq!(step, Some(Step::Copy { share: share.clone(), hole: (at(31), at(61)) }));
    assert_eq!((core.progress().percent(), core.progress().bytes_left), (40, Some(15)));
    assert_eq!(end(&mut core, Duration::ZERO, id, copied(61)), Some(Step::Attest(share)));
    assert_eq!(end(&mut core, Duration::ZERO, id, Outcome::Attested), None);
    let progress = core.progress();
    assert_eq!((progress.state, progress.percent(), progress.segments_left), (CatchUpState::Idle, 100, 0));
    assert_eq!((progress.records_done, progress.bytes_done, progress.bytes_left), (50, 20, Some(0)));
    assert_eq!(core.wake_at(), None, "it wakes up for nothing");
}

#[test]
fn a_copy_that_is_known_to_be_whole_is_not_read() {
    let share = share(1, 0, 101);
    let (mut core, _) = knows(vec![share.clone()]);
    assert_eq!(end(&mut core, Duration::ZERO, share.params.id, prepared(at(101))), None);
    assert_eq!(core.progress().state, CatchUpState::Idle);
}

#[test]
fn the_newest_segment_comes_first_and_everything_is_looked_at_before_anything_is_copied() {
    let (mut core, step) = knows(vec![share(1, 0, 11), share(1, 1, 11)]);
    assert_eq!(step, Some(Step::Prepare(share(1, 1, 11))));
    end(&mut core, Duration::ZERO, loglet(1, 1), prepared(at(1)));
    let step = end(&mut core, Duration::ZERO, loglet(1, 1), looked(11, &[(1, 11)]));
    assert_eq!(step, Some(Step::Prepare(share(1, 0, 11))));
    end(&mut core, Duration::ZERO, loglet(1, 0), prepared(at(1)));
    let step = end(&mut core, Duration::ZERO, loglet(1, 0), looked(11, &[(1, 11)]));
    assert_eq!(step, Some(Step::Copy { share: share(1, 1, 11), hole: (at(1), at(11)) }));
    assert_eq!(core.progress().records_left, 20);
}

#[test]
fn without_a_source_one_segment_waits_and_the_others_go_on() {
    let (mut core, _) = knows(vec![share(1, 0, 11), share(1, 1, 11)]);
    end(&mut core, Duration::ZERO, loglet(1, 1), prepared(at(1)));
    end(&mut core, Duration::ZERO, loglet(1, 1), looked(11, &[(1, 11)]));
    end(&mut core, Duration::ZERO, loglet(1, 0), prepared(at(1)));
    end(&mut core, Duration::ZERO, loglet(1, 0), looked(11, &[(1, 11)]));
    let died = CatchUpError::NoSource { loglet: loglet(1, 1), from: at(1) };
    let step = end(&mut core, Duration::ZERO, loglet(1, 1), Outcome::Failed(died));
    assert_eq!(step.unwrap().share().params.id, loglet(1, 0), "the other one has its turn");
    assert_eq!(core.progress().last_error, Some(died));
    end(&mut core, Duration::ZERO, loglet(1, 0), copied(11));
    assert_eq!(end(&mut core, Duration::ZERO, loglet(1, 0), Outcome::Attested), None);
    assert_eq!((core.progress().state, core.wake_at()), (CatchUpState::Pausing, Some(SECOND)));
    // A node that came back may be the source.
    let step = core.step(Duration::from_millis(10), Event::PeersChanged);
    assert_eq!(step, Some(Step::Copy { share: share(1, 1, 11), hole: (at(1), at(11)) }));
    for failed in 0..8 {
        let now = SECOND * 100 * (failed + 1);
        end(&mut core, now, loglet(1, 1), Outcome::Failed(died));
        let pause = core.wake_at().unwrap() - now;
        assert_eq!(pause, (SECOND * 2_u32.pow(failed)).min(options().pause_max));
        assert!(core.step(now + pause, Event::Woken).is_some());
    }
    end(&mut core, SECOND * 1000, loglet(1, 1), copied(11));
    assert_eq!(core.progress().last_error, None);
}

#[test]
fn a_full_disk_stops_the_copying_and_nothing_else_and_room_begins_it_again() {
    let (mut core, share) = behind();
    assert_eq!(core.step(Duration::ZERO, Event::Room(false)), None);
    assert_eq!(end(&mut core, Duration::ZERO, share.params.id, copied(31)), None);
    assert_eq!((core.progress().state, core.wake_at()), (CatchUpState::NoRoom, None));
    // A segment that closes now is looked at, after it was left alone for a while.
    let other = self::share(2, 0, 11);
    let seen = Event::LogSeen { log: log(2), revision: 5, shares: vec![other.clone()] };
    assert_eq!(core.step(Duration::ZERO, seen), None);
    assert_eq!(core.wake_at(), Some(options().quiet));
    assert_eq!(core.step(options().quiet, Event::Woken), Some(Step::Prepare(other)));
    assert_eq!(end(&mut core, Duration::ZERO, loglet(2, 0), prepared(at(11))), None);
    let step = core.step(SECOND, Event::Room(true));
    assert_eq!(step, Some(Step::Copy { share, hole: (at(31), at(61)) }));
}

#[test]
fn a_copy_that_says_that_its_disk_is_full_is_asked_again_by_itself() {
    let (mut core, share) = behind();
    let id = share.params.id;
    let full = CatchUpError::Here { loglet: id, source: CopyError::DiskFull.into() };
    for round in 0..5 {
        let now = SECOND * 10 * round;
        assert_eq!(end(&mut core, now, id, Outcome::Failed(full)), None);
        assert_eq!(core.wake_at(), Some(now + options().pause_min), "it does not wait longer each time");
        let step = core.step(core.wake_at().unwrap(), Event::Woken);
        assert_eq!(step, Some(Step::Copy { share: share.clone(), hole: (at(11), at(61)) }));
    }
}

#[test]
fn a_disk_that_is_not_read_write_gets_nothing_and_goes_on_when_it_is_again() {
    let (mut core, share) = behind();
    assert_eq!(core.step(Duration::ZERO, Event::InService(false)), None);
    assert_eq!(end(&mut core, Duration::ZERO, share.params.id, copied(31)), None);
    assert_eq!((core.progress().state, core.wake_at()), (CatchUpState::OutOfService, None));
    assert_eq!(core.step(SECOND, Event::PeersChanged), None);
    let step = core.step(SECOND, Event::InService(true));
    assert_eq!(step, Some(Step::Copy { share, hole: (at(31), at(61)) }));
}

#[test]
fn a_log_that_is_deleted_or_a_segment_that_is_trimmed_under_it_is_left() {
    for event in [
        Event::LogGone { log: log(1) },
        Event::LogSeen { log: log(1), revision: 2, shares: Vec::new() },
        Event::Listed { logs: BTreeMap::new() },
    ] {
        let (mut core, share) = behind();
        assert_eq!(core.step(Duration::ZERO, event), None, "the step under way ends first");
        core.check();
        assert_eq!(end(&mut core, Duration::ZERO, share.params.id, copied(31)), None);
        let progress = core.progress();
        assert_eq!((progress.state, progress.records_left, core.wake_at()), (CatchUpState::Idle, 0, None));
    }
}

#[test]
fn what_is_trimmed_is_not_copied_any_more() {
    let (mut core, share) = behind();
    let id = share.params.id;
    let trimmed = Share { from: at(41), ..share };
    let seen = Event::LogSeen { log: log(1), revision: 2, shares: vec![trimmed.clone()] };
    assert_eq!(core.step(Duration::ZERO, seen), None);
    let step = end(&mut core, Duration::ZERO, id, copied(21));
    assert_eq!(step, Some(Step::Copy { share: trimmed.clone(), hole: (at(41), at(61)) }));
    // News from before that changes nothing.
    let old = Event::LogSeen { log: log(1), revision: 1, shares: vec![Share { from: at(1), ..trimmed.clone() }] };
    assert_eq!(core.step(Duration::ZERO, old), None);
    assert_eq!(end(&mut core, Duration::ZERO, id, copied(61)), Some(Step::Attest(trimmed)));
}

#[test]
fn another_operation_that_sealed_the_copy_meanwhile_is_told_where_the_segment_ended() {
    let (mut core, share) = behind();
    let id = share.params.id;
    let refused = CatchUpError::Here { loglet: id, source: CopyError::NotSealed.into() };
    assert_eq!(end(&mut core, Duration::ZERO, id, Outcome::Failed(refused)), None);
    assert_eq!(core.step(SECOND, Event::Woken), Some(Step::Prepare(share)));
}

#[test]
fn what_nobody_has_any_more_is_left_and_not_attested() {
    let (mut core, share) = behind();
    let lost = Outcome::Copied { until: at(21), bytes: 0, lost: true };
    assert!(end(&mut core, Duration::ZERO, share.params.id, lost).is_some());
    assert_eq!(end(&mut core, Duration::ZERO, share.params.id, copied(61)), None);
    assert_eq!((core.progress().state, core.progress().records_done), (CatchUpState::Idle, 40));
}

#[test]
fn bytes_are_moved_no_faster_than_allowed() {
    let (mut core, share) = behind();
    let id = share.params.id;
    let second_of_bytes = Outcome::Copied { until: at(31), bytes: 1_000_000, lost: false };
    assert_eq!(end(&mut core, SECOND, id, second_of_bytes), None);
    assert_eq!(core.progress().state, CatchUpState::Pausing);
    let due = core.wake_at().unwrap();
    assert!(due > SECOND + SECOND / 2 && due <= SECOND * 2, "{due:?}");
    assert_eq!(core.step(due - Duration::from_millis(1), Event::Woken), None);
    assert!(core.step(due, Event::Woken).is_some());
}

#[test]
fn segments_of_many_logs_are_found_whole_one_after_the_other_without_a_look_at_all_of_them() {
    const LOGS: u64 = 20_000;
    let mut core = Core::new(options());
    core.step(Duration::ZERO, Event::InService(true));
    let logs = (1..=LOGS).map(|of| (log(of), (1, vec![share(of, 0, 5)]))).collect();
    let mut step = core.step(Duration::ZERO, Event::Listed { logs });
    for of in 1..=LOGS {
        assert_eq!(step, Some(Step::Prepare(share(of, 0, 5))));
        assert_eq!(core.wake_at(), None, "a step is under way");
        let outcome = Outcome::Prepared { whole_tail: at(5) };
        step = core.step(Duration::ZERO, Event::Ended { loglet: loglet(of, 0), outcome });
    }
    core.check();
    assert_eq!(step, None);
    assert_eq!(core.progress().state, CatchUpState::Idle);
}
