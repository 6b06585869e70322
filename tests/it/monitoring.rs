//! What a node of `bifrost server` answers over plain HTTP: metrics, whether it lives, whether it serves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::support::server::Cluster;

/// More than a node keeps at the same time.
const CONNECTIONS: usize = 64;

#[test]
fn a_node_tells_monitoring_that_it_lives_and_serves_and_what_it_counts() {
    let cluster = Cluster::of(1);
    assert_eq!(cluster.get(0, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(cluster.get(0, "/readyz"), (200, "ok\n".to_owned()));
    cluster.run(0, ["log", "create", "orders", "--replication", "1"], b"").ok();
    cluster.run(0, ["append", "orders"], b"one\ntwo\n").ok();
    let (status, metrics) = cluster.get(0, "/metrics");
    assert_eq!(status, 200);
    for metric in [
        "bifrost_logserver_loglets_count",
        "bifrost_logserver_files_written_bytes_total",
        "bifrost_catch_up_done_percent",
    ] {
        assert!(metrics.contains(&format!("# TYPE {metric} ")), "{metric} is not in {metrics}");
        assert!(metrics.contains(&format!("# HELP {metric} ")), "{metric} is not explained in {metrics}");
    }
    assert!(metrics.contains("bifrost_logserver_commit_seconds_bucket{le=\"0.005\"}"), "no histogram in {metrics}");
    assert_eq!(cluster.get(0, "/").0, 404);
    assert_eq!(cluster.ask_http(0, "POST", "/metrics").expect("it answers").0, 405);
}

/// The status of an answer, as soon as there is one.
fn soon(cluster: &Cluster, index: usize, path: &str) -> (u16, String) {
    for _ in 0..600 {
        if let Some(answer) = cluster.ask_http(index, "GET", path) {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody answers");
}

#[test]
fn a_node_that_nobody_can_reach_yet_lives_and_does_not_serve() {
    let mut cluster = Cluster::empty();
    let first = cluster.reserve();
    let absent = cluster.reserve();
    // It looks for a member of a cluster that is not there.
    let join = cluster.metadata_address(absent);
    let waiting = cluster.spawn(first, |command| {
        command.args(["--join", &join]);
    });
    assert_eq!(soon(&cluster, first, "/livez").0, 200);
    assert_eq!(cluster.get(first, "/readyz"), (503, "the node starts or stops\n".to_owned()));
    drop(waiting);
}

#[test]
fn whoever_holds_the_port_of_monitoring_is_not_harmed_and_holds_up_nobody() {
    let cluster = Cluster::of(1);
    // As many as it takes, and more, that ask for nothing; those that come too late are closed.
    let idle: Vec<_> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(cluster.monitoring_address(0)).expect("it listens")).collect();
    let closed = idle.iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let mut stream = *stream;
        matches!(stream.read(&mut [0]), Ok(0)) || stream.write_all(b" ").is_err()
    });
    assert!(closed.count() > 0, "{CONNECTIONS} connections are kept");
    drop(idle);
    assert_eq!(soon(&cluster, 0, "/livez").0, 200);
    // An endless head does not grow either.
    let mut endless = TcpStream::connect(cluster.monitoring_address(0)).expect("it listens");
    let line = format!("X: {}\r\n", "x".repeat(4 << 10));
    let mut refused = endless.write_all(b"GET /metrics HTTP/1.1\r\n").is_err();
    for _ in 0..1024 {
        refused = refused || endless.write_all(line.as_bytes()).is_err();
    }
    assert!(refused, "4 MiB of a head are read");
    assert_eq!(soon(&cluster, 0, "/livez").0, 200);
}

#[test]
fn a_port_of_monitoring_that_is_in_use_is_named() {
    let mut cluster = Cluster::empty();
    let first = cluster.reserve();
    let taken = TcpListener::bind(cluster.monitoring_address(first)).expect("it is free");
    let ended = cluster.run_server(first, |command| {
        command.arg("--bootstrap");
    });
    let told = ended.stderr.clone();
    assert!(told.contains("is in use") && told.contains("metrics.listen"), "{told}");
    drop(taken);
}
