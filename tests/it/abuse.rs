//! Peers that misuse connections, streams and memory, against a live node: it stays up, what they cost is bounded, and an
//! honest client goes on meanwhile.

use std::time::Duration;

use bifrost::{LogOptions, ReadEvent, ReadOptions, TailKind};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{LogId, Segment};
use bifrost_wire::grpc::{ClientOptions, GrpcMetadata, ServerLimits};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Precondition, Txn};
use bifrost_wire::metrics::{ANSWER_BYTES, CLOSED, REFUSED};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use h2::client::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::counters::Counters;
use super::support::honest::Honest;
use super::support::protobuf::{bytes, message, varint};
use super::support::raw::{PATIENCE, RawConnection, framed, resident_bytes, soon, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS without settings.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const READ: &str = "/bifrost.v1.LogServerService/Read";
const STORE: &str = "/bifrost.v1.LogServerService/Store";
const LIST: &str = "/bifrost.v1.MetadataService/List";
const WATCH: &str = "/bifrost.v1.MetadataService/Watch";
const GET: &str = "/bifrost.v1.MetadataService/Get";

/// One node in memory behind these limits, and its address.
async fn node(server: ServerLimits) -> (LocalCluster, String) {
    server.validate().expect("limits that fit each other");
    let options = LocalClusterOptions { nodes: 1, server, ..LocalClusterOptions::default() };
    let cluster = LocalCluster::start(options).await.expect("a node");
    let address = cluster.addresses().await.remove(0);
    (cluster, address)
}

/// Waits until the peer closes a socket, whatever it says before.
async fn closed(socket: &mut TcpStream) {
    let mut heard = [0; 1 << 10];
    let listening = async { while !matches!(socket.read(&mut heard).await, Ok(0) | Err(_)) {} };
    soon(listening).await;
}

/// Sends bytes one by one until the peer has closed the socket.
async fn dribble(address: &str, begin: &[u8], endless: u8) {
    let mut socket = TcpStream::connect(address).await.expect("the node listens");
    socket.write_all(begin).await.expect("a fresh socket takes this");
    let (mut hear, mut say) = socket.into_split();
    let saying = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while say.write_all(&[endless]).await.is_ok() {
            pace.tick().await;
        }
    };
    let mut heard = [0; 1 << 10];
    let hearing = async { while !matches!(hear.read(&mut heard).await, Ok(0) | Err(_)) {} };
    let either = async {
        tokio::select! {
            biased;
            () = hearing => {}
            () = saying => {}
        }
    };
    soon(either).await;
}

#[tokio::test]
async fn connections_that_say_nothing_or_only_bytes_are_closed() {
    let counters = Counters::default();
    let _installed = counters.install();
    let limits = ServerLimits {
        handshake_timeout: Duration::from_millis(300),
        keepalive_interval: Duration::from_millis(200),
        keepalive_timeout: Duration::from_millis(200),
        ..ServerLimits::default()
    };
    let (cluster, address) = node(limits).await;
    let mut honest = Honest::new(&cluster, "honest").await;

    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(&address).await.expect("there is room"));
    }
    honest.goes_on().await;
    for socket in &mut silent {
        closed(socket).await;
    }
    assert_eq!(counters.get(&format!("{CLOSED}{{reason=\"silent\"}}")), 50);

    // The first bytes of the preface, and then the next one again and again: closed at the first wrong one.
    dribble(&address, &PREFACE[..3], PREFACE[3]).await;
    // A preface that stops in the middle.
    let mut half = TcpStream::connect(&address).await.expect("there is room");
    half.write_all(&PREFACE[..20]).await.expect("a fresh socket takes this");
    closed(&mut half).await;
    assert_eq!(counters.get(&format!("{CLOSED}{{reason=\"silent\"}}")), 51);

    // In the middle of a frame nobody can answer a ping: that is what ends the next three.
    let headers = [PREFACE, SETTINGS, &[0, 0x3f, 0xff, 1, 4, 0, 0, 0, 1]].concat();
    dribble(&address, &headers, 0x40).await;
    let settings = [PREFACE, &[0, 0x0f, 0xf0, 4, 0, 0, 0, 0, 0]].concat();
    dribble(&address, &settings, 0).await;
    // A header block that never ends, in whole frames of one byte each.
    let mut endless = TcpStream::connect(&address).await.expect("there is room");
    endless.write_all(&[PREFACE, SETTINGS, &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]].concat()).await.expect("it fits");
    let (mut hear, mut say) = endless.split();
    let mut heard = [0; 1 << 10];
    let saying = async { while say.write_all(&[0, 0, 1, 9, 0, 0, 0, 0, 1, 0x82]).await.is_ok() {} };
    let hearing = async { while !matches!(hear.read(&mut heard).await, Ok(0) | Err(_)) {} };
    soon(async { tokio::join!(saying, hearing) }).await;

    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_connection_too_many_is_closed_at_once_and_room_is_reused() {
    let counters = Counters::default();
    let _installed = counters.install();
    let (cluster, address) = node(ServerLimits { connections_max: 20, ..ServerLimits::default() }).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    honest.goes_on().await;

    let mut open = Vec::new();
    for _ in 0..40 {
        // A connection that was accepted answers.
        if let Ok(mut connection) = RawConnection::open(&address).await
            && connection.call(GET, &[], framed(&bytes(1, b"cluster"))).await.is_ok()
        {
            open.push(connection);
        }
    }
    assert!(open.len() < 20, "{}", open.len());
    assert!(open.len() > 10, "{}", open.len());
    assert_eq!(counters.get(&format!("{CLOSED}{{reason=\"too-many\"}}")), 40 - open.len() as u64);
    honest.goes_on().await;

    drop(open);
    let connecting = async {
        loop {
            if let Ok(bifrost) = cluster.connect().await {
                return bifrost;
            }
        }
    };
    let bifrost = soon(connecting).await;
    soon(bifrost.create_log("afterwards", LogOptions::default())).await.expect("there is room again");
    bifrost.shutdown().await;
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

/// A request to read everything of the first segment of a log.
fn read_all(log: LogId, segment: &Segment) -> Bytes {
    let member = &segment.params.nodeset.members()[0];
    let loglet = message([varint(1, log.get()), varint(2, 0)]);
    let open = message([
        bytes(1, &loglet),
        bytes(2, &member.disk.get().to_be_bytes()),
        varint(3, 1),
        bytes(5, &bytes(1, &[])),
        varint(6, u64::MAX),
        varint(7, 1),
    ]);
    framed(&bytes(1, &open))
}

/// A node on disk whose log `large` has 16 records of 1 MiB, and the request that reads them.
async fn with_large_records(limits: ServerLimits, directory: &std::path::Path) -> (LocalCluster, String, Bytes) {
    limits.validate().expect("limits that fit each other");
    let options = LocalClusterOptions {
        nodes: 1,
        directory: Some(directory.to_owned()),
        server: limits,
        ..LocalClusterOptions::default()
    };
    let cluster = LocalCluster::start(options).await.expect("a node");
    let address = cluster.addresses().await.remove(0);
    let bifrost = cluster.connect().await.expect("a cluster that is well");
    let log = bifrost.create_log("large", LogOptions::default()).await.expect("all nodes are there");
    let appender = log.appender();
    for byte in 0..16 {
        appender.append(vec![byte; 1 << 20]).await.expect("all is well");
    }
    let chain = bifrost.catalog().chain(log.id()).await.expect("it is there").chain;
    let read = read_all(log.id(), &chain.segments[0]);
    bifrost.shutdown().await;
    (cluster, address, read)
}

#[tokio::test]
async fn ten_thousand_streams_that_are_never_read_cost_bounded_memory() {
    const CONNECTIONS: usize = 5;
    const BOUND: u64 = 32 << 20;
    let counters = Counters::default();
    let _installed = counters.install();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let limits = ServerLimits { answer_bytes_max: BOUND, ..ServerLimits::default() };
    let (cluster, address, read) = with_large_records(limits, directory.path()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let metadata = cluster.metadata();
    for number in 0..4 {
        let put = Txn::new().put(format!("abuse/{number}"), vec![7; 1 << 20]);
        metadata.txn(put).await.expect("metadata is well");
    }
    honest.goes_on().await;

    let before = resident_bytes();
    let mut builder = Builder::new();
    // Its own protection against many small frames would end this client otherwise.
    builder.data_frame_budget(1 << 30);
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = RawConnection::open_with(&address, &builder).await.expect("there is room");
        for number in 0..10_000 / CONNECTIONS {
            let (path, body) = match number % 10 {
                0 => (READ, Some((read.clone(), false))),
                1 => (STORE, None),
                2..6 => (LIST, Some((framed(&message([bytes(1, b"abuse/"), varint(3, 4)])), true))),
                _ => (WATCH, Some((framed(&bytes(1, b"abuse/")), true))),
            };
            let mut stream = connection.stream(path, &[]).await.expect("so many streams are allowed");
            if let Some((body, end)) = body {
                stream.body.send_data(body, end).expect("the stream is open");
            }
            streams.push(stream);
        }
        honest.goes_on().await;
        connections.push(connection);
    }
    // Every answer that can be made has been when the gauge stands still at its bound.
    until(|| counters.gauge(ANSWER_BYTES) >= (BOUND / 2) as f64).await;
    for _ in 0..20 {
        honest.goes_on().await;
        let held = counters.gauge(ANSWER_BYTES);
        // One message beside the bound; this runtime has one worker thread.
        assert!(held < (BOUND + (18 << 20)) as f64, "{held}");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(connections.iter().all(RawConnection::is_open), "a quick look: nobody had to be closed yet");
    println!(
        "{} streams: {} KiB more, answers {} KiB",
        streams.len(),
        grown >> 10,
        counters.gauge(ANSWER_BYTES) as u64 >> 10
    );
    // Without a bound the lists alone are 4 GiB and the reads 2 GiB. Half of what is allowed here is the client's half.
    assert!(grown < 600 << 20, "{grown}");

    drop(streams);
    drop(connections);
    until(|| counters.gauge(ANSWER_BYTES) < 1.0).await;
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn readers_who_take_everything_get_it_however_many_share_a_connection() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // A connection may hold 2 MiB, and what a log server makes ready for one reader at once is 1 MiB.
    let limits = ServerLimits { answer_bytes_max: 8 << 20, ..ServerLimits::default() };
    let (cluster, _, _) = with_large_records(limits, directory.path()).await;
    let bifrost = cluster.connect().await.expect("a cluster that is well");
    let log = bifrost.open_log("large", LogOptions::default()).await.expect("it is there");
    let tail = log.find_tail(TailKind::Linearizable).await.expect("all is well").lsn;
    let readers = (0..12).map(|_| async {
        let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
        let mut records = 0;
        while let Some(event) = reader.next().await {
            records += u64::from(matches!(event.expect("a log that can be read"), ReadEvent::Record(_)));
        }
        records
    });
    assert_eq!(soon(join_all(readers)).await, [16; 12]);
    bifrost.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn whoever_holds_the_memory_that_others_wait_for_is_closed() {
    let counters = Counters::default();
    let _installed = counters.install();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let limits = ServerLimits {
        answer_bytes_max: 8 << 20,
        answer_stall_timeout: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let (cluster, address, read) = with_large_records(limits, directory.path()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut connection = RawConnection::open(&address).await.expect("there is room");
        for _ in 0..4 {
            let mut stream = connection.stream(READ, &[]).await.expect("streams are allowed");
            stream.body.send_data(read.clone(), false).expect("the stream is open");
            streams.push(stream);
        }
        connections.push(connection);
        honest.goes_on().await;
    }
    let by_memory = format!("{CLOSED}{{reason=\"memory\"}}");
    until(|| counters.get(&by_memory) > 0).await;
    until(|| connections.iter().any(|connection| !connection.is_open())).await;
    honest.goes_on().await;
    drop((streams, connections));
    until(|| counters.gauge(ANSWER_BYTES) < 1.0).await;
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_socket_is_closed() {
    let counters = Counters::default();
    let _installed = counters.install();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let limits = ServerLimits {
        keepalive_interval: Duration::from_millis(300),
        keepalive_timeout: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let (cluster, address, read) = with_large_records(limits, directory.path()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    // Windows that take everything, on a socket that nobody reads: the kernel's buffers fill up.
    let settings = [PREFACE, &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]].concat();
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0];
    let mut socket = TcpStream::connect(&address).await.expect("the node listens");
    socket.write_all(&[&settings[..], &window].concat()).await.expect("it fits");
    for stream in [1_u8, 3, 5, 7] {
        // The headers of a read, without compression, and its opening.
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", READ),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        let head = [0, 0, block.len() as u8, 1, 4, 0, 0, 0, stream];
        let data = [0, 0, read.len() as u8, 0, 0, 0, 0, 0, stream];
        socket.write_all(&[&head[..], &block, &data, &read].concat()).await.expect("it fits");
    }
    let stalled = format!("{CLOSED}{{reason=\"stalled\"}}");
    until(|| counters.get(&stalled) == 1).await;
    until(|| counters.gauge(ANSWER_BYTES) < 1.0).await;
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_cost_the_connection_at_most() {
    let (cluster, address) = node(ServerLimits::default()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let mut connection = RawConnection::open(&address).await.expect("there is room");
    let mut reset = 0;
    while reset < 20_000 {
        let Ok(mut stream) = connection.stream(WATCH, &[]).await else { break };
        stream.body.send_reset(h2::Reason::CANCEL);
        reset += 1;
        if reset % 1000 == 0 {
            honest.goes_on().await;
        }
    }
    println!("{reset} streams were reset, the connection is open: {}", connection.is_open());
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_request_too_many_is_refused_and_the_next_one_is_not() {
    let counters = Counters::default();
    let _installed = counters.install();
    let (cluster, address) = node(ServerLimits { streams_max: 30, ..ServerLimits::default() }).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    honest.goes_on().await;
    let mut connection = RawConnection::open(&address).await.expect("there is room");
    let mut streams = Vec::new();
    let refused = format!("{REFUSED}{{reason=\"too-many\"}}");
    while counters.get(&refused) == 0 {
        let mut stream = connection.stream(WATCH, &[]).await.expect("streams are allowed");
        stream.body.send_data(framed(&bytes(1, b"none/")), true).expect("the stream is open");
        assert!(streams.len() < 40);
        let (head, body) = soon(stream.response).await.expect("it is answered").into_parts();
        let refused = head.headers.get("grpc-status").map(|status| status.as_bytes().to_vec());
        assert!(refused.is_none() || refused.as_deref() == Some(b"8"), "RESOURCE_EXHAUSTED");
        streams.push(body);
    }
    assert!(streams.len() > 10, "{}", streams.len());
    drop(streams);
    honest.goes_on().await;
    let answering = async {
        while connection.call(GET, &[], framed(&bytes(1, b"cluster"))).await.expect("it is up").code() != Some(Code::Ok)
        {
        }
    };
    soon(answering).await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn messages_over_a_limit_are_refused_by_their_first_bytes() {
    let (cluster, address) = node(ServerLimits::default()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let mut connection = RawConnection::open(&address).await.expect("there is room");

    // 4 GiB are announced, and one byte comes.
    for path in [GET, STORE, READ] {
        let body = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 7]);
        let answer = connection.call(path, &[], body).await.expect("an answer");
        assert_eq!(answer.code(), Some(Code::OutOfRange), "{path}: {answer:?}");
    }
    // Just above the limit.
    let body = Bytes::from([&[0, 1, 0x10, 0, 1][..], &[7; 100]].concat());
    assert_eq!(connection.call(GET, &[], body).await.expect("an answer").code(), Some(Code::OutOfRange));

    // 64 MiB of zeros would fit into 64 KiB of gzip: nothing here inflates.
    let mut inflating = framed(&[7; 1000]).to_vec();
    inflating[0] = 1;
    let answer = connection.call(GET, &[("grpc-encoding", "gzip")], inflating.clone().into()).await.expect("an answer");
    assert_eq!(answer.code(), Some(Code::Unimplemented), "{answer:?}");
    let answer = connection.call(GET, &[], inflating.into()).await.expect("an answer");
    assert_eq!(answer.code(), Some(Code::Internal), "{answer:?}");
    honest.goes_on().await;

    // Headers over the limit cost the stream or the connection, and nobody else's.
    let long = "x".repeat(64 << 10);
    let answer = connection.call(GET, &[("x-long", &long)], framed(&bytes(1, b"cluster"))).await;
    assert!(answer.as_ref().map_or(true, |answer| answer.http == 431), "{answer:?}");
    honest.goes_on().await;

    // An answer over the limit is refused before it is sent: twenty values of 1 MiB.
    let metadata = GrpcMetadata::connect_lazy(&address, ClientOptions::default()).expect("an address");
    let mut conflict = Txn::new();
    for number in 0..20 {
        let key = format!("large/{number}");
        soon(metadata.txn(Txn::new().put(&key, vec![7; 1 << 20]))).await.expect("metadata is well");
        conflict = conflict.expect(&key, Precondition::Absent);
    }
    assert_eq!(soon(metadata.txn(conflict)).await, Err(MetadataError::TooLarge));
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn large_messages_that_never_end_keep_others_waiting_only_for_a_while() {
    let limits = ServerLimits { message_timeout: Duration::from_millis(500), ..ServerLimits::default() };
    let (cluster, address) = node(limits.clone()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let before = resident_bytes();
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut connection = RawConnection::open(&address).await.expect("there is room");
        for _ in 0..100 {
            let mut stream = connection.stream(STORE, &[]).await.expect("streams are allowed");
            // 16 MiB are announced; a window's worth of it comes.
            let begin = [&[0, 1, 0, 0, 0][..], &[7; 60 << 10]].concat();
            stream.body.send_data(begin.into(), false).expect("the stream is open");
            streams.push(stream);
        }
        connections.push(connection);
    }
    honest.goes_on().await;
    // 800 × 16 MiB were announced: 12.5 GiB.
    let grown = resident_bytes().saturating_sub(before);
    println!("{} messages begun: {} KiB more", streams.len(), grown >> 10);
    assert!(grown < 500 << 20, "{grown}");
    // A large record waits until room is given back.
    let large = honest.log.appender();
    let appended = tokio::time::timeout(PATIENCE, large.append(vec![7; 4 << 20])).await;
    appended.expect("the others were ended").expect("it is appended");
    drop((streams, connections));
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn whoever_speaks_something_else_is_told_so() {
    let (cluster, address) = node(ServerLimits::default()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    for request in
        ["GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "POST /x HTTP/1.0\r\ncontent-length: 100000000\r\n\r\n"]
    {
        let mut socket = TcpStream::connect(&address).await.expect("the node listens");
        socket.write_all(request.as_bytes()).await.expect("it fits");
        socket.shutdown().await.expect("a fresh socket");
        let mut told = String::new();
        soon(socket.read_to_string(&mut told)).await.expect("an answer and an end");
        assert!(told.starts_with("HTTP/1.1 505 "), "{told}");
        assert!(told.contains("gRPC"), "{told}");
    }
    let mut tls = TcpStream::connect(&address).await.expect("the node listens");
    tls.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.expect("it fits");
    closed(&mut tls).await;

    let mut connection = RawConnection::open(&address).await.expect("there is room");
    for path in ["/", "/nowhere", "/bifrost.v1.LogServerService/Nothing", "/bifrost.v2.LogService/Append", "/../etc"] {
        let answer = connection.call(path, &[], framed(&[])).await.expect("an answer");
        assert_eq!(answer.code(), Some(Code::Unimplemented), "{path}: {answer:?}");
    }
    let text = connection.call(GET, &[("content-type", "text/html")], framed(&bytes(1, b"cluster"))).await;
    assert_eq!(text.expect("an answer").http, 415);
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn windows_that_are_never_opened_hold_up_nobody_else() {
    let (cluster, address) = node(ServerLimits::default()).await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let mut connection = RawConnection::open_with(&address, &builder).await.expect("there is room");
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut stream = connection.stream(GET, &[]).await.expect("streams are allowed");
        stream.body.send_data(framed(&bytes(1, b"cluster")), true).expect("the stream is open");
        streams.push(stream);
    }
    honest.goes_on().await;
    drop(streams);
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}
