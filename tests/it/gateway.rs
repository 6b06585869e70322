//! The door for thin clients, against live nodes through the network: bad input, clients that do not read, logs that move
//! or go meanwhile, and a node that stops.

use std::future::Future;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use bifrost::{LogOptions, ReconfigureOptions};
use bifrost_node::gateway::GatewayOptions;
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::limits::{BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use bifrost_types::{
    Actor, AppendId, CloseReason, KeyFilter, Keys, LogId, Lsn, Record, SegmentIndex, SegmentState, Sequence, WriterId,
};
use bifrost_wire::RpcError;
use bifrost_wire::grpc::{ClientOptions, GrpcLogs};
use bifrost_wire::logs::{
    AppendOutcome, AppendRecords, CommittedAt, CreateLog, GapKind, ListLogs, LogEvent, LogRef, LogRefusal, Logs,
    LogsError, NewRecord, NotAppended, ReadLog, ResolvedAppend, TailKind, payload_crc32c,
};
use bytes::Bytes;
use futures_util::StreamExt;

/// Far above any healthy run; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened long ago")
}

async fn cluster(options: LocalClusterOptions) -> anyhow::Result<(LocalCluster, GrpcLogs)> {
    let cluster = LocalCluster::start(options).await?;
    let client = client_of(&cluster, 0).await?;
    Ok((cluster, client))
}

async fn client_of(cluster: &LocalCluster, node: usize) -> anyhow::Result<GrpcLogs> {
    Ok(GrpcLogs::connect_lazy(&cluster.addresses().await[node], ClientOptions::default())?)
}

fn named(name: &str) -> LogRef {
    LogRef::Name(name.to_owned())
}

fn lsn(value: u64) -> Lsn {
    Lsn::new(value).expect("non-zero")
}

fn at(first: u64, last: u64) -> AppendOutcome {
    AppendOutcome::Committed(CommittedAt { first_lsn: lsn(first), last_lsn: lsn(last) })
}

fn record(payload: impl Into<Bytes>) -> NewRecord {
    NewRecord { record: Record::new(payload), payload_crc32c: None }
}

async fn create(client: &GrpcLogs, name: &str) -> Result<LogId, LogsError> {
    let made = soon(client.create(CreateLog { name: Some(name.to_owned()), replication: None })).await;
    made.map(|description| description.log)
}

async fn append(client: &GrpcLogs, log: &LogRef, records: Vec<NewRecord>) -> Result<AppendOutcome, RpcError> {
    soon(client.append(AppendRecords { log: log.clone(), records })).await
}

/// All events of a read, or the error that it could not be opened with.
async fn events(client: &GrpcLogs, request: ReadLog) -> Vec<Result<LogEvent, LogsError>> {
    match soon(client.read(request)).await {
        Ok(events) => soon(events.collect()).await,
        Err(error) => vec![Err(error)],
    }
}

/// Records as `lsn:length`, gaps as `[from,end)`.
async fn read(client: &GrpcLogs, log: &LogRef, from: u64, until: u64) -> Vec<String> {
    let range = ReadLog { log: log.clone(), from: Lsn::new(from), until: Some(lsn(until)), filter: KeyFilter::Any };
    let mut seen = Vec::new();
    for event in events(client, range).await {
        match event.expect("nothing is broken") {
            LogEvent::Records(records) => {
                for read in records {
                    assert_eq!(read.payload_crc32c, payload_crc32c(&read.record.payload));
                    seen.push(format!("{}:{}", read.lsn, read.record.payload.len()));
                }
            }
            LogEvent::Gap { from, end, kind: GapKind::Trimmed } => seen.push(format!("[{from},{end})")),
            LogEvent::Gap { kind: GapKind::Lost, .. } => panic!("nothing was lost"),
            LogEvent::CaughtUp { .. } => {}
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_a_clear_refusal_and_the_log_goes_on() -> anyhow::Result<()> {
    let (cluster, client) = cluster(LocalClusterOptions::default()).await?;
    let id = create(&client, "orders").await?;
    let log = named("orders");
    assert_eq!(append(&client, &log, vec![record("")]).await, Ok(at(1, 1)), "zero bytes are legal");
    let refused = |cause| Ok(AppendOutcome::NotAppended(cause));
    assert_eq!(append(&client, &log, Vec::new()).await, refused(NotAppended::EmptyBatch));
    let large = vec![record("x"), record(vec![0; RECORD_BYTES_MAX + 1])];
    let bytes = RECORD_BYTES_MAX as u64 + 1;
    assert_eq!(append(&client, &log, large).await, refused(NotAppended::RecordTooLarge { record: 1, bytes }));
    let full = vec![record(vec![0; RECORD_BYTES_MAX]), record(vec![0; RECORD_BYTES_MAX])];
    assert!(matches!(
        append(&client, &log, full).await,
        Ok(AppendOutcome::NotAppended(NotAppended::BatchTooLarge { .. }))
    ));
    let many = vec![record(""); BATCH_RECORDS_MAX as usize + 1];
    assert_eq!(append(&client, &log, many).await, refused(NotAppended::TooManyRecords { records: 65_537 }));
    let damaged = NewRecord { record: Record::new("123456789"), payload_crc32c: Some(7) };
    let actual = 0xe306_9283;
    assert_eq!(append(&client, &log, vec![damaged]).await, refused(NotAppended::BadChecksum { record: 0, actual }));
    let inverted = NewRecord { record: Record::new("x").with_keys(Keys::Range(2, 1)), payload_crc32c: None };
    assert_eq!(append(&client, &log, vec![inverted]).await, refused(NotAppended::InvertedKeys { record: 0 }));

    let unknown = LogRefusal::UnknownLog;
    for nobody in [named("nobody"), LogRef::Id(LogId::try_from(u64::MAX)?)] {
        assert_eq!(append(&client, &nobody, vec![record("x")]).await, refused(unknown.into()));
        assert_eq!(soon(client.find_tail(nobody.clone(), TailKind::Linearizable)).await, Err(unknown.into()));
        assert_eq!(soon(client.trim(nobody.clone(), lsn(1))).await, Err(unknown.into()));
        assert_eq!(soon(client.get(nobody.clone())).await, Err(unknown.into()));
        assert_eq!(soon(client.delete(nobody.clone())).await, Err(unknown.into()));
        let read = ReadLog { log: nobody, from: None, until: None, filter: KeyFilter::Any };
        assert_eq!(events(&client, read).await, [Err(unknown.into())]);
    }
    assert_eq!(create(&client, "orders").await, Err(LogRefusal::NameTaken { log: id }.into()));
    for name in ["", "../x", "a\0b", "a\nb", "17", &"x".repeat(10 << 10)] {
        assert_eq!(create(&client, name).await, Err(LogRefusal::InvalidName.into()), "{name:?}");
        assert_eq!(soon(client.get(named(name))).await, Err(LogRefusal::InvalidName.into()), "{name:?}");
    }
    let tail = lsn(2);
    assert_eq!(soon(client.trim(log.clone(), tail)).await, Err(LogRefusal::BeyondTail { tail }.into()));
    assert_eq!(soon(client.trim(log.clone(), Lsn::MAX)).await, Err(LogRefusal::BeyondTail { tail }.into()));
    let backwards = ReadLog { log: log.clone(), from: Some(tail), until: Some(lsn(1)), filter: KeyFilter::Any };
    assert_eq!(events(&client, backwards).await, [Err(LogsError::Rpc(RpcError::Malformed))]);
    // The end of the range of positions: nothing is there, and nothing breaks.
    assert_eq!(read(&client, &log, u64::MAX, u64::MAX).await, [""; 0]);

    assert_eq!(append(&client, &log, vec![record("x"), record("yz")]).await, Ok(at(2, 3)), "it goes on");
    assert_eq!(read(&client, &log, 1, 4).await, ["1:0", "2:1", "3:2"]);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_largest_record_and_a_batch_of_the_most_records_pass() -> anyhow::Result<()> {
    let (cluster, client) = cluster(LocalClusterOptions { nodes: 1, ..Default::default() }).await?;
    create(&client, "large").await?;
    let log = named("large");
    assert_eq!(append(&client, &log, vec![record(vec![7; RECORD_BYTES_MAX])]).await, Ok(at(1, 1)));
    let most = vec![record("x"); BATCH_RECORDS_MAX as usize];
    assert_eq!(append(&client, &log, most).await, Ok(at(2, 65_537)));
    let seen = read(&client, &log, 1, 65_538).await;
    assert_eq!((seen.len(), seen[0].as_str(), seen[65_536].as_str()), (65_537, "1:8388608", "65537:1"));
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_stop_nobody_and_are_counted() -> anyhow::Result<()> {
    const READS: usize = 20;
    let gateway = GatewayOptions { reads_max: NonZeroUsize::new(READS).expect("not 0"), ..Default::default() };
    let (cluster, client) = cluster(LocalClusterOptions { gateway, ..Default::default() }).await?;
    let id = create(&client, "busy").await?;
    let log = named("busy");
    for number in 0..4 {
        let first = number * 2 + 1;
        let batch = vec![record(vec![7; 1 << 20]), record(vec![8; 1 << 20])];
        assert_eq!(append(&client, &log, batch).await, Ok(at(first, first + 1)));
    }
    // Each on a connection of its own, with eight times the window of the records before it.
    let follow = ReadLog { log: LogRef::Id(id), from: Some(Lsn::FIRST), until: None, filter: KeyFilter::Any };
    let narrow = ClientOptions { stream_window_bytes: 1 << 16, ..ClientOptions::default() };
    let address = cluster.addresses().await[0].clone();
    let mut idle = Vec::new();
    for _ in 0..READS {
        let client = GrpcLogs::connect_lazy(&address, narrow.clone())?;
        idle.push((soon(client.read(follow.clone())).await?, client));
    }
    let full = events(&client, follow.clone()).await;
    assert_eq!(full, [Err(LogsError::Rpc(RpcError::Overloaded))], "full is an answer");
    // Whoever else comes is served.
    assert_eq!(append(&client, &log, vec![record("more")]).await, Ok(at(9, 9)));
    assert_eq!(soon(client.find_tail(log.clone(), TailKind::Linearizable)).await?.lsn, lsn(10));
    // One goes away: its place is free as soon as the node hears of it.
    drop(idle.pop());
    let seen = soon(async {
        loop {
            match client.read(ReadLog { until: Some(lsn(10)), ..follow.clone() }).await {
                Ok(events) => break events.collect::<Vec<_>>().await,
                Err(error) => assert_eq!(error, LogsError::Rpc(RpcError::Overloaded)),
            }
        }
    })
    .await;
    let records = seen.iter().map(|event| match event {
        Ok(LogEvent::Records(records)) => records.len(),
        _ => 0,
    });
    assert_eq!(records.sum::<usize>(), 9);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_while_their_log_is_reconfigured() -> anyhow::Result<()> {
    const BATCHES: usize = 300;
    let (cluster, client) = cluster(LocalClusterOptions::default()).await?;
    create(&client, "moving").await?;
    let log = named("moving");
    let bifrost = cluster.connect().await?;
    let handle = bifrost.log("moving").await?;
    let mut stream = soon(client.open_append(log.clone())).await?;
    let requests = stream.requests;
    let sending = tokio::spawn(async move {
        for number in 0..BATCHES {
            let batch = vec![record(format!("{number}")), record("and another")];
            requests.send(batch).await.expect("the stream outlives its requests");
        }
    });
    let mut alone = Vec::new();
    let mut streamed = Vec::new();
    for round in 0..BATCHES {
        if round % 100 == 50 {
            soon(handle.reconfigure(ReconfigureOptions::default())).await?;
        }
        if round % 30 == 0 {
            alone.push(append(&client, &log, vec![record("alone")]).await?);
        }
        match soon(stream.replies.recv()).await {
            Some(Ok(AppendOutcome::Committed(at))) => streamed.push(at),
            other => panic!("a reconfiguration shows: {other:?}"),
        }
    }
    sending.await?;
    assert_eq!(soon(stream.replies.recv()).await, None, "it ends after the last answer");
    assert!(streamed.is_sorted_by(|one, two| one.last_lsn < two.first_lsn), "in order");
    assert!(alone.iter().all(|outcome| matches!(outcome, AppendOutcome::Committed(_))), "{alone:?}");
    let tail = soon(client.find_tail(log.clone(), TailKind::Linearizable)).await?.lsn.get();
    assert_eq!(tail, 2 * BATCHES as u64 + alone.len() as u64 + 1, "each once");
    assert_eq!(read(&client, &log, 1, tail).await.len(), 2 * BATCHES + alone.len());
    // The description tells who moved it.
    let described = soon(client.get(log)).await?;
    assert_eq!(described.segments.len(), 4);
    let SegmentState::Sealed { actor, reason, timings, .. } = &described.segments[0].state else {
        panic!("the first segment is closed");
    };
    assert_eq!((actor, reason), (&Actor::Operator, &CloseReason::Requested));
    assert!(timings.total_micros >= timings.seal_micros);
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_another_logs_now_leads_there() -> anyhow::Result<()> {
    let (cluster, client) = cluster(LocalClusterOptions::default()).await?;
    let other = client_of(&cluster, 1).await?;
    let log = named("reused");
    let old = create(&client, "reused").await?;
    assert_eq!(append(&client, &log, vec![record("old")]).await, Ok(at(1, 1)));
    let mut stream = soon(client.open_append(log.clone())).await?;
    assert_eq!(soon(other.delete(log.clone())).await, Ok(old));
    let new = create(&other, "reused").await?;
    assert!(new > old, "an id is never given twice");
    // The first node knew the name.
    assert_eq!(append(&client, &log, vec![record("new")]).await, Ok(at(1, 1)));
    assert_eq!(append(&client, &log, vec![record("newer")]).await, Ok(at(2, 2)));
    let gone = AppendOutcome::NotAppended(LogRefusal::UnknownLog.into());
    assert_eq!(append(&client, &LogRef::Id(old), vec![record("x")]).await, Ok(gone.clone()));
    stream.requests.send(vec![record("x")]).await?;
    assert_eq!(soon(stream.replies.recv()).await, Some(Ok(gone)), "a stream is to a log, not to a name");
    assert_eq!(read(&client, &log, 1, 3).await, ["1:3", "2:5"]);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_listed_in_pages() -> anyhow::Result<()> {
    let (cluster, client) = cluster(LocalClusterOptions { nodes: 1, ..Default::default() }).await?;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(create(&client, &format!("log-{number}")).await?);
    }
    let mut listed = Vec::new();
    let mut after = None;
    let mut pages = 0;
    loop {
        let page_size = NonZeroUsize::new(2).expect("not 0");
        let page = soon(client.list(ListLogs { after, page_size })).await?;
        assert!(page.logs.len() <= 2);
        listed.extend(page.logs.into_iter().map(|summary| summary.log));
        pages += 1;
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((listed, pages), (made, 3));
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_an_outcome_has_an_id_that_tells_it_later() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let gateway = GatewayOptions { give_up_after: Duration::from_millis(300), ..Default::default() };
    let directory = Some(directory.path().to_owned());
    let (cluster, client) = cluster(LocalClusterOptions { directory, gateway, ..Default::default() }).await?;
    create(&client, "doubtful").await?;
    let log = named("doubtful");
    assert_eq!(append(&client, &log, vec![record("first")]).await, Ok(at(1, 1)));
    let sequencer = soon(client.get(log.clone())).await?.segments[0].params.sequencer.node;
    let mut at_sequencer = 0;
    for node in 0..cluster.size() {
        if cluster.node_id(node).await == Some(sequencer) {
            at_sequencer = node;
        }
    }
    let others: Vec<usize> = (0..cluster.size()).filter(|node| *node != at_sequencer).collect();
    let client = client_of(&cluster, at_sequencer).await?;
    assert_eq!(append(&client, &log, vec![record("second")]).await, Ok(at(2, 2)));
    for node in &others {
        cluster.stop_node(*node).await;
    }
    // One copy of two: not committed, and perhaps it will be.
    let outcome = append(&client, &log, vec![record("third"), record("fourth")]).await;
    let Ok(AppendOutcome::Unknown(Some(id))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(id.records, NonZeroU32::new(2).expect("not 0"));
    for node in &others {
        cluster.start_node(*node).await?;
    }
    let resolved = soon(client.resolve(id)).await?;
    let tail = soon(client.find_tail(log.clone(), TailKind::Linearizable)).await?.lsn;
    match resolved {
        ResolvedAppend::Committed(found) => {
            assert_eq!((found.first_lsn, found.last_lsn, tail), (lsn(3), lsn(4), lsn(5)))
        }
        ResolvedAppend::Absent => assert_eq!(tail, lsn(3)),
        ResolvedAppend::Unknowable => panic!("nothing was trimmed or lost"),
    }
    assert_eq!(soon(client.resolve(id)).await?, resolved, "asking again gives the same answer");
    // An append that nobody made is nowhere.
    let stranger = AppendId {
        writer: WriterId::try_from(1_u128)?,
        sequence: Sequence::FIRST,
        segment: SegmentIndex::FIRST,
        from: Lsn::FIRST,
        ..id
    };
    assert_eq!(soon(client.resolve(stranger)).await?, ResolvedAppend::Absent);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_tells_every_outcome_and_the_others_serve_on() -> anyhow::Result<()> {
    let (cluster, client) = cluster(LocalClusterOptions::default()).await?;
    create(&client, "lasting").await?;
    let log = named("lasting");
    let mut stream = soon(client.open_append(log.clone())).await?;
    for _ in 0..50 {
        stream.requests.send(vec![record("x")]).await?;
    }
    assert_eq!(soon(stream.replies.recv()).await, Some(Ok(at(1, 1))));
    let follow = ReadLog { log: log.clone(), from: Some(Lsn::FIRST), until: None, filter: KeyFilter::Any };
    let mut following = soon(client.read(follow)).await?;
    assert!(matches!(soon(following.next()).await, Some(Ok(LogEvent::Records(_)))));
    soon(cluster.stop_node(0)).await;
    // What was taken was answered, in order, and then the reason came: what was not answered was not appended.
    let mut answered = 1;
    let end = loop {
        match soon(stream.replies.recv()).await {
            Some(Ok(outcome)) => {
                answered += 1;
                assert_eq!(outcome, at(answered, answered));
            }
            other => break other,
        }
    };
    assert_eq!(end, Some(Err(RpcError::ShuttingDown)));
    let end = soon(following.filter(|event| std::future::ready(event.is_err())).next()).await;
    assert_eq!(end, Some(Err(LogsError::Rpc(RpcError::ShuttingDown))));
    let other = client_of(&cluster, 1).await?;
    let tail = soon(other.find_tail(log.clone(), TailKind::Linearizable)).await?.lsn;
    assert_eq!(tail, lsn(answered + 1), "nothing else was appended");
    assert_eq!(append(&other, &log, vec![record("y")]).await, Ok(at(answered + 1, answered + 1)));
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_streams_are_counted() -> anyhow::Result<()> {
    let gateway = GatewayOptions { append_streams_max: NonZeroUsize::MIN, ..Default::default() };
    let (cluster, client) = cluster(LocalClusterOptions { nodes: 1, gateway, ..Default::default() }).await?;
    create(&client, "one").await?;
    let log = named("one");
    let first = soon(client.open_append(log.clone())).await?;
    let second = soon(client.open_append(log.clone())).await;
    assert_eq!(second.map(|_| ()), Err(LogsError::Rpc(RpcError::Overloaded)));
    assert_eq!(append(&client, &log, vec![record("alone")]).await, Ok(at(1, 1)));
    drop(first);
    let third = soon(async {
        loop {
            match client.open_append(log.clone()).await {
                Ok(stream) => break stream,
                Err(error) => assert_eq!(error, LogsError::Rpc(RpcError::Overloaded)),
            }
        }
    })
    .await;
    // A handle of the cluster sees what came through the door.
    let bifrost = cluster.connect().await?;
    let handle = bifrost.open_log("one", LogOptions::default()).await?;
    assert_eq!(third.log, handle.id());
    assert_eq!(handle.find_tail(bifrost::TailKind::Linearizable).await?.lsn, lsn(2));
    bifrost.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}
