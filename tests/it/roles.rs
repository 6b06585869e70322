//! `bifrost server` with some of the roles.

use std::process::Command;

use serde_json::{Value, json};

use super::support::server::Cluster;

/// Adds a node with these roles.
#[track_caller]
fn add(cluster: &mut Cluster, roles: &'static str) -> usize {
    cluster.add(|command: &mut Command| {
        command.env("BIFROST__NODE__ROLES", roles);
    })
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    cluster.run(0, [arguments, &["--output", "json"]].concat(), b"").objects()
}

#[test]
fn each_role_may_have_nodes_of_its_own() {
    let mut cluster = Cluster::empty();
    let first = cluster.reserve();
    cluster.start_with(first, |command| {
        command.arg("--bootstrap").env("BIFROST__NODE__ROLES", "metadata");
    });
    for roles in ["log-server", "log-server", "sequencer"] {
        add(&mut cluster, roles);
    }
    // A node for metadata alone has no door for clients of the logs, and knows where the others are.
    let nodes = json(&cluster, &["nodes"]);
    let roles: Vec<_> = nodes.iter().map(|node| node["roles"].clone()).collect();
    assert_eq!(roles, [json!(["metadata"]), json!(["log-server"]), json!(["log-server"]), json!(["sequencer"])]);
    let disks: Vec<_> = nodes.iter().map(|node| node["disk"].is_string()).collect();
    assert_eq!(disks, [false, true, true, false]);
    assert!(nodes.iter().all(|node| node["answers"] == json!(true)), "{nodes:?}");

    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["append", "orders"], b"one\ntwo\n").ok();
    let log = json(&cluster, &["log", "describe", "orders"]).remove(0);
    let last = &log["segments"][0];
    let members: Vec<_> = last["nodeset"].as_array().unwrap().iter().map(|member| member["node"].clone()).collect();
    assert_eq!((&last["sequencer"], members), (&json!("N4:1"), vec![json!("N2"), json!("N3")]));
    assert_eq!(cluster.run(1, ["read", "orders", "--output", "raw"], b"").ok(), "one\ntwo\n");
    let wish = cluster.run(0, ["reconfigure", "orders", "--sequencer", "N2"], b"").refused(5);
    assert!(wish.contains("N2 has not the role sequencer"), "{wish}");

    // Whoever has copies keeps the role, and says so.
    assert_eq!(cluster.stop(1), 0);
    let mut command = cluster.server_command(1);
    command.env("BIFROST__NODE__ROLES", "sequencer");
    let refused = super::support::tool::run(&mut command, b"").refused(5);
    assert!(refused.contains("without the role `log-server`") && refused.contains("set-state"), "{refused}");

    // A node without a disk lives its next life in the same place.
    cluster.kill(3);
    let again = cluster.start_with(3, |command| {
        command.env("BIFROST__NODE__ROLES", "sequencer");
    });
    assert_eq!((&again["node"], &again["generation"]), (&json!("N4"), &json!(2)));
}

#[test]
fn no_role_and_unknown_roles_are_refused() {
    let mut cluster = Cluster::empty();
    let node = cluster.reserve();
    for roles in ["", "storage", "metadata,Sequencer"] {
        let mut command = cluster.server_command(node);
        let told = super::support::tool::run(command.arg("--bootstrap").env("BIFROST__NODE__ROLES", roles), b"");
        let refused = told.refused(2);
        assert!(
            refused.contains("one or more of \"metadata\", \"log-server\" and \"sequencer\""),
            "{roles}: {refused}"
        );
    }
    assert!(!cluster.directory(node).exists(), "nothing was begun");
}

#[test]
fn a_pinned_log_goes_to_its_pin_and_does_not_wait_for_it() {
    let mut cluster = Cluster::of(1);
    for _ in 0..2 {
        add(&mut cluster, "log-server,sequencer");
    }
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["reconfigure", "orders", "--sequencer", "N1"], b"").ok();
    let pinned = json(&cluster, &["log", "pin", "orders", "--node", "node-1"]).remove(0);
    assert_eq!((&pinned["pin"], &pinned["sequencer"]), (&json!("N2"), &json!("N1")));
    let explained = cluster.run(0, ["explain", "orders"], b"").ok();
    assert!(explained.contains("to N2, and N1 numbers the appends"), "{explained}");
    let moved = json(&cluster, &["reconfigure", "orders"]).remove(0);
    assert_eq!(moved["next"]["sequencer"], json!("N2:1"), "{moved}");
    let again = json(&cluster, &["reconfigure", "orders"]).remove(0);
    assert_eq!(again["next"]["sequencer"], json!("N2:1"), "a pin holds: {again}");

    cluster.kill(1);
    cluster.run(0, ["append", "orders"], b"one\n").ok();
    let log = json(&cluster, &["log", "describe", "orders"]).remove(0);
    let sequencer = log["segments"].as_array().unwrap().last().unwrap()["sequencer"].clone();
    assert_eq!(log["pin"], json!("N2"));
    assert!(sequencer == json!("N1:1") || sequencer == json!("N3:1"), "{sequencer}");
    let free = json(&cluster, &["log", "pin", "orders", "--none"]).remove(0);
    assert_eq!(free["pin"], Value::Null);
    assert!(cluster.run(0, ["log", "pin", "orders", "--node", "N9"], b"").refused(4).contains("`bifrost nodes`"));
}
