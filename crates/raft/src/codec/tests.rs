#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bifrost_metadata::{Precondition, Txn};
use openraft::{CommittedLeaderId, EntryPayload};
use proptest::prelude::*;

use super::*;
use crate::machine::Image;
use crate::peers::{Envelope, decode_answer};
use crate::types::{Command, Entry, LogId, Member, MemberId, Membership, SnapshotMeta, StoredMembership, Vote};

fn log_id() -> impl Strategy<Value = LogId> {
    (0..1_u64 << 62, any::<u64>(), 0..1_u64 << 62)
        .prop_map(|(term, member, index)| LogId::new(CommittedLeaderId::new(term, MemberId::from(member)), index))
}

fn vote() -> impl Strategy<Value = Vote> {
    (0..1_u64 << 62, any::<u64>(), any::<bool>()).prop_map(|(term, member, committed)| {
        let member = MemberId::from(member);
        if committed { Vote::new_committed(term, member) } else { Vote::new(term, member) }
    })
}

fn membership() -> impl Strategy<Value = Membership> {
    let config = prop::collection::btree_set((0..9_u64).prop_map(MemberId::from), 1..5);
    let learners = prop::collection::btree_map((0..9_u64).prop_map(MemberId::from), "[a-z]{0,9}:1", 0..5);
    (prop::collection::vec(config, 0..3), learners).prop_map(|(configs, learners): (Vec<BTreeSet<_>>, _)| {
        let members: BTreeMap<_, _> = learners.into_iter().map(|(id, address)| (id, Member { address })).collect();
        Membership::new(configs, members)
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let demand = prop_oneof![Just(Precondition::Absent), any::<u64>().prop_map(Precondition::Revision)];
    let demands = prop::collection::vec(("\\PC{0,9}", demand), 0..4);
    let writes =
        prop::collection::vec(("\\PC{0,9}", prop::option::of(prop::collection::vec(any::<u8>(), 0..20))), 0..4);
    (demands, writes).prop_map(|(demands, writes)| {
        let txn = demands.into_iter().fold(Txn::new(), |txn, (key, demand)| txn.expect(key, demand));
        writes.into_iter().fold(txn, |txn, (key, value)| match value {
            Some(value) => txn.put(key, value),
            None => txn.delete(key),
        })
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        prop::collection::vec(txn(), 0..4).prop_map(|txns| EntryPayload::Normal(Command { txns })),
        membership().prop_map(EntryPayload::Membership),
    ];
    (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_entry_is_read_as_it_was_written(entry in entry()) {
        let bytes = encode_entry(&entry);
        prop_assert_eq!(decode_entry(&bytes).unwrap(), entry);
        for len in 0..bytes.len() {
            prop_assert!(decode_entry(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn votes_and_their_answers_are_read_as_they_were_written(
        vote in vote(),
        last in prop::option::of(log_id()),
        granted: bool,
    ) {
        let request = VoteRequest::new(vote, last);
        let read = decode_vote_request(&encode_vote_request(&request));
        prop_assert_eq!(read.ok(), (!vote.committed).then_some(request));
        let reply = VoteReply::new(vote, last, granted);
        prop_assert_eq!(decode_vote_reply(&encode_vote_reply(&reply)).unwrap(), reply);
        prop_assert_eq!(decode_canvass_request(&encode_canvass_request(last)).unwrap(), last);
        prop_assert_eq!(decode_canvass_reply(&encode_canvass_reply(granted)).unwrap(), granted);
    }

    #[test]
    fn a_piece_of_a_snapshot_is_read_as_it_was_written(
        vote in vote(),
        last in log_id(),
        membership in membership(),
        offset in 0..2000_u64,
        data: Vec<u8>,
        done: bool,
    ) {
        let last_membership = StoredMembership::new(Some(last), membership);
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership, snapshot_id: last.to_string() };
        let request = InstallRequest { vote, meta, offset, data, done };
        let believed = vote.committed && last.leader_id <= vote.leader_id && offset + request.data.len() as u64 <= 1000;
        let read = decode_install_request(&encode_install_request(&request), 1000);
        prop_assert_eq!(read.ok(), believed.then_some(request));
    }

    #[test]
    fn an_answer_that_the_request_cannot_have_is_refused(vote in vote(), prev in log_id(), last in log_id(), other in log_id()) {
        prop_assume!(prev <= last);
        let sent = Sent { vote, prev: Some(prev), last: Some(last) };
        let partial = AppendReply::PartialSuccess(Some(other));
        let read = decode_append_reply(&encode_append_reply(&partial), &sent);
        prop_assert_eq!(read.is_ok(), prev <= other && other <= last);
        for reply in [AppendReply::Success, AppendReply::Conflict] {
            prop_assert_eq!(decode_append_reply(&encode_append_reply(&reply), &sent).unwrap(), reply);
        }
        let first = Sent { prev: None, ..sent };
        prop_assert!(decode_append_reply(&encode_append_reply(&AppendReply::Conflict), &first).is_err());
        let same = AppendReply::HigherVote(vote);
        prop_assert!(decode_append_reply(&encode_append_reply(&same), &sent).is_err());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>, vote in vote()) {
        let _ = decode_entry(&bytes);
        let _ = decode_append_request(&bytes);
        let _ = decode_append_reply(&bytes, &Sent { vote, prev: None, last: None });
        let _ = decode_vote_request(&bytes);
        let _ = decode_vote_reply(&bytes);
        let _ = decode_canvass_request(&bytes);
        let _ = decode_canvass_reply(&bytes);
        let _ = decode_install_request(&bytes, 1000);
        let _ = decode_install_reply(&bytes);
        let _ = decode_answer(&bytes);
        let _ = Envelope::decode(&bytes);
        let _ = Image::decode(&bytes);
        // Behind a checksum that is right.
        let sealed = [&bytes[..], &bifrost_checksum::crc32c(&bytes).to_le_bytes()].concat();
        let _ = Image::decode(&sealed);
    }
}
