//! The storage states of a disk over the lives of real processes: killed between marker and state, changed by an operator
//! while the node is down or starts, wiped, swapped. An old copy of a disk is in `old_copy`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use bifrost_logserver::Marker;
use serde_json::{Value, json};

use super::support::gate::Gate;
use super::support::server::Cluster;
use super::support::tool::{Ended, run};

/// A node that keeps copies and numbers appends.
fn data(command: &mut Command) {
    command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
}

/// A node for metadata alone, behind a gate, and so many nodes with disks.
fn cluster(disks: usize) -> (Cluster, Gate) {
    let mut cluster = Cluster::empty();
    let first = cluster.reserve();
    let gate = Gate::to(&cluster.metadata_address(first));
    cluster.start_with(first, |command| {
        command.arg("--bootstrap");
        command.env("BIFROST__NODE__ROLES", "metadata").env("BIFROST__METADATA__ADVERTISE", gate.address());
    });
    for _ in 0..disks {
        cluster.add(data);
    }
    (cluster, gate)
}

fn disk(cluster: &Cluster, index: usize) -> PathBuf {
    cluster.directory(index).join("log-server")
}

fn marker(directory: &Path) -> Option<Marker> {
    Marker::read(directory).expect("a marker that can be read")
}

/// What the cluster says of a node.
#[track_caller]
fn known(cluster: &Cluster, index: usize) -> Value {
    let nodes = cluster.run(0, ["nodes", "--output", "json"], b"").objects();
    nodes.into_iter().find(|node| node["name"] == json!(format!("node-{index}"))).expect("the cluster knows it")
}

#[track_caller]
fn set_state(cluster: &Cluster, index: usize, state: &str) {
    cluster.run(0, ["node", "set-state", &format!("node-{index}"), state, "--yes"], b"").ok();
}

#[track_caller]
fn read(cluster: &Cluster, through: usize) -> String {
    cluster.run(through, ["read", "orders", "--output", "raw"], b"").ok()
}

/// Runs a node that is to be refused.
#[track_caller]
fn refused(cluster: &Cluster, index: usize, with: impl FnOnce(&mut Command)) -> String {
    let ended: Ended = cluster.run_server(index, |command| {
        data(command);
        with(command);
    });
    ended.refused(5)
}

#[test]
fn a_node_that_is_killed_between_its_marker_and_its_state_goes_on_with_the_same_disk() {
    let (mut cluster, gate) = cluster(0);
    let node = cluster.reserve();
    let (directory, join) = (disk(&cluster, node), cluster.metadata_address(0));
    let watched = directory.clone();
    // What a node sends once it has its marker is the write of the state.
    gate.hold_when(move || matches!(Marker::read(&watched), Ok(Some(_))));
    let server = cluster.spawn(node, |command| {
        data(command.args(["--join", &join]));
    });
    gate.wait_held();
    let before = known(&cluster, node);
    assert_eq!((&before["storage"], &before["disk"]), (&json!("provisioning"), &Value::Null));
    let marked = marker(&directory).expect("it is written before the state");
    drop(server);
    gate.release();

    let ready = cluster.start_with(node, data);
    assert_eq!((&ready["node"], &ready["generation"]), (&json!("N2"), &json!(2)), "it is the same node");
    let after = known(&cluster, node);
    assert_eq!((&after["storage"], &after["disk"]), (&json!("read-write"), &json!(marked.disk.to_string())));
    cluster.run(node, ["log", "create", "orders", "--replication", "1"], b"").ok();
    cluster.run(node, ["append", "orders"], b"a\n").ok();
    assert_eq!(read(&cluster, node), "a\n");
}

#[test]
fn an_operator_changes_the_state_of_a_disk_while_its_node_is_down() {
    let (mut cluster, _gate) = cluster(2);
    cluster.run(1, ["log", "create", "orders", "--replication", "1"], b"").ok();
    cluster.run(1, ["reconfigure", "orders", "--nodeset", "N2", "--sequencer", "N2"], b"").ok();
    cluster.run(1, ["append", "orders"], b"a\n").ok();
    cluster.kill(1);
    set_state(&cluster, 1, "read-only");
    cluster.start_with(1, data);
    assert_eq!(known(&cluster, 1)["storage"], "read-only", "the start changes nothing about it");
    // It serves what only it has, and takes nothing new.
    assert_eq!(read(&cluster, 2), "a\n");
    cluster.run(1, ["log", "create", "other", "--replication", "1"], b"").ok();
    let described = cluster.run(1, ["log", "describe", "other", "--output", "json"], b"").objects();
    let members = described[0]["segments"][0]["nodeset"].as_array().expect("a list");
    assert_eq!(members.iter().map(|member| &member["node"]).collect::<Vec<_>>(), [&json!("N3")]);

    cluster.kill(1);
    set_state(&cluster, 1, "read-write");
    cluster.start_with(1, data);
    assert_eq!(known(&cluster, 1)["storage"], "read-write");
    cluster.run(1, ["reconfigure", "orders", "--nodeset", "N2"], b"").ok();
    cluster.run(1, ["append", "orders"], b"b\n").ok();
    assert_eq!(read(&cluster, 2), "a\nb\n");
}

#[test]
fn an_operator_changes_the_state_of_a_disk_while_its_node_starts() {
    let (mut cluster, gate) = cluster(1);
    // Holds the write that begins a life: the marker has that life by then.
    let begins = |life: u32| {
        let watched = disk(&cluster, 1);
        move || matches!(Marker::read(&watched), Ok(Some(found)) if found.generation.is_some_and(|of| of.get() >= life))
    };
    let (second, third) = (begins(2), begins(3));
    cluster.kill(1);
    gate.hold_when(second);
    let server = cluster.spawn(1, data);
    gate.wait_held();
    set_state(&cluster, 1, "read-only");
    gate.release();
    cluster.ready(1, server);
    let after = known(&cluster, 1);
    assert_eq!((&after["storage"], &after["generation"]), (&json!("read-only"), &json!(2)));

    cluster.kill(1);
    gate.hold_when(third);
    let mut command = cluster.server_command(1);
    data(&mut command);
    let starting = thread::spawn(move || run(&mut command, b""));
    gate.wait_held();
    set_state(&cluster, 1, "data-loss");
    gate.release();
    let told = starting.join().expect("it ends").refused(5);
    assert!(told.contains("is in state data-loss and is not served"), "{told}");
    assert_eq!(known(&cluster, 1)["storage"], "data-loss");
}

/// Three disks, and a log with two records on the first two. The first node numbers it: when that is gone, whoever asks for
/// the tail moves the log, while a missing copy alone is waited for.
fn with_records() -> (Cluster, Gate) {
    let (cluster, gate) = cluster(3);
    cluster.run(1, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(1, ["reconfigure", "orders", "--nodeset", "N2,N3", "--sequencer", "N2"], b"").ok();
    cluster.run(1, ["append", "orders"], b"a\nb\n").ok();
    // A copy that has not heard yet that both are acknowledged would have to wait for the other disk.
    let heard = |explained: &Value| {
        let servers = explained["servers"].as_array().expect("a list");
        servers.len() == 2 && servers.iter().all(|server| server["committed_tail"] == json!(3))
    };
    let explain = || cluster.run(1, ["explain", "orders", "--output", "json"], b"").objects();
    assert!((0..500).any(|_| explain().iter().any(heard)), "both disks hear of it: {:?}", explain());
    (cluster, gate)
}

#[test]
fn a_wiped_disk_is_lost_and_the_log_is_read_from_the_others() {
    let (mut cluster, _gate) = with_records();
    let lost = known(&cluster, 1)["disk"].as_str().expect("a disk").to_owned();
    cluster.kill(1);
    fs::remove_dir_all(disk(&cluster, 1)).expect("removed");
    // The node knows that it had a disk, and nobody else can be at its address.
    let told = refused(&cluster, 1, |_| ());
    assert!(told.contains(&format!("disk {lost} of this node is gone")), "{told}");
    assert_eq!(known(&cluster, 1)["storage"], "data-loss");
    assert!(!disk(&cluster, 1).exists(), "nothing was made in its place");
    let again = refused(&cluster, 1, |_| ());
    assert!(again.contains("is in state data-loss and is not served"), "{again}");
    assert_eq!(read(&cluster, 2), "a\nb\n");
    cluster.run(2, ["append", "orders"], b"c\n").ok();
    assert_eq!(read(&cluster, 3), "a\nb\nc\n");
}

#[test]
fn a_wiped_data_directory_does_not_take_the_name_of_its_node() {
    let (mut cluster, _gate) = with_records();
    cluster.kill(1);
    fs::remove_dir_all(cluster.directory(1)).expect("removed");
    let told = refused(&cluster, 1, |_| ());
    assert!(told.contains("there is no cluster to make or to join"), "{told}");
    let join = cluster.metadata_address(0);
    let told = refused(&cluster, 1, |command| {
        command.args(["--join", &join]);
    });
    assert!(told.contains("`node-1`, N2, with a disk that is not in this data directory"), "{told}");
    assert_eq!(known(&cluster, 1)["storage"], "read-write", "its disk may be somewhere else");
    assert_eq!(read(&cluster, 2), "a\nb\n");
    // An operator says that it is not, and a node of another name takes its place.
    set_state(&cluster, 1, "data-loss");
    let ready = cluster.start_with(1, |command| {
        data(command.args(["--join", &join]));
        command.env("BIFROST__NODE__NAME", "its-successor");
    });
    assert_eq!(ready["node"], "N5");
    cluster.run(1, ["append", "orders"], b"c\n").ok();
    assert_eq!(read(&cluster, 1), "a\nb\nc\n");
}

#[test]
fn disks_that_were_swapped_are_refused_and_say_whose_they_are() {
    let (mut cluster, _gate) = cluster(2);
    let (one, other, aside) = (disk(&cluster, 1), disk(&cluster, 2), cluster.directory(1).join("aside"));
    let swap = || {
        for (from, to) in [(&one, &aside), (&other, &one), (&aside, &other)] {
            fs::rename(from, to).expect("moved");
        }
    };
    cluster.kill(1);
    cluster.kill(2);
    swap();
    for (index, whose) in [(1, "N3"), (2, "N2")] {
        let told = refused(&cluster, index, |_| ());
        assert!(
            told.contains("the data directory belongs to cluster") && told.contains(&format!("node {whose}")),
            "{told}"
        );
        assert_eq!(known(&cluster, index)["storage"], "read-write");
    }
    swap();
    for index in [1, 2] {
        assert_eq!(cluster.start_with(index, data)["generation"], 2, "the refusals began no life");
    }
}
