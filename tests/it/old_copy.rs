//! An old copy of a disk is put in the place of the disk: the node says so and does not serve it, and the newer disk may be
//! put back.

use std::fs;

use super::support::files::copy;
use super::support::server::Cluster;
use super::support::tool::run;

#[test]
fn an_old_copy_of_a_disk_is_refused_and_the_newer_disk_is_served_again() {
    let mut cluster = Cluster::of(1);
    let plain = |command: &mut std::process::Command| {
        command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
    };
    let node = cluster.add(plain);
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["append", "orders"], b"a\n").ok();
    assert_eq!(cluster.stop(node), 0);
    let directory = cluster.directory(node);
    let (old, newer) = (directory.with_extension("old"), directory.with_extension("newer"));
    copy(&directory, &old);
    cluster.start_with(node, plain);
    cluster.run(0, ["append", "orders"], b"b\n").ok();
    assert_eq!(cluster.stop(node), 0);

    fs::rename(&directory, &newer).expect("moved");
    copy(&old, &directory);
    let mut command = cluster.server_command(node);
    plain(&mut command);
    let told = run(&mut command, b"").refused(5);
    for sentence in ["is an old copy of disk", "of life 1", "has begun life 2", "put the newer disk back"] {
        assert!(told.contains(sentence), "{sentence}: {told}");
    }
    // Nothing was marked by it: the disk itself is as good as before.
    fs::remove_dir_all(&directory).expect("removed");
    fs::rename(&newer, &directory).expect("moved");
    let ready = cluster.start_with(node, plain);
    assert_eq!(ready["generation"], 3);
    assert_eq!(cluster.run(0, ["read", "orders", "--output", "raw"], b"").ok(), "a\nb\n");
}
