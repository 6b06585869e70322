#![allow(clippy::panic)]

mod machine;

use std::time::Duration;

use bifrost_wire::log_server::SealRequest;

use super::*;
use crate::fake::{FakePeers, Fault, cluster, offset, op};
use crate::peers::Peers;

async fn seal(params: &LogletParams, peers: &FakePeers, numbers: &[u32]) {
    for member in params.nodeset.members().iter().filter(|member| numbers.contains(&member.node.get())) {
        let server = peers.log_server(member.node).expect("known");
        let request = SealRequest { loglet: params.id, disk: member.disk, op: op(4) };
        server.seal(request).await.expect("sealed");
    }
}

async fn check(params: &LogletParams, peers: &FakePeers, deadline: Duration) -> OpenCheck {
    confirm_open(params, peers, deadline).await.expect("a property that the nodeset meets")
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_write_quorum_of_unsealed_servers_confirms_whatever_the_rest_does() {
    let (params, peers) = cluster(&[(9, 5), (9, 7), (9, 9)], "2");
    peers.server(3).set_fault(Fault::Silent);
    let committed_tail = offset(7);
    assert_eq!(check(&params, &peers, LONG).await, OpenCheck::Confirmed { committed_tail });
}

#[tokio::test]
async fn an_f_majority_of_seals_fences() {
    let (params, peers) = cluster(&[(9, 5), (9, 7), (9, 9)], "2");
    seal(&params, &peers, &[1, 2]).await;
    peers.server(3).set_fault(Fault::Silent);
    let fenced = OpenCheck::Fenced { op: op(4), committed_tail: offset(7), decided_tail: None };
    assert_eq!(check(&params, &peers, LONG).await, fenced);
}

#[tokio::test]
async fn one_seal_and_one_dead_server_prove_nothing_and_are_told_at_once() {
    let (params, peers) = cluster(&[(9, 5), (9, 7), (9, 9)], "2");
    seal(&params, &peers, &[1]).await;
    peers.server(3).set_fault(Fault::Down);
    match check(&params, &peers, LONG).await {
        OpenCheck::Undecided { sealed_by, missing } => {
            assert_eq!(sealed_by, Some(op(4)));
            assert_eq!(missing.iter().map(|missing| missing.node.get()).collect::<Vec<_>>(), [3]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_disk_neither_confirms_nor_fences() {
    let (params, peers) = cluster(&[(9, 5), (9, 7), (9, 9)], "2");
    peers.server(2).set_disk(99);
    peers.server(3).set_fault(Fault::Silent);
    match check(&params, &peers, Duration::from_millis(20)).await {
        OpenCheck::Undecided { sealed_by: None, missing } => assert_eq!(missing.len(), 2),
        other => panic!("{other:?}"),
    }
}
