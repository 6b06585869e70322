//! `bifrost server`: processes that form a cluster, are killed and stopped, and go on. What a node that must not start is
//! told is in `server_refusals`.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::server::{Cluster, Server};
use super::support::tool::{Ended, objects};

/// Only a cluster that does not go on gets here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats a command whose outcome depends on the cluster's going on.
#[track_caller]
fn eventually(what: &str, mut attempt: impl FnMut() -> Option<()>) {
    let begun = Instant::now();
    while attempt().is_none() {
        assert!(begun.elapsed() < PATIENCE, "{what} for {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn payloads(read: Ended) -> Vec<String> {
    read.ok().lines().map(str::to_owned).collect()
}

fn read(cluster: &Cluster, through: usize, log: &str) -> Vec<String> {
    payloads(cluster.run(through, ["read", log, "--output", "raw"], b""))
}

fn state(directory: &Path) -> Value {
    let text = std::fs::read_to_string(directory.join("node.json")).expect("node.json is there");
    serde_json::from_str(&text).expect("node.json is JSON")
}

#[test]
fn three_processes_form_a_cluster_that_is_used_through_any_of_them() {
    let cluster = Cluster::of(3);
    let nodes: Vec<_> = (0..3).map(|index| cluster.server(index).ready["node"].clone()).collect();
    assert_eq!(nodes, ["N1", "N2", "N3"]);
    for index in 0..3 {
        assert_eq!(cluster.server(index).ready["cluster"], cluster.server(0).ready["cluster"]);
        let log = format!("log-{index}");
        cluster.run(index, ["log", "create", &log, "--replication", "2"], b"").ok();
        cluster.run(index, ["append", &log], b"a\nb\n").ok();
        for through in 0..3 {
            assert_eq!(read(&cluster, through, &log), ["a", "b"]);
        }
        let known = state(&cluster.directory(index));
        assert_eq!((&known["node"], &known["member"]["voter"]), (&Value::from(index + 1), &Value::from(true)));
    }
}

#[test]
fn the_metadata_leader_is_killed_while_records_are_appended_and_catches_up_when_it_returns() {
    let mut cluster = Cluster::of(3);
    cluster.run(1, ["log", "create", "orders", "--replication", "2"], b"").ok();
    // The first node made the group and leads it; nobody has taken that over yet.
    let mut appending = cluster.start_command(1, ["append", "orders", "--output", "json"]);
    let mut input = appending.stdin.take().expect("piped");
    let line = |number: u32| format!("record {number}\n");
    let mut write = |range: std::ops::Range<u32>| {
        for number in range {
            input.write_all(line(number).as_bytes()).expect("it reads on");
            thread::sleep(Duration::from_millis(5));
        }
    };
    write(0..100);
    cluster.kill(0);
    write(100..300);
    drop(input);
    let told = cluster.finish(appending);
    let committed = objects(&told.ok());
    assert_eq!(committed.len(), 300);
    assert!(committed.iter().all(|outcome| outcome["outcome"] == "committed"), "{committed:?}");
    // What needs metadata goes on too.
    eventually("no log can be made without the first member", || {
        let made = cluster.run(2, ["log", "create", "later", "--replication", "2"], b"");
        (made.code == 0 || made.stderr.contains("name")).then_some(())
    });
    assert_eq!(read(&cluster, 2, "orders").len(), 300);
    let back = cluster.start(0);
    assert_eq!(back["node"], "N1");
    // With one of the others gone, the two that are left need the first one's copy of the metadata for a majority.
    cluster.kill(1);
    eventually("the returned member does not make a majority", || {
        let made = cluster.run(0, ["log", "create", "with-the-first", "--replication", "2"], b"");
        (made.code == 0 || made.stderr.contains("name")).then_some(())
    });
    assert_eq!(read(&cluster, 0, "orders").len(), 300);
}

#[test]
fn each_process_is_stopped_in_turn_and_the_others_go_on() {
    let mut cluster = Cluster::of(3);
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    let mut written = Vec::new();
    for index in 0..3 {
        let other = (index + 1) % 3;
        assert_eq!(cluster.stop(index), 0, "SIGTERM ends it in good order");
        let record = format!("without {index}");
        cluster.run(other, ["append", "orders"], format!("{record}\n").as_bytes()).ok();
        written.push(record);
        assert_eq!(read(&cluster, other, "orders"), written);
        // Neither --bootstrap nor --join: it knows its cluster.
        let ready = cluster.start(index);
        assert_eq!(ready["node"], format!("N{}", index + 1));
        assert_eq!(read(&cluster, index, "orders"), written);
    }
}

#[test]
fn a_node_without_the_role_metadata_serves_like_any_other() {
    let mut cluster = Cluster::of(1);
    let plain = cluster.add(|command| {
        command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
    });
    assert_eq!(cluster.server(plain).ready["metadata"], Value::Null);
    assert_eq!(state(&cluster.directory(plain))["member"], Value::Null);
    cluster.run(plain, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(plain, ["append", "orders"], b"a\n").ok();
    assert_eq!(cluster.stop(plain), 0);
    cluster.start_with(plain, |command| {
        command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
    });
    assert_eq!(read(&cluster, plain, "orders"), ["a"]);
}

#[test]
fn a_start_that_was_killed_between_its_steps_goes_on() {
    let mut cluster = Cluster::of(1);
    // Each kill comes a little later, so that they fall between different steps of joining.
    let (joining, join) = (cluster.reserve(), cluster.metadata_address(0));
    let mut reached = Vec::new();
    for step in 0..12_u32 {
        let server = cluster.spawn(joining, |command| {
            command.args(["--join", &join]);
        });
        server.kill_after(Duration::from_millis(u64::from(step) * 40));
        let directory = cluster.directory(joining);
        reached.push(directory.join("node.json").exists().then(|| state(&directory)["node"].clone()));
    }
    assert!(reached.contains(&None), "the first was killed before it knew the cluster: {reached:?}");
    let ready = cluster.start_with(joining, |command| {
        command.args(["--join", &join]);
    });
    assert_eq!(ready["node"], "N2", "it is one node, however often it began");
    assert_eq!(state(&cluster.directory(joining))["member"]["voter"], true);
    cluster.run(joining, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(joining, ["append", "orders"], b"a\n").ok();
    assert_eq!(read(&cluster, 0, "orders"), ["a"]);
}

#[test]
fn a_first_start_that_was_killed_between_its_steps_goes_on() {
    let mut cluster = Cluster::empty();
    let first = cluster.reserve();
    for step in 0..10_u32 {
        let server = cluster.spawn(first, |command| {
            command.arg("--bootstrap");
        });
        server.kill_after(Duration::from_millis(u64::from(step) * 40));
    }
    let ready = cluster.start_with(first, |command| {
        command.arg("--bootstrap");
    });
    assert_eq!(ready["node"], "N1");
    let again: Server = {
        assert_eq!(cluster.stop(first), 0);
        cluster.spawn(first, |command| {
            command.arg("--bootstrap");
        })
    };
    assert_eq!(again.wait_ready()["cluster"], ready["cluster"], "a second --bootstrap changes nothing");
}
