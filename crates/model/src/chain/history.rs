//! What the chain was: judged anew at each change, without the product's own checks.

use std::collections::BTreeMap;

use bifrost_types::{Chain, Finished, LogletOffset, Lsn, OpId, SegmentIndex};

use crate::digest::digest_of;

/// All that was ever committed, as far as later changes are judged by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct History {
    /// Where each segment began, and a digest of its parameters: an id names one loglet for ever (C2).
    opened: BTreeMap<SegmentIndex, (Lsn, u64)>,
    /// Which operation closed a segment, and where (C1).
    closed: BTreeMap<SegmentIndex, (OpId, LogletOffset)>,
    /// How an operation ended for whoever asked (C4).
    outcomes: BTreeMap<OpId, Finished>,
}

impl History {
    /// The history of a new log.
    pub(super) fn of(chain: &Chain) -> Self {
        let mut history = Self::default();
        for segment in &chain.segments {
            history.opened.insert(segment.index(), (segment.base_lsn, digest_of(&segment.params)));
        }
        history
    }

    /// Takes a change in; what is wrong with it, if anything is.
    pub(super) fn change(&mut self, from: &Chain, to: &Chain) -> Option<String> {
        if to.version != from.version + 1 {
            return Some(format!("C3: version {} follows {}", to.version, from.version));
        }
        if to.trim_point < from.trim_point {
            return Some("the trim point went back".to_owned());
        }
        let mut base = Lsn::FIRST;
        for (place, segment) in to.segments.iter().enumerate() {
            let index = segment.index();
            if segment.base_lsn != base {
                return Some(format!("C1: segment {index} begins at {} and not at {base}", segment.base_lsn));
            }
            let known = (segment.base_lsn, digest_of(&segment.params));
            let first = *self.opened.entry(index).or_insert(known);
            let twice = to.segments.iter().filter(|other| other.index() == index).count() > 1;
            if first != known || twice {
                return Some(format!("C2: loglet {index} is used twice"));
            }
            match segment.decided_tail() {
                Some(tail) => {
                    let bifrost_types::SegmentState::Sealed { op, .. } = segment.state else { continue };
                    if *self.closed.entry(index).or_insert((op, tail)) != (op, tail) {
                        return Some(format!("C1: segment {index} has two decided tails"));
                    }
                    base = Lsn::new(base.get() + tail.get() - 1)?;
                }
                None if place + 1 != to.segments.len() => {
                    return Some(format!("C1: segment {index} is open below another"));
                }
                None if self.closed.contains_key(&index) => return Some(format!("C1: segment {index} opened again")),
                None => {}
            }
        }
        if self.closed.keys().any(|index| to.segments.iter().all(|segment| segment.index() != *index)) {
            return Some("a segment vanished".to_owned());
        }
        let mut ops: Vec<OpId> = self.closed.values().map(|(op, _)| *op).collect();
        ops.sort_unstable();
        if ops.windows(2).any(|pair| pair.first() == pair.last()) {
            return Some("C4: one operation closed two segments".to_owned());
        }
        None
    }

    /// Somebody was told how an operation ended; what is wrong with that, if anything is.
    pub(super) fn told(&mut self, finished: &Finished) -> Option<String> {
        if self.closed.get(&finished.segment) != Some(&(finished.op, finished.tail)) {
            return Some(format!("C4: told of an end of {} that is not in the chain", finished.segment));
        }
        let known = self.outcomes.entry(finished.op).or_insert_with(|| finished.clone());
        (known != finished).then(|| format!("C4: {} ended in two ways", finished.op.get()))
    }
}
