//! What only the end shows.

use super::Case;
use crate::event::Event;
use crate::rule::Rule;
use crate::testing::{Play, announced, closed, created, facts, log_id, lsn, op, sealed};
use crate::{Bound, End};

/// A log that does all that is due.
fn well(play: &mut Play) {
    play.heal(100);
    play.append(7, 1);
    play.tail(2);
}

pub(super) const CASES: &[Case] = &[
    Case {
        rule: Rule::OutcomesAreTrue,
        name: "an append without outcome",
        breaks: |play| {
            well(play);
            play.invoke(8);
            play.finish(End::default());
        },
        fine: |play| {
            // Whoever made it may have died.
            play.invoke(8);
            well(play);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::LogTakesAppends,
        name: "no append after the heal",
        breaks: |play| {
            let call = play.invoke(7);
            play.heal(100);
            play.acknowledge(call, 1);
            play.tail(2);
            play.finish(End::default());
        },
        fine: |play| {
            well(play);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::LogTakesAppends,
        name: "an append too late",
        breaks: |play| {
            play.heal(100);
            play.tail(1);
            play.wait(100);
            play.append(7, 1);
            play.finish(End::default());
        },
        fine: |play| {
            play.heal(100);
            play.tail(1);
            play.wait(90);
            play.append(7, 1);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::LogHasATail,
        name: "no tail after the heal",
        breaks: |play| {
            play.heal(100);
            play.append(7, 1);
            let call = play.ask_for_tail();
            play.see(&Event::TailEnded { call, tail: None });
            play.finish(End::default());
        },
        fine: |play| {
            play.heal(100);
            // A log that was closed for good takes no append, and still has a tail.
            play.chain(&closed(&announced(&created(3, "2"), 2), 2));
            play.tail(2);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::ReadersArrive,
        name: "a reader stands still below the tail",
        breaks: |play| {
            play.open(1, 1);
            well(play);
            play.finish(End::default());
        },
        fine: |play| {
            play.open(1, 1);
            play.open(2, 1);
            play.see(&Event::ReaderClosed { reader: crate::event::ReaderId(2) });
            well(play);
            play.give(1, 1, 7);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::NothingIsPending,
        name: "a reconfiguration is left over",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.chain(&announced(&created(3, "2"), 2));
            well(play);
            play.finish(End::default());
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            well(play);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::NoOrphanedSeal,
        name: "sealed, and nobody goes on",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.copy([1, 3], sealed(facts(1, 1)));
            play.heal(100);
            play.finish(End::default());
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.copy([1], sealed(facts(1, 1)));
            play.store([2, 3], 1, 2, 70);
            well(play);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::CallsEnd,
        name: "a call without end",
        breaks: |play| {
            well(play);
            play.ask_for_tail();
            play.finish(End::default());
        },
        fine: |play| {
            play.ask_for_tail();
            well(play);
            let call = play.call();
            play.see(&Event::ReconfigureInvoked { call, log: log_id(), op: op(9) });
            play.see(&Event::ReconfigureEnded { call, outcome: crate::event::ReconfigureOutcome::Unknown });
            let trim = play.ask_to_trim(1);
            play.see(&Event::TrimEnded { call: trim, trim_point: Some(lsn(1)) });
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::IdleIsQuiet,
        name: "too many requests",
        breaks: |play| {
            let quiet = vec![Bound { what: "requests in a minute without work", found: 11, max: 10 }];
            play.finish(End { quiet, ..End::default() });
        },
        fine: |play| {
            let quiet = vec![Bound { what: "requests in a minute without work", found: 10, max: 10 }];
            play.finish(End { quiet, ..End::default() });
        },
    },
    Case {
        rule: Rule::WritersGoOn,
        name: "too long a pause",
        breaks: |play| {
            let pauses = vec![Bound { what: "longest pause in microseconds", found: 11, max: 10 }];
            play.finish(End { pauses, ..End::default() });
        },
        fine: |play| {
            let pauses = vec![Bound { what: "longest pause in microseconds", found: 10, max: 10 }];
            play.finish(End { pauses, ..End::default() });
        },
    },
];

#[test]
fn nothing_is_due_without_a_heal() {
    let mut play = Play::new();
    play.checker.expect_progress(1);
    play.invoke(7);
    play.open(1, 1);
    play.chain(&announced(&created(3, "2"), 2));
    play.finish(End::default());
    assert_eq!(play.checker.breaches(), []);
    assert_eq!(play.checker.tally(Rule::LogTakesAppends).checked, 0);
}

#[test]
fn a_deleted_log_owes_nothing() {
    let mut play = Play::new();
    play.open(1, 1);
    play.append(7, 1);
    let pending = announced(&created(3, "2"), 2);
    play.chain(&pending);
    play.chain(&closed(&pending, 2));
    play.see(&Event::ChainDeleted { log: log_id() });
    play.heal(100);
    play.finish(End { scanned: true, ..End::default() });
    assert_eq!(play.checker.breaches(), []);
}
