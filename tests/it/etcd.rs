//! `bifrost server` with its metadata in etcd.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bifrost::catalog::Catalog;
use bifrost_etcd::testing::Etcd;
use bifrost_etcd::{EtcdMetadata, EtcdOptions};
use serde_json::Value;
use tokio::time::timeout;

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
fn while_etcd_is_away_a_client_is_told_that_it_is_not_the_nodes() {
    let etcd = Etcd::start();
    let mut cluster = Cluster::empty();
    let only = cluster.reserve();
    cluster.start_with(only, |command| with(&etcd, "house/")(command.arg("--bootstrap")));
    drop(etcd);
    let told = cluster.run(only, ["log", "list"], b"").refused(7);
    assert!(told.contains("the cluster's metadata does not answer"), "{told}");
    assert!(told.contains("N1:1 answers, its metadata does not"), "{told}");
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

/// A lease of a few seconds, a silence, and a busy machine; only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_log_over_etcd_leaves_whichever_node_falls_silent() -> anyhow::Result<()> {
    let etcd = Etcd::start();
    let mut cluster = Cluster::empty();
    let configured = with(&etcd, "house/");
    for node in 0..3 {
        let index = cluster.reserve();
        cluster.start_with(index, |command| configured(if node == 0 { command.arg("--bootstrap") } else { command }));
    }
    cluster.run(0, ["log", "create", "idle", "--replication", "2"], b"").ok();
    cluster.run(0, ["append", "idle"], b"kept\n").ok();
    let options = EtcdOptions { prefix: "house/".to_owned(), ..EtcdOptions::new(vec![etcd.endpoint().to_owned()]) };
    let catalog = Catalog::new(Arc::new(EtcdMetadata::connect(options)?));
    let log = catalog.log_id("idle").await?.context("it was made")?;
    // Each of them in turn, so also the one that judges.
    for silent in 0..3 {
        let (through, node) = ((silent + 1) % 3, format!("N{}", silent + 1));
        if catalog.chain(log).await?.chain.last().context("a chain is not empty")?.params.sequencer.node.to_string()
            != node
        {
            cluster.run(through, ["reconfigure", "idle", "--sequencer", &node], b"").ok();
        }
        cluster.signal(silent, "STOP");
        let moved = async {
            let mut stored = catalog.chain(log).await?;
            let mut watch = catalog.watch_chain(log, stored.revision).await?;
            loop {
                let last = stored.chain.last().context("a chain is not empty")?;
                if last.decided_tail().is_none() && last.params.sequencer.node.to_string() != node {
                    return anyhow::Ok(());
                }
                watch.recv().await.context("the watch ended")??;
                stored = catalog.chain(log).await?;
            }
        };
        timeout(PATIENCE, moved).await.with_context(|| format!("nobody moved it off {node}"))??;
        assert_eq!(cluster.run(through, ["read", "idle", "--output", "raw"], b"").ok(), "kept\n");
        cluster.signal(silent, "CONT");
    }
    Ok(())
}
