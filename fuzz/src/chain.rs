//! The transitions of a chain: whatever chain decodes and is in order, each transition is refused or leads to another
//! chain that is in order (C1–C4).

use bifrost::chain::{
    Announce, Decide, announce, decide, outcome, raise_trim_point, replace_successor, spent, validate, without_spent,
};
use bifrost_types::{Actor, Chain, CloseReason, LogletOffset, Lsn, OpId, Reconfiguration, Segment, Successor, Timings};
use bifrost_wire::codec::{decode_chain, encode_chain};

use crate::unhex;

/// The last bytes of an input: an operation, a position, a choice.
const TRAILER: usize = 16 + 8 + 1;

pub(crate) fn run(input: &[u8]) {
    let Some((bytes, trailer)) = input.split_last_chunk::<TRAILER>() else { return };
    let Ok(chain) = decode_chain(bytes) else { return };
    if validate(&chain).is_err() {
        return;
    }
    let (op, position, close) = choices(trailer);
    let (Ok(op), Ok(lsn), Some(tail)) = (OpId::try_from(op), Lsn::try_from(position), LogletOffset::new(position))
    else {
        return;
    };
    let known = outcome(&chain, op);
    let Some(last) = chain.last() else { return };
    let successor = Successor {
        nodeset: last.params.nodeset.clone(),
        replication: last.params.replication.clone(),
        sequencer: last.params.sequencer,
    };
    let wanted = Reconfiguration {
        op,
        segment: last.index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: (!close).then(|| successor.clone()),
        attempt: 1,
        opened_at_millis: position,
    };
    if let Ok(Announce::Write(next)) = announce(&chain, &wanted) {
        assert!(known.is_none(), "C4: an operation that is over is not announced again");
        in_order(&chain, &next);
        if let Ok(Decide::Write(decided)) = decide(&next, op, tail.into(), Timings::default()) {
            in_order(&next, &decided);
            assert_eq!(outcome(&decided, op).map(|finished| finished.tail), Some(tail), "C4: the outcome is kept");
            assert_eq!(decided.last().is_some_and(|last| last.decided_tail().is_none()), !close);
        }
    }
    if let Some(pending) = &chain.pending {
        if let Ok(Decide::Write(decided)) = decide(&chain, pending.op, tail.into(), Timings::default()) {
            in_order(&chain, &decided);
        }
        if let Ok(Some(next)) = replace_successor(&chain, pending.op, successor) {
            in_order(&chain, &next);
        }
    }
    if let Ok(Some(next)) = raise_trim_point(&chain, lsn) {
        in_order(&chain, &next);
        if let Some(last) = spent(&next).last()
            && let Ok(Some(shorter)) = without_spent(&next, last.index())
        {
            in_order(&next, &shorter);
            assert!(spent(&shorter).is_empty(), "what is spent has left");
        }
    }
    let _found: Option<&Segment> = chain.segment_at(lsn);
}

fn in_order(before: &Chain, after: &Chain) {
    assert_eq!(validate(after), Ok(()), "a transition keeps the order");
    assert_eq!(after.version, before.version + 1, "C3: the version grows by one");
    assert!(after.next_segment >= before.next_segment, "C2: no index is given twice");
    assert_eq!(decode_chain(&encode_chain(after)).as_ref(), Ok(after), "what is written can be read");
}

fn choices(trailer: &[u8; TRAILER]) -> (u128, u64, bool) {
    let mut op = [0; 16];
    let mut position = [0; 8];
    op.copy_from_slice(&trailer[..16]);
    position.copy_from_slice(&trailer[16..24]);
    (u128::from_le_bytes(op), u64::from_le_bytes(position), trailer[24] % 2 == 1)
}

/// The golden chain: two segments, one sealed, one reconfiguration pending.
pub(crate) fn golden() -> Vec<u8> {
    unhex(include_str!("../../crates/wire/testdata/chain-v1.hex"))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let trailer = |position: u64, close: u8| [&[1; 16], position.to_le_bytes().as_slice(), &[close]].concat();
    [(1, 0), (300, 1), (u64::MAX, 0)].map(|(position, close)| [golden(), trailer(position, close)].concat()).into()
}
