//! Sequencers over gRPC.

use std::sync::Arc;

use bifrost_types::WriterId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::*;
use crate::error::RpcError;
use crate::sequencer::*;

type AppendHalf = (AppendOpen, mpsc::Receiver<AppendRequest>, mpsc::Sender<AppendReply>);

/// Answers with `outcome`, and hands streams to the test.
#[derive(Debug)]
struct Fake {
    outcome: Result<SequencerTails, SequencerCallError>,
    appends: mpsc::Sender<AppendHalf>,
}

impl Sequencers for Fake {
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        let stream = self.outcome.map(|opened| {
            let (requests, taken) = mpsc::channel(4);
            let (answers, replies) = mpsc::channel(4);
            self.appends.try_send((open, taken, answers)).expect("room for a few streams");
            AppendStream { opened, requests, replies: replies.into() }
        });
        Box::pin(std::future::ready(stream))
    }

    fn tails(&self, id: LogletId, node: NodeGeneration) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        assert_eq!((id, node), (loglet(), sequencer_node()));
        Box::pin(std::future::ready(self.outcome))
    }

    fn end(&self, request: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        assert_eq!(request, end());
        Box::pin(std::future::ready(self.outcome))
    }
}

async fn cluster(
    outcome: Result<SequencerTails, SequencerCallError>,
) -> (Host, GrpcSequencers, mpsc::Receiver<AppendHalf>) {
    let (halves, appends) = mpsc::channel(4);
    let fake: Arc<dyn Sequencers> = Arc::new(Fake { outcome, appends: halves });
    let host = Host::start(|routes, limits, token| SequencersGrpc::new(fake, limits, token).add_to(routes)).await;
    let client = GrpcSequencers::connect_lazy(&host.address, ClientOptions::default()).expect("an address");
    (host, client, appends)
}

fn tails() -> SequencerTails {
    SequencerTails { committed_tail: offset(4), next_offset: offset(9) }
}

fn end() -> EndRequest {
    EndRequest { loglet: loglet(), sequencer: sequencer_node(), op: OpId::try_from(7).expect("non-zero") }
}

fn open() -> AppendOpen {
    AppendOpen {
        loglet: loglet(),
        sequencer: sequencer_node(),
        writer: WriterId::try_from(11).expect("non-zero"),
        incarnation: 2,
    }
}

#[tokio::test]
async fn appends_go_in_order_and_are_answered_until_the_stream_closes() {
    const BATCHES: u64 = 1000;
    let (host, client, mut appends) = cluster(Ok(tails())).await;
    let AppendStream { opened, requests, mut replies } = soon(client.open_append(open())).await.expect("open");
    assert_eq!(opened, tails());
    let (opening, mut taken, answers) = soon(appends.recv()).await.expect("the service has the stream");
    assert_eq!(opening, open());

    let service = tokio::spawn(async move {
        let mut next = 1;
        while next <= BATCHES {
            // Requests may arrive joined; their batches stay in order.
            for batch in taken.recv().await.expect("all batches arrive").batches {
                assert_eq!(batch, Bytes::from(next.to_be_bytes().to_vec()));
                let first_offsets = vec![offset(next)];
                next += 1;
                let reply = AppendReply::Committed { first_offsets, committed_tail: offset(next) };
                answers.send(reply).await.expect("the client listens");
            }
        }
        answers.send(AppendReply::Closed(SequencerError::Sealed { op: op() })).await.expect("the client listens");
    });
    let sender = tokio::spawn(async move {
        for place in 1..=BATCHES {
            let batches = vec![Bytes::from(place.to_be_bytes().to_vec())];
            requests.send(AppendRequest { batches }).await.expect("the stream is open");
        }
        requests
    });
    let mut committed = Vec::new();
    loop {
        match soon(replies.recv()).await.expect("the stream ends with a reason") {
            AppendReply::Committed { first_offsets, committed_tail } => {
                committed.extend(first_offsets);
                assert_eq!(Some(committed_tail), committed.last().and_then(|last| last.advance(1).ok()));
            }
            AppendReply::Closed(error) => {
                assert_eq!(error, SequencerError::Sealed { op: op() });
                break;
            }
        }
    }
    assert_eq!(committed, (1..=BATCHES).map(offset).collect::<Vec<_>>());
    assert_eq!(soon(replies.recv()).await, None);
    service.await.expect("in order");
    soon(sender.await.expect("all sent").closed()).await;
    host.stop().await;
}

#[tokio::test]
async fn a_refusal_is_an_error_of_the_call() {
    for error in [
        SequencerCallError::Refused(SequencerError::NotSequencer),
        SequencerCallError::Refused(SequencerError::Sealed { op: op() }),
        SequencerCallError::Rpc(RpcError::Overloaded),
    ] {
        let (host, client, _appends) = cluster(Err(error)).await;
        assert_eq!(soon(client.open_append(open())).await.map(drop), Err(error));
        assert_eq!(soon(client.tails(loglet(), sequencer_node())).await, Err(error));
        host.stop().await;
    }
}

#[tokio::test]
async fn tails_are_answered() {
    let (host, client, _appends) = cluster(Ok(tails())).await;
    assert_eq!(soon(client.tails(loglet(), sequencer_node())).await, Ok(tails()));
    assert_eq!(soon(client.end(end())).await, Ok(tails()));
    host.stop().await;
}

#[tokio::test]
async fn a_dropped_stream_releases_the_service_and_a_stop_the_client() {
    let (host, client, mut appends) = cluster(Ok(tails())).await;
    let dropped = soon(client.open_append(open())).await.expect("open");
    let (_, mut taken, answers) = soon(appends.recv()).await.expect("the service has the stream");
    drop(dropped);
    soon(answers.closed()).await;
    assert_eq!(soon(taken.recv()).await, None);

    let mut stopped = soon(client.open_append(open())).await.expect("open");
    let (_, mut taken, answers) = soon(appends.recv()).await.expect("the service has the stream");
    host.stop().await;
    assert_eq!(soon(stopped.replies.recv()).await, None);
    assert_eq!(soon(taken.recv()).await, None);
    soon(answers.closed()).await;
}

#[tokio::test]
async fn a_peer_without_the_service_says_so() {
    let host = Host::start(|_, _, _| ()).await;
    let client = GrpcSequencers::connect_lazy(&host.address, ClientOptions::default()).expect("an address");
    let not_offered = SequencerCallError::Rpc(RpcError::NotOffered);
    assert_eq!(soon(client.tails(loglet(), sequencer_node())).await, Err(not_offered));
    assert_eq!(soon(client.open_append(open())).await.map(drop), Err(not_offered));
    host.stop().await;
}
