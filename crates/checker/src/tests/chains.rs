//! What metadata takes, and what callers are told of it.

use bifrost_types::{Chain, Finished, SegmentIndex};

use super::Case;
use crate::event::{Event, ReconfigureOutcome};
use crate::rule::Rule;
use crate::testing::{Play, announced, closed, created, decided, log_id, lsn, offset, op, params, trimmed};

/// Created, announced and decided under operation 2 with one record.
fn two_segments(play: &mut Play) -> Chain {
    let pending = announced(&created(3, "2"), 2);
    let chain = decided(&pending, 2);
    for step in [&created(3, "2"), &pending, &chain] {
        play.chain(step);
    }
    chain
}

/// The same, and once more under operation 3 with two records.
fn three_segments(play: &mut Play) -> Chain {
    let two = two_segments(play);
    let pending = announced(&two, 3);
    let chain = decided(&pending, 3);
    for step in [&pending, &chain] {
        play.chain(step);
    }
    chain
}

fn without_first(chain: &Chain) -> Chain {
    let mut less = Chain { version: chain.version + 1, ..chain.clone() };
    less.segments.remove(0);
    less
}

/// The same write, which takes the first segment along.
fn taking_first_along(chain: &Chain) -> Chain {
    Chain { segments: chain.segments.iter().skip(1).cloned().collect(), ..chain.clone() }
}

fn finished(number: u128, tail: u64) -> Finished {
    Finished { op: op(number), segment: SegmentIndex::FIRST, tail: offset(tail), successor: Some(SegmentIndex::new(1)) }
}

pub(super) const CASES: &[Case] = &[
    Case {
        rule: Rule::OneDecision,
        name: "the next segment does not begin at the decided tail",
        breaks: |play| {
            let mut chain = decided(&announced(&created(3, "2"), 2), 2);
            chain.segments[1].base_lsn = lsn(3);
            play.chain(&chain);
        },
        fine: |play| {
            play.chain(&decided(&announced(&created(3, "2"), 2), 1));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a decided tail changes",
        breaks: |play| {
            let chain = two_segments(play);
            let mut other = decided(&announced(&created(3, "2"), 2), 3);
            other.version = chain.version + 1;
            play.chain(&other);
        },
        fine: |play| {
            let chain = two_segments(play);
            play.chain(&announced(&chain, 3));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "two open segments",
        breaks: |play| {
            let mut chain = decided(&announced(&created(3, "2"), 2), 2);
            chain.segments[0].state = bifrost_types::SegmentState::Open;
            play.chain(&chain);
        },
        fine: |play| {
            play.chain(&decided(&announced(&created(3, "2"), 2), 2));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment is gone",
        breaks: |play| {
            let chain = two_segments(play);
            let mut less = Chain { version: chain.version + 1, ..chain.clone() };
            less.segments.remove(0);
            play.chain(&less);
        },
        fine: |play| {
            let chain = two_segments(play);
            play.chain(&Chain { version: chain.version + 1, ..chain });
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves that is not wholly trimmed",
        breaks: |play| {
            let chain = three_segments(play);
            play.chain(&without_first(&chain));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&without_first(&chain));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "the last closed segment leaves",
        breaks: |play| {
            let chain = trimmed(&three_segments(play), 4);
            play.chain(&chain);
            let less = without_first(&chain);
            play.chain(&less);
            play.chain(&without_first(&less));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 4);
            play.chain(&chain);
            let less = without_first(&chain);
            play.chain(&less);
            let moved = announced(&less, 4);
            play.chain(&moved);
            play.chain(&decided(&moved, 2));
            play.chain(&without_first(&decided(&moved, 2)));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves from between others",
        breaks: |play| {
            let mut chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            chain.version += 1;
            chain.segments.remove(1);
            play.chain(&chain);
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&without_first(&chain));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves while something is pending",
        breaks: |play| {
            let pending = announced(&trimmed(&three_segments(play), 2), 4);
            play.chain(&pending);
            play.chain(&without_first(&pending));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&without_first(&chain));
            play.chain(&announced(&without_first(&chain), 4));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves with an announcement",
        breaks: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&taking_first_along(&announced(&chain, 4)));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            let pending = announced(&chain, 4);
            play.chain(&pending);
            play.chain(&taking_first_along(&decided(&pending, 2)));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "the last closed segment leaves with a trim",
        breaks: |play| {
            let chain = three_segments(play);
            play.chain(&taking_first_along(&taking_first_along(&trimmed(&chain, 4))));
        },
        fine: |play| {
            let pending = announced(&three_segments(play), 4);
            play.chain(&pending);
            play.chain(&taking_first_along(&trimmed(&pending, 4)));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a log goes on after it was closed for good",
        breaks: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            play.chain(&closed(&pending, 2));
            let more = decided(&pending, 2);
            play.chain(&Chain { version: more.version + 1, ..more });
        },
        fine: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            let chain = closed(&pending, 2);
            play.chain(&chain);
            play.chain(&trimmed(&chain, 1));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment is added and none is closed",
        breaks: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            let once = decided(&pending, 2);
            let twice = decided(&announced(&once, 3), 2);
            play.chain(&Chain { version: pending.version + 1, ..twice });
        },
        fine: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            play.chain(&decided(&pending, 2));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "an open log is deleted",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.see(&Event::ChainDeleted { log: log_id() });
        },
        fine: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            play.chain(&closed(&pending, 1));
            play.see(&Event::ChainDeleted { log: log_id() });
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "two readers of the chain see different decided tails",
        breaks: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain_read(&decided(&announced(&decided(&pending, 2), 3), 1));
            play.chain_read(&decided(&pending, 3));
        },
        fine: |play| {
            let pending = announced(&created(3, "2"), 2);
            let once = decided(&pending, 2);
            play.chain_read(&decided(&announced(&once, 3), 1));
            play.chain_read(&once);
            play.chain_read(&pending);
        },
    },
    Case {
        rule: Rule::IdsAreFresh,
        name: "a loglet id is used again",
        breaks: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            let mut chain = decided(&pending, 2);
            chain.segments[1].params.id = params(0, 3, "2").id;
            chain.next_segment = SegmentIndex::new(1);
            play.chain(&chain);
        },
        fine: |play| {
            two_segments(play);
        },
    },
    Case {
        rule: Rule::IdsAreFresh,
        name: "a deleted log is there again",
        breaks: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            play.chain(&closed(&pending, 1));
            play.see(&Event::ChainDeleted { log: log_id() });
            play.chain(&created(3, "2"));
        },
        fine: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&pending);
            play.chain(&closed(&pending, 1));
            play.see(&Event::ChainDeleted { log: log_id() });
            // Read before.
            play.chain_read(&closed(&pending, 1));
        },
    },
    Case {
        rule: Rule::IdsAreFresh,
        name: "the next index goes back",
        breaks: |play| {
            let chain = two_segments(play);
            play.chain(&Chain { version: chain.version + 1, next_segment: SegmentIndex::new(1), ..chain });
        },
        fine: |play| {
            let chain = two_segments(play);
            play.chain(&Chain { version: chain.version + 1, ..chain });
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves that is not wholly trimmed",
        breaks: |play| {
            let chain = three_segments(play);
            play.chain(&without_first(&chain));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&without_first(&chain));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "the last closed segment leaves",
        breaks: |play| {
            let chain = trimmed(&three_segments(play), 4);
            play.chain(&chain);
            let less = without_first(&chain);
            play.chain(&less);
            play.chain(&without_first(&less));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 4);
            play.chain(&chain);
            let less = without_first(&chain);
            play.chain(&less);
            let moved = announced(&less, 4);
            play.chain(&moved);
            play.chain(&decided(&moved, 2));
            play.chain(&without_first(&decided(&moved, 2)));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves from between others",
        breaks: |play| {
            let mut chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            chain.version += 1;
            chain.segments.remove(1);
            play.chain(&chain);
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&without_first(&chain));
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a segment leaves while something is pending",
        breaks: |play| {
            let pending = announced(&trimmed(&three_segments(play), 2), 4);
            play.chain(&pending);
            play.chain(&without_first(&pending));
        },
        fine: |play| {
            let chain = trimmed(&three_segments(play), 2);
            play.chain(&chain);
            play.chain(&without_first(&chain));
            play.chain(&announced(&without_first(&chain), 4));
        },
    },
    Case {
        rule: Rule::VersionsCount,
        name: "a version is left out",
        breaks: |play| {
            play.chain(&created(3, "2"));
            let pending = announced(&created(3, "2"), 2);
            play.chain(&Chain { version: pending.version + 1, ..pending });
        },
        fine: |play| {
            // Who only reads may miss some.
            play.chain_read(&created(3, "2"));
            let pending = announced(&created(3, "2"), 2);
            play.chain_read(&pending);
            play.chain_read(&decided(&announced(&decided(&pending, 1), 3), 1));
            play.chain(&announced(&decided(&announced(&decided(&pending, 1), 3), 1), 4));
        },
    },
    Case {
        rule: Rule::VersionsCount,
        name: "closed without having been announced",
        breaks: |play| {
            play.chain(&created(3, "2"));
            let chain = decided(&announced(&created(3, "2"), 2), 2);
            play.chain(&Chain { version: 2, ..chain });
        },
        fine: |play| {
            two_segments(play);
        },
    },
    Case {
        rule: Rule::VersionsCount,
        name: "fewer versions than closes take",
        breaks: |play| play.chain_read(&Chain { version: 2, ..decided(&announced(&created(3, "2"), 2), 2) }),
        fine: |play| play.chain_read(&decided(&announced(&created(3, "2"), 2), 2)),
    },
    Case {
        rule: Rule::VersionsCount,
        name: "two chains have one version",
        breaks: |play| {
            play.chain_read(&announced(&created(3, "2"), 2));
            play.chain_read(&announced(&created(3, "2"), 3));
        },
        fine: |play| {
            play.chain_read(&announced(&created(3, "2"), 2));
            play.chain_read(&announced(&created(3, "2"), 2));
        },
    },
    Case {
        rule: Rule::OneOutcome,
        name: "an operation has two outcomes",
        breaks: |play| {
            two_segments(play);
            play.reconfigure(2, ReconfigureOutcome::Done(finished(2, 3)));
        },
        fine: |play| {
            two_segments(play);
            play.reconfigure(2, ReconfigureOutcome::Unknown);
            play.reconfigure(2, ReconfigureOutcome::Done(finished(2, 2)));
            play.reconfigure(2, ReconfigureOutcome::Done(finished(2, 2)));
        },
    },
    Case {
        rule: Rule::OneOutcome,
        name: "done, and then superseded",
        breaks: |play| {
            play.reconfigure(2, ReconfigureOutcome::Done(finished(2, 2)));
            play.reconfigure(2, ReconfigureOutcome::Superseded(finished(3, 2)));
        },
        fine: |play| {
            play.reconfigure(2, ReconfigureOutcome::Superseded(finished(3, 2)));
            play.reconfigure(2, ReconfigureOutcome::Superseded(finished(3, 2)));
            play.reconfigure(3, ReconfigureOutcome::Done(finished(3, 2)));
        },
    },
    Case {
        rule: Rule::OneOutcome,
        name: "it closed what it was told that another one closed",
        breaks: |play| {
            play.reconfigure(2, ReconfigureOutcome::Superseded(finished(3, 2)));
            play.reconfigure(2, ReconfigureOutcome::Done(finished(2, 2)));
        },
        fine: |play| {
            play.reconfigure(2, ReconfigureOutcome::Superseded(finished(3, 2)));
            // Asked for again, it is about the segment that is open by then.
            let segment = SegmentIndex::new(1);
            let outcome = Finished { segment, successor: None, ..finished(2, 2) };
            play.reconfigure(2, ReconfigureOutcome::Done(outcome));
        },
    },
    Case {
        rule: Rule::OneOutcome,
        name: "told of another operation",
        breaks: |play| play.reconfigure(2, ReconfigureOutcome::Done(finished(3, 2))),
        fine: |play| play.reconfigure(2, ReconfigureOutcome::Superseded(finished(3, 2))),
    },
    Case {
        rule: Rule::OneOutcome,
        name: "what is pending is dropped",
        breaks: |play| {
            let chain = created(3, "2");
            play.chain(&announced(&chain, 2));
            play.chain(&Chain { version: 3, ..announced(&chain, 3) });
        },
        fine: |play| {
            let mut chain = announced(&created(3, "2"), 2);
            play.chain(&chain);
            chain.version = 3;
            chain.pending.as_mut().unwrap().attempt = 2;
            play.chain(&chain);
        },
    },
    Case {
        rule: Rule::TrimOnlyRises,
        name: "the trim point goes back",
        breaks: |play| {
            let chain = trimmed(&created(3, "2"), 5);
            play.chain(&chain);
            play.chain(&trimmed(&chain, 4));
        },
        fine: |play| {
            let chain = trimmed(&created(3, "2"), 5);
            play.chain(&chain);
            play.chain(&trimmed(&chain, 6));
        },
    },
    Case {
        rule: Rule::TrimOnlyRises,
        name: "what is not committed is trimmed",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([1, 2], 1, 3, 70);
            play.chain(&trimmed(&created(3, "2"), 3));
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.store([1, 2], 1, 3, 70);
            play.chain(&trimmed(&created(3, "2"), 2));
        },
    },
    Case {
        rule: Rule::TrimOnlyRises,
        name: "a caller is told of less than it asked for",
        breaks: |play| {
            let trim = play.ask_to_trim(5);
            play.trim_ended(trim, 4);
        },
        fine: |play| {
            let trim = play.ask_to_trim(5);
            play.ask_to_trim(8);
            play.trim_ended(trim, 8);
        },
    },
    Case {
        rule: Rule::TrimOnlyRises,
        name: "a caller is told of less than another one before",
        breaks: |play| {
            let trim = play.ask_to_trim(5);
            play.trim_ended(trim, 5);
            let trim = play.ask_to_trim(4);
            play.trim_ended(trim, 4);
        },
        fine: |play| {
            let (one, two) = (play.ask_to_trim(5), play.ask_to_trim(4));
            play.trim_ended(one, 5);
            play.trim_ended(two, 4);
        },
    },
    Case {
        rule: Rule::TrimOnlyRises,
        name: "a trim succeeds and does nothing",
        breaks: |play| {
            play.chain(&created(3, "2"));
            let trim = play.ask_to_trim(5);
            play.trim_ended(trim, 5);
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            let trim = play.ask_to_trim(5);
            play.chain(&trimmed(&created(3, "2"), 5));
            play.trim_ended(trim, 5);
        },
    },
    Case {
        rule: Rule::QuorumExists,
        name: "three copies on two nodes",
        breaks: |play| play.chain(&created(2, "3")),
        fine: |play| play.chain(&created(3, "3")),
    },
];
