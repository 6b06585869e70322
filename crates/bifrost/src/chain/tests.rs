//! The transitions one by one, and then any number of actors that race with them through compare-and-swap.

#![allow(clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

use bifrost_types::limits::CHAIN_FINISHED_MAX;
use bifrost_types::{
    Actor, CloseReason, DiskId, Generation, Location, Member, NodeGeneration, NodeId, Nodeset, ReplicationProperty,
};
use proptest::prelude::*;

use super::*;

fn op(number: u128) -> OpId {
    OpId::try_from(number).expect("not 0")
}

fn offset(number: u64) -> LogletOffset {
    LogletOffset::new(number).expect("not 0")
}

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

fn successor(sequencer: u32) -> Successor {
    let node = |id: u32| NodeId::try_from(id).expect("not 0");
    let member = |id: u32| Member {
        node: node(id),
        disk: DiskId::try_from(u128::from(id)).expect("not 0"),
        location: Location::default(),
    };
    Successor {
        nodeset: Nodeset::new((1..=3).map(member).collect()).expect("three nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0")),
        sequencer: NodeGeneration::new(node(sequencer), Generation::FIRST),
    }
}

fn first() -> Chain {
    create(LogId::try_from(7).expect("not 0"), Some("orders".to_owned()), op(1), successor(1))
}

fn wanted(number: u128, segment: u32, successor: Option<Successor>) -> Reconfiguration {
    Reconfiguration {
        op: op(number),
        segment: SegmentIndex::new(segment),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor,
        attempt: 1,
        opened_at_millis: 0,
    }
}

fn announced(chain: &Chain, wanted: &Reconfiguration) -> Chain {
    match announce(chain, wanted) {
        Ok(Announce::Write(next)) => next,
        other => panic!("not announced: {other:?}"),
    }
}

fn decided(chain: &Chain, number: u128, tail: u64) -> Chain {
    match decide(chain, op(number), offset(tail).into(), Timings::default()) {
        Ok(Decide::Write(next)) => next,
        other => panic!("not decided: {other:?}"),
    }
}

/// A chain whose n-th segment was closed by operation `100 + n` after one record.
fn after_closing(segments: u32) -> Chain {
    (0..segments).fold(first(), |chain, segment| {
        let number = 100 + u128::from(segment);
        decided(&announced(&chain, &wanted(number, segment, Some(successor(2)))), number, 2)
    })
}

#[test]
fn a_new_chain_is_valid_and_its_author_recognises_it() {
    let chain = first();
    assert_eq!(validate(&chain), Ok(()));
    assert!(chain.outcome(op(1)).is_some());
    assert_eq!((chain.version, chain.next_segment), (1, SegmentIndex::new(1)));
}

#[test]
fn closing_opens_the_successor_exactly_at_the_decided_tail() {
    let pending = announced(&first(), &wanted(2, 0, Some(successor(2))));
    assert_eq!(pending.pending.as_ref().map(|pending| pending.op), Some(op(2)));
    assert_eq!(pending.segments, first().segments, "T1 is advisory: the segment stays open");
    let chain = decided(&pending, 2, 11);
    assert_eq!(validate(&chain), Ok(()));
    assert_eq!(chain.version, 3);
    assert_eq!(chain.pending, None);
    assert_eq!(chain.segments[0].decided_tail(), Some(offset(11)));
    assert_eq!(chain.segments[1].base_lsn, lsn(11));
    assert_eq!(chain.segments[1].params.sequencer, successor(2).sequencer);
    let outcome =
        Finished { op: op(2), segment: SegmentIndex::FIRST, tail: offset(11), successor: Some(SegmentIndex::new(1)) };
    assert_eq!(announce(&chain, &wanted(2, 0, Some(successor(2)))), Ok(Announce::Finished(outcome.clone())));
    assert_eq!(decide(&chain, op(2), offset(99).into(), Timings::default()), Ok(Decide::Finished(outcome)));
}

#[test]
fn an_empty_segment_may_be_closed_and_shares_its_base() {
    let chain = decided(&announced(&first(), &wanted(2, 0, Some(successor(2)))), 2, 1);
    assert_eq!(validate(&chain), Ok(()));
    assert_eq!(chain.segments[0].base_lsn, chain.segments[1].base_lsn);
}

#[test]
fn whoever_finds_another_operation_pending_joins_it() {
    let chain = announced(&first(), &wanted(2, 0, Some(successor(2))));
    let pending = chain.pending.clone().expect("announced");
    assert_eq!(announce(&chain, &wanted(3, 0, None)), Ok(Announce::Pending(pending.clone())));
    assert_eq!(announce(&chain, &wanted(2, 0, None)), Ok(Announce::Pending(pending)), "its own, as it was announced");
    assert_eq!(decide(&chain, op(3), offset(1).into(), Timings::default()), Ok(Decide::Gone));
}

#[test]
fn whose_segment_was_closed_by_another_is_told_by_whom() {
    let chain = after_closing(3);
    let by = |segment: u32| Finished {
        op: op(100 + u128::from(segment)),
        segment: SegmentIndex::new(segment),
        tail: offset(2),
        successor: Some(SegmentIndex::new(segment + 1)),
    };
    assert_eq!(announce(&chain, &wanted(5, 1, None)), Ok(Announce::Superseded(by(1))));
    // Not made to wait for a reconfiguration that is about a later segment.
    let busy = announced(&chain, &wanted(6, 3, Some(successor(1))));
    assert_eq!(announce(&busy, &wanted(5, 2, None)), Ok(Announce::Superseded(by(2))));
}

#[test]
fn an_operation_is_not_carried_out_twice_however_late_it_is_asked_for() {
    let segments = u32::try_from(CHAIN_FINISHED_MAX).expect("small") + 5;
    let chain = after_closing(segments);
    assert_eq!(chain.finished.len(), CHAIN_FINISHED_MAX);
    assert_eq!(chain.outcome(op(100)), None, "no longer among the last outcomes");
    let outcome = outcome(&chain, op(100)).expect("the segment remembers");
    assert_eq!((outcome.segment, outcome.tail), (SegmentIndex::FIRST, offset(2)));
    for segment in [0, segments] {
        let again = announce(&chain, &wanted(100, segment, Some(successor(1))));
        assert_eq!(again, Ok(Announce::Finished(outcome.clone())), "asked about segment {segment}");
    }
    assert_eq!(decide(&chain, op(100), offset(9).into(), Timings::default()), Ok(Decide::Finished(outcome)));
}

#[test]
fn closing_for_good_leaves_nothing_open_and_whoever_raced_with_it_is_told() {
    let closed = decided(&announced(&after_closing(1), &wanted(9, 1, None)), 9, 4);
    assert_eq!(validate(&closed), Ok(()));
    assert_eq!(closed.segments.len(), 2);
    let by = Finished { op: op(9), segment: SegmentIndex::new(1), tail: offset(4), successor: None };
    assert_eq!(announce(&closed, &wanted(8, 1, Some(successor(1)))), Ok(Announce::Superseded(by.clone())));
    assert_eq!(announce(&closed, &wanted(9, 1, None)), Ok(Announce::Finished(by)));
    assert_eq!(announce(&closed, &wanted(8, 2, Some(successor(1)))), Err(ChainError::Closed));
}

#[test]
fn a_successor_is_replaced_under_the_same_operation_only() {
    let chain = announced(&first(), &wanted(2, 0, Some(successor(2))));
    assert_eq!(replace_successor(&chain, op(3), successor(3)), Ok(None));
    assert_eq!(replace_successor(&first(), op(2), successor(3)), Ok(None));
    let replaced = replace_successor(&chain, op(2), successor(3)).expect("not exhausted").expect("it is pending");
    assert_eq!(replaced.pending.as_ref().map(|pending| (pending.op, pending.attempt)), Some((op(2), 2)));
    assert_eq!(replaced.version, chain.version + 1);
    let chain = decided(&replaced, 2, 5);
    assert_eq!(chain.segments[1].params.sequencer, successor(3).sequencer);
}

#[test]
fn a_trim_point_only_rises() {
    let chain = raise_trim_point(&first(), lsn(5)).expect("not exhausted").expect("it rises");
    assert_eq!((chain.trim_point, chain.version), (Some(lsn(5)), 2));
    assert_eq!(raise_trim_point(&chain, lsn(5)), Ok(None));
    assert_eq!(raise_trim_point(&chain, lsn(4)), Ok(None));
}

/// The same, trimmed up to this position.
fn trimmed(chain: &Chain, up_to: u64) -> Chain {
    raise_trim_point(chain, lsn(up_to)).expect("not exhausted").expect("it rises")
}

fn indexes(segments: &[Segment]) -> Vec<u32> {
    segments.iter().map(|segment| segment.index().get()).collect()
}

#[test]
fn wholly_trimmed_segments_are_spent_but_for_the_last_closed_one_and_the_open_one() {
    // Segment n has LSN n + 1.
    let chain = after_closing(4);
    assert_eq!(spent(&chain), [], "nothing is trimmed");
    assert_eq!(indexes(spent(&trimmed(&chain, 1))), [0]);
    assert_eq!(indexes(spent(&trimmed(&chain, 2))), [0, 1]);
    assert_eq!(indexes(spent(&trimmed(&chain, 3))), [0, 1, 2]);
    assert_eq!(indexes(spent(&trimmed(&chain, 4))), [0, 1, 2], "the last closed one stays");
    assert_eq!(indexes(spent(&trimmed(&chain, 5))), [0, 1, 2], "the open one stays");
    let closed = trimmed(&decided(&announced(&chain, &wanted(9, 4, None)), 9, 2), 5);
    assert_eq!(indexes(spent(&closed)), [0, 1, 2, 3], "of a log that is closed for good the last one stays");
    assert_eq!(spent(&trimmed(&first(), 1)), [], "nothing is closed");
    let pending = announced(&trimmed(&chain, 4), &wanted(9, 4, Some(successor(1))));
    assert_eq!(spent(&pending), [], "nothing leaves while something is pending");
}

#[test]
fn a_segment_that_is_trimmed_in_part_keeps_those_after_it() {
    let two = decided(&announced(&first(), &wanted(2, 0, Some(successor(2)))), 2, 11);
    let chain = after_empty(&decided(&announced(&two, &wanted(3, 1, Some(successor(1)))), 3, 3));
    assert_eq!(spent(&trimmed(&chain, 9)), []);
    assert_eq!(indexes(spent(&trimmed(&chain, 10))), [0]);
    assert_eq!(indexes(spent(&trimmed(&chain, 11))), [0]);
    // The empty one has nothing, and ends where the one before it does.
    assert_eq!(indexes(spent(&trimmed(&chain, 12))), [0, 1, 2]);
}

/// The same after two more closed segments, of which the first is empty.
fn after_empty(chain: &Chain) -> Chain {
    let empty = decided(&announced(chain, &wanted(7, 2, Some(successor(2)))), 7, 1);
    decided(&announced(&empty, &wanted(8, 3, Some(successor(2)))), 8, 5)
}

#[test]
fn what_leaves_takes_nothing_along_that_anybody_needs() {
    let before = trimmed(&after_closing(4), 3);
    let after = without_spent(&before, SegmentIndex::new(1)).expect("not exhausted").expect("it is spent");
    assert_eq!(validate(&after), Ok(()));
    assert_eq!(after.segments, before.segments[2..]);
    let Chain { segments, version, .. } = before.clone();
    assert_eq!(Chain { segments, version, ..after.clone() }, before, "nothing else changes");
    assert_eq!(after.version, before.version + 1);
    let all = without_spent(&after, SegmentIndex::new(2)).expect("not exhausted").expect("it is spent");
    assert_eq!(indexes(&all.segments), [3, 4]);
    for (chain, last) in [(&before, 3), (&before, 4), (&before, 9), (&after, 1), (&all, 2), (&all, 3)] {
        assert_eq!(without_spent(chain, SegmentIndex::new(last)), Ok(None), "{last} is not spent there");
    }
    // The next segment is none that was there before (C2).
    let moved = decided(&announced(&all, &wanted(9, 4, Some(successor(1)))), 9, 2);
    assert_eq!((indexes(&moved.segments), moved.segments[2].base_lsn), (vec![3, 4, 5], lsn(6)));
}

#[test]
fn a_decision_takes_along_what_was_given_back_and_nothing_else() {
    let before = announced(&trimmed(&after_closing(4), 2), &wanted(9, 4, Some(successor(1))));
    let Ok(Decide::Write(alone)) = decide(&before, op(9), offset(2).into(), Timings::default()) else {
        panic!("not decided")
    };
    assert_eq!(taking_along(alone.clone(), None), alone);
    for (returned, first) in [(0, 1), (1, 2), (2, 2), (9, 2)] {
        let with = taking_along(alone.clone(), Some(SegmentIndex::new(returned)));
        assert_eq!(validate(&with), Ok(()));
        assert_eq!(indexes(&with.segments), (first..=5).collect::<Vec<_>>(), "given back up to {returned}");
        let segments = alone.segments.clone();
        assert_eq!(Chain { segments, ..with }, alone, "it is one change, with one version");
    }
    // A trim does so beside a pending operation, which goes on.
    let during = taking_along(trimmed(&before, 3), Some(SegmentIndex::new(2)));
    assert_eq!((indexes(&during.segments), &during.pending), (vec![3, 4], &before.pending));
    let after = decided(&during, 9, 2);
    assert_eq!(indexes(&after.segments), [3, 4, 5]);
}

#[test]
fn whoever_wants_to_close_a_segment_that_has_left_closes_no_other() {
    let before = trimmed(&after_closing(4), 3);
    let after = without_spent(&before, SegmentIndex::new(2)).expect("not exhausted").expect("it is spent");
    assert_eq!(announce(&after, &wanted(9, 1, Some(successor(1)))), Err(ChainError::Left));
    let busy = announced(&after, &wanted(8, 4, Some(successor(1))));
    assert_eq!(announce(&busy, &wanted(9, 1, Some(successor(1)))), Err(ChainError::Left));
    // Its own author still learns how it ended, from the last outcomes.
    let Ok(Announce::Finished(finished)) = announce(&after, &wanted(101, 1, None)) else { panic!("not recognised") };
    assert_eq!((finished.segment, finished.successor), (SegmentIndex::new(1), Some(SegmentIndex::new(2))));
}

#[test]
fn what_runs_out_is_an_error_and_changes_nothing() {
    let last_version = Chain { version: u64::MAX, ..first() };
    assert_eq!(announce(&last_version, &wanted(2, 0, None)), Err(ChainError::Exhausted));
    assert_eq!(raise_trim_point(&last_version, lsn(1)), Err(ChainError::Exhausted));
    let mut last_index = announced(&first(), &wanted(2, 0, Some(successor(2))));
    last_index.next_segment = SegmentIndex::new(u32::MAX);
    assert_eq!(decide(&last_index, op(2), offset(1).into(), Timings::default()), Err(ChainError::Exhausted));
    let mut late = announced(&after_closing(1), &wanted(2, 1, Some(successor(2))));
    late.segments[1].base_lsn = Lsn::MAX;
    assert_eq!(decide(&late, op(2), offset(2).into(), Timings::default()), Err(ChainError::Exhausted));
}

#[test]
fn a_damaged_chain_is_not_taken_for_one() {
    let good = announced(&after_closing(2), &wanted(2, 2, None));
    assert_eq!(validate(&good), Ok(()));
    let damages: [fn(&mut Chain); 8] = [
        |chain| chain.segments.clear(),
        |chain| chain.segments.swap(0, 1),
        |chain| chain.segments[1].base_lsn = Lsn::MAX,
        |chain| chain.segments[0].state = SegmentState::Open,
        |chain| chain.next_segment = SegmentIndex::new(2),
        |chain| chain.segments[2].params.id.log = LogId::try_from(8).expect("not 0"),
        |chain| chain.pending.as_mut().expect("announced").segment = SegmentIndex::new(1),
        |chain| drop(chain.segments.pop()),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mut chain = good.clone();
        damage(&mut chain);
        assert_eq!(validate(&chain), Err(ChainError::Damaged), "damage {number}");
    }
}

/// What an actor does next. Each works on the chain that it read last, which may be old by then.
#[derive(Debug, Clone)]
enum Action {
    Read,
    Announce { op: u128, segment_back: u32, close: bool },
    ReplaceSuccessor { op: u128, sequencer: u32 },
    Decide { op: u128, records: u64, returned: Option<SegmentIndex> },
    Trim { records: u64, returned: Option<SegmentIndex> },
    Shorten { segments: usize },
}

const ACTORS: usize = 4;

/// Up to which segment an actor has had the space given back.
fn returned() -> impl Strategy<Value = Option<SegmentIndex>> {
    prop::option::of((0..30_u32).prop_map(SegmentIndex::new))
}

fn action() -> impl Strategy<Value = Action> {
    // Few operations, so that actors share them and ask again for old ones.
    let number = 2..10_u128;
    prop_oneof![
        4 => Just(Action::Read),
        4 => (number.clone(), 0..3_u32, prop::bool::weighted(0.05))
            .prop_map(|(op, segment_back, close)| Action::Announce { op, segment_back, close }),
        1 => (number.clone(), 1..4_u32).prop_map(|(op, sequencer)| Action::ReplaceSuccessor { op, sequencer }),
        3 => (number, 0..20_u64, returned()).prop_map(|(op, records, returned)| Action::Decide { op, records, returned }),
        1 => (1..200_u64, returned()).prop_map(|(records, returned)| Action::Trim { records, returned }),
        2 => (1..4_usize).prop_map(|segments| Action::Shorten { segments }),
    ]
}

/// The stored chain and everything that was ever said about it.
#[derive(Debug)]
struct Model {
    stored: Chain,
    /// The first outcome that anybody was told of each operation (C4).
    told: BTreeMap<OpId, Finished>,
    /// Who closed each segment, and where (C1).
    closed: BTreeMap<SegmentIndex, (OpId, LogletOffset)>,
    /// Every loglet id that was ever opened (C2).
    opened: BTreeSet<LogletId>,
    ever_closed_for_good: bool,
}

impl Model {
    fn new() -> Self {
        let stored = first();
        let opened = BTreeSet::from([stored.segments[0].params.id]);
        Self { stored, told: BTreeMap::new(), closed: BTreeMap::new(), opened, ever_closed_for_good: false }
    }

    fn tell(&mut self, finished: &Finished) {
        let first = self.told.entry(finished.op).or_insert_with(|| finished.clone());
        assert_eq!(first, finished, "C4: one operation, two outcomes");
    }

    /// The store: takes `next` if nobody changed the chain since `read`. Returns whether it did.
    fn replace(&mut self, read: &Chain, next: Chain) -> bool {
        if read.version != self.stored.version {
            return false;
        }
        let before = std::mem::replace(&mut self.stored, next);
        self.check_change(&before);
        true
    }

    fn check_change(&mut self, before: &Chain) {
        let after = self.stored.clone();
        assert_eq!(validate(&after), Ok(()));
        assert_eq!(after.version, before.version + 1, "C3");
        assert!(after.trim_point >= before.trim_point, "trim points go back");
        assert!(after.finished.len() <= CHAIN_FINISHED_MAX);
        assert!(after.next_segment >= before.next_segment);
        let grew = after.last().map(Segment::index) > before.last().map(Segment::index);
        assert!(!self.ever_closed_for_good || !grew, "a log that was closed grew");
        for old in &before.segments {
            let Some(new) = after.segment(old.index()) else {
                let end = old.decided_tail().expect("what is open does not leave").to_lsn(old.base_lsn).expect("small");
                assert!(end.previous() <= after.trim_point, "what can be read does not leave");
                continue;
            };
            assert_eq!((old.base_lsn, &old.params), (new.base_lsn, &new.params), "parameters are immutable");
            assert!(old.decided_tail().is_none() || old == new, "C1: decided twice");
        }
        let last = before.last().expect("never empty").index();
        for segment in after.segments.iter().filter(|segment| segment.index() > last) {
            assert!(self.opened.insert(segment.params.id), "C2: {} was used before", segment.params.id);
        }
        let open = after.segments.iter().filter(|segment| segment.decided_tail().is_none()).count();
        assert!(open == 1 || open == 0 && after.last().is_some_and(|last| last.decided_tail().is_some()));
        self.ever_closed_for_good |= open == 0;
        for segment in &after.segments {
            if let SegmentState::Sealed { tail, op, .. } = segment.state {
                let first = *self.closed.entry(segment.index()).or_insert((op, tail));
                assert_eq!(first, (op, tail), "C1: one transaction closes a segment");
            }
        }
        let closers: BTreeSet<OpId> = self.closed.values().map(|(op, _)| *op).collect();
        assert_eq!(closers.len(), self.closed.len(), "C4: an operation closed two segments");
    }
}

/// One step of one actor; it sees its outcome as a caller would.
fn act(model: &mut Model, seen: &mut Chain, action: &Action) {
    let next = match action {
        Action::Read => {
            *seen = model.stored.clone();
            None
        }
        Action::Announce { op: number, segment_back, close } => {
            let last = seen.last().expect("never empty").index().get();
            let then = (!close).then(|| successor(1));
            match announce(seen, &wanted(*number, last.saturating_sub(*segment_back), then)) {
                Ok(Announce::Write(next)) => Some(next),
                Ok(Announce::Pending(pending)) => {
                    assert_eq!(Some(&pending), seen.pending.as_ref());
                    None
                }
                Ok(Announce::Finished(finished)) => {
                    assert_eq!(finished.op, op(*number));
                    model.tell(&finished);
                    None
                }
                Ok(Announce::Superseded(by)) => {
                    assert_ne!(by.op, op(*number), "superseded by itself");
                    model.tell(&by);
                    None
                }
                Err(ChainError::Left) => {
                    assert!(seen.has_left(SegmentIndex::new(last.saturating_sub(*segment_back))));
                    None
                }
                Err(error) => panic!("{error} although it only wanted what was there"),
            }
        }
        Action::ReplaceSuccessor { op: number, sequencer } => {
            replace_successor(seen, op(*number), successor(*sequencer)).expect("few attempts")
        }
        Action::Decide { op: number, records, returned } => {
            match decide(seen, op(*number), offset(1 + records).into(), Timings::default()).expect("positions are left")
            {
                Decide::Write(next) => Some(taking_along(next, *returned)),
                Decide::Finished(finished) => {
                    model.tell(&finished);
                    None
                }
                Decide::Gone => {
                    assert!(seen.pending.as_ref().is_none_or(|pending| pending.op != op(*number)));
                    None
                }
            }
        }
        Action::Trim { records, returned } => {
            let next = raise_trim_point(seen, lsn(*records)).expect("versions are left");
            next.map(|next| taking_along(next, *returned))
        }
        Action::Shorten { segments } => {
            let spent = spent(seen);
            let last = spent.get(..spent.len().min(*segments)).and_then(<[Segment]>::last).map(Segment::index);
            last.and_then(|last| without_spent(seen, last).expect("versions are left"))
        }
    };
    if let Some(next) = next {
        let read = seen.clone();
        if model.replace(&read, next) {
            // Half of the replies are lost: whoever lost one looks at what it had, and finds out by reading (M2).
            if model.stored.version.is_multiple_of(2) {
                *seen = model.stored.clone();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// C1–C4 under any interleaving of actors with the same and with different operations.
    #[test]
    fn racing_actors_keep_the_invariants(schedule in prop::collection::vec((0..ACTORS, action()), 1..200)) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let mut model = Model::new();
        let mut seen = vec![model.stored.clone(); ACTORS];
        for (actor, action) in &schedule {
            act(&mut model, &mut seen[*actor], action);
        }
        // Whatever was told stays true to the end, for whoever asks.
        for (asked, finished) in model.told.clone() {
            prop_assert_eq!(outcome(&model.stored, asked), Some(finished));
        }
        for (segment, (closer, tail)) in &model.closed {
            let outcome = outcome(&model.stored, *closer).expect("closed for ever");
            prop_assert_eq!((outcome.segment, outcome.tail), (*segment, *tail));
        }
    }
}
