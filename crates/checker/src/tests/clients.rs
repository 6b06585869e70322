//! What clients are told and readers are given.

use super::Case;
use crate::End;
use crate::event::{AppendOutcome, AppenderId, Event, Gap, ReaderId, Value};
use crate::rule::Rule;
use crate::testing::{Play, announced, closed, created, decided, lsn, trimmed};

const SCANNED: End = End { at: 0, scanned: true, quiet: Vec::new(), pauses: Vec::new() };

pub(super) const CASES: &[Case] = &[
    Case {
        rule: Rule::AcknowledgedStays,
        name: "a reader is given something else",
        breaks: |play| {
            play.append(7, 1);
            play.forget([8]);
            play.read(1, [8]);
        },
        fine: |play| {
            play.append(7, 1);
            play.forget([8]);
            play.read(1, [7, 8]);
        },
    },
    Case {
        rule: Rule::AcknowledgedStays,
        name: "acknowledged where a reader had seen something else",
        breaks: |play| {
            play.forget([8]);
            let call = play.invoke(7);
            play.read(1, [8]);
            play.acknowledge(call, 1);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.read(1, [7]);
            play.acknowledge(call, 1);
        },
    },
    Case {
        rule: Rule::AcknowledgedStays,
        name: "the final scan ends below",
        breaks: |play| {
            play.append(7, 1);
            play.append(8, 2);
            play.read(1, [7]);
            play.finish(SCANNED);
        },
        fine: |play| {
            play.append(7, 1);
            play.append(8, 2);
            play.read(1, [7, 8]);
            play.finish(SCANNED);
        },
    },
    Case {
        rule: Rule::AcknowledgedStays,
        name: "the final scan passes over a record",
        breaks: |play| {
            play.append(7, 1);
            play.append(8, 2);
            play.open(1, 1);
            play.give(1, 2, 8);
            play.finish(SCANNED);
        },
        fine: |play| {
            play.append(8, 2);
            play.open(1, 2);
            play.give(1, 2, 8);
            play.finish(SCANNED);
        },
    },
    Case {
        rule: Rule::AcknowledgedStays,
        name: "nobody began to read after the last acknowledgement",
        breaks: |play| {
            play.append(7, 1);
            let call = play.invoke(8);
            play.read(1, [7, 8]);
            play.acknowledge(call, 2);
            play.finish(SCANNED);
        },
        fine: |play| {
            play.append(7, 1);
            let call = play.invoke(8);
            play.read(1, [7, 8]);
            play.acknowledge(call, 2);
            play.read(2, [7, 8]);
            play.finish(SCANNED);
        },
    },
    Case {
        rule: Rule::AcknowledgedStays,
        name: "the final scan begins too late",
        breaks: |play| {
            play.append(7, 1);
            play.append(8, 2);
            play.open(1, 2);
            play.give(1, 2, 8);
            play.finish(SCANNED);
        },
        fine: |play| {
            play.append(7, 1);
            play.append(8, 2);
            let trim = play.ask_to_trim(1);
            play.trim_ended(trim, 1);
            play.open(1, 2);
            play.give(1, 2, 8);
            play.finish(SCANNED);
        },
    },
    Case {
        rule: Rule::AllSeeTheSame,
        name: "two readers see different values",
        breaks: |play| {
            play.forget([7, 8]);
            play.read(1, [7]);
            play.read(2, [8]);
        },
        fine: |play| {
            play.forget([7, 8]);
            play.read(1, [7]);
            play.read(2, [7, 8]);
        },
    },
    Case {
        rule: Rule::RealTimeOrder,
        name: "acknowledged before the other one began, and above it",
        breaks: |play| {
            play.append(7, 2);
            play.append(8, 1);
        },
        fine: |play| {
            play.append(6, 1);
            let later = play.invoke(8);
            play.append(7, 3);
            play.acknowledge(later, 2);
        },
    },
    Case {
        rule: Rule::RealTimeOrder,
        name: "read before the other one began, and above it",
        breaks: |play| {
            play.forget([6, 7]);
            play.read(1, [6, 7]);
            play.append(8, 1);
        },
        fine: |play| {
            play.forget([6, 7]);
            play.read(1, [6, 7]);
            play.append(8, 3);
        },
    },
    Case {
        rule: Rule::RealTimeOrder,
        name: "an append without acknowledgement counts too",
        breaks: |play| {
            play.append(7, 2);
            play.forget([8]);
            play.read(1, [8]);
        },
        fine: |play| {
            play.append(6, 1);
            play.forget([8]);
            play.append(7, 3);
            play.read(1, [6, 8, 7]);
        },
    },
    Case {
        rule: Rule::RealTimeOrder,
        name: "below a segment that was closed before it began",
        breaks: |play| {
            play.chain_read(&decided(&announced(&created(3, "2"), 2), 4));
            play.append(7, 3);
        },
        fine: |play| {
            let early = play.invoke(6);
            play.chain_read(&decided(&announced(&created(3, "2"), 2), 4));
            play.acknowledge(early, 3);
            play.append(7, 4);
        },
    },
    Case {
        rule: Rule::TailIsProved,
        name: "below the last segment",
        breaks: |play| {
            play.chain_read(&decided(&announced(&created(3, "2"), 2), 4));
            play.tail(3);
        },
        fine: |play| {
            let call = play.ask_for_tail();
            play.chain_read(&decided(&announced(&created(3, "2"), 2), 4));
            play.see(&Event::TailEnded { call, tail: Some(lsn(3)) });
            play.tail(4);
        },
    },
    Case {
        rule: Rule::OutcomesAreTrue,
        name: "not appended, and there",
        breaks: |play| {
            let call = play.invoke(7);
            play.end(call, AppendOutcome::NotAppended);
            play.read(1, [7]);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.end(call, AppendOutcome::Unknown);
            play.read(1, [7]);
            play.acknowledge(call, 1);
        },
    },
    Case {
        rule: Rule::OutcomesAreTrue,
        name: "there, and not appended",
        breaks: |play| {
            let call = play.invoke(7);
            play.read(1, [7]);
            play.end(call, AppendOutcome::NotAppended);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.forget([8]);
            play.read(1, [8]);
            play.end(call, AppendOutcome::NotAppended);
        },
    },
    Case {
        rule: Rule::OutcomesAreTrue,
        name: "two outcomes",
        breaks: |play| {
            let call = play.invoke(7);
            play.acknowledge(call, 1);
            play.end(call, AppendOutcome::NotAppended);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.end(call, AppendOutcome::Unknown);
            play.end(call, AppendOutcome::NotAppended);
        },
    },
    Case {
        rule: Rule::LandsOnce,
        name: "an unknown append lands twice",
        breaks: |play| {
            play.forget([7]);
            play.read(1, [7, 7]);
        },
        fine: |play| {
            play.forget([7]);
            play.read(1, [7]);
            play.read(2, [7]);
        },
    },
    Case {
        rule: Rule::LandsOnce,
        name: "acknowledged here and read there",
        breaks: |play| {
            let call = play.invoke(7);
            play.forget([8]);
            play.acknowledge(call, 1);
            play.open(1, 2);
            play.give(1, 2, 7);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.forget([8]);
            play.acknowledge(call, 1);
            play.open(1, 2);
            play.give(1, 2, 8);
        },
    },
    Case {
        rule: Rule::AppenderOrder,
        name: "one appender's records lie the other way round",
        breaks: |play| {
            for value in [7, 8] {
                play.invoke_by(1, value);
            }
            play.read(1, [8, 7]);
        },
        fine: |play| {
            for value in [7, 8, 9] {
                play.invoke_by(1, value);
            }
            play.invoke_by(2, 10);
            play.read(1, [10, 7, 9]);
        },
    },
    Case {
        rule: Rule::SomebodyAppended,
        name: "damaged bytes",
        breaks: |play| {
            play.append(7, 1);
            play.read(1, [6]);
        },
        fine: |play| {
            play.append(7, 1);
            play.read(1, [7]);
        },
    },
    Case {
        rule: Rule::SomebodyAppended,
        name: "a record of another log",
        breaks: |play| {
            let (call, appender, log) = (play.call(), AppenderId(1), bifrost_types::LogId::try_from(2).unwrap());
            play.see(&Event::AppendInvoked { call, appender, log, value: Value(7) });
            play.read(1, [7]);
        },
        fine: |play| {
            let (call, appender, log) = (play.call(), AppenderId(1), bifrost_types::LogId::try_from(2).unwrap());
            play.see(&Event::AppendInvoked { call, appender, log, value: Value(7) });
            play.see(&Event::ReaderOpened { reader: ReaderId(1), log, from: lsn(1) });
            play.give(1, 1, 7);
        },
    },
    Case {
        rule: Rule::NoJump,
        name: "a record is passed over",
        breaks: |play| {
            play.forget([7, 8]);
            play.open(1, 1);
            play.give(1, 2, 8);
        },
        fine: |play| {
            play.forget([7, 8]);
            play.open(1, 2);
            play.give(1, 2, 8);
        },
    },
    Case {
        rule: Rule::NoJump,
        name: "a record is given twice",
        breaks: |play| {
            play.forget([7]);
            play.open(1, 1);
            play.give(1, 1, 7);
            play.give(1, 1, 7);
        },
        fine: |play| {
            play.forget([7, 8]);
            play.read(1, [7, 8]);
        },
    },
    Case {
        rule: Rule::NoJump,
        name: "the tail is told too early",
        breaks: |play| {
            play.forget([7]);
            play.read(1, [7]);
            play.caught_up(1, 3);
        },
        fine: |play| {
            play.forget([7]);
            play.read(1, [7]);
            play.caught_up(1, 2);
            play.caught_up(1, 2);
        },
    },
    Case {
        rule: Rule::NoJump,
        name: "a reader that ended goes on",
        breaks: |play| {
            play.forget([7, 8]);
            play.read(1, [7]);
            play.see(&Event::ReaderClosed { reader: ReaderId(1) });
            play.give(1, 2, 8);
        },
        fine: |play| {
            play.forget([7, 8]);
            play.read(1, [7]);
            play.see(&Event::ReaderClosed { reader: ReaderId(1) });
            play.open(2, 2);
            play.give(2, 2, 8);
        },
    },
    Case {
        rule: Rule::TrimmedIsTrimmed,
        name: "nobody trimmed so much",
        breaks: |play| {
            play.ask_to_trim(1);
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Trimmed);
            play.finish(End::default());
        },
        fine: |play| {
            // It is noted later than it happened.
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Trimmed);
            play.ask_to_trim(2);
            play.finish(End::default());
        },
    },
    Case {
        rule: Rule::TrimmedIsTrimmed,
        name: "asked for and not done",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.ask_to_trim(2);
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Trimmed);
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.ask_to_trim(2);
            play.chain(&trimmed(&created(3, "2"), 2));
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Trimmed);
        },
    },
    Case {
        rule: Rule::LossIsAllowed,
        name: "lost although few disks were",
        breaks: |play| {
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Lost);
        },
        fine: |play| {
            play.checker.allow_loss();
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Lost);
        },
    },
    Case {
        rule: Rule::TailIsProved,
        name: "below what was acknowledged",
        breaks: |play| {
            play.append(7, 3);
            play.tail(3);
        },
        fine: |play| {
            let call = play.ask_for_tail();
            play.append(7, 3);
            play.see(&Event::TailEnded { call, tail: Some(lsn(1)) });
        },
    },
    Case {
        rule: Rule::TailIsProved,
        name: "below what was read",
        breaks: |play| {
            play.forget([7]);
            play.read(1, [7]);
            play.tail(1);
        },
        fine: |play| {
            play.forget([7]);
            play.read(1, [7]);
            play.tail(2);
        },
    },
    Case {
        rule: Rule::TailIsProved,
        name: "it goes back",
        breaks: |play| {
            play.tail(5);
            play.tail(4);
        },
        fine: |play| {
            let call = play.ask_for_tail();
            play.tail(5);
            play.see(&Event::TailEnded { call, tail: Some(lsn(4)) });
            play.tail(5);
        },
    },
    Case {
        rule: Rule::TailIsProved,
        name: "an append that began later lands below it",
        breaks: |play| {
            play.tail(5);
            play.append(7, 4);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.tail(5);
            play.acknowledge(call, 4);
            play.append(8, 5);
        },
    },
    Case {
        rule: Rule::TailIsProved,
        name: "above what a write quorum has",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([1], 1, 2, 70);
            play.tail(2);
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.store([1, 2], 1, 2, 70);
            play.store([1], 2, 3, 71);
            play.tail(2);
        },
    },
    Case {
        rule: Rule::ReadAllowed,
        name: "on one disk of three only",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.forget([7]);
            play.store([1], 1, 2, 70);
            play.read(1, [7]);
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.forget([7]);
            play.store([1, 3], 1, 2, 70);
            play.read(1, [7]);
        },
    },
    Case {
        rule: Rule::ReadAllowed,
        name: "the decision drops what was read",
        breaks: |play| {
            let chain = announced(&created(3, "2"), 2);
            play.chain(&chain);
            play.forget([7, 8]);
            play.read(1, [7, 8]);
            play.chain(&closed(&chain, 2));
        },
        fine: |play| {
            let chain = announced(&created(3, "2"), 2);
            play.chain(&chain);
            play.forget([7, 8]);
            play.read(1, [7, 8]);
            play.chain(&closed(&chain, 3));
        },
    },
    Case {
        rule: Rule::ReadAllowed,
        name: "beyond the end of a closed log",
        breaks: |play| {
            let chain = announced(&created(3, "2"), 2);
            play.forget([7, 8]);
            play.chain(&closed(&chain, 2));
            play.read(1, [7, 8]);
        },
        fine: |play| {
            let chain = announced(&created(3, "2"), 2);
            play.forget([7, 8]);
            play.chain(&closed(&chain, 2));
            play.read(1, [7]);
        },
    },
    Case {
        rule: Rule::HistoryIsSound,
        name: "a call ends that nobody made",
        breaks: |play| {
            let call = play.ask_for_tail();
            play.end(call, AppendOutcome::Unknown);
        },
        fine: |play| {
            let call = play.ask_for_tail();
            play.see(&Event::TailEnded { call, tail: None });
        },
    },
    Case {
        rule: Rule::HistoryIsSound,
        name: "a value is appended twice",
        breaks: |play| {
            play.forget([7, 7]);
        },
        fine: |play| {
            play.forget([7, 8]);
        },
    },
    Case {
        rule: Rule::HistoryIsSound,
        name: "a reader that was not opened",
        breaks: |play| {
            play.forget([7]);
            play.give(1, 1, 7);
        },
        fine: |play| {
            play.forget([7]);
            play.read(1, [7]);
        },
    },
];

#[test]
fn a_trim_that_everybody_may_see_hides_what_was_acknowledged() {
    let mut play = Play::new();
    play.append(7, 1);
    play.append(8, 2);
    let trim = play.ask_to_trim(1);
    play.trim_ended(trim, 1);
    play.open(1, 1);
    play.skip(1, 1, 2, Gap::Trimmed);
    play.give(1, 2, 8);
    play.finish(SCANNED);
    assert_eq!(play.checker.breaches(), []);
}
