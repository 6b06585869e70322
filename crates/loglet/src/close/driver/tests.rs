//! The driver over servers in memory, with faults to order.

use super::*;
use crate::fake::{FakePeers, Fault, cluster, offset, op};

fn quick() -> CloseOptions {
    CloseOptions { seal_deadline: Duration::from_millis(20), transfer_deadline: Duration::from_millis(20) }
}

async fn close(params: &LogletParams, peers: &FakePeers, options: CloseOptions) -> Closed {
    let progress = watch::Sender::new(CloseProgress::default());
    close_loglet(params, op(1), peers, options, &progress).await.expect("closed")
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for() {
    let (params, peers) = cluster(&[(9, 9), (9, 7), (3, 1)], "2");
    peers.server(3).set_fault(Fault::Silent);
    // No deadline at all: waiting for the silent one would never end.
    let never = CloseOptions { seal_deadline: Duration::MAX, transfer_deadline: Duration::MAX };
    let closed = close(&params, &peers, never).await;
    assert_eq!((closed.candidate_tail, closed.committed_tail), (offset(9), offset(9)));
    assert_eq!(closed.repaired_bytes, 0);
}

#[tokio::test]
async fn what_only_one_copy_has_is_copied_and_the_committed_tail_stays() {
    let (params, peers) = cluster(&[(9, 5), (3, 2), (9, 9)], "2");
    peers.server(3).set_fault(Fault::Down);
    let closed = close(&params, &peers, quick()).await;
    assert_eq!((closed.candidate_tail, closed.committed_tail), (offset(9), offset(5)));
    assert_eq!(peers.server(2).copy().local_tail, offset(9));
    assert_eq!(peers.server(2).copy().committed_tail, offset(5), "S4");
    assert_eq!(peers.server(2).records(), [1, 2, 5, 6, 7, 8], "nothing below the committed tail is copied");
    assert_eq!(closed.repaired_bytes, 4);
}

#[tokio::test]
async fn a_record_that_one_source_lost_comes_from_another() {
    let (params, peers) = cluster(&[(9, 5), (8, 5), (5, 5), (5, 5)], "3");
    peers.server(1).lose(6);
    peers.server(4).set_fault(Fault::Silent);
    // The three that answer allow a tail of 8. Server 1 reaches furthest and is asked first; server 2 must give offset 6.
    let closed = close(&params, &peers, quick()).await;
    assert_eq!(closed.candidate_tail, offset(8));
    assert_eq!(peers.server(3).records(), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_wrong_disk_is_lost_and_not_empty() {
    let (params, peers) = cluster(&[(9, 5), (9, 5), (9, 5)], "2");
    peers.server(2).set_disk(99);
    peers.server(3).set_fault(Fault::Down);
    let progress = watch::Sender::new(CloseProgress::default());
    let mut seen = progress.subscribe();
    let options = quick();
    let closing = close_loglet(&params, op(1), &peers, options, &progress);
    let watching = async {
        let blocked = |progress: &CloseProgress| {
            progress.blocked.as_ref().is_some_and(|blocked| blocked.missing.len() == 2 && blocked.at_least == 1)
        };
        let text = seen.wait_for(blocked).await.expect("still closing").blocked.as_ref().map(ToString::to_string);
        // It never gives up: the server that comes back ends it.
        peers.server(3).set_fault(Fault::None);
        text
    };
    let (closed, text) = tokio::join!(closing, watching);
    assert_eq!(closed.expect("closed").candidate_tail, offset(9));
    let text = text.expect("blocked");
    assert!(text.starts_with("sealing waits for 1 of: N2 (this server's disk is"), "{text}");
    assert!(text.ends_with("N3 (the peer cannot be reached)"), "{text}");
}

#[tokio::test]
async fn disks_that_are_given_up_are_not_waited_for() {
    let (params, peers) = cluster(&[(9, 5), (12, 12), (12, 12)], "2");
    peers.server(2).set_disk(98);
    peers.server(3).set_disk(99);
    let progress = watch::Sender::new(CloseProgress::default());
    let mut seen = progress.subscribe();
    let options = quick();
    let closing = close_loglet(&params, op(1), &peers, options, &progress);
    let watching = async {
        seen.wait_for(|progress| progress.blocked.is_some()).await.expect("still closing");
        peers.declare_lost(params.nodeset.indexes().skip(1).collect());
    };
    let (closed, ()) = tokio::join!(closing, watching);
    let closed = closed.expect("closed");
    assert_eq!(closed.lost_from, Some(offset(9)));
    assert_eq!(closed.candidate_tail, offset((1 << 40) + 1), "nobody is ever given an offset again that may have been");
    assert_eq!(closed.committed_tail, offset(5));
}

#[tokio::test]
async fn lost_replies_are_asked_for_again() {
    let (params, peers) = cluster(&[(9, 5), (3, 2), (9, 9)], "2");
    peers.server(3).set_fault(Fault::Down);
    peers.server(2).set_fault(Fault::LostReplies);
    let progress = watch::Sender::new(CloseProgress::default());
    let mut seen = progress.subscribe();
    let closing = close_loglet(&params, op(1), &peers, quick(), &progress);
    let watching = async {
        seen.wait_for(|progress| progress.blocked.is_some()).await.expect("still closing");
        assert!(peers.server(2).copy().sealed.is_some(), "it was sealed, only nobody heard");
        peers.server(2).set_fault(Fault::None);
    };
    let (closed, ()) = tokio::join!(closing, watching);
    assert_eq!(closed.expect("closed").candidate_tail, offset(9));
}

#[tokio::test]
async fn a_finder_dropped_at_any_await_is_resumed_to_the_same_end() {
    for polls in 0..40 {
        let (params, peers) = cluster(&[(9, 5), (3, 2), (9, 9)], "2");
        peers.server(3).set_fault(Fault::Down);
        let progress = watch::Sender::new(CloseProgress::default());
        {
            let mut closing = Box::pin(close_loglet(&params, op(1), &peers, quick(), &progress));
            for _ in 0..polls {
                if futures_util::poll!(closing.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let closed = close(&params, &peers, quick()).await;
        assert_eq!(closed.candidate_tail, offset(9), "after {polls} polls");
        assert_eq!(peers.server(2).records(), [1, 2, 5, 6, 7, 8]);
    }
}

#[tokio::test]
async fn a_decided_tail_ends_it_at_once() {
    let (params, peers) = cluster(&[(9, 5), (3, 2), (9, 9)], "2");
    let one = params.nodeset.member(params.nodeset.indexes().next().expect("a member")).expect("a member");
    let server = peers.log_server(one.node).expect("known");
    let (loglet, disk) = (params.id, one.disk);
    let settle = bifrost_wire::log_server::SettleRequest { loglet, disk, op: op(1), decided_tail: offset(7) };
    server.settle(settle).await.expect("settled");
    let closed = close(&params, &peers, quick()).await;
    assert_eq!(closed.decided_tail, Some(offset(7)));
    assert_eq!(closed.candidate_tail, offset(7));
}
