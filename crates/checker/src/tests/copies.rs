//! What becomes durable on disks, and what that allows.

use bifrost_types::{Lsn, NodeRecord, StorageState};

use super::Case;
use crate::End;
use crate::event::{CopyFacts, Event, Gap};
use crate::rule::Rule;
use crate::testing::{
    Play, announced, closed, created, decided, disk, facts, life, loglet, node, offset, record, sealed, trimmed,
};

/// A log on three disks, two copies; one record on disks 1 and 2.
fn one_record(play: &mut Play) {
    play.chain(&created(3, "2"));
    play.store([1, 2], 1, 2, 70);
    play.copy([1, 2], facts(2, 1));
}

/// One record; its segment is about to be closed.
fn closing(play: &mut Play) {
    one_record(play);
    play.chain(&announced(&created(3, "2"), 2));
}

/// A second record, which disk 1 had alone when it was sealed, is copied to disk 2.
fn repaired(play: &mut Play) {
    closing(play);
    play.store([1], 2, 3, 71);
    play.copy([1], sealed(facts(3, 1)));
    play.copy([2], sealed(facts(2, 1)));
    play.store([2], 2, 3, 71);
}

/// A second record is on disk 1 alone, and what is sealed says no more; an operator gives disks up.
fn given_up<const N: usize>(play: &mut Play, disks: [u32; N]) {
    closing(play);
    play.store([1], 2, 3, 71);
    play.copy([1], sealed(facts(3, 1)));
    play.copy([2], sealed(facts(2, 1)));
    for number in disks {
        let lost = NodeRecord { storage: StorageState::DataLoss, declared_lost: true, ..record(number, 1) };
        play.see(&Event::NodeWritten { record: lost });
    }
}

/// Closed with one record and followed by another segment.
fn settled(play: &mut Play) {
    closing(play);
    play.copy([1, 2], sealed(facts(2, 1)));
    play.chain(&decided(&announced(&created(3, "2"), 2), 2));
    play.copy([1, 2], settled_facts());
}

fn settled_facts() -> CopyFacts {
    CopyFacts { decided_tail: Some(offset(2)), ..sealed(facts(2, 2)) }
}

/// One record, and these disks cannot read it any more. Whoever is told that it is lost, is told at the end of the history.
fn destroyed(play: &mut Play, disks: impl IntoIterator<Item = u32>) {
    play.checker.allow_loss();
    one_record(play);
    for number in disks {
        play.see(&Event::BatchDamaged { disk: disk(number), loglet: loglet(0), first_offset: offset(1) });
    }
}

pub(super) const CASES: &[Case] = &[
    Case {
        rule: Rule::LossIsAllowed,
        name: "lost although a disk has it",
        breaks: |play| {
            destroyed(play, [1]);
            play.open(1, 1);
            play.skip(1, 1, 2, Gap::Lost);
        },
        fine: |play| {
            destroyed(play, [1, 2]);
            play.open(1, 1);
            play.skip(1, 1, 2, Gap::Lost);
        },
    },
    Case {
        rule: Rule::LossIsAllowed,
        name: "more is told as lost than was destroyed",
        breaks: |play| {
            destroyed(play, [1, 2]);
            play.open(1, 1);
            play.skip(1, 1, 3, Gap::Lost);
        },
        fine: |play| {
            destroyed(play, [1]);
            play.see(&Event::DiskLost { disk: disk(2) });
            play.open(1, 1);
            play.skip(1, 1, 2, Gap::Lost);
        },
    },
    Case {
        rule: Rule::LossIsTold,
        name: "destroyed, and nobody was told",
        breaks: |play| {
            destroyed(play, [1, 2]);
            play.finish(End { scanned: true, ..End::default() });
        },
        fine: |play| {
            destroyed(play, [1, 2]);
            play.open(1, 1);
            play.skip(1, 1, 2, Gap::Lost);
            play.finish(End { scanned: true, ..End::default() });
        },
    },
    Case {
        rule: Rule::OnlyNamedDisks,
        name: "a disk that the nodeset does not name",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([4], 1, 2, 70);
        },
        fine: |play| {
            play.chain(&created(4, "2"));
            play.store([4], 1, 2, 70);
        },
    },
    Case {
        rule: Rule::OnlyNamedDisks,
        name: "the same node with another disk",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store_of(loglet(0), (3, 30), (1, 2), 70);
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.store_of(loglet(0), (3, 3), (1, 2), 70);
        },
    },
    Case {
        rule: Rule::OnlyNamedDisks,
        name: "a wiped disk writes",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.see(&Event::DiskLost { disk: disk(3) });
            play.copy([3], sealed(CopyFacts { bound: None, ..facts(1, 1) }));
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.see(&Event::DiskLost { disk: disk(4) });
            play.copy([3], sealed(CopyFacts { bound: None, ..facts(1, 1) }));
        },
    },
    Case {
        rule: Rule::OnlyNamedDisks,
        name: "a wiped disk serves",
        breaks: |play| {
            play.see(&Event::NodeStarted { node: life(3, 1), disk: disk(3) });
            play.see(&Event::DiskLost { disk: disk(3) });
            play.see(&Event::NodeStarted { node: life(3, 2), disk: disk(3) });
        },
        fine: |play| {
            play.see(&Event::NodeStarted { node: life(3, 1), disk: disk(3) });
            play.see(&Event::DiskLost { disk: disk(3) });
            play.see(&Event::NodeStarted { node: life(3, 2), disk: disk(30) });
        },
    },
    Case {
        rule: Rule::OnlyNamedDisks,
        name: "two nodes with one disk",
        breaks: |play| {
            play.see(&Event::NodeStarted { node: life(3, 1), disk: disk(3) });
            play.see(&Event::NodeStarted { node: life(4, 1), disk: disk(3) });
        },
        fine: |play| {
            play.see(&Event::NodeStarted { node: life(3, 1), disk: disk(3) });
            play.see(&Event::NodeStarted { node: life(3, 2), disk: disk(3) });
        },
    },
    Case {
        rule: Rule::OnlyNamedDisks,
        name: "a loglet that no chain names",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store_of(loglet(1), (1, 1), (1, 2), 70);
        },
        fine: |play| {
            settled(play);
            play.store_of(loglet(1), (1, 1), (1, 2), 70);
        },
    },
    Case {
        rule: Rule::NoHoles,
        name: "a hole in what is not committed",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([1], 1, 2, 70);
            play.store([3], 2, 3, 71);
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.store([1, 2], 1, 2, 70);
            play.store([3], 2, 3, 71);
        },
    },
    Case {
        rule: Rule::CopiesKeepTheirWord,
        name: "more is told than was stored",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([1], 1, 2, 70);
            play.copy([1], facts(3, 1));
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.store([1], 1, 2, 70);
            play.copy([1], facts(2, 1));
        },
    },
    Case {
        rule: Rule::CopiesKeepTheirWord,
        name: "less is told than was stored",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([1], 1, 4, 70);
            play.copy([1], sealed(facts(2, 1)));
        },
        fine: |play| {
            settled(play);
            play.copy([1], settled_facts());
        },
    },
    Case {
        rule: Rule::CopiesKeepTheirWord,
        name: "the committed tail goes back",
        breaks: |play| {
            one_record(play);
            play.copy([1], facts(2, 2));
            play.copy([1], facts(2, 1));
        },
        fine: |play| {
            one_record(play);
            play.copy([1], facts(2, 2));
            play.copy([1], facts(2, 2));
        },
    },
    Case {
        rule: Rule::CopiesKeepTheirWord,
        name: "trimmed at the committed tail",
        breaks: |play| {
            one_record(play);
            play.chain(&trimmed(&created(3, "2"), 1));
            play.copy([1], CopyFacts { trim_point: Some(offset(1)), ..facts(2, 1) });
        },
        fine: |play| {
            one_record(play);
            play.chain(&trimmed(&created(3, "2"), 1));
            play.copy([1], CopyFacts { trim_point: Some(offset(1)), ..facts(2, 2) });
        },
    },
    Case {
        rule: Rule::CopiesKeepTheirWord,
        name: "decided and not sealed",
        breaks: |play| {
            settled(play);
            play.copy([3], CopyFacts { sealed: None, ..settled_facts() });
        },
        fine: |play| {
            settled(play);
            play.copy([3], CopyFacts { local_tail: offset(1), ..settled_facts() });
        },
    },
    Case {
        rule: Rule::TrimOnlyRises,
        name: "a copy is trimmed further than its log",
        breaks: |play| {
            one_record(play);
            play.copy([1], CopyFacts { trim_point: Some(offset(1)), ..facts(2, 2) });
        },
        fine: |play| {
            settled(play);
            let chain = decided(&announced(&created(3, "2"), 2), 2);
            let pending = announced(&chain, 3);
            play.chain(&pending);
            for number in [1, 2] {
                let (node, disk, facts) =
                    (node(number), disk(number), sealed(CopyFacts { bound: None, ..facts(1, 1) }));
                play.see(&Event::CopyWritten { node, disk, loglet: loglet(1), facts });
            }
            play.chain(&closed(&pending, 1));
            // A log that is gone has no trim point: all of it goes.
            play.see(&Event::ChainDeleted { log: chain.log });
            play.copy([1], CopyFacts { trim_point: Some(offset(1)), ..settled_facts() });
        },
    },
    Case {
        rule: Rule::SealHolds,
        name: "a seal goes away",
        breaks: |play| {
            one_record(play);
            play.copy([1], sealed(facts(2, 1)));
            play.copy([1], facts(2, 1));
        },
        fine: |play| {
            one_record(play);
            play.copy([1], sealed(facts(2, 1)));
            // A later operation seals once more.
            play.copy([1], CopyFacts { sealed: Some(crate::testing::op(9)), ..facts(2, 1) });
        },
    },
    Case {
        rule: Rule::SealHolds,
        name: "a sealed disk takes what is new",
        breaks: |play| {
            one_record(play);
            play.copy([1], sealed(facts(2, 1)));
            play.store([1], 2, 3, 71);
        },
        fine: |play| {
            one_record(play);
            play.store([2], 2, 3, 71);
            play.copy([1], sealed(facts(2, 1)));
            // A repair.
            play.store([1], 2, 3, 71);
        },
    },
    Case {
        rule: Rule::WrittenOnce,
        name: "other bytes on the same disk",
        breaks: |play| {
            one_record(play);
            play.store([1], 1, 2, 99);
        },
        fine: |play| {
            one_record(play);
            play.store([1], 1, 2, 70);
        },
    },
    Case {
        rule: Rule::WrittenOnce,
        name: "a batch reaches over another one",
        breaks: |play| {
            one_record(play);
            play.store([1], 1, 3, 70);
        },
        fine: |play| {
            one_record(play);
            play.store([1], 2, 4, 71);
        },
    },
    Case {
        rule: Rule::BoundOnce,
        name: "bound to a life that is not the sequencer",
        breaks: |play| {
            one_record(play);
            play.copy([1], CopyFacts { bound: Some(life(1, 2)), ..facts(2, 1) });
        },
        fine: |play| {
            play.chain(&created(3, "2"));
            play.copy([1], CopyFacts { bound: None, ..facts(1, 1) });
            play.copy([1], facts(1, 1));
        },
    },
    Case {
        rule: Rule::BoundOnce,
        name: "not bound any more",
        breaks: |play| {
            one_record(play);
            play.copy([1], CopyFacts { bound: None, ..facts(2, 1) });
        },
        fine: |play| {
            one_record(play);
            play.copy([1], facts(2, 1));
        },
    },
    Case {
        rule: Rule::OffsetsGivenOnce,
        name: "two disks with different bytes",
        breaks: |play| {
            one_record(play);
            play.store([3], 1, 2, 99);
        },
        fine: |play| {
            one_record(play);
            play.store([3], 1, 2, 70);
        },
    },
    Case {
        rule: Rule::CommittedInOrder,
        name: "acknowledged over a hole",
        breaks: |play| {
            play.chain(&created(4, "2"));
            play.store([1], 1, 2, 70);
            play.store([2], 1, 2, 70);
            play.store([1], 2, 3, 71);
            play.store([1, 2], 3, 4, 72);
            play.append(7, 3);
        },
        fine: |play| {
            play.chain(&created(4, "2"));
            play.store([1, 2], 1, 2, 70);
            play.store([1, 3], 2, 3, 71);
            play.store([1, 4], 3, 4, 72);
            play.append(7, 3);
        },
    },
    Case {
        rule: Rule::AcknowledgedIsDurable,
        name: "acknowledged on one disk",
        breaks: |play| {
            play.chain(&created(3, "2"));
            play.store([1], 1, 2, 70);
            play.append(7, 1);
        },
        fine: |play| {
            one_record(play);
            play.see(&Event::DiskLost { disk: disk(1) });
            play.append(7, 1);
        },
    },
    Case {
        rule: Rule::AcknowledgedIsDurable,
        name: "acknowledged before anything was stored",
        breaks: |play| {
            play.checker.expect_disks();
            play.chain(&created(3, "2"));
            play.append(7, 1);
        },
        fine: |play| {
            play.checker.expect_disks();
            one_record(play);
            play.append(7, 1);
        },
    },
    Case {
        rule: Rule::AcknowledgedIsDurable,
        name: "two nodes of one zone",
        breaks: |play| {
            play.chain(&created(4, "{zone: 2}"));
            play.store([1, 3], 1, 2, 70);
            play.append(7, 1);
        },
        fine: |play| {
            play.chain(&created(4, "{zone: 2}"));
            play.store([1, 2], 1, 2, 70);
            play.append(7, 1);
        },
    },
    Case {
        rule: Rule::LivesGrow,
        name: "a life serves twice",
        breaks: |play| {
            play.see(&Event::NodeStarted { node: life(1, 1), disk: disk(1) });
            play.see(&Event::NodeStarted { node: life(1, 1), disk: disk(1) });
        },
        fine: |play| {
            play.see(&Event::NodeStarted { node: life(1, 1), disk: disk(1) });
            play.see(&Event::NodeStarted { node: life(1, 2), disk: disk(1) });
        },
    },
    Case {
        rule: Rule::LivesGrow,
        name: "metadata goes back to an earlier life",
        breaks: |play| {
            play.see(&Event::NodeWritten { record: record(1, 2) });
            play.see(&Event::NodeWritten { record: record(1, 1) });
        },
        fine: |play| {
            play.see(&Event::NodeWritten { record: record(1, 2) });
            play.see(&Event::NodeWritten { record: record(1, 2) });
        },
    },
    Case {
        rule: Rule::LivesGrow,
        name: "a life serves that metadata does not know",
        breaks: |play| {
            play.see(&Event::NodeWritten { record: record(1, 1) });
            play.see(&Event::NodeStarted { node: life(1, 2), disk: disk(1) });
        },
        fine: |play| {
            play.see(&Event::NodeWritten { record: record(1, 2) });
            play.see(&Event::NodeStarted { node: life(1, 2), disk: disk(1) });
        },
    },
    Case {
        rule: Rule::LivesGrow,
        name: "a life serves that was over",
        breaks: |play| {
            play.see(&Event::NodeStopped { node: life(1, 2) });
            play.see(&Event::NodeStarted { node: life(1, 2), disk: disk(1) });
        },
        fine: |play| {
            play.see(&Event::NodeStopped { node: life(1, 2) });
            play.see(&Event::NodeStarted { node: life(1, 3), disk: disk(1) });
        },
    },
    Case {
        rule: Rule::SealedByEnough,
        name: "closed with one seal of three",
        breaks: |play| {
            closing(play);
            play.copy([1], sealed(facts(2, 1)));
            play.chain(&decided(&announced(&created(3, "2"), 2), 2));
        },
        fine: settled,
    },
    Case {
        rule: Rule::SealedByEnough,
        name: "a seal that is not durable",
        breaks: |play| {
            closing(play);
            play.chain(&closed(&announced(&created(3, "2"), 2), 2));
        },
        fine: |play| {
            // With all of three copies one seal meets every write quorum.
            play.chain(&created(3, "3"));
            play.chain(&announced(&created(3, "3"), 2));
            play.copy([2], sealed(CopyFacts { bound: None, ..facts(1, 1) }));
            play.chain(&closed(&announced(&created(3, "3"), 2), 1));
        },
    },
    Case {
        rule: Rule::DecidedCoversAcknowledged,
        name: "decided below what was acknowledged",
        breaks: |play| {
            closing(play);
            play.append(7, 1);
            play.copy([1, 2], sealed(facts(2, 1)));
            play.chain(&decided(&announced(&created(3, "2"), 2), 1));
        },
        fine: |play| {
            closing(play);
            play.append(7, 1);
            play.copy([1, 2], sealed(facts(2, 1)));
            play.chain(&decided(&announced(&created(3, "2"), 2), 2));
        },
    },
    Case {
        rule: Rule::DecidedCoversAcknowledged,
        name: "acknowledged at the end of a closed log",
        breaks: |play| {
            let pending = announced(&created(3, "2"), 2);
            play.chain(&closed(&pending, 2));
            play.append(7, 2);
        },
        fine: |play| {
            let call = play.invoke(7);
            play.chain(&closed(&announced(&created(3, "2"), 2), 2));
            // Its answer was long on its way.
            play.acknowledge(call, 1);
        },
    },
    Case {
        rule: Rule::DecidedIsDurable,
        name: "decided and on one disk only",
        breaks: |play| {
            closing(play);
            play.store([1], 2, 3, 71);
            play.copy([1], sealed(facts(3, 1)));
            play.copy([2], sealed(facts(2, 1)));
            play.chain(&decided(&announced(&created(3, "2"), 2), 3));
        },
        fine: |play| {
            closing(play);
            play.store([1], 2, 3, 71);
            play.copy([1], sealed(facts(3, 1)));
            play.copy([2], sealed(facts(2, 1)));
            play.store([2], 2, 3, 71);
            play.copy([2], sealed(facts(3, 1)));
            play.chain(&decided(&announced(&created(3, "2"), 2), 3));
        },
    },
    Case {
        rule: Rule::DecidedIsDurable,
        name: "decided and on one disk only, though two could have it",
        breaks: |play| {
            given_up(play, [3]);
            play.chain(&decided(&announced(&created(3, "2"), 2), 3));
        },
        fine: |play| {
            given_up(play, [2, 3]);
            play.chain(&decided(&announced(&created(3, "2"), 2), 3));
        },
    },
    Case {
        rule: Rule::CommittedIsTrue,
        name: "a committed tail above what a write quorum has",
        breaks: |play| {
            one_record(play);
            play.store([1], 2, 3, 71);
            play.copy([1], facts(3, 3));
        },
        fine: |play| {
            one_record(play);
            play.store([1], 2, 3, 71);
            play.copy([1], facts(3, 2));
        },
    },
    Case {
        rule: Rule::CommittedIsTrue,
        name: "a repair commits",
        breaks: |play| {
            repaired(play);
            play.copy([2], sealed(facts(3, 3)));
        },
        fine: |play| {
            repaired(play);
            play.copy([2], sealed(facts(3, 2)));
        },
    },
    Case {
        rule: Rule::ReadAllowed,
        name: "repaired, and not decided",
        breaks: |play| {
            play.forget([7, 8]);
            repaired(play);
            play.read(1, [7, 8]);
        },
        fine: |play| {
            play.forget([7, 8]);
            repaired(play);
            play.chain(&decided(&announced(&created(3, "2"), 2), 3));
            play.read(1, [7, 8]);
        },
    },
    Case {
        rule: Rule::GarbageGoes,
        name: "stored behind a decided tail that the disk knows",
        breaks: |play| {
            settled(play);
            play.store([1], 2, 3, 71);
        },
        fine: |play| {
            settled(play);
            play.store([1], 1, 2, 70);
        },
    },
    Case {
        rule: Rule::OneDecision,
        name: "a disk is told another end",
        breaks: |play| {
            settled(play);
            play.store([3], 1, 2, 70);
            play.copy([3], CopyFacts { decided_tail: Some(offset(3)), ..settled_facts() });
        },
        fine: |play| {
            settled(play);
            play.store([3], 1, 2, 70);
            play.copy([3], settled_facts());
        },
    },
];

#[test]
fn an_lsn_at_which_an_empty_segment_ended_belongs_to_the_next_one() {
    let mut play = Play::new();
    play.checker.expect_disks();
    let pending = announced(&created(3, "2"), 2);
    play.chain(&pending);
    play.copy([1, 2], sealed(CopyFacts { bound: None, ..facts(1, 1) }));
    play.chain(&decided(&pending, 1));
    for number in [1, 2] {
        play.store_of(loglet(1), (number, number), (1, 2), 70);
    }
    play.append(7, Lsn::FIRST.get());
    play.read(1, [7]);
    assert_eq!(play.checker.breaches(), []);
    assert_eq!(play.checker.tally(Rule::AcknowledgedIsDurable).checked, 1);
}
