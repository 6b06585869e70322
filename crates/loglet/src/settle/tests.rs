use super::*;
use crate::fake::{Fault, cluster, offset, op};

#[tokio::test]
async fn settling_tells_everybody_who_answers_and_names_who_did_not() {
    let (params, peers) = cluster(&[(9, 5), (9, 7), (9, 9)], "2");
    peers.server(2).set_fault(Fault::Silent);
    let answers = settle_loglet(&params, op(1), offset(7), &peers, Duration::from_millis(20)).await;
    let decided: Vec<_> =
        answers.iter().map(|answer| answer.result.ok().and_then(|state| state.decided_tail)).collect();
    assert_eq!(decided, [Some(offset(7)), None, Some(offset(7))]);
}

#[tokio::test]
async fn a_trim_is_answered_with_the_trim_point_that_holds() {
    let (params, peers) = cluster(&[(9, 5), (9, 7), (9, 9)], "2");
    peers.server(1).set_disk(99);
    trim_loglet(&params, offset(4), &peers, Duration::from_secs(60)).await;
    let answers = trim_loglet(&params, offset(2), &peers, Duration::from_secs(60)).await;
    let points: Vec<_> = answers.iter().map(|answer| answer.result.ok().and_then(|state| state.trim_point)).collect();
    assert_eq!(points, [None, Some(offset(4)), Some(offset(4))]);
    assert_eq!(peers.server(1).calls(), 2);
}
