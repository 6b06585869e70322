//! Messages between metadata members, and the snapshots in them.

use std::collections::{BTreeMap, BTreeSet};

use bifrost_metadata::{Keyspace, Txn, format};
use bifrost_raft::codec::{
    AppendRequest, InstallRequest, Sent, VoteRequest, decode_append_reply, decode_append_request, decode_canvass_reply,
    decode_canvass_request, decode_entry, decode_install_reply, decode_install_request, decode_vote_reply,
    decode_vote_request, encode_append_request, encode_canvass_request, encode_install_request, encode_vote_request,
};
use bifrost_raft::machine::{Image, SNAPSHOT_BYTES_MAX};
use bifrost_raft::peers::{Envelope, Rpc, decode_answer};
use bifrost_raft::types::{Entry, Membership, SnapshotMeta, StoredMembership, Vote};
use bifrost_raft::{GroupId, Member, MemberId};
use bifrost_types::ClusterId;

use crate::unhex;

/// A message, the body of whatever it asks for, and the same bytes as every answer.
pub(crate) fn message(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        assert_eq!(envelope.encode(), bytes, "a message is written as it was read");
        body(&envelope.body);
    }
    if let Ok(answer) = decode_answer(bytes) {
        body(&answer);
    }
    body(bytes);
}

fn body(bytes: &[u8]) {
    let sent = Sent { vote: Vote::new_committed(3, MemberId::from(1)), prev: None, last: None };
    let _refused = decode_append_request(bytes);
    let _refused = decode_append_reply(bytes, &sent);
    let _refused = decode_vote_request(bytes);
    let _refused = decode_vote_reply(bytes);
    let _refused = decode_canvass_request(bytes);
    let _refused = decode_canvass_reply(bytes);
    let _refused = decode_install_request(bytes, SNAPSHOT_BYTES_MAX);
    let _refused = decode_install_reply(bytes);
    let _refused = decode_entry(bytes);
}

/// The entries of the golden file, which follow each other.
fn entries() -> Vec<Entry> {
    let lines = include_str!("../../crates/raft/testdata/format/entry.hex").lines();
    let read = |line: &str| {
        let (key, sealed) = line.split_once(' ')?;
        let (key, sealed) = (unhex(key), unhex(sealed));
        let (_, bytes) = format::unseal(&key, &sealed).ok()?;
        decode_entry(bytes).ok()
    };
    lines.filter_map(read).collect()
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let entries = entries();
    let (Ok(cluster), Some(last)) = (ClusterId::try_from(7), entries.last().map(|last| last.log_id)) else {
        return Vec::new();
    };
    let (from, to) = (MemberId::from(1), MemberId::from(2));
    let vote = Vote::new_committed(9, from);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership(), snapshot_id: "one".to_owned() };
    let append = AppendRequest { vote, prev_log_id: None, entries, leader_commit: None };
    let install = InstallRequest { vote, meta, offset: 0, data: vec![1, 2, 3], done: true };
    let bodies = [
        (Rpc::Append, encode_append_request(&append)),
        (Rpc::Vote, encode_vote_request(&VoteRequest::new(Vote::new(4, from), None))),
        (Rpc::Install, encode_install_request(&install)),
        (Rpc::Canvass, encode_canvass_request(Some(last))),
    ];
    let group = GroupId::FIRST;
    bodies.into_iter().map(|(rpc, body)| Envelope { cluster, group, from, to, rpc, body }.encode()).collect()
}

fn membership() -> StoredMembership {
    let (one, member) = (MemberId::from(1), Member { address: "a:1".to_owned() });
    StoredMembership::new(None, Membership::new(vec![BTreeSet::from([one])], BTreeMap::from([(one, member)])))
}

/// A snapshot: as it is, and with its checksum made right.
pub(crate) fn snapshot(bytes: &[u8]) {
    let sealed = [bytes, bifrost_checksum::crc32c(bytes).to_le_bytes().as_slice()].concat();
    for bytes in [bytes, &sealed] {
        if let Ok(image) = Image::decode(bytes) {
            assert_eq!(image.encode().len(), bytes.len(), "a snapshot is written as it was read");
        }
    }
}

pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let mut keyspace = Keyspace::new();
    keyspace.apply(&Txn::new().put("k", "v").put("l", ""));
    let image = Image { keyspace, applied: None, membership: membership() };
    let whole = image.encode();
    let bare = whole.get(..whole.len().saturating_sub(4)).unwrap_or_default().to_vec();
    vec![whole, bare]
}
