//! `bifrost server` with its metadata in etcd.

use std::process::Command;

use bifrost_etcd::testing::Etcd;
use serde_json::Value;

use super::support::server::Cluster;

/// Configures a node for this etcd.
fn with<'a>(etcd: &'a Etcd, prefix: &'a str) -> impl Fn(&mut Command) + 'a {
    move |command| {
        command
            .env("BIFROST__METADATA__ENGINE", "etcd")
            .env("BIFROST__METADATA__ETCD_ENDPOINTS", etcd.endpoint())
            .env("BIFROST__METADATA__ETCD_PREFIX", prefix);
    }
}

#[test]
fn nodes_over_etcd_form_a_cluster_whose_clients_know_nothing_of_it() {
    let etcd = Etcd::start();
    let mut cluster = Cluster::empty();
    let configured = with(&etcd, "house/");
    let first = cluster.reserve();
    let ended = cluster.run_server(first, |command| configured(command));
    assert!(ended.refused(5).contains("there is no cluster in etcd under \"house/\""));
    cluster.start_with(first, |command| configured(command.arg("--bootstrap")));
    let second = cluster.reserve();
    let ready = cluster.start_with(second, |command| configured(command));
    assert_eq!((&ready["node"], &ready["metadata"]), (&Value::from("N2"), &Value::Null), "it found the cluster there");
    cluster.run(second, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(first, ["append", "orders"], b"a\nb\n").ok();
    cluster.run(first, ["reconfigure", "orders"], b"").ok();
    cluster.kill(first);
    cluster.start_with(first, |command| configured(command));
    cluster.run(first, ["append", "orders"], b"c\n").ok();
    let read = cluster.run(second, ["read", "orders", "--output", "raw"], b"").ok();
    assert_eq!(read, "a\nb\nc\n");
    assert_eq!(cluster.stop(first), 0);
}

#[test]
fn a_prefix_holds_one_cluster_and_a_node_keeps_to_its_own() {
    let etcd = Etcd::start();
    let mut cluster = Cluster::empty();
    let first = cluster.reserve();
    cluster.start_with(first, |command| with(&etcd, "one/")(command.arg("--bootstrap")));
    let second = cluster.reserve();
    let ended = cluster.run_server(second, |command| with(&etcd, "one/")(command.arg("--bootstrap")));
    assert!(ended.refused(5).contains("there is a cluster in etcd under \"one/\" already"));
    cluster.start_with(second, |command| with(&etcd, "two/")(command.arg("--bootstrap")));
    assert_ne!(cluster.server(first).ready["cluster"], cluster.server(second).ready["cluster"]);
    assert_eq!(cluster.stop(first), 0);
    let ended = cluster.run_server(first, |command| with(&etcd, "two/")(command));
    assert!(ended.refused(5).contains("the data directory belongs to cluster"));
    let ended = cluster.run_server(first, |_| ());
    assert!(ended.refused(5).contains("the metadata of this cluster is in etcd"));
}
