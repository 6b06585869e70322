//! Messages that no correct member sends are refused, and the member lives on.

use bytes::Bytes;
use openraft::EntryPayload;

use super::*;
use crate::Receive;
use crate::codec::{
    AppendRequest, InstallRequest, VoteRequest, encode_append_request, encode_canvass_request, encode_install_request,
    encode_vote_request,
};
use crate::peers::{Envelope, PeerError, Refusal, Rpc, decode_answer};
use crate::types::{Entry, GroupId, LogId, SnapshotMeta, Vote};

async fn say(to: &RaftMetadata, envelope: &Envelope) -> Result<Vec<u8>, PeerError> {
    decode_answer(&to.receive(Bytes::from(envelope.encode())).await)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, m(2)), index)
}

#[tokio::test(start_paused = true)]
async fn any_bytes_are_answered_and_lies_are_refused() {
    let group = Group::of(&[1, 2, 3]).await;
    for n in 0..10 {
        group.put(&format!("k{n}"), "1").await;
    }
    group.agree(&[1, 2, 3]).await;
    let victim = &group.members[&3];
    for bytes in [&b""[..], b"\x01", b"\xff\xff", &[1; 200]] {
        let answer = victim.receive(Bytes::copy_from_slice(bytes)).await;
        assert_eq!(decode_answer(&answer), Err(PeerError::Refused(Refusal::Malformed)));
    }
    let cluster = ClusterId::try_from(7).unwrap();
    let vote = encode_vote_request(&VoteRequest::new(Vote::new(99, m(2)), None));
    let right = Envelope { cluster, group: GroupId::FIRST, from: m(2), to: m(3), rpc: Rpc::Vote, body: vote.clone() };
    let other = Envelope { cluster: ClusterId::try_from(8).unwrap(), ..right.clone() };
    assert_eq!(say(victim, &other).await, Err(PeerError::Refused(Refusal::OtherCluster)));
    let other = Envelope { group: GroupId::from(5), ..right.clone() };
    assert_eq!(say(victim, &other).await, Err(PeerError::Refused(Refusal::OtherGroup)));
    for (from, to) in [(2, 1), (3, 3)] {
        let other = Envelope { from: m(from), to: m(to), ..right.clone() };
        assert_eq!(say(victim, &other).await, Err(PeerError::Refused(Refusal::OtherMember)));
    }
    let malformed = Err(PeerError::Refused(Refusal::Malformed));
    let stolen = Envelope { from: m(1), ..right.clone() };
    assert_eq!(say(victim, &stolen).await, malformed, "a vote for another than the sender");

    let append = |vote: Vote, prev: Option<LogId>, ids: &[LogId]| {
        let entries = ids.iter().map(|id| Entry { log_id: *id, payload: EntryPayload::Blank }).collect();
        let request = AppendRequest { vote, prev_log_id: prev, entries, leader_commit: None };
        Envelope { rpc: Rpc::Append, body: encode_append_request(&request), ..right.clone() }
    };
    let leader = Vote::new_committed(99, m(2));
    for (why, lie) in [
        ("a gap", append(leader, Some(id(99, 50)), &[id(99, 52)])),
        ("entries that go back", append(leader, Some(id(99, 50)), &[id(98, 51)])),
        ("entries of a later leader", append(leader, Some(id(99, 50)), &[id(100, 51)])),
        ("a candidate that leads", append(Vote::new(99, m(2)), None, &[])),
        ("another entry in a committed place", append(leader, Some(id(99, 2)), &[])),
        ("another entry over a committed one", append(leader, Some(id(0, 0)), &[id(99, 1)])),
    ] {
        assert_eq!(say(victim, &lie).await, malformed, "{why}");
    }
    let install = |last: Option<LogId>, data: &[u8]| {
        let meta = SnapshotMeta { last_log_id: last, ..SnapshotMeta::default() };
        let request = InstallRequest { vote: leader, meta, offset: 0, data: data.to_vec(), done: true };
        Envelope { rpc: Rpc::Install, body: encode_install_request(&request), ..right.clone() }
    };
    for (why, lie) in [
        ("a snapshot of nothing", install(None, b"")),
        ("a snapshot that is none", install(Some(id(99, 900)), b"no image")),
    ] {
        assert_eq!(say(victim, &lie).await, malformed, "{why}");
    }
    let mut cut = right.clone();
    let canvass = encode_canvass_request(Some(id(1, 1)));
    for (rpc, whole) in [(Rpc::Append, &vote), (Rpc::Vote, &vote), (Rpc::Install, &vote), (Rpc::Canvass, &canvass)] {
        cut.rpc = rpc;
        for len in 0..whole.len() {
            cut.body = whole[..len].to_vec();
            assert_eq!(say(victim, &cut).await, malformed, "{rpc:?} of {len} bytes");
        }
    }
    group.put("still", "1").await;
    let agreed = group.agree(&[1, 2, 3]).await;
    assert!((0..10).all(|n| agreed.get(&format!("k{n}")).is_some()));
    group.end().await;
}
