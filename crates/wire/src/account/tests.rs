use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use super::*;

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_peer_that_takes_its_answers_goes_on_beside_one_that_does_not() {
    let answers = Answers::new(1000, 10);
    let (greedy, second) = (answers.open(peer(1)), answers.open(peer(2)));
    let mut held = Vec::new();
    while greedy.has_room() {
        held.push(greedy.hold(50));
    }
    assert_eq!(greedy.held(), 250, "one connection holds a quarter");
    let others: Vec<_> = (3..5).map(|port| answers.open(peer(port))).collect();
    for other in &others {
        while other.has_room() {
            held.push(other.hold(50));
        }
    }
    assert_eq!(answers.held(), 750, "the common part is used up");
    assert!(second.has_room(), "its fair part is left");
    let one = second.hold(30);
    assert!(!second.has_room());
    drop(one);
    assert!(second.has_room());
    drop(held);
    assert_eq!(answers.held(), 0);
}

#[test]
fn bytes_are_counted_until_their_last_slice_is_gone() {
    let answers = Answers::new(1000, 1);
    let account = answers.open(peer(1));
    let mut bytes = account.hold_bytes(Bytes::from(vec![7; 100]));
    let slice = bytes.split_to(10);
    drop(bytes);
    assert_eq!(answers.held(), 100);
    assert_eq!(slice, [7; 10][..]);
    drop(slice);
    assert_eq!(answers.held(), 0);
}

#[test]
fn what_a_service_made_ready_is_given_back_with_its_stream() {
    let answers = Answers::new(1000, 1);
    let account = answers.open(peer(1));
    let ahead = Ahead::of(&account);
    let service = ahead.clone();
    service.put(200);
    service.put(100);
    assert!(!ahead.has_room());
    ahead.took(200);
    assert_eq!(account.held(), 100);
    drop(service);
    assert_eq!(account.held(), 100);
    drop(ahead);
    assert_eq!(answers.held(), 0);
}

#[tokio::test]
async fn room_is_handed_from_one_that_waits_to_the_next() {
    let answers = Answers::new(400, 1);
    let account = answers.open(peer(1));
    let held = account.hold(400);
    let streams: Vec<_> = (0..3).map(|_| Ahead::of(&account)).collect();
    let mut waiting: Vec<_> = streams.iter().map(|ahead| Box::pin(ahead.room())).collect();
    for room in &mut waiting {
        assert!(room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    drop(held);
    for room in waiting {
        room.await;
    }
}

#[test]
fn only_after_a_whole_interval_without_room_are_those_that_took_nothing_ended() {
    let answers = Answers::new(1000, 10);
    let accounts: Vec<_> = (1..=4).map(|port| answers.open(peer(port))).collect();
    let mut held: Vec<_> = accounts.iter().map(|account| Some(account.hold(200))).collect();
    assert_eq!(answers.look(), [], "it became full since the last look");
    // The third one takes an answer, and asks for the next.
    held[2] = None;
    held[2] = Some(accounts[2].hold(200));
    assert_eq!(answers.look(), [(peer(1), 200), (peer(2), 200), (peer(4), 200)]);
    assert!(accounts[0].closing().is_cancelled() && !accounts[2].closing().is_cancelled());
}

#[test]
fn if_everybody_takes_something_the_slowest_large_one_is_ended() {
    let answers = Answers::new(1000, 10);
    let (slow, fast) = (answers.open(peer(1)), answers.open(peer(2)));
    let _held = [slow.hold(500), fast.hold(300)];
    assert_eq!(answers.look(), []);
    drop(slow.hold(10));
    drop(fast.hold(400));
    assert_eq!(answers.look(), [(peer(1), 500)]);
    assert_eq!(answers.look(), [(peer(2), 300)], "the first one is told already, and this one took nothing");
}

#[test]
fn what_a_service_did_not_count_is_not_given_back() {
    let answers = Answers::new(1000, 1);
    let account = answers.open(peer(1));
    let other = account.hold(10);
    let ahead = Ahead::of(&account);
    ahead.took(40);
    assert_eq!((account.held(), answers.held()), (10, 10), "a service that passes reads on puts nothing");
    ahead.put(30);
    ahead.took(40);
    assert_eq!((account.held(), answers.held()), (10, 10));
    drop((other, ahead));
    assert_eq!(answers.held(), 0);
}

#[test]
fn what_is_ready_passes_without_room_and_whoever_waits_for_room_hears_of_it() {
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let answers = Answers::new(400, 1);
    let account = answers.open(peer(1));
    let _others = account.hold(100);
    let woken = Arc::new(Woken(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    let ahead = Ahead::of(&account);
    assert!(!ahead.has_room() && ahead.poll_ready(&cx).is_pending());
    ahead.put(50);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(!ahead.has_room() && ahead.poll_ready(&cx).is_ready());
    ahead.took(50);
    assert!(ahead.poll_ready(&cx).is_pending());
    assert!(Ahead::uncounted().poll_ready(&cx).is_pending());
}
