//! The log server over gRPC.

use std::sync::Arc;

use bifrost_types::KeyFilter;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::{Code, Request};

use super::*;
use crate::error::RpcError;
use crate::log_server::*;
use crate::pb;
use pb::log_server_service_client::LogServerServiceClient;

type StoreHalf = (mpsc::Receiver<StoreRequest>, mpsc::Sender<StoreReply>);
type ReadHalf = (ReadRequest, mpsc::Receiver<ReadGrant>, mpsc::Sender<Result<ReadReply, CallError>>);

/// Answers every unary call with `outcome`, and hands streams to the test.
#[derive(Debug)]
struct Fake {
    outcome: Result<CopyState, CallError>,
    stores: mpsc::Sender<StoreHalf>,
    reads: mpsc::Sender<ReadHalf>,
}

impl Fake {
    fn answer<R>(&self, _request: R) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(std::future::ready(self.outcome))
    }
}

impl LogServer for Fake {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        let (requests, taken) = mpsc::channel(4);
        let (answers, replies) = mpsc::channel(4);
        self.stores.try_send((taken, answers)).expect("room for a few streams");
        Box::pin(std::future::ready(Ok(StoreStream { requests, replies })))
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        assert_eq!(request, SealRequest { loglet: loglet(), disk: disk(), op: op() });
        self.answer(request)
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request)
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request)
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request)
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.answer(request)
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        if let Err(error) = self.outcome {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (grants, granted) = mpsc::channel(4);
        let (parts, replies) = mpsc::channel(4);
        self.reads.try_send((request, granted, parts)).expect("room for a few streams");
        Box::pin(std::future::ready(Ok(ReadStream { grants, replies })))
    }
}

struct Cluster {
    host: Host,
    client: GrpcLogServer,
    stores: mpsc::Receiver<StoreHalf>,
    reads: mpsc::Receiver<ReadHalf>,
}

async fn cluster(outcome: Result<CopyState, CallError>) -> Cluster {
    let (store_halves, stores) = mpsc::channel(4);
    let (read_halves, reads) = mpsc::channel(4);
    let fake: Arc<dyn LogServer> = Arc::new(Fake { outcome, stores: store_halves, reads: read_halves });
    let host = Host::start(|routes, limits, token| LogServerGrpc::new(fake, limits, token).add_to(routes)).await;
    let client = GrpcLogServer::connect_lazy(&host.address, ClientOptions::default()).expect("an address");
    Cluster { host, client, stores, reads }
}

fn state(local_tail: u64) -> CopyState {
    CopyState {
        local_tail: offset(local_tail),
        committed_tail: offset(1),
        sealed: None,
        decided_tail: None,
        trim_point: None,
    }
}

fn store(first_offset: u64, batch: Bytes) -> StoreRequest {
    StoreRequest {
        loglet: loglet(),
        disk: disk(),
        sequencer: sequencer_node(),
        committed_tail: offset(1),
        first_offset: offset(first_offset),
        batches: vec![batch],
    }
}

fn read() -> ReadRequest {
    ReadRequest {
        loglet: loglet(),
        disk: disk(),
        from: offset(1),
        until: None,
        filter: KeyFilter::Any,
        credit_bytes: 1 << 20,
        readable_tail: offset(1),
    }
}

#[tokio::test]
async fn unary_calls_answer_and_refuse() {
    for outcome in [
        Ok(state(8)),
        Err(CallError::Copy(CopyError::Sealed { op: op() })),
        Err(CallError::Rpc(RpcError::Overloaded)),
        Err(CallError::Rpc(RpcError::ShuttingDown)),
    ] {
        let Cluster { host, client, .. } = cluster(outcome).await;
        let (loglet, disk, op) = (loglet(), disk(), op());
        let repair = RepairRequest {
            loglet,
            disk,
            op,
            committed_tail: offset(1),
            first_offset: offset(1),
            batches: vec![Bytes::from_static(b"batch")],
        };
        assert_eq!(soon(client.seal(SealRequest { loglet, disk, op })).await, outcome);
        assert_eq!(soon(client.state(StateRequest { loglet, disk })).await, outcome);
        assert_eq!(soon(client.repair(repair)).await, outcome);
        assert_eq!(soon(client.settle(SettleRequest { loglet, disk, op, decided_tail: offset(4) })).await, outcome);
        assert_eq!(soon(client.trim(TrimRequest { loglet, disk, trim_point: offset(2) })).await, outcome);
        host.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_an_error_of_every_call() {
    let client = GrpcLogServer::connect_lazy(&nobody().await, ClientOptions::default()).expect("an address");
    assert_eq!(soon(client.open_store()).await.map(drop), Err(RpcError::Unreachable));
    let unreachable = CallError::Rpc(RpcError::Unreachable);
    assert_eq!(soon(client.read(read())).await.map(drop), Err(unreachable));
    let request = SealRequest { loglet: loglet(), disk: disk(), op: op() };
    assert_eq!(soon(client.seal(request)).await, Err(unreachable));
}

#[tokio::test]
async fn ten_thousand_stores_and_their_answers_keep_their_order() {
    const STORES: u64 = 10_000;
    let Cluster { host, client, mut stores, .. } = cluster(Ok(state(1))).await;
    let StoreStream { requests, mut replies } = soon(client.open_store()).await.expect("open");
    let (mut taken, answers) = soon(stores.recv()).await.expect("the service has the stream");

    let service = tokio::spawn(async move {
        let mut next = 1;
        while let Some(request) = taken.recv().await {
            assert_eq!(request, store(next, Bytes::from(next.to_be_bytes().to_vec())));
            next += 1;
            let reply = StoreReply { loglet: loglet(), outcome: Some(Ok(state(next))), followed: false };
            answers.send(reply).await.expect("the client listens");
        }
        next
    });
    let sender = tokio::spawn(async move {
        for place in 1..=STORES {
            let batch = Bytes::from(place.to_be_bytes().to_vec());
            requests.send(store(place, batch)).await.expect("the stream is open");
        }
    });
    for place in 1..=STORES {
        let reply = soon(replies.recv()).await.expect("an answer for each");
        assert_eq!(reply.outcome, Some(Ok(state(place + 1))));
    }
    sender.await.expect("all sent");
    // The sender is gone: the service sees the end of the requests, the client the end of the answers.
    assert_eq!(soon(service).await.expect("in order"), STORES + 1);
    assert_eq!(soon(replies.recv()).await, None);
    host.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_read_makes_send_wait() {
    let Cluster { host, client, mut stores, .. } = cluster(Ok(state(1))).await;
    let StoreStream { requests, replies: _replies } = soon(client.open_store()).await.expect("open");
    let (mut taken, _answers) = soon(stores.recv()).await.expect("the service has the stream");

    // Far more than all windows and channels between the two hold.
    let batch = Bytes::from(vec![7; 256 << 10]);
    let total = 4000;
    let mut sent = 0;
    // A `send` that does not return for this long waits for the server.
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), requests.send(store(1, batch.clone()))).await {
        result.expect("the stream is open");
        sent += 1;
        assert!(sent < total, "the client took everything although the server read nothing");
    }
    // As soon as the server reads, everything arrives.
    let rest = tokio::spawn(async move {
        for _ in sent..total {
            requests.send(store(1, batch.clone())).await.expect("the stream is open");
        }
    });
    for _ in 0..total {
        soon(taken.recv()).await.expect("nothing was lost");
    }
    assert_eq!(soon(taken.recv()).await, None);
    rest.await.expect("all sent");
    host.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_releases_the_service_even_while_it_does_not_read() {
    let Cluster { host, client, mut stores, .. } = cluster(Ok(state(1))).await;
    let stream = soon(client.open_store()).await.expect("open");
    let (mut taken, answers) = soon(stores.recv()).await.expect("the service has the stream");
    // More than the service's channel holds, so that the server waits for room in it.
    for place in 1..=20 {
        stream.requests.send(store(place, Bytes::new())).await.expect("the stream is open");
    }
    drop(stream);
    soon(answers.closed()).await;
    soon(async { while taken.recv().await.is_some() {} }).await;
    host.stop().await;
}

#[tokio::test]
async fn a_client_that_drops_one_half_closes_the_stream() {
    let Cluster { host, client, mut stores, .. } = cluster(Ok(state(1))).await;
    let StoreStream { requests, replies } = soon(client.open_store()).await.expect("open");
    let (mut taken, answers) = soon(stores.recv()).await.expect("the service has the stream");
    drop(replies);
    soon(requests.closed()).await;
    soon(answers.closed()).await;
    assert_eq!(soon(taken.recv()).await, None);
    host.stop().await;
}

#[tokio::test]
async fn a_service_that_ends_its_half_closes_the_stream_of_the_client() {
    let Cluster { host, client, mut stores, .. } = cluster(Ok(state(1))).await;
    let mut stream = soon(client.open_store()).await.expect("open");
    drop(soon(stores.recv()).await.expect("the service has the stream"));
    assert_eq!(soon(stream.replies.recv()).await, None);
    soon(stream.requests.closed()).await;
    host.stop().await;
}

#[tokio::test]
async fn a_stop_ends_open_streams_at_once() {
    let Cluster { host, client, mut stores, mut reads } = cluster(Ok(state(1))).await;
    let mut stream = soon(client.open_store()).await.expect("open");
    let mut reading = soon(client.read(read())).await.expect("open");
    let (mut taken, answers) = soon(stores.recv()).await.expect("the service has the stream");
    let (_, _granted, parts) = soon(reads.recv()).await.expect("the service has the read");
    host.stop().await;
    assert_eq!(soon(stream.replies.recv()).await, None);
    assert_eq!(soon(reading.replies.recv()).await, Some(Err(CallError::Rpc(RpcError::Unreachable))));
    assert_eq!(soon(reading.replies.recv()).await, None);
    assert_eq!(soon(taken.recv()).await, None);
    soon(answers.closed()).await;
    soon(parts.closed()).await;
}

#[tokio::test]
async fn a_stopping_adapter_says_that_it_did_nothing() {
    let (stores, _stores) = mpsc::channel(1);
    let (reads, _reads) = mpsc::channel(1);
    let fake = Arc::new(Fake { outcome: Ok(state(1)), stores, reads });
    let stopping = CancellationToken::new();
    stopping.cancel();
    let host = Host::start(|routes, limits, _| LogServerGrpc::new(fake, limits, stopping).add_to(routes)).await;
    let client = GrpcLogServer::connect_lazy(&host.address, ClientOptions::default()).expect("an address");
    let request = StateRequest { loglet: loglet(), disk: disk() };
    assert_eq!(soon(client.state(request)).await, Err(CallError::Rpc(RpcError::ShuttingDown)));
    assert_eq!(soon(client.open_store()).await.map(drop), Err(RpcError::ShuttingDown));
    host.stop().await;
}

#[tokio::test]
async fn a_read_delivers_parts_and_takes_grants_until_it_is_dropped() {
    let Cluster { host, client, mut reads, .. } = cluster(Ok(state(1))).await;
    let mut reading = soon(client.read(read())).await.expect("open");
    let (request, mut granted, parts) = soon(reads.recv()).await.expect("the service has the read");
    assert_eq!(request, read());

    let sent = [
        Ok(ReadReply::Tail(state(9))),
        Ok(ReadReply::Trimmed { from: offset(1), end: offset(3) }),
        Ok(ReadReply::Batch { first_offset: offset(3), end: offset(5), batch: Bytes::from_static(b"batch") }),
        Err(CallError::Copy(CopyError::OutOfRange)),
    ];
    for part in sent.clone() {
        parts.send(part).await.expect("the client listens");
    }
    for part in sent {
        assert_eq!(soon(reading.replies.recv()).await, Some(part));
    }
    let grant = ReadGrant { credit_bytes: 10, readable_tail: offset(5) };
    reading.grants.send(grant).await.expect("the stream is open");
    assert_eq!(soon(granted.recv()).await, Some(grant));

    drop(reading);
    soon(parts.closed()).await;
    assert_eq!(soon(granted.recv()).await, None);
    host.stop().await;
}

#[tokio::test]
async fn a_refused_read_is_an_error_of_the_call() {
    for error in [CallError::Copy(CopyError::WrongDisk { actual: disk() }), CallError::Rpc(RpcError::NotOffered)] {
        let Cluster { host, client, .. } = cluster(Err(error)).await;
        assert_eq!(soon(client.read(read())).await.map(drop), Err(error));
        host.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_cannot_be_understood_is_told_and_its_stream_released() {
    let Cluster { host, mut stores, .. } = cluster(Ok(state(1))).await;
    let channel = connect_lazy(&host.address, &ClientOptions::default()).expect("an address");
    let mut client = LogServerServiceClient::new(channel);

    let seal = soon(client.seal(Request::new(pb::SealRequest::default()))).await.expect_err("refused");
    assert_eq!((seal.code(), seal.message()), (Code::InvalidArgument, "SealRequest.loglet is missing"));

    let (messages, queued) = mpsc::channel(1);
    let outbound = tokio_stream::wrappers::ReceiverStream::new(queued);
    let mut inbound = soon(client.store(Request::new(outbound))).await.expect("open").into_inner();
    let (mut taken, answers) = soon(stores.recv()).await.expect("the service has the stream");
    let broken = pb::StoreRequest { stores: vec![pb::LogletStore::default()] };
    messages.send(broken).await.expect("the stream is open");
    let status = soon(inbound.message()).await.expect_err("the stream is ended");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(soon(taken.recv()).await, None);
    soon(answers.closed()).await;

    // A stream that ends before its opening, and one that opens with a grant.
    let empty = soon(client.read(Request::new(tokio_stream::empty()))).await.map(drop).expect_err("refused");
    assert_eq!(empty.code(), Code::InvalidArgument);
    let grant = pb::ReadRequest::from(ReadGrant { credit_bytes: 1, readable_tail: offset(1) });
    let early = soon(client.read(Request::new(tokio_stream::once(grant)))).await.map(drop).expect_err("refused");
    assert_eq!(early.code(), Code::InvalidArgument);
    drop(client);
    host.stop().await;
}
