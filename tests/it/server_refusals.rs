//! What a node that must not start is told: one sentence, why, what next, and the right exit code.

use super::support::ports::free_address;
use super::support::server::Cluster;
use super::support::tool::{Ended, run};

/// Runs a node that is to be refused.
#[track_caller]
fn refused(cluster: &Cluster, index: usize, arguments: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let mut command = cluster.server_command(index);
    command.args(arguments).envs(variables.iter().copied());
    let ended: Ended = run(&mut command, b"");
    let told = ended.refused(code);
    assert!(told.contains("next: "), "{told}");
    told
}

#[test]
fn an_empty_directory_needs_a_cluster_to_make_or_to_join() {
    let mut cluster = Cluster::empty();
    let node = cluster.reserve();
    let told = refused(&cluster, node, &[], &[], 5);
    assert!(told.contains("--bootstrap") && told.contains("--join"), "{told}");
    let told = refused(&cluster, node, &[], &[("BIFROST__NODE__NAME", "")], 2);
    assert!(told.contains("node.name is not set"), "{told}");
    let roles = ("BIFROST__NODE__ROLES", "log-server,sequencer");
    let told = refused(&cluster, node, &["--bootstrap"], &[roles], 5);
    assert!(told.contains("metadata"), "{told}");
    std::fs::write(cluster.directory(node).join("letters"), b"dear").expect("written");
    let told = refused(&cluster, node, &["--bootstrap"], &[], 5);
    assert!(told.contains("not the data of a node"), "{told}");
}

#[test]
fn nobody_answers_where_the_cluster_should_be() {
    let mut cluster = Cluster::empty();
    let node = cluster.reserve();
    let nobody = free_address();
    let told = refused(&cluster, node, &["--join", &nobody], &[], 7);
    assert!(told.contains(&nobody) && told.contains("within 15s"), "{told}");
}

#[test]
fn directories_ports_and_names_belong_to_one_node() {
    let mut cluster = Cluster::of(2);
    let ports = [free_address(), free_address()];
    let elsewhere = [("BIFROST__NODE__LISTEN", ports[0].as_str()), ("BIFROST__METRICS__LISTEN", ports[1].as_str())];
    let told = refused(&cluster, 1, &[], &elsewhere, 5);
    assert!(told.contains("in use by another process"), "{told}");
    let other = cluster.reserve();
    let join = cluster.metadata_address(0);
    let told = refused(&cluster, other, &["--join", &join], &[("BIFROST__NODE__LISTEN", &cluster.address(0))], 5);
    assert!(told.contains(&format!("{} is in use", cluster.address(0))), "{told}");
    let told = refused(&cluster, other, &["--join", &cluster.address(0)], &[], 5);
    assert!(told.contains("not a metadata member"), "{told}");
    // The name of one that lives, then of one that is down: neither its life nor its disk is touched.
    let taken = ("BIFROST__NODE__NAME", "node-1");
    let told = refused(&cluster, other, &["--join", &join], &[taken], 5);
    assert!(told.contains("alive") && told.contains(&cluster.address(1)), "{told}");
    assert_eq!(cluster.stop(1), 0);
    let ready = cluster.start(1);
    assert_eq!((&ready["node"], &ready["generation"]), (&"N2".into(), &2.into()), "no life of it was begun");
    assert_eq!(cluster.stop(1), 0);
    let told = refused(&cluster, 1, &[], &[("BIFROST__NODE__NAME", "somebody-else")], 5);
    assert!(told.contains("belongs to the node `node-1`"), "{told}");
    let told = refused(&cluster, 1, &["--bootstrap"], &[], 5);
    assert!(told.contains("which this node joined"), "{told}");
    let told = refused(&cluster, 1, &[], &[("BIFROST__NODE__ROLES", "log-server,sequencer")], 5);
    assert!(told.contains("role `metadata`"), "{told}");
    let metadata = cluster.directory(1).join("metadata");
    let aside = cluster.directory(1).join("elsewhere");
    std::fs::rename(&metadata, &aside).expect("moved");
    let told = refused(&cluster, 1, &[], &[], 5);
    assert!(told.contains("holds no log of a metadata member, and N2 is one"), "{told}");
    std::fs::rename(&aside, &metadata).expect("moved back");
    cluster.start(1);
}

#[test]
fn the_name_of_a_node_that_is_down_is_not_taken_over_by_an_empty_directory() {
    let mut cluster = Cluster::of(1);
    let join = cluster.metadata_address(0);
    let plain = cluster.add(|command| {
        command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
    });
    assert_eq!(cluster.stop(plain), 0);
    let other = cluster.reserve();
    let told = refused(&cluster, other, &["--join", &join], &[("BIFROST__NODE__NAME", "node-1")], 5);
    assert!(told.contains("with a disk that is not in this data directory"), "{told}");
    let ready = cluster.start_with(plain, |command| {
        command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
    });
    assert_eq!((&ready["node"], &ready["generation"]), (&"N2".into(), &2.into()), "no life of it was begun");
    let ready = cluster.start_with(other, |command| {
        command.args(["--join", &join]);
    });
    assert_eq!((&ready["node"], &ready["name"]), (&"N3".into(), &"node-2".into()), "a name of its own is taken");
}

#[test]
fn data_of_one_cluster_is_not_taken_to_another() {
    let mut ours = Cluster::of(1);
    let theirs = Cluster::of(1);
    assert_eq!(ours.stop(0), 0);
    let told = refused(&ours, 0, &["--join", &theirs.metadata_address(0)], &[], 5);
    let cluster = |cluster: &Cluster| cluster.server(0).ready["cluster"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains(&cluster(&theirs)), "{told}");
    assert_eq!(ours.start(0)["node"], "N1", "nothing of it was changed");
}
