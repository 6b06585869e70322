//! The service of logs over gRPC, and the standard services beside it.

use std::sync::Arc;

use bifrost_types::{AppendId, KeyFilter, Lsn, Record};
use futures_util::future::{BoxFuture, ready};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::error::RpcError;
use crate::logs::*;
use crate::pb;
use pb::log_service_client::LogServiceClient;

type AppendHalf = (mpsc::Receiver<Vec<NewRecord>>, mpsc::Sender<Result<AppendOutcome, RpcError>>);

/// Refuses everything but tails and appends, and hands streams to the test.
#[derive(Debug)]
struct Fake {
    appends: mpsc::Sender<AppendHalf>,
}

const REFUSED: LogsError = LogsError::Refused(LogRefusal::UnknownLog);

impl Logs for Fake {
    fn create(&self, _: CreateLog) -> BoxFuture<'_, Result<LogDescription, LogsError>> {
        Box::pin(ready(Err(LogsError::Refused(LogRefusal::NameTaken { log: log_id() }))))
    }

    fn get(&self, _: LogRef) -> BoxFuture<'_, Result<LogDescription, LogsError>> {
        Box::pin(ready(Err(REFUSED)))
    }

    fn list(&self, _: ListLogs) -> BoxFuture<'_, Result<LogPage, LogsError>> {
        Box::pin(ready(Err(LogsError::Rpc(RpcError::Overloaded))))
    }

    fn delete(&self, _: LogRef) -> BoxFuture<'_, Result<LogId, LogsError>> {
        Box::pin(ready(Err(LogsError::Rpc(RpcError::ShuttingDown))))
    }

    fn append(&self, request: AppendRecords) -> BoxFuture<'_, Result<AppendOutcome, RpcError>> {
        let outcome = match check(&request.records) {
            Ok(()) => AppendOutcome::Committed(CommittedAt { first_lsn: lsn(5), last_lsn: lsn(5) }),
            Err(cause) => AppendOutcome::NotAppended(cause),
        };
        Box::pin(ready(Ok(outcome)))
    }

    fn open_append(&self, log: LogRef) -> BoxFuture<'_, Result<LogAppends, LogsError>> {
        let LogRef::Id(log) = log else { return Box::pin(ready(Err(REFUSED))) };
        let (requests, taken) = mpsc::channel(4);
        let (answers, replies) = mpsc::channel(4);
        self.appends.try_send((taken, answers)).expect("room for a few streams");
        Box::pin(ready(Ok(LogAppends { log, requests, replies })))
    }

    fn read(&self, request: ReadLog) -> BoxFuture<'_, Result<LogEvents, LogsError>> {
        let tail = request.until.unwrap_or(Lsn::FIRST);
        let events = [Ok(LogEvent::CaughtUp { tail }), Err(LogsError::Refused(LogRefusal::Damaged))];
        Box::pin(ready(Ok(stream::iter(events).boxed())))
    }

    fn find_tail(&self, _: LogRef, kind: TailKind) -> BoxFuture<'_, Result<LogTail, LogsError>> {
        Box::pin(ready(Ok(LogTail { lsn: lsn(9), kind })))
    }

    fn trim(&self, _: LogRef, up_to: Lsn) -> BoxFuture<'_, Result<Lsn, LogsError>> {
        Box::pin(ready(Ok(up_to)))
    }

    fn resolve(&self, _: AppendId) -> BoxFuture<'_, Result<ResolvedAppend, LogsError>> {
        Box::pin(ready(Ok(ResolvedAppend::Absent)))
    }
}

fn log_id() -> LogId {
    LogId::try_from(7).expect("non-zero")
}

fn lsn(value: u64) -> Lsn {
    Lsn::new(value).expect("non-zero")
}

fn by_name() -> LogRef {
    LogRef::Name("orders".to_owned())
}

fn batch(payload: &'static str) -> Vec<NewRecord> {
    vec![NewRecord { record: Record::new(payload), payload_crc32c: None }]
}

async fn host() -> (Host, GrpcLogs, mpsc::Receiver<AppendHalf>) {
    let (halves, appends) = mpsc::channel(4);
    let fake: Arc<dyn Logs> = Arc::new(Fake { appends: halves });
    let host = Host::start(|routes, limits, token| LogsGrpc::new(fake, limits, token).add_to(routes)).await;
    let client = GrpcLogs::connect_lazy(&host.address, ClientOptions::default()).expect("an address");
    (host, client, appends)
}

#[tokio::test]
async fn answers_and_refusals_of_logs_arrive_as_they_were_given() {
    let (host, client, _appends) = host().await;
    let taken = Err(LogsError::Refused(LogRefusal::NameTaken { log: log_id() }));
    assert_eq!(soon(client.create(CreateLog { name: None, replication: None })).await, taken);
    assert_eq!(soon(client.get(by_name())).await, Err(REFUSED));
    let list = ListLogs { after: None, page_size: PAGE_SIZE_DEFAULT };
    assert_eq!(soon(client.list(list)).await, Err(LogsError::Rpc(RpcError::Overloaded)));
    assert_eq!(soon(client.delete(by_name())).await, Err(LogsError::Rpc(RpcError::ShuttingDown)));
    let tail = LogTail { lsn: lsn(9), kind: TailKind::Linearizable };
    assert_eq!(soon(client.find_tail(by_name(), TailKind::Linearizable)).await, Ok(tail));
    assert_eq!(soon(client.trim(by_name(), lsn(3))).await, Ok(lsn(3)));
    let records = AppendRecords { log: by_name(), records: Vec::new() };
    assert_eq!(soon(client.append(records)).await, Ok(AppendOutcome::NotAppended(NotAppended::EmptyBatch)));
    let read = ReadLog { log: by_name(), from: None, until: Some(lsn(4)), filter: KeyFilter::Any };
    let events: Vec<_> = soon(soon(client.read(read)).await.expect("opened").collect()).await;
    let refused = Err(LogsError::Refused(LogRefusal::Damaged));
    assert_eq!(events, [Ok(LogEvent::CaughtUp { tail: lsn(4) }), refused]);
    host.stop().await;
}

#[tokio::test]
async fn an_append_stream_ends_with_what_its_last_item_says() {
    let (host, client, mut halves) = host().await;
    assert_eq!(soon(client.open_append(by_name())).await.map(|_| ()), Err(REFUSED));
    let mut stream = soon(client.open_append(LogRef::Id(log_id()))).await.expect("opened");
    let (mut taken, answers) = soon(halves.recv()).await.expect("a stream");
    stream.requests.send(batch("one")).await.expect("open");
    assert_eq!(soon(taken.recv()).await, Some(batch("one")));
    let outcome = AppendOutcome::Unknown(None);
    answers.send(Ok(outcome.clone())).await.expect("open");
    assert_eq!(soon(stream.replies.recv()).await, Some(Ok(outcome)));
    // The client is done: the service sees it, answers what is due, and ends the stream.
    drop(stream.requests);
    assert_eq!(soon(taken.recv()).await, None);
    answers.send(Err(RpcError::ShuttingDown)).await.expect("open");
    drop(answers);
    assert_eq!(soon(stream.replies.recv()).await, Some(Err(RpcError::ShuttingDown)));
    assert_eq!(soon(stream.replies.recv()).await, None);
    host.stop().await;
}

#[tokio::test]
async fn what_no_client_of_ours_would_send_is_an_invalid_argument() {
    let (host, _client, mut halves) = host().await;
    let channel = connect_lazy(&host.address, &ClientOptions::default()).expect("an address");
    let mut raw = LogServiceClient::new(channel);
    let code = |result: Result<_, tonic::Status>| result.map(|_: tonic::Response<_>| ()).expect_err("refused").code();
    let unset = pb::FindTailRequest { log: Some(pb::LogRef { log: None }), kind: 1 };
    assert_eq!(code(soon(raw.find_tail(unset)).await), Code::InvalidArgument);
    let unknown = pb::FindTailRequest { log: Some(by_name().into()), kind: 99 };
    assert_eq!(code(soon(raw.find_tail(unknown)).await), Code::InvalidArgument);
    let zero = pb::TrimLogRequest { log: Some(by_name().into()), up_to: 0 };
    let refused = soon(raw.trim(zero)).await.expect_err("LSNs begin at 1");
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "TrimLogRequest.up_to is zero"));
    // A stream that begins with an append is not opened; one that goes on with an opening is ended.
    let append = || crate::codec::records::LogAppendMessage::Append(batch("x"));
    let refused = soon(raw.append_stream(stream::iter([append().into()]))).await.map(|_| ());
    assert_eq!(refused.expect_err("not opened").code(), Code::InvalidArgument);
    let open = crate::codec::records::LogAppendMessage::Open(LogRef::Id(log_id()));
    let twice = stream::iter([open.clone().into(), open.into()]).chain(stream::pending());
    let mut replies = soon(raw.append_stream(twice)).await.expect("opened").into_inner();
    let _half = soon(halves.recv()).await.expect("a stream");
    assert!(matches!(soon(replies.message()).await, Ok(Some(_))), "opened");
    assert_eq!(soon(replies.message()).await.expect_err("ended").code(), Code::InvalidArgument);
    host.stop().await;
}

#[tokio::test]
async fn health_tells_that_a_server_begins_to_stop() {
    let stopping = CancellationToken::new();
    let token = stopping.clone();
    let host = Host::start(|routes, _, shutdown| HealthGrpc::new(vec!["a.B"], token, shutdown).add_to(routes)).await;
    let channel = connect_lazy(&host.address, &ClientOptions::default()).expect("an address");
    let mut health = HealthClient::new(channel);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let (serving, not_serving) = (ServingStatus::Serving as i32, ServingStatus::NotServing as i32);
    for service in ["", "a.B", HealthGrpc::NAME] {
        assert_eq!(soon(health.check(of(service))).await.expect("known").into_inner().status, serving, "{service}");
    }
    assert_eq!(soon(health.check(of("a.C"))).await.expect_err("unknown").code(), Code::NotFound);
    let mut unknown = soon(health.watch(of("a.C"))).await.expect("a stream").into_inner();
    let first = soon(unknown.message()).await.expect("open").expect("a status");
    assert_eq!(first.status, ServingStatus::ServiceUnknown as i32);
    let mut watch = soon(health.watch(of("a.B"))).await.expect("a stream").into_inner();
    assert_eq!(soon(watch.message()).await.expect("open").expect("a status").status, serving);
    stopping.cancel();
    assert_eq!(soon(watch.message()).await.expect("open").expect("a status").status, not_serving);
    assert_eq!(soon(health.check(of(""))).await.expect("known").into_inner().status, not_serving);
    host.stop().await;
    assert_eq!(soon(watch.message()).await.expect_err("ended").code(), Code::Unavailable);
}

#[test]
fn reflection_can_serve_the_descriptors() {
    let mut routes = RoutesBuilder::default();
    add_reflection(&mut routes, &ServerLimits::default()).expect("own descriptors");
}
