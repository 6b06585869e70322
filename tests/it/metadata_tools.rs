//! `bifrost metadata ...` against processes: who is in the group, moving it to another engine, and what is left of it.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bifrost_etcd::testing::Etcd;
use bifrost_metadata::Export;
use bifrost_wire::grpc::{ClientOptions, GrpcMetadata};
use bifrost_wire::metadata::{MetadataStore, Txn};
use serde_json::Value;

use super::support::server::Cluster;
use super::support::small_disk::{SmallDisk, ran_as_root};
use super::support::tool::{Dev, Ended, command, run};

/// Only a cluster that does not go on gets here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `bifrost metadata` as somebody who knows the member of this node.
fn metadata(cluster: &Cluster, through: usize, arguments: &[&str]) -> Ended {
    let member = cluster.metadata_address(through);
    let mut all = vec!["metadata"];
    all.extend(arguments);
    if arguments.first().is_some_and(|command| command.ends_with("member") || *command == "members") {
        all.extend(["--member", &member]);
    }
    all.extend(["--output", "json"]);
    cluster.run(through, all, b"")
}

fn members(cluster: &Cluster, through: usize) -> Vec<String> {
    let told = metadata(cluster, through, &["members"]).objects();
    told.iter().map(|member| member["node"].as_str().expect("a node").to_owned()).collect()
}

fn read(cluster: &Cluster, through: usize) -> String {
    cluster.run(through, ["read", "orders", "--output", "raw"], b"").ok()
}

#[test]
fn a_member_is_removed_unless_the_others_could_not_decide_without_it() {
    let mut cluster = Cluster::of(3);
    let told = metadata(&cluster, 1, &["members"]).objects();
    assert!(told.iter().all(|member| member["voter"] == true && member["answers"] == true), "{told:?}");
    assert_eq!(told.iter().filter(|member| member["role"] == "leader").count(), 1, "{told:?}");
    cluster.kill(2);
    let error = metadata(&cluster, 0, &["remove-member", "N2"]).error(5);
    assert_eq!(error["message"], "1 of the voters that would be left answer, and 2 must");
    metadata(&cluster, 1, &["remove-member", "N3"]).ok();
    assert_eq!(members(&cluster, 0), ["N1", "N2"], "a dead one goes");
    metadata(&cluster, 0, &["remove-member", "N3"]).ok();
    let error = metadata(&cluster, 2, &["members"]).error(7);
    assert!(error["message"].as_str().is_some_and(|told| told.starts_with("no metadata member answered at ")));
}

#[test]
fn a_member_that_moved_to_another_port_is_found_there() {
    let mut cluster = Cluster::of(3);
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    assert_eq!(cluster.stop(2), 0);
    let moved = cluster.move_metadata(2);
    assert_eq!(cluster.start(2)["metadata"], Value::from(moved.clone()));
    let told = metadata(&cluster, 0, &["members"]).objects();
    assert!(told.iter().any(|member| member["address"] == moved.as_str() && member["answers"] == true), "{told:?}");
    // The two that are left are a majority only if they find each other.
    cluster.kill(0);
    eventually("the member that moved makes no majority", || {
        let made = cluster.run(1, ["log", "create", "later", "--replication", "2"], b"");
        made.code == 0 || made.stderr.contains("name")
    });
}

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what} for {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_lost_majority_is_recovered_from_one_member_and_two_new_nodes_join_it() {
    let mut cluster = Cluster::of(3);
    cluster.run(0, ["log", "create", "orders", "--replication", "3"], b"").ok();
    cluster.run(0, ["append", "orders"], b"before\n").ok();
    let data = cluster.directory(2);
    let data = data.to_str().expect("text");
    let error = metadata(&cluster, 2, &["recover", "--from", data, "--dry-run"]).error(5);
    assert_eq!(error["code"], "in-use", "it runs");
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in [0, 1] {
        fs::remove_dir_all(cluster.directory(index)).expect("removed");
    }
    let dry = metadata(&cluster, 2, &["recover", "--from", data, "--dry-run"]).objects().remove(0);
    assert_eq!((&dry["recovered"], &dry["logs"], &dry["nodes"]), (&false.into(), &1.into(), &3.into()));
    assert_eq!(dry["newest"][0]["name"], "orders");
    assert_eq!(dry["left_out"].as_array().map(Vec::len), Some(2), "{dry}");
    let refused = metadata(&cluster, 2, &["recover", "--from", data]);
    assert!(refused.error(5)["message"].as_str().is_some_and(|told| told.contains("not confirmed")));
    let done = metadata(&cluster, 2, &["recover", "--from", data, "--yes"]).objects().remove(0);
    assert_eq!((&done["recovered"], &done["revision"]), (&true.into(), &dry["revision"]));
    cluster.start(2);
    assert_eq!(members(&cluster, 2), ["N3"], "it leads alone");
    // What it says of the log is there; its records are on disks that were removed, too.
    let told = cluster.run(2, ["log", "describe", "orders", "--output", "json"], b"").objects();
    assert_eq!(told[0]["name"], "orders");
    let join = cluster.metadata_address(2);
    for _ in 0..2 {
        let new = cluster.reserve();
        cluster.start_with(new, |command| {
            command.args(["--join", &join]);
        });
    }
    assert_eq!(members(&cluster, 2), ["N3", "N4", "N5"]);
    cluster.run(3, ["log", "create", "later", "--replication", "2"], b"").ok();
    cluster.run(4, ["append", "later"], b"after\n").ok();
}

#[test]
fn members_that_return_after_a_recovery_are_refused_and_join_it_anew() {
    let mut cluster = Cluster::of(3);
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["append", "orders"], b"before\n").ok();
    for index in 0..3 {
        cluster.kill(index);
    }
    let data = cluster.directory(0);
    metadata(&cluster, 0, &["recover", "--from", data.to_str().expect("text"), "--yes"]).ok();
    cluster.start(0);
    for index in [1, 2] {
        let told = cluster.run_server(index, |_| ()).refused(5);
        assert!(told.contains("was recovered without it"), "{told}");
    }
    assert_eq!(members(&cluster, 0), ["N1"], "nobody got in");
    let join = cluster.metadata_address(0);
    for index in [1, 2] {
        let directory = cluster.directory(index);
        fs::rename(directory.join("metadata"), directory.join("metadata.old")).expect("moved");
        let ready = cluster.start_with(index, |command| {
            command.args(["--join", &join]);
        });
        assert_eq!(ready["node"], format!("N{}", index + 1), "it is the same node, with its records");
    }
    assert_eq!(members(&cluster, 1), ["N1", "N2", "N3"]);
    cluster.run(1, ["append", "orders"], b"after\n").ok();
    assert_eq!(read(&cluster, 2), "before\nafter\n");
}

#[test]
fn a_metadata_member_whose_disk_ran_full_comes_back_by_itself_when_there_is_room() {
    if ran_as_root() {
        return;
    }
    let disk = SmallDisk::mount(256);
    let mut cluster = Cluster::of(1);
    assert_eq!(cluster.stop(0), 0);
    let (metadata, there) = (cluster.directory(0).join("metadata"), disk.path().join("member"));
    let copied = Command::new("cp").args(["-a".as_ref(), metadata.as_os_str(), there.as_os_str()]).status();
    assert!(copied.is_ok_and(|status| status.success()));
    fs::remove_dir_all(&metadata).expect("removed");
    std::os::unix::fs::symlink(&there, &metadata).expect("linked");
    cluster.start(0);
    cluster.run(0, ["log", "create", "before"], b"").ok();
    disk.fill(0);
    // Another name each time: one whose outcome is not told may be taken.
    let mut names = (0..).map(|number| format!("log-{number}"));
    let create = || {
        let name = names.next().expect("endless");
        cluster.run(0, ["log", "create", &name, "--timeout", "2s"], b"").code == 0
    };
    // The database has taken some space for its log beforehand: that is used up first.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = cluster.metadata_address(0);
    let store = runtime.block_on(async { GrpcMetadata::connect_lazy(&address, ClientOptions::default()) });
    let store = store.expect("an address");
    let put = |number: u32| runtime.block_on(store.txn(Txn::new().put(format!("fill/{number}"), vec![7; 600 << 10])));
    assert!((0..200).any(|number| put(number).is_err()), "a full disk stops nobody");
    disk.clear();
    eventually("the member does not come back", create);
    let told = cluster.run(0, ["log", "list", "--output", "json"], b"").objects();
    assert!(told.iter().any(|log| log["name"] == "before"), "{told:?}");
    assert_eq!(cluster.stop(0), 0, "it is the same process");
}

/// The values of all keys in a file.
fn values(file: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let export = Export::decode(&fs::read(file).expect("a file")).expect("an export");
    export.keyspace.entries().map(|(key, value)| (key.to_owned(), value.value.to_vec())).collect()
}

#[test]
fn metadata_moves_from_raft_to_etcd_and_back_and_the_cluster_goes_on() {
    let etcd = Etcd::start();
    let files = tempfile::tempdir().expect("a directory");
    let file = |name: &str| files.path().join(name).to_str().expect("text").to_owned();
    let configured = |command: &mut Command| {
        command
            .env("BIFROST__METADATA__ENGINE", "etcd")
            .env("BIFROST__METADATA__ETCD_ENDPOINTS", etcd.endpoint())
            .env("BIFROST__METADATA__ETCD_PREFIX", "moved/");
    };
    let mut cluster = Cluster::of(2);
    let tool = |cluster: &Cluster, arguments: &[&str]| {
        let mut command = cluster.command(0, [&["metadata"], arguments, &["--output", "json"]].concat());
        configured(&mut command);
        command.env("BIFROST__METADATA__LISTEN", cluster.metadata_address(0));
        super::support::tool::run(&mut command, b"")
    };
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["append", "orders"], b"in raft\n").ok();
    tool(&cluster, &["export", &file("online")]).ok();
    for index in [0, 1] {
        assert_eq!(cluster.stop(index), 0);
    }
    let data = cluster.directory(0).to_str().expect("text").to_owned();
    tool(&cluster, &["export", &file("raft"), "--data-dir", &data]).ok();
    let told = cluster.run_server(0, configured).refused(5);
    assert!(told.contains("there is no cluster in etcd"), "{told}");
    tool(&cluster, &["import", &file("raft"), "--etcd"]).ok();
    assert_eq!(tool(&cluster, &["import", &file("raft"), "--etcd"]).error(5)["code"], "refused", "only once");
    tool(&cluster, &["export", &file("in-etcd"), "--etcd"]).ok();
    assert_eq!(values(files.path().join("raft").as_path()), values(files.path().join("in-etcd").as_path()));

    for index in [0, 1] {
        assert_eq!(cluster.start_with(index, configured)["metadata"], Value::Null);
    }
    cluster.run(1, ["append", "orders"], b"in etcd\n").ok();
    cluster.run(1, ["reconfigure", "orders"], b"").ok();
    for index in [0, 1] {
        assert_eq!(cluster.stop(index), 0);
    }
    let told = cluster.run_server(0, |_| ()).refused(5);
    assert!(told.contains("the metadata of this cluster is in etcd"), "{told}");
    tool(&cluster, &["export", &file("etcd"), "--etcd"]).ok();
    tool(&cluster, &["import", &file("etcd"), "--data-dir", &data]).ok();
    cluster.start(0);
    let join = cluster.metadata_address(0);
    cluster.start_with(1, |command| {
        command.args(["--join", &join]);
    });
    assert_eq!(members(&cluster, 0), ["N1", "N2"]);
    cluster.run(0, ["append", "orders"], b"in raft again\n").ok();
    assert_eq!(read(&cluster, 1), "in raft\nin etcd\nin raft again\n");
}

#[test]
fn a_local_store_is_exported_and_another_one_is_filled_with_it() {
    let root = tempfile::tempdir().expect("a directory");
    let data = ["--data-dir", root.path().to_str().expect("text")];
    let store = root.path().join("metadata");
    let path = |name: &str| root.path().join(name).to_str().expect("text").to_owned();
    let dev = Dev::start(data);
    dev.run(["log", "create", "orders"]).ok();
    dev.feed(["append", "orders"], "one\ntwo\n").ok();
    dev.run(["reconfigure", "orders"]).ok();
    // Through the nodes, and from their store itself once they have stopped.
    dev.run(["metadata", "export", &path("online")]).ok();
    let tool = |arguments: &[&str]| run(&mut command([&["metadata"], arguments, &["--output", "json"]].concat()), b"");
    let local = store.to_str().expect("text");
    tool(&["export", &path("in-use"), "--local", local]).error(5);
    assert_eq!(dev.end("TERM").0, 0);
    tool(&["export", &path("offline"), "--local", local]).ok();
    let (online, offline) = (values(path("online").as_ref()), values(path("offline").as_ref()));
    assert!(online.iter().all(|(key, _)| offline.iter().any(|(other, _)| other == key)), "{online:?}");
    tool(&["export", &path("offline"), "--local", local]).error(3);

    fs::rename(&store, path("old")).expect("moved");
    let told = tool(&["import", &path("offline"), "--local", local]).objects().remove(0);
    assert_eq!((&told["keys"], &told["resumed"]), (&offline.len().into(), &false.into()));
    assert_eq!(tool(&["import", &path("offline"), "--local", local]).error(5)["code"], "refused", "only once");
    tool(&["export", &path("again"), "--local", local]).ok();
    assert_eq!(values(path("again").as_ref()), offline, "nothing more and nothing less");
    let dev = Dev::start(data);
    assert_eq!(dev.run(["read", "orders", "--output", "raw"]).ok(), "one\ntwo\n");
    assert_eq!(dev.feed(["append", "orders"], "three\n").ok(), "3\n");
    assert_eq!(dev.end("TERM").0, 0);
}
